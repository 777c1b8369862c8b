"""A real server in a process of its own, on a real socket."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.service.deployment import Deployment
from tests.service.launcher import Forked, launcher
from tests.service.ports import free_port
from tests.service.redis_server import RedisServer


@dataclass
class Server:
    """`python -m service` with settings of its own."""

    data_dir: Path
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    process: Forked | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, until: str = "/readyz") -> None:
        """Begin, and wait until that is answered with 200."""
        environment = {
            **os.environ,
            "AVSA_DATA_DIR": str(self.data_dir),
            "AVSA_LEASE_S": "3",
            "AVSA_BEAT_S": "0.5",
            "AVSA_SWEEP_S": "0.3",
            "AVSA_RESERVE_BYTES": "1000000",
            **self.settings,
        }
        log = self.data_dir.parent / "server.log"
        self.process = launcher().start(["--port", str(self.port)], environment, log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(self.url + until).status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.log()
            time.sleep(0.1)
        raise AssertionError(f"the server did not get ready\n{self.log()}")

    def kill(self) -> None:
        """The whole process, at once, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)

    def log(self) -> str:
        return (self.data_dir.parent / "server.log").read_text(errors="replace")[-4000:]

    def children(self) -> list[int]:
        """Process ids of the server's children."""
        assert self.process is not None
        listing = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(pid) for pid in listing.stdout.split()]

    def wait_for(self, job_id: str, *states: str, timeout_s: float = 90) -> dict[str, object]:
        deadline = time.monotonic() + timeout_s
        while True:
            job: dict[str, object] = httpx.get(f"{self.url}/jobs/{job_id}").json()
            if job["state"] in states:
                return job
            assert time.monotonic() < deadline, f"{job}\n{self.log()}"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that no test may disturb."""
    running = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the tests of a module."""
    running = Server(tmp_path_factory.mktemp("service") / "data")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may kill; not started yet."""
    running = Server(tmp_path / "data")
    yield running
    if running.process is not None and running.process.poll() is None:
        running.kill()


Deploy = Callable[..., Deployment]


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    """Start a deployment; settings without their prefix."""
    started: list[Deployment] = []

    def start(workers: int = 0, **settings: object) -> Deployment:
        named = {f"AVSA_{name.upper()}": str(value) for name, value in settings.items()}
        made = Deployment(tmp_path / "deployment", workers, named, launcher=launcher())
        started.append(made)
        return made.start()

    yield start
    for deployment in started:
        deployment.stop()
