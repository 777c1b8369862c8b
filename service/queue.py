"""Celery wakes workers; the job table decides. A lost or repeated message does no harm.

The jobs that wait are the outbox of wake-ups: as many messages are kept in the broker as jobs
wait in the table, so one that is lost is made up for at the next sweep. Whichever message arrives,
its worker takes the job whose turn it is.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery
from celery.exceptions import OperationalError
from redis import RedisError

from service.jobs import JobTable, TableUnreachable
from service.settings import Settings

log = logging.getLogger("avsa.queue")

TASK = "avsa.run_next"


def make_celery(settings: Settings) -> Celery:
    """A Celery application for wake-ups only: JSON, early acknowledgement, no result backend."""
    url = settings.redis_url
    app = Celery("avsa", broker=url or "memory://localhost/", set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,  # no result backend: nothing to expire, fill or get stuck
        task_acks_late=False,  # the lease redelivers; never two mechanisms
        task_reject_on_worker_lost=False,
        # In-memory queues are shared by all applications of a process: each has its own name.
        task_default_queue="wake-ups" if url else f"wake-ups-{secrets.token_hex(4)}",
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=bool(url),  # no idle worker while a busy one holds a message
        worker_enable_remote_control=False,  # cancel and health are the table's
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # by default a worker exits after 100
        broker_channel_error_retry=True,  # by default one exits when Redis takes no writes
        broker_transport_options=_redis_transport(settings) if url else {"polling_interval": 0.2},
    )
    return app


def _redis_transport(settings: Settings) -> dict[str, Any]:
    return {
        "visibility_timeout": settings.wake_up_s,  # of messages fetched and not started only
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 30,  # without, a publish to a dead connection can hang for ever
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "global_keyprefix": "avsa:broker:",
    }


class WakeUps:
    """Keeps as many messages in the broker as jobs wait."""

    def __init__(self, celery: Celery, table: JobTable) -> None:
        self._celery = celery
        self._table = table

    def top_up(self) -> None:
        """Send what is missing; raises `TableUnreachable` where the broker is not there."""
        waiting = self._table.waiting()
        if not waiting:
            return
        try:
            self._send(waiting)
        except (OperationalError, RedisError) as error:  # it went after the table was asked
            words = str(error).rstrip(".")
            raise TableUnreachable(f"The broker is out of reach: {words}.") from error

    def _send(self, waiting: int) -> None:
        with self._celery.connection_for_write() as connection:
            queue = self._celery.conf.task_default_queue
            there = connection.default_channel.queue_declare(queue).message_count
            for _ in range(waiting - there):
                self._celery.send_task(TASK, connection=connection, retry=False)


class Reconciler:
    """A thread that brings back in order what deaths and outages have left behind.

    Parameters
    ----------
    chores : done at every sweep; one that fails does not keep the others from being done.
    """

    def __init__(
        self, table: JobTable, wake_ups: WakeUps, settings: Settings,
        chores: Sequence[Callable[[], None]] = (),
    ) -> None:  # fmt: skip
        self._table = table
        self._settings = settings
        self._wake_workers = wake_ups.top_up
        self._chores = (self._take_back, self._wake_workers, *chores)
        self._stopping = threading.Event()
        self._asked = threading.Event()
        self._thread: threading.Thread | None = None
        self._swept_at = time.monotonic()

    @property
    def sweep_age_s(self) -> float:
        """Seconds since the last sweep."""
        return time.monotonic() - self._swept_at

    def wake(self) -> None:
        """Have workers woken for what waits, now and not at the next sweep; does not block."""
        self._asked.set()

    def start(self) -> None:
        """Start sweeping."""
        self._thread = threading.Thread(target=self._run, name="avsa-reconciler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sweeping."""
        self._stopping.set()
        self._asked.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            if self._asked.wait(max(0.0, due - time.monotonic())):
                self._asked.clear()
                if not self._stopping.is_set():
                    _do(self._wake_workers)
            if time.monotonic() >= due:
                for chore in self._chores:
                    _do(chore)
                self._swept_at = time.monotonic()
                due = self._swept_at + self._settings.sweep_s

    def _take_back(self) -> None:
        for job_id in self._table.reclaim(limit=self._settings.max_losses):
            log.warning("job %s was taken back from a lost worker", job_id)


def _do(chore: Callable[[], None]) -> None:
    try:
        chore()
    except TableUnreachable as error:
        log.warning("%s", error)
    except Exception:
        log.exception("the reconciler could not do all it should; it goes on")
