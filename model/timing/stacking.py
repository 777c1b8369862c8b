"""Correlations too weak to be found one by one, laid over each other.

In noise the correlation of a short chunk has its highest peak anywhere; the sum of all chunks',
laid along the line of delay over time that they have in common, has it at the truth. Seismology
calls that a slant stack (Schultz and Claerbout, Geophysics 43, 691, 1978).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from model.timing.consensus import Line, highest_apart

FloatArray = NDArray[np.float64]

_MOST = 12.0  # deviations of one curve that count
_HEIGHTS = 20.0  # deviations that a true peak's height may be spread over, a priori


@dataclass(frozen=True)
class Stack:
    """A line along which curves add up.

    Attributes
    ----------
    parts : what each curve has there, in deviations of its noise, [shape=(N,)]; negative if
        inverted.
    """

    line: Line
    parts: FloatArray

    @property
    def height(self) -> float:
        """Of the sum, in deviations of its noise."""
        return float(np.sum(self.parts)) / math.sqrt(len(self.parts))

    def log_odds(self, n_places: float) -> float:
        """Log-odds that the line is true, not the highest of so many places by chance.

        Of the height's densities: one over `_HEIGHTS`, and that of the highest of a normal
        distribution's draws, which is about its height times the chance of exceeding it. No curve
        counts for more than `_MOST`: a sound that two recordings share by chance is clear in one.
        """
        height = abs(Stack(self.line, self.parts.clip(-_MOST, _MOST)).height)
        exceeded = math.log(2 * n_places) + float(log_ndtr(-height))
        return -exceeded - math.log(max(height, 1.0) * _HEIGHTS)


def slant_stack(
    curves: FloatArray,
    times_s: FloatArray,
    slopes: FloatArray,
    *,
    rate_hz: float,
    n_lines: int = 1,
    apart_s: float = 0.0,
) -> list[Stack]:
    """The slant stack of curves over delay: its highest lines, the highest first.

    curves : in deviations of their own noise, [shape=(N, C, 2 reach + 1)]: of N times and C
        channels, the delay 0 in their middle.
    times_s : [shape=(N,)]; slopes : those that are tried; rate_hz : of the curves.
    n_lines : how many are asked for; apart_s : how far they are apart at the middle of the times.
    """
    n, n_channels, length = curves.shape
    middle = float(times_s.mean())
    shifts = np.round(slopes[:, None] * (times_s - middle) * rate_hz).astype(int)
    most = int(np.abs(shifts).max())
    padded = np.pad(curves, [(0, 0), (0, 0), (most, most)])
    highest = np.zeros((n_channels, length))
    row_of = np.zeros((n_channels, length), dtype=int)
    for row, moved in enumerate(shifts.tolist()):
        total = np.zeros(curves.shape[1:])
        for curve, shift in zip(padded, moved, strict=True):
            total += curve[:, most + shift : most + shift + length]
        higher = np.abs(total) > np.abs(highest)
        highest[higher], row_of[higher] = total[higher], row
    stacks = []
    for channel, peak in highest_apart(np.abs(highest), n_lines, round(apart_s * rate_hz)):
        row = int(row_of[channel, peak])
        slope, delay_s = float(slopes[row]), (peak - length // 2) / rate_hz
        parts = padded[np.arange(n), channel, most + shifts[row] + peak]
        stacks.append(Stack(Line(delay_s - slope * middle, slope), parts))
    return stacks
