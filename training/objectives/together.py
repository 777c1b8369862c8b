"""Several objectives at once, such as a puzzle with AVC."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from model.networks.avsa import AvsaNetwork
from training.objectives.samples import Objective, Outcome, Samples


class Together(Objective):
    """A weighted sum of objectives.

    parts : name, weight and objective of each; figures are named after them.
    """

    def __init__(self, parts: Sequence[tuple[str, float, Objective]]) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight, _ in parts}
        self.parts = nn.ModuleDict({name: objective for name, _, objective in parts})

    def forward(self, network: AvsaNetwork, samples: Samples) -> Outcome:
        losses, figures = [], {}
        for name, objective in self.parts.items():
            loss, of_part = objective(network, samples)
            losses.append(self.weights[name] * loss)
            figures[f"{name} loss"] = loss.detach()
            figures |= {f"{name} {figure}": value for figure, value in of_part.items()}
        return torch.stack(losses).sum(), figures
