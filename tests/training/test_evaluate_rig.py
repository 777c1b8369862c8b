"""The evaluations of rigs and of rotations over time, on answers known by construction."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from model import precedence
from model.checkpoint import Method, weights_path
from model.evidence import yaws_deg
from model.scoring import Window
from model.trajectory.kinds import Kind
from model.turning import turned_along
from tests.model.test_scoring import CALIBRATION, bump
from training.data.scenes import Conditions
from training.evaluate import rig, trajectory
from training.evaluate.trajectory import Trial, Variant, summarise, variants


def test_sharp_takes_pool_to_the_truth() -> None:
    known = torch.stack([bump(0.0, height=60).exp()] * 20)

    figures = rig.of_size(known, 4, CALIBRATION)

    assert figures["within_10_deg"] == figures["covers"] == 1
    assert figures["median_width_deg"] < 15


def test_takes_that_are_off_are_counted_as_off() -> None:
    figures = rig.of_size(torch.stack([bump(50.0, height=60).exp()] * 20), 4, CALIBRATION)

    assert figures["within_10_deg"] == figures["covers"] == 0
    assert figures["median_error_deg"] == pytest.approx(50, abs=0.5)


def test_a_misplaced_take_is_counted_where_it_is_named() -> None:
    sharp = rig.misplaced(torch.stack([bump(0.0, height=60).exp()] * 20), 8, CALIBRATION)
    blunt = torch.stack([bump(0.0, height=60).exp(), *[torch.full((72,), 1 / 72).double()] * 20])

    assert (sharp["named"], sharp["others_named"]) == (1, 0)
    assert rig.misplaced(blunt, 8, CALIBRATION)["named"] == 0


def test_where_no_take_is_sure_none_is_misplaced() -> None:
    unsure = torch.full((16, 72), 1 / 72).double()

    assert rig.misplaced(unsure, 8, CALIBRATION) == {"sure_takes": 0}


@pytest.mark.parametrize("off_deg", [-20.0, 20.0])
def test_takes_that_are_20_degrees_off_are_not_sure(off_deg: float) -> None:
    known = torch.zeros(16, 72).double()
    known[:, yaws_deg().index(off_deg)] = 1.0

    assert rig.misplaced(known, 8, CALIBRATION) == {"sure_takes": 0}


def test_figures_of_a_size_are_those_of_their_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of draws without repetition."""
    answers: list[tuple[float, list[tuple[float, float]]]] = [
        (-4.0, [(-10, 2)]), (12.0, [(5, 20), (170, -170)]), (-30.0, [(-20, 20)]), (9.0, [(3, 13)])
    ]  # fmt: skip
    turn = itertools.cycle(answers)

    def solved(posteriors: torch.Tensor, *_: Any, **__: Any) -> SimpleNamespace:
        assert len(set(posteriors.argmax(1).tolist())) == 6
        best_deg, arcs_deg = next(turn)
        return SimpleNamespace(rotate_field_ccw_deg=best_deg, arcs_deg=arcs_deg)

    monkeypatch.setattr(rig, "solve", solved)

    assert rig.of_size(torch.eye(72)[:8], 6, CALIBRATION) == {
        "median_error_deg": 10.5, "within_10_deg": 0.5, "median_width_deg": 23.5, "covers": 0.5
    }  # fmt: skip


