"""Uncompressed files against libsndfile: the same samples from every container and format."""

import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.errors import MediaError
from model.media.audio import PcmReader, open_audio
from model.media.pcm import read_pcm_file
from model.media.samples import Encoding, SampleBuffer, SampleFormat
from tests.model.media.boxes import chunk, insert_chunks

VARIANTS = [
    (suffix, name, subtype, endian)
    for suffix, name, subtypes, endians in [
        ("wav", "WAV", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"], ["FILE"]),
        ("wav", "WAVEX", ["PCM_24", "FLOAT"], ["FILE"]),
        ("wav", "RF64", ["PCM_16", "PCM_24", "FLOAT"], ["FILE"]),
        ("w64", "W64", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"], ["FILE"]),
        ("aiff", "AIFF", ["PCM_S8", "FLOAT", "DOUBLE"], ["FILE"]),
        ("aiff", "AIFF", ["PCM_16", "PCM_24", "PCM_32"], ["BIG", "LITTLE"]),
        (
            "caf",
            "CAF",
            ["PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"],
            ["BIG", "LITTLE"],
        ),
    ]
    for subtype in subtypes
    for endian in endians
]


def write(path: Path, name: str, subtype: str, endian: str, *, n_channels: int = 4) -> np.ndarray:
    samples = np.random.default_rng(0).uniform(-1, 1, (1001, n_channels))
    samples[:2] = [[-1.0], [1.0]]
    soundfile.write(path, samples, 48000, subtype=subtype, endian=endian, format=name)
    return np.asarray(soundfile.read(path)[0].T)


@pytest.mark.parametrize(("suffix", "name", "subtype", "endian"), VARIANTS)
def test_samples_equal_libsndfiles(
    tmp_path: Path, suffix: str, name: str, subtype: str, endian: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    expected = write(path, name, subtype, endian)

    with open_audio(path) as reader:
        assert isinstance(reader, PcmReader)
        assert (reader.info.samplerate, reader.info.n_samples) == (48000, 1001)
        assert np.array_equal(reader.read(0, 2000), expected)
        assert np.array_equal(reader.read(500, 100), expected[:, 500:600])
        assert np.array_equal(np.concatenate(list(reader.blocks(77)), axis=1), expected)


@pytest.mark.parametrize(("suffix", "name", "subtype", "endian"), VARIANTS)
def test_storing_what_was_read_changes_no_byte(
    tmp_path: Path, suffix: str, name: str, subtype: str, endian: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path, name, subtype, endian)
    pcm = read_pcm_file(path)
    assert pcm is not None
    buffer = SampleBuffer(pcm.format, pcm.n_channels, 2000)
    with path.open("rb") as file:
        file.seek(pcm.data_offset)
        buffer.fill(file, pcm.n_samples)
    before = bytes(buffer.data)

    for index, values in enumerate(buffer.channels()):
        buffer.set_channel(index, values)

    assert bytes(buffer.data) == before


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("big_endian", [False, True])
def test_setting_a_channel_leaves_the_others_alone(width: int, big_endian: bool) -> None:
    encoding: Encoding = "unsigned" if width == 1 else "signed"
    buffer = SampleBuffer(SampleFormat(encoding, width, 8 * width, big_endian), 3, 50)
    buffer.resize(50)
    rng = np.random.default_rng(0)
    for index in range(3):
        buffer.set_channel(index, rng.uniform(-1, 1, 50))
    before = buffer.channels()

    buffer.set_channel(1, np.full(50, 0.25))

    after = buffer.channels()
    assert np.array_equal(after[[0, 2]], before[[0, 2]])
    assert np.all(after[1] == 0.25)


def test_24_bits_in_32_stay_24(tmp_path: Path) -> None:
    buffer = SampleBuffer(SampleFormat("signed", 4, 24), 1, 3)
    buffer.resize(3)
    buffer.set_channel(0, np.array([1e-9, 0.3, 2.0]))

    codes = np.frombuffer(buffer.data, "<i4")

    assert np.all(codes % 256 == 0)
    assert codes[0] == 0
    assert codes[2] == (2**23 - 1) << 8


@pytest.mark.parametrize(("suffix", "at"), [("wav", 32), ("caf", 36), ("w64", 76)])
def test_samples_in_more_bytes_than_they_have_are_refused(
    tmp_path: Path, suffix: str, at: int
) -> None:
    """24 bits in 4 bytes: integers at the top, at the bottom, or Cool Edit's floats."""
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.zeros((100, 4)), 48_000, subtype="PCM_24")
    data = bytearray(path.read_bytes())
    struct.pack_into(*((">I", data, at, 16) if suffix == "caf" else ("<H", data, at, 16)))
    path.write_bytes(data)

    with pytest.raises(MediaError, match="24 bits in 4 bytes a sample"):
        read_pcm_file(path)


def test_chunks_around_the_samples_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    expected = write(path, "WAV", "PCM_24", "FILE")
    insert_chunks(path, chunk(b"iXML", b"<x/>"), chunk(b"LIST", b"INFOodd"))

    pcm = read_pcm_file(path)

    assert pcm is not None
    assert [c.name for c in pcm.chunks] == [b"fmt ", b"iXML", b"data", b"LIST"]
    with open_audio(path) as reader:
        assert np.array_equal(reader.read(0, 2000), expected)


def test_bw64_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    expected = write(path, "RF64", "PCM_24", "FILE")
    path.write_bytes(b"BW64" + path.read_bytes()[4:])

    with open_audio(path) as reader:
        assert reader.info.container == "bw64"
        assert np.array_equal(reader.read(0, 2000), expected)


def test_amb_is_fuma_by_sub_format_and_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", "WAVEX", "PCM_24", "FILE")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.index(bytes.fromhex("0100000000001000800000aa00389b71"))
    data[at : at + 16] = bytes.fromhex("010000002107d31186 44c8c1ca000000".replace(" ", ""))
    (tmp_path / "b.wav").write_bytes(data)
    (tmp_path / "c.amb").write_bytes((tmp_path / "a.wav").read_bytes())

    conventions = [
        pcm.convention
        for name in ("a.wav", "b.wav", "c.amb")
        if (pcm := read_pcm_file(tmp_path / name))
    ]

    assert conventions == [None, "fuma", "fuma"]


@pytest.mark.parametrize(
    ("name", "expected"), [("SN3D", "ambix"), ("N3D", "n3d"), ("FuMa", "fuma")]
)
def test_adm_says_the_normalisation(tmp_path: Path, name: str, expected: str) -> None:
    path = tmp_path / "a.wav"
    write(path, "WAV", "PCM_16", "FILE")
    adm = f"<audioBlockFormat><normalization>{name}</normalization></audioBlockFormat>"
    insert_chunks(path, b"", chunk(b"axml", adm.encode()))

    pcm = read_pcm_file(path)

    assert pcm is not None
    assert pcm.convention == expected


@pytest.mark.parametrize(("tag", "expected"), [(190, "ambix"), (191, "n3d"), (107, "fuma")])
def test_caf_layout_tags(tmp_path: Path, tag: int, expected: str) -> None:
    path = tmp_path / "a.caf"
    samples = write(path, "CAF", "PCM_16", "FILE")
    data = path.read_bytes()
    layout = struct.pack(">4sqIII", b"chan", 12, tag << 16 | 4, 0, 0)
    at = data.index(b"data", 8)
    path.write_bytes(data[:at] + layout + data[at:])

    with open_audio(path) as reader:
        assert reader.info.convention == expected
        assert np.array_equal(reader.read(0, 2000), samples)


@pytest.mark.parametrize("suffix", ["wav", "rf64", "w64", "aiff", "caf"])
def test_a_file_that_was_not_copied_whole_is_told(tmp_path: Path, suffix: str) -> None:
    whole, cut = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    soundfile.write(whole, np.zeros((48_000, 4)), 48_000, subtype="PCM_24")
    cut.write_bytes(whole.read_bytes()[: -36_000 * 12])

    with open_audio(whole) as reader:
        assert reader.note is None
    with open_audio(cut) as reader:
        assert reader.note is not None
        assert "breaks off at 0.25 s, though its header tells of another 0.75 s" in reader.note


@pytest.mark.parametrize("suffix", ["wav", "rf64", "w64", "aiff", "caf"])
def test_a_sample_that_some_channels_lack_is_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    expected = write(path, suffix.upper(), "PCM_24", "FILE")
    path.write_bytes(path.read_bytes()[:-5])

    with open_audio(path) as reader:
        assert reader.info.n_samples == 1000
        assert np.array_equal(reader.read(0, 2000), expected[:, :1000])


@pytest.mark.parametrize("rate", [1, 8000, 44_100, 192_000])
def test_samples_of_an_aiff_may_stand_behind_an_offset(tmp_path: Path, rate: int) -> None:
    """Against libsndfile, at rates that its 80-bit number holds in several ways."""
    path = tmp_path / "a.aiff"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, (1001, 4)), rate, "PCM_16")
    data = path.read_bytes()
    at = data.index(b"SSND")
    size = struct.unpack_from(">I", data, at + 4)[0]
    moved = struct.pack(">4sIII", b"SSND", size + 6, 6, 0) + b"offset" + data[at + 16 :]
    path.write_bytes(data[:at] + moved)

    pcm = read_pcm_file(path)

    assert pcm is not None
    assert (pcm.samplerate, pcm.n_samples, pcm.missing) == (rate, 1001, 0)
    with open_audio(path) as reader:
        assert np.array_equal(reader.read(0, 2000), soundfile.read(path)[0].T)


