from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.consensus import fitted, log_odds, voted


@given(
    seed=st.integers(0, 10_000),
    slope=st.floats(-250e-6, 250e-6),
    level=st.floats(-30, 30),
)
@settings(max_examples=30, deadline=None)
def test_a_line_is_found_among_outliers(seed: int, slope: float, level: float) -> None:
    rng = np.random.default_rng(seed)
    times = np.linspace(0, 600, 60)
    delays = level + slope * times + rng.normal(0, 1e-4, 60)
    wrong = rng.permutation(60)[:15]
    delays[wrong] += rng.uniform(0.0025, 0.2, 15) * rng.choice([-1, 1], 15)
    near = np.abs(delays - level - slope * times) < 0.005

    fit = fitted(times, delays, near)

    assert not fit.agrees[wrong].any()
    assert fit.agrees.sum() >= 40
    assert abs(fit.line.slope - slope) < 5 * fit.slope_std < 1e-6
    assert fit.line.delay(300.0) == pytest.approx(level + slope * 300, abs=5e-4)


def test_deviations_cover_the_truth_as_they_say() -> None:
    rng = np.random.default_rng(1)
    times = np.linspace(0, 300, 40)
    scores = []
    for _ in range(200):
        delays = 1.0 + 80e-6 * times + rng.normal(0, 3e-4, 40)
        fit = fitted(times, delays, np.ones(40, dtype=bool))
        scores.append((fit.line.slope - 80e-6) / fit.slope_std)

    assert 0.85 < np.std(scores) < 1.25


def test_a_take_of_seconds_says_nothing_of_drift() -> None:
    rng = np.random.default_rng(2)
    times = np.linspace(0, 5, 8)

    fit = fitted(times, 2.0 + rng.normal(0, 1e-3, 8), np.ones(8, dtype=bool))

    assert abs(fit.line.slope) < 30e-6
    assert fit.slope_std == pytest.approx(50e-6, rel=0.2)


@given(
    slope=st.floats(-250e-6, 250e-6),
    delay=st.floats(-9.5, 9.5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15, deadline=None)
def test_votes_find_the_line_that_most_share(slope: float, delay: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 600, 40))
    votes = rng.exponential(1.0, (40, 10_000)).clip(max=8)
    true_bins = np.floor((delay + slope * (times - 300) + 10) / 0.002).astype(int)
    hit = rng.random(40) < 0.6
    votes[np.flatnonzero(hit), true_bins[hit]] = 10.0

    line, other = voted(votes, times, least_s=-10.0, bin_s=0.002, max_slope=300e-6, n_lines=2)

    truth = delay + slope * (times - 300)
    assert np.abs(line.delays(times) - truth).max() < 0.005
    middle = (times[0] + times[-1]) / 2
    assert abs(other.delay(middle) - line.delay(middle)) >= 0.05 - 1e-9


def test_odds_grow_with_agreement_and_fall_with_choice() -> None:
    odds = [log_odds(20, k, by_chance=0.02, n_lines=6000) for k in range(21)]

    assert np.all(np.diff(odds) > 0)
    assert odds[1] < -10 < 10 < odds[15]
    assert log_odds(20, 10, by_chance=0.02, n_lines=60) > odds[10]
