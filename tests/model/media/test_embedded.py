"""Sound in MP4 and MOV, corrected where it lies: every other byte of the file stays."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import pytest

from model.ambisonics import ChannelLayout, YawRotation
from model.errors import MediaError, OptionError
from model.media import Rewriting, check_suffix, file_sha256, open_audio, write_corrected
from tests.model.media.boxes import add_boxes, sv3d, v1_uuid
from tests.model.media.test_audio import RATE, encode, tones

CODECS = [
    ("a.mov", "pcm_s16le"), ("a.mov", "pcm_s16be"), ("a.mov", "pcm_s24le"), ("a.mov", "pcm_s24be"),
    ("a.mov", "pcm_s32le"), ("a.mov", "pcm_f32le"), ("a.mov", "pcm_f64be"), ("a.mov", "pcm_u8"),
    ("a.mp4", "pcm_s24le"), ("a.mp4", "pcm_f32be"),
]  # fmt: skip


def with_picture(path: Path, codec: str, seconds: float = 1.5) -> np.ndarray:
    """A picture, two sounds of which the second is a field, and a title; the field's samples."""
    field = np.random.default_rng(0).uniform(-0.5, 0.5, (4, round(seconds * RATE)))
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "take 12"
        picture = container.add_stream("mpeg4", rate=25)
        picture.width, picture.height = 64, 32
        guide = container.add_stream(codec, rate=RATE, layout="mono")
        sound = container.add_stream(codec, rate=RATE, layout="4.0")
        assert isinstance(guide, av.AudioStream)
        assert isinstance(sound, av.AudioStream)
        for number in range(round(25 * seconds)):
            pixels = np.full((32, 64, 3), number, np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels)))
            for stream, part in ((guide, field[:1]), (sound, field)):
                block = part[:, number * RATE // 25 : (number + 1) * RATE // 25]
                layout = "mono" if len(part) == 1 else "4.0"
                packed = np.ascontiguousarray(block.T.reshape(1, -1).astype("f8"))
                frame = av.AudioFrame.from_ndarray(packed, "dbl", layout)
                frame.sample_rate = RATE
                frame.pts = number * RATE // 25
                container.mux(stream.encode(frame))
        container.mux([*picture.encode(None), *guide.encode(None), *sound.encode(None)])
    return field


def sound_bytes(path: Path, channels: int) -> np.ndarray:
    """Which bytes of a file are a sound's samples."""
    inside = np.zeros(path.stat().st_size, bool)
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams.audio if s.channels == channels)
        for packet in container.demux(stream):
            if packet.size and packet.pos:
                inside[packet.pos : packet.pos + packet.size] = True
    return inside


@pytest.mark.parametrize(("name", "codec"), CODECS)
def test_only_the_samples_change(tmp_path: Path, name: str, codec: str) -> None:
    path, output = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    with_picture(path, codec)
    add_boxes(
        path, entry=sv3d(), track=v1_uuid("<GSpherical:Spherical>true</GSpherical:Spherical>")
    )
    with open_audio(path) as reader:
        w, y, z, x = reader.read(0, RATE * 2)
    angle, seen = math.radians(35), list[float]()
    turned = YawRotation(ChannelLayout.of(4), angle).channel_mix

    done = write_corrected([path], output, turned, progress=seen.append)

    assert seen == sorted(seen)
    assert (seen[0] <= 0.5, seen[-1]) == (True, 1.0)  # it is copied first
    before, after = (np.frombuffer(p.read_bytes(), np.uint8) for p in (path, output))
    inside = sound_bytes(path, 4)
    assert len(before) == len(after)
    assert (before[~inside] == after[~inside]).all()
    assert (before[inside] != after[inside]).mean() > 0.2
    with open_audio(output) as reader:
        found = reader.read(0, RATE * 2)
    c, s = math.cos(angle), math.sin(angle)
    step = {"8": 2**-7, "16": 2**-15, "24": 2**-23}.get(codec[5:].rstrip("leb"), 1e-7)
    np.testing.assert_allclose(found, [w, c * y + s * x, z, c * x - s * y], atol=0.51 * step)
    assert (found[[0, 2]] == [w, z]).all()
    assert (done.copied, done.new_wav, done.sha256) == (False, False, file_sha256(output))


