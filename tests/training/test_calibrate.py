"""Each step of a calibration against a slow version of itself, or against the product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.checkpoint import AVSA, LEARNED, STATISTICS, Calibration
from model.evidence import N_YAWS, yaws_deg
from model.posterior import confidence_of, mass_to_reach
from model.scoring import Evidence, Window, judge, score
from model.wording import INTERVAL_LEVEL
from tests.model.test_scoring import CALIBRATION, bump
from tests.training.test_evaluate_lag import flickering
from training import calibrate
from training.calibrate import Fit, Outcome
from training.scored_takes import ScoredTake, scored

CUES = (LEARNED, "other")
AT_0 = yaws_deg().index(0.0)


def cues_at(centres_deg: Sequence[float], heights: Sequence[float] = (8.0,) * 9) -> Tensor:
    """A window a centre, what both cues say, (W, 2, R)."""
    said = [bump(at, height=high) for at, high in zip(centres_deg, heights, strict=False)]
    return torch.stack(said)[:, None].repeat(1, 2, 1)


def take(kind: str, cues: Tensor, statistics: Tensor | None = None, scenes: str = "") -> ScoredTake:
    if statistics is None:
        statistics = torch.zeros(len(cues), len(STATISTICS)).double()
        statistics[:, 0] = 1.0
    return ScoredTake(kind, CUES[: cues.shape[1]], cues, statistics, scenes)


# --- what is fitted on, against the product -------------------------------------------------------


@pytest.mark.parametrize("n_windows", [1, 3])
def test_takes_are_judged_as_the_product_judges_them(n_windows: int) -> None:
    """Posterior and confidence are the product's, gates and pooling among them."""
    rng = np.random.default_rng(n_windows)
    said = torch.from_numpy(rng.normal(size=(n_windows, 2, N_YAWS)))
    told = rng.normal(size=(n_windows, 3)).tolist()
    windows = [replace(flickering(20), start_s=float(i)) for i in range(n_windows)]

    def scorer(window: Window) -> Evidence:
        index = int(window.start_s)
        values = dict(zip(STATISTICS[1:], told[index], strict=True))
        return Evidence(dict(zip(CUES, said[index], strict=True)), values)

    gates = {
        group: dict(zip(STATISTICS, rng.normal(size=4).tolist(), strict=True))
        for group in (LEARNED, "evidence")
    }
    calibration = replace(
        CALIBRATION, weights={LEARNED: 1.3, "other": 0.6}, gates=gates, pooling_exponent=0.3,
        pooling_cap=3.0, confidence_slope=0.7, confidence_intercept=-0.4,
    )  # fmt: skip

    made = scored("matched", windows, [scorer])
    (result,) = calibrate.outcomes([made], calibration)

    judged = judge(
        [score(window, [scorer], calibration) for window in windows], calibration, tolerance_deg=10
    )
    torch.testing.assert_close(result.posterior, judged.posterior)
    assert result.error_deg == pytest.approx(abs(judged.rotate_field_ccw_deg))
    assert calibrate.confidences([result], calibration)[0] == pytest.approx(judged.confidence)
    # What is fitted is the same function of a window.
    fit = Fit(
        torch.tensor([1.3, 0.6]).double(),
        torch.tensor([list(gate.values()) for gate in gates.values()]).double(),
        torch.tensor([True, False]),
    )
    alone = [replace(made, cues=made.cues[i : i + 1], statistics=made.statistics[i : i + 1])
             for i in range(n_windows)]  # fmt: skip
    found = fit.log_posterior(made.cues, made.statistics).exp()
    uncut = replace(calibration, pooling_cap=math.inf)
    torch.testing.assert_close(found, torch.stack([each.posterior(uncut) for each in alone]))
    assert calibrate._named_gates(fit)["evidence"]["upright"] == round(
        gates["evidence"]["upright"], 4
    )


