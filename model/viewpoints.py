"""What is heard at a viewing direction: the sound input of AVSA.

A field is steered so that the direction becomes the front, and its spectrum becomes channels over
time and mel bands. Steering acts on covariances (`model.features`), so one transform of the sound
serves every viewpoint and every yaw.

The paper's input is the level of each ambisonic channel, which cannot tell front from back: levels
do not change when the signs of X and Y do. `DIRECTIONAL`, the default, keeps the signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional
from torchaudio.functional import melscale_fbanks

from model import features
from model.ambisonics import steering_matrix
from model.features import HOP, N_FFT, SAMPLERATE, TERM_AXES, WW, WX, WY, XX, YY, ZZ

_FLOOR_DB = 100.0  # below each channel's loudest moment
_LEAST = 1e-10
# Levels of a recording are near -40 dB; intensities near 0. Used until statistics are known.
_USUAL_LEVEL_DB = (-40.0, 20.0)
_USUAL_INTENSITY = (0.0, 0.5)


class Sound(StrEnum):
    """Which channels a viewpoint hears.

    MONO : level of W + X, a beam to the front. STEREO : levels of W + Y and W - Y. AMBISONIC :
    levels of W, Y, Z, X (the paper). INTENSITY : level of W, and the active intensity (x, y, z)
    over the energy density, -1 to 1. CARDIOID : levels of cardioids to the front, left, back and
    right. DIRECTIONAL : intensity and cardioids.
    """

    MONO = "mono"
    STEREO = "stereo"
    AMBISONIC = "ambisonic"
    INTENSITY = "intensity"
    CARDIOID = "cardioid"
    DIRECTIONAL = "directional"

    @property
    def n_levels(self) -> int:
        """Channels in decibels; they come first."""
        return {"mono": 1, "stereo": 2, "intensity": 1, "directional": 5}.get(self.value, 4)

    @property
    def has_intensity(self) -> bool:
        """Whether three channels of intensity come last."""
        return self in (Sound.INTENSITY, Sound.DIRECTIONAL)

    @property
    def n_channels(self) -> int:
        """Channels of one viewpoint."""
        return self.n_levels + 3 * self.has_intensity


@dataclass(frozen=True)
class SoundInput:
    """How sound becomes the input of a network.

    Attributes
    ----------
    n_bands : mel bands from 0 to 12 kHz (Slaney's scale and area, as librosa's default).
    magnitude : levels of mel-banded magnitudes, as published; else of powers. Intensity is always
        that of powers.
    """

    sound: Sound = Sound.DIRECTIONAL
    n_bands: int = 128
    magnitude: bool = False

    def __post_init__(self) -> None:
        if self.magnitude and self.sound.has_intensity:
            raise ValueError(f"{self.sound} sound has no published form: it takes powers")

    def covariance(self, field: Tensor) -> Tensor:
        """All that is needed of a field, whatever the direction.

        field : W, Y, Z, X at `features.SAMPLERATE`, [shape=(..., 4, N)].
        Returns [shape=(..., T, F, 10)], T = N / HOP: 100 for a second. F counts the transform's
        bins where bands can be formed only later (`magnitude`).
        """
        n_bins = N_FFT // 2 + 1
        bands = torch.eye(n_bins, dtype=torch.float64) if self.magnitude else slaney(self.n_bands)
        cov = features.covariance(field, filterbank=bands)
        return cov[..., : field.shape[-1] // HOP, :, :]

    def at(self, cov: Tensor, rotations: Tensor) -> Tensor:
        """What is heard after each rotation of the field (see `steering`).

        cov : of `covariance`, [shape=(..., T, F, 10)]; rotations : [shape=(..., V, 3, 3)].
        Returns float32 [shape=(..., V, C, T, F)].
        """
        steered = turned(cov, rotations)
        powers = _powers(steered, self.sound)
        if self.magnitude:
            powers = powers.sqrt() @ slaney(self.n_bands).T.to(powers.device)
        channels = [_decibels(powers)]
        if self.sound.has_intensity:
            density = features.energy(steered)[..., None] + _LEAST
            channels.append((features.intensity(steered) / density).movedim(-1, -3))
        return torch.cat(channels, dim=-3).float()

    def usual(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation to expect of each channel and band, [shape=(C, F)] each."""
        levels, intensities = self.sound.n_levels, 3 * self.sound.has_intensity
        pairs = torch.tensor([_USUAL_LEVEL_DB] * levels + [_USUAL_INTENSITY] * intensities)
        mean, deviation = pairs.T[..., None].expand(-1, -1, self.n_bands)
        return mean.clone(), deviation.clone()


