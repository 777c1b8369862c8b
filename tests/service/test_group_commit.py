"""Group commit, by threads that are held where it matters, against what SQLite then holds."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.jobs.group_commit import GroupCommit


class Store:
    """A table of numbers, whose first transaction waits in mid-air until `gate` opens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        self.fail = False
        self.entered, self.gate = threading.Event(), threading.Event()
        self._turn = threading.Lock()
        self.together = GroupCommit(self._held, self._transaction)
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._turn:
            yield

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        self.entered.set()
        assert self.gate.wait(30)
        yield db
        if self.fail:
            db.execute("ROLLBACK")
            raise OSError("the disk is gone")
        db.execute("COMMIT")
        self.commits += 1

    def add(self, n: int) -> int:
        """Store a number; 13 is refused after it was stored."""

        def work(db: sqlite3.Connection) -> int:
            db.execute("INSERT INTO numbers VALUES (?)", (n,))
            if n == 13:
                raise KeyError(n)
            return n

        return self.together.run(work)

    def numbers(self) -> list[int]:
        with sqlite3.connect(self.path) as db:
            return [n for (n,) in db.execute("SELECT n FROM numbers ORDER BY n")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "numbers.sqlite")


def at_once(store: Store, numbers: list[int]) -> list[Future[int]]:
    """Ask for the first, and for all others while its transaction is under way."""
    pool = ThreadPoolExecutor(len(numbers))
    asked = [pool.submit(store.add, numbers[0])]
    assert store.entered.wait(30)
    asked += [pool.submit(store.add, n) for n in numbers[1:]]
    until(lambda: len(store.together._asking) == len(numbers) - 1)
    store.gate.set()
    pool.shutdown()
    return asked


def until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("not so in time")


def test_writers_that_wait_are_committed_together(store: Store) -> None:
    asked = at_once(store, [1, 2, 3, 4, 5, 6])
    assert [future.result() for future in asked] == [1, 2, 3, 4, 5, 6]
    assert store.numbers() == [1, 2, 3, 4, 5, 6]
    assert store.commits == 2


def test_what_one_writer_is_refused_is_undone_alone(store: Store) -> None:
    asked = at_once(store, [1, 13, 3])
    assert [asked[0].result(), asked[2].result()] == [1, 3]
    with pytest.raises(KeyError):
        asked[1].result()
    assert store.numbers() == [1, 3]


def test_nobody_is_told_of_success_that_was_not_committed(store: Store) -> None:
    store.fail = True
    for future in at_once(store, [1, 2, 3]):
        with pytest.raises(OSError, match="gone"):
            future.result()
    assert store.numbers() == []


def test_a_database_that_fails_fails_for_all(store: Store) -> None:
    store.gate.set()
    store.add(1)
    store.gate.clear()
    store.entered.clear()
    asked = at_once(store, [7, 1, 3])  # 1 is there already
    assert asked[0].result() == 7
    for future in asked[1:]:
        with pytest.raises(sqlite3.IntegrityError):
            future.result()
    assert store.numbers() == [1, 7]
