"""Two ranks with half of the samples each are as one rank with all: losses and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.viewpoints import SoundInput
from tests.training.ranks import N_RANKS, on_two_ranks
from training.data.clips import Crops
from training.objectives.avc import Correspondence, PooledCorrespondence
from training.objectives.avsa import Candidates, SpatialAlignment
from training.objectives.avts import TemporalSynchrony
from training.objectives.gather import gathered
from training.objectives.memory import KeyMemory, RememberedAlignment
from training.objectives.pretext import Pretext
from training.objectives.samples import Objective

N, K = 4, 2


def objectives() -> dict[str, Objective]:
    remembered = RememberedAlignment(KeyMemory(20, 6), KeyMemory(20, 6))
    for index, memory in enumerate((remembered.video, remembered.audio)):
        rng = torch.Generator().manual_seed(index)
        memory.push(
            torch.randn(9, 6, generator=rng), torch.randn(9, 3, generator=rng), torch.arange(9) - 5
        )
    return {
        "avc": Correspondence(),
        "easy": PooledCorrespondence(),
        "avts": TemporalSynchrony(),
        "all": SpatialAlignment(Candidates.ALL),
        "paired": SpatialAlignment(Candidates.PAIRED),
        "own": SpatialAlignment(Candidates.OWN),
        "remembered": remembered,
    }


def crops() -> Crops:
    rng = torch.Generator().manual_seed(5)
    directions = torch.randn(N, K, 3, generator=rng).double()
    return Crops(
        torch.rand(N, K, 3, 4, 16, 16, generator=rng).double(),
        torch.randn(N, K, 8, 12, 16, generator=rng).double(),
        directions / directions.norm(dim=-1, keepdim=True),
        torch.zeros(N, K, dtype=torch.int64),
        torch.arange(K).expand(N, K),
        torch.arange(N),
        torch.zeros(N).double(),
    )


def part(of: Crops, rank: int) -> Crops:
    share = slice(rank * N // N_RANKS, (rank + 1) * N // N_RANKS)
    return Crops(**{name: values[share] for name, values in vars(of).items()})


def step(name: str, batch: Crops, *, parallel: bool) -> dict[str, Tensor]:
    """Loss, figures, gradients of the network and the memories after one step."""
    torch.manual_seed(0)
    config = AvsaConfig(widths=(4, 4, 8, 8), embedding=6, sound=SoundInput(n_bands=16))
    pretext = Pretext(AvsaNetwork(config), objectives()[name]).double()
    pretext.network.eval()  # batch statistics are each rank's own, and dropout is random
    model = DistributedDataParallel(pretext, find_unused_parameters=True) if parallel else pretext
    loss, figures = model(batch)
    loss.backward()
    gradients = {
        f"gradient of {parameter_name}": parameter.grad
        for parameter_name, parameter in pretext.network.named_parameters()
        if parameter.grad is not None
    }
    memories = dict(pretext.objective.named_buffers())
    return {"loss": loss.detach(), **figures, **gradients, **memories}


def work(rank: int, folder: str) -> None:
    """One of the ranks: all objectives, saved; then gradients that others need as they were, and
    the refusal of unequal shares.
    """
    results = {name: step(name, part(crops(), rank), parallel=True) for name in objectives()}
    torch.save(results, f"{folder}/{rank}.pt")
    values = (torch.arange(6.0).view(2, 3) + 10 * rank).requires_grad_()
    added = torch.zeros(N_RANKS * 2, 3, requires_grad=True)
    before = added.exp()  # its gradient comes after that of what is gathered, and is the same one
    together = gathered(values)
    torch.autograd.backward(together + before, torch.full_like(together, 1.0 + rank))
    assert together.equal(torch.cat([values - 10 * rank + 10 * other for other in range(N_RANKS)]))
    assert values.grad is not None
    assert values.grad.equal(torch.full((2, 3), 3.0))  # of what both ranks made of it
    assert added.grad is not None
    assert added.grad.equal(torch.full_like(added, 1.0 + rank))
    with pytest.raises(ValueError, match=r"ranks have \[1, 2\] samples"):
        gathered(torch.zeros(1 + rank, 3))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    on_two_ranks(work, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(N_RANKS)]


@pytest.mark.parametrize("name", list(objectives()))
def test_two_ranks_equal_one(name: str, two_ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    alone = step(name, crops(), parallel=False)
    first, second = (results[name] for results in two_ranks)

    assert any(entry.startswith("gradient") for entry in alone)
    for entry, expected in alone.items():
        if entry == "loss" or entry.endswith("accuracy"):
            together = (first[entry] + second[entry]) / 2  # of each rank's own queries
        else:
            together = first[entry]
            torch.testing.assert_close(together, second[entry])
        torch.testing.assert_close(together, expected, atol=1e-9, rtol=1e-7)


def test_alone_nothing_is_gathered() -> None:
    values = torch.rand(3, 2)

    assert gathered(values) is values
