"""Takes to calibrate on: what is made of kept windows, and what scorers say of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoint import STATISTICS
from model.evidence import N_YAWS
from model.scoring import Evidence, Window
from tests.training.test_evaluate_lag import flickering
from training.data.excerpts import with_sound
from training.data.windows import load_window, save_window
from training.scored_takes import scored, takes_of


def test_short_takes_and_foreign_sound_are_of_their_windows(tmp_path: Path) -> None:
    paths = [tmp_path / f"scene-{index}.safetensors" for index in range(6)]
    for index, path in enumerate(paths):
        window = flickering(100)
        save_window(path, replace(window, covariance=window.covariance + index))
    kept = [load_window(path) for path in paths]

    made = [(kind, windows[0]) for kind, _, windows in takes_of(paths, [])]

    matched = [window for kind, window in made if kind == "matched"]
    short_s = [window.duration_s for kind, window in made if kind == "short"]
    foreign = [window for kind, window in made if kind == "foreign"]
    assert short_s == pytest.approx([2, 5, 2, 5])
    for window, number in zip(foreign, (2, 4), strict=True):
        assert window.motion.energy.equal(kept[number].motion.energy)
        assert window.covariance.equal(matched[number - 1].covariance)
        assert not window.covariance.equal(matched[number].covariance)


@pytest.mark.parametrize("n", [60, 140])
def test_a_picture_with_another_sound_is_as_long_as_the_shorter(n: int) -> None:
    window, other = flickering(100), 1 + flickering(n).covariance

    made = with_sound(window, other)

    shorter = min(n, 100)
    assert made.duration_s == pytest.approx(shorter / 10)
    assert made.covariance.equal(other[:shorter])
    assert made.motion.energy.equal(window.motion.energy[:shorter])
    assert len(made.motion.edges_s) == shorter + 1


def test_every_other_pair_is_heard_by_a_poor_microphone_and_noise_is_never_the_same(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "plain-windows"
    folder.mkdir()
    paths = [folder / f"of-a-kind-{index:07d}.safetensors" for index in range(9)]
    for path in paths:
        save_window(path, flickering(60))
    kept = load_window(paths[0])

    made = list(takes_of(paths, paths[:4]))

    assert {scenes for _, scenes, _ in made} == {"plain-windows: of-a-kind"}
    for kind in ("matched", "long"):
        own = [windows for each, _, windows in made if each == kind]
        sounds = [torch.cat([window.covariance for window in windows]) for windows in own]
        poor = [not sound.equal(kept.covariance) for sound in sounds]
        assert poor == ([False, False, True, True] * 3)[: len(own)]
    noise = [windows[0].covariance for kind, _, windows in made if kind == "noise"]
    assert len(noise) == 2
    assert not noise[0].equal(noise[1])
    for windows in (windows for kind, _, windows in made if kind == "long"):
        assert [window.start_s for window in windows] == pytest.approx([0, 2, 4])
        assert [window.duration_s for window in windows] == pytest.approx([2, 2, 2])


def test_statistics_keep_their_places() -> None:
    def scorer(_window: Window) -> Evidence:
        statistics = {"upright": 3.0, "belongs": 1.0, "other": 9.0, "synchronous": 2.0}
        return Evidence({"cue": torch.zeros(N_YAWS)}, statistics)

    take = scored("matched", [flickering(20)] * 2, [scorer])

    assert dict(zip(STATISTICS, take.statistics[1].tolist(), strict=True)) == {
        "bias": 1.0, "belongs": 1.0, "synchronous": 2.0, "upright": 3.0,
    }  # fmt: skip