def test_a_sure_take_is_turned_away_from_others_that_are_not_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of the takes are sure; each is known by where the rest of its posterior lies."""
    known = torch.zeros(20, 72).double()
    marks = torch.arange(40, 60)
    known[torch.arange(20), marks] = torch.tensor([0.15, 0.25]).double().repeat(10)
    known[:, yaws_deg().index(0.0)] = 1 - known.sum(1)
    turned: list[int] = []

    def solved(posteriors: torch.Tensor, *_: Any, **__: Any) -> SimpleNamespace:
        odd, *rest = [row.topk(2).indices.tolist() for row in posteriors]
        by = odd[0] - yaws_deg().index(0.0)
        takes = [(odd[1] - by) % 72, *(mark for _, mark in rest)]
        assert len(set(takes)) == 8
        assert takes[0] % 2 == 0  # a sure one
        turned.append(5 * by)
        best_deg = (-20.0, 5.0, 11.0, -9.0)[len(turned) % 4]
        named = [1.0, 1.0, 1.0, 0.0][len(turned) % 4], 0.0, *[0.9] * 6
        return SimpleNamespace(rotate_field_ccw_deg=best_deg, belongs=named)

    monkeypatch.setattr(rig, "solve", solved)

    assert rig.misplaced(known, 8, CALIBRATION) == {
        "sure_takes": 10, "named": 0.25, "others_named": round(1 / 7, 4),
        "rotation_off_by_10_deg": 0.5,
    }  # fmt: skip
    away = np.abs((np.array(turned) + 180) % 360 - 180)
    assert (away.min(), away.max()) == (30, 180)


TRIAL = Trial(0, "sound steps", "steps", 1, 9.0, 1.0, 5.0, 3.0, 1.0)


def test_steps_are_summed_up() -> None:
    late = replace(TRIAL, error_s=3.0, error_deg=20.0, sounded=0.0)
    early = replace(TRIAL, error_s=-3.0, error_deg=14.0)
    missed = replace(TRIAL, n_steps=0, error_s=None, error_deg=None)
    constant = replace(missed, truth="constant", found=Kind.CONSTANT)
    moving = [replace(constant, truth="moving", path_error_deg=error) for error in (2.0, 4.0, 30.0)]
    moving[0] = replace(moving[0], found=Kind.MOVING)
    others = [*[constant] * 3, replace(constant, n_steps=2), replace(constant, found=Kind.MOVING)]

    figures = summarise(
        [TRIAL, late, early, missed, *others, replace(TRIAL, truth="picture steps"), *moving]
    )

    assert figures["takes"] == 5
    assert figures["constant"] == {"called_stepped": 0.2, "called_moving": 0.2}
    assert figures["moving"] == {"called_moving": round(1 / 3, 4), "median_error_deg": 4.0}
    assert figures["sound steps"] == {
        "called_stepped": 0.75, "within_2_s": 0.25, "within_15_deg": 0.5,
        "within_2_s_where_it_sounds": round(1 / 3, 4),
    }  # fmt: skip
    assert set(figures["picture steps"].values()) == {1.0}


def test_steps_in_silence_alone_have_no_share_where_it_sounds() -> None:
    silent = [replace(TRIAL, truth=t, sounded=0.0) for t in ("sound steps", "picture steps")]
    others = [replace(TRIAL, truth=truth) for truth in ("constant", "moving")]

    figures = summarise([*silent, *others])

    assert math.isnan(figures["sound steps"]["within_2_s_where_it_sounds"])


def test_variants_differ_from_the_plain_take_only_where_they_say() -> None:
    plain, knocked, oriented, moving = variants(5, Conditions(duration_s=20.0))
    before = plain.course.times_s < knocked.at_s - 0.5

    for variant in (knocked, oriented):
        assert (np.unique(variant.truth_deg) == sorted({0.0, variant.by_deg})).all()
    np.testing.assert_allclose(knocked.course.motion, plain.course.motion)
    np.testing.assert_allclose(
        knocked.course.sound["doa"][before], plain.course.sound["doa"][before], rtol=0.2, atol=0.05
    )
    np.testing.assert_allclose(oriented.course.sound["doa"], plain.course.sound["doa"])
    jump = int(np.abs(oriented.course.pan_deg).argmax())
    assert oriented.course.times_s[jump] == pytest.approx(oriented.at_s, abs=0.1)
    # The picture's content went left: the camera turned right, and the sound has to follow left.
    assert -oriented.course.pan_deg[jump] == pytest.approx(oriented.by_deg, abs=2)
    assert np.ptp(moving.truth_deg) > 10


def test_a_course_is_read_block_by_block_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (131, 36, 72), dtype=np.uint8)
    field = rng.standard_normal((4, round(10.5 * 24_000)))
    windows: list[Window] = []

    class Noting:
        def __init__(self, _learned: Any) -> None: ...

        add = staticmethod(windows.append)
        course = staticmethod(lambda: None)

    monkeypatch.setattr(trajectory, "Reader", Noting)

    trajectory.course_of(frames, field)

    times_s = torch.arange(131, dtype=torch.float64) / 12.5
    covariance = precedence.covariance(torch.from_numpy(field), times_s)
    torch.testing.assert_close(torch.cat([w.covariance for w in windows]), covariance)
    first, second = windows
    edges_s = torch.cat([first.motion.edges_s[:-1], second.motion.edges_s])
    torch.testing.assert_close(edges_s, times_s)
    assert (first.start_s, first.duration_s) == pytest.approx((0.0, 10.0))
    assert (second.start_s, second.duration_s) == pytest.approx((10.0, 0.4))


@pytest.mark.parametrize("seed", range(4))
def test_a_picture_is_turned_by_what_is_taken_for_the_truth(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It turns by whole columns: of 36, the angle that was drawn would be up to 5 degrees off."""
    rng = np.random.default_rng(seed)
    seen = torch.from_numpy(rng.integers(0, 256, (250, 4, 36, 1), dtype=np.uint8))
    heard = torch.from_numpy(rng.standard_normal((4, 20 * 24_000)))
    monkeypatch.setattr(trajectory, "render_picture", lambda *_args, **_kw: seen)
    monkeypatch.setattr(trajectory, "render_sound", lambda *_args, **_kw: heard)
    monkeypatch.setattr(
        trajectory, "course_of",
        lambda frames, *_: SimpleNamespace(times_s=np.arange(250) / 12.5, last=frames[-1]),
    )  # fmt: skip

    plain, _, oriented, _ = variants(seed, Conditions(duration_s=20.0))

    columns = -oriented.by_deg / 10  # to the left
    turned = np.roll(plain.course.last, round(columns), axis=1)  # type: ignore[attr-defined]
    assert columns == pytest.approx(round(columns), abs=1e-9)
    assert (oriented.course.last == turned).all()  # type: ignore[attr-defined]
    assert oriented.truth_deg[-1] == oriented.by_deg


