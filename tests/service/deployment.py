"""The whole service as real processes: embedded, or a cluster with a Redis of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from service.jobs import JobTable, open_table
from service.settings import Settings
from tests.service.launcher import Forked, Launcher
from tests.service.ports import free_port
from tests.service.redis_server import RedisServer

LEASE_S = 2.5
QUICK = {
    "AVSA_LEASE_S": str(LEASE_S),
    "AVSA_BEAT_S": "0.4",
    "AVSA_SWEEP_S": "0.4",
    "AVSA_RESERVE_BYTES": "1000000",
    "AVSA_CHILD_MODULE": "tests.service.quick_child",
}


@dataclass
class Deployment:
    """API, and in a cluster Redis and workers, each a process that a test may kill.

    `settings` are environment variables of all of them. A worker of `prefixes` is started by that
    command, and with a disk of its own, as on another host.
    """

    folder: Path
    workers: int = 0
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    redis: RedisServer | None = None
    launcher: Launcher | None = None
    prefixes: dict[str, list[str]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes] | Forked] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data_dir = self.folder / "data"
        if self.workers and self.redis is None:
            self.redis = RedisServer(self.folder / "redis")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        of_redis = {"AVSA_REDIS_URL": self.redis.url} if self.redis else {}
        own = {"AVSA_DATA_DIR": str(self.data_dir), **QUICK, **of_redis, **self.settings}
        return {**os.environ, **own}

    @property
    def names(self) -> list[str]:
        """Of the processes: those that work, `api` for one."""
        return ["api", *(f"worker-{n}" for n in range(self.workers))]

    @property
    def working(self) -> list[str]:
        """Names of the processes that have children."""
        return self.names[1:] or ["api"]

    def start(self) -> Deployment:
        if self.redis is not None:
            self.redis.start()
        for name in self.names:
            self.start_one(name)
        self.wait_until_ready()
        return self

    def start_one(self, name: str) -> None:
        arguments = ["--port", str(self.port)] if name == "api" else ["worker"]
        if self.launcher is not None:
            log_file = self.folder / "log"
            self.processes[name] = self.launcher.start(arguments, self.environment, log_file)
            return
        elsewhere = {"AVSA_DATA_DIR": str(self.folder / name)} if name in self.prefixes else {}
        with (self.folder / "log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self.prefixes.get(name, []), sys.executable, "-m", "service", *arguments],
                env={**self.environment, **elsewhere},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait_until_ready(self, timeout_s: float = 120) -> None:
        self.until(lambda: self.get("/readyz") is not None, "the API is ready", timeout_s)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def stop(self) -> None:
        """End everything, whatever state it is in."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        if self.redis is not None:
            self.redis.stop()

    # --- looking at it ---

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def table(self) -> JobTable:
        """The job table itself, past the API."""
        return open_table(
            Settings(
                data_dir=self.data_dir, redis_url=self.redis.url if self.redis else "", lease_s=20
            )
        )

    def children(self, name: str) -> list[int]:
        """Process ids of a process's children."""
        return [pid for pid, parent in _parents().items() if parent == self.processes[name].pid]

    def all_children(self) -> list[int]:
        """Children of this deployment that live, whatever became of their parents."""
        mark = f"AVSA_DATA_DIR={self.data_dir}".encode()
        own = {process.pid for process in self.processes.values()}
        return [pid for pid in _parents() if pid not in own and mark in _environment(pid)]

    def until(self, true: Callable[[], object], what: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < deadline, f"not so in time: {what}\n{self.log()[-6000:]}"
            time.sleep(0.05)

    # --- as a client ---

    def get(self, path: str) -> Any:
        """The JSON of an answer; None if there is none, or an error."""
        with suppress(httpx.HTTPError):
            response = httpx.get(self.url + path, timeout=30)
            if response.status_code == 200:
                return response.json()
        return None

    def submit(
        self, order: bytes, audio: bytes = b"sound", *, key: str | None = None,
        options: str = "{}", beside: Mapping[str, bytes] | None = None,
    ) -> httpx.Response:  # fmt: skip
        files = {"video": ("order.json", order), "audio": ("a.wav", audio)}
        files |= {field: ("beside", content) for field, content in (beside or {}).items()}
        headers = {"Idempotency-Key": key} if key else {}
        return httpx.post(
            f"{self.url}/align", files=files, data={"options": options}, headers=headers, timeout=30
        )

    def wait_for(self, job_id: str, *states: str, timeout_s: float = 90) -> dict[str, Any]:
        """The job once it is in one of the states."""
        job: dict[str, Any] = {}

        def reached() -> bool:
            job.update(self.get(f"/jobs/{job_id}") or {})
            return job.get("state") in states

        self.until(reached, f"{job_id} is {states}", timeout_s)
        return job


def _parents() -> dict[int, int]:
    """Parent of every process that lives and is no zombie."""
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError, IndexError):
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(path.name)] = int(fields[1])
    return found


def _environment(pid: int) -> list[bytes]:
    # Of a forked process this is its launcher's; its children have their own.
    with suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []
