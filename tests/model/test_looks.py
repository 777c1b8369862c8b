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
from model.looks import LOOK_CUES, _independent, look_evidence

RATE = 12
SECONDS = 10
N = RATE * SECONDS
MAPS = ("brightness", "contrast")


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


def picture(
    *bodies: tuple[float, np.ndarray], sign: float = 1.0, noise: float = 0.01,
    name: str = "brightness",
) -> Tensor:  # fmt: skip
    """Maps in which one of them rises (sign 1) or falls with a curve about an azimuth."""
    rng = np.random.default_rng(1)
    maps = np.zeros((N, len(features.MAPS), features.N_ELEVATIONS, N_YAWS))
    look = maps[:, features.MAPS.index(name)]
    look += rng.standard_normal(look.shape[1:])  # what stands there
    look += noise * rng.standard_normal(look.shape)
    bins = features.azimuths(N_YAWS).rad2deg().numpy()
    for azimuth_deg, curve in bodies:
        near = np.exp(-0.5 * (np.remainder(bins - azimuth_deg + 180, 360) - 180) ** 2 / 36)
        look[:, 5:8] += sign * 0.5 * curve[:, None, None] * near
    return torch.from_numpy(maps)


def evidence(cov: Tensor, maps: Tensor, name: str = "brightness") -> Tensor:
    """The cue of one map, [shape=(R,)]."""
    return look_evidence(acoustic_maps(cov)["doa"], maps)[LOOK_CUES.index(f"look {name}")]


def best_deg(cue: Tensor) -> float:
    return yaws_deg()[int(cue.argmax())]


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["up", "down"])
@pytest.mark.parametrize(("seen", "heard"), [(40, -70), (-170, 175), (0, 0), (90, -90)])
def test_what_looks_as_loud_as_it_sounds_is_found(
    seen: float, heard: float, sign: float, name: str
) -> None:
    """Another body changes as much, to a course of its own."""
    level = slow(0)
    maps = picture((seen, level), (seen + 120, slow(3)), sign=sign, name=name)

    cue = evidence(sound(heard, level), maps, name)

    assert cue.shape == (N_YAWS,)
    assert abs(math.remainder(best_deg(cue) - (seen - heard), 360)) <= 10


def test_what_brightens_in_one_row_and_darkens_in_another_is_found() -> None:
    """A body that bobs: from top to bottom nothing changes in sum."""
    level = slow(0)
    maps = picture((60, level), (-100, slow(3)))
    maps[:, :, 7] = picture((60, level), sign=-1.0)[:, :, 7]
    maps[:, :, 6] = 0

    assert abs(best_deg(evidence(sound(0, level), maps)) - 60) <= 10


def test_a_slow_body_is_found_that_motion_alone_does_not_tell() -> None:
    """It moves as much when its sound fades as when it swells; so does another, to its own."""
    level, found = slow(0), []
    cov = sound(0, level)
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
                best_deg(compared(acoustic_maps(cov), motion)[0]),
                best_deg(evidence(cov, picture((60, level), (-100, others)))),
            )
        )

    by_motion, by_looks = np.abs(np.array(found) - 60).T
    assert (by_looks <= 10).all()
    assert np.median(by_motion) > 20


def test_the_livelier_of_two_counts_though_it_follows_less_closely() -> None:
    level = slow(0)
    maps = picture((60, level + 0.2 * slow(9)), (-100, 0.004 * level), noise=0.001)

    assert abs(best_deg(evidence(sound(0, level), maps)) - 60) <= 10


def test_movement_a_little_late_or_early_is_found_still() -> None:
    level = slow(0, sigma_s=0.15)
    for lag in (min(LAGS), max(LAGS)):
        maps = picture((30, np.roll(level, lag)), (-90, slow(2, sigma_s=0.15)))
        assert abs(best_deg(evidence(sound(0, level), maps)) - 30) <= 10


@pytest.mark.parametrize("name", MAPS)
def test_what_the_whole_picture_does_is_nobody_s(name: str) -> None:
    """A camera's exposure follows the sound no less than what sounds does."""
    level = slow(0)
    maps = picture((60, level), (-100, slow(3)), name=name)
    exposed = maps + torch.from_numpy(level)[:, None, None, None]

    torch.testing.assert_close(
        evidence(sound(0, level), exposed, name), evidence(sound(0, level), maps, name)
    )


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("k", [1, 17, -30])
def test_rolling_the_picture_or_rotating_the_field_turns_the_answer(k: int, name: str) -> None:
    level = slow(0)
    cov, maps = sound(20, level), picture((80, level), name=name)
    plain = evidence(cov, maps, name)

    # k bins to the left: azimuth + 5 k degrees.
    rolled = evidence(cov, maps.roll(-k, dims=-1), name)
    rotated = evidence(features.rotated(cov, math.radians(5 * k)), maps, name)

    torch.testing.assert_close(rolled, plain.roll(k), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rotated, plain.roll(-k), rtol=1e-6, atol=1e-6)


