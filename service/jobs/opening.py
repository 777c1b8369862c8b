"""Which table the settings ask for."""

from __future__ import annotations

from service.jobs.sqlite import SqliteJobTable
from service.jobs.table import JobTable
from service.settings import Settings


def open_table(settings: Settings) -> JobTable:
    """The job table: in a file under the data directory, or in Redis."""
    return SqliteJobTable(settings.database)
