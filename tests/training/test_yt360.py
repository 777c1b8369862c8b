"""YT-360's layout from real files: index, channel order, crops, preparation."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from model.ambisonics import encode
from model.conventions import READING_CODES
from model.detections import Detection
from model.errors import MediaError
from model.media import VideoReader, open_audio
from model.media.encode import write_audio, write_video, write_youtube_audio
from model.networks.avsa import NARROW, AvsaNetwork
from model.viewpoints import Sound, SoundInput
from training.data import yt360, yt360_prepare, yt360_synthetic
from training.data.clips import Clip, ClipCrops, Cropping, Crops, Guide, draw_moments
from training.data.crops import FloatArray, angle_between, unit_vectors
from training.data.manifest import read_manifest
from training.data.scenes import Conditions, draw_scene, render_sound
from training.data.yt360 import (
    build_index,
    examine,
    read_index,
    read_list,
    read_segments,
    skipped,
)
from training.objectives.avsa import SpatialAlignment
from training.objectives.pretext import Pretext

CONDITIONS = Conditions(
    duration_s=3.5, n_sources=1, n_distractors=1, snr_db=25.0, offscreen=False, shaken=False
)
NETWORK = replace(NARROW, crop_px=32, sound=SoundInput(Sound.INTENSITY, n_bands=24))
PLAIN = Cropping(frame_height=96, augment=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings of two clips."""
    root = tmp_path_factory.mktemp("yt360")
    yt360_synthetic.write_layout(root, recordings=4, clips=2, conditions=CONDITIONS, height=90)
    build_index(root)
    return root


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The same, to be changed, not indexed."""
    shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns("index.jsonl"))
    return tmp_path / "copy"


def test_the_index_of_files_as_youtube_has_them(root: Path) -> None:
    clips = read_index(root)

    assert len(clips) == 8
    assert {clip.components for clip in clips} == {(2, 1, 4, 0)}
    by_recording = {clip.recording: clip.planar for clip in clips}
    assert sorted(by_recording) == [yt360_synthetic.identity(index) for index in range(4)]
    assert list(by_recording.values()) == [False, False, False, True]
    assert all(3.4 < clip.duration_s < 3.6 for clip in clips)
    assert skipped(root) == {}


def test_splits_and_segments_are_read(root: Path, tmp_path: Path) -> None:
    train, test = read_list(root / "train.txt"), read_list(root / "test.txt")

    assert (len(train), len(test)) == (3, 1)
    assert {clip.recording for clip in read_index(root, test)} == set(test)
    assert read_segments(root / "segments.txt")[test[0]] == [0, 10]
    (tmp_path / "bad.txt").write_text("short\n")
    with pytest.raises(MediaError, match="'short', which is no ID of 11 characters"):
        read_list(tmp_path / "bad.txt")
    (tmp_path / "bad.txt").write_text("abcdefghijk 1,2\nabcdefghijk x\n")
    with pytest.raises(MediaError, match=r"Line 2 of .* is not"):
        read_segments(tmp_path / "bad.txt")
    with pytest.raises(MediaError, match="no usable clip"):
        read_index(root, ["abcdefghijk"])


def mixed_to_four(path: Path, to: Path) -> None:
    """What a decoder makes of the 5.1 carrier if it is asked for four channels."""
    with open_audio(path) as reader:
        x, y, w, _, z, _ = reader.read(0, reader.info.n_samples)
        write_audio(to, np.stack([0.707 * x, 0.707 * y, 0.707 * w, 0.5 * z]), 48_000)


def crowd(seconds: int = 3) -> np.ndarray:
    """Voices all around, one after another, so that only W hears all alike."""
    rng = np.random.default_rng(0)
    bursts = rng.standard_normal((20 * seconds, 2400)) / 10
    places = rng.uniform([-math.pi, -0.6], [math.pi, 0.6], (len(bursts), 2))
    return np.concatenate(
        [encode(burst, at[0], at[1], 1) for burst, at in zip(bursts, places, strict=True)], axis=1
    )


def test_what_cannot_be_used_is_left_out_and_counted(copy: Path) -> None:
    names = [f"synth00000{index}-{start}" for index in range(4) for start in (0, 10)]
    (copy / "video" / f"{names[0]}.mp4").write_bytes(b"not a video at all")
    whole = (copy / "video" / f"{names[1]}.mp4").read_bytes()
    (copy / "video" / f"{names[1]}.mp4").write_bytes(whole[: len(whole) // 3])
    (copy / "audio" / f"{names[2]}.m4a").unlink()
    (copy / "video" / f"{names[3]}.mp4").unlink()
    write_youtube_audio(copy / "audio" / f"{names[4]}.m4a", crowd(), 48_000)
    mixed_to_four(copy / "audio" / f"{names[4]}.m4a", copy / "audio" / f"{names[4]}.flac")
    (copy / "audio" / f"{names[4]}.m4a").unlink()
    (copy / "audio" / f"{names[5]}.m4a").unlink()
    write_audio(copy / "audio" / f"{names[5]}.flac", np.zeros((4, 96_000)), 48_000)
    (copy / "audio" / f"{names[6]}.m4a").unlink()
    noise = np.random.default_rng(0).standard_normal((6, 96_000)) / 10
    write_audio(copy / "audio" / f"{names[6]}.flac", noise, 48_000)

    assert yt360.main([str(copy)]) == 0

    assert [clip.name for clip in read_index(copy)] == [names[7]]
    lines = (copy / "index.jsonl").read_text().splitlines()[1:]
    reasons = {line["name"]: line.get("skipped") for line in map(json.loads, lines)}
    assert reasons == {
        names[0]: "broken", names[1]: "broken", names[2]: "no sound", names[3]: "no picture",
        names[4]: "w_elsewhere", names[5]: "silent", names[6]: "not_ambisonic", names[7]: None,
    }  # fmt: skip
    assert skipped(copy)["broken"] == 2


@pytest.mark.parametrize("seed", range(5))
def test_a_field_is_told_from_what_a_decoder_mixes_of_it(
    seed: int, beacon: Clip, tmp_path: Path
) -> None:
    """In scenes of any kind, with microphones that have flaws."""
    sound, mixed = tmp_path / "sound.m4a", tmp_path / "mixed.flac"
    scene = draw_scene(seed, Conditions(duration_s=4.0))
    write_youtube_audio(sound, render_sound(scene, samplerate=48_000).numpy(), 48_000)
    mixed_to_four(sound, mixed)

    right, wrong = (examine("abcdefghijk-0", beacon.video, path) for path in (sound, mixed))

    assert "skipped" not in right
    # Which wrong order it is, few sources may leave open.
    assert wrong["skipped"] in ("w_elsewhere", *READING_CODES)


def test_an_index_of_other_files_is_refused(copy: Path) -> None:
    with pytest.raises(MediaError, match=r"has no index: run python -m training\.data\.yt360"):
        read_index(copy)
    build_index(copy)
    read_index(copy)
    (copy / "audio" / "synth000000-0.m4a").unlink()
    with pytest.raises(MediaError, match="is not of what now lies in"):
        read_index(copy)
    assert yt360.main([str(copy / "video")]) == 2


def test_damaged_indexes_and_lists_end_with_a_sentence(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = copy / "index.jsonl"
    build_index(copy)
    whole = index.read_text()
    for text in ("", whole[:-20]):
        index.write_text(text)
        with pytest.raises(MediaError, match=r"index.jsonl cannot be read, or is damaged: run"):
            read_index(copy)
    for read, name in ((read_list, "list.txt"), (read_segments, "s.txt"), (read_manifest, "m.j")):
        (copy / name).write_bytes(b"\xff\xfe\x00\x01")
        with pytest.raises(MediaError, match=f"{name} is no text"):
            read(copy / name)

    index.unlink()
    (copy / ".index.jsonl.part").mkdir()
    assert yt360.main([str(copy)]) == 2
    assert f"{copy} cannot be written: Is a directory" in capsys.readouterr().err


def test_an_interrupted_examination_goes_on_where_it_was(copy: Path, root: Path) -> None:
    header, first, second, *_ = (root / "index.jsonl").read_text().splitlines()
    known = json.loads(second) | {"duration_s": 123.0}  # to be told from one examined anew
    (copy / ".index.jsonl.part").write_text(f"{header}\n{first}\n{json.dumps(known)}\n{first[:20]}")

    build_index(copy, workers=2)

    clips = read_index(copy)
    assert len(clips) == 8
    assert [clip.duration_s for clip in clips].count(123.0) == 1
    assert sorted(clip.name for clip in clips) == [clip.name for clip in clips]
    assert not (copy / ".index.jsonl.part").exists()


# --- crops ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def beacon(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """One thing that flickers and sounds, at 100 degrees left and 20 up, in files as YouTube's."""
    root = tmp_path_factory.mktemp("beacon")
    azimuth, elevation = math.radians(100), math.radians(20)
    height, width, seconds = 144, 256, 2.5
    rows, columns = np.mgrid[:height, :width]
    here = np.stack(
        [math.pi * (1 - 2 * (columns + 0.5) / width), math.pi * (0.5 - (rows + 0.5) / height)], -1
    )
    spot = angle_between(here, np.array([azimuth, elevation])) < 0.12
    frames = np.full((round(seconds * 24), height, width, 3), 40, np.uint8)
    for index, frame in enumerate(frames):
        frame[spot] = 250 if index % 7 else 150
    write_video(root / "picture.mp4", frames, rate_hz=24)
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * 48_000))
    write_youtube_audio(root / "sound.m4a", encode(noise, azimuth, elevation, 1), 48_000)
    return Clip("beacon", "beacon", root / "picture.mp4", root / "sound.m4a", seconds, (2, 1, 4, 0))


