"""What a container declares about its picture: projection, stereo packing and pose.

Read from the file itself, because FFmpeg drops what it does not know (meshes, YouTube's EAC):

- MP4/MOV, Spherical Video V2: `st3d` and `sv3d` boxes in the sample entry; V1: an XML `uuid` box in
  the track. Where both stand, V2 wins.
  https://github.com/google/spatial-media/blob/master/docs/spherical-video-v2-rfc.md
- Apple's `vexu` box (projection kind only).
- Matroska/WebM: the `Projection` master element (RFC 9559, section 5.1.4.1.28.41).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from model.media.boxes import FIRST_KINDS, FULL_BOX, MAX_HEADER_BYTES, boxes, descend, top_level_box

_V1_UUID = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
_VISUAL_SAMPLE_ENTRY = 78  # bytes before the first child box


@dataclass(frozen=True)
class Spherical:
    """Declared geometry of a picture.

    Attributes
    ----------
    projection : "undeclared", "equirectangular", "cubemap", "mesh", or the declared name.
    stereo : "mono", "top-bottom", "left-right", or the declared name.
    pose_deg : yaw (counter-clockwise), pitch and roll that the player applies to the picture.
    partial : whether less than the full sphere is in the frame.
    source : where it was declared: "sv3d", "v1", "vexu", "matroska" or "none".
    """

    projection: str = "undeclared"
    stereo: str = "mono"
    pose_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    partial: bool = False
    source: str = "none"


UNDECLARED = Spherical()


def read_spherical(path: Path, nth: int = 0) -> Spherical:
    """The geometry `path` declares for a video track; `UNDECLARED` if none.

    nth : which of its video tracks, from 0.
    """
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        try:
            if head[4:8] in FIRST_KINDS:
                return _read_mp4(file, nth)
            if head[:4] == b"\x1aE\xdf\xa3":
                return _read_matroska(file, nth)
        except (struct.error, IndexError):
            # Truncated metadata: decoding will say what is wrong with the file.
            return UNDECLARED
    return UNDECLARED


# --- MP4 and MOV ---------------------------------------------------------------------------------


def _read_mp4(file: BinaryIO, nth: int) -> Spherical:
    tracks = (track for kind, track in boxes(top_level_box(file, b"moov")) if kind == b"trak")
    videos = (track for track in tracks if descend(track, b"mdia", b"hdlr")[8:12] == b"vide")
    track = next(islice(videos, nth, None), None)
    return UNDECLARED if track is None else _read_track(track)


def _read_track(track: bytes) -> Spherical:
    """Geometry of a video track."""
    description = descend(track, b"mdia", b"minf", b"stbl", b"stsd")[8:]
    entry = next((payload for _, payload in boxes(description)), b"")
    children = dict(boxes(entry[_VISUAL_SAMPLE_ENTRY:]))
    spherical = UNDECLARED
    for kind, payload in boxes(track):
        if kind == b"uuid" and payload.startswith(_V1_UUID):
            spherical = _read_v1(payload[16:].decode("utf-8", "replace"))
    if b"vexu" in children:
        spherical = _read_vexu(children[b"vexu"])
    if b"sv3d" in children:
        spherical = _read_sv3d(children[b"sv3d"])
    if b"st3d" in children:
        mode = children[b"st3d"][FULL_BOX]
        names = ("mono", "top-bottom", "left-right", "custom", "right-left")
        spherical = replace(spherical, stereo=names[mode] if mode < len(names) else f"mode {mode}")
    return spherical


def _read_v1(xml: str) -> Spherical:
    def value(name: str) -> str:
        match = re.search(rf"<GSpherical:{name}>\s*(.*?)\s*</GSpherical:{name}>", xml, re.DOTALL)
        return match.group(1) if match else ""

    if value("Spherical").lower() != "true":
        return UNDECLARED

    def pixels(name: str) -> int:
        return int(value(name)) if re.fullmatch("[0-9]{1,9}", value(name)) else 0

    partial = any(
        0 < pixels(f"CroppedAreaImage{side}Pixels") < pixels(f"FullPano{side}Pixels")
        for side in ("Width", "Height")
    )
    return Spherical(
        projection=value("ProjectionType").lower() or "equirectangular",
        stereo=value("StereoMode").lower() or "mono",
        partial=partial,
        source="v1",
    )


def _read_sv3d(payload: bytes) -> Spherical:
    projection = descend(payload, b"proj")
    yaw, pitch, roll = (0.0, 0.0, 0.0)
    kind, partial = "undeclared", False
    for name, data in boxes(projection):
        if name == b"prhd":
            yaw, pitch, roll = (
                angle / 65536 for angle in struct.unpack_from(">3i", data, FULL_BOX)
            )
        elif name == b"equi":
            kind, partial = "equirectangular", _has_bounds(data)
        else:
            names = {b"cbmp": "cubemap", b"mshp": "mesh", b"ytmp": "eac"}
            kind = names.get(name, name.decode("latin-1"))
    return Spherical(kind, pose_deg=(yaw, pitch, roll), partial=partial, source="sv3d")


def _has_bounds(equi: bytes) -> bool:
    """Whether an `equi` box crops the sphere (bounds are 0.32 fixed point)."""
    return any(struct.unpack_from(">4I", equi, FULL_BOX))


def _read_vexu(payload: bytes) -> Spherical:
    kind = descend(payload, b"proj", b"prji")[FULL_BOX : FULL_BOX + 4]
    names = {
        b"equi": "equirectangular",
        b"hequ": "half-equirectangular",
        b"fish": "fisheye",
        b"rect": "rectilinear",
        b"": "undeclared",
    }
    return Spherical(names.get(kind, kind.decode("latin-1")), source="vexu")


# --- Matroska ------------------------------------------------------------------------------------

_SEGMENT, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_STEREO_MODE, _PROJECTION = 0x53B8, 0x7670
_PROJECTION_TYPE, _PROJECTION_PRIVATE = 0x7671, 0x7672
_POSE = (0x7673, 0x7674, 0x7675)
_MATROSKA_STEREO = {
    0: "mono",
    1: "left-right",
    2: "bottom-top",
    3: "top-bottom",
    11: "right-left",
}


def _read_matroska(file: BinaryIO, nth: int) -> Spherical:
    tracks = (dict(_elements(t)) for kind, t in _elements(_find_tracks(file)) if kind == _TRACK)
    videos = (track[_VIDEO] for track in tracks if _VIDEO in track)
    video = next(islice(videos, nth, None), None)
    return UNDECLARED if video is None else _read_matroska_video(dict(_elements(video)))


def _read_matroska_video(video: dict[int, bytes]) -> Spherical:
    mode = int.from_bytes(video.get(_STEREO_MODE, b""), "big")
    stereo = _MATROSKA_STEREO.get(mode, f"mode {mode}")
    if _PROJECTION not in video:
        return Spherical(stereo=stereo, source="matroska") if mode else UNDECLARED
    fields = dict(_elements(video[_PROJECTION]))
    number = int.from_bytes(fields.get(_PROJECTION_TYPE, b""), "big")
    names = ("rectilinear", "equirectangular", "cubemap", "mesh")
    private = fields.get(_PROJECTION_PRIVATE, b"")
    yaw, pitch, roll = (_degrees(fields.get(name, b"")) for name in _POSE)
    return Spherical(
        projection=names[number] if number < len(names) else f"type {number}",
        stereo=stereo,
        pose_deg=(yaw, pitch, roll),
        partial=number == 1 and len(private) >= 20 and _has_bounds(private),
        source="matroska",
    )


def _degrees(data: bytes) -> float:
    """An EBML float within a turn; 0 if it is none, or of no bytes."""
    formats = {4: ">f", 8: ">d"}
    angle = struct.unpack(formats[len(data)], data)[0] if len(data) in formats else 0.0
    return float(angle) if abs(angle) <= 360 else 0.0


def _find_tracks(file: BinaryIO) -> bytes:
    """Payload of the Tracks element, found by skipping over its siblings."""
    while (header := _element_header(file)) is not None:
        kind, size = header
        if kind == _SEGMENT:
            continue  # its children follow
        if size is None:
            return b""  # a live cluster: what comes after cannot be reached by skipping
        if kind == _TRACKS:
            return file.read(min(size, MAX_HEADER_BYTES))
        file.seek(size, 1)
    return b""


def _element_header(file: BinaryIO) -> tuple[int, int | None] | None:
    """Id and payload size (None: unknown) of the element that starts here; None at the end."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    id_length = 9 - first[0].bit_length()
    kind = int.from_bytes(first + file.read(id_length - 1), "big")
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    size = int.from_bytes(first + file.read(length - 1), "big") - (1 << (7 * length))
    return kind, None if size == (1 << (7 * length)) - 1 else size


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Id and payload of each EBML element in `data`."""
    at = 0
    while at < len(data) and data[at]:
        id_length = 9 - data[at].bit_length()
        kind = int.from_bytes(data[at : at + id_length], "big")
        at += id_length
        length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + length], "big") - (1 << (7 * length))
        at += length
        yield kind, data[at : at + size]
        at += size
