"""Connections to an SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path


class Connections:
    """One for each thread, made when the thread first asks and closed as it ends.

    They lose nothing in a power cut, and wait for others that write for `busy_s`.
    """

    def __init__(self, path: Path, busy_s: float) -> None:
        self._path = path
        self._busy_s = busy_s
        self._local = threading.local()

    @property
    def own(self) -> sqlite3.Connection:
        """The calling thread's."""
        held: _Held | None = getattr(self._local, "held", None)
        if held is None:
            self._local.held = held = _Held(self._connect())
        return held.db

    def _connect(self) -> sqlite3.Connection:
        # Its thread alone uses it, but any may be the one that closes it.
        db = sqlite3.connect(
            self._path, timeout=self._busy_s, isolation_level=None, check_same_thread=False
        )
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        return db


class _Held:
    """Closes a connection with its thread. Left to itself it is part of a cycle (with its cache of
    statements), and keeps its three files open until the collector comes by.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __del__(self) -> None:
        self.db.close()
