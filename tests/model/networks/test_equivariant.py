"""The scorer of all rotations: equivariant, small, and right about the sense of rotation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from model import features, viewpoints
from model.ambisonics import encode, rotate_yaw
from model.checkpoint import load_scorer, save_scorer
from model.errors import MediaError
from model.evidence import N_YAWS, yaws_deg
from model.learned import sound_input
from model.networks.equivariant import (
    EquivariantConfig,
    EquivariantScorer,
    _Around,
    _Lagged,
    _Rotations,
)

N_FRAMES = 20


@pytest.fixture(params=[False, True], ids=["", "coherence"])
def network(request: pytest.FixtureRequest) -> EquivariantScorer:
    torch.manual_seed(0)
    return EquivariantScorer(EquivariantConfig(coherence=request.param)).eval()


def picture(seed: int = 0, n: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (n, N_FRAMES, len(features.MAPS), features.N_ELEVATIONS, N_YAWS)
    return torch.randn(shape, generator=generator)


def covariance(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    field = encode(rng.standard_normal(2 * features.SAMPLERATE), 1.0, 0.1, 1)
    field += 0.3 * rng.standard_normal(field.shape)
    edges = torch.linspace(0, 1.9, N_FRAMES + 1, dtype=torch.float64)
    return features.covariance(torch.from_numpy(field), edges)


@pytest.mark.parametrize("bins", [1, 17, -30])
def test_rolled_picture_and_rotated_field_roll_the_scores(
    network: EquivariantScorer, bins: int
) -> None:
    """To the left by so many columns is a greater azimuth: the field has to follow."""
    maps, cov = picture(n=1), covariance()
    turned = features.rotated(cov, math.radians(5 * bins))
    with torch.no_grad():
        plain = network(maps, sound_input(cov)[None])
        rolled = network(maps.roll(-bins, -1), sound_input(cov)[None])
        rotated = network(maps, sound_input(turned)[None])
        both = network(maps.roll(-bins, -1), sound_input(turned)[None])

    # A mirrored field is turned the other way by what turns the field.
    cases = ((rolled, bins, bins), (rotated, -bins, bins), (both, 0, 2 * bins))
    for scores, roll, roll_mirrored in cases:
        torch.testing.assert_close(scores.yaw, plain.yaw.roll(roll, 1), atol=2e-5, rtol=0)
        mirrored = plain.mirrored.roll(roll_mirrored, 1)
        torch.testing.assert_close(scores.mirrored, mirrored, atol=2e-5, rtol=0)
        torch.testing.assert_close(scores.belongs, plain.belongs, atol=2e-5, rtol=0)
        torch.testing.assert_close(scores.synchronous, plain.synchronous, atol=2e-5, rtol=0)
    assert plain.yaw.std() > 1e-3


def test_the_field_is_turned_as_the_covariance_is() -> None:
    rng = np.random.default_rng(3)
    field = rng.standard_normal((4, features.SAMPLERATE))
    edges = torch.linspace(0, 0.9, 10, dtype=torch.float64)
    of_rotated = features.covariance(torch.from_numpy(rotate_yaw(field, math.radians(35))), edges)
    rotated = features.rotated(
        features.covariance(torch.from_numpy(field), edges), math.radians(35)
    )

    # Where a map is empty but for rounding, its square root makes much of that.
    torch.testing.assert_close(sound_input(of_rotated), sound_input(rotated), atol=2e-4, rtol=0)
    # Azimuth falls along the bins: 35 degrees to the left are 7 bins towards the beginning.
    plain = sound_input(features.covariance(torch.from_numpy(field), edges))
    torch.testing.assert_close(sound_input(rotated), plain.roll(-7, 0), atol=2e-4, rtol=0)


def test_the_border_goes_around_and_so_does_its_gradient() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)

    around = _Around.apply(x)  # type: ignore[no-untyped-call]

    padded = functional.pad(functional.pad(x, (1, 1, 0, 0), "circular"), (0, 0, 1, 1), "replicate")
    torch.testing.assert_close(around, padded)
    assert torch.autograd.gradcheck(_Around.apply, x)


def test_the_mirrored_field_is_heard_in_reverse() -> None:
    cov = covariance()

    mirrored = sound_input(viewpoints.mirrored(cov))

    torch.testing.assert_close(mirrored, sound_input(cov).flip(0), atol=2e-4, rtol=0)


def test_the_mirrored_field_is_scored_with_its_rotations(network: EquivariantScorer) -> None:
    maps, sound = picture(), sound_input(covariance())[None].expand(2, -1, -1, -1)
    with torch.no_grad():
        both = network(maps, sound)
        mirrored = network(maps, sound.flip(1))

    torch.testing.assert_close(both.mirrored, mirrored.yaw, atol=2e-5, rtol=0)
    torch.testing.assert_close(both.yaw, mirrored.mirrored, atol=2e-5, rtol=0)
    assert (both.yaw - both.mirrored).abs().max() > 1e-3
    torch.testing.assert_close(both.upright, -mirrored.upright, atol=2e-5, rtol=0)
    either = torch.cat([both.yaw, both.mirrored], dim=1).softmax(1)
    torch.testing.assert_close(both.upright.sigmoid(), either[:, :N_YAWS].sum(1))


def test_sums_over_rotations_have_their_gradient() -> None:
    places = torch.tensor([[1, 2, 0], [2, 0, 1], [0, 1, 2]])
    pairs = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def sums(pairs: torch.Tensor) -> torch.Tensor:
        # The mean is in float32 whatever comes in, too coarse for differences of doubles.
        return pairs.gather(3, places.expand(2, 2, -1, -1)).mean(2)

    found = _Rotations.apply(pairs, places)  # type: ignore[no-untyped-call]
    weights = torch.randn_like(found)
    gradients = [
        torch.autograd.grad((weights * values).sum(), pairs)[0] for values in (found, sums(pairs))
    ]

    torch.testing.assert_close(found.double(), sums(pairs), atol=1e-6, rtol=0)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=0)


def test_scores_equal_a_slow_sum_over_pairs(network: EquivariantScorer) -> None:
    """Every rotation, pair, head and lag by itself."""
    torch.manual_seed(1)
    config = network.config
    seen, heard = (torch.randn(1, N_YAWS, config.size, N_FRAMES) for _ in range(2))
    with torch.no_grad():
        fast = network.scores(seen, heard).yaw[0]
        for index in (0, 35, 71):
            bins = round(yaws_deg()[index] / 5)
            total = sum(
                network.weigh(network.compare(_comparisons(config, seen[0], heard[0], at, to)))
                for at, to in ((at, (at + bins) % N_YAWS) for at in range(N_YAWS))
            )
            assert float(fast[index]) == pytest.approx(float(total) / 6, abs=1e-4)


def _comparisons(
    config: EquivariantConfig, seen: torch.Tensor, heard: torch.Tensor, at: int, to: int
) -> torch.Tensor:
    """What is compared of the azimuth seen at `at` with the one heard at `to`."""
    parts = range(0, config.size, config.size // config.heads)
    heads = [slice(first, first + config.size // config.heads) for first in parts]
    varying = [[_varying(side[:, head]) for head in heads] for side in (seen, heard)]
    synchrony, coherence, co_location = [], [], []
    for lag in config.lags:
        for x, y in zip(*varying, strict=True):
            times = [t for t in range(N_FRAMES) if 0 <= t - lag < N_FRAMES]
            total = sum(float(x[at, :, t] @ y[to, :, t - lag]) for t in times)
            synchrony.append(0.3 * total / (x.shape[1] * N_FRAMES) ** 0.5)
            activities = [float(x[at].square().mean().sqrt()), float(y[to].square().mean().sqrt())]
            coherence.append(synchrony[-1] / (activities[0] + 0.1) / (activities[1] + 0.1))
    for head in heads:
        means = [side[:, head].mean(-1) for side in (seen, heard)]
        x, y = (mean - mean.mean(0) for mean in means)
        x, y = (side / (side.square().mean().sqrt() + 0.05) for side in (x, y))
        co_location.append(float(x[at] @ y[to]) / x.shape[1])
    if not config.coherence:
        return torch.tensor(synchrony + co_location)
    alone = [
        math.log(float(side[azimuth].square().mean().sqrt()) + 0.1)
        for sides, azimuth in zip(varying, (at, to), strict=True)
        for side in sides
    ]
    return torch.tensor(synchrony + co_location + coherence + alone)


def _varying(side: torch.Tensor) -> torch.Tensor:
    varying = side - side.mean(-1, keepdim=True)
    return varying / (varying.square().mean().sqrt() + 0.05)


def test_trust_is_from_the_best_rotation_against_all(network: EquivariantScorer) -> None:
    """What all pairs of it have in common, weighed by how likely each rotation is; the mean and the
    largest of all; and how far the best stands out.
    """
    torch.manual_seed(2)
    seen, heard = (torch.randn(1, N_YAWS, network.config.size, N_FRAMES) for _ in range(2))
    with torch.no_grad():
        network.weigh.weight.mul_(30)  # so that some rotations are likelier than others
        found = network.scores(seen, heard)
        pairs = network._compared(network.side(seen), network.side(heard))[0]
        turns = [round(yaw / 5) for yaw in yaws_deg()]
        at = torch.arange(N_YAWS)
        by_yaw = torch.stack([pairs[:, at, (at + bins) % N_YAWS].mean(1) for bins in turns])
        total = sum(math.exp(score) for score in found.yaw[0].tolist())
        likely = [math.exp(score) / total for score in found.yaw[0].tolist()]
        best = sum(p * of_yaw for p, of_yaw in zip(likely, by_yaw, strict=True))
        entropy = sum(p * math.log(1 / p) for p in likely)
        standing_out = float(found.yaw.max() - found.yaw.mean())
        spread = torch.tensor([entropy, standing_out, math.log(total)]) / 4
        largest = torch.stack([column.max() for column in by_yaw.T])
        told = network.trust(torch.cat([best, by_yaw.mean(0), largest, spread]))

    assert 2 / N_YAWS < max(likely) < 0.9
    torch.testing.assert_close(torch.cat([found.belongs, found.synchronous]), told)


def test_an_embedding_is_of_six_frames_to_either_side(network: EquivariantScorer) -> None:
    maps = picture(n=1).requires_grad_()
    sound = sound_input(covariance())[None].requires_grad_()

    for inputs, embedded, axis in (
        (maps, network.picture(maps), 1), (sound, network.sound(sound), 3),
    ):  # fmt: skip
        (gradient,) = torch.autograd.grad(embedded[..., 9].square().sum(), inputs)
        frames = gradient.movedim(axis, 0).flatten(1).any(1)
        assert frames.nonzero().flatten().tolist() == list(range(3, 16))


def test_where_nothing_changes_there_is_a_gradient(network: EquivariantScorer) -> None:
    embedding = torch.randn(1, N_YAWS, network.config.size, N_FRAMES)
    embedding[:, 3] = 1.0

    side = network.side(embedding.requires_grad_())
    (gradient,) = torch.autograd.grad(side.activity.sum(), embedding)

    assert side.activity[..., 3].max() < 0.1
    assert gradient.isfinite().all()


def test_products_at_lags_have_their_gradient() -> None:
    torch.manual_seed(2)
    first, second = (
        torch.randn(1, 2, 3, 6, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )

    products = _Lagged.apply(first, second, (-2, 0, 1))  # type: ignore[no-untyped-call]

    late = torch.einsum("bnatc,bnstc->bnas", first[..., 1:, :], second[..., :-1, :])
    torch.testing.assert_close(products[2], late)
    assert torch.autograd.gradcheck(
        lambda *sides: _Lagged.apply(*sides, (-2, 0, 1)),  # type: ignore[no-untyped-call]
        (first, second),
    )


def test_it_is_small_and_keeps_its_sizes(tmp_path, network: EquivariantScorer) -> None:  # type: ignore[no-untyped-def]
    save_scorer(tmp_path / "scorer.safetensors", network, {"data": "none"})
    again = load_scorer(tmp_path / "scorer.safetensors")

    assert sum(parameter.numel() for parameter in network.parameters()) < 4_000_000
    assert (tmp_path / "scorer.safetensors").stat().st_size < 16 * 2**20
    assert again.config == network.config
    maps, sound = picture(n=1), sound_input(covariance())[None]
    with torch.no_grad():
        torch.testing.assert_close(again(maps, sound).yaw, network(maps, sound).yaw)


def test_what_is_no_scorer_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "notes.safetensors").write_text("hello")
    with pytest.raises(MediaError, match=r"notes\.safetensors is not a scorer"):
        load_scorer(tmp_path / "notes.safetensors")
    with pytest.raises(MediaError, match=r"missing\.safetensors cannot be read"):
        load_scorer(tmp_path / "missing.safetensors")


def test_half_precision_does_not_round_the_rotations_off(network: EquivariantScorer) -> None:
    """A bias that all rotations share may drift in training; it must cost no precision."""
    maps, sound = picture(n=1), sound_input(covariance())[None]

    def rounding() -> float:
        with torch.no_grad():
            exact = network(maps, sound).yaw
            with torch.autocast("cpu", torch.bfloat16):
                rounded = network(maps, sound).yaw
        assert rounded.dtype == torch.float32
        return float(((exact - exact.mean()) - (rounded - rounded.mean())).abs().max())

    before = rounding()
    with torch.no_grad():
        network.weigh.bias.add_(40.0)

    assert rounding() < 1.5 * before + 1e-3
