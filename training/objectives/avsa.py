"""AVSA: which viewpoint does this sound come from? (eq. 9)."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from model.networks.avsa import AvsaNetwork
from training.objectives.contrast import TEMPERATURE, Contrast, both_ways, contrast
from training.objectives.samples import Objective, Outcome, Samples


class Candidates(StrEnum):
    """What a prediction is compared with; N samples of K crops.

    ALL : every crop of every sample, N K (the paper). PAIRED : the K crops of the own sample, and
    of the others that with the same number, K + N - 1 (the released code). OWN : the K crops of
    the own sample ("hard only").
    """

    ALL = "all"
    PAIRED = "paired"
    OWN = "own"

    def allowed(self, of: Contrast) -> Tensor:
        """Which candidates count, to broadcast against the scores."""
        if self is Candidates.ALL:
            return torch.ones_like(of.scores, dtype=torch.bool)
        own = of.is_own().expand_as(of.scores)
        return own if self is Candidates.OWN else own | of.is_same_place()


class SpatialAlignment(Objective):
    """Each modality's tokens against their prediction from the other one, crop by crop.

    With crops of several viewpoints and several moments in a sample this is AVSA + AVTS: any other
    viewpoint and moment of the sample is a negative.
    """

    def __init__(
        self, candidates: Candidates = Candidates.ALL, temperature: float = TEMPERATURE
    ) -> None:
        super().__init__()
        self.candidates = candidates
        self.temperature = temperature

    def forward(self, network: AvsaNetwork, samples: Samples) -> Outcome:
        own = network.embed(samples.video, samples.audio)
        to_video = contrast(own.video_from_audio, own.video, self.temperature)
        to_audio = contrast(own.audio_from_video, own.audio, self.temperature)
        return both_ways(
            to_video, to_audio, self.candidates.allowed(to_video), self.candidates.allowed(to_audio)
        )