@pytest.mark.parametrize(
    ("kind", "fits"),
    [("matched", True), ("short", True), ("long", True), ("foreign", False), ("noise", False)],
)
def test_where_nothing_fits_every_answer_is_wrong(kind: str, fits: bool) -> None:
    (result,) = calibrate.outcomes([take(kind, cues_at([0.0]))], CALIBRATION_OF_BOTH)

    assert result.error_deg == (pytest.approx(0, abs=0.5) if fits else 180)


CALIBRATION_OF_BOTH = replace(CALIBRATION, weights=dict.fromkeys(CUES, 0.5))


def test_what_is_aimed_at_is_0_with_a_deviation_of_a_few_degrees() -> None:
    """Of 7.4: a source has an extent."""
    target, yaws = calibrate._soft_target(), torch.tensor(yaws_deg()).double()

    assert float(target.sum()) == pytest.approx(1)
    assert float(target @ yaws) == pytest.approx(0, abs=1e-3)
    assert math.sqrt(target @ yaws.square()) == pytest.approx(7.4, abs=0.1)


# --- the steps ------------------------------------------------------------------------------------


def test_what_is_as_sure_where_nothing_fits_gets_less_weight() -> None:
    """All rotations alike is what is aimed at there: even for 0, where it is right elsewhere."""
    angles = np.random.default_rng(0).normal(0, 5, 20)
    right, foreign = (
        [take(kind, cues_at([angle])) for angle in angles] for kind in ("matched", "foreign")
    )

    alone, both = (calibrate.fit_weights(takes, steps=60) for takes in (right, [*right, *foreign]))

    (likelihood, less) = (
        fit.log_posterior(right[0].cues, right[0].statistics).exp().max() for fit in (alone, both)
    )
    assert less < 0.6 * likelihood


def test_the_learned_cue_counts_at_any_scale_and_the_others_are_held_near_nothing() -> None:
    angles = np.random.default_rng(0).normal(0, 15, 20)

    def sharpest(name: str, scale: float) -> float:
        takes = [
            replace(take("matched", scale * cues_at([angle])[:, :1]), names=(name,))
            for angle in angles
        ]
        fit = calibrate.fit_weights(takes, steps=500)
        return float(fit.log_posterior(takes[0].cues, takes[0].statistics).exp().max())

    for learned in (LEARNED, AVSA):
        assert sharpest(learned, 0.4) == pytest.approx(sharpest(learned, 1.0), rel=0.1)
    assert sharpest("other", 0.2) < 0.9 * sharpest("other", 1.0)


def test_without_the_learned_cue_no_statistic_is_asked_for() -> None:
    """Nobody tells any then."""
    takes = [replace(take("matched", cues_at([angle])[:, :1]), names=("other",))
             for angle in (-5, 0, 5)]  # fmt: skip

    kept = calibrate._weighed([*takes, *(replace(each, kind="long") for each in takes)])

    assert kept.weight("other", {}) == kept.weights["other"] > 0


SAME_AGAIN = [[(0, 8)] * 3, [(25, 8)] * 3, [(-30, 8)] * 3]
INDEPENDENT = [[(9, 8), (-4, 8), (-7, 8)], [(-9, 8), (2, 8), (6, 8)], [(5, 8), (-8, 8), (4, 8)]]
ONE_IS_SURE_OF_NONSENSE = [[(0, 1), (0, 1), (180, 60)], [(0, 1), (150, 60), (0, 1)]]


