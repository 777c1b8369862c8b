"""What boxes are worth is found on scenes that are drawn again: on no others."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import OBJECTS
from model.evidence import N_YAWS, yaws_deg
from model.scoring import Evidence, Window
from tests.model.test_scoring import CALIBRATION
from tests.training.test_evaluate_lag import flickering
from training import fit_detections
from training.data.materials import NOTHING
from training.data.picture import Texture
from training.data.scenes import Conditions, draw_scene
from training.data.signals import CURVE_RATE
from training.data.windows import asked_for, load_window, save_window
from training.fit_detections import _Scored, best_weight, log_loss, seen_by_a_detector, within


@pytest.mark.parametrize(
    ("names", "asked", "told"),
    [
        (["scene-0000001"], {}, "holds one window"),
        (["plain-0000001", "plain-0000002"], {}, "plain-0000001.safetensors is of no scene that"),
        (["take_2-1a2b3c4d-0000", "take_2-1a2b3c4d-0001"], {}, "is of no scene that can be drawn"),
        (["scene-0000001", "scene-0000002"], {"n_sources": 1}, "(n_sources 1, not None)"),
        (["scene-0000001", "scene-0000002"], {"panoramas": 21}, "(panoramas 21, not 0)"),
    ],
)
def test_windows_of_other_scenes_are_refused(
    tmp_path: Path,
    names: list[str],
    asked: dict[str, Any],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in names:
        path = tmp_path / f"{name}.safetensors"
        usual = asked_for(Conditions(duration_s=2.0), NOTHING)
        save_window(path, flickering(20), usual | asked)

    assert fit_detections.main([str(tmp_path)]) == 2

    assert told in capsys.readouterr().err.splitlines()[-1]


def drawn(n: int, share: float) -> list[_Scored]:
    """Windows whose truth, at 0, is as likely as their boxes say where these count 1 / `share`."""
    generator = torch.Generator().manual_seed(0)
    near = torch.tensor([math.exp(-0.5 * (yaw / 7.5) ** 2) for yaw in yaws_deg()]).double()
    rows = []
    for number in range(n):
        rough = torch.randn(N_YAWS, generator=generator).mul(2).softmax(0).double()
        truth = int(torch.multinomial(rough, 1, generator=generator))
        # What sounds has an extent: so is what is aimed at.
        blurred = torch.fft.irfft(torch.fft.rfft(rough) * torch.fft.rfft(near / near.sum()), n=72)
        there = blurred.roll(-(yaws_deg().index(0.0))).roll(yaws_deg().index(0.0) - truth)
        rows.append(_Scored(number, torch.zeros(N_YAWS).double(), share * there.log(), True))
    return rows


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_boxes_count_as_much_as_makes_their_odds_right(share: float) -> None:
    rows = drawn(500, share)

    assert best_weight(rows) == pytest.approx(1 / share, rel=0.25)


def test_the_loss_is_a_mean_over_windows_in_which_those_that_fit_nothing_count_less() -> None:
    rng = np.random.default_rng(0)
    others, objects = torch.from_numpy(rng.normal(size=(2, 5, N_YAWS)))
    fits = [True, False, True, True, False]
    rows = [_Scored(i, others[i], objects[i], fits[i]) for i in range(5)]
    target = np.exp(-0.5 * (np.array(yaws_deg()) / 7.5) ** 2)
    target /= target.sum()

    total, counted = 0.0, 0.0
    for row in rows:
        logits = row.others.numpy() + 0.7 * row.objects.numpy()
        logs = logits - np.log(np.exp(logits).sum())
        share = 1.0 if row.fits else 0.37
        total -= share * ((target if row.fits else np.full(72, 1 / 72)) * logs).sum()
        counted += share

    assert log_loss(rows, 0.7) == pytest.approx(total / counted)


def test_of_those_that_fit_it_is_told_how_many_are_near() -> None:
    def at(degrees: float) -> torch.Tensor:
        off = [math.remainder(yaw - degrees, 360) / 10 for yaw in yaws_deg()]
        return -0.5 * torch.tensor(off).double() ** 2

    nothing = torch.zeros(N_YAWS).double()
    rows = [
        _Scored(0, nothing, at(-15.0), True), _Scored(1, nothing, at(5.0), True),
        _Scored(2, nothing, at(0.0), False),
    ]  # fmt: skip

    assert (within(rows, 1.0, 10), within(rows, 1.0, 20)) == (0.5, 1.0)
    assert (within(rows, -1.0, 160), within(rows, -1.0, 170)) == (0.0, 0.5)


def test_bodies_are_seen_where_they_are_and_as_large_in_part_and_things_that_are_none() -> None:
    """Each is missed now and then; wide stuff is no thing; a box in the mean twice the radius."""
    conditions = Conditions(duration_s=10.0, n_sources=1, n_distractors=2)
    scenes = [draw_scene(seed, conditions) for seed in range(150)]
    n_bodies, apart, sizes, n_false = 0, [], [], 0
    for scene in scenes:
        bodies = [body for body in scene.bodies if not isinstance(body, Texture)]
        n_bodies += len(bodies)
        for box in seen_by_a_detector(scene, np.random.default_rng(scene.seed)):
            at = min(int(box.time_s * CURVE_RATE), len(bodies[0].azimuth) - 1) if bodies else 0
            off = [
                (
                    math.remainder(box.azimuth_rad - body.azimuth[at], math.tau) / body.radius,
                    (box.elevation_rad - body.elevation[at]) / body.radius,
                    body,
                )
                for body in bodies
            ]
            x, y, nearest = min(off, key=lambda o: math.hypot(o[0], o[1]), default=(9, 9, None))
            if nearest is None or math.hypot(x, y) > 0.8:
                n_false += 1
                continue
            apart += [x, y]
            sizes += [box.width_rad / nearest.radius, box.height_rad / nearest.radius]
            assert box.time_s % 1 == 0.5

    assert len(apart) / 2 == pytest.approx(0.575 * 10 * n_bodies, rel=0.1)
    assert n_false == pytest.approx(0.575 * 10 * len(scenes), rel=0.3)
    assert np.mean(apart) == pytest.approx(0, abs=0.02)
    assert np.std(apart) == pytest.approx(0.15, rel=0.1)
    assert np.mean(sizes) == pytest.approx(2 * (0.7 + 1.4) / 2, rel=0.05)


def test_every_third_window_is_also_heard_with_the_sound_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes are those of the picture, and count as the other evidence does."""
    paths = [tmp_path / f"scene-{number:07d}.safetensors" for number in range(5)]
    for number, path in enumerate(paths):
        window = flickering(20)
        save_window(path, replace(window, covariance=window.covariance * (1 + number)))
    loud = [float(load_window(path).covariance.sum()) for path in paths]
    heard: list[float] = []

    def noting(window: Window) -> Evidence:
        heard.append(float(window.covariance.sum()))
        return Evidence({"cue": torch.zeros(N_YAWS)}, {"belongs": 1.0})

    looked_at: list[list[int]] = []

    def boxes(scene: Any, _rng: np.random.Generator) -> list[int]:
        return [scene.seed]

    def objects(seen: list[int]) -> Any:
        looked_at.append(seen)
        return lambda _window: Evidence({OBJECTS: torch.ones(N_YAWS).double()})

    monkeypatch.setattr(fit_detections, "scorers_for", lambda _calibration: [noting])
    monkeypatch.setattr(
        fit_detections, "_scene_of", lambda path, *_: SimpleNamespace(seed=int(path.stem[-1]))
    )
    monkeypatch.setattr(fit_detections, "seen_by_a_detector", boxes)
    monkeypatch.setattr(fit_detections, "ObjectScorer", objects)
    half = replace(CALIBRATION, weights={}, gates={"evidence": {"belongs": math.log(3)}})

    rows = fit_detections.scored(paths, half, NOTHING)

    assert [(row.number, row.fits) for row in rows] == [
        (0, True), (1, True), (2, True), (3, True), (3, False), (4, True),
    ]  # fmt: skip
    assert heard == [*loud[:4], loud[2], loud[4]]
    assert looked_at == [[0], [1], [2], [3], [3], [4]]
    assert all(row.objects.allclose(torch.tensor(0.75).double()) for row in rows)
