"""API keys: who may do what, and how much.

A key is 256 random bits that its owner keeps; the service keeps their SHA-256 and what the key may
do. Several keys may belong to one owner, so that a key can be exchanged without losing its jobs.
In embedded mode keys lie in SQLite beside the job table, in a cluster in the Redis that all share.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

import redis

from service.jobs import TableUnreachable
from service.jobs.connections import Connections
from service.jobs.sqlite_schema import told_if_damaged

PREFIX = "avsa_"
P = ParamSpec("P")
T = TypeVar("T")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Scope(StrEnum):
    """What a key may be used for."""

    READ = "read"
    SUBMIT = "submit"
    METRICS = "metrics"
    ADMIN = "admin"


@dataclass(frozen=True)
class Key:
    """What the service knows of a key.

    Attributes
    ----------
    id : public name of the key, 12 hexadecimal digits.
    owner : whose jobs and uploads it reaches; `admin` reaches all.
    digest : SHA-256 of the secret, hexadecimal.
    per_minute : requests a minute; None: no limit.
    max_jobs : jobs that may be queued or running at a time; None: the service's own limit.
    expires_at : seconds since 1970; None: never.
    """

    id: str
    owner: str
    scopes: frozenset[Scope]
    digest: str
    created_at: float
    expires_at: float | None = None
    per_minute: int | None = None
    max_jobs: int | None = None

    def to_json(self) -> str:
        """The key as it is stored."""
        return json.dumps({**asdict(self), "scopes": sorted(self.scopes)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Key:
        """The inverse of `to_json`."""
        key = cls(**json.loads(text))
        return replace(key, scopes=frozenset(map(Scope, key.scopes)))


def make_key(
    owner: str, scopes: Iterable[Scope], *, expires_at: float | None = None,
    per_minute: int | None = None, max_jobs: int | None = None,
) -> tuple[str, Key]:  # fmt: skip
    """A new secret, to be shown once, and the key to store.

    Raises
    ------
    ValueError : the owner's name is not 1 to 64 of `A-Z a-z 0-9 . _ @ -`, or a limit is below 1.
    """
    if not _OWNER.fullmatch(owner):
        raise ValueError(f"The owner {owner!r} is not 1 to 64 letters, digits, '.', '_', '@', '-'.")
    for name, limit in (("requests a minute", per_minute), ("jobs", max_jobs)):
        if limit is not None and limit < 1:
            raise ValueError(f"The limit of {name} is {limit}; it has to be 1 or more.")
    secret = PREFIX + secrets.token_urlsafe(32)
    return secret, Key(
        id=secrets.token_hex(6),
        owner=owner,
        scopes=frozenset(scopes),
        digest=digest_of(secret),
        created_at=time.time(),
        expires_at=expires_at,
        per_minute=per_minute,
        max_jobs=max_jobs,
    )


def digest_of(secret: str) -> str:
    """SHA-256 of a secret. It has 256 random bits: no salt or slow hash would add anything."""
    return hashlib.sha256(secret.encode()).hexdigest()


def admin_key(secret: str) -> Key:
    """The key of an operator who keeps the secret in the settings, not in the store."""
    return Key("admin", "admin", frozenset({Scope.ADMIN}), digest_of(secret), created_at=0.0)


class KeyStore(Protocol):
    """Where keys lie. Every method may be called from any thread.

    Each raises `TableUnreachable` where the keys cannot be reached.
    """

    def add(self, key: Key) -> None:
        """Store a key."""

    def find(self, digest: str) -> Key | None:
        """The key of a digest, be it expired or not."""

    def all(self) -> list[Key]:
        """Every key, the oldest first."""

    def revoke(self, key_id: str) -> bool:
        """Forget a key at once; False if there is none of this id."""

    def empty(self) -> bool:
        """Whether there is no key at all."""


def _reaching(method: Callable[P, T]) -> Callable[P, T]:
    """Say in our words what the stores' libraries raise where they reach nothing."""

    @wraps(method)
    def reaching(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (sqlite3.OperationalError, redis.RedisError) as error:
            words = str(error).rstrip(".")
            raise TableUnreachable(f"The keys are out of reach: {words}.") from error

    return reaching


class SqliteKeys:
    """Keys in an SQLite file; raises `ValueError` if it is a damaged one, or none."""

    def __init__(self, path: Path) -> None:
        self._connections = Connections(path, busy_s=30)
        path.parent.mkdir(parents=True, exist_ok=True)
        with told_if_damaged(path):
            self._begin()
        path.chmod(0o600)

    @_reaching
    def _begin(self) -> None:
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS keys "
            "(digest TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL) STRICT"
        )

    @property
    def _db(self) -> sqlite3.Connection:
        return self._connections.own

    @_reaching
    def add(self, key: Key) -> None:
        """Store a key."""
        self._db.execute("INSERT INTO keys VALUES (?, ?, ?)", (key.digest, key.id, key.to_json()))

    @_reaching
    def find(self, digest: str) -> Key | None:
        """The key of a digest."""
        row = self._db.execute("SELECT key FROM keys WHERE digest = ?", (digest,)).fetchone()
        return Key.from_json(row[0]) if row else None

    @_reaching
    def all(self) -> list[Key]:
        """Every key, the oldest first."""
        return _by_age(row[0] for row in self._db.execute("SELECT key FROM keys"))

    @_reaching
    def revoke(self, key_id: str) -> bool:
        """Forget a key."""
        return self._db.execute("DELETE FROM keys WHERE id = ?", (key_id,)).rowcount == 1

    @_reaching
    def empty(self) -> bool:
        """Whether there is no key at all."""
        return self._db.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is None


class RedisKeys:
    """Keys in a Redis hash, by digest."""

    def __init__(self, client: redis.Redis, name: str = "avsa:keys") -> None:
        self._redis = client
        self._name = name

    @_reaching
    def add(self, key: Key) -> None:
        """Store a key."""
        self._redis.hset(self._name, key.digest, key.to_json())

    @_reaching
    def find(self, digest: str) -> Key | None:
        """The key of a digest."""
        text = self._redis.hget(self._name, digest)
        return Key.from_json(text) if text else None

    @_reaching
    def all(self) -> list[Key]:
        """Every key, the oldest first."""
        return _by_age(self._redis.hvals(self._name))

    @_reaching
    def revoke(self, key_id: str) -> bool:
        """Forget a key."""
        digests = [key.digest for key in self.all() if key.id == key_id]
        return bool(digests and self._redis.hdel(self._name, *digests))

    @_reaching
    def empty(self) -> bool:
        """Whether there is no key at all."""
        return self._redis.hlen(self._name) == 0


def _by_age(texts: Iterable[str | bytes]) -> list[Key]:
    return sorted(map(Key.from_json, texts), key=lambda key: (key.created_at, key.id))
