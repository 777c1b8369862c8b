"""The corrected file: only the samples that must change do, and everything around them stays."""

import errno
import io
import math
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from model.ambisonics import ChannelLayout, YawRotation
from model.errors import DiskFull, MediaError, OptionError, OutputError
from model.media import (
    Clock,
    Laying,
    Rewriting,
    check_suffix,
    file_sha256,
    open_audio,
    output_suffix,
    riff,
    write_corrected,
)
from model.media.mixing import ChannelMix
from model.media.pcm import read_pcm_file
from model.media.samples import SampleFormat
from model.output import JSON, PNG, check_output, whole_file
from tests.model.media.boxes import bext, chunk, insert_chunks
from tests.model.media.test_audio import encode, tone_numbers, tones
from tests.model.media.test_pcm import VARIANTS

RATE = 48000
IXML = b"<?xml version='1.0'?><BWFXML><NOTE>odd</NOTE></BWFXML>"
AROUND = [
    (b"cue ", struct.pack("<I", 0)),
    (b"smpl", bytes(36)),
    (b"axml", b"<adm/>"),
    (b"chna", bytes(4)),
    (b"LIST", b"INFOINAM\x04\0\0\0take"),
]


def rotation(angle_deg: float, n_channels: int = 4) -> ChannelMix:
    return YawRotation(ChannelLayout.of(n_channels), math.radians(angle_deg)).channel_mix


def production_wav(path: Path, *, n_channels: int = 4, n_samples: int = 12_345) -> np.ndarray:
    """A 24-bit Broadcast Wave file as a recorder and an editor leave it."""
    samples = np.random.default_rng(0).uniform(-0.6, 0.6, (n_channels, n_samples))
    soundfile.write(path, samples.T, RATE, subtype="PCM_24")
    before = bext() + chunk(b"iXML", IXML)
    insert_chunks(path, before, b"".join(chunk(name, data) for name, data in AROUND))
    return np.asarray(soundfile.read(path)[0].T)


def chunks(path: Path) -> dict[bytes, bytes]:
    pcm = read_pcm_file(path)
    assert pcm is not None
    data = path.read_bytes()
    return {c.name: data[c.offset : c.offset + c.size] for c in pcm.chunks}


def samples_of(path: Path) -> np.ndarray:
    with open_audio(path) as reader:
        return np.concatenate(list(reader.blocks(10_000)), axis=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(angle=st.floats(-180, 180))
def test_24_bits_there_and_back_within_one_step(tmp_path: Path, angle: float) -> None:
    original = production_wav(tmp_path / "a.wav")

    write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(angle))
    write_corrected([tmp_path / "b.wav"], tmp_path / "c.wav", rotation(-angle))

    difference = np.abs(samples_of(tmp_path / "c.wav") - original) * 2**23
    assert difference.max() <= 1
    assert np.all(difference[[0, 2]] == 0)


def test_the_result_is_the_rotated_field_rounded(tmp_path: Path) -> None:
    original = production_wav(tmp_path / "a.wav")

    write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(37))

    expected = YawRotation(ChannelLayout.of(4), math.radians(37))(original)
    assert np.abs(samples_of(tmp_path / "b.wav") - expected).max() <= 0.5 / 2**23 + 1e-12


def test_every_chunk_is_kept_and_the_history_told(tmp_path: Path) -> None:
    production_wav(tmp_path / "a.wav")
    line = "A=PCM,F=48000,W=24,M=multi,T=avsa-align"

    write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(37), history=line)

    before, after = chunks(tmp_path / "a.wav"), chunks(tmp_path / "b.wav")
    assert list(after) == list(before)
    assert after.pop(b"bext") == before.pop(b"bext") + line.encode() + b"\r\n"
    assert after.pop(b"data") != before.pop(b"data")
    assert after == before
    assert (
        struct.unpack("<I", (tmp_path / "b.wav").read_bytes()[4:8])[0] + 8
        == (tmp_path / "b.wav").stat().st_size
    )


@pytest.mark.parametrize("floats", [False, True])
def test_a_second_data_chunk_is_a_chunk_like_any_other(tmp_path: Path, floats: bool) -> None:
    samples = production_wav(tmp_path / "a.wav")
    insert_chunks(tmp_path / "a.wav", b"", chunk(b"data", b"left over"))

    write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(180), float_output=floats)

    assert chunk(b"data", b"left over") in (tmp_path / "b.wav").read_bytes()
    np.testing.assert_allclose(samples_of(tmp_path / "b.wav")[1], -samples[1], atol=1e-6)


