"""A request's body: on its way to the disk, in large batches, in a thread, or small in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import anyio
from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.problems import Problem

# Bytes are handed to the disk in batches of this size.
_BATCH = 4 << 20
# More is not taken of what is held in memory: JSON that names files.
_IN_MEMORY = 1 << 20


class PlainBody:
    """ASGI middleware: 415 for a body in a coding, as gzip: it would be stored as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless its body is in a coding."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        coding = headers.get("content-encoding", "").strip().lower()
        if coding in ("", "identity"):
            await self._app(scope, receive, send)
            return
        detail = f"The body's Content-Encoding is {coding[:50]!r}; send it without any."
        accepted = {"Accept-Encoding": "identity"}
        problem = Problem(415, "unsupported_media_type", detail, headers=accepted)
        await problems.response(problem)(scope, receive, send)


class BodyLimit:
    """ASGI middleware: 413 for a body of more than 1 MiB, announced or not, unless it is of files.

    Those are streamed to the disk, with limits of their own. All else the framework reads into
    memory, and before it asks who calls.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, as far as its body is small."""
        if scope["type"] != "http" or _sends_files(scope):
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        body, started = _Counted(receive, int(announced) if announced.isdigit() else 0), False

        async def send_unless_too_large(message: Message) -> None:
            nonlocal started
            if started or not body.too_large:
                started = True
                await send(message)

        try:
            if not body.too_large:
                await self._app(scope, body.next, send_unless_too_large)
        except Exception:
            if started or not body.too_large:
                raise
        if body.too_large and not started:
            problem = too_large(body.size, _IN_MEMORY)
            await problems.response(problem)(scope, receive, send)


@dataclass
class _Counted:
    """A request's messages while its body is small.

    size : of the body, as announced or as far as it has come.
    """

    receive: Receive
    size: int
    n_come: int = 0

    @property
    def too_large(self) -> bool:
        return self.size > _IN_MEMORY

    async def next(self) -> Message:
        """The next message; whoever reads on where it gets too large is told that it breaks off."""
        message = await self.receive()
        self.n_come += len(message.get("body", b""))
        self.size = max(self.size, self.n_come)
        return {"type": "http.disconnect"} if self.too_large else message


def _sends_files(scope: Scope) -> bool:
    """Whether a request's body is streamed to the disk."""
    if scope["path"] == "/align":
        kind = Headers(scope=scope).get("content-type", "")
        return kind.lower().startswith("multipart/form-data")
    of_upload: bool = scope["path"].startswith("/uploads/")
    return of_upload and scope["method"] in ("PATCH", "PUT")


async def pour(request: Request, write: Callable[[bytearray], None], *, idle_s: float) -> None:
    """Hand a body to `write`, in a thread, batch by batch; what came before a failure is written.

    Raises
    ------
    Problem : the connection ended or went silent for `idle_s` within the body (400), or what
        `write` raises.
    """
    batch, broken = bytearray(), None
    try:
        async for chunk in _chunks(request, idle_s):
            batch += chunk
            if len(batch) >= _BATCH:
                full, batch = batch, bytearray()
                await run_sync(write, full)
    except ClientDisconnect:
        broken = "The connection ended within the body."
    except TimeoutError:
        broken = f"Nothing of the body came for {idle_s:.0f} s."
    finally:
        if batch:
            # Also when the server is stopping: what has arrived need not be sent again.
            with anyio.CancelScope(shield=True):
                await run_sync(write, batch)
    if broken:
        raise Problem(400, "broken_body", broken)


async def _chunks(request: Request, idle_s: float) -> AsyncIterator[bytes]:
    """The body's chunks; TimeoutError if one keeps waiting for longer than `idle_s`."""
    stream = request.stream()
    while True:
        with anyio.fail_after(idle_s):
            try:
                chunk = await anext(stream)
            except StopAsyncIteration:
                return
        yield chunk


def content_length(request: Request) -> int | None:
    """The announced length of the body; None if it is sent in chunks."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdigit() else None


def media_type(request: Request) -> str:
    """What the body is, without parameters, in lower case: a type is the same in any."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def too_large(size: int, limit: int) -> Problem:
    """The answer to more than is taken."""
    return Problem(
        413, "too_large", f"The body has {size} bytes or more; the limit is {limit} bytes."
    )
