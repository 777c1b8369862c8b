"""What expired uploads and requests that died have left is deleted, and nothing else."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.storage import Storage
from service.sweeper import Sweeper


def test_what_is_due_is_deleted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Storage(tmp_path, 0)
    for name, age_s in (("job", 100), ("died", 100), ("young", 5)):
        folder = storage.upload_folder(name)
        folder.mkdir()
        os.utime(folder, (time.time() - age_s,) * 2)
    uploads: Any = SimpleNamespace(sweep=lambda: ["expired"])
    sweeper = Sweeper(uploads, storage, lambda name: name == "job", every_s=60.0, ttl_s=50.0)

    with caplog.at_level(logging.INFO, "avsa.sweeper"):
        sweeper.sweep()

    left = {name: storage.upload_folder(name).exists() for name in ("job", "died", "young")}
    assert left == {"job": True, "died": False, "young": True}
    assert [record.getMessage() for record in caplog.records] == [
        "the upload expired has expired",
        "the files of a request that died are deleted: died",
    ]
