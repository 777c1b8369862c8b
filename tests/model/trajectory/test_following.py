"""A rotation that changes along a take: judged by its beginning, and followed in the output."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from model.placement import Placement
from model.scoring import Verdict, judge
from model.take import Take, Track
from model.trajectory.following import (
    angle_along,
    as_json,
    beginning_with,
    judge_along,
    never_aligned,
    sentence,
)
from model.trajectory.kinds import Kind, Trajectory, curve_at
from model.trajectory.steps import Step
from tests.model.fields import RATE
from tests.model.test_scoring import CALIBRATION, bump, window
from training.data.takes import TakeFiles

TIMES_S = np.arange(0.5, 60.0)
STEPS = [Step(17.0, 60.0, 20.0), Step(41.0, -145.0, 20.0)]
STEPPED = Trajectory(
    Kind.STEPS, STEPS, TIMES_S, 30.0 + 60.0 * (TIMES_S >= 17) - 145.0 * (TIMES_S >= 41)
)
MOVING = Trajectory(Kind.MOVING, [], TIMES_S, 30.0 + 4.0 * (TIMES_S - TIMES_S[0]))
EACH = pytest.mark.parametrize("trajectory", [STEPPED, MOVING], ids=["steps", "moving"])


@EACH
def test_windows_that_say_what_holds_in_them_are_judged_by_the_beginning(
    trajectory: Trajectory,
) -> None:
    """Whatever the rotation that the trajectory itself begins with."""
    curve = curve_at(trajectory)
    windows = [
        replace(window(bump(-100.0 + float(curve(np.array([at_s + 5.0]))[0]))), start_s=at_s)
        for at_s in (0.0, 12.0, 20.0, 29.0, 36.5, 48.0)
    ]

    judged = judge_along(windows, trajectory, CALIBRATION, tolerance_deg=10)

    off = math.remainder(judged.rotate_field_ccw_deg - (-100.0 + 30.0), 360)
    assert off == pytest.approx(0, abs=2.5)  # half a bin
    assert judged.verdict is Verdict.MISALIGNED
    assert judged.confidence > 0.85


@EACH
@pytest.mark.parametrize("on_picture", [True, False])
def test_the_output_turns_as_the_curve_does_and_steps_within_50_ms(
    take: TakeFiles, trajectory: Trajectory, on_picture: bool
) -> None:
    """On the clock that its samples are counted on."""
    clock = Placement() if on_picture else Placement(2.5, 400.0)
    samples = np.arange(5 * RATE, 54 * RATE, 24, dtype=np.float64)
    with Take(take.video, Track((take.audio,))) as opened:
        opened.placement = Placement(2.5, 400.0)
        angle = angle_along(opened, trajectory, -70.0, on_picture=on_picture)

    turned = np.rad2deg(angle(samples))

    at_s = np.array([clock.camera_s(sample / RATE) for sample in samples])
    expected = curve_at(trajectory)(at_s) - 30.0 - 70.0
    away_s = np.min([np.abs(at_s - step.at_s) for step in STEPS], axis=0)
    smooth = (away_s > 0.0251) | (trajectory is MOVING)
    np.testing.assert_allclose(turned[smooth], expected[smooth], atol=1e-6)
    assert np.abs(np.diff(turned)).max() < 145 / 50  # of half a millisecond: no click


@pytest.mark.parametrize("verdict", list(Verdict))
def test_what_changes_is_not_aligned(verdict: Verdict) -> None:
    judged = replace(judge([window(bump(0.0))], CALIBRATION, tolerance_deg=10), verdict=verdict)

    changed = verdict is Verdict.ALIGNED
    assert never_aligned(judged).verdict is (Verdict.MISALIGNED if changed else verdict)


def test_what_is_told_of_a_trajectory() -> None:
    told = as_json(STEPPED, followed=True)

    assert [(step["at_s"], step["by_deg"]) for step in told["steps"]] == [(17, 60), (41, -145)]
    assert told["rotate_field_ccw_deg"] == STEPPED.rotate_field_ccw_deg.tolist()
    moved = beginning_with(MOVING, -170.0).rotate_field_ccw_deg
    np.testing.assert_allclose(moved, MOVING.rotate_field_ccw_deg - 200.0)
    assert "by +60° at 17.0 s and by -145° at 41.0 s (" in str(sentence(STEPPED, follow=False))
    assert "it moves over 236°." in str(sentence(MOVING, follow=True))
    assert sentence(replace(MOVING, kind=Kind.CONSTANT), follow=True) is None
