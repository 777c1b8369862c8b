"""The job tables: the cases that matter, for each kind. The state machine is beside it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.jobs import (
    Job,
    JobTable,
    KeyReused,
    Limits,
    NewJob,
    QueueFull,
    QuotaReached,
    SqliteJobTable,
    State,
)
from service.jobs.sqlite_schema import VERSIONS
from tests.service.tables import KINDS, Clock, new_table

LEASE_S = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def table(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[JobTable]:
    server = request.getfixturevalue("redis_server") if request.param == "redis" else None
    with new_table(request.param, tmp_path, clock, server) as made:
        yield made


def submit(table: JobTable, **fields: Any) -> Job:
    return table.submit(NewJob(**{"spec": {"video": "v"}, **fields}))


def claim(table: JobTable) -> Job:
    job = table.claim(lease_s=LEASE_S, worker="w")
    assert job is not None
    return job


def found(table: JobTable, job_id: str) -> Job:
    job = table.get(job_id)
    assert job is not None
    return job


def beat(table: JobTable, job: Job) -> Job | None:
    return table.beat(job.id, job.attempt, lease_s=LEASE_S, stage="scan", fraction=0.3)


def test_a_job_from_beginning_to_end(table: JobTable, clock: Clock) -> None:
    spec = {"video": {"path": "/v"}, "tracks": [], "options": {"x": None, "y": 0.1}}
    job = submit(table, spec=spec, label="tåke 1", owner="key", notify={"url": "u"})
    assert (job.state, job.attempt, job.label, job.spec) == (State.QUEUED, 0, "tåke 1", spec)
    assert (job.owner, job.created_at, job.queued_at) == ("key", clock.now, clock.now)
    assert table.get(job.id) == job

    clock.now += 1
    running = claim(table)
    assert (running.id, running.attempt, running.worker) == (job.id, 1, "w")
    assert (running.started_at, running.lease_until) == (clock.now, clock.now + LEASE_S)
    beaten = beat(table, running)
    assert beaten is not None
    assert (beaten.stage, beaten.fraction) == ("scan", 0.3)
    results = [{"verdict": "aligned"}]
    assert table.finish(job.id, 1, State.SUCCEEDED, results=results, stages={"scan": 1.5})

    done = found(table, job.id)
    assert (done.state, done.fraction, done.results) == (State.SUCCEEDED, 1.0, results)
    assert (done.finished_at, done.stages) == (clock.now, {"scan": 1.5})
    assert table.claim(lease_s=LEASE_S) is None


def test_only_one_claims(table: JobTable) -> None:
    submit(table)
    won: list[bool] = []
    barrier = threading.Barrier(8)

    def race() -> None:
        barrier.wait()
        won.append(table.claim(lease_s=LEASE_S) is not None)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(won) == [False] * 7 + [True]


def test_the_highest_priority_goes_first_then_the_oldest(table: JobTable) -> None:
    jobs = [submit(table, priority=priority).id for priority in (5, 0, 9, 5, 9)]

    assert [claim(table).id for _ in jobs] == [jobs[i] for i in (2, 4, 0, 3, 1)]


def test_a_job_put_back_keeps_its_turn(table: JobTable, clock: Clock) -> None:
    first, second = submit(table).id, submit(table).id
    assert beat(table, claim(table))
    clock.now += 1
    assert table.release(first, 1)

    waiting = found(table, first)
    assert (waiting.stage, waiting.fraction, waiting.queued_at) == ("queued", 0.0, clock.now)
    assert [claim(table).id, claim(table).id] == [first, second]


def test_a_stale_attempt_is_refused(table: JobTable, clock: Clock) -> None:
    submit(table)
    first = claim(table)
    clock.now += LEASE_S + 1
    assert table.reclaim(limit=10) == [first.id]
    second = claim(table)

    assert beat(table, first) is None
    assert not table.wanted(first.id, first.attempt)
    assert not table.finish(first.id, first.attempt, State.SUCCEEDED)
    assert not table.release(first.id, first.attempt)
    assert table.crashed(first.id, first.attempt, limit=1, words="") is None
    assert table.wanted(second.id, second.attempt)
    assert table.finish(second.id, second.attempt, State.SUCCEEDED)


def test_a_lease_of_a_file_is_on_a_clock_that_nobody_sets(tmp_path: Path) -> None:
    """Neither a wall clock set by an hour, nor a machine started again, may move it."""
    wall, steady = Clock(), Clock()
    steady.now = 5000.0
    table = SqliteJobTable(tmp_path / "jobs.sqlite", clock=wall, steady=steady)
    job = submit(table)
    claim(table)
    wall.now += 3600
    assert table.reclaim(limit=10) == []
    wall.now -= 7200
    steady.now += LEASE_S + 1
    assert table.reclaim(limit=10) == [job.id]
    claim(table)
    steady.now = 10.0
    assert table.reclaim(limit=10) == [job.id]


def test_what_is_asked_often_costs_no_more_where_many_jobs_have_ended(tmp_path: Path) -> None:
    """Counted in steps of SQLite's machine."""
    table, steps = SqliteJobTable(tmp_path / "jobs.sqlite"), [0]

    def count() -> int:
        steps[0] += 1
        return 0

    def cost(ask: Callable[[], object]) -> int:
        steps[0] = 0
        table._connections.own.set_progress_handler(count, 1)
        ask()
        table._connections.own.set_progress_handler(None, 0)
        return steps[0]

    def costs(n_more: int) -> list[int]:
        for _ in range(n_more):
            table.cancel(submit(table).id)
        limits = Limits(queued=1000, of_owner=1000)
        states = (State.CANCELLED, State.FAILED, None)
        listing = [cost(partial(table.newest, 5, state=state)) for state in states]
        return [cost(partial(table.submit, NewJob({}), limits)), *listing]

    few, many = costs(10), costs(300)

    assert all(after < 1.5 * before for before, after in zip(few, many, strict=True)), (few, many)


