"""The job table in a SQLite file: for the service with its embedded queue, on one machine.

Write-ahead log with full synchronisation: an accepted job survives the process and a power cut.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.jobs.connections import Connections
from service.jobs.group_commit import GroupCommit
from service.jobs.record import (
    LOST_AGAIN,
    Delivery,
    Job,
    KeyReused,
    Limits,
    NewJob,
    QueueFull,
    QuotaReached,
    State,
    Summary,
    TableUnreachable,
    WorkerInfo,
    given_up,
    new_id,
)
from service.jobs.sqlite_schema import job_of, migrate, told_if_damaged

_BUSY_S = 10.0


class SqliteJobTable:
    """`JobTable` in a file. Safe from any thread and any process on this machine.

    Parameters
    ----------
    busy_s : how long to wait for others that write.
    clock : for tests: seconds since 1970.
    steady : for tests: seconds for leases, which nobody sets, and which all processes share.
    """

    def __init__(
        self, path: Path, *, busy_s: float = _BUSY_S, clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._path = path
        self._busy_s = busy_s
        self._clock, self._steady = clock, steady
        self._connections = Connections(path, busy_s)
        # Threads take turns here: SQLite lets a writer that has to wait sleep, longer and longer.
        self._writing = threading.Lock()
        self._together = GroupCommit(self._turn, self._begun)
        path.parent.mkdir(parents=True, exist_ok=True)
        with told_if_damaged(path), self._transaction() as db:
            migrate(db)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connections.own
        except sqlite3.OperationalError as error:
            raise TableUnreachable(f"The job table {self._path}: {error}.") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction."""
        with self._turn(), self._begun() as db:
            yield db

    @contextmanager
    def _begun(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            if self._connections.replaced():
                words = "was deleted or replaced: bring it back, and start the service again"
                raise TableUnreachable(f"The job table {self._path} {words}.")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=self._busy_s):
            raise TableUnreachable(f"The job table {self._path}: writers wait {self._busy_s} s.")
        try:
            yield
        finally:
            self._writing.release()

    def check(self) -> None:
        """See `JobTable`."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET stage = stage WHERE number = 0")

    # --- the clients' side -----------------------------------------------------------------------

    def submit(self, new: NewJob, limits: Limits = Limits()) -> Job:  # noqa: B008 - frozen
        """See `JobTable`."""
        return self._together.run(lambda db: _store(db, new, limits, self._clock()))

    def get(self, job_id: str) -> Job | None:
        """See `JobTable`."""
        with self._reading() as db:
            return _find(db, job_id)

    def of_key(self, owner: str, key: str, *, key_s: float) -> Job | None:
        """See `JobTable`."""
        with self._reading() as db:
            return _of_key(db, owner, key, self._clock() - key_s)

    def newest(
        self, limit: int, *, before: int | None = None, owner: str | None = None,
        state: State | None = None,
    ) -> list[Job]:  # fmt: skip
        """See `JobTable`."""
        wanted = {"owner": owner, "state": state}
        asked = {name: value for name, value in wanted.items() if value is not None}
        conditions = "".join(f" AND {name} = :{name}" for name in asked)
        query = f"SELECT * FROM jobs WHERE number < :before{conditions} ORDER BY number DESC LIMIT :limit"  # noqa: E501, S608 - names of ours
        first = before if before is not None else 1 << 62
        with self._reading() as db:
            rows = db.execute(query, {"before": first, "limit": limit, **asked}).fetchall()
        return [job_of(row) for row in rows]

    def cancel(self, job_id: str) -> Job | None:
        """See `JobTable`."""
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET cancel_requested = 1 WHERE id = ? AND state IN (?, ?)",
                (job_id, State.QUEUED, State.RUNNING),
            )
            job = _find(db, job_id)
            if job is not None and job.state is State.QUEUED:
                self._end(db, job, State.CANCELLED)
                return _find(db, job_id)
            return job

    def purge(self, job_id: str) -> bool:
        """See `JobTable`."""
        with self._transaction() as db:
            done = db.execute(
                "DELETE FROM jobs WHERE id = ? AND state NOT IN (?, ?)",
                (job_id, State.QUEUED, State.RUNNING),
            )
            if done.rowcount:
                db.execute("DELETE FROM outbox WHERE job_id = ?", (job_id,))
            return done.rowcount == 1

    def ended_before(self, time: float, limit: int) -> list[str]:
        """See `JobTable`."""
        query = "SELECT id FROM jobs WHERE finished_at < ? ORDER BY finished_at LIMIT ?"
        with self._reading() as db:
            return [row["id"] for row in db.execute(query, (time, limit))]

    # --- the workers' side -----------------------------------------------------------------------

    def claim(self, *, lease_s: float, worker: str = "") -> Job | None:
        """See `JobTable`."""
        now, until = self._clock(), self._steady() + lease_s
        with self._transaction() as db:
            return _maybe(
                db.execute(
                    "UPDATE jobs SET state = ?, stage = 'starting', fraction = 0, "
                    "attempt = attempt + 1, worker = ?, lease_until = ?, lease_s = ?, "
                    "beaten_at = ?, started_at = ? "
                    "WHERE number = (SELECT number FROM jobs WHERE state = ? "
                    "ORDER BY priority DESC, number LIMIT 1) RETURNING *",
                    (State.RUNNING, worker, until, lease_s, now, now, State.QUEUED),
                ).fetchone()
            )

    def wanted(self, job_id: str, attempt: int) -> bool:
        """See `JobTable`."""
        query = (
            "SELECT 1 FROM jobs WHERE id = ? AND attempt = ? AND state = ? AND NOT cancel_requested"
        )
        with self._reading() as db:
            return db.execute(query, (job_id, attempt, State.RUNNING)).fetchone() is not None

    def beat(
        self, job_id: str, attempt: int, *, lease_s: float, stage: str, fraction: float
    ) -> Job | None:
        """See `JobTable`."""
        now, until = self._clock(), self._steady() + lease_s
        fields = (until, lease_s, now, stage, fraction, job_id, attempt, State.RUNNING)
        with self._transaction() as db:
            return _maybe(
                db.execute(
                    "UPDATE jobs SET lease_until = ?, lease_s = ?, beaten_at = ?, stage = ?, "
                    "fraction = ? WHERE id = ? AND attempt = ? AND state = ? RETURNING *",
                    fields,
                ).fetchone()
            )

    def finish(
        self, job_id: str, attempt: int, state: State, *,
        results: list[dict[str, Any]] | None = None, error: dict[str, Any] | None = None,
        stages: dict[str, float] | None = None,
    ) -> bool:  # fmt: skip
        """See `JobTable`."""
        with self._transaction() as db:
            job = _find(db, job_id)
            if job is None or job.attempt != attempt:
                return False
            if job.state is not State.RUNNING:
                return job.state is state
            self._end(db, job, state, results=results, error=error, stages=stages)
            return True

    def release(self, job_id: str, attempt: int) -> bool:
        """See `JobTable`."""
        with self._transaction() as db:
            return self._put_back(db, job_id, attempt, "drains", None, {}) is not None

    def crashed(self, job_id: str, attempt: int, *, limit: int, words: str) -> State | None:
        """See `JobTable`."""
        with self._transaction() as db:
            error = given_up("crashed", limit, words)
            return self._put_back(db, job_id, attempt, "crashes", limit, error)

    def reclaim(self, *, limit: int) -> list[str]:
        """See `JobTable`. A lease that ends too late is of before the machine was started again."""
        error = given_up("worker_lost", limit, LOST_AGAIN)
        now, held = self._steady(), "lease_until BETWEEN ? AND ? + lease_s"
        query = f"SELECT id, attempt FROM jobs WHERE state = ? AND NOT {held}"  # noqa: S608 - ours
        with self._transaction() as db:
            lost = db.execute(query, (State.RUNNING, now, now)).fetchall()
            return [
                job_id
                for job_id, attempt in lost
                if self._put_back(db, job_id, attempt, "losses", limit, error) is State.QUEUED
            ]

    def _put_back(
        self, db: sqlite3.Connection, job_id: str, attempt: int, kind: str, limit: int | None,
        error: dict[str, Any],
    ) -> State | None:  # fmt: skip
        """Count how an attempt failed; queue its job again, cancel it, or end it at the limit.

        None if the attempt had lost the job.
        """
        row = db.execute(
            f"UPDATE jobs SET {kind} = {kind} + 1 "  # noqa: S608 - a name of ours
            "WHERE id = ? AND attempt = ? AND state = ? RETURNING *",
            (job_id, attempt, State.RUNNING),
        ).fetchone()
        if row is None:
            return None
        _add(db, {kind: 1})
        if row["cancel_requested"]:
            return self._end(db, job_of(row), State.CANCELLED)
        if limit is not None and row[kind] >= limit:
            return self._end(db, job_of(row), State.FAILED, error=error)
        db.execute(
            "UPDATE jobs SET state = ?, stage = 'queued', fraction = 0, queued_at = ? WHERE id = ?",
            (State.QUEUED, self._clock(), job_id),
        )
        return State.QUEUED

    def _end(
        self, db: sqlite3.Connection, job: Job, state: State, *,
        results: list[dict[str, Any]] | None = None, error: dict[str, Any] | None = None,
        stages: dict[str, float] | None = None,
    ) -> State:  # fmt: skip
        """End a job that has not ended, and have told whoever wants to know."""
        now = self._clock()
        db.execute(
            "UPDATE jobs SET state = ?, stage = ?, fraction = ?, results = ?, error = ?, "
            "stages = ?, finished_at = ? WHERE id = ?",
            (
                state, state.value, 1.0 if state is State.SUCCEEDED else 0.0,
                json.dumps(results or []), json.dumps(error) if error else None,
                json.dumps(stages or {}), now, job.id,
            ),
        )  # fmt: skip
        if job.notify is not None:
            db.execute(
                "INSERT INTO outbox (id, job_id, owner, notify, due_at, created_at) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (new_id(), job.id, job.owner, json.dumps(job.notify), now, now),
            )
        _add(db, {f"ended.{state}": 1})
        for name, seconds in (stages or {}).items():
            _add(db, {f"stage.{name}.seconds": seconds, f"stage.{name}.count": 1})
        return state

    def announce(self, worker: str, info: dict[str, Any], *, ttl_s: float) -> None:
        """See `JobTable`."""
        now = self._clock()
        with self._transaction() as db:
            db.execute("DELETE FROM workers WHERE until < ?", (now,))
            db.execute(
                "INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?)",
                (worker, now, now + ttl_s, json.dumps(info)),
            )

    def workers(self) -> list[WorkerInfo]:
        """See `JobTable`."""
        query = "SELECT * FROM workers WHERE until >= ? ORDER BY name"
        with self._reading() as db:
            rows = db.execute(query, (self._clock(),)).fetchall()
        return [WorkerInfo(row["name"], row["seen_at"], json.loads(row["info"])) for row in rows]

    # --- the outbox, and the whole ---------------------------------------------------------------

    def take_deliveries(self, limit: int, *, lease_s: float) -> list[Delivery]:
        """See `JobTable`."""
        now = self._clock()
        with self._transaction() as db:
            rows = db.execute(
                "UPDATE outbox SET due_at = ?, tries = tries + 1 WHERE id IN "
                "(SELECT id FROM outbox WHERE due_at <= ? ORDER BY due_at LIMIT ?) RETURNING *",
                (now + lease_s, now, limit),
            ).fetchall()
        taken = [Delivery(**{**dict(row), "notify": json.loads(row["notify"])}) for row in rows]
        return sorted(taken, key=lambda delivery: delivery.created_at)

    def drop_delivery(self, delivery_id: str) -> None:
        """See `JobTable`."""
        with self._transaction() as db:
            db.execute("DELETE FROM outbox WHERE id = ?", (delivery_id,))

    def postpone_delivery(self, delivery_id: str, delay_s: float, error: str) -> None:
        """See `JobTable`."""
        with self._transaction() as db:
            db.execute(
                "UPDATE outbox SET due_at = ?, error = ? WHERE id = ?",
                (self._clock() + delay_s, error, delivery_id),
            )

    def check_room(self, owner: str, limits: Limits) -> None:
        """See `JobTable`."""
        with self._reading() as db:
            _refuse_beyond(db, owner, limits)

    def waiting(self) -> int:
        """See `JobTable`."""
        with self._reading() as db:
            return _waiting(db)

    def summary(self) -> Summary:
        """See `JobTable`."""
        with self._reading() as db:
            counts = dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
            ages = db.execute(
                "SELECT min(queued_at) FILTER (WHERE state = ?), "
                "min(beaten_at) FILTER (WHERE state = ?) FROM jobs WHERE state IN (?, ?)",
                (State.QUEUED, State.RUNNING, State.QUEUED, State.RUNNING),
            ).fetchone()
            (deliveries,) = db.execute("SELECT count(*) FROM outbox").fetchone()
            totals = dict(db.execute("SELECT name, value FROM totals").fetchall())
        return Summary(
            now=self._clock(),
            counts={state: counts.get(state, 0) for state in State},
            oldest_queued_at=ages[0],
            oldest_beat_at=ages[1],
            deliveries=deliveries,
            totals=totals,
        )


def _store(db: sqlite3.Connection, new: NewJob, limits: Limits, now: float) -> Job:
    """Store a job, or find the one that it repeats."""
    earlier = _earlier(db, new, now - limits.key_s)
    if earlier is not None:
        return earlier
    _refuse_beyond(db, new.owner, limits)
    row = db.execute(
        "INSERT INTO jobs (id, state, label, owner, priority, spec, notify, "
        "idempotency_key, fingerprint, created_at, queued_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
        (
            new.id, State.QUEUED, new.label, new.owner, new.priority, json.dumps(new.spec),
            json.dumps(new.notify) if new.notify is not None else None,
            new.idempotency_key, new.fingerprint, now, now,
        ),
    ).fetchone()  # fmt: skip
    return job_of(row)


def _earlier(db: sqlite3.Connection, new: NewJob, since: float) -> Job | None:
    """The job that this submission repeats, if it does."""
    same = _find(db, new.id)
    if same is not None or new.idempotency_key is None:
        return same
    earlier = _of_key(db, new.owner, new.idempotency_key, since)
    if earlier is not None and earlier.fingerprint != new.fingerprint:
        raise KeyReused(new.idempotency_key)
    return earlier


def _of_key(db: sqlite3.Connection, owner: str, key: str, since: float) -> Job | None:
    """The job that an idempotency key stands for, if that is no older."""
    query = (
        "SELECT * FROM jobs WHERE owner = ? AND idempotency_key = ? AND created_at > ? "
        "ORDER BY number DESC LIMIT 1"
    )
    return _maybe(db.execute(query, (owner, key, since)).fetchone())


def _refuse_beyond(db: sqlite3.Connection, owner: str, limits: Limits) -> None:
    """Refuse one more job where it would be too many."""
    if limits.of_owner is not None:
        query = "SELECT count(*) FROM jobs WHERE owner = ? AND state IN (?, ?)"
        (active,) = db.execute(query, (owner, State.QUEUED, State.RUNNING)).fetchone()
        if active >= limits.of_owner:
            raise QuotaReached(limits.of_owner)
    if limits.queued is not None and _waiting(db) >= limits.queued:
        raise QueueFull(limits.queued)


def _waiting(db: sqlite3.Connection) -> int:
    (count,) = db.execute("SELECT count(*) FROM jobs WHERE state = ?", (State.QUEUED,)).fetchone()
    return int(count)


def _add(db: sqlite3.Connection, amounts: dict[str, float]) -> None:
    """Add to counters."""
    db.executemany(
        "INSERT INTO totals VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + ?",
        [(name, amount, amount) for name, amount in amounts.items()],
    )


def _find(db: sqlite3.Connection, job_id: str) -> Job | None:
    return _maybe(db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone())


def _maybe(row: sqlite3.Row | None) -> Job | None:
    return job_of(row) if row is not None else None
