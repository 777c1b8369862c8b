"""The curriculum: easy first. Phases are data; the training entry goes through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.objectives.avc import Correspondence
from training.objectives.avsa import SpatialAlignment
from training.objectives.samples import Objective


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Attributes
    ----------
    objective : makes a fresh objective.
    share : of the samples of the whole training.
    n_viewpoints, n_moments : crops of a sample are their product.
    n_samples : of a step; the published phases hold the same 112 crops.

    A phase after the first begins with the encoders of the one before; translators and heads begin
    afresh (`AvsaNetwork.take_encoders`).
    """

    objective: Callable[[], Objective]
    share: float
    n_viewpoints: int
    n_moments: int
    n_samples: int


def published_curriculum(
    then: Callable[[], Objective] = SpatialAlignment,
    *,
    n_viewpoints: int = 4,
    n_moments: int = 1,
    n_crops: int = 112,
) -> tuple[Phase, ...]:
    """AVC on one crop of each of 112 recordings, then as long on K crops of 112 / K of them.

    Published: 50 epochs each, for AVSA and, with moments in the place of viewpoints, for AVTS.
    """
    return (
        Phase(Correspondence, 0.5, 1, 1, n_crops),
        single_phase(
            then, n_viewpoints=n_viewpoints, n_moments=n_moments, n_crops=n_crops, share=0.5
        ),
    )


def single_phase(
    objective: Callable[[], Objective],
    *,
    n_viewpoints: int = 4,
    n_moments: int = 1,
    n_crops: int = 112,
    share: float = 1.0,
) -> Phase:
    """Training without a curriculum (100 epochs as published), of as many crops a step."""
    together = n_viewpoints * n_moments
    return Phase(objective, share, n_viewpoints, n_moments, max(2, n_crops // together))


def steps_for(phases: Sequence[Phase], samples: int) -> int:
    """The least steps in which a training takes so many samples."""
    return math.ceil(samples * sum(phase.share / phase.n_samples for phase in phases))


def steps_of(phases: Sequence[Phase], steps: int) -> list[int]:
    """How a training's steps divide over its phases; phases of larger steps need fewer."""
    weights = [phase.share / phase.n_samples for phase in phases]
    ends = [round(steps * sum(weights[: i + 1]) / sum(weights)) for i in range(len(weights))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
