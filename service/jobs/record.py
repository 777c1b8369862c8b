"""What the job table holds, and what it may refuse. Times are seconds since 1970 on its clock."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

LOWEST_PRIORITY, DEFAULT_PRIORITY, HIGHEST_PRIORITY = 0, 5, 9


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


def new_id() -> str:
    """128 random bits, as hexadecimal digits."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Job:
    """A row of the table.

    Attributes
    ----------
    number : counts submissions; newer jobs have higher ones.
    owner : id of the API key that submitted it; empty where there are no keys.
    priority : 0 to 9; of those that wait, the highest runs first, then the oldest.
    spec : what to do, as the worker's child takes it.
    attempt : of the running or last attempt, from 1; 0 before the first. The fencing token.
    crashes, losses, drains : how earlier attempts ended: the child died, the worker was lost, the
        worker was told to stop. Each kind has its own limit; drains have none.
    worker : who has or had the attempt.
    lease_until : when the worker's hold ends; in SQLite on a clock that nobody sets.
    beaten_at : when it was last renewed.
    results : per track, what came out.
    error : code and words of what went wrong.
    notify : who is told of the end, as the sender of webhooks takes it; None: nobody.
    stages : seconds that the last attempt spent in each stage, once it has ended.
    idempotency_key, fingerprint : the client's name for the request, and the request's digest.
    queued_at : since when it waits, or waited last.
    """

    id: str
    number: int
    state: State
    label: str
    owner: str
    priority: int
    spec: dict[str, Any]
    stage: str
    fraction: float
    attempt: int
    crashes: int
    losses: int
    drains: int
    worker: str
    lease_until: float
    beaten_at: float | None
    cancel_requested: bool
    results: list[dict[str, Any]]
    error: dict[str, Any] | None
    notify: dict[str, Any] | None
    stages: dict[str, float]
    idempotency_key: str | None
    fingerprint: str | None
    created_at: float
    queued_at: float
    started_at: float | None
    finished_at: float | None


@dataclass(frozen=True)
class NewJob:
    """What a client asks for; see `Job` for the fields."""

    spec: dict[str, Any]
    id: str = field(default_factory=new_id)
    label: str = ""
    owner: str = ""
    priority: int = DEFAULT_PRIORITY
    notify: dict[str, Any] | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Limits:
    """What a submission must stay within.

    Attributes
    ----------
    queued : jobs that wait, of all owners; None: no limit.
    of_owner : jobs of the owner that wait or run; None: no limit.
    key_s : for how long an idempotency key stands for its first request.
    """

    queued: int | None = None
    of_owner: int | None = None
    key_s: float = 24 * 3600.0


@dataclass(frozen=True)
class Delivery:
    """An entry of the outbox: somebody is to be told that a job has ended.

    It is written in the same transaction as the end: it is there if and only if the end is.

    Attributes
    ----------
    notify : as it was submitted.
    tries : how often it was taken, this time included.
    error : why the last try failed.
    """

    id: str
    job_id: str
    owner: str
    notify: dict[str, Any]
    tries: int
    due_at: float
    created_at: float
    error: str | None


@dataclass(frozen=True)
class WorkerInfo:
    """A worker that is there; `info` is its own (device, child, memory)."""

    name: str
    seen_at: float
    info: dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """The table at a glance.

    Attributes
    ----------
    now : on the table's clock, to tell ages by.
    counts : jobs in each state.
    oldest_queued_at : since when the job waits that waits longest.
    oldest_beat_at : when the lease was renewed that was not renewed for longest.
    deliveries : entries of the outbox.
    totals : counters that only grow: `ended.STATE`, `crashes`, `losses`, `drains`,
        `stage.NAME.seconds` and `stage.NAME.count`.
    """

    now: float
    counts: dict[State, int]
    oldest_queued_at: float | None
    oldest_beat_at: float | None
    deliveries: int
    totals: dict[str, float]


LOST_AGAIN = "its worker was lost again and again"


def given_up(code: str, limit: int, words: str) -> dict[str, Any]:
    """The error of a job that was tried as often as may be."""
    return {"code": code, "detail": f"The job was given up after {limit} attempts: {words}."}


class TableUnreachable(Exception):
    """The table cannot be read or written now; whether the change was made is not known."""


class QueueFull(Exception):
    """As many jobs wait as may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs wait already, as many as may; try again later.")
        self.limit = limit


class QuotaReached(Exception):
    """The owner has as many jobs waiting and running as it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"This key has {limit} jobs waiting or running, as many as it may; "
            "wait for one to end, or cancel one."
        )
        self.limit = limit


class KeyReused(Exception):
    """An idempotency key came again with another request."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The idempotency key {key!r} was used for another request; take a new key."
        )
        self.key = key
