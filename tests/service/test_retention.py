"""What becomes of ended jobs where their files cannot all be deleted."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import cast

import httpx
import pytest

from model.errors import OutputError
from service.jobs import NewJob, State
from service.jobs.sqlite import SqliteJobTable
from service.objects.names import ObjectName
from service.objects.store import ObjectStore
from service.retention import Purge, Retention
from service.settings import Settings
from service.storage import Storage
from tests.service.conftest import Server
from tests.service.s3_server import KEYS

STORE = "s3://results/"


class Locked:
    """An object store that refuses to delete some objects, as under a legal hold."""

    def delete(self, name: ObjectName) -> None:
        if "held" in name.key:
            raise OutputError(f"{name.uri} cannot be deleted (Access Denied).")


def test_a_job_whose_objects_cannot_be_deleted_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    table = SqliteJobTable(tmp_path / "jobs.sqlite", clock=lambda: now - 1000)
    ids = []
    for name in ("held", "free", "held too", "free too"):
        ids.append(table.submit(NewJob({"output": STORE})).id)
        table.claim(lease_s=10)
        results = [{"objects": {"audio": f"{STORE}{name}"}}]
        assert table.finish(ids[-1], 1, State.SUCCEEDED, results=results)
    young = SqliteJobTable(tmp_path / "jobs.sqlite")  # by the clock of today
    ids.append(young.submit(NewJob({})).id)
    young.cancel(ids[-1])
    settings = Settings(data_dir=tmp_path, results_url=STORE, keep_days=100 / 86400)
    storage = Storage(tmp_path)
    purge = Purge(table, storage, cast(ObjectStore, Locked()), settings)
    retention = Retention(table, purge, storage, settings)
    monkeypatch.setattr(retention, "_look_s", 0.0)

    for _ in range(5):
        retention.sweep()

    assert [table.get(job_id) is not None for job_id in ids] == [
        True, False, True, False, True,
    ]  # fmt: skip


def test_a_store_that_does_not_answer_keeps_nothing_else_from_being_done(
    own_server: Server,
) -> None:
    own_server.data_dir.mkdir()
    table = SqliteJobTable(own_server.data_dir / "jobs.sqlite", clock=lambda: time.time() - 1000)
    table.submit(NewJob({"output": STORE}))
    table.claim(lease_s=10)
    (job,) = table.newest(1)
    results = [{"objects": {"audio": f"{STORE}a.wav"}}]
    assert table.finish(job.id, 1, State.SUCCEEDED, results=results)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        own_server.settings |= {
            **KEYS, "AVSA_RESULTS_URL": STORE, "AVSA_KEEP_DAYS": str(100 / 86400),
            "AVSA_OBJECT_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        own_server.start()
        silent.settimeout(30)
        asked, _ = silent.accept()
        with asked:
            time.sleep(4)  # more than ten sweeps
            assert httpx.get(f"{own_server.url}/readyz").status_code == 200
            assert "avsa_workers 1.0" in httpx.get(f"{own_server.url}/metrics").text
