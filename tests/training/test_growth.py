"""A grown scorer begins as the one it was grown from, and can learn more."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.errors import OptionError
from model.networks.equivariant import EquivariantConfig, EquivariantScorer
from training.growth import grown
from training.objectives.rotation import rotation_loss

SMALL = EquivariantConfig(hidden=16, size=16, heads=2)
LARGE = EquivariantConfig(hidden=24, size=32, heads=4)
SIZES = [LARGE, replace(SMALL, coherence=True), replace(LARGE, coherence=True)]


@pytest.fixture
def network() -> EquivariantScorer:
    torch.manual_seed(0)
    return EquivariantScorer(SMALL)


@pytest.fixture
def heard_and_seen() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(4, 20, SMALL.n_maps, 12, 72, generator=generator)
    return maps, torch.randn(4, 72, SMALL.n_sound_features, 20, generator=generator)


@pytest.mark.parametrize("config", SIZES)
def test_nothing_changes_at_first(
    network: EquivariantScorer,
    heard_and_seen: tuple[torch.Tensor, torch.Tensor],
    config: EquivariantConfig,
) -> None:
    larger = grown(network, config)

    for before, after in zip(network(*heard_and_seen), larger(*heard_and_seen), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert larger.config == config


def test_all_that_is_new_takes_part_after_two_steps(
    network: EquivariantScorer, heard_and_seen: tuple[torch.Tensor, torch.Tensor]
) -> None:
    larger = grown(network, LARGE)
    begun = {name: weight.detach().clone() for name, weight in larger.named_parameters()}
    optimizer = torch.optim.SGD(larger.parameters(), lr=1.0)

    for _ in range(2):  # the first brings in what leads out of the new; the second, what leads in
        optimizer.zero_grad()
        rotation_loss(larger, *heard_and_seen)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    for name, size in {"picture.time.first.weight": 16, "sound.bands.weight": 16}.items():
        moved = larger.get_parameter(name)[size:] != begun[name][size:]
        assert moved.any(dim=1).float().mean() > 0.5, name


@pytest.mark.parametrize(
    "config",
    [
        EquivariantConfig(hidden=8, size=16, heads=2),
        EquivariantConfig(hidden=16, size=32, heads=2),
        EquivariantConfig(hidden=16, size=16, heads=2, widths=(4, 8, 12)),
    ],
)
def test_other_changes_of_size_are_refused(
    network: EquivariantScorer, config: EquivariantConfig
) -> None:
    with pytest.raises(OptionError, match="cannot be grown"):
        grown(network, config)
