"""What becomes of the service, and of files, where a disk or whoever writes to it is gone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import Deploy

pytestmark = pytest.mark.needs("redis-server")


def test_a_disk_that_is_gone_is_told_by_readiness_and_metrics(deploy: Deploy) -> None:
    cluster = deploy(workers=1)  # whose table is elsewhere, and takes jobs still
    shutil.rmtree(cluster.data_dir)

    ready = httpx.get(f"{cluster.url}/readyz")
    numbers = httpx.get(f"{cluster.url}/metrics")

    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert str(cluster.data_dir) in ready.json()["detail"]
    assert numbers.status_code == 200
    assert "avsa_disk_free_bytes 0.0" in numbers.text
    assert "avsa_workers 1.0" in numbers.text


@pytest.mark.needs("root")
def test_a_disk_that_only_reads_is_not_ready(deploy: Deploy, tmp_path: Path) -> None:
    """As a file system is after an error of its disk."""
    disk = tmp_path / "deployment" / "data"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    try:
        cluster = deploy(workers=1)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        ready = httpx.get(f"{cluster.url}/readyz")
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        again = httpx.get(f"{cluster.url}/readyz")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)

    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert "Read-only" in ready.json()["detail"]
    assert again.status_code == 200
