"""AVSA against a memory of earlier keys that know their viewing direction.

The paper's authors doubted memories for AVSA, because features vary with the viewpoint. Here each
key carries the direction it was taken at, and its recording: from other recordings only keys near
the query's own direction count, which cannot be told apart by where they look; from the query's
recording only those far from it, since near ones may show the very thing that sounds.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from model.networks.avsa import AvsaNetwork
from training.objectives.avsa import Candidates
from training.objectives.contrast import TEMPERATURE, both_ways, contrast
from training.objectives.gather import gathered
from training.objectives.samples import Objective, Outcome, Samples

_NOBODY = -1


class KeyMemory(nn.Module):
    """The latest keys of one modality, oldest replaced first; part of the training state.

    size : keys held. embedding : their width.
    near_deg : a key of another recording counts within this angle of the query (180: always).
    apart_deg : a key of the query's recording counts from this angle on.
    """

    keys: Tensor
    directions: Tensor
    recordings: Tensor
    next_slot: Tensor

    def __init__(
        self, size: int, embedding: int, *, near_deg: float = 180.0, apart_deg: float = 36.0
    ) -> None:
        super().__init__()
        self.near_deg, self.apart_deg = near_deg, apart_deg
        self.register_buffer("keys", torch.zeros(size, embedding))
        self.register_buffer("directions", torch.zeros(size, 3))
        self.register_buffer("recordings", torch.full((size,), _NOBODY))
        self.register_buffer("next_slot", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor, directions: Tensor, recordings: Tensor) -> None:
        """Remember keys [shape=(P, E)] with directions [shape=(P, 3)], recordings [shape=(P,)].

        Of more than fit, the last ones.
        """
        size = len(self.keys)
        slots = (self.next_slot + torch.arange(len(keys), device=keys.device))[-size:] % size
        self.keys[slots] = keys[-size:].detach().to(self.keys)
        self.directions[slots] = directions[-size:].to(self.directions)
        self.recordings[slots] = recordings[-size:]
        self.next_slot.copy_((self.next_slot + len(keys)) % size)

    def count(self, directions: Tensor, recordings: Tensor) -> Tensor:
        """Which keys are negatives of queries, [shape=(B, K, 3)], (B,) to bool (B, K, size)."""
        cosine = torch.einsum("bkx,px->bkp", directions.to(self.directions), self.directions)
        near = cosine >= math.cos(math.radians(self.near_deg)) - 1e-6
        apart = cosine <= math.cos(math.radians(self.apart_deg)) + 1e-6
        own = (recordings[:, None] == self.recordings)[:, None]
        return torch.where(own, apart, near) & (self.recordings != _NOBODY)

    def scores(self, queries: Tensor, counted: Tensor, temperature: float) -> Tensor:
        """Cosine / temperature with the keys that count, else -inf, [shape=(B, K, size)]."""
        keys = self.keys.to(queries, copy=True)  # the backward pass needs them as they were
        scores = torch.einsum("bke,pe->bkp", queries, keys) / temperature
        return scores.masked_fill(~counted, -torch.inf)


class RememberedAlignment(Objective):
    """AVSA with all candidates of the batch and those of two memories, which it then fills.

    Keys are remembered as they were: the memory should hold a few steps, not an epoch.
    Evaluation mode leaves the memories as they are, and asks about recordings that none of their
    keys is of: those that are held out have numbers of their own, which some of the keys have too.
    """

    def __init__(
        self, video: KeyMemory, audio: KeyMemory, temperature: float = TEMPERATURE
    ) -> None:
        super().__init__()
        self.video, self.audio = video, audio
        self.temperature = temperature

    def forward(self, network: AvsaNetwork, samples: Samples) -> Outcome:
        own = network.embed(samples.video, samples.audio)
        to_video = contrast(own.video_from_audio, own.video, self.temperature)
        to_audio = contrast(own.audio_from_video, own.audio, self.temperature)
        held_out = torch.full_like(samples.recordings, _NOBODY)
        where = samples.directions, samples.recordings if self.training else held_out
        to_video = replace(
            to_video,
            further=self.video.scores(
                own.video_from_audio, self.video.count(*where), self.temperature
            ),
        )
        to_audio = replace(
            to_audio,
            further=self.audio.scores(
                own.audio_from_video, self.audio.count(*where), self.temperature
            ),
        )
        every = Candidates.ALL
        outcome = both_ways(to_video, to_audio, every.allowed(to_video), every.allowed(to_audio))
        if self.training:
            self._remember(own.video.detach(), own.audio.detach(), samples)
        return outcome

    def _remember(self, video: Tensor, audio: Tensor, samples: Samples) -> None:
        """Fill the memories with this step's keys of all ranks, so that all ranks hold the same."""
        n_crops = video.shape[1]
        directions = gathered(samples.directions).flatten(0, 1)
        recordings = gathered(samples.recordings).repeat_interleave(n_crops)
        for memory, keys in ((self.video, video), (self.audio, audio)):
            memory.push(gathered(keys).flatten(0, 1), directions, recordings)
