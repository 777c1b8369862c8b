"""What two microphones that stand close to each other hear alike: moments of their waveforms.

Below some hundred hertz a wave passes both microphones in nearly the same phase, and further up
where one is moved to the other (`displacement`), so their dipoles' cross-spectra hold the rotation
between them, in diffuse sound too, where intensities say little. In each band the phase that all
components share (colour, what is left of the offset in time) is taken out, and bands count by what
the recordings have in common in them, g² / (1 - g²) with g² the magnitude-squared coherence (as in
maximum-likelihood estimates of delays: Knapp and Carter, IEEE Trans. ASSP 24, 320, 1976). What is
left of a displacement makes the moments a symmetric matrix, which favours no rotation. Microphones
far apart have no coherence, and it says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.recordings.intensity import RATE, XYZ
from model.spectra import ComplexArray, ShortTime

FloatArray = NDArray[np.float64]

_LOWEST_HZ, _HIGHEST_HZ = 60.0, 2000.0
_N_FFT, _HOP = 512, 256
_TINY = 1e-20
_LEAST_NOISE = 1e-3  # of 1 - g²: no band counts without end


@dataclass(frozen=True)
class WaveMoments:
    """Real moments of waveforms.

    Attributes
    ----------
    by_window, by_band : the same sum, [shape=(N, 3, 3)] and [shape=(F, 3, 3)].
    coherence : mean g², 0 to 1.
    """

    by_window: FloatArray
    by_band: FloatArray
    coherence: float


@dataclass(frozen=True)
class CrossSpectra:
    """Of the dipoles of two aligned fields, by window and band.

    Attributes
    ----------
    cross : sum over time of V_ref V_track^H over (x, y, z), [shape=(N, F, 3, 3)].
    power_ref, power_track : sum of |V|², [shape=(F,)].
    """

    cross: ComplexArray
    power_ref: FloatArray
    power_track: FloatArray

    def moments(self, turn: FloatArray) -> WaveMoments:
        """Moments with each band in its own phase and of its own weight.

        turn : about what brings the track to the reference, orthogonal, [shape=(3, 3)].
        """
        common = np.einsum("ij,fij->f", turn, self.cross.sum(0))
        powers = self.power_ref * self.power_track + _TINY
        coherence = np.minimum(np.abs(common) ** 2 / powers, 1.0)
        trust = coherence / (1 - coherence + _LEAST_NOISE)
        weight = trust / np.sqrt(powers) * np.exp(-1j * np.angle(common))
        mean = float(trust @ coherence / (trust.sum() + _TINY))
        weighted = (weight[:, None, None] * self.cross).real
        return WaveMoments(weighted.sum(1), weighted.sum(0), mean)


def cross_spectra(pairs: Iterable[tuple[FloatArray, FloatArray]]) -> CrossSpectra:
    """Cross-spectra of pairs of aligned fields (reference, track), [shape=(4, N)], at 16 kHz."""
    transform = ShortTime(_N_FFT, _HOP, RATE)
    hz = transform.frequencies_hz
    chosen = (hz >= _LOWEST_HZ) & (hz <= _HIGHEST_HZ)
    cross = []
    powers = np.zeros((2, int(chosen.sum())))
    for pair in pairs:
        n = min(field.shape[1] for field in pair)
        ref, own = (transform.spectra(field[XYZ, :n])[:, chosen] for field in pair)
        cross.append(np.einsum("ift,jft->fij", ref, own.conj()))
        powers += [np.sum(np.abs(dipoles) ** 2, axis=(0, 2)) for dipoles in (ref, own)]
    return CrossSpectra(np.array(cross), *powers)
