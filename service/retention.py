"""Ended jobs are kept for a while; then they and their files are deleted."""

from __future__ import annotations

import logging
import time

from service.jobs import JobTable
from service.settings import Settings
from service.storage import Storage

log = logging.getLogger("avsa.retention")

_EVERY_S = 60.0
_AT_ONCE = 100


class Retention:
    """Deletes what ended longer ago than `keep_days`."""

    def __init__(self, table: JobTable, storage: Storage, settings: Settings) -> None:
        self._table = table
        self._storage = storage
        self._keep_s = settings.keep_days * 86400
        self._every_s = min(_EVERY_S, self._keep_s)
        self._due = 0.0

    def sweep(self) -> None:
        """Delete what is due, a portion at a time; looks once a minute."""
        if time.monotonic() < self._due:
            return
        old = self._table.ended_before(time.time() - self._keep_s, _AT_ONCE)
        for job_id in old:
            # Files first: a job whose files are gone is found again, files without a job are not.
            self._storage.purge(job_id)
            self._table.purge(job_id)
            log.info("job %s was deleted: it ended more than %.0f days ago", job_id,
                     self._keep_s / 86400)  # fmt: skip
        if len(old) < _AT_ONCE:
            self._due = time.monotonic() + self._every_s
