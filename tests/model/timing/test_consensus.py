from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.timing.consensus import fitted, highest_apart, log_odds, voted


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


@given(seed=st.integers(0, 10_000), slope=st.floats(-250e-6, 250e-6), at_the_end=st.booleans())
@settings(max_examples=30, deadline=None)
def test_delays_of_echoes_are_left_out(seed: int, slope: float, at_the_end: bool) -> None:
    """A quarter comes later by a few milliseconds, as if near: none comes earlier."""
    rng = np.random.default_rng(seed)
    times = np.linspace(0, 600, 60)
    delays = 1.0 + slope * times + rng.normal(0, 1e-4, 60)
    echoes = np.arange(45, 60) if at_the_end else rng.permutation(60)[:15]
    delays[echoes] += rng.uniform(0.0025, 0.0045, 15)

    fit = fitted(times, delays, np.ones(60, dtype=bool))

    assert not fit.agrees[echoes].any()
    assert fit.line.delay(300.0) == pytest.approx(1.0 + slope * 300, abs=1e-4)


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
    assert np.abs(line.delay(times) - truth).max() < 0.005
    middle = (times[0] + times[-1]) / 2
    assert abs(other.delay(middle) - line.delay(middle)) >= 0.05 - 1e-9


@pytest.mark.parametrize("n_bins", [1, 10, 60])
def test_no_line_has_more_votes(n_bins: int) -> None:
    """Against a slow plain version, and where a drift leads out of the bins."""
    times, bin_s = np.linspace(0, 400, 30), 0.002
    votes = np.random.default_rng(n_bins).exponential(1.0, (30, n_bins))
    on_edges = np.maximum(votes, np.pad(votes, [(0, 0), (1, 0)])[:, :-1])

    def votes_of(delay_bin: int, slope: float) -> float:
        bins = delay_bin + np.round(slope * (times - 200) / bin_s).astype(int)
        inside = (bins >= 0) & (bins < n_bins)
        return float(on_edges[np.flatnonzero(inside), bins[inside]].sum())

    lines = voted(
        votes, times, least_s=-1.0, bin_s=bin_s, max_slope=300e-6, n_lines=n_bins, apart_s=0.0
    )

    bins = [round((line.delay(200.0) + 1.0) / bin_s) for line in lines]
    found = [votes_of(at, line.slope) for at, line in zip(bins, lines, strict=True)]
    slopes = np.arange(-30, 31) * bin_s / 200
    most = [max(votes_of(at, slope) for slope in slopes) for at in bins]
    assert sorted(bins) == list(range(n_bins))
    assert found == pytest.approx(most)
    assert np.all(np.diff(found) <= 1e-9)


@given(seed=st.integers(0, 10_000), most=st.integers(1, 30), apart=st.integers(0, 8))
@settings(max_examples=50, deadline=None)
def test_the_highest_are_apart(seed: int, most: int, apart: int) -> None:
    """Against a plain choice one by one; what is not above 0 is none."""
    heights = np.random.default_rng(seed).normal(0.5, 1.0, (2, 30))
    plain: list[tuple[int, ...]] = []
    for flat in np.argsort(-heights, axis=None):
        place = tuple(int(i) for i in np.unravel_index(flat, heights.shape))
        if heights[place] > 0 and all(abs(place[-1] - other[-1]) > apart for other in plain):
            plain.append(place)

    assert list(highest_apart(heights, most, apart)) == plain[:most]


def test_how_far_delays_may_scatter_and_agree() -> None:
    """By a millisecond, as microphones apart hear it, or by as much as they do; not by more."""
    rng, times = np.random.default_rng(4), np.linspace(0, 300, 40)
    exact = 1.0 + rng.normal(0, 1e-5, 40)
    apart = exact + np.where(np.arange(40) % 4 == 0, 9e-4, 0.0)
    rough = 1.0 + rng.normal(0, 1.2e-3, 40)
    foreign = exact + np.where(np.arange(40) % 4 < 2, rng.uniform(0.1, 0.2, 40), 0.0)
    foreign[3] += 0.004

    assert fitted(times, apart, np.ones(40, dtype=bool)).agrees.all()
    assert fitted(times, rough, np.ones(40, dtype=bool)).agrees.sum() >= 38
    assert fitted(times, foreign, np.abs(foreign - 1) < 0.005).agrees.sum() == 19


TIMES_S = np.linspace(0, 20, 20)


def odds_of(n_agreeing: int, apart_s: float, *, search_s: float = 30.0) -> float:
    residuals = np.full(20, 0.1)
    residuals[:n_agreeing] = apart_s
    return log_odds(TIMES_S, residuals, reach_s=0.25, search_s=search_s)


def test_odds_grow_with_agreement_and_fall_with_choice() -> None:
    odds = [odds_of(k, 0.004) for k in range(21)]

    assert np.all(np.diff(odds) > 0)
    assert odds[1] < -10 < 7 < odds[15]
    assert odds_of(10, 0.004, search_s=0.3) > odds[10]
    # Nearer than delays may agree there is one place, not a part of one.
    assert odds_of(10, 0.004, search_s=1e-6) == odds_of(10, 0.004, search_s=0.005)


def test_a_few_that_agree_closely_weigh_as_much_as_many_that_do_not() -> None:
    by_distance = [odds_of(5, apart_s) for apart_s in (5e-5, 2e-4, 4e-4, 9e-4, 2e-3, 4e-3, 9e-3)]

    assert np.all(np.diff(by_distance) < 0)
    assert by_distance[0] > odds_of(8, 4e-3)


@pytest.mark.parametrize("n", [5, 8, 60])
def test_chance_is_not_taken_for_agreement(n: int) -> None:
    """The best of many lines through delays that know nothing of each other."""
    rng = np.random.default_rng(n)
    times = np.linspace(0, 4.0 * n, n)
    for _ in range(20):
        delays = rng.uniform(-30, 30, n)
        levels = np.unique(np.concatenate([delays, delays + 5e-5]))
        most = max(
            log_odds(times, (delays - level).clip(-0.25, 0.25), reach_s=0.25, search_s=30.0)
            for level in levels
        )
        assert most < 0
