"""The workers of a process: a Celery worker whose threads each have a device and a child."""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
from dataclasses import asdict
from typing import Any

from celery import Celery, signals
from celery.worker import WorkController
from celery.worker import state as celery_state

from service.jobs import JobTable, open_table
from service.objects.store import ObjectStore
from service.queue import TASK, Reconciler, WakeUps, make_celery
from service.retention import Purge, Retention
from service.settings import Settings
from service.storage import Storage
from service.workers.gpu import gpu_memory
from service.workers.worker import Worker

log = logging.getLogger("avsa.worker")

_OPTIONS: dict[str, Any] = {
    "pool_cls": "threads", "loglevel": "WARNING", "without_mingle": True, "without_gossip": True,
    "without_heartbeat": True,
}  # fmt: skip


class Pool:
    """One worker per device of the settings, woken by Celery."""

    def __init__(
        self, celery: Celery, table: JobTable, storage: Storage, settings: Settings
    ) -> None:
        self._celery = celery
        self._table = table
        self._announced_s = 4 * settings.sweep_s
        place = f"{socket.gethostname()}:{os.getpid()}"
        self._workers = [
            Worker(table, storage, settings, name=f"{place}/{device}", device=device)
            for device in settings.devices
        ]
        # Last in, first out: of several idle workers the one whose child is warm goes on.
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in reversed(self._workers):
            self._idle.put(worker)
        celery.task(name=TASK)(self._run_next)
        self._controller: WorkController | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def _run_next(self) -> None:
        worker = self._idle.get()
        try:
            worker.run_next()
        finally:
            self._idle.put(worker)

    def announce(self) -> None:
        """Say in the table that the workers are there."""
        gpus = [asdict(gpu) for gpu in gpu_memory()]
        for worker in self._workers:
            info = {**worker.info, "gpus": gpus}
            self._table.announce(worker.name, info, ttl_s=self._announced_s)

    def start(self) -> None:
        """Work in a thread of this process."""
        celery_state.should_stop = celery_state.should_terminate = None
        self._controller = WorkController(
            app=self._celery, concurrency=len(self._workers), **_OPTIONS
        )
        self._thread = threading.Thread(
            target=self._controller.start, name="avsa-worker", daemon=True
        )
        self._thread.start()

    def keep_working(self) -> None:
        """Start again if the thread of `start` has died."""
        if self._thread is not None and not self._thread.is_alive() and not self._stopped:
            log.error("the worker's thread has died; it is started again")
            self.start()

    def stop(self) -> None:
        """Put running jobs back, end the children, and leave the thread."""
        self._stopped = True
        for worker in self._workers:
            worker.stop()
        if self._controller is not None and self._thread is not None:
            celery_state.should_terminate = 0
            self._controller.stop()
            self._thread.join(timeout=10)
            celery_state.should_stop = celery_state.should_terminate = None
        for worker in self._workers:
            worker.close()

    def run(self) -> int:
        """Work in this process's main thread until SIGTERM or SIGINT; the exit status."""

        def put_back(**_: Any) -> None:
            for worker in self._workers:
                worker.stop()

        signals.worker_shutting_down.connect(put_back, weak=False)
        signals.setup_logging.connect(_leave_logging_alone, weak=False)
        controller = self._celery.Worker(concurrency=len(self._workers), quiet=True, **_OPTIONS)
        try:
            controller.start()
        finally:
            self.stop()
        return int(controller.exitcode or 0)


def _leave_logging_alone(**_: Any) -> None:
    """Somebody listens to this signal, so Celery does not set up logging of its own."""


def run_worker(settings: Settings) -> int:
    """Be a worker of a cluster until SIGTERM; returns the exit status."""
    table, storage = open_table(settings), Storage(settings.data_dir)
    objects = ObjectStore(settings)
    purge = Purge(table, storage, objects, settings)
    celery = make_celery(settings)
    pool = Pool(celery, table, storage, settings)
    reconciler = Reconciler(table, WakeUps(celery, table), settings, [pool.announce])
    retention = Retention(table, purge, storage, settings)
    reconciler.start()
    retention.start()
    try:
        return pool.run()
    finally:
        retention.stop()
        reconciler.stop()
        objects.close()
