"""Windows of the picture: what is read by seeking equals what is read from the beginning."""

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from model.errors import MediaError, UnsupportedMedia
from model.media import VideoReader
from model.media.container import length_s
from model.media.encode import write_video
from tests.model.media.boxes import add_boxes, st3d, sv3d

SIZE = (32, 64)


def numbered_frames(n: int, height: int = 64, width: int = 128) -> np.ndarray:
    """Frames whose brightness tells their number."""
    frames = np.zeros((n, height, width, 1), np.uint8)
    frames += (20 + 2 * np.arange(n, dtype=np.uint8))[:, None, None, None]
    return frames


def four_quarters(height: int = 64, width: int = 128) -> np.ndarray:
    """A frame with a grey of its own in each quarter: 50 and 100 above 150 and 200."""
    frame = np.empty((height, width, 1), np.uint8)
    half_h, half_w = height // 2, width // 2
    frame[:half_h, :half_w], frame[:half_h, half_w:] = 50, 100
    frame[half_h:, :half_w], frame[half_h:, half_w:] = 150, 200
    return frame


def quarters(frame: np.ndarray) -> list[int]:
    height, width = frame.shape[:2]
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return [round(int(frame[row, column]) / 10) * 10 for row in rows for column in columns]


@pytest.mark.parametrize("start_s", [0.0, 1.2, 3.3, 7.9])
def test_a_window_holds_its_own_frames(tmp_path: Path, start_s: float) -> None:
    write_video(tmp_path / "v.mp4", numbered_frames(100), rate_hz=10, crf=1, keyframe_s=3)

    with VideoReader(tmp_path / "v.mp4") as reader:
        window = reader.read(start_s, 2.0, size=SIZE)

    expected = np.arange(round(start_s * 10), min(100, round(start_s * 10) + 20))
    np.testing.assert_allclose(window.times_s, expected / 10, atol=1e-6)
    np.testing.assert_allclose(window.frames.mean(axis=(1, 2)), 20 + 2 * expected, atol=2)


@pytest.mark.parametrize("keyframe_s", [1, 3, 7])
def test_transport_streams_give_what_the_same_video_gives_elsewhere(
    tmp_path: Path, keyframe_s: int
) -> None:
    """They have no index, so that seeking leads to the keyframe after the time asked for."""
    write_video(tmp_path / "v.mp4", numbered_frames(100), rate_hz=10, keyframe_s=keyframe_s)
    with av.open(str(tmp_path / "v.mp4")) as source, av.open(str(tmp_path / "v.ts"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and packet.pts is not None:
                packet.stream = stream
                target.mux(packet)

    with VideoReader(tmp_path / "v.mp4") as one, VideoReader(tmp_path / "v.ts") as other:
        for start_s in (0.0, 1.2, 3.0, 6.9, 9.5):
            here, there = (reader.read(start_s, 0.95, size=SIZE) for reader in (one, other))
            np.testing.assert_allclose(there.times_s, here.times_s, atol=1e-3)
            assert np.array_equal(there.frames, here.frames)


@pytest.mark.parametrize("tagged", [True, False])
def test_a_matroska_picture_is_as_long_as_itself(tmp_path: Path, tagged: bool) -> None:
    """And not as the file, whose sound begins before it; nor, if a tag tells, as that goes on."""
    write_video(tmp_path / "v.mp4", numbered_frames(20), rate_hz=10)
    sound_s = 5 if tagged else 3.5
    with (
        av.open(str(tmp_path / "v.mp4")) as source,
        av.open(str(tmp_path / "v.mkv"), "w") as target,
    ):
        picture = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, round(sound_s * 8000)), "i2"), "s16", "mono"
        )
        frame.sample_rate = 8000
        target.mux(sound.encode(frame))
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and packet.pts is not None:
                packet.pts += round(1.5 / packet.time_base)
                packet.dts += round(1.5 / packet.time_base)
                packet.stream = picture
                target.mux(packet)
    if not tagged:
        data = (tmp_path / "v.mkv").read_bytes()
        (tmp_path / "v.mkv").write_bytes(data.replace(b"DURATION", b"_URATION"))

    with VideoReader(tmp_path / "v.mkv") as reader:
        assert reader.info.start_s == pytest.approx(1.5, abs=2e-3)
        assert reader.info.duration_s == pytest.approx(2.0, abs=2e-3)


