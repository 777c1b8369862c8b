"""Every kind of job table, on a clock that tests turn."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.jobs import JobTable, SqliteJobTable
from service.jobs.redis import RedisJobTable, connect
from tests.service.redis_server import RedisServer

KINDS = ("sqlite", pytest.param("redis", marks=pytest.mark.needs("redis-server")))


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def new_table(
    kind: str, folder: Path, clock: Clock, server: RedisServer | None
) -> Iterator[JobTable]:
    """An empty table; of a Redis, one with a name of its own."""
    if kind == "sqlite":
        yield SqliteJobTable(folder / "jobs.sqlite", clock=clock, steady=clock)
        return
    assert server is not None
    with connect(server.url, timeout_s=10) as client:
        yield RedisJobTable(client, prefix=f"{secrets.token_hex(4)}:", clock=clock)