@pytest.mark.parametrize("size", [5, 27, 0x2021])
def test_chunks_without_their_padding_byte_are_kept(tmp_path: Path, size: int) -> None:
    """As some recorders write an odd iXML, and samples of an odd number of channels."""
    samples = np.random.default_rng(0).uniform(-0.6, 0.6, (9, 1001))
    soundfile.write(tmp_path / "a.wav", samples.T, RATE, subtype="PCM_24")
    insert_chunks(
        tmp_path / "a.wav",
        chunk(b"iXML", b"x" * size)[: 8 + size],
        chunk(b"LIST", b"y" * size)[: 8 + size] + chunk(b"cue ", bytes(4)),
    )
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data.replace(b"\0LIST", b"LIST"))
    (tmp_path / "b.wav").write_bytes(data)

    for name in ("a.wav", "b.wav"):
        write_corrected([tmp_path / name], tmp_path / f"to_{name}", rotation(30, 9))

    kept = chunks(tmp_path / "to_a.wav")
    assert kept[b"iXML"] == b"x" * size
    assert kept[b"LIST"] == b"y" * size
    assert kept[b"cue "] == bytes(4)
    assert kept == chunks(tmp_path / "to_b.wav")
    assert soundfile.info(tmp_path / "to_a.wav").frames == 1001


@pytest.mark.parametrize("last", [b"", chunk(b"note", b"odd")])
@pytest.mark.parametrize("after", [b"\0\x01end", b"a text that is no chunk", bytes(100)])
def test_bytes_after_the_last_chunk_are_kept(tmp_path: Path, last: bytes, after: bytes) -> None:
    production_wav(tmp_path / "a.wav")
    with (tmp_path / "a.wav").open("ab") as file:
        file.write(last + after)

    write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(37))
    write_corrected([tmp_path / "a.wav"], tmp_path / "c.wav", rotation(37), float_output=True)

    for name in ("b.wav", "c.wav"):
        assert (tmp_path / name).read_bytes().endswith(b"take" + last + after)


def test_zero_degrees_is_the_same_file(tmp_path: Path) -> None:
    production_wav(tmp_path / "a.wav")

    correction = write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(360))

    assert correction.copied
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_head_locked_channels_keep_every_bit(tmp_path: Path) -> None:
    production_wav(tmp_path / "a.wav", n_channels=6)

    write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(37, 6))

    frames = [
        np.frombuffer(chunks(tmp_path / name)[b"data"], np.uint8).reshape(-1, 6, 3)
        for name in ("a.wav", "b.wav")
    ]
    kept = [0, 2, 4, 5]
    assert np.array_equal(frames[0][:, kept], frames[1][:, kept])
    assert not np.array_equal(frames[0], frames[1])


@pytest.mark.parametrize(("suffix", "name", "subtype", "endian"), VARIANTS)
def test_every_container_keeps_its_head_tail_and_format(
    tmp_path: Path, suffix: str, name: str, subtype: str, endian: str
) -> None:
    source, output = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    original = np.random.default_rng(0).uniform(-0.6, 0.6, (1001, 4))
    soundfile.write(source, original, RATE, subtype=subtype, endian=endian, format=name)

    write_corrected([source], output, rotation(37))

    before, after = read_pcm_file(source), read_pcm_file(output)
    assert before is not None
    assert after is not None
    assert (after.format, after.n_samples, after.container) == (
        before.format,
        before.n_samples,
        before.container,
    )
    end = before.data_offset + before.data_size
    # Stale peaks are dropped, so offsets move.
    if b"PEAK" not in chunks(source) and not before.peaks:
        assert (
            output.read_bytes()[: before.data_offset] == source.read_bytes()[: before.data_offset]
        )
    assert output.read_bytes()[after.data_offset + after.data_size :] == source.read_bytes()[end:]
    expected = YawRotation(ChannelLayout.of(4), math.radians(37))(samples_of(source))
    bits = 24 if before.format.encoding == "float" else before.format.bits
    assert np.abs(soundfile.read(output)[0].T - expected).max() <= 0.51 * 2.0 ** (1 - bits)