def test_an_end_said_again_changes_nothing(table: JobTable, clock: Clock) -> None:
    job = submit(table, notify={"url": "u"})
    claim(table)
    assert table.finish(job.id, 1, State.SUCCEEDED, results=[{"n": 1}])
    done = found(table, job.id)
    clock.now += 5

    assert table.finish(job.id, 1, State.SUCCEEDED, results=[{"n": 2}])
    assert not table.finish(job.id, 1, State.FAILED)
    assert table.cancel(job.id) == done

    assert found(table, job.id) == done
    assert table.summary().totals["ended.succeeded"] == 1
    assert len(table.take_deliveries(10, lease_s=60)) == 1


def test_a_lease_that_is_renewed_is_not_taken(table: JobTable, clock: Clock) -> None:
    submit(table)
    job = claim(table)
    for _ in range(5):
        clock.now += 0.9 * LEASE_S
        assert beat(table, job)
        assert table.reclaim(limit=10) == []


def test_crashes_are_counted_and_end_the_job(table: JobTable) -> None:
    job = submit(table)
    states = [
        table.crashed(job.id, claim(table).attempt, limit=3, words="it broke") for _ in range(3)
    ]

    assert states == [State.QUEUED, State.QUEUED, State.FAILED]
    failed = found(table, job.id)
    assert failed.error is not None
    assert failed.error["code"] == "crashed"
    assert "after 3 attempts: it broke" in failed.error["detail"]


def test_lost_workers_end_a_job_too_at_a_limit_of_their_own(table: JobTable, clock: Clock) -> None:
    job = submit(table)
    for _ in range(10):
        assert table.release(job.id, claim(table).attempt)
        claim(table)
        clock.now += LEASE_S + 1
        table.reclaim(limit=10)

    failed = found(table, job.id)
    assert (failed.crashes, failed.losses, failed.drains, failed.attempt) == (0, 10, 10, 20)
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert failed.error["code"] == "worker_lost"


def test_cancelling(table: JobTable, clock: Clock) -> None:
    queued = submit(table).id
    cancelled = table.cancel(queued)
    assert cancelled is not None
    assert cancelled.state is State.CANCELLED
    assert table.cancel(queued) == cancelled
    assert table.claim(lease_s=LEASE_S) is None

    submit(table)
    running = claim(table)
    table.cancel(running.id)
    assert not table.wanted(running.id, running.attempt)
    heard = beat(table, running)
    assert heard is not None
    assert heard.cancel_requested
    assert table.finish(running.id, running.attempt, State.CANCELLED)

    submit(table)
    lost = claim(table)
    table.cancel(lost.id)
    clock.now += LEASE_S + 1
    assert table.reclaim(limit=10) == []
    assert found(table, lost.id).state is State.CANCELLED

    assert table.cancel("unknown") is None


