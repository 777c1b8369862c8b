"""Random curves and sounds that scenes are made of.

Curves run at `CURVE_RATE` samples a second; sounds at the rate they are asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import scipy.signal
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter
from torch import Tensor
from torchaudio.functional import lfilter

FloatArray = NDArray[np.float64]

CURVE_RATE = 100
EnvelopeKind = Literal["strikes", "speech", "swell", "on-off", "sustained", "recorded"]
DRAWN_ENVELOPES: tuple[EnvelopeKind, ...] = ("strikes", "speech", "swell", "on-off", "sustained")
DriveKind = Literal["level", "power", "onset", "anticipation", "gesture"]


def smooth_noise(rng: np.random.Generator, n: int, scale_s: float) -> FloatArray:
    """Noise of zero mean and unit deviation that varies over about `scale_s` seconds."""
    sigma = max(scale_s * CURVE_RATE, 1e-3)
    margin = int(4 * sigma) + 1
    noise = gaussian_filter1d(rng.standard_normal(n + 2 * margin), sigma)[margin : margin + n]
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9))


def decaying(impulses: FloatArray, decay_s: float) -> FloatArray:
    """Each impulse followed by an exponential decay."""
    pole = np.exp(-1 / (decay_s * CURVE_RATE))
    return np.asarray(scipy.signal.lfilter([1.0], [1.0, -pole], impulses))


@dataclass(frozen=True)
class Envelope:
    """How loud a source is over time.

    Attributes
    ----------
    level : 0 to 1, [shape=(n,)] at `CURVE_RATE`.
    onsets : strength of each beginning, 0 elsewhere, [shape=(n,)].
    """

    kind: EnvelopeKind
    level: FloatArray
    onsets: FloatArray


def n_points(duration_s: float) -> int:
    """Points of a curve at `CURVE_RATE` from 0 to a duration's end or a little beyond."""
    return math.ceil(duration_s * CURVE_RATE - 1e-6) + 1  # 0.29 of 100 is not 28.999 ...


def draw_envelope(
    rng: np.random.Generator, duration_s: float, kind: EnvelopeKind | None = None
) -> Envelope:
    """A random envelope of one of five kinds."""
    kind = kind or DRAWN_ENVELOPES[rng.choice(5, p=[0.28, 0.34, 0.14, 0.16, 0.08])]
    n = n_points(duration_s)
    t = np.arange(n) / CURVE_RATE
    if kind == "strikes":
        level = decaying(_strikes(rng, n), rng.uniform(0.05, 0.35))
    elif kind == "speech":
        # Syllables of 3 to 6 a second in phrases with pauses.
        rate = rng.uniform(3, 6) * (1 + 0.25 * smooth_noise(rng, n, 0.4))
        syllables = 0.5 + 0.6 * np.sin(2 * np.pi * np.cumsum(rate) / CURVE_RATE)
        syllables += 0.35 * smooth_noise(rng, n, 0.12)
        talking = smooth_noise(rng, n, rng.uniform(0.4, 1.2)) > rng.uniform(-0.8, 0.3)
        level = gaussian_filter1d(np.clip(syllables, 0, None) * talking, 2)
    elif kind == "swell":
        level = np.clip(0.5 + 0.5 * smooth_noise(rng, n, rng.uniform(0.25, 1.0)), 0, None)
    elif kind == "on-off":
        level = np.zeros(n)
        at = rng.uniform(0, 1)
        while at < duration_s:
            length = rng.uniform(0.3, 2.5)
            level[(t >= at) & (t < at + length)] = rng.uniform(0.5, 1)
            at += length + rng.uniform(0.3, 3)
        level = gaussian_filter1d(level, 2)
    else:
        level = np.clip(0.8 + 0.06 * smooth_noise(rng, n, 0.3), 0, None)
    level = level / (level.max() + 1e-9)
    return Envelope(kind, level, _onsets(level))


