"""Tracks placed by the camera's own sound, and rotations followed, in whole jobs."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from model import rig, sync
from model.align import Outputs, align, correct
from model.ambisonics import rotate_yaw
from model.media import VideoReader, open_audio
from model.options import Options
from model.placement import Placement, placed
from model.sync import Belonging, Synchronisation
from model.take import Take, Track
from model.turning import turned_along
from tests.conftest import EXAMPLE, TAKE_SEED
from tests.model.fields import RATE, field_of, turn_deg, with_camera_sound
from training.data.scenes import draw_scene
from training.data.takes import TakeFiles, write_take

LONGER = replace(EXAMPLE, duration_s=10.0)


@pytest.fixture(scope="module")
def take(tmp_path_factory: pytest.TempPathFactory) -> TakeFiles:
    """The example, so long that the camera's sound can tell that a track is foreign."""
    folder = tmp_path_factory.mktemp("take")
    scene = draw_scene(TAKE_SEED, LONGER)
    return write_take(scene, folder, "t", rotate_deg=-75.0, height=256, rate_hz=12.5, colour=False)


@pytest.fixture(scope="module")
def camera(take: TakeFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's video with what a noisy camera microphone would have heard."""
    folder = tmp_path_factory.mktemp("camera")
    omni = field_of(take.audio)[0]
    noise = 0.5 * omni.std() * np.random.default_rng(0).standard_normal(len(omni))
    return with_camera_sound(take.video, omni + noise, folder / "camera.mp4")


def test_a_late_track_is_placed_by_the_camera(
    take: TakeFiles, camera: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "late.wav", field_of(take.audio)[:, 3 * RATE :].T, RATE)

    with Take(camera, Track((tmp_path / "late.wav",))) as opened:
        assert opened.placement.offset_s == pytest.approx(3.0, abs=0.002)
        assert (opened.start_s, opened.end_s) == pytest.approx((3.0, 10.0), abs=0.1)

    report = align(camera, Track((tmp_path / "late.wav",)), Outputs())
    assert report["input"]["audio"]["offset_s"] == pytest.approx(3.0, abs=0.002)
    assert report["sync"]["verdict"] == "synchronised"
    assert any("begins at +3.00" in warning for warning in report["warnings"])
    assert abs(math.remainder(report["rotate_field_ccw_deg"] + take.rotated_deg, 360)) <= 10


def test_a_track_is_placed_by_its_w_wherever_that_is(
    take: TakeFiles, camera: Path, tmp_path: Path
) -> None:
    """After a head-locked pair, which the camera has not heard."""
    field = field_of(take.audio)[:, 3 * RATE :]
    pair = 0.1 * np.random.default_rng(1).standard_normal((2, field.shape[1]))
    soundfile.write(tmp_path / "six.wav", np.concatenate([pair, field]).T, RATE)

    with Take(camera, Track((tmp_path / "six.wav",), components=(2, 3, 4, 5))) as opened:
        assert opened.placement.offset_s == pytest.approx(3.0, abs=0.002)


def test_a_late_track_is_laid_on_the_picture(take: TakeFiles, camera: Path, tmp_path: Path) -> None:
    """Its sound then stands where it was before three seconds were cut off."""
    field = field_of(take.audio)
    soundfile.write(tmp_path / "late.flac", field[:, 3 * RATE :].T, RATE)

    report = align(
        camera, Track((tmp_path / "late.flac",)), Outputs(tmp_path / "out.wav"),
        Options(lay_on_picture=True),
    )  # fmt: skip

    laid = field_of(tmp_path / "out.wav")
    turned = rotate_yaw(field, math.radians(report["output"]["applied_deg"]))
    assert report["laid_on_picture"]
    assert any("picture's clock" in warning for warning in report["warnings"])
    assert not any("own time" in warning for warning in report["warnings"])
    assert laid.shape[1] == pytest.approx(10 * RATE, abs=RATE / 15)
    assert not laid[:, : 3 * RATE - 100].any()
    part = slice(5 * RATE, 9 * RATE)
    lag = _lag(turned[0, part], laid[0, part])
    assert abs(lag) <= 0.002 * RATE
    moved = np.roll(laid, -lag, axis=1)[:, part]
    assert np.corrcoef(moved[1], turned[1, part])[0, 1] > 0.98


def test_laying_on_the_picture_without_a_shift_keeps_every_sample(
    take: TakeFiles, tmp_path: Path
) -> None:
    report = align(
        take.video, Track((take.audio,)), Outputs(tmp_path / "out.wav"),
        Options(lay_on_picture=True),
    )  # fmt: skip

    turned = rotate_yaw(field_of(take.audio), math.radians(report["output"]["applied_deg"]))
    laid = field_of(tmp_path / "out.wav")
    n_samples = min(laid.shape[1], turned.shape[1])
    np.testing.assert_allclose(laid[:, :n_samples], turned[:, :n_samples], atol=2e-4)


def test_a_clock_that_drifts_is_laid_on_the_pictures(take: TakeFiles, tmp_path: Path) -> None:
    """As fast as is laid at all: 5 ms in 5 s, a whole wave."""
    tone = 0.5 * np.sin(math.tau * 200 * np.arange(6 * RATE) / RATE)
    soundfile.write(tmp_path / "t.wav", np.outer(tone, [1, 0.5, 0.2, 0.8]), RATE, "FLOAT")
    track = Track((tmp_path / "t.wav",))
    with Take(take.video, track) as opened:
        opened.placement = Placement(offset_s=-0.25, drift_ppm=1000.0)
        correct(opened, tmp_path / "out.wav", 0.0, lay_on_picture=True)
        at_s = np.array([opened.placement.track_s(t) for t in np.arange(RATE, 5 * RATE) / RATE])

    laid = field_of(tmp_path / "out.wav")[0, RATE : 5 * RATE]
    np.testing.assert_allclose(laid, 0.5 * np.sin(math.tau * 200 * at_s), atol=1e-3)


def test_an_aligned_track_is_laid_in_float_if_that_is_asked(
    take: TakeFiles, tmp_path: Path
) -> None:
    track = Track((take.audio,))
    with Take(take.video, track) as opened:
        for laid in (True, False):
            correct(opened, tmp_path / f"{laid}.wav", 0.0, float_output=True, lay_on_picture=laid)

    assert soundfile.info(tmp_path / "True.wav").subtype == "FLOAT"
    assert (tmp_path / "False.wav").read_bytes() == take.audio.read_bytes()


def _lag(reference: np.ndarray, other: np.ndarray) -> int:
    """Samples by which `other` is late, by plain correlation."""
    spectrum = np.fft.rfft(other) * np.fft.rfft(reference).conj()
    lag = int(np.fft.irfft(spectrum).argmax())
    return lag - len(reference) if lag > len(reference) // 2 else lag


def test_what_the_user_says_comes_first(take: TakeFiles, camera: Path) -> None:
    with Take(camera, Track((take.audio,), offset_s=1.0)) as opened:
        assert (opened.placement.offset_s, opened.placement.sync) == (1.0, None)


def synchronisation(
    belonging: Belonging, offset_s: float, drift_ppm: float, reason: str
) -> Synchronisation:
    return Synchronisation(
        belonging=belonging, offset_s=offset_s, drift_ppm=drift_ppm, offset_std_s=1e-4,
        drift_std_ppm=1.0, confidence=1.0, inverted=False, reason=reason, chunks=(),
    )  # fmt: skip


@pytest.mark.parametrize("late_s", [0.5, -0.5])
def test_the_cameras_sound_may_begin_beside_its_picture(
    take: TakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], late_s: float,
) -> None:  # fmt: skip
    """The track is found in the one, and placed in the other's time."""
    path = tmp_path / "camera.mkv"
    with av.open(str(take.video)) as source, av.open(str(path), "w") as target:
        picture = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 80_000), "i2"), "s16", "mono")
        frame.sample_rate, frame.pts = 8000, round(8000 * (1 + late_s))
        target.mux(sound.encode(frame))
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and packet.pts is not None and packet.time_base:
                packet.pts += round(1 / packet.time_base)
                packet.dts += round(1 / packet.time_base)
                packet.stream = picture
                target.mux(packet)
    found = synchronisation(Belonging.SYNCHRONISED, 2.0, 100.0, "All agree.")
    monkeypatch.setattr("model.placement.synchronise", lambda *_, **__: found)

    with VideoReader(path) as video, open_audio(take.audio) as track:
        placement = placed(video.info, track, w_channel=0, shared=False, offset_s=None)

    assert placement.camera_s(3.0) == pytest.approx(2.0 + 1.0001 * 3.0 + late_s, abs=2e-3)
    assert placement.track_s(placement.camera_s(3.0)) == pytest.approx(3.0)
    monkeypatch.setattr("model.sync.synchronise", lambda *_, **__: found)
    assert sync.main([str(path), str(take.audio)]) == 0
    assert f"the track at {2 + late_s:+.3f} s of that" in capsys.readouterr().out
    assert sync.main([str(take.audio), str(take.audio)]) == 0
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize("belonging", Belonging)
@pytest.mark.parametrize(("drift_ppm", "told"), [(1000.0, False), (4000.0, True)])
def test_only_a_track_that_is_sure_to_belong_is_moved(
    take: TakeFiles,
    monkeypatch: pytest.MonkeyPatch,
    belonging: Belonging,
    drift_ppm: float,
    told: bool,
) -> None:
    """Which is told where it moves the beginning or the end by more than 20 ms."""
    found = synchronisation(belonging, 0.001, drift_ppm, "So it is.")
    monkeypatch.setattr("model.placement.synchronise", lambda *_, **__: found)

    with VideoReader(take.video) as video, open_audio(take.audio) as track:
        info = replace(video.info, path=take.audio, has_sound=True)
        placement = placed(info, track, w_channel=0, shared=False, offset_s=None)

    belongs = belonging is Belonging.SYNCHRONISED
    moved_s = 0.001 + 10 * drift_ppm / 1e6 if belongs else 0.0
    assert placement.sync is found
    assert placement.camera_s(10.0) == pytest.approx(10 + moved_s)
    assert placement.foreign is (belonging is Belonging.FOREIGN)
    note = placement.note or ""
    assert ("its clock drifts by +4000.0 ppm" in note) is (belongs and told)
    assert ("So it is." in note) is not belongs
    assert ("taken to begin at 0" in note) is (belonging is Belonging.UNDECIDABLE)