def test_only_ended_jobs_are_purged_and_with_them_their_key(table: JobTable) -> None:
    job = submit(table, idempotency_key="k", fingerprint="f", notify={"url": "u"})
    assert not table.purge(job.id)
    claim(table)
    assert not table.purge(job.id)
    table.finish(job.id, 1, State.SUCCEEDED)

    assert table.purge(job.id)
    assert table.get(job.id) is None
    assert table.newest(10) == []
    assert table.take_deliveries(10, lease_s=1) == []
    assert not table.purge(job.id)
    assert submit(table, idempotency_key="k", fingerprint="other").state is State.QUEUED


def test_pages_are_newest_first_and_do_not_overlap(table: JobTable) -> None:
    ids = [submit(table, owner="ab"[n % 2]).id for n in range(7)]

    first = table.newest(4)
    second = table.newest(4, before=first[-1].number)

    assert [job.id for job in (*first, *second)] == ids[::-1]
    assert [job.id for job in table.newest(9, owner="b")] == ids[1::2][::-1]
    for number in (2, 4, 5):
        table.cancel(ids[number])
    of_all = table.newest(2, state=State.CANCELLED)
    assert [job.id for job in of_all] == [ids[5], ids[4]]
    following = table.newest(2, state=State.CANCELLED, before=of_all[-1].number)
    assert [job.id for job in following] == [ids[2]]
    assert [job.id for job in table.newest(9, owner="b", state=State.CANCELLED)] == [ids[5]]
    assert table.newest(9, owner="nobody") == []


def test_a_key_stands_for_its_first_request_for_a_day(table: JobTable, clock: Clock) -> None:
    def again(owner: str = "a", fingerprint: str = "f") -> str:
        return submit(table, owner=owner, idempotency_key="k", fingerprint=fingerprint).id

    first = again()

    assert again() == first
    assert again(owner="b") != first
    with pytest.raises(KeyReused, match="'k'"):
        again(fingerprint="g")
    clock.now += 24 * 3600 + 1
    second = again(fingerprint="g")
    assert second != first
    assert again(fingerprint="g") == second


def test_submitted_again_with_its_id_a_job_is_there_once(table: JobTable) -> None:
    new = NewJob({"a": 1})
    first = table.submit(new)
    claim(table)

    assert table.submit(new).id == first.id
    assert len(table.newest(10)) == 1
    assert found(table, first.id).state is State.RUNNING


def test_limits_of_an_owner_and_of_all(table: JobTable) -> None:
    limits = Limits(queued=3, of_owner=2)

    def add(owner: str) -> Job:
        table.check_room(owner, limits)
        return table.submit(NewJob({}, owner=owner), limits)

    def refused(owner: str, error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words):
            table.check_room(owner, limits)
        with pytest.raises(error, match=words):
            table.submit(NewJob({}, owner=owner), limits)

    add("a")
    add("a")
    refused("a", QuotaReached, "2 jobs")
    add("b")
    refused("b", QueueFull, "3 jobs")
    running = claim(table)
    refused("a", QuotaReached, "2 jobs")
    add("b")
    table.finish(running.id, 1, State.SUCCEEDED)
    claim(table)
    add("a")
    assert table.waiting() == 3


def test_the_outbox_holds_an_end_until_it_is_delivered(table: JobTable, clock: Clock) -> None:
    told, quiet = submit(table, owner="o", notify={"url": "u"}), submit(table)
    queued = submit(table, notify={"url": "q"})
    table.cancel(queued.id)
    for job in (told, quiet):
        claim(table)
        table.finish(job.id, 1, State.FAILED, error={"code": "c", "detail": "d"})

    taken = table.take_deliveries(10, lease_s=30)
    assert {(d.job_id, d.owner, d.notify["url"], d.tries) for d in taken} == {
        (told.id, "o", "u", 1), (queued.id, "", "q", 1),
    }  # fmt: skip
    assert table.take_deliveries(10, lease_s=30) == []
    first, second = taken
    table.drop_delivery(first.id)
    table.postpone_delivery(second.id, 100, "refused")
    clock.now += 99
    assert table.take_deliveries(10, lease_s=30) == []
    clock.now += 2
    (again,) = table.take_deliveries(10, lease_s=30)
    assert (again.id, again.tries, again.error) == (second.id, 2, "refused")
    clock.now += 31
    assert [d.tries for d in table.take_deliveries(10, lease_s=30)] == [3]
    assert table.summary().deliveries == 1


