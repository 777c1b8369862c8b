"""Deletes, in a thread, uploads that have expired and what requests that died have left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from service.storage import Storage
from service.uploads import UploadStore

log = logging.getLogger("avsa.sweeper")


class Sweeper:
    """Sweeps at its start and from then on every `every_s`.

    is_job : whether a folder's name is a job's id.
    ttl_s : files of requests are left alone for so long after the last write.
    """

    def __init__(
        self, uploads: UploadStore, storage: Storage, is_job: Callable[[str], bool],
        *, every_s: float, ttl_s: float,
    ) -> None:  # fmt: skip
        self._uploads = uploads
        self._storage = storage
        self._is_job = is_job
        self._every_s = every_s
        self._ttl_s = ttl_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="avsa-sweeper")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the sweep that is going on."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                for upload_id in self._uploads.sweep():
                    log.info("the upload %s has expired", upload_id)
                for name in self._storage.sweep(self._is_job, older_than_s=self._ttl_s):
                    log.info("the files of a request that died are deleted: %s", name)
            except Exception:
                log.exception("uploads could not be swept")
            self._stopping.wait(self._every_s)
