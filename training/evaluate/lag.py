"""Whether sound that is late is told, where no sound of the camera helps, and by how much.

    python -m training.evaluate lag --manifest FILE
    python -m training.evaluate lag --windows FOLDER

Each take is asked as it is, and with its sound moved by each of `SHIFTS_S`. A folder is of long
windows of synthetic scenes (`python -m training.data.windows FOLDER --duration-s 30`), each judged
in three parts as a take's windows are; their sound is moved by the nearest whole interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from model.checkpoint import load_scorer
from model.decision import moving_windows
from model.errors import UnusableContent
from model.lag import IN_TIME_S, LEAST_WINDOW_S, Lag, LagTest
from model.learned import LearnedScorer
from model.scoring import Window
from model.take import Take, Track
from training.data.excerpts import cut, thirds, with_sound
from training.data.manifest import KnownTake, read_manifest
from training.data.windows import kept_windows, load_window
from training.figures import write_report

SHIFTS_S = (-0.4, -0.2, 0.0, 0.2, 0.4)
_NEAR_S = IN_TIME_S + 0.05  # what counts as right: things move before or after they sound
_WINDOWS = 8


@dataclass(frozen=True)
class Answer:
    """What was said of a take whose sound was moved.

    Attributes
    ----------
    moved_s : by how much later; of synthetic scenes, exactly.
    told : whether the take was said to be late or early.
    """

    take: str
    shift_s: float
    moved_s: float
    late_s: float
    probability: float
    told: bool
    right: bool


def late(window: Window, intervals: int) -> Window:
    """A window whose sound comes later by so many intervals, and that is shorter by as many."""
    if intervals == 0:
        return window
    n = len(window.covariance)
    if intervals > 0:
        return with_sound(cut(window, intervals, n), window.covariance[:-intervals])
    return with_sound(cut(window, 0, n + intervals), window.covariance[-intervals:])


def ask_windows(path: Path, scorer: LearnedScorer) -> Iterator[Answer]:
    """A long window of a scene, as it is and moved.

    Raises
    ------
    UnusableContent : it is too short for that.
    """
    window = load_window(path)
    third_s = (window.duration_s - max(SHIFTS_S)) / 3
    if third_s < LEAST_WINDOW_S:
        raise UnusableContent(
            f"{path} is of {window.duration_s:g} s: moved, its thirds are of {third_s:.1f} s, and "
            f"no lag is looked for in less than {LEAST_WINDOW_S:g} s. Give windows of 30 s."
        )
    interval_s = window.interval_s
    for shift_s in SHIFTS_S:
        intervals = round(shift_s / interval_s)
        test = LagTest(scorer)
        for part in thirds(late(window, intervals)):
            test.add(part)
        yield _answer(path.stem, shift_s, intervals * interval_s, test.result())


def ask_take(known: KnownTake, scorer: LearnedScorer) -> Iterator[Answer]:
    """A real take, as it is and moved."""
    for shift_s in SHIFTS_S:
        test = LagTest(scorer)
        with Take(known.video, Track((known.audio,), offset_s=shift_s)) as take:
            for window in moving_windows(take, take.choose_windows(_WINDOWS)):
                test.add(window)
        yield _answer(known.name, shift_s, shift_s, test.result())


def _answer(name: str, shift_s: float, moved_s: float, lag: Lag) -> Answer:
    near = abs(lag.late_s - moved_s) <= _NEAR_S
    return Answer(
        name, shift_s, round(moved_s, 4), round(lag.late_s, 4), round(lag.probability, 4),
        lag.out_of_time, near,
    )  # fmt: skip


def table(answers: list[Answer]) -> str:
    """For a terminal: a line for each shift."""
    lines = [f"{'moved by':>9} {'takes':>6} {'told':>6} {'of these right':>15} {'best right':>11}"]
    for shift_s in SHIFTS_S:
        of = [a for a in answers if a.shift_s == shift_s]
        told = [a for a in of if a.told]
        right = f"{sum(a.right for a in told)} of {len(told)}"
        best = float(np.mean([a.right for a in of]))
        share = len(told) / len(of)
        lines.append(f"{shift_s:+8.1f}s {len(of):6d} {share:6.0%} {right:>15} {best:11.0%}")
    return "\n".join(lines)


def run(
    *, manifest: Path | None = None, windows: Path | None = None, report: Path | None = None
) -> list[dict[str, Any]]:
    """Ask takes of a manifest, or scenes of a folder, print the table, return all answers.

    Raises
    ------
    AvsaError : a file cannot be read; it is named.
    """
    torch.set_num_threads(1)
    scorer = LearnedScorer(load_scorer())
    answers: list[Answer] = []
    if manifest is not None:
        for known in tqdm(read_manifest(manifest), unit="take", disable=None):
            answers += ask_take(known, scorer)
    if windows is not None:
        for path in tqdm(kept_windows(windows), unit="scene", disable=None):
            answers += ask_windows(path, scorer)
    print(table(answers))
    told = [asdict(answer) for answer in answers]
    if report is not None:
        write_report(report, told)
    return told
