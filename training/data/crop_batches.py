"""Crops of clips, put together for every step of a training that may have several phases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from model.errors import OptionError
from training.data.clips import ClipCrops, Crops


@dataclass(frozen=True)
class Stretch:
    """Steps that take alike batches.

    Attributes
    ----------
    n_samples : of a step, over all ranks.
    """

    steps: int
    n_samples: int
    items: ClipCrops


def check_parts(stretches: Sequence[Stretch], world: int) -> None:
    """See that ranks can have equal parts of every step.

    Raises
    ------
    OptionError : they cannot; it says how many could, and what batches would do.
    """
    sizes = [stretch.n_samples for stretch in stretches]
    if not any(size % world for size in sizes):
        return
    common = math.gcd(*sizes)
    *fewer, most = [str(n) for n in range(1, common + 1) if common % n == 0]
    ranks = f"{', '.join(fewer)} or {most} ranks" if fewer else "one rank"
    larger = math.lcm(*(world // math.gcd(world, size) for size in sizes))
    uneven = next(size for size in sizes if size % world)
    raise OptionError(
        f"{uneven} samples a step are no equal parts for {world} ranks: take {ranks}, or a --batch "
        f"{larger} times as large."
    )


class CropBatches(Dataset[Crops]):
    """Item i is this rank's part of the batch of step i.

    A function of seed and step, whatever the ranks: recordings come in an order that is drawn anew
    whenever all have been taken.

    Raises
    ------
    OptionError : ranks cannot have equal parts.
    """

    def __init__(
        self, stretches: Sequence[Stretch], *, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        check_parts(stretches, world)
        self._stretches = stretches
        self._seed, self._rank, self._world = seed, rank, world

    def __len__(self) -> int:
        return sum(stretch.steps for stretch in self._stretches)

    def __getitem__(self, step: int) -> Crops:
        number, within = 0, step
        while within >= self._stretches[number].steps:
            within -= self._stretches[number].steps
            number += 1
        stretch = self._stretches[number]
        share = stretch.n_samples // self._world
        first = within * stretch.n_samples + self._rank * share
        return Crops.stack([self._item(number, place) for place in range(first, first + share)])

    def _item(self, number: int, place: int) -> Crops:
        items = self._stretches[number].items
        epoch, at = divmod(place, len(items))
        order = np.random.default_rng([self._seed, number, epoch]).permutation(len(items))
        return items.of_epoch(epoch, int(order[at]))
