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

from model.consensus import Line

FloatArray = NDArray[np.float64]

_HEIGHTS = 20.0  # deviations that a true peak's height may be spread over, a priori


@dataclass(frozen=True)
class Stack:
    """The line along which curves add up highest.

    Attributes
    ----------
    height : of the sum's peak, in deviations of its noise; negative if inverted.
    """

    line: Line
    height: float

    def log_odds(self, n_places: float) -> float:
        """Log-odds that the line is true, not the highest of so many places by chance.

        Of the height's densities: one over `_HEIGHTS`, and that of the highest of a normal
        distribution's draws, which is about its height times the chance of exceeding it.
        """
        height = abs(self.height)
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
    n, _, length = curves.shape
    middle = float(times_s.mean())
    shifts = np.round(slopes[:, None] * (times_s - middle) * rate_hz).astype(int)
    most = int(np.abs(shifts).max())
    padded = np.pad(curves, [(0, 0), (0, 0), (most, most)])
    highest, slope_of = np.zeros(length), np.zeros(length)
    for slope, row in zip(slopes.tolist(), shifts.tolist(), strict=True):
        total = np.zeros(curves.shape[1:])
        for curve, shift in zip(padded, row, strict=True):
            total += curve[:, most + shift : most + shift + length]
        channel = np.abs(total).argmax(axis=0)
        height = np.take_along_axis(total, channel[None], axis=0)[0] / n**0.5
        higher = np.abs(height) > np.abs(highest)
        highest[higher], slope_of[higher] = height[higher], slope
    stacks: list[Stack] = []
    apart = round(apart_s * rate_hz)
    while len(stacks) < n_lines and highest.any():
        peak = int(np.abs(highest).argmax())
        delay_s, slope = (peak - length // 2) / rate_hz, float(slope_of[peak])
        stacks.append(Stack(Line(delay_s - slope * middle, slope), float(highest[peak])))
        highest[max(0, peak - apart) : peak + apart + 1] = 0.0
    return stacks