def test_camera_sound_that_is_not_read_does_not_stand_in_the_way(
    take: TakeFiles, tmp_path: Path
) -> None:
    for name, codec, sound in (
        ("old.mkv", "mp2", field_of(take.audio)[0]),
        ("silent.mp4", "aac", np.zeros(10 * RATE)),
    ):
        camera = with_camera_sound(take.video, sound, tmp_path / name, codec=codec)
        with Take(camera, Track((take.audio,))) as opened:
            assert opened.placement.offset_s == 0
            assert opened.placement.sync is None
            assert "sound does not help to place the track" in opened.warnings[-1]


def test_a_foreign_track_gets_no_verdict(camera: Path, tmp_path: Path) -> None:
    scene = draw_scene(TAKE_SEED + 1, LONGER)
    other = write_take(scene, tmp_path, "other", height=128, rate_hz=12.5, colour=False)

    report = align(camera, Track((other.audio,)), Outputs(tmp_path / "out.wav"))

    assert report["verdict"] == "undecidable"
    assert "does not belong" in report["reasons"][0]
    assert (tmp_path / "out.wav").read_bytes() == other.audio.read_bytes()


def test_a_foreign_track_has_no_say_in_a_rig(camera: Path, take: TakeFiles, tmp_path: Path) -> None:
    shutil.copyfile(camera, tmp_path / "good.mp4")
    shutil.copyfile(take.audio, tmp_path / "good.wav")
    shutil.copyfile(camera, tmp_path / "mixed-up.mp4")
    scene = draw_scene(TAKE_SEED + 1, LONGER)
    other = write_take(scene, tmp_path, "x", height=128, rate_hz=12.5, colour=False)
    other.audio.rename(tmp_path / "mixed-up.wav")
    other.video.unlink()
    (tmp_path / "out").mkdir()

    _, (good, mixed_up) = rig.run([tmp_path], tmp_path / "out", quiet=True)

    assert good.error is None
    assert mixed_up.error is not None
    assert "does not belong" in mixed_up.error
    assert mixed_up.posterior is None
    assert not (tmp_path / "out" / "mixed-up_aligned.wav").exists()


