"""All objectives by name, as phases of a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from model.networks.avsa import AvsaConfig
from training.objectives.avc import Correspondence, PooledCorrespondence
from training.objectives.avsa import Candidates, SpatialAlignment
from training.objectives.avts import TemporalSynchrony
from training.objectives.curriculum import Phase, published_curriculum, single_phase
from training.objectives.masked import MaskedChoice
from training.objectives.memory import KeyMemory, RememberedAlignment
from training.objectives.puzzle import Puzzle
from training.objectives.regression import RotationRegression
from training.objectives.samples import Objective
from training.objectives.together import Together

# Of keys. They are made by the network as it was: with older ones, fast training finds it easier to
# tell new keys from old than right from wrong, and collapses.
_MEMORY_STEPS = 2


class Task(StrEnum):
    """What is learned.

    AVC : which sound belongs to which picture; EASY : the same of all crops of a sample together,
    with translators. AVTS : which moment; AVTS_TRANSLATED : with translators. AVSA : which
    viewpoint, among all crops of the batch; AVSA_PAIRED : among the released code's candidates;
    AVSA_HARD : among the sample's own crops; AVSA_AVTS : which viewpoint and moment; AVSA_MEMORY :
    with earlier keys. PUZZLE, MASKED and REGRESSION : the rebuttal's alternatives, the first two
    also with AVC beside them.
    """

    AVC = "avc"
    EASY = "easy"
    AVTS = "avts"
    AVTS_TRANSLATED = "avts-translated"
    AVSA = "avsa"
    AVSA_PAIRED = "avsa-paired"
    AVSA_HARD = "avsa-hard"
    AVSA_AVTS = "avsa-avts"
    AVSA_MEMORY = "avsa-memory"
    PUZZLE = "puzzle"
    PUZZLE_AVC = "puzzle-avc"
    MASKED = "masked"
    MASKED_AVC = "masked-avc"
    REGRESSION = "regression"

    @property
    def translated(self) -> bool:
        """Whether the translators learn anything, so that alignment is scored through them.

        Masked choice trains them on sums of both modalities' tokens: they predict neither from the
        other alone.
        """
        return self in _TRANSLATED

    @property
    def follows_avc(self) -> bool:
        """Whether a first phase of AVC comes before, as published: not where it is AVC itself."""
        return self not in (Task.AVC, Task.EASY)

    @property
    def rotated(self) -> bool:
        """Whether fields are rotated before they are heard."""
        return self is Task.REGRESSION


_TRANSLATED = {
    Task.EASY, Task.AVTS_TRANSLATED, Task.AVSA, Task.AVSA_PAIRED, Task.AVSA_HARD, Task.AVSA_AVTS,
    Task.AVSA_MEMORY,
}  # fmt: skip
_AMONG_OWN = {Task.AVSA_HARD, Task.PUZZLE, Task.PUZZLE_AVC, Task.MASKED, Task.MASKED_AVC}


@dataclass(frozen=True)
class Layout:
    """What a sample's crops are."""

    n_viewpoints: int
    n_moments: int


def layout(task: Task, viewpoints: int) -> Layout:
    """The crops of a sample, K in all unless the task takes one.

    Raises
    ------
    ValueError : K is odd, and two moments are needed; or 1, and there is no choice among crops.
    """
    if viewpoints < 2 and task in _AMONG_OWN:
        raise ValueError(f"{task} chooses among the crops of a sample: take 2 --viewpoints or more")
    if task is Task.AVC:
        return Layout(1, 1)
    if task in (Task.AVTS, Task.AVTS_TRANSLATED):
        return Layout(1, viewpoints)
    if task is Task.AVSA_AVTS:
        if viewpoints % 2:
            raise ValueError(f"{viewpoints} crops are no viewpoints at two moments: take an even K")
        return Layout(viewpoints // 2, 2)
    return Layout(viewpoints, 1)


def phases(
    task: Task, network: AvsaConfig, *, n_crops: int = 112, curriculum: bool = False
) -> tuple[Phase, ...]:
    """A training of a task: all at once, or as published after AVC (`curriculum`).

    n_crops : of a step.
    """
    crops, make = layout(task, network.viewpoints), maker(task, network, n_crops)
    sizes = {"n_viewpoints": crops.n_viewpoints, "n_moments": crops.n_moments, "n_crops": n_crops}
    if curriculum:
        return published_curriculum(make, **sizes)
    return (single_phase(make, **sizes),)


def maker(task: Task, network: AvsaConfig, n_crops: int) -> Callable[[], Objective]:
    """What makes a fresh objective."""
    width, k = network.widths[-1], network.viewpoints
    size = _MEMORY_STEPS * n_crops
    makers: dict[Task, Callable[[], Objective]] = {
        Task.AVC: Correspondence,
        Task.EASY: PooledCorrespondence,
        Task.AVTS: TemporalSynchrony,
        Task.AVTS_TRANSLATED: lambda: TemporalSynchrony(translated=True),
        Task.AVSA: SpatialAlignment,
        Task.AVSA_PAIRED: lambda: SpatialAlignment(Candidates.PAIRED),
        Task.AVSA_HARD: lambda: SpatialAlignment(Candidates.OWN),
        Task.AVSA_AVTS: SpatialAlignment,
        Task.AVSA_MEMORY: lambda: RememberedAlignment(
            KeyMemory(size, network.embedding), KeyMemory(size, network.embedding)
        ),
        Task.PUZZLE: lambda: Puzzle(k, width),
        Task.PUZZLE_AVC: lambda: _with_avc("puzzle", Puzzle(k, width)),
        Task.MASKED: lambda: MaskedChoice(width, max(2, k // 2)),
        Task.MASKED_AVC: lambda: _with_avc("masked", MaskedChoice(width, max(2, k // 2))),
        Task.REGRESSION: lambda: RotationRegression(width),
    }
    return makers[task]


def _with_avc(name: str, objective: Objective) -> Objective:
    return Together([(name, 1.0, objective), ("avc", 1.0, Correspondence())])
