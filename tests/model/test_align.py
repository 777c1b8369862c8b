"""The whole job on real files whose answer is known."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model import features
from model.align import Outputs, align, correct
from model.ambisonics import (
    ChannelLayout,
    Convention,
    Fix,
    YawRotation,
    encode,
    rotate_yaw,
)
from model.decision import judge_take
from model.errors import (
    Cancelled,
    DiskFull,
    MediaError,
    OptionError,
    UnsupportedMedia,
    UnusableContent,
)
from model.handedness import Handedness, Hypothesis
from model.media import open_audio
from model.media.encode import write_video, write_youtube_audio
from model.options import Options
from model.orientation import Orientation
from model.selection import best_apart, candidates
from model.take import Take, Track
from tests.conftest import EXAMPLE, TAKE_SEED
from tests.model.media.boxes import add_boxes, chunk, insert_chunks, sv3d
from tests.model.media.test_audio import encode as encode_sound
from tests.model.media.test_audio import several_tracks
from tests.model.media.test_declared import sa3d
from tests.model.test_scoring import CALIBRATION
from training.data.scenes import Conditions, draw_scene, render_sound
from training.data.takes import TakeFiles, write_take

Report = dict[str, Any]


def run(video: Path, *audio: Path, track: Track | None = None, **outputs: Path) -> Report:
    return align(video, track or Track(audio), Outputs(**outputs))


def error_deg(report: Report, right_deg: float) -> float:
    return abs(math.remainder(report["rotate_field_ccw_deg"] - right_deg, 360))


def samples_of(path: Path) -> np.ndarray:
    with open_audio(path) as reader:
        return np.concatenate(list(reader.blocks(1 << 16)), axis=1)


def field_of(take: TakeFiles) -> np.ndarray:
    return samples_of(take.audio)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aligned")


@pytest.fixture(scope="module")
def report(take: TakeFiles, folder: Path) -> Report:
    """The example take, aligned with everything written."""
    return run(
        take.video, take.audio,
        audio=folder / "out.wav", report=folder / "out.json", plot=folder / "out.png",
    )  # fmt: skip


def test_the_rotation_is_found(take: TakeFiles, report: Report) -> None:
    low, high = report["interval_deg"]

    assert report["verdict"] == "misaligned"
    assert error_deg(report, -take.rotated_deg) <= 10
    assert (-take.rotated_deg - low) % 360 <= (high - low) % 360
    assert report["confidence"] > 0.5
    assert report["reasons"] == []


def test_the_output_is_the_track_turned_by_it(
    take: TakeFiles, report: Report, folder: Path
) -> None:
    applied = report["output"]["applied_deg"]
    expected = YawRotation(ChannelLayout.of(4), math.radians(applied))(field_of(take))

    assert applied == report["rotate_field_ccw_deg"]
    # The report rounds to a hundredth of a degree.
    np.testing.assert_allclose(samples_of(folder / "out.wav"), expected, atol=2e-4)
    assert b"rotate_field_ccw_deg=" in (folder / "out.wav").read_bytes()
    assert soundfile.info(folder / "out.wav").subtype == "PCM_24"


def test_the_output_is_aligned_and_left_as_it_is(
    take: TakeFiles, report: Report, folder: Path, tmp_path: Path
) -> None:
    again = run(take.video, folder / "out.wav", audio=tmp_path / "again.wav")

    assert again["verdict"] == "aligned"
    assert abs(again["rotate_field_ccw_deg"]) <= 5
    assert again["output"]["untouched_copy"]
    assert (tmp_path / "again.wav").read_bytes() == (folder / "out.wav").read_bytes()


def test_the_report_is_whole(take: TakeFiles, report: Report, folder: Path) -> None:
    written = json.loads((folder / "out.json").read_text())

    assert written == report
    assert report["schema_version"] == 1
    assert len(report["posterior"]["yaw_deg"]) == len(report["posterior"]["p"]) == 72
    assert sum(report["posterior"]["p"]) == pytest.approx(1, abs=1e-3)
    assert sum(window["weight"] for window in report["windows"]) == pytest.approx(1, abs=1e-3)
    assert {"name", "best_deg", "weight"} == set(report["cues"][0])
    assert report["input"]["audio"]["sample_format"] == "24-bit"
    assert report["input"]["video"]["projection"] == "undeclared"
    assert {"scan", "score", "compare", "write"} == set(report["timings_s"])
    for name in ("model", "input", "output"):
        assert "sha256" in json.dumps(report[name])


def test_the_picture_is_a_picture(report: Report, folder: Path) -> None:
    with Image.open(folder / "out.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 600
        assert len(picture.convert("RGB").resize((64, 64)).getcolors(4096) or []) > 50


def test_nothing_else_is_written(report: Report, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"out.wav", "out.json", "out.png"}


def test_a_track_that_fits_nothing_is_undecidable_and_untouched(tmp_path: Path) -> None:
    scene = draw_scene(5, Conditions(duration_s=10.0, silent=True))
    files = write_take(scene, tmp_path, "t", height=256, rate_hz=12.5, colour=False)

    report = run(files.video, files.audio, audio=tmp_path / "out.wav")

    assert report["verdict"] == "undecidable"
    assert report["reasons"]
    assert (tmp_path / "out.wav").read_bytes() == files.audio.read_bytes()


def test_the_best_guess_may_be_applied_all_the_same(tmp_path: Path) -> None:
    scene = draw_scene(5, Conditions(duration_s=10.0, silent=True))
    files = write_take(scene, tmp_path, "t", height=256, rate_hz=12.5, colour=False)

    report = align(
        files.video, Track((files.audio,)), Outputs(tmp_path / "out.wav"),
        Options(apply_undecided=True),
    )  # fmt: skip

    assert report["verdict"] == "undecidable"
    assert report["output"]["applied_deg"] == report["rotate_field_ccw_deg"] != 0


@pytest.mark.parametrize("asked_deg", [-200.0, 0.0])
def test_a_rotation_that_is_asked_for_is_written_whatever_is_found(
    take: TakeFiles, report: Report, tmp_path: Path, asked_deg: float
) -> None:
    output = tmp_path / "out.wav"

    other = align(
        take.video, Track((take.audio,)), Outputs(output), Options(apply_deg=asked_deg)
    )  # fmt: skip

    assert same_answer(report, other)
    assert other["verdict"] == report["verdict"] == "misaligned"
    assert other["output"]["applied_deg"] == (160.0 if asked_deg else 0.0)
    assert any("as --apply-deg says" in note for note in other["warnings"])
    expected = YawRotation(ChannelLayout.of(4), math.radians(asked_deg))(field_of(take))
    np.testing.assert_allclose(samples_of(output), expected, atol=2**-22)
    assert other["output"]["untouched_copy"] == (asked_deg == 0)


# --- formats -------------------------------------------------------------------------------------


def same_answer(report: Report, other: Report) -> bool:
    return error_deg(other, report["rotate_field_ccw_deg"]) <= 1


@pytest.mark.parametrize("convention", [Convention.N3D, Convention.FUMA])
def test_conventions_are_understood_and_kept(
    take: TakeFiles, report: Report, tmp_path: Path, convention: Convention
) -> None:
    layout = ChannelLayout.of(4, convention)
    field = 0.5 * field_of(take)
    soundfile.write(tmp_path / "in.wav", layout.from_sn3d(field).T, 48000, subtype="FLOAT")
    track = Track((tmp_path / "in.wav",), convention)

    other = run(take.video, track=track, audio=tmp_path / "out.wav")

    assert same_answer(report, other)
    rotation = YawRotation(ChannelLayout.of(4), math.radians(other["output"]["applied_deg"]))
    turned = layout.to_sn3d(samples_of(tmp_path / "out.wav"))
    np.testing.assert_allclose(turned, rotation(field), atol=2e-4)


def test_channels_out_of_place_are_told_in_the_report(take: TakeFiles, tmp_path: Path) -> None:
    order = (3, 1, 2, 0)
    soundfile.write(tmp_path / "in.wav", field_of(take)[[*order]].T, 48000, subtype="PCM_24")

    run(take.video, tmp_path / "in.wav", report=tmp_path / "report.json")
    mended = run(take.video, track=Track((tmp_path / "in.wav",), components=order))

    findings = json.loads((tmp_path / "report.json").read_text())["conventions"]["findings"]
    (found,) = [finding for finding in findings if finding["code"] == "w_elsewhere"]
    assert found["fix"] == "--channels 3,1,2,0"
    assert error_deg(mended, -take.rotated_deg) <= 10


def test_amb_is_fuma_without_being_told(take: TakeFiles, report: Report, tmp_path: Path) -> None:
    layout = ChannelLayout.of(4, Convention.FUMA)
    with soundfile.SoundFile(tmp_path / "in.amb", "w", 48000, 4, "PCM_24", format="WAVEX") as file:
        file.write(0.5 * layout.from_sn3d(field_of(take)).T)

    other = run(take.video, tmp_path / "in.amb", audio=tmp_path / "out.amb")

    assert same_answer(report, other)
    assert other["input"]["audio"]["convention"] == "fuma"


def test_mixed_orders_are_refused_by_name(take: TakeFiles, tmp_path: Path) -> None:
    path = tmp_path / "in.amb"
    with soundfile.SoundFile(path, "w", 48000, 6, "PCM_24", format="WAVEX") as file:
        file.write(np.random.default_rng(0).uniform(-0.1, 0.1, (288_000, 6)))

    with pytest.raises(UnsupportedMedia, match="mixed order"):
        run(take.video, path)
    with Take(take.video, Track((path,), Convention.FUMA)) as opened:  # as the sentence says
        assert opened.layout.other_channels == (4, 5)


def test_named_channels(take: TakeFiles, report: Report, tmp_path: Path) -> None:
    w, y, z, x = field_of(take)
    soundfile.write(tmp_path / "in.wav", np.array([x, y, w, 0 * w, z, 0 * w]).T, 48000)
    track = Track((tmp_path / "in.wav",), components=(2, 1, 4, 0))

    assert same_answer(report, run(take.video, track=track))


@pytest.mark.parametrize("samplerate", [44_100, 96_000])
def test_other_sample_rates(
    take: TakeFiles, report: Report, tmp_path: Path, samplerate: int
) -> None:
    from scipy.signal import resample_poly

    divisor = math.gcd(samplerate, 48_000)
    field = resample_poly(field_of(take), samplerate // divisor, 48_000 // divisor, axis=1)
    soundfile.write(tmp_path / "in.flac", 0.5 * field.T, samplerate)

    assert same_answer(report, run(take.video, tmp_path / "in.flac"))


def test_third_order_with_a_head_locked_pair(tmp_path: Path, take: TakeFiles) -> None:
    fitting = render_sound(draw_scene(TAKE_SEED, EXAMPLE), samplerate=48_000, order=3).numpy()
    field = rotate_yaw(fitting, math.radians(take.rotated_deg))
    pair = 0.1 * np.random.default_rng(0).uniform(-1, 1, (2, field.shape[1]))
    soundfile.write(tmp_path / "in.wav", np.concatenate([field, pair]).T, 48000, subtype="PCM_24")
    before = samples_of(tmp_path / "in.wav")

    report = run(take.video, tmp_path / "in.wav", audio=tmp_path / "out.wav")
    after = samples_of(tmp_path / "out.wav")

    assert error_deg(report, -take.rotated_deg) <= 10
    assert report["input"]["audio"]["order"] == 3
    assert report["input"]["audio"]["unrotated_channels"] == [16, 17]
    gain = 10 ** (report["output"]["trim_db"] / 20)
    rotation = YawRotation(ChannelLayout.of(18), math.radians(report["output"]["applied_deg"]))
    np.testing.assert_allclose(after, gain * rotation(before), atol=3e-4)
    if gain == 1:
        assert np.array_equal(after[16:], before[16:])


def test_sound_inside_the_video(take: TakeFiles, report: Report, tmp_path: Path) -> None:
    path = tmp_path / "both.mov"
    mux(take, path)

    other = run(path, path, audio=tmp_path / "out.wav")

    assert same_answer(report, other)
    assert soundfile.info(tmp_path / "out.wav").subtype == "PCM_24"


@pytest.mark.parametrize("name", ["late.mkv", "late.mov"])
def test_sound_inside_the_video_that_begins_later(
    take: TakeFiles, report: Report, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    mux(take, path, late_s=1.5)

    other = run(path, path, audio=tmp_path / "out.wav")

    assert other["input"]["audio"]["offset_s"] == pytest.approx(1.5, abs=2e-3)
    assert any("begins at +1.50" in note for note in other["warnings"])  # which a WAV does not tell
    assert error_deg(other, report["rotate_field_ccw_deg"]) <= 10


def test_sound_that_breaks_off_in_a_container_is_told(take: TakeFiles, tmp_path: Path) -> None:
    """As of a raw copy, whose header says so at once."""
    whole, path = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    encode_sound(whole, 0.5 * field_of(take), "libopus", "quad", mapping_family="255")
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])

    other = align(
        take.video, Track((path,)), Outputs(tmp_path / "out.wav"),
        Options(n_windows=1, apply_deg=30.0),
    )  # fmt: skip

    seen_s = soundfile.info(tmp_path / "out.wav").duration
    words = f"cut.mkv breaks off at {seen_s:.2f} s, though it claims 6.0"
    assert any(words in note for note in other["warnings"])


def test_a_carriers_order_is_undone_in_the_output(
    take: TakeFiles, report: Report, tmp_path: Path
) -> None:
    """L R W Y Z X, as SA3D says; in the new WAV nothing would."""
    w, y, z, x = 0.5 * field_of(take)
    pair = np.stack([0.1 * w, -0.2 * w])
    path = tmp_path / "in.mov"
    encode_sound(path, np.stack([*pair, w, y, z, x]), "pcm_s24le", "6 channels")
    add_boxes(path, entry=sa3d(1, (4, 5, 0, 1, 2, 3), kind=0x80))

    other = run(take.video, track=Track((path,)), audio=tmp_path / "out.wav")

    written, _ = soundfile.read(tmp_path / "out.wav")
    assert error_deg(other, report["rotate_field_ccw_deg"]) <= 0.1
    np.testing.assert_allclose(written.T[[0, 2, 4, 5]], [w, z, *pair], atol=2**-22)
    assert any("order was that of SA3D" in note for note in other["warnings"])
    assert not any("Nothing in the output says" in note for note in other["warnings"])
    with Take(take.video, Track((path,), Convention.N3D)) as opened:  # who knows better is believed
        assert opened.layout.components == (0, 1, 2, 3)
        assert opened.carrier is None


@pytest.mark.parametrize("convention", [None, Convention.AMBIX])
def test_youtubes_carrier_is_unpacked(
    take: TakeFiles, report: Report, tmp_path: Path, convention: Convention | None
) -> None:
    path = tmp_path / "in.m4a"
    write_youtube_audio(path, 0.5 * field_of(take), 48_000)

    other = run(take.video, track=Track((path,), convention), audio=tmp_path / "out.wav")

    assert error_deg(other, report["rotate_field_ccw_deg"]) <= 3
    assert soundfile.info(tmp_path / "out.wav").channels == 4
    assert any("YouTube" in note for note in other["warnings"])


def mux(take: TakeFiles, path: Path, late_s: float = 0.0) -> None:
    """Picture and track in one file; the track's first seconds may be missing."""
    late = round(late_s * 48_000)
    with av.open(str(take.video)) as source, av.open(str(path), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("pcm_s24le", rate=48000, layout="4.0")
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = video
                target.mux(packet)
        field = field_of(take)[:, late:]
        packed = np.ascontiguousarray(field.T.reshape(1, -1) * 2**31).astype(np.int32)
        frame = av.AudioFrame.from_ndarray(packed, "s32", "4.0")
        frame.sample_rate = 48000
        frame.pts = late
        target.mux(sound.encode(frame))
        target.mux(sound.encode(None))


def test_a_split_track(take: TakeFiles, report: Report, tmp_path: Path) -> None:
    field = field_of(take)
    parts = [tmp_path / f"{name}.wav" for name in "WYZX"]
    for part, channel in zip(parts, field, strict=True):
        soundfile.write(part, channel, 48000, subtype="PCM_24")

    other = run(take.video, *parts, audio=tmp_path / "out.wav")

    assert same_answer(report, other)
    assert soundfile.info(tmp_path / "out.wav").channels == 4


def test_a_split_track_whose_parts_end_apart(take: TakeFiles, tmp_path: Path) -> None:
    parts = [tmp_path / f"{name}.wav" for name in "WYZX"]
    for part, channel in zip(parts, field_of(take), strict=True):
        soundfile.write(part, channel[: 4 * 48_000] if part.stem == "Z" else channel, 48_000)

    split = run(take.video, *parts)

    assert any("ends where Z.wav does, though W.wav" in note for note in split["warnings"])


def test_a_track_for_each_channel_is_no_ambisonic_one(take: TakeFiles, tmp_path: Path) -> None:
    """As editors export them."""
    with pytest.raises(UnsupportedMedia, match=r"holds 4 tracks that are mono.*with --join"):
        run(take.video, several_tracks(tmp_path / "m.mov", "mono", "mono", "mono", "mono"))


def test_of_a_silent_track_among_others_the_way_to_them_is_told(
    take: TakeFiles, tmp_path: Path
) -> None:
    track = several_tracks(tmp_path / "m.mov", "4.0", "4.0", silent=1)

    with pytest.raises(
        UnusableContent, match=r"is silent.*, the first of its 2 tracks.*-i m\.mov -map"
    ):
        run(take.video, track)


def test_a_declared_pose_is_applied_and_told(
    take: TakeFiles, report: Report, tmp_path: Path
) -> None:
    video = tmp_path / "posed.mp4"
    shutil.copyfile(take.video, video)
    add_boxes(video, entry=sv3d(yaw_deg=33.0))

    posed = run(video, take.audio, plot=tmp_path / "p.png")

    # Players turn the picture by +33 degrees, so the sound has to be turned by as much more.
    assert error_deg(posed, report["rotate_field_ccw_deg"] + 33) <= 2
    assert posed["input"]["video"]["pose_yaw_deg"] == 33
    assert any("pose yaw of +33.0°" in warning for warning in posed["warnings"])


@pytest.mark.parametrize(("pitch_deg", "roll_deg"), [(5.0, 0.0), (0.0, -5.0), (0.5, 0.5)])
def test_a_pose_that_no_yaw_can_follow_is_told(
    take: TakeFiles, tmp_path: Path, pitch_deg: float, roll_deg: float
) -> None:
    video = tmp_path / "posed.mp4"
    shutil.copyfile(take.video, video)
    add_boxes(video, entry=sv3d(pitch_deg=pitch_deg, roll_deg=roll_deg))

    with Take(video, Track((take.audio,))) as opened:
        told = f"a pose pitch of {pitch_deg:+.1f}° and roll of {roll_deg:+.1f}°"
        assert any(told in note for note in opened.warnings) is (max(pitch_deg, -roll_deg) > 1)


def direction_deg(cov: torch.Tensor) -> float:
    x, y, _ = features.intensity(cov).flatten(0, 1).sum(0).tolist()
    return math.degrees(math.atan2(y, x))


@pytest.mark.parametrize("turned_deg", [0.0, 50.0])
def test_the_pictures_moment_shows_the_track_as_it_is(
    take: TakeFiles, tmp_path: Path, turned_deg: float
) -> None:
    """In the picture as it is played, and before it was turned along the microphone."""
    video = tmp_path / "posed.mp4"
    shutil.copyfile(take.video, video)
    add_boxes(video, entry=sv3d(yaw_deg=33.0))
    known = Orientation(Path("gyro.csv"), np.array([0.0, 0.01]), np.array([0.0, turned_deg]))

    with Take(video, Track((take.audio,)), orientation=known) as opened:
        _, _, moment = judge_take(opened, CALIBRATION, n_windows=1, tolerance_deg=10, scorers=[])

    field = features.to_analysis_rate(field_of(take), 48_000)
    right_deg = direction_deg(features.covariance(torch.tensor(field)))
    assert moment.turned_deg == turned_deg
    assert abs(math.remainder(direction_deg(moment.covariance) - right_deg, 360)) < 5


# --- time ----------------------------------------------------------------------------------------


def test_a_track_that_begins_later(take: TakeFiles, report: Report, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "late.wav", field_of(take)[:, 4 * 48000 :].T, 48000)

    other = align(
        take.video, Track((tmp_path / "late.wav",), offset_s=4.0), Outputs(), Options(n_windows=1)
    )

    assert error_deg(other, report["rotate_field_ccw_deg"]) <= 10
    assert all(window["start_s"] >= 4 for window in other["windows"])


def test_a_longer_track_than_the_picture(take: TakeFiles, report: Report, tmp_path: Path) -> None:
    field = field_of(take)
    longer = np.concatenate([field, np.random.default_rng(0).uniform(-0.1, 0.1, field.shape)], 1)
    soundfile.write(tmp_path / "long.wav", longer.T, 48000)

    other = run(take.video, tmp_path / "long.wav", audio=tmp_path / "out.wav")

    assert same_answer(report, other)
    assert soundfile.info(tmp_path / "out.wav").frames == longer.shape[1]


def test_a_track_that_is_moved_shares_another_stretch(take: TakeFiles) -> None:
    with Take(take.video, Track((take.audio,))) as opened:
        assert (opened.start_s, opened.end_s) == pytest.approx((0.0, 6.0), abs=1e-3)
        for by_s, shared_s in ((1.5, (1.5, 6.0)), (-2.5, (0.0, 5.0))):
            opened.move(by_s)
            assert (opened.start_s, opened.end_s) == pytest.approx(shared_s, abs=1e-3)


def test_no_overlap(take: TakeFiles, tmp_path: Path) -> None:
    for offset_s in (19.0, -19.0, 500.0):
        track = Track((take.audio,), offset_s=offset_s)
        with pytest.raises(UnusableContent, match="overlap by less than 2 s"):
            align(take.video, track, Outputs(tmp_path / "out.wav"))
    assert list(tmp_path.iterdir()) == []


def test_windows_are_taken_where_it_sounds(take: TakeFiles, tmp_path: Path) -> None:
    """Of a minute that is silent but for ten seconds, those ten are judged."""
    scene = draw_scene(3, replace(EXAMPLE, duration_s=60.0))
    files = write_take(scene, tmp_path, "t", height=128, rate_hz=12.5, colour=False)
    field = samples_of(files.audio)
    silent = np.full_like(field, 1e-4) * np.random.default_rng(0).standard_normal(field.shape)
    silent[:, 30 * 48000 : 40 * 48000] = field[:, 30 * 48000 : 40 * 48000]
    soundfile.write(tmp_path / "t.flac", silent.T, 48000)

    with Take(files.video, Track((tmp_path / "t.flac",))) as opened:
        ((start_s, duration_s),) = opened.choose_windows(1)

    assert duration_s == 10
    assert 27 <= start_s <= 33


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50)), min_size=1, max_size=9),
    st.integers(1, 4),
)
def test_windows_have_the_most_interest_in_sum(places: list[tuple[int, int]], wanted: int) -> None:
    """Against all choices, one by one."""
    starts, interests = zip(*sorted(places), strict=True)
    apart = [
        choice
        for n in range(wanted + 1)
        for choice in itertools.combinations(range(len(starts)), n)
        if all(starts[j] - starts[i] >= 5 for i, j in itertools.pairwise(choice))
    ]

    chosen = best_apart(starts, interests, 5, wanted)

    assert tuple(chosen) in apart
    assert sum(interests[i] for i in chosen) == max(sum(interests[i] for i in c) for c in apart)


