"""Boxes whose sizes are told in each of the three ways."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.media.boxes import boxes, descend, top_level_box
from tests.model.media.boxes import box

KINDS = st.sampled_from([b"free", b"trak", b"uuid", b"mdat"])


def box_64(kind: bytes, payload: bytes) -> bytes:
    """As media data of more than 4 GB have it."""
    return struct.pack(">I4sQ", 1, kind, 16 + len(payload)) + payload


def box_to_the_end(kind: bytes, payload: bytes) -> bytes:
    """As who writes to a pipe leaves the last one."""
    return struct.pack(">I4s", 0, kind) + payload


@given(
    st.lists(st.tuples(KINDS, st.binary(max_size=9), st.booleans())), st.binary(min_size=1),
    st.booleans(),
)  # fmt: skip
def test_boxes_are_those_that_were_written(
    written: list[tuple[bytes, bytes, bool]], last: bytes, unending: bool
) -> None:
    data = b"".join((box_64 if long else box)(kind, payload) for kind, payload, long in written)
    data += (box_to_the_end if unending else box)(b"moov", last)
    expected = [*((kind, payload) for kind, payload, _ in written), (b"moov", last)]

    assert list(boxes(data)) == expected
    assert top_level_box(io.BytesIO(data), b"moov") == last
    for wanted in (b"free", b"trak"):
        first = next((payload for kind, payload in expected if kind == wanted), b"")
        assert top_level_box(io.BytesIO(data), wanted) == first
        assert descend(box(b"moov", data), b"moov", wanted) == first


@pytest.mark.parametrize("size", [2, 7])
def test_what_is_smaller_than_its_own_head_ends_them(size: int) -> None:
    damaged = struct.pack(">I4s", size, b"free") + box(b"moov", b"x")

    assert list(boxes(damaged)) == []
    assert top_level_box(io.BytesIO(damaged), b"moov") == b""
