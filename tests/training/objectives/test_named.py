"""What a name stands for, and the phases of a training: their sizes, and the steps they take."""

from __future__ import annotations

import pytest

from tests.training.objectives.test_objectives import CONFIG
from training.objectives.avc import Correspondence
from training.objectives.avsa import Candidates, SpatialAlignment
from training.objectives.avts import TemporalSynchrony
from training.objectives.curriculum import Phase, published_curriculum, single_phase, steps_for
from training.objectives.memory import RememberedAlignment
from training.objectives.named import Task, maker


@pytest.mark.parametrize(
    ("task", "candidates"),
    [
        (Task.AVSA, Candidates.ALL), (Task.AVSA_PAIRED, Candidates.PAIRED),
        (Task.AVSA_HARD, Candidates.OWN), (Task.AVSA_AVTS, Candidates.ALL),
    ],
)  # fmt: skip
def test_objectives_of_a_name_have_its_candidates(task: Task, candidates: Candidates) -> None:
    objective = maker(task, CONFIG, 8)()

    assert isinstance(objective, SpatialAlignment)
    assert objective.candidates is candidates


@pytest.mark.parametrize("task", [Task.AVTS, Task.AVTS_TRANSLATED])
def test_moments_are_compared_through_translators_where_the_name_says_so(task: Task) -> None:
    objective = maker(task, CONFIG, 8)()

    assert isinstance(objective, TemporalSynchrony)
    assert objective.translated is task.translated is (task is Task.AVTS_TRANSLATED)


def test_a_memory_is_of_two_steps() -> None:
    """Keys of a network as it was long ago are told from new ones, not right from wrong."""
    objective = maker(Task.AVSA_MEMORY, CONFIG, 8)()

    assert isinstance(objective, RememberedAlignment)
    for memory in (objective.video, objective.audio):
        assert memory.keys.shape == (2 * 8, CONFIG.embedding)


def test_published_phases_hold_the_same_crops() -> None:
    phases = published_curriculum()

    assert [(p.n_samples, p.n_viewpoints * p.n_moments) for p in phases] == [(112, 1), (28, 4)]
    assert sum(phase.share for phase in phases) == 1
    assert isinstance(phases[0].objective(), Correspondence)
    eight: Phase = single_phase(lambda: SpatialAlignment(Candidates.OWN), n_viewpoints=8)
    assert (eight.n_samples, eight.share) == (14, 1.0)
    few = single_phase(SpatialAlignment, n_viewpoints=4, n_crops=4)
    assert few.n_samples == 2  # of one alone there is none to tell apart


@pytest.mark.parametrize("samples", [1, 1000, 1001, 45_060])
def test_the_least_steps_take_all_samples(samples: int) -> None:
    """Each phase its share, in steps of its size."""
    first, second = phases = published_curriculum()

    steps = steps_for(phases, samples)

    needed = samples * (first.share / first.n_samples + second.share / second.n_samples)
    assert needed <= steps < needed + 1
