"""Several processes, one training run: torchrun's environment in, a `Ranks` out."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model.options import check_device


@dataclass(frozen=True)
class Ranks:
    """One process among those of a run."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one writes logs and checkpoints."""
        return self.rank == 0

    def wrap(self, module: nn.Module, *, some_unused: bool = False) -> nn.Module:
        """A module whose gradients are averaged over the ranks.

        some_unused : whether there are parameters that a step may not use.
        """
        if self.world == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=some_unused)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Means of numbers over the ranks."""
        if self.world == 1:
            return values
        tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return dict(zip(values, (tensor / self.world).tolist(), strict=True))

    def agree(self, number: int) -> bool:
        """Whether it is the same on all ranks; all are told so."""
        mean = self.mean({"number": float(number)})["number"]
        return not self.any(mean != number)

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank. Processors ask each other: no GPU is waited for."""
        if self.world == 1:
            return flag
        told = torch.tensor(int(flag))
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told)


@contextmanager
def ranks(device: str) -> Iterator[Ranks]:
    """Join the run that torchrun started, or be alone.

    device : `cpu` or `cuda`; with several ranks each takes the GPU of its local rank.

    Raises
    ------
    OptionError : there is no such device.
    """
    check_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(0, 1, torch.device(device))
        return
    own = torch.device(device)
    if own.type == "cuda":
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own)
    dist.init_process_group("cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world, own)
    except BaseException:
        dist.destroy_process_group()  # the others are not waited for: they may wait for us
        raise
    leave()


def leave() -> None:
    """End this rank's part in a run, when all ranks have ended theirs.

    A rank that tears its connections down while another still uses them may abort, and wrapped
    networks hold threads of their own: both go first.
    """
    dist.barrier()
    gc.collect()
    dist.destroy_process_group()
