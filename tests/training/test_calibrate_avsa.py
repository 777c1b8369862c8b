"""The calibration of an AVSA checkpoint, from rendered scenes to a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model.checkpoint import AVSA, Method, save_avsa
from model.evidence import yaws_deg
from model.judges import AvsaScorer, judge_for
from model.moments import FRAME_SIZE, MOMENTS
from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.viewpoints import SoundInput
from training import calibrate
from training.calibrate_avsa import judged_takes, rendered_moments, with_sound

TINY = AvsaConfig(
    widths=(4, 4, 4, 4), embedding=4, viewpoints=4, crop_px=32, n_frames=4, frame_rate_hz=8.0,
    sound=SoundInput(n_bands=24), sound_s=0.5,
)  # fmt: skip


def known(truth_deg: float, strength: float, n_windows: int = 1) -> torch.Tensor:
    away = (torch.tensor(yaws_deg(), dtype=torch.float64) - truth_deg).deg2rad()
    return (strength * away.cos()).expand(n_windows, 1, -1)


def test_moments_of_a_scene_are_what_the_network_takes() -> None:
    (first,) = rendered_moments(3, 1, TINY)
    (other,) = rendered_moments(4, 1, TINY)
    swapped = with_sound(first, other)

    assert FRAME_SIZE[1] == 2 * FRAME_SIZE[0]
    assert len(first) == MOMENTS
    assert first[0].crops.shape == (4, 3, 4, 32, 32)
    assert 0 <= first[0].crops.min() < first[0].crops.max() <= 1
    assert torch.equal(swapped[1].crops, first[1].crops)
    assert torch.equal(swapped[1].covariance, other[1].covariance)


def test_a_calibration_of_known_scores_trusts_them(monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Right scores get weight and verdicts; the file is that of the checkpoint."""
    checkpoint = tmp_path / "avsa.safetensors"
    save_avsa(checkpoint, AvsaNetwork(TINY), {"translated": True})
    judged = [
        *(("matched", known(0, 5)) for _ in range(200)),
        *(("foreign", known(0, 0)) for _ in range(60)),
        *(("long", known(0, 5, 3)) for _ in range(60)),
    ]
    monkeypatch.setattr(calibrate, "judged_takes", lambda *_, **__: iter(judged))

    assert calibrate.main(["--method", "avsa", "--checkpoint", str(checkpoint)]) == 0

    kept = json.loads((tmp_path / "avsa.safetensors.json").read_text())
    judge = judge_for(Method.AVSA, checkpoint=checkpoint)
    assert kept["weights"] == {AVSA: pytest.approx(judge.calibration.weights[AVSA])}
    assert judge.calibration.weights[AVSA] > 0.5
    assert judge.calibration.least_confidence < 0.99


def test_takes_are_rendered_and_judged() -> None:
    torch.manual_seed(0)
    scorer = AvsaScorer(AvsaNetwork(TINY), translated=True)

    takes = list(judged_takes(scorer, seed=3, n_scenes=1, n_long=0))

    (moments,) = rendered_moments(3, 1, TINY)
    assert [kind for kind, _ in takes] == ["matched", "noise"]
    assert torch.equal(takes[0][1][0, 0], scorer.log_evidence(moments))
    assert not torch.equal(takes[0][1], takes[1][1])


def test_a_checkpoint_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate.main(["--method", "avsa"]) == 2
    assert "needs --checkpoint" in capsys.readouterr().err
    missing = str(tmp_path / "missing.safetensors")
    assert calibrate.main(["--method", "avsa", "--checkpoint", missing]) == 2
    assert "cannot be read" in capsys.readouterr().err
