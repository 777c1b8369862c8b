"""The mean of scorers is that of their weights, at the sizes of the last; or nothing is written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

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
    again = mean_of([small, scorer(2, large.config)], [1, 0])
    for name, own in again.named_parameters():
        assert own.equal(large.get_parameter(name))  # what growing draws is always the same


def test_from_files_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for seed, path in enumerate(paths):
        save_scorer(path, scorer(seed), {"data": "none"})
    output = tmp_path / "mean.safetensors"

    networks = [load_scorer(path) for path in paths]
    shares: list[float]
    for shares in ([], [0.25, 0.75]):
        words = ["--shares", *map(str, shares)] if shares else []
        assert main([*map(str, paths), *words, "--output", str(output)]) == 0
        written = load_scorer(output)
        for name, own in mean_of(networks, shares).named_parameters():
            torch.testing.assert_close(own, written.get_parameter(name))
        with safe_open(output, "pt") as file:
            told = json.loads(file.metadata()["provenance"])
        assert told["of"] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
        assert told["shares"] == (shares or "alike")

    output.unlink()
    for shares in ([0.5, 0.6], [0.5, 0.4], [0.5, 0.25, 0.25], [1.0]):
        words = ["--shares", *map(str, shares)]
        assert main([*map(str, paths), *words, "--output", str(output)]) == 2
        assert f"{shares} do not add up to 1 over 2 scorers" in capsys.readouterr().err
    assert not output.exists()
    before = paths[0].read_bytes()
    assert main([*map(str, paths), "--output", str(paths[0])]) == 2
    assert "originals are never overwritten" in capsys.readouterr().err
    assert paths[0].read_bytes() == before
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
