"""Connections to SQLite files go with the threads that had them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.jobs import SqliteJobTable
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
