"""Masked multiple choice: some crops are masked, and each is told from the others that are.

From the authors' rebuttal ("masking random K audio/video crops and using the masked features to
setup a multiple choice problem"; other crops of the same modality stay visible, which makes the
choice easier). Read here as: a slot's token is the sum of both modalities' tokens, one of them
replaced by a learned one where it is masked; the translator's output at each masked slot chooses
among the masked tokens of the same sample.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.networks.avsa import AvsaNetwork
from training.objectives.contrast import TEMPERATURE
from training.objectives.samples import Objective, Outcome, Samples


class MaskedChoice(Objective):
    """Both ways: masked crops are told from their sounds, masked sounds from their crops.

    n_masked : of each sample's crops, 2 or more. width : of tokens.
    """

    def __init__(self, width: int, n_masked: int, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        if n_masked < 2:
            raise ValueError(f"{n_masked} masked crops leave no choice: mask 2 or more")
        self.n_masked = n_masked
        self.temperature = temperature
        self.masked_video = nn.Parameter(0.02 * torch.randn(width))
        self.masked_audio = nn.Parameter(0.02 * torch.randn(width))

    def forward(self, network: AvsaNetwork, samples: Samples) -> Outcome:
        n, k = samples.video.shape[:2]
        if k < self.n_masked:
            raise ValueError(f"{self.n_masked} of {k} crops cannot be masked: take more crops")
        masked = torch.rand(n, k, device=samples.video.device).argsort(1)[:, : self.n_masked]
        return self.compared(network, samples.video, samples.audio, masked)

    def compared(
        self, network: AvsaNetwork, video: Tensor, audio: Tensor, masked: Tensor
    ) -> Outcome:
        """The outcome where crops `masked`, int64 [shape=(B, n_masked)], are masked."""
        seen = network.predict_video(audio + _masked(video, self.masked_video, masked))
        heard = network.predict_audio(video + _masked(audio, self.masked_audio, masked))
        choices = [
            _choice(seen, network.embed_video(video), masked, self.temperature),
            _choice(heard, network.embed_audio(audio), masked, self.temperature),
        ]
        loss = torch.stack([choice[0] for choice in choices]).mean()
        return loss, {"choice accuracy": torch.stack([choice[1] for choice in choices]).mean()}


def _masked(tokens: Tensor, replacement: Tensor, masked: Tensor) -> Tensor:
    """Tokens [shape=(B, K, D)] with some replaced."""
    index = masked[..., None].expand(-1, -1, tokens.shape[-1])
    return tokens.scatter(1, index, replacement.to(tokens.dtype).expand(*index.shape))


def _choice(
    predicted: Tensor, targets: Tensor, masked: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of choosing among masked targets, unit vectors [shape=(B, K, E)]."""
    index = masked[..., None].expand(-1, -1, targets.shape[-1])
    scores = predicted.gather(1, index) @ targets.gather(1, index).mT / temperature
    right = torch.arange(masked.shape[1], device=masked.device).expand(len(masked), -1)
    loss = nn.functional.cross_entropy(scores.flatten(0, 1), right.flatten())
    return loss, (scores.argmax(-1) == right).float().mean()