def heard_direction(sounds: torch.Tensor) -> np.ndarray:
    """Where the intensity of each crop points, unit vectors; a coder's noise only shortens it."""
    intensity = sounds[:, 1:].mean(dim=(2, 3)).numpy()
    length = np.linalg.norm(intensity, axis=1, keepdims=True)
    assert (length > 0.9).all()  # one source, thus near 1
    return np.asarray(intensity / length)


@pytest.mark.parametrize("guide", [Guide.MOTION, Guide.SOUND, Guide.OBJECTS])
@pytest.mark.parametrize("augment", [False, True])
def test_guided_crops_see_and_hear_what_is_there(beacon: Clip, guide: Guide, augment: bool) -> None:
    """Most guided crops have the beacon near their middle, in sound and picture alike."""
    there = [Detection(t / 4, math.radians(100), math.radians(20), 0.2, 0.2, 1.0) for t in range(9)]
    cropping = replace(
        PLAIN, n_viewpoints=1, guide=guide, augment=augment,
        fields_of_view_rad=(math.radians(60), math.radians(60)),
    )  # fmt: skip
    items = ClipCrops([beacon], NETWORK, cropping, draws=12, detections={"beacon": there})
    n_near = 0
    for index in range(len(items)):
        crop = items[index]
        picture = crop.pictures[0].mean(dim=(0, 1))
        bright = (picture > picture.min() + 0.6 * (picture.max() - picture.min())).float()
        front, left, up = heard_direction(crop.sounds)[0]
        # From here all is by what the sound says; the picture has to agree.
        if front > math.cos(math.radians(20)):
            n_near += 1
            grid = torch.linspace(-1, 1, 32)
            edge = math.tan(math.radians(30))
            right = float((bright.sum(0) * grid).sum() / bright.sum()) * edge
            down = float((bright.sum(1) * grid).sum() / bright.sum()) * edge
            assert right == pytest.approx(-left / front, abs=0.08)
            assert down == pytest.approx(-up / front, abs=0.08)
    assert n_near >= 7


