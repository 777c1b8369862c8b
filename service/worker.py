"""A worker runs one job at a time, in a child process that it supervises.

The child does all decoding and computing; the worker holds the job's lease, passes on progress,
and ends the child when the job is cancelled, takes too long, has been lost to another worker, or
the worker itself goes down. If the worker dies, the child's input ends and it exits.
"""

from __future__ import annotations

import json
import logging
import queue
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from service.jobs import Job, JobTable, State
from service.settings import Settings
from service.storage import Storage

log = logging.getLogger("avsa.worker")

# Progress goes to the table no more often than this; in between only leases are renewed.
_PROGRESS_S = 0.3


class ChildDied(Exception):
    """The child is gone without having said that it is done."""


class Child:
    """A warm child process; started when first needed, and again after it was ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()

    @property
    def pid(self) -> int | None:
        """Process id, while it runs."""
        return self._process.pid if self._process else None

    def send(self, job: dict[str, Any]) -> None:
        """Give it a job, starting it if it does not run; raises `ChildDied`."""
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ChildDied from error

    def _start(self) -> None:
        self._lines = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        reader = threading.Thread(
            target=_read, args=(self._process, self._lines), daemon=True, name="child-output"
        )
        reader.start()

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
                raise ChildDied
            yield message
            if message["kind"] == "done":
                return

    def end(self) -> None:
        """Kill it if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
            self._process = None


def _read(process: subprocess.Popen[bytes], lines: queue.Queue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None
    with suppress(ValueError, OSError):  # closed under us when the child is ended
        for line in process.stdout:
            lines.put(json.loads(line))
    lines.put(None)


@dataclass
class _Attempt:
    """What a worker knows of the attempt it is at."""

    job: Job
    began: float
    stage: str = "starting"
    fraction: float = 0.0
    beaten: float = 0.0
    told: float = 0.0
    results: dict[int, dict[str, Any]] = field(default_factory=dict)


class Worker:
    """Claims jobs and sees them through."""

    def __init__(self, table: JobTable, storage: Storage, settings: Settings) -> None:
        self._table = table
        self._storage = storage
        self._settings = settings
        self._child = Child()
        self._stopping = threading.Event()

    @property
    def child_pid(self) -> int | None:
        """Process id of the child, while it runs."""
        return self._child.pid

    def stop(self) -> None:
        """Put the running job back into the queue, end the child, and take no more jobs."""
        self._stopping.set()

    def close(self) -> None:
        """End the child."""
        self.stop()
        self._child.end()

    def run(self, job_id: str) -> None:
        """See one job through, if it is still to be had."""
        if self._stopping.is_set():
            return
        job = self._table.claim(job_id, lease_s=self._settings.lease_s)
        if job is None:
            return
        log.info("job %s attempt %d starts", job.id, job.attempt)
        attempt = _Attempt(job, began=time.monotonic(), beaten=time.monotonic())
        try:
            self._see_through(attempt)
        except Exception as error:
            # The child died, or what we did with it failed: a new child tries again.
            self._child.end()
            words = "the process that worked on it ended unexpectedly"
            state = self._table.crashed(
                job.id, job.attempt, limit=self._settings.max_crashes, words=words
            )
            trace = None if isinstance(error, ChildDied) else error
            log.error("job %s attempt %d: %s; now %s", job.id, job.attempt, words, state,
                      exc_info=trace)  # fmt: skip

    def _see_through(self, attempt: _Attempt) -> None:
        job = attempt.job
        folder = self._storage.result_folder(job.id, job.attempt)
        folder.mkdir(parents=True, exist_ok=True)
        self._child.send({**job.spec, "folder": str(folder), "device": self._settings.device})
        for message in self._child.messages(wait_s=min(0.2, self._settings.beat_s)):
            if message and message["kind"] == "progress":
                attempt.stage, attempt.fraction = message["stage"], message["fraction"]
            elif message and message["kind"] == "track":
                attempt.results[message["index"]] = message["result"]
            if not self._keep_on(attempt):
                self._child.end()
                shutil.rmtree(folder, ignore_errors=True)
                return
        self._finish(attempt)

    def _keep_on(self, attempt: _Attempt) -> bool:
        """Renew the lease when it is time to; False if the attempt is over."""
        job, now = attempt.job, time.monotonic()
        if self._stopping.is_set():
            self._table.release(job.id, job.attempt)
            log.info("job %s attempt %d: put back, the worker goes down", job.id, job.attempt)
            return False
        if now - attempt.began > self._settings.job_limit_s:
            detail = f"The job ran longer than the limit of {self._settings.job_limit_s:.0f} s."
            error = {"code": "time_limit", "detail": detail}
            self._table.finish(job.id, job.attempt, State.FAILED, error=error)
            return False
        if now - attempt.told < min(_PROGRESS_S, self._settings.beat_s):
            return True
        attempt.told = now
        try:
            current = self._table.beat(
                job.id, job.attempt, lease_s=self._settings.lease_s,
                stage=attempt.stage, fraction=attempt.fraction,
            )  # fmt: skip
        except sqlite3.Error as error:
            # Out of reach: past the lease another worker may have the job, so stop then.
            log.warning("job %s: the table is out of reach: %s", job.id, error)
            return now - attempt.beaten < self._settings.lease_s
        attempt.beaten = now
        if current is None:
            log.warning("job %s attempt %d was lost", job.id, job.attempt)
            return False
        if current.cancel_requested:
            self._table.finish(job.id, job.attempt, State.CANCELLED)
            log.info("job %s attempt %d cancelled", job.id, job.attempt)
            return False
        return True

    def _finish(self, attempt: _Attempt) -> None:
        job = attempt.job
        results = [attempt.results[index] for index in sorted(attempt.results)]
        errors = [result["error"] for result in results if result.get("error")]
        if errors and len(errors) == len(results):
            done = self._table.finish(
                job.id, job.attempt, State.FAILED, results=results, error=errors[0]
            )
        else:
            done = self._table.finish(job.id, job.attempt, State.SUCCEEDED, results=results)
        if done:
            self._storage.keep_only(job.id, job.attempt)
        log.info("job %s attempt %d done, accepted: %s", job.id, job.attempt, done)
        if any(error["code"] == "internal" for error in errors):
            self._child.end()  # whatever broke in it is gone with it