def test_a_chunk_beyond_four_gigabytes_is_as_long_as_ds64_says(tmp_path: Path) -> None:
    """EBU Tech 3306: in its table, where it is none of the samples."""
    path = tmp_path / "a.wav"
    expected = write(path, "WAV", "PCM_16", "FILE")
    body = path.read_bytes()[12:]
    n_bytes = 1001 * 4 * 2
    sizes = struct.pack("<3QI", 0, n_bytes, 1001, 2)
    sizes += struct.pack("<4sQ4sQ", b"none", 3, b"iXML", 4)
    unknown = struct.pack("<I", 0xFFFFFFFF)
    body = body.replace(b"data" + struct.pack("<I", n_bytes), b"data" + unknown)
    path.write_bytes(
        b"RF64" + unknown + b"WAVE" + chunk(b"ds64", sizes) + b"iXML" + unknown + b"<x/>" + body
    )

    pcm = read_pcm_file(path)

    assert pcm is not None
    assert [(c.name, c.size) for c in pcm.chunks if c.name in (b"iXML", b"data")] == [
        (b"iXML", 4), (b"data", n_bytes),
    ]  # fmt: skip
    with open_audio(path) as reader:
        assert np.array_equal(reader.read(0, 2000), expected)


@pytest.mark.parametrize(("declared", "bits"), [(24, 24), (20, 20), (0, 32), (40, 32)])
def test_wavex_says_how_many_bits_count(tmp_path: Path, declared: int, bits: int) -> None:
    path = tmp_path / "a.wav"
    expected = write(path, "WAVEX", "PCM_32", "FILE")
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.index(b"fmt ") + 8 + 18, declared)
    path.write_bytes(data)

    pcm = read_pcm_file(path)

    assert pcm is not None
    assert pcm.format == SampleFormat("signed", 4, bits)
    with open_audio(path) as reader:
        assert np.array_equal(reader.read(0, 2000), expected)


