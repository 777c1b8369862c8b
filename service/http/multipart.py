"""Multipart bodies, written to disk as they come in; nothing of a file is held in memory."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.http.body import content_length, pour, too_large
from service.problems import Problem
from service.schemas import MAX_TRACKS
from service.storage import Storage, StoredFile, full_disk_told, safe_label, safe_suffix

_FIELD_BYTES = 64 << 10
_MAX_PARTS = 1 + MAX_TRACKS


@dataclass
class Received:
    """The parts of a body, by field name."""

    files: dict[str, list[StoredFile]] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


class _Receiver:
    """Writes each file part to a folder while it is parsed."""

    def __init__(self, boundary: bytes, folder: Path, storage: Storage, max_bytes: int) -> None:
        self.received = Received()
        self.complete = False
        self._folder = folder
        self._storage = storage
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self._file: BinaryIO | None = None
        self._current: StoredFile | None = None
        self._field: tuple[str, bytearray] | None = None
        self._n_parts = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_data,
                "on_part_end": self._part_ends,
                "on_end": self._body_ends,
            },
        )

    def write(self, data: bytearray) -> None:
        """Parse and store the next bytes; raises OSError, FormParserError, Problem."""
        self._n_bytes += len(data)
        if self._n_bytes > self._max_bytes:
            raise too_large(self._n_bytes, self._max_bytes)
        self._storage.check_space(len(data))
        with full_disk_told():
            self._parser.write(bytes(data))

    def close(self) -> None:
        """Close the file that is being written, if any."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _part_begins(self) -> None:
        self._n_parts += 1
        if self._n_parts > _MAX_PARTS:
            raise Problem(422, "invalid_request", f"The body has more than {_MAX_PARTS} parts.")
        self._headers = {}

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            self._field = (name, bytearray())
            return
        label = safe_label(options[b"filename"].decode("utf-8", "replace"))
        path = self._folder / f"file-{self._n_parts}{safe_suffix(label)}"
        self._current = StoredFile(path, label)
        self._file = path.open("xb")
        self.received.files.setdefault(name, []).append(self._current)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is not None:
            name, value = self._field
            value += data[start:end]
            if len(value) > _FIELD_BYTES:
                raise Problem(
                    413, "field_too_large",
                    f"The field {name!r} is larger than {_FIELD_BYTES} bytes.",
                )  # fmt: skip
        elif self._file is not None and self._current is not None:
            self._file.write(data[start:end])
            self._current.size += end - start

    def _part_ends(self) -> None:
        if self._field is not None:
            name, value = self._field
            if name in self.received.fields:
                detail = f"The body has several fields called {name[:50]}; send one."
                raise Problem(422, "invalid_request", detail)
            self.received.fields[name] = value.decode("utf-8", "replace")
            self._field = None
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _body_ends(self) -> None:
        self.complete = True


async def receive(
    request: Request, folder: Path, storage: Storage, *, max_bytes: int, idle_s: float
) -> Received:
    """Store the parts of a multipart body under `folder`, which is made.

    The caller deletes the folder if this or what follows fails.

    Raises
    ------
    Problem : not multipart (415), broken or broken off (400), too large (413), disk full (507).
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise Problem(
            415, "unsupported_media_type",
            "Send multipart/form-data with the files video and audio, or application/json.",
        )  # fmt: skip
    # Refused before it is read, where its length is known.
    size = content_length(request) or 0
    if size > max_bytes:
        raise too_large(size, max_bytes)
    storage.check_space(size)
    with full_disk_told():
        folder.mkdir(parents=True)
    try:
        with closing(_Receiver(options[b"boundary"], folder, storage, max_bytes)) as receiver:
            await pour(request, receiver.write, idle_s=idle_s)
    except FormParserError as error:
        words = str(error).rstrip(".")
        raise Problem(400, "broken_body", f"The multipart body is broken: {words}.") from error
    if not receiver.complete:
        raise Problem(400, "broken_body", "The multipart body breaks off.")
    return receiver.received