def test_stale_peaks_are_dropped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 4)) + 0.1, RATE, subtype="FLOAT")
    assert b"PEAK" in chunks(tmp_path / "a.wav")

    write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(37))

    assert b"PEAK" not in chunks(tmp_path / "b.wav")


@pytest.mark.parametrize("suffix", ["aiff", "caf", "caf overview", "w64"])
@pytest.mark.parametrize("behind", [False, True])
def test_stale_peaks_of_other_kinds_are_dropped(tmp_path: Path, suffix: str, behind: bool) -> None:
    suffix, _, overview = suffix.partition(" ")
    source, output = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (1000, 4))
    soundfile.write(source, samples, RATE, subtype="PCM_24")
    plain = source.read_bytes()
    size_at, form = {"aiff": (4, ">I"), "w64": (16, "<Q"), "caf": (0, "")}[suffix]
    peaks = {
        "aiff": struct.pack(">4sI", b"PEAK", 40) + bytes(40),
        "w64": b"levl" + bytes.fromhex("f3acd3118cd100c04f8edb8a") + struct.pack("<Q40x", 64),
        "caf": struct.pack(">4sq", b"ovvw" if overview else b"peak", 52) + bytes(52),
    }[suffix]
    at = len(plain) if behind else {"aiff": 38, "w64": 40, "caf": 52}[suffix]
    data = bytearray(plain[:at] + peaks + plain[at:])
    if form:
        size = struct.unpack_from(form, plain, size_at)[0]
        struct.pack_into(form, data, size_at, size + len(peaks))
    source.write_bytes(data)
    (tmp_path / f"plain.{suffix}").write_bytes(plain)

    write_corrected([source], output, rotation(37))
    write_corrected([source], tmp_path / f"copy.{suffix}", {})
    write_corrected([tmp_path / f"plain.{suffix}"], tmp_path / f"c.{suffix}", rotation(37))

    assert output.read_bytes() == (tmp_path / f"c.{suffix}").read_bytes()
    assert (tmp_path / f"copy.{suffix}").read_bytes() == source.read_bytes()


def test_peaks_that_libsndfile_writes_are_dropped(tmp_path: Path) -> None:
    for suffix, name in (("aiff", b"PEAK"), ("caf", b"peak")):
        source, output = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
        soundfile.write(source, np.full((100, 4), 0.1), RATE, subtype="FLOAT")
        assert name in source.read_bytes()

        write_corrected([source], output, rotation(37))

        assert name not in output.read_bytes()
        assert soundfile.info(output).frames == 100


@pytest.mark.parametrize("version", [1, 2])
def test_loudness_that_holds_no_more_is_unsaid(tmp_path: Path, version: int) -> None:
    """EBU Tech 3285 version 2; before it the same bytes mean nothing, and are kept."""
    production_wav(tmp_path / "a.wav")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.index(b"bext") + 8
    struct.pack_into("<H", data, at + 346, version)
    struct.pack_into("<5h", data, at + 412, -2300, 500, -100, -1800, -2000)
    (tmp_path / "a.wav").write_bytes(data)

    for history in ("", "turned"):
        write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(37), history=history)
        before, after = chunks(tmp_path / "a.wav")[b"bext"], chunks(tmp_path / "b.wav")[b"bext"]
        unsaid = struct.pack("<5H", *5 * [0x7FFF]) if version == 2 else before[412:422]
        assert after[:602] == before[:412] + unsaid + before[422:602]
        assert after[602 : len(before)] == before[602:]
    write_corrected([tmp_path / "a.wav"], tmp_path / "c.wav", {})
    assert (tmp_path / "c.wav").read_bytes() == bytes(data)


def test_a_stale_checksum_is_dropped_and_a_true_one_stays(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 4)) + 0.1, RATE, subtype="PCM_24")
    insert_chunks(tmp_path / "a.wav", b"", chunk(b"MD5 ", bytes(16)))

    write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(37))
    write_corrected([tmp_path / "a.wav"], tmp_path / "c.wav", {})

    assert b"MD5 " not in chunks(tmp_path / "b.wav")
    assert b"MD5 " in chunks(tmp_path / "c.wav")


