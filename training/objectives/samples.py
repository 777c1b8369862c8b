"""What objectives are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from model.networks.avsa import AvsaNetwork

# The loss, and figures by name.
Outcome = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Samples:
    """Tokens of a batch, and where they were taken. B samples, K crops of each.

    Attributes
    ----------
    video, audio : the network's tokens, [shape=(B, K, D)].
    directions : viewing directions, unit vectors (x, y, z), [shape=(B, K, 3)].
    viewpoints, moments : which crops share a viewpoint, and which a moment, within a sample; int64
        [shape=(B, K)]. AVSA: K viewpoints of one moment; AVTS: one viewpoint at K moments.
    recordings : number of each sample's recording, int64 [shape=(B,)]; samples of one recording
        may hold the same scene.
    rotations_rad : by how much the field was rotated before the crops were heard, [shape=(B,)];
        0 for all objectives but regression.
    """

    video: Tensor
    audio: Tensor
    directions: Tensor
    viewpoints: Tensor
    moments: Tensor
    recordings: Tensor
    rotations_rad: Tensor


class Objective(nn.Module, ABC):
    """Something to learn.

    It may have parameters of its own, so network and objective are wrapped together (`Pretext`).
    Figures are accuracies from 0 to 1, unless their name says a unit.
    """

    @abstractmethod
    def forward(self, network: AvsaNetwork, samples: Samples) -> Outcome:
        """The loss, a scalar, and figures without gradient."""
