"""What pairs and moments the figures of AVSA networks are taken of, without footage."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.viewpoints import SoundInput
from training.data.clips import Clip
from training.evaluate import bins
from training.evaluate.alignment import Looking, summary, yaw_errors_deg
from training.evaluate.bins import Head, Pairs, Probe, encode_pairs

TINY = AvsaConfig(
    widths=(4, 4, 8, 8), embedding=6, crop_px=16, n_frames=4, frame_rate_hz=8.0, depth=1,
    sound=SoundInput(n_bands=8), sound_s=1.0,
)  # fmt: skip


class Rotated:
    """Items that note by how much their fields are rotated."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, list[tuple[int, int, float]]()

    def __len__(self) -> int:
        return self.count

    def of_epoch(self, epoch: int, index: int, *, rotation_rad: float) -> Any:
        self.asked.append((epoch, index, rotation_rad))
        return SimpleNamespace(pictures=None, sounds=None, recordings=torch.tensor(index))


def test_fields_are_turned_by_any_yaw_and_by_equal_shares_to_both_sides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that fit, those of all angles and those in equal shares are of draws of their own."""
    items: Any = Rotated(10)
    token = torch.zeros(1, 2)
    monkeypatch.setattr(bins, "_tokens", lambda *_: (token, token))

    found = encode_pairs(AvsaNetwork(TINY), items, Probe(draws=40), epoch=500)

    draws = np.array(items.asked).reshape(3, 400, 3)
    fitting, anything, stratified = np.degrees(draws[:, :, 2])
    assert len({(epoch, index) for epoch, index, _ in items.asked}) == 1200
    assert draws[:, :, 0].min() == 500
    assert not fitting.any()
    grid = (np.sort(anything) + 180) / 360 - (np.arange(400) + 0.5) / 400
    assert np.abs(grid).max() < 1.63 / 20  # Kolmogorov, 1 %
    np.testing.assert_allclose(np.abs(stratified), found.angles_deg)
    np.testing.assert_allclose(np.sort(found.angles_deg), 20 + 160 * (np.arange(400) + 0.5) / 400)
    assert 150 < (stratified > 0).sum() < 250
    assert abs(np.corrcoef(np.arange(400), found.angles_deg)[0, 1]) < 0.15  # of every recording
    assert found.recordings.tolist() == [*range(10)] * 40


def test_heads_see_the_first_viewpoints_and_their_logits_are_averaged() -> None:
    torch.manual_seed(0)
    tokens = torch.rand(6, 5, 4, 8)
    network = AvsaNetwork(TINY).eval()
    pairs = Pairs(
        tokens[0], tokens[1], (tokens[2], tokens[3]), (tokens[4], tokens[5]), torch.zeros(5),
        torch.arange(5),
    )  # fmt: skip

    plain, through = (pairs.of_views(network, 2, translated=t) for t in (False, True))

    with torch.no_grad():
        translated = [network.to_audio(tokens[i][:, :2]) for i in (0, 2, 4)]
    for seen, given in zip((through.video, through.turned[0], through.stratified[0]), translated,
                           strict=True):  # fmt: skip
        torch.testing.assert_close(seen, given)
    assert plain.video.equal(tokens[0][:, :2])
    assert plain.turned[0].equal(tokens[2][:, :2])
    for of in (plain, through):
        heard = (of.audio, of.turned[1], of.stratified[1])
        assert all(h.equal(tokens[i][:, :2]) for h, i in zip(heard, (1, 3, 5), strict=True))
    head = Head(8, 16).eval()
    one_by_one = [head(tokens[0][:, k : k + 1], tokens[1][:, k : k + 1]) for k in range(4)]
    torch.testing.assert_close(head(tokens[0], tokens[1]), torch.stack(one_by_one).mean(0))


class Clock:
    """A clip that notes when it is looked at and listened to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen_s, self.heard_s = list[float](), list[float]()

    def picture(
        self, clip: Clip, start_s: float, length_s: float, size: tuple[int, int], *, colour: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        assert (clip.name, colour) == (self.name, True)
        self.seen_s.append(start_s + length_s / 2)
        return np.zeros((8, *size, 3), np.uint8), start_s + np.arange(8) / 16

    def sound(self, clip: Clip, starts_s: NDArray[np.float64], network: AvsaConfig) -> Tensor:
        assert clip.name == self.name
        self.heard_s += (starts_s + network.sound_s / 2).tolist()
        silence = network.sound.covariance(torch.zeros(4, 24_000))
        return silence.expand(len(starts_s), -1, -1, -1)


@pytest.mark.parametrize(
    ("duration_s", "middles_s"), [(7.0, [1.5, 3.5, 5.5]), (1.0, [0.5, 0.5, 0.5])]
)
def test_moments_are_evenly_over_a_clip_and_pictures_in_their_middle(
    duration_s: float, middles_s: list[float]
) -> None:
    clip = Clip("a", "a", Path("a"), Path("a"), duration_s, (0, 1, 2, 3))
    clock, asked = Clock("a"), list[Tensor]()

    def scorer(_network: AvsaNetwork, _video: Tensor, audio: Tensor) -> Tensor:
        """The first moment says 180 degrees, and more surely than one may: two others say 60."""
        asked.append(audio)
        scores = torch.zeros(len(audio))
        scores[[71, 47, 47][len(asked) - 1]] = [1.0, 0.4, 0.4][len(asked) - 1]
        return scores

    (error,) = yaw_errors_deg(
        AvsaNetwork(TINY), [clip], scorer, looking=Looking(n_moments=3, frame_height=32),
        media=clock,
    )  # fmt: skip

    assert clock.heard_s == pytest.approx(middles_s)
    assert clock.seen_s == pytest.approx(middles_s)
    assert error == pytest.approx(60, abs=3)


def test_angles_on_the_edges_of_shares_count() -> None:
    assert summary(np.array([0.0, 20.0, 30.0, 150.0, 170.0])) == {
        "median error": 30, "within 20": 0.4, "within 30": 0.6, "beyond 150": 0.2
    }  # fmt: skip


@pytest.mark.parametrize(("low", "high"), [(20, 60), (60, 100), (100, 140), (140, 180)])
def test_accuracies_by_angle_are_of_those_angles(
    low: int, high: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a head that takes those alone for rotated ones, and a fourth of those that fit."""
    angles_deg = torch.arange(20.5, 180)
    rotated = ((angles_deg >= low) & (angles_deg < high)).double()
    fitting = torch.arange(160) % 4 != 0
    token = torch.zeros(160, 1, 2)
    pairs = Pairs(token, token, (token, token), (token, token), angles_deg, torch.arange(160))
    learned: list[tuple[Tensor, ...]] = []
    monkeypatch.setattr(bins, "_fit", lambda *given: learned.append(given[:4]))
    monkeypatch.setattr(bins, "_right", lambda *_: torch.cat([fitting.double(), rotated]))
    train = replace(pairs, turned=(token + 1, token + 2), stratified=(token + 3, token + 4))

    found = bins.avsa_bin(train, pairs, Probe())

    assert [[float(t.max()) for t in given] for given in learned] == [[0, 0, 1, 2], [0, 0, 3, 4]]
    assert found.pop("fitting") == 0.75
    assert found.pop("published") == found.pop("stratified") == pytest.approx((0.75 + 0.25) / 2)
    assert found == {
        f"{begin} to {begin + 40} deg": float(begin == low) for begin in (20, 60, 100, 140)
    }
    assert math.isclose(high - low, 40)