def test_a_tag_of_duration_counts_hours_and_minutes() -> None:
    stream: Any = SimpleNamespace(
        duration=None, time_base=Fraction(1, 1000), start_time=500,
        metadata={"DURATION": "01:02:03.500000000"},
    )  # fmt: skip
    container: Any = SimpleNamespace(duration=5000 * 10**6)

    assert length_s(container, stream) == pytest.approx(3723.5 - 0.5)
    stream.metadata["_STATISTICS_WRITING_APP"] = "mkvmerge"
    assert length_s(container, stream) == pytest.approx(3723.5)


def test_windows_may_be_read_in_any_order(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", numbered_frames(60), rate_hz=10, keyframe_s=1)
    with VideoReader(tmp_path / "v.mp4") as reader:
        late, early, again = (reader.read(at, 1.0, size=SIZE) for at in (4.0, 0.0, 4.0))

    assert np.array_equal(late.frames, again.frames)
    assert early.times_s[0] == 0


def test_a_window_past_the_end_is_empty(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", numbered_frames(20), rate_hz=10)
    with VideoReader(tmp_path / "v.mp4") as reader:
        assert reader.read(50.0, 2.0, size=SIZE).frames.shape == (0, *SIZE)


def test_fast_pictures_are_thinned_by_a_whole_factor(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", numbered_frames(100), rate_hz=50)
    with VideoReader(tmp_path / "v.mp4") as reader:
        window = reader.read(0.0, 2.0, size=SIZE, max_rate_hz=16)

    np.testing.assert_allclose(np.diff(window.times_s), 4 / 50, atol=1e-6)


def test_keyframes_are_told_even_where_thinned_out(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", numbered_frames(100), rate_hz=50, keyframe_s=0.5)
    with av.open(str(tmp_path / "v.mp4")) as container:
        keyframes = [f.time for f in container.decode(container.streams.video[0]) if f.key_frame]

    with VideoReader(tmp_path / "v.mp4") as reader:
        window = reader.read(0.0, 2.0, size=SIZE, max_rate_hz=16)

    after = np.searchsorted(window.times_s, np.array(keyframes) - 1e-9)
    expected = [index for index in after.tolist() if index < len(window.times_s)]
    assert len(expected) >= 4
    assert np.flatnonzero(window.refreshed).tolist() == expected


def test_stereo_pictures_give_one_eye(tmp_path: Path) -> None:
    frame = four_quarters(128, 128)
    write_video(tmp_path / "tb.mp4", [frame] * 3, rate_hz=10, crf=1)
    write_video(tmp_path / "lr.mp4", [four_quarters(64, 256)] * 3, rate_hz=10, crf=1)

    with VideoReader(tmp_path / "tb.mp4") as reader:
        assert reader.info.stereo == "top-bottom"  # told by the frame's shape
        assert quarters(reader.read(0, 1, size=SIZE).frames[0]) == [50, 100, 50, 100]
    with VideoReader(tmp_path / "lr.mp4") as reader:
        assert reader.info.stereo == "left-right"
        assert quarters(reader.read(0, 1, size=SIZE).frames[0]) == [50, 50, 150, 150]


def test_declared_stereo_wins_over_the_frames_shape(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, [four_quarters()] * 3, rate_hz=10, crf=1)
    add_boxes(path, entry=st3d(1) + sv3d())

    with VideoReader(path) as reader:
        assert quarters(reader.read(0, 1, size=SIZE).frames[0]) == [50, 100, 50, 100]
    with VideoReader(path, stereo="mono") as reader:  # what the user says wins over all
        assert quarters(reader.read(0, 1, size=SIZE).frames[0]) == [50, 100, 150, 200]


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(0, [50, 100, 150, 200]), (180, [200, 150, 100, 50])],
)
def test_rotation_metadata_is_honoured(tmp_path: Path, degrees: int, expected: list[int]) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.set_display_rotation(degrees)
        picture = av.VideoFrame.from_ndarray(four_quarters()[..., 0], "gray")
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))

    with VideoReader(tmp_path / "v.mp4") as reader:
        assert quarters(reader.read(0, 1, size=SIZE).frames[0]) == expected


