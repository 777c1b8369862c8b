"""Yaw over time."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.checkpoint import Method, load_calibration
from model.trajectory.course import Course, Views, views
from model.trajectory.kinds import (
    Kind,
    Seconds,
    Trajectory,
    _registration,
    curve_at,
    trace,
    viterbi,
    walk_log_probability,
)
from model.trajectory.steps import Histograms, Step, StepEvidence, find_steps

CALIBRATION = load_calibration(method=Method.EVIDENCE)  # as in a job
RATE = 12.5
SECONDS = 40


def map_of(azimuth_deg: np.ndarray, level: np.ndarray) -> Tensor:
    """One source: level at an azimuth in picture order (the middle column is the front)."""
    columns = 36 - azimuth_deg / 5
    away = (np.arange(72)[None] - columns[:, None] + 36) % 72 - 36
    return torch.tensor(level[:, None] * np.exp(-0.5 * (away / 2) ** 2) + 0.003)


@pytest.fixture
def sources(rng: np.random.Generator) -> list[tuple[float, np.ndarray]]:
    """Azimuths and levels of three talkers who speak in turns and over each other."""
    n = round(SECONDS * RATE)
    smooth = np.ones(9) / 9
    return [
        (azimuth, np.clip(np.convolve(rng.standard_normal(n + 8), smooth, "valid"), 0, None))
        for azimuth in (-120.0, 20.0, 75.0)
    ]


def course_of(
    sources: list[tuple[float, np.ndarray]], sound_deg: np.ndarray, picture_deg: np.ndarray
) -> Course:
    """Sources whose sound and picture are turned counter-clockwise by angles over time."""
    n = len(sound_deg)
    sound = sum(map_of(az + sound_deg, level) for az, level in sources)
    motion = sum(map_of(az + picture_deg, level) for az, level in sources)
    pan = -np.diff(picture_deg, prepend=picture_deg[0])
    return Course(
        np.array((np.arange(n) + 0.5) / RATE, dtype=np.float64),
        torch.as_tensor(motion),
        {name: torch.as_tensor(sound) for name in ("doa", "mvdr", "flux")},
        pan,
    )


def steps_of(by_deg: float, at_s: float) -> np.ndarray:
    times = (np.arange(round(SECONDS * RATE)) + 0.5) / RATE
    return np.where(times >= at_s, by_deg, 0.0)


STILL = steps_of(0.0, 0.0)


@pytest.mark.parametrize("by_deg", [-135.0, 30.0, 90.0, 180.0])
def test_a_step_of_the_sound_is_found(
    sources: list[tuple[float, np.ndarray]], by_deg: float
) -> None:
    course = course_of(sources, steps_of(-by_deg, 17.0), STILL)

    (step,) = find_steps(course, views(course, CALIBRATION))

    assert not step.in_picture
    assert abs(step.at_s - 17) <= 1.5
    assert abs(math.remainder(step.by_deg - by_deg, 360)) <= 5


@pytest.mark.parametrize("at_s", [13.0, 19.0])
def test_a_step_is_put_where_sources_jump_though_they_move(
    sources: list[tuple[float, np.ndarray]], at_s: float
) -> None:
    """All pass by at 5 degrees a second, so that a histogram of the whole knows no moment."""
    passing = np.linspace(0, 200, len(STILL))
    course = course_of(sources, passing + steps_of(-60.0, at_s), passing)

    (step,) = find_steps(course, views(course, CALIBRATION))

    assert abs(step.at_s - at_s) <= 0.5
    assert abs(step.by_deg - 60) <= 5


@pytest.mark.parametrize("at_s", [14.0, 23.0])
def test_a_step_is_put_to_a_tenth_of_a_second_in_diffuse_sound(
    sources: list[tuple[float, np.ndarray]], at_s: float
) -> None:
    """What stands out is a few hundredths of what is heard: the histograms hardly change."""
    unceasing = [(azimuth, level + 0.1) for azimuth, level in sources]
    course = course_of(unceasing, steps_of(-60.0, at_s), STILL)
    sound = {name: series * 0.1 + 1.0 for name, series in course.sound.items()}

    (step,) = find_steps(replace(course, sound=sound), views(course, CALIBRATION))

    assert abs(step.at_s - at_s) <= 0.1
    assert abs(step.by_deg - 60) <= 5


def test_a_jump_is_sudden_and_a_slow_turn_is_not(sources: list[tuple[float, np.ndarray]]) -> None:
    times = (np.arange(round(SECONDS * RATE)) + 0.5) / RATE
    jumped = course_of(sources, steps_of(-60.0, 20.0), STILL)
    turned = course_of(sources, np.clip(times - 14, 0, 12) * -5.0, STILL)
    sudden, slow = (
        StepEvidence(course, views(course, CALIBRATION)).sudden for course in (jumped, turned)
    )

    assert sudden(20.0, 60.0) > 0
    for not_then in (slow(20.0, 60.0), sudden(30.0, 60.0), sudden(20.0, -60.0)):
        assert not_then < 0


@pytest.mark.parametrize("by_deg", [-60.0, 115.0])
def test_a_step_of_the_picture_is_found_to_the_frame(
    sources: list[tuple[float, np.ndarray]], by_deg: float
) -> None:
    course = course_of(sources, STILL, steps_of(by_deg, 17.0))

    (step,) = find_steps(course, views(course, CALIBRATION))

    assert step.in_picture
    assert abs(step.at_s - 17) <= 1 / RATE
    assert abs(math.remainder(step.by_deg - by_deg, 360)) <= 2.5


@pytest.mark.parametrize("by_deg", [-60.0, 115.0])
def test_what_the_sound_made_too_speaks_against_a_step_of_the_picture(
    sources: list[tuple[float, np.ndarray]], by_deg: float
) -> None:
    """By the sound alone: short windows say nothing here."""
    turned = steps_of(by_deg, 17.0)
    silent = Views(np.arange(0.0, 30.0), torch.zeros(30, 72, dtype=torch.float64), 1.0)
    of_picture, of_both = (
        float(StepEvidence(course_of(sources, sound, turned), silent)
              .pan_gains(0, 17, SECONDS, by_deg).max())
        for sound in (STILL, turned)
    )  # fmt: skip

    assert of_both + 6 < of_picture
    assert of_picture >= 8  # at the threshold by itself


def test_a_step_of_both_is_none(sources: list[tuple[float, np.ndarray]]) -> None:
    both = steps_of(70.0, 17.0)
    course = course_of(sources, both, both)

    assert trace(course, CALIBRATION).kind is Kind.CONSTANT


@pytest.mark.parametrize("by_deg", [(60, -140), (-140, 60)])
def test_two_steps(sources: list[tuple[float, np.ndarray]], by_deg: tuple[int, int]) -> None:
    turned = steps_of(by_deg[0], 12.0) + steps_of(by_deg[1], 27.0)
    course = course_of(sources, -turned, STILL)

    found = trace(course, CALIBRATION)

    assert tuple(round(step.by_deg) for step in found.steps) == by_deg
    assert [step.at_s for step in found.steps] == pytest.approx([12, 27], abs=1.5)
    off = curve_at(found)(course.times_s) - turned
    assert np.median(np.abs(off)) <= 3


def test_a_constant_take_is_constant(sources: list[tuple[float, np.ndarray]]) -> None:
    found = trace(course_of(sources, STILL - 55.0, STILL), CALIBRATION)

    assert found.kind is Kind.CONSTANT
    assert found.rotate_field_ccw_deg == pytest.approx(55, abs=3)


def test_a_moving_take_is_followed_over_the_back_and_to_its_ends(
    sources: list[tuple[float, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But where the picture turned at once, a step is what there is."""
    times = (np.arange(round(SECONDS * RATE)) + 0.5) / RATE
    turned = np.array(170 + 40 * np.sin(2 * np.pi * times / 40), dtype=np.float64)
    course = course_of(sources, -turned, STILL)

    found = trace(course, CALIBRATION)

    assert found.kind is Kind.MOVING
    curve = curve_at(found)(course.times_s)
    off = np.abs((curve - turned + 180) % 360 - 180)
    assert np.median(off) <= 10
    assert off[[0, -1]].max() <= 30
    assert np.abs(np.diff(curve)).max() < 2
    seen_step = Step(20.0, 30.0, 9.0, in_picture=True)
    monkeypatch.setattr("model.trajectory.kinds.find_steps", lambda *_: [seen_step])
    assert trace(course, CALIBRATION).kind is Kind.STEPS


