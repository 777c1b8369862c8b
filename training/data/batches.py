"""Batches of kept windows, each a pure function of a seed and a step.

So a run that resumes sees the batches it would have seen, and ranks that share a step split one and
the same batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from model import viewpoints
from model.evidence import N_YAWS
from model.learned import sound_input
from model.scoring import Window
from training.data.microphones import Microphone, draw_microphone, heard_by
from training.data.overlays import Overlay, draw_laying, laid_over
from training.data.tensors import Tensors
from training.data.windows import load_window, n_intervals


@dataclass(frozen=True)
class Batch(Tensors):
    """Scenes that fit at a rotation of 0: the network's inputs, [shape=(B, ...)]."""

    maps: Tensor
    sound: Tensor


class WindowBatches(Dataset[Batch]):
    """Batches by step: a random length, random windows that have it, cut to it, mirrored as often
    as not, some with another laid over them (`training.data.overlays`), some heard by another
    microphone (`training.data.microphones`).

    Parameters
    ----------
    batch : scenes over all ranks, a multiple of 4 times the ranks.
    shortest, longest : of a cut, in frames; none is longer than `batch` windows are.
    overlaid, microphones : shares of scenes that another is laid over, and that are heard by a
        microphone with faults, 0 to 1.
    rank, world : which part of each batch to read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        batch: int,
        shortest: int,
        longest: int,
        overlaid: float = 0.0,
        microphones: float = 0.0,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch % (4 * world):
            raise ValueError(
                f"a batch of {batch} is no multiple of {4 * world}, and every rank ({world} in "
                "all) takes whole fours: give another --batch"
            )
        if len(paths) < batch:
            raise ValueError(
                f"{len(paths)} windows do not fill a batch of {batch}: give more --windows, or a "
                "smaller --batch"
            )
        lengths = np.array([n_intervals(path) for path in paths])
        # By falling length, so that those that have a length come first.
        order = np.argsort(-lengths, kind="stable")
        self._paths, self._lengths = [paths[index] for index in order], lengths[order]
        self._overlaid, self._microphones = overlaid, microphones
        self._batch = batch
        self._longest = min(longest, int(self._lengths[batch - 1]))
        self._shortest = min(shortest, self._longest)
        self._seed, self._rank, self._world = seed, rank, world

    def __getitem__(self, step: int) -> Batch:
        """The part of this rank in a step's batch."""
        rng = np.random.default_rng([self._seed, step])
        n_frames = int(rng.integers(self._shortest, self._longest + 1))
        n_paths = int((self._lengths >= n_frames).sum())
        chosen = rng.choice(n_paths, self._batch, replace=False)
        places, mirrored = rng.random(self._batch), rng.random(self._batch) < 0.5
        layings = [draw_laying(rng, self._overlaid, N_YAWS) for _ in chosen]
        others = rng.choice(n_paths, self._batch)
        shifts = rng.random(self._batch)
        faulty = rng.random(self._batch) < self._microphones
        microphones = [draw_microphone(rng) if each else None for each in faulty]
        mine = np.array_split(np.arange(self._batch), self._world)[self._rank]
        examples = []
        for i in mine:
            own = _stretch(load_window(self._paths[chosen[i]]), n_frames, places[i])
            if layings[i].overlay is not Overlay.NOTHING:
                other = _stretch(load_window(self._paths[others[i]]), n_frames, shifts[i])
                own = laid_over(own, other, layings[i])
            examples.append(_example(*own, microphones[i], mirrored=bool(mirrored[i])))
        maps, sound = zip(*examples, strict=True)
        return Batch(torch.stack(maps), torch.stack(sound))


def _stretch(window: Window, n_frames: int, place: float) -> tuple[Tensor, Tensor]:
    """Maps and covariances of a part of a window; place : 0 to 1, of its start."""
    first = int(place * (len(window.covariance) - n_frames + 1))
    stretch = slice(first, first + n_frames)
    return window.motion.maps[stretch], window.covariance[stretch]


def _example(
    maps: Tensor, covariance: Tensor, microphone: Microphone | None, *, mirrored: bool
) -> tuple[Tensor, Tensor]:
    if microphone is not None:
        covariance = heard_by(microphone, covariance)
    if mirrored:
        maps, covariance = maps.flip(-1), viewpoints.mirrored(covariance)
    return maps, sound_input(covariance)


def inputs(window: Window) -> Batch:
    """A whole window as a batch of one."""
    return Batch(window.motion.maps.float()[None], sound_input(window.covariance)[None])
