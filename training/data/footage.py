"""Own 360 footage: takes that are assumed to be aligned, cut into windows for training.

    python -m training.data.footage TAKES OUTPUT --workers 2

TAKES is a folder of 360 videos, each with its ambisonic track beside it under the same name (or
inside it), or a manifest (`training.data.manifest`), whose `rotated_deg` is taken back and whose
weak takes, in which nothing visible sounds, are left out.

The training is self-supervised: that sound and picture fit as they are is all it needs to know. A
misaligned take teaches what is wrong, so only footage that is known to fit belongs here.

Windows are read by `python -m training.pretrain`. OUTPUT/footage.json says what became of each take
and is written after each, so a run that was stopped goes on where it was; a take that cannot be
used is left out and named.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from model import features
from model.errors import AvsaError, InputError, UnusableContent
from model.interruption import command
from model.output import make_folder, whole_file
from model.rig import find_takes
from model.scoring import Window
from model.take import Take, Track
from training.data.manifest import WEAK, read_manifest
from training.data.ordinary import list_videos
from training.data.windows import save_window
from training.options import one_or_more
from training.processes import Processes

STATE = "footage.json"
_LEAST_S = 4.0  # shorter windows would shorten every batch that they are in


@dataclass(frozen=True)
class Footage:
    """Files of a take whose track fits its picture after a rotation by minus `rotated_deg`."""

    video: Path
    audio: Path
    rotated_deg: float = 0.0

    @property
    def key(self) -> str:
        """A file name of its own: takes of several folders may share theirs."""
        whole = f"{self.video.absolute()}\n{self.audio.absolute()}\n{self.rotated_deg}"
        return f"{self.audio.stem}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"

    def fingerprint(self) -> list[int]:
        """Sizes and times of change: whether the files are still those that were cut."""
        stats = [path.stat() for path in (self.video, self.audio) if path.exists()]
        return [value for stat in stats for value in (stat.st_size, stat.st_mtime_ns)]


@dataclass(frozen=True)
class Outcome:
    """What became of a take: how many windows, what was left out, and of what files."""

    windows: int
    reasons: list[str]
    cut_from: list[int]


def find_footage(place: Path) -> tuple[list[Footage], list[str]]:
    """The takes of a folder, with its subfolders, or of a manifest; and what is left out, and why.

    Raises
    ------
    MediaError : there are none, or a line of the manifest is not a take.
    """
    takes, reasons = [], []
    if place.is_dir():
        for video in list_videos(place):
            try:
                takes += [Footage(take.video, take.audio) for take in find_takes([video])]
            except InputError as error:
                reasons.append(str(error))
        return takes, reasons
    for known in read_manifest(place):
        if known.tier == WEAK:
            reasons.append(f"{known.name} is of tier {WEAK}: nothing visible sounds in it.")
        else:
            takes.append(Footage(known.video, known.audio, known.rotated_deg))
    # Lines that ask about one take in several ways hold the same windows, and the same files.
    return list(dict.fromkeys(takes)), reasons


def windows_of(footage: Footage, most: int) -> Iterator[Window | str]:
    """Windows of a take, fitting at a rotation of 0; in the place of one left out, the reason.

    Raises
    ------
    InputError : the take cannot be read, or cannot be used.
    """
    with Take(footage.video, Track((footage.audio,))) as take:
        if take.placement.foreign:
            raise UnusableContent(
                f"{footage.audio} does not belong to {footage.video}, by the camera's own sound."
            )
        for start_s, duration_s in take.choose_windows(most):
            n_warnings = len(take.warnings)
            window = take.window(start_s, duration_s)
            if window is None:
                yield take.warnings[n_warnings]
            elif window.duration_s < _LEAST_S:
                yield (
                    f"{footage.video} has a window of {window.duration_s:.1f} s only at "
                    f"{start_s:.1f} s; training needs {_LEAST_S:.0f} s."
                )
            elif not window.covariance.any():
                yield f"{footage.audio} is silent for {duration_s:.0f} s at {start_s:.1f} s."
            else:
                yield _set_right(window, footage.rotated_deg)


def _set_right(window: Window, rotated_deg: float) -> Window:
    if not rotated_deg:
        return window
    covariance = features.rotated(window.covariance, -math.radians(rotated_deg))
    return Window(window.start_s, window.duration_s, covariance, window.motion)


def cut(footage: Footage, output: Path, most: int) -> Outcome:
    """Keep a take's windows as `output/KEY-NUMBER.safetensors`, in place of any older ones."""
    torch.set_num_threads(1)
    for older in output.iterdir():
        if older.name.startswith(f"{footage.key}-"):
            older.unlink()
    n, reasons = 0, []
    try:
        for window in windows_of(footage, most):
            if isinstance(window, str):
                reasons.append(window)
            else:
                save_window(output / f"{footage.key}-{n:04d}.safetensors", window)
                n += 1
    except InputError as error:
        reasons.append(str(error))
    return Outcome(n, reasons, [most, *footage.fingerprint()])


