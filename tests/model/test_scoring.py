"""From log-evidence to a verdict."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.checkpoint import LEARNED, OBJECTS, Calibration, Method, load_calibration
from model.errors import MediaError
from model.evidence import yaws_deg
from model.features import Motion
from model.learned import scorers_for
from model.looks import LOOK_CUES
from model.posterior import credible_arcs
from model.scoring import (
    TRAINING_FREE,
    Evidence,
    ScoredWindow,
    Verdict,
    Window,
    by_looks,
    judge,
    score,
    training_free,
    verdict_of,
)
from tests.model.test_evidence import LEVEL, N, movement, sound

CALIBRATION = Calibration(
    name="test",
    weights=dict.fromkeys(TRAINING_FREE, 0.3),
    pooling_exponent=0.5,
    pooling_cap=6.0,
    confidence_slope=1.0,
    confidence_intercept=0.0,
    arc_mass=0.9,
    least_confidence=0.6,
)


def bump(centre_deg: float, *, height: float = 12.0) -> Tensor:
    """Log-posterior with one mode."""
    away = torch.tensor([math.radians(yaw - centre_deg) for yaw in yaws_deg()])
    return (height * away.double().cos()).log_softmax(0)


def window(log_posterior: Tensor) -> ScoredWindow:
    return ScoredWindow(0.0, 10.0, {"any": log_posterior}, log_posterior)


def make_window(seen_deg: float, heard_deg: float) -> Window:
    edges = torch.linspace(0, 8, N + 1)
    still = torch.zeros(N)
    motion = Motion(
        movement(seen_deg, LEVEL), torch.zeros(N, 7, 12, 72), edges, still.bool(), still
    )
    return Window(0.0, 8.0, sound(heard_deg, LEVEL), motion)


def test_scoring_a_window_finds_its_rotation() -> None:
    scored = score(make_window(40, -70), [training_free], CALIBRATION)

    assert scored.best_deg == pytest.approx(110, abs=4)
    assert scored.log_posterior.exp().sum() == pytest.approx(1)
    assert set(scored.cues) == set(TRAINING_FREE)


def test_looks_alone_say_what_they_say_among_all_cues() -> None:
    window = make_window(40, -70)
    maps = torch.rand(window.motion.maps.shape, generator=torch.manual_seed(0))
    window = replace(window, motion=replace(window.motion, maps=maps))
    among, alone = (scorer(window).cues for scorer in (training_free, by_looks))

    assert set(alone) == set(LOOK_CUES)
    for name, cue in alone.items():
        assert cue.max() > 0
        torch.testing.assert_close(cue, among[name], rtol=0, atol=0)


@pytest.mark.parametrize("method", [Method.FUSED, Method.EVIDENCE])
def test_every_cue_that_is_weighed_is_scored_and_no_other(method: Method) -> None:
    calibration = load_calibration(method=method)
    scored = score(make_window(40, -70), scorers_for(calibration), calibration)

    assert {*scored.cues, OBJECTS} == set(calibration.weights)


def test_another_scorer_adds_its_evidence_through_the_seam() -> None:
    def learned(_window: Window) -> Evidence:
        cues = {"learned": 40 * bump(-90).exp(), "unweighted": 1000 * bump(20).exp()}
        return Evidence(cues, {"belongs": -3.0})

    calibration = replace(CALIBRATION, weights={**CALIBRATION.weights, "learned": 100.0})

    alone = score(make_window(40, -70), [training_free], calibration)
    together = score(make_window(40, -70), [training_free, learned], calibration)

    assert alone.best_deg == pytest.approx(110, abs=4)
    assert together.best_deg == pytest.approx(-90, abs=3)
    assert "unweighted" in together.cues
    assert together.statistics == {"belongs": -3.0}


def test_a_gate_shuts_a_cue_out_where_its_statistics_are_bad() -> None:
    def learned(belongs: float) -> Callable[[Window], Evidence]:
        return lambda _: Evidence({"learned": 40 * bump(-90).exp()}, {"belongs": belongs})

    calibration = replace(
        CALIBRATION,
        weights={**CALIBRATION.weights, "learned": 100.0},
        gates={"learned": {"bias": 0.0, "belongs": 4.0}},
    )
    best = [
        score(make_window(40, -70), [training_free, learned(belongs)], calibration).best_deg
        for belongs in (3.0, -3.0)
    ]

    assert best == pytest.approx([-90, 110], abs=4)
    assert calibration.weight("learned", {"belongs": 0.0}) == pytest.approx(50)


@pytest.mark.parametrize(
    ("centre", "height", "verdict"),
    [
        (3.0, 30.0, Verdict.ALIGNED),
        (-9.0, 30.0, Verdict.ALIGNED),
        (45.0, 30.0, Verdict.MISALIGNED),
        (180.0, 30.0, Verdict.MISALIGNED),
        (45.0, 0.1, Verdict.UNDECIDABLE),
        (0.0, 0.1, Verdict.UNDECIDABLE),
    ],
)
def test_verdicts(centre: float, height: float, verdict: Verdict) -> None:
    judgement = judge([window(bump(centre, height=height))], CALIBRATION, tolerance_deg=10)

    assert judgement.verdict is verdict
    assert math.remainder(judgement.rotate_field_ccw_deg - centre, 360) == pytest.approx(0, abs=1)
    assert bool(judgement.reasons) is (verdict is Verdict.UNDECIDABLE)


def test_the_tolerance_is_the_callers() -> None:
    windows = [window(bump(25.0, height=30))]

    assert judge(windows, CALIBRATION, tolerance_deg=10).verdict is Verdict.MISALIGNED
    assert judge(windows, CALIBRATION, tolerance_deg=30).verdict is Verdict.ALIGNED


def test_what_is_told_as_the_tolerance_is_within_it() -> None:
    """Not "misaligned by 0.00°" where no difference at all is allowed."""
    for told, off in itertools.product((0.0, 10.0, -2.5), (-0.004, 0.0, 0.004)):
        verdict = verdict_of(told + off, 1.0, CALIBRATION, tolerance_deg=abs(told))
        assert verdict is Verdict.ALIGNED
    assert verdict_of(0.011, 1.0, CALIBRATION, tolerance_deg=0) is Verdict.MISALIGNED


def test_two_modes_give_two_arcs_the_best_one_first() -> None:
    posterior = (0.55 * bump(-170, height=40).exp() + 0.45 * bump(20, height=40).exp()).log()

    judgement = judge([window(posterior)], CALIBRATION, tolerance_deg=10)

    first, second = judgement.arcs_deg
    assert holds(first, -170)
    assert holds(second, 20)
    told = judgement.as_json()
    assert (told["interval_deg"], told["second_interval_deg"]) == (list(first), list(second))
    spans = " and ".join(f"{low:+.1f}° to {high:+.1f}°" for low, high in judgement.arcs_deg)
    assert f"Two rotations fit: {spans}." in judgement.reasons  # as everywhere else


@pytest.mark.parametrize("n", [1, 2, 8, 72])
def test_a_window_tells_as_much_as_it_leaves_fewer_rotations(n: int) -> None:
    """All 72 alike tell nothing; n that are alike, and no others, log(72 / n)."""
    log_posterior = torch.where(torch.arange(72) < n, 0.0, -100.0).double().log_softmax(0)

    assert window(log_posterior).information == pytest.approx(math.log(72 / n), abs=1e-9)


@pytest.mark.parametrize("best", [90.0, -175.0])
@pytest.mark.parametrize(
    ("height", "told"), [(3.0, "2 of 3 windows vote within 30°"), (0.1, "In no window")]
)
def test_reasons_tell_whether_windows_agree_or_say_nothing(
    height: float, told: str, best: float
) -> None:
    strict = replace(CALIBRATION, least_confidence=0.999)
    windows = [window(bump(best + off, height=height)) for off in (-10, 15, 180)]

    judgement = judge(windows, strict, tolerance_deg=10)

    assert judgement.verdict is Verdict.UNDECIDABLE
    assert [told in reason for reason in judgement.reasons[1:]] == [True]


@pytest.mark.parametrize("mass", [0.5, 0.9])
def test_arcs_hold_what_the_calibration_says(mass: float) -> None:
    log_posterior = bump(46.0)

    judgement = judge(
        [window(log_posterior)], replace(CALIBRATION, arc_mass=mass), tolerance_deg=10
    )

    assert judgement.arcs_deg == credible_arcs(log_posterior.exp(), mass)


def holds(arc: tuple[float, float], degrees: float) -> bool:
    return (degrees - arc[0]) % 360 <= (arc[1] - arc[0]) % 360


@pytest.mark.parametrize(
    ("method", "cues"),
    [(Method.EVIDENCE, TRAINING_FREE), (Method.FUSED, (*LOOK_CUES, LEARNED))],
)
def test_the_shipped_calibrations_are_whole(method: Method, cues: Sequence[str]) -> None:
    calibration = load_calibration(method=method)

    assert set(calibration.weights) == {*cues, OBJECTS}
    assert len(calibration.sha256) == 64
    assert "synthetic" in calibration.provenance["data"]


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    CALIBRATION.save(tmp_path / "c.json")

    assert replace(load_calibration(tmp_path / "c.json"), sha256="") == CALIBRATION


@pytest.mark.parametrize("text", ["no json", "{}", '{"name": "x", "unknown": 1}'])
def test_what_is_no_calibration(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(MediaError, match=r"c\.json"):
        load_calibration(tmp_path / "c.json")
    with pytest.raises(MediaError, match=r"missing\.json"):
        load_calibration(tmp_path / "missing.json")
