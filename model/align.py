"""The whole job: a 360 picture and an ambisonic track in, a verdict and a corrected file out.

python -m model.align VIDEO AUDIO [AUDIO ...] [-o OUT.wav | --output-dir DIR]
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model import features, following
from model.ambisonics import YawRotation
from model.checkpoint import Calibration, Method, load_calibration
from model.detections import ObjectScorer, detections_of
from model.detector import DetectorScorer, load_detector
from model.errors import UnusableContent
from model.handedness import Handedness, HandednessTest, prior_given
from model.judges import Judge, judge_for
from model.lag import Lag, LagTest
from model.learned import LearnedScorer
from model.media import (
    Clock,
    Correction,
    check_suffix,
    file_sha256,
    write_corrected,
)
from model.options import Options
from model.orientation import read_orientation
from model.output import check_output
from model.report import FRAME_SIZE, Inputs, Snapshot, build_report, draw, relabelled, write_json
from model.scoring import (
    Judgement,
    ScoredWindow,
    Scorer,
    Verdict,
    Window,
    judge,
    score,
    training_free,
    withheld,
)
from model.side_by_side import SideBySide, find_reference, side_by_side
from model.take import Progress, Take, Track
from model.trajectory import Kind, Trajectory
from model.turning import YawAlong

VERSION = "0.1.0"


@dataclass(frozen=True)
class Outputs:
    """Where results go; what is None is not written."""

    audio: Path | None = None
    report: Path | None = None
    plot: Path | None = None


@dataclass
class Watch:
    """Progress over stages, and the seconds each took."""

    notify: Callable[[str, float], None] = lambda _stage, _fraction: None
    seconds: dict[str, float] = field(default_factory=dict)
    _reached: float = field(default=0.0, init=False)

    @contextmanager
    def stage(self, name: str, start: float, end: float) -> Iterator[Progress]:
        """Time a stage; its progress from 0 to 1 is the job's from `start` to `end`."""
        began = time.perf_counter()
        self.notify(name, start)
        yield lambda fraction: self.notify(name, start + (end - start) * fraction)
        self._reached = end
        spent = time.perf_counter() - began
        self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def once_more(self) -> Watch:
        """For doing stages again: seconds add up, progress stays where it is."""
        notify, reached = self.notify, self._reached
        return Watch(lambda stage, _fraction: notify(stage, reached), self.seconds)


def judge_take(
    take: Take,
    calibration: Calibration,
    *,
    n_windows: int,
    tolerance_deg: float,
    scorers: Sequence[Scorer] = (training_free,),
    watch: Watch | None = None,
    observe: Callable[[Window, ScoredWindow], None] = lambda _window, _scored: None,
) -> tuple[Judgement, list[ScoredWindow], Snapshot]:
    """Choose windows of a take, score and pool them.

    observe : called with each window and its score.

    Raises
    ------
    UnusableContent : no window could be used.
    """
    watch = watch or Watch()
    with watch.stage("scan", 0.0, 0.2) as progress:
        places = take.choose_windows(n_windows, progress)
    scored, snapshot = [], None
    with watch.stage("score", 0.2, 0.8) as progress:
        for index, (start_s, duration_s) in enumerate(places):
            window = take.window(start_s, duration_s)
            if window is not None:
                scored.append(score(window, scorers, calibration))
                observe(window, scored[-1])
                if snapshot is None or 2 * index <= len(places):
                    snapshot = (start_s + window.duration_s / 2, window.covariance)
            progress((index + 1) / len(places))
    if not scored or snapshot is None:
        raise UnusableContent(
            f"{take.video.path} has no readable picture where the sound is: "
            + (take.warnings[-1] if take.warnings else "it is damaged.")
        )
    at_s, covariance = snapshot
    pose = math.radians(take.video.pose_yaw_deg)
    moment = Snapshot(
        at_s, take.frame(at_s, size=FRAME_SIZE), features.rotated(covariance.cpu(), pose)
    )
    return judge(scored, calibration, tolerance_deg=tolerance_deg), scored, moment


