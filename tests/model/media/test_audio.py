"""Containers: every channel where it was coded, at any order, and the same from any place."""

import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from model.errors import MediaError, OptionError, UnsupportedMedia
from model.media import open_audio, open_split_audio, output_suffix, write_corrected
from tests.model.media.boxes import add_boxes, box

RATE = 48000


def tones(n_channels: int, seconds: float = 1.0) -> np.ndarray:
    """A tone of its own in every channel, rising by 150 Hz."""
    t = np.arange(round(seconds * RATE)) / RATE
    return np.array([0.2 * np.sin(2 * np.pi * (200 + 150 * i) * t) for i in range(n_channels)])


def tone_numbers(channels: np.ndarray) -> list[int]:
    """Which tone each channel holds."""
    spectrum = np.abs(np.fft.rfft(channels[:, 4800:28800], axis=1))
    return [round((float(peak) * 2 - 200) / 150) for peak in spectrum.argmax(axis=1)]


def encode(path: Path, samples: np.ndarray, codec: str, layout: str, **options: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout, options=options)
        assert isinstance(stream, av.AudioStream)
        packed = np.ascontiguousarray(samples.T.reshape(1, -1).astype("f4"))
        frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "codec", "layout", "n_channels", "family"),
    [
        ("a.opus", "libopus", "4.0", 4, "255"),
        ("a.opus", "libopus", "ambisonic 1", 4, "2"),
        ("a.opus", "libopus", "ambisonic 3", 16, "2"),
        ("a.mkv", "libopus", "ambisonic 1+stereo", 6, "2"),
        ("a.webm", "libopus", "ambisonic 2", 9, "2"),
        ("a.m4a", "aac", "4.0", 4, None),
        ("a.m4a", "aac", "quad", 4, None),
        ("a.mov", "pcm_s24le", "4.0", 4, None),
        ("a.mov", "pcm_s24le", "hexadecagonal", 16, None),
        ("a.mkv", "pcm_s16le", "9 channels", 9, None),
    ],
)
def test_channels_keep_their_places(
    tmp_path: Path, name: str, codec: str, layout: str, n_channels: int, family: str | None
) -> None:
    path = tmp_path / name
    options = {"mapping_family": family} if family else {}
    encode(path, tones(n_channels), codec, layout, **options)

    with open_audio(path) as reader:
        assert reader.info.n_channels == n_channels
        whole = np.concatenate(list(reader.blocks(10_000)), axis=1)
        part = reader.read(9000, 30_000)

    assert tone_numbers(whole) == list(range(n_channels))
    # Matroska's clock is of milliseconds, so a place is exact to half of one.
    shifts = range(1) if path.suffix not in (".mkv", ".webm") else range(-48, 49)
    differences = [
        np.abs(part[:, 100:-100] - whole[:, 9100 + s : 9000 + s + part.shape[1] - 100]).max()
        for s in shifts
    ]
    assert min(differences) < 1e-3


# What a QuickTime `chan` box says: a layout's tag, or a label for each channel (CoreAudioTypes.h).
FILM = b"".join(struct.pack(">I16x", label) for label in (1, 3, 2, 5, 6, 4))


