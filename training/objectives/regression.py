"""Regressive AVSA: by how much was the field rotated? (Eq. 1 of the paper, from the rebuttal.)

The published text does not say how angles are measured. Here a yaw is a point on the unit circle,
which has no seam and no double cover, and the loss is one minus the cosine of the error.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model.networks.avsa import AvsaNetwork
from training.objectives.samples import Objective, Outcome, Samples


class RotationRegression(Objective):
    """A head over the (crop, sound) pairs of a sample, summed so that their order has no say.

    Needs samples whose fields were rotated by `rotations_rad` before they were heard. A pair says
    little without its viewing direction: it is given to the head.
    """

    def __init__(self, width: int, *, hidden: int = 512) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pair = nn.Sequential(nn.Linear(2 * width + 3, hidden), nn.ReLU())
        self.angle = nn.Linear(hidden, 2)

    def forward(self, network: AvsaNetwork, samples: Samples) -> Outcome:  # noqa: ARG002
        point = self.point(samples.video, samples.audio, samples.directions)
        loss = (1 - (point * on_circle(samples.rotations_rad)).sum(-1)).mean()
        return loss, _figures(point.detach(), samples.rotations_rad)

    def point(self, video: Tensor, audio: Tensor, directions: Tensor) -> Tensor:
        """The rotation on the circle, [shape=(B, 2)], of tokens [shape=(B, K, D)].

        directions : at which the crops were taken, unit vectors [shape=(B, K, 3)].
        """
        pairs = torch.cat([self.norm(video), self.norm(audio), directions], dim=-1)
        return nn.functional.normalize(self.angle(self.pair(pairs).mean(1)), dim=-1)


def on_circle(angles_rad: Tensor) -> Tensor:
    """Angles as (cos, sin), [shape=(..., 2)]."""
    return torch.stack([angles_rad.cos(), angles_rad.sin()], dim=-1)


def _figures(point: Tensor, rotations_rad: Tensor) -> dict[str, Tensor]:
    error = torch.atan2(point[:, 1], point[:, 0]) - rotations_rad
    error = torch.atan2(error.sin(), error.cos()).abs() * (180 / math.pi)
    return {
        "median error deg": error.quantile(0.5),  # `median` takes the lower of two
        "within 20 deg accuracy": (error <= 20).float().mean(),
    }
