"""What is heard first against echoes, noise, rotations, and a slow plain version."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from model import features, precedence
from model.ambisonics import encode, rotate_yaw
from model.features import HOP, PICTURE_SIZE, SAMPLERATE, WW, WX, WY, XX, YY, ZZ
from model.take import Take, Track
from training.data.excerpts import diffuse
from training.data.soundfield import diffuse_noise
from training.data.takes import TakeFiles
from training.data.windows import as_window
from training.evaluate.localise import Stretch, _in_maps

EDGES = torch.arange(11, dtype=torch.float64) / 10


def clapping(rng: np.random.Generator, seconds: float = 1.0) -> np.ndarray:
    """Noise that begins four times a second and dies away."""
    t = np.arange(round(seconds * SAMPLERATE)) / SAMPLERATE
    return rng.standard_normal(len(t)) * np.exp(-((t + 0.1) % 0.25) / 0.03)


def echoed(
    rng: np.random.Generator, azimuth: float, *, noise: float = 0.0, seconds: float = 1.0
) -> np.ndarray:
    """A sound and echoes of it from one other side, 12 to 60 ms later."""
    sound = clapping(rng, seconds)
    field = encode(sound, azimuth, 0.1, 1)
    for delay_s in (0.012, 0.023, 0.037, 0.06):
        late = np.pad(sound, (round(delay_s * SAMPLERATE), 0))[: len(sound)]
        field = field + 0.5 * encode(late, azimuth + 1.6, -0.2, 1)
    return field + noise * rng.standard_normal(field.shape)


def azimuth_of(cov: Tensor) -> float:
    return math.atan2(float(cov[..., WY].sum()), float(cov[..., WX].sum()))


def error_of(cov: Tensor, azimuth: float) -> float:
    return abs(math.remainder(azimuth_of(cov) - azimuth, math.tau))


def plainly(hops: np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """The same moment by moment, from the terms of every 10 ms [shape=(n, F, 10)]."""
    n, n_bands, _ = hops.shape
    out = np.zeros((len(edges_s) - 1, n_bands, 10))
    for band in range(n_bands):
        cov = hops[:, band]
        energy = cov[:, [WW, XX, YY, ZZ]].sum(1) / 2
        weight, left = np.zeros(n), energy[0]
        for i in range(1, n):
            left *= np.exp(-HOP / SAMPLERATE / 0.06)
            flow = min(1.0, float(np.linalg.norm(cov[i, 4:7])) / energy[i])
            weight[i] = max(0.0, 1 - left / energy[i]) ** 2 * flow**4
            left = max(left, energy[i])
        for i, (first, last) in enumerate(pairwise(edges_s / 0.01)):
            # How much of each moment lies in the interval: moment i is centred on i hops.
            ends = np.clip(np.stack([np.arange(n), np.arange(n) + 1]) - 0.5, first, last)
            part = (ends[1] - ends[0]) / (last - first)
            found = (part * (weight + 0.03)) @ cov
            out[i, band] = found * (part @ cov[:, WW]) / found[WW]
    return out


def test_it_is_what_it_says_moment_by_moment() -> None:
    field = torch.tensor(echoed(np.random.default_rng(0), 0.7, noise=0.05))

    found = precedence.covariance(field, EDGES[:8] + 0.013)

    hops = features.covariance(field).numpy()
    torch.testing.assert_close(found, torch.tensor(plainly(hops, EDGES[:8].numpy() + 0.013)))


@pytest.mark.parametrize("azimuth", [-2.5, 0.4, 1.9])
def test_echoes_turn_the_direction_less(azimuth: float) -> None:
    field = torch.tensor(echoed(np.random.default_rng(1), azimuth, noise=0.02))

    plain, found = (
        error_of(cov(field), azimuth)
        for cov in (features.covariance, lambda field: precedence.covariance(field, EDGES))
    )

    assert plain > math.radians(20)
    assert found < 0.6 * plain


def test_it_is_as_loud_as_the_sound() -> None:
    field = torch.tensor(echoed(np.random.default_rng(2), 0.3, noise=0.1))

    found, plain = (m.covariance(field, EDGES) for m in (precedence, features))

    torch.testing.assert_close(found[..., WW], plain[..., WW])


def test_a_turned_field_turns_it() -> None:
    field = echoed(np.random.default_rng(3), -1.1, noise=0.1)

    turned = precedence.covariance(torch.tensor(rotate_yaw(field, 0.83)), EDGES)

    expected = features.rotated(precedence.covariance(torch.tensor(field), EDGES), 0.83)
    torch.testing.assert_close(turned, expected)


def test_a_gain_is_a_gain_and_a_batch_is_its_parts() -> None:
    field = torch.tensor(np.stack([echoed(np.random.default_rng(4 + i), i) for i in range(2)]))

    both = precedence.covariance(field, EDGES)

    torch.testing.assert_close(both[1], precedence.covariance(field[1], EDGES))
    torch.testing.assert_close(precedence.covariance(3e-3 * field, EDGES), 9e-6 * both)


def test_it_is_the_covariance_of_some_sound() -> None:
    field = torch.tensor(echoed(np.random.default_rng(6), 2.0, noise=0.2))

    found = precedence.covariance(field, EDGES)

    matrix = found.new_zeros(*found.shape[:-1], 4, 4)
    for term, (a, b) in enumerate(features.TERM_AXES):
        matrix[..., a, b] = matrix[..., b, a] = found[..., term]
    assert float((torch.linalg.eigvalsh(matrix)[..., 0] / found[..., WW]).min()) > -1e-9


def test_silence_is_silent_and_a_sound_out_of_silence_is_where_it_is() -> None:
    assert not precedence.covariance(torch.zeros(4, SAMPLERATE), EDGES).any()

    late = np.r_[np.zeros(SAMPLERATE // 2), clapping(np.random.default_rng(7), 0.5)]
    found = precedence.covariance(torch.tensor(encode(late, 1.2, 0.0, 1)), EDGES)

    assert bool(torch.isfinite(found).all())
    assert azimuth_of(found) == pytest.approx(1.2, abs=1e-6)


def test_takes_and_training_hear_what_is_first(take: TakeFiles, tmp_path: Path) -> None:
    """What is scored, trained on, looked at, and the noise of all."""
    field = echoed(np.random.default_rng(8), 0.9, noise=0.02, seconds=6.0)
    plain = error_of(features.covariance(torch.tensor(field)), 0.9)
    soundfile.write(tmp_path / "echoed.wav", 0.05 * field.T, SAMPLERATE, subtype="FLOAT")
    with Take(take.video, Track((tmp_path / "echoed.wav",))) as opened:
        taken = opened.covariance(0.5, np.linspace(0.6, 4.6, 41))
        window = opened.window(0.0, 5.0)
    still = torch.zeros(61, *PICTURE_SIZE, dtype=torch.uint8)
    trained = as_window(np.random.default_rng(0), still, torch.tensor(field), 10.0).covariance
    looked_at = Stretch(np.zeros((97, 16, 32, 3), np.uint8), field, [])

    assert window is not None
    for cov in (taken, window.covariance, trained, _in_maps(looked_at)[1]):
        assert error_of(cov, 0.9) < 0.7 * plain

    noise = diffuse_noise(np.random.default_rng([5, 8]), SAMPLERATE + 1, 1)
    torch.testing.assert_close(diffuse(5, EDGES), precedence.covariance(noise, EDGES))
