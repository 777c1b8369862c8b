"""Localisation maps: a network whose map is known, panoramas, errors by a slow plain version."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.checkpoint import load_scorer, save_avsa
from model.learned import sound_input
from model.moments import FRAME_SIZE
from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.sphere import column_azimuths, tangent_crops, tangent_map
from model.viewpoints import SoundInput
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
    """The sound says red: of a red and a green spot the map shows the red one alone."""
    crops = torch.zeros(1, 3, 4, 16, 16)
    crops[:, 0, :, 3, 11] = 1.0
    crops[:, 1, :, 12, 2] = 1.0
    red = torch.tensor([[1.0, 0.0, 0.0, 0.0]])

    (map_,) = grad_cam(Seeing(), crops, red, translated=False)

    assert divmod(int(map_.argmax()), 16) == (3, 11)
    assert map_[12, 2] == 0


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


@pytest.mark.parametrize("at_deg", [0.0, 47.5, 132.5, 177.5, -92.5])
def test_a_spot_comes_out_of_crops_where_it_went_in(at_deg: float) -> None:
    """Crops are cut from a panorama with a spot, and assembled again."""
    azimuths = np.degrees(column_azimuths(640))
    spot = np.exp(-(((azimuths - at_deg + 180) % 360 - 180) ** 2) / (2 * 6**2))
    rows = np.exp(-((np.arange(320) - 160) ** 2) / (2 * 10**2))
    frame = torch.from_numpy(rows[:, None] * spot[None]).float()[None, None]
    centres = [math.tau * i / 8 for i in range(8)]
    crop = tangent_map(0.0, math.pi / 2, (28, 28), (320, 640))

    over = panorama(tangent_crops(frame, centres, crop)[:, 0, 0], centres, math.pi / 2)

    assert error_deg(by_azimuth(over), [math.radians(at_deg)]) <= 5
    row = int(over.max(1).argmax())
    assert row in (MAP_SIZE[0] // 2 - 1, MAP_SIZE[0] // 2)


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


def test_a_take_is_turned_to_fit_and_its_sound_says_where_it_comes_from(tmp_path: Path) -> None:
    scene = draw_scene(3, replace(EXAMPLE, duration_s=4.0))
    made = write_take(scene, tmp_path, "take", rotate_deg=70.0, height=64, rate_hz=10.0)
    known = KnownTake("take", made.video, made.audio, "a", "strong", "", 70.0, (0.0,))

    seen = localise.filmed(known)

    assert seen.frames.shape == (64, *FRAME_SIZE, 3)
    assert error_deg_between(seen.sources_rad[0], scene.source_azimuths_rad) < 8


def error_deg_between(found: float, sources: list[float]) -> float:
    return min(abs(math.degrees(math.remainder(found - s, math.tau))) for s in sources)


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
