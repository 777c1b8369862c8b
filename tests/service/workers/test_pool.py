"""The workers of a process: who goes on, who is announced, and how they begin again and end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import signals

from service.jobs.sqlite import SqliteJobTable
from service.queue import make_celery
from service.settings import Settings
from service.storage import Storage
from service.workers import pool as pools
from service.workers.pool import Pool

Events = list[tuple[str, str]]
DEVICES = ["cpu", "cuda:0", "cuda:1"]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """What workers and controllers that do nothing are told to do."""
    noted: Events = []

    class Noting:
        def __init__(self, *_: Any, name: str, device: str) -> None:
            self.name, self.device, self.info = name, device, {"device": device}

        def run_next(self) -> None:
            noted.append(("runs", self.device))
            if threading.current_thread().name == "breaks":
                raise RuntimeError

        def stop(self) -> None:
            noted.append(("stop", self.device))

        def close(self) -> None:
            noted.append(("close", self.device))

    class Controller:
        exitcode = 3

        def __init__(self, *, concurrency: int, **_: Any) -> None:
            self._leave = threading.Event()
            noted.append(("controller", str(concurrency)))

        def start(self) -> None:
            self._leave.wait(5)

        def stop(self) -> None:
            noted.append(("controller", "stop"))
            self._leave.set()

    monkeypatch.setattr(pools, "Worker", Noting)
    monkeypatch.setattr(pools, "WorkController", Controller)
    return noted


@pytest.fixture
def table(tmp_path: Path) -> SqliteJobTable:
    return SqliteJobTable(tmp_path / "jobs.sqlite")


@pytest.fixture
def pool(events: Events, table: SqliteJobTable, tmp_path: Path) -> Iterator[Pool]:
    settings = Settings(data_dir=tmp_path, sweep_s=7.0, device=",".join(DEVICES))
    made = Pool(make_celery(settings), table, Storage(tmp_path, 0), settings)
    yield made
    made.stop()


def test_of_idle_workers_the_one_that_is_warm_goes_on(pool: Pool, events: Events) -> None:
    for _ in range(3):
        pool._run_next()
    assert events == [("runs", "cpu")] * 3

    # While it is busy, the next; one that failed is idle again.
    busy = pool._idle.get()
    broken = threading.Thread(target=pytest.raises, args=(RuntimeError, pool._run_next))
    broken.name = "breaks"
    broken.start()
    broken.join()
    pool._run_next()
    assert events[3:] == [("runs", "cuda:0")] * 2
    pool._idle.put(busy)
    pool._run_next()
    assert events[-1] == ("runs", "cpu")
    assert pool._idle.qsize() == 3


def test_workers_are_announced_until_several_sweeps_were_missed(
    pool: Pool, table: SqliteJobTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "gpu_memory", list)
    pool.announce()

    told = table.workers()
    assert [worker.info["device"] for worker in told] == DEVICES
    assert all(worker.info["gpus"] == [] for worker in told)
    assert len({worker.name for worker in told}) == 3
    now = table._clock()
    monkeypatch.setattr(table, "_clock", lambda: now + 27)
    assert len(table.workers()) == 3
    monkeypatch.setattr(table, "_clock", lambda: now + 29)
    assert table.workers() == []


def test_a_thread_that_died_is_started_again_unless_it_was_to_end(
    pool: Pool, events: Events
) -> None:
    started = ("controller", "3")
    pool.keep_working()  # it has not begun: nothing to keep
    assert events == []
    pool.start()
    pool.keep_working()
    assert events == [started]

    controller: Any = pool._controller
    thread = pool._thread
    assert thread is not None
    controller._leave.set()
    thread.join(5)
    pool.keep_working()
    assert events == [started, started]

    pool.stop()
    pool.keep_working()
    assert events.count(started) == 2


def test_jobs_are_put_back_before_the_thread_and_the_children_end(
    pool: Pool, events: Events
) -> None:
    pool.start()
    thread = pool._thread
    events.clear()

    pool.stop()

    assert events == [
        *(("stop", device) for device in DEVICES), ("controller", "stop"),
        *(("close", device) for device in DEVICES),
    ]  # fmt: skip
    assert thread is not None
    assert not thread.is_alive()


def test_a_worker_of_a_cluster_puts_jobs_back_when_it_is_told_to_end(
    pool: Pool, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it waits for anything; its status is Celery's."""

    def ended() -> None:
        signals.worker_shutting_down.send(sender=None)
        events.append(("controller", "ends"))

    def made(**options: Any) -> SimpleNamespace:
        assert options["concurrency"] == 3
        return SimpleNamespace(start=ended, exitcode=4)

    monkeypatch.setattr(pool._celery, "Worker", made)
    receivers = [
        list(s.receivers or []) for s in (signals.worker_shutting_down, signals.setup_logging)
    ]

    try:
        assert pool.run() == 4
    finally:
        signals.worker_shutting_down.receivers, signals.setup_logging.receivers = receivers

    stops = [("stop", device) for device in DEVICES]
    assert events == [
        *stops, ("controller", "ends"), *stops, *(("close", device) for device in DEVICES)
    ]  # fmt: skip
