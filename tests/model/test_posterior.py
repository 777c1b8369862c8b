"""What a posterior over rotations says."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from model.arcs import cover
from model.evidence import N_YAWS, yaws_deg
from model.posterior import (
    NEAR_DEG,
    answer_deg,
    confidence_of,
    credible_arcs,
    mass_around,
    mass_near,
    mass_to_reach,
    pool,
)
from tests.model.test_scoring import CALIBRATION, bump, holds


def random_posterior(seed: int, n_levels: int, share: float) -> Tensor:
    """Bins of as many different masses, of which this share has any."""
    rng = np.random.default_rng(seed)
    masses = rng.integers(1, n_levels, N_YAWS, endpoint=True) * (rng.random(N_YAWS) < share)
    masses[rng.integers(N_YAWS)] += 1
    return torch.from_numpy(masses / masses.sum())


posteriors = st.builds(
    random_posterior,
    st.integers(0, 1 << 32),
    st.sampled_from([1, 4, 1000]),
    st.sampled_from([0.02, 0.3, 1.0]),
)


def at(**masses: float) -> Tensor:
    """A posterior of single bins, `p20=0.3` for 20 degrees and `m20` for -20."""
    posterior = torch.zeros(N_YAWS, dtype=torch.float64)
    for name, mass in masses.items():
        degrees = float(name[1:]) * (-1 if name[0] == "m" else 1)
        posterior[yaws_deg().index(degrees)] = mass
    return posterior


def near_answer(posterior: Tensor) -> float:
    return mass_near(posterior, answer_deg(posterior))


def test_one_window_is_its_own_posterior() -> None:
    torch.testing.assert_close(
        pool(bump(30, height=2)[None], CALIBRATION), bump(30, height=2).exp()
    )


@pytest.mark.parametrize("n", [2, 8])
def test_windows_that_say_the_same_count_as_the_exponent_says(n: int) -> None:
    calibration = replace(CALIBRATION, pooling_exponent=0.8)
    one = bump(30, height=2)

    together = pool(one.expand(n, -1), calibration)

    torch.testing.assert_close(together, (n**0.2 * one).softmax(0))


def test_agreeing_windows_sharpen_and_one_cannot_veto() -> None:
    one = pool(bump(30, height=2)[None], CALIBRATION)
    four = pool(bump(30, height=2).expand(4, -1), CALIBRATION)
    veto = bump(-150, height=500)
    outvoted = pool(torch.stack([*[bump(30, height=4)] * 5, veto]), CALIBRATION)

    assert near_answer(four) > near_answer(one)
    assert answer_deg(outvoted) == pytest.approx(30, abs=1)


@pytest.mark.parametrize("centre", [-177.3, -92.0, 0.0, 41.4, 178.8, 180.0])
@pytest.mark.parametrize("height", [2.0, 30.0, 300.0])
def test_the_answer_is_where_a_bell_is(centre: float, height: float) -> None:
    answer = answer_deg(bump(centre, height=height).exp())

    assert -180 < answer <= 180
    assert math.remainder(answer - centre, 360) == pytest.approx(0, abs=0.5)


def test_the_answer_goes_by_mass_not_by_the_highest_bin() -> None:
    spike_and_hill = at(m100=0.2, p30=0.15, p35=0.18, p40=0.19, p45=0.15, p50=0.13)

    assert yaws_deg()[int(spike_and_hill.argmax())] == -100
    assert answer_deg(spike_and_hill) == pytest.approx(40, abs=2)
    assert near_answer(spike_and_hill) == pytest.approx(0.8)


@given(posteriors)
def test_mass_around_is_a_plain_sum(posterior: Tensor) -> None:
    slow = [
        sum(
            mass * math.exp(-0.5 * (math.remainder(there - here, 360) / 8.0) ** 2)
            for there, mass in zip(yaws_deg(), posterior.tolist(), strict=True)
        )
        for here in yaws_deg()
    ]

    np.testing.assert_allclose(mass_around(posterior).numpy(), slow, atol=1e-9)


@given(posteriors, st.integers(0, N_YAWS - 1))
def test_a_turned_posterior_has_a_turned_answer(posterior: Tensor, turn: int) -> None:
    best, second = mass_around(posterior).topk(2).values.tolist()

    turned = answer_deg(posterior.roll(turn))

    if best - second > 1e-9:  # else two rotations are as good
        expected = answer_deg(posterior) + turn * 360 / N_YAWS
        assert math.remainder(turned - expected, 360) == pytest.approx(0, abs=1e-3)
    assert near_answer(posterior) <= 1 + 1e-9


@given(posteriors, st.floats(-400, 400))
def test_mass_near_an_angle_is_that_of_the_nearest_bins(posterior: Tensor, angle: float) -> None:
    off = [abs(math.remainder(yaw - angle, 360)) for yaw in yaws_deg()]
    assume(abs(sorted(off)[6] - sorted(off)[7]) > 1e-6)  # else two bins are as near

    nearest = torch.tensor(off).argsort()[:7]

    assert mass_near(posterior, angle) == pytest.approx(float(posterior[nearest].sum()))


def test_a_finer_posterior_says_the_same() -> None:
    coarse = bump(33.0, height=25).exp()
    fine_yaws = np.deg2rad(np.arange(-179, 181) - 33.0)
    fine = torch.tensor(25 * np.cos(fine_yaws)).softmax(0)

    assert answer_deg(fine) == pytest.approx(answer_deg(coarse), abs=0.3)
    # Whole bins: 31 of a degree, and 7 of five.
    assert near_answer(fine) == pytest.approx(near_answer(coarse), abs=0.05)


def test_confidence_grows_with_the_mass_near_the_answer() -> None:
    sure = [confidence_of(bump(10, height=h).exp(), CALIBRATION) for h in (0.1, 2, 10, 100)]

    assert sure == sorted(sure)
    assert sure[-1] > 0.99
    # With a slope of 1 and no intercept it is that mass, of the bins up to `NEAR_DEG` away.
    flat = torch.full((N_YAWS,), 1 / N_YAWS, dtype=torch.float64)
    near = (2 * NEAR_DEG / 5 + 1) / N_YAWS
    assert confidence_of(flat, CALIBRATION) == pytest.approx(near)
    line = replace(CALIBRATION, confidence_slope=2.0, confidence_intercept=1.5)
    odds = (near / (1 - near)) ** 2 * math.exp(1.5)
    assert confidence_of(flat, line) == pytest.approx(odds / (1 + odds))
    assert confidence_of(flat, replace(CALIBRATION, confidence_slope=1e9)) == 0  # no overflow


def fewest_bins(posterior: Tensor, mass: float) -> set[int]:
    """Those that most lies around, until they hold the mass."""
    around = mass_around(posterior).tolist()
    bins: set[int] = set()
    for index in sorted(range(N_YAWS), key=lambda index: -around[index]):
        bins.add(index)
        if float(posterior[sorted(bins)].sum()) >= mass - 1e-12:
            break
    return bins


def test_of_three_rotations_the_nearest_share_an_arc() -> None:
    for turn in range(N_YAWS):
        arcs = credible_arcs(at(m100=0.4, p10=0.29, p60=0.31).roll(turn), 0.99)

        held = [[cover([arc], 5.0 * turn + at_deg) for at_deg in (-100, 10, 60)] for arc in arcs]
        assert held == [[True, False, False], [False, True, True]]
        assert not any(cover(arcs, 5.0 * turn + gap) for gap in (-45, 130))


@given(posterior=posteriors, mass=st.floats(0.05, 0.99))
def test_arcs_hold_the_mass_and_the_answer(posterior: Tensor, mass: float) -> None:
    arcs = credible_arcs(posterior, mass)

    def inside(yaw: float) -> bool:
        return any(arc == (-180.0, 180.0) or holds(arc, yaw) for arc in arcs)

    held = [p for yaw, p in zip(yaws_deg(), posterior.tolist(), strict=True) if inside(yaw)]
    wanted = fewest_bins(posterior, mass)
    runs = [index for index in wanted if (index - 1) % N_YAWS not in wanted]
    if len(runs) <= 2:  # else what lies between two is held too
        assert len(held) == len(wanted)
        assert len(arcs) == max(1, len(runs))
    assert len(arcs) in (1, 2)
    assert sum(held) >= mass - 1e-9
    best = yaws_deg()[int(mass_around(posterior).argmax())]
    assert arcs[0] == (-180.0, 180.0) or holds(arcs[0], best)


@given(posterior=posteriors, index=st.integers(0, N_YAWS - 1))
def test_arcs_reach_a_bin_with_the_mass_that_it_takes(posterior: Tensor, index: int) -> None:
    assume(posterior[index] > 1e-6)  # a bin without mass is not needed for any

    arcs = credible_arcs(posterior, mass_to_reach(posterior, index))

    assert any(arc == (-180.0, 180.0) or holds(arc, yaws_deg()[index]) for arc in arcs)
