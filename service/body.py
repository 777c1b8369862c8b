"""A request's body on its way to the disk: in large batches, in a thread, never held in memory."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import anyio
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request

from model.errors import DiskFull
from service.problems import Problem

# Bytes are handed to the disk in batches of this size.
_BATCH = 4 << 20


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


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Turn the system's errors for lack of space into the project's own.

    Raises
    ------
    DiskFull : the disk, or a quota, is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull("The service has no space left for the bytes sent.") from error
        raise


def too_large(size: int, limit: int) -> Problem:
    """The answer to more than is taken."""
    return Problem(
        413, "too_large", f"The body has {size} bytes or more; the limit is {limit} bytes."
    )
