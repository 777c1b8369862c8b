"""A network and its objective as one module, for one call a step on one rank or many."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.networks.avsa import AvsaNetwork
from training.data.clips import Crops
from training.objectives.samples import Objective, Outcome, Samples


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
        # Cosines over a temperature need more digits than autocast's.
        with torch.autocast(video.device.type, enabled=False):
            return self._compared(_at_least_single(video), _at_least_single(audio), crops)

    def _compared(self, video: Tensor, audio: Tensor, crops: Crops) -> Outcome:
        samples = Samples(
            video, audio, crops.directions, crops.viewpoints, crops.moments, crops.recordings,
            crops.rotations_rad,
        )  # fmt: skip
        outcome: Outcome = self.objective(self.network, samples)
        return outcome


def _at_least_single(tokens: Tensor) -> Tensor:
    return tokens.float() if tokens.dtype in (torch.bfloat16, torch.float16) else tokens
