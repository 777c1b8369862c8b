"""Context-aware puzzle: put the shuffled sounds of a sample's crops back in order, all at once.

From the authors' rebuttal, which says only that an MLP predicts the arrangement of crops
simultaneously. Read here as: tokens of K crops and of K shuffled sounds, side by side, to a K x K
table of which sound belongs to which crop.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.avsa import AvsaNetwork
from training.objectives.samples import Objective, Outcome, Samples


class Puzzle(Objective):
    """An MLP over all 2 K tokens; the cross-entropy of each crop's row of the table.

    n_crops, width : K and the tokens' width. hidden : of the MLP.
    """

    def __init__(self, n_crops: int, width: int, *, hidden: int = 512) -> None:
        super().__init__()
        self.arrange = nn.Sequential(
            nn.Linear(2 * n_crops * width, hidden), nn.ReLU(), nn.Linear(hidden, n_crops**2)
        )

    def forward(self, network: AvsaNetwork, samples: Samples) -> Outcome:  # noqa: ARG002
        n, k = samples.audio.shape[:2]
        shuffle = torch.rand(n, k, device=samples.audio.device).argsort(1)
        return self.compared(samples.video, samples.audio, shuffle)

    def compared(self, video: Tensor, audio: Tensor, shuffle: Tensor) -> Outcome:
        """The outcome for a known shuffle: slot s holds the sound of crop `shuffle[:, s]`."""
        n, k = shuffle.shape
        shuffled = audio.gather(1, shuffle[..., None].expand_as(audio))
        table = self.arrange(torch.cat([video, shuffled], dim=1).flatten(1)).view(n * k, k)
        slot_of_crop = shuffle.argsort(1)
        right = table.argmax(1).view(n, k) == slot_of_crop
        return functional.cross_entropy(table, slot_of_crop.flatten()), {
            "crop accuracy": right.float().mean(),
            "puzzle accuracy": right.all(1).float().mean(),
        }
