"""Collages: a patch is where it is said to be, its sound comes from there, the others are mute."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import features
from model.sphere import tangent_crops, tangent_map
from tests.training.clips import write_clip
from tests.training.test_pretrain import ALONE, TINY
from training.data.collage import (
    Collage,
    Excerpt,
    Patch,
    draw_collage,
    find_clips,
    main,
    read_excerpt,
    render_collage,
    render_picture,
    render_sound,
)
from training.data.ordinary import Clip, examine_clip
from training.data.windows import kept_windows, load_window
from training.pretrain_scorer import train

DURATION_S = 2.0
TONES_HZ = {"a": 500.0, "b": 1300.0, "c": 3100.0}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of different shapes, rates and tones."""
    folder = tmp_path_factory.mktemp("clips")
    sizes, rates = ((64, 96), (96, 64), (72, 72)), (25, 30, 24)
    for (name, tone_hz), size, rate_hz in zip(TONES_HZ.items(), sizes, rates, strict=True):
        write_clip(folder / f"{name}.mp4", tone_hz=tone_hz, size=size, rate_hz=rate_hz)
    return folder


@pytest.fixture(scope="session")
def clips(folder: Path) -> list[Clip]:
    return [examine_clip(path, DURATION_S) for path in sorted(folder.iterdir())]


def first_with(clips: list[Clip], n: int) -> Collage:
    """The first collage of `n` patches, one of which sounds."""
    collages = (draw_collage(seed, clips, DURATION_S) for seed in range(1000))
    return next(
        c for c in collages if len(c.patches) == n and sum(p.sounds for p in c.patches) == 1
    )


def excerpts(collage: Collage) -> list[Excerpt]:
    return [read_excerpt(collage, patch, 252) for patch in collage.patches]


def off_deg(angle_rad: float, truth_rad: float) -> float:
    return abs(math.degrees(math.remainder(angle_rad - truth_rad, math.tau)))


@pytest.mark.parametrize("case", range(6))
def test_a_clip_moves_and_sounds_where_it_was_put(clips: list[Clip], case: int) -> None:
    """By the means of motion and intensity, which are computed by other code than the drawing."""
    alone = clips[case % 3 :][:1]
    # A lot of noise bends the mean, as it should.
    drawn = [(seed, draw_collage(seed, alone, DURATION_S)) for seed in range(30)]
    seed, collage = [(seed, collage) for seed, collage in drawn if collage.snr_db > 10][case]
    (patch,) = collage.patches

    window, faults = render_collage(seed, alone, DURATION_S)

    # Squared, so that grain all over the picture does not count.
    moved = window.motion.energy.sum(0).double() ** 2
    azimuths = features.azimuths(len(moved))
    seen = torch.atan2((moved * azimuths.sin()).sum(), (moved * azimuths.cos()).sum())
    x, y, _ = features.intensity(window.covariance).sum((0, 1)).tolist()
    assert not faults
    assert moved.max() > 0
    assert off_deg(float(seen), patch.azimuth_rad) <= 5
    assert off_deg(math.atan2(y, x), patch.azimuth_rad) <= 10  # reflections bend it a little
    assert len(window.covariance) == len(window.motion.maps)


