"""A job's files between an object store and the disk of the worker's child."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from service.objects import transfer
from service.objects.names import ObjectName
from service.objects.store import ObjectFacts
from service.settings import Settings


class Store:
    """A store in memory that counts its connections."""

    objects: ClassVar[dict[str, bytes]] = {"s3://takes/in/a.mp4": b"video"}
    connected: ClassVar[list[object]] = []

    def __init__(self, _settings: Settings) -> None:
        self.connected.append(self)

    def fetch(
        self, name: ObjectName, _facts: ObjectFacts, path: Path, notify: Callable[[float], None]
    ) -> None:
        path.write_bytes(self.objects[name.uri])
        notify(1.0)

    def store(self, path: Path, name: ObjectName) -> None:
        self.objects[name.uri] = path.read_bytes()

    def close(self) -> None:
        self.connected.remove(self)


def test_a_job_gives_back_its_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child does hundreds of jobs."""
    monkeypatch.setattr(transfer, "ObjectStore", Store)
    folder = tmp_path / "results" / "job" / "1"
    folder.mkdir(parents=True)
    entry = {"uri": "s3://takes/in/a.mp4", "size": 5, "etag": "x"}
    job: dict[str, Any] = {
        "folder": str(folder), "tracks": [], "output": "s3://takes/out/",
        "video": {"label": "a.mp4", "path": None, "object": entry},
    }  # fmt: skip

    fetched = transfer.fetch_inputs(job, lambda _fraction: None)
    for name in ("audio-0.wav", "report-0.json", "plot-0.png"):
        (folder / name).write_text(name)
    result = transfer.store_outputs(job, 0, {"audio": "audio-0.wav"})

    assert Path(fetched["video"]["path"]).read_bytes() == b"video"
    assert Store.objects[result["objects"]["audio"]] == b"audio-0.wav"
    assert not Store.connected
