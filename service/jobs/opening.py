"""Which table the settings ask for."""

from __future__ import annotations

from service.jobs.redis import RedisJobTable, connect
from service.jobs.sqlite import SqliteJobTable
from service.jobs.table import JobTable
from service.settings import Settings


def open_table(settings: Settings) -> JobTable:
    """The job table: in a file under the data directory, or in Redis."""
    if not settings.redis_url:
        return SqliteJobTable(settings.database)
    # A worker must be able to miss a renewal and try again before its lease is over.
    return RedisJobTable(connect(settings.redis_url, timeout_s=min(5.0, settings.lease_s / 4)))
