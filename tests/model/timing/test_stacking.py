"""Curves laid over each other: what none of them shows, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from model.timing.stacking import Stack, slant_stack

RATE_HZ, REACH = 1000.0, 200
TIMES_S = np.array([1.0, 2.5, 3.0, 4.5, 6.0, 7.0, 8.5, 9.0])
SLOPES = np.arange(-4e-3, 4.1e-3, 2.5e-4)


def curves(seed: int, delay_s: float, slope: float, height: float) -> np.ndarray:
    """Noise of unit deviation, and a peak along a line of delay about the times' mean."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((len(TIMES_S), 2, 2 * REACH + 1))
    for curve, time_s in zip(noise, TIMES_S, strict=True):
        at = REACH + round((delay_s + slope * (time_s - TIMES_S.mean())) * RATE_HZ)
        curve[0, at] += height
    return noise


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("slope", [-3e-3, 0.0, 2e-3])
def test_a_line_is_found_that_no_curve_shows(slope: float, sign: int) -> None:
    by_itself = []
    for seed in range(10):
        weak = curves(seed, 0.05, slope, 3.0 * sign)
        by_itself.append(np.abs(weak).max(axis=1).argmax(axis=1) == REACH + 50)

        (stack,) = slant_stack(weak, TIMES_S, SLOPES, rate_hz=RATE_HZ)

        assert stack.line.slope == pytest.approx(slope, abs=6e-4)
        assert stack.line.delay(TIMES_S.mean()) == pytest.approx(0.05, abs=1.5e-3)
        assert np.sign(stack.height) == sign
    assert np.mean(by_itself) < 0.5


def test_it_is_the_highest_of_all_sums() -> None:
    """Against a slow plain version."""
    noise = curves(3, 0.0, 0.0, 0.0)
    slopes = np.array([-3e-3, -1e-3, 0.0, 2e-3])
    plain = []
    for slope in slopes:
        for channel in range(2):
            for at in range(2 * REACH + 1):
                places = at + np.round(slope * (TIMES_S - TIMES_S.mean()) * RATE_HZ).astype(int)
                inside = (places >= 0) & (places <= 2 * REACH)
                total = noise[np.arange(len(TIMES_S))[inside], channel, places[inside]].sum()
                plain.append(total / len(TIMES_S) ** 0.5)

    (stack,) = slant_stack(noise, TIMES_S, slopes, rate_hz=RATE_HZ)

    assert stack.height == pytest.approx(max(plain, key=abs))


def test_other_lines_are_told_where_they_are_apart() -> None:
    both = curves(4, 0.05, -2e-3, 8.0) + curves(5, -0.1, 2e-3, 6.0)

    stacks = slant_stack(both, TIMES_S, SLOPES, rate_hz=RATE_HZ, n_lines=5, apart_s=0.02)

    delays_s = np.array([stack.line.delay(TIMES_S.mean()) for stack in stacks])
    assert delays_s[:2] == pytest.approx([0.05, -0.1], abs=1.5e-3)
    assert [stack.line.slope for stack in stacks[:2]] == pytest.approx([-2e-3, 2e-3], abs=6e-4)
    assert np.all(np.diff([abs(stack.height) for stack in stacks]) <= 0)
    assert abs(stacks[2].height) < 0.6 * abs(stacks[1].height)
    assert np.abs(np.subtract.outer(delays_s, delays_s))[np.triu_indices(5, 1)].min() > 0.02


def test_the_highest_of_many_by_chance_has_odds_against_it() -> None:
    """Noise alone, as many places as are tried; and odds rise by what a height's rarity does."""
    by_chance = []
    for seed in range(20):
        (stack,) = slant_stack(curves(seed, 0.0, 0.0, 0.0), TIMES_S, SLOPES, rate_hz=RATE_HZ)
        by_chance.append(stack.log_odds(2 * (2 * REACH + 1) * len(SLOPES)))
    assert max(by_chance) < 0
    assert np.median(by_chance) < -3

    def odds(height: float, n: int = 100) -> float:
        return Stack(stack.line, np.full(n, height / n**0.5)).log_odds(1e8)

    rising = [odds(height) for height in (5.0, 6.5, 8.0, 12.0, 40.0)]
    assert np.all(np.diff(rising) > 0)
    assert rising[0] < -3 < 3 < rising[2]
    rarity = norm.logsf(8.0) - norm.logsf(12.0)
    assert rising[3] - rising[2] == pytest.approx(rarity - np.log(12 / 8))
    assert odds(-8.0) == rising[2]


def test_one_clear_curve_is_no_proof() -> None:
    """What two recordings share by chance: a word, a bar of music."""
    noise = curves(6, 0.0, 0.0, 0.0)
    shared, spread = noise.copy(), noise.copy()
    shared[3, 0, REACH + 20] += 40.0
    spread[:, 0, REACH + 20] += 40.0 / len(TIMES_S)

    by_one, by_all = (
        slant_stack(each, TIMES_S, np.zeros(1), rate_hz=RATE_HZ)[0] for each in (shared, spread)
    )

    assert by_one.line.delay(0.0) == by_all.line.delay(0.0) == pytest.approx(0.02)
    assert by_one.height == pytest.approx(by_all.height)
    assert by_one.log_odds(1e6) < -3 < 3 < by_all.log_odds(1e6)
