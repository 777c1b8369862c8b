"""The mean of scorers is that of their weights, at the sizes of the last; or nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_scorer, save_scorer
from model.networks.equivariant import EquivariantConfig, EquivariantScorer
from training.average import main, mean_of
from training.data.scenes import Conditions
from training.data.windows import render_all

SMALL = EquivariantConfig(hidden=16, size=16, heads=2)


def scorer(seed: int, config: EquivariantConfig = SMALL) -> EquivariantScorer:
    torch.manual_seed(seed)
    return EquivariantScorer(config)


def test_every_weight_is_the_mean() -> None:
    first, second = scorer(0), scorer(1)

    mean = mean_of([first, second], [0.25, 0.75])

    for name, own in mean.named_parameters():
        expected = 0.25 * first.get_parameter(name) + 0.75 * second.get_parameter(name)
        torch.testing.assert_close(own, expected)


def test_a_scorer_and_itself_grown_score_as_it_does() -> None:
    small = scorer(0)
    large = mean_of([small, scorer(1, replace(SMALL, heads=4, size=32, coherence=True))], [1, 0])
    maps, sound = torch.rand(1, 20, SMALL.n_maps, 12, 72), torch.randn(1, 72, 131, 20)

    torch.testing.assert_close(large(maps, sound).yaw, small(maps, sound).yaw, rtol=1e-4, atol=1e-4)
    assert large.config.coherence


def test_from_files_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for seed, path in enumerate(paths):
        save_scorer(path, scorer(seed), {"data": "none"})
    output = tmp_path / "mean.safetensors"

    assert main([*map(str, paths), "--output", str(output)]) == 0
    written = load_scorer(output)
    for name, own in mean_of([load_scorer(path) for path in paths]).named_parameters():
        torch.testing.assert_close(own, written.get_parameter(name))

    output.unlink()
    assert main([*map(str, paths), "--shares", "0.5", "0.6", "--output", str(output)]) == 2
    assert "[0.5, 0.6] do not add up to 1" in capsys.readouterr().err
    assert not output.exists()
    assert main([*map(str, paths)]) == 2
    assert "give --output, --windows" in capsys.readouterr().err


def test_all_are_measured_on_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, empty, windows = (tmp_path / name for name in ("a.safetensors", "empty", "windows"))
    save_scorer(path, scorer(0), {"data": "none"})
    list(render_all(windows, "plain", Conditions(duration_s=2.0, plain=True), range(2)))

    assert main([str(path), str(path), "--windows", str(windows)]) == 0
    first, second, mean = (line.partition(": ")[2] for line in capsys.readouterr().out.splitlines())
    assert first == second == mean
    assert first.startswith("rotation ")
    assert main([str(path), "--windows", str(windows), "--microphones"]) == 0
    faulty = capsys.readouterr().out.splitlines()[0].partition(": ")[2]
    assert faulty.startswith("rotation ")
    assert faulty != first

    assert main([str(path), "--windows", str(empty), "--output", str(tmp_path / "b")]) == 2
    assert f"{empty} holds no windows" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
