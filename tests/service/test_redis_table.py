"""What only a job table in Redis has: the server's clock, lists of its own, messages beside it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis
from celery.exceptions import OperationalError

from service.jobs import NewJob, State, TableUnreachable
from service.jobs.redis import RedisJobTable, connect
from service.queue import WakeUps, make_celery
from service.settings import Settings
from tests.service.redis_server import RedisServer

pytestmark = pytest.mark.needs("redis-server")


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with connect(redis_server.url, timeout_s=10) as connected:
        yield connected


@pytest.fixture
def prefix() -> str:
    return f"{secrets.token_hex(4)}:"


@pytest.fixture
def table(client: redis.Redis, prefix: str) -> RedisJobTable:
    return RedisJobTable(client, prefix=prefix)


def test_times_and_leases_are_the_servers(
    table: RedisJobTable, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the clock of the machine says that asks."""
    monkeypatch.setattr(time, "time", lambda: 0.0)

    def now() -> float:
        seconds, microseconds = client.time()
        return seconds + microseconds / 1e6

    began = now()
    held, lost = table.submit(NewJob({})), table.submit(NewJob({}))
    holding = table.claim(lease_s=1000)
    assert holding is not None
    table.claim(lease_s=0)
    ended = now()

    assert began <= held.created_at <= ended
    assert began + 1000 <= holding.lease_until <= ended + 1000
    assert table.reclaim(limit=10) == [lost.id]


def test_a_list_by_state_costs_no_more_where_many_jobs_are_in_another(
    table: RedisJobTable, client: redis.Redis
) -> None:
    """Counted in commands of the server."""

    def commands() -> int:
        count: int = client.info("stats")["total_commands_processed"]
        return count

    def cost(ask: Callable[[], object]) -> int:
        before = commands()
        ask()
        return commands() - before

    def costs(n_more: int) -> list[int]:
        for _ in range(n_more):
            table.cancel(table.submit(NewJob({}, owner="a")).id)
        states = (State.CANCELLED, State.FAILED, None)
        return [cost(partial(table.newest, 5, owner=owner, state=state))
                for owner in ("a", None) for state in states]  # fmt: skip

    assert costs(10) == costs(300)


def test_a_table_that_counted_states_lists_them(
    table: RedisJobTable, client: redis.Redis, prefix: str
) -> None:
    """As before jobs were listed by state; a process of then may still write to it."""
    jobs = [table.submit(NewJob({}, owner=owner)).id for owner in "aab"]
    table.cancel(jobs[1])
    client.delete(*client.keys(f"{prefix}jobs ?*"), *client.keys(f"{prefix}of:? ?*"))
    client.zadd(f"{prefix}jobs running", {jobs[0]: 1})
    client.hset(f"{prefix}states", "queued", "2")

    assert table.summary().counts[State.CANCELLED] == 1

    assert [job.id for job in table.newest(9, state=State.QUEUED)] == [jobs[2], jobs[0]]
    assert [job.id for job in table.newest(9, owner="a", state=State.CANCELLED)] == [jobs[1]]
    counts = {State.QUEUED: 2, State.CANCELLED: 1}
    assert table.summary().counts == {state: counts.get(state, 0) for state in State}


def test_of_a_job_that_is_purged_nothing_stays(
    table: RedisJobTable, client: redis.Redis, prefix: str
) -> None:
    for number in range(3):
        new = NewJob({}, owner="a", notify={"url": "u"}, idempotency_key=str(number))
        job_id = table.submit(new).id
        table.claim(lease_s=10)
        assert table.finish(job_id, 1, State.SUCCEEDED)
    done, refused, waiting = table.take_deliveries(10, lease_s=60)
    table.drop_delivery(done.id)
    for delivery in (done, refused, waiting):
        assert table.purge(delivery.job_id)
    table.postpone_delivery(refused.id, 0, "its sender did not know yet")

    assert set(client.keys(f"{prefix}*")) == {f"{prefix}numbers", f"{prefix}totals"}
    assert table.take_deliveries(10, lease_s=60) == []


def test_as_many_messages_are_in_the_broker_as_jobs_wait(
    table: RedisJobTable, client: redis.Redis, redis_server: RedisServer
) -> None:
    name = "avsa:broker:wake-ups"
    client.delete(name)
    wake_ups = WakeUps(make_celery(Settings(redis_url=redis_server.url)), table)
    for _ in range(3):
        table.submit(NewJob({}))

    for _ in range(2):
        wake_ups.top_up()
        assert client.llen(name) == 3
    client.lpop(name)
    wake_ups.top_up()
    assert client.llen(name) == 3


def test_a_broker_that_goes_after_its_table_is_out_of_reach(
    table: RedisJobTable, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everything is while Redis starts again, which needs no trace in the log."""

    def refuse() -> None:
        raise OperationalError("Connection refused.")

    celery = make_celery(Settings(redis_url=redis_server.url))
    monkeypatch.setattr(celery, "connection_for_write", refuse)
    table.submit(NewJob({}))
    with pytest.raises(TableUnreachable, match=r"The broker is out of reach: Connection refused\."):
        WakeUps(celery, table).top_up()
