"""About where a track begins in the camera's sound: the coarse step of `sync`.

Short frames of the camera's sound are correlated with all of the track within reach. What fits by
chance fits anywhere; what fits in truth lies on one line of delay over time. All lines within the
reach of offset and drift are tried at once (a Hough transform over the squared deviations).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.consensus import Line, voted
from model.correlation import search, whitened
from model.errors import UnusableContent
from model.listening import Ear

BIN_S = 0.002  # of delay
MAX_SLOPE = 300e-6  # of a line: how far two clocks are apart
MARGIN_S = 0.01  # read beyond what is searched: rounding, and drift within a chunk

_LEAST_OVERLAP_S = 3.0
_RATE = 4_000
_GROUPS, _FRAMES_PER_GROUP, _FRAME_S = 16, 4, 2.0
# Of Student's t, whose log-likelihood a frame votes with: no coincidence decides alone.
_TAIL = 10.0
_PART_BINS = 30_000  # delay bins that are searched at a time, a minute
_N_CANDIDATES = 3


def coarse_lines(camera: Ear, track: Ear, expected_s: float, search_s: float) -> list[Line]:
    """The lines that most frames of the camera's sound agree upon, to about `BIN_S`."""
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
    least_s = expected_s - search_s
    n_bins = max(1, round(2 * search_s / BIN_S))
    votes, times = [], []
    for at in np.linspace(start, max(start, end - group_s), n_groups):
        parts = [
            _group_votes(camera, track, float(at), frame_s, least_s + first * BIN_S,
                         min(_PART_BINS, n_bins - first))
            for first in range(0, n_bins, _PART_BINS)
        ]  # fmt: skip
        votes.append(np.concatenate(parts, axis=1))
        times.append(at + (np.arange(_FRAMES_PER_GROUP) + 0.5) * frame_s)
    table, middles = np.concatenate(votes), np.concatenate(times)
    heard = table.any(axis=1)
    if not heard.any():
        raise UnusableContent(
            f"{camera.name} or {track.name} is silent wherever the two could overlap."
        )
    return voted(
        table[heard], middles[heard], least_s=least_s, bin_s=BIN_S, max_slope=MAX_SLOPE,
        n_lines=_N_CANDIDATES,
    )  # fmt: skip


def _group_votes(
    camera: Ear, track: Ear, at_s: float, frame_s: float, least_s: float, n_bins: int
) -> NDArray[np.float32]:
    """How well successive frames from `at_s` fit each delay bin, [shape=(frames, bins)]."""
    rate, size = _RATE, round(frame_s * _RATE)
    bin_size = round(BIN_S * rate)
    n_places = n_bins * bin_size
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
    votes = np.zeros((_FRAMES_PER_GROUP, n_bins), dtype=np.float32)
    for index in range(_FRAMES_PER_GROUP):
        begin = index * size
        hay = heard[:, begin + late : begin + late + n_places + size - 1]
        fit = search(seen[:, begin : begin + size], hay) ** 2
        best = fit.sum(axis=0).reshape(n_bins, bin_size).max(axis=1)
        votes[index] = np.log1p(best[::-1] / _TAIL)
    return votes
