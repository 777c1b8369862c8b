"""A sound recorded once more: another room, another microphone, another clock, another place.

Real recordings become takes of two recorders with known offset, drift and rotation. Signals are
[shape=(C, N)], fields ACN/SN3D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import (
    fftconvolve,
    firwin2,
    minimum_phase,
    oaconvolve,
    resample_poly,
)

from model.ambisonics import ChannelLayout, Convention, rotate_yaw
from model.errors import MediaError
from model.media import open_audio
from model.recordings.displacement import moved

FloatArray = NDArray[np.floating]

# Measured room responses (JSAmbisonics, spaudiopy) and how their channels are written: so that the
# direct sound, a plane wave, is as strong in X, Y and Z together as in W.
ROOMS = {
    "IR_Gewandhaus_SH1.wav": Convention.N3D,
    "room_1_bf.wav": Convention.FUMA,
    "room_2_01-08ch.wav": Convention.N3D,
}
_DIRECT_S = 0.002
_SUFFIXES = (".wav", ".flac", ".ogg")


def read_recordings(folder: Path) -> list[Path]:
    """All sound files below a folder, sorted.

    Raises
    ------
    MediaError : there are none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise MediaError(f"{folder} holds no sound files ({', '.join(_SUFFIXES)}).")
    return paths


def read_mono(path: Path, samplerate: int) -> FloatArray:
    """A recording's first channel at a rate, unit power, [shape=(N,)]."""
    with open_audio(path) as reader:
        sound = np.concatenate(list(reader.blocks(1 << 16)), axis=1)[0]
        rate = Fraction(samplerate, reader.info.samplerate)
    sound = resample_poly(sound, rate.numerator, rate.denominator)
    return np.asarray(sound / (np.sqrt(np.mean(sound**2)) + 1e-9))


def montage(
    rng: np.random.Generator, paths: Sequence[Path], duration_s: float, samplerate: int
) -> FloatArray:
    """Recordings drawn at random, one after the other at levels within ±10 dB, [shape=(N,)]."""
    n = round(duration_s * samplerate)
    parts: list[FloatArray] = []
    while sum(map(len, parts)) < n:
        sound = read_mono(paths[int(rng.integers(len(paths)))], samplerate)
        parts.append(sound * 10 ** (rng.uniform(-10, 10) / 20))
    return np.concatenate(parts)[:n]


def read_room(path: Path, samplerate: int, *, direct_to_reverberant_db: float) -> FloatArray:
    """A measured response from the direct sound on, SN3D [shape=(4, N)], unit energy in W.

    The first 2 ms count as direct; what follows is scaled to the ratio that is asked for. It is
    turned so that the direct sound comes from the front.

    Raises
    ------
    MediaError : a file that is not one of `ROOMS`.
    """
    if path.name not in ROOMS:
        raise MediaError(f"{path.name} is not one of the known rooms ({', '.join(ROOMS)}).")
    with open_audio(path) as reader:
        response = np.concatenate(list(reader.blocks(1 << 16)), axis=1)[:4]
        rate = Fraction(samplerate, reader.info.samplerate)
    response = ChannelLayout.of(4, ROOMS[path.name]).to_sn3d(response)
    response = resample_poly(response, rate.numerator, rate.denominator, axis=1)
    level = np.abs(response[0])
    arrival = int(np.argmax(level > 0.3 * level.max()))
    arrival += int(np.argmax(level[arrival : arrival + samplerate // 1000]))
    response = response[:, arrival:].copy()
    n = round(_DIRECT_S * samplerate)
    direct, late = np.sum(response[0, :n] ** 2), np.sum(response[0, n:] ** 2)
    response[:, n:] *= np.sqrt(direct / late * 10 ** (-direct_to_reverberant_db / 10))
    left, front = (response[[1, 3], :n] * response[0, :n]).sum(1)
    response = rotate_yaw(response, -math.atan2(left, front))
    return np.asarray(response / np.sqrt(np.sum(response[0] ** 2)))


def coloured(rng: np.random.Generator, sound: FloatArray, samplerate: int) -> FloatArray:
    """What a microphone with a response of its own (±6 dB by octaves, minimum phase) hears."""
    octaves = (60, 125, 250, 500, 1000, 2000, 4000, 8000, 16_000)
    edges = [0.0, *(edge for edge in octaves if edge < samplerate / 2), samplerate / 2]
    gains = 10 ** (rng.uniform(-6, 6, len(edges)) / 20)
    # The filter of half the length has the square root's magnitude.
    response = minimum_phase(firwin2(1023, edges, gains**2, fs=samplerate))
    return np.asarray(oaconvolve(sound, np.atleast_2d(response), axes=-1)[..., : sound.shape[-1]])


def noisy(rng: np.random.Generator, field: FloatArray, snr_db: float) -> FloatArray:
    """A signal with pink noise of its own: `snr_db` below the first channel's power.

    The noise is the same in every degree's sum: 1 / 3 of the power in each of Y, Z, X.
    """
    n = field.shape[1]
    share = np.array([1.0, *[3**-0.5] * (len(field) - 1)])[:, None]
    spectrum = np.fft.rfft(rng.standard_normal(field.shape, dtype=np.float32), axis=1)
    spectrum /= np.sqrt(np.maximum(np.arange(spectrum.shape[1]), spectrum.shape[1] / 1000))
    noise = np.fft.irfft(spectrum, n, axis=1)
    level = np.std(field[0]) * 10 ** (-snr_db / 20)
    return np.asarray(field + noise / np.std(noise) * share * level)


def on_clock(sound: FloatArray, clock: Fraction) -> FloatArray:
    """A signal as recorded on a clock whose second lasts `clock` seconds, exactly."""
    return np.asarray(resample_poly(sound, clock.denominator, clock.numerator, axis=-1))


def second_microphone(
    rng: np.random.Generator,
    field: FloatArray,
    room: FloatArray,
    samplerate: int,
    *,
    spacing_m: float,
    snr_db: float,
) -> FloatArray:
    """The field as another ambisonic microphone hears it, [shape=(4, N)], unrotated.

    It stands `spacing_m` away in a random direction, has another colour and noise of its own, and
    its surroundings answer with another room's response, seen from a random side.

    room : as from `read_room`; its direct sound is left out, its ratio to the reverberant kept.
    """
    way = rng.standard_normal(3)
    near = moved(field, way * (spacing_m / np.linalg.norm(way)), samplerate)
    n = round(_DIRECT_S * samplerate)
    tail = room.copy()
    tail[:, :n] = 0
    tail /= np.sqrt(np.sum(room[0, :n] ** 2))
    answer = fftconvolve(field[:1], rotate_yaw(tail, rng.uniform(-np.pi, np.pi)), axes=1)
    heard = coloured(rng, near + answer[:, : field.shape[1]], samplerate)
    return noisy(rng, heard, snr_db)
