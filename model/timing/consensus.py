"""Many measured delays, some of them wrong, and the one line of delay over time behind them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.stats import theilslopes

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Seconds = TypeVar("Seconds", float, FloatArray)

_LEAST_TOLERANCE_S = 0.001  # paths of sound differ by this much between neighbouring microphones
_MAX_ROUNDS = 10
_LEAST_NOISE_S = 2e-5
_PRIOR_SLOPE = 50e-6  # deviation of recorders' clocks: what is believed of a short take
_AGREEING = 0.5  # share of true delays that agree, a priori
_DISTANCES_S = (5e-3, 2.5e-3, 1e-3, 5e-4, 2.5e-4, 1e-4)  # within which delays may agree


@dataclass(frozen=True)
class Line:
    """A delay that changes with time: ``at_zero_s + slope * time_s``."""

    at_zero_s: float
    slope: float

    def delay(self, time_s: Seconds) -> Seconds:
        """The delay at a time, or at each of an array."""
        return self.at_zero_s + self.slope * time_s


@dataclass(frozen=True)
class Fit:
    """A line through delays.

    Attributes
    ----------
    agrees : which delays lie on it, [shape=(N,)].
    level_std_s : deviation of the delay in the middle of those that agree.
    slope_std : deviation of the slope.
    """

    line: Line
    agrees: BoolArray
    level_std_s: float
    slope_std: float


def voted(
    votes: NDArray[np.floating],
    times_s: FloatArray,
    *,
    least_s: float,
    bin_s: float,
    max_slope: float,
    n_lines: int = 1,
    apart_s: float = 0.05,
) -> list[Line]:
    """The lines with the most votes, most first, by a Hough transform.

    votes : of each time for each delay bin, [shape=(N, B)]; bin b begins at least_s + b bin_s.
    max_slope : the steepest line that is tried, to either side.
    n_lines : how many are asked for; apart_s : how far they are apart at the middle of the times.
    """
    middle = (times_s[0] + times_s[-1]) / 2
    half_span = max((times_s[-1] - times_s[0]) / 2, 1.0)
    n_slopes = math.floor(max_slope * half_span / bin_s)
    # A truth at the edge of two bins has its votes in either.
    votes = maximum_filter1d(votes, 2, axis=1)
    n_bins = votes.shape[1]
    most = np.zeros(n_bins, dtype=votes.dtype)
    slope_of = np.zeros(n_bins)
    for slope in np.arange(-n_slopes, n_slopes + 1) * (bin_s / half_span):
        total = np.zeros(n_bins, dtype=votes.dtype)
        for vote, shift in zip(
            votes, np.round(slope * (times_s - middle) / bin_s).astype(int), strict=True
        ):
            low, high = max(0, -shift), min(n_bins, n_bins - shift)
            if low < high:  # a drift may lead out of a narrow search
                total[low:high] += vote[low + shift : high + shift]
        better = total > most
        most[better], slope_of[better] = total[better], slope
    lines = []
    for (peak,) in highest_apart(most, n_lines, math.ceil(apart_s / bin_s)):
        # The filter looks at a bin and the one before it: their common edge.
        delay, slope = least_s + peak * bin_s, float(slope_of[peak])
        lines.append(Line(delay - slope * middle, slope))
    return lines


def highest_apart(
    heights: NDArray[np.floating], most: int, apart: int
) -> Iterator[tuple[int, ...]]:
    """Indices of the highest of heights above 0, the highest first: so many at most.

    heights : [shape=(..., B)]; along the last axis they are more than `apart` from each other.
    """
    left = heights.copy()
    for _ in range(most):
        place = tuple(int(i) for i in np.unravel_index(left.argmax(), left.shape))
        if left[place] <= 0:
            return
        yield place
        left[..., max(0, place[-1] - apart) : place[-1] + apart + 1] = 0.0


def fitted(times_s: FloatArray, delays_s: FloatArray, near: BoolArray) -> Fit:
    """Robust line through the delays that are `near` (two at least) a line known roughly.

    Theil-Sen first (it bears 29 % of outliers), then least squares over those within three robust
    deviations, repeated until they stay the same.

    times_s, delays_s : [shape=(N,)].
    """
    t = times_s - float(np.mean(times_s[near]))
    slope = theilslopes(delays_s[near], t[near]).slope
    # Not `theilslopes`' own, the median of delays that drift: outliers move that by whole chunks.
    level = np.median(delays_s[near] - slope * t[near])
    agrees = _within(delays_s - level - slope * t, near)
    for _ in range(_MAX_ROUNDS):
        (level, slope), covariance = _least_squares(t[agrees], delays_s[agrees])
        before, agrees = agrees, _within(delays_s - level - slope * t, near)
        if np.array_equal(before, agrees):
            break
    level_std, slope_std = np.sqrt(np.diag(covariance))
    line = Line(float(level - slope * (times_s - t)[0]), float(slope))
    return Fit(line, agrees, float(level_std), float(slope_std))


def _within(residuals: FloatArray, near: BoolArray) -> BoolArray:
    scale = 1.4826 * float(np.median(np.abs(residuals[near])))
    return near & (np.abs(residuals) <= max(3 * scale, _LEAST_TOLERANCE_S))


def _least_squares(t: FloatArray, delays: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(level, slope) and their covariance, with what is known of recorders' clocks as a prior.

    In a take of seconds a drift cannot be told from scatter: the prior then holds it near 0.
    """
    noise = _LEAST_NOISE_S
    design = np.stack([np.ones_like(t), t])
    for _ in range(2):  # the prior weighs against the scatter, known only after a first fit
        precision = design @ design.T / noise**2 + np.diag([0.0, _PRIOR_SLOPE**-2])
        covariance = np.linalg.inv(precision)
        found = covariance @ (design @ delays) / noise**2
        scatter = np.sum((delays - found @ design) ** 2) / max(len(t) - 2, 1)
        noise = max(float(np.sqrt(scatter)), _LEAST_NOISE_S)
    return found, np.asarray(covariance)


def log_odds(
    times_s: FloatArray, residuals_s: FloatArray, *, reach_s: float, search_s: float
) -> float:
    """Log-odds that delays lie at a line because it is true, not by chance.

    The closer they lie, the less it is chance. How close they can lie, rooms and noise decide: the
    best of several distances counts, and is paid for, as is the choice among all lines that could
    be told apart at that distance, by their delay or by a drift as clocks have it.

    times_s : [shape=(N,)]; residuals_s : of the delays from the line, of a false one anywhere
    within ± reach_s; search_s : within which its delay was looked for, to either side.
    """
    n, span_s = len(residuals_s), float(np.ptp(times_s)) if len(times_s) else 0.0
    tried = []
    for distance_s in _DISTANCES_S:
        near = int((np.abs(residuals_s) < distance_s).sum())
        by_chance = distance_s / reach_s
        agreeing = near * math.log(_AGREEING / by_chance)
        disagreeing = (n - near) * math.log((1 - _AGREEING) / (1 - by_chance))
        n_lines = max(1.0, search_s / distance_s) * (1 + 2 * _PRIOR_SLOPE * span_s / distance_s)
        tried.append(agreeing + disagreeing - math.log(n_lines))
    return max(tried) - math.log(len(tried))
