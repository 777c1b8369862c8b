"""Evidence: exact equivariance, known answers, and nothing where there is nothing."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from model import features
from model.ambisonics import encode
from model.evidence import (
    CUES,
    N_YAWS,
    acoustic_maps,
    best_yaw_deg,
    compared,
    smoothed,
    synchrony,
    yaws_deg,
)

RATE = 15
SECONDS = 8


def bursts(seed: int, n: int) -> np.ndarray:
    """A random on-off level, [shape=(n,)]."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.random(n // 6 + 1) > 0.6, 6)[:n].astype(float)


def sound(azimuth_deg: float, level: np.ndarray, *, noise: float = 0.05, seed: int = 0) -> Tensor:
    """Covariance of a source with the given level per frame interval."""
    rng = np.random.default_rng(seed)
    n = SECONDS * features.SAMPLERATE
    gain = np.repeat(level, n // len(level) + 1)[:n]
    field = encode(rng.standard_normal(n) * gain, math.radians(azimuth_deg), 0.0, 1)
    field += noise * rng.standard_normal((4, n))
    edges = torch.linspace(0, SECONDS, len(level) + 1, dtype=torch.float64)
    return features.covariance(torch.tensor(field), edges)


def movement(azimuth_deg: float, level: np.ndarray, *, seed: int = 0) -> Tensor:
    """Motion of a body whose movement has the given level per interval."""
    bins = features.azimuths(N_YAWS).rad2deg()
    near = torch.exp(-0.5 * (torch.remainder(bins - azimuth_deg + 180, 360) - 180).square() / 36)
    noise = 0.02 * np.random.default_rng(seed).random((len(level), N_YAWS))
    return torch.tensor(level)[:, None] * near + torch.tensor(noise)


def cues_of(cov: Tensor, motion: Tensor) -> Tensor:
    return compared(acoustic_maps(cov), motion)


N = RATE * SECONDS
LEVEL = bursts(0, N)


def best_deg(cue: Tensor) -> float:
    return yaws_deg()[int(cue.argmax())]


@pytest.mark.parametrize(("seen", "heard"), [(40, -70), (-170, 175), (0, 0), (90, -90)])
def test_every_cue_finds_one_body_and_its_sound(seen: float, heard: float) -> None:
    cues = cues_of(sound(heard, LEVEL), movement(seen, LEVEL))

    assert cues.shape == (len(CUES), N_YAWS)
    for name, cue in zip(CUES, cues, strict=True):
        assert abs(math.remainder(best_deg(cue) - (seen - heard), 360)) <= 5, name


def test_synchrony_tells_the_sounding_body_from_a_busier_silent_one() -> None:
    motion = movement(60, LEVEL) + 2 * movement(-60, bursts(7, N))
    cues = dict(zip(CUES, cues_of(sound(0, LEVEL), motion), strict=True))

    assert abs(best_deg(cues["sync doa"]) - 60) <= 5
    assert abs(best_deg(cues["place doa"]) + 60) <= 5  # co-location alone is fooled


def test_movement_a_little_late_or_early_is_synchronous_still() -> None:
    for lag in (-2, 2):
        cues = dict(
            zip(CUES, cues_of(sound(0, LEVEL), movement(30, np.roll(LEVEL, lag))), strict=True)
        )
        assert abs(best_deg(cues["sync doa"]) - 30) <= 5


def test_a_moving_source_is_tracked() -> None:
    """It sounds and moves all the time: only where it is changes."""
    path = np.linspace(-60, 60, N)
    motion = torch.cat(
        [movement(azimuth + 100, np.ones(1), seed=i) for i, azimuth in enumerate(path)]
    )
    rng = np.random.default_rng(0)
    n = SECONDS * features.SAMPLERATE
    azimuth = np.deg2rad(np.interp(np.arange(n), np.linspace(0, n, N), path))
    field = encode(rng.standard_normal(n), azimuth, np.zeros(n), 1)
    edges = torch.linspace(0, SECONDS, N + 1, dtype=torch.float64)
    cov = features.covariance(torch.tensor(field + 0.05 * rng.standard_normal((4, n))), edges)

    cues = dict(zip(CUES, cues_of(cov, motion), strict=True))

    # Flux hears a moving source where it newly is, a little ahead of its middle.
    assert abs(best_deg(cues["track flux"]) - 100) <= 15
    assert abs(best_deg(cues["sync doa"]) - 100) <= 10


@pytest.mark.parametrize("k", [1, 17, -30])
def test_rolling_the_picture_turns_the_answer(k: int) -> None:
    cov, motion = sound(20, LEVEL), movement(80, LEVEL)

    # k bins to the left: azimuth + 5 k degrees.
    rolled = cues_of(cov, motion.roll(-k, dims=1))

    torch.testing.assert_close(rolled, cues_of(cov, motion).roll(k, dims=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [1, 17, -30])
def test_rotating_the_field_turns_the_answer_back(k: int) -> None:
    cov, motion = sound(20, LEVEL), movement(80, LEVEL)

    rotated = cues_of(features.rotated(cov, math.radians(5 * k)), motion)

    torch.testing.assert_close(rotated, cues_of(cov, motion).roll(-k, dims=1), rtol=1e-6, atol=1e-6)


def test_turning_both_changes_nothing() -> None:
    cov, motion = sound(20, LEVEL), movement(80, LEVEL)

    both = cues_of(features.rotated(cov, math.radians(5 * 9)), motion.roll(-9, dims=1))

    torch.testing.assert_close(both, cues_of(cov, motion), rtol=1e-6, atol=1e-6)


def test_louder_sound_and_stronger_motion_change_nothing() -> None:
    cov, motion = sound(20, LEVEL), movement(80, LEVEL)

    torch.testing.assert_close(
        cues_of(1e4 * cov, 50 * motion), cues_of(cov, motion), rtol=1e-3, atol=1e-3
    )


def test_strangers_stay_within_the_null() -> None:
    """Sound and movement of their own: the best synchrony is no more than chance makes it."""
    peaks = []
    for seed in range(12):
        cov, motion = sound(0, bursts(seed, N), seed=seed), movement(50, bursts(100 + seed, N))
        shifts = torch.linspace(10, N - 10, 24).long()
        peaks.append(float(synchrony(motion, acoustic_maps(cov)["doa"], shifts).max()))
    matched = float(
        synchrony(
            movement(50, LEVEL),
            acoustic_maps(sound(0, LEVEL))["doa"],
            torch.linspace(10, N - 10, 24).long(),
        ).max()
    )

    assert np.median(peaks) < 4
    assert matched > 2 * np.max(peaks)


def test_nothing_moves_and_nothing_sounds() -> None:
    silence = torch.zeros(N, features.N_BANDS, 10, dtype=torch.float64)
    for cov, motion in (
        (silence, movement(0, LEVEL)),
        (sound(0, LEVEL), torch.zeros(N, N_YAWS)),
        (silence, torch.zeros(N, N_YAWS)),
    ):
        assert cues_of(cov, motion).isfinite().all()


@pytest.mark.parametrize(("faint", "exponent"), [("", 1.0), (" faint", 0.25)])
def test_co_location_is_a_correlation_at_every_rotation(faint: str, exponent: float) -> None:
    """Of the means over time, after a power that counts faint movers in full or not."""
    rng = np.random.default_rng(0)
    motion = torch.from_numpy(rng.exponential(size=(N, N_YAWS)) * rng.exponential(size=N_YAWS))
    sound = torch.from_numpy(rng.exponential(size=(N, N_YAWS)) * rng.exponential(size=N_YAWS))
    cues = compared(dict.fromkeys(("doa", "mvdr", "flux"), sound), motion)
    seen, heard = ((series.numpy() ** exponent).mean(0) for series in (smoothed(motion), sound))
    correlations = [np.corrcoef(seen, np.roll(heard, -round(yaw / 5)))[0, 1] for yaw in yaws_deg()]

    for name in ("doa", "mvdr", "flux"):
        cue = cues[CUES.index(f"place {name}{faint}")]
        np.testing.assert_allclose(cue, 3 * np.array(correlations) * (1 - 1 / N_YAWS), atol=1e-6)


@pytest.mark.parametrize("best", [-174.0, -31.7, 0.0, 2.4, 179.0])
def test_the_peak_is_refined_between_bins(best: float) -> None:
    away = torch.tensor([math.remainder(yaw - best, 360) for yaw in yaws_deg()])

    assert math.remainder(best_yaw_deg(-away.square()) - best, 360) == pytest.approx(0, abs=1e-4)
    assert -180 < best_yaw_deg(-away.square()) <= 180
