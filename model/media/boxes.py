"""The boxes of MP4 and MOV, as far as they describe: ISO/IEC 14496-12, QuickTime File Format."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

# Metadata boxes larger than this are damage, not metadata.
MAX_HEADER_BYTES = 256 << 20
# What such a file may begin with.
FIRST_KINDS = (b"ftyp", b"moov", b"free", b"mdat", b"wide", b"skip", b"pnot")
FULL_BOX = 4  # version and flags


def top_level_box(file: BinaryIO, wanted: bytes) -> bytes:
    """Payload of the first top-level box of a kind, read without touching the media data."""
    while len(header := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", header)
        payload = size - 8
        if size == 1:
            payload = struct.unpack(">Q", file.read(8))[0] - 16
        if kind == wanted:
            return file.read(min(payload, MAX_HEADER_BYTES) if size else MAX_HEADER_BYTES)
        if payload < 0:
            break
        file.seek(payload, 1)
    return b""


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and payload of each box in `data`."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if size == 1:
            size, header = struct.unpack_from(">Q", data, at + 8)[0], 16
        elif size == 0:
            size = len(data) - at
        if size < header:
            return
        yield kind, data[at + header : at + size]
        at += size


def descend(data: bytes, *kinds: bytes) -> bytes:
    """Payload of the first box under a path of kinds; empty if there is none."""
    for kind in kinds:
        data = next((payload for name, payload in boxes(data) if name == kind), b"")
    return data
