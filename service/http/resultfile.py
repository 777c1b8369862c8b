"""A job's file as an answer: whole, in part, or not at all where the caller has it already.

Or from the object store.
"""

from __future__ import annotations

import os
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.responses import (
    FileResponse,
    MalformedRangeHeader,
    RangeNotSatisfiable,
    Response,
)
from starlette.types import Receive, Scope, Send

from model.errors import MediaError
from service.objects.names import ObjectName
from service.objects.store import NoObject, ObjectStore
from service.problems import Problem, store_failed


def stored_result(store: ObjectStore, uri: str) -> bytes:
    """A small result that lies in the object store.

    Raises
    ------
    Problem : it is not there (404), or the store does not give it (502), which is no caller's fault
        as it would be of an object that a request names.
    """
    try:
        return store.read(ObjectName.parse(uri))
    except NoObject as error:
        detail = "The file is no longer in the object store: somebody has deleted it there."
        raise Problem(404, "result_gone", detail) from error
    except MediaError as error:
        raise store_failed(error) from error


def kept_result(path: Path) -> bytes:
    """A small result that lies on the disk; raises `Problem` (404) if it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _gone() from error


def _gone() -> Problem:
    detail = "The file is no longer there: its job was deleted, or the disk has lost it."
    return Problem(404, "result_gone", detail)


class ResultFile(FileResponse):
    """The framework's answer, with errors as problem documents and with conditions."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises
        ------
        Problem : the file is not there (404), is another than a condition asks for (412), or has
            less than the range asked for (416).
        """
        try:
            self.stat_result = await run_sync(os.stat, self.path)
        except FileNotFoundError as error:
            raise _gone() from error
        self.set_stat_headers(self.stat_result)
        asked = Headers(scope=scope)
        self._refuse_another(asked)
        if self._is_known(asked):
            kept = {name: self.headers[name] for name in ("etag", "last-modified")}
            await Response(None, 304, kept)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _refuse_another(self, asked: Headers) -> None:
        """To whoever goes on with a file the rest of another is no use (RFC 9110, 13.2.2)."""
        tags, since = _tags(asked, "if-match"), asked.get("if-unmodified-since")
        if tags:
            fits = not tags.isdisjoint({"*", self.headers["etag"]})
        else:
            fits = since is None or self._is_of(since) is not False
        if not fits:
            detail = (
                f"The file has the ETag {self.headers['etag']} and is of "
                f"{self.headers['last-modified']}: it is not the one asked for; fetch it anew."
            )
            raise Problem(412, "precondition_failed", detail)

    def _is_known(self, asked: Headers) -> bool:
        """Whether the caller has the file already."""
        tags, since = _tags(asked, "if-none-match"), asked.get("if-modified-since")
        if tags:
            plain = {tag.removeprefix("W/") for tag in tags}
            return not plain.isdisjoint({"*", self.headers["etag"]})
        return since is not None and self._is_of(since) is True

    def _is_of(self, date: str) -> bool | None:
        """Whether the file is no younger than a date; None: it is no date, and is passed over."""
        try:
            return parsedate_to_datetime(self.headers["last-modified"]) <= _at(date)
        except (TypeError, ValueError):
            return None

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        """The ranges; none, which means the whole, of a header that is no range of bytes."""
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except RangeNotSatisfiable as error:
            detail = f"The file has {file_size} bytes; {http_range[:80]!r} begins beyond its end."
            headers = {"Content-Range": f"bytes */{file_size}"}
            raise Problem(416, "range_not_satisfiable", detail, headers=headers) from error


def _tags(headers: Headers, name: str) -> set[str]:
    """The tags of a header, which may come in several lines."""
    return {tag.strip() for tag in ",".join(headers.getlist(name)).split(",")} - {""}


def _at(date: str) -> datetime:
    """A moment in a header; raises ValueError if it is none, or in a zone unknown."""
    moment = parsedate_to_datetime(date)
    if moment.tzinfo is None:
        raise ValueError(date)
    return moment