def test_flac_keeps_its_metadata(tmp_path: Path) -> None:
    source, output = tmp_path / "a.flac", tmp_path / "b.flac"
    samples = np.random.default_rng(0).uniform(-0.6, 0.6, (12_345, 4))
    with soundfile.SoundFile(source, "w", RATE, 4, "PCM_24") as file:
        file.title = "take 12"
        file.write(samples)
    application = b"riff" + b"bext and more"
    data = source.read_bytes()
    block = bytes([2]) + len(application).to_bytes(3, "big") + application
    seek_point = struct.pack(">QQH", 4096, 54_321, 4096)  # of a frame that will lie elsewhere
    block += bytes([3]) + len(seek_point).to_bytes(3, "big") + seek_point
    source.write_bytes(data[:42] + block + data[42:])  # after STREAMINFO

    write_corrected([source], output, rotation(37))
    write_corrected([output], tmp_path / "c.flac", rotation(-37))

    assert application in output.read_bytes()
    assert seek_point not in output.read_bytes()
    assert soundfile.SoundFile(output).title == "take 12"
    assert np.abs(samples_of(tmp_path / "c.flac") - samples_of(source)).max() <= 2**-23 + 1e-12


def test_flac_keeps_a_tag_that_stands_before_it(tmp_path: Path) -> None:
    source, output = tmp_path / "a.flac", tmp_path / "b.flac"
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (4, 5000))
    soundfile.write(source, samples.T, 48000, subtype="PCM_24")
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 1, 10]) + bytes(128 + 10)
    source.write_bytes(tag + source.read_bytes())

    write_corrected([source], output, rotation(180))

    assert output.read_bytes().startswith(tag + b"fLaC")
    np.testing.assert_allclose(samples_of(output)[1], -samples[1], atol=1e-6)


@pytest.mark.parametrize("tag", [b"TAG" + b"take 12".ljust(125, b"\0"), b""])
def test_flac_keeps_a_tag_that_stands_behind_it(tmp_path: Path, tag: bytes) -> None:
    source, output = tmp_path / "a.flac", tmp_path / "b.flac"
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (4, 5000))
    soundfile.write(source, samples.T, 48000, subtype="PCM_24")
    source.write_bytes(source.read_bytes() + tag)

    write_corrected([source], output, rotation(180))

    assert output.read_bytes().endswith(tag)
    assert output.read_bytes().count(b"TAG") == bool(tag)
    np.testing.assert_allclose(samples_of(output)[1], -samples[1], atol=1e-6)


def test_clipping_is_answered_with_one_gain(tmp_path: Path) -> None:
    """A loud diagonal source turned to the front would pass full scale by 3 dB."""
    wave = np.sin(np.arange(48_000) / 7)
    original = np.array([0.9 * wave, 0.95 * wave, 0.3 * wave, 0.95 * wave])
    soundfile.write(tmp_path / "a.wav", original.T, RATE, subtype="PCM_24")

    correction = write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(-45))

    result = samples_of(tmp_path / "b.wav")
    gain = 10 ** (correction.trim_db / 20)
    expected = YawRotation(ChannelLayout.of(4), math.radians(-45))(original) * gain
    assert -3.01 < correction.trim_db < -2
    assert correction.clipped_samples == 0
    assert correction.peak == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(result, expected, atol=2**-22)


def test_float_output_needs_no_gain(tmp_path: Path) -> None:
    wave = np.sin(np.arange(48_000) / 7)
    original = np.array([0.9 * wave, 0.95 * wave, 0.3 * wave, 0.95 * wave])
    soundfile.write(tmp_path / "a.wav", original.T, RATE, subtype="PCM_24")

    correction = write_corrected(
        [tmp_path / "a.wav"], tmp_path / "b.wav", rotation(-45), float_output=True
    )

    assert (correction.trim_db, correction.format) == (0.0, "32-bit float")
    assert soundfile.info(tmp_path / "b.wav").subtype == "FLOAT"
    assert np.abs(samples_of(tmp_path / "b.wav")).max() > 1.3


