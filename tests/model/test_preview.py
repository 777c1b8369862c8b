"""A preview shows, and lets hear, the sound where the output has it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from model.ambisonics import encode
from model.errors import OptionError
from model.media.encode import write_film, write_video
from model.orientation import Orientation
from model.picture import FRAME_SIZE
from model.preview import _TITLE_HEIGHT, check_replaced, write_preview
from model.take import Take, Track
from model.turning import turned_along
from tests.model.media.boxes import add_boxes, sv3d

RATE = 24_000
SOURCE_DEG, SEEN_DEG, POSE_DEG = -70.0, 60.0, 20.0
RIGHT_DEG = SEEN_DEG + POSE_DEG - SOURCE_DEG  # where the picture is played is where it is seen
SWING_DEG_S = 15.0
FAINT_S = 3.0


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s of a white square at SEEN_DEG in the frame, which players turn by POSE_DEG."""
    path = tmp_path_factory.mktemp("preview") / "take.mp4"
    frame = np.zeros((128, 256, 3), np.uint8)
    column = round((180 - SEEN_DEG) / 360 * 256)
    frame[58:70, column - 6 : column + 6] = 255
    write_video(path, 100 * [frame], rate_hz=25)
    add_boxes(path, entry=sv3d(yaw_deg=POSE_DEG))
    return path


def recorded(path: Path, swing_deg_s: float) -> Path:
    """Noise from SOURCE_DEG, faint from FAINT_S on, by a microphone that turns to the left."""
    n = 4 * RATE
    noise = 0.1 * np.random.default_rng(0).standard_normal(n)
    noise[round(FAINT_S * RATE) :] *= 0.01  # -40 dB
    field = encode(noise, math.radians(SOURCE_DEG), 0.0, 1)
    swung = turned_along(field, np.deg2rad(-swing_deg_s * np.arange(n) / RATE))
    soundfile.write(path, swung.T, RATE, subtype="FLOAT")
    return path


def told(degrees: float, **more: Any) -> dict[str, Any]:
    return {"verdict": "misaligned", "rotate_field_ccw_deg": degrees, "output": None, **more}


def watched(path: Path) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32]]:
    """Frames, and sound [shape=(2, N)]."""
    with av.open(str(path)) as film:
        frames = [np.asarray(f.to_ndarray(format="rgb24"), np.uint8) for f in film.decode(video=0)]
    with av.open(str(path)) as film:
        sound = np.concatenate([part.to_ndarray() for part in film.decode(audio=0)], axis=1)
    return frames, np.asarray(sound, np.float32)