def align(
    video: Path,
    track: Track,
    outputs: Outputs,
    options: Options | None = None,
    *,
    notify: Callable[[str, float], None] = lambda _stage, _fraction: None,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Judge one track against a picture, write what `outputs` names, and return the report.

    notify : called with a stage's name and the job's fraction done; may raise `Cancelled`.
    labels : names to tell in place of paths, where paths mean nothing to the reader.

    Raises
    ------
    InputError : a file or an option is at fault; nothing is left behind.
    OutputError, DiskFull : a result cannot be written.
    """
    options = options or Options()
    by = judge_for(
        options.method, weights=options.weights, checkpoint=options.checkpoint,
        device=options.device,
    )  # fmt: skip
    _check_outputs(outputs, [video, *track.paths, *options.files])
    watch = Watch(notify)
    with (
        Take(
            video,
            track,
            stereo=options.stereo,
            device=options.device,
            looks=by.looks,
            orientation=read_orientation(options.orientation) if options.orientation else None,
        ) as take,
        ThreadPoolExecutor(1) as background,
    ):
        if outputs.audio is not None:
            check_suffix(take.audio, outputs.audio)
        hashes = [background.submit(file_sha256, path) for path in (video, *track.paths)]
        decision = _decide(take, by, options, watch)
        correction = None
        with watch.stage("write", 0.9 if decision.trajectory else 0.8, 1.0) as progress:
            if outputs.audio is not None:
                correction = correct(
                    take, track, outputs.audio, decision.applied_deg, options.float_output,
                    progress, along=decision.trajectory if decision.follows else None,
                    lay_on_picture=options.lay_on_picture,
                )  # fmt: skip
        video_sha256, *audio_sha256 = (future.result() for future in hashes)
        report = build_report(
            judgement=decision.judgement,
            windows=decision.windows,
            inputs=Inputs(
                take.video, video_sha256, take.audio, track.paths, tuple(audio_sha256),
                take.layout, take.placement,
            ),
            correction=correction,
            applied_deg=decision.applied_deg,
            calibration=by.calibration,
            device=options.device,
            timings_s=watch.seconds,
            warnings=[
                *take.warnings, *decision.notes, *_notes_on_output(take, correction, options),
            ],
        )  # fmt: skip
        report["conventions"] = decision.conventions
        report["fix"] = track.fix.value if track.fix else None
        report["laid_on_picture"] = options.lay_on_picture
        report["lag"] = decision.lag.as_json() if decision.lag and decision.lag.sure else None
        report["reference"] = decision.beside.as_json() if decision.beside else None
        if decision.trajectory:
            report["trajectory"] = following.as_json(decision.trajectory, followed=decision.follows)
    report = relabelled(report, labels or {})
    if outputs.report is not None:
        write_json(report, outputs.report)
    if outputs.plot is not None:
        draw(report, decision.snapshot, outputs.plot)
    notify("done", 1.0)
    return report


@dataclass(frozen=True)
class _Decision:
    """What is made of a take.

    Attributes
    ----------
    applied_deg : rotation of the output; at its beginning, if it follows the trajectory.
    follows : whether the output's rotation changes as the trajectory does.
    """

    judgement: Judgement
    windows: list[ScoredWindow]
    snapshot: Snapshot
    conventions: dict[str, Any]
    notes: list[str]
    lag: Lag | None
    beside: SideBySide | None
    trajectory: Trajectory | None
    applied_deg: float
    follows: bool


def _decide(take: Take, by: Judge, options: Options, watch: Watch) -> _Decision:
    calibration = by.calibration
    found = _find(take, by, options, watch)
    lag = found.lag
    if lag and lag.out_of_time:
        take.move(-lag.late_s)
        found = _find(take, by, options, watch.once_more())
    judgement, hypotheses = found.judgement, found.hypotheses
    diagnosis = take.diagnosis.with_findings(hypotheses.findings())
    trajectory = _trajectory(take, options, watch)
    changes = trajectory is not None and trajectory.kind is not Kind.CONSTANT
    follow = options.follow or take.orientation is not None
    told = trajectory and following.sentence(trajectory, follow=follow)
    notes = [*diagnosis.warnings, *([told] if told else [])]
    if lag and lag.out_of_time:
        notes.append(lag.sentence)
    if trajectory and changes and options.follow:
        judgement = following.judge_along(
            found.windows, trajectory, calibration, tolerance_deg=options.tolerance_deg
        )
    with watch.stage("compare", 0.9 if trajectory else 0.8, 0.9 if trajectory else 0.8):
        beside = _beside(take, judgement, calibration, options)
    if beside:
        notes.append(beside.note)
    if beside and not (changes and options.follow):
        judgement = beside.together
    if changes and follow:
        judgement = following.never_aligned(judgement)
    if take.placement.foreign:
        judgement = withheld(
            judgement, "By the camera's own sound the track does not belong to the footage; where "
            "that is wrong, --offset-s says where it begins and the check is left out.",
        )  # fmt: skip
    undecided = judgement.verdict is Verdict.UNDECIDABLE
    turn = judgement.verdict is Verdict.MISALIGNED or (undecided and options.apply_undecided)
    return _Decision(
        judgement,
        found.windows,
        found.snapshot,
        {**diagnosis.as_json(), "hypotheses": hypotheses.as_json()},
        notes,
        lag,
        beside,
        trajectory,
        applied_deg=judgement.rotate_field_ccw_deg if turn else 0.0,
        follows=turn and changes and follow,
    )


@dataclass(frozen=True)
class _Found:
    """What the windows of a take say; lag: None where it was not asked for."""

    judgement: Judgement
    windows: list[ScoredWindow]
    snapshot: Snapshot
    hypotheses: Handedness
    lag: Lag | None


def _find(take: Take, by: Judge, options: Options, watch: Watch) -> _Found:
    scorers = _scorers(by, take, options)
    hypotheses = HandednessTest(by.calibration, scorers, prior_given(take.diagnosis))
    lags = _lag_test(take, by)

    def observe(window: Window, scored: ScoredWindow) -> None:
        hypotheses.add(window, scored)
        if lags:
            lags.add(window)

    judgement, windows, snapshot = judge_take(
        take, by.calibration, scorers=scorers, n_windows=options.n_windows,
        tolerance_deg=options.tolerance_deg, watch=watch, observe=observe,
    )  # fmt: skip
    lag = lags.result() if lags else None
    return _Found(judgement, windows, snapshot, hypotheses.result(), lag)


def _lag_test(take: Take, by: Judge) -> LagTest | None:
    """Where neither the user nor the camera's sound says when the track begins."""
    if take.track.offset_s is not None or take.placement.sync is not None:
        return None
    learned = [scorer for scorer in by.scorers if isinstance(scorer, LearnedScorer)]
    return LagTest(learned[0]) if learned else None


def _scorers(by: Judge, take: Take, options: Options) -> Sequence[Scorer]:
    """The judge's, and what a detector sees or has seen beside them."""
    if options.detector is not None:
        found = DetectorScorer(load_detector(options.detector, options.device), take)
        return [*by.scorers, found]
    if options.detections is not None:
        return [*by.scorers, ObjectScorer(detections_of(options.detections, take.video.path))]
    return by.scorers


def _trajectory(take: Take, options: Options, watch: Watch) -> Trajectory | None:
    """How the rotation changes along a take: as is known, or as is found if that is asked."""
    if take.orientation:
        return following.known(take.orientation, take.video.duration_s)
    if not (options.over_time or options.follow):
        return None
    with watch.stage("trace", 0.8, 0.9) as progress:
        # The training-free evidence tells how a rotation changes.
        return following.traced(take, load_calibration(method=Method.EVIDENCE), progress)


def _beside(
    take: Take, judgement: Judgement, calibration: Calibration, options: Options
) -> SideBySide | None:
    """What a reference says beside the picture, if there is one."""
    found = find_reference(take, options.reference)
    if found is None:
        return None
    return side_by_side(found, judgement, calibration, tolerance_deg=options.tolerance_deg)


def _notes_on_output(take: Take, correction: Correction | None, options: Options) -> list[str]:
    notes = []
    if correction and options.lay_on_picture:
        notes.append(
            "The output lies on the picture's clock; the track's own metadata (bext, cue and the "
            "like) is not carried over, for its times would be wrong there."
        )
    if correction and correction.trim_db:
        notes.append(
            f"The rotated sound would have clipped: all channels were lowered by "
            f"{-correction.trim_db:.2f} dB (float output avoids this)."
        )
    if correction and take.audio.components:
        notes.append(
            "The track was YouTube's 5.1 carrier of ambisonics; the output is plain AmbiX "
            "(W, Y, Z, X)."
        )
    return notes


def _check_outputs(outputs: Outputs, inputs: Sequence[Path]) -> None:
    for path in (outputs.audio, outputs.report, outputs.plot):
        if path is not None:
            check_output(path, [p for p in inputs if p.exists()])


def correct(
    take: Take,
    track: Track,
    output: Path,
    applied_deg: float,
    float_output: bool = False,
    progress: Progress = lambda _: None,
    *,
    along: Trajectory | None = None,
    lay_on_picture: bool = False,
) -> Correction:
    """Write a take's track with its field turned by `applied_deg`, counter-clockwise.

    along : from the beginning on the rotation changes as this does.
    lay_on_picture : shifted and resampled to the picture's clock, from its first frame to its last.

    Raises
    ------
    MediaError : NaN or infinite samples.
    OutputError, DiskFull : the file cannot be written; nothing is left behind.
    """
    constant = YawRotation(take.layout, math.radians(applied_deg), fix=track.fix)
    rotation: YawRotation | YawAlong = constant
    if along is not None:
        angle_rad = following.angle_along(take, along, applied_deg, on_picture=lay_on_picture)
        rotation = YawAlong(take.layout, angle_rad, fix=track.fix)
    info = take.audio
    width = f"W={info.format.bits}," if info.format else ""
    history = (
        f"A=PCM,F={info.samplerate},{width}M=multi,T=avsa-align {VERSION}; "
        + (f"fix={track.fix}; " if track.fix else "")
        + f"rotate_field_ccw_deg={applied_deg:+.2f}"
        + (" and changing" if along else "")
    )
    # YouTube's 5.1 order is its AAC carrier's; in a WAV file nothing would say so.
    keep = take.layout.components if info.components and not track.components else None
    clock = None
    if lay_on_picture:
        n_samples = round(take.video.duration_s * info.samplerate)
        clock = Clock(take.placement.offset_s, take.placement.drift_ppm, n_samples)
    return write_corrected(
        track.paths,
        output,
        rotation.channel_mix,
        keep_channels=keep,
        clock=clock,
        history=history,
        float_output=float_output and not (constant.is_identity and along is None),
        progress=progress,
    )


if __name__ == "__main__":
    from model.commandline import main

    sys.exit(main())
