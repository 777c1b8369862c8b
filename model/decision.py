"""What is made of a take: its windows are judged, checked against all that may mislead, and told.

The windows decide on the rotation. Beside them: which way round the field is, whether the sound
comes late, how the rotation changes along the take, and what another recording says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model import features
from model.arcs import wrapped_deg
from model.checkpoint import Calibration, Method, load_calibration
from model.detections import ObjectScorer, detections_of
from model.detector import DetectorScorer, load_detector
from model.errors import UnusableContent
from model.handedness import Handedness, HandednessTest, prior_given
from model.judges import Judge
from model.lag import Lag, LagTest
from model.learned import LearnedScorer
from model.options import Options
from model.picture import FRAME_SIZE, Snapshot
from model.scoring import (
    Judgement,
    ScoredWindow,
    Scorer,
    Verdict,
    Window,
    judge,
    score,
    withheld,
)
from model.side_by_side import SideBySide, find_reference, side_by_side
from model.take import Progress, Take
from model.trajectory import following
from model.trajectory.kinds import Kind, Trajectory

# Mean of `Motion.energy`: footage in which little moves has 50 times as much.
_LEAST_MOTION = 1e-5
_READING = 0.7  # share of scoring that goes into reading: decoding, and the motion of the picture


@dataclass
class Watch:
    """Progress over stages, and the seconds each took."""

    notify: Callable[[str, float], None] = lambda _stage, _fraction: None
    seconds: dict[str, float] = field(default_factory=dict)
    _reached: float = field(default=0.0, init=False)

    @contextmanager
    def stage(self, name: str, *, until: float) -> Iterator[Progress]:
        """Time a stage; its progress from 0 to 1 is the job's from what it has reached."""
        began, start = time.perf_counter(), self._reached
        self.notify(name, start)
        yield lambda fraction: self.notify(name, start + (until - start) * fraction)
        self._reached = until
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
    scorers: Sequence[Scorer],
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
    with watch.stage("scan", until=0.2) as progress:
        places = take.choose_windows(n_windows, progress)
    scored = []
    with watch.stage("score", until=0.8) as progress:
        windows = moving_windows(take, places, lambda fraction: progress(_READING * fraction))
        for index, window in enumerate(windows):
            scored.append(score(window, scorers, calibration))
            observe(window, scored[-1])
            progress(_READING + (1 - _READING) * (index + 1) / len(windows))
    snapshot = _snapshot(take, windows[len(windows) // 2])
    return judge(scored, calibration, tolerance_deg=tolerance_deg), scored, snapshot


def _snapshot(take: Take, window: Window) -> Snapshot:
    """The middle of a window as it is played and heard, which is not quite as it is judged: there
    the sound is turned along the microphone's orientation, and into the frame's own axes.
    """
    at_s = window.start_s + window.duration_s / 2
    turned_deg = float(take.orientation.at(np.array(at_s))) if take.orientation else 0.0
    back = math.radians(take.video.pose_yaw_deg - turned_deg)
    frame = take.as_played(take.picture.read_frame(at_s, size=FRAME_SIZE))
    return Snapshot(at_s, frame, features.rotated(window.covariance.cpu(), back), turned_deg)


def moving_windows(
    take: Take,
    places: Sequence[tuple[float, float]],
    progress: Progress = lambda _fraction: None,
) -> list[Window]:
    """The windows at these places in which something moves; all of them if nothing ever does.

    A still picture (a title, black, a frozen frame) fits every rotation alike, and would count
    against what others say.

    Raises
    ------
    UnusableContent : none could be read.
    """
    windows = []
    for index, place in enumerate(places):
        window = take.window(*place)
        if window is not None:
            windows.append(window)
        progress((index + 1) / len(places))
    if not windows:
        raise UnusableContent(
            f"{take.video.path} has no readable picture where the sound is: "
            + (take.warnings[-1] if take.warnings else "it is damaged.")
        )
    moving = [window for window in windows if float(window.motion.energy.mean()) > _LEAST_MOTION]
    still = len(windows) - len(moving)
    if moving and still:
        take.warnings.append(
            f"The picture stands still in {still} of {len(windows)} windows, which were left out."
        )
    return moving or windows


@dataclass(frozen=True)
class Decision:
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

    @property
    def tells_most(self) -> tuple[float, float]:
        """Start and duration in seconds of the window that counts most."""
        best = max(self.windows, key=lambda window: window.information)
        return best.start_s, best.duration_s

    def as_json(self) -> dict[str, Any]:
        """What a report says besides the judgement."""
        told: dict[str, Any] = {
            "conventions": self.conventions,
            "lag": self.lag.as_json() if self.lag and self.lag.sure else None,
            "reference": self.beside.as_json() if self.beside else None,
        }
        if self.trajectory:
            told["trajectory"] = following.as_json(self.trajectory, followed=self.follows)
        return told


def decide(take: Take, by: Judge, options: Options, watch: Watch) -> Decision:
    """Judge a take, and weigh all that may mislead.

    Raises
    ------
    UnusableContent, MediaError, OptionError : a file is at fault; the sentence names it.
    """
    calibration = by.calibration
    lags, noted = _lag_test(take, by), list(take.warnings)
    found = _find(take, by, options, watch, lags)
    lag = lags.result() if lags else None
    if lag and lag.out_of_time:
        take.warnings[:] = noted  # of windows that are not judged
        take.move(-lag.late_s)
        found = _find(take, by, options, watch.once_more())
    judgement, hypotheses = found.judgement, found.hypotheses
    diagnosis = take.diagnosis.with_findings(hypotheses.findings(take.track.fix))
    trajectory = _trajectory(take, by, options, watch)
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
    with watch.stage("compare", until=0.95):
        beside = _beside(take, judgement, calibration, options)
    if beside:
        notes.append(beside.note)
    if beside and (beside.fault or not (changes and options.follow)):
        # A reference has one angle for the whole take; where that is followed, the picture's stays.
        judgement = beside.together
    if changes and follow:
        judgement = following.never_aligned(judgement)
    if take.placement.foreign:
        judgement = withheld(
            judgement, "By the camera's own sound the track does not belong to the footage; where "
            "that is wrong, --offset-s says where it begins and the check is left out.",
        )  # fmt: skip
    applied_deg = _applied_deg(judgement, options)
    if trajectory and (follow or not changes):
        # As it is written: from what is applied or was judged on, by what changes.
        found_deg = judgement.rotate_field_ccw_deg
        first_deg = applied_deg if follow and applied_deg is not None else found_deg
        trajectory = following.beginning_with(trajectory, first_deg)
    if take.orientation and judgement.verdict is Verdict.UNDECIDABLE and applied_deg is None:
        notes.append(
            f"The output is not turned along {take.orientation.path.name}, for the constant that "
            "is left is undecidable: --apply-undecided turns it all the same."
        )
    return Decision(
        judgement,
        found.windows,
        found.snapshot,
        {**diagnosis.as_json(), "hypotheses": hypotheses.as_json()},
        notes,
        lag,
        beside,
        trajectory,
        applied_deg=applied_deg or 0.0,
        follows=applied_deg is not None and changes and follow,
    )


def _applied_deg(judgement: Judgement, options: Options) -> float | None:
    """The rotation that the output gets; None where it stays as it is."""
    if options.apply_deg is not None:
        return wrapped_deg(options.apply_deg)
    undecided = judgement.verdict is Verdict.UNDECIDABLE
    turn = judgement.verdict is Verdict.MISALIGNED or (undecided and options.apply_undecided)
    return judgement.rotate_field_ccw_deg if turn else None


@dataclass(frozen=True)
class _Found:
    """What the windows of a take say."""

    judgement: Judgement
    windows: list[ScoredWindow]
    snapshot: Snapshot
    hypotheses: Handedness


def _find(
    take: Take, by: Judge, options: Options, watch: Watch, lags: LagTest | None = None
) -> _Found:
    scorers = [*by.scorers, *([by.objects(take)] if by.objects else [])]
    hypotheses = HandednessTest(by.calibration, scorers, prior_given(take.diagnosis))

    def observe(window: Window, scored: ScoredWindow) -> None:
        if lags:  # first: with the sound that was just scored
            lags.add(window)
        hypotheses.add(window, scored)

    judgement, windows, snapshot = judge_take(
        take, by.calibration, scorers=scorers, n_windows=options.n_windows,
        tolerance_deg=options.tolerance_deg, watch=watch, observe=observe,
    )  # fmt: skip
    return _Found(judgement, windows, snapshot, hypotheses.result())


def _lag_test(take: Take, by: Judge) -> LagTest | None:
    """Where neither the user nor the camera's sound says when the track begins."""
    if take.track.offset_s is not None or take.placement.sync is not None:
        return None
    learned = _learned(by)
    return LagTest(learned) if learned else None


def _learned(by: Judge) -> LearnedScorer | None:
    """The judge's learned scorer, if it has one."""
    return next((scorer for scorer in by.scorers if isinstance(scorer, LearnedScorer)), None)


def objects_by(options: Options, video: Path) -> Callable[[Take], Scorer] | None:
    """What a detector sees in takes of a video, or has seen, as a `Judge` has it.

    Raises
    ------
    MediaError, OptionError : as `load_detector` and `detections_of`.
    """
    if options.detector is not None:
        return partial(DetectorScorer, load_detector(options.detector, options.device))
    if options.detections is not None:
        seen = ObjectScorer(detections_of(options.detections, options.clip or video.stem))
        return lambda _take: seen
    return None


def _trajectory(take: Take, by: Judge, options: Options, watch: Watch) -> Trajectory | None:
    """How the rotation changes along a take: as is known, or as is found if that is asked."""
    if take.orientation:
        return following.known(take.orientation, take.video.duration_s)
    if not (options.over_time or options.follow):
        return None
    with watch.stage("trace", until=0.9) as progress:
        calibration = load_calibration(method=Method.EVIDENCE)
        return following.traced(take, calibration, _learned(by), progress)


def _beside(
    take: Take, judgement: Judgement, calibration: Calibration, options: Options
) -> SideBySide | None:
    """What a reference says beside the picture, if there is one."""
    found = find_reference(take, options.reference)
    if found is None:
        return None
    return side_by_side(found, judgement, calibration, tolerance_deg=options.tolerance_deg)
