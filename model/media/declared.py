"""What MP4 and MOV declare of a track's sound: that it is ambisonic, and in which order.

FFmpeg keeps that of PCM only: decoders of AAC and the like put a layout of speakers in its place.

- `SA3D`, Google's box: order N, channels of AmbiX, perhaps with a head-locked pair, and a map.
  https://github.com/google/spatial-media/blob/master/docs/spatial-audio-rfc.md
- `chan`, Apple's: a layout's tag (CoreAudioTypes.h), as in CAF.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.media.boxes import FIRST_KINDS, FULL_BOX, boxes, descend, top_level_box

# Bytes of a sound's sample entry before its first box, by QuickTime's version of it.
_SOUND_ENTRY = {0: 28, 1: 44, 2: 64}
_HEAD_LOCKED = 0x80  # in SA3D's type
_WXYZ = (0, 2, 3, 1)  # the channel of W, Y, Z, X
# `chan`: the upper half of a layout's tag.
CONVENTION_OF_TAG = {107: "fuma", 190: "ambix", 191: "n3d"}


@dataclass(frozen=True)
class Carrier:
    """An order of channels that is its container's, and not known without it.

    Attributes
    ----------
    name : what declares it, in words.
    components : file channel of each ACN component.
    beside : file channels of a head-locked pair.
    """

    name: str
    components: tuple[int, ...]
    beside: tuple[int, ...] = ()


@dataclass(frozen=True)
class Declared:
    """What a file says of a track.

    Attributes
    ----------
    convention : "ambix", "n3d" or "fuma"; None if it says none, or none that can be kept to.
    carrier : where channels are not in the convention's own order.
    note : what is to be told of it, if anything.
    """

    convention: str | None = None
    carrier: Carrier | None = None
    note: str | None = None


def read_declared(path: Path, track_id: int, n_channels: int) -> Declared:
    """What an MP4 or MOV file declares of a track of `n_channels`; of other files, nothing."""
    with path.open("rb") as file:
        if file.read(12)[4:8] not in FIRST_KINDS:
            return Declared()
        file.seek(0)
        try:
            for kind, track in boxes(top_level_box(file, b"moov")):
                if kind == b"trak" and _id_of(track) == track_id:
                    return _read_entry(_sample_entry(track), n_channels)
        except (struct.error, IndexError):
            pass  # truncated metadata: decoding will say what is wrong with the file
    return Declared()


def _id_of(track: bytes) -> int:
    header = descend(track, b"tkhd")
    at = 20 if header[0] == 1 else 12  # after times of 64 or 32 bits
    return int(struct.unpack_from(">I", header, at)[0])


def _sample_entry(track: bytes) -> dict[bytes, bytes]:
    """The boxes of a track's first sample entry."""
    description = descend(track, b"mdia", b"minf", b"stbl", b"stsd")
    entry = next((payload for _, payload in boxes(description[8:])), b"")
    version = struct.unpack_from(">H", entry, 8)[0]
    # In ISO's own later version, told by that of the description, nothing is inserted.
    version = 0 if description[0] else version
    return dict(boxes(entry[_SOUND_ENTRY.get(version, len(entry)) :]))


def _read_entry(children: dict[bytes, bytes], n_channels: int) -> Declared:
    if b"SA3D" in children:
        return _read_sa3d(children[b"SA3D"], n_channels)
    if b"chan" in children:
        (tag,) = struct.unpack_from(">I", children[b"chan"], FULL_BOX)
        return Declared(CONVENTION_OF_TAG.get(tag >> 16))
    return Declared()


def _read_sa3d(payload: bytes, n_channels: int) -> Declared:
    version, kind, order, ordering, weights, count = struct.unpack_from(">BBIBBI", payload)
    pair = 2 if kind & _HEAD_LOCKED else 0
    known = (version, kind & ~_HEAD_LOCKED, ordering, weights) == (0, 0, 0, 0)
    if not known or not count == n_channels == min(order + 1, 64) ** 2 + pair:
        return Declared(
            note=f"SA3D declares a field of order {order} in {count} channels that is not AmbiX or "
            f"does not fit the track's {n_channels} channels: it is not heeded."
        )
    channel_map = struct.unpack_from(f">{count}I", payload, 12)
    if channel_map == tuple(range(count)):
        return Declared("ambix")
    return _ordered(channel_map, pair)


def _ordered(channel_map: Sequence[int], pair: int) -> Declared:
    """Of a map, the reading that gives an order in use.

    The specification's two examples take it in opposite ways: as the component in each channel (of
    L R W Y Z X: 4, 5, 0, 1, 2, 3), and as the channel of each component (of W X Y Z: 0, 2, 3, 1).
    """
    told = ", ".join(map(str, channel_map))
    if sorted(channel_map) == list(range(len(channel_map))):
        inverse = tuple(sorted(range(len(channel_map)), key=channel_map.__getitem__))
        found = {places for places in (inverse, tuple(channel_map)) if _in_use(places, pair)}
        if len(found) == 1:
            (places,) = found
            n = len(places) - pair
            carrier = Carrier(f"SA3D's map ({told})", places[:n], places[n:])
            return Declared(
                "ambix", carrier, f"The channels are read in the order of SA3D ({told})."
            )
    return Declared(
        note=f"SA3D maps the channels in an order that can be read in two ways ({told}): it is not "
        "heeded; --channels says which channels are W, Y, Z, X."
    )


def _in_use(places: Sequence[int], pair: int) -> bool:
    """Whether files are known that have their components so, the pair before or behind them."""
    n = len(places) - pair
    field, beside = tuple(places[:n]), tuple(places[n:])
    first = pair if pair and beside == tuple(range(pair)) else 0
    if not first and beside != tuple(range(n, n + pair)):
        return False
    in_file = tuple(place - first for place in field)
    return in_file == tuple(range(n)) or in_file == _WXYZ