def envelope_of(sound: FloatArray, samplerate: int) -> Envelope:
    """The envelope of a recording [shape=(N,)], by its level over 20 ms, compressed."""
    hop = samplerate // CURVE_RATE
    power = np.square(sound[: len(sound) // hop * hop]).reshape(-1, hop).mean(axis=1)
    level = np.append(gaussian_filter1d(np.sqrt(power), 1.0), 0.0) ** 0.7
    level = level / (level.max() + 1e-9)
    return Envelope("recorded", level, _onsets(level))


def _onsets(level: FloatArray) -> FloatArray:
    """Strength of each beginning, the largest 1. What sounds from the first moment on has begun
    before.
    """
    rise = np.clip(np.diff(level, prepend=level[0]), 0, None)
    return np.asarray(rise / (rise.max() + 1e-9))


def _strikes(rng: np.random.Generator, n: int) -> FloatArray:
    """Impulses, regular or irregular, 0.5 to 4 a second."""
    impulses = np.zeros(n)
    rate, regular = rng.uniform(0.5, 4), rng.random() < 0.3
    at = rng.uniform(0, 1.0)
    while at * CURVE_RATE < n:
        impulses[int(at * CURVE_RATE)] += rng.uniform(0.4, 1)
        at += 1 / rate if regular else rng.exponential(1 / rate) + 0.06
    return impulses


def draw_drive(
    rng: np.random.Generator,
    envelope: Envelope,
    *,
    strength: float,
    lag_s: float,
    kind: DriveKind | None = None,
) -> FloatArray:
    """Movement of a body whose sound has this envelope, [shape=(n,)], about 0 to 1.

    The movement follows the loudness, its beginnings, or precedes them (a strike), mixed with
    movement of its own: `strength` 1 is all the sound's, 0 all its own. It comes `lag_s` later than
    the sound (negative: earlier).
    """
    kind = kind or rng.choice(get_args(DriveKind))
    if kind == "level":
        drive = envelope.level
    elif kind == "power":
        drive = envelope.level ** rng.uniform(0.4, 1.8)
    elif kind == "onset":
        drive = decaying(envelope.onsets, rng.uniform(0.08, 0.4))
    elif kind == "anticipation":
        drive = decaying(envelope.onsets[::-1], rng.uniform(0.1, 0.4))[::-1]
    else:
        drive = gaussian_filter1d(envelope.level, rng.uniform(5, 50))
    own = draw_envelope(rng, (len(drive) - 1) / CURVE_RATE).level[: len(drive)]
    mixed = strength * drive / (np.abs(drive).max() + 1e-9) + (1 - strength) * own
    t = np.arange(len(mixed)) / CURVE_RATE
    return np.asarray(np.interp(t - lag_s, t, mixed))


def draw_sound(
    rng: np.random.Generator,
    envelope: Envelope,
    samplerate: int,
    *,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A sound of unit power with the given envelope, [shape=(N,)]."""
    n = round((len(envelope.level) - 1) / CURVE_RATE * samplerate)
    carrier = _carrier(rng, n, samplerate, device)
    level = at_samples(envelope.level, n, samplerate, device)
    sound = carrier * level ** rng.uniform(0.8, 1.8)
    return sound / (sound.square().mean().sqrt() + 1e-9)


def _carrier(
    rng: np.random.Generator, n: int, samplerate: int, device: torch.device | str
) -> Tensor:
    """Steady sound: a band of noise, a harmonic tone with vibrato, or coloured noise."""
    kind = rng.integers(3)
    noise = torch.from_numpy(rng.standard_normal(n)).to(device)
    if kind == 0:
        low = np.exp(rng.uniform(np.log(80), np.log(2500)))
        high = min(low * rng.uniform(1.6, 12), 0.45 * samplerate)
        return filtered(noise, butter(2, [low, high], "band", fs=samplerate, output="sos"))
    if kind == 1:
        pitch = float(np.exp(rng.uniform(np.log(90), np.log(700))))
        t = torch.arange(n, dtype=torch.float64, device=device) / samplerate
        depth, vibrato_hz = rng.uniform(0, 8), rng.uniform(0.5, 6)
        phase = 2 * np.pi * pitch * t + depth * (2 * np.pi * vibrato_hz * t).sin()
        fall = rng.uniform(0.4, 1.6)
        for h in range(1, int(min(12, 0.4 * samplerate / pitch)) + 1):
            noise = noise + 10 * (h * phase + rng.uniform(0, 6.28)).sin() / h**fall
        return 0.1 * noise
    return coloured(noise, rng.uniform(0.3, 0.98))


def at_samples(
    curve: NDArray[np.floating], n: int, samplerate: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Curves at `CURVE_RATE` [shape=(..., m)] on lines between their points, at `n` samples.

    Their ends are held.
    """
    points = torch.from_numpy(np.ascontiguousarray(curve)).to(device)
    last = points.shape[-1] - 1
    at = (torch.arange(n, dtype=torch.float64, device=device) * (CURVE_RATE / samplerate)).clamp(
        max=last
    )
    before = at.long()
    after = (before + 1).clamp(max=last)
    return torch.lerp(points[..., before], points[..., after], at - before)


def coloured(noise: Tensor, pole: float) -> Tensor:
    """White noise [shape=(..., N)] after a filter of one pole."""
    a, b = noise.new_tensor([1.0, -pole]), noise.new_tensor([1.0, 0.0])
    passed: Tensor = lfilter(noise, a, b, clamp=False)
    return passed


def filtered(sound: Tensor, sections: FloatArray) -> Tensor:
    """A sound [shape=(..., N)] after second-order sections, as SciPy designs them."""
    for section in sections:
        b, a = sound.new_tensor(section[:3]), sound.new_tensor(section[3:])
        sound = lfilter(sound, a, b, clamp=False)
    return sound
