"""Samples as files store them, and as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

Encoding = Literal["signed", "unsigned", "float"]
FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class SampleFormat:
    """How one sample is stored. As a number, full scale is 1.0.

    Attributes
    ----------
    width : bytes per sample.
    bits : significant bits, at most 8 width; they stand at the top of the integer.
    big_endian : byte order.
    """

    encoding: Encoding
    width: int
    bits: int
    big_endian: bool = False

    @property
    def name(self) -> str:
        """For people: "24-bit", "32-bit float"."""
        return f"{self.bits}-bit{' float' if self.encoding == 'float' else ''}"

    @property
    def highest(self) -> float:
        """The largest value that can be stored; infinite for floats."""
        return math.inf if self.encoding == "float" else 1 - 2.0 ** (1 - self.bits)


def common_format(formats: Sequence[SampleFormat | None]) -> SampleFormat | None:
    """The least that holds samples of all formats to the bit; None if one is of a lossy codec."""
    known = [form for form in formats if form is not None]
    if len(known) < len(formats):
        return None
    if all(form == known[0] for form in known):
        return known[0]
    bits = max(form.bits for form in known)
    if all(form.encoding != "float" for form in known):
        return SampleFormat("signed", (bits + 7) // 8, bits)
    # Of 32-bit floats 24 bits are the number's; of 64-bit ones 53.
    wide = any(form.bits > (32 if form.encoding == "float" else 24) for form in known)
    return SampleFormat("float", 8, 64) if wide else SampleFormat("float", 4, 32)


class SampleBuffer:
    """Interleaved samples as a file stores them, with single channels as numbers.

    Channels that are never set keep their bytes.
    """

    # 24-bit samples are read as 32-bit ones that reach one byte over either edge.
    _PAD = 4

    def __init__(self, sample_format: SampleFormat, n_channels: int, capacity: int) -> None:
        self._format = sample_format
        self._kind = {"signed": "i", "unsigned": "u", "float": "f"}[sample_format.encoding]
        self._n_channels = n_channels
        self._frame_size = n_channels * sample_format.width
        self._bytes = np.zeros(capacity * self._frame_size + 2 * self._PAD, dtype=np.uint8)
        self._n_samples = 0

    def resize(self, n_samples: int) -> None:
        """Make room for `n_samples` frames (at most the capacity), to be set by channel."""
        self._n_samples = n_samples

    def fill(self, file: BinaryIO, n_samples: int) -> int:
        """Read up to `n_samples` whole frames; returns how many there were."""
        wanted = self._bytes.data[self._PAD :][: n_samples * self._frame_size]
        self._n_samples = file.readinto(wanted) // self._frame_size  # type: ignore[attr-defined]
        return self._n_samples

    @property
    def data(self) -> memoryview:
        """The samples as stored."""
        return self._bytes.data[self._PAD :][: self._n_samples * self._frame_size]

    def channel(self, index: int) -> FloatArray:
        """One channel as numbers, [shape=(N,)], float64."""
        form = self._format
        if form.width == 3:
            # The three bytes stand at the top of a 32-bit integer; the shift drops the fourth.
            values = self._view(index, "i4", 0 if form.big_endian else -1) >> 8
        else:
            values = self._view(index, f"{self._kind}{form.width}")
        numbers = values.astype(np.float64)
        if form.encoding != "float":
            bits = 24 if form.width == 3 else 8 * form.width
            numbers *= 2.0 ** (1 - bits)  # a power of two: exact
            if form.encoding == "unsigned":
                numbers -= 1.0
        return numbers

    def channels(self) -> FloatArray:
        """All channels as numbers, [shape=(n_channels, N)], float64."""
        return np.stack([self.channel(index) for index in range(self._n_channels)])

    def set_channel(self, index: int, values: FloatArray) -> None:
        """Store one channel, rounded to the significant bits and cut at full scale."""
        form = self._format
        if form.encoding == "float":
            self._view(index, f"{self._kind}{form.width}")[:] = values
            return
        steps = 2.0 ** (form.bits - 1)
        numbers = values * steps
        np.rint(numbers, out=numbers)
        np.clip(numbers, -steps, steps - 1, out=numbers)
        codes = numbers.astype(np.int32)
        codes <<= 8 * form.width - form.bits
        if form.encoding == "unsigned":
            codes += 1 << (8 * form.width - 1)
        if form.width == 3:
            parts = codes.astype("<i4", copy=False).view(np.uint8).reshape(-1, 4)
            for byte in range(3):
                place = 2 - byte if form.big_endian else byte
                self._view(index, "u1", place)[:] = parts[:, byte]
        else:
            self._view(index, f"{self._kind}{form.width}")[:] = codes

    def _view(self, index: int, kind: str, shift: int = 0) -> NDArray[Any]:
        """A channel's samples as stored numbers, `shift` bytes from where they begin."""
        return np.ndarray(
            (self._n_samples,),
            f"{'>' if self._format.big_endian else '<'}{kind}",
            self._bytes.data,
            self._PAD + index * self._format.width + shift,
            (self._frame_size,),
        )