def cut_all(
    takes: Sequence[Footage], output: Path, most: int, *, workers: int = 1
) -> Iterator[Outcome]:
    """Cut takes by processes, in order; those that have been cut before are left as they are."""
    make_folder(output)
    outcomes = read_state(output)
    with Processes(workers) as pool:
        futures = {}
        for take in takes:
            before = outcomes.get(take.key)
            if before is None or before.cut_from != [most, *take.fingerprint()]:
                futures[take.key] = pool.submit(cut, take, output, most)
        for take in takes:
            if take.key in futures:
                outcomes[take.key] = futures[take.key].result()
                _write_state(output, outcomes)
            yield outcomes[take.key]


def read_state(output: Path) -> dict[str, Outcome]:
    """What became of each take so far, by its key."""
    path = output / STATE
    if not path.exists():
        return {}
    return {key: Outcome(**fields) for key, fields in json.loads(path.read_text()).items()}


def _write_state(output: Path, outcomes: dict[str, Outcome]) -> None:
    with whole_file(output / STATE) as part:
        fields = {key: asdict(outcome) for key, outcome in outcomes.items()}
        part.write_text(json.dumps(fields, indent=1, ensure_ascii=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Cut takes into windows for training."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.footage",
        description="Cut 360 footage that is known to be aligned into windows for training.",
    )
    parser.add_argument("takes", type=Path, help="folder of takes, or a manifest (.jsonl)")
    parser.add_argument("output", type=Path, help="where windows go; made if it is not there")
    parser.add_argument(
        "--per-take", type=one_or_more, default=60, metavar="N",
        help="at most so many windows of 10 s of a take, spread over it (default 60)",
    )  # fmt: skip
    parser.add_argument("--workers", type=one_or_more, default=1, help="processes (default 1)")
    options = parser.parse_args(argv)
    try:
        takes, reasons = find_footage(options.takes)
        outcomes = []
        results = cut_all(takes, options.output, options.per_take, workers=options.workers)
        for outcome in tqdm(results, total=len(takes), unit="take", desc="cutting"):
            outcomes.append(outcome)
            reasons += outcome.reasons
        n_windows = sum(outcome.windows for outcome in outcomes)
        if not n_windows:
            raise UnusableContent(
                f"Nothing in {options.takes} can be used; the first says: {reasons[0]}"
            )
    except (AvsaError, ValueError) as error:
        print(f"training.data.footage: {error}", file=sys.stderr)
        return 2
    n_used = sum(outcome.windows > 0 for outcome in outcomes)
    print(f"{n_windows} windows of {n_used} takes.", file=sys.stderr)
    if reasons:
        print(f"{len(reasons)} times something was left out:", file=sys.stderr)
    for reason in reasons:
        print(f"  {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
