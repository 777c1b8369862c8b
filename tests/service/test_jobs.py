"""The job table: a state machine against a plain model, and the cases that matter."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from service.jobs import JobTable, State

LEASE_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(tmp_path: Path, clock: Clock) -> JobTable:
    return JobTable(tmp_path / "jobs.sqlite", clock=clock)


def claimed(table: JobTable) -> tuple[str, int]:
    job = table.submit({"video": "v"})
    running = table.claim(job.id, lease_s=LEASE_S)
    assert running is not None
    return job.id, running.attempt


def state(table: JobTable, job_id: str) -> State:
    job = table.get(job_id)
    assert job is not None
    return job.state


def test_a_job_from_beginning_to_end(table: JobTable) -> None:
    job = table.submit({"video": "v"}, label="take 1")
    assert (job.state, job.attempt, job.label) == (State.QUEUED, 0, "take 1")

    running = table.claim(job.id, lease_s=LEASE_S)
    assert running is not None
    assert table.beat(job.id, 1, lease_s=LEASE_S, stage="scan", fraction=0.3) is not None
    assert table.finish(job.id, 1, State.SUCCEEDED, results=[{"verdict": "aligned"}])

    done = table.get(job.id)
    assert done is not None
    assert (done.state, done.fraction, done.results) == (
        State.SUCCEEDED, 1.0, [{"verdict": "aligned"}],
    )  # fmt: skip


def test_what_was_submitted_is_there_for_another_process(tmp_path: Path) -> None:
    job = JobTable(tmp_path / "jobs.sqlite").submit({"a": 1})

    assert JobTable(tmp_path / "jobs.sqlite").get(job.id) == job


def test_only_one_claims(table: JobTable) -> None:
    job = table.submit({})
    won: list[bool] = []
    barrier = threading.Barrier(8)

    def race() -> None:
        barrier.wait()
        won.append(table.claim(job.id, lease_s=LEASE_S) is not None)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(won) == [False] * 7 + [True]


def test_a_stale_attempt_is_refused(table: JobTable, clock: Clock) -> None:
    job_id, first = claimed(table)
    clock.now += LEASE_S + 1
    assert table.reclaim(limit=10) == [job_id]
    second = table.claim(job_id, lease_s=LEASE_S)
    assert second is not None

    assert table.beat(job_id, first, lease_s=LEASE_S, stage="", fraction=0) is None
    assert not table.finish(job_id, first, State.SUCCEEDED)
    assert not table.release(job_id, first)
    assert table.finish(job_id, second.attempt, State.SUCCEEDED)


def test_a_lease_that_is_renewed_is_not_taken(table: JobTable, clock: Clock) -> None:
    job_id, attempt = claimed(table)
    for _ in range(5):
        clock.now += 0.9 * LEASE_S
        assert table.beat(job_id, attempt, lease_s=LEASE_S, stage="", fraction=0)
        assert table.reclaim(limit=10) == []


def test_crashes_are_counted_and_end_the_job(table: JobTable) -> None:
    job = table.submit({})
    states = []
    for _ in range(3):
        running = table.claim(job.id, lease_s=LEASE_S)
        assert running is not None
        states.append(table.crashed(job.id, running.attempt, limit=3, words="it broke"))

    assert states == [State.QUEUED, State.QUEUED, State.FAILED]
    failed = table.get(job.id)
    assert failed is not None
    assert failed.error is not None
    assert failed.error["code"] == "crashed"
    assert "after 3 attempts: it broke" in failed.error["detail"]


def test_lost_workers_and_drains_count_apart(table: JobTable, clock: Clock) -> None:
    job = table.submit({})
    for _ in range(5):
        running = table.claim(job.id, lease_s=LEASE_S)
        assert running is not None
        assert table.release(job.id, running.attempt)
        running = table.claim(job.id, lease_s=LEASE_S)
        assert running is not None
        clock.now += LEASE_S + 1
        assert table.reclaim(limit=10) == [job.id]

    waiting = table.get(job.id)
    assert waiting is not None
    assert (waiting.crashes, waiting.losses, waiting.attempt) == (0, 5, 10)


def test_cancelling(table: JobTable, clock: Clock) -> None:
    queued = table.submit({}).id
    table.cancel(queued)
    assert state(table, queued) is State.CANCELLED
    assert table.claim(queued, lease_s=LEASE_S) is None

    running, attempt = claimed(table)
    table.cancel(running)
    heard = table.beat(running, attempt, lease_s=LEASE_S, stage="", fraction=0)
    assert heard is not None
    assert heard.cancel_requested
    assert table.finish(running, attempt, State.CANCELLED)

    lost, _ = claimed(table)
    table.cancel(lost)
    clock.now += LEASE_S + 1
    assert table.reclaim(limit=10) == []
    assert state(table, lost) is State.CANCELLED

    assert table.cancel("unknown") is None


def test_only_ended_jobs_are_purged(table: JobTable) -> None:
    job_id, attempt = claimed(table)
    assert not table.purge(job_id)
    table.finish(job_id, attempt, State.SUCCEEDED)
    assert table.purge(job_id)
    assert table.get(job_id) is None
    assert not table.purge(job_id)


def test_pages_are_newest_first_and_do_not_overlap(table: JobTable) -> None:
    ids = [table.submit({}).id for _ in range(7)]

    first = table.newest(4)
    second = table.newest(4, before=first[-1].number)

    assert [job.id for job in (*first, *second)] == ids[::-1]


class JobMachine(RuleBasedStateMachine):
    """Random submissions, claims, beats, ends, crashes, losses and cancels."""

    jobs = Bundle("jobs")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.table = JobTable(Path(self.folder.name) / "jobs.sqlite", clock=self.clock)
        self.ends: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.crashes: dict[str, int] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(target=jobs)
    def submit(self) -> str:
        job_id = self.table.submit({}).id
        self.ends[job_id] = 0
        return job_id

    @rule(target=attempts, job_id=jobs)
    def claim(self, job_id: str) -> tuple[str, int]:
        before = state(self.table, job_id)
        job = self.table.claim(job_id, lease_s=LEASE_S)
        assert (job is not None) == (before is State.QUEUED)
        return (job_id, job.attempt if job else 0)

    @rule(attempt=attempts, succeed=st.booleans())
    def finish(self, attempt: tuple[str, int], succeed: bool) -> None:
        end = State.SUCCEEDED if succeed else State.FAILED
        if self.table.finish(*attempt, end):
            self.ends[attempt[0]] += 1

    @rule(attempt=attempts)
    def beat(self, attempt: tuple[str, int]) -> None:
        job = self.table.beat(*attempt, lease_s=LEASE_S, stage="x", fraction=0.5)
        if job is not None:
            assert job.cancel_requested == (attempt[0] in self.cancelled)

    @rule(attempt=attempts)
    def crash(self, attempt: tuple[str, int]) -> None:
        if self.table.crashed(*attempt, limit=3, words="x") is not None:
            self.crashes[attempt[0]] = self.crashes.get(attempt[0], 0) + 1

    @rule(attempt=attempts)
    def release(self, attempt: tuple[str, int]) -> None:
        self.table.release(*attempt)

    @rule(seconds=st.floats(0, 2 * LEASE_S))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        for job_id in self.table.reclaim(limit=10):
            assert state(self.table, job_id) is State.QUEUED

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        if not state(self.table, job_id).final:
            self.cancelled.add(job_id)
        self.table.cancel(job_id)

    @invariant()
    def nothing_is_lost_or_ends_twice(self) -> None:
        for job_id, ends in self.ends.items():
            job = self.table.get(job_id)
            assert job is not None
            assert ends <= 1
            if ends:
                assert job.state.final
            if job_id in self.cancelled:
                assert job.state is not State.QUEUED, "a cancelled job waits for a worker"
            assert self.crashes.get(job_id, 0) <= 3


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
