"""Writing what real files hold and our encoders cannot: boxes, EBML elements, RIFF chunks."""

from __future__ import annotations

import struct
from pathlib import Path

V1_UUID = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")


def box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def full_box(kind: bytes, payload: bytes) -> bytes:
    return box(kind, bytes(4) + payload)


def st3d(mode: int) -> bytes:
    return full_box(b"st3d", bytes([mode]))


def sv3d(
    projection: bytes = b"equi",
    *,
    yaw_deg: float = 0.0,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
    bounds: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> bytes:
    payloads = {b"equi": struct.pack(">4I", *bounds), b"cbmp": bytes(8)}
    pose = (round(degrees * 65536) for degrees in (yaw_deg, pitch_deg, roll_deg))
    header = full_box(b"prhd", struct.pack(">3i", *pose))
    kind = full_box(projection, payloads.get(projection, bytes(16)))
    return box(b"sv3d", full_box(b"svhd", b"test\0") + box(b"proj", header + kind))


def v1_uuid(xml: str) -> bytes:
    return box(b"uuid", V1_UUID + f"<rdf:SphericalVideo>{xml}</rdf:SphericalVideo>".encode())


def add_boxes(path: Path, *, entry: bytes = b"", track: bytes = b"") -> None:
    """Put boxes into the first video sample entry and track of an MP4, in place.

    Chunk offsets are moved where the header stands before the samples.
    """
    data = bytearray(path.read_bytes())
    moov = _find(data, 0, len(data), b"moov")
    header_first = moov < _find(data, 0, len(data), b"mdat")
    trak = _find(data, moov + 8, moov + _size(data, moov), b"trak")
    inside = [trak]
    for kind in (b"mdia", b"minf", b"stbl", b"stsd"):
        inside.append(_find(data, inside[-1] + 8, inside[-1] + _size(data, inside[-1]), kind))
    inside.append(inside[-1] + 16)  # the first sample entry
    end_of_trak = trak + _size(data, trak)
    end_of_entry = inside[-1] + _size(data, inside[-1])
    grown = len(entry) + len(track)
    for at in (moov, *inside):
        growth = grown if at in (moov, trak) else len(entry)
        struct.pack_into(">I", data, at, _size(data, at) + growth)
    if header_first:
        at = 0
        while (at := data.find(b"stco", at + 1)) > 0:
            for index in range(_size(data, at + 8)):
                place = at + 12 + 4 * index
                struct.pack_into(">I", data, place, _size(data, place) + grown)
    data[end_of_trak:end_of_trak] = track
    data[end_of_entry:end_of_entry] = entry
    path.write_bytes(data)


def _size(data: bytearray, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0])


def _find(data: bytearray, start: int, end: int, kind: bytes) -> int:
    at = start
    while at < end:
        if data[at + 4 : at + 8] == kind:
            return at
        at += _size(data, at)
    raise LookupError(kind)


def element(kind: int, payload: bytes) -> bytes:
    """An EBML element with an eight-byte size."""
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    return name + (len(payload) | 1 << 56).to_bytes(8, "big") + payload


def matroska_head(video: bytes) -> bytes:
    """The head of a Matroska file whose only track is a video with the given elements."""
    track = element(0xAE, element(0x83, b"\x01") + element(0xE0, video))
    return element(0x1A45DFA3, b"") + element(0x18538067, element(0x1654AE6B, track))


def chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack("<4sI", name, len(payload)) + payload + b"\0" * (len(payload) % 2)


def insert_chunks(path: Path, before: bytes, after: bytes) -> None:
    """Put chunks before and after the `data` chunk of a WAV file, in place."""
    data = path.read_bytes()
    at = data.index(b"data", 12)
    size = struct.unpack_from("<I", data, at + 4)[0]
    end = at + 8 + size + size % 2
    body = data[12:at] + before + data[at:end].ljust(end - at, b"\0") + after + data[end:]
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(body), b"WAVE") + body)


def bext(history: bytes = b"A=PCM,F=48000,W=24,M=multi,T=recorder\r\n") -> bytes:
    """A Broadcast Wave chunk (EBU Tech 3285): 602 bytes, then the history."""
    fixed = b"take 12".ljust(256, b"\0") + b"recorder".ljust(32, b"\0") + b"ref".ljust(32, b"\0")
    fixed += b"2026-11-22" + b"10:00:00" + struct.pack("<Q", 48000 * 3600) + struct.pack("<H", 1)
    return chunk(b"bext", fixed.ljust(602, b"\0") + history)
