"""Batches of kept windows: what is seen and heard stays together, however a scene is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.evidence import N_YAWS
from model.features import MAPS, N_BANDS, Motion
from model.scoring import Window
from tests.training.test_overlays import T, scene
from training.data.batches import Batch, WindowBatches
from training.data.windows import save_window

N, BURST = 8, 30.0
COLUMNS = [3 + 4 * index for index in range(N)]  # none is another's mirror image
FRAMES = [3 + index % 6 for index in range(N)]  # when it flares up


@pytest.fixture(scope="module")
def beacons(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Windows of something in one place that flares up once, seen and heard; the one numbered n is
    n + 1 times as bright as the first.
    """
    paths = []
    for index, (column, frame) in enumerate(zip(COLUMNS, FRAMES, strict=True)):
        maps, covariance, _ = scene(column, seed=index)
        flare = torch.ones(T)
        flare[frame] = BURST
        nothing = torch.zeros(T)
        motion = Motion(
            torch.zeros(T, N_YAWS), (index + 1) * flare[:, None, None, None] * maps,
            torch.linspace(0, 1, T + 1, dtype=torch.float64), nothing.bool(), nothing,
        )  # fmt: skip
        paths.append(tmp_path_factory.mktemp("beacon") / f"{index}.safetensors")
        save_window(paths[-1], Window(0.0, 1.0, flare[:, None, None] * covariance, motion))
    return paths


def changes(batch: Batch) -> Tensor:
    """How much it changes in each place and frame, [shape=(B, A, T)]."""
    return batch.maps[:, :, MAPS.index("change")].amax(2).transpose(1, 2)


def shown(batch: Batch) -> list[tuple[int, int, int]]:
    """Number, column and frame of the brightest flare of each scene."""
    found = []
    for change in changes(batch):
        column, frame = divmod(int(change.argmax()), change.shape[1])
        found.append((round(float(change.max()) / BURST) - 1, column, frame))
    return found


def heard(batch: Batch) -> list[tuple[int, int]]:
    """Column and frame of the loudest."""
    doa, omni = batch.sound[:, :, -3].sum(-1), batch.sound[:, 0, :N_BANDS].sum(1)
    return list(zip(doa.argmax(1).tolist(), omni.argmax(1).tolist(), strict=True))


def test_a_scene_is_heard_where_and_when_it_is_seen_mirrored_too(beacons: list[Path]) -> None:
    batches = WindowBatches(beacons, batch=N, shortest=T - 1, longest=T - 1)
    mirrored, starts = set(), set()
    for step in range(3):
        batch = batches[step]
        seen = shown(batch)
        assert sorted(number for number, _, _ in seen) == list(range(N))  # each window once
        for (number, column, frame), (loud, when) in zip(seen, heard(batch), strict=True):
            assert column in (COLUMNS[number], N_YAWS - 1 - COLUMNS[number])
            assert abs(loud - column) <= 1
            assert when == frame
            mirrored.add(column != COLUMNS[number])
            starts.add(FRAMES[number] - frame)

    assert mirrored == {False, True}
    assert starts == {0, 1}  # a window's stretches, from the first to the last


def test_what_is_laid_over_a_scene_is_another_one(beacons: list[Path]) -> None:
    plain, laid = (
        WindowBatches(beacons, batch=N, shortest=T, longest=T, overlaid=share)[0]
        for share in (0.0, 1.0)
    )
    flares = []
    for before, after in zip(changes(plain), changes(laid), strict=True):
        added = (after.amax(1) - before.amax(1)).clamp(min=0)
        assert (after >= before - 1e-3).all()
        own, other = (round(float(peak) / BURST) - 1 for peak in (before.max(), added.max()))
        if other >= 0:
            flares.append(own != other)

    assert sum(flares) > N / 4
    silent = (plain.sound == laid.sound).flatten(1).all(1)
    unseen = (plain.maps == laid.maps).flatten(1).all(1)
    assert not (silent & unseen).any()