@pytest.mark.parametrize(
    ("long", "exponents", "caps"),
    [
        (SAME_AGAIN, (0.9, 1.0), (3, 4, 6, 10)),
        (INDEPENDENT, (0.0, 0.1), (10,)),
        (ONE_IS_SURE_OF_NONSENSE, (0.0, 1.0), (3,)),
    ],
)
def test_pooling_is_what_makes_the_truth_likeliest(
    long: list[list[tuple[float, float]]], exponents: tuple[float, ...], caps: tuple[float, ...]
) -> None:
    """Windows of a take, each sure of an angle: how much they count, and the most of one."""
    takes = [take("long", cues_at(*zip(*windows, strict=True))) for windows in long]
    target = torch.tensor([60 * (math.cos(math.radians(yaw)) - 1) for yaw in yaws_deg()]).softmax(0)

    def slow(exponent: float, cap: float) -> float:
        total = 0.0
        for each in takes:
            logs = (0.5 * each.cues.sum(1)).log_softmax(1)
            below = (logs - logs.amax(1, keepdim=True)).clamp(min=-cap).sum(0)
            pooled = (below / len(logs) ** exponent).softmax(0).clamp(min=1e-12).log()
            total -= float((target * pooled).sum())
        return total

    found = calibrate.fit_pooling(takes, CALIBRATION_OF_BOTH)

    best = min(slow(e / 10, cap) for e in range(11) for cap in (3.0, 4.0, 6.0, 10.0))
    assert slow(found.pooling_exponent, found.pooling_cap) == pytest.approx(best, rel=1e-5)
    assert exponents[0] <= found.pooling_exponent <= exponents[1]
    assert found.pooling_cap in caps


def spikes(mass: float, answer_deg: float) -> Tensor:
    """A posterior with so much of its mass at an answer, the rest far from it."""
    posterior = torch.full((N_YAWS,), (1 - mass) / (N_YAWS - 20)).double()
    index = yaws_deg().index(answer_deg)
    posterior[(torch.arange(-10, 10) + index) % N_YAWS] = 0.0
    posterior[index] = mass
    return posterior


def test_confidence_is_how_often_an_answer_is_within_15_degrees() -> None:
    """Of takes that are right as often as a line over the logit of their mass says."""
    rng = np.random.default_rng(0)
    slope, intercept = 1.7, -0.8
    results = []
    for logit in rng.normal(0.5, 1.5, 600):
        right = rng.random() < 1 / (1 + math.exp(-slope * logit - intercept))
        mass = 0.4 + 0.6 / (1 + math.exp(-logit))  # the highest, and so the answer
        results.append(Outcome("matched", True, spikes(mass, 10.0 if right else 20.0)))
    logits = np.array([result.logit for result in results])

    found = calibrate.fit_confidence(results, CALIBRATION)

    told = np.array([result.error_deg < 15 for result in results])
    confidence = calibrate.confidences(results, found)
    # A logistic regression has no residual, nor one along its logit.
    assert np.mean(told - confidence) == pytest.approx(0, abs=1e-3)
    assert np.mean((told - confidence) * logits) == pytest.approx(0, abs=2e-3)
    assert 0.2 < told.mean() < 0.8
    assert confidence[0] == pytest.approx(confidence_of(results[0].posterior, found))


