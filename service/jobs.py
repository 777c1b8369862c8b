"""The job table: the one truth about every job.

A job is queued, running, and then succeeded, failed or cancelled. A worker claims it and holds a
lease, which it renews; the attempt number is a fencing token: whatever a worker writes after it has
lost its job is refused. SQLite with a write-ahead log and full synchronisation: an accepted job
survives the process and a power cut.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    label TEXT NOT NULL,
    spec TEXT NOT NULL,
    stage TEXT NOT NULL DEFAULT 'queued',
    fraction REAL NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    lease_until REAL NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    results TEXT NOT NULL DEFAULT '[]',
    error TEXT,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL
) STRICT;
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, number);
"""


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in (State.QUEUED, State.RUNNING)


@dataclass(frozen=True)
class Job:
    """A row of the table.

    Attributes
    ----------
    number : counts submissions; newer jobs have higher ones.
    spec : what to do, as the worker's child takes it.
    attempt : of the running or last attempt, from 1; 0 before the first.
    results : per track, what came out.
    error : code and words of what went wrong.
    """

    id: str
    number: int
    state: State
    label: str
    spec: dict[str, Any]
    stage: str
    fraction: float
    attempt: int
    crashes: int
    losses: int
    lease_until: float
    cancel_requested: bool
    results: list[dict[str, Any]]
    error: dict[str, Any] | None
    created_at: float
    started_at: float | None
    finished_at: float | None


