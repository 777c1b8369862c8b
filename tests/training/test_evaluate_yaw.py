"""How far the found rotation is off: the figures against plain arithmetic, angles past the seam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.evidence import CUES
from model.scoring import Evidence, Verdict, Window
from tests.model.test_scoring import CALIBRATION, bump
from tests.training.test_evaluate_lag import flickering
from training.data.manifest import KnownTake
from training.evaluate.yaw import Answer, answer, build, risk_coverage, summarise, table


def given(take: str, group: str, error: float, confidence: float, verdict: str) -> Answer:
    return Answer(take, group, "strong", 0.0, 0.0, error, confidence, verdict, True, {"cue": error})


ANSWERS = [
    given("a1", "a", 5, 0.9, "misaligned"),
    given("a2", "a", 15, 0.8, "aligned"),
    given("a3", "a", 160, 0.7, "misaligned"),
    given("b1", "b", 170, 0.2, "undecidable"),
    given("b1", "b", 10, 0.4, "undecidable"),
]


def test_figures_are_averages_of_takes_and_of_groups() -> None:
    figures = summarise(ANSWERS)

    assert (figures["takes"], figures["groups"]) == (4, 2)
    assert figures["median_error_deg"] == np.median([5, 15, 160, 90])
    assert figures["group_median_error_deg"] == np.median([(5 + 15 + 160) / 3, 90])
    assert summarise([*ANSWERS, *ANSWERS[:1] * 3]) == figures  # a take asked more often counts once
    # b1 counts once, half right; group a is two thirds right.
    assert figures["within_20_deg"]["takes"] == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert figures["within_20_deg"]["group_averaged"] == pytest.approx(
        (2 / 3 + 1 / 2) / 2, abs=1e-4
    )
    assert figures["beyond_150_deg"]["takes"] == pytest.approx((1 + 0.5) / 4)
    assert figures["wrong_and_confident"]["takes"] == pytest.approx(1 / 4)
    assert figures["verdicts"] == {"aligned": 0.25, "misaligned": 0.5, "undecidable": 0.25}


def test_risk_and_coverage() -> None:
    assert risk_coverage(ANSWERS) == [
        (0.2, 0.0), (0.4, 0.0), (0.6, 0.3333), (0.8, 0.25), (1.0, 0.4),
    ]  # fmt: skip


def drawn(count: int = 300) -> list[Answer]:
    """Answers about takes of three tiers, some of whose errors lie on the edges of the shares."""
    rng = np.random.default_rng(0)
    tiers = ("strong", "medium", "weak")
    edges = (0.0, 4.0, 10.0, 14.0, 20.0, 25.0, 30.0, 90.0, 150.0, 175.0)
    answers = []
    for _ in range(count):
        number = int(rng.integers(12))
        errors = dict(zip("abc", rng.choice(edges, 3).tolist(), strict=True))
        answers.append(
            Answer(
                f"take {number}", f"group {number % 5 % 4}", tiers[number % 3], 0.0, 0.0,
                float(rng.choice(edges)), float(rng.random()), str(rng.choice([*Verdict])),
                bool(rng.random() < 0.7), errors,
            )
        )  # fmt: skip
    return answers


def plainly(answers: list[Answer], value: Callable[[Answer], float]) -> tuple[list[float], ...]:
    """Means of takes, and of the means of each group's takes."""
    takes = {a.take: a.group for a in answers}
    means = {t: np.mean([value(a) for a in answers if a.take == t]).item() for t in takes}
    groups = [
        np.mean([mean for t, mean in means.items() if takes[t] == group]).item()
        for group in set(takes.values())
    ]
    return list(means.values()), groups


