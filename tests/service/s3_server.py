"""A real S3 server of a test's own: rclone's, which checks every signature."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.service.ports import free_port

_RCLONE = Path(sys.executable).parent / "rclone"
KEYS = {"AWS_ACCESS_KEY_ID": "TESTKEY0001", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests"}


@dataclass
class S3Server:
    """A bucket `takes`, whose objects are files in `root/takes`."""

    root: Path
    address: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def folder(self) -> Path:
        return self.root / "takes"

    def settings(self) -> dict[str, str]:
        """What tells a service of it."""
        return {
            **KEYS,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AVSA_OBJECT_ENDPOINT": self.url,
            "AVSA_OBJECT_ROOTS": json.dumps(["s3://takes/in/", "s3://takes/out/"]),
            "AVSA_OBJECTS_URL": "s3://takes/direct/",
        }

    def start(self) -> S3Server:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.root.parent / "s3.log").open("wb") as log:
            self.process = subprocess.Popen(
                [_RCLONE, "serve", "s3", "--addr", f"{self.address}:{self.port}", "--auth-key",
                 ",".join(KEYS.values()), "--config", "", self.root],
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                httpx.get(self.url)
                return self
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("rclone did not get ready")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
