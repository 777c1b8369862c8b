"""Microphones with faults, against fields that are sent through their capsules sample by sample."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from model import features
from model.ambisonics import plane_wave_gains
from training.data.microphones import Microphone, centres_hz, draw_microphone, heard_by
from training.data.soundfield import diffuse_noise

RATE = features.SAMPLERATE
# Of W, Y, Z, X: four cardioids, of which the first looks to the left, front and up.
LOOKING = np.array([(1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1)]) / math.sqrt(3)
CAPSULES = 0.5 * np.column_stack([np.ones(4), LOOKING])


def faultless() -> Microphone:
    responses = np.ones((features.N_BANDS, 4), dtype=complex)
    return Microphone(responses, -np.inf, -np.inf, 100.0, 0)


def field_of_two(rng: np.random.Generator) -> Tensor:
    """Two voices and some ambience."""
    waves = [
        plane_wave_gains(azimuth, elevation, 1)[:, None] * rng.normal(size=RATE)
        for azimuth, elevation in ((0.7, 0.2), (-2.0, -0.4))
    ]
    return torch.from_numpy(sum(waves)) + 0.3 * diffuse_noise(rng, RATE, 1)


def directions(covariance: Tensor) -> Tensor:
    """Azimuth of the intensity in each band, [shape=(F,)]."""
    x, y, _ = features.intensity(covariance.sum(0)).unbind(-1)
    return torch.atan2(y, x)


def test_one_without_faults_changes_nothing() -> None:
    covariance = features.covariance(field_of_two(np.random.default_rng(0)))

    torch.testing.assert_close(heard_by(faultless(), covariance), covariance)


def test_gains_are_those_of_a_field_through_the_capsules() -> None:
    rng = np.random.default_rng(1)
    field, gains = field_of_two(rng), rng.uniform(0.7, 1.4, 4)
    through = np.linalg.inv(CAPSULES) @ np.diag(gains) @ CAPSULES @ field.numpy()

    heard = heard_by(
        replace(faultless(), responses=np.tile(gains.astype(complex), (features.N_BANDS, 1))),
        features.covariance(field),
    )

    torch.testing.assert_close(heard, features.covariance(torch.from_numpy(through)))


def test_delays_are_those_of_a_wave_through_the_capsules() -> None:
    rng = np.random.default_rng(2)
    delays_s = rng.normal(0, 40e-6, 4)
    wave = plane_wave_gains(1.1, 0.3, 1)[:, None] * rng.normal(size=8 * RATE)
    spectra = np.fft.rfft(CAPSULES @ wave)
    turns = np.exp(-2j * np.pi * np.fft.rfftfreq(8 * RATE, 1 / RATE) * delays_s[:, None])
    through = np.linalg.inv(CAPSULES) @ np.fft.irfft(spectra * turns, n=8 * RATE)

    responses = np.exp(-2j * np.pi * centres_hz()[:, None] * delays_s)
    heard = heard_by(
        replace(faultless(), responses=responses), features.covariance(torch.from_numpy(wave))
    ).mean(0)
    exact = features.covariance(torch.from_numpy(through)).mean(0)

    # As far as a band's middle stands for all of it.
    size = exact[:, features.WW, None]
    assert ((heard - exact).abs() / size).max() < 0.05
    unheard = features.covariance(torch.from_numpy(wave)).mean(0)
    assert ((unheard - exact).abs() / size).max() > 0.5


def test_noise_is_in_all_channels_and_three_times_in_the_figures_of_eight() -> None:
    covariance = features.covariance(field_of_two(np.random.default_rng(3)))

    noise = heard_by(replace(faultless(), hiss_db=-10.0, wind_db=0.0), covariance) - covariance

    for term in (features.XX, features.YY, features.ZZ):
        torch.testing.assert_close(noise[..., term], 3 * noise[..., features.WW])
    assert noise[..., features.WX :].abs().max() < 1e-9
    level = noise[..., features.WW].mean(0) / covariance[:, centres_hz() < 500, features.WW].mean()
    falling = 1 / (1 + (torch.from_numpy(centres_hz()) / 100) ** 2)
    torch.testing.assert_close(level, falling + 0.1, rtol=1e-6, atol=0)
    by_time = noise[:, 0, features.WW]
    assert by_time.max() > 3 * by_time.median()  # gusts


@pytest.mark.parametrize("seed", range(20))
def test_what_is_heard_is_a_covariance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    covariance = features.covariance(field_of_two(rng))

    heard = heard_by(draw_microphone(rng), covariance)

    matrices = torch.zeros(*heard.shape[:2], 4, 4, dtype=torch.float64)
    for term, (a, b) in enumerate(features.TERM_AXES):
        matrices[..., a, b] = matrices[..., b, a] = heard[..., term]
    least = torch.linalg.eigvalsh(matrices)[..., 0]
    assert (least > -1e-9 * matrices.diagonal(dim1=-2, dim2=-1).sum(-1)).all()


def test_directions_shift_from_band_to_band_as_they_do_in_recordings() -> None:
    wave = plane_wave_gains(0.4, 0.0, 1)[:, None] * np.random.default_rng(4).normal(size=RATE)
    covariance = features.covariance(torch.from_numpy(wave))
    spreads = [
        float(directions(heard_by(draw_microphone(np.random.default_rng(s)), covariance)).std())
        for s in range(200)
    ]

    assert 3 < np.degrees(np.median(spreads)) < 20
    assert np.degrees(np.quantile(spreads, 0.1)) < 5  # there are good ones


def test_microphones_are_as_unlike_as_is_said() -> None:
    """Gains in units of up to 1 dB, half of one for all bands; noise and wind in three of ten."""
    drawn = [draw_microphone(np.random.default_rng(seed)) for seed in range(1500)]
    gains_db = np.array([20 * np.log10(np.abs(microphone.responses)) for microphone in drawn])

    # Units are uniform to 1: their mean square is a third. A wave's mean square is a half.
    shares = np.square([0.5, 1.0, 0.7, 0.5])
    assert np.mean(gains_db**2) == pytest.approx((shares[0] + shares[1:].sum() / 2) / 3, rel=0.1)
    assert np.mean(gains_db.mean(axis=1) ** 2) == pytest.approx(shares[0] / 3, rel=0.1)
    for levels in ([m.hiss_db for m in drawn], [m.wind_db for m in drawn]):
        assert np.mean(np.isfinite(levels)) == pytest.approx(0.3, abs=0.05)
    assert len({microphone.seed for microphone in drawn}) == len(drawn)
