"""The calibration of an AVSA checkpoint, from rendered scenes to a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model import features
from model.checkpoint import AVSA, Method, save_avsa
from model.evidence import yaws_deg
from model.features import WW
from model.judges import AvsaScorer, judge_for
from model.moments import FRAME_SIZE, MOMENTS, Moment
from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.viewpoints import SoundInput
from training import calibrate, calibrate_avsa
from training.calibrate_avsa import judged_takes, rendered_moments, with_sound
from training.data.scenes import Conditions

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


@pytest.mark.parametrize("n_windows", [1, 3])
def test_what_is_seen_at_a_moment_is_heard_then(
    n_windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a picture that gets brighter by 1 a frame, and a noise whose amplitude is the time."""
    noise = np.random.default_rng(0).standard_normal((4, n_windows * 10 * features.SAMPLERATE))
    times_s = np.arange(noise.shape[1]) / features.SAMPLERATE
    durations_s: list[float] = []

    def draw(_seed: int, conditions: Conditions) -> None:
        durations_s.append(conditions.duration_s)

    def picture(_scene: None, *, rate_hz: float, **_: object) -> Tensor:
        levels = torch.arange(round(durations_s[0] * rate_hz), dtype=torch.uint8)
        return levels[:, None, None, None].expand(-1, 16, 32, 3)

    monkeypatch.setattr(calibrate_avsa, "draw_scene", draw)
    monkeypatch.setattr(calibrate_avsa, "render_picture", picture)
    monkeypatch.setattr(
        calibrate_avsa, "render_sound", lambda *_, **__: torch.from_numpy(noise * times_s)
    )

    config = replace(TINY, sound_s=1.0)  # half of it is seen

    windows = rendered_moments(0, n_windows, config)

    assert durations_s == [10.0 * n_windows]
    power = float(config.sound.covariance(torch.from_numpy(noise))[..., WW].sum(1).mean())
    for number, moments in enumerate(windows):
        seen_s = [float(255 * moment.crops.mean() + 0.5) / TINY.frame_rate_hz for moment in moments]
        heard_s = [
            math.sqrt(float(moment.covariance[..., WW].sum(1).mean()) / power) for moment in moments
        ]
        expected_s = [10 * number + 0.5 + 9 * (i + 0.5) / MOMENTS for i in range(MOMENTS)]
        assert seen_s == pytest.approx(expected_s, abs=0.51 / TINY.frame_rate_hz)
        assert heard_s == pytest.approx(expected_s, rel=0.05)
        spans = [float(255 * (m.crops.max() - m.crops.min())) for m in moments]
        assert spans == pytest.approx([TINY.n_frames - 1] * MOMENTS, abs=1e-3)


def test_what_nothing_fits_is_a_scene_with_the_sound_of_the_one_before_or_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def moments(seed: int, n_windows: int, _config: AvsaConfig) -> list[list[Moment]]:
        number = torch.tensor(float(seed))
        return [[Moment(number, number)]] * n_windows

    def noise(given: Sequence[Moment], seed: int, _config: AvsaConfig) -> list[Moment]:
        return [replace(moment, covariance=torch.tensor(-1.0 - seed)) for moment in given]

    class Told:
        config = TINY

        def log_evidence(self, given: Sequence[Moment]) -> Tensor:
            return torch.stack([given[0].crops, given[0].covariance])

    monkeypatch.setattr(calibrate_avsa, "rendered_moments", moments)
    monkeypatch.setattr(calibrate_avsa, "with_noise", noise)
    scorer: Any = Told()

    judged = [
        (kind, cues[:, 0].tolist())
        for kind, cues in judged_takes(scorer, seed=100, n_scenes=9, n_long=2)
    ]

    pairs: dict[str, list[list[float]]] = {}
    for kind, (first, *others) in judged:
        assert others == [first] * (2 if kind == "long" else 0)
        pairs.setdefault(kind, []).append(first)
    assert pairs["matched"] == [[scene, scene] for scene in range(100, 109)]
    assert pairs["long"] == [[scene, scene] for scene in (109, 110)]  # none of those before
    assert len(pairs["foreign"]) >= 2
    assert all(heard == seen - 1 for seen, heard in pairs["foreign"])
    assert len({heard for _, heard in pairs["noise"]}) == len(pairs["noise"]) >= 2
    assert all(heard < 0 for _, heard in pairs["noise"])


def test_takes_are_rendered_and_judged() -> None:
    torch.manual_seed(0)
    scorer = AvsaScorer(AvsaNetwork(TINY), translated=True)

    takes = list(judged_takes(scorer, seed=3, n_scenes=1, n_long=0))

    (moments,) = rendered_moments(3, 1, TINY)
    assert [kind for kind, _ in takes] == ["matched", "noise"]
    assert torch.equal(takes[0][1][0, 0], scorer.log_evidence(moments))
    assert not torch.equal(takes[0][1], takes[1][1])


def test_a_checkpoint_is_needed_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate.main(["--method", "avsa"]) == 2
    assert "needs --checkpoint" in capsys.readouterr().err
    missing = str(tmp_path / "missing.safetensors")
    assert calibrate.main(["--method", "avsa", "--checkpoint", missing]) == 2
    assert "cannot be read" in capsys.readouterr().err
    checkpoint = tmp_path / "avsa.safetensors"
    save_avsa(checkpoint, AvsaNetwork(TINY), {})
    before, words = checkpoint.read_bytes(), ["--checkpoint", str(checkpoint)]
    assert calibrate.main(["--method", "avsa", *words, "--output", str(checkpoint)]) == 2
    assert "originals are never overwritten" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before
