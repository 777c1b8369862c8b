"""A network and its objective as one module, for one call a step on one rank or many."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from model.networks.avsa import AvsaNetwork
from training.objectives.samples import Objective, Outcome, Samples


@dataclass(frozen=True)
class Crops:
    """A batch as a loader gives it: `Samples` before the network.

    Attributes
    ----------
    pictures : RGB from 0 to 1, [shape=(B, K, 3, T, H, W)].
    sounds : of `SoundInput.at`, [shape=(B, K, C, T, F)].
    directions, viewpoints, moments, recordings, rotations_rad : as in `Samples`.
    """

    pictures: Tensor
    sounds: Tensor
    directions: Tensor
    viewpoints: Tensor
    moments: Tensor
    recordings: Tensor
    rotations_rad: Tensor


class Pretext(nn.Module):
    """Wrapped as a whole in DistributedDataParallel, all ranks learn the same objective.

    Objectives without translators leave parameters unused: `find_unused_parameters=True`.
    """

    def __init__(self, network: AvsaNetwork, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self.objective = objective

    def forward(self, crops: Crops) -> Outcome:
        video, audio = self.network(crops.pictures, crops.sounds)
        samples = Samples(
            video, audio, crops.directions, crops.viewpoints, crops.moments, crops.recordings,
            crops.rotations_rad,
        )  # fmt: skip
        outcome: Outcome = self.objective(self.network, samples)
        return outcome
