"""Where a second microphone stands, against plane waves that reach it when they should."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import check_grad
from scipy.signal import butter, sosfilt

from model.ambisonics import encode, rotate_yaw
from model.recordings.coherence import cross_spectra
from model.recordings.displacement import SPEED_OF_SOUND, _match, displacement_m, moved
from model.recordings.intensity import RATE

FloatArray = NDArray[np.float64]

N = 6 * RATE
WAY = np.array([0.2, -0.15, 0.1])
YAW = 0.9


def talkers(at_m: FloatArray, azimuths: tuple[float, ...] = (0.3, 2.0, -1.4, -2.8)) -> FloatArray:
    """Sources far away that are loud one after the other, heard at a place, [shape=(4, N)]."""
    rng = np.random.default_rng(0)
    frequencies, times = np.fft.rfftfreq(N, 1 / RATE), np.arange(N) / RATE
    field = np.zeros((4, N))
    for index, azimuth in enumerate(azimuths):
        elevation = 0.5 - 0.4 * index
        towards = [math.cos(azimuth) * math.cos(elevation),
                   math.sin(azimuth) * math.cos(elevation), math.sin(elevation)]  # fmt: skip
        loud = np.sin(math.pi * (1.3 * times + index / len(azimuths))) ** 16
        sound = sosfilt(butter(1, 800, fs=RATE, output="sos"), rng.standard_normal(N)) * loud
        earlier_s = at_m @ np.array(towards) / SPEED_OF_SOUND
        spectrum = np.fft.rfft(sound) * np.exp(2j * math.pi * frequencies * earlier_s)
        field += encode(np.fft.irfft(spectrum, N), azimuth, elevation, 1)
    return field


def pair(at_m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """At the origin, and at a place with the front turned and noise 10 dB down."""
    there = talkers(at_m)
    noise = np.random.default_rng(1).standard_normal(there.shape) * there[0].std() * 10**-0.5
    return talkers(np.zeros(3)), np.asarray(rotate_yaw(there, -YAW) + noise, np.float64)


def turn_by(yaw: float) -> FloatArray:
    """Of (x, y, z)."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@pytest.mark.parametrize("way_m", [0.3, 1.0])
def test_the_place_is_found(way_m: float) -> None:
    """To 3 cm, with a rotation that is 3 degrees off, whatever is taken for the distance."""
    place = displacement_m([pair(WAY)], turn_by(YAW + 0.05), way_m=way_m)

    np.testing.assert_allclose(place, WAY, atol=0.03)


def test_half_a_metre_is_found_though_phases_wrap() -> None:
    place = displacement_m([pair(2.5 * WAY)], turn_by(YAW), way_m=1.0)

    np.testing.assert_allclose(place, 2.5 * WAY, atol=0.05)


def test_waveforms_have_more_in_common_in_one_place() -> None:
    reference, track = pair(WAY)

    apart = cross_spectra([(reference, track)]).moments(turn_by(YAW))
    together = cross_spectra([(moved(reference, WAY, RATE), track)]).moments(turn_by(YAW))

    assert together.coherence > apart.coherence + 0.1


def test_the_slope_is_that_of_finite_differences() -> None:
    match = _match([pair(WAY)], turn_by(YAW))

    def value(at: FloatArray) -> float:
        return match.incoherence(at, 600.0)[0]

    def slope(at: FloatArray) -> FloatArray:
        return match.incoherence(at, 600.0)[1]

    for place in (np.zeros(3), WAY, -2 * WAY):
        off = check_grad(value, slope, place)
        assert off < 1e-4 * max(1.0, float(np.linalg.norm(slope(place))))


def test_dipoles_count_by_the_rotation_that_is_given() -> None:
    """Not W alone, which says nothing of it: turned the wrong way, less is in common."""
    right, wrong = (_match([pair(WAY)], turn_by(yaw)) for yaw in (YAW, YAW + math.pi))

    assert right.incoherence(WAY, 600.0)[0] < wrong.incoherence(WAY, 600.0)[0] - 5


def test_strangers_and_silence_are_not_far_away() -> None:
    """What has nothing in common has no place: none is made up beyond what is likely."""
    rng = np.random.default_rng(3)
    reference, _ = pair(WAY)
    for track in (rng.standard_normal((4, N)), np.zeros((4, N))):
        place = displacement_m([(reference, track)], np.eye(3), way_m=0.3)
        assert np.linalg.norm(place) < 0.3
    np.testing.assert_array_equal(
        displacement_m([(np.zeros((4, N)), np.zeros((4, N)))], np.eye(3), way_m=0.3), 0
    )


@pytest.mark.parametrize("azimuth_deg", [0.0, 90.0, 180.0])
def test_a_plane_wave_comes_earlier_where_it_comes_from(
    rng: np.random.Generator, azimuth_deg: float
) -> None:
    field = encode(rng.standard_normal(RATE), math.radians(azimuth_deg), 0.0, 1)

    near = moved(field, np.array([1.0, 0.0, 0.0]), RATE)

    correlation = np.fft.irfft(np.fft.rfft(near[0]) * np.fft.rfft(field[0]).conj())
    lag = int(np.argmax(correlation))
    earlier = math.cos(math.radians(azimuth_deg)) / SPEED_OF_SOUND * RATE
    assert math.remainder(lag + earlier, RATE) == pytest.approx(0, abs=1)
