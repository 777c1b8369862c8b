"""Connections to SQLite files go with the threads that had them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.jobs import NewJob, SqliteJobTable, TableUnreachable
from service.keys import SqliteKeys


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """It comes by when it will, in a service that rests hardly ever."""
    gc.disable()
    yield
    gc.enable()


def logs_open(folder: Path) -> int:
    """Write-ahead logs below a folder that this process has open: one for each connection."""
    found = 0
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            path = str(handle.readlink())
            found += path.startswith(str(folder)) and path.endswith("-wal")
    return found


@pytest.mark.parametrize(
    "opened",
    [
        lambda path: SqliteJobTable(path).waiting,
        lambda path: SqliteKeys(path).empty,
    ],
    ids=["jobs", "keys"],
)
def test_a_thread_that_ends_leaves_no_connection(
    tmp_path: Path, opened: Callable[[Path], Callable[[], object]]
) -> None:
    ask = opened(tmp_path / "store.sqlite")
    for _ in range(3):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert logs_open(tmp_path) == 1  # this thread's own
    assert ask() in (0, True)


def test_nothing_is_written_into_a_table_that_is_not_there_any_more(tmp_path: Path) -> None:
    """Be it deleted or another in its place: it would be accepted, and lost."""
    path, away = tmp_path / "jobs.sqlite", tmp_path / "away"
    table = SqliteJobTable(path)
    path.rename(away)
    with pytest.raises(TableUnreachable, match=f"{path} was deleted or replaced"):
        table.submit(NewJob({}))
    path.touch()
    with pytest.raises(TableUnreachable, match="start the service again"):
        table.check()
    away.rename(path)
    assert table.submit(NewJob({})).number == 1