@pytest.mark.parametrize(
    ("n_channels", "told"),
    [
        (6, struct.pack(">4x3I", 0, 0, 6) + FILM),
        (6, struct.pack(">4x3I", 124 << 16 | 6, 0, 0)),  # C L R Ls Rs LFE
        (4, struct.pack(">4x3I", 107 << 16 | 4, 0, 0)),  # W X Y Z
    ],
)
def test_an_order_of_its_own_brings_nobody_down(
    tmp_path: Path, n_channels: int, told: bytes
) -> None:
    """In a process apart, for it would die of it."""
    path = tmp_path / "a.mov"
    encode(path, tones(n_channels), "pcm_s24le", f"{n_channels} channels")
    add_boxes(path, entry=box(b"chan", told))
    reading = (
        "import sys; from pathlib import Path; from model.media import open_audio\n"
        "for _ in range(3):\n"
        "    with open_audio(Path(sys.argv[1])) as reader: reader.read(0, 4800)\n"
    )

    done = subprocess.run([sys.executable, "-c", reading, path], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    with open_audio(path) as reader:
        assert tone_numbers(reader.read(0, RATE)) == list(range(n_channels))


def test_lossless_streams_are_exact_and_keep_their_format(tmp_path: Path) -> None:
    samples = np.round(tones(4) * 2**23) / 2**23
    encode(tmp_path / "a.mov", samples, "pcm_s24le", "4.0")

    with open_audio(tmp_path / "a.mov") as reader:
        assert reader.info.format is not None
        assert reader.info.format.name == "24-bit"
        np.testing.assert_allclose(reader.read(0, RATE), samples, atol=2**-23)


def test_a_hole_is_silence_and_what_follows_stays_in_time(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (4, RATE))
    hole = slice(12_000, 36_000)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="4.0")
        for first in (*range(0, hole.start, 1200), *range(hole.stop, RATE, 1200)):
            packed = np.ascontiguousarray(samples[:, first : first + 1200].T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(packed.astype("f4"), "flt", "4.0")
            frame.sample_rate, frame.pts = RATE, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    samples[:, hole] = 0

    with open_audio(tmp_path / "a.mkv") as reader:
        whole = np.concatenate(list(reader.blocks(7000)), axis=1)
        part = reader.read(20_000, 20_000)

    np.testing.assert_allclose(whole, samples, atol=1e-4)
    np.testing.assert_allclose(part, samples[:, 20_000:40_000], atol=1e-4)


def test_declared_ambisonics_is_ambix(tmp_path: Path) -> None:
    encode(tmp_path / "a.opus", tones(4), "libopus", "ambisonic 1", mapping_family="2")
    encode(tmp_path / "b.opus", tones(4), "libopus", "4.0", mapping_family="255")

    with open_audio(tmp_path / "a.opus") as declared, open_audio(tmp_path / "b.opus") as plain:
        assert (declared.info.convention, plain.info.convention) == ("ambix", None)


def test_youtubes_five_point_one_is_recognised(tmp_path: Path) -> None:
    """AAC 5.1 that carries X, Y, W, -, Z, - (in FFmpeg's order)."""
    w, y, z, x = tones(4)
    silence = np.zeros_like(w)
    encode(tmp_path / "a.m4a", np.array([x, y, w, silence, z, silence]), "aac", "5.1")

    with open_audio(tmp_path / "a.m4a") as reader:
        assert reader.info.components == (2, 1, 4, 0)
        assert reader.info.convention == "ambix"
        assert tone_numbers(reader.read(0, RATE)[list(reader.info.components)]) == [0, 1, 2, 3]


def test_six_full_channels_are_not_taken_for_it(tmp_path: Path) -> None:
    encode(tmp_path / "a.m4a", tones(6), "aac", "5.1")

    with open_audio(tmp_path / "a.m4a") as reader:
        assert reader.info.components is None


def several_tracks(path: Path, *layouts: str, silent: int = 0) -> Path:
    """A container with a track of each layout, of which the first ones are silent."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=RATE, layout=name) for name in layouts]
        for number, (stream, layout) in enumerate(zip(streams, layouts, strict=True)):
            sound = tones(av.AudioLayout(layout).nb_channels, 4.0) * (number >= silent)
            packed = np.ascontiguousarray(sound.T.reshape(1, -1).astype("f4"))
            frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
            frame.sample_rate = RATE
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def test_of_several_streams_the_one_with_most_channels(tmp_path: Path) -> None:
    with open_audio(several_tracks(tmp_path / "a.mov", "stereo", "4.0")) as reader:
        assert reader.info.n_channels == 4
        assert reader.note is None


def test_of_several_tracks_alike_the_first_is_read_and_told(tmp_path: Path) -> None:
    with open_audio(several_tracks(tmp_path / "a.mov", "stereo", "4.0", "4.0")) as reader:
        assert reader.note == "a.mov holds 2 tracks of 4 channels, of which the first is read."


def test_a_split_track_is_one(tmp_path: Path) -> None:
    samples = tones(16)
    soundfile.write(tmp_path / "1.wav", samples[:8].T, RATE, subtype="DOUBLE")
    soundfile.write(tmp_path / "2.wav", samples[8:].T, RATE, subtype="DOUBLE")

    with open_split_audio([tmp_path / "1.wav", tmp_path / "2.wav"]) as reader:
        assert reader.info.n_channels == 16
        assert np.array_equal(reader.read(100, 500), samples[:, 100:600])
        assert np.array_equal(np.concatenate(list(reader.blocks(1000)), axis=1), samples)


@pytest.mark.parametrize("lengths", [(5000, 4321), (4321, 5000)])
def test_a_split_track_ends_with_its_shortest_part(
    tmp_path: Path, lengths: tuple[int, int]
) -> None:
    samples = tones(8)[:, :5000]
    for name, part, length in zip("12", (samples[:4], samples[4:]), lengths, strict=True):
        soundfile.write(tmp_path / f"{name}.wav", part[:, :length].T, RATE, subtype="DOUBLE")

    with open_split_audio([tmp_path / "1.wav", tmp_path / "2.wav"]) as reader:
        assert reader.info.n_samples == 4321
        assert np.array_equal(reader.read(4000, 1000), samples[:, 4000:4321])
        assert np.array_equal(np.concatenate(list(reader.blocks(1000)), axis=1), samples[:, :4321])
        assert reader.note is not None
        assert "goes on for another 0.01 s" in reader.note


def test_parts_of_a_split_track_share_a_rate(tmp_path: Path) -> None:
    for name, rate in (("1.wav", 48000), ("2.wav", 44100)):
        soundfile.write(tmp_path / name, tones(8).T, rate)
    with pytest.raises(OptionError, match=r"48000 Hz.*44100 Hz"):
        open_split_audio([tmp_path / "1.wav", tmp_path / "2.wav"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.wav", b""),
        ("text.wav", b"this is no sound, it is a text\n" * 20),
        ("text.m4a", b"ffconcat version 1.0\nfile /etc/hostname\n"),
        ("noise.flac", b"fLaC" + bytes(100)),
    ],
)
def test_what_is_no_sound(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MediaError, match=name):
        open_audio(tmp_path / name)


def integers(path: Path, bits: int, codec: str) -> np.ndarray:
    """Encode integers of that many bits [shape=(4, N)] without loss, and return them as numbers."""
    highest = 2 ** (bits - 1) - 1
    codes = np.random.default_rng(0).integers(-highest - 1, highest, (4800, 4), endpoint=True)
    width = 16 if bits == 16 else 32
    stored = (codes << (width - bits)).astype(f"i{width // 8}")
    with av.open(str(path), "w") as container:
        options = {"strict": "experimental"} if (codec, bits) == ("flac", 32) else {}
        stream = container.add_stream(codec, rate=RATE, layout="4.0", options=options)
        assert isinstance(stream, av.AudioStream)
        planar = "p" if codec in ("alac", "wavpack") else ""
        stream.format = av.AudioFormat(f"s{width}{planar}")
        for first in range(0, len(stored), 1200):
            part = stored[first : first + 1200].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, f"s{width}", "4.0")
            frame.sample_rate, frame.pts = RATE, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return np.asarray(codes.T / 2.0 ** (bits - 1))


@pytest.mark.parametrize(
    ("name", "codec", "bits"),
    [
        ("a.flac", "flac", 32),
        ("a.mkv", "flac", 16),
        ("a.mkv", "flac", 24),
        ("a.mkv", "flac", 32),
        ("a.mov", "alac", 16),
        ("a.m4a", "alac", 24),
        ("a.mkv", "tta", 24),
        ("a.mkv", "wavpack", 32),
    ],
)
def test_lossless_coders_keep_every_bit(tmp_path: Path, name: str, codec: str, bits: int) -> None:
    numbers = integers(tmp_path / name, bits, codec)

    with open_audio(tmp_path / name) as reader:
        assert reader.info.format is not None
        assert reader.info.format.name == f"{bits}-bit"
        assert np.array_equal(reader.read(0, RATE), numbers)
        assert output_suffix(reader.info) == ".wav"
    write_corrected([tmp_path / name], tmp_path / "b.wav", {2: [(2, 0.5)]})

    with open_audio(tmp_path / "b.wav") as reader:
        assert np.array_equal(reader.read(0, RATE)[[0, 1, 3]], numbers[[0, 1, 3]])


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_alac_in_caf_keeps_every_bit(tmp_path: Path, bits: int) -> None:
    """Noise at a quarter of full scale: libsndfile's coder spoils what is louder."""
    codes = np.random.default_rng(0).integers(-(2 ** (bits - 3)), 2 ** (bits - 3), (4800, 4))
    stored = (codes << (32 - bits)).astype(np.int32)
    soundfile.write(tmp_path / "a.caf", stored, RATE, subtype=f"ALAC_{bits}")

    write_corrected([tmp_path / "a.caf"], tmp_path / "b.wav", {2: [(2, 0.5)]})

    with open_audio(tmp_path / "b.wav") as reader:
        assert reader.info.format is not None
        assert reader.info.format.name == f"{bits}-bit"
        numbers = codes.T / 2.0 ** (bits - 1)
        assert np.array_equal(reader.read(0, RATE)[[0, 1, 3]], numbers[[0, 1, 3]])


@pytest.mark.parametrize("bits", [12, 20])
def test_flac_of_widths_that_libsndfile_does_not_know(tmp_path: Path, bits: int) -> None:
    """Its header says fewer bits of samples that are zeros, which are coded in the same way."""
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros((4096, 4)), RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    streaminfo = int.from_bytes(data[18:26], "big") & ~(31 << 36)
    data[18:26] = (streaminfo | (bits - 1) << 36).to_bytes(8, "big")
    path.write_bytes(data)

    with open_audio(path) as reader:
        assert reader.info.format is not None
        assert reader.info.format.name == f"{bits}-bit"
        assert reader.info.n_samples == 4096
        assert output_suffix(reader.info) == ".wav"


def test_a_kind_that_is_not_read_is_not_called_damaged(tmp_path: Path) -> None:
    for endian in ("BIG", "LITTLE"):
        soundfile.write(tmp_path / "a.au", tones(4).T, RATE, endian=endian)
        with pytest.raises(UnsupportedMedia, match=r"a\.au is AU sound, which is not read: conv"):
            open_audio(tmp_path / "a.au")


@pytest.mark.parametrize("bits", [16, 32])
def test_flac_of_unknown_length_says_so(tmp_path: Path, bits: int) -> None:
    """As encoders leave it that write to a pipe: STREAMINFO counts no samples."""
    path = tmp_path / "a.flac"
    integers(path, bits, "flac")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)

    with pytest.raises(MediaError, match="does not say how long it is"):
        open_audio(path)