def test_what_would_clip_is_lowered_in_the_same_place(tmp_path: Path) -> None:
    path, output = tmp_path / "a.mov", tmp_path / "out.mov"
    encode(path, np.tile([[0.5], [0.9], [0.1], [0.9]], RATE), "pcm_s16le", "4.0")

    done = write_corrected(
        [path], output, YawRotation(ChannelLayout.of(4), math.radians(45)).channel_mix
    )

    with open_audio(output) as reader:
        w, y, _, _ = reader.read(0, RATE)
    assert done.trim_db == pytest.approx(-20 * math.log10(0.9 * 2**0.5), abs=0.01)
    assert (float(y.max()), float(w.max())) == pytest.approx((1, 0.5 / 0.9 / 2**0.5), abs=1e-3)


def test_nothing_to_change_is_a_copy(tmp_path: Path) -> None:
    path, output = tmp_path / "a.mov", tmp_path / "out.mov"
    with_picture(path, "pcm_s24le")

    done = write_corrected([path], output, {})

    assert output.read_bytes() == path.read_bytes()
    assert (done.copied, done.new_wav) == (True, False)


@pytest.mark.parametrize(
    ("first", "options"),
    [(-4800, {}), (4800, {"movflags": "frag_keyframe+empty_moov"})],
    ids=["cut", "hole"],
)
def test_sound_that_is_not_all_of_it_is_refused_and_nothing_left(
    tmp_path: Path, first: int, options: dict[str, str]
) -> None:
    """Turned by a curve, what lies behind a hole, or a cut, would have another's angle."""
    path, output = tmp_path / "a.mov", tmp_path / "out.mov"
    with av.open(str(path), "w", options=options) as container:
        picture = container.add_stream("mpeg4", rate=25)
        picture.width, picture.height = 64, 32
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="4.0")
        for number in range(25):
            pixels = np.zeros((32, 64, 3), np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels)))
            packed = np.ascontiguousarray(tones(4)[:, :1920].T.reshape(1, -1).astype("f4"))
            frame = av.AudioFrame.from_ndarray(packed, "flt", "4.0")
            frame.sample_rate, frame.pts = RATE, first + 1920 * number
            container.mux(stream.encode(frame))
        container.mux(picture.encode(None))
        container.mux(stream.encode(None))

    with pytest.raises(MediaError, match=r"has holes or is edited.*-o NAME\.wav"):
        write_corrected([path], output, YawRotation(ChannelLayout.of(4), 1.0).channel_mix)

    assert [p.name for p in tmp_path.iterdir()] == ["a.mov"]


@pytest.mark.parametrize(
    ("name", "codec", "asked", "fits"),
    [
        ("a.mov", "pcm_s24le", "b.mov", True),
        ("a.mov", "pcm_s24le", "b.wav", True),
        ("a.mov", "pcm_s24le", "b.mp4", False),
        ("a.mp4", "aac", "b.mp4", False),
        ("a.m4a", "alac", "b.m4a", False),
        ("a.mkv", "pcm_s24le", "b.mkv", False),
    ],
)
def test_a_name_promises_what_is_written(
    tmp_path: Path, name: str, codec: str, asked: str, fits: bool
) -> None:
    encode(tmp_path / name, tones(4), codec, "4.0")
    with open_audio(tmp_path / name) as reader:
        info = reader.info

    if fits:
        check_suffix(info, tmp_path / asked)
    else:
        with pytest.raises(OptionError, match="should end in"):
            check_suffix(info, tmp_path / asked)
    for given in (Rewriting(joined=True), Rewriting(laid=True), Rewriting(floats=True)):
        if asked != "b.wav":
            with pytest.raises(OptionError, match="should end in"):
                check_suffix(info, tmp_path / asked, given)
