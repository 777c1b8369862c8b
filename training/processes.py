"""Processes that work for a command, and end with it, however it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import ParamSpec, TypeVar

from model.interruption import Interrupted, interruptible, not_heeded

P = ParamSpec("P")
T = TypeVar("T")

_NOTICED_S = 0.5  # until a worker sees that it is to end
_CLEANED_UP_S = 30.0  # that its work has to leave nothing behind


class Processes(ProcessPoolExecutor):
    """A pool whose block, left by an exception, waits for no work: what is under way is told to
    stop as a command is, by SIGTERM. So are the workers of a command that was killed.

    start : how processes begin (`multiprocessing`).
    """

    def __init__(self, workers: int, *, start: str | None = None) -> None:
        context = get_context(start)
        self._over = context.Event()
        super().__init__(workers, context, _begin, (self._over, os.getpid()))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As that of any pool."""
        return super().submit(partial(_stoppable, fn), *args, **kwargs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if kind is not None:
            self._over.set()
        self.shutdown(cancel_futures=True)


_ended = threading.Event()  # in a worker: nobody asks for work any more


def _stoppable(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    with interruptible():
        if _ended.is_set():  # a pool hands some work out ahead; signals from now on are heeded
            raise Interrupted(signal.SIGTERM)
        return work(*args, **kwargs)


def _begin(over: Event, parent: int) -> None:
    """In a worker: signals are heeded while it works, and by nothing else of it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, not_heeded)
    threading.Thread(target=_watch, args=(over, parent), daemon=True).start()


def _watch(over: Event, parent: int) -> None:
    while os.getppid() == parent and not over.wait(_NOTICED_S):
        pass
    _ended.set()
    worker, until = threading.main_thread().ident, time.monotonic() + _CLEANED_UP_S
    # To that thread: one that another thread takes does not wake it. And again: one that comes
    # between two pieces of work is heeded by neither.
    while worker is not None and (os.getppid() == parent or time.monotonic() < until):
        signal.pthread_kill(worker, signal.SIGTERM)
        time.sleep(_NOTICED_S)
    os._exit(1)  # nobody will say that there is no more work
