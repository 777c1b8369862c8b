"""All rotations as candidates: cross-entropy over yaw, and whether sound and picture fit at all.

Every other rotation of a scene's own field is a hard negative (InfoNCE over all of them, with a
soft target since sources have an extent). So are all rotations of the mirrored field, as one: the
field is the right way round. Negatives of the trust heads come from within the batch:
pairs of neighbours swap their sound (foreign), others hear their own at another time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model.evidence import N_YAWS, yaws_deg
from model.networks.equivariant import EquivariantScorer, Side

CONCENTRATION = 90.0  # of the target, von Mises: a deviation of 6 degrees
TRUST_WEIGHT = 0.3
WAY_ROUND_WEIGHT = 0.5


def rotation_target(device: torch.device | str = "cpu") -> Tensor:
    """Share of each rotation for a scene that fits as it is, [shape=(R,)], sums to 1."""
    yaws = torch.tensor(yaws_deg(), device=device).deg2rad()
    return (CONCENTRATION * (yaws.cos() - 1)).softmax(0)


def rotation_loss(
    network: EquivariantScorer, maps: Tensor, sound: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a batch of scenes that all fit at a rotation of 0, and means to log.

    Scenes come in fours: the first two of each swap sounds, the other two are shifted in time, so
    that the loss of a batch is the mean of those of its parts, whichever way it is split by fours.

    maps, sound : see `EquivariantScorer`; B is a multiple of 4.
    """
    seen, heard = network.side(network.picture(maps)), network.side(network.sound(sound))
    fitting = network.match(seen, heard)
    log_posterior = fitting.yaw.float().log_softmax(-1)
    rotation = -(log_posterior @ rotation_target(maps.device)).mean()
    way_round = _binary(fitting.upright.float(), 1.0)

    late = heard._replace(varying=heard.varying.roll(heard.varying.shape[3] // 2, dims=3))
    wrong = network.match(seen, Side(*map(_half_swapped, heard, late)))
    foreign = _in_fours(wrong.belongs.float())[:, :2].flatten()
    belongs = _binary(fitting.belongs.float(), 1.0) + _binary(foreign, 0.0)
    synchronous = _binary(fitting.synchronous.float(), 1.0) + _binary(
        wrong.synchronous.float(), 0.0
    )
    loss = rotation + TRUST_WEIGHT * (belongs + synchronous) / 2 + WAY_ROUND_WEIGHT * way_round
    error_deg = errors_deg(fitting.yaw)
    return loss, {
        "loss": loss.detach(),
        "rotation": rotation.detach(),
        "belongs": belongs.detach() / 2,
        "synchronous": synchronous.detach() / 2,
        "way round": way_round.detach(),
        "within 20": (error_deg <= 20).float().mean(),
    }


def _half_swapped(batch: Tensor, others: Tensor) -> Tensor:
    """Of each four the first two, exchanged, and the last two of the others."""
    parts = [_in_fours(batch)[:, :2].flip(1), _in_fours(others)[:, 2:]]
    return torch.cat(parts, dim=1).flatten(0, 1)


def _in_fours(batch: Tensor) -> Tensor:
    return batch.reshape(-1, 4, *batch.shape[1:])


def _binary(logits: Tensor, target: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def errors_deg(yaw: Tensor) -> Tensor:
    """Distance of each best rotation from 0, [shape=(B, R)] to [shape=(B,)], in whole bins."""
    step = 360 / N_YAWS
    best = (yaw.argmax(-1) + 1) * step - 180
    return best.abs()
