"""Which clips and moments items are of, without footage."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.ambisonics import encode
from model.detections import Detection
from model.errors import MediaError, UnusableContent
from model.features import SAMPLERATE
from model.networks.avsa import AvsaConfig
from model.viewpoints import Sound, SoundInput
from training.data.clips import (
    Clip,
    ClipCrops,
    Cropping,
    by_recording,
    crops_at,
    told_apart,
)
from training.data.crops import Views

NETWORK = AvsaConfig(
    crop_px=8, n_frames=4, frame_rate_hz=8.0, sound=SoundInput(Sound.INTENSITY, n_bands=8),
    sound_s=2.0,
)  # fmt: skip
CROPPING = Cropping(n_viewpoints=1, frame_height=16, augment=False)


def clip(name: str, recording: str = "a") -> Clip:
    return Clip(name, recording, Path(name), Path(name), 10.0, (0, 1, 2, 3))


class Noting:
    """Clips of one sound and black pictures, some of which are broken."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.heard: list[tuple[str, float]] = []
        self.seen: list[tuple[str, float]] = []
        noise = np.random.default_rng(0).standard_normal(round(NETWORK.sound_s * SAMPLERATE))
        self.covariance = NETWORK.sound.covariance(torch.from_numpy(encode(noise, 0.0, 0.0, 1)))

    def picture(
        self, clip: Clip, start_s: float, length_s: float, size: tuple[int, int], *, colour: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        assert colour
        self.seen.append((clip.name, start_s))
        return np.zeros((8, *size, 3), np.uint8), start_s + np.arange(8) * length_s / 8

    def sound(self, clip: Clip, starts_s: NDArray[np.float64], network: AvsaConfig) -> Tensor:
        assert network is NETWORK
        if clip.name in self.broken:
            raise UnusableContent("It breaks off.")
        self.heard += [(clip.name, start_s) for start_s in starts_s.tolist()]
        return self.covariance.expand(len(starts_s), -1, -1, -1)


def test_items_are_of_all_clips_and_of_all_moments_seen_within_what_is_heard() -> None:
    clips = [*(clip(f"a{n}") for n in range(3)), clip("b0", "b")]
    media = Noting()
    items = ClipCrops(clips, NETWORK, replace(CROPPING, n_moments=2), draws=60, media=media)

    for index in range(len(items)):
        items[index]

    names = Counter(name for name, _ in media.heard)
    assert names["b0"] == 120
    assert min(names[f"a{n}"] for n in range(3)) > 20  # of 120, a third each
    offsets_s = []
    for (of, heard_s), (also, seen_s) in zip(media.heard, media.seen, strict=True):
        assert of == also
        offsets_s.append(seen_s - heard_s)
    # The picture is of 0.5 s, anywhere within 2 s of sound.
    grid = np.sort(offsets_s) / 1.5 - (np.arange(240) + 0.5) / 240
    assert np.abs(grid).max() < 1.63 / np.sqrt(240)  # Kolmogorov, 1 %


def test_every_draw_that_meets_something_broken_is_counted() -> None:
    clips = [clip("a0"), clip("b0", "b"), clip("c0", "c")]
    items = ClipCrops(clips, NETWORK, CROPPING, draws=5, media=Noting("a0"))

    recordings = [int(items[index].recordings) for index in range(15)]

    assert set(recordings[:5]) <= {1, 2}
    assert recordings[5:] == [1] * 5 + [2] * 5
    assert items.n_broken >= 5
    assert items.of_clip(clips[0], [1, 2]) is None
    before = items.n_broken
    assert items.of_clip(clips[2], [1, 2]) is not None
    assert items.n_broken == before
    alone = ClipCrops(clips[:1], NETWORK, CROPPING, media=Noting("a0"))
    with pytest.raises(MediaError, match="10 clips one after the other cannot be read, a0 last"):
        alone[0]
    assert alone.n_broken == 10


def test_sound_is_louder_or_softer_by_a_tenth_at_most() -> None:
    plain, varied = (
        ClipCrops([clip("a0")], NETWORK, replace(CROPPING, augment=augment), draws=100,
                  media=Noting())
        for augment in (False, True)
    )  # fmt: skip
    level = float(plain[0].sounds[0, 0].mean())  # in dB, whatever the crop

    gains = [10 ** ((float(varied[n].sounds[0, 0].mean()) - level) / 20) for n in range(100)]

    assert 0.899 < min(gains) < 0.92
    assert 1.08 < max(gains) < 1.101


def test_clips_and_what_was_found_in_them_tell_data_apart() -> None:
    one, other = clip("a0"), clip("b0", "b")
    box = Detection(1.0, 0.1, 0.2, 0.3, 0.3, 0.9)

    told = [
        told_apart(clips, found)
        for clips, found in (
            ([one, other], None), ([one], None), ([replace(one, duration_s=9.0), other], None),
            ([replace(one, planar=True), other], None), ([one, other], {"a0": [box]}),
            ([one, replace(other, components=(2, 1, 4, 0))], None), ([one, other], {"b0": [box]}),
            ([one, replace(other, recording="a")], None),
        )
    ]  # fmt: skip

    assert len(set(told)) == len(told)
    assert told[0].startswith("2 (")
    elsewhere = [replace(each, video=Path("x"), audio=Path("y")) for each in (one, other)]
    assert told_apart(elsewhere, {}) == told[0]
    assert list(by_recording([other, one])) == ["a", "b"]


@pytest.mark.parametrize("start_s", [0.0, 3.7])
def test_crops_are_of_the_frames_nearest_to_the_networks_times(start_s: float) -> None:
    """Of a picture whose frames come unevenly, and get brighter."""
    times_s = start_s + np.array([0.01, 0.05, 0.11, 0.17, 0.3, 0.34, 0.4, 0.5])

    def picture(
        _clip: Clip, begin_s: float, length_s: float, size: tuple[int, int], **_: Any
    ) -> Any:
        assert (begin_s, length_s) == (start_s, 0.5)
        frames = 20 * np.arange(8, dtype=np.uint8)[:, None, None, None]
        return np.broadcast_to(frames, (8, *size, 3)), times_s

    media: Any = SimpleNamespace(picture=picture)
    views = Views(np.zeros((1, 2)), np.array([1.0]))

    crops = crops_at(media, clip("a0"), start_s, NETWORK, views, (16, 32))

    # At 0, 0.125, 0.25 and 0.375 s.
    shown = crops[0].mean(dim=(0, 2, 3)) * 255 / 20
    assert shown.tolist() == pytest.approx([0, 2, 4, 6], abs=1e-3)
