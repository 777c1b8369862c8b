"""The synthetic suite: figures against plain arithmetic, and a small run to the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_calibration
from model.evidence import N_YAWS, yaws_deg
from model.scoring import Window
from tests.model.test_scoring import CALIBRATION, bump
from tests.training.test_evaluate_lag import flickering
from training.data.scenes import Conditions
from training.evaluate import suite
from training.evaluate.suite import SUITE, Result, figures_of, foreign_told, judged


def test_figures_are_shares_with_intervals() -> None:
    kinds = (
        Result(5, True, True, 0.9),
        Result(40, False, True, 0.8),
        Result(170, True, False, 0.3),
    )
    results = [kinds[0]] * 6 + [kinds[1]] * 2 + [kinds[2]] * 2

    figures = figures_of(results)

    assert figures["takes"] == 10
    assert figures["within_20_deg"][0] == 0.6
    assert figures["beyond_150_deg"][0] == figures["wrong_and_confident"][0] == 0.2
    assert (figures["verdict"][0], figures["arcs_cover"][0]) == (0.8, 0.8)
    share, low, high = figures["within_20_deg"]
    # A binomial of ten: the 95 % interval of 6 is 0.3 to 0.9.
    assert low == pytest.approx(0.3, abs=0.1)
    assert high == pytest.approx(0.9, abs=0.1)
    assert share == 0.6


def test_foreign_sound_is_told_where_one_in_twenty_of_ones_own_is_not() -> None:
    def sure(*confidences: float) -> list[Result]:
        return [Result(0, True, True, confidence) for confidence in confidences]

    own = sure(0.2, *[0.9] * 20)  # one of 21 does not reach 0.9

    assert foreign_told(own, sure(0.1, 0.5, 0.85, 0.95)) == 0.75
    assert foreign_told(own[1:], sure(0.9, 0.91)) == 0


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