def test_rotated_sound_is_heard_rotated(beacon: Clip) -> None:
    cropping = replace(PLAIN, n_viewpoints=3, rotate=True)

    crops = ClipCrops([beacon], NETWORK, cropping, seed=1)[0]

    azimuth = math.radians(100) + float(crops.rotations_rad)
    place = unit_vectors(np.array([azimuth, math.radians(20)]))
    front = heard_direction(crops.sounds)[:, 0]
    np.testing.assert_allclose(front, crops.directions.numpy() @ place, atol=0.03)
    assert crops.rotations_rad.abs() > 0.1


def test_viewpoints_and_moments_are_named(root: Path) -> None:
    cropping = replace(PLAIN, n_viewpoints=2, n_moments=2)

    crops = ClipCrops(read_index(root), NETWORK, cropping)[0]

    assert crops.pictures.shape == (4, 3, 8, 32, 32)
    assert crops.sounds.shape == (4, 4, 100, 24)
    assert crops.viewpoints.tolist() == [0, 1, 0, 1]
    assert crops.moments.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(crops.directions[:2], crops.directions[2:])
    assert not crops.sounds[0].allclose(crops.sounds[2], atol=1e-2)
    assert 0 <= crops.pictures.min() < crops.pictures.max() <= 1


def test_items_are_functions_of_seed_epoch_and_index(root: Path) -> None:
    cropping = Cropping(frame_height=96)
    clips = read_index(root)
    items = ClipCrops(clips, NETWORK, cropping, draws=2)
    assert len(items) == 8  # two draws of four recordings
    first = items[3]
    assert first.pictures.equal(ClipCrops(clips, NETWORK, cropping, draws=2)[3].pictures)
    assert not first.pictures.equal(
        ClipCrops(clips, NETWORK, cropping, draws=2, seed=1)[3].pictures
    )

    loader = DataLoader(items, 4, num_workers=1, collate_fn=Crops.stack)
    batches = list(loader)

    assert [batch.recordings.tolist() for batch in batches] == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert batches[0].pictures[3].equal(first.pictures)
    items.set_epoch(1)
    assert not items[3].pictures.equal(first.pictures)


