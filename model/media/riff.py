"""RIFF files written around samples: copied from an input, or made new.

EBU Tech 3285 (`bext`), EBU Tech 3306 (RF64), ITU-R BS.2088 (BW64).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from model.media.pcm import Chunk, PcmFile
from model.media.samples import SampleFormat

# A stretch of the output: bytes, or (offset, size) of the input to copy.
Piece = bytes | tuple[int, int]

_MAX_32 = 0xFFFFFFFF
# Chunks that describe the old samples' peaks: optional, and wrong once samples change.
_STALE = (b"PEAK", b"levl")
_BEXT_FIXED_SIZE = 602
_WAVE_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_DS64_SIZE = 28


def around_data(pcm: PcmFile, history: str) -> tuple[list[Piece], list[Piece]]:
    """What stands before and after the samples of a corrected WAV, RF64 or BW64 file.

    All chunks in their order, to the byte, but: `bext` gains `history` as a line of its
    CodingHistory; sizes are set right; chunks that hold peaks are dropped; a file that grows over
    4 GB becomes RF64.
    """
    kept = [chunk for chunk in pcm.chunks if chunk.name not in (*_STALE, b"ds64")]
    bodies = {chunk: _body(pcm, chunk, history) for chunk in kept if chunk.name != b"data"}
    data = next(chunk for chunk in kept if chunk.name == b"data")
    sizes = {
        chunk: data.size if chunk is data else sum(map(_piece_size, bodies[chunk]))
        for chunk in kept
    }
    total = 4 + sum(8 + size + size % 2 for size in sizes.values())
    is_64 = pcm.container != "wav" or total > _MAX_32
    head: list[Piece] = []
    if is_64:
        total += 8 + _DS64_SIZE
        magic = b"BW64" if pcm.container == "bw64" else b"RF64"
        head.append(struct.pack("<4sI4s", magic, _MAX_32, b"WAVE"))
        head.append(_ds64(total, data.size, pcm.n_samples))
    else:
        head.append(struct.pack("<4sI4s", b"RIFF", total, b"WAVE"))
    tail: list[Piece] = []
    side = head
    for chunk in kept:
        is_data = chunk is data
        size = _MAX_32 if is_data and is_64 else sizes[chunk]
        side.append(struct.pack("<4sI", chunk.name, size))
        if is_data:
            side = tail
            # Bytes of a last, incomplete frame.
            side.append((pcm.data_offset + pcm.data_size, data.size - pcm.data_size))
        else:
            side.extend(bodies[chunk])
        side.append(b"\0" * (sizes[chunk] % 2))
    return head, tail


def _body(pcm: PcmFile, chunk: Chunk, history: str) -> list[Piece]:
    if chunk.name != b"bext" or not history or chunk.size < _BEXT_FIXED_SIZE:
        return [(chunk.offset, chunk.size)]
    with pcm.path.open("rb") as file:
        file.seek(chunk.offset + _BEXT_FIXED_SIZE)
        lines = file.read(chunk.size - _BEXT_FIXED_SIZE).rstrip(b"\0")
    if lines and not lines.endswith(b"\r\n"):
        lines += b"\r\n"
    lines += history.encode("ascii", "replace") + b"\r\n"
    return [(chunk.offset, _BEXT_FIXED_SIZE), lines]


def _piece_size(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece[1]


def _ds64(riff_size: int, data_size: int, n_samples: int) -> bytes:
    return struct.pack("<4sI3QI", b"ds64", _DS64_SIZE, riff_size, data_size, n_samples, 0)


def new_header(
    sample_format: SampleFormat, samplerate: int, n_channels: int, n_samples: int
) -> bytes:
    """Header of a new WAV of discrete channels up to its samples; RF64 if it takes 64-bit sizes.

    A JUNK chunk holds the place of `ds64`, so the header's length does not depend on `n_samples`.
    """
    width = sample_format.width
    tag = 3 if sample_format.encoding == "float" else 1
    fmt = struct.pack(
        "<HHIIHHHHI", 0xFFFE, n_channels, samplerate, samplerate * n_channels * width,
        n_channels * width, 8 * width, 22, sample_format.bits, 0,
    )  # fmt: skip
    fmt += struct.pack("<H", tag) + _WAVE_SUBFORMAT_TAIL
    chunks: Sequence[tuple[bytes, bytes]] = (
        (b"fmt ", fmt),
        (b"fact", struct.pack("<I", min(n_samples, _MAX_32))),
    )
    body = b"".join(struct.pack("<4sI", name, len(data)) + data for name, data in chunks)
    data_size = n_samples * n_channels * width
    total = 4 + 8 + _DS64_SIZE + len(body) + 8 + data_size + data_size % 2
    if total > _MAX_32:
        start = struct.pack("<4sI4s", b"RF64", _MAX_32, b"WAVE")
        place = _ds64(total, data_size, n_samples)
    else:
        start = struct.pack("<4sI4s", b"RIFF", total, b"WAVE")
        place = struct.pack("<4sI", b"JUNK", _DS64_SIZE) + bytes(_DS64_SIZE)
    return start + place + body + struct.pack("<4sI", b"data", min(data_size, _MAX_32))