@pytest.mark.parametrize("container", ["wav", "wavex", "rf64"])
def test_float_output_keeps_every_chunk(tmp_path: Path, container: str) -> None:
    source, output = tmp_path / "a.wav", tmp_path / "b.wav"
    samples = production_wav(source)
    if container != "wav":
        soundfile.write(source, samples.T, 48000, format=container.upper(), subtype="PCM_24")
    mix = rotation(37)

    correction = write_corrected([source], output, mix, history="done", float_output=True)

    before, after = chunks(source), chunks(output)
    known = {b"fmt ", b"fact", b"data", b"bext", b"ds64", b"PEAK"}
    assert before.keys() - {b"PEAK"} <= after.keys()
    assert all(after[name] == before[name] for name in before.keys() - known)
    assert struct.unpack("<I", after[b"fact"]) == (samples.shape[1],)
    if container == "wavex":  # speakers, and what kind of sub-format it is
        assert after[b"fmt "][18:24] == struct.pack("<H", 32) + before[b"fmt "][20:24]
        assert after[b"fmt "][26:] == before[b"fmt "][26:]
    assert not correction.new_wav
    info = soundfile.info(output)
    assert (info.subtype, info.frames) == ("FLOAT", samples.shape[1])
    expected = YawRotation(ChannelLayout.of(4), math.radians(37))(samples_of(source))
    np.testing.assert_allclose(samples_of(output), expected, atol=1e-6)


@pytest.mark.parametrize("floats", [True, False])
def test_documents_tell_the_width_that_samples_have(tmp_path: Path, floats: bool) -> None:
    """iXML of the file, ADM of its tracks; nothing else in them changes, wherever it stands."""
    source, output = tmp_path / "a.wav", tmp_path / "b.wav"
    width = 32 if floats else 24

    def ixml(bits: int) -> bytes:
        return b"<SPEED><NOTE>24</NOTE><AUDIO_BIT_DEPTH>%d</AUDIO_BIT_DEPTH></SPEED>" % bits

    def adm(bits: int) -> bytes:
        return b'<audioTrackUID UID="ATU_24" sampleRate="48000" bitDepth="%d"/>' % bits * 2

    soundfile.write(source, np.full((1000, 4), 0.1), RATE, subtype="PCM_24")
    insert_chunks(source, chunk(b"iXML", ixml(24)), chunk(b"axml", adm(24)))

    write_corrected([source], output, rotation(30), float_output=floats)

    found = chunks(output)
    assert (found[b"iXML"], found[b"axml"]) == (ixml(width), adm(width))


def test_full_scale_samples_are_not_clipping(tmp_path: Path) -> None:
    soundfile.write(
        tmp_path / "a.wav", np.tile([-1.0, 0, 1.0, 0], (500, 1)), RATE, subtype="PCM_24"
    )

    correction = write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(30))

    assert correction.trim_db == 0.0


def test_a_lossy_track_becomes_float_wav(tmp_path: Path) -> None:
    encode(tmp_path / "a.opus", tones(4), "libopus", "ambisonic 1", mapping_family="2")

    write_corrected([tmp_path / "a.opus"], tmp_path / "b.wav", rotation(90))

    info = soundfile.info(tmp_path / "b.wav")
    assert (info.subtype, info.channels, info.samplerate) == ("FLOAT", 4, RATE)
    assert tone_numbers(samples_of(tmp_path / "b.wav")) == [0, 3, 2, 1]  # X and Y change places


def test_a_lossless_container_keeps_its_format(tmp_path: Path) -> None:
    encode(tmp_path / "a.mov", tones(4), "pcm_s24le", "4.0")

    correction = write_corrected([tmp_path / "a.mov"], tmp_path / "b.wav", {})

    assert correction.format == "24-bit"
    assert np.array_equal(samples_of(tmp_path / "b.wav"), samples_of(tmp_path / "a.mov"))


def test_channels_may_be_chosen(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tones(6).T, RATE, subtype="PCM_24")

    write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", {}, keep_channels=(2, 1, 4, 0))

    assert tone_numbers(samples_of(tmp_path / "b.wav")) == [2, 1, 4, 0]


