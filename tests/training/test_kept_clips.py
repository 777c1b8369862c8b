"""Kept scenes: which are kept, and stretches of picture and sound, of numbers in their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.features import SAMPLERATE
from model.networks.avsa import AvsaConfig
from model.viewpoints import Sound, SoundInput
from training.data import kept_clips
from training.data.kept_clips import KeptClips, Stage
from training.data.scenes import Conditions

STAGE = Stage(Conditions(duration_s=3.0), height=4)


@pytest.fixture
def kept(tmp_path: Path) -> KeptClips:
    """Two scenes of noise; the number of a frame is its red, that of a scene its green."""
    rng = np.random.default_rng(0)
    scenes = []
    for number in range(2):
        frames = rng.integers(0, 256, (48, 4, 8, 3), dtype=np.uint8)
        frames[..., 0], frames[..., 1] = np.arange(48)[:, None, None], number
        scenes.append((frames, rng.standard_normal((4, 3 * SAMPLERATE)).astype(np.float32)))
    kept_clips._write_both(tmp_path / "few", scenes, 2)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    return KeptClips(tmp_path / "few", STAGE)


@pytest.mark.parametrize(
    ("start_s", "length_s", "first", "last"),
    [
        (0.0, 0.5, 0, 7),
        (0.5, 1.0, 8, 23),
        (0.52, 1.0, 8, 24),
        (0.54, 1.0, 9, 24),
        (2.5, 1.0, 40, 47),
    ],
)
def test_a_stretch_begins_with_the_frame_that_is_shown(
    kept: KeptClips, start_s: float, length_s: float, first: int, last: int
) -> None:
    frames, times_s = kept.picture(kept.clips[1], start_s, length_s, (4, 8), colour=True)

    assert frames[:, 0, 0, 0].tolist() == list(range(first, last + 1))
    assert (frames[..., 1] == 1).all()
    np.testing.assert_allclose(times_s, np.arange(first, last + 1) / 16)


def test_grey_is_the_luma_of_the_colours(kept: KeptClips) -> None:
    colours, _ = kept.picture(kept.clips[0], 0.0, 3.0, (4, 8), colour=True)

    grey, _ = kept.picture(kept.clips[0], 0.0, 3.0, (4, 8), colour=False)

    expected = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - expected).max() <= 0.5 + 1e-9
    half, _ = kept.picture(kept.clips[0], 0.0, 3.0, (2, 4), colour=False)
    np.testing.assert_allclose(half.mean(), grey.mean(), atol=1)


def test_every_network_hears_its_own_bands_of_the_scene_asked_for(kept: KeptClips) -> None:
    sounds = [SoundInput(Sound.INTENSITY, 8), SoundInput(Sound.INTENSITY, 12),
              SoundInput(Sound.AMBISONIC, 8, magnitude=True)]  # fmt: skip
    for sound in sounds:
        network = AvsaConfig(sound=sound, sound_s=0.5)
        heard = kept.sound(kept.clips[1], np.array([1.0, 2.5, 9.0]), network)
        whole = sound.covariance(kept.field(kept.clips[1], 0.0, 3.0)).float().double()
        for stretch, first in zip(heard, (100, 250, len(whole) - 50), strict=True):
            torch.testing.assert_close(stretch, whole[first : first + 50])


def test_scenes_are_the_first_whose_every_body_is_large_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    radii = [[0.3], [0.1], [0.3, 0.1], [0.2, 0.4], [], [0.5]]

    def drawn(seed: int, _conditions: Conditions) -> SimpleNamespace:
        bodies = [SimpleNamespace(radius=radius) for radius in radii[seed - 10]]
        return SimpleNamespace(
            seed=seed, sources=[SimpleNamespace(body=body) for body in [*bodies, None]]
        )

    monkeypatch.setattr(kept_clips, "draw_scene", drawn)

    chosen = replace(STAGE, least_radius_rad=0.2).scenes(4, 10)

    assert [scene.seed for scene in chosen] == [10, 13, 14, 15]
