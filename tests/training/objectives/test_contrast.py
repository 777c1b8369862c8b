"""What a contrast calls right, what it takes to learn from one, and what is drawn for others."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import pytest
import torch
from torch import Tensor

from model.networks.avsa import AvsaNetwork
from tests.training.objectives.test_objectives import CONFIG, D, K, draw_samples
from training.objectives.contrast import TEMPERATURE, Contrast, contrast
from training.objectives.masked import MaskedChoice
from training.objectives.puzzle import Puzzle
from training.objectives.samples import Outcome


def test_the_temperature_is_the_published_one() -> None:
    """Of two candidates at right angles the right one is e^(1 / 0.07) times as likely."""
    either = torch.eye(2).double()[:, None]

    loss = contrast(either, either).loss(torch.ones(2, 1, 2, 1, dtype=torch.bool))

    assert TEMPERATURE == 0.07
    assert float(loss) == pytest.approx(math.log1p(math.exp(-1 / 0.07)), rel=1e-3)


def test_a_network_that_gives_all_the_same_is_never_right() -> None:
    """Above all others, not as high: else a collapse would look like a success."""
    alike = Contrast(torch.full((3, 2, 3, 2), 5.0))

    found = alike.accuracies(torch.ones(3, 2, 3, 2, dtype=torch.bool))

    assert found == {"instance accuracy": 0, "place accuracy": 0}


def test_a_memory_alone_is_enough_to_choose_from() -> None:
    one = torch.zeros(1, 1, 1, 1)
    everything = torch.ones_like(one, dtype=torch.bool)

    loss = Contrast(one, further=torch.zeros(1, 1, 3)).loss(everything)

    assert float(loss) == pytest.approx(math.log(4))
    with pytest.raises(ValueError, match="no candidate but the right one"):
        Contrast(one).loss(everything)


@pytest.mark.parametrize("n_masked", [2, 3])
def test_so_many_crops_are_masked_each_as_often(
    n_masked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Tensor] = []

    def compared(
        _choice: MaskedChoice, _network: AvsaNetwork, video: Tensor, _audio: Tensor, masked: Tensor
    ) -> Outcome:
        drawn.append(masked)
        return video.sum(), {}

    monkeypatch.setattr(MaskedChoice, "compared", compared)
    torch.manual_seed(0)
    n = 4000

    MaskedChoice(D, n_masked)(AvsaNetwork(CONFIG), draw_samples(0, n=n))

    (masked,) = drawn
    assert masked.shape == (n, n_masked)
    assert all(len(set(row)) == n_masked for row in masked.tolist())
    for slot in masked.T:
        shares = torch.bincount(slot, minlength=K) / n
        assert (shares - 1 / K).abs().max() < 0.04


def test_sounds_are_shuffled_each_sample_by_itself_all_orders_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Tensor] = []

    def compared(_puzzle: Puzzle, video: Tensor, _audio: Tensor, shuffle: Tensor) -> Outcome:
        drawn.append(shuffle)
        return video.sum(), {}

    monkeypatch.setattr(Puzzle, "compared", compared)
    torch.manual_seed(0)
    n = 6000

    Puzzle(3, D)(AvsaNetwork(CONFIG), draw_samples(0, n=n, k=3))

    orders = Counter(map(tuple, drawn[0].tolist()))
    assert set(orders) == set(permutations(range(3)))
    assert max(orders.values()) - min(orders.values()) < 0.03 * n
