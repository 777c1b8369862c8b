"""Orientations from files, and takes whose microphone turned as a file says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import features
from model.align import Outputs, align
from model.checkpoint import Method, load_calibration
from model.commandline import main
from model.decision import judge_take
from model.errors import MediaError, OptionError
from model.options import Options
from model.orientation import Orientation, read_orientation
from model.scoring import training_free
from model.take import Take, Track
from model.trajectory import following
from model.turning import turned_along
from tests.model.fields import RATE, field_of, turn_deg
from training.data.takes import TakeFiles

CALIBRATION = load_calibration(method=Method.EVIDENCE)
CONSTANT_DEG = -65.0


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["time_s,pitch", "0,1", "1,1"], "no column yaw_deg"),
        (["0,1", "1,1"], "no column time_s"),
        (["time_s,yaw_deg", "0,1"], r"too few rows \(1\)"),
        (["time_s,yaw_deg", "0,1", "2,1", "1.5,3"], "is 2, then 1.5"),
        (["time_s,yaw_deg", "0,1", "2,1", "2,3"], "is 2, then 2"),
        (["time_s,yaw_deg", "0,1", "3600.001,1", "3600,3"], r"is 3600\.001, then 3600\. "),
        (["time_s,yaw_deg", "0,1", "1,left"], "line 3: '1' and 'left'"),
        (["time_s,yaw_deg", "0,1", "1"], "line 3"),
        (["time_s,yaw_deg", "0,1", "1,nan"], "finite"),
        (["time_s,yaw_deg", "0,1e308", "1,-1e308", "2,0"], r"line 2: 0 and 1e\+308 .* within"),
        (["time_s,yaw_deg", "-1e308,0", "1e308,0"], r"line 2: -1e\+308 and 0 .* within"),
        (["time_s,yaw_deg", "0,0", "8,240"], r"between 0 and 8 s: by \+240° or by -120°"),
        (["time_s,yaw_deg", "0,170", "10,-175"], r"by -345° or by \+15°"),
        (["time_s,yaw_deg", "0,0", "8,180"], r"by \+180° or by -180°"),
        (["time_s,yaw_deg", "0,180", "8,0"], r"by -180° or by \+180°"),
        (["time_s,yaw_deg", "0,0", "5,400", "5.1,0"], r"between 5 and 5\.1 s"),
        (["time_s,yaw_deg", "1799.5,0", "1801.002,240"], r"between 1799\.5 and 1801\.002 s"),
        (["time_s;yaw_deg", "0;0", "5;40"], "with commas between its columns"),
    ],
)
def test_what_is_no_orientation_is_told(lines: list[str], told: str, tmp_path: Path) -> None:
    path = written(tmp_path / "o.csv", *lines)

    with pytest.raises(MediaError, match=told) as caught:
        read_orientation(path)

    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "\ufefftime_s,yaw_deg\n0,5\n1,9\n", "time_s,yaw_deg\r\n0,5\r\n1,9\r\n\r\n",
        "time_s, yaw_deg\n0, 5\n1, 9\n", '"yaw_deg","time_s"\n"5","0"\n"9","1"\n',
        "time_s,yaw_deg,\n0,5,\n1,9,\n",
    ],
    ids=["byte order mark", "lines of Windows", "blanks", "quotes", "commas at the end"],
)  # fmt: skip
def test_a_table_is_read_as_programs_and_people_write_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes(text.encode())

    known = read_orientation(path)

    assert (known.times_s.tolist(), known.yaw_deg.tolist()) == ([0, 1], [0, 4])


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    for content in ("time_s,yaw_deg\n0,1\n1,2\n".encode("utf-16"), b"time_s," + b"9" * 200_000):
        path.write_bytes(content)
        with pytest.raises(MediaError, match="is not a CSV file"):
            read_orientation(path)
    path.write_bytes(b"")
    with pytest.raises(MediaError, match="no column time_s"):
        read_orientation(path)


def test_both_ways_to_write_the_back_are_one(tmp_path: Path) -> None:
    rows = (f"{at},{yaw}" for at, yaw in enumerate((179, 180, -180, -179)))

    known = read_orientation(written(tmp_path / "o.csv", "time_s,yaw_deg", *rows))

    assert known.yaw_deg.tolist() == [0, 1, 1, 2]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"no\.csv cannot be read"):
        read_orientation(tmp_path / "no.csv")


@settings(max_examples=30)
@given(
    yaws=st.lists(st.floats(-100, 100), min_size=3, max_size=20), first_s=st.floats(-3, 3),
    turns=st.integers(-2, 2),
)  # fmt: skip
def test_yaw_counts_from_the_pictures_beginning_and_does_not_jump(
    yaws: list[float], first_s: float, turns: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Steps below half a turn, written as angles of any turn."""
    true_deg, times_s = np.cumsum(yaws), first_s + 0.5 * np.arange(len(yaws))
    wrapped = (true_deg + 180) % 360 - 180 + 360 * turns
    path = written(
        tmp_path_factory.mktemp("o") / "o.csv", "frame,yaw_deg,time_s",
        *(f"0,{yaw!r},{t!r}" for yaw, t in zip(wrapped.tolist(), times_s.tolist(), strict=True)),
    )  # fmt: skip

    known = read_orientation(path)

    assert known.at(np.array([0.0]))[0] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(np.diff(known.yaw_deg), np.diff(true_deg), atol=1e-6)


