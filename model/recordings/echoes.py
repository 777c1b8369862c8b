"""What the surroundings of a microphone answer, taken out by what another one heard before.

Echoes come from elsewhere than their sound, and two places have different ones: they turn
intensities and waveforms alike, above all of sound that never pauses. But an echo is a copy of what
the reference's W has heard some milliseconds before. So each channel of the track is a sum of all
of the reference's channels now, as far as microphones and the way between them delay, and of its
W's past; the latter part is taken away. Both are found at once, by least squares: sound resembles
its own past, and by that alone much of the direct sound would pass for an echo of itself. (Linear
prediction of late reverberation: Nakatani et al., IEEE Trans. ASLP 18, 1717, 2010.)

What that leaves of an echo still resembles the reference wherever sound repeats itself. Moments of
waveforms are therefore taken of what neither field's past foretells (`unforeseen`): by the theorem
of Frisch, Waugh and Lovell, their products are those of a regression on both, each direction with
the weight of what is known of it, and tones, of which echo and direct sound cannot be told apart,
have little (Lovell, J. Am. Stat. Assoc. 58, 993, 1963).

It is done below 2 kHz: above, two microphones have little in common but directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.signal import fftconvolve, resample_poly, welch

from model.recordings.intensity import RATE
from model.timing.correlation import refined_peak

FloatArray = NDArray[np.float64]
Pair = tuple[FloatArray, FloatArray]  # reference and track, aligned, [shape=(4, N)] each

LONGEST_S = 0.15  # of an echo
LATEST_S = 0.005  # by which tracks that are aligned may still be off
_LOW_RATE = 4_000
_GAP_S = 0.0005  # between what counts as direct and the first echo
_WHITENING = 0.7  # 0: bands count by their power, 1: all alike
_LOWEST_HZ = 50.0
# Small coefficients are likelier than large ones, and late echoes are weak: of a tap's variance,
# beside the direct sound and alone, where noise of the track counts as well.
_RIDGE, _RIDGE_ALONE, _FADING_S = 1e-4, 0.03, 0.06
_NEAR_TAP = 0.01  # of that, for the direct sound's taps
_TINY = 1e-20


def without_echoes(pairs: Sequence[Pair], *, direct_s: float) -> list[Pair]:
    """The same pairs, at 16 kHz, with tracks that have no echoes of their own.

    What was heard before a pair begins is not known, so its first `LONGEST_S` keep some.

    direct_s : by how much direct sound may come earlier or later in the track.
    """
    low = _lowered(pairs)
    near, first = (round(s * _LOW_RATE) for s in (direct_s, direct_s + _GAP_S))
    # Which channel of the reference, and how much earlier.
    direct = [(channel, lag) for channel in range(4) for lag in range(-near, near + 1)]
    past, prior = _past(first)
    found = _regression(
        low, [*direct, *past], np.concatenate([np.full(len(direct), _NEAR_TAP), prior]), _RIDGE
    )
    echo = _response(found[len(direct) :], first)
    return [
        (ref, track - _heard(low_ref, echo, track.shape[1]))
        for (low_ref, _), (ref, track) in zip(low, pairs, strict=True)
    ]


def unforeseen(
    pairs: Sequence[Pair], references: Sequence[FloatArray], *, direct_s: float
) -> Iterator[Pair]:
    """What in either field of each pair does not follow from what W had heard before.

    pairs : a reference, wherever it has been moved, and the track as it is, at 16 kHz.
    references : the same as they were heard, whose W is the past of both.
    direct_s : as in `without_echoes`.
    """
    lowered = [np.concatenate(pair) for pair in _lowered(pairs)]
    low = [(_low(ref), both) for ref, both in zip(references, lowered, strict=True)]
    first = round((direct_s + _GAP_S) * _LOW_RATE)
    foretold = _response(_regression(low, *_past(first), _RIDGE_ALONE), first)
    for (low_ref, _), (ref, track) in zip(low, pairs, strict=True):
        of_ref, of_track = np.split(_heard(low_ref, foretold, track.shape[1]), 2)
        yield ref - of_ref, track - of_track


def late_by_s(pairs: Sequence[Pair]) -> float:
    """How much later the track still is, within `LATEST_S`: where the channels of both, whitened,
    have most in common, whatever the rotation between them.
    """
    low = _lowered(pairs)
    power, reach = _power(low), round(LATEST_S * _LOW_RATE)
    common = [
        _correlations(_whitened(ref, power), _whitened(track, power), reach) for ref, track in low
    ]
    size = np.linalg.norm(np.sum(common, axis=0), axis=(0, 1))
    at, _ = refined_peak(np.concatenate([size[-reach:], size[: reach + 1]]))
    return (at - reach) / _LOW_RATE


def _past(first: int) -> tuple[list[tuple[int, int]], FloatArray]:
    """Terms (channel, lag) of W's past from a lag on, and how unlikely each is."""
    lags = range(first, round(LONGEST_S * _LOW_RATE))
    late_s = np.arange(len(lags)) / _LOW_RATE
    return [(0, lag) for lag in lags], np.exp(2 * late_s / _FADING_S)


def _regression(
    low: Sequence[Pair], terms: Sequence[tuple[int, int]], prior: FloatArray, ridge: float
) -> FloatArray:
    """Coefficients of terms (channel, lag) of each pair's first that give its second,
    [shape=(terms, C)].
    """
    gram, product = _normal_equations(low, np.array(terms))
    power = gram[0, 0] + _TINY
    return np.asarray(solve(gram + np.diag(ridge * power * prior), product, assume_a="pos"))


def _response(coefficients: FloatArray, first: int) -> FloatArray:
    """Coefficients of W's past from a lag on as impulse responses, [shape=(C, lags)]."""
    return np.concatenate([np.zeros((coefficients.shape[1], first)), coefficients.T], axis=1)


def _heard(low_ref: FloatArray, response: FloatArray, n: int) -> FloatArray:
    """What responses make of a reference's W, n samples of it at the rate of pairs."""
    low = fftconvolve(low_ref[:1], response, axes=1)
    return np.asarray(resample_poly(low, RATE // _LOW_RATE, 1, axis=1)[:, :n])


def _lowered(pairs: Sequence[Pair]) -> list[Pair]:
    return [(_low(ref), _low(own)) for ref, own in pairs]


def _low(field: FloatArray) -> FloatArray:
    return np.asarray(resample_poly(field, 1, RATE // _LOW_RATE, axis=1))


def _power(low: Sequence[Pair]) -> FloatArray:
    """Of all channels of the reference, by evenly spaced frequencies up to the highest."""
    return np.asarray(
        sum(welch(ref, _LOW_RATE, nperseg=min(256, ref.shape[1]))[1].sum(0) for ref, _ in low)
    )


def _normal_equations(
    pairs: Sequence[Pair], terms: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Products of terms (channel, lag) of each pair's first with each other and its second."""
    power = _power(pairs)
    channel, lag = terms.T
    reach = int(2 * np.abs(lag).max())
    gram = np.zeros((len(terms), len(terms)))
    product = np.zeros((len(terms), len(pairs[0][1])))
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
