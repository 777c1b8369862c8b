"""Sound in space: moving plane waves, early reflections, a diffuse tail, ambience.

What is drawn by lot is drawn by NumPy on the processor; all else is done where the sound is.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from model.ambisonics import plane_wave_gains, rotate_yaw
from training.data.signals import at_samples, coloured

FloatArray = NDArray[np.float64]
Device = torch.device | str


def diffuse_noise(rng: np.random.Generator, n: int, order: int, device: Device = "cpu") -> Tensor:
    """Isotropic coloured noise of unit power in W, [shape=(C, n)]: SN3D falls as 1/(2l + 1)."""
    degrees = np.floor(np.sqrt(np.arange((order + 1) ** 2)))
    white = rng.standard_normal((len(degrees), n)) / np.sqrt(2 * degrees + 1)[:, None]
    noise = coloured(torch.from_numpy(white).to(device), rng.uniform(0.2, 0.97))
    return noise / noise[0].square().mean().sqrt()


class Room:
    """A room by its early reflections (exact plane waves) and a diffuse, decaying tail.

    measured : a response to use in their place, without its direct sound, first order at this rate,
        [shape=(4, N)]; it is turned to each source, higher orders stay dry.
    """

    def __init__(
        self, rng: np.random.Generator, samplerate: int, *, measured: FloatArray | None = None
    ) -> None:
        self._rng = rng
        self._samplerate = samplerate
        self._measured = measured
        self._decay_s = rng.uniform(0.12, 0.6)
        # Direct-to-reverberant ratio: -3 dB is a hall, 15 dB a field.
        self._reverberant_gain = 10 ** (-rng.uniform(-3, 15) / 20)
        self._early_share = rng.uniform(0.3, 0.8)

    def respond(self, sound: Tensor, azimuth_rad: float, order: int) -> Tensor:
        """All that comes back of a sound from a place, without the direct wave, [shape=(C, N)]."""
        rng, n_components = self._rng, (order + 1) ** 2
        if self._measured is not None:
            turned = rotate_yaw(self._measured, azimuth_rad + rng.normal(0, 0.5))
            response = np.pad(turned, ((0, n_components - 4), (0, 0)))
            return _convolved(sound, torch.from_numpy(response).to(sound))
        n = int(self._decay_s * self._samplerate)
        early = self._reflections(n, azimuth_rad, order)
        t = torch.arange(n, device=sound.device) / self._samplerate
        tail = diffuse_noise(rng, n, order, sound.device)
        tail = tail * (-6.9 * t / self._decay_s).exp() * (t / 0.02).clamp(max=1)
        shares = np.sqrt([self._early_share, 1 - self._early_share])
        first = torch.from_numpy(early * (shares[0] / _norm(early[0]))).to(sound)
        response = first + tail * (shares[1] / (tail[0].norm() + 1e-9))
        return _convolved(sound, response * self._reverberant_gain)

    def _reflections(self, n: int, azimuth_rad: float, order: int) -> FloatArray:
        """Early ones, as an impulse response [shape=(C, n)]."""
        rng = self._rng
        early = np.zeros(((order + 1) ** 2, n))
        for _ in range(rng.integers(4, 11)):
            delay = rng.uniform(0.002, min(0.05, 0.9 * self._decay_s))
            # One in four comes from near the source (floor, wall behind).
            near = rng.random() < 0.25
            azimuth = azimuth_rad + rng.normal(0, 0.4) if near else rng.uniform(-np.pi, np.pi)
            gain = rng.choice([-1, 1]) * rng.uniform(0.3, 1) * np.exp(-delay / 0.03)
            early[:, int(delay * self._samplerate)] += gain * plane_wave_gains(
                azimuth, rng.uniform(-1.2, 1.2), order
            )
        return early


def _convolved(sound: Tensor, response: Tensor) -> Tensor:
    """A sound [shape=(N,)] through responses [shape=(C, M)], as long as it was."""
    # (torchaudio's fftconvolve takes any length as it comes, and is slow at most.)
    n = next_fast_len(len(sound) + response.shape[1] - 1, real=True)
    spectra = torch.fft.rfft(sound, n) * torch.fft.rfft(response, n)
    wet: Tensor = torch.fft.irfft(spectra, n)[:, : len(sound)]
    return wet


def _norm(response: FloatArray) -> float:
    return float(np.sqrt(np.sum(response**2)) + 1e-9)


def microphone(rng: np.random.Generator, field: Tensor, samplerate: int) -> Tensor:
    """A field as real microphones and mixes leave it, [shape=(C, N)].

    Channels of unequal gain; and, for one in five, figures of eight that fade above the capsules'
    spatial limit, in phase with the pressure: a converter's filters keep the channels together.
    """
    gains = rng.normal(0, rng.uniform(0, 0.7), len(field))
    gains[0] += rng.normal(0, 0.8)
    field = field * torch.from_numpy(10 ** (gains / 20)).to(field)[:, None]
    if rng.random() < 0.2:
        limit_hz = min(rng.uniform(4000, 8000), 0.45 * samplerate)
        field = torch.cat([field[:1], _faded_above(field[1:], limit_hz, samplerate)])
    return field


def _faded_above(channels: Tensor, limit_hz: float, samplerate: int) -> Tensor:
    """Channels [shape=(C, N)] less and less of which is left above a limit, 12 dB an octave.

    (As a Butterworth filter of order 2 without its phase, which would turn front to back.)
    """
    n = next_fast_len(channels.shape[1], real=True)
    frequencies_hz = torch.fft.rfftfreq(n, 1 / samplerate, dtype=channels.dtype)
    left = (1 + (frequencies_hz / limit_hz) ** 4).rsqrt().to(channels.device)
    faded: Tensor = torch.fft.irfft(torch.fft.rfft(channels, n) * left, n)
    return faded[:, : channels.shape[1]]


def recorded(
    rng: np.random.Generator,
    field: Tensor,
    samplerate: int,
    *,
    flawless: bool = False,
    planar: bool | None = None,
) -> Tensor:
    """A field as it ends up in a file, [shape=(C, N)], peak 0.5.

    flawless : whether the microphone's channels are exact.
    planar : whether Z is missing (None: in one of eight).
    """
    if not flawless:
        field = microphone(rng, field, samplerate)
    without_z = rng.random() < 0.12  # mixes, and cameras without a vertical capsule
    if without_z if planar is None else planar:
        field[2] = 0.0
    return 0.5 * field / field.abs().max()


def place(
    sound: Tensor,
    azimuth_rad: FloatArray,
    elevation_rad: FloatArray,
    samplerate: int,
    order: int,
    room: Room | None = None,
) -> Tensor:
    """A mono sound moving along a path (curves at `CURVE_RATE`), [shape=(C, N)]."""
    # The gains between two points of the path are as good as on a line: it is 10 ms long.
    gains = plane_wave_gains(np.unwrap(azimuth_rad), elevation_rad, order)
    field = at_samples(gains, len(sound), samplerate, sound.device) * sound
    if room is not None:
        field = field + room.respond(sound, float(azimuth_rad[0]), order)
    return field
