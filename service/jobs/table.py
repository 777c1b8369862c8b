"""What every job table does, whatever it is kept in."""

from __future__ import annotations

from typing import Any, Protocol

from service.jobs.record import Delivery, Job, Limits, NewJob, State, Summary, WorkerInfo


class JobTable(Protocol):
    """The one truth about every job. Every change is atomic; safe from any thread and process.

    A job is queued, running, and then succeeded, failed or cancelled. A worker claims it and holds
    a lease, which it renews; the attempt number is a fencing token: whatever a worker says after it
    has lost its job is refused. Every method raises `TableUnreachable` when the table cannot be
    reached.
    """

    def check(self) -> None:
        """Raise `TableUnreachable`, with the reason, unless jobs can be taken and kept."""

    # --- the clients' side ---

    def submit(self, new: NewJob, limits: Limits = Limits()) -> Job:  # noqa: B008 - frozen
        """Add a job. Once this returns, the job is not lost.

        Given again with the same id, it changes nothing. With an idempotency key that its owner has
        used within `limits.key_s`, the earlier job is returned: its id is not the new one's.

        Raises
        ------
        KeyReused : the earlier request had another fingerprint.
        QuotaReached, QueueFull : see `Limits`.
        """

    def get(self, job_id: str) -> Job | None:
        """The job, or None if there is none of this id."""

    def of_key(self, owner: str, key: str, *, key_s: float) -> Job | None:
        """The job that an owner's idempotency key stands for, if it is no older than `key_s`."""

    def newest(
        self, limit: int, *, before: int | None = None, owner: str | None = None,
        state: State | None = None,
    ) -> list[Job]:  # fmt: skip
        """Jobs, the newest first, from below a number on; of an owner, in a state."""

    def cancel(self, job_id: str) -> Job | None:
        """Cancel a job: at once if it is queued, as soon as its worker hears of it if it runs."""

    def purge(self, job_id: str) -> bool:
        """Forget an ended job and its outbox; False if it has not ended or is unknown.

        Delete its files first: an ended job stays ended, and files of no job are found by none.
        """

    def ended_before(self, time: float, limit: int) -> list[str]:
        """Ids of jobs that ended before a time, the longest ended first."""

    # --- the workers' side ---

    def claim(self, *, lease_s: float, worker: str = "") -> Job | None:
        """Take the next queued job for a new attempt; None if none waits."""

    def wanted(self, job_id: str, attempt: int) -> bool:
        """Whether an attempt still has its job and nobody has cancelled it. Only reads."""

    def beat(
        self, job_id: str, attempt: int, *, lease_s: float, stage: str, fraction: float
    ) -> Job | None:
        """Renew a lease and tell progress; None if the attempt has lost the job."""

    def finish(
        self, job_id: str, attempt: int, state: State, *,
        results: list[dict[str, Any]] | None = None, error: dict[str, Any] | None = None,
        stages: dict[str, float] | None = None,
    ) -> bool:  # fmt: skip
        """End a job; False if the attempt had lost it, and then nothing is changed.

        Said again by the attempt that ended it so, it is True, and nothing is changed either.
        """

    def release(self, job_id: str, attempt: int) -> bool:
        """Put a job back unfinished, for the worker is going down; this has no limit."""

    def crashed(self, job_id: str, attempt: int, *, limit: int, words: str) -> State | None:
        """Count a crash of the child; the job is tried again, or fails at the limit.

        None if the attempt had lost the job. A job that was to be cancelled is cancelled.
        """

    def reclaim(self, *, limit: int) -> list[str]:
        """Take jobs back from workers whose lease is over; returns the ids queued again."""

    def announce(self, worker: str, info: dict[str, Any], *, ttl_s: float) -> None:
        """Say that a worker is there, for `ttl_s`."""

    def workers(self) -> list[WorkerInfo]:
        """Workers that are there, by name."""

    # --- the outbox, and the whole ---

    def take_deliveries(self, limit: int, *, lease_s: float) -> list[Delivery]:
        """Entries of the outbox that are due, the oldest first; no other call gives them out again
        within `lease_s`. Follow each by `drop_delivery` or `postpone_delivery`.
        """

    def drop_delivery(self, delivery_id: str) -> None:
        """Strike an entry out: it was delivered, or is given up."""

    def postpone_delivery(self, delivery_id: str, delay_s: float, error: str) -> None:
        """Have an entry given out again after a while."""

    def check_room(self, owner: str, limits: Limits) -> None:
        """Refuse one more job of an owner as `submit` would, before what it is made of is there.

        Raises
        ------
        QuotaReached, QueueFull : see `Limits`.
        """

    def waiting(self) -> int:
        """How many jobs are queued."""

    def summary(self) -> Summary:
        """Counts and ages, for health and metrics."""