def panels(frame: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Of both panoramas how yellow each column is, and how white, [shape=(2, W)]."""
    height = FRAME_SIZE[0] + _TITLE_HEIGHT
    found = []
    for top in (_TITLE_HEIGHT, height + _TITLE_HEIGHT):
        red, _, blue = np.moveaxis(frame[top : top + FRAME_SIZE[0]].astype(float), -1, 0)
        found.append(np.stack([(red - blue).clip(20).sum(0) - 20 * len(red), blue.sum(0)]))
    return found


def azimuth_deg(columns: NDArray[np.float64]) -> float:
    angles = np.pi * (1 - 2 * (np.arange(len(columns)) + 0.5) / len(columns))
    return math.degrees(np.angle(np.sum(columns * np.exp(1j * angles))))


def known_turns(swing_deg_s: float) -> tuple[Orientation | None, dict[str, Any]]:
    """How the microphone turns, and the report of the right rotation along it."""
    if not swing_deg_s:
        return None, told(RIGHT_DEG)
    ends = np.array([0.0, 4.0])
    curve = (RIGHT_DEG + swing_deg_s * ends).tolist()
    along = {"followed": True, "times_s": ends.tolist(), "rotate_field_ccw_deg": curve}
    known = Orientation(Path("gyro.csv"), ends, swing_deg_s * ends)
    return known, told(RIGHT_DEG, trajectory=along)


@pytest.mark.parametrize("swing_deg_s", [0.0, SWING_DEG_S])
def test_the_sound_is_drawn_where_the_output_has_it(
    video: Path, tmp_path: Path, swing_deg_s: float
) -> None:
    """With the right rotation on what is seen, and before it where the track has it."""
    track = recorded(tmp_path / "t.wav", swing_deg_s)
    known, report = known_turns(swing_deg_s)

    with Take(video, Track((track,)), orientation=known) as take:
        write_preview(take, report, (1.0, 2.9), tmp_path / "p.mp4")

    frames, sound = watched(tmp_path / "p.mp4")
    assert len(frames) == pytest.approx(2.9 * 12.5, abs=1)
    assert sound.shape[1] / 48_000 == pytest.approx(2.9, abs=0.1)
    for at_s in (1.2, 2.6):
        before, after = panels(frames[round(12.5 * (at_s - 1.0))])
        as_it_is = SOURCE_DEG - swing_deg_s * at_s
        assert abs(math.remainder(azimuth_deg(before[0]) - as_it_is, 360)) <= 4
        assert abs(math.remainder(azimuth_deg(after[0]) - azimuth_deg(after[1]), 360)) <= 4
        assert azimuth_deg(after[1]) == pytest.approx(SEEN_DEG + POSE_DEG, abs=2)
    assert panels(frames[-5])[1][0].max() < 0.1 * panels(frames[10])[1][0].max()


def test_a_slow_picture_is_shown_for_as_long_as_it_lasts(tmp_path: Path) -> None:
    """A frame a second, each lighter than the one before, beside sound that goes on."""
    levels = [np.full((128, 256, 3), level, np.uint8) for level in (40, 90, 140, 190)]
    write_video(tmp_path / "v.mp4", levels, rate_hz=1)
    track = recorded(tmp_path / "t.wav", 0.0)

    with Take(tmp_path / "v.mp4", Track((track,))) as take:
        write_preview(take, told(0.0), (0.0, 4.0), tmp_path / "p.mp4")

    check_replaced(tmp_path / "p.mp4")
    frames, sound = watched(tmp_path / "p.mp4")
    assert sound.shape[1] / 48_000 == pytest.approx(4, abs=0.1)
    assert len(frames) == 40
    for level, second in zip((40, 90, 140, 190), range(4), strict=True):
        for frame in frames[10 * second : 10 * second + 10]:
            assert np.median(frame[_TITLE_HEIGHT : FRAME_SIZE[0]]) == pytest.approx(level, abs=3)


@pytest.mark.parametrize("swing_deg_s", [0.0, SWING_DEG_S])
def test_it_sounds_from_the_side_where_it_is_seen(
    video: Path, tmp_path: Path, swing_deg_s: float
) -> None:
    """From 80 degrees to the left, by cardioids of the sine of that."""
    track = recorded(tmp_path / "t.wav", swing_deg_s)
    known, report = known_turns(swing_deg_s)

    with Take(video, Track((track,)), orientation=known) as take:
        write_preview(take, report, (1.0, 2.0), tmp_path / "p.mp4")

    left, right = watched(tmp_path / "p.mp4")[1].std(axis=1)
    sine = math.sin(math.radians(SEEN_DEG + POSE_DEG))
    assert right / left == pytest.approx((1 - sine) / (1 + sine), abs=0.02)


def test_a_preview_takes_the_place_of_no_film_of_another(tmp_path: Path) -> None:
    """Though FFmpeg made both; what is empty (`mktemp`) or not there hurts nobody."""
    export, notes, empty = tmp_path / "cut.mp4", tmp_path / "notes.mp4", tmp_path / "empty.mp4"
    frames = 3 * [np.zeros((32, 64, 3), np.uint8)]
    write_film(export, frames, np.zeros((2, 2400)), RATE, rate_hz=25, comment="My cut")
    notes.write_text("of the shoot")
    empty.touch()

    for path in (export, notes):
        with pytest.raises(OptionError, match=rf"{path.name} is there already, and is no preview"):
            check_replaced(path)
    for path in (empty, tmp_path / "none.mp4"):
        check_replaced(path)