def test_louder_sound_changes_nothing() -> None:
    level = slow(0)
    cov, maps = sound(20, level), picture((80, level))

    torch.testing.assert_close(evidence(1e4 * cov, maps), evidence(cov, maps), rtol=1e-3, atol=1e-3)


def test_a_picture_of_more_contrast_changes_nothing() -> None:
    """What is there is told by the picture's own noise."""
    level = slow(0)
    maps = picture((80, level), (-50, slow(3)), noise=0.1)

    torch.testing.assert_close(
        evidence(sound(20, level), 8 * maps), evidence(sound(20, level), maps), rtol=0.02, atol=0.02
    )


def test_noise_follows_nothing() -> None:
    """Of cells that all are noise, none counts as if it were certain to be something."""
    level = slow(0)
    noise = torch.from_numpy(np.random.default_rng(5).standard_normal(picture().shape))

    own, lively = (evidence(sound(0, level), maps) for maps in (noise, picture((60, level))))

    assert own.max() < 0.2 * lively.max()


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
    """Cell by cell and pair by pair, as the module tells it."""
    n, rows = 24, 2
    maps = torch.from_numpy(rng.standard_normal((n, len(features.MAPS), rows, N_YAWS)).cumsum(0))
    maps[:, :, :, ::3] = torch.from_numpy(  # a third of them hardly more than noise
        rng.standard_normal((n, len(features.MAPS), rows, 24))
    )
    sound = torch.from_numpy(rng.uniform(0, 1, (n, N_YAWS)).cumsum(0))
    sound[::2, ::2] += 9  # half of them fast: no pair has more than n independent intervals
    azimuths = features.azimuths(N_YAWS).double().rad2deg().tolist()
    heard = sound.numpy() ** 0.4
    heard = (heard - heard.mean(0)) / heard.std(0)
    loudness = 2.2 * np.log(sound.numpy().mean(0) / sound.numpy().mean() + 1e-3)
    for cue, name in zip(look_evidence(sound, maps), MAPS, strict=True):
        look = maps[:, features.MAPS.index(name)].numpy()
        exposure = np.sort(look.reshape(n, -1))[:, (look[0].size - 1) // 2]
        differences = np.diff(look - exposure[:, None, None], axis=0)
        jitters = np.sqrt((differences**2).mean(0) / 2)
        noise = np.sort(jitters.ravel())[(jitters.size - 1) // 2] + 0.002
        by_yaw = dict.fromkeys(map(round, yaws_deg()), -math.inf)
        for e, i, j in np.ndindex(rows, N_YAWS, N_YAWS):
            cell = look[:, e, i] - exposure
            cell = cell - cell.mean()
            a, b = cell / cell.std(), heard[:, j]
            alike = 1 + 2 * sum(a[k:] @ a[:-k] * (b[k:] @ b[:-k]) / n**2 for k in range(1, n // 3))
            count = 0.5 * max(1.0, n / max(1.0, alike))
            r = max(abs(np.correlate(cell, b, "full")[n - 1 + k]) for k in LAGS) / n
            r = min(0.95, r / math.sqrt(cell.var() + 0.1 * noise**2))
            likelihood = -count / 2 * math.log(1 - r**2) - math.log(count) / 2
            q = cell.var() / noise**2
            yaw = 180 - round(180 - azimuths[i] + azimuths[j]) % 360
            told = likelihood + math.log(q / (q + 1)) + loudness[j]
            by_yaw[yaw] = np.logaddexp(by_yaw[yaw], told)
        expected = np.array([by_yaw[round(yaw)] for yaw in yaws_deg()])

        np.testing.assert_allclose(cue, (expected - expected.min()) ** 0.7, atol=1e-5)


def test_nothing_changes_and_nothing_sounds() -> None:
    level = slow(0)
    silence = torch.zeros(N, features.N_BANDS, 10, dtype=torch.float64)
    still = torch.zeros(N, len(features.MAPS), features.N_ELEVATIONS, N_YAWS)
    for cov, maps in ((silence, picture((0, level))), (sound(0, level), still), (silence, still)):
        cues = look_evidence(acoustic_maps(cov)["doa"], maps)
        assert cues.isfinite().all()
    assert look_evidence(acoustic_maps(silence)["doa"], still).max() < 1e-6


@pytest.mark.parametrize("n", [2, 3, 7])
def test_a_moment_is_scored_too(n: int) -> None:
    level = slow(0)
    cov, maps = sound(20, level), picture((80, level))

    assert look_evidence(acoustic_maps(cov[:n])["doa"], maps[:n]).isfinite().all()
