"""Moments at which all that is heard turns at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.evidence import N_YAWS
from model.trajectory.course import Course, Views
from model.trajectory.leaps import Leaps, better_turned
from model.trajectory.steps import StepEvidence

RATE = 12.5


def course_of(sound: torch.Tensor) -> Course:
    n = len(sound)
    times_s = np.asarray((np.arange(n) + 0.5) / RATE, dtype=np.float64)
    return Course(times_s, sound, dict.fromkeys(("doa", "mvdr", "flux"), sound), np.zeros(n))


def talkers(*columns_and_levels: tuple[float | np.ndarray, float | np.ndarray]) -> torch.Tensor:
    """Maps of sources over diffuse sound, 40 s; columns and levels may change over time."""
    n = round(40 * RATE)
    rng = np.random.default_rng(0)
    total = 1 + 0.03 * rng.standard_normal((n, N_YAWS))
    for column, level in columns_and_levels:
        away = (np.arange(N_YAWS) - np.broadcast_to(column, n)[:, None] + 36) % N_YAWS - 36
        total += np.broadcast_to(level, n)[:, None] * np.exp(-0.5 * (away / 4) ** 2)
    return torch.tensor(total)


TIMES = (np.arange(round(40 * RATE)) + 0.5) / RATE
# Faint, and passing by at 5 degrees a second.
PASSING = [(10 + TIMES, 0.2), (50 + TIMES, 0.1)]


def test_it_equals_distances_of_turned_sums() -> None:
    shares = torch.rand(20, N_YAWS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    n = 3

    found = better_turned(shares, n)

    sums = [
        (shares[i - n : i].sum(0), shares[i : i + n].sum(0)) for i in range(n, len(shares) - n + 1)
    ]
    flat = [(a - a.mean(), b - b.mean()) for a, b in sums]
    usual = torch.stack([(a - b).square().sum() for a, b in flat]).mean()
    assert found.shape == (len(flat), N_YAWS)
    for row, (before, after) in zip(found, flat, strict=True):
        for turn in (0, 5, 71):
            back = after.roll(turn)
            closer = (before - after).square().sum() - (before - back).square().sum()
            squares = before.square().sum() + after.square().sum()
            assert float(row[turn]) == pytest.approx(float(closer / (squares + usual)))


@pytest.mark.parametrize("turn", [6, 30, 66])
def test_a_leap_is_found_to_a_tenth_of_a_second_though_sources_are_faint_and_move(
    turn: int,
) -> None:
    at_s = 21.3
    leapt = [(column - turn * (at_s <= TIMES), level) for column, level in PASSING]
    leaps = Leaps(course_of(talkers(*leapt)), least_turn=4)

    found_s, value = leaps.best(turn, 10, 30)
    above = leaps.above(0, at_s, 40, within_s=0.2)

    assert abs(found_s - at_s) <= 0.1
    assert value > 0.3
    assert float(above[turn]) > 0.9 * float(above.max())
    assert float(above[turn]) > 0.3
    assert float(leaps.above(0, 12.0, 40, within_s=0.2).max()) == 0


def test_where_frames_are_rare_the_next_moment_counts() -> None:
    """Of stretches shorter than from one to the next."""
    sound = talkers((20, 1.0), (50, 0.5))[:80]
    rare = replace(course_of(sound), times_s=np.arange(0.5, 80.0))

    assert Leaps(rare, least_turn=4).best(10, 30.3, 30.55)[0] == 31.0


def test_what_does_not_turn_has_no_leap() -> None:
    leaps = Leaps(course_of(talkers(*PASSING)), least_turn=4)

    for turn in (6, 30, 66):
        assert leaps.best(turn, 5, 35)[1] < 0.15


def test_turns_of_speech_are_not_above_each_other() -> None:
    """From one talker to the other is a turn of all that is heard, but so is the next."""
    first = (np.floor(TIMES / 5) % 2 == 0).astype(float)
    leaps = Leaps(course_of(talkers((20, first), (32, 1 - first))), least_turn=4)

    assert leaps.best(60, 2, 38)[1] > 0.4
    for at_s in (5, 10, 15, 20, 35):
        assert float(leaps.above(0, at_s, 40, within_s=0.2).max()) < 0.1


def test_a_take_shorter_than_the_sides_says_nothing() -> None:
    leaps = Leaps(course_of(talkers(*PASSING)[:4]), least_turn=4)

    assert leaps.best(10, 0.0, 0.3)[1] == 0


class Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the numbers that tensors are made of within its block; views are made of none."""

    numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not func.is_view:
            self.numbers += result.numel()
        return result


def test_asking_about_a_moment_copies_no_take() -> None:
    """It is asked four times a second: what grows with the take would cost its square."""

    def made(minutes: int) -> tuple[int, int]:
        course = course_of(talkers((10, 1.0)).repeat((3 * minutes) // 2, 1))
        starts_s = course.view_starts_s
        seen = Views(starts_s, torch.zeros(len(starts_s), N_YAWS, dtype=torch.float64), 1.0)
        evidence, end_s = StepEvidence(course, seen), float(course.times_s[-1])
        with Made() as mode:  # type: ignore[no-untyped-call]
            evidence.gains(0.0, end_s / 2, end_s)
        return mode.numbers, len(course.times_s)

    (few, short), (more, long) = made(2), made(8)

    assert more - few < 2 * (long - short)