def test_a_network_learns_from_files(root: Path) -> None:
    """From files to a step: every parameter of the network gets a gradient."""
    items = ClipCrops(read_index(root), NETWORK, Cropping(n_viewpoints=2, frame_height=96))
    pretext = Pretext(AvsaNetwork(NETWORK), SpatialAlignment())

    loss, figures = pretext(Crops.stack([items[0], items[1], items[2]]))
    torch.autograd.backward(loss)

    assert torch.isfinite(loss)
    assert set(figures) == {"instance accuracy", "place accuracy"}
    assert all(parameter.grad is not None for parameter in pretext.parameters())


def test_a_clip_that_breaks_later_is_replaced_and_counted(copy: Path) -> None:
    build_index(copy)
    clips = read_index(copy)
    for clip in clips[:2]:
        clip.audio.write_bytes(b"overwritten")
    items = ClipCrops(clips, NETWORK, PLAIN)

    crops = items[0]

    assert int(crops.recordings) != 0
    assert items.n_broken >= 1
    for clip in clips:
        clip.audio.unlink()
    with pytest.raises(MediaError, match="10 clips one after the other cannot be read"):
        items[1]


def test_clips_too_short_for_their_moments_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"8 of 8 clips are shorter than 5\.5 s"):
        ClipCrops(read_index(root), NETWORK, replace(PLAIN, n_moments=4))


@pytest.mark.parametrize(("duration_s", "count"), [(10.0, 4), (4.0, 3), (1.0, 1), (2.5, 2)])
def test_moments_lie_within_the_clip_and_apart(duration_s: float, count: int) -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_moments(rng, duration_s, count, 1.0) for _ in range(200)])

    assert drawn.min() >= 0
    assert drawn.max() <= duration_s - 1.0 + 1e-9
    assert (np.diff(drawn, axis=1) >= 1.5 - 1e-9).all()


# --- preparation ----------------------------------------------------------------------------------


