"""What containers declare of their sound is heeded, whatever the codec."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from model.media import open_audio
from model.media.declared import Declared, read_declared
from tests.model.media.boxes import add_boxes, box
from tests.model.media.test_audio import RATE, encode, several_tracks, tone_numbers, tones

CODECS = [("a.mp4", "aac"), ("a.m4a", "alac"), ("a.mov", "pcm_s24le"), ("a.mov", "pcm_f32le")]


def sa3d(order: int, channels: Sequence[int], *, kind: int = 0, weights: int = 0) -> bytes:
    """Google's box: version, type, order, ACN, normalisation, number and map of channels."""
    head = struct.pack(">BBIBBI", 0, kind, order, 0, weights, len(channels))
    return box(b"SA3D", head + struct.pack(f">{len(channels)}I", *channels))


@pytest.mark.parametrize(("name", "codec"), CODECS)
def test_a_field_is_declared_whatever_its_codec(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    encode(path, tones(4), codec, "4.0")
    with open_audio(path) as plain:
        assert plain.info.convention is None

    add_boxes(path, entry=sa3d(1, range(4)))

    with open_audio(path) as reader:
        assert (reader.info.convention, reader.info.carrier, reader.note) == ("ambix", None, None)
        assert tone_numbers(reader.read(0, RATE)) == list(range(4))


def test_a_field_is_declared_at_rates_that_16_bits_do_not_hold(tmp_path: Path) -> None:
    """QuickTime's second version of an entry."""
    path, samples = tmp_path / "a.mov", np.ascontiguousarray(tones(4).T.reshape(1, -1), "f4")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=96_000, layout="4.0")
        frame = av.AudioFrame.from_ndarray(samples, "flt", "4.0")
        frame.sample_rate = 96_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    add_boxes(path, entry=sa3d(1, range(4)))

    with open_audio(path) as reader:
        assert (reader.info.samplerate, reader.info.convention) == (96_000, "ambix")


@pytest.mark.parametrize(
    ("in_file", "channel_map"),
    [
        ("WXYZ", (0, 2, 3, 1)),  # the specification's: where each component is
        ("WXYZ", (0, 3, 1, 2)),  # which component each channel holds
        ("LRWYZX", (4, 5, 0, 1, 2, 3)),  # the specification's: which each channel holds
        ("LRWYZX", (2, 3, 4, 5, 0, 1)),
        ("WXYZLR", (0, 2, 3, 1, 4, 5)),
    ],
)
@pytest.mark.parametrize("codec", ["pcm_s24le", "pcm_f32le"])
def test_a_map_of_channels_is_read_either_way(
    tmp_path: Path, in_file: str, channel_map: Sequence[int], codec: str
) -> None:
    path, n = tmp_path / "a.mov", len(in_file)
    components = tones(n)  # of W, Y, Z, X, L, R
    encode(path, components[["WYZXLR".index(name) for name in in_file]], codec, f"{n} channels")
    add_boxes(path, entry=sa3d(1, channel_map, kind=0x80 if n == 6 else 0))

    with open_audio(path) as reader:
        assert reader.info.convention == "ambix"
        carrier = reader.info.carrier
        assert carrier is not None
        read = reader.read(0, RATE)
        assert tone_numbers(read[[*carrier.components, *carrier.beside]]) == list(range(n))
        assert reader.note is not None
        assert "in the order of SA3D" in reader.note


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (sa3d(1, (1, 0, 2, 3)), "two ways (1, 0, 2, 3)"),
        (sa3d(1, (0, 0, 1, 2)), "two ways (0, 0, 1, 2)"),
        (sa3d(1, range(4), weights=1), "not AmbiX"),
        (sa3d(1, range(4), kind=1), "not AmbiX"),
        (sa3d(2, range(9)), "order 2 in 9 channels"),
        (sa3d(1 << 31, range(4)), "not AmbiX"),
    ],
)
def test_what_cannot_be_kept_to_is_told(tmp_path: Path, declared: bytes, told: str) -> None:
    path = tmp_path / "a.mp4"
    encode(path, tones(4), "aac", "4.0")
    add_boxes(path, entry=declared)

    with open_audio(path) as reader:
        assert (reader.info.convention, reader.info.carrier) == (None, None)
        assert reader.note is not None
        assert told in reader.note


@pytest.mark.parametrize("length", [0, 5, 11, 20])
def test_a_damaged_box_is_no_declaration(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.mp4"
    encode(path, tones(4), "aac", "4.0")
    add_boxes(path, entry=box(b"SA3D", sa3d(1, range(4))[8 : 8 + length]))

    assert read_declared(path, 1, 4) == Declared()


@pytest.mark.parametrize(
    ("tag", "convention"), [(107, "fuma"), (190, "ambix"), (191, "n3d"), (108, None)]
)
def test_apples_layouts_are_heeded(tmp_path: Path, tag: int, convention: str | None) -> None:
    path = tmp_path / "a.mov"
    encode(path, tones(4), "pcm_s24le", "4 channels")
    add_boxes(path, entry=box(b"chan", struct.pack(">4x3I", tag << 16 | 4, 0, 0)))

    with open_audio(path) as reader:
        assert reader.info.convention == convention


def test_another_tracks_declaration_does_not_count(tmp_path: Path) -> None:
    path = several_tracks(tmp_path / "a.mov", "4.0", "9 channels")
    add_boxes(path, entry=sa3d(1, range(4)))  # of the first track

    with open_audio(path) as reader:
        assert (reader.info.n_channels, reader.info.convention, reader.note) == (9, None, None)
