"""Evidence of how places look: exact equivariance, known answers, and nothing where there is
nothing.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from model import features
from model.ambisonics import encode
from model.evidence import LAGS, N_YAWS, acoustic_maps, compared, yaws_deg
from model.looks import LOOK_CUES, _independent, look_evidence, looks

RATE = 12
SECONDS = 10
N = RATE * SECONDS
BRIGHTNESS = features.MAPS.index("brightness")


def slow(seed: int, *, sigma_s: float = 0.4) -> np.ndarray:
    """A level that rises and falls slowly, 0 to 1, [shape=(N,)]."""
    curve = gaussian_filter1d(np.random.default_rng(seed).standard_normal(N), sigma_s * RATE)
    return np.asarray((curve - curve.min()) / np.ptp(curve))


def sound(azimuth_deg: float, level: np.ndarray, *, noise: float = 0.1) -> Tensor:
    """Covariance of a source of a level over time, [shape=(T, F, 10)]."""
    rng = np.random.default_rng(0)
    n = SECONDS * features.SAMPLERATE
    gain = np.interp(np.arange(n), np.linspace(0, n, N), level)
    field = encode(rng.standard_normal(n) * gain, math.radians(azimuth_deg), 0.0, 1)
    field += noise * rng.standard_normal((4, n))
    edges = torch.linspace(0, SECONDS, N + 1, dtype=torch.float64)
    return features.covariance(torch.tensor(field), edges)


def picture(*bodies: tuple[float, np.ndarray], sign: float = 1.0, noise: float = 0.01) -> Tensor:
    """Maps in which cells about an azimuth brighten (sign 1) or darken with a curve."""
    rng = np.random.default_rng(1)
    maps = np.zeros((N, len(features.MAPS), features.N_ELEVATIONS, N_YAWS))
    brightness = maps[:, BRIGHTNESS]
    brightness += rng.standard_normal(brightness.shape[1:])  # what stands there
    brightness += noise * rng.standard_normal(brightness.shape)
    bins = features.azimuths(N_YAWS).rad2deg().numpy()
    for azimuth_deg, curve in bodies:
        near = np.exp(-0.5 * (np.remainder(bins - azimuth_deg + 180, 360) - 180) ** 2 / 36)
        brightness[:, 5:8] += sign * 0.5 * curve[:, None, None] * near
    return torch.from_numpy(maps)


def best_deg(cue: Tensor) -> float:
    return yaws_deg()[int(cue.argmax())]


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["brighter", "darker"])
@pytest.mark.parametrize(("seen", "heard"), [(40, -70), (-170, 175), (0, 0), (90, -90)])
def test_what_looks_as_loud_as_it_sounds_is_found(seen: float, heard: float, sign: float) -> None:
    """Another body changes as much, to a course of its own."""
    level = slow(0)
    maps = picture((seen, level), (seen + 120, slow(3)), sign=sign)

    cues = look_evidence(acoustic_maps(sound(heard, level)), maps)

    assert cues.shape == (len(LOOK_CUES), N_YAWS)
    for name, cue in zip(LOOK_CUES, cues, strict=True):
        assert abs(math.remainder(best_deg(cue) - (seen - heard), 360)) <= 10, name


def test_a_slow_body_is_found_that_motion_alone_does_not_tell() -> None:
    """It moves as much when its sound fades as when it swells; so does another, to its own."""
    level, found = slow(0), []
    heard = acoustic_maps(sound(0, level))
    bins = features.azimuths(N_YAWS).rad2deg()
    for seed in range(1, 6):
        others = slow(seed + 20)
        motion = torch.zeros(N, N_YAWS, dtype=torch.float64)
        for azimuth_deg, curve in ((60.0, level), (-100.0, others)):
            near = torch.exp(
                -0.5 * (torch.remainder(bins - azimuth_deg + 180, 360) - 180) ** 2 / 36
            )
            motion += torch.from_numpy(np.abs(np.gradient(curve)))[:, None] * near
        found.append(
            (
                best_deg(compared(heard, motion)[0]),
                best_deg(look_evidence(heard, picture((60, level), (-100, others)))[1]),
            )
        )

    by_motion, by_looks = np.abs(np.array(found) - 60).T
    assert (by_looks <= 10).all()
    assert np.median(by_motion) > 20


def test_the_livelier_of_two_counts_though_it_follows_less_closely() -> None:
    level = slow(0)
    maps = picture((60, level + 0.2 * slow(9)), (-100, 0.06 * level), noise=0.001)

    for cue in look_evidence(acoustic_maps(sound(0, level)), maps):
        assert abs(best_deg(cue) - 60) <= 10


def test_movement_a_little_late_or_early_is_found_still() -> None:
    level = slow(0, sigma_s=0.15)
    for lag in (min(LAGS), max(LAGS)):
        maps = picture((30, np.roll(level, lag)), (-90, slow(2, sigma_s=0.15)))
        assert abs(best_deg(look_evidence(acoustic_maps(sound(0, level)), maps)[1]) - 30) <= 10


@pytest.mark.parametrize("k", [1, 17, -30])
def test_rolling_the_picture_or_rotating_the_field_turns_the_answer(k: int) -> None:
    level = slow(0)
    cov, maps = sound(20, level), picture((80, level))
    plain = look_evidence(acoustic_maps(cov), maps)

    # k bins to the left: azimuth + 5 k degrees.
    rolled = look_evidence(acoustic_maps(cov), maps.roll(-k, dims=-1))
    rotated = look_evidence(acoustic_maps(features.rotated(cov, math.radians(5 * k))), maps)

    torch.testing.assert_close(rolled, plain.roll(k, dims=1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rotated, plain.roll(-k, dims=1), rtol=1e-6, atol=1e-6)


def test_louder_sound_changes_nothing() -> None:
    level = slow(0)
    cov, maps = sound(20, level), picture((80, level))

    torch.testing.assert_close(
        look_evidence(acoustic_maps(1e4 * cov), maps), look_evidence(acoustic_maps(cov), maps),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip


def test_the_curve_is_what_most_cells_follow() -> None:
    level = slow(0)
    curve, variance = looks(picture((40, level), sign=-1.0))
    at = int((features.azimuths(N_YAWS).rad2deg() - 40).abs().argmin())

    assert abs(np.corrcoef(curve[:, at].numpy(), level)[0, 1]) > 0.99
    assert curve.square().mean(0)[at] == pytest.approx(1, abs=1e-6)
    assert variance[at] > 20 * variance.median()


@pytest.mark.parametrize("sigma", [0.0, 2.0, 4.0])
def test_as_many_intervals_are_independent_as_chance_correlations_tell(sigma: float) -> None:
    """Strangers' correlations have a variance of 1/n."""
    rng = np.random.default_rng(4)
    seen, heard = rng.standard_normal((2, 240, 60))
    if sigma:
        seen, heard = (gaussian_filter1d(series, sigma, axis=0) for series in (seen, heard))
    unit = [(s - s.mean(0)) / s.std(0) for s in (seen, heard)]
    by_chance = np.var(unit[0].T @ unit[1] / 240)

    n = _independent(*(torch.from_numpy(series) for series in unit))

    assert float(n.median()) == pytest.approx(1 / by_chance, rel=0.25)