@given(st.floats(2, 400), st.integers(1, 40))
def test_as_many_windows_as_are_wanted_fit(span_s: float, n_windows: int) -> None:
    """Or as many as there is room for, of 10 s each or of shorter ones in a short take."""
    starts, duration_s, wanted = candidates(7.0, 7.0 + span_s, n_windows)

    chosen = best_apart(starts, [1.0] * len(starts), duration_s, wanted)

    room = round(span_s / duration_s) if span_s < 20 else math.floor(span_s / 10 + 1e-6)
    assert len(chosen) == min(n_windows, max(1, room))
    assert starts[0] == 7.0
    assert starts[-1] + duration_s == pytest.approx(7.0 + span_s)


def test_a_click_blinds_nobody(take: TakeFiles, report: Report, tmp_path: Path) -> None:
    """A slate of 20 ms from elsewhere, 50 dB above the rest."""
    field = field_of(take)
    field *= 0.2 / 300 / field[0].std()
    noise = 0.2 * np.random.default_rng(0).uniform(-1, 1, 960)
    field[:, 60_000:60_960] += encode(noise, np.full(960, 0.3), np.zeros(960), 1)
    soundfile.write(tmp_path / "t.wav", field.T, 48_000, subtype="FLOAT")

    other = run(take.video, tmp_path / "t.wav")

    assert other["verdict"] == report["verdict"]
    assert error_deg(other, report["rotate_field_ccw_deg"]) <= 5


