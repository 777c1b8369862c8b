"""AVC: which sound belongs to which picture (eq. 7), and its form over translated viewpoints."""

from __future__ import annotations

import torch

from model.networks.avsa import AvsaNetwork
from training.objectives.contrast import TEMPERATURE, both_ways, contrast
from training.objectives.samples import Objective, Outcome, Samples


class Correspondence(Objective):
    """Sound and picture of one crop of each sample against those of the other samples.

    With several crops of a sample the first is taken, so the objective is that of one crop.
    """

    def __init__(self, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, network: AvsaNetwork, samples: Samples) -> Outcome:
        video = network.embed_video(samples.video[:, :1])
        audio = network.embed_audio(samples.audio[:, :1])
        to_audio = contrast(video, audio, self.temperature)
        to_video = contrast(audio, video, self.temperature)
        anything = torch.ones_like(to_audio.scores, dtype=torch.bool)
        return both_ways(to_audio, to_video, anything, anything)


class PooledCorrespondence(Objective):
    """The same of whole samples ("easy only", "AVC with translators"): no spatial negatives.

    What is translated and what it is compared with are pooled over the crops of a sample by their
    maximum before the heads.
    """

    def __init__(self, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, network: AvsaNetwork, samples: Samples) -> Outcome:
        video, audio = (tokens.amax(1, keepdim=True) for tokens in (samples.video, samples.audio))
        seen = network.project_video(network.to_video(samples.audio).amax(1, keepdim=True))
        heard = network.project_audio(network.to_audio(samples.video).amax(1, keepdim=True))
        to_video = contrast(seen, network.embed_video(video), self.temperature)
        to_audio = contrast(heard, network.embed_audio(audio), self.temperature)
        anything = torch.ones_like(to_audio.scores, dtype=torch.bool)
        return both_ways(to_video, to_audio, anything, anything)
