"""The fitted constants of how channels are read: found where they are known."""

from __future__ import annotations

import numpy as np
import pytest

from training.fit_conventions import capsule_weights, miscoloured, vertical_exponent


@pytest.mark.parametrize("exponent", [0.5, 1.5])
def test_the_exponent_is_that_of_the_choices_it_is_fitted_on(exponent: float) -> None:
    """Which of three channels is the vertical one is drawn as a conditional logit says."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet((2, 2, 2), 4000)
    chances = shares**-exponent
    vertical = (rng.random(4000) < np.cumsum(chances / chances.sum(1, keepdims=True), 1).T).argmax(
        0
    )
    others = np.array([[1, 2], [0, 2], [0, 1]])[vertical]
    order = np.column_stack([others[:, 0], vertical, others[:, 1]])

    found = vertical_exponent(np.take_along_axis(shares, order, 1))

    assert found == pytest.approx(exponent, abs=0.12)


@pytest.mark.parametrize("n_other", [500, 2000])
def test_capsules_are_told_at_even_odds_however_many_there_are_of_either(n_other: int) -> None:
    """Of Gaussians that differ by their means alone the best line is Fisher's."""
    rng = np.random.default_rng(1)
    spread = np.array([[0.5, 0.1], [0.1, 0.3]])
    means = np.array([[0.0, 0.2], [0.8, -0.2]])
    features = np.concatenate(
        [
            rng.multivariate_normal(mean, spread, n)
            for mean, n in zip(means, (2000, n_other), strict=True)
        ]
    )
    truth = np.arange(2000 + n_other) >= 2000

    intercept, *slope = capsule_weights(features, truth)

    fisher = np.linalg.solve(spread, means[1] - means[0])
    np.testing.assert_allclose(slope, fisher, atol=0.3)
    assert intercept == pytest.approx(-fisher @ means.mean(0), abs=0.2)


def test_capsules_colour_each_channel_by_itself_and_delay_none() -> None:
    clicks = np.zeros((4, 4800))
    clicks[:, 2400] = 1.0

    heard = np.concatenate([miscoloured(clicks, np.random.default_rng(i)) for i in range(50)])

    assert (np.abs(heard).argmax(1) == 2400).all()
    np.testing.assert_allclose(heard[:, 2401:4800], heard[:, 2399:0:-1], atol=1e-9)
    response_db = 20 * np.log10(np.abs(np.fft.rfft(heard)))
    assert response_db.mean(1).std() == pytest.approx((0.5**2 + 1 / 9) ** 0.5, rel=0.2)
    at_knots = response_db[:, :: 2400 // 8]
    assert at_knots.std() == pytest.approx(1.25**0.5, rel=0.1)
