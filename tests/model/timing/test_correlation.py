from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate, fftconvolve, firwin, lfilter

from model.timing.correlation import correlated, deviations, refined_peak, search, whitened

RATE = 16_000


def test_correlation_is_the_direct_sum(rng: np.random.Generator) -> None:
    needle, haystack = rng.standard_normal((2, 50)), rng.standard_normal((2, 300))

    fast = correlated(needle, haystack)

    direct = np.stack(
        [correlate(h, n, mode="valid") for h, n in zip(haystack, needle, strict=True)]
    )
    np.testing.assert_allclose(fast, direct, atol=1e-10)


def test_whitening_levels_any_colour_and_moves_nothing(rng: np.random.Generator) -> None:
    noise = rng.standard_normal(4 * RATE)
    coloured = lfilter([1.0], [1.0, -0.97], noise)

    white = whitened(np.stack([noise, coloured]), RATE)

    power = np.abs(np.fft.rfft(white[1].reshape(-1, 1000), axis=1)) ** 2
    bands = power.mean(0)[20:480].reshape(23, -1).mean(1)
    assert bands.max() / bands.min() < 1.5
    assert power.mean(0)[1:5].max() < 0.1 * bands.min()  # the mains, wind
    assert np.argmax(np.abs(np.correlate(white[1], noise, "same"))) == pytest.approx(
        2 * RATE, abs=1
    )


def test_what_a_coder_took_away_is_not_raised(rng: np.random.Generator) -> None:
    """What is left above its limit says nothing of the sound."""
    low = firwin(401, 4000, window="blackman", fs=RATE)
    sound = fftconvolve(rng.standard_normal(4 * RATE), low, "same")
    sound += 1e-5 * rng.standard_normal(len(sound))

    middle = whitened(sound, RATE)[RATE:-RATE] * np.hanning(2 * RATE)

    power = np.abs(np.fft.rfft(middle)) ** 2
    below, above = power[2 * 500 : 2 * 3500].mean(), power[2 * 4500 :].mean()
    assert above < 0.01 * below


def test_silence_stays_silence() -> None:
    assert not whitened(np.zeros((2, RATE)), RATE).any()
    assert not deviations(np.zeros((2, 100))).any()


@given(delay=st.floats(-3, 3), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_fraction_of_a_sample_is_found(delay: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal(4096))
    spectrum[1200:] = 0  # band-limited, so that it can be shifted exactly
    frequencies = 2 * np.pi * np.arange(len(spectrum)) / 4096
    moved = np.fft.irfft(spectrum * np.exp(-1j * frequencies * (delay + 10)))
    curve = correlated(np.fft.irfft(spectrum)[500:3500], np.roll(moved, 0)[490:3530])

    at, _ = refined_peak(curve)

    assert at == pytest.approx(delay + 20, abs=0.1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("top", [2.6, 3.0, 3.3])
def test_a_parabola_s_top_is_exact(top: float, sign: float) -> None:
    values = np.asarray(sign * (5.0 - 0.7 * (np.arange(7) - top) ** 2), np.float64)

    assert refined_peak(values) == pytest.approx((top, sign * 5.0))


def test_a_negative_peak_is_a_peak() -> None:
    at, height = refined_peak(np.array([0.0, 0.1, -0.5, -2.0, -0.5, 0.3]))

    assert at == pytest.approx(3.0)
    assert height == pytest.approx(-2.0)


def test_a_peak_at_an_end_is_left_where_it_is() -> None:
    assert refined_peak(np.array([3.0, 1.0, 0.0])) == (0.0, 3.0)
    assert refined_peak(np.array([0.0, 1.0, -3.0])) == (2.0, -3.0)


def test_each_channel_is_judged_by_its_own_noise(rng: np.random.Generator) -> None:
    curve, haystack = rng.standard_normal(500), rng.standard_normal((1, 500))
    needle = rng.standard_normal((1, 50))
    loud = np.array([[1.0], [100.0]])

    np.testing.assert_allclose(deviations(loud * curve), np.stack([deviations(curve)] * 2))
    alike = search(loud * needle, haystack)
    np.testing.assert_allclose(alike[0], alike[1])
    assert not search(loud * 0, haystack).any()


def test_a_search_is_not_misled_by_silence(rng: np.random.Generator) -> None:
    haystack = np.zeros((1, 40_000))
    haystack[:, 20_000:26_000] = rng.standard_normal(6_000)
    needle = haystack[:, 22_000:24_000] + rng.standard_normal(2_000)

    found = search(needle, haystack)[0]

    assert np.argmax(found) == 22_000
    assert found[22_000] > 20
    assert np.abs(found[:17_000]).max() < 1e-9
    assert np.std(found[20_000:21_000]) == pytest.approx(1, abs=0.3)
    assert not search(needle, np.zeros((1, 5_000))).any()
