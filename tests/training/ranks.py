"""Two ranks on this machine, from functions of a test's module."""

from __future__ import annotations

import multiprocessing
import os
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


def on_two_nodes(work: Callable[[str], None], folder: Path, port: int) -> None:
    """`work(folder)` in a process for each node, told what torchrun tells the one of each."""
    multiprocessing.set_forkserver_preload(["torch._dynamo", "training.pretrain_avsa"])
    arguments = (work, str(folder), port)
    start_processes(_node, arguments, N_RANKS, start_method="forkserver")  # type: ignore[no-untyped-call]


def _node(rank: int, work: Callable[[str], None], folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "WORLD_SIZE": str(N_RANKS), "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    work(folder)


def _rank(rank: int, work: Callable[[int, str], None], folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=N_RANKS
    )
    work(rank, folder)
    leave()
