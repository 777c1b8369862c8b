"""Where a second microphone stands from the first, by the phases of what both hear.

A wave from the direction u reaches a place r away by u·r / c earlier. Each bin of the reference's
spectrum is taken for one plane wave, from where its intensity points, so that a displacement of
three numbers says by what phase that bin comes in the track; the one by which both fields have most
in common is looked for, in low bands first, where phases do not wrap. With the reference moved
there, waveforms can be compared up to where two microphones otherwise have nothing in common.
(Plane waves by bins: Pulkki, J. Audio Eng. Soc. 55, 503, 2007; translation: Schultz and Spors, Acta
Acust. Acust. 99, 2013.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from model.recordings.echoes import Pair
from model.recordings.intensity import RATE, XYZ
from model.spectra import ComplexArray, ShortTime

FloatArray = NDArray[np.float64]

SPEED_OF_SOUND = 343.0
_N_FFT, _HOP = 1024, 256  # to move a field
_N_FFT_SEEN, _HOP_SEEN = 512, 256  # to find its place
_LOWEST_HZ = 80.0
_HIGHEST_HZ = (300.0, 600.0, 1200.0)  # one after the other, each from where the last one ended
_LONGEST_S = 60.0  # that is looked at
_KEPT_STARTS = 5
_NEARNESS = 0.1  # what a place as far off as it may be costs: a nat counts 1
_MOST_IN_COMMON = 0.999
_TINY = 1e-20


def moved(field: NDArray[np.floating], by_m: FloatArray, samplerate: int) -> FloatArray:
    """The field at another place nearby, each bin of its spectrum taken for one plane wave.

    field : W, Y, Z, X (further channels are left out), [shape=(4, N)].
    by_m : displacement (x, y, z) in metres.
    """
    transform = ShortTime(_N_FFT, _HOP, samplerate)
    spectra = transform.spectra(field[:4])
    earlier_s = np.einsum("i,ift->ft", by_m, _directions(spectra)) / SPEED_OF_SOUND
    turned = spectra * np.exp(2j * np.pi * transform.frequencies_hz[:, None] * earlier_s)
    return transform.sound(turned, field.shape[1])


def displacement_m(pairs: Sequence[Pair], turn: FloatArray, *, way_m: float) -> FloatArray:
    """Where the track's microphone stands from the reference's, (x, y, z) in metres.

    pairs : reference and track, aligned, at 16 kHz.
    turn : what about brings the track's directions to the reference, orthogonal, [shape=(3, 3)].
    way_m : about how far it is, at most.
    """
    match = _match(pairs, turn)

    def loss(place: FloatArray, highest_hz: float) -> tuple[float, FloatArray]:
        incoherence, slope = match.incoherence(place, highest_hz)
        way = place / way_m  # where hardly anything is in common, near is likelier than far
        return incoherence + _NEARNESS * float(way @ way), slope + 2 * _NEARNESS * way / way_m

    places = sorted(_starts(way_m), key=lambda place: loss(place, _HIGHEST_HZ[0])[0])
    places = places[:_KEPT_STARTS]
    for highest_hz in _HIGHEST_HZ:
        places = [
            minimize(loss, place, args=(highest_hz,), jac=True, method="BFGS").x for place in places
        ]
    return np.asarray(min(places, key=lambda place: loss(place, _HIGHEST_HZ[-1])[0]))


def _directions(spectra: ComplexArray) -> FloatArray:
    """Unit vectors (x, y, z) to where each bin's intensity points, [shape=(3, F, T)]."""
    intensity = np.stack([(spectra[0].conj() * spectra[i]).real for i in XYZ])
    return np.asarray(intensity / (np.linalg.norm(intensity, axis=0) + _TINY))


def _starts(way_m: float) -> list[FloatArray]:
    """Places to begin at: here, and in the directions of a cube's corners, edges and sides."""
    towards = [np.array(v, float) for v in itertools.product((-1, 0, 1), repeat=3) if any(v)]
    at = [v / np.linalg.norm(v) * way_m * share for v in towards for share in (0.5, 1.0)]
    return [np.zeros(3), *at]


@dataclass(frozen=True)
class _Match:
    """Cross-spectra of two fields by bins, and the directions they come from.

    Attributes
    ----------
    common : as shares of what the fields could have in common in a band, [shape=(F, T)].
    directions : [shape=(3, F, T)].
    waves : wave numbers, 1 / m, [shape=(F,)].
    """

    common: ComplexArray
    directions: FloatArray
    waves: FloatArray

    def incoherence(self, place: FloatArray, highest_hz: float) -> tuple[float, FloatArray]:
        """Log of what is not coherent, summed over bands up to a frequency, and its gradient."""
        n = int(np.searchsorted(self.waves, 2 * math.pi * highest_hz / SPEED_OF_SOUND, "right"))
        towards, waves = self.directions[:, :n], self.waves[:n]
        ahead = np.einsum("i,ift->ft", place, towards)
        turned = self.common[:n] * np.exp(-1j * waves[:, None] * ahead)
        total = turned.sum(1)
        coherence = np.minimum(np.abs(total) ** 2, _MOST_IN_COMMON)
        slopes = -1j * waves * np.einsum("ift,ft->if", towards, turned)
        rise = 2 * (total.conj() * slopes).real / (1 - coherence)
        return float(np.log(1 - coherence).sum()), np.asarray(-rise.sum(1))


def _match(pairs: Sequence[Pair], turn: FloatArray) -> _Match:
    transform = ShortTime(_N_FFT_SEEN, _HOP_SEEN, RATE)
    hz = transform.frequencies_hz
    chosen = (hz >= _LOWEST_HZ) & (hz <= _HIGHEST_HZ[-1])
    length_s = sum(ref.shape[1] for ref, _ in pairs) / RATE
    looked_at = pairs[:: math.ceil(length_s / _LONGEST_S) or 1]
    ref, own = (
        np.concatenate([transform.spectra(pair[i])[:, chosen] for pair in looked_at], axis=2)
        for i in range(2)
    )
    common = ref[0].conj() * own[0]
    common += np.einsum("ift,ij,jft->ft", ref[XYZ].conj(), turn, own[XYZ])
    powers = [np.sum(np.abs(spectra) ** 2, axis=(0, 2)) for spectra in (ref, own)]
    common /= np.sqrt(powers[0] * powers[1] + _TINY)[:, None]
    waves = 2 * math.pi * hz[chosen] / SPEED_OF_SOUND
    return _Match(common, _directions(ref), waves)