class JobTable:
    """All changes of jobs, each atomic. Safe from any thread and any process on this machine."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._local = threading.local()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._transaction() as db:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                db.execute(statement)

    @property
    def _db(self) -> sqlite3.Connection:
        """The connection of the calling thread."""
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            self._local.db = db
        return db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def check(self) -> None:
        """Raise `sqlite3.Error` unless the table can be written."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET stage = stage WHERE number = 0")

    # --- the clients' side -----------------------------------------------------------------------

    def submit(self, spec: dict[str, Any], *, label: str = "", job_id: str | None = None) -> Job:
        """Add a job. Once this returns, the job is not lost."""
        job_id = job_id or new_id()
        with self._transaction() as db:
            db.execute(
                "INSERT INTO jobs (id, state, label, spec, created_at) VALUES (?, ?, ?, ?, ?)",
                (job_id, State.QUEUED, label, json.dumps(spec), self._clock()),
            )
            return _one(db, job_id)

    def get(self, job_id: str) -> Job | None:
        """The job, or None if there is none of this id."""
        row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return _job(row) if row else None

    def newest(self, limit: int, *, before: int | None = None) -> list[Job]:
        """Jobs, the newest first, from below a number on."""
        rows = self._db.execute(
            "SELECT * FROM jobs WHERE number < ? ORDER BY number DESC LIMIT ?",
            (before if before is not None else 1 << 62, limit),
        )
        return [_job(row) for row in rows]

    def cancel(self, job_id: str) -> Job | None:
        """Cancel a job: at once if it is queued, as soon as its worker hears of it if it runs."""
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET state = ?, stage = 'cancelled', finished_at = ? "
                "WHERE id = ? AND state = ?",
                (State.CANCELLED, self._clock(), job_id, State.QUEUED),
            )
            db.execute(
                "UPDATE jobs SET cancel_requested = 1 WHERE id = ? AND state = ?",
                (job_id, State.RUNNING),
            )
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            return _job(row) if row else None

    def purge(self, job_id: str) -> bool:
        """Forget a finished job; False if it is not finished or not there."""
        with self._transaction() as db:
            done = db.execute(
                "DELETE FROM jobs WHERE id = ? AND state NOT IN (?, ?)",
                (job_id, State.QUEUED, State.RUNNING),
            )
            return done.rowcount == 1

    # --- the workers' side -----------------------------------------------------------------------

    def claim(self, job_id: str, *, lease_s: float) -> Job | None:
        """Take a queued job for a new attempt; None if it is not (or no longer) queued."""
        now = self._clock()
        with self._transaction() as db:
            done = db.execute(
                "UPDATE jobs SET state = ?, stage = 'starting', fraction = 0, "
                "attempt = attempt + 1, lease_until = ?, started_at = ? "
                "WHERE id = ? AND state = ?",
                (State.RUNNING, now + lease_s, now, job_id, State.QUEUED),
            )
            return _one(db, job_id) if done.rowcount else None

    def beat(
        self, job_id: str, attempt: int, *, lease_s: float, stage: str, fraction: float
    ) -> Job | None:
        """Renew a lease and tell progress; None if the attempt has lost the job."""
        with self._transaction() as db:
            done = db.execute(
                "UPDATE jobs SET lease_until = ?, stage = ?, fraction = ? "
                "WHERE id = ? AND attempt = ? AND state = ?",
                (self._clock() + lease_s, stage, fraction, job_id, attempt, State.RUNNING),
            )
            return _one(db, job_id) if done.rowcount else None

    def finish(
        self,
        job_id: str,
        attempt: int,
        state: State,
        *,
        results: list[dict[str, Any]] | None = None,
        error: dict[str, Any] | None = None,
    ) -> bool:
        """End a job; False if the attempt had lost it, and then nothing is changed."""
        with self._transaction() as db:
            done = db.execute(
                "UPDATE jobs SET state = ?, stage = ?, fraction = ?, results = ?, error = ?, "
                "finished_at = ? WHERE id = ? AND attempt = ? AND state = ?",
                (
                    state, state.value, 1.0 if state is State.SUCCEEDED else 0.0,
                    json.dumps(results or []), json.dumps(error) if error else None,
                    self._clock(), job_id, attempt, State.RUNNING,
                ),
            )  # fmt: skip
            return done.rowcount == 1

    def release(self, job_id: str, attempt: int) -> bool:
        """Put a job back unfinished and uncounted, for the worker is going down."""
        with self._transaction() as db:
            return self._requeue(db, job_id, attempt)

    def crashed(self, job_id: str, attempt: int, *, limit: int, words: str) -> State | None:
        """Count a crash of the child; the job is tried again, or fails at the limit."""
        with self._transaction() as db:
            return self._count(db, job_id, attempt, "crashes", limit, "crashed", words)

    def reclaim(self, *, limit: int) -> list[str]:
        """Take jobs back from workers whose lease is over; returns the ids queued again."""
        with self._transaction() as db:
            lost = db.execute(
                "SELECT id, attempt FROM jobs WHERE state = ? AND lease_until < ?",
                (State.RUNNING, self._clock()),
            ).fetchall()
            words = "its worker was lost again and again"
            return [
                row["id"]
                for row in lost
                if self._count(db, row["id"], row["attempt"], "losses", limit, "worker_lost", words)
                is State.QUEUED
            ]

    def queued(self) -> list[str]:
        """Ids that wait for a worker, the oldest first."""
        rows = self._db.execute(
            "SELECT id FROM jobs WHERE state = ? ORDER BY number", (State.QUEUED,)
        )
        return [row["id"] for row in rows]

    def _count(
        self, db: sqlite3.Connection, job_id: str, attempt: int, column: str, limit: int,
        code: str, words: str,
    ) -> State | None:  # fmt: skip
        """Count a misfortune of an attempt; None if the attempt has lost the job already."""
        done = db.execute(
            f"UPDATE jobs SET {column} = {column} + 1 "  # noqa: S608 - a name of ours
            "WHERE id = ? AND attempt = ? AND state = ?",
            (job_id, attempt, State.RUNNING),
        )
        if not done.rowcount:
            return None
        job = _one(db, job_id)
        count = job.crashes if column == "crashes" else job.losses
        if count < limit or job.cancel_requested:
            self._requeue(db, job_id, attempt)
            return _one(db, job_id).state
        error = {"code": code, "detail": f"The job was given up after {count} attempts: {words}."}
        db.execute(
            "UPDATE jobs SET state = ?, stage = 'failed', error = ?, finished_at = ? WHERE id = ?",
            (State.FAILED, json.dumps(error), self._clock(), job_id),
        )
        return State.FAILED

    def _requeue(self, db: sqlite3.Connection, job_id: str, attempt: int) -> bool:
        """Put a running attempt's job back; one that was to be cancelled is cancelled now."""
        done = db.execute(
            "UPDATE jobs SET state = CASE WHEN cancel_requested THEN ? ELSE ? END, "
            "stage = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END, "
            "finished_at = CASE WHEN cancel_requested THEN ? END, fraction = 0 "
            "WHERE id = ? AND attempt = ? AND state = ?",
            (State.CANCELLED, State.QUEUED, self._clock(), job_id, attempt, State.RUNNING),
        )
        return done.rowcount == 1


def new_id() -> str:
    """128 random bits, as hexadecimal digits."""
    return secrets.token_hex(16)


def _one(db: sqlite3.Connection, job_id: str) -> Job:
    return _job(db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone())


def _job(row: sqlite3.Row) -> Job:
    fields = dict(row)
    fields["state"] = State(fields["state"])
    fields["cancel_requested"] = bool(fields["cancel_requested"])
    for name in ("spec", "results", "error"):
        fields[name] = json.loads(fields[name]) if fields[name] else None
    return Job(**fields)