def test_a_split_track_is_joined(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "1.wav", tones(16)[:8].T, RATE, subtype="PCM_24")
    soundfile.write(tmp_path / "2.wav", tones(16)[8:].T, RATE, subtype="PCM_24")

    write_corrected([tmp_path / "1.wav", tmp_path / "2.wav"], tmp_path / "b.wav", rotation(180, 16))

    original = np.concatenate([samples_of(tmp_path / "1.wav"), samples_of(tmp_path / "2.wav")])
    expected = YawRotation(ChannelLayout.of(16), math.pi)(original)
    np.testing.assert_allclose(samples_of(tmp_path / "b.wav"), expected, atol=2**-23)


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (("a.wav PCM_24", "b.aiff PCM_24"), "PCM_24"),
        (("a.wav PCM_16", "b.flac PCM_24"), "PCM_24"),
        (("a.wav PCM_U8", "b.aiff PCM_S8"), "PCM_U8"),
        (("a.wav PCM_24", "b.wav PCM_32"), "PCM_32"),
        (("a.wav PCM_24", "b.wav FLOAT"), "FLOAT"),
        (("a.wav PCM_32", "b.wav FLOAT"), "DOUBLE"),
        (("a.wav PCM_16", "b.caf DOUBLE"), "DOUBLE"),
    ],
)
def test_parts_of_several_widths_keep_every_bit(
    tmp_path: Path, kinds: tuple[str, str], told: str
) -> None:
    parts = [tmp_path / kind.split()[0] for kind in kinds]
    for path, kind in zip(parts, kinds, strict=True):
        samples = np.random.default_rng(0).uniform(-0.6, 0.6, (1001, 2))
        soundfile.write(path, samples, RATE, subtype=kind.split()[1])

    write_corrected(parts, tmp_path / "o.wav", {2: [(2, -1.0)]})

    original = np.concatenate([soundfile.read(path)[0].T for path in parts])
    joined = soundfile.read(tmp_path / "o.wav")[0].T
    assert np.array_equal(joined, original * [[1], [1], [-1], [1]])
    assert soundfile.info(tmp_path / "o.wav").subtype == told


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_samples_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    samples = np.zeros((3 * RATE, 4)) + 0.1
    samples[2 * RATE + 5, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")

    with pytest.raises(MediaError, match=r"NaN or infinite samples near [12]\.\d s"):
        write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(30))

    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav"]


class _Failing(io.FileIO):
    """A file on a disk that fails at some byte."""

    def __init__(self, path: Path, fails_at: int) -> None:
        super().__init__(path)
        self._fails_at = fails_at

    def readinto(self, buffer: Any) -> int:
        if self.tell() <= self._fails_at < self.tell() + len(buffer):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(buffer) or 0


