"""Numbers for Prometheus: what the job table knows, and what this process has answered.

Everything about jobs and workers is read from the table when it is asked for, so every API process
of a cluster tells the same, and nothing is lost with a process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.jobs import JobTable, State, Summary, WorkerInfo

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)


class Metrics:
    """The numbers of one process."""

    def __init__(self, table: JobTable, free_bytes: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_TableCollector(table, free_bytes))
        self._requests = Counter(
            "avsa_http_requests", "Requests that were answered.",
            ["operation", "method", "status"], registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "avsa_http_request_seconds", "Time to the end of an answer.", ["operation"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip

    def observe(self, operation: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(operation, method, str(status)).inc()
        self._seconds.labels(operation).observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text format; raises `TableUnreachable`."""
        return generate_latest(self._registry)


class _TableCollector(Collector):
    """Reads the table once per scrape."""

    def __init__(self, table: JobTable, free_bytes: Callable[[], int]) -> None:
        self._table = table
        self._free_bytes = free_bytes

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: registering must not read the table."""
        return []

    def collect(self) -> Iterable[Metric]:
        """What the table says now."""
        yield _gauge("avsa_disk_free_bytes", "Space left for uploads.", self._space())
        summary = self._table.summary()
        yield from _of_jobs(summary)
        yield from _of_totals(summary.totals)
        yield from _of_workers(self._table.workers(), summary.now)

    def _space(self) -> int:
        """Free bytes; a disk that is gone has none, and keeps no other number from being told."""
        with suppress(OSError):
            return self._free_bytes()
        return 0


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _of_jobs(summary: Summary) -> Iterable[Metric]:
    jobs = GaugeMetricFamily("avsa_jobs", "Jobs in the table, by state.", labels=["state"])
    for state in State:
        jobs.add_metric([state.value], summary.counts.get(state, 0))
    yield jobs

    def age(since: float | None) -> float:
        return 0.0 if since is None else max(0.0, summary.now - since)

    yield _gauge(
        "avsa_queue_age_seconds", "How long the job waits that waits longest; 0: none waits.",
        age(summary.oldest_queued_at),
    )  # fmt: skip
    yield _gauge(
        "avsa_lease_age_seconds", "Time since the renewal of the lease renewed least recently.",
        age(summary.oldest_beat_at),
    )  # fmt: skip
    yield _gauge("avsa_webhooks_waiting", "Webhooks to be delivered.", summary.deliveries)


def _of_totals(totals: dict[str, float]) -> Iterable[Metric]:
    """The table's counters: `ended.STATE`, `crashes`, ..., `stage.NAME.seconds`, `.count`."""
    ended = CounterMetricFamily("avsa_jobs_ended", "Jobs that ended, by state.", labels=["state"])
    for state in State:
        if state.final:
            ended.add_metric([state.value], totals.get(f"ended.{state}", 0))
    yield ended
    attempts = CounterMetricFamily(
        "avsa_attempts_cut_short", "Attempts that ended before their job.", labels=["reason"]
    )
    for reason in ("crashes", "losses", "drains"):
        attempts.add_metric([reason], totals.get(reason, 0))
    yield attempts
    seconds = CounterMetricFamily(
        "avsa_stage_seconds", "Time that finished attempts spent in a stage.", labels=["stage"]
    )
    runs = CounterMetricFamily(
        "avsa_stage_runs", "Finished attempts that went through a stage.", labels=["stage"]
    )
    for name, value in sorted(totals.items()):
        if name.startswith("stage."):
            stage, _, what = name.removeprefix("stage.").rpartition(".")
            (seconds if what == "seconds" else runs).add_metric([stage], value)
    yield seconds
    yield runs


def _of_workers(workers: list[WorkerInfo], now: float) -> Iterable[Metric]:
    yield _gauge("avsa_workers", "Workers that are there.", len(workers))
    age = GaugeMetricFamily(
        "avsa_worker_silence_seconds", "Time since a worker was heard of.", labels=["worker"]
    )
    child = GaugeMetricFamily(
        "avsa_child_memory_bytes", "Memory of a worker's child: of the host, of the GPU.",
        labels=["worker", "kind"],
    )  # fmt: skip
    gpus: dict[tuple[str, str, str], float] = {}
    for worker in workers:
        age.add_metric([worker.name], max(0.0, now - worker.seen_at))
        for kind, name in (("host", "child_memory_bytes"), ("gpu", "gpu_memory_bytes")):
            if name in worker.info:
                child.add_metric([worker.name, kind], worker.info[name])
        host = worker.name.partition(":")[0]
        for index, gpu in enumerate(worker.info.get("gpus", [])):  # of the host: all workers' alike
            for kind in ("used", "total"):
                gpus[host, f"{index} {gpu['name']}", kind] = gpu[kind]
    yield age
    yield child
    memory = GaugeMetricFamily(
        "avsa_gpu_memory_bytes", "Memory of a host's GPUs, of all processes.",
        labels=["host", "gpu", "kind"],
    )  # fmt: skip
    for labels, value in gpus.items():
        memory.add_metric(labels, value)
    yield memory
