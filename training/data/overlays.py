"""One scene laid over another: new scenes from those that are kept.

Fields add, and the covariances of sounds that have nothing in common add with them; of two pictures
that move in different places each cell shows the one that moves more. The second scene is turned as
a whole first, so there are as many new scenes as pairs and turns. It may come with its sound
(further sources), without (further silent movers, as active as what sounds), or as sound alone
(further sources off screen).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from model.features import MAPS, WW, rotated

_LARGER = [MAPS.index(name) for name in ("change", "peak", "raw change", "usual change")]
_SIGNED = MAPS.index("brightening")
_STATIC = [MAPS.index(name) for name in ("brightness", "contrast")]
_RAW = MAPS.index("raw change")


class Overlay(StrEnum):
    """What the second scene brings."""

    NOTHING = "nothing"
    ALL = "all"
    PICTURE = "picture"
    SOUND = "sound"


# How often, where scenes are laid over others at all.
_KINDS = {Overlay.ALL: 0.35, Overlay.PICTURE: 0.45, Overlay.SOUND: 0.2}


@dataclass(frozen=True)
class Laying:
    """How a scene is laid over another.

    Attributes
    ----------
    turn : azimuth bins by which it moves to the right first.
    level_db : of its sound against the first's.
    """

    overlay: Overlay
    turn: int = 0
    level_db: float = 0.0


def draw_laying(rng: np.random.Generator, share: float, n_azimuths: int) -> Laying:
    """A laying at random; of `share` of scenes, 0 to 1, something is laid over them."""
    some, kind = rng.random(2)
    turn, level_db = int(rng.integers(n_azimuths)), float(rng.uniform(-10, 3))
    if some >= share:
        return Laying(Overlay.NOTHING)
    edges = np.cumsum(list(_KINDS.values()))
    return Laying(list(_KINDS)[int(np.searchsorted(edges, kind))], turn, level_db)


def laid_over(
    below: tuple[Tensor, Tensor], above: tuple[Tensor, Tensor], laying: Laying
) -> tuple[Tensor, Tensor]:
    """Maps [shape=(T, C, E, A)] and covariances [shape=(T, F, 10)] of both together."""
    (maps, cov), (other_maps, other_cov) = below, above
    n_azimuths = maps.shape[-1]
    if laying.overlay in (Overlay.ALL, Overlay.PICTURE):
        maps = _both_pictures(maps, other_maps.roll(laying.turn, -1))
    if laying.overlay in (Overlay.ALL, Overlay.SOUND):
        # Azimuth falls from left to right.
        turned = rotated(other_cov, -laying.turn * math.tau / n_azimuths)
        level = cov[..., WW].mean() / (other_cov[..., WW].mean() + 1e-20)
        cov = cov + turned * level * 10 ** (laying.level_db / 10)
    return maps, cov


def _both_pictures(maps: Tensor, other: Tensor) -> Tensor:
    both = maps.clone()
    both[:, _LARGER] = torch.maximum(maps[:, _LARGER], other[:, _LARGER])
    own, others = maps[:, _SIGNED], other[:, _SIGNED]
    both[:, _SIGNED] = torch.where(others.abs() > own.abs(), others, own)
    # A body's looks come with it.
    covered = other[:, _RAW].mean(0) > maps[:, _RAW].mean(0)
    both[:, _STATIC] = torch.where(covered, other[:, _STATIC], maps[:, _STATIC])
    return both