def test_a_quarter_turn_is_undone(tmp_path: Path) -> None:
    """A frame stored lying on its side, with the metadata to set it up, is upright when read."""
    upright = four_quarters()[..., 0]
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 128, "yuv420p"
        stream.set_display_rotation(90)
        lying = np.ascontiguousarray(np.rot90(upright, -1))
        container.mux(stream.encode(av.VideoFrame.from_ndarray(lying, "gray")))
        container.mux(stream.encode(None))

    with VideoReader(tmp_path / "v.mp4", stereo="mono") as reader:
        assert quarters(reader.read(0, 1, size=SIZE).frames[0]) == quarters(upright)


def test_a_sphere_set_on_its_side_is_refused(tmp_path: Path) -> None:
    """As by a phone that was held upright."""
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.set_display_rotation(90)
        picture = av.VideoFrame.from_ndarray(four_quarters()[..., 0], "gray")
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))

    with (
        VideoReader(tmp_path / "v.mp4") as reader,
        pytest.raises(UnsupportedMedia, match=r"128x64 is shown turned by 90°, .*_rotation 0"),
    ):
        reader.read(0, 1, size=SIZE)


def test_a_squeezed_sphere_is_accepted(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [four_quarters(360, 640)] * 3, rate_hz=10, crf=1)
    with VideoReader(tmp_path / "v.mp4") as reader:
        assert reader.info.stereo == "mono"
        assert quarters(reader.read(0, 1, size=SIZE).frames[0]) == [50, 100, 150, 200]


