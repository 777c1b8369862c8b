"""Channels of a track mixed anew, block by block, and what becomes of them when they are stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import MediaError
from model.media.samples import SampleFormat

FloatArray = NDArray[np.floating]
# Each changed channel as a weighted sum of the old ones: {channel: ((old channel, weight), ...)}.
# A weight that varies is a function of a block's first sample and size.
Weight = float | Callable[[int, int], FloatArray]
ChannelMix = Mapping[int, Sequence[tuple[int, Weight]]]


class NotFinite(Exception):
    """A sample is NaN or infinite."""


class Mixer:
    """Mixes successive blocks of channels and keeps account of what is written."""

    def __init__(self, mix: ChannelMix, sample_format: SampleFormat, gain: float = 1.0) -> None:
        half_step = (1 - sample_format.highest) / 2 if sample_format.highest < 1 else math.inf
        self._mix = mix
        self._lower, self._upper = -1 - half_step, sample_format.highest + half_step
        self._highest = sample_format.highest
        self._done = 0
        self.gain = gain
        self.peak = 0.0
        self.n_clipped = 0

    def changes(self, channel: int) -> bool:
        """Whether a channel's samples change."""
        return self.gain != 1.0 or channel in self._mix

    def __call__(self, block: FloatArray) -> FloatArray:
        """New samples of a block, [shape=(n_channels, N)]; raises `NotFinite`."""
        mixed = block.copy()
        n_samples = block.shape[1]
        for channel, weights in self._mix.items():
            total = mixed[channel]
            total[:] = 0.0
            for source, weight in weights:
                now = weight(self._done, n_samples) if callable(weight) else weight
                total += now * block[source]
        self._done += n_samples
        if self.gain != 1.0:
            mixed *= self.gain
        lowest, highest = float(mixed.min(initial=0.0)), float(mixed.max(initial=0.0))
        if not math.isfinite(lowest) or not math.isfinite(highest):
            raise NotFinite
        self.peak = max(self.peak, -lowest, highest)
        if lowest < self._lower or highest > self._upper:
            over = (mixed < self._lower) | (mixed > self._upper)
            self.n_clipped += int(np.count_nonzero(over))
        return mixed

    def trimmed_gain(self) -> float:
        """The gain that brings the peak to the highest value that can be stored."""
        return self.gain * self._highest / self.peak


@dataclass(frozen=True)
class Written:
    """What was written; format: None of a copy of a lossy track; sha256: where it is known."""

    n_samples: int
    format: SampleFormat | None
    mixer: Mixer | None = None
    sha256: str | None = None


def with_trim(
    mix: ChannelMix, sample_format: SampleFormat, write: Callable[[Mixer], Written]
) -> Written:
    """Write once as it is; if that clips, write again with the gain that just does not."""
    mixer = Mixer(mix, sample_format)
    written = write(mixer)
    if mixer.n_clipped:
        return write(Mixer(mix, sample_format, mixer.trimmed_gain()))
    return written


def not_finite(path: Path, at_s: float) -> MediaError:
    """The error of a track with samples that are no numbers near a time."""
    return MediaError(
        f"{path} holds NaN or infinite samples near {at_s:.1f} s: repair the track first."
    )
