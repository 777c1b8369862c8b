"""Connections to an SQLite file."""

from __future__ import annotations

import os
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
        self._file: os.stat_result | None = None

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
        self._file = self._file or self._path.stat()
        return db

    def replaced(self) -> bool:
        """Whether the file is not where it was opened: what is written then is lost with it."""
        try:
            return self._file is not None and not os.path.samestat(self._file, self._path.stat())
        except OSError:
            return True


class _Held:
    """Closes a connection with its thread. Left to itself it is part of a cycle (with its cache of
    statements), and keeps its three files open until the collector comes by.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __del__(self) -> None:
        self.db.close()