def test_a_colour_frame(tmp_path: Path) -> None:
    frame = np.zeros((64, 128, 3), np.uint8)
    frame[:, :64] = (250, 0, 0)
    write_video(tmp_path / "v.mp4", [frame] * 10, rate_hz=10, crf=1)
    with VideoReader(tmp_path / "v.mp4") as reader:
        picture = reader.read_frame(0.5, size=SIZE)

    assert picture.shape == (*SIZE, 3)
    assert picture[16, 16, 0] > 200 > 50 > picture[16, 16, 1]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_within_a_gap_the_frame_before_it_is_shown(tmp_path: Path, suffix: str) -> None:
    """Of a picture that came as fast as it could, and for three seconds not at all."""
    times_s = [*np.arange(10) / 10, *(4 + np.arange(10) / 10)]
    with av.open(str(tmp_path / f"v.{suffix}"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time_s, grey in zip(times_s, numbered_frames(20), strict=True):
            frame = av.VideoFrame.from_ndarray(grey[..., 0], "gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    with VideoReader(tmp_path / f"v.{suffix}") as reader:
        levels = reader.read(0, 9, size=SIZE, colour=True).frames.mean(axis=(1, 2, 3))
        assert len(set(levels)) == 20
        for at_s, number in ((0.0, 0), (0.5, 5), (0.9, 9), (2.5, 9), (3.7, 9), (4.0, 10), (9, 19)):
            assert reader.read_frame(at_s, size=SIZE).mean() == levels[number], at_s


@pytest.mark.parametrize(("width", "height"), [(128, 96), (96, 160), (400, 64)])
def test_frames_that_are_no_sphere(tmp_path: Path, width: int, height: int) -> None:
    write_video(tmp_path / "v.mp4", [four_quarters(height, width)] * 3, rate_hz=10)
    with pytest.raises(UnsupportedMedia, match=f"{width}x{height}"):
        VideoReader(tmp_path / "v.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_preview_is_not_the_picture(tmp_path: Path, suffix: str) -> None:
    """Cameras store it as a video of its own, and perhaps first; nor does it speak for another."""
    preview, picture = tmp_path / "preview.mp4", tmp_path / "picture.mp4"
    write_video(preview, np.zeros((1, 36, 64, 1), np.uint8), rate_hz=10)
    write_video(picture, numbered_frames(20), rate_hz=10, crf=1)
    path = tmp_path / f"take{suffix}"
    with ExitStack() as stack:
        sources = [stack.enter_context(av.open(str(part))) for part in (preview, picture)]
        target = stack.enter_context(av.open(str(path), "w"))
        streams = [target.add_stream_from_template(s.streams.video[0]) for s in sources]
        for source, stream in zip(sources, streams, strict=True):
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    if suffix == ".mp4":
        add_boxes(path, entry=sv3d(b"mshp"))  # into the first: were it heeded, it would be refused

    with VideoReader(path) as reader:
        window = reader.read(0, 2, size=SIZE)

    np.testing.assert_allclose(window.frames.mean(axis=(1, 2)), 20 + 2 * np.arange(20), atol=2)


def with_two_pictures(path: Path, sizes: list[tuple[int, int]]) -> Path:
    with av.open(str(path), "w", format="mp4") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in sizes]
        for stream, (height, width) in zip(streams, sizes, strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for stream, size in zip(streams, sizes, strict=True):
            picture = av.VideoFrame.from_ndarray(np.zeros(size, np.uint8), "gray")
            container.mux([*stream.encode(picture), *stream.encode(None)])
    return path


@pytest.mark.parametrize("name", ["one.insv", "VID.INSV", "GS010001.360"])
def test_a_cameras_own_picture_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    """Two lenses side by side have the shape of a sphere."""
    write_video(tmp_path / "v.mp4", [four_quarters()] * 3, rate_hz=10)

    with pytest.raises(UnsupportedMedia, match="not stitched"):
        VideoReader((tmp_path / "v.mp4").rename(tmp_path / name))


def test_pictures_of_two_lenses_are_no_sphere(tmp_path: Path) -> None:
    """Each is square, as is a sphere for each of two eyes."""
    lenses = with_two_pictures(tmp_path / "lenses.mp4", [(64, 64), (64, 64)])
    preview = with_two_pictures(tmp_path / "preview.mp4", [(64, 128), (32, 64)])

    with pytest.raises(UnsupportedMedia, match="2 pictures of 64x64, not stitched"):
        VideoReader(lenses)
    with VideoReader(preview) as reader:
        assert (reader.info.width, reader.info.height) == (128, 64)

    add_boxes(lenses, entry=sv3d())  # of the first: who says so has stitched it

    with VideoReader(lenses) as reader:
        assert reader.info.spherical.projection == "equirectangular"


def test_no_picture(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="stereo")
        container.mux(stream.encode(None))
    for path in (tmp_path / "a.mp4", tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(MediaError, match=str(path)):
            VideoReader(path)


def test_a_truncated_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, numbered_frames(40), rate_hz=10)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(MediaError, match=r"v\.mp4"):
        VideoReader(path)


@pytest.mark.parametrize(("width", "height"), [(128, 96), (96, 160), (400, 64), (128, 128)])
def test_ordinary_videos_of_any_shape(tmp_path: Path, width: int, height: int) -> None:
    write_video(tmp_path / "v.mp4", [four_quarters(height, width)] * 3, rate_hz=10, crf=1)
    with VideoReader(tmp_path / "v.mp4", flat=True) as reader:
        assert reader.displayed_aspect() == pytest.approx(width / height)
        assert quarters(reader.read(0, 1, size=(height, width)).frames[0]) == [50, 100, 150, 200]


@pytest.mark.parametrize(
    ("degrees", "ratio", "expected"), [(0, 1, 0.75), (90, 1, 4 / 3), (0, 2, 1.5)]
)
def test_ordinary_videos_as_players_show_them(
    tmp_path: Path, degrees: int, ratio: int, expected: float
) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 128, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(ratio)
        stream.set_display_rotation(degrees)
        picture = av.VideoFrame.from_ndarray(four_quarters(128, 96)[..., 0], "gray")
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))

    with VideoReader(tmp_path / "v.mp4", flat=True) as reader:
        assert reader.displayed_aspect() == pytest.approx(expected)


def test_a_sphere_is_no_ordinary_video(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, [four_quarters()] * 3, rate_hz=10)
    add_boxes(path, entry=sv3d())

    with pytest.raises(UnsupportedMedia, match="360 picture"):
        VideoReader(path, flat=True)
