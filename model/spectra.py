"""The short-time spectrum of a sound with a Hann window, and the sound of such a spectrum.

As `scipy.signal.ShortTimeFFT`, which transforms one slice after the other in Python: torch takes
all slices at once, in a fraction of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]


@dataclass(frozen=True)
class ShortTime:
    """Slices of `size` samples, every `hop` samples; the first one's middle is sample 0.

    hop : half of `size` at most, so that every sample lies well within a slice.
    """

    size: int
    hop: int
    samplerate: float

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.size // 2:
            raise ValueError(f"slices of {self.size} samples, every {self.hop}, leave some out")

    @property
    def frequencies_hz(self) -> FloatArray:
        """Of the bins, [shape=(F,)]."""
        return np.asarray(np.fft.rfftfreq(self.size, 1 / self.samplerate))

    def spectra(self, sound: NDArray[np.floating]) -> ComplexArray:
        """Of a sound [shape=(..., N)], silence around it: [shape=(..., F, T)]."""
        *leading, n = sound.shape
        # To the middle of a last slice, so that the end too lies well within one.
        padded = np.pad(sound.reshape(-1, n), [(0, 0), (0, -n % self.hop)])
        spectra = torch.stft(
            torch.from_numpy(padded.astype(np.float64, copy=False)), self.size, self.hop,
            window=self._window, pad_mode="constant", return_complex=True,
        )  # fmt: skip
        return np.asarray(spectra.numpy().reshape(*leading, *spectra.shape[1:]))

    def sound(self, spectra: ComplexArray, n: int) -> FloatArray:
        """The sound of n samples whose spectra are nearest to these [shape=(..., F, T)]."""
        *leading, n_bins, n_slices = spectra.shape
        sound = torch.istft(
            torch.from_numpy(spectra.reshape(-1, n_bins, n_slices)), self.size, self.hop,
            window=self._window, length=n,
        )  # fmt: skip
        return np.asarray(sound.numpy().reshape(*leading, n))

    @property
    def _window(self) -> torch.Tensor:
        return torch.hann_window(self.size, dtype=torch.float64)