def test_confidence_has_an_end_where_all_is_told_apart() -> None:
    """As on easy scenes: a step of a line would call each take to come surely right or wrong."""
    masses = ((0.95, 10.0), (0.9, 10.0), (0.5, 20.0), (0.45, 20.0))
    results = [Outcome("matched", True, spikes(*each)) for each in 5 * masses]

    found = calibrate.fit_confidence(results, CALIBRATION)

    confidence = calibrate.confidences(results, found)
    assert [c > 0.5 for c in confidence] == [result.error_deg < 15 for result in results]
    assert 1 < found.confidence_slope < 20
    loss = -np.mean(np.log(np.where(confidence > 0.5, confidence, 1 - confidence)))
    line = found.confidence_slope**2 + found.confidence_intercept**2
    # At the least sum of loss and 1e-4 of the line's squares, halving or doubling makes it no less.
    for factor in (0.5, 2.0):
        scaled = replace(
            found, confidence_slope=factor * found.confidence_slope,
            confidence_intercept=factor * found.confidence_intercept,
        )  # fmt: skip
        other = calibrate.confidences(results, scaled)
        changed = -np.mean(np.log(np.where(other > 0.5, other, 1 - other)))
        assert loss + 1e-4 * line < changed + 1e-4 * factor**2 * line


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000), n=st.integers(1, 120),
    wrong=st.sampled_from([0.02, 0.1, 0.4]), wrong_of_all=st.sampled_from([0.02, 0.1, 1.0]),
)  # fmt: skip
def test_the_threshold_is_the_lowest_with_few_wrong_verdicts(
    seed: int, n: int, wrong: float, wrong_of_all: float
) -> None:
    """One more wrong one than was seen is counted, among one more take."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0, 1, n).round(2)
    errors = np.where(rng.random(n) < confidence, rng.choice([0, 30]), rng.choice([31, 180], n))
    results: Any = [SimpleNamespace(error_deg=float(error)) for error in errors]

    found = calibrate.least_confidence(results, confidence, wrong=wrong, wrong_of_all=wrong_of_all)

    def holds(threshold: float) -> bool:
        given = [e for e, c in zip(errors, confidence, strict=True) if c >= threshold]
        off = 1 + sum(error > 30 for error in given)
        return bool(off <= wrong * (len(given) + 1) and off <= wrong_of_all * (n + 1))

    candidates = [round(0.3 + 0.01 * i, 2) for i in range(70)]
    assert found == next((c for c in candidates if holds(c)), 0.99)


@pytest.mark.parametrize("n", [8, 9, 20, 60])
def test_the_mass_covers_a_new_take_in_nine_of_ten(n: int) -> None:
    """The k-th of n that were needed, k = 0.9 (n + 1) rounded up; all of few."""
    rng = np.random.default_rng(n)
    posteriors = torch.from_numpy(rng.dirichlet(np.full(N_YAWS, 0.3), n))
    results = [Outcome("matched", True, posterior) for posterior in posteriors]
    strangers = [Outcome("foreign", False, posteriors[0].roll(20))] * 50

    needed = sorted(mass_to_reach(result.posterior, AT_0) for result in results)

    rank = math.ceil(0.9 * (n + 1) - 1e-9)
    assert calibrate.conformal_mass([*results, *strangers]) == needed[min(rank, n) - 1]


def test_kinds_of_scenes_are_told_apart_where_there_are_enough_takes() -> None:
    rng = np.random.default_rng(0)

    def some(n: int, scenes: str, *, matched: bool = True) -> list[Outcome]:
        posteriors = torch.from_numpy(rng.dirichlet(np.full(N_YAWS, 0.3), n))
        return [Outcome("", matched, posterior, scenes) for posterior in posteriors]

    enough, few = some(50, "plain"), some(49, "surf")

    found = calibrate.masses_by_scenes([*enough, *few, *some(60, "surf", matched=False)])

    assert found == {"plain": calibrate.conformal_mass(enough)}


def test_it_is_told_how_many_verdicts_and_takes_are_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A wrong answer that no verdict is given on harms nobody."""
    answers = [("matched", True, at) for at in (0.0, 5.0, 15.0, 60.0, 90.0)]
    results = [Outcome(kind, fits, spikes(0.9, at)) for kind, fits, at in answers]
    results += [Outcome("foreign", False, spikes(0.9, 0.0))] * 3
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1])

    calibrate.report(results, confidence, replace(CALIBRATION, least_confidence=0.5, arc_mass=0.9))
    calibrate.report(results, 0 * confidence, replace(CALIBRATION, least_confidence=0.5))

    matched, foreign, wrong, *_, none_wrong = capsys.readouterr().out.splitlines()
    assert "5 takes, verdicts for 80%; median error 15.0°, within 10/20/30° 40%/60%/60%" in matched
    assert foreign.endswith("3 takes, verdicts for 33%")
    assert wrong == "more than 30° wrong: 40.0% of verdicts, 25.0% of takes"  # 2 of 5, 2 of 8
    assert none_wrong == "more than 30° wrong: 0.0% of verdicts, 0.0% of takes"


