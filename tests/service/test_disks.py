"""What becomes of the service, and of files, where a disk or whoever writes to it is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from service.jobs import NewJob, SqliteJobTable, State
from service.objects.store import ObjectStore
from service.retention import Purge, Retention
from service.settings import Settings
from service.storage import Storage
from tests.service.conftest import Deploy

TUS = {"Tus-Resumable": "1.0.0"}
needs_redis = pytest.mark.needs("redis-server")


@needs_redis
def test_a_disk_that_is_gone_is_told_by_readiness_and_metrics(deploy: Deploy) -> None:
    cluster = deploy(workers=1)  # whose table is elsewhere, and takes jobs still
    shutil.rmtree(cluster.data_dir)

    ready = httpx.get(f"{cluster.url}/readyz")
    numbers = httpx.get(f"{cluster.url}/metrics")

    upload = httpx.post(f"{cluster.url}/uploads", headers={**TUS, "Upload-Length": "1"})

    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert (upload.status_code, upload.json()["code"]) == (503, "disk_failed")
    assert str(cluster.data_dir) in ready.json()["detail"]
    assert numbers.status_code == 200
    assert "avsa_disk_free_bytes 0.0" in numbers.text
    assert "avsa_workers 1.0" in numbers.text


@needs_redis
@pytest.mark.needs("root")
def test_a_disk_that_only_reads_is_not_ready(deploy: Deploy, tmp_path: Path) -> None:
    """As a file system is after an error of its disk."""
    disk = tmp_path / "deployment" / "data"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    try:
        cluster = deploy(workers=1)
        begun = f"{cluster.url}/uploads/{'a' * 32}"
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        ready = httpx.get(f"{cluster.url}/readyz")
        refused = [
            httpx.put(begun, content=b"a take"),
            httpx.post(f"{cluster.url}/uploads", headers={**TUS, "Upload-Length": "1"}),
            httpx.post(f"{cluster.url}/align", files={"video": b"v"}),
        ]
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        again = httpx.get(f"{cluster.url}/readyz")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)

    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert "Read-only" in ready.json()["detail"]
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (503, "disk_failed"), answer.text
        assert answer.headers["retry-after"]
    assert again.status_code == 200


def test_what_a_killed_worker_left_on_its_own_disk_is_deleted_when_it_is_back(
    tmp_path: Path,
) -> None:
    """Its job was done by another, on another disk."""
    table, storage = SqliteJobTable(tmp_path / "jobs.sqlite"), Storage(tmp_path / "own")
    settings = Settings(data_dir=tmp_path / "own")
    objects = ObjectStore(settings)
    job_id = table.submit(NewJob({})).id
    table.claim(lease_s=-1)
    (storage.begin(job_id, 1) / "half.wav").touch()
    assert table.reclaim(limit=10) == [job_id]
    table.claim(lease_s=10)
    assert table.finish(job_id, 2, State.SUCCEEDED)
    purge = Purge(table, storage, objects, settings)

    Retention(table, purge, storage, settings).sweep()
    assert list((tmp_path / "own" / "results").iterdir()) == []

    (storage.begin(job_id, 2) / "audio-0.wav").touch()  # where it had the disk of that other
    Retention(table, purge, storage, settings).sweep()
    assert [path.name for path in (tmp_path / "own" / "results" / job_id).iterdir()] == ["2"]


def test_results_stay_that_may_count(tmp_path: Path) -> None:
    """Of a job: its attempt that counts and any that may have begun since; of none: the young."""
    storage = Storage(tmp_path)
    attempts = {"known": 2, "gone": None, "lost with its table": None}
    for job_id, number in (("known", 1), ("known", 2), ("known", 3), ("gone", 1)):
        (storage.begin(job_id, number) / "audio-0.wav").touch()
    for path in (tmp_path / "results" / "gone" / "1").rglob("*"):
        os.utime(path, (0, time.time() - 100))
    os.utime(tmp_path / "results" / "gone" / "1", (0, time.time() - 100))
    (storage.begin("lost with its table", 1) / "audio-0.wav").touch()

    swept = storage.sweep_results(attempts.__getitem__, older_than_s=50)

    assert sorted(swept) == ["gone/1", "known/1"]
    left = {str(path.relative_to(tmp_path / "results")) for path in tmp_path.rglob("*.wav")}
    assert left == {
        f"{name}/audio-0.wav" for name in ("known/2", "known/3", "lost with its table/1")
    }
