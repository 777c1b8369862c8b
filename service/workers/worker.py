"""A worker runs one job at a time, in a child process that it supervises.

The child does all decoding and computing; the worker holds the job's lease, passes on progress,
and ends the child when the job is cancelled, takes too long or too much memory, has been lost to
another worker, or the worker itself goes down. If the worker dies, the child's input ends and it
exits. If the table is out of reach for as long as the lease lasts, another worker may have the job
by then, so the child is ended too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from model.errors import DiskFull
from service import tracing
from service.companions import COMPANIONS
from service.jobs import Job, JobTable, State, TableUnreachable
from service.logs import bound_contextvars
from service.settings import Settings
from service.storage import Storage, full_disk_told
from service.workers.child_process import ChildDied, ChildGone, ChildProcess

log = logging.getLogger("avsa.worker")

# Progress goes to the table no more often than this, and cancels are looked for as often.
_LOOK_S = 0.2
# An end is worth insisting on: it is refused if another attempt has the job by then.
_INSIST_S, _INSIST_STOPPING_S = 600.0, 3.0
_BACK_OFF_S = 30.0

T = TypeVar("T")


@dataclass
class _Attempt:
    """What a worker knows of the attempt it is at. Times are monotonic."""

    job: Job
    began: float
    beaten: float  # when the last renewal that got through was sent
    looked: float = 0.0
    stage: str = "starting"
    stage_began: float = 0.0
    fraction: float = 0.0
    told: tuple[str, float] = ("starting", 0.0)
    stages: dict[str, float] = field(default_factory=dict)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)

    def hear(self, message: dict[str, Any], now: float) -> None:
        """Take in what the child says."""
        if message["kind"] == "progress":
            self._enter(message["stage"], now)
            self.fraction = message["fraction"]
        elif message["kind"] == "track":
            self.results[message["index"]] = message["result"]
        elif message["kind"] == "done":
            self._enter("done", now)

    def _enter(self, stage: str, now: float) -> None:
        if stage != self.stage:
            spent = now - self.stage_began
            self.stages[self.stage] = round(self.stages.get(self.stage, 0.0) + spent, 3)
            tracing.passed(self.stage, spent)
            self.stage, self.stage_began = stage, now


def _located(spec: dict[str, Any], found: Callable[[str], str]) -> dict[str, Any]:
    """A job's spec with its files where they are found; objects of a store have no path yet."""
    located = dict(spec)
    for name in {"video", *COMPANIONS} & spec.keys():
        path = spec[name]["path"]
        located[name] = {**spec[name], "path": path and found(path)}
    located["tracks"] = [
        {**track, "paths": [path and found(path) for path in track["paths"]]}
        for track in spec.get("tracks", [])
    ]
    return located


