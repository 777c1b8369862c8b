"""Where a track begins in the camera's sound, to a fraction of a sample: the fine step of `sync`.

Chunks of the camera's sound are correlated with the track near a line of delay that is roughly
known; each has its delay, and all of them laid over each other show what none does by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from model.timing.coarse import BIN_S, MARGIN_S, MAX_SLOPE
from model.timing.consensus import Line
from model.timing.correlation import correlated, deviations, refined_peak, whitened
from model.timing.listening import Ear
from model.timing.stacking import slant_stack

FloatArray = NDArray[np.float64]

RATE = 16_000
REACH_S = 0.25  # to either side of the line
APART_S = 0.02  # places that are nearer are one

_CHUNK_S, _FRAME_S = 8.0, 1.0
_N_PLACES = 4


@dataclass(frozen=True)
class Chunk:
    """A stretch of the camera's sound, found in the track.

    Attributes
    ----------
    camera_s : time of its middle on the camera's clock.
    delay_s : camera's time minus the track's at which both hold the same sound.
    strength : height of the correlation's peak, in deviations of its noise; negative if inverted.
    agrees : whether it lies on the common line.
    """

    camera_s: float
    delay_s: float
    strength: float
    agrees: bool


@dataclass(frozen=True)
class Heard:
    """A chunk and its correlation about the coarse line, by rising delay, [shape=(C, lags)]."""

    chunk: Chunk
    curve: FloatArray


@dataclass(frozen=True)
class Place:
    """A line of delay along which chunks' correlations add up.

    Attributes
    ----------
    height : of their sum, in deviations of its noise; negative if inverted.
    odds : log-odds that it is no chance (see `Stack.log_odds`).
    """

    line: Line
    height: float
    odds: float


def chunks_near(camera: Ear, track: Ear, line: Line, most: int) -> list[Heard]:
    """The camera's chunks near a line of delay, all over the overlap that it claims.

    most : how many; none that is silent is among them.
    """
    start = max(0.0, line.at_zero_s / (1 - line.slope))
    end = min(camera.duration_s, (track.duration_s + line.at_zero_s) / (1 - line.slope))
    length = min(_CHUNK_S, max(_FRAME_S, (end - start) / 8))
    n_chunks = min(most, math.floor((end - start) / length))
    if n_chunks < 1:
        return []
    starts = np.linspace(start, end - length, n_chunks)
    chunks = (_measured(camera, track, float(at), length, line) for at in starts)
    return [chunk for chunk in chunks if chunk is not None]


def _measured(camera: Ear, track: Ear, at_s: float, length_s: float, line: Line) -> Heard | None:
    """One chunk's delay near the line: correlations of its frames, each laid along the line."""
    rate = RATE
    frame_s = length_s / max(1, round(length_s / _FRAME_S))  # all of it, in whole frames
    size, reach = int(frame_s * rate), round(REACH_S * rate)
    margin_s = REACH_S + MARGIN_S
    camera_start, seen = camera.listen(at_s, length_s, rate)
    track_start, heard = track.listen(
        at_s - line.delay(at_s) - margin_s, length_s + 2 * margin_s, rate
    )
    seen, heard = whitened(seen, rate), whitened(heard, rate)
    total = np.zeros((len(seen), 2 * reach + 1))
    roundings = []
    for begin in range(0, seen.shape[1] - size + 1, size):
        begin_s = camera_start + begin / rate
        place = (begin_s - line.delay(begin_s + frame_s / 2) - track_start) * rate - reach
        first = round(place)
        hay = heard[:, first : first + size + 2 * reach]
        total += correlated(seen[:, begin : begin + size], hay)
        roundings.append(first - place)
    strengths = deviations(total)
    if not strengths.any():
        return None
    # Channels of a pair vote together; the clearer one then says where exactly.
    joint = int(np.argmax((strengths**2).sum(axis=0)))
    clearer = strengths[int(np.argmax(np.abs(strengths[:, joint])))]
    low = max(0, joint - 1)
    at, height = refined_peak(clearer[low : joint + 2])
    # A later place in the track is a smaller delay.
    later_s = (low + at - reach + float(np.mean(roundings))) / rate
    middle = camera_start + length_s / 2
    chunk = Chunk(middle, line.delay(middle) - later_s, height, agrees=False)
    # Delays are to a sample, here and in the stack: narrower peaks would miss each other there.
    curve = deviations(convolve1d(total, (0.25, 0.5, 0.25), mode="nearest"))
    return Heard(chunk, curve[:, ::-1])


def places_of(heard: list[Heard], coarse: Line, search_s: float) -> list[Place]:
    """Where chunks' correlations laid over each other are highest, the highest first.

    coarse : the line they were heard near; search_s : within which it was looked for, to either
    side, for the odds.
    """
    if not heard:
        return []
    times = np.array([h.chunk.camera_s for h in heard])
    half_span = float(np.ptp(times)) / 2
    slopes = np.zeros(1)
    if half_span:
        # Steeper by a step, the first and last move by a sample; the coarse slope is off by two
        # bins.
        step, reach = 1 / (RATE * half_span), 2 * BIN_S / half_span
        least, most = (min(max(at, -MAX_SLOPE), MAX_SLOPE) - coarse.slope
                       for at in (coarse.slope - reach, coarse.slope + reach))  # fmt: skip
        slopes = np.arange(least, most + step, step)
    curves = np.stack([h.curve for h in heard])
    n_places = 2 * search_s * RATE * len(slopes) * curves.shape[1]
    stacks = slant_stack(curves, times, slopes, rate_hz=RATE, n_lines=_N_PLACES, apart_s=APART_S)
    return [
        Place(
            Line(coarse.at_zero_s + stack.line.at_zero_s, coarse.slope + stack.line.slope),
            stack.height,
            stack.log_odds(n_places),
        )
        for stack in stacks
    ]
