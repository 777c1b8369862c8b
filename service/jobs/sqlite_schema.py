"""The tables of a SQLite store, version by version, and a job as a row of them.

What was released is never changed here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.jobs.record import Job, State

# Columns that hold JSON.
_JSON = ("spec", "results", "error", "notify", "stages")
# Each entry takes a store from one version (PRAGMA user_version) to the next.
VERSIONS = (
    """
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
    DROP INDEX IF EXISTS by_state
    """,
    """
    ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 5;
    ALTER TABLE jobs ADD COLUMN drains INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN worker TEXT NOT NULL DEFAULT '';
    ALTER TABLE jobs ADD COLUMN beaten_at REAL;
    ALTER TABLE jobs ADD COLUMN notify TEXT;
    ALTER TABLE jobs ADD COLUMN stages TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE jobs ADD COLUMN idempotency_key TEXT;
    ALTER TABLE jobs ADD COLUMN fingerprint TEXT;
    ALTER TABLE jobs ADD COLUMN queued_at REAL NOT NULL DEFAULT 0;
    UPDATE jobs SET queued_at = created_at;
    CREATE INDEX by_turn ON jobs (state, priority DESC, number);
    CREATE INDEX by_owner ON jobs (owner, number);
    CREATE INDEX by_key ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
    CREATE INDEX by_end ON jobs (finished_at) WHERE finished_at IS NOT NULL;
    CREATE TABLE outbox (
        id TEXT PRIMARY KEY,
        job_id TEXT NOT NULL,
        owner TEXT NOT NULL,
        notify TEXT NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        due_at REAL NOT NULL,
        created_at REAL NOT NULL,
        error TEXT
    ) STRICT;
    CREATE INDEX by_due ON outbox (due_at);
    CREATE TABLE workers (
        name TEXT PRIMARY KEY,
        seen_at REAL NOT NULL,
        until REAL NOT NULL,
        info TEXT NOT NULL
    ) STRICT;
    CREATE TABLE totals (name TEXT PRIMARY KEY, value REAL NOT NULL) STRICT
    """,
    """
    ALTER TABLE jobs ADD COLUMN lease_s REAL NOT NULL DEFAULT 0;
    CREATE INDEX by_state_and_age ON jobs (state, number);
    CREATE INDEX by_owner_and_state ON jobs (owner, state)
    """,
)


@contextmanager
def told_if_damaged(path: Path) -> Iterator[None]:
    """Say in a sentence that a file is none of SQLite's, or a damaged one.

    Raises
    ------
    ValueError : so it is.
    """
    try:
        yield
    except sqlite3.OperationalError:  # it is locked, or cannot be written
        raise
    except sqlite3.DatabaseError as error:
        words = f"{path} cannot be used ({error}): bring back a copy of it, or move it away."
        raise ValueError(words) from error


def migrate(db: sqlite3.Connection) -> None:
    """Bring a store, new or old, to the newest version. Called within a transaction.

    Raises
    ------
    ValueError : a newer version of the service has written the store.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(VERSIONS):
        raise ValueError(
            f"The job table has version {version}; this service knows {len(VERSIONS)} and less. "
            "Start the newer service that wrote it."
        )
    if version == len(VERSIONS):
        return  # nothing is written: a full disk does not keep a service from its results
    for script in VERSIONS[version:]:
        for statement in script.split(";"):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(VERSIONS)}")


def job_of(row: sqlite3.Row) -> Job:
    """The job that a row of the newest version holds."""
    fields = dict(row)
    del fields["lease_s"]  # the table's own
    fields["state"] = State(fields["state"])
    fields["cancel_requested"] = bool(fields["cancel_requested"])
    for name in _JSON:
        fields[name] = json.loads(fields[name]) if fields[name] is not None else None
    return Job(**fields)