@pytest.mark.parametrize("suffix", ["wav", "rf64", "w64", "aiff", "caf"])
def test_what_fills_a_file_up_is_no_chunk(tmp_path: Path, suffix: str) -> None:
    """Space that was reserved and not used, as of a recorder that lost power."""
    plain, filled = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    soundfile.write(plain, np.full((1001, 3), 0.1), 48_000, subtype="PCM_24")
    filled.write_bytes(plain.read_bytes())
    with filled.open("ab") as file:
        file.truncate(file.tell() + (32 << 20))

    before = time.process_time()
    found = read_pcm_file(filled)

    assert time.process_time() - before < 0.5
    assert found is not None
    assert replace(found, path=plain) == read_pcm_file(plain)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_a_header_without_size_runs_to_the_end(tmp_path: Path, size: int) -> None:
    """Recorders that lost power leave sizes of zero, and those who write to a pipe huge ones."""
    path = tmp_path / "a.wav"
    expected = write(path, "WAV", "PCM_16", "FILE")
    data = bytearray(path.read_bytes())
    at = data.index(b"data")
    data[4:8] = data[at + 4 : at + 8] = struct.pack("<I", size)
    path.write_bytes(data)

    with open_audio(path) as reader:
        assert reader.note is None
        assert np.array_equal(reader.read(0, 2000), expected)


def test_a_caf_without_size_runs_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.caf"
    expected = write(path, "CAF", "PCM_16", "FILE")
    data = bytearray(path.read_bytes())
    struct.pack_into(">q", data, data.index(b"data", 8) + 4, -1)
    path.write_bytes(data)

    with open_audio(path) as reader:
        assert reader.note is None
        assert np.array_equal(reader.read(0, 2000), expected)


@pytest.mark.parametrize("length", [14, 30, 43])
def test_a_header_that_breaks_off(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.wav"
    write(path, "WAV", "PCM_16", "FILE")
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(MediaError, match=r"a\.wav"):
        open_audio(path)


def test_compressed_wav_is_not_pcm(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((1000, 4)), 48000, subtype="ULAW")

    assert read_pcm_file(path) is None
    with open_audio(path) as reader:
        assert reader.info.n_channels == 4
