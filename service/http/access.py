"""Who calls, and whether they may: keys in, a `Caller` out, before any route runs."""

from __future__ import annotations

import hmac
import math
import time
from dataclasses import dataclass, field
from typing import Annotated

import redis
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItemPerMinute
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter
from pydantic import BaseModel, ConfigDict, Field

from service import problems
from service.http.middleware import is_loopback
from service.jobs import TableUnreachable
from service.keys import Key, KeyStore, RedisKeys, Scope, SqliteKeys, admin_key, digest_of
from service.problems import Problem
from service.settings import Settings

COOKIE = "avsa_key"
_BEARER = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer avsa_...`")
_COOKIE = APIKeyCookie(
    name=COOKIE, auto_error=False, description="The same key, for the page; set by `POST /session`"
)
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="avsa-align"'}
# What needs another scope than its method says.
_SCOPES = {
    "metrics": Scope.METRICS,
    # To go on with an upload one asks where it stands, and is told where its parts may go.
    "get_upload": Scope.SUBMIT,
    "get_upload_offset": Scope.SUBMIT,
    "get_direct_upload": Scope.SUBMIT,
}
# What a load balancer or a page asks before it has a key.
OPEN = frozenset({"livez", "readyz", "open_session", "close_session"})


@dataclass(frozen=True)
class Caller:
    """Who made a request."""

    owner: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    max_jobs: int | None = None

    @property
    def sees_all(self) -> bool:
        """Whether jobs of every owner are theirs to see."""
        return Scope.ADMIN in self.scopes

    def may_see(self, owner: str) -> bool:
        """Whether what belongs to an owner is theirs to see."""
        return self.sees_all or owner == self.owner

    def may(self, scope: Scope) -> bool:
        """Whether they may do what a scope stands for."""
        return scope in self.scopes or self.sees_all


_LATELY_S = 1.0
_MOST_LATELY = 1000

# Whoever calls a service on loopback that has no keys.
LOCAL = Caller("", frozenset({Scope.ADMIN}))


@dataclass
class _Known:
    """Who was let in, and until when that is good. Times are monotonic."""

    caller: Caller
    until: float
    look_again: float


@dataclass
class Gate:
    """Turns keys into callers.

    Attributes
    ----------
    loopback : the service listens on this machine only; then, and only as long as there is no key
        at all, whoever calls may do everything.
    admin : a key of the operator's that is not in the store.
    limiter : counts the requests of keys.

    Who was let in is let in again for a second without a look at the store, unless its requests
    are counted; so a key that is revoked, or the first that is made, counts within a second.
    """

    keys: KeyStore
    limiter: MovingWindowRateLimiter
    loopback: bool
    admin: Key | None = None
    _lately: dict[str | None, _Known] = field(default_factory=dict)

    def locked(self) -> bool:
        """Whether there is a key, so that everyone needs one."""
        return self.admin is not None or not self.keys.empty()

    def caller_of_late(self, secret: str | None) -> Caller | None:
        """Who holds a secret, if that was asked a moment ago; without waiting for anything.

        Past half of the time one request is sent to look again, so that not all have to at its end.
        """
        known, now = self._lately.get(_name(secret)), time.monotonic()
        if known is None or now >= known.until:
            return None
        if now >= known.look_again:
            known.look_again = math.inf
            return None
        return known.caller

    def caller(self, secret: str | None, *, by_cookie: bool = False) -> Caller:
        """Who holds a secret.

        As long as there is no key, a cookie of one that is no more shuts nobody out: a page's
        visitor cannot see it.

        Raises
        ------
        Problem : no key or no valid one (401), too many requests (429).
        TableUnreachable : the keys cannot be read.
        """
        try:
            caller, key = self._caller(secret, by_cookie)
            # Some are let in for want of any key, not for what they hold.
            return self._remembered(None if caller is LOCAL else secret, caller, key)
        except Problem:
            self._lately.pop(_name(secret), None)
            raise
        except redis.RedisError as error:  # which counts the requests
            words = str(error).rstrip(".")
            raise TableUnreachable(f"Requests cannot be counted: {words}.") from error

    def _remembered(self, secret: str | None, caller: Caller, key: Key | None) -> Caller:
        soon = time.time() + _LATELY_S
        counted = key is not None and key.per_minute is not None
        ends = key is not None and key.expires_at is not None and key.expires_at <= soon
        if not counted and not ends:
            if len(self._lately) >= _MOST_LATELY:
                self._lately.clear()
            now = time.monotonic()
            self._lately[_name(secret)] = _Known(caller, now + _LATELY_S, now + _LATELY_S / 2)
        return caller

    def _caller(self, secret: str | None, by_cookie: bool) -> tuple[Caller, Key | None]:
        if (secret is None or by_cookie) and self.loopback and not self.locked():
            return LOCAL, None
        if secret is None:
            detail = "A key is needed: send Authorization: Bearer KEY."
            raise Problem(401, "key_needed", detail, headers=_CHALLENGE)
        key = self._valid(secret)
        self._count(key)
        return Caller(key.owner, key.scopes, key.id, key.max_jobs), key

    def _valid(self, secret: str) -> Key:
        digest = digest_of(secret)
        if self.admin is not None and hmac.compare_digest(self.admin.digest, digest):
            return self.admin
        key = self.keys.find(digest)
        if key is None or not hmac.compare_digest(key.digest, digest):
            raise Problem(401, "key_unknown", "The key is not known here.", headers=_CHALLENGE)
        if key.expires_at is not None and key.expires_at <= time.time():
            detail = f"The key {key.id} has expired: ask for a new one."
            raise Problem(401, "key_expired", detail, headers=_CHALLENGE)
        return key

    def _count(self, key: Key) -> None:
        if key.per_minute is None:
            return
        item = RateLimitItemPerMinute(key.per_minute)
        if not self.limiter.hit(item, key.id):
            reset = self.limiter.get_window_stats(item, key.id).reset_time
            wait_s = max(1, math.ceil(reset - time.time()))
            raise Problem(
                429, "too_many_requests",
                f"The key {key.id} is good for {key.per_minute} requests a minute: wait "
                f"{wait_s} s.", headers={"Retry-After": str(wait_s)},
            )  # fmt: skip


def _name(secret: str | None) -> str | None:
    """What a secret is remembered by, so that none lies in memory."""
    return None if secret is None else digest_of(secret)


def open_gate(settings: Settings) -> Gate:
    """The gate that the settings ask for: keys and counts in files and memory, or in Redis."""
    admin = admin_key(settings.admin_key.get_secret_value()) if settings.admin_key else None
    loopback = is_loopback(settings.host)
    if not settings.redis_url:
        limiter = MovingWindowRateLimiter(storage_from_string("memory://"))
        return Gate(SqliteKeys(settings.key_database), limiter, loopback, admin)
    counts = storage_from_string(settings.redis_url, key_prefix="avsa:limits")
    client = redis.Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=5)
    return Gate(RedisKeys(client), MovingWindowRateLimiter(counts), loopback, admin)


async def authorise(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    cookie: Annotated[str | None, Security(_COOKIE)],
) -> None:
    """Find out who calls, and refuse what their key is not for; every route depends on it."""
    operation = getattr(request.scope.get("route"), "operation_id", None)
    if operation in OPEN:
        return
    gate: Gate = request.app.state.gate
    secret = bearer.credentials if bearer else cookie
    caller = gate.caller_of_late(secret)
    if caller is None:
        caller = await run_sync(lambda: gate.caller(secret, by_cookie=bearer is None))
    needed = _SCOPES.get(operation or "") or (
        Scope.READ if request.method in ("GET", "HEAD") else Scope.SUBMIT
    )
    if not caller.may(needed):
        detail = f"The key {caller.key_id} is not for this: it lacks the scope {needed}."
        raise Problem(403, "scope_missing", detail)
    request.state.caller = caller


# Dependencies are coroutines even where they wait for nothing: FastAPI runs plain functions in
# threads, and a hop to a thread and back costs more than all else a request does.
async def caller_of(request: Request) -> Caller:
    """The caller that `authorise` has found."""
    caller: Caller = request.state.caller
    return caller


async def owner_of(caller: Annotated[Caller, Depends(caller_of)]) -> str:
    """Whose is what the caller makes."""
    return caller.owner


CallerDep = Annotated[Caller, Depends(caller_of)]
Owner = Annotated[str, Depends(owner_of)]

# --- the page's way in ---------------------------------------------------------------------------

router = APIRouter(tags=["access"])


class SessionRequest(BaseModel):
    """What opens a session."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(
        max_length=200,
        description="an API key",
        examples=["avsa_3kXo0ZL6b1qvC8sYtW2nRj5dGhUeAfPm"],
    )


@router.post(
    "/session",
    status_code=204,
    operation_id="open_session",
    responses={
        400: problems.described("the body is no text", "bad_request"),
        401: problems.described("the key is not valid", "key_unknown"),
        422: problems.described("the body does not fit", "invalid_request"),
        429: problems.described("too many requests of this key", "too_many_requests"),
        503: problems.described("the keys are out of reach", "table_unreachable"),
    },
)
async def open_session(request: Request, body: SessionRequest, response: Response) -> None:
    """Keep a key in a cookie that scripts cannot read, for pages.

    What a page cannot send a header with (pictures, downloads, event streams) is reached with it.
    """
    gate: Gate = request.app.state.gate
    await run_sync(gate.caller, body.key)
    response.set_cookie(
        COOKIE, body.key, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )


@router.delete("/session", status_code=204, operation_id="close_session")
async def close_session(response: Response) -> None:
    """Forget the cookie."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
