"""What every request passes: an id and a line in the log, who may call from where, safe headers."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection
from http import HTTPMethod
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.logs import bound_contextvars
from service.problems import Problem

log = logging.getLogger("avsa.http")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# The page and its script are ours and from here; nothing is loaded from elsewhere.
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_HSTS = "max-age=31536000"
_METHODS = frozenset(HTTPMethod)


class RequestLog:
    """Gives each request an id, and logs one line when it has been answered.

    An error that nobody expected is logged with its trace, and answered with a 500 without.

    A caller's `X-Request-ID` of up to 64 letters, digits, `.`, `_` and `-` is taken over. `observe`
    is told the operation, the method, the status and the seconds. What the server cuts off once it
    is `going_down` is answered with a 503: it is to be sent again, and no fault.
    """

    def __init__(
        self, app: ASGIApp, observe: Callable[[str, str, int, float], None],
        going_down: threading.Event,
    ) -> None:  # fmt: skip
        self._app = app
        self._observe = observe
        self._going_down = going_down

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        began, status, started = time.perf_counter(), 500, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except asyncio.CancelledError:
                if not self._going_down.is_set():
                    raise
                if not started:
                    await problems.response(_going_down())(scope, receive, send_with_id)
            except Exception:
                log.exception("unhandled")
                if started:
                    raise  # the server breaks the connection off: nothing passes for whole
                problem = Problem(500, "internal", "The service failed; its log has the trace.")
                await problems.response(problem)(scope, receive, send_with_id)
            finally:
                self._tell(scope, status, time.perf_counter() - began)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        operation = getattr(scope.get("route"), "operation_id", None) or "other"
        # Callers may invent methods; each would be a series that is kept for good.
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._observe(operation, method, status, seconds)
        caller = scope.get("state", {}).get("caller")
        # Health is asked for every few seconds: it is not news.
        level = logging.DEBUG if operation in ("livez", "readyz", "metrics") else logging.INFO
        log.log(
            level, "%s %s", scope["method"], scope["path"],
            extra={
                "status": status, "ms": round(1000 * seconds, 1), "operation": operation,
                "key": caller.key_id if caller else None,
            },
        )  # fmt: skip


def _going_down() -> Problem:
    detail = "The service goes down: send the request again."
    return Problem(503, "going_down", detail, headers={"Retry-After": "5"})


class SafeHeaders:
    """What a browser may do with an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back with the headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                # Left to itself a browser takes an old page's script for a new page, and shows what
                # it once fetched with a key to whoever comes after.
                kept = "private, no-cache" if "etag" in headers else "no-store"
                headers.setdefault("cache-control", kept)
                if scope.get("scheme") == "https":
                    headers.setdefault("strict-transport-security", _HSTS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class SameSite:
    """Refuses what a foreign web page makes a visitor's browser send.

    A browser names the page's origin in every request that changes something; it has to be ours or
    an allowed one. And a service on loopback answers to loopback's names only, so that a foreign
    name that was made to resolve to 127.0.0.1 (DNS rebinding) reaches nothing.
    """

    def __init__(self, app: ASGIApp, *, loopback: bool, origins: Collection[str] = ()) -> None:
        self._app = app
        self._loopback = loopback
        self._origins = {*origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403 or 421."""
        problem = self._problem(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problems.response(problem)(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._loopback and not is_loopback(_host_name(host)):
            detail = f"The service answers on this machine only, not as {host[:100]!r}."
            return Problem(421, "wrong_host", detail)
        origin = headers.get("origin")
        if origin is None or scope["method"] in _SAFE_METHODS or origin in self._origins:
            return None
        if host and _netloc(origin) == host.lower():
            return None
        detail = f"A page of {origin[:100]!r} may not do this (AVSA_CORS_ORIGINS)."
        return Problem(403, "foreign_origin", detail)


def _netloc(origin: str) -> str:
    """Host and port of an Origin header; empty if it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    return host in _LOOPBACK or (host.startswith("127.") and host.replace(".", "").isdigit())