def test_a_video_without_sound_asks_nothing(take: TakeFiles) -> None:
    with Take(take.video, Track((take.audio,))) as opened:
        assert opened.placement.sync is None
        assert not opened.video.has_sound


# --- a rotation that changes ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def knocked(tmp_path_factory: pytest.TempPathFactory) -> tuple[TakeFiles, np.ndarray]:
    """A take whose microphone is turned by 90 degrees at 13 s, and the right rotation over time."""
    folder = tmp_path_factory.mktemp("knocked")
    # (28 s of the usual scene have no verdict, turned or not.)
    scene = draw_scene(TAKE_SEED + 2, replace(EXAMPLE, duration_s=28.0))
    files = write_take(scene, folder, "t", height=256, rate_hz=12.5, colour=False)
    field = field_of(files.audio)
    right_deg = np.where(np.arange(field.shape[1]) < 13 * RATE, 30.0, 120.0)
    turned = turned_along(0.7 * field, np.deg2rad(-right_deg))
    soundfile.write(files.audio, turned.T, RATE, subtype="PCM_24")
    return files, right_deg


def run(files: TakeFiles, outputs: Outputs, **options: Any) -> dict[str, Any]:
    return align(files.video, Track((files.audio,)), outputs, Options(**options))


def test_a_knock_is_told_and_followed(
    knocked: tuple[TakeFiles, np.ndarray], tmp_path: Path
) -> None:
    files, right_deg = knocked

    report = run(files, Outputs(tmp_path / "out.wav", plot=tmp_path / "p.png"), follow=True)

    (step,) = report["trajectory"]["steps"]
    assert report["trajectory"]["kind"] == "steps"
    assert step["at_s"] == pytest.approx(13, abs=2)
    assert step["by_deg"] == pytest.approx(90, abs=10)
    assert report["verdict"] == "misaligned"
    assert any("steps by +" in warning for warning in report["warnings"])
    applied = field_of(tmp_path / "out.wav")
    told_deg = report["trajectory"]["rotate_field_ccw_deg"]
    source = field_of(files.audio)
    for part, expected_deg, told in (
        (slice(0, 9 * RATE), right_deg[0], told_deg[0]),
        (slice(17 * RATE, None), right_deg[-1], told_deg[-1]),
    ):
        found = turn_deg(source[:, part], applied[:, part])
        assert abs(math.remainder(found - expected_deg, 360)) <= 12
        assert abs(math.remainder(found - told, 360)) <= 0.05  # as the report says
    assert told_deg[0] == report["rotate_field_ccw_deg"]