def frames_of(video: Path) -> list[np.ndarray]:
    with av.open(str(video)) as source:
        return [frame.to_ndarray(format="gray")[..., None] for frame in source.decode(video=0)]


def test_a_picture_of_keyframes_alone_is_no_worse(
    take: TakeFiles, report: Report, tmp_path: Path
) -> None:
    """As ProRes and Motion JPEG are, in which every frame begins afresh."""
    frames = frames_of(take.video)
    rate_hz = report["input"]["video"]["rate_hz"]
    write_video(tmp_path / "intra.mp4", frames, rate_hz=rate_hz, keyframe_s=0.001)

    other = run(tmp_path / "intra.mp4", take.audio)

    assert other["verdict"] == "misaligned"
    assert error_deg(other, report["rotate_field_ccw_deg"]) <= 5


def test_windows_in_which_nothing_moves_are_left_out(
    take: TakeFiles, report: Report, tmp_path: Path
) -> None:
    """A frozen frame, or a title, while the sound goes on."""
    frames = frames_of(take.video)
    rate_hz = report["input"]["video"]["rate_hz"]
    frozen = [frames[-1]] * round(20 * rate_hz)
    write_video(tmp_path / "frozen.mp4", [*frames, *frozen], rate_hz=rate_hz)
    field = np.tile(field_of(take), 5)[:, : 26 * 48_000]
    soundfile.write(tmp_path / "t.wav", field.T, 48_000, subtype="PCM_24")

    other = run(tmp_path / "frozen.mp4", tmp_path / "t.wav")

    assert len(other["windows"]) == 1
    assert any("stands still" in note for note in other["warnings"])
    assert error_deg(other, report["rotate_field_ccw_deg"]) <= 10


