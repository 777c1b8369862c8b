"""What is looked after again and again, in a thread of its own, whatever goes wrong with it."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

from service.jobs import TableUnreachable


class Repeating(ABC):
    """Sweeps at `start`, and from then on every `every_s` until `stop`.

    name : of the thread, and of the log.
    """

    def __init__(self, name: str, *, every_s: float) -> None:
        self._log = logging.getLogger(f"avsa.{name}")
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"avsa-{name}")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the sweep that is going on, if that does not take long."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.sweep()
            except TableUnreachable as error:
                self._log.warning("%s", error)
            except Exception:
                self._log.exception("a sweep failed; it is tried again")
            self._stopping.wait(self._every_s)

    @abstractmethod
    def sweep(self) -> None:
        """Do what is due; one that may take long looks whether `_stopping` is set."""