def test_old_jobs_are_found_by_their_end(table: JobTable, clock: Clock) -> None:
    jobs = [submit(table) for _ in range(4)]
    for job in jobs[:3]:
        clock.now += 1
        table.cancel(job.id)

    assert table.ended_before(clock.now, 10) == [jobs[0].id, jobs[1].id]
    assert table.ended_before(clock.now + 1, 1) == [jobs[0].id]


def test_workers_are_there_while_they_say_so(table: JobTable, clock: Clock) -> None:
    table.announce("b", {"device": "cpu"}, ttl_s=10)
    clock.now += 6
    table.announce("a", {"device": "cuda:0"}, ttl_s=10)

    assert [(w.name, w.info["device"]) for w in table.workers()] == [("a", "cuda:0"), ("b", "cpu")]
    clock.now += 6
    assert [w.name for w in table.workers()] == ["a"]


def test_the_summary_counts_and_tells_ages(table: JobTable, clock: Clock) -> None:
    start = clock.now
    for _ in range(3):
        submit(table)
        clock.now += 1
    done = claim(table)
    table.finish(done.id, 1, State.SUCCEEDED, stages={"scan": 2.0})
    running = claim(table)
    clock.now += 1
    beat(table, running)
    clock.now += 1
    summary = table.summary()

    assert summary.counts == {
        State.QUEUED: 1, State.RUNNING: 1, State.SUCCEEDED: 1, State.FAILED: 0, State.CANCELLED: 0,
    }  # fmt: skip
    assert summary.now == clock.now
    assert summary.oldest_queued_at == start + 2
    assert summary.oldest_beat_at == clock.now - 1
    assert summary.totals == {
        "ended.succeeded": 1, "stage.scan.seconds": 2.0, "stage.scan.count": 1,
    }  # fmt: skip


# --- of the file ---------------------------------------------------------------------------------


def test_what_was_submitted_is_there_for_another_process(tmp_path: Path) -> None:
    table = SqliteJobTable(tmp_path / "jobs.sqlite")
    job = table.submit(NewJob({"a": 1}))

    assert SqliteJobTable(tmp_path / "jobs.sqlite").get(job.id) == job
    synchronous = table._connections.own.execute("PRAGMA synchronous").fetchone()
    assert tuple(synchronous) == (2,)  # FULL: a power cut takes nothing that was committed


def test_a_change_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    table = SqliteJobTable(tmp_path / "jobs.sqlite")
    job = submit(table)
    running = claim(table)
    stages: dict[str, Any] = {"scan": "too long to be told"}
    with pytest.raises(sqlite3.IntegrityError):
        table.finish(job.id, 1, State.SUCCEEDED, stages=stages)
    assert found(table, job.id) == running


@pytest.mark.parametrize("numbered", [True, False])
def test_a_store_of_the_first_version_is_opened_and_goes_on(tmp_path: Path, numbered: bool) -> None:
    path = tmp_path / "jobs.sqlite"
    old = sqlite3.connect(path)
    old.executescript(VERSIONS[0])
    old.execute(f"PRAGMA user_version = {int(numbered)}")
    old.execute("INSERT INTO jobs (id, state, label, spec, created_at) VALUES (?, ?, ?, ?, ?)",
                ("i", "queued", "l", "{}", 5.0))  # fmt: skip
    old.commit()
    old.close()

    table = SqliteJobTable(path)

    job = claim(table)
    assert (job.id, job.priority, job.queued_at) == ("i", 5, 5.0)
    assert SqliteJobTable(path).finish("i", 1, State.SUCCEEDED)


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")

    with pytest.raises(ValueError, match="version 99"):
        SqliteJobTable(path)
