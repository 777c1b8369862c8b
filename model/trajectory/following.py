"""A rotation that changes along a take: told in the report, and followed in the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import Calibration
from model.learned import LearnedScorer
from model.orientation import Orientation
from model.scoring import Judgement, ScoredWindow, Verdict, judge
from model.take import Progress, Take
from model.trajectory.course import read_course
from model.trajectory.kinds import Kind, Trajectory, curve_at, trace
from model.trajectory.steps import STEP_DEG, offsets_deg
from model.wording import angle

FloatArray = NDArray[np.floating]

_RAMP_S = 0.05  # of a step in the output: short to the ear, and without a click
_CURVE_STEP_S = 0.1  # at least, between the points of a report's curve
_STILL_DEG = 1.0  # an orientation that moves by less is constant


def traced(
    take: Take, calibration: Calibration, learned: LearnedScorer | None, progress: Progress
) -> Trajectory:
    """The rotation along a whole take; every block of its picture is decoded.

    calibration : of the training-free evidence, which tells where there is no learned scorer.
    """
    return trace(read_course(take, learned, progress), calibration)


def known(orientation: Orientation, end_s: float) -> Trajectory:
    """The rotation along a take as an orientation says, but for a constant.

    A field that is turned by it stands still against the picture, which lasts until `end_s`.
    """
    inside = (orientation.times_s > 0) & (orientation.times_s < end_s)
    times_s = np.concatenate([[0.0], orientation.times_s[inside], [end_s]])
    curve = orientation.at(times_s)
    return Trajectory(
        Kind.MOVING if np.ptp(curve) >= _STILL_DEG else Kind.CONSTANT, [], times_s, curve
    )


def beginning_with(trajectory: Trajectory, first_deg: float) -> Trajectory:
    """The same changes from another rotation at the beginning."""
    curve = trajectory.rotate_field_ccw_deg
    return replace(trajectory, rotate_field_ccw_deg=curve + (first_deg - curve[0]))


def judge_along(
    windows: Sequence[ScoredWindow],
    trajectory: Trajectory,
    calibration: Calibration,
    *,
    tolerance_deg: float,
) -> Judgement:
    """Judge the rotation at the beginning of a take that does not keep it.

    Every window's evidence is first turned back by what the rotation has changed until then.
    """
    curve = curve_at(trajectory)
    first_deg = float(curve(trajectory.times_s[:1])[0])
    relative = []
    for window in windows:
        middle = np.array([window.start_s + window.duration_s / 2])
        bins = round((float(curve(middle)[0]) - first_deg) / STEP_DEG)
        relative.append(replace(window, log_posterior=window.log_posterior.roll(-bins)))
    return judge(relative, calibration, tolerance_deg=tolerance_deg)


def never_aligned(judgement: Judgement) -> Judgement:
    """A judgement of a take whose rotation changes: it does not fit as it is."""
    if judgement.verdict is Verdict.ALIGNED:
        return replace(judgement, verdict=Verdict.MISALIGNED)
    return judgement


def angle_along(
    take: Take, trajectory: Trajectory, first_deg: float, *, on_picture: bool = False
) -> Callable[[FloatArray], FloatArray]:
    """The angle in radians to turn a track by at its sample numbers.

    first_deg : the rotation at the beginning; from there it changes as the trajectory does.
    on_picture : whether the samples are counted on the picture's clock, not the track's own.
    """
    if trajectory.kind is Kind.STEPS:
        edges = np.array([step.at_s for step in trajectory.steps])
        offsets = offsets_deg(trajectory.steps)
        knots = np.ravel(np.column_stack([edges - _RAMP_S / 2, edges + _RAMP_S / 2]))
        degrees = np.ravel(np.column_stack([offsets[:-1], offsets[1:]]))
    else:
        knots = trajectory.times_s
        degrees = trajectory.rotate_field_ccw_deg - trajectory.rotate_field_ccw_deg[0]
    times = knots if on_picture else take.placement.track_s(knots)
    samples = times * take.audio.samplerate

    def angle_rad(at: FloatArray) -> FloatArray:
        degrees_now: FloatArray = first_deg + np.interp(at, samples, degrees)
        return np.deg2rad(degrees_now)

    return angle_rad


def sentence(trajectory: Trajectory, *, follow: bool) -> str | None:
    """What is to be known of a rotation that changes; None if it does not."""
    if trajectory.kind is Kind.CONSTANT:
        return None
    so = "" if follow else " (--follow writes it so)"
    if trajectory.kind is Kind.STEPS:
        steps = " and ".join(f"by {angle(s.by_deg, 0)} at {s.at_s:.1f} s" for s in trajectory.steps)
        return f"One rotation does not hold for the whole take: it steps {steps}{so}."
    over_deg = np.ptp(trajectory.rotate_field_ccw_deg)
    return f"One rotation does not hold for the whole take: it moves over {over_deg:.0f}°{so}."


def as_json(trajectory: Trajectory, *, followed: bool) -> dict[str, Any]:
    """For a report."""
    trajectory = _sparse(trajectory)
    return {
        "kind": trajectory.kind.value,
        "followed": followed,
        "steps": [
            {"at_s": round(s.at_s, 3), "by_deg": round(s.by_deg, 2), "gain": round(s.gain, 2)}
            for s in trajectory.steps
        ],
        "times_s": trajectory.times_s.round(3).tolist(),
        "rotate_field_ccw_deg": trajectory.rotate_field_ccw_deg.round(2).tolist(),
    }


def _sparse(trajectory: Trajectory) -> Trajectory:
    """The same with points far enough apart for a report."""
    times_s = trajectory.times_s
    count = int((times_s[-1] - times_s[0]) / _CURVE_STEP_S) + 1
    if len(times_s) <= count:
        return trajectory
    grid = np.linspace(times_s[0], times_s[-1], count)
    curve = np.interp(grid, times_s, trajectory.rotate_field_ccw_deg)
    return replace(trajectory, times_s=grid, rotate_field_ccw_deg=curve)