class Worker:
    """Claims jobs and sees them through, one after the other, on one device."""

    def __init__(
        self, table: JobTable, storage: Storage, settings: Settings, *, name: str, device: str
    ) -> None:
        self.name = name
        self._table = table
        self._storage = storage
        self._settings = settings
        self._device = device
        self._child = ChildProcess(settings.child_module, device)
        self._stopping = threading.Event()
        self._failed_starts = 0
        self._job_id: str | None = None
        self._usage: dict[str, int] = {}

    @property
    def info(self) -> dict[str, Any]:
        """What it is at, for operators and metrics."""
        return {
            "device": self._device,
            "job": self._job_id,
            "child_pid": self._child.pid,
            "child_memory_bytes": self._child.memory_bytes,
            **self._usage,
        }

    def stop(self) -> None:
        """Put the running job back into the queue, end the child, and take no more jobs."""
        self._stopping.set()

    def close(self) -> None:
        """End the child."""
        self.stop()
        self._child.end()

    def run_next(self) -> None:
        """See the next job through, if one waits."""
        try:
            if self._stopping.is_set() or not self._table.waiting() or not self._warm():
                return
            if self._stopping.is_set():
                return
            job = self._table.claim(lease_s=self._settings.lease_s, worker=self.name)
        except TableUnreachable as error:
            log.warning("no job is taken: %s", error)
            return
        if job is not None:
            self._job_id = job.id
            try:
                self._run(job)
            finally:
                self._job_id = None

    def _warm(self) -> bool:
        """Have disk and child ready before a job is claimed: what cannot work harms none.

        A disk that is full is no hindrance: a job that ends for it says so.
        """
        if self._child.jobs >= self._settings.child_jobs:
            self._child.end()
        try:
            with suppress(DiskFull), full_disk_told():
                self._storage.check()
            self._child.warm_up(self._settings.child_start_s, self._stopping)
        except (ChildDied, OSError) as error:
            level = logging.INFO if self._stopping.is_set() else logging.ERROR
            log.log(level, "no job is taken: %s", error)
            self._back_off()
            return False
        return True

    def _back_off(self) -> None:
        """Wait, longer the more children in a row were of no use."""
        self._failed_starts += 1
        self._stopping.wait(min(_BACK_OFF_S, 0.25 * 2.0**self._failed_starts))

    def _run(self, job: Job) -> None:
        carrier = job.spec.get("trace", {})
        with (
            bound_contextvars(job_id=job.id, attempt=job.attempt),
            tracing.attempt(job, carrier, device=self._device),
        ):
            self._attempt(job)

    def _attempt(self, job: Job) -> None:
        log.info("job %s attempt %d starts", job.id, job.attempt)
        now = time.monotonic()
        attempt = _Attempt(job, began=now, beaten=now, stage_began=now)
        try:
            self._see_through(attempt)
        except ChildGone as error:
            self._child.end()
            self._insist(lambda: self._table.release(job.id, job.attempt))
            self._forget_files(job)
            tracing.outcome("drained")
            log.warning("job %s attempt %d: put back, %s", job.id, job.attempt, error)
            self._back_off()
        except Exception as error:
            # The child died, or what we did with it failed: a new child tries again.
            self._child.end()
            self._forget_files(job)
            words = str(error) if isinstance(error, ChildDied) else "the worker failed"
            state = self._insist(
                lambda: self._table.crashed(
                    job.id, job.attempt, limit=self._settings.max_crashes, words=words
                )
            )
            tracing.outcome("crashed")
            trace = None if isinstance(error, ChildDied) else error
            log.error("job %s attempt %d: %s; now %s", job.id, job.attempt, words, state,
                      exc_info=trace)  # fmt: skip

    def _see_through(self, attempt: _Attempt) -> None:
        job = attempt.job
        try:
            folder = self._storage.begin(job.id, job.attempt)
        except DiskFull as error:  # no child is to blame
            self._end(job, State.FAILED, error={"code": error.code, "detail": str(error)})
            return
        device = self._device.partition(":")[0]
        checkpoint = self._settings.checkpoint and str(self._settings.checkpoint.absolute())
        spec = _located(job.spec, partial(self._storage.found, job.id))
        self._child.send(
            {**spec, "folder": str(folder), "device": device, "checkpoint": checkpoint}
        )
        for message in self._child.messages(wait_s=min(_LOOK_S, self._settings.beat_s)):
            if message:
                self._failed_starts = 0
                attempt.hear(message, time.monotonic())
                self._usage = message.get("usage", self._usage)
            if not self._keep_on(attempt):
                self._child.end()
                self._forget_files(job)
                return
        self._finish(attempt)

    def _keep_on(self, attempt: _Attempt) -> bool:
        """Renew the lease when it is time to; False if the attempt is over."""
        job, now = attempt.job, time.monotonic()
        if self._stopping.is_set():
            self._insist(lambda: self._table.release(job.id, job.attempt))
            tracing.outcome("drained")
            log.info("job %s attempt %d: put back, the worker goes down", job.id, job.attempt)
            return False
        if now - attempt.began > self._settings.job_limit_s:
            detail = f"The job ran longer than the limit of {self._settings.job_limit_s:.0f} s."
            self._end(job, State.FAILED, error={"code": "time_limit", "detail": detail})
            return False
        limit = self._settings.child_memory_bytes
        if (used := self._child.memory_bytes) > limit:
            raise ChildDied(f"it used {used >> 20} MiB of memory; the limit is {limit >> 20} MiB")
        if now - attempt.looked < min(_LOOK_S, self._settings.beat_s):
            return True
        attempt.looked = now
        try:
            return self._renew(attempt, now)
        except TableUnreachable as error:
            fenced = now - attempt.beaten >= self._settings.lease_s
            log.warning("job %s attempt %d: %s%s", job.id, job.attempt, error,
                        " Another worker may have it: stopped." if fenced else "")  # fmt: skip
            return not fenced

    def _renew(self, attempt: _Attempt, now: float) -> bool:
        """Tell the table what is new or that we are there, and hear whether to go on."""
        job, new = attempt.job, (attempt.stage, attempt.fraction)
        quiet = new == attempt.told and now - attempt.beaten < self._settings.beat_s
        if quiet and self._table.wanted(job.id, job.attempt):
            return True
        current = self._table.beat(
            job.id, job.attempt, lease_s=self._settings.lease_s,
            stage=attempt.stage, fraction=attempt.fraction,
        )  # fmt: skip
        attempt.beaten, attempt.told = now, new
        if current is None:
            log.warning("job %s attempt %d was lost", job.id, job.attempt)
            return False
        if current.cancel_requested:
            # The child first: once a job is cancelled, nobody works on it.
            self._child.end()
            self._end(job, State.CANCELLED)
            return False
        return True

    def _finish(self, attempt: _Attempt) -> None:
        results = [attempt.results[index] for index in sorted(attempt.results)]
        errors = [result["error"] for result in results if result.get("error")]
        failed = bool(errors) and len(errors) == len(results)
        self._end(
            attempt.job,
            State.FAILED if failed else State.SUCCEEDED,
            results=results,
            error=errors[0] if failed else None,
            stages=attempt.stages,
        )
        if any(error["code"] == "internal" for error in errors):
            self._child.end()  # whatever broke in it is gone with it

    def _end(self, job: Job, state: State, **fields: Any) -> None:
        """End a job, and keep what counts of its files."""
        accepted = self._insist(lambda: self._table.finish(job.id, job.attempt, state, **fields))
        tracing.outcome(state if accepted else "lost")
        log.info("job %s attempt %d %s, accepted: %s", job.id, job.attempt, state, accepted)
        if accepted:
            self._storage.keep_only(job.id, job.attempt)
        elif accepted is not None:
            self._forget_files(job)

    def _insist(self, change: Callable[[], T]) -> T | None:
        """Make a change however long the table is out of reach; None if it never came back."""
        began = time.monotonic()
        while True:
            try:
                return change()
            except TableUnreachable as error:
                stopping = self._stopping.is_set()
                patience = _INSIST_STOPPING_S if stopping else _INSIST_S
                if time.monotonic() - began > patience:
                    log.error("given up: %s", error)
                    return None
                time.sleep(_LOOK_S)

    def _forget_files(self, job: Job) -> None:
        """Delete what an attempt wrote that does not count."""
        self._storage.forget(job.id, job.attempt)
