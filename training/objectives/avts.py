"""AVTS: is it this moment's sound? Negatives are other moments of the same viewpoint."""

from __future__ import annotations

from model.networks.avsa import AvsaNetwork
from training.objectives.contrast import TEMPERATURE, both_ways, contrast
from training.objectives.samples import Objective, Outcome, Samples


class TemporalSynchrony(Objective):
    """Candidates: other moments of the query's viewpoint, and all crops of other samples.

    translated : compare with predictions of the translators over the moments (the paper's control
        for AVSA); else the two encoders directly, as AVTS is published.
    """

    def __init__(self, *, translated: bool = False, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        self.translated = translated
        self.temperature = temperature

    def forward(self, network: AvsaNetwork, samples: Samples) -> Outcome:
        own = network.embed(samples.video, samples.audio)
        if self.translated:
            first = contrast(own.video_from_audio, own.video, self.temperature)
            second = contrast(own.audio_from_video, own.audio, self.temperature)
        else:
            first = contrast(own.audio, own.video, self.temperature)
            second = contrast(own.video, own.audio, self.temperature)
        views, moments = samples.viewpoints, samples.moments
        elsewhen = (views[:, :, None] == views[:, None]) & (
            moments[:, :, None] != moments[:, None]
        )  # (B, K, K)
        allowed = ~first.is_own() | elsewhen[:, :, None]
        return both_ways(first, second, allowed, allowed)