def test_without_following_one_rotation_is_written(
    knocked: tuple[TakeFiles, np.ndarray], tmp_path: Path
) -> None:
    report = run(knocked[0], Outputs(), over_time=True, apply_undecided=True)

    curve_deg = report["trajectory"]["rotate_field_ccw_deg"]
    assert report["trajectory"]["kind"] == "steps"
    assert not report["trajectory"]["followed"]
    # As it was found, wherever between the one rotation is.
    assert [curve_deg[0], curve_deg[-1]] == pytest.approx([30, 120], abs=12)


def test_a_constant_take_stays_constant(tmp_path: Path) -> None:
    """Long enough for a step to be told."""
    scene = draw_scene(TAKE_SEED, replace(EXAMPLE, duration_s=20.0))
    files = write_take(
        scene, tmp_path, "t", rotate_deg=-75.0, height=256, rate_hz=12.5, colour=False
    )

    report = run(files, Outputs(tmp_path / "out.wav"), follow=True)

    assert len(report["windows"]) > 1
    assert sum(window["weight"] for window in report["windows"]) == pytest.approx(1, abs=1e-3)
    assert report["trajectory"]["kind"] == "constant"
    assert not report["trajectory"]["followed"]
    assert report["output"]["applied_deg"] == report["rotate_field_ccw_deg"]
    assert set(report["trajectory"]["rotate_field_ccw_deg"]) == {report["rotate_field_ccw_deg"]}
