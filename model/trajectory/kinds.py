"""Yaw over time: whether one rotation holds for the whole take, and if not, which holds when.

Three things happen: the rig is knocked or the shot re-oriented (`steps`), the picture is stabilised
and the sound is not, or one of them drifts (a curve). A curve is a Viterbi path over rotations,
second by second, with a random walk as the prior; its evidence is that of steps: short windows of
sound and picture, and how sharp the histogram of the sound's directions is when they are turned
along the path. All three are compared by that evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from model.checkpoint import Calibration
from model.evidence import N_YAWS, yaws_deg
from model.posterior import answer_deg
from model.trajectory.course import HOP_S, VIEW_S, Course, FloatArray, Views, level_shares, views
from model.trajectory.steps import HISTOGRAMS, STEP_DEG, Step, find_steps, offsets_deg

Path = NDArray[np.intp]

# Chosen on synthetic takes (`python -m training.evaluate trajectory --seed 600000`).
_LEAST_CURVE_GAIN = 20.0  # for short windows of weight 1
_CURVE_MARGIN = 24.0  # over steps: a path has more freedom, and takes up what is not its own
_SUDDENNESS_WEIGHT = 6.0  # of what says that steps are none of a curve's
_WALK_DEG = 5.0  # standard deviation of the rotation's change in a second
_SMEAR = 0.02  # share of the histogram that is anywhere
_ROUNDS = 4
_SMOOTHING_S = 1.5  # the path goes in steps of a bin


class Kind(StrEnum):
    """How the rotation behaves along a take."""

    CONSTANT = "constant"
    STEPS = "steps"
    MOVING = "moving"


@dataclass(frozen=True)
class Trajectory:
    """The rotation along a take.

    Attributes
    ----------
    kind : whether it is constant, steps or moves.
    steps : where it steps; empty for the other kinds.
    times_s, rotate_field_ccw_deg : the curve, once a second, unwrapped [shape=(S,)] each.
    """

    kind: Kind
    steps: list[Step]
    times_s: FloatArray
    rotate_field_ccw_deg: FloatArray


class Seconds:
    """The evidence for paths of the rotation, second by second."""

    def __init__(self, course: Course, seen: Views) -> None:
        self.times_s = np.arange(course.times_s[0], course.times_s[-1], 1.0)
        self._views = torch.zeros(len(self.times_s), N_YAWS, dtype=torch.float64)
        for start_s, log_posterior in zip(seen.starts_s, seen.log_posteriors, strict=True):
            during = (self.times_s >= start_s - 0.5) & (self.times_s < start_s + VIEW_S - 0.5)
            share = seen.weight * HOP_S / VIEW_S
            self._views[torch.from_numpy(during)] += share * log_posterior
        self._sound = [_per_second(course, name, self.times_s) for name in HISTOGRAMS]

    def best_path(self, walk_deg: float) -> Path:
        """The most likely path of a random walk with this standard deviation in a second.

        First from the short windows alone; then, in turns, the histogram of the sound turned along
        the path, and the path with that histogram's likelihood added.
        """
        path = viterbi(self._views, walk_deg / STEP_DEG)
        for _ in range(_ROUNDS):
            path = viterbi(self._evidence(path), walk_deg / STEP_DEG)
        return path

    def gain(self, path: Path) -> float:
        """Log-evidence of a path, its own histogram of the sound given."""
        return float(self._evidence(path)[torch.arange(len(path)), torch.from_numpy(path)].sum())

    def _evidence(self, path: Path) -> Tensor:
        return self._views + sum(_registration(series, path) for series in self._sound)


def _per_second(course: Course, name: str, seconds: FloatArray) -> Tensor:
    shares = level_shares(course.sound[name]) * float(np.median(np.diff(course.times_s)))
    edges = np.searchsorted(course.times_s, [*seconds, seconds[-1] + 1])
    return torch.stack([shares[a:b].sum(0) for a, b in pairwise(edges)])


def _registration(series: Tensor, path: Path) -> Tensor:
    """Log-likelihood of each second's directions under every rotation, [shape=(S, R)].

    series : [shape=(S, A)]; the histogram is that of all seconds turned along `path`.
    """
    bins = np.round(np.array(yaws_deg()) / STEP_DEG).astype(int)
    columns = torch.arange(N_YAWS)
    taken = (columns + torch.from_numpy(bins[path])[:, None]) % N_YAWS
    histogram = series.gather(1, taken).sum(0)
    histogram = (1 - _SMEAR) * histogram / (histogram.sum() + 1e-12) + _SMEAR / N_YAWS
    by_rotation = histogram.log()[(columns[:, None] - torch.from_numpy(bins)) % N_YAWS]
    return series @ by_rotation


def viterbi(evidence: Tensor, walk: float) -> Path:
    """The most likely path through log-evidence [shape=(S, R)], [shape=(S,)].

    walk : standard deviation, in bins, of the circular random walk; 0 for none.
    """
    n = evidence.shape[1]
    step = walk_log_probability(n, walk)
    transition = torch.stack([step.roll(k) for k in range(n)])
    score = evidence[0]
    back = []
    for row in evidence[1:]:
        best = (score[:, None] + transition).max(0)
        score = best.values + row
        back.append(best.indices)
    path = [int(score.argmax())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return np.array(path[::-1])


def walk_log_probability(n_bins: int, walk: float) -> Tensor:
    """Log-probability of a step by each number of bins of a circular random walk, (R,)."""
    bins = torch.arange(n_bins)
    distance = torch.minimum(bins, n_bins - bins).double()
    if walk == 0:
        return torch.where(distance == 0, 0.0, -math.inf)
    return (-0.5 * (distance / walk) ** 2).log_softmax(0)


# --- the decision --------------------------------------------------------------------------------


def trace(course: Course, calibration: Calibration) -> Trajectory:
    """Decide whether the rotation is constant, steps or moves, and give it over time."""
    seen = views(course, calibration)
    seconds = Seconds(course, seen)
    times = seconds.times_s + 0.5
    still, moving = seconds.best_path(0.0), seconds.best_path(_WALK_DEG)
    steps = find_steps(course, seen)
    stepped_deg = _stepped(seen, steps, times)
    step_gain = 0.0
    if steps:
        step_gain = seconds.gain(_bins(stepped_deg)) - seconds.gain(still)
        step_gain += _SUDDENNESS_WEIGHT * min(step.sudden for step in steps)
    curve_gain = seconds.gain(moving) - seconds.gain(still) - _walk_cost(moving)
    # A picture that turned at once is a step, whatever else moves.
    jumped = any(step.in_picture for step in steps)
    if not jumped and curve_gain >= max(_LEAST_CURVE_GAIN * seen.weight, step_gain + _CURVE_MARGIN):
        smooth = gaussian_filter1d(_unwrapped(moving), _SMOOTHING_S, mode="nearest")
        return Trajectory(Kind.MOVING, [], times, smooth)
    if steps:
        return Trajectory(Kind.STEPS, steps, times, stepped_deg)
    return Trajectory(Kind.CONSTANT, [], times, _unwrapped(still))


def _walk_cost(path: Path) -> float:
    """Nats by which a random walk makes a path less likely than staying."""
    step = walk_log_probability(N_YAWS, _WALK_DEG / STEP_DEG)
    return float((step[0] - step[np.diff(path) % N_YAWS]).sum())


def _unwrapped(path: Path) -> FloatArray:
    return np.unwrap(np.array(yaws_deg())[path], period=360)


def _bins(rotation_deg: FloatArray) -> Path:
    """Nearest bins of rotations."""
    return np.asarray(np.round(rotation_deg / STEP_DEG + N_YAWS // 2 - 1) % N_YAWS, dtype=np.intp)


def _stepped(seen: Views, steps: Sequence[Step], times_s: FloatArray) -> FloatArray:
    """The rotation over time when it steps: the parts' evidence is turned together and pooled."""
    edges = [-math.inf, *(step.at_s for step in steps), math.inf]
    offsets = offsets_deg(steps)
    pooled = torch.zeros(N_YAWS, dtype=torch.float64)
    for offset, (start_s, end_s) in zip(offsets, pairwise(edges), strict=True):
        pooled += seen.of(start_s, end_s).roll(-round(offset / STEP_DEG))
    first = answer_deg(pooled.softmax(0))
    return first + offsets[np.searchsorted(edges[1:-1], times_s, side="right")]


def curve_at(trajectory: Trajectory) -> Callable[[FloatArray], FloatArray]:
    """The rotation in degrees at any times: steps at once, curves by lines, ends held."""
    if trajectory.kind is Kind.STEPS:
        edges = [step.at_s for step in trajectory.steps]
        offsets = offsets_deg(trajectory.steps)
        first = trajectory.rotate_field_ccw_deg[0]
        return lambda times_s: first + offsets[np.searchsorted(edges, times_s, side="right")]
    return lambda times_s: np.interp(times_s, trajectory.times_s, trajectory.rotate_field_ccw_deg)
