"""Candidates of all ranks, so that negatives grow with the machines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def gathered(values: Tensor) -> Tensor:
    """The values [shape=(B, ...)] of all ranks in the order of ranks, [shape=(R B, ...)].

    Gradients flow back to the rank that a value came from, summed over the ranks that used it. If
    every rank's loss is a mean over its own B samples and gradients of parameters are averaged over
    ranks (as DistributedDataParallel does), all is as on one rank with R B samples. Without
    `torch.distributed`, the values themselves.

    Raises
    ------
    ValueError : ranks have different numbers of samples.
    """
    if n_ranks() == 1:
        return values
    counts = [torch.zeros(1, dtype=torch.int64, device=values.device) for _ in range(n_ranks())]
    distributed.all_gather(counts, torch.tensor([len(values)], device=values.device))
    if len({int(count) for count in counts}) > 1:
        raise ValueError(
            f"ranks have {[int(count) for count in counts]} samples: give all the same number"
        )
    together: Tensor = _Gather.apply(values.contiguous())  # type: ignore[no-untyped-call]
    return together


def n_ranks() -> int:
    """Ranks that train together; 1 without `torch.distributed`."""
    return distributed.get_world_size() if _is_distributed() else 1


def first_of_rank(count: int) -> int:
    """Place of this rank's first sample among those gathered, if every rank has `count`."""
    return distributed.get_rank() * count if _is_distributed() else 0


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.count = len(values)
        parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, values)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        first = first_of_rank(ctx.count)
        return total[first : first + ctx.count]
