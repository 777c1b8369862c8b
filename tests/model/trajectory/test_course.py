"""A take put together from blocks is the take."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from model.checkpoint import Method, load_calibration, load_scorer
from model.learned import LearnedScorer
from model.scoring import Window
from model.trajectory.course import HOP_S, VIEW_S, Reader, blocks, read_course, views
from model.trajectory.kinds import trace
from training.data.excerpts import cut
from training.data.scenes import Conditions, draw_scene
from training.data.windows import render_window

CALIBRATION = load_calibration(method=Method.EVIDENCE)  # as in a job


@pytest.fixture(scope="module")
def window() -> Window:
    conditions = Conditions(duration_s=21.0, n_sources=2, snr_db=20.0, plain=True)
    return render_window(draw_scene(950_000, conditions))


def parts_of(window: Window, size: int) -> list[Window]:
    """Windows in a row; each shares its first interval with the one before."""
    n = len(window.covariance)
    return [cut(window, max(0, at - 1), min(n, at + size)) for at in range(0, n, size)]


@pytest.fixture(scope="module")
def learned() -> LearnedScorer:
    return LearnedScorer(load_scorer())


@given(st.floats(0, 100), st.floats(2, 100), st.floats(4, 60))
@example(0.0, 21.05, 10.0)  # of which a second would be left
def test_a_take_is_covered_by_blocks_that_can_be_read(
    start_s: float, length_s: float, rate_hz: float
) -> None:
    """Each shares a frame with the next, and lasts 5 s if the take does."""
    end_s, frame_s = start_s + length_s, 1 / rate_hz

    places = blocks(start_s, end_s, frame_s)

    ends = [at + duration_s for at, duration_s in places]
    assert (places[0][0], ends[-1]) == pytest.approx((start_s, end_s))
    assert all(end - at > frame_s for (at, _), end in zip(places[1:], ends, strict=False))
    assert all(
        min(length_s, 5) - 1e-6 <= duration_s < 15 + 1.5 * frame_s for _, duration_s in places
    )


@pytest.mark.parametrize("size", [40, 101, 500])
def test_blocks_are_put_together_without_gap_or_overlap(window: Window, size: int) -> None:
    pan_rad = torch.linspace(-2, 2, len(window.motion.pan_rad))
    window = replace(window, motion=replace(window.motion, pan_rad=pan_rad))
    reader = Reader()
    for block in parts_of(window, size):
        reader.add(block)

    course = reader.course()

    np.testing.assert_allclose(course.pan_deg, np.degrees(pan_rad.numpy()))
    edges_s = window.motion.edges_s.numpy()
    np.testing.assert_allclose(course.times_s, (edges_s[1:] + edges_s[:-1]) / 2, atol=1e-6)
    torch.testing.assert_close(course.motion, window.motion.energy.float())
    assert course.learned is None


def test_a_block_that_cannot_be_read_is_left_out(window: Window) -> None:
    blocks_read = iter([cut(window, 0, 100), None, cut(window, 200, 230)])
    take = SimpleNamespace(
        start_s=0.0, end_s=30.0, video=SimpleNamespace(rate_hz=15.0),
        window=lambda _start_s, _duration_s: next(blocks_read),
    )  # fmt: skip
    reached: list[float] = []

    course = read_course(take, progress=reached.append)  # type: ignore[arg-type]

    assert len(course.times_s) == 130
    assert reached == [1 / 3, 2 / 3, 1]


def test_every_short_window_is_scored_once_and_as_if_alone(
    window: Window, learned: LearnedScorer
) -> None:
    reader = Reader(learned)
    for block in parts_of(window, 70):
        reader.add(block)

    course = reader.course()

    starts_s = course.view_starts_s
    assert course.learned is not None
    assert len(course.learned) == len(starts_s) == round((21 - VIEW_S) / HOP_S)
    for index in (0, 7, len(starts_s) - 1):
        first = int(np.searchsorted(course.times_s, starts_s[index] - 1e-6))
        last = int(np.searchsorted(course.times_s, starts_s[index] + VIEW_S - 1e-6))
        (alone,) = learned.along(cut(window, first, last), [slice(0, last - first)])
        near = torch.stack([alone, course.learned[index]])
        assert float(torch.corrcoef(near)[0, 1]) > 0.9


def test_of_a_long_take_only_the_end_is_kept_for_short_windows(window: Window) -> None:
    """Memory does not grow with the take."""
    asked: list[int] = []

    class Scorer:
        def along(self, kept: Window, stretches: list[slice]) -> torch.Tensor:
            asked.append(len(kept.covariance))
            return torch.zeros(len(stretches), 72, dtype=torch.float64)

    reader = Reader(Scorer())  # type: ignore[arg-type]
    for block in parts_of(window, 40):
        reader.add(block)

    n = len(window.covariance)
    assert max(asked) <= 41 + (VIEW_S + HOP_S) * n / 21
    assert n > 250


def test_short_windows_know_more_with_the_learned_scorer(
    window: Window, learned: LearnedScorer
) -> None:
    with_it, without = Reader(learned), Reader()
    for block in parts_of(window, 101):
        with_it.add(block)
        without.add(block)

    both = views(with_it.course(), CALIBRATION).log_posteriors.log_softmax(1)
    alone = views(without.course(), CALIBRATION).log_posteriors.log_softmax(1)

    # The right rotation is 0, the 36th.
    assert both[:, 34:37].exp().sum(1).mean() > alone[:, 34:37].exp().sum(1).mean()


@pytest.mark.parametrize("with_scorer", [True, False])
def test_a_short_take_and_one_with_a_gap_are_traced(
    window: Window, learned: LearnedScorer, with_scorer: bool
) -> None:
    """A take shorter than a short window, and one of which eleven seconds cannot be read."""
    asked = learned if with_scorer else None
    n = len(window.covariance)
    short, broken = Reader(asked), Reader(asked)
    short.add(cut(window, 0, n // 6))
    broken.add(cut(window, 0, n // 4))
    broken.add(cut(window, 7 * n // 9, n))

    for reader in (short, broken):
        course = reader.course()
        found = trace(course, CALIBRATION)
        assert np.isfinite(found.rotate_field_ccw_deg).all()
        assert bool(torch.isfinite(views(course, CALIBRATION).log_posteriors).all())
