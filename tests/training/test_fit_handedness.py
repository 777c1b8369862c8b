"""The weights of which way round: found where they are known, and from windows to a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.checkpoint import Calibration, load_calibration
from model.evidence import N_YAWS
from model.handedness import WEIGHTS, Hypothesis, window_undone
from training import fit_handedness
from training.data.scenes import Conditions
from training.data.windows import load_window, render_all, save_window
from training.fit_handedness import both_ways, fitted, log_odds, main


def test_what_tells_gets_weight_and_what_does_not_gets_none() -> None:
    """The first part is the log-likelihood ratio of one of two Gaussians, the second noise; and the
    third speaks against the truth, which is no reason to take it the other way round.
    """
    generator = torch.Generator().manual_seed(0)
    ways = torch.zeros(400, 2, 3, 1, dtype=torch.float64)
    ways[:, 0, 0] = 0.5 + torch.randn(400, 1, generator=generator, dtype=torch.float64)
    ways[:, :, 1] = torch.randn(400, 2, 1, generator=generator, dtype=torch.float64)
    ways[:, 0, 2] = -0.5 + torch.randn(400, 1, generator=generator, dtype=torch.float64)

    weights = fitted(ways)

    assert float(weights[0]) == pytest.approx(1.0, abs=0.35)
    assert float(weights[1]) < 0.3
    assert float(weights[2]) < 0.05
    before, after = (
        float(torch.nn.functional.softplus(-log_odds(ways, w)).mean())
        for w in (ways.new_tensor([1.0, 1.0, 1.0]), weights)
    )
    assert after <= before


def slow_log_odds(way: Tensor, weights: Sequence[float]) -> float:
    """Of the first of two, each the sum over its rotations."""
    first, second = (
        sum(
            math.exp(sum(w * float(part[r]) for w, part in zip(weights, each, strict=True)))
            for r in range(N_YAWS)
        )
        for each in way
    )
    return math.log(first / second)


def test_what_is_told_is_of_windows_that_were_not_fitted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = torch.Generator().manual_seed(1)
    ways = torch.randn(12, 2, 3, N_YAWS, generator=rng, dtype=torch.float64)
    ways[:, 0] += 0.3
    for index in range(14):
        (tmp_path / f"{index}.safetensors").touch()

    def both(paths: Sequence[Path], _calibration: Calibration) -> Tensor:
        assert len(paths) == len(ways)
        return ways

    monkeypatch.setattr(fit_handedness, "both_ways", both)

    assert main([str(tmp_path), "--count", "12"]) == 0

    lines = capsys.readouterr().out.splitlines()
    for line, weights in zip(lines, (WEIGHTS, fitted(ways[::2]).tolist()), strict=True):
        odds = [slow_log_odds(way, weights) for way in ways[1::2]]
        loss = sum(math.log1p(math.exp(-each)) for each in odds) / 6
        right = sum(each > 0 for each in odds) / 6
        assert line.endswith(f"on 6 others log loss {loss:.3f}, right {right:.0%}")
        assert all(f" {weight:.2f}" in line for weight in weights)


def test_from_windows_to_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conditions = Conditions(duration_s=2.5, plain=True)
    list(render_all(tmp_path, "plain", conditions, range(990_000, 990_008), workers=2))

    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["as shipped", "fitted"]
    assert all("on 4 others log loss" in line for line in lines)

    paths = sorted(tmp_path.glob("*.safetensors"))
    mirrored = tmp_path / "mirrored.safetensors"
    save_window(mirrored, window_undone(load_window(paths[0]), Hypothesis.MIRRORED))
    as_it_is, other_way = both_ways([paths[0], mirrored], load_calibration())
    torch.testing.assert_close(other_way, as_it_is.flip(0), rtol=1e-3, atol=1e-3)
    assert (as_it_is[0] - as_it_is[1]).abs().max() > 0.1
    mirrored.unlink()

    for path in paths[3:]:
        path.unlink()
    assert main([str(tmp_path)]) == 2
    assert "3 windows are too few" in capsys.readouterr().err