def test_a_picture_in_which_nothing_ever_moves_is_undecidable(
    take: TakeFiles, tmp_path: Path
) -> None:
    write_video(tmp_path / "still.mp4", [frames_of(take.video)[0]] * 60, rate_hz=15)

    report = run(tmp_path / "still.mp4", take.audio)

    assert report["verdict"] == "undecidable"
    assert not any("stands still" in note for note in report["warnings"])


def test_a_picture_that_breaks_off_is_used_as_far_as_it_goes(
    take: TakeFiles, tmp_path: Path
) -> None:
    data = take.video.read_bytes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data[: int(0.75 * len(data))])

    report = align(
        broken, Track((take.audio,)), Outputs(plot=tmp_path / "p.png"), Options(over_time=True)
    )

    seen_s = sum(window["duration_s"] for window in report["windows"])
    assert 3 <= seen_s < 5.5
    assert any("breaks off" in w or "left out" in w for w in report["warnings"])
    assert len(set(report["warnings"])) == len(report["warnings"])  # though it was read twice


# --- being stopped -------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["scan", "score", "write"])
def test_a_cancelled_job_leaves_nothing(take: TakeFiles, tmp_path: Path, at: str) -> None:
    def notify(stage: str, _fraction: float) -> None:
        if stage == at:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        align(
            take.video, Track((take.audio,)),
            Outputs(tmp_path / "a.wav", tmp_path / "a.json", tmp_path / "a.png"), notify=notify,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("root")
@pytest.mark.parametrize("shape", [(4, 5.0), (4, 6.0), (9, 6.0)])
def test_a_track_that_is_another_once_it_is_judged_is_not_written(
    take: TakeFiles, upright: Path, tmp_path: Path, shape: tuple[int, float]
) -> None:
    """Exported again meanwhile: shorter, of the same shape, or of another order.

    What fits the picture is copied, so that other samples alone are seen too.
    """
    track, other = tmp_path / "track.wav", tmp_path / "other.wav"
    shutil.copyfile(upright, track)
    n_channels, duration_s = shape
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, (round(duration_s * 48_000), n_channels))
    soundfile.write(other, samples, 48_000, subtype="FLOAT")

    def notify(stage: str, _fraction: float) -> None:
        if stage == "compare" and other.exists():
            other.replace(track)

    with pytest.raises(MediaError, match=r"track\.wav is not what it was"):
        align(take.video, Track((track,)), Outputs(tmp_path / "out.wav"), notify=notify)

    assert [path.name for path in tmp_path.iterdir()] == ["track.wav"]


