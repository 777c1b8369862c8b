"""Sound in space: moving plane waves, early reflections, a diffuse tail, ambience."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from model.ambisonics import encode, plane_wave_gains, rotate_yaw
from training.data.signals import CURVE_RATE

FloatArray = NDArray[np.float64]


def at_samples(curve: FloatArray, n: int, samplerate: int) -> FloatArray:
    """A curve at `CURVE_RATE`, interpolated to `n` samples."""
    return np.interp(np.arange(n) / samplerate, np.arange(len(curve)) / CURVE_RATE, curve)


def diffuse_noise(rng: np.random.Generator, n: int, order: int) -> FloatArray:
    """Isotropic coloured noise of unit power in W, [shape=(C, n)]: SN3D falls as 1/(2l + 1)."""
    degrees = np.floor(np.sqrt(np.arange((order + 1) ** 2)))
    noise = rng.standard_normal((len(degrees), n)) / np.sqrt(2 * degrees + 1)[:, None]
    coloured = lfilter([1.0], [1.0, -rng.uniform(0.2, 0.97)], noise, axis=1)
    return np.asarray(coloured / np.sqrt(np.mean(coloured[0] ** 2)))


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

    def respond(self, sound: FloatArray, azimuth_rad: float, order: int) -> FloatArray:
        """All that comes back of a sound from a place, without the direct wave, [shape=(C, N)]."""
        rng, rate = self._rng, self._samplerate
        if self._measured is not None:
            turned = rotate_yaw(self._measured, azimuth_rad + rng.normal(0, 0.5))
            wet = fftconvolve(sound[None], turned, axes=1)[:, : len(sound)]
            return np.pad(wet, ((0, (order + 1) ** 2 - 4), (0, 0)))
        n = int(self._decay_s * rate)
        early = np.zeros(((order + 1) ** 2, n))
        for _ in range(rng.integers(4, 11)):
            delay = rng.uniform(0.002, min(0.05, 0.9 * self._decay_s))
            # One in four comes from near the source (floor, wall behind).
            near = rng.random() < 0.25
            azimuth = azimuth_rad + rng.normal(0, 0.4) if near else rng.uniform(-np.pi, np.pi)
            gain = rng.choice([-1, 1]) * rng.uniform(0.3, 1) * np.exp(-delay / 0.03)
            early[:, int(delay * rate)] += gain * plane_wave_gains(
                azimuth, rng.uniform(-1.2, 1.2), order
            )
        t = np.arange(n) / rate
        tail = diffuse_noise(rng, n, order) * np.exp(-6.9 * t / self._decay_s)
        tail *= np.minimum(1, t / 0.02)
        response = np.sqrt(self._early_share) * early / _norm(early[0])
        response += np.sqrt(1 - self._early_share) * tail / _norm(tail[0])
        wet = fftconvolve(sound[None], response * self._reverberant_gain, axes=1)
        return np.asarray(wet[:, : len(sound)])


def _norm(response: FloatArray) -> float:
    return float(np.sqrt(np.sum(response**2)) + 1e-9)


def microphone(rng: np.random.Generator, field: FloatArray, samplerate: int) -> FloatArray:
    """A field as real microphones and mixes leave it, [shape=(C, N)].

    Channels of unequal gain; and, for one in five, figures of eight that break down above the
    capsules' spatial limit.
    """
    gains = rng.normal(0, rng.uniform(0, 0.7), len(field))
    gains[0] += rng.normal(0, 0.8)
    field = field * (10 ** (gains / 20))[:, None]
    if rng.random() < 0.2:
        limit_hz = min(rng.uniform(4000, 8000), 0.45 * samplerate)
        limit = butter(2, limit_hz, fs=samplerate, output="sos")
        field[1:] = sosfilt(limit, field[1:], axis=1)
    return np.asarray(field)


def recorded(
    rng: np.random.Generator,
    field: FloatArray,
    samplerate: int,
    *,
    flawless: bool = False,
    planar: bool | None = None,
) -> FloatArray:
    """A field as it ends up in a file, [shape=(C, N)], peak 0.5.

    flawless : whether the microphone's channels are exact.
    planar : whether Z is missing (None: in one of eight).
    """
    if not flawless:
        field = microphone(rng, field, samplerate)
    without_z = rng.random() < 0.12  # mixes, and cameras without a vertical capsule
    if without_z if planar is None else planar:
        field[2] = 0.0
    return np.asarray(0.5 * field / np.abs(field).max())


def place(
    sound: FloatArray,
    azimuth_rad: FloatArray,
    elevation_rad: FloatArray,
    samplerate: int,
    order: int,
    room: Room | None = None,
) -> FloatArray:
    """A mono sound moving along a path (curves at `CURVE_RATE`), [shape=(C, N)]."""
    n = len(sound)
    azimuth = at_samples(np.unwrap(azimuth_rad), n, samplerate)
    field = encode(sound, azimuth, at_samples(elevation_rad, n, samplerate), order)
    if room is not None:
        field = field + room.respond(sound, float(azimuth_rad[0]), order)
    return np.asarray(field)
