"""Where sound comes from in two recordings of it: moments of their intensity vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from model.spectra import ComplexArray, ShortTime

FloatArray = NDArray[np.float64]

LOWEST_HZ, HIGHEST_HZ = 200.0, 4_000.0  # between handling and spatial aliasing
RATE = 16_000
XYZ = [3, 1, 2]  # channels of W, Y, Z, X
_N_FFT, _HOP = 256, 128  # 16 ms: longer than what 30 cm delay, shorter than most echoes
_FADING_S, _ECHO = 0.05, 2.0  # of a room's answer: time constant, and share of the past's mean
_DIRECTNESS_POWER = 4
_EVENNESS = 0.75  # 0.5: bins count by their level, 1: all bins alike
_TINY = 1e-20


@dataclass(frozen=True)
class Moments:
    """What is known of the intensities of two aligned fields.

    Attributes
    ----------
    by_window, by_band : sum of w I_ref I_track^T over (x, y, z), [shape=(N, 3, 3)] and
        [shape=(F, 3, 3)].
    power_ref, power_track : sums of w |I|², [shape=(N,)].
    vertical : power of Z over that of X and Y, the lower of the two recordings.
    """

    by_window: FloatArray
    by_band: FloatArray
    power_ref: FloatArray
    power_track: FloatArray
    vertical: float


def moments(
    pairs: Sequence[tuple[FloatArray, FloatArray]], *, lowest_hz: float = LOWEST_HZ
) -> Moments:
    """Moments of pairs of aligned fields (reference, track), [shape=(4, N)] each, at 16 kHz."""
    transform = ShortTime(_N_FFT, _HOP, RATE)
    hz = transform.frequencies_hz
    chosen = (hz >= lowest_hz) & (hz <= HIGHEST_HZ)
    by_window, by_band = [], np.zeros((int(chosen.sum()), 3, 3))
    power_ref, power_track = [], []
    powers = np.zeros((2, 4))
    for pair in pairs:
        n = min(field.shape[1] for field in pair)
        spectra = [transform.spectra(field[:, :n])[:, chosen] for field in pair]
        powers += [np.sum(np.abs(s) ** 2, axis=(1, 2)) for s in spectra]
        (ref, weight_ref), (own, weight_own) = (_new_intensity(s) for s in spectra)
        weight = weight_ref * weight_own
        cross = np.einsum("iab,jab,ab->aij", ref, own, weight)
        by_window.append(cross.sum(0))
        by_band += cross
        power_ref.append(np.sum(ref**2 * weight))
        power_track.append(np.sum(own**2 * weight))
    vertical = float(np.min(2 * powers[:, 2] / (powers[:, 1] + powers[:, 3] + 1e-30)))
    return Moments(
        np.array(by_window), by_band, np.array(power_ref), np.array(power_track), vertical
    )


def _new_intensity(spectra: ComplexArray) -> tuple[FloatArray, FloatArray]:
    """Active intensity (x, y, z) of what newly begins in each bin, and the weight of that bin.

    A room answers a sound from other directions, and two places in it get other answers. What the
    past would still sound like is taken away, and bins count by how much is new in them and how
    much of their energy flows in one direction.

    spectra : of W, Y, Z, X, [shape=(4, F, T)]; returns [shape=(3, F, T)] and [shape=(F, T)].
    """
    intensity = np.stack([(spectra[0].conj() * spectra[i]).real for i in XYZ])
    energy = np.sum(np.abs(spectra) ** 2, axis=0) / 2 + _TINY
    new = intensity - _ECHO * _past(intensity)
    novelty = np.clip(1 - _ECHO * _past(energy) / energy, 0, None)
    directness = np.clip(np.linalg.norm(new, axis=0) / energy, 0, 1)
    return new, novelty * directness**_DIRECTNESS_POWER * energy**-_EVENNESS


def _past(series: FloatArray) -> FloatArray:
    """Exponentially fading mean of what came before each frame, along the last axis."""
    keep = math.exp(-_HOP / RATE / _FADING_S)
    past, _ = lfilter([0.0, 1 - keep], [1.0, -keep], series, zi=series[..., :1])
    return np.asarray(past)