def test_a_disk_that_fills_after_the_sound_leaves_nothing(take: TakeFiles, tmp_path: Path) -> None:
    size = take.audio.stat().st_size + 4096  # for the older file, and none for a report
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)], check=True
    )
    try:
        sound = tmp_path / "a.wav"
        sound.write_bytes(b"old")
        for outputs in (
            Outputs(sound, tmp_path / "a.json"),
            Outputs(sound, plot=tmp_path / "a.png"),
        ):
            with pytest.raises(DiskFull, match=r"No space is left to write .*/a\.(json|png)"):
                align(take.video, Track((take.audio,)), outputs)
            assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
            assert sound.read_bytes() == b"old"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_progress_rises_from_nothing_to_one(take: TakeFiles, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []

    align(
        take.video, Track((take.audio,)), Outputs(tmp_path / "a.wav"),
        notify=lambda stage, fraction: seen.append((stage, fraction)),
    )  # fmt: skip

    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert [stage for i, (stage, _) in enumerate(seen) if i == 0 or stage != seen[i - 1][0]] == [
        "scan", "score", "compare", "write", "done",
    ]  # fmt: skip


# --- warnings and refusals -----------------------------------------------------------------------


def test_a_planar_track_is_fine(take: TakeFiles, report: Report, tmp_path: Path) -> None:
    field = field_of(take)
    field[2] = 0
    soundfile.write(tmp_path / "planar.wav", field.T, 48000)

    other = run(take.video, tmp_path / "planar.wav")

    assert error_deg(other, report["rotate_field_ccw_deg"]) <= 5
    assert any("planar" in warning for warning in other["warnings"])


def test_a_few_clipped_samples_are_told(take: TakeFiles, tmp_path: Path) -> None:
    field = field_of(take)
    for first, last, share in ((48_000, 48_001, "Less than 0.01 %"), (48_001, 48_144, "0.05 %")):
        field[0, first:last] = 1.0
        soundfile.write(tmp_path / "hot.wav", field.T, 48000)

        with Take(take.video, Track((tmp_path / "hot.wav",))) as opened:
            opened.choose_windows(1)
            assert f"{share} of the samples are at full scale (clipped)." in opened.warnings


@pytest.mark.parametrize(
    ("name", "levels", "clipped"),
    [
        ("fuma.amb", (0.95, 0.6, 0.6, 0.6), False),  # W by 3 dB below SN3D's
        ("fuma.amb", (3.0, 0.6, 0.6, 0.6), True),
        ("n3d.wav", (0.6, 3.0, 0.6, 0.6), True),  # Y, Z and X by 5 dB above
        ("float.wav", (3.0, 2.0, 2.0, 2.0), False),  # which hold more than full scale
    ],
)
def test_samples_are_clipped_that_the_file_could_not_hold(
    take: TakeFiles, tmp_path: Path, name: str, levels: tuple[float, ...], clipped: bool
) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (288_000, 4)) * levels
    stored = "FLOAT" if name == "float.wav" else "PCM_24"
    container = "WAVEX" if name == "fuma.amb" else "WAV"
    with soundfile.SoundFile(tmp_path / name, "w", 48000, 4, stored, format=container) as file:
        file.write(noise if stored == "FLOAT" else np.clip(noise, -1, 1))
    convention = Convention.N3D if name == "n3d.wav" else None

    with Take(take.video, Track((tmp_path / name,), convention)) as opened:
        if clipped:
            with pytest.raises(UnusableContent, match=r"is clipped: \d\d % of its samples"):
                opened.choose_windows(1)
        else:
            opened.choose_windows(1)
            assert opened.warnings == []


