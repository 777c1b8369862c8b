"""First-order microphones as they are built and used, by what they do to covariances.

A field is made of the signals of a tetrahedron of cardioids. Each has a gain of its own, which
changes with frequency, and hears a sound earlier or later than the middle does, so directions shift
from band to band, the more the shorter the wave (as in real recordings, by 5 to 20 degrees between
0.25 and 8 kHz). Each has noise of its own, which is three times as strong in X, Y and Z as in W:
hiss, and wind, which is low and comes in gusts.

It is done to covariances, so that kept windows are of another microphone each time they are read.

Craven and Gerzon, US patent 4042779 (1977); Gerzon, "The design of precisely coincident microphone
arrays for stereo and surround sound", 50th AES Convention (1975).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from model.features import N_BANDS, TERM_AXES, WW, XX, YY, ZZ, band_edges_hz

# Where capsules look, (x, y, z): left front up, right front down, left back down, right back up.
_LOOKING = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]) / np.sqrt(3)
# Signals of the capsules of (W, X, Y, Z), and the way back.
_CAPSULES = 0.5 * np.column_stack([np.ones(4), _LOOKING])
_ENCODER = np.linalg.inv(_CAPSULES)

_MOST_GAIN_DB = 1.0  # unit of a poor microphone's gains
_MOST_DELAY_S = 35e-6  # deviation of the delays of a large one: capsules 2 cm from the middle
# Deviations of a gain's waves over the bands (half a wave more each), in that unit: microphones are
# matched as a whole better than band by band.
_WAVES = np.array([0.5, 1.0, 0.7, 0.5])
_NOISY, _WINDY = 0.3, 0.3  # of microphones
_HISS_DB, _WIND_DB = (-30.0, -10.0), (-10.0, 12.0)  # in W, against the sound below `_LOW_HZ`
_WIND_HZ, _LOW_HZ = (80.0, 250.0), 500.0  # above the former wind falls off
_GUST_FRAMES, _GUSTY = 3.0, 1.5  # length of gusts, and how unlike each other they are (nepers)


@dataclass(frozen=True)
class Microphone:
    """One microphone at one place.

    Attributes
    ----------
    responses : of its capsules in each band, complex, [shape=(F, 4)].
    hiss_db, wind_db : noise of a capsule in W, against the sound; -inf without.
    wind_hz : where wind has fallen to half.
    seed : of the gusts.
    """

    responses: NDArray[np.complex128]
    hiss_db: float
    wind_db: float
    wind_hz: float
    seed: int


def draw_microphone(rng: np.random.Generator) -> Microphone:
    """Any: from good ones in still air to poor ones in wind."""
    gain_db, delay_s = rng.uniform(0, (_MOST_GAIN_DB, _MOST_DELAY_S))
    over = np.pi * np.arange(len(_WAVES)) * (np.arange(N_BANDS)[:, None] + 0.5) / N_BANDS
    shares = rng.normal(size=(len(_WAVES), 4)) * _WAVES[:, None]
    gains = 10 ** (gain_db * np.cos(over) @ shares / 20)
    delays_s = delay_s * rng.normal(size=4)
    noisy, windy = rng.random(2) < (_NOISY, _WINDY)
    hiss_db, wind_db, wind_hz = rng.uniform(*np.transpose([_HISS_DB, _WIND_DB, _WIND_HZ]))
    return Microphone(
        gains * np.exp(-2j * np.pi * centres_hz()[:, None] * delays_s),
        float(hiss_db) if noisy else -np.inf,
        float(wind_db) if windy else -np.inf,
        float(wind_hz),
        int(rng.integers(1 << 32)),
    )


def centres_hz() -> NDArray[np.float64]:
    """Middle frequencies of the bands of `features.mel_filterbank`, [shape=(F,)]."""
    return band_edges_hz()[1:-1]


def heard_by(microphone: Microphone, covariance: Tensor) -> Tensor:
    """Covariances as a microphone gives them, [shape=(T, F, 10)], of those of the field.

    What pressure and velocity have in common a quarter of a period apart is not in the terms, and
    is taken for none: so it is of single waves and of diffuse sound.
    """
    encoded = _ENCODER @ (microphone.responses[:, :, None] * _CAPSULES)  # (F, 4, 4)
    terms = sum(_on_terms(part) for part in (encoded.real, encoded.imag))
    heard = torch.einsum("tfc,fdc->tfd", covariance, torch.from_numpy(terms).to(covariance))
    low = torch.from_numpy(centres_hz() < _LOW_HZ).to(heard.device)
    usual = heard[:, low, WW].mean()
    noise = usual * torch.from_numpy(_noise(microphone, len(heard))).to(heard)
    of_capsules = (_ENCODER**2).sum(1) / (_ENCODER[0] ** 2).sum()  # in W, X, Y, Z
    for term, gain in zip((WW, XX, YY, ZZ), of_capsules.tolist(), strict=True):
        heard[..., term] += gain * noise
    return heard


def _noise(microphone: Microphone, n_frames: int) -> NDArray[np.float64]:
    """Power of hiss and wind in W, [shape=(T, F)]."""
    rough = np.random.default_rng(microphone.seed).normal(size=n_frames)
    gusts = gaussian_filter1d(rough, _GUST_FRAMES, mode="wrap")
    gusts = np.exp(_GUSTY * gusts / (gusts.std() + 1e-9))
    falling = 1 / (1 + (centres_hz() / microphone.wind_hz) ** 2)
    wind = 10 ** (microphone.wind_db / 10) * (gusts / gusts.mean())[:, None] * falling
    return np.asarray(wind + 10 ** (microphone.hiss_db / 10))


def _on_terms(mixing: NDArray[np.float64]) -> NDArray[np.float64]:
    """What A C A' does to the ten terms of C, [shape=(F, 4, 4)] to [shape=(F, 10, 10)]."""
    matrices, places = _symmetric()
    mixed = mixing[:, None] @ matrices @ mixing[:, None].swapaxes(-1, -2)  # (F, 10, 4, 4)
    return np.asarray(mixed[..., places[0], places[1]].swapaxes(-1, -2))


@lru_cache(maxsize=1)
def _symmetric() -> tuple[NDArray[np.float64], tuple[list[int], list[int]]]:
    """The matrix of each term alone, [shape=(10, 4, 4)], and the terms' places."""
    matrices = np.zeros((len(TERM_AXES), 4, 4))
    for matrix, (a, b) in zip(matrices, TERM_AXES, strict=True):
        matrix[a, b] = matrix[b, a] = 1.0
    rows, columns = zip(*TERM_AXES, strict=True)
    return matrices, (list(rows), list(columns))