@settings(max_examples=30)
@given(
    speeds=st.lists(st.floats(-179, 179), min_size=2, max_size=10), first_deg=st.floats(-180, 180),
    gap_s=st.floats(0.2, 5),
)  # fmt: skip
def test_continuous_angles_are_what_they_say_or_are_refused(
    speeds: list[float], first_deg: float, gap_s: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Refused only where they would be wrapped angles of another movement."""
    true_deg = first_deg + np.cumsum([0.0, *(gap_s * np.array(speeds))])
    rows = (f"{gap_s * index!r},{yaw!r}" for index, yaw in enumerate(true_deg.tolist()))
    path = written(tmp_path_factory.mktemp("o") / "o.csv", "time_s,yaw_deg", *rows)

    if np.ptp(true_deg) <= 360 and np.abs(np.diff(true_deg)).max() >= 180:
        with pytest.raises(MediaError, match="does not tell which way"):
            read_orientation(path)
    else:
        known = read_orientation(path)
        np.testing.assert_allclose(known.yaw_deg, true_deg - first_deg, atol=1e-6)


def test_a_curve_is_told_with_few_points() -> None:
    times_s = np.arange(0, 20, 0.001)
    orientation = Orientation(Path("o"), times_s, 30 * np.sin(times_s))
    told = following.as_json(following.known(orientation, 20.0), followed=True)

    assert told["kind"] == "moving"
    assert len(told["times_s"]) == 201
    right = 30 * np.sin(told["times_s"])
    np.testing.assert_allclose(told["rotate_field_ccw_deg"], right, atol=0.05)


@pytest.mark.parametrize(("swing", "kind"), [(30.0, "moving"), (0.4, "constant")])
def test_what_swings_back_has_moved(swing: float, kind: str) -> None:
    """And what was before the picture, or is after it, is none of its."""
    times_s = np.linspace(-5, 25, 601)
    orientation = Orientation(Path("o"), times_s, swing * np.sin(times_s * math.tau / 5))

    known = following.known(orientation, 20.0)

    assert known.kind.value == kind
    assert (known.times_s[0], known.times_s[-1]) == (0, 20)
    assert np.diff(known.times_s).min() > 0
    right = swing * np.sin(known.times_s * math.tau / 5)
    np.testing.assert_allclose(known.rotate_field_ccw_deg, right, atol=1e-9)


# --- takes ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swinging(upright: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The example's track from a microphone that swings by 60 degrees, and its orientation."""
    folder = tmp_path_factory.mktemp("swinging")
    field = field_of(upright)
    t = np.arange(field.shape[1]) / RATE
    recorded = turned_along(0.7 * field, np.deg2rad(-CONSTANT_DEG - swing_deg(t)))
    soundfile.write(folder / "track.wav", recorded.T, RATE, subtype="PCM_24")
    times_s = np.arange(0, 11, 0.01)
    yaws = swing_deg(times_s) + 11
    rows = (f"{at:.2f},{yaw:.4f}" for at, yaw in zip(times_s, yaws, strict=True))
    return folder / "track.wav", written(folder / "gyro.csv", "time_s,yaw_deg", *rows)


def swing_deg(t: np.ndarray) -> np.ndarray:
    """0 at the beginning."""
    return np.asarray(60 * np.sin(t * math.tau / 9))


def test_a_field_turned_along_stands_still(
    take: TakeFiles, swinging: tuple[Path, Path], upright: Path
) -> None:
    track, gyro = swinging
    with Take(take.video, Track((track,)), orientation=read_orientation(gyro)) as opened:
        stretch = opened.field(1.0, 4.0)

    right = 0.7 * field_of(upright)[:, RATE : 5 * RATE]
    still = turned_along(right, np.full(right.shape[1], math.radians(-CONSTANT_DEG)))
    np.testing.assert_allclose(stretch, still, atol=2e-5)


def test_a_late_track_is_turned_by_the_pictures_time(
    take: TakeFiles, swinging: tuple[Path, Path], tmp_path: Path
) -> None:
    """Cut, and placed by hand: the same stretch of the picture has the same field."""
    track, gyro = swinging
    soundfile.write(tmp_path / "late.wav", field_of(track)[:, 2 * RATE :].T, RATE, "PCM_24")
    known, fields = read_orientation(gyro), []
    for path, offset_s in ((track, 0.0), (tmp_path / "late.wav", 2.0)):
        with Take(take.video, Track((path,), offset_s=offset_s), orientation=known) as opened:
            fields.append(opened.field(3.0, 2.5))

    np.testing.assert_allclose(fields[0], fields[1], atol=1e-5)


@pytest.mark.parametrize("first_s", [-20.0, 6.5, 1_700_000_000.0])
def test_an_orientation_of_another_time_turns_nothing_and_is_refused(
    take: TakeFiles, tmp_path: Path, first_s: float
) -> None:
    """As of a gyro that counts from its own start, or since 1970."""
    rows = (f"{first_s + at},{9 * at}" for at in range(10))
    known = read_orientation(written(tmp_path / "gyro.csv", "time_s,yaw_deg", *rows))

    with pytest.raises(MediaError, match=rf"gyro\.csv tells of {first_s:.12g} to "):
        Take(take.video, Track((take.audio,)), orientation=known)


@pytest.mark.parametrize("asked_deg", [None, -60.0])
def test_the_output_follows_the_orientation(
    take: TakeFiles, swinging: tuple[Path, Path], upright: Path, tmp_path: Path,
    asked_deg: float | None,
) -> None:  # fmt: skip
    """From the constant that was found, or that is asked for."""
    track, gyro = swinging

    report = align(
        take.video, Track((track,)), Outputs(tmp_path / "out.wav", plot=tmp_path / "out.png"),
        Options(orientation=gyro, apply_deg=asked_deg),
    )  # fmt: skip

    assert report["verdict"] == "misaligned"
    assert report["rotate_field_ccw_deg"] == pytest.approx(CONSTANT_DEG, abs=10)
    first_deg = report["rotate_field_ccw_deg"] if asked_deg is None else asked_deg
    assert report["output"]["applied_deg"] == first_deg
    assert report["trajectory"]["kind"] == "moving"
    assert report["trajectory"]["followed"]
    assert not any("--follow" in warning for warning in report["warnings"])
    assert len(report["trajectory"]["times_s"]) <= 201
    told_deg = np.array(report["trajectory"]["rotate_field_ccw_deg"])
    assert told_deg[0] == first_deg
    # What the trajectory says, done to the track by hand, is the output.
    source = field_of(track)
    now_deg = np.interp(
        np.arange(source.shape[1]) / RATE, report["trajectory"]["times_s"], told_deg
    )
    np.testing.assert_allclose(
        turned_along(source, np.deg2rad(now_deg)), field_of(tmp_path / "out.wav"), atol=2e-3
    )
    right, out = 0.7 * field_of(upright), field_of(tmp_path / "out.wav")
    off = [
        math.remainder(turn_deg(right[:, part], out[:, part]), 360)
        for part in (slice(s * RATE, (s + 2) * RATE) for s in range(0, 6, 2))
    ]
    assert np.ptp(off) < 0.5  # it stands still ...
    # ... where the constant rotation puts it.
    assert off[0] == pytest.approx(first_deg - CONSTANT_DEG, abs=0.3)


def test_the_picture_shows_the_sound_as_it_is_at_its_moment(
    take: TakeFiles, swinging: tuple[Path, Path], upright: Path, tmp_path: Path
) -> None:
    """Not as it is judged: turned along, with what `picture.draw` turns it by once more."""
    soundfile.write(tmp_path / "still.wav", 0.7 * field_of(upright).T, RATE, subtype="FLOAT")
    shown = []
    for path, known in ((tmp_path / "still.wav", None), (swinging[0], swinging[1])):
        orientation = read_orientation(known) if known else None
        with Take(take.video, Track((path,)), orientation=orientation) as opened:
            shown.append(
                judge_take(
                    opened, CALIBRATION, n_windows=1, tolerance_deg=10, scorers=(training_free,)
                )[2]
            )

    still, turned = (features.intensity(s.covariance).sum((0, 1))[:2] for s in shown)
    by_deg = math.degrees(torch.atan2(turned[1], turned[0]) - torch.atan2(still[1], still[0]))
    at_s = shown[0].at_s
    assert abs(swing_deg(np.array(at_s))) > 30
    expected_deg = -CONSTANT_DEG - swing_deg(np.array(at_s))
    assert math.remainder(by_deg - expected_deg, 360) == pytest.approx(0, abs=1)


def test_what_is_undecidable_is_not_turned_along_and_says_so(
    take: TakeFiles, swinging: tuple[Path, Path], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, (4 * RATE, 4))
    soundfile.write(tmp_path / "noise.wav", noise, RATE, subtype="PCM_24")

    report = align(
        take.video, Track((tmp_path / "noise.wav",)), Outputs(tmp_path / "out.wav"),
        Options(orientation=swinging[1]),
    )  # fmt: skip

    assert report["output"]["untouched_copy"]
    assert any("not turned along gyro.csv" in note for note in report["warnings"])


def test_a_microphone_that_stood_still_is_no_reason_to_say_so(
    take: TakeFiles, upright: Path, tmp_path: Path
) -> None:
    still = written(tmp_path / "gyro.csv", "time_s,yaw_deg", "0,5", "10,5")

    report = align(take.video, Track((upright,)), Outputs(), Options(orientation=still))

    assert report["verdict"] == "aligned"
    assert not any("not turned along" in note for note in report["warnings"])


def test_what_changes_is_known_or_looked_for_not_both(swinging: tuple[Path, Path]) -> None:
    for follow in (True, False):
        with pytest.raises(OptionError, match="leave --over-time"):
            Options(orientation=swinging[1], follow=follow, over_time=not follow)


def test_an_orientation_is_not_compared_with_a_reference(
    swinging: tuple[Path, Path], upright: Path
) -> None:
    with pytest.raises(OptionError, match="leave --reference"):
        Options(orientation=swinging[1], reference=upright)


def test_the_command_line_names_a_bad_file(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = written(tmp_path / "bad.csv", "time_s,yaw", "0,0")
    command = [str(take.video), str(take.audio), "-o", str(tmp_path / "out.wav")]

    assert main([*command, "--orientation", str(bad)]) == 2
    assert "no column yaw_deg" in capsys.readouterr().err
    assert not (tmp_path / "out.wav").exists()