def test_a_trim_is_told(take: TakeFiles, tmp_path: Path) -> None:
    field = field_of(take) * np.array([[0.5], [1.0], [1.0], [1.0]])
    field *= 0.999 / np.abs(field).max()
    soundfile.write(tmp_path / "loud.wav", field.T, 48000, subtype="PCM_24")

    report = run(take.video, tmp_path / "loud.wav", audio=tmp_path / "out.wav")

    output = report["output"]
    assert output["clipped_samples"] == 0
    assert output["trim_db"] < 0
    told = f"would have clipped: all channels were lowered by {-output['trim_db']:.2f} dB"
    assert any(told in warning for warning in report["warnings"])
    assert output["peak"] <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_windows": 0}, "at least 1"),
        ({"tolerance_deg": 200}, r"200"),
        ({"device": "cpu:x"}, "cpu:x is not known"),
        ({"device": "cuda:1"}, "GPU of that number"),
    ],
)
def test_options_that_cannot_be(
    options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(OptionError, match=words):
        Options(**options)


def test_results_that_would_hurt_an_input(take: TakeFiles) -> None:
    for outputs in (Outputs(take.audio), Outputs(report=take.video), Outputs(plot=take.audio)):
        with pytest.raises(OptionError, match="never overwritten"):
            align(take.video, Track((take.audio,)), outputs)


def test_bext_of_another_make_survives(take: TakeFiles, tmp_path: Path) -> None:
    """A chunk that is called `bext` but is too short to be one is copied as it is."""
    soundfile.write(tmp_path / "in.wav", field_of(take).T, 48000, subtype="PCM_24")
    insert_chunks(tmp_path / "in.wav", chunk(b"bext", b"short"), b"")

    report = run(take.video, tmp_path / "in.wav", audio=tmp_path / "out.wav")

    assert report["output"]["applied_deg"] != 0
    assert chunk(b"bext", b"short") in (tmp_path / "out.wav").read_bytes()


@pytest.mark.parametrize(("floats", "bits"), [(False, 24), (True, 32)])
def test_the_coding_history_tells_the_width_that_is_written(
    take: TakeFiles, tmp_path: Path, floats: bool, bits: int
) -> None:
    track = Track((take.audio,))

    with Take(take.video, track) as opened:
        correct(opened, tmp_path / "out.wav", 30.0, float_output=floats)

    written = (tmp_path / "out.wav").read_bytes()
    assert f"A=PCM,F=48000,W={bits},M=multi,T=avsa-align".encode() in written
    assert soundfile.info(tmp_path / "out.wav").subtype == ("FLOAT" if floats else "PCM_24")


def test_weights_that_are_none(take: TakeFiles, tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text("{}")
    with pytest.raises(MediaError, match=r"w\.json"):
        align(take.video, Track((take.audio,)), Outputs(), Options(weights=tmp_path / "w.json"))


@pytest.mark.parametrize("fix", Fix)
def test_a_fix_is_applied_to_the_analysis_and_to_the_output(
    take: TakeFiles, report: Report, tmp_path: Path, fix: Fix
) -> None:
    """A track that was spoilt just so gives, under the fix, the very answer of the good one."""
    wrong = tmp_path / "wrong.wav"
    field = field_of(take)
    soundfile.write(wrong, (field * np.array(fix.signs(1))[:, None]).T, 48_000, subtype="PCM_24")

    fixed = run(
        take.video, track=Track((wrong,), fix=fix), audio=tmp_path / "out.wav",
        report=tmp_path / "out.json",
    )  # fmt: skip

    assert fixed["rotate_field_ccw_deg"] == pytest.approx(report["rotate_field_ccw_deg"], abs=0.1)
    assert fixed["fix"] == fix.value
    angle = math.radians(fixed["output"]["applied_deg"])
    expected = YawRotation(ChannelLayout.of(4), angle)(field)
    np.testing.assert_allclose(samples_of(tmp_path / "out.wav"), expected, atol=2e-4)
    assert f"fix={fix}".encode() not in wrong.read_bytes()


def test_a_fix_that_the_picture_contradicts_is_to_be_left_away(
    take: TakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = dict(zip(Hypothesis, (0.01, 0.97, 0.01, 0.01), strict=True))
    found = Handedness(sure, dict.fromkeys(Hypothesis, 20.0))
    monkeypatch.setattr("model.decision.HandednessTest.result", lambda _: found)

    report = run(take.video, track=Track((take.audio,), fix=Fix.MIRROR))

    assert any("Fix: leave --fix mirror away." in warning for warning in report["warnings"])


def test_a_fix_without_a_rotation_is_no_untouched_copy(
    report: Report, take: TakeFiles, folder: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "aligned_mirrored.wav"
    aligned = samples_of(folder / "out.wav")
    signs = np.array(Fix.MIRROR.signs(1))[:, None]
    soundfile.write(spoilt, (aligned * signs).T, 48_000, subtype="PCM_24")

    fixed = run(take.video, track=Track((spoilt,), fix=Fix.MIRROR), audio=tmp_path / "out.wav")

    assert fixed["verdict"] == "aligned"
    assert not fixed["output"]["untouched_copy"]
    np.testing.assert_allclose(samples_of(tmp_path / "out.wav"), aligned, atol=2e-7)


def test_a_fuma_track_that_declares_nothing_is_read_as_fuma(
    take: TakeFiles, report: Report, tmp_path: Path
) -> None:
    path = tmp_path / "fuma.wav"
    planar = field_of(take)
    planar[2] = 0.0
    fuma = ChannelLayout.of(4, Convention.FUMA).from_sn3d(planar)
    soundfile.write(path, fuma.T, 48_000, subtype="PCM_24")

    found = run(take.video, path, audio=tmp_path / "out.wav")
    forced = run(take.video, track=Track((path,), Convention.FUMA))

    assert found["conventions"]["selected"]["convention"] == "fuma"
    assert found["input"]["audio"]["convention"] == "fuma"
    assert any("was read so" in warning for warning in found["warnings"])
    assert found["rotate_field_ccw_deg"] == forced["rotate_field_ccw_deg"]
    assert forced["conventions"]["selected"] is None
    assert soundfile.read(tmp_path / "out.wav")[0][:, 3].any() == False  # noqa: E712 - Z stays last


def test_the_report_tells_of_conventions(report: Report) -> None:
    told = report["conventions"]

    assert told["selected"] is None
    assert max(told["readings"], key=told["readings"].get) == "ambix"
    assert sum(h["p"] for h in told["hypotheses"]) == pytest.approx(1, abs=1e-3)
    assert report["fix"] is None


def test_a_job_that_ends_early_waits_for_no_hash(take: TakeFiles, tmp_path: Path) -> None:
    """Of footage of a hundred gigabytes."""
    huge = tmp_path / "huge.mp4"
    shutil.copyfile(take.video, huge)
    with huge.open("r+b") as file:
        file.truncate(100 << 30)

    def cancel(stage: str, _fraction: float) -> None:
        raise Cancelled(stage)

    started = time.monotonic()
    with pytest.raises(Cancelled):
        align(huge, Track((take.audio,)), Outputs(), notify=cancel)
    assert time.monotonic() - started < 10
