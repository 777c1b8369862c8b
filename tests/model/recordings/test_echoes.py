"""Echoes of a track against the very ones that were added to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt, sosfiltfilt

from model.ambisonics import encode, rotate_yaw
from model.recordings import echoes as model_echoes
from model.recordings.echoes import LONGEST_S, late_by_s, unforeseen, without_echoes
from model.recordings.intensity import RATE

FloatArray = NDArray[np.float64]

N = 6 * RATE
LEAD = round(LONGEST_S * RATE)
YAW = 0.7


def hum(seed: int, n_sources: int) -> FloatArray:
    """Sources that sound all the time, and like their own past, [shape=(4, N)]."""
    rng = np.random.default_rng(seed)
    field = np.zeros((4, N))
    for _ in range(n_sources):
        low = sosfilt(butter(1, 300, fs=RATE, output="sos"), rng.standard_normal(N))
        field += encode(low, rng.uniform(-math.pi, math.pi), rng.uniform(-0.5, 0.5), 1)
    return field


def echoes(seed: int, field: FloatArray) -> FloatArray:
    """What a room answers to W, from 4 ms on, of a quarter of its power, [shape=(4, N)]."""
    rng = np.random.default_rng(seed)
    late = np.arange(round(0.1 * RATE))
    response = np.zeros((4, len(late) + round(0.004 * RATE)))
    response[:, -len(late) :] = rng.standard_normal((4, len(late))) * np.exp(-late / 400)
    response[1:] += 0.5 * response[:1] * rng.uniform(-1, 1, (3, 1))
    answer = fftconvolve(field[:1], response, axes=1)[:, :N]
    return np.asarray(answer * 0.5 * field[0].std() / answer[0].std())


def low_power(field: FloatArray) -> float:
    """Of the part that is looked at, after the lead."""
    band = butter(4, (80, 1500), "bandpass", fs=RATE, output="sos")
    return float(np.mean(sosfiltfilt(band, field, axis=1)[:, LEAD:] ** 2))


@pytest.mark.parametrize("n_sources", [1, 3])
def test_echoes_go_and_direct_sound_stays(n_sources: int) -> None:
    reference = hum(1, n_sources)
    direct = np.asarray(rotate_yaw(reference, -YAW), np.float64)
    added = echoes(2, reference)

    ((_, cleaned),) = without_echoes([(reference, direct + added)], direct_s=0.0015)
    ((_, alone),) = without_echoes([(reference, direct)], direct_s=0.0015)

    assert low_power(cleaned - direct) < 0.1 * low_power(added)
    assert low_power(alone - direct) < 1e-3 * low_power(direct)


def test_sound_above_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    high = sosfiltfilt(butter(8, 3000, "high", fs=RATE, output="sos"), rng.standard_normal((4, N)))

    ((_, cleaned),) = without_echoes([(hum(3, 2), high)], direct_s=0.0015)

    assert np.std(cleaned - high) < 0.02 * np.std(high)


def test_what_is_new_holds_the_regression_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frisch, Waugh and Lovell: products of what is new give the coefficients that a regression of
    the track on the reference's dipoles and on W's past gives, by a plain least squares.
    """
    monkeypatch.setattr(model_echoes, "_RIDGE_ALONE", 1e-9)
    monkeypatch.setattr(model_echoes, "_WHITENING", 0.0)
    high = butter(6, 120, "high", fs=RATE, output="sos")
    rng = np.random.default_rng(9)
    reference = sosfilt(high, hum(8, 3))
    noise = sosfilt(high, rng.standard_normal(reference.shape))
    track = rotate_yaw(reference, YAW) + 2 * echoes(10, reference) + 0.1 * noise

    ((ref, own),) = unforeseen([(reference, track)], [reference], direct_s=0.0015)

    low_ref, low_own, new_ref, new_own = (
        resample_poly(field, 1, 4, axis=1) for field in (reference, track, ref, own)
    )
    past = [np.roll(low_ref[0], lag) for lag in range(8, 600)]
    for lag, delayed in enumerate(past, start=8):
        delayed[:lag] = 0
    by_all = np.linalg.lstsq(np.stack([*low_ref[1:], *past], axis=1), low_own[1:].T)[0][:3]
    by_new = np.linalg.lstsq(new_ref[1:].T, new_own[1:].T)[0]
    assert by_new == pytest.approx(by_all, abs=0.01)
    for new, low in ((new_ref, low_ref), (new_own, low_own)):
        assert np.abs(past @ new.T).max() < 0.05 * np.abs(past @ low.T).max()
    assert np.abs(by_new - np.linalg.lstsq(low_ref[1:].T, low_own[1:].T)[0]).max() > 0.05


@pytest.mark.parametrize("late", [-70, 0, 37, 75])
def test_what_is_left_of_an_offset_is_found(late: int) -> None:
    """Whatever the rotation, to a tenth of a millisecond, with echoes and other noise."""
    reference = hum(4, 3)
    rng = np.random.default_rng(5)
    track = rotate_yaw(reference, 2.5) + echoes(6, reference)
    track = np.roll(track + 0.1 * track.std() * rng.standard_normal(track.shape), late, axis=1)

    assert late_by_s([(reference, track)]) == pytest.approx(late / RATE, abs=1e-4)


def test_silence_has_no_echoes() -> None:
    silent = np.zeros((4, N))

    ((_, cleaned),) = without_echoes([(silent, silent)], direct_s=0.0015)

    ((ref, own),) = unforeseen([(silent, silent)], [silent], direct_s=0.0015)

    assert not cleaned.any()
    assert not ref.any()
    assert not own.any()
    assert abs(late_by_s([(silent, silent)])) < 0.006
