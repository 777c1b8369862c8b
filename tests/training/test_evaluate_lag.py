"""The evaluation of lags, with a judge that is never wrong in the place of the scorer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from model.errors import UnusableContent
from model.features import WW, Motion
from model.lag import IN_TIME_S, LEAST_WINDOW_S, Lag
from model.learned import LearnedScorer
from model.scoring import Window
from model.take import Track
from training.data.manifest import KnownTake
from training.data.windows import save_window
from training.evaluate import lag
from training.evaluate.lag import SHIFTS_S, Answer, ask_take, ask_windows, late, table

RATE_HZ = 10.0


class Ideal:
    """Tells by how many intervals what is heard comes after what is seen."""

    def __init__(self, _scorer: LearnedScorer) -> None:
        self._products = np.zeros(11)

    def add(self, window: Window) -> None:
        seen = window.motion.energy.sum(1).numpy()
        heard = window.covariance[..., WW].sum(1).numpy()
        self._products += [np.dot(seen, np.roll(heard, -by)) for by in range(-5, 6)]

    def result(self) -> Lag:
        return Lag((int(self._products.argmax()) - 5) / RATE_HZ, 0.01, 1.0)


def flickering(n: int) -> Window:
    """A window in which as much is heard as is seen, at every moment."""
    energy = torch.rand(n, 72, generator=torch.Generator().manual_seed(0))
    energy *= torch.rand(n, 1, generator=torch.Generator().manual_seed(1)) > 0.7
    covariance = torch.zeros(n, 32, 10, dtype=torch.float64)
    covariance[:, 0, WW] = energy.sum(1)
    edges = torch.arange(n + 1, dtype=torch.float64) / RATE_HZ
    nothing = torch.zeros(n)
    motion = Motion(energy, torch.zeros(n, 1), edges, nothing.bool(), nothing)
    return Window(0.0, n / RATE_HZ, covariance, motion)


@pytest.fixture(autouse=True)
def _ideal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "LagTest", Ideal)


def check(answers: Iterator[Answer]) -> None:
    """By how much the sound was moved is what is found, and counts as right."""
    given = list(answers)
    assert [answer.shift_s for answer in given] == list(SHIFTS_S)
    for answer in given:
        assert answer.moved_s == answer.late_s == pytest.approx(answer.shift_s, abs=1e-6)
        assert answer.right
        assert answer.told is (answer.shift_s != 0)


def test_scenes_are_moved_by_what_is_asked(tmp_path: Path, known_scorer: LearnedScorer) -> None:
    path = tmp_path / "scene-0.safetensors"
    save_window(path, flickering(300))

    check(ask_windows(path, known_scorer))


def test_scenes_too_short_to_be_asked_are_refused(
    tmp_path: Path, known_scorer: LearnedScorer
) -> None:
    """As of none of their parts a lag is looked for: that would look like in time."""
    path = tmp_path / "scene-0.safetensors"
    save_window(path, flickering(60))

    with pytest.raises(UnusableContent, match=r"scene-0.safetensors is of 6 s: .* of 30 s"):
        list(ask_windows(path, known_scorer))


def test_scenes_whose_thirds_are_long_enough_unless_moved_are_refused(
    tmp_path: Path, known_scorer: LearnedScorer
) -> None:
    path = tmp_path / "scene-0.safetensors"
    for n, refused in ((round(30 * LEAST_WINDOW_S) + 5, False), (round(30 * LEAST_WINDOW_S), True)):
        save_window(path, flickering(n))
        if refused:
            with pytest.raises(UnusableContent, match="moved, its thirds are of"):
                list(ask_windows(path, known_scorer))
        else:
            assert len(list(ask_windows(path, known_scorer))) == len(SHIFTS_S)


def test_sound_of_scenes_moves_by_whole_intervals(
    tmp_path: Path, known_scorer: LearnedScorer
) -> None:
    """Of 0.075 s each: what is found is judged by these, not by what was asked for."""
    window = flickering(400)
    motion = replace(window.motion, edges_s=0.75 * window.motion.edges_s)
    save_window(tmp_path / "scene-0.safetensors", replace(window, duration_s=30.0, motion=motion))

    moved_s = [a.moved_s for a in ask_windows(tmp_path / "scene-0.safetensors", known_scorer)]

    assert moved_s == pytest.approx([-0.375, -0.225, 0.0, 0.225, 0.375], abs=1e-4)


@pytest.mark.parametrize("moved_s", [-0.4, 0.0, 0.2])
def test_what_is_as_near_as_sound_in_time_is_right(moved_s: float) -> None:
    """And half a frame of a picture besides, earlier or later."""
    for off_s, right in ((0.04, True), (0.049, True), (0.06, False), (0.4, False)):
        for sign in (-1, 1):
            late_s = moved_s + sign * (IN_TIME_S + off_s)
            found = lag._answer("take", moved_s, moved_s, Lag(late_s, 0.01, 1.0))
            assert found.right is right


def test_takes_are_moved_by_what_is_asked(
    monkeypatch: pytest.MonkeyPatch, known_scorer: LearnedScorer
) -> None:
    """A track that begins later in the picture's time is heard later."""

    class Played:
        video = SimpleNamespace(path=Path("take.mp4"))
        warnings = ("A window was left out: its frames are broken.",)

        def __init__(self, _video: Path, track: Track) -> None:
            assert track.offset_s is not None
            self._window = late(flickering(100), round(track.offset_s * RATE_HZ))

        def __enter__(self) -> Played:
            return self

        def __exit__(self, *_: object) -> None: ...

        def choose_windows(self, _count: int) -> list[tuple[float, float]]:
            return [(0.0, 10.0), (10.0, 10.0)]

        def window(self, start_s: float, _duration_s: float) -> Window | None:
            return self._window if start_s else None

    monkeypatch.setattr(lag, "Take", Played)
    nowhere = Path("take.mp4")

    known = KnownTake("take", nowhere, nowhere, "", "", "", 0.0, (0.0,))
    check(ask_take(known, known_scorer))
    monkeypatch.setattr(Played, "window", lambda *_: None)
    with pytest.raises(UnusableContent, match="has no readable picture"):
        list(ask_take(known, known_scorer))


@pytest.fixture
def known_scorer() -> Any:
    return SimpleNamespace()


def test_the_table_counts_what_was_told_and_what_of_this_was_right() -> None:
    def answer(shift_s: float, *, told: bool, right: bool) -> Answer:
        return Answer("take", shift_s, shift_s, 0.0, 0.5, told, right)

    at_rest = [answer(shift, told=False, right=True) for shift in SHIFTS_S[:-1]]
    last = [(True, True), (True, False), (False, True), (False, True)]

    lines = table([*at_rest, *(answer(0.4, told=t, right=r) for t, r in last)]).splitlines()

    assert lines[1].split() == ["-0.4s", "1", "0%", "0", "of", "0", "100%"]
    assert lines[-1].split() == ["+0.4s", "4", "50%", "1", "of", "2", "75%"]