def test_a_patch_shows_what_is_heard_of_it(clips: list[Clip]) -> None:
    """Clips that light up and sound together, three times in two seconds; from half a time on."""
    collage = first_with(clips, 1)
    patch = replace(collage.patches[0], start_s=1 / 3, sounds=True)

    excerpt = read_excerpt(collage, patch, 252)

    assert excerpt.sound is not None
    _, height, width = excerpt.frames.shape
    lit = excerpt.frames[:, height // 2, width // 2].astype(float)
    stretches = np.array_split(excerpt.sound, len(lit))
    loud = [float(np.sqrt(np.mean(stretch**2))) for stretch in stretches]
    assert np.corrcoef(lit, loud)[0, 1] > 0.7


def test_a_patch_seen_from_the_centre_is_the_clip(clips: list[Clip]) -> None:
    collage = replace(first_with(clips, 3), shake_rad=0.0, flicker=0.0, noise=0.0)
    # Whole columns, so that the crop is not snapped to a neighbour.
    patches = [
        replace(p, azimuth_rad=round(p.azimuth_rad / math.tau * 504) * math.tau / 504, edge=0.01)
        for p in collage.patches
    ]
    collage = replace(collage, patches=tuple(patches))
    read = [replace(excerpt, frames=shaded(excerpt.frames)) for excerpt in excerpts(collage)]
    frames = torch.from_numpy(render_picture(collage, read, height=252)).double().movedim(-1, 1)

    for patch, excerpt in zip(patches, read, strict=True):
        fov_rad = 2 * math.atan(patch.half_size[0])
        size = excerpt.frames.shape[1:]
        crop = tangent_map(patch.elevation_rad, fov_rad, (size[0], size[1]), (252, 504))
        seen = tangent_crops(frames, [patch.azimuth_rad], crop)[0, :, 0].numpy()
        inner = slice(2, -2), slice(2, -2)
        error = np.abs(seen[:, *inner] - excerpt.frames[:, *inner])
        assert excerpt.frames.std() > 20
        assert error.mean() < 6  # resampled twice: the square's outline is soft
        assert np.median(error) <= 1.5


def shaded(frames: np.ndarray) -> np.ndarray:
    """Brighter to the right and, less so, to the bottom: as it is mirrored in no way."""
    down, right = (
        np.linspace(0, most, n) for most, n in zip((60, 120), frames.shape[1:], strict=True)
    )
    return (frames / 4 + down[:, None] + right).astype(np.uint8)


@pytest.mark.parametrize("name", ["", "shake_rad", "flicker", "noise"])
def test_what_befalls_the_whole_is_seen_beside_patches_too(clips: list[Clip], name: str) -> None:
    shake_rad, flicker, noise = (
        strength if name == each else 0.0
        for each, strength in {"shake_rad": 0.05, "flicker": 0.05, "noise": 3.0}.items()
    )
    collage = replace(
        first_with(clips, 1), patches=(), shake_rad=shake_rad, flicker=flicker, noise=noise
    )

    frames = render_picture(collage, [], height=64)

    assert frames.shape == (len(collage.times_s), 64, 128, 1)
    assert (frames != frames[0]).any() == bool(name)


def test_mute_patches_make_no_sound(clips: list[Clip]) -> None:
    collage = replace(first_with(clips, 3), snr_db=60.0)
    read = excerpts(collage)
    field = render_sound(collage, read)

    (loud,) = (patch for patch in collage.patches if patch.sounds)
    alone = replace(collage, patches=(loud,))
    assert np.array_equal(field, render_sound(alone, excerpts(alone)))
    spectrum = np.abs(np.fft.rfft(field[0] * np.hanning(field.shape[1])))
    bands = {name: (0.75 * hz, 1.25 * hz) for name, hz in TONES_HZ.items()}
    levels = {
        name: np.sqrt(np.mean(spectrum[slice(*(round(hz * DURATION_S) for hz in band))] ** 2))
        for name, band in bands.items()
    }
    heard = levels.pop(loud.clip.path.stem)
    assert all(20 * math.log10(heard / level) > 35 for level in levels.values())


def test_each_is_as_loud_as_is_drawn(clips: list[Clip]) -> None:
    drawn = replace(first_with(clips, 2), snr_db=60.0)
    first, second = (replace(patch, sounds=True) for patch in drawn.patches)
    tones = [round(DURATION_S * TONES_HZ[patch.clip.path.stem]) for patch in (first, second)]

    def difference_db(level_db: float) -> float:
        patches = (replace(first, level_db=level_db), replace(second, level_db=0.0))
        collage = replace(drawn, patches=patches)
        spectrum = np.abs(np.fft.rfft(render_sound(collage, excerpts(collage))[0]))
        one, other = (np.linalg.norm(spectrum[at - 20 : at + 21]) for at in tones)
        return float(20 * np.log10(one / other))

    assert difference_db(6.0) - difference_db(-6.0) == pytest.approx(12, abs=0.2)


def test_nothing_but_its_sound_tells_which_patch_is_heard() -> None:
    """Size, place, border and shape are the same in the mean, over pairs of one collage."""
    clips = [Clip(Path(f"{i}.mp4"), 0.5 * 1.4**i, 0.0, (0.0,)) for i in range(6)]
    differences, heard_together = [], 0
    for seed in range(1500):
        patches = draw_collage(seed, clips, DURATION_S).patches
        heard = [facts(patch) for patch in patches if patch.sounds]
        mute = [facts(patch) for patch in patches if not patch.sounds]
        assert len({patch.clip.path for patch in patches}) == len(patches)
        for patch in patches:
            width, height = patch.half_size
            assert width / height == pytest.approx(patch.clip.aspect)
        assert 1 <= len(heard) <= 2
        heard_together += len(heard) == 2
        if mute:
            differences.append(np.mean(heard, axis=0) - np.mean(mute, axis=0))
    means = np.mean(differences, axis=0)
    errors = np.std(differences, axis=0) / math.sqrt(len(differences))

    assert len(differences) > 900
    assert 0.12 < heard_together / 1500 < 0.2  # of those with several one in five
    assert np.all(np.abs(means) < 4 * errors)


def facts(patch: Patch) -> list[float]:
    return [
        patch.radius_rad, patch.elevation_rad, patch.edge, patch.clip.aspect, patch.level_db,
        math.cos(patch.azimuth_rad), math.sin(patch.azimuth_rad),
    ]  # fmt: skip


def test_patches_do_not_cover_each_other() -> None:
    clips = [Clip(Path(f"{i}.mp4"), 16 / 9, 0.0, (0.0,)) for i in range(8)]
    for seed in range(100):
        patches = draw_collage(seed, clips, DURATION_S).patches
        centres = [
            np.array(
                [
                    math.cos(p.elevation_rad) * math.cos(p.azimuth_rad),
                    math.cos(p.elevation_rad) * math.sin(p.azimuth_rad),
                    math.sin(p.elevation_rad),
                ]
            )
            for p in patches
        ]
        for i, one in enumerate(patches):
            for other, centre in zip(patches[:i], centres[:i], strict=True):
                apart = math.acos(np.clip(centres[i] @ centre, -1, 1))
                assert apart > one.radius_rad + other.radius_rad


def test_the_same_seed_is_the_same_window(clips: list[Clip]) -> None:
    (first, _), (again, _), (other, _) = (render_collage(s, clips, DURATION_S) for s in (3, 3, 4))

    assert torch.equal(first.covariance, again.covariance)
    assert torch.equal(first.motion.maps, again.motion.maps)
    assert first.covariance.shape != other.covariance.shape or not torch.equal(
        first.covariance, other.covariance
    )


def test_a_clip_that_breaks_is_left_out_and_named(clips: list[Clip]) -> None:
    broken = Clip(clips[0].path, 1.5, 0.0, (50.0,))
    among = [broken, *clips[1:]]
    seed = next(
        seed
        for seed in range(100)
        if any(patch.clip == broken for patch in draw_collage(seed, among, DURATION_S).patches)
    )

    window, faults = render_collage(seed, among, DURATION_S)

    without, _ = render_collage(seed, clips[1:], DURATION_S)
    assert list(faults) == [broken.path]
    assert "50.0 s" in faults[broken.path]
    assert torch.equal(window.covariance, without.covariance)


def test_a_folder_becomes_windows_to_train_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "damaged.mp4").write_bytes(b"no video at all")
    (tmp_path / "notes.txt").write_text("not a video")
    output = tmp_path / "out" / "windows"
    command = [str(tmp_path), str(output), "--count", "4", "--duration-s", "2", "--seed", "5"]

    assert main(command) == 0
    told = capsys.readouterr().err
    windows = kept_windows(output)
    assert [path.stem for path in windows] == [f"collage-000000{i}" for i in range(5, 9)]
    assert "1 videos" in told
    assert "damaged.mp4" in told
    assert "notes.txt" not in told

    before = [path.stat().st_mtime_ns for path in windows]
    kept = load_window(windows[1])
    windows[1].unlink()
    assert main([*command, "--workers", "2"]) == 0
    assert [p.stat().st_mtime_ns == t for p, t in zip(windows, before, strict=True)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert torch.equal(load_window(windows[1]).covariance, kept.covariance)

    capsys.readouterr()
    assert main([*command, "--duration-s", "2.5"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "of other scenes (duration_s 2.0, not 2.5): name another folder" in told

    run = train(replace(TINY, steps=2), windows, [], tmp_path / "run", ALONE)
    assert run.step == 2
    assert (tmp_path / "run" / "scorer.safetensors").exists()


@pytest.mark.parametrize("content", [{}, {"a.mp4": b""}, {"a.mp4": b"x" * 99, "b.mov": b"y"}])
def test_a_folder_without_usable_clips_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: dict[str, bytes]
) -> None:
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)

    assert main([str(tmp_path), str(tmp_path / "out")]) == 2

    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training")]
    assert len(lines) == 1
    assert str(tmp_path) in lines[0]
    assert not (tmp_path / "out").exists()


def test_windows_too_short_to_train_on_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), str(tmp_path / "out"), "--duration-s", "0.5"]) == 2

    assert "--duration-s 0.5" in capsys.readouterr().err


def test_clips_are_found_with_reasons_for_the_others(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    write_clip(tmp_path / "short.mp4", duration_s=1.0)

    clips, faults = find_clips(tmp_path, DURATION_S)

    assert [clip.path.name for clip in clips] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [path.name for path in faults] == ["short.mp4"]
