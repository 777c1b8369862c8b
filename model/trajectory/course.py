"""A whole take as maps over time and azimuth, and what its short windows say of the rotation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint import Calibration
from model.evidence import CUES, N_YAWS, acoustic_maps, compared
from model.features import Motion
from model.learned import LearnedScorer
from model.scoring import Window
from model.take import Progress, Take

FloatArray = NDArray[np.float64]

BLOCK_S = 10.0
VIEW_S, HOP_S = 6.0, 1.0  # of the short windows
_LEAST_INTERVALS = 12  # of a short window that is scored by the training-free cues
_VETO = 6.0  # no window counts more than this many nats against a rotation
# How much short windows count, by who scores them. Chosen on synthetic takes
# (`python -m training.evaluate trajectory --seed 600000`).
_LEARNED_WEIGHT, _EVIDENCE_WEIGHT = 2.0, 1.5
_LEVEL_FLOOR = 0.5  # of the mean level: a quiet interval's directions count less


@dataclass(frozen=True)
class Course:
    """A whole take in maps.

    Attributes
    ----------
    times_s : middle of each interval, [shape=(T,)].
    motion : of the picture, [shape=(T, A)].
    sound : the maps of `evidence.acoustic_maps`, [shape=(T, A)] each.
    pan_deg : how far the picture turned in each interval, counter-clockwise, [shape=(T,)].
    learned : log-evidence of the learned scorer for the windows that begin at `view_starts_s`,
        [shape=(n, R)]; none if it was not asked.
    """

    times_s: FloatArray
    motion: Tensor
    sound: dict[str, Tensor]
    pan_deg: FloatArray
    learned: Tensor | None = None

    @property
    def view_starts_s(self) -> FloatArray:
        """Where short windows begin, [shape=(n,)]."""
        return np.arange(self.times_s[0], self.times_s[-1] - VIEW_S + 0.1, HOP_S)

    def part(self, start_s: float, end_s: float) -> Course:
        """The intervals whose middles lie in [start_s, end_s)."""
        first, last = np.searchsorted(self.times_s, [start_s, end_s])
        return Course(
            self.times_s[first:last],
            self.motion[first:last],
            {name: series[first:last] for name, series in self.sound.items()},
            self.pan_deg[first:last],
        )


class Reader:
    """Puts a course together from windows that follow each other.

    learned : the scorer that is asked of every short window besides; it sees each picture once.
    """

    def __init__(self, learned: LearnedScorer | None = None) -> None:
        self._learned = learned
        self._parts: list[Course] = []
        self._said = torch.zeros(0, N_YAWS, dtype=torch.float64)  # by short window
        self._kept: Window | None = None  # what short windows to come begin in

    def add(self, window: Window) -> None:
        """The next window; what it shares with the one before is left out."""
        last_s = self._parts[-1].times_s[-1] if self._parts else -math.inf
        new = _after(window, last_s + 1e-6)
        self._parts.append(_maps_of(new))
        if self._learned is not None:
            self._kept = new if self._kept is None else _joined(self._kept, new)
            self._say(self._learned, self._kept)

    def _say(self, learned: LearnedScorer, window: Window) -> None:
        """What the scorer says of the short windows that are complete now."""
        times_s = _middles_s(window)
        first_s = float(self._parts[0].times_s[0])
        starts_s = first_s + HOP_S * np.arange(
            len(self._said), math.floor((times_s[-1] - VIEW_S - first_s) / HOP_S + 0.1) + 1
        )
        edges = np.searchsorted(times_s, np.stack([starts_s, starts_s + VIEW_S], axis=1) - 1e-6)
        new = learned.along(window, [slice(*edge) for edge in edges.tolist()])
        self._said = torch.cat([self._said, new])
        self._kept = _after(window, first_s + HOP_S * len(self._said) - 1e-6)

    def course(self) -> Course:
        """All that was added."""
        parts = self._parts
        course = Course(
            np.concatenate([part.times_s for part in parts]),
            torch.cat([part.motion for part in parts]),
            {name: torch.cat([part.sound[name] for part in parts]) for name in parts[0].sound},
            np.concatenate([part.pan_deg for part in parts]),
        )
        if self._learned is None:
            return course
        return replace(course, learned=self._said[: len(course.view_starts_s)])


def read_course(
    take: Take, learned: LearnedScorer | None = None, progress: Progress = lambda _: None
) -> Course:
    """The maps of all that picture and track share, block by block."""
    reader = Reader(learned)
    places = blocks(take.start_s, take.end_s, 1 / take.video.rate_hz)
    for index, (start_s, duration_s) in enumerate(places):
        window = take.window(start_s, duration_s)
        if window is not None:
            reader.add(window)
        progress((index + 1) / len(places))
    return reader.course()


def blocks(start_s: float, end_s: float, frame_s: float) -> list[tuple[float, float]]:
    """Start and duration of blocks that cover a span; the last is half as long at least.

    A shorter one has too few frames to be read, and goes with the one before.
    """
    starts = start_s + BLOCK_S * np.arange(max(1, round((end_s - start_s) / BLOCK_S)))
    # One frame more than a block: blocks share a frame, and no interval is lost between them.
    places = [(float(at), BLOCK_S + 1.5 * frame_s) for at in starts]
    return [*places[:-1], (float(starts[-1]), end_s - float(starts[-1]))]


def _middles_s(window: Window) -> FloatArray:
    edges_s = window.motion.edges_s.cpu().double().numpy()
    return np.asarray((edges_s[1:] + edges_s[:-1]) / 2)


def _maps_of(window: Window) -> Course:
    return Course(
        _middles_s(window),
        window.motion.energy.float().cpu(),
        {n: m.float().cpu() for n, m in acoustic_maps(window.covariance).items()},
        np.rad2deg(window.motion.pan_rad.cpu().numpy()),
    )


def _after(window: Window, time_s: float) -> Window:
    """The intervals of a window whose middles lie at `time_s` or later."""
    first = int(np.searchsorted(_middles_s(window), time_s))
    return window.part(first, len(window.covariance))


def _joined(first: Window, second: Window) -> Window:
    """Two windows in a row."""
    a, b = first.motion, second.motion
    return replace(
        first,
        duration_s=first.duration_s + second.duration_s,
        covariance=torch.cat([first.covariance, second.covariance]),
        motion=Motion(
            torch.cat([a.energy, b.energy]), torch.cat([a.maps, b.maps]),
            torch.cat([a.edges_s[:-1], b.edges_s]), torch.cat([a.cuts, b.cuts]),
            torch.cat([a.pan_rad, b.pan_rad]),
        ),
    )  # fmt: skip


def level_shares(series: Tensor) -> Tensor:
    """A map [shape=(T, A)] as shares over azimuth, less where it is quiet."""
    series = series.double()
    level = series.sum(1, keepdim=True)
    return series / (level + _LEVEL_FLOOR * level.mean() + 1e-12)


@dataclass(frozen=True)
class Views:
    """Log-posteriors of short windows, their peak 0 and cut below, [shape=(n, R)].

    weight : how much they count beside the histogram of the sound's directions.
    """

    starts_s: FloatArray
    log_posteriors: Tensor
    weight: float

    def of(self, start_s: float, end_s: float) -> Tensor:
        """Sum over the windows that lie within [start_s, end_s], [shape=(R,)], in nats.

        Windows overlap, so each counts for the share of it that is its own.
        """
        first = np.searchsorted(self.starts_s, start_s - 0.1)
        last = np.searchsorted(self.starts_s + VIEW_S, end_s + 0.1, side="right")
        return self.log_posteriors[first : max(first, last)].sum(0) * (HOP_S / VIEW_S)


def views(course: Course, calibration: Calibration) -> Views:
    """Score short windows along a course: by the learned scorer if it was asked, else by the
    training-free cues as a calibration weighs them. (Both together were worse than the former.)
    """
    if course.learned is not None:
        return Views(course.view_starts_s, _cut(course.learned), _LEARNED_WEIGHT)
    weights = torch.tensor([calibration.weights[name] for name in CUES], dtype=torch.float64)
    scored = torch.zeros(len(course.view_starts_s), N_YAWS, dtype=torch.float64)
    for index, start_s in enumerate(course.view_starts_s):
        part = course.part(start_s, start_s + VIEW_S)
        if len(part.motion) >= _LEAST_INTERVALS:  # else the picture could not be read there
            sound = {name: series.double() for name, series in part.sound.items()}
            scored[index] = weights @ compared(sound, part.motion)
    return Views(course.view_starts_s, _cut(scored), _EVIDENCE_WEIGHT)


def _cut(log_evidence: Tensor) -> Tensor:
    """Log-evidence [shape=(n, R)] with its peak at 0, and no more than so far below."""
    return (log_evidence - log_evidence.amax(1, keepdim=True)).clamp(min=-_VETO)
