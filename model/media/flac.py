"""Metadata blocks of a FLAC file (https://www.rfc-editor.org/rfc/rfc9639#section-8).

libsndfile writes samples and a few tags; tags, cue sheets, pictures and application blocks (where
recorders keep the chunks of the WAV they came from) are carried over here.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from model.media.container import reading

_STREAMINFO, _PADDING, _SEEKTABLE = 0, 1, 3
_LAST = 0x80
_ID3V1_SIZE = 128


def carry_metadata(source: Path, encoded: Path, output: Path) -> None:
    """Write `encoded`'s sound with `source`'s metadata to `output`.

    STREAMINFO describes the new samples and seek points the new frames, so the former comes from
    `encoded` and the latter are left out; every other block is `source`'s own.
    """
    with reading(source), source.open("rb") as file:
        before = _tag_before(file)
        kept = [block for block in _blocks(file) if block[0] not in (_STREAMINFO, _SEEKTABLE)]
        behind = _tag_behind(file)
    with encoded.open("rb") as file, output.open("wb") as target:
        _tag_before(file)
        blocks = [block for block in _blocks(file) if block[0] == _STREAMINFO] + kept
        target.write(before + b"fLaC")
        for index, (kind, data) in enumerate(blocks):
            last = _LAST if index == len(blocks) - 1 else 0
            target.write(bytes([kind | last]) + len(data).to_bytes(3, "big") + data)
        shutil.copyfileobj(file, target, 1 << 20)
        target.write(behind)


def _tag_before(file: BinaryIO) -> bytes:
    """An ID3v2 tag that some taggers put first; leaves the file at its stream marker."""
    head = file.read(10)
    if head[:3] != b"ID3":
        file.seek(0)
        return b""
    size = 0  # seven bits a byte (ID3v2.4 section 6.2)
    for byte in head[6:]:
        size = size << 7 | byte & 0x7F
    return head + file.read(size)


def _tag_behind(file: BinaryIO) -> bytes:
    """An ID3v1 tag that some taggers put last."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _ID3V1_SIZE))
    last = file.read()
    return last if last.startswith(b"TAG") else b""


def _blocks(file: BinaryIO) -> list[tuple[int, bytes]]:
    """Type and content of each metadata block from the stream marker; ends at the first frame."""
    file.seek(4, 1)
    blocks = []
    while True:
        header = file.read(4)
        blocks.append((header[0] & ~_LAST, file.read(int.from_bytes(header[1:], "big"))))
        if header[0] & _LAST:
            return blocks