def test_the_curve_of_a_turned_take_is_turned(sources: list[tuple[float, np.ndarray]]) -> None:
    plain = course_of(sources, STILL, STILL)
    turned = course_of(sources, STILL - 40.0, STILL)

    before = Seconds(plain, views(plain, CALIBRATION)).best_path(3.0)
    after = Seconds(turned, views(turned, CALIBRATION)).best_path(3.0)

    assert ((after - before) % 72 == 8).all()


def test_each_second_fits_the_others_turned_along_the_path() -> None:
    """One source, and a field that turns on and on: only along that path is it in one place."""
    path = np.array([37, 40, 50, 60, 68, 5, 20, 30])
    sound = torch.eye(72, dtype=torch.float64)[(20 + path - 35) % 72]

    assert _registration(sound, path).argmax(1).tolist() == path.tolist()


def test_histograms_know_the_angle_of_a_turn(sources: list[tuple[float, np.ndarray]]) -> None:
    """A turn by k bins gains most at k, and the gain is the entropy that it takes away."""
    course = course_of(sources, steps_of(-85.0, 20.0), STILL)

    gains = Histograms(course).gains(0, 20, SECONDS)

    assert int(gains.argmax()) == (-17) % 72
    assert gains[0] == 0
    assert gains.max() > 3


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.7, 2.0]))
def test_viterbi_against_all_paths(seed: int, walk: float) -> None:
    evidence = torch.tensor(np.random.default_rng(seed).normal(size=(4, 5)))
    step = walk_log_probability(5, walk).tolist()

    def value(path: tuple[int, ...]) -> float:
        moves = sum(step[(b - a) % 5] for a, b in itertools.pairwise(path))
        return float(moves) + sum(float(evidence[t, state]) for t, state in enumerate(path))

    best = max(itertools.product(range(5), repeat=4), key=value)

    assert tuple(viterbi(evidence, walk)) == best


def test_a_curve_holds_its_ends() -> None:
    moving = Trajectory(Kind.MOVING, [], np.array([1.0, 2.0]), np.array([10.0, 20.0]))
    stepped = Trajectory(Kind.STEPS, [Step(5.0, 30.0, 9.0)], np.array([0.0]), np.array([-10.0]))

    assert curve_at(moving)(np.array([0.0, 1.5, 9.0])).tolist() == [10, 15, 20]
    assert curve_at(stepped)(np.array([4.99, 5.0])).tolist() == [-10, 20]