def test_a_field_that_is_turned_by_the_truth_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every variant the truth is what makes its sound fit again."""
    rng = np.random.default_rng(0)
    seen = torch.from_numpy(rng.integers(0, 256, (250, 4, 72, 1), dtype=np.uint8))
    heard = rng.standard_normal((4, 20 * 24_000))
    monkeypatch.setattr(trajectory, "render_picture", lambda *_args, **_kw: seen)
    monkeypatch.setattr(trajectory, "render_sound", lambda *_a, **_kw: torch.from_numpy(heard))
    monkeypatch.setattr(
        trajectory, "course_of",
        lambda _frames, field, *_: SimpleNamespace(times_s=np.arange(250) / 12.5, field=field),
    )  # fmt: skip

    plain, knocked, _, moving = variants(3, Conditions(duration_s=20.0))

    for variant in (plain, knocked, moving):
        places = np.round(variant.course.times_s * 24_000).astype(int)
        field = variant.course.field[:, places]  # type: ignore[attr-defined]
        again = turned_along(field, np.deg2rad(variant.truth_deg))
        np.testing.assert_allclose(again, heard[:, places], atol=1e-3)


def test_a_step_sounds_where_its_surroundings_are_not_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loud, 14 dB below that and 30 dB below by turns of half a second; loud alone elsewhere."""
    rng = np.random.default_rng(0)
    seen = torch.from_numpy(rng.integers(0, 256, (250, 4, 72, 1), dtype=np.uint8))
    noise = rng.standard_normal((4, 20 * 24_000))
    times_s = np.arange(noise.shape[1]) / 24_000
    turns = np.array([1.0, 0.2, 0.03])[(2 * times_s).astype(int) % 3]
    level = np.ones_like(times_s)
    monkeypatch.setattr(trajectory, "render_picture", lambda *_args, **_kw: seen)
    monkeypatch.setattr(
        trajectory, "render_sound", lambda *_a, **_kw: torch.from_numpy(noise * level)
    )
    monkeypatch.setattr(
        trajectory, "course_of", lambda *_: SimpleNamespace(times_s=np.arange(250) / 12.5)
    )

    at_s = variants(3, Conditions(duration_s=20.0))[1].at_s
    level = np.where(np.abs(times_s - at_s) <= 2, turns, 1.0)
    steps = variants(3, Conditions(duration_s=20.0))[1:3]

    expected = np.mean(turns[np.abs(times_s - at_s) <= 2] > 0.1)
    assert 0.5 < expected < 0.8
    assert [step.sounded for step in steps] == pytest.approx([expected] * 2, abs=0.05)


def test_a_trial_tells_of_the_step_that_is_nearest_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of angles the shorter way round."""
    steps = [
        SimpleNamespace(at_s=5.0, by_deg=175.0, gain=3.0),
        SimpleNamespace(at_s=11.5, by_deg=-170.0, gain=9.0),
    ]
    course: Any = SimpleNamespace(times_s=np.arange(4.0))
    truth = Variant("sound steps", course, np.array([0, 0, 175, 175]), at_s=12.0, by_deg=175.0)
    found = SimpleNamespace(kind=Kind.CONSTANT, steps=steps)
    monkeypatch.setattr(trajectory, "variants", lambda *_: [truth])
    monkeypatch.setattr(trajectory, "trace", lambda *_: found)
    monkeypatch.setattr(
        trajectory, "curve_at", lambda _found: lambda _times_s: np.array([0, 0, -170, -170])
    )

    (trial,) = trajectory.trials(0, Conditions(), weights_path(Method.EVIDENCE))

    assert (trial.error_s, trial.error_deg, trial.gain) == (-0.5, 15.0, 9.0)
    assert trial.path_error_deg == 7.5
