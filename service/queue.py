"""Celery wakes workers; the job table decides. A lost or repeated message does no harm.

Embedded: an in-memory broker and a worker thread in the process that serves HTTP, so nothing has to
be installed or started beside it.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable

from celery import Celery
from celery.worker import WorkController
from celery.worker import state as celery_state
from kombu.exceptions import OperationalError

from service.jobs import JobTable
from service.settings import Settings
from service.worker import Worker

log = logging.getLogger("avsa.queue")

# A job that still waits so long after its wake-up is woken for again.
_WAKE_AGAIN_S = 60.0


def make_celery(broker_url: str) -> Celery:
    """A Celery application for wake-ups only: JSON, early acknowledgement, no result backend."""
    app = Celery("avsa", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,  # the lease redelivers; never two mechanisms
        task_reject_on_worker_lost=False,
        # In-memory queues are shared by all applications of a process: each has its own name.
        task_default_queue=f"avsa-{secrets.token_hex(4)}",
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_transport_options={"polling_interval": 0.2},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
    )
    return app


class EmbeddedQueue:
    """A broker, a worker thread and a reconciler inside this process."""

    def __init__(self, table: JobTable, worker: Worker, settings: Settings) -> None:
        self._table = table
        self._worker = worker
        self._settings = settings
        self._stopping = threading.Event()
        self._woken: dict[str, float] = {}
        self._celery = make_celery("memory://")

        @self._celery.task(name="align")
        def align(job_id: str) -> None:
            worker.run(job_id)

        self._task = align
        self._controller: WorkController | None = None
        self._threads: list[threading.Thread] = []
        self._swept_at = time.monotonic()

    @property
    def sweep_age_s(self) -> float:
        """Seconds since the reconciler last looked for lost jobs."""
        return time.monotonic() - self._swept_at

    def start(self) -> None:
        """Start the worker thread and the reconciler."""
        celery_state.should_stop = celery_state.should_terminate = None
        self._controller = WorkController(
            app=self._celery, pool_cls="threads", concurrency=1, loglevel="WARNING",
            without_heartbeat=True, without_mingle=True, without_gossip=True,
        )  # fmt: skip
        for name, work in (("worker", self._controller.start), ("reconciler", self._reconcile)):
            thread = threading.Thread(target=work, name=f"avsa-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def wake(self, job_ids: Iterable[str]) -> None:
        """Wake the worker for jobs; one that was woken for a moment ago is left out."""
        now = time.monotonic()
        for job_id in job_ids:
            if now - self._woken.get(job_id, -_WAKE_AGAIN_S) >= _WAKE_AGAIN_S:
                self._woken[job_id] = now
                try:
                    self._task.apply_async((job_id,), retry=False)
                except OperationalError:  # the job is stored: the next sweep wakes for it
                    log.exception("no wake-up for job %s", job_id)

    def _reconcile(self) -> None:
        """Take lost jobs back and wake for what waits, at every sweep."""
        while not self._stopping.is_set():
            try:
                for job_id in self._table.reclaim(limit=self._settings.max_losses):
                    log.warning("job %s was taken back from a lost worker", job_id)
                    self._woken.pop(job_id, None)
                waiting = self._table.queued()
                self._woken = {i: t for i, t in self._woken.items() if i in set(waiting)}
                self.wake(waiting)
                self._swept_at = time.monotonic()
            except sqlite3.Error:
                log.exception("the job table is out of reach")
            self._stopping.wait(self._settings.sweep_s)

    def stop(self) -> None:
        """Put the running job back and stop."""
        self._stopping.set()
        self._worker.stop()
        if self._controller is not None:
            celery_state.should_terminate = 0
            self._controller.stop()
        for thread in self._threads:
            thread.join(timeout=10)
        self._worker.close()
        celery_state.should_stop = celery_state.should_terminate = None
