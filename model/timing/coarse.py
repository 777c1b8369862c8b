"""About where a track begins in the camera's sound: the coarse step of `sync`.

Short frames of the camera's sound are correlated with all of the track within reach. What fits by
chance fits anywhere; what fits in truth lies on one line of delay over time. All lines within the
reach of offset and drift are tried at once (a Hough transform over the squared deviations).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import UnusableContent
from model.timing.consensus import Line, highest_apart, voted
from model.timing.correlation import search, whitened
from model.timing.listening import Ear

FloatArray = NDArray[np.float64]

BIN_S = 0.002  # of delay
MAX_SLOPE = 300e-6  # of a line: how far two clocks are apart
MARGIN_S = 0.01  # read beyond what is searched: rounding, and drift within a chunk

_LEAST_OVERLAP_S = 3.0
_RATE = 4_000
_BIN = round(BIN_S * _RATE)  # samples
_GROUPS, _FRAMES_PER_GROUP, _FRAME_S = 16, 4, 2.0
# Of Student's t, whose log-likelihood a frame votes with: no coincidence decides alone.
_TAIL = 10.0
_PART_BINS = 30_000  # delay bins that are searched at a time, a minute
_N_CANDIDATES = 3
_APART_S = 0.05


@dataclass(frozen=True)
class _Reach:
    """What is searched: delays from `least_s` on, by frames of the camera's sound in groups."""

    least_s: float
    n_bins: int
    frame_s: float
    starts_s: FloatArray

    @property
    def times_s(self) -> FloatArray:
        """Of the frames' middles, [shape=(frames,)]."""
        within = (np.arange(_FRAMES_PER_GROUP) + 0.5) * self.frame_s
        return np.asarray((self.starts_s[:, None] + within).ravel())


def coarse_lines(camera: Ear, track: Ear, expected_s: float, search_s: float) -> list[Line]:
    """The lines that most frames of the camera's sound agree upon, to about `BIN_S`.

    Raises
    ------
    UnusableContent : too little of both can overlap, or one of them is silent.
    """
    reach = _reach(camera, track, expected_s, search_s)
    votes = np.zeros((len(reach.times_s), reach.n_bins), dtype=np.float32)
    for frame, first, fit in _fits(camera, track, reach):
        best = (fit**2).sum(axis=0).reshape(-1, _BIN).max(axis=1)
        votes[frame, first : first + len(best)] = np.log1p(best / _TAIL)
    heard = votes.any(axis=1)
    if not heard.any():
        raise UnusableContent(
            f"{camera.name} or {track.name} is silent in every stretch of their overlap that was "
            "listened to: find by eye where the track begins."
        )
    return voted(
        votes[heard], reach.times_s[heard], least_s=reach.least_s, bin_s=BIN_S,
        max_slope=MAX_SLOPE, n_lines=_N_CANDIDATES, apart_s=_APART_S,
    )  # fmt: skip


def lines_like(
    line: Line, camera: Ear, track: Ear, expected_s: float, search_s: float, n_lines: int
) -> list[Line]:
    """The lines of the same slope along which the frames' correlations add up highest.

    Sound that repeats itself fits there about as well as at the line itself, which is among them.
    Votes are for what stands out of noise frame by frame; sums show what does together.
    """
    reach = _reach(camera, track, expected_s, search_s)
    times = reach.times_s
    middle = float(times.mean())
    total: FloatArray | None = None
    for frame, first, fit in _fits(camera, track, reach):
        if total is None:
            total = np.zeros((len(fit), reach.n_bins * _BIN))
        # What is late by now was on time in the middle.
        begin = first * _BIN - round(line.slope * (times[frame] - middle) * _RATE)
        low, high = max(begin, 0), min(begin + fit.shape[1], total.shape[1])
        if low < high:  # a drift may lead out of a narrow search
            total[:, low:high] += fit[:, low - begin : high - begin]
    assert total is not None
    peaks = highest_apart(np.abs(total).max(axis=0), n_lines, round(_APART_S * _RATE))
    delays = (reach.least_s + peak / _RATE for (peak,) in peaks)
    return [Line(delay - line.slope * middle, line.slope) for delay in delays]


def _reach(camera: Ear, track: Ear, expected_s: float, search_s: float) -> _Reach:
    start = max(0.0, expected_s - search_s)
    end = min(camera.duration_s, expected_s + search_s + track.duration_s)
    shorter = min(end - start, track.duration_s)
    if shorter < _LEAST_OVERLAP_S:
        raise UnusableContent(
            f"{camera.name} ({camera.duration_s:.1f} s) and {track.name} ({track.duration_s:.1f} "
            f"s) can share only {max(shorter, 0):.1f} s of sound; {_LEAST_OVERLAP_S:.0f} s are "
            "needed to compare them."
        )
    frame_s = min(_FRAME_S, shorter / 4)
    group_s = frame_s * _FRAMES_PER_GROUP
    n_groups = min(_GROUPS, max(1, math.ceil((end - start) / group_s)))
    return _Reach(
        least_s=expected_s - search_s,
        n_bins=max(1, round(2 * search_s / BIN_S)),
        frame_s=frame_s,
        starts_s=np.linspace(start, max(start, end - group_s), n_groups),
    )


def _fits(camera: Ear, track: Ear, reach: _Reach) -> Iterator[tuple[int, int, FloatArray]]:
    """How well frames fit delays: frame, first bin, and deviations by rising delay, [shape=(C, N)].

    A group of frames and a part of the delays at a time.
    """
    for group, at_s in enumerate(reach.starts_s.tolist()):
        for first in range(0, reach.n_bins, _PART_BINS):
            n_bins = min(_PART_BINS, reach.n_bins - first)
            least_s = reach.least_s + first * BIN_S
            fits = _group_fits(camera, track, at_s, reach.frame_s, least_s, n_bins)
            for index, fit in enumerate(fits):
                yield group * _FRAMES_PER_GROUP + index, first, fit


def _group_fits(
    camera: Ear, track: Ear, at_s: float, frame_s: float, least_s: float, n_bins: int
) -> Iterator[FloatArray]:
    """Successive frames from `at_s`, each [shape=(C, samples of the bins)]."""
    rate, size, n_places = _RATE, round(frame_s * _RATE), n_bins * _BIN
    group_s = _FRAMES_PER_GROUP * frame_s
    # The greatest delay is the earliest place in the track.
    earliest_s = at_s - least_s - n_bins * BIN_S
    # Frames are of whole samples: together they may be longer than the group.
    camera_start, seen = camera.listen(at_s, group_s + MARGIN_S, rate)
    track_start, heard = track.listen(
        earliest_s - MARGIN_S, group_s + n_bins * BIN_S + 2 * MARGIN_S, rate
    )
    seen, heard = whitened(seen, rate), whitened(heard, rate)
    late = round((camera_start - at_s - (track_start - earliest_s)) * rate)
    for index in range(_FRAMES_PER_GROUP):
        begin = index * size
        hay = heard[:, begin + late : begin + late + n_places + size - 1]
        yield search(seen[:, begin : begin + size], hay)[:, ::-1]
