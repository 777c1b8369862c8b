"""What the surroundings of a microphone answer, taken out by what another one heard before.

Echoes come from elsewhere than their sound, and two places have different ones: they turn
intensities and waveforms alike, above all of sound that never pauses. But an echo is a copy of what
the reference's W has heard some milliseconds before. So each channel of the track is a sum of all
of the reference's channels now, as far as microphones and the way between them delay, and of its
W's past; the latter part is taken away. Both are found at once, by least squares: sound resembles
its own past, and by that alone much of the direct sound would pass for an echo of itself. (Linear
prediction of late reverberation: Nakatani et al., IEEE Trans. ASLP 18, 1717, 2010.)

It is done below 2 kHz: above, two microphones have little in common but directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.signal import fftconvolve, resample_poly, welch

from model.intensity import RATE

FloatArray = NDArray[np.float64]
Pair = tuple[FloatArray, FloatArray]  # reference and track, aligned, [shape=(4, N)] each

LONGEST_S = 0.15  # of an echo
LATEST_S = 0.005  # by which tracks that are aligned may still be off
_LOW_RATE = 4_000
_GAP_S = 0.0005  # between what counts as direct and the first echo
_WHITENING = 0.7  # 0: bands count by their power, 1: all alike
_LOWEST_HZ = 50.0
# Small coefficients are likelier than large ones, and late echoes are weak: of a tap's variance.
_RIDGE, _FADING_S = 1e-4, 0.06
_TINY = 1e-20


def without_echoes(pairs: Sequence[Pair], *, direct_s: float) -> list[Pair]:
    """The same pairs, at 16 kHz, with tracks that have no echoes of their own.

    What was heard before a pair begins is not known, so its first `LONGEST_S` keep some.

    direct_s : by how much direct sound may come earlier or later in the track.
    """
    low = _lowered(pairs)
    near, first, last = (round(s * _LOW_RATE) for s in (direct_s, direct_s + _GAP_S, LONGEST_S))
    # Which channel of the reference, and how much earlier.
    terms = [(channel, lag) for channel in range(4) for lag in range(-near, near + 1)]
    n_direct = len(terms)
    terms += [(0, lag) for lag in range(first, last)]
    late_s = np.arange(last - first) / _LOW_RATE
    prior = np.concatenate([np.full(n_direct, 0.01), np.exp(2 * late_s / _FADING_S)])
    gram, product = _normal_equations(low, np.array(terms))
    power = gram[0, 0] + _TINY
    found = solve(gram + np.diag(_RIDGE * power * prior), product, assume_a="pos")
    echo = np.concatenate([np.zeros((4, first)), found[n_direct:].T], axis=1)
    return [
        (ref, track - _raised(fftconvolve(low_ref[:1], echo, axes=1), track.shape[1]))
        for (low_ref, _), (ref, track) in zip(low, pairs, strict=True)
    ]


def late_by_s(pairs: Sequence[Pair]) -> float:
    """How much later the track still is, within `LATEST_S`: where the channels of both, whitened,
    have most in common, whatever the rotation between them.
    """
    low = _lowered(pairs)
    power, reach = _power(low), round(LATEST_S * _LOW_RATE)
    common = [
        _correlations(_whitened(ref, power), _whitened(track, power), reach) for ref, track in low
    ]
    return _most_in_common(np.sum(common, axis=0), reach) / _LOW_RATE


def _most_in_common(correlations: FloatArray, reach: int) -> float:
    """The lag at which matrices [shape=(4, 4, K)] are largest, between samples by a parabola."""
    size = np.linalg.norm(correlations, axis=(0, 1))
    size = np.concatenate([size[-reach:], size[: reach + 1]])
    peak = int(np.argmax(size[1:-1])) + 1
    before, at, after = size[peak - 1 : peak + 2]
    curve = before - 2 * at + after
    return peak - reach + (0.5 * (before - after) / curve if curve < 0 else 0.0)


def _lowered(pairs: Sequence[Pair]) -> list[Pair]:
    return [
        (
            resample_poly(ref, 1, RATE // _LOW_RATE, axis=1),
            resample_poly(own, 1, RATE // _LOW_RATE, axis=1),
        )
        for ref, own in pairs
    ]


def _power(low: Sequence[Pair]) -> FloatArray:
    """Of all channels of the reference, by evenly spaced frequencies up to the highest."""
    return np.asarray(
        sum(welch(ref, _LOW_RATE, nperseg=min(256, ref.shape[1]))[1].sum(0) for ref, _ in low)
    )


def _raised(low: FloatArray, n: int) -> FloatArray:
    """A signal at the rate of pairs again, n samples of it."""
    return np.asarray(resample_poly(low, RATE // _LOW_RATE, 1, axis=1)[:, :n])


def _normal_equations(
    pairs: Sequence[Pair], terms: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Products of terms (channel, lag) of the reference with each other and with the track."""
    power = _power(pairs)
    channel, lag = terms.T
    reach = int(2 * np.abs(lag).max())
    gram, product = np.zeros((len(terms), len(terms))), np.zeros((len(terms), 4))
    for pair in pairs:
        ref, track = (_whitened(field, power) for field in pair)
        of_ref, of_track = _correlations(ref, ref, reach), _correlations(ref, track, reach)
        gram += of_ref[channel[:, None], channel, lag[:, None] - lag]
        product += of_track[channel, :, lag]
    return gram, product


def _whitened(field: FloatArray, power: FloatArray) -> FloatArray:
    """A field with its bands nearer to the same power, at zero phase."""
    frequencies = np.fft.rfftfreq(field.shape[1], 1 / _LOW_RATE)
    at = np.interp(frequencies, np.linspace(0, _LOW_RATE / 2, len(power)), power)
    gain = (at + 1e-3 * power.mean() + _TINY) ** (-_WHITENING / 2)
    gain[frequencies < _LOWEST_HZ] = 0
    return np.asarray(np.fft.irfft(np.fft.rfft(field, axis=1) * gain, field.shape[1]))


def _correlations(first: FloatArray, second: FloatArray, reach: int) -> FloatArray:
    """Sums over t of first_i(t) second_j(t + k), [shape=(4, 4, K)]; k below 0 from the end."""
    n = first.shape[1] + reach
    spectra = [np.fft.rfft(field, n) for field in (first, second)]
    return np.asarray(np.fft.irfft(spectra[0].conj()[:, None] * spectra[1], n))