def keyframes_s(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [
            float(p.pts * p.time_base) for p in container.demux(video=0)
            if p.is_keyframe and p.pts is not None and p.time_base is not None
        ]  # fmt: skip


def test_clips_are_coded_anew_to_be_quick_to_read(root: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    assert yt360_prepare.main([str(root), str(ready), "--height", "96", "--workers", "2"]) == 0
    build_index(ready)

    clips = read_index(ready)
    assert [clip.name for clip in clips] == [clip.name for clip in read_index(root)]
    assert {clip.components for clip in clips} == {(0, 1, 2, 3)}
    assert [clip.planar for clip in clips] == [clip.planar for clip in read_index(root)]
    with VideoReader(clips[0].video) as reader:
        assert (reader.info.width, reader.info.height) == (192, 96)
    np.testing.assert_allclose(np.diff(keyframes_s(clips[0].video)), 0.5, atol=0.05)
    # The same field, whichever way it is carried.
    for before, after in zip(read_index(root)[:2], clips[:2], strict=True):
        with open_audio(before.audio) as old, open_audio(after.audio) as new:
            was = old.read(0, old.info.n_samples)[list(before.components)]
            now = new.read(0, new.info.n_samples)
        assert new.info.samplerate == 24_000
        power_was, power_now = (was**2).mean(1), (now**2).mean(1)
        np.testing.assert_allclose(power_now, power_was, rtol=0.25, atol=1e-7)
        np.testing.assert_allclose(np.corrcoef(now), np.corrcoef(was), atol=0.1)


def test_preparation_goes_on_where_it_was_and_names_what_failed(copy: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    (copy / "video" / "synth000001-0.mp4").write_bytes(b"broken")
    assert yt360_prepare.main([str(copy), str(ready), "--height", "64"]) == 0
    times = {path: path.stat().st_mtime_ns for path in (ready / "video").iterdir()}
    (ready / "audio" / "synth000002-0.flac").unlink()

    assert yt360_prepare.main([str(copy), str(ready), "--height", "64"]) == 0

    again = [p.stem for p, time in times.items() if p.stat().st_mtime_ns != time]
    assert again == ["synth000002-0"]
    failed = [json.loads(line) for line in (ready / "failed.jsonl").read_text().splitlines()]
    assert [line["name"] for line in failed] == ["synth000001-0"]
    assert "cannot be read as video" in failed[0]["reason"]
    assert not (ready / "audio" / "synth000001-0.flac").exists()
    assert not [path for path in ready.iterdir() if path.name.startswith(".")]


def test_full_videos_are_cut_at_the_published_seconds(beacon: Clip, tmp_path: Path) -> None:
    sources, ready = tmp_path / "full", tmp_path / "ready"
    sources.mkdir()
    shutil.copy(beacon.video, sources / "abcdefghijk.mp4")
    shutil.copy(beacon.audio, sources / "abcdefghijk.m4a")
    shutil.copy(beacon.video, sources / "unlisted_id.mp4")
    (tmp_path / "segments.txt").write_text("abcdefghijk 0,1,40\n")

    code = yt360_prepare.main(
        [str(sources), str(ready), "--segments", str(tmp_path / "segments.txt"), "--height", "64"]
    )

    assert code == 0
    assert sorted(p.stem for p in (ready / "video").iterdir()) == ["abcdefghijk-0", "abcdefghijk-1"]
    (failed,) = (ready / "failed.jsonl").read_text().splitlines()
    assert "has less than 1.5 s at 40 s" in failed
    with open_audio(ready / "audio" / "abcdefghijk-1.flac") as reader:
        w, y, z, x = reader.read(0, reader.info.n_samples)
    assert reader.info.duration_s == pytest.approx(1.5, abs=0.05)
    assert math.degrees(math.atan2((w * y).mean(), (w * x).mean())) == pytest.approx(100, abs=1)
    assert (w * z).mean() / (w * w).mean() == pytest.approx(math.sin(math.radians(20)), abs=0.04)


def write_shot(path: Path, times_s: FloatArray, *, late_s: float) -> None:
    """Frames that brighten by 30 a second; sound that begins later, with a click at 3 s."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"crf": "4"})
        video.width, video.height, video.pix_fmt = 96, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("flac", rate=24_000, layout="quad")
        for time_s in times_s.tolist():
            level = np.full((48, 96), round(20 + 30 * time_s), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(level, "gray")
            frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        field = np.random.default_rng(0).integers(-30, 30, (round((6 - late_s) * 24_000), 4))
        field[round((3 - late_s) * 24_000)] = 30_000
        sound = av.AudioFrame.from_ndarray(field.astype(np.int16).reshape(1, -1), "s16", "quad")
        sound.sample_rate, sound.time_base = 24_000, Fraction(1, 24_000)
        sound.pts = round(late_s * 24_000)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


@pytest.mark.parametrize("rate_hz", [12.5, 24_000 / 1001, 25.0, 30_000 / 1001])
def test_frames_that_come_evenly_stay_as_they_are(rate_hz: float) -> None:
    """Whichever part of a frame a cut begins at, and though containers round to milliseconds."""
    clock_s = np.round(np.arange(2000) / rate_hz, 3)
    for start in range(60):
        near = (clock_s >= start - 0.5 / rate_hz) & (clock_s < start + 10)
        shown = yt360_prepare.shown_evenly(clock_s[near] - start, rate_hz)

        np.testing.assert_array_equal(shown, np.arange(near.sum()))


def test_clips_are_in_time_whenever_frames_and_sound_come(tmp_path: Path) -> None:
    """Of a phone that takes fewer frames in the dark, and of a recorder that begins late."""
    sources, ready = tmp_path / "full", tmp_path / "ready"
    sources.mkdir()
    slow_first = np.concatenate([np.arange(0, 3, 0.1), np.arange(3, 6, 1 / 30)])
    write_shot(sources / "abcdefghijk.mkv", slow_first, late_s=0.7)
    (tmp_path / "segments.txt").write_text("abcdefghijk 0,1\n")

    arguments = [str(sources), str(ready), "--segments", str(tmp_path / "segments.txt")]
    assert yt360_prepare.main([*arguments, "--height", "48"]) == 0

    for start in (0, 1):
        with VideoReader(ready / "video" / f"abcdefghijk-{start}.mp4") as video:
            seen = video.read(0, 10, size=(48, 96))
        shown_s = (seen.frames.mean((1, 2)) - 20) / 30
        assert seen.times_s[-1] == pytest.approx(6 - start, abs=0.11)
        np.testing.assert_allclose(shown_s, seen.times_s + start, atol=0.15)
        with open_audio(ready / "audio" / f"abcdefghijk-{start}.flac") as reader:
            heard = reader.read(0, reader.info.n_samples)[0]
        assert np.abs(heard).argmax() / 24_000 == pytest.approx(3 - start, abs=0.001)


def test_an_index_is_the_same_in_whatever_order_a_disk_lists_files(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here one clip has two sounds."""
    with open_audio(next((copy / "audio").glob("*0-0.m4a"))) as reader:
        field = reader.read(0, reader.info.n_samples)[[2, 1, 4, 0]]
        write_audio(reader.info.path.with_suffix(".flac"), field, reader.info.samplerate)
    build_index(copy)
    clips = read_index(copy)

    listed = Path.iterdir
    for backwards in (False, True):
        monkeypatch.setattr(
            Path, "iterdir", lambda path, b=backwards: iter(sorted(listed(path), reverse=b))
        )
        assert read_index(copy) == clips


def test_originals_are_kept(copy: Path) -> None:
    assert yt360_prepare.main([str(copy), str(copy)]) == 2
    assert yt360_prepare.main([str(copy / "audio"), str(copy / "new")]) == 2


def test_the_synthetic_command_writes_the_layout(tmp_path: Path) -> None:
    arguments = ["--recordings", "2", "--clips", "1", "--duration-s", "2", "--height", "72"]

    assert yt360_synthetic.main([str(tmp_path), *arguments]) == 0

    assert yt360.main([str(tmp_path)]) == 0
    with VideoReader(next((tmp_path / "video").iterdir())) as reader:
        assert reader.info.width / reader.info.height == pytest.approx(16 / 9, rel=0.02)
