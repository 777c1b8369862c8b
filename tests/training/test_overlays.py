"""Scenes laid over others: what belongs together stays together, fields add as sounds do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from model import features
from model.ambisonics import encode
from model.evidence import acoustic_maps
from model.features import MAPS, WW
from training.data.overlays import Laying, Overlay, draw_laying, laid_over

T, A = 12, 72


def scene(column: int, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """A spot that moves in a column of bins and sounds from there: maps, covariance, the field."""
    azimuth = float(features.azimuths(A)[column])
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal(features.SAMPLERATE)
    field = encode(sound, azimuth, 0.0, 1) + 0.01 * rng.standard_normal((4, len(sound)))
    edges = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    maps = 0.01 * torch.rand(T, len(MAPS), features.N_ELEVATIONS, A)
    maps[:, :, 6, column] += 1.0
    return maps, features.covariance(torch.from_numpy(field), edges), field


def loudest(cov: Tensor) -> int:
    return int(acoustic_maps(cov)["doa"].sum(0).argmax())


@pytest.mark.parametrize("turn", [0, 5, 36, 70])
def test_what_is_laid_over_turns_as_a_whole(turn: int) -> None:
    """Beside a scene that is faint the second is all there is."""
    maps, cov, _ = scene(10, 0)
    faint, other = (0.001 * maps, cov), scene(50, 1)[:2]

    both, heard = laid_over(faint, other, Laying(Overlay.ALL, turn, 60.0))

    where = (50 + turn) % A
    assert both[:, MAPS.index("change")].sum((0, 1)).argmax() == where
    assert abs((loudest(heard) - where + A // 2) % A - A // 2) <= 1
    assert both[:, MAPS.index("brightness"), 6].mean(0).argmax() == where


def test_fields_add_as_their_covariances_do() -> None:
    maps, cov, field = scene(10, 0)
    others, other_cov, other_field = scene(50, 1)
    level_db = 10 * math.log10(float(other_cov[..., WW].mean() / cov[..., WW].mean()))
    edges = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    together = features.covariance(torch.from_numpy(field + other_field), edges)

    _, heard = laid_over((maps, cov), (others, other_cov), Laying(Overlay.ALL, 0, level_db))

    # Two noises correlate a little over a second.
    heard, together = heard.sum((0, 1)), together.sum((0, 1))
    torch.testing.assert_close(heard, together, rtol=0.03, atol=0.03 * float(together.max()))


def test_of_two_pictures_each_cell_shows_the_one_that_moves_more() -> None:
    """Brightening with its sign, and a body's looks with its movement."""
    rng = torch.Generator().manual_seed(0)
    shape = (3, len(MAPS), 2, A)
    below, above = (torch.randn(shape, generator=rng) for _ in range(2))
    cov = torch.zeros(3, features.N_BANDS, 10)

    both, _ = laid_over((below, cov), (above, cov), Laying(Overlay.PICTURE))

    raw = MAPS.index("raw change")
    for index, name in enumerate(MAPS):
        for time, row, column in ((t, e, a) for t in range(3) for e in range(2) for a in range(A)):
            own, other = (float(maps[time, index, row, column]) for maps in (below, above))
            moves = [float(maps[:, raw, row, column].mean()) for maps in (below, above)]
            expected = max(own, other)
            if name == "brightening":
                expected = max(own, other, key=abs)
            elif name in ("brightness", "contrast"):
                expected = other if moves[1] > moves[0] else own
            assert float(both[time, index, row, column]) == expected


@pytest.mark.parametrize("level_db", [-9.0, 3.0])
def test_a_sound_is_laid_over_at_its_level(level_db: float) -> None:
    below, above = scene(10, 0)[:2], scene(50, 1)[:2]

    _, heard = laid_over(below, above, Laying(Overlay.SOUND, 0, level_db))

    added = (heard - below[1])[..., WW].mean() / below[1][..., WW].mean()
    assert 10 * math.log10(float(added)) == pytest.approx(level_db, abs=1e-3)


def test_picture_or_sound_alone_leaves_the_other_as_it_was() -> None:
    below, above = scene(10, 0)[:2], scene(50, 1)[:2]

    silent = laid_over(below, above, Laying(Overlay.PICTURE, 3))
    unseen = laid_over(below, above, Laying(Overlay.SOUND, 3))
    nothing = laid_over(below, above, Laying(Overlay.NOTHING))

    assert silent[1] is below[1]
    assert (silent[0] != below[0]).any()
    assert unseen[0] is below[0]
    assert (unseen[1] != below[1]).any()
    assert nothing == below


def test_layings_are_drawn_as_often_as_asked() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_laying(rng, 0.6, A) for _ in range(2000)]

    some = [laying for laying in drawn if laying.overlay is not Overlay.NOTHING]
    assert len(some) / len(drawn) == pytest.approx(0.6, abs=0.04)
    assert {laying.overlay for laying in some} == set(Overlay) - {Overlay.NOTHING}
    assert {laying.turn for laying in some} == set(range(A))
    levels_db = [laying.level_db for laying in some]
    assert -10 <= min(levels_db) < -9.8  # as a rule the fainter of both
    assert 2.8 < max(levels_db) <= 3
    assert all(draw_laying(rng, 0.0, A).overlay is Overlay.NOTHING for _ in range(50))
