"""Two ranks on this machine, from functions of a test's module."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes

from training.distributed import leave

N_RANKS = 2


def on_two_ranks(work: Callable[[int, str], None], folder: Path) -> None:
    """`work(rank, folder)` in a process for each rank, of one group.

    They are forked from one that has loaded what takes seconds to load.
    """
    multiprocessing.set_forkserver_preload(["torch._dynamo", "training.pretrain_avsa"])
    arguments = (work, str(folder))
    start_processes(_rank, arguments, N_RANKS, start_method="forkserver")  # type: ignore[no-untyped-call]


def _rank(rank: int, work: Callable[[int, str], None], folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=N_RANKS
    )
    work(rank, folder)
    leave()
