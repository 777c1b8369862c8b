"""Ordinary videos: what can be used, and excerpts in which sound and picture stay together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.errors import InputError, MediaError, UnsupportedMedia, UnusableContent
from model.features import SAMPLERATE
from model.media.encode import write_video
from tests.model.media.boxes import add_boxes, sv3d
from tests.training.clips import pulses, write_clip
from training.data.ordinary import Clip, examine_clip, list_videos, read_picture, read_sound


@pytest.mark.parametrize("name", ["c.mp4", "c.mov", "c.mkv"])
@pytest.mark.parametrize("start_s", [0.0, 0.75])
def test_an_excerpts_picture_and_sound_keep_together(
    tmp_path: Path, name: str, start_s: float
) -> None:
    write_clip(tmp_path / name, phase_s=0.2)
    clip = examine_clip(tmp_path / name, 2.0)
    assert clip.aspect == pytest.approx(1.5)

    times = np.arange(24) / 12
    frames = read_picture(clip, start_s, times, (16, 24))
    sound = read_sound(clip, start_s, 2.0)

    assert frames.shape == (24, 16, 24)
    assert sound.shape == (2 * SAMPLERATE,)
    assert np.mean(sound**2) == pytest.approx(1, rel=0.01)
    lit = frames[:, 8, 12] > 140
    loud = np.sqrt((sound.reshape(-1, SAMPLERATE // 100) ** 2).mean(axis=1)) > 0.7
    expected = pulses(4.0, 1.5, 100, phase_s=0.2)[round(100 * start_s) :][:200] > 0
    assert np.mean(loud == expected) > 0.96  # the coder smears a little
    seen = np.round(100 * (times + start_s)).astype(int)
    clear = np.abs(np.mod((times + start_s - 0.2) * 3 + 0.5, 1) - 0.5) > 0.1  # not at a change
    assert np.array_equal(lit[clear], (pulses(4.0, 1.5, 100, phase_s=0.2)[seen] > 0)[clear])


@pytest.mark.parametrize("name", ["c.mp4", "c.mkv"])
def test_sound_that_begins_after_the_picture_stays_with_it(tmp_path: Path, name: str) -> None:
    write_clip(tmp_path / name, phase_s=0.1, sound_begins_s=0.9)

    clip = examine_clip(tmp_path / name, 1.0)

    assert clip.sound_begins_s == pytest.approx(0.9, abs=0.03)
    assert clip.starts_s[0] == pytest.approx(0.9, abs=0.03)
    assert clip.starts_s[-1] <= 2.0 + 1e-6
    for start_s in (0.5, 1.2):  # before there is any, and after
        sound = read_sound(clip, start_s, 1.0)
        loud = np.sqrt((sound.reshape(-1, SAMPLERATE // 100) ** 2).mean(axis=1)) > 0.7
        expected = pulses(3.0, 1.5, 100, phase_s=0.1) > 0
        expected[:90] = False
        assert np.mean(loud == expected[round(100 * start_s) :][:100]) > 0.94


def test_the_sound_of_an_avi_is_found(tmp_path: Path) -> None:
    """AVI is a RIFF file as WAV is, and is none."""
    write_clip(tmp_path / "c.avi", codec="pcm_s16le")

    clip = examine_clip(tmp_path / "c.avi", 2.0)

    assert clip.starts_s
    assert np.mean(read_sound(clip, clip.starts_s[0], 2.0) ** 2) == pytest.approx(1, rel=0.01)


def test_excerpts_begin_where_they_are_whole_and_can_be_heard(tmp_path: Path) -> None:
    # Two seconds of sound in four.
    write_clip(tmp_path / "c.mp4", duration_s=8.0, per_s=1 / 4, phase_s=0.0, loudness=0.3)
    write_clip(tmp_path / "d.mp4", duration_s=8.0, per_s=1 / 16)

    starts = examine_clip(tmp_path / "d.mp4", 3.0).starts_s

    assert starts[0] == pytest.approx(0, abs=0.03)
    assert starts[-1] == pytest.approx(5.0, abs=0.26)
    # Of those of a second: where more than a quarter of it lies in the pulse, or in the next.
    expected = [0.25 * i for i in range(29) if any(on - 0.6 < 0.25 * i < on + 1.6 for on in (0, 4))]
    found = examine_clip(tmp_path / "c.mp4", 1.0).starts_s
    assert found == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"loudness": 0.0}, UnusableContent, "silent"),
        ({"loudness": 5e-5}, UnusableContent, "silent"),
        ({"duration_s": 1.0}, UnusableContent, "1.0 s"),
    ],
)
def test_clips_that_cannot_be_used(
    tmp_path: Path, options: dict[str, float], error: type[InputError], words: str
) -> None:
    write_clip(tmp_path / "c.mp4", **options)  # type: ignore[arg-type]

    with pytest.raises(error, match=words):
        examine_clip(tmp_path / "c.mp4", 2.0)


def test_a_video_without_sound_and_a_360_one(tmp_path: Path) -> None:
    write_video(tmp_path / "mute.mp4", np.zeros((30, 64, 96, 1), np.uint8), rate_hz=10)
    write_clip(tmp_path / "sphere.mp4")
    add_boxes(tmp_path / "sphere.mp4", entry=sv3d())

    with pytest.raises(MediaError, match="no sound"):
        examine_clip(tmp_path / "mute.mp4", 2.0)
    with pytest.raises(UnsupportedMedia, match="360"):
        examine_clip(tmp_path / "sphere.mp4", 2.0)


def test_an_excerpt_past_the_end(tmp_path: Path) -> None:
    write_clip(tmp_path / "c.mp4")
    clip = Clip(tmp_path / "c.mp4", 1.5, 0.0, (2.0,))

    with pytest.raises(MediaError, match=r"c\.mp4 breaks off"):
        read_picture(clip, 2.0, np.arange(20) / 10, (16, 24))
    with pytest.raises(MediaError, match=r"c\.mp4 breaks off"):
        read_sound(clip, 2.0, 2.0)


def test_the_videos_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    for name in ("b.MP4", "a.mov", "notes.txt", "day/c.mkv"):
        (tmp_path / name).touch()

    names = [str(path.relative_to(tmp_path)) for path in list_videos(tmp_path)]

    assert names == ["a.mov", "b.MP4", "day/c.mkv"]
    (tmp_path / "none").mkdir()
    with pytest.raises(MediaError, match="none holds no videos"):
        list_videos(tmp_path / "none")
