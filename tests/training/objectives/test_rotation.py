"""The scorer's loss against a slow version: the rotation, and the mirrored field as a rival."""

from __future__ import annotations

import math

import pytest
import torch

from model.evidence import yaws_deg
from model.networks.equivariant import EquivariantConfig, EquivariantScorer
from training.objectives.rotation import (
    CONCENTRATION,
    TRUST_WEIGHT,
    WAY_ROUND_WEIGHT,
    rotation_loss,
)

CONFIG = EquivariantConfig(hidden=16, size=16, heads=2)


def test_the_loss_is_that_of_a_slow_version() -> None:
    torch.manual_seed(0)
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
    trust = TRUST_WEIGHT * float(log["belongs"] + log["synchronous"])
    expected = rotation + trust + WAY_ROUND_WEIGHT * way_round
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-3)