def test_figures_are_those_of_their_definitions() -> None:
    answers = drawn()
    holds: dict[str, Callable[[Answer], bool]] = {
        "within_10_deg": lambda a: a.error_deg <= 10,
        "within_20_deg": lambda a: a.error_deg <= 20,
        "within_30_deg": lambda a: a.error_deg <= 30,
        "beyond_150_deg": lambda a: a.error_deg > 150,
        "wrong_and_confident": lambda a: a.verdict != "undecidable" and a.error_deg > 30,
        "arcs_cover": lambda a: a.covered,
    }

    figures = summarise(answers)

    for name, condition in holds.items():
        takes, groups = plainly(answers, lambda a, c=condition: float(c(a)))  # type: ignore[misc]
        assert figures[name]["takes"] == pytest.approx(np.mean(takes), abs=1e-4), name
        assert figures[name]["group_averaged"] == pytest.approx(np.mean(groups), abs=1e-4), name
    takes, groups = plainly(answers, lambda a: a.error_deg)
    assert figures["median_error_deg"] == pytest.approx(np.median(takes), abs=0.01)
    assert figures["group_median_error_deg"] == pytest.approx(np.median(groups), abs=0.01)


def test_weak_takes_count_in_their_tier_and_overall_alone() -> None:
    """Where nothing is to be seen, no cue and no confidence could be right."""
    answers = drawn()
    seen = [a for a in answers if a.tier != "weak"]

    report = build(answers, CALIBRATION)

    assert report["overall"] == summarise(answers)
    assert list(report["tiers"]) == ["medium", "strong", "weak"]
    for tier, figures in report["tiers"].items():
        assert figures == summarise([a for a in answers if a.tier == tier])
    for cue, share in report["cues_within_20_deg"].items():
        takes, _ = plainly(seen, lambda a, c=cue: float(a.cue_errors_deg[c] <= 20))  # type: ignore[misc]
        assert share == pytest.approx(np.mean(takes), abs=1e-4)
    assert report["risk_coverage"] == risk_coverage(seen)
    wrong = np.mean([a.error_deg > 30 for a in seen])
    assert report["risk_coverage"][-1] == pytest.approx((1.0, wrong), abs=1e-4)


def test_the_table_has_the_figures_of_takes_and_of_groups() -> None:
    report = build(drawn(), CALIBRATION)

    rows = {line[:22].strip(): line[22:].split() for line in table(report).splitlines()}

    for name, of in (*report["tiers"].items(), ("all", report["overall"])):
        for how, more in (("takes", ""), ("group_averaged", " by group")):
            shares = [of[f"{share}_deg"][how] for share in
                      ("within_10", "within_20", "within_30", "beyond_150")]  # fmt: skip
            decided = of["verdicts"]["aligned"] + of["verdicts"]["misaligned"]
            by_take = how == "takes"
            assert rows[f"{name}{more}"] == [
                str(of["takes" if by_take else "groups"]),
                f"{of['median_error_deg' if by_take else 'group_median_error_deg']:.1f}°",
                *(f"{share:.0%}" for share in shares),
                *([f"{decided:.0%}"] if by_take else []),
                f"{of['wrong_and_confident'][how]:.1%}",
            ]


@pytest.mark.parametrize(
    ("rotated_deg", "rotation_deg", "off_deg", "covered"),
    [(100.0, 76.0, 4.0, True), (-100.0, -76.0, 12.0, True), (100.0, -76.0, 148.0, False)],
)
def test_an_answer_is_off_by_what_is_left_when_all_is_undone(
    rotated_deg: float, rotation_deg: float, off_deg: float, covered: bool
) -> None:
    """What undoes 176 is told of as -172 or so: that is 4 degrees off, across the seam. The last
    of three windows tells most; a cue that was right in the first alone is not right.
    """
    cue = CUES[0]
    votes = {0.0: bump(30, height=2), 10.0: bump(30, height=2), 20.0: bump(-172, height=40)}

    def told(window: Window) -> Evidence:
        return Evidence({cue: votes[window.start_s]})

    nowhere = Path("take")
    known = KnownTake("take", nowhere, nowhere, "", "", "", rotated_deg, (rotation_deg,))
    windows = [replace(flickering(30), start_s=start_s) for start_s in votes]
    weighed = replace(CALIBRATION, weights={cue: 1.0}, pooling_exponent=1.0, pooling_cap=99.0)

    found = answer(known, windows, rotation_deg, weighed, [told])

    assert found.cue_errors_deg[cue] == pytest.approx(off_deg, abs=3)
    assert found.error_deg == pytest.approx(off_deg, abs=3)
    assert found.covered is covered
