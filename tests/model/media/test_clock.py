"""Resampling to another clock, against sums of sines sampled on both clocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from model.errors import OptionError
from model.media import Clock, ClockResampler, on_camera_clock

RATE = 48_000
N = 2 * RATE
DRIFTS = [-200.0, -137.3, -0.4, 0.0, 3.1, 145.0, 200.0]


def band_limited(times_s: np.ndarray, seed: int = 0) -> np.ndarray:
    """An analytic signal of lines between 50 Hz and 20 kHz, sampled at any times."""
    rng = np.random.default_rng(seed)
    frequencies, phases = rng.uniform(50, 20_000, 12), rng.uniform(0, 6.28, 12)
    waves = np.sin(2 * np.pi * np.outer(times_s, frequencies) + phases)
    return np.asarray(waves.sum(1) / 12)


def in_blocks(signal: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for first in range(0, signal.shape[1], size):
        yield signal[:, first : first + size]


def conformed(signal: np.ndarray, *, size: int = 4096, **options: float) -> np.ndarray:
    n_samples = int(options.pop("n_samples", signal.shape[1]))
    blocks = on_camera_clock(
        in_blocks(signal, size), len(signal), Clock(**options),
        samplerate=RATE, n_samples=n_samples,
    )  # fmt: skip
    return np.concatenate(list(blocks), axis=1)


@pytest.mark.parametrize("drift_ppm", DRIFTS)
def test_samples_are_those_of_the_other_clock(drift_ppm: float) -> None:
    times = np.arange(N) / RATE

    out = conformed(band_limited(times)[None], drift_ppm=drift_ppm)

    inner = slice(1000, N - 1000)
    # Below one part in a million the ratio itself is a fraction: see ClockResampler.
    ratio = float(ClockResampler(1, 1 + drift_ppm / 1e6).ratio)
    expected = band_limited(times / ratio)
    assert abs(ratio - 1 - drift_ppm / 1e6) < (1e-9 if abs(drift_ppm) >= 1 else 5e-7)
    error = out[0, inner] - expected[inner]
    assert error.std() < 10 ** (-115 / 20) * expected.std()


@pytest.mark.parametrize("offset_s", [-0.75, -0.001, 0.0, 0.25, 5.0])
def test_the_track_lies_where_the_offset_says(offset_s: float) -> None:
    signal = band_limited(np.arange(N) / RATE)[None] + 2.0
    lead = round(offset_s * RATE)

    out = conformed(signal, offset_s=offset_s, n_samples=3 * RATE)

    expected = np.zeros((1, 3 * RATE))
    first, last = min(max(lead, 0), 3 * RATE), min(lead + N, 3 * RATE)
    expected[:, first:last] = signal[:, first - lead : last - lead]
    np.testing.assert_array_equal(out, expected)


def test_blocks_of_any_size_and_channels_of_any_number_give_the_same() -> None:
    rng = np.random.default_rng(0)
    field = rng.standard_normal((9, RATE // 2))

    together = conformed(field, size=24_000, drift_ppm=77.0)
    apart = [conformed(row[None], size=777, drift_ppm=77.0)[0] for row in field]

    np.testing.assert_allclose(together, np.stack(apart), atol=1e-12)


def test_memory_is_that_of_a_block() -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield np.ones((4, 1024))

    blocks = on_camera_clock(endless(), 4, Clock(-1.0, 100.0), samplerate=RATE, n_samples=20 * RATE)
    sizes = [block.shape[1] for block in blocks]

    assert sum(sizes) == 20 * RATE
    assert max(sizes) <= 3 * 1024


@pytest.mark.parametrize("drift_ppm", [1001.0, float("nan")])
def test_what_is_no_drift_is_refused(drift_ppm: float) -> None:
    with pytest.raises(OptionError, match="no clock's"):
        conformed(np.ones((4, 10)), drift_ppm=drift_ppm)
