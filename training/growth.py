"""A scorer of larger sizes that begins by giving the answers of a smaller one.

What is new is drawn at random on its way in and is 0 on its way out, so that nothing changes until
training gives it a part (Chen, Goodfellow and Shlens, Net2Net, ICLR 2016).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from model.errors import OptionError
from model.networks.equivariant import EquivariantConfig, EquivariantScorer

_GROWING = ("hidden", "size", "heads", "coherence")


def grown(network: EquivariantScorer, config: EquivariantConfig) -> EquivariantScorer:
    """The network at the sizes of `config`, with its weights where both have them.

    Raises
    ------
    OptionError : a size is smaller, or differs in more than `hidden`, `size` and `heads` at the
        same size of a head, and `coherence`.
    """
    before = network.config
    if before == config:
        return network
    same = replace(before, **{name: getattr(config, name) for name in _GROWING})
    smaller = [name for name in _GROWING if getattr(config, name) < getattr(before, name)]
    if same != config or smaller or config.size * before.heads != before.size * config.heads:
        raise OptionError(f"A scorer of {before} cannot be grown to {config}.")
    larger = EquivariantScorer(config)
    own = dict(network.named_parameters())
    with torch.no_grad():
        for name, weight in larger.named_parameters():
            weight.copy_(_within(own[name], weight, _columns(name, before, config)))
    return larger


def _columns(name: str, before: EquivariantConfig, config: EquivariantConfig) -> Tensor | None:
    """Where the comparisons' first layer finds what it knew: groups of all heads, lag by lag."""
    if name != "compare.0.weight":
        return None
    heads = torch.arange(before.heads)
    groups = torch.arange(before.comparisons)
    return (groups[:, None] * config.heads + heads).flatten()


def _within(own: Tensor, drawn: Tensor, columns: Tensor | None = None) -> Tensor:
    """Own weights within larger ones as they are drawn; 0 from what is new to what is not."""
    new = drawn.clone()
    rows = slice(len(own))
    if own.ndim > 1:
        new[rows] = 0
        new[rows, slice(own.shape[1]) if columns is None else columns] = own
    else:
        new[rows] = own
    return new
