"""Localisation maps: a network whose map is known, panoramas, errors by a slow plain version."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model import features
from model.ambisonics import encode
from model.checkpoint import load_scorer, save_avsa
from model.features import SAMPLERATE
from model.judges import AvsaScorer
from model.learned import sound_input
from model.moments import FRAME_SIZE, moment_starts
from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.sphere import column_azimuths, tangent_crops, tangent_map
from model.take import Take
from model.viewpoints import Sound, SoundInput
from tests.conftest import EXAMPLE
from tests.model.networks.test_equivariant import covariance, picture
from training.data.manifest import KnownTake
from training.data.scenes import draw_scene
from training.data.takes import write_take
from training.evaluate import localise
from training.evaluate.__main__ import main
from training.evaluate.localise import (
    MAP_SIZE,
    by_azimuth,
    chance_deg,
    error_deg,
    grad_cam,
    panorama,
)

TINY = AvsaConfig(
    widths=(4, 4, 4, 4), embedding=4, viewpoints=4, crop_px=32, n_frames=4, frame_rate_hz=8.0,
    sound=SoundInput(n_bands=24), sound_s=0.5,
)  # fmt: skip


class Levels(nn.Module):
    """Feature maps that are the crop itself, one channel a colour, with a fourth of ones."""

    def feature_maps(self, clips: Tensor) -> Tensor:
        return torch.cat([clips, torch.ones_like(clips[:, :1])], dim=1)


class Seeing(AvsaNetwork):
    """Embeddings are tokens on the unit sphere; nothing is standardised."""

    def __init__(self) -> None:
        super().__init__(TINY)
        self.video_encoder = Levels()  # type: ignore[assignment]
        self.video_standard = nn.Identity()  # type: ignore[assignment]

    def embed_video(self, video: Tensor) -> Tensor:
        return nn.functional.normalize(video, dim=-1)

    def embed_audio(self, audio: Tensor) -> Tensor:
        return nn.functional.normalize(audio, dim=-1)


def test_grad_cam_peaks_at_what_speaks_for_the_sound() -> None:
    """The sound says red: of a red and a green spot the map shows the red one alone, and what is
    red in one of four frames by a fourth, whatever it is in the next.
    """
    crops = torch.zeros(1, 3, 4, 16, 16)
    crops[:, 0, :, 3, 11] = 1.0
    crops[:, 1, :, 12, 2] = 1.0
    crops[:, 0, 0, 7, 7] = crops[:, 1, 1, 7, 7] = 1.0
    red = torch.tensor([[1.0, 0.0, 0.0, 0.0]])

    (map_,) = grad_cam(Seeing(), crops, red, translated=False)

    assert divmod(int(map_.argmax()), 16) == (3, 11)
    assert map_[12, 2] == 0
    assert float(map_[7, 7]) == pytest.approx(float(map_[3, 11]) / 4)


@pytest.mark.parametrize("translated", [True, False])
def test_grad_cam_is_the_definition(translated: bool) -> None:
    """Against finite differences of the score along each channel's share."""
    torch.manual_seed(0)
    network = AvsaNetwork(TINY).double().eval()
    crops = torch.rand(2, 3, 4, 32, 32, dtype=torch.float64)
    audio = torch.randn(2, 4, dtype=torch.float64)

    found = grad_cam(network, crops, audio, translated=translated)

    with torch.no_grad():
        maps = network.video_encoder.feature_maps(network.video_standard(crops))

        def score(of: Tensor) -> Tensor:
            video = of.amax(dim=(2, 3, 4))
            v, a = network.embed_video(video), network.embed_audio(audio)
            if not translated:
                return (v * a).sum()
            fits = (network.predict_video(audio[None])[0] * v).sum()
            return (fits + (network.predict_audio(video[None])[0] * a).sum()) / 2

        step = 1e-6
        expected = torch.zeros_like(maps[:, 0])
        for view in range(2):
            for channel in range(maps.shape[1]):
                changes = []
                for cell in np.ndindex(*maps.shape[2:]):
                    moved = maps.clone()
                    moved[(view, channel, *cell)] += step
                    back = maps.clone()
                    back[(view, channel, *cell)] -= step
                    changes.append(float(score(moved) - score(back)) / (2 * step))
                expected[view] += float(np.mean(changes)) * maps[view, channel]
    torch.testing.assert_close(found, expected.relu().mean(1), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("up_deg", [0.0, 22.0, -31.0])
@pytest.mark.parametrize("at_deg", [0.0, 47.5, 132.5, 177.5, -92.5])
def test_a_spot_comes_out_of_crops_where_it_went_in(at_deg: float, up_deg: float) -> None:
    """Crops are cut from a panorama with a spot, and assembled again: nothing where none looks."""
    azimuths = np.degrees(column_azimuths(640))
    spot = np.exp(-(((azimuths - at_deg + 180) % 360 - 180) ** 2) / (2 * 6**2))
    rows = np.exp(-((90 - 180 * (np.arange(320) + 0.5) / 320 - up_deg) ** 2) / (2 * 6**2))
    frame = torch.from_numpy(0.1 + rows[:, None] * spot[None]).float()[None, None]
    centres = [math.tau * i / 8 for i in range(8)]
    crop = tangent_map(0.0, math.pi / 2, (28, 28), (320, 640))

    over = panorama(tangent_crops(frame, centres, crop)[:, 0, 0], centres, math.pi / 2)

    assert error_deg(by_azimuth(over), [math.radians(at_deg)]) <= 5
    row = int(over.max(1).argmax())
    assert 90 - 180 * (row + 0.5) / MAP_SIZE[0] == pytest.approx(up_deg, abs=5)
    assert not over[[0, -1]].any()
    everywhere = panorama(torch.ones(8, 4, 4), centres, math.pi / 2)
    np.testing.assert_allclose(everywhere[MAP_SIZE[0] // 4 + 3 : -MAP_SIZE[0] // 4 - 3], 1)


def test_places_near_a_pole_count_by_their_area() -> None:
    over = np.zeros(MAP_SIZE)
    over[2, 10] = 1.5  # 12.5 degrees from the pole
    over[MAP_SIZE[0] // 2, 40] = 1.0

    profile = by_azimuth(over)

    assert profile[10] / profile[40] == pytest.approx(1.5 * math.sin(math.radians(12.5)), rel=1e-2)


def test_errors_equal_a_slow_plain_version() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        profile = rng.normal(size=72)
        sources = rng.uniform(-math.pi, math.pi, 3).tolist()
        best, highest = 0.0, -math.inf
        for column in range(72):
            if profile[column] > highest:
                best, highest = 180 - 5 * (column + 0.5), profile[column]
        away = [abs(best - math.degrees(source)) % 360 for source in sources]
        assert error_deg(profile, sources) == pytest.approx(min(min(a, 360 - a) for a in away))
    assert np.mean(chance_deg([0.3])) == pytest.approx(90, abs=0.1)


def test_azimuths_of_the_scorer_add_up_to_its_score() -> None:
    network = load_scorer()
    maps, sound = picture(n=1), sound_input(covariance())[None]
    with torch.no_grad():
        added = network.by_azimuth(maps, sound)
        score = network(maps, sound).yaw[:, 35]  # a rotation of 0

    assert added.shape == (1, 72)
    bias = network.weigh.bias * 72 / 6
    torch.testing.assert_close(added.sum(1) + bias, score, atol=1e-3, rtol=1e-4)


def test_a_take_is_turned_to_fit_and_its_sound_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The middle of it."""
    read: list[tuple[float, float]] = []
    field = Take.field

    def noted(self: Take, start_s: float, length_s: float) -> Any:
        read.append((start_s, length_s))
        return field(self, start_s, length_s)

    monkeypatch.setattr(Take, "field", noted)
    monkeypatch.setattr(localise, "_DURATION_S", 3.0)
    scene = draw_scene(3, replace(EXAMPLE, duration_s=4.0))
    made = write_take(scene, tmp_path, "take", rotate_deg=70.0, height=64, rate_hz=10.0)
    known = KnownTake("take", made.video, made.audio, "a", "strong", "", 70.0, (0.0,))

    seen = localise.filmed(known)

    assert seen.frames.shape == (48, *FRAME_SIZE, 3)
    assert read == [pytest.approx((0.5, 3.0), abs=0.06)]
    assert error_deg_between(seen.sources_rad[0], scene.source_azimuths_rad) < 8


def error_deg_between(found: float, sources: list[float]) -> float:
    return min(abs(math.degrees(math.remainder(found - s, math.tau))) for s in sources)


def looking_at(
    monkeypatch: pytest.MonkeyPatch, sees: Callable[[Tensor, Tensor], Tensor]
) -> AvsaScorer:
    """A network whose map of crops [shape=(V, 3, T, h, w)] is what is made of them and of what is
    heard at each, of W, x, y and z of the intensity, [shape=(V, 4)].
    """
    network = Seeing()
    monkeypatch.setattr(network, "encode_audio", lambda sound: sound.mean(dim=(3, 4)))
    monkeypatch.setattr(
        localise, "grad_cam", lambda _network, crops, audio, **_: sees(crops, audio)
    )
    config = replace(TINY, sound=SoundInput(Sound.INTENSITY, n_bands=24), sound_s=1.0)
    scorer: Any = SimpleNamespace(network=network, config=config, translated=False)
    return scorer  # type: ignore[no-any-return]


@pytest.mark.parametrize("at_deg", [35.0, -130.0])
def test_the_map_is_where_crops_show_it_or_their_sound_is_in_front(
    at_deg: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a map that shows what is bright, the place of a spot; of one that shows how much is heard
    from the front, the place of the source. There are twice as many crops as viewpoints.
    """
    at = math.radians(at_deg)
    away = np.angle(np.exp(1j * (column_azimuths(FRAME_SIZE[1]) - at)))
    spot = 255 * np.exp(-((away / 0.1) ** 2))[:, None]
    frames = np.broadcast_to(spot, (32, *FRAME_SIZE, 3)).astype(np.uint8)
    noise = np.random.default_rng(0).standard_normal(2 * SAMPLERATE)
    scene = localise.Stretch(frames, encode(noise, at, 0.0, 1), [at])
    looked: list[float] = []
    assembled = localise.panorama

    def panorama_of(maps: Tensor, azimuths: list[float], fov_rad: float) -> localise.Map:
        looked.extend(azimuths)
        return assembled(maps, azimuths, fov_rad)

    monkeypatch.setattr(localise, "panorama", panorama_of)

    bright = looking_at(monkeypatch, lambda crops, _: crops.mean(dim=(1, 2)))
    assert error_deg(by_azimuth(localise.avsa_map(bright, scene)), [at]) <= 5
    loud = looking_at(
        monkeypatch, lambda crops, heard: heard[:, 1, None, None] + 1 + 0 * crops.mean(dim=(1, 2))
    )
    assert error_deg(by_azimuth(localise.avsa_map(loud, scene)), [at]) <= 25
    around = np.degrees(np.unique(np.round(looked, 6)))
    assert around == pytest.approx(np.arange(8) * 45)


def test_crops_are_of_the_middle_of_what_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames brighten and sound gets louder all the time, so that both tell when they were."""
    levels = np.arange(48, dtype=np.uint8)[:, None, None, None]
    times_s = np.arange(3 * SAMPLERATE) / SAMPLERATE
    tone = np.exp(2 * times_s) * np.sin(math.tau * 1000 * times_s)
    frames = np.broadcast_to(levels, (48, *FRAME_SIZE, 3))
    scene = localise.Stretch(frames, encode(tone, 0.0, 0.0, 1), [0.0])
    pairs: list[tuple[float, float]] = []

    def sees(crops: Tensor, heard: Tensor) -> Tensor:
        pairs.append((float(crops.mean()) * 255 / 16, float(heard[0, 0])))
        return crops[:, 0, 0]

    scorer = looking_at(monkeypatch, sees)
    localise.avsa_map(scorer, scene)

    seen_s, level = np.array(pairs).T
    assert np.ptp(seen_s) > 1
    assert np.corrcoef(seen_s, level)[0, 1] > 0.999
    middles_s = np.array(moment_starts(0.0, 3.0, scorer.config)) + 0.5
    half_a_frame_s = 0.5 / TINY.frame_rate_hz
    np.testing.assert_allclose(
        np.unique(np.round(seen_s, 3)), middles_s - half_a_frame_s, atol=0.04
    )


def test_shares_of_scenes_and_chance_are_of_their_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of three scenes, at errors of 19, 29 and 81 degrees to the nearer of two sources."""
    profiles = iter([20.0, 30.0, 100.0])

    def profile(_network: Any, _scene: Any) -> localise.Map:
        found = np.zeros(72)
        found[int(np.abs(np.degrees(column_azimuths(72)) - next(profiles) - 2.5).argmin())] = 1
        return found

    nothing = np.zeros((1, 4, 8, 3), np.uint8)
    sources = [math.radians(3.5), math.radians(-176.5)]
    scenes = [localise.Stretch(nothing, np.zeros((4, 1)), sources) for _ in range(3)]
    monkeypatch.setattr(localise, "scorer_profile", profile)
    monkeypatch.setattr(localise, "baselines", lambda _: {})

    figures = localise.run([], scenes, report=tmp_path / "r.json")

    assert figures["equivariant scorer"] == {
        "median error": pytest.approx(29), "within 20": pytest.approx(1 / 3),
        "within 30": pytest.approx(2 / 3),
    }  # fmt: skip
    assert figures["chance"]["median error"] == pytest.approx(45, abs=2)
    assert figures["chance"]["within 20"] == pytest.approx(16 / 72)


@pytest.mark.parametrize("at_deg", [-177.5, -40.0, 62.5])
def test_the_scorers_profile_is_over_the_columns_of_the_picture(
    at_deg: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    azimuths = features.azimuths(72).double()
    added = (azimuths - math.radians(at_deg)).cos()[None]
    motion: Any = SimpleNamespace(maps=torch.zeros(2, 7, 12, 72))
    network: Any = SimpleNamespace(by_azimuth=lambda *_: added)
    scene: Any = None
    monkeypatch.setattr(localise, "_in_maps", lambda _: (motion, covariance()))

    profile = localise.scorer_profile(network, scene)

    assert error_deg(profile, [math.radians(at_deg)]) <= 2.51
    assert profile.min() == 0


def test_the_command_tells_of_every_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localise, "_DURATION_S", 3.0)
    paths = [tmp_path / "avc.safetensors", tmp_path / "avsa.safetensors"]
    for path, through in zip(paths, (False, True), strict=True):
        save_avsa(path, AvsaNetwork(TINY), {"translated": through})

    figures = localise.run(paths, localise.synthetic(1), plot=tmp_path / "maps.png")

    assert set(figures) == {"avc", "avsa", "equivariant scorer", "motion", "sound", "chance"}
    assert all(0 <= values["median error"] <= 180 for values in figures.values())
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")


def test_takes_in_which_nothing_is_to_be_seen_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"video": "a.mp4", "audio": "a.wav", "tier": "weak"}\n')

    assert main(["localise", "--manifest", str(manifest), "--report", str(tmp_path / "r")]) == 2

    assert f"All takes of {manifest} are weak" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
