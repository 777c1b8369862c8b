"""AVC-Bin, AVSA-Bin, yaw errors and the variants' table: oracles, and from files to figures."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.ambisonics import encode
from model.checkpoint import save_avsa
from model.errors import OptionError, UnusableContent
from model.features import SAMPLERATE
from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.viewpoints import Sound, SoundInput
from model.yaw_scores import facing, yaw_scores
from training.data import yt360_synthetic
from training.data.clips import Clip, ClipCrops, Cropping
from training.data.kept_clips import Stage, keep_clips
from training.data.scenes import Conditions, draw_scene, render_picture, render_sound
from training.data.yt360 import build_index
from training.evaluate import variants
from training.evaluate.__main__ import main
from training.evaluate.alignment import Looking, summary, yaw_errors_deg
from training.evaluate.bins import (
    LEAST_DEG,
    Pairs,
    Probe,
    _fit,
    _foreign,
    avc_bin,
    avsa_bin,
    check_foreign,
    encode_pairs,
)
from training.evaluate.yaw_by_objective import yaw_scorer
from training.objectives.named import Task, maker
from training.objectives.puzzle import Puzzle

TINY = AvsaConfig(
    widths=(4, 4, 8, 8), embedding=6, crop_px=16, n_frames=4, frame_rate_hz=8.0, depth=1,
    sound=SoundInput(n_bands=8), sound_s=0.5,
)  # fmt: skip
SCENE = Conditions(duration_s=2.5, n_sources=1, n_distractors=0, snr_db=25.0, body="patch")
FAST = Probe(draws=2, epochs=30, hidden=32)


# --- heads ----------------------------------------------------------------------------------------


def pairs(seed: int, turned: str) -> Pairs:
    """Tokens of an ideal network: who it is, and by how much the field was rotated."""
    rng = np.random.default_rng(seed)
    n, k = 96, 2
    identity = torch.from_numpy(rng.integers(0, 2, (n, 1)) * 2.0 - 1).float()

    def tokens(first: Tensor, second: NDArray[np.float64]) -> Tensor:
        return torch.cat([first, torch.from_numpy(second).float()], 1)[:, None].expand(-1, k, -1)

    def heard(angles: NDArray[np.float64]) -> NDArray[np.float64]:
        halved = angles if turned == "blind to half turns" else angles / 2
        answer = np.abs(np.sin(halved)) if turned != "deaf" else 0 * angles
        return np.asarray(8 * answer[:, None])

    nothing = np.zeros((n, 1))
    angles_deg = np.linspace(LEAST_DEG, 180, n)
    video = tokens(identity, nothing)
    return Pairs(
        video,
        tokens(identity, heard(np.zeros(n))),
        (video, tokens(identity, heard(rng.uniform(-math.pi, math.pi, n)))),
        (video, tokens(identity, heard(np.deg2rad(angles_deg)))),
        torch.from_numpy(angles_deg),
        torch.arange(n),
    )


def test_an_ideal_network_is_told_right_at_every_angle() -> None:
    found = avsa_bin(pairs(0, "ideal"), pairs(1, "ideal"), FAST)

    assert found["stratified"] == found["fitting"] == 1
    assert all(share == 1 for name, share in found.items() if name.endswith("deg"))
    assert found["published"] > 0.93  # but for fields that were hardly rotated


def test_a_network_blind_to_half_turns_fails_there_alone() -> None:
    found = avsa_bin(pairs(0, "blind to half turns"), pairs(1, "blind to half turns"), FAST)

    assert found["60 to 100 deg"] == 1
    assert found["140 to 180 deg"] < found["100 to 140 deg"] - 0.1


def test_a_deaf_network_is_at_chance() -> None:
    found = avsa_bin(pairs(0, "deaf"), pairs(1, "deaf"), FAST)

    assert found["published"] == found["stratified"] == 0.5


def test_the_rate_falls_by_ten_at_four_fifths(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *_: rates.append(self.param_groups[0]["lr"])
    )
    made = pairs(0, "ideal")

    _fit(made.video, made.audio, *made.turned, Probe(epochs=10, batch=192, learning_rate=1e-3))

    assert rates == pytest.approx([1e-3] * 8 + [1e-4] * 2)


def test_foreign_sound_is_of_another_recording() -> None:
    longer = replace(FAST, epochs=80)

    def signs(count: int) -> Tensor:
        return torch.randn(count, 1, 8).sign().expand(-1, 2, -1)

    own = replace(pairs(0, "ideal"), video=signs(96))
    told, blind = replace(own, audio=own.video), replace(own, audio=signs(96))
    # Over 25 seeds 0.85 to 0.93 with common signs, 0.42 to 0.56 without.
    assert avc_bin(told, told, longer) > 0.8
    assert avc_bin(blind, replace(blind, audio=signs(96)), longer) < 0.65
    alike = replace(told, recordings=torch.zeros(96, dtype=torch.int64))
    with pytest.raises(UnusableContent, match="can be read are of one recording"):
        avc_bin(alike, alike, FAST)


def test_where_most_clips_were_broken_others_have_foreign_sound_all_the_same() -> None:
    """What takes their places may be of one recording."""
    made = pairs(0, "ideal")
    rows = torch.arange(96)[:, None, None].expand(-1, 2, 8).float()
    for recordings in ([0] * 90 + [1] * 6, [0, 1, 0, 0, 2, 0, 0, 0] * 12, [*range(48)] * 2):
        own = replace(made, video=rows, audio=rows, recordings=torch.tensor(recordings))
        video, audio = _foreign(own)

        assert video.equal(rows)
        assert (own.recordings[audio[:, 0, 0].long()] != own.recordings).all()


def test_a_recording_of_many_clips_has_foreign_sound_in_one_of_few(tmp_path: Path) -> None:
    """Pairs are drawn by recording, of each as many."""
    kept = keep_clips(tmp_path / "few", Stage(SCENE, height=48), 4, seed=0)
    clips = [*(replace(clip, recording="long") for clip in kept.clips[:3]), kept.clips[3]]
    items = ClipCrops(clips, TINY, Cropping(n_viewpoints=2, frame_height=48), media=kept)

    check_foreign(clips)
    found = encode_pairs(AvsaNetwork(TINY).eval(), items, FAST)

    assert found.recordings.bincount().tolist() == [FAST.draws, FAST.draws]
    assert 0 <= avc_bin(found, found, replace(FAST, epochs=1)) <= 1


def test_angles_are_in_equal_shares_and_fields_are_rotated_by_them(tmp_path: Path) -> None:
    kept = keep_clips(tmp_path / "few", Stage(SCENE, height=48), 4, seed=0)
    cropping = Cropping(n_viewpoints=2, frame_height=48, augment=False)
    items = ClipCrops(kept.clips, TINY, cropping, media=kept)
    heard: list[Tensor] = []

    class Listening(AvsaNetwork):
        def forward(self, crops: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
            heard.append(sound)
            return super().forward(crops, sound)

    found = encode_pairs(Listening(TINY).eval(), items, Probe(draws=5))

    assert found.video.shape == found.audio.shape == (20, 2, 8)
    shares = np.histogram(found.angles_deg, 4, (LEAST_DEG, 180))[0]
    assert shares.tolist() == [5, 5, 5, 5]
    plain = items.of_epoch(10, 0).sounds
    rotated = [items.of_epoch(10, 0, rotation_rad=math.radians(sign * a)).sounds
               for a in found.angles_deg[:1].tolist() for sign in (-1, 1)]  # fmt: skip
    given = heard[40][0]
    assert min(float((given - sound).abs().max()) for sound in rotated) < 1e-4
    assert float((given - plain).abs().max()) > 0.01


# --- degrees --------------------------------------------------------------------------------------


class Beacon:
    """A spot that sounds, straight ahead of one of four viewpoints; the field may be turned."""

    def __init__(self, azimuth_deg: float, turned_deg: float = 0.0) -> None:
        self.azimuth_deg, self.turned_deg = azimuth_deg, turned_deg

    def picture(
        self, clip: Clip, start_s: float, length_s: float, size: tuple[int, int], *, colour: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        assert colour
        assert 0 <= start_s <= clip.duration_s - length_s
        frames = np.zeros((8, *size, 3), np.uint8)
        column = round(size[1] * (0.5 - self.azimuth_deg / 360))
        frames[:, size[0] // 2 - 3 : size[0] // 2 + 3, np.arange(column - 3, column + 3)] = 255
        return frames, start_s + np.arange(8) / 16

    def sound(self, clip: Clip, starts_s: NDArray[np.float64], network: AvsaConfig) -> Tensor:
        assert clip.duration_s > starts_s.max()
        noise = np.random.default_rng(0).standard_normal(round(network.sound_s * SAMPLERATE))
        field = encode(0.1 * noise, math.radians(self.azimuth_deg + self.turned_deg), 0.0, 1)
        return network.sound.covariance(torch.from_numpy(field)).expand(len(starts_s), -1, -1, -1)


class Ideal(AvsaNetwork):
    """Sees how bright a crop is, and hears how much comes from the front."""

    def encode_video(self, crops: Tensor) -> Tensor:
        return crops.mean(dim=(2, 3, 4, 5))[..., None]

    def encode_audio(self, sound: Tensor) -> Tensor:
        return sound[:, :, 5].mean(dim=(2, 3))[..., None]


def product(_network: AvsaNetwork, video: Tensor, audio: Tensor) -> Tensor:
    return (video * audio[facing(len(video), len(audio), audio.device)]).sum((1, 2))


@pytest.mark.parametrize("azimuth_deg", [0, 90, -90])
@pytest.mark.parametrize("turned_deg", [0, 40, -115, 180])
def test_an_ideal_network_is_wrong_by_what_the_field_was_turned(
    azimuth_deg: float, turned_deg: float
) -> None:
    clip = Clip("a", "a", Path("a"), Path("a"), 3.0, (0, 1, 2, 3))

    (error,) = yaw_errors_deg(
        Ideal(TINY), [clip], product, looking=Looking(n_moments=2, frame_height=64),
        media=Beacon(azimuth_deg, turned_deg),
    )  # fmt: skip

    assert error == pytest.approx(abs(turned_deg), abs=0.6)


@pytest.mark.parametrize("sound", [Sound.AMBISONIC, Sound.DIRECTIONAL])
def test_the_papers_features_cannot_tell_half_turns_on_the_horizon(sound: Sound) -> None:
    config = replace(TINY, sound=SoundInput(sound, 8, magnitude=sound is Sound.AMBISONIC))
    clip = Clip("a", "a", Path("a"), Path("a"), 3.0, (0, 1, 2, 3))
    heard: list[Tensor] = []

    def listen(network: AvsaNetwork, video: Tensor, audio: Tensor) -> Tensor:
        heard.append(audio)
        return yaw_scores(network, video, audio)

    network = AvsaNetwork(config)
    yaw_errors_deg(
        network, [clip], listen, looking=Looking(n_moments=1, frame_height=64), media=Beacon(90)
    )

    differences = (heard[0] - heard[0].roll(36, 0)).abs().max()
    blind = bool(differences < 1e-3 * (heard[0].max() - heard[0].min()))
    assert blind is (sound is Sound.AMBISONIC)
    assert not torch.allclose(heard[0], heard[0].roll(18, 0), atol=1e-5)


def test_shares_and_median() -> None:
    found = summary(np.array([0.0, 10.0, 25.0, 170.0]))

    assert found == {
        "median error": 17.5, "within 20": 0.5, "within 30": 0.75, "beyond 150": 0.25
    }  # fmt: skip


@pytest.mark.parametrize("task", [Task.PUZZLE, Task.PUZZLE_AVC, Task.MASKED, Task.REGRESSION])
def test_other_objectives_score_yaws_by_what_they_learned(task: Task) -> None:
    """As their own losses see samples whose sounds are those that face the crops."""
    torch.manual_seed(0)
    network, objective = AvsaNetwork(TINY).eval(), maker(task, TINY, 16)().eval()
    video, audio = torch.randn(4, 8), torch.randn(24, 8)

    scores = yaw_scorer(task, objective)(network, video, audio)

    assert scores.shape == (24,)
    assert torch.isfinite(scores).all()
    assert scores.std() > 1e-4
    if isinstance(objective, Puzzle):
        index = 7
        heard = audio[facing(4, 24, audio.device)[index]]
        loss, _ = objective.compared(video[None], heard[None], torch.arange(4)[None])
        assert float(scores[index]) == pytest.approx(-float(loss.detach()), abs=1e-5)


# --- scenes in memory -----------------------------------------------------------------------------


def test_kept_scenes_are_what_is_rendered(tmp_path: Path) -> None:
    stage = Stage(SCENE, least_radius_rad=math.radians(12), height=48)
    kept = keep_clips(tmp_path / "few", stage, 3, seed=0, workers=2)
    scene = stage.scenes(3, 0)[1]
    clip = kept.clips[1]

    frames, times_s = kept.picture(clip, 0.5, 1.0, (48, 96), colour=True)

    expected = render_picture(scene, height=48, rate_hz=16.0, colour=True).numpy()
    assert times_s.tolist() == [(8 + index) / 16 for index in range(16)]
    assert (frames == expected[8:24]).all()
    grey, _ = kept.picture(clip, 0.5, 1.0, (24, 48), colour=False)
    assert grey.shape == (16, 24, 48)
    assert abs(float(grey.mean()) - float(frames.mean())) < 25
    field = render_sound(scene, samplerate=SAMPLERATE).numpy()[:, SAMPLERATE : SAMPLERATE * 3 // 2]
    expected_cov = TINY.sound.covariance(torch.from_numpy(field))
    (cov,) = kept.sound(clip, np.array([1.0]), TINY)
    inside = slice(2, -2)  # transforms at the edges see what lies beyond
    torch.testing.assert_close(cov[inside], expected_cov[inside], rtol=1e-3, atol=1e-6)
    radii = [source.body.radius for s in stage.scenes(3, 0) for source in s.sources if source.body]
    assert min(radii) >= math.radians(12)
    assert draw_scene(scene.seed, SCENE).sources[0].level_db == scene.sources[0].level_db


def texture_follows_sound(stage: Stage, seed: int) -> float:
    """Correlation of contrast in the middle of the one patch with how loud it is."""
    (scene,) = stage.scenes(1, seed)
    (source,) = scene.sources
    assert source.body is not None
    frames = render_picture(scene, height=96, rate_hz=16.0, colour=False).numpy()
    at = np.linspace(0, len(source.envelope.level) - 1, len(frames) + 1)[:-1].round().astype(int)
    rows = np.round((0.5 - source.body.elevation[at] / np.pi) * 96).astype(int)
    columns = np.round((0.5 - source.body.azimuth[at] / (2 * np.pi)) * 192).astype(int)
    near = np.arange(-4, 5)
    contrast = [
        frame[row + near][:, (column + near) % 192].std()
        for frame, row, column in zip(frames, rows, columns, strict=True)
    ]
    return float(np.corrcoef(contrast, source.envelope.level[at])[0, 1])


def test_patches_show_their_sound_where_that_is_asked() -> None:
    conditions = replace(
        SCENE, duration_s=4.0, envelope="on-off", offscreen=False, shaken=False
    )  # fmt: skip
    plain = Stage(conditions, least_radius_rad=math.radians(18), plain=True)

    told = [texture_follows_sound(plain, 100 * seed) for seed in range(6)]
    untold = [texture_follows_sound(replace(plain, plain=False), 100 * seed) for seed in range(6)]

    assert np.median(told) > 0.8
    assert np.median(untold) < 0.5


# --- the commands ---------------------------------------------------------------------------------


def test_bins_from_files_to_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yt360_synthetic.write_layout(
        tmp_path, recordings=5, clips=1, conditions=replace(SCENE, duration_s=2.0), height=90
    )
    build_index(tmp_path)
    ids = [yt360_synthetic.identity(index) for index in range(5)]
    (tmp_path / "some.txt").write_text("\n".join(ids[:3]))
    (tmp_path / "others.txt").write_text("\n".join(ids[3:]))
    torch.manual_seed(0)
    save_avsa(tmp_path / "avsa.safetensors", AvsaNetwork(TINY), {})

    (tmp_path / "one.txt").write_text(ids[4])
    command = [
        "bins", str(tmp_path / "avsa.safetensors"), "--clips", str(tmp_path), "--train-ids",
        str(tmp_path / "some.txt"), "--probe", "few-clips", "--draws", "2", "--moments", "2",
        "--frame-height", "64", "--report", str(tmp_path / "r.json"), "--test-ids",
    ]  # fmt: skip

    for asked, told in (
        ("some.txt", "3 recordings are both learned from and measured on, as synth000000"),
        ("one.txt", "All clips (1) are of the recording synth000004: foreign sound is of"),
    ):
        capsys.readouterr()
        assert main([*command, str(tmp_path / asked)]) == 2
        assert told in capsys.readouterr().err
    status = main([*command, str(tmp_path / "others.txt")])

    assert status == 0
    report = json.loads((tmp_path / "r.json").read_text())
    views = [f"{how}, {k} viewpoints" for how in ("encoders", "translated") for k in (1, 4)]
    assert list(report) == [*views, "yaw, encoders", "yaw, translated"]
    for name in views:
        assert {"AVC-Bin", "AVSA-Bin published", "AVSA-Bin stratified"} <= set(report[name])
        assert all(0 <= value <= 1 for value in report[name].values())
    assert all(0 <= report[name]["median error"] <= 180 for name in report if "yaw" in name)


def test_the_table_is_made_and_gone_on_with(tmp_path: Path) -> None:
    budget = variants.Budget(
        steps=3, first_steps=2, n_train=8, n_test=4, n_probed=4, n_validated=1,
        probe=Probe(draws=1, epochs=2),
    )  # fmt: skip
    two = [variants.VARIANTS[0], next(v for v in variants.VARIANTS if v.task is Task.REGRESSION)]
    made = partial(variants.run, tmp_path, variants=two)

    (first,) = variants.run(tmp_path, variants=two[:1], budget=budget, workers=1)
    rows = made(budget=budget, workers=2)

    assert rows[0] == first
    assert [row["name"] for row in rows] == [variant.name for variant in two]
    assert all(row["steps"] == 3 and 0 <= row["median error"] <= 180 for row in rows)
    table = (tmp_path / "variants.md").read_text()
    assert all(variant.name in table for variant in two)
    assert json.loads((tmp_path / "variants.json").read_text()) == rows
    files = [tmp_path / variant.key / "row.json" for variant in two]
    times = [file.stat().st_mtime_ns for file in files]
    assert made(budget=budget, workers=2) == rows
    assert [file.stat().st_mtime_ns for file in files] == times
    with pytest.raises(OptionError, match="use another --output"):
        made(budget=replace(budget, steps=4), workers=1)


def test_rows_and_seed_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training is another by its seed alone; rows by any of the texts."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(variants, "run", lambda output, **given: asked.update(given))
    (tmp_path / "variants.md").write_text("")
    command = ["variants", "--output", str(tmp_path), "--seed", "3", "--rows"]

    assert main([*command, "objective AVC", "depth"]) == 0

    names = [variant.name for variant in asked["variants"]]
    assert names == ["AVC", "depth 2", "depth 4"]
    assert asked["budget"] == replace(variants.Budget(), seed=3)
    config = asked["variants"][0].config
    assert config(100, 3) == replace(config(100), seed=3)
    assert main([*command, "sideways"]) == 2


def test_variants_are_those_of_the_paper_and_its_rebuttal() -> None:
    configs = [variant.config(100) for variant in variants.VARIANTS]

    assert {config.task for config in configs} == set(Task)
    assert {config.network.viewpoints for config in configs} == {1, 2, 4, 8}
    assert {config.network.sound.sound for config in configs} == set(Sound)
    assert {(c.network.translator, c.network.depth) for c in configs} >= {
        ("none", 1), ("mlp", 1), ("transformer", 1), ("transformer", 2), ("transformer", 4)
    }  # fmt: skip
    assert {variant.first_phase is None for variant in variants.VARIANTS} == {True, False}
    assert len({variant.key for variant in variants.VARIANTS}) == len(configs)
    assert {config.batch for config in configs} == {variants.CONFIG.batch}
