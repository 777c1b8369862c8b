"""The worker's end of a child process: starting it, talking to it, ending it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

# A worker that goes down does not wait for a child that starts: how often that is looked at.
_LOOK_S = 0.2


class ChildDied(Exception):
    """The child is gone, or had to be ended, before it said that it was done."""


class ChildGone(ChildDied):
    """It ended while it had no job, so that no job is to blame."""


class ChildProcess:
    """A warm child on one device; started when first needed, and again after it was ended.

    Parameters
    ----------
    module : what it runs (`service.workers.child`).
    device : `cpu`, `cuda`, or `cuda:N`: then it sees no other GPU than the Nth.
    """

    def __init__(self, module: str, device: str) -> None:
        self._module = module
        self._environment = pinned(device)
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._ready = False
        self.jobs = 0

    @property
    def pid(self) -> int | None:
        """Process id, while it runs."""
        process = self._process
        return process.pid if process else None

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory; 0 where that cannot be told (not on Linux, not running)."""
        with suppress(OSError, ValueError, IndexError):
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def warm_up(self, limit_s: float, stopping: threading.Event) -> None:
        """Have it ready for a job, starting it if it does not run.

        Raises
        ------
        ChildDied : it ended, did not get ready within `limit_s`, or is not wanted any more.
        """
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._start()
        deadline = time.monotonic() + limit_s
        while not self._ready:
            if stopping.is_set():
                self.end()
                raise ChildDied("the worker goes down")
            try:
                message = self._lines.get(timeout=_LOOK_S)
            except queue.Empty as error:
                if time.monotonic() < deadline:
                    continue
                self.end()
                words = f"the child process did not get ready within {limit_s:.0f} s"
                raise ChildDied(words) from error
            if message is None:
                self.end()
                raise ChildDied("the child process ended before it was ready")
            self._ready = message["kind"] == "ready"

    def _start(self) -> None:
        self._lines, self._ready, self.jobs = queue.Queue(), False, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
        )
        threading.Thread(
            target=_read, args=(self._process, self._lines), daemon=True, name="child-output"
        ).start()

    def send(self, job: dict[str, Any]) -> None:
        """Give it a job; `warm_up` comes first.

        Raises
        ------
        ChildGone : it had died before.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        self.jobs += 1
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ChildGone("the child process ended while it had nothing to do") from error

    def messages(self, wait_s: float) -> Iterator[dict[str, Any] | None]:
        """What it says, up to and with `done`; None whenever it says nothing for `wait_s`.

        Raises
        ------
        ChildDied : its output ended.
        """
        while True:
            try:
                message = self._lines.get(timeout=wait_s)
            except queue.Empty:
                yield None
                continue
            if message is None:
                raise ChildDied("the child process ended unexpectedly")
            yield message
            if message["kind"] == "done":
                return

    def end(self) -> None:
        """Kill it if it runs."""
        if self._process is not None:
            with suppress(OSError), self._process:  # which closes its pipes and waits for it
                self._process.kill()
            self._process = None


def pinned(device: str) -> dict[str, str]:
    """The environment of a child of a device: of several GPUs it sees its own."""
    environment = dict(os.environ)
    kind, _, index = device.partition(":")
    if kind == "cuda" and index:
        visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        environment["CUDA_VISIBLE_DEVICES"] = visible[int(index)] if visible else index
    elif kind == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def _read(process: subprocess.Popen[bytes], lines: queue.Queue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None
    with suppress(ValueError, OSError):  # closed under us when the child is ended
        for line in process.stdout:
            lines.put(json.loads(line))
    lines.put(None)
