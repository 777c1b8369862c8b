"""One commit for several writers.

A commit waits for the disk, 1 to 10 ms, whatever it holds. Writers that come while another commits
are therefore committed together by the first of them that gets its turn; the others find their
work done. Nobody is answered before the commit that holds their work is on the disk.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

T = TypeVar("T")


class _Ask(Generic[T]):
    """A writer's work, and what came of it."""

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self._work = work
        self._result: T | None = None
        self.error: BaseException | None = None
        self.settled = False

    def do(self, db: sqlite3.Connection) -> None:
        """Work in a savepoint: what fails is undone alone. A database that fails, fails for all."""
        db.execute("SAVEPOINT ask")
        try:
            self._result = self._work(db)
        except sqlite3.Error:
            raise
        except Exception as error:
            self.error = error
            db.execute("ROLLBACK TO ask")
        db.execute("RELEASE ask")

    def outcome(self) -> T:
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]


class GroupCommit:
    """Runs writers' work in shared transactions.

    Parameters
    ----------
    transaction : begins one, commits it at its end or rolls it back.
    turn : held by whoever writes; `transaction` is entered under it.
    """

    def __init__(
        self,
        turn: Callable[[], AbstractContextManager[None]],
        transaction: Callable[[], AbstractContextManager[sqlite3.Connection]],
    ) -> None:
        self._turn = turn
        self._transaction = transaction
        self._lock = threading.Lock()
        self._asking: list[_Ask] = []  # type: ignore[type-arg]

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have work done and committed; its result, or what it raised."""
        ask = _Ask(work)
        with self._lock:
            self._asking.append(ask)
        with self._turn():
            if not ask.settled:
                self._settle()
        return ask.outcome()

    def _settle(self) -> None:
        """Do all that is asked for by now, in one transaction."""
        with self._lock:
            together, self._asking = self._asking, []
        try:
            with self._transaction() as db:
                for ask in together:
                    ask.do(db)
        except BaseException as error:
            for ask in together:
                ask.error = error
        finally:
            for ask in together:
                ask.settled = True