def turned(cov: Tensor, rotations: Tensor) -> Tensor:
    """The covariance terms of the field under each of several rotations of (x, y, z), exactly.

    cov : [shape=(..., T, F, 10)]; rotations : [shape=(..., V, 3, 3)], with the same leading axes.
    Returns [shape=(..., V, T, F, 10)].
    """
    mixing = functional.pad(rotations.to(cov), (1, 0, 1, 0))
    mixing[..., 0, 0] = 1.0
    axes = torch.tensor(TERM_AXES, device=mixing.device)
    (a, b), (c, d) = axes.T[:, None], axes.T[:, :, None]  # of new and of old terms
    columns = mixing[..., a, c] * mixing[..., b, d]
    columns = columns + torch.where(c != d, mixing[..., a, d] * mixing[..., b, c], 0.0)
    return torch.einsum("...tfi,...vij->...vtfj", cov, columns)


def _powers(cov: Tensor, sound: Sound) -> Tensor:
    """Powers of a steered field's channels, [shape=(..., T, F, 10)] to (..., levels, T, F)."""
    ww, xx, yy, zz, wx, wy = (cov[..., term] for term in (WW, XX, YY, ZZ, WX, WY))
    if sound is Sound.MONO:
        powers = [ww + xx + 2 * wx]
    elif sound is Sound.STEREO:
        powers = [ww + yy + 2 * wy, ww + yy - 2 * wy]
    elif sound is Sound.AMBISONIC:
        powers = [ww, yy, zz, xx]
    else:
        powers = [] if sound is Sound.CARDIOID else [ww]
        if sound is not Sound.INTENSITY:
            around = torch.arange(4, dtype=cov.dtype, device=cov.device) * (torch.pi / 2)
            powers += features.cardioid_power(cov, around).unbind(-1)
    return torch.stack(powers, dim=-3).clamp(min=0)


def _decibels(power: Tensor) -> Tensor:
    """10 log10, each channel cut `_FLOOR_DB` below its own maximum over time and band."""
    level = 10 * power.clamp(min=_LEAST).log10()
    return torch.maximum(level, level.amax(dim=(-2, -1), keepdim=True) - _FLOOR_DB)


@lru_cache(maxsize=8)
def slaney(n_bands: int) -> Tensor:
    """Triangular filters of equal area on Slaney's mel scale, float64 [shape=(F, bins)]."""
    bank: Tensor = melscale_fbanks(
        N_FFT // 2 + 1, 0.0, SAMPLERATE / 2, n_bands, SAMPLERATE, norm="slaney", mel_scale="slaney"
    )
    return bank.T.double()


def steering(azimuths_rad: ArrayLike, elevations_rad: ArrayLike = 0.0) -> Tensor:
    """Rotations that bring each direction to the front, yaw first, float64 [shape=(..., 3, 3)].

    A field that is first rotated by d is steered to azimuth A as it is itself to A - d.
    """
    azimuths, elevations = np.broadcast_arrays(azimuths_rad, elevations_rad)
    matrices = [
        steering_matrix(float(azimuth), float(elevation))
        for azimuth, elevation in zip(azimuths.ravel(), elevations.ravel(), strict=True)
    ]
    return torch.tensor(np.stack(matrices)).view(*azimuths.shape, 3, 3)


def mirrored(cov: Tensor) -> Tensor:
    """The covariance terms with left and right exchanged (Y negated), [shape=(..., 10)]."""
    return features.remapped(cov, signs=(1, -1, 1))
