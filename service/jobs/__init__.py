"""The job table: the one truth about every job. Celery's messages are only wake-ups.

`JobTable` says what it does; `SqliteJobTable` keeps it in a file, for the service on one machine,
and `RedisJobTable` in Redis, for several machines.
"""

from service.jobs.opening import open_table
from service.jobs.record import (
    DEFAULT_PRIORITY,
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    Delivery,
    Job,
    KeyReused,
    Limits,
    NewJob,
    QueueFull,
    QuotaReached,
    State,
    Summary,
    TableUnreachable,
    WorkerInfo,
    new_id,
)
from service.jobs.sqlite import SqliteJobTable
from service.jobs.table import JobTable

__all__ = [
    "DEFAULT_PRIORITY",
    "HIGHEST_PRIORITY",
    "LOWEST_PRIORITY",
    "Delivery",
    "Job",
    "JobTable",
    "KeyReused",
    "Limits",
    "NewJob",
    "QueueFull",
    "QuotaReached",
    "SqliteJobTable",
    "State",
    "Summary",
    "TableUnreachable",
    "WorkerInfo",
    "new_id",
    "open_table",
]
