"""Context-aware puzzle: put the shuffled sounds of a sample's crops back in order, all at once.

From the authors' rebuttal, which says only that an MLP predicts the arrangement of crops
simultaneously. Read here as: tokens of K crops and of K shuffled sounds, normalised, side by side,
to a K x K table of which sound belongs to which crop. (Without the normalisation the tokens' common
part, far larger than their differences, keeps the MLP at chance for thousands of steps.)
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
        self.norm = nn.LayerNorm(width)
        self.arrange = nn.Sequential(
            nn.Linear(2 * n_crops * width, hidden), nn.ReLU(), nn.Linear(hidden, n_crops**2)
        )

    def forward(self, network: AvsaNetwork, samples: Samples) -> Outcome:  # noqa: ARG002
        n, k = samples.audio.shape[:2]
        shuffle = torch.rand(n, k, device=samples.audio.device).argsort(1)
        return self.compared(samples.video, samples.audio, shuffle)

    def compared(self, video: Tensor, audio: Tensor, shuffle: Tensor) -> Outcome:
        """The outcome for a known shuffle: slot s holds the sound of crop `shuffle[:, s]`."""
        shuffled = audio.gather(1, shuffle[..., None].expand_as(audio))
        table = self.table(video, shuffled)
        slot_of_crop = shuffle.argsort(1)
        right = table.argmax(2) == slot_of_crop
        return functional.cross_entropy(table.flatten(0, 1), slot_of_crop.flatten()), {
            "crop accuracy": right.float().mean(),
            "puzzle accuracy": right.all(1).float().mean(),
        }

    def table(self, video: Tensor, audio: Tensor) -> Tensor:
        """Logits of every sound for every crop, [shape=(B, K, K)], of tokens [shape=(B, K, D)]."""
        n, k = video.shape[:2]
        tokens = self.norm(torch.cat([video, audio], dim=1))
        logits: Tensor = self.arrange(tokens.flatten(1))
        return logits.view(n, k, k)
