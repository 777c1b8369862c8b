"""What the service promises when something breaks: real processes, a real Redis, quick work."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from service.jobs import Job, JobTable, NewJob, State, TableUnreachable
from service.jobs.redis import RedisJobTable, connect
from service.workers.child_process import pinned
from tests.service.conftest import Deploy
from tests.service.deployment import LEASE_S, Deployment
from tests.service.ports import free_port
from tests.service.redis_server import RedisServer

needs_redis = pytest.mark.needs("redis-server")


def submit(deployment: Deployment, do: str = "work", seconds: float = 0.0, **options: Any) -> str:
    order = json.dumps({"do": do, "seconds": seconds}).encode()
    response = deployment.submit(order, options=json.dumps(options))
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def row(table: JobTable, job_id: str) -> Job:
    job = table.get(job_id)
    assert job is not None
    return job


def worker_of(deployment: Deployment, job_id: str) -> str:
    """Name of the process that has a job, once one has."""
    deployment.wait_for(job_id, "running")
    worker = row(deployment.table(), job_id).worker
    return next(n for n in deployment.working if f":{deployment.processes[n].pid}/" in worker)


def ends(deployment: Deployment) -> float:
    totals = deployment.table().summary().totals
    return sum(count for name, count in totals.items() if name.startswith("ended."))


# --- workers that die, freeze or go --------------------------------------------------------------


@needs_redis
def test_a_frozen_workers_job_is_done_by_another_and_its_own_end_is_refused(
    deploy: Deploy,
) -> None:
    cluster = deploy(workers=2)
    job_id = submit(cluster, seconds=1.5)
    frozen = worker_of(cluster, job_id)

    cluster.signal(frozen, signal.SIGSTOP)  # its child goes on, and ends its work
    done = cluster.wait_for(job_id, "succeeded")
    cluster.signal(frozen, signal.SIGCONT)
    cluster.until(lambda: "was lost" in cluster.log(), "the frozen worker hears that it has lost")

    assert done["attempt"] == 2
    results = cluster.data_dir / "results" / job_id
    cluster.until(lambda: [f.name for f in results.iterdir()] == ["2"], "one attempt's files stay")
    assert cluster.get(f"/jobs/{job_id}") == done
    assert ends(cluster) == 1
    again = submit(cluster)  # the worker that was frozen is of use again
    cluster.wait_for(again, "succeeded")


@needs_redis
def test_a_frozen_redis_ends_children_answers_503_and_loses_nothing(deploy: Deploy) -> None:
    cluster = deploy(workers=1)
    assert cluster.redis is not None
    job_id = submit(cluster, seconds=2 * LEASE_S)
    worker_of(cluster, job_id)
    assert cluster.children("worker-0")

    cluster.redis.freeze()
    try:
        cluster.until(lambda: not cluster.children("worker-0"), "the worker fences itself")
        for path in ("/readyz", f"/jobs/{job_id}"):
            response = httpx.get(cluster.url + path, timeout=30)
            assert response.status_code == 503
            assert response.headers["retry-after"]
            assert response.headers["content-type"] == "application/problem+json"
            assert re.fullmatch(r".*[^.]\.", response.json()["detail"])
        assert httpx.get(f"{cluster.url}/livez").status_code == 200
    finally:
        cluster.redis.thaw()
    done = cluster.wait_for(job_id, "succeeded")

    assert done["attempt"] == 2
    assert ends(cluster) == 1


@needs_redis
def test_a_redis_that_takes_no_writes_is_a_503_and_all_goes_on_after_it(deploy: Deploy) -> None:
    """For the worker that is at a job, and for the one that waits for a message."""
    cluster = deploy(workers=2)
    assert cluster.redis is not None
    running = submit(cluster, seconds=1.0)
    worker_of(cluster, running)

    with connect(cluster.redis.url, timeout_s=10) as client:
        client.config_set("min-replicas-to-write", 1)
        order = json.dumps({"do": "work"}).encode()
        assert refused(cluster.submit(order), 503, "table_unreachable")
        client.config_set("min-replicas-to-write", 0)

    # Its lease may have run out meanwhile; what the worker then said was refused, and it went on.
    cluster.wait_for(running, "succeeded")
    cluster.wait_for(submit(cluster), "succeeded")
    assert row(cluster.table(), running).crashes == 0
    assert all(process.poll() is None for process in cluster.processes.values())
    assert "the outbox is out of reach" in cluster.log()
    assert "unhandled" not in cluster.log()


@needs_redis
def test_a_job_longer_than_lease_and_visibility_timeout_runs_once(deploy: Deploy) -> None:
    cluster = deploy(workers=2, wake_up_s=1)
    # One step, of which nothing is heard: not progress is what renews the lease.
    order = json.dumps({"do": "work", "seconds": 3 * LEASE_S, "steps": 1}).encode()
    job_id = cluster.submit(order).json()["id"]

    done = cluster.wait_for(job_id, "succeeded")

    assert done["attempt"] == 1
    assert cluster.log().count(f"job {job_id} attempt") == 2  # starts; succeeded


@needs_redis
def test_a_worker_told_to_stop_puts_its_job_back_uncounted(deploy: Deploy) -> None:
    cluster = deploy(workers=2)
    job_id = submit(cluster, seconds=2.0)
    told = worker_of(cluster, job_id)

    cluster.signal(told, signal.SIGTERM)
    cluster.processes[told].wait(30)
    cluster.wait_for(job_id, "succeeded")

    job = row(cluster.table(), job_id)
    assert (job.attempt, job.drains, job.losses, job.crashes) == (2, 1, 0, 0)
    assert [w.name for w in cluster.table().workers() if job.worker == w.name]


@needs_redis
def test_a_wake_up_that_is_lost_is_made_up_for(deploy: Deploy) -> None:
    cluster = deploy(workers=1)
    assert cluster.redis is not None
    cluster.kill("worker-0")
    jobs = [submit(cluster) for _ in range(3)]
    with connect(cluster.redis.url, timeout_s=10) as client:
        cluster.until(lambda: client.llen("avsa:broker:wake-ups") == 3, "three messages wait")
        client.delete("avsa:broker:wake-ups")
    cluster.start_one("worker-0")

    for job_id in jobs:
        cluster.wait_for(job_id, "succeeded")


def test_children_end_with_their_worker_and_the_job_goes_on(deploy: Deploy) -> None:
    service = deploy()
    job_id = submit(service, seconds=1.0)
    worker_of(service, job_id)
    children = service.children("api")
    assert children

    service.kill("api")
    service.until(lambda: not service.all_children(), "the children are gone", 30)
    service.start_one("api")

    assert service.wait_for(job_id, "succeeded")["attempt"] == 2
    assert row(service.table(), job_id).losses == 1


# --- children and jobs that misbehave ------------------------------------------------------------


def test_poison_stops_after_three_crashes_and_others_go_on(deploy: Deploy) -> None:
    service = deploy(child_memory_bytes=150 << 20)
    crashing, growing, good = (submit(service, do) for do in ("crash", "grow", "work"))

    service.wait_for(good, "succeeded")

    for job_id, words in ((crashing, "ended unexpectedly"), (growing, "MiB of memory; the limit")):
        error = service.wait_for(job_id, "failed")["error"]
        assert error["code"] == "crashed"
        assert "after 3 attempts" in error["detail"]
        assert words in error["detail"]
        assert row(service.table(), job_id).crashes == 3


def test_a_child_that_cannot_start_harms_no_job(deploy: Deploy) -> None:
    service = deploy(child_module="tests.service.no_such_child")
    job_id = submit(service)
    service.until(lambda: "ended before it was ready" in service.log(), "the worker says why")
    job = row(service.table(), job_id)
    assert (job.state, job.attempt, job.crashes) == (State.QUEUED, 0, 0)

    service.signal("api", signal.SIGTERM)
    service.processes["api"].wait(30)
    del service.settings["AVSA_CHILD_MODULE"]
    service.start_one("api")
    assert service.wait_for(job_id, "succeeded")["attempt"] == 1


def test_a_child_is_replaced_after_so_many_jobs_and_after_an_error_of_ours(deploy: Deploy) -> None:
    service = deploy(child_jobs=2)
    pids = []
    for do in ("work", "work", "work", "break", "work"):
        service.wait_for(submit(service, do, 0.3), "succeeded", "failed")
        if do == "break":
            service.until(lambda: not service.children("api"), "its child is ended")
        pids += service.children("api")

    assert pids[0] == pids[1]
    assert pids[2] != pids[1]
    assert pids[3] not in pids[:3]


def test_a_hung_job_is_cancelled_and_its_child_gone(deploy: Deploy) -> None:
    service = deploy()
    hung = submit(service, "hang")
    worker_of(service, hung)
    httpx.post(f"{service.url}/jobs/{hung}/cancel")
    service.wait_for(hung, "cancelled")
    assert not service.all_children()


def test_a_job_that_runs_too_long_is_ended(deploy: Deploy) -> None:
    service = deploy(job_limit_s=1)
    late = submit(service, "hang")
    assert service.wait_for(late, "failed")["error"]["code"] == "time_limit"


@needs_redis
def test_a_queued_job_is_cancelled_with_no_worker_and_never_runs(deploy: Deploy) -> None:
    cluster = deploy(workers=1)
    cluster.kill("worker-0")
    job_id = submit(cluster)

    response = httpx.post(f"{cluster.url}/jobs/{job_id}/cancel")
    cluster.start_one("worker-0")
    cluster.wait_for(submit(cluster), "succeeded")

    assert response.json()["state"] == "cancelled"
    assert cluster.get(f"/jobs/{job_id}")["attempt"] == 0


# --- several devices, priorities, limits, retention ----------------------------------------------


def test_each_device_has_a_worker_of_its_own(deploy: Deploy) -> None:
    service = deploy(device="cpu,cpu")
    jobs = [submit(service, seconds=3.0) for _ in range(2)]

    for job_id in jobs:
        service.wait_for(job_id, "running")
    assert {row(service.table(), job_id).state for job_id in jobs} == {State.RUNNING}
    assert len(service.children("api")) == 2
    for job_id in jobs:
        service.wait_for(job_id, "succeeded")


def test_a_child_sees_its_own_gpu_only() -> None:
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    assert pinned("cuda:1")["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in pinned("cuda")
    os.environ["CUDA_VISIBLE_DEVICES"] = "4,6"
    assert pinned("cuda:1")["CUDA_VISIBLE_DEVICES"] == "6"
    assert pinned("cuda")["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert pinned("cpu")["CUDA_VISIBLE_DEVICES"] == ""


def refused(response: httpx.Response, status: int, code: str) -> bool:
    told = (response.status_code, response.json().get("code"))
    return told == (status, code) and (status == 422 or "retry-after" in response.headers)


def test_priorities_and_limits_over_http(deploy: Deploy) -> None:
    service = deploy(max_queued=3, max_jobs_of_key=3)
    order = json.dumps({"do": "work"}).encode()
    blocking = submit(service, "hang")
    service.wait_for(blocking, "running")
    jobs = [submit(service, priority=priority) for priority in (1, 9)]
    assert refused(service.submit(order), 429, "quota_reached")
    uploads = service.data_dir / "uploads"
    assert len(list(uploads.iterdir())) == 3

    httpx.post(f"{service.url}/jobs/{blocking}/cancel")
    for job_id in jobs:
        service.wait_for(job_id, "succeeded")

    low, high = (row(service.table(), job_id).started_at or 0.0 for job_id in jobs)
    assert high < low


def test_a_full_queue_is_said_before_anything_is_read(deploy: Deploy) -> None:
    service = deploy(max_queued=1)
    service.wait_for(submit(service, "hang"), "running")
    order = json.dumps({"do": "work"}).encode()
    waiting = service.submit(order, key="k").json()["id"]

    assert refused(service.submit(order), 503, "queue_full")
    assert refused(service.submit(order, key="l"), 503, "queue_full")
    assert len(list((service.data_dir / "uploads").iterdir())) == 2
    # What was accepted is accepted when it comes again.
    again = service.submit(order, key="k")
    assert (again.status_code, again.json()["id"]) == (202, waiting)
    assert refused(service.submit(order, b"other", key="k"), 422, "idempotency_key_reused")


def test_an_idempotency_key_over_http(deploy: Deploy) -> None:
    service = deploy()
    order = json.dumps({"do": "work"}).encode()
    first = service.submit(order, key="k").json()["id"]

    assert service.submit(order, key="k").json()["id"] == first
    assert service.submit(order, key='"k"').json()["id"] == first
    assert refused(service.submit(order, b"other sound", key="k"), 422, "idempotency_key_reused")
    other = service.submit(order, key="k", options='{"windows": 3}')
    assert refused(other, 422, "idempotency_key_reused")
    beside = {"reference": b"1", "detections": b"2"}
    given = service.submit(order, key="m", beside=beside).json()["id"]
    turned = dict(reversed(beside.items()))
    assert service.submit(order, key="m", beside=turned).json()["id"] == given
    for changed in ({}, {"reference": b"1"}, {"reference": b"3", "detections": b"2"},
                    {"reference": b"1", "orientation": b"2"}):  # fmt: skip
        other = service.submit(order, key="m", beside=changed)
        assert refused(other, 422, "idempotency_key_reused")
    bad = service.submit(order, key="two words")
    assert (bad.status_code, bad.json()["code"]) == (400, "invalid_idempotency_key")
    uploads = {path.name for path in (service.data_dir / "uploads").iterdir()}
    assert uploads == {first, given}


def test_ended_jobs_are_deleted_with_their_files_after_a_while(deploy: Deploy) -> None:
    service = deploy(keep_days=3 / 86400)
    job_id = submit(service)
    service.wait_for(job_id, "succeeded")

    service.until(
        lambda: httpx.get(f"{service.url}/jobs/{job_id}").status_code == 404, "the job is gone"
    )
    for folder in ("uploads", "results"):
        assert not (service.data_dir / folder / job_id).exists()


# --- a Redis that would lose jobs ----------------------------------------------------------------


@needs_redis
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("appendonly", "no", "appendonly yes"), ("maxmemory-policy", "allkeys-lru", "noeviction")],
)
def test_a_redis_that_may_lose_jobs_is_not_ready(
    tmp_path: Path, option: str, value: str, words: str
) -> None:
    server = RedisServer(tmp_path, options={option: value}).start()
    try:
        with (
            connect(server.url, timeout_s=5) as client,
            pytest.raises(TableUnreachable, match=words),
        ):
            RedisJobTable(client).check()
    finally:
        server.stop()


@needs_redis
def test_a_full_redis_takes_no_job_and_ends_those_it_has(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    try:
        with connect(server.url, timeout_s=5) as client:
            table = RedisJobTable(client)
            table.check()
            for _ in range(10):
                table.submit(NewJob({}))
            client.config_set("maxmemory", 1000)  # less than it uses
            with pytest.raises(TableUnreachable):
                table.submit(NewJob({}))
            job = table.claim(lease_s=10)
            assert job is not None
            assert table.finish(job.id, 1, State.SUCCEEDED, results=[{}])
            assert (table.waiting(), len(table.newest(200))) == (9, 10)
    finally:
        server.stop()


def break_saving(server: RedisServer, client: redis.Redis) -> None:
    """Its snapshot cannot be put in place."""
    (server.folder / "dump.rdb" / "in the way").mkdir(parents=True)
    client.config_set("save", "3600 1")
    client.bgsave()
    while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
        time.sleep(0.05)


def miss_replicas(server: RedisServer, client: redis.Redis) -> None:
    client.config_set("min-replicas-to-write", 1)


def lose_master(server: RedisServer, client: redis.Redis) -> None:
    client.config_set("replica-serve-stale-data", "no")
    client.replicaof("127.0.0.1", free_port())


@needs_redis
@pytest.mark.parametrize(
    ("break_it", "words", "reads"),
    [
        (break_saving, "MISCONF", True),
        (miss_replicas, "NOREPLICAS", True),
        (lose_master, "read only|MASTER is down", False),
    ],
)
def test_a_redis_that_refuses_is_out_of_reach(
    tmp_path: Path, break_it: Callable[[RedisServer, redis.Redis], None], words: str, reads: bool
) -> None:
    server = RedisServer(tmp_path).start()
    try:
        with connect(server.url, timeout_s=5) as client:
            table = RedisJobTable(client)
            job_id = table.submit(NewJob({})).id
            break_it(server, client)
            asked: list[Callable[[], object]] = [
                lambda: table.submit(NewJob({})),
                lambda: table.claim(lease_s=10),
                lambda: table.finish(job_id, 1, State.SUCCEEDED),
                lambda: table.take_deliveries(1, lease_s=10),
                table.check,
                *([] if reads else [table.waiting, lambda: table.newest(5)]),
            ]
            for ask in asked:
                with pytest.raises(TableUnreachable, match=words):
                    ask()
            assert not reads or table.waiting() == 1
    finally:
        server.stop()


@needs_redis
def test_a_killed_redis_has_every_job_that_it_took(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    try:
        taken = []
        for _ in range(5):
            with connect(server.url, timeout_s=5) as client:
                taken += [RedisJobTable(client).submit(NewJob({})).id for _ in range(20)]
            server.kill()
            server.start()
        with connect(server.url, timeout_s=5) as client:
            assert [job.id for job in RedisJobTable(client).newest(200)] == taken[::-1]
    finally:
        server.stop()


def test_a_table_that_is_locked_is_out_of_reach(tmp_path: Path) -> None:
    import sqlite3

    from service.jobs import SqliteJobTable

    table = SqliteJobTable(tmp_path / "jobs.sqlite", busy_s=0.1)
    other = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(TableUnreachable, match="locked"):
        table.submit(NewJob({}))
    assert time.monotonic() - began < 5
    other.execute("ROLLBACK")
    other.close()
    assert table.submit(NewJob({})).state is State.QUEUED
