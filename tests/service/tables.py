"""Every kind of job table, on a clock that tests turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.jobs import JobTable, SqliteJobTable

KINDS = ("sqlite",)


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def new_table(kind: str, folder: Path, clock: Clock) -> Iterator[JobTable]:
    """An empty table."""
    yield SqliteJobTable(folder / "jobs.sqlite", clock=clock)
