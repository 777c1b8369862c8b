"""Stretches of a file's sound at any rate, read with bounded memory."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from model.media import AudioReader

FloatArray = NDArray[np.float64]

_PIECE_VALUES = 4_000_000  # samples of all channels that are read at a time


class Ear:
    """Some channels of a track, heard at any rate."""

    def __init__(self, reader: AudioReader, channels: list[int]) -> None:
        self._reader, self._channels = reader, channels
        self.duration_s = reader.info.duration_s

    @property
    def name(self) -> str:
        """The file's path, for messages."""
        return str(self._reader.info.path)

    def listen(self, start_s: float, duration_s: float, rate: int) -> tuple[float, FloatArray]:
        """Sound of a stretch as [shape=(K, N)] at `rate`, and the exact time of its first sample.

        Silence beyond the track's ends; not finite samples become silence.
        """
        own_rate = self._reader.info.samplerate
        first, count = round(start_s * own_rate), math.ceil(duration_s * own_rate)
        sound = np.zeros((len(self._channels), count))
        size = max(own_rate, _PIECE_VALUES // self._reader.info.n_channels)
        stop = min(first + count, self._reader.info.n_samples)
        for at in range(max(first, 0), stop, size):
            piece = self._reader.read(at, min(size, stop - at))[self._channels]
            sound[:, at - first : at - first + piece.shape[1]] = piece
        np.nan_to_num(sound, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        ratio = Fraction(rate, own_rate)
        resampled = resample_poly(sound, ratio.numerator, ratio.denominator, axis=1)
        return first / own_rate, np.asarray(resampled)


def camera_channels(camera: AudioReader) -> list[int]:
    """What to hear of a camera: W of an ambisonic one, both channels of a pair."""
    n_channels = camera.info.n_channels
    return [0, 1] if n_channels in (2, 3) else track_channels(camera)


def track_channels(track: AudioReader) -> list[int]:
    """What to hear of a track: W."""
    return [track.info.components[0] if track.info.components else 0]
