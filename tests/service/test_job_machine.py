"""Random histories of a job table, against the same told in plain words: one model, every table."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from service.jobs import Job, KeyReused, Limits, NewJob, QueueFull, QuotaReached, State
from tests.service.redis_server import RedisServer
from tests.service.tables import KINDS, Clock, new_table

LEASE_S = 10.0
MAX_CRASHES, MAX_LOSSES = 3, 4
LIMITS = Limits(queued=5, of_owner=4, key_s=60.0)
OWNERS = st.sampled_from(["", "a", "b"])


@dataclass
class Row:
    """What a job should be."""

    id: str
    number: int
    owner: str
    priority: int
    key: str | None
    fingerprint: str
    notify: bool
    created_at: float
    state: State = State.QUEUED
    attempt: int = 0
    crashes: int = 0
    losses: int = 0
    drains: int = 0
    lease_until: float = 0.0
    cancel: bool = False
    ends: int = 0
    ended_at: float | None = None


class JobMachine(RuleBasedStateMachine):
    """Everything that clients and workers may do, in any order, stale attempts included."""

    kind: str
    server: RedisServer | None

    jobs = Bundle("jobs")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.clock = Clock()
        self.stack = ExitStack()
        self.table = self.stack.enter_context(
            new_table(self.kind, Path(self.folder), self.clock, self.server)
        )
        self.rows: dict[str, Row] = {}
        self.purged = 0
        self.ends = 0

    def teardown(self) -> None:
        self.stack.close()
        shutil.rmtree(self.folder)

    # --- what should happen ---

    def end(self, row: Row, state: State) -> None:
        row.state, row.ended_at = state, self.clock.now
        row.ends += 1
        self.ends += 1

    def put_back(self, row: Row, limit: int | None, count: int) -> State:
        if row.cancel:
            self.end(row, State.CANCELLED)
        elif limit is not None and count >= limit:
            self.end(row, State.FAILED)
        else:
            row.state = State.QUEUED
        return row.state

    def holder(self, attempt: tuple[str, int]) -> Row | None:
        row = self.rows.get(attempt[0])
        holds = row is not None and (row.state, row.attempt) == (State.RUNNING, attempt[1])
        return row if holds else None

    # --- clients ---

    @rule(
        target=jobs, owner=OWNERS, priority=st.integers(0, 9), notify=st.booleans(),
        key=st.sampled_from([None, None, "k", "l"]), fingerprint=st.sampled_from("fg"),
    )  # fmt: skip
    def submit(
        self, owner: str, priority: int, notify: bool, key: str | None, fingerprint: str
    ) -> str:
        new = NewJob(
            {"n": len(self.rows)}, owner=owner, priority=priority, idempotency_key=key,
            fingerprint=fingerprint, notify={"url": "u"} if notify else None,
        )  # fmt: skip
        earlier = [
            row for row in self.rows.values()
            if key and (row.owner, row.key) == (owner, key)
            and row.created_at > self.clock.now - LIMITS.key_s
        ]  # fmt: skip
        queued = [row for row in self.rows.values() if row.state is State.QUEUED]
        active = [r for r in self.rows.values() if r.owner == owner and not r.state.final]
        expected: str | type[Exception] = new.id
        known = self.table.of_key(owner, key, key_s=LIMITS.key_s) if key else None
        assert (known.id if known else None) == (earlier[-1].id if earlier else None)
        if earlier:
            same = earlier[-1].fingerprint == fingerprint
            expected = earlier[-1].id if same else KeyReused
        elif LIMITS.of_owner is not None and len(active) >= LIMITS.of_owner:
            expected = QuotaReached
        elif LIMITS.queued is not None and len(queued) >= LIMITS.queued:
            expected = QueueFull
        if not isinstance(expected, str):
            with pytest.raises(expected):
                self.table.submit(new, LIMITS)
            return "refused"
        job = self.table.submit(new, LIMITS)
        assert job.id == expected
        if job.id == new.id:
            self.rows[new.id] = Row(
                new.id, job.number, owner, priority, key, fingerprint, notify, self.clock.now
            )
            assert self.table.submit(new, LIMITS) == job
        return job.id

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        row = self.rows.get(job_id)
        assert (self.table.cancel(job_id) is None) == (row is None)
        if row and not row.state.final:
            row.cancel = True
            if row.state is State.QUEUED:
                self.end(row, State.CANCELLED)

    @rule(job_id=jobs)
    def purge(self, job_id: str) -> None:
        row = self.rows.get(job_id)
        assert self.table.purge(job_id) == (row is not None and row.state.final)
        if row and row.state.final:
            del self.rows[job_id]

    # --- workers ---

    @rule(target=attempts)
    def claim(self) -> tuple[str, int]:
        job = self.table.claim(lease_s=LEASE_S, worker="w")
        queued = [row for row in self.rows.values() if row.state is State.QUEUED]
        if job is None:
            assert not queued
            return ("none", 0)
        row = min(queued, key=lambda row: (-row.priority, row.number))
        assert job.id == row.id
        row.state, row.attempt = State.RUNNING, row.attempt + 1
        row.lease_until = self.clock.now + LEASE_S
        return (job.id, job.attempt)

    @rule(attempt=attempts)
    def beat(self, attempt: tuple[str, int]) -> None:
        row = self.holder(attempt)
        assert self.table.wanted(*attempt) == (row is not None and not row.cancel)
        job = self.table.beat(*attempt, lease_s=LEASE_S, stage="x", fraction=0.5)
        assert (job is not None) == (row is not None)
        if row and job:
            assert job.cancel_requested == row.cancel
            row.lease_until = self.clock.now + LEASE_S

    @rule(attempt=attempts, state=st.sampled_from([State.SUCCEEDED, State.FAILED, State.CANCELLED]))
    def finish(self, attempt: tuple[str, int], state: State) -> None:
        row, known = self.holder(attempt), self.rows.get(attempt[0])
        again = known is not None and known.attempt == attempt[1] and known.state is state
        assert self.table.finish(*attempt, state) == (row is not None or again)
        if row:
            self.end(row, state)

    @rule(attempt=attempts)
    def crash(self, attempt: tuple[str, int]) -> None:
        row = self.holder(attempt)
        expected = None
        if row:
            row.crashes += 1
            expected = self.put_back(row, MAX_CRASHES, row.crashes)
        assert self.table.crashed(*attempt, limit=MAX_CRASHES, words="x") == expected

    @rule(attempt=attempts)
    def release(self, attempt: tuple[str, int]) -> None:
        row = self.holder(attempt)
        if row:
            row.drains += 1
            self.put_back(row, None, row.drains)
        assert self.table.release(*attempt) == (row is not None)

    @rule(seconds=st.floats(0, 2 * LEASE_S))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def sweep(self) -> None:
        expected = []
        for row in self.rows.values():
            if row.state is State.RUNNING and row.lease_until < self.clock.now:
                row.losses += 1
                if self.put_back(row, MAX_LOSSES, row.losses) is State.QUEUED:
                    expected.append(row.id)
        assert sorted(self.table.reclaim(limit=MAX_LOSSES)) == sorted(expected)

    # --- what must hold at any time ---

    @invariant()
    def every_job_is_as_it_should_be(self) -> None:
        jobs = self.table.newest(1000)
        assert [job.id for job in jobs] == [row.id for row in reversed(self.rows.values())]
        for job in jobs:
            row = self.rows[job.id]
            assert row.ends == int(row.state.final)
            assert _facts(job) == (
                row.state, row.attempt, row.crashes, row.losses, row.drains, row.cancel,
                row.ended_at, row.owner,
            )  # fmt: skip
            if row.cancel:
                assert job.state is not State.QUEUED, "a cancelled job waits for a worker"

    @invariant()
    def the_whole_adds_up(self) -> None:
        summary = self.table.summary()
        rows = list(self.rows.values())
        assert summary.counts == {state: sum(row.state is state for row in rows) for state in State}
        assert self.table.waiting() == summary.counts[State.QUEUED]
        assert summary.deliveries == sum(row.notify and row.state.final for row in rows)
        totals = summary.totals.items()
        assert sum(n for name, n in totals if name.startswith("ended.")) == self.ends


def _facts(job: Job) -> tuple[object, ...]:
    return (
        job.state, job.attempt, job.crashes, job.losses, job.drains, job.cancel_requested,
        job.finished_at, job.owner,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_any_history(kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("redis_server") if kind == "redis" else None
    machine = type("Machine", (JobMachine,), {"kind": kind, "server": server})

    run_state_machine_as_test(
        machine, settings=settings(max_examples=30, stateful_step_count=40, deadline=None)
    )
