"""Where one sound occurs in another: whitening and generalised cross-correlation (PHAT).

Both sounds are whitened once, and plain correlation of the whitened sounds is then a generalised
cross-correlation (Knapp and Carter, IEEE Trans. ASSP 24, 320, 1976) whose sum over frames outlives
noise. The weight lies between that paper's PHAT, in which all bins of the short-time spectrum count
alike, and its SCOT, in which loud moments count more: every frequency counts alike, whatever a
microphone's colour, and what stands out of the usual counts more than the noise between.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from model.spectra import ShortTime

FloatArray = NDArray[np.float64]

_FRAME_S = 0.25
_LOWEST_HZ = 120.0  # below: handling, wind, the mains
_CONTRAST = 4.0  # 0: PHAT, all bins alike; large: SCOT, loud moments count in full
_AMPLE = 0.25  # of the greatest energy: a place with less is judged as if it had this much
_FLOOR = 1e-2  # of the mean magnitude: what a coder or a filter took away is not raised
_SILENCE = 1e-7  # amplitude, full scale 1: below it there is nothing to whiten


def whitened(sound: FloatArray, samplerate: float) -> FloatArray:
    """A sound whose short-time spectrum is level over frequency and limited over time.

    Each bin X becomes X / (|X| + 4 usual), `usual` being that frequency's root mean square over
    the whole stretch, in frames of a quarter of a second that overlap by half. Silence stays
    silence. It neither delays nor shifts anything.

    sound : [shape=(..., N)], a frame at least, full scale 1.0, all finite; returns the same shape.
    """
    size = round(_FRAME_S * samplerate)
    transform = ShortTime(size, size // 2, samplerate)
    spectra = transform.spectra(sound)
    magnitude = np.abs(spectra)
    usual = np.sqrt(np.mean(magnitude**2, axis=-1, keepdims=True))
    floor = _FLOOR * usual.mean(axis=-2, keepdims=True) + _SILENCE * size
    spectra /= magnitude + _CONTRAST * usual + floor
    spectra[..., transform.frequencies_hz < _LOWEST_HZ, :] = 0.0
    return transform.sound(spectra, sound.shape[-1])


def correlated(needle: FloatArray, haystack: FloatArray) -> FloatArray:
    """Correlation of a short sound with each place of a longer one.

    needle : [shape=(..., n)]; haystack : [shape=(..., N)], N >= n; leading axes broadcast.
    Returns [shape=(..., N - n + 1)]: entry i for the needle's beginning at sample i.
    """
    n_places = haystack.shape[-1] - needle.shape[-1] + 1
    size = next_fast_len(haystack.shape[-1], real=True)
    product = rfft(haystack, size) * rfft(needle, size).conj()
    return np.asarray(irfft(product, size)[..., :n_places])


def deviations(correlation: FloatArray) -> FloatArray:
    """A correlation in units of its own noise, the median magnitude over the places (last axis).

    All zero where the correlation is (one of the sounds is silent).
    """
    return _over(correlation, np.median(np.abs(correlation), axis=-1, keepdims=True) / 0.6745)


def search(needle: FloatArray, haystack: FloatArray) -> FloatArray:
    """Correlation of a short sound with each place of a longer one, in deviations of its noise.

    As `correlated` and `deviations`, but for a haystack that may be silent for long: each place is
    judged by the energy that is there, and places with next to none say nothing.
    """
    n = needle.shape[-1]
    integral = np.pad(np.cumsum(haystack**2, axis=-1), [(0, 0)] * (haystack.ndim - 1) + [(1, 0)])
    energy = integral[..., n:] - integral[..., :-n]
    ample = _AMPLE * energy.max(axis=-1, keepdims=True)
    level = _over(correlated(needle, haystack), np.sqrt(energy + ample))
    sounding = energy > ample
    magnitude = np.where(sounding, np.abs(level), np.nan)
    if not sounding.any():
        return np.zeros_like(level)
    noise = np.nanmedian(magnitude, axis=-1, keepdims=True) / 0.6745
    return _over(level, noise)


def _over(values: FloatArray, noise: FloatArray) -> FloatArray:
    return np.divide(values, noise, out=np.zeros_like(values), where=noise > 0)


def refined_peak(values: FloatArray) -> tuple[float, float]:
    """Position (in samples, between them) and signed height of the largest magnitude of a curve.

    By the parabola through the peak and its neighbours; values : [shape=(N,)].
    """
    peak = int(np.argmax(np.abs(values)))
    if not 0 < peak < len(values) - 1:
        return float(peak), float(values[peak])
    left, centre, right = (float(v) for v in values[peak - 1 : peak + 2] * np.sign(values[peak]))
    bend = left - 2 * centre + right
    part = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return peak + part, math.copysign(centre - 0.25 * (left - right) * part, values[peak])
