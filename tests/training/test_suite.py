"""The synthetic suite: figures against plain arithmetic, and a small run to the table."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import LEARNED, STATISTICS, load_calibration
from model.evidence import CUES, N_YAWS, yaws_deg
from model.scoring import Evidence, Scorer, Window, training_free
from tests.model.test_scoring import CALIBRATION, bump
from tests.training.test_evaluate_lag import flickering
from training.data.scenes import Conditions
from training.evaluate import suite
from training.evaluate.suite import SUITE, Result, figures_of, foreign_told, judged, table
from training.scored_takes import ScoredTake


def test_figures_are_shares_with_intervals() -> None:
    kinds = (
        Result(5, True, True, 0.9),
        Result(25, False, True, 0.8),
        Result(170, True, False, 0.3),
        Result(40, False, True, 0.8),
    )
    results = [kinds[0]] * 240 + [kinds[1]] * 40 + [kinds[2]] * 80 + [kinds[3]] * 40

    figures = figures_of(results)

    assert figures["takes"] == 400
    assert figures["within_10_deg"][0] == figures["within_20_deg"][0] == 0.6
    assert figures["median_error_deg"] == [5, 5, 5]
    assert figures["beyond_150_deg"][0] == 0.2
    assert figures["wrong_and_confident"][0] == 0.1
    assert (figures["verdict"][0], figures["arcs_cover"][0]) == (0.8, 0.8)
    for name in ("within_20_deg", "beyond_150_deg", "verdict", "wrong_and_confident"):
        share, low, high = figures[name]
        off = 1.96 * math.sqrt(share * (1 - share) / 400)  # of a binomial
        assert (low, high) == pytest.approx((share - off, share + off), abs=0.006)


def test_errors_on_the_edges_of_shares_count_as_those_of_the_other_evaluations() -> None:
    edges = [Result(error, True, True, 1.0) for error in (10, 20, 30, 150)]

    figures = figures_of(edges)

    assert [figures[f"within_{limit}_deg"][0] for limit in (10, 20)] == [0.25, 0.5]
    assert figures["beyond_150_deg"][0] == 0
    assert figures["wrong_and_confident"][0] == 0.25


def test_foreign_sound_is_told_where_one_in_twenty_of_ones_own_is_not() -> None:
    def sure(*confidences: float) -> list[Result]:
        return [Result(0, True, True, confidence) for confidence in confidences]

    own = sure(0.2, 0.9, 0.92, *[0.95] * 18)  # one of 21 does not reach 0.9

    assert foreign_told(own, sure(0.1, 0.5, 0.85, 0.91)) == 0.75
    assert foreign_told(sure(*[0.9] * 20), sure(0.9, 0.91)) == 0


def test_a_posterior_is_judged_as_a_take_is() -> None:
    sharp = judged(bump(0.0, height=60).exp(), CALIBRATION)
    off = judged(bump(120.0, height=60).exp(), CALIBRATION)
    flat = judged(torch.full((N_YAWS,), 1 / N_YAWS).double(), CALIBRATION)

    assert sharp.error_deg == pytest.approx(0, abs=0.5)
    assert sharp.covered
    assert sharp.decided
    assert off.error_deg == pytest.approx(120, abs=0.5)
    assert not off.covered
    assert not flat.decided
    assert yaws_deg()[0] == -175


def test_judges_are_told_apart_by_what_they_hear() -> None:
    """Of two windows the second is sure of 120 degrees to the learned scorer, which the evidence
    does not count; the training-free cue says 60 in both.
    """
    cue = CUES[0]
    fused = replace(
        CALIBRATION, weights={cue: 0.01, LEARNED: 3.0}, pooling_exponent=1.0, pooling_cap=99.0
    )  # fmt: skip
    evidence = replace(CALIBRATION, weights={cue: 3.0})
    learned = torch.stack([bump(-20, height=5), bump(120, height=50)])
    heard = torch.stack([bump(60, height=20)] * 2)
    statistics = torch.zeros(2, len(STATISTICS)).double()

    found = suite._judges(
        ScoredTake("a", (cue, LEARNED), torch.stack([heard, learned], 1), statistics),
        fused, evidence,
    )  # fmt: skip
    alone = suite._judges(ScoredTake("a", (cue,), heard[:, None], statistics), fused, evidence)

    assert {name: result.error_deg for name, result in found.items()} == {
        "learned": pytest.approx(120, abs=6), "evidence": pytest.approx(60, abs=1),
        "fusion": pytest.approx(120, abs=6),
    }  # fmt: skip
    assert list(alone) == ["fusion"]


@pytest.mark.parametrize("bodies", [None, "plain"])
def test_scenes_are_of_one_condition_and_foreign_ones_of_another_scene(
    bodies: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: dict[Conditions, set[int]] = {}
    given: list[tuple[Any, Any, int]] = []

    def render(_cache: Path, _name: str, scenes: Conditions, seeds: range, **_: int) -> list[int]:
        rendered.setdefault(scenes, set()).update(seeds)
        return list(seeds)

    def made(window: Any, other: Any, seed: int) -> list[Window]:
        given.append((window, other, seed))
        return []

    def alike(_window: Window) -> Evidence:
        return Evidence({})

    def score(_name: str, _windows: list[Window], scorers: list[Scorer]) -> ScoredTake:
        assert scorers == [training_free, alike]  # the evidence alone is told of every method
        return take

    take = ScoredTake("a", ("any",), torch.zeros(1, 1, N_YAWS), torch.zeros(1, len(STATISTICS)))
    conditions = {name: replace(condition, windows=made) for name, condition in SUITE.items()}
    for name, fake in {
        "SUITE": conditions, "render_all": render, "load_window": lambda path: path,
        "scored": score, "scorers_for": lambda _: [training_free, alike], "_N_BOOTSTRAPS": 1,
    }.items():  # fmt: skip
        monkeypatch.setattr(suite, name, fake)

    figures = suite.run(
        tmp_path, calibration=CALIBRATION, n_scenes=3, workers=1, report=None, bodies=bodies
    )

    assert list(figures) == [name for name in SUITE if bodies is None or "plain: " in name]
    assert all(own == seed != other for own, other, seed in given)
    assert {other for _, other, _ in given} == {own for own, _, _ in given}
    seeds = [seed for of_scenes in rendered.values() for seed in of_scenes]
    assert len(seeds) == len(set(seeds)) == 3 * len(rendered)


def test_the_table_has_every_figure_in_its_column() -> None:
    names = ("within_20_deg", "within_10_deg", "median_error_deg", "beyond_150_deg", "verdict",
             "wrong_and_confident", "arcs_cover")  # fmt: skip
    fusion = {name: [0.5 + i / 10, 0.1 + i / 100, 0.9] for i, name in enumerate(names)}
    learned, evidence = ({"within_20_deg": [share, 0, 0]} for share in (0.11, 0.22))
    fits = {"learned": learned, "evidence": evidence, "fusion": fusion, "fits": True}

    _, first, second, third = table(
        {
            "all": fits,
            "no learned": {"fusion": fusion, "fits": True},
            "none": fits | {"fits": False},
        }
    ).splitlines()

    rest = ["50%", "10%-90%", "60%", "0.7", "80.0%", "90%", "100.0%", "110%"]
    assert first.split() == ["all", "11%", "22%", *rest]
    assert second.split() == ["no", "learned", "nan%", "nan%", *rest]
    assert third.split() == ["none", "90%"]


def test_every_condition_has_seeds_of_its_own_and_a_right_answer_or_none() -> None:
    unfit = {name.partition(": ")[2] for name, c in SUITE.items() if not c.fits}
    assert unfit == {"foreign sound", "noise"}
    for bodies in ("any", "plain"):
        of = {c.scenes for name, c in SUITE.items() if name.startswith(bodies)}
        assert len(of) == 8
        assert {scenes.plain for scenes in of} == {bodies == "plain"}
        assert SUITE[f"{bodies}: the same, 5 s"].scenes == SUITE[f"{bodies}: the same, 10 s"].scenes


@pytest.mark.parametrize("bodies", ["any", "plain"])
def test_conditions_are_of_what_their_names_say(bodies: str) -> None:
    """The picture is the scene's own, the sound another's or no one's where nothing fits."""
    own, other = flickering(300), flickering(300)
    other = replace(other, covariance=other.covariance + 1)

    def made(name: str, seed: int = 5) -> list[Window]:
        return SUITE[f"{bodies}: {name}"].windows(own, other, seed)

    for name, durations_s in {
        "SNR 10, 2 silent bodies, 2 s": [2.0], "the same, 5 s": [5.0], "the same, 10 s": [10.0],
        "the same, 30 s": [10.0] * 3, "one source": [10.0],
    }.items():  # fmt: skip
        parts = made(name)
        assert [part.duration_s for part in parts] == pytest.approx(durations_s)
        sound = torch.cat([part.covariance for part in parts])
        assert sound.equal(own.covariance[: len(sound)])
    for name in ("foreign sound", "noise", "a microphone with faults"):
        (window,) = made(name)
        assert window.motion.energy.equal(own.motion.energy)
        assert window.covariance.equal(other.covariance) is (name == "foreign sound")
        assert not window.covariance.equal(own.covariance)
    # Intervals are over scenes: each has a noise and a microphone of its own.
    for name in ("noise", "a microphone with faults"):
        (one,), (two,) = made(name), made(name, seed=6)
        assert not one.covariance.allclose(two.covariance, rtol=0.1)


def test_from_scenes_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = Conditions(duration_s=3.0, n_sources=1, n_distractors=0)
    names = ("any: the same, 5 s", "any: one source", "any: foreign sound", "any: noise")
    monkeypatch.setattr(
        suite, "SUITE", {name: replace(SUITE[name], scenes=short) for name in names}
    )
    calibration = load_calibration()

    figures = suite.run(
        tmp_path / "cache", calibration=calibration, n_scenes=2, workers=2,
        report=tmp_path / "r.json",
    )  # fmt: skip

    assert json.loads((tmp_path / "r.json").read_text()) == figures
    assert figures["any: the same, 5 s"]["learned"]["takes"] == 2
    assert set(figures["any: foreign sound"]) - {"undecidable_at_abstention"} == {
        "learned", "evidence", "fusion", "fits",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "any: the same, 5 s" in printed
    assert "any: foreign sound undecidable where 5% of one source are" in printed
    assert len(list((tmp_path / "cache").iterdir())) == 2
