"""The weights of which way round: found where they are known, and from windows to a line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.evidence import N_YAWS
from training.data.scenes import Conditions
from training.data.windows import render_all
from training.fit_handedness import fitted, log_odds, main


def test_what_tells_gets_weight_and_what_does_not_gets_none() -> None:
    """The first part is the log-likelihood ratio of one of two Gaussians, the second noise."""
    generator = torch.Generator().manual_seed(0)
    ways = torch.zeros(400, 2, 3, N_YAWS, dtype=torch.float64)
    ways[:, 0, 0] = 0.5 + torch.randn(400, 1, generator=generator, dtype=torch.float64)
    ways[:, :, 1] = torch.randn(400, 2, 1, generator=generator, dtype=torch.float64)

    weights = fitted(ways)

    assert float(weights[0]) == pytest.approx(1.0, abs=0.35)
    assert float(weights[1]) < 0.3
    before, after = (
        float(torch.nn.functional.softplus(-log_odds(ways, w)).mean())
        for w in (ways.new_tensor([1.0, 1.0, 1.0]), weights)
    )
    assert after <= before


def test_from_windows_to_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conditions = Conditions(duration_s=2.5, plain=True)
    list(render_all(tmp_path, "plain", conditions, range(990_000, 990_008), workers=2))

    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["as shipped", "fitted"]
    assert all("on 4 others log loss" in line for line in lines)

    for path in sorted(tmp_path.glob("*.safetensors"))[3:]:
        path.unlink()
    assert main([str(tmp_path)]) == 2
    assert "3 windows are too few" in capsys.readouterr().err
