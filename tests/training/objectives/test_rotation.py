"""The scorer's loss against slow versions: rotation, the mirrored field as a rival, and trust."""

from __future__ import annotations

import math

import pytest
import torch

from model.evidence import yaws_deg
from model.networks.equivariant import EquivariantConfig, EquivariantScorer
from training.objectives import rotation as rotation_module
from training.objectives.rotation import (
    CONCENTRATION,
    TRUST_WEIGHT,
    WAY_ROUND_WEIGHT,
    errors_deg,
    rotation_loss,
    rotation_target,
)

CONFIG = EquivariantConfig(hidden=16, size=16, heads=2)


def test_the_loss_is_that_of_a_slow_version(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    off = torch.tensor([5.0, 15.0, 25.0, 180.0])
    monkeypatch.setattr(rotation_module, "errors_deg", lambda _yaw: off)
    network = EquivariantScorer(CONFIG)
    maps, sound = torch.rand(4, 20, CONFIG.n_maps, 12, 72), torch.randn(4, 72, 131, 20)
    with torch.no_grad():  # a network that has learned nothing tells rotations hardly apart
        network.weigh.weight.mul_(300)

    loss, log = rotation_loss(network, maps, sound)

    with torch.no_grad():
        own, mirrored = network(maps, sound).yaw, network(maps, sound.flip(1)).yaw
    shares = [math.exp(CONCENTRATION * (math.cos(math.radians(yaw)) - 1)) for yaw in yaws_deg()]
    rotation, way_round = 0.0, 0.0
    for right, wrong in zip(own.double(), mirrored.double(), strict=True):
        total, of_mirrored = (sum(map(math.exp, scores.tolist())) for scores in (right, wrong))
        for share, score in zip(shares, right.tolist(), strict=True):
            rotation -= share / sum(shares) * (score - math.log(total)) / len(own)
        way_round -= math.log(total / (total + of_mirrored)) / len(own)
    assert abs(way_round - math.log(2)) > 0.02
    assert float(log["rotation"]) == pytest.approx(rotation, abs=1e-4)
    assert float(log["way round"]) == pytest.approx(way_round, abs=1e-4)
    assert log["within 20"] == 0.5
    trust = TRUST_WEIGHT * float(log["belongs"] + log["synchronous"])
    expected = rotation + trust + WAY_ROUND_WEIGHT * way_round
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-3)


def test_trust_is_learned_from_foreign_sound_and_from_sound_at_another_time() -> None:
    """Scene by scene: of each four the first two hear each other, the last two themselves later."""
    torch.manual_seed(1)
    network = EquivariantScorer(CONFIG)
    maps, sound = torch.rand(8, 20, CONFIG.n_maps, 12, 72), torch.randn(8, 72, 131, 20)
    last = network.trust[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():  # so that what is heard makes a difference, about even odds
        network.weigh.weight.mul_(300)
        last.weight.mul_(20)
        last.bias.add_(torch.tensor([10.0, 0.5]))

    _, log = rotation_loss(network, maps, sound)

    with torch.no_grad():
        seen, heard = network.picture(maps), network.sound(sound)
        wrong = [heard[1], heard[0], *heard[2:4].roll(10, -1), heard[5], heard[4]]
        wrong += [*heard[6:8].roll(10, -1)]
        fits = [network.scores(seen[i, None], heard[i, None]) for i in range(8)]
        not_ = [network.scores(seen[i, None], wrong[i][None]) for i in range(8)]
    belongs = mean([yes(s.belongs) for s in fits]) + mean([no(not_[i].belongs) for i in FOREIGN])
    synchronous = mean([yes(s.synchronous) for s in fits]) + mean([no(s.synchronous) for s in not_])
    assert float(log["belongs"]) == pytest.approx(belongs / 2, abs=1e-4)
    assert float(log["synchronous"]) == pytest.approx(synchronous / 2, abs=1e-4)


FOREIGN = (0, 1, 4, 5)


def yes(logit: torch.Tensor) -> float:
    return math.log(1 + math.exp(-float(logit)))


def no(logit: torch.Tensor) -> float:
    return math.log(1 + math.exp(float(logit)))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_the_target_is_about_0_with_a_deviation_of_6_degrees() -> None:
    shares, yaws = rotation_target().double(), torch.tensor(yaws_deg()).double()

    assert float(shares.sum()) == pytest.approx(1)
    assert float(shares @ yaws) == pytest.approx(0, abs=1e-3)
    assert math.sqrt(shares @ yaws.square()) == pytest.approx(6, abs=0.1)


def test_errors_are_angles_of_the_rotations() -> None:
    """A scorer that is surest of a rotation is off by as many degrees as that rotation has."""
    assert errors_deg(torch.eye(len(yaws_deg()))).tolist() == [abs(yaw) for yaw in yaws_deg()]
