"""The job table in Redis: for several machines. Its one Lua script is `table.lua`.

Leases are kept by the server's own clock, so the machines' clocks need not agree. Redis must keep
what it has accepted: an append-only file, and nothing evicted; `check` refuses any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.retry import Retry

from service.jobs.record import (
    LOST_AGAIN,
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
    given_up,
    new_id,
)

_OLDEST = (7, 0)
_OUT_OF_REACH = (
    redis.ConnectionError, redis.TimeoutError, BusyLoadingError, OutOfMemoryError, ReadOnlyError,
    ClusterDownError, OSError,
)  # fmt: skip
# How a Redis begins that takes nothing for now, where the client knows no class for it: it cannot
# save, has too few replicas, or is busy with a script.
_NOT_NOW = ("MISCONF", "NOREPLICAS", "BUSY")


def connect(url: str, *, timeout_s: float) -> redis.Redis:
    """A client that waits no longer than `timeout_s` and repeats nothing of itself."""
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),  # a claim that is repeated would be two
    )


class RedisJobTable:
    """`JobTable` in Redis. Safe from any thread, process and machine.

    `clock` is for tests: seconds since 1970, in place of the server's clock.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        prefix: str = "avsa:",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._clock = clock
        source = resources.files("service.jobs").joinpath("table.lua").read_text()
        # With its memory full Redis takes no new job, but those that it has can go on and end.
        self._submitting = client.register_script("#!lua\n" + source)
        self._anything = client.register_script("#!lua flags=allow-oom\n" + source)

    @contextmanager
    def _reaching(self) -> Iterator[redis.Redis]:
        try:
            yield self._client
        except _OUT_OF_REACH as error:
            raise _unreachable(error) from error
        except ResponseError as error:
            if not str(error).startswith(_NOT_NOW):
                raise
            raise _unreachable(error) from error

    def _call(self, command: str, **arguments: Any) -> Any:
        """Run a command of the script; arguments that are None are left out."""
        now = repr(self._clock()) if self._clock else ""
        given = {name: value for name, value in arguments.items() if value is not None}
        script = self._submitting if command == "submit" else self._anything
        with self._reaching():
            answer = script(keys=[self._prefix], args=[command, now, json.dumps(given)])
        return json.loads(cast(str, answer))

    def _key(self, name: str) -> str:
        return self._prefix + name

    def check(self) -> None:
        """See `JobTable`."""
        with self._reaching() as client:
            info = client.info()
            client.set(self._key("checked"), "1")
        version = tuple(int(part) for part in info["redis_version"].split(".")[:2])
        fault = None
        if version < _OLDEST:
            fault = f"Redis {info['redis_version']} is too old; 7.0 or later is needed."
        elif not info["aof_enabled"]:
            fault = "Redis keeps no append-only file; set appendonly yes."
        elif info.get("aof_last_write_status", "ok") != "ok":
            fault = "Redis cannot write its append-only file; is its disk full?"
        elif info["maxmemory_policy"] != "noeviction":
            fault = (
                f"Redis evicts what it holds (maxmemory-policy {info['maxmemory_policy']}); "
                "set noeviction."
            )
        if fault:
            raise TableUnreachable(fault)

    # --- the clients' side -----------------------------------------------------------------------

    def submit(self, new: NewJob, limits: Limits = Limits()) -> Job:  # noqa: B008 - frozen
        """See `JobTable`."""
        fields: dict[str, Any] = {
            "id": new.id, "state": State.QUEUED, "label": new.label, "owner": new.owner,
            "priority": new.priority, "spec": new.spec, "stage": "queued", "fraction": 0.0,
            "attempt": 0, "crashes": 0, "losses": 0, "drains": 0, "worker": "", "lease_until": 0.0,
            "beaten_at": None, "cancel_requested": False, "results": [], "error": None,
            "notify": new.notify, "stages": {}, "idempotency_key": new.idempotency_key,
            "fingerprint": new.fingerprint, "started_at": None, "finished_at": None,
        }  # fmt: skip
        answer = self._call(
            "submit", id=new.id, owner=new.owner, key=new.idempotency_key,
            fingerprint=new.fingerprint, queued=limits.queued, of_owner=limits.of_owner,
            key_s=limits.key_s, fields={name: json.dumps(value) for name, value in fields.items()},
        )  # fmt: skip
        if answer == "key_reused":
            raise KeyReused(new.idempotency_key or "")
        if answer == "quota_reached":
            raise QuotaReached(limits.of_owner or 0)
        if answer == "queue_full":
            raise QueueFull(limits.queued or 0)
        return _job(answer)

    def get(self, job_id: str) -> Job | None:
        """See `JobTable`."""
        with self._reaching() as client:
            return _of_hash(client.hgetall(self._key(f"job:{job_id}")))

    def of_key(self, owner: str, key: str, *, key_s: float) -> Job | None:
        """See `JobTable`."""
        return _maybe(self._call("of_key", owner=owner, key=key, key_s=key_s))

    def newest(
        self, limit: int, *, before: int | None = None, owner: str | None = None,
        state: State | None = None,
    ) -> list[Job]:  # fmt: skip
        """See `JobTable`."""
        name = self._key("jobs" if owner is None else f"of:{owner}")
        if state is not None:
            name += f" {state}"
        found: list[Job] = []
        top = f"({before}" if before is not None else "+inf"
        with self._reaching() as client:
            while len(found) < limit:
                missing = limit - len(found)
                page = cast(
                    list[tuple[str, float]],
                    client.zrevrangebyscore(name, top, "-inf", 0, missing, withscores=True),
                )
                if not page:
                    break
                with client.pipeline(transaction=False) as pipeline:
                    for job_id, _ in page:
                        pipeline.hgetall(self._key(f"job:{job_id}"))
                    jobs = map(_of_hash, pipeline.execute())
                # Since then one may have been purged, or gone on to another state.
                found += [job for job in jobs if job and state in (None, job.state)]
                top = f"({page[-1][1]:.0f}"
        return found

    def cancel(self, job_id: str) -> Job | None:
        """See `JobTable`."""
        return _maybe(self._call("cancel", id=job_id, delivery=new_id()))

    def purge(self, job_id: str) -> bool:
        """See `JobTable`."""
        return bool(self._call("purge", id=job_id))

    def ended_before(self, time: float, limit: int) -> list[str]:
        """See `JobTable`."""
        with self._reaching() as client:
            found = client.zrangebyscore(self._key("ended"), "-inf", f"({time!r}", 0, limit)
            return cast(list[str], found)

    # --- the workers' side -----------------------------------------------------------------------

    def claim(self, *, lease_s: float, worker: str = "") -> Job | None:
        """See `JobTable`."""
        return _maybe(self._call("claim", lease_s=lease_s, worker=json.dumps(worker)))

    def wanted(self, job_id: str, attempt: int) -> bool:
        """See `JobTable`."""
        names = ["state", "attempt", "cancel_requested"]
        with self._reaching() as client:
            found = client.hmget(self._key(f"job:{job_id}"), names)
        return found == [json.dumps(State.RUNNING), str(attempt), "false"]

    def beat(
        self, job_id: str, attempt: int, *, lease_s: float, stage: str, fraction: float
    ) -> Job | None:
        """See `JobTable`."""
        return _maybe(
            self._call(
                "beat", id=job_id, attempt=attempt, lease_s=lease_s,
                stage=json.dumps(stage), fraction=json.dumps(fraction),
            )
        )  # fmt: skip

    def finish(
        self, job_id: str, attempt: int, state: State, *,
        results: list[dict[str, Any]] | None = None, error: dict[str, Any] | None = None,
        stages: dict[str, float] | None = None,
    ) -> bool:  # fmt: skip
        """See `JobTable`."""
        return bool(
            self._call(
                "finish", id=job_id, attempt=attempt, state=state, delivery=new_id(),
                results=json.dumps(results or []), stages=json.dumps(stages or {}),
                error=json.dumps(error),
            )
        )  # fmt: skip

    def release(self, job_id: str, attempt: int) -> bool:
        """See `JobTable`."""
        return self._put_back(job_id, attempt, "drains") is not None

    def crashed(self, job_id: str, attempt: int, *, limit: int, words: str) -> State | None:
        """See `JobTable`."""
        error = json.dumps(given_up("crashed", limit, words))
        return self._put_back(job_id, attempt, "crashes", limit, error)

    def _put_back(
        self, job_id: str, attempt: int, kind: str, limit: int | None = None, error: str = "null"
    ) -> State | None:
        answer = self._call(
            "put_back", id=job_id, attempt=attempt, kind=kind, limit=limit, error=error,
            delivery=new_id(),
        )  # fmt: skip
        return State(answer) if answer else None

    def reclaim(self, *, limit: int) -> list[str]:
        """See `JobTable`."""
        error = json.dumps(given_up("worker_lost", limit, LOST_AGAIN))
        queued = []
        while answer := self._call("reclaim", limit=limit, error=error, delivery=new_id()):
            job_id, state = answer
            if state == State.QUEUED:
                queued.append(job_id)
        return queued

    def announce(self, worker: str, info: dict[str, Any], *, ttl_s: float) -> None:
        """See `JobTable`."""
        self._call("announce", worker=worker, info=json.dumps(info), ttl_s=ttl_s)

    def workers(self) -> list[WorkerInfo]:
        """See `JobTable`."""
        said = self._call("workers")
        return [WorkerInfo(name, **said[name]) for name in sorted(said)]

    # --- the outbox, and the whole ---------------------------------------------------------------

    def take_deliveries(self, limit: int, *, lease_s: float) -> list[Delivery]:
        """See `JobTable`."""
        taken = [Delivery(**fields) for fields in self._call(
            "take_deliveries", limit=limit, lease_s=lease_s
        )]  # fmt: skip
        return sorted(taken, key=lambda delivery: delivery.created_at)

    def drop_delivery(self, delivery_id: str) -> None:
        """See `JobTable`."""
        self._call("drop_delivery", id=delivery_id)

    def postpone_delivery(self, delivery_id: str, delay_s: float, error: str) -> None:
        """See `JobTable`."""
        self._call("postpone_delivery", id=delivery_id, delay_s=delay_s, error=json.dumps(error))

    def check_room(self, owner: str, limits: Limits) -> None:
        """See `JobTable`."""
        with self._reaching() as client:
            active, waiting = client.scard(self._key(f"active:{owner}")), self.waiting()
        if limits.of_owner is not None and active >= limits.of_owner:
            raise QuotaReached(limits.of_owner)
        if limits.queued is not None and waiting >= limits.queued:
            raise QueueFull(limits.queued)

    def waiting(self) -> int:
        """See `JobTable`."""
        with self._reaching() as client:
            return client.zcard(self._key("queued"))

    def summary(self) -> Summary:
        """See `JobTable`."""
        said = self._call("summary")
        counts = {state: int(said["counts"].get(state, 0)) for state in State}
        return Summary(**{**said, "counts": counts})


def _unreachable(error: Exception) -> TableUnreachable:
    words = str(error).rstrip(".")
    return TableUnreachable(f"The job table in Redis is out of reach: {words}.")


def _of_hash(fields: Any) -> Job | None:
    return _job({name: json.loads(text) for name, text in fields.items()}) if fields else None


def _maybe(fields: dict[str, Any] | None) -> Job | None:
    return _job(fields) if fields is not None else None


def _job(fields: dict[str, Any]) -> Job:
    return Job(**{**fields, "state": State(fields["state"])})
