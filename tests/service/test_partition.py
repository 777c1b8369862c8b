"""A worker whose network is cut in the middle of a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.deployment import LEASE_S, Deployment
from tests.service.namespaces import ADDRESS, Namespace, namespaces
from tests.service.redis_server import RedisServer

pytestmark = [pytest.mark.needs("redis-server"), pytest.mark.needs("netns")]


@pytest.fixture
def hosts() -> Iterator[list[Namespace]]:
    with namespaces(2) as made:
        yield made


@pytest.fixture
def service(tmp_path: Path, hosts: list[Namespace]) -> Iterator[Deployment]:
    deployment = Deployment(
        tmp_path / "deployment",
        workers=2,
        redis=RedisServer(tmp_path / "redis", address=ADDRESS, options={"protected-mode": "no"}),
        prefixes={f"worker-{n}": host.prefix for n, host in enumerate(hosts)},
    )
    yield deployment.start()
    deployment.stop()


def test_a_worker_cut_off_ends_its_child_and_another_does_the_job(
    service: Deployment, hosts: list[Namespace]
) -> None:
    order = json.dumps({"do": "work", "seconds": 6 * LEASE_S}).encode()
    job_id = service.submit(order).json()["id"]
    service.wait_for(job_id, "running")
    table = service.table()
    job = table.get(job_id)
    assert job is not None
    cut = next(n for n in range(2) if f":{service.processes[f'worker-{n}'].pid}/" in job.worker)

    hosts[cut].unplug()
    service.until(lambda: not service.children(f"worker-{cut}"), "it ends its child", 30)
    service.until(lambda: service.get(f"/jobs/{job_id}")["attempt"] == 2, "another has it", 30)
    hosts[cut].plug_in()
    ended = service.wait_for(job_id, "succeeded", "failed")

    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    job = table.get(job_id)
    assert job is not None
    assert f":{service.processes[f'worker-{1 - cut}'].pid}/" in job.worker
    assert (job.losses, job.crashes) == (1, 0)
    # It works again: with both asked for at once, each worker has a job.
    quick = json.dumps({"do": "work", "seconds": 4}).encode()
    both = [service.submit(quick).json()["id"] for _ in range(2)]
    workers = set()
    for name in both:
        service.wait_for(name, "succeeded")
        done = table.get(name)
        assert done is not None
        workers.add(done.worker)
    assert len(workers) == 2