def test_evidence_is_what_bartlett_and_schwarz_say_of_every_pair(rng: np.random.Generator) -> None:
    """Pair by pair, as the module tells it."""
    n = 24
    maps = torch.from_numpy(rng.standard_normal((n, len(features.MAPS), 12, N_YAWS)).cumsum(0))
    sound = torch.from_numpy(rng.uniform(0, 1, (n, N_YAWS)).cumsum(0))
    sound[::2, ::2] += 9  # half of them fast: no pair has more than n independent intervals
    azimuths = features.azimuths(N_YAWS).double().rad2deg().tolist()
    seen, variance = (values.numpy() for values in looks(maps))
    heard = sound.numpy() ** 0.4
    heard = (heard - heard.mean(0)) / heard.std(0)
    weights = (
        np.log(variance / (variance + 100)),
        1.5 * np.log(sound.numpy().mean(0) / sound.numpy().mean() + 1e-3),
    )
    by_yaw = dict.fromkeys(map(round, yaws_deg()), -math.inf)
    for i, j in np.ndindex(N_YAWS, N_YAWS):
        a, b = seen[:, i], heard[:, j]
        alike = 1 + 2 * sum(a[k:] @ a[:-k] * (b[k:] @ b[:-k]) / n**2 for k in range(1, n // 3))
        count = 0.5 * max(1.0, n / max(1.0, alike))
        r = min(0.95, max(abs(np.correlate(a, b, "full")[n - 1 + k]) for k in LAGS) / n)
        likelihood = -count / 2 * math.log(1 - r**2) - math.log(count) / 2
        yaw = 180 - round(180 - azimuths[i] + azimuths[j]) % 360
        by_yaw[yaw] = np.logaddexp(by_yaw[yaw], likelihood + weights[0][i] + weights[1][j])

    found = look_evidence({"doa": sound, "mvdr": sound}, maps)[0]

    np.testing.assert_allclose(found, [by_yaw[round(yaw)] for yaw in yaws_deg()], atol=1e-5)


def test_nothing_changes_and_nothing_sounds() -> None:
    level = slow(0)
    silence = torch.zeros(N, features.N_BANDS, 10, dtype=torch.float64)
    still = torch.zeros(N, len(features.MAPS), features.N_ELEVATIONS, N_YAWS)
    for cov, maps in ((silence, picture((0, level))), (sound(0, level), still), (silence, still)):
        cues = look_evidence(acoustic_maps(cov), maps)
        assert cues.isfinite().all()
    assert look_evidence(acoustic_maps(silence), still).std(1).max() < 1e-9


@pytest.mark.parametrize("n", [2, 3, 7])
def test_a_moment_is_scored_too(n: int) -> None:
    level = slow(0)
    cov, maps = sound(20, level), picture((80, level))

    assert look_evidence(acoustic_maps(cov[:n]), maps[:n]).isfinite().all()