# --- what is fitted on what -----------------------------------------------------------------------


def test_each_step_is_fitted_on_the_takes_it_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights on single windows, pooling on long takes; what is judged was left out of both."""
    kinds = ["matched", "short", "foreign", "noise"] * 4 + ["long"] * 8
    takes = [take(kind, cues_at([7.0 * (index % 5)])) for index, kind in enumerate(kinds)]
    place = {id(each): index for index, each in enumerate(takes)}
    weighed: list[tuple[int, ...]] = []
    pooled: list[tuple[int, ...]] = []
    regressed: list[list[int]] = []
    every: list[Outcome] = []
    judged: dict[int, tuple[int, ...]] = {}  # of each take, those its judge was fitted on

    def fit_weights(given: Sequence[ScoredTake]) -> Fit:
        weighed.append(tuple(place[id(each)] for each in given))
        return Fit(torch.tensor([0.5, 0.5]).double(), None, torch.tensor([True, False]))

    def fit_pooling(given: Sequence[ScoredTake], calibration: Calibration) -> Calibration:
        pooled.append(tuple(place[id(each)] for each in given))
        return replace(calibration, provenance={"of": weighed[-1] + pooled[-1]})

    def outcomes(given: Sequence[ScoredTake], calibration: Calibration) -> list[Outcome]:
        results = []
        for each in given:
            judged[place[id(each)]] = calibration.provenance["of"]
            posterior = each.posterior(calibration)
            results.append(Outcome(each.kind, each.matched, posterior, str(place[id(each)])))
        every.extend(results)
        return results

    def fit_confidence(results: Sequence[Outcome], calibration: Calibration) -> Calibration:
        regressed.append([int(result.scenes) for result in results])
        return replace(calibration, confidence_slope=float(len(regressed)))

    asked: list[tuple[list[int], list[float]]] = []

    def least(results: Sequence[Outcome], confidence: Any, **_: float) -> float:
        asked.append(([int(result.scenes) for result in results], confidence.tolist()))
        return 0.77

    def confidences(results: Sequence[Outcome], calibration: Calibration) -> np.ndarray:
        return np.full(len(results), calibration.confidence_slope)

    for name, fake in {
        "fit_weights": fit_weights, "fit_pooling": fit_pooling, "outcomes": outcomes,
        "fit_confidence": fit_confidence, "least_confidence": least, "confidences": confidences,
    }.items():  # fmt: skip
        monkeypatch.setattr(calibrate, name, fake)

    kept = calibrate.calibrate(takes)

    everyone = set(range(len(takes)))
    long = {i for i in everyone if kinds[i] == "long"}
    short = {i for i in everyone if kinds[i] == "short"}
    assert set(weighed[0]) == everyone - long  # what is kept is fitted on all
    assert set(pooled[0]) == long
    assert kept.provenance["of"] == weighed[0] + pooled[0]
    assert not any(set(part) & long for part in weighed)
    assert all(set(part) <= long for part in pooled)
    assert set(judged) == everyone - short
    for index, of in judged.items():
        assert index not in of
    # Those made of the same windows follow each other: no judge of a take knows its neighbours.
    for length in (everyone - long, long):
        lengths = [sorted(length - set(of)) for of in {judged[i] for i in length - short}]
        assert all(len(run) == run[-1] - run[0] + 1 == len(length) // 4 for run in lengths)
    assert kept.arc_mass == round(calibrate.conformal_mass(every), 4) != INTERVAL_LEVEL
    assert kept.least_confidence == 0.77
    # The line that is kept is of all that was judged; that of a fold, of the other folds alone.
    assert set(regressed[0]) == everyone - short
    assert kept.confidence_slope == 1.0
    ((order, lines),) = asked
    assert sorted(order) == sorted(everyone - short)
    for index, line in zip(order, lines, strict=True):
        others = regressed[round(line) - 1]
        assert index not in others
        assert len(others) >= len(order) // 2