@pytest.mark.parametrize("fails_at", [100_000, 160_000])
def test_a_disk_that_fails_is_told_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Among the samples, or in what follows them."""
    path = tmp_path / "a.wav"
    production_wav(path)
    insert_chunks(path, b"", chunk(b"LIST", bytes(40_000)))
    open_file = Path.open

    def opened(self: Path, mode: str = "r") -> Any:
        if self == path:
            return io.BufferedReader(_Failing(path, fails_at))
        return open_file(self, mode)

    def write(mix: ChannelMix) -> None:
        write_corrected([path], tmp_path / "b.wav", mix)

    monkeypatch.setattr(Path, "open", opened)
    for way in (lambda: write(rotation(30)), lambda: write({}), lambda: file_sha256(path)):
        with pytest.raises(MediaError, match=r"a\.wav cannot be read: Input/output error"):
            way()
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
    with open_audio(path) as reader:
        if fails_at == 100_000:
            with pytest.raises(MediaError, match=r"a\.wav cannot be read"):
                reader.read(0, 12_345)


@pytest.mark.parametrize("kept", [100_000, 160_000])
def test_a_track_that_is_cut_short_meanwhile_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """By another program, once it was opened: among the samples, or in what follows them."""
    path = tmp_path / "a.wav"
    production_wav(path)
    insert_chunks(path, b"", chunk(b"LIST", bytes(40_000)))
    whole = path.read_bytes()

    def write(mix: ChannelMix, joined: bool) -> None:
        write_corrected([path, path] if joined else [path], tmp_path / "b.wav", mix)

    def cut(self: Path, *args: Any) -> Any:
        if self.suffix == ".part":  # which is opened once all is known of the track
            os.truncate(path, kept)
        return open_file(self, *args)

    open_file = Path.open
    ways: list[tuple[ChannelMix, bool]] = [(rotation(30), False), ({}, False), ({}, True)]
    for mix, joined in ways if kept == 100_000 else ways[:2]:
        path.write_bytes(whole)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "open", cut)
            with pytest.raises(MediaError, match=r"a\.wav has become shorter"):
                write(mix, joined)
        assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_the_hash_is_the_files(tmp_path: Path) -> None:
    production_wav(tmp_path / "a.wav")
    correction = write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", rotation(37))

    assert correction.sha256 == file_sha256(tmp_path / "b.wav")


@pytest.mark.parametrize("mix", [rotation(37), {}], ids=["turned", "copied"])
def test_progress_ends_at_one(tmp_path: Path, mix: ChannelMix) -> None:
    production_wav(tmp_path / "a.wav", n_samples=200_000)
    seen: list[float] = []

    write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", mix, progress=seen.append)

    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_file_beyond_four_gigabytes_becomes_rf64(tmp_path: Path) -> None:
    """Its header, from a sparse file of 4.2 GB with float output to grow it further."""
    path = tmp_path / "a.wav"
    production_wav(path, n_samples=100)
    data = bytearray(path.read_bytes())
    at = data.index(b"data")
    head = bytes(data[: at + 4])
    n_bytes = 12 * 349_600_000  # just below 4 GB
    with path.open("wb") as file:
        file.write(head + struct.pack("<I", n_bytes))
        file.truncate(file.tell() + n_bytes)

    pcm = read_pcm_file(path)
    assert pcm is not None
    line = "x" * (200 << 20)
    pieces, _ = riff.around_data(pcm, line, pcm.format)

    assert isinstance(pieces[0], bytes)
    assert pieces[0][:4] == b"RF64"
    assert isinstance(pieces[1], bytes)
    _, size, riff_size, data_size, n_samples, _ = struct.unpack("<4sI3QI", pieces[1])
    assert (size, data_size, n_samples) == (28, n_bytes, n_bytes // 12)
    assert riff_size > 2**32


@pytest.mark.parametrize(("subtype", "n_channels"), [("PCM_U8", 5), ("PCM_24", 4)])
def test_a_new_wav_is_as_long_as_it_says(tmp_path: Path, subtype: str, n_channels: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((1001, n_channels)), RATE, subtype=subtype)

    write_corrected([tmp_path / "a.wav"], tmp_path / "b.wav", {}, laying=Laying(Clock(), 777))

    data = (tmp_path / "b.wav").read_bytes()
    pcm = read_pcm_file(tmp_path / "b.wav")
    assert pcm is not None
    assert struct.unpack_from("<I", data, 4)[0] + 8 == len(data)
    assert len(data) == pcm.data_offset + pcm.data_size + pcm.data_size % 2
    assert (pcm.n_samples, pcm.missing) == (777, 0)


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_new_wav_of_four_gigabytes_is_wav_as_long_as_it_can(beyond: int) -> None:
    form, n_channels = SampleFormat("signed", 2, 16), 4
    head = len(riff.new_header(form, RATE, n_channels, 0))
    n_samples = (2**32 - 1 + 8 - head) // 8 + beyond

    header = riff.new_header(form, RATE, n_channels, n_samples)

    size = head + 8 * n_samples - 8
    assert len(header) == head
    if not beyond:
        assert struct.unpack_from("<4sI", header) == (b"RIFF", size)
        assert header.endswith(struct.pack("<4sI", b"data", 8 * n_samples))
    else:
        assert struct.unpack_from("<4sI", header) == (b"RF64", 2**32 - 1)
        assert struct.unpack_from("<4sI3Q", header, 12) == (
            b"ds64", 28, size, 8 * n_samples, n_samples,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["b.mp3", "b.flac", "b"])
def test_a_suffix_that_would_lie(tmp_path: Path, name: str) -> None:
    production_wav(tmp_path / "a.wav")
    with open_audio(tmp_path / "a.wav") as reader, pytest.raises(OptionError, match=r"\.wav"):
        check_suffix(reader.info, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "asked", "right"),
    [
        ("a.flac", Rewriting(), ".flac"),
        ("a.caf", Rewriting(), ".caf"),
        ("a.flac", Rewriting(floats=True), ".wav"),
        ("a.caf", Rewriting(floats=True), ".wav"),
        ("a.aiff", Rewriting(laid=True), ".wav"),
        ("a.w64", Rewriting(joined=True), ".wav"),
        ("alac.caf", Rewriting(), ".wav"),
        ("a.amb", Rewriting(floats=True), ".amb"),
    ],
)
def test_a_new_wav_is_called_one(tmp_path: Path, name: str, asked: Rewriting, right: str) -> None:
    kinds = {".amb": "WAVEX"}
    path = tmp_path / name
    kind = kinds.get(path.suffix, path.suffix[1:].upper())
    subtype = "ALAC_24" if name == "alac.caf" else "PCM_24"
    soundfile.write(path, np.zeros((100, 4)), 48000, format=kind, subtype=subtype)

    with open_audio(path) as reader:
        assert output_suffix(reader.info, asked) == right
        check_suffix(reader.info, tmp_path / f"b{right}", asked)
        if right == ".wav":
            with pytest.raises(OptionError, match="new WAV"):
                check_suffix(reader.info, tmp_path / f"b{path.suffix}", asked)


def test_only_fuma_is_called_amb(tmp_path: Path) -> None:
    production_wav(tmp_path / "a.wav")
    with open_audio(tmp_path / "a.wav") as reader:
        check_suffix(reader.info, tmp_path / "b.amb", fuma=True)
        with pytest.raises(OptionError, match="should end in"):
            check_suffix(reader.info, tmp_path / "b.amb")


def test_a_new_amb_declares_itself(tmp_path: Path) -> None:
    production_wav(tmp_path / "a.wav")

    write_corrected(
        [tmp_path / "a.wav"], tmp_path / "b.amb", rotation(30), laying=Laying(Clock(), 500)
    )
    (tmp_path / "b.amb").rename(tmp_path / "b.wav")

    with open_audio(tmp_path / "b.wav") as reader:
        assert reader.info.convention == "fuma"


# --- whole or not at all -------------------------------------------------------------------------


def test_an_output_appears_whole(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.txt") as part:
        part.write_text("half")
        assert not (tmp_path / "a.txt").exists()
        part.write_text("whole")

    assert (tmp_path / "a.txt").read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_who_may_read_a_result_is_for_the_mask_to_say(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with whole_file(tmp_path / "a.txt") as part:
            part.write_text("whole")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)

    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~mask


def test_names_as_long_as_they_may_be(tmp_path: Path) -> None:
    path = tmp_path / (83 * "\u6771" + ".wav")

    with whole_file(path) as part:
        part.write_text("x")

    assert path.read_text() == "x"
    with pytest.raises(OutputError, match="File name too long"):
        check_output(tmp_path / (84 * "\u6771" + ".wav"), [])


def test_after_a_failure_nothing_is_left_and_the_old_stays(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def write_half() -> None:
        with whole_file(tmp_path / "a.txt") as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()

    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_originals_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("x")
    (tmp_path / "link.wav").symlink_to(tmp_path / "a.wav")
    for name in ("a.wav", "link.wav"):
        with pytest.raises(OptionError, match="never overwritten"):
            check_output(tmp_path / name, [tmp_path / "a.wav"])


def test_only_its_own_kind_gives_way_to_a_result(tmp_path: Path) -> None:
    old, picture = tmp_path / "old.json", tmp_path / "old.png"
    for text in ("{}", ""):
        old.write_text(text)
        check_output(old, [], begins=JSON)
    Image.new("L", (1, 1)).save(picture)
    check_output(picture, [], begins=PNG)
    for path, begins in ((picture, JSON), (tmp_path / "a.txt", PNG)):
        (tmp_path / "a.txt").write_text("a list")
        with pytest.raises(OptionError, match="not of the kind"):
            check_output(path, [], begins=begins)


@pytest.mark.parametrize("folder", ["missing", "a_file", "/proc"])
def test_folders_that_cannot_be_written(tmp_path: Path, folder: str) -> None:
    (tmp_path / "a_file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(tmp_path / folder / "out.wav", [])


@pytest.mark.needs("root")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        samples = production_wav(tmp_path / "a.wav", n_samples=200_000)
        soundfile.write(tmp_path / "a.flac", samples.T, RATE, subtype="PCM_24")
        with pytest.raises(DiskFull, match="No space is left"):
            write_corrected([tmp_path / "a.flac"], disk / "b.flac", rotation(30))
        with pytest.raises(DiskFull, match="No space is left"):
            write_corrected([tmp_path / "a.wav"], disk / "b.wav", rotation(30))
        with pytest.raises(DiskFull, match="No space is left"):
            write_corrected([tmp_path / "a.wav"], disk / "b.wav", {})
        assert list(disk.iterdir()) == []
        assert shutil.disk_usage(disk).free > 900_000
    finally:
        subprocess.run(["umount", str(disk)], check=True)
