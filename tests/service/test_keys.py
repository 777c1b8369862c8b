"""Keys and the gate: what is stored, who gets in, and how often."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

from service.http.access import LOCAL, Gate
from service.jobs import TableUnreachable
from service.keys import Key, KeyStore, RedisKeys, Scope, SqliteKeys, admin_key, digest_of, make_key
from service.problems import Problem
from tests.service.redis_server import RedisServer


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis-server"))])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyStore]:
    if request.param == "sqlite":
        yield SqliteKeys(tmp_path / "keys.sqlite")
        return
    server = RedisServer(tmp_path / "redis").start()
    with redis.Redis.from_url(server.url) as client:
        yield RedisKeys(client)
    server.stop()


def gate_of(store: KeyStore, *, loopback: bool, admin: Key | None = None) -> Gate:
    return Gate(store, MovingWindowRateLimiter(MemoryStorage()), loopback, admin)


def code_of(gate: Gate, secret: str | None) -> str:
    with pytest.raises(Problem) as caught:
        gate.caller(secret)
    return caught.value.code


def test_a_key_is_found_listed_and_revoked(store: KeyStore) -> None:
    secret, key = make_key("post-house", [Scope.READ], per_minute=7, max_jobs=3, expires_at=9e9)
    _, other = make_key("other", [Scope.ADMIN])
    assert store.empty()

    store.add(key)
    store.add(other)

    assert store.find(digest_of(secret)) == key
    assert store.find(digest_of(secret + "x")) is None
    assert store.all() == [key, other]
    assert not store.empty()
    assert store.revoke(key.id)
    assert not store.revoke(key.id)
    assert store.find(digest_of(secret)) is None
    assert store.all() == [other]


def test_secrets_are_long_never_the_same_and_never_stored(tmp_path: Path) -> None:
    made = [make_key("a", [Scope.READ]) for _ in range(100)]
    store = SqliteKeys(tmp_path / "keys.sqlite")
    for _, key in made:
        store.add(key)

    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert len({secret for secret, _ in made}) == len({key.id for _, key in made}) == 100
    assert all(len(secret) == len("avsa_") + 43 for secret, _ in made)  # 256 bits in base64
    assert not any(secret.removeprefix("avsa_").encode() in stored for secret, _ in made)
    assert (tmp_path / "keys.sqlite").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("owner", ["", "-a", "a b", "a\n", "ä", "x" * 65, "a/../b"])
def test_owners_that_are_none(owner: str) -> None:
    with pytest.raises(ValueError, match="owner"):
        make_key(owner, [Scope.READ])


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="requests a minute is 0"):
        make_key("a", [Scope.READ], per_minute=0)


def test_who_gets_in(store: KeyStore) -> None:
    gate = gate_of(store, loopback=True)
    assert gate.caller(None) is LOCAL
    assert code_of(gate, "avsa_guess") == "key_unknown"
    # A page cannot see the cookie that it sends; who holds it may not send it as a key.
    assert gate.caller("avsa_stale", by_cookie=True) is LOCAL
    assert gate.caller_of_late("avsa_stale") is None

    secret, key = make_key("post-house", [Scope.READ, Scope.SUBMIT], max_jobs=2)
    store.add(key)

    assert code_of(gate, None) == "key_needed"
    caller = gate.caller(secret)
    assert (caller.owner, caller.key_id, caller.max_jobs) == ("post-house", key.id, 2)
    assert caller.may(Scope.READ)
    assert not caller.may(Scope.ADMIN)
    assert caller.may_see("post-house")
    assert not caller.may_see("")
    with pytest.raises(Problem):
        gate.caller("avsa_stale", by_cookie=True)
    store.revoke(key.id)
    assert code_of(gate, secret) == "key_unknown"


def test_keys_that_cannot_be_read_are_out_of_reach(tmp_path: Path) -> None:
    store = SqliteKeys(tmp_path / "keys.sqlite")
    with sqlite3.connect(tmp_path / "keys.sqlite") as other:
        other.execute("DROP TABLE keys")
    with pytest.raises(TableUnreachable, match="no such table"):
        store.find("")


def test_without_any_key_only_loopback_is_open(store: KeyStore) -> None:
    assert code_of(gate_of(store, loopback=False), None) == "key_needed"


def test_the_operators_own_key(store: KeyStore) -> None:
    gate = gate_of(store, loopback=True, admin=admin_key("a secret of the settings"))

    assert gate.locked()
    assert gate.caller("a secret of the settings").sees_all
    assert code_of(gate, None) == "key_needed"
    assert code_of(gate, "another") == "key_unknown"


def test_an_expired_key(store: KeyStore) -> None:
    secret, key = make_key("a", [Scope.READ])
    store.add(replace(key, expires_at=time.time() - 1))
    assert code_of(gate_of(store, loopback=True), secret) == "key_expired"


def test_a_key_is_not_remembered_beyond_its_end(store: KeyStore) -> None:
    gate = gate_of(store, loopback=True)
    secret, key = make_key("a", [Scope.READ], expires_at=time.time() + 0.9)
    store.add(key)
    gate.caller(secret)
    assert gate.caller_of_late(secret) is None


@pytest.mark.needs("redis-server")
def test_requests_that_cannot_be_counted_are_not_let_in(tmp_path: Path) -> None:
    """The keys can be read, but the count cannot be written."""
    server = RedisServer(tmp_path / "redis").start()
    try:
        with redis.Redis.from_url(server.url) as client:
            limiter = MovingWindowRateLimiter(storage_from_string(server.url))
            gate = Gate(RedisKeys(client), limiter, loopback=True)
            secret, key = make_key("a", [Scope.READ], per_minute=3)
            gate.keys.add(key)
            client.config_set("min-replicas-to-write", 1)
            with pytest.raises(TableUnreachable, match="cannot be counted"):
                gate.caller(secret)
    finally:
        server.stop()


def test_requests_of_a_key_are_counted_and_of_others_not(store: KeyStore) -> None:
    gate = gate_of(store, loopback=True)
    secret, key = make_key("a", [Scope.READ], per_minute=3)
    free, other = make_key("a", [Scope.READ])
    store.add(key)
    store.add(other)

    for _ in range(3):
        gate.caller(secret)
    with pytest.raises(Problem) as caught:
        gate.caller(secret)

    assert (caught.value.status, caught.value.code) == (429, "too_many_requests")
    assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
    for _ in range(10):
        gate.caller(free)


def test_who_was_let_in_is_known_for_a_second(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = gate_of(store, loopback=True)
    assert gate.caller_of_late(None) is None
    assert gate.caller(None) is LOCAL
    assert gate.caller_of_late(None) is LOCAL

    secret, plain = make_key("alice", [Scope.READ])
    limited, counted = make_key("bob", [Scope.READ], per_minute=60)
    for key in (plain, counted):
        store.add(key)
    for given in (secret, limited):
        gate.caller(given)
    held = gate.caller_of_late(secret)
    assert held is not None
    assert held.owner == "alice"
    assert gate.caller_of_late(limited) is None  # its requests are counted, each of them

    began = time.monotonic()
    clock = began + 0.6
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    assert gate.caller_of_late(secret) is None  # this one looks again
    assert gate.caller_of_late(secret) is held  # the others need not wait for it

    store.revoke(plain.id)
    assert code_of(gate, secret) == "key_unknown"
    assert gate.caller_of_late(secret) is None  # once it is known, it is known to all
    clock = began + 1.1
    assert gate.caller_of_late(secret) is None
    assert gate.caller_of_late(None) is None
    for nobody in (secret, None):
        with pytest.raises(Problem):
            gate.caller(nobody)
