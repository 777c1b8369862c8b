"""Which crops make a step: every recording once before any twice, and equal parts for ranks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from model.errors import OptionError
from training.data.clips import Crops
from training.data.crop_batches import CropBatches, Stretch, check_parts


class Numbered:
    """Items that say their epoch and number."""

    def __len__(self) -> int:
        return 6

    def of_epoch(self, epoch: int, index: int) -> Crops:
        nothing = torch.zeros(1)
        told = torch.tensor(index), torch.tensor(float(epoch))
        return Crops(nothing, nothing, nothing, nothing, nothing, *told)


def drawn(batches: CropBatches, steps: range) -> Iterator[tuple[int, int]]:
    """Epoch and number of each crop of these steps."""
    for step in steps:
        batch = batches[step]
        yield from zip(
            map(int, batch.rotations_rad.tolist()), batch.recordings.tolist(), strict=True
        )


def test_each_stretch_takes_every_recording_once_an_epoch_in_another_order() -> None:
    items: Any = Numbered()
    batches = CropBatches([Stretch(9, 4, items), Stretch(18, 2, items)])

    orders = []
    for steps in (range(9), range(9, 27)):
        taken = list(drawn(batches, steps))
        assert [epoch for epoch, _ in taken] == [place // 6 for place in range(36)]
        numbers = [number for _, number in taken]
        orders += [tuple(numbers[first : first + 6]) for first in range(0, 36, 6)]

    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len(set(orders)) > 9  # of 12; each is one of 720


@pytest.mark.parametrize("world", range(1, 10))
@pytest.mark.parametrize("sizes", [[4], [3], [112, 28], [5, 7], [12, 18]])
def test_who_cannot_share_a_step_is_told_who_could(sizes: list[int], world: int) -> None:
    items: Any = Numbered()
    stretches = [Stretch(1, size, items) for size in sizes]
    if all(size % world == 0 for size in sizes):
        check_parts(stretches, world)
        return

    with pytest.raises(OptionError) as refused:
        check_parts(stretches, world)

    ranks, larger = str(refused.value).split(": take ")[1].split(", or a --batch ")
    counts = [n for n in range(1, 113) if all(size % n == 0 for size in sizes)]
    assert [int(n) for n in re.findall(r"\d+", ranks.replace("one rank", "1"))] == counts
    factor = next(f for f in range(1, 100) if all(f * size % world == 0 for size in sizes))
    assert larger == f"{factor} times as large."
