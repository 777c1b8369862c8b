"""The whole job: a 360 picture and an ambisonic track in, a verdict and a corrected file out.

python -m model.align VIDEO AUDIO [AUDIO ...] [-o OUT.wav | --output-dir DIR]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from threading import Event
from typing import Any

from model.ambisonics import Convention, YawRotation
from model.decision import Decision, Watch, decide, objects_by
from model.errors import MediaError
from model.interruption import command
from model.judges import Judge, judge_for
from model.media import (
    FLOAT32,
    FUMA_SUFFIX,
    Correction,
    Laying,
    Rewriting,
    check_readable,
    check_suffix,
    file_sha256,
    is_embedded,
    open_split_audio,
    output_suffix,
    write_corrected,
)
from model.options import Options
from model.orientation import Orientation, read_orientation
from model.output import JSON, PNG, Together, WholeFile, check_output, whole_file
from model.picture import draw
from model.preview import check_replaced, write_preview
from model.report import Inputs, build_report, reworded, write_json
from model.side_by_side import check_reference
from model.sync import WORTH_TELLING_S
from model.take import Progress, Take, Track
from model.trajectory import following
from model.trajectory.kinds import Trajectory
from model.turning import YawAlong
from model.wording import angle

_MISSING_S = 0.5  # of sound at its end: how long lossy sound lasts is told roughly
VERSION = metadata.version("avsa-align")


@dataclass(frozen=True)
class Outputs:
    """Where results go; what is None is not written."""

    audio: Path | None = None
    report: Path | None = None
    plot: Path | None = None
    preview: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """Those that are written."""
        named = self.audio, self.report, self.plot, self.preview
        return [path for path in named if path is not None]


def corrected_suffix(paths: Sequence[Path], options: Options) -> str:
    """Suffix of a track's corrected file: its own where it keeps its format.

    Raises
    ------
    MediaError, UnsupportedMedia, OptionError : the track cannot be opened.
    """
    with open_split_audio(paths) as reader:
        return output_suffix(reader.info, _rewriting(paths, options))


def _rewriting(paths: Sequence[Path], options: Options) -> Rewriting:
    return Rewriting(
        joined=len(paths) > 1, laid=options.lay_on_picture, floats=options.float_output
    )


def align(
    video: Path,
    track: Track,
    outputs: Outputs,
    options: Options | None = None,
    *,
    notify: Callable[[str, float], None] = lambda _stage, _fraction: None,
    wording: Callable[[str], str] = str,
) -> dict[str, Any]:
    """Judge one track against a picture, write what `outputs` names, and return the report.

    notify : called with a stage's name and the job's fraction done; may raise `Cancelled`.
    wording : puts each text of the report into words that its reader knows (paths are names to a
        service's caller).

    Raises
    ------
    InputError : a file or an option is at fault; nothing is left behind.
    OutputError, DiskFull : a result cannot be written; nothing is left behind.
    """
    options = options or Options()
    _check_outputs(outputs, [video, *track.paths, *options.files])
    by, orientation = _read_named(options, video, track)
    watch = Watch(notify)
    with (
        Together() as results,
        Take(
            video,
            track,
            stereo=options.stereo,
            device=options.device,
            looks=by.looks,
            orientation=orientation,
        ) as take,
        _hashed([video, *track.paths]) as hashes,
    ):
        if outputs.audio is not None:
            _check_name(take, outputs.audio, options)
        decision = decide(take, by, options, watch)
        correction = None
        with watch.stage("write", until=1.0) as progress:
            if outputs.audio is not None:
                correction = correct(
                    take, outputs.audio, decision.applied_deg, float_output=options.float_output,
                    along=decision.trajectory if decision.follows else None,
                    lay_on_picture=options.lay_on_picture, progress=progress, whole=results.file,
                )  # fmt: skip
        video_sha256, *audio_sha256 = (future.result() for future in hashes)
        if correction and correction.copied and correction.sha256 != audio_sha256[0]:
            raise _changed(track)
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
            # Once each: what a stretch of the picture lacks is noticed whenever it is read.
            warnings=list(dict.fromkeys([
                *take.warnings, *decision.notes, *_notes_on_output(take, correction, options),
            ])),
        )  # fmt: skip
        report |= decision.as_json() | {
            "fix": track.fix.value if track.fix else None,
            "laid_on_picture": options.lay_on_picture,
        }
        report = reworded(report, wording)
        _write_beside(outputs, report, take, decision, results.file)
    notify("done", 1.0)
    return report


def _read_named(options: Options, video: Path, track: Track) -> tuple[Judge, Orientation | None]:
    """What the files that options name hold: told, if nothing, before any work is done."""
    if options.reference is not None:
        check_reference(options.reference, track.paths)
    for option, path in options.named.items():
        try:
            check_readable(path)  # first: of a pipe the end would be waited for
        except MediaError as error:
            raise MediaError(f"{option} names no file to read: {error}") from error
    orientation = read_orientation(options.orientation) if options.orientation else None
    by = judge_for(
        options.method, weights=options.weights, checkpoint=options.checkpoint,
        device=options.device,
    )  # fmt: skip
    return replace(by, objects=objects_by(options, video)), orientation


def _write_beside(
    outputs: Outputs, report: dict[str, Any], take: Take, decision: Decision, whole: WholeFile
) -> None:
    """What tells of the corrected file."""
    if outputs.report is not None:
        write_json(report, outputs.report, whole=whole)
    if outputs.plot is not None:
        draw(report, decision.snapshot, outputs.plot, whole=whole)
    if outputs.preview is not None:
        write_preview(take, report, decision.tells_most, outputs.preview, whole=whole)


@contextmanager
def _hashed(paths: Sequence[Path]) -> Iterator[list[Future[str]]]:
    """SHA-256 of files, found beside the work; nobody waits for it when that ends early."""
    stop = Event()
    with ThreadPoolExecutor(1) as background:
        try:
            yield [background.submit(file_sha256, path, stop) for path in paths]
        finally:
            stop.set()


def _changed(track: Track) -> MediaError:
    return MediaError(
        f"{track.paths[0]} is not what it was when it was judged: let what writes it finish first."
    )


def _notes_on_output(take: Take, correction: Correction | None, options: Options) -> list[str]:
    notes = []
    if correction and options.lay_on_picture:
        notes.append(
            "The output lies on the picture's clock; the track's own metadata (bext, cue and the "
            "like) is not carried over, for its times would be wrong there."
        )
    elif correction and correction.new_wav:
        of_one = len(take.track.paths) == 1 and not options.float_output
        kept_on_request = of_one and is_embedded(take.audio)
        notes.append(
            f"The output is a new WAV file: what {take.audio.path.name} holds beside its samples "
            "is not carried over"
            + (f" (-o NAME{take.audio.path.suffix} keeps it)." if kept_on_request else ".")
        )
    begins_s = take.audio.start_s - take.video.start_s
    if _is_taken_out(take, correction, options) and abs(begins_s) >= WORTH_TELLING_S:
        notes.append(
            f"In {take.audio.path.name} the sound begins at {begins_s:+.3f} s of the picture, and "
            "the new WAV with the sound: lay it there, or say --lay-on-picture."
        )
    if correction and correction.new_wav and not options.lay_on_picture:
        ends_s = correction.n_samples / take.audio.samplerate
        if take.audio.duration_s - ends_s > _MISSING_S:
            notes.append(
                f"The sound of {take.audio.path.name} breaks off at {ends_s:.2f} s, though it "
                f"claims {take.audio.duration_s:.2f} s: it is cut short, or was not copied whole."
            )
    if correction and options.apply_deg is not None:
        notes.append(
            f"The output is turned by {angle(options.apply_deg)}, whatever was found, as "
            "--apply-deg says."
        )
    if correction and correction.new_wav and _declares_no_more(take, correction.path):
        name = take.layout.convention.value
        notes.append(
            f"Nothing in the output says that it is {name}: say --convention {name} of it."
        )
    if correction and correction.trim_db:
        notes.append(
            f"The rotated sound would have clipped: all channels were lowered by "
            f"{-correction.trim_db:.2f} dB (float output avoids this)."
        )
    if correction and correction.new_wav and take.carrier:
        notes.append(
            f"The channels' order was that of {take.carrier.name}; the output is plain AmbiX "
            "(W, Y, Z, X, …)."
        )
    return notes


def _is_taken_out(take: Take, correction: Correction | None, options: Options) -> bool:
    """Whether the picture's own sound becomes a file of its own, on its own time."""
    taken_out = correction is not None and correction.new_wav and take.shared
    return taken_out and not options.lay_on_picture


def _declares_no_more(take: Take, output: Path) -> bool:
    """Whether a track declared its convention, and a new WAV of it does not."""
    convention, declared = take.layout.convention, take.audio.convention is not None
    says_so = convention is Convention.AMBIX or output.suffix.lower() == FUMA_SUFFIX
    return declared and not says_so


def _check_name(take: Take, output: Path, options: Options) -> None:
    """Refuse a name that promises what the corrected file will not be."""
    fuma = take.layout.convention is Convention.FUMA
    check_suffix(take.audio, output, _rewriting(take.track.paths, options), fuma=fuma)


def _check_outputs(outputs: Outputs, inputs: Sequence[Path]) -> None:
    kinds = {outputs.report: JSON, outputs.plot: PNG}
    for path in outputs.paths:
        check_output(path, inputs, begins=kinds.get(path, b""))
    if outputs.preview is not None:
        check_replaced(outputs.preview)


def correct(
    take: Take,
    output: Path,
    applied_deg: float,
    *,
    along: Trajectory | None = None,
    float_output: bool = False,
    lay_on_picture: bool = False,
    progress: Progress = lambda _: None,
    whole: WholeFile = whole_file,
) -> Correction:
    """Write a take's track with its field turned by `applied_deg`, counter-clockwise.

    along : from the beginning on the rotation changes as this does.
    float_output : as in `write_corrected`.
    lay_on_picture : shifted and resampled to the picture's clock, from its first frame to its last.
    whole : as in `write_corrected`.

    Raises
    ------
    MediaError : NaN or infinite samples, or the track is not what it was any more.
    OutputError, DiskFull : the file cannot be written; nothing is left behind.
    """
    track, info = take.track, take.audio
    constant = YawRotation(take.layout, math.radians(applied_deg), fix=track.fix)
    rotation: YawRotation | YawAlong = constant
    if along is not None:
        angle_rad = following.angle_along(take, along, applied_deg, on_picture=lay_on_picture)
        rotation = YawAlong(take.layout, angle_rad, fix=track.fix)
    with open_split_audio(track.paths) as now:
        if now.info != info:
            raise _changed(track)
    stored = FLOAT32 if float_output else info.format
    width = f"W={stored.bits}," if stored else ""
    history = (
        f"A=PCM,F={info.samplerate},{width}M=multi,T=avsa-align {VERSION}; "
        + (f"fix={track.fix}; " if track.fix else "")
        + f"rotate_field_ccw_deg={applied_deg:+.2f}"
        + (" and changing" if along else "")
    )
    # In a WAV file nothing would tell of a carrier's order.
    carrier = take.carrier
    keep = (*carrier.components, *carrier.beside) if carrier else None
    laying = None
    if lay_on_picture:
        laying = Laying(take.placement, round(take.video.duration_s * info.samplerate))
    return write_corrected(
        track.paths,
        output,
        rotation.channel_mix,
        keep_channels=keep,
        laying=laying,
        history=history,
        # What is neither turned nor laid is a byte copy, which is no new file of samples.
        float_output=float_output
        and (lay_on_picture or along is not None or not constant.is_identity),
        progress=progress,
        whole=whole,
    )


if __name__ == "__main__":
    from model.commandline import main

    sys.exit(command(main, in_a_line=True))
