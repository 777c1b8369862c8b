"""Ended jobs are kept for a while; then they and their files are deleted.

In a thread of its own: a slow object store may take minutes, for which nothing else can wait.
"""

from __future__ import annotations

import time

from model.errors import OutputError
from service.jobs import Job, JobTable
from service.objects.names import ObjectName
from service.objects.store import ObjectStore
from service.repeating import Repeating
from service.settings import Settings
from service.storage import Storage

_LOOK_S = 60.0
_LEFTOVERS_S = 3600.0
_AT_ONCE = 100
# What cannot be deleted is tried again after this.
_AGAIN_S = 86400.0


class Purge:
    """Deletes an ended job with all its files."""

    def __init__(
        self, table: JobTable, storage: Storage, objects: ObjectStore, settings: Settings
    ) -> None:
        self._table = table
        self._storage = storage
        self._objects = objects
        self._results_url = settings.results_url

    def __call__(self, job: Job) -> None:
        """Delete a job, but not what it wrote where its request told it to.

        Files first: an ended job stays ended, and files of no job would be found by none.

        Raises
        ------
        OutputError : the object store does not delete them; the job is there still.
        """
        if job.spec.get("output") == self._results_url:
            for result in job.results:
                for uri in result.get("objects", {}).values():
                    self._objects.delete(ObjectName.parse(uri))
        self._storage.purge(job.id)
        self._table.purge(job.id)


class Retention(Repeating):
    """Deletes what ended longer ago than `keep_days`, and on this disk what nobody else deletes."""

    def __init__(self, table: JobTable, purge: Purge, storage: Storage, settings: Settings) -> None:
        super().__init__("retention", every_s=settings.sweep_s)
        self._table = table
        self._purge = purge
        self._storage = storage
        self._keep_s = settings.keep_days * 86400
        self._look_s = min(_LOOK_S, self._keep_s)
        self._due = self._leftovers_due = 0.0
        self._refused: dict[str, float] = {}  # jobs that could not be deleted, and until when

    def sweep(self) -> None:
        """Delete what is due."""
        self._sweep_jobs()
        self._sweep_leftovers()

    def _sweep_leftovers(self) -> None:
        """Delete what attempts have left that were lost with their worker; looks once an hour."""
        if time.monotonic() < self._leftovers_due:
            return
        for name in self._storage.sweep_results(self._attempt_of, older_than_s=self._keep_s):
            self._log.info("the files of a lost attempt are deleted: %s", name)
        self._leftovers_due = time.monotonic() + _LEFTOVERS_S

    def _attempt_of(self, job_id: str) -> int | None:
        job = self._table.get(job_id)
        return job.attempt if job is not None else None

    def _sweep_jobs(self) -> None:
        """Delete ended jobs, a portion at a time; looks once a minute.

        A job that the object store does not delete is passed over for a day, so that it keeps no
        other; where one is refused the portion ends, for the store may be out of reach.
        """
        now = time.monotonic()
        if now < self._due:
            return
        self._refused = {name: until for name, until in self._refused.items() if until > now}
        limit = _AT_ONCE + len(self._refused)
        old = self._table.ended_before(time.time() - self._keep_s, limit)
        for job in filter(None, map(self._table.get, old)):
            if self._stopping.is_set():
                return
            if job.id in self._refused:
                continue
            try:
                self._purge(job)
            except OutputError as error:
                self._log.error("job %s is kept for now: %s", job.id, error)
                self._refused[job.id] = now + _AGAIN_S
                self._due = time.monotonic() + self._look_s
                return
            self._log.info("job %s was deleted: it ended more than %.0f days ago", job.id,
                           self._keep_s / 86400)  # fmt: skip
        if len(old) < limit:
            self._due = time.monotonic() + self._look_s