@pytest.mark.parametrize("n_channels", range(2, 10))
def test_vorbis_is_in_coded_order(tmp_path: Path, n_channels: int) -> None:
    """libsndfile leaves coded channels where they are; FFmpeg moves them."""
    path = tmp_path / "a.ogg"
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (RATE, n_channels))
    soundfile.write(path, samples, RATE, format="OGG", subtype="VORBIS")
    expected = soundfile.read(path)[0].T
    with open_audio(path) as reader:
        np.testing.assert_allclose(reader.read(0, RATE), expected, atol=1e-6)


def test_a_truncated_flac_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (5 * RATE, 4)), RATE)
    path.write_bytes(path.read_bytes()[:50_000])
    with open_audio(path) as reader, pytest.raises(MediaError, match=r"a\.flac.*at 4\.0 s"):
        reader.read(4 * RATE, RATE)


@pytest.mark.needs("shared-data")
@pytest.mark.parametrize("name", ["HOA3_rec1_01-08ch.ogg", "HOA3_rec1_09-16ch.ogg"])
def test_eight_channel_vorbis_is_in_coded_order(shared_data: Path, name: str) -> None:
    """libsndfile leaves coded channels where they are; FFmpeg moves them."""
    path = shared_data / "formats" / name
    expected = soundfile.read(path, frames=20_000)[0].T
    with open_audio(path) as reader:
        np.testing.assert_allclose(reader.read(0, 20_000), expected, atol=1e-6)
