"""How the judge does on synthetic scenes of fixed seeds, condition by condition.

    python -m training.evaluate yaw --suite synthetic --cache CACHE

Scenes are procedural throughout, so anyone can make them again; no calibration or training has seen
their seeds. Their bodies are plain (large, clear, with their sound: `Conditions.plain`), or of any
kind and size, some of which hardly show their sound. Silent ones move as much as those that sound,
but in half of the fully random scenes. Each condition is told for the learned scorer alone, the
training-free evidence alone, and their fusion, with 95 % bootstrap intervals over scenes; and how
much foreign sound is told at the confidence that 5 % of takes of one source do not reach. Windows
are kept in CACHE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from model.arcs import cover
from model.checkpoint import LEARNED, Calibration, Method, load_calibration
from model.learned import scorers_for
from model.posterior import answer_deg, confidence_of, credible_arcs
from model.scoring import Verdict, Window, training_free, verdict_of
from training.data.excerpts import beginning, diffuse, thirds, with_microphone, with_sound
from training.data.scenes import Conditions
from training.data.windows import load_window, render_all
from training.figures import write_report
from training.scored_takes import ScoredTake, scored

_SEED = 500_000
_N_BOOTSTRAPS = 1000
_ABSTENTION = 0.05


@dataclass(frozen=True)
class Condition:
    """A row: which scenes, and what is made of each.

    Attributes
    ----------
    windows : a take's windows, from a scene's window, its neighbour's, and a seed.
    fits : whether there is a right rotation.
    """

    scenes: Conditions
    windows: Callable[[Window, Window, int], list[Window]]
    fits: bool = True


def _first(duration_s: float) -> Callable[[Window, Window, int], list[Window]]:
    return lambda window, _other, _seed: [beginning(window, duration_s)]


_WHOLE = _first(10.0)


def _conditions(*, plain: bool) -> dict[str, Condition]:
    alone: dict[str, Any] = {
        "n_sources": 1, "offscreen": False, "shaken": False, "calm": False, "plain": plain
    }  # fmt: skip
    two = Conditions(snr_db=10.0, n_distractors=2, **alone)
    one = Conditions(snr_db=15.0, n_distractors=0, **alone)
    return {
        "SNR 10, 2 silent bodies, 2 s": Condition(two, _first(2.0)),
        "the same, 5 s": Condition(two, _first(5.0)),
        "the same, 10 s": Condition(two, _WHOLE),
        "the same, 30 s": Condition(
            replace(two, duration_s=30.0), lambda window, _other, _seed: thirds(window)
        ),
        "5 silent bodies": Condition(replace(two, n_distractors=5), _WHOLE),
        "10 silent bodies": Condition(replace(two, n_distractors=10), _WHOLE),
        "SNR -5 dB": Condition(replace(two, snr_db=-5.0), _WHOLE),
        "a microphone with faults": Condition(
            two, lambda window, _other, seed: [with_microphone(window, seed)]
        ),
        "sustained sound": Condition(replace(two, envelope="sustained"), _WHOLE),
        "fully random": Condition(Conditions(plain=plain), _WHOLE),
        "one source": Condition(one, _WHOLE),
        "foreign sound": Condition(
            one, lambda window, other, _seed: [with_sound(window, other.covariance)], fits=False
        ),
        "noise": Condition(
            one,
            lambda window, _other, seed: [with_sound(window, diffuse(seed, window.motion.edges_s))],
            fits=False,
        ),
    }  # fmt: skip


BODIES = ("any", "plain")
SUITE = {
    **{f"any: {name}": condition for name, condition in _conditions(plain=False).items()},
    **{f"plain: {name}": condition for name, condition in _conditions(plain=True).items()},
}


@dataclass(frozen=True)
class Result:
    """One take under one judge; the truth is 0."""

    error_deg: float
    covered: bool
    decided: bool
    confidence: float


def judged(posterior: Tensor, calibration: Calibration) -> Result:
    """What a calibration makes of a pooled posterior."""
    best = answer_deg(posterior)
    confidence = confidence_of(posterior, calibration)
    verdict = verdict_of(best, confidence, calibration, tolerance_deg=10)
    arcs = credible_arcs(posterior, calibration.arc_mass)
    return Result(abs(best), cover(arcs, 0.0), verdict is not Verdict.UNDECIDABLE, confidence)


def _judges(take: ScoredTake, fused: Calibration, evidence: Calibration) -> dict[str, Result]:
    results = {"fusion": judged(take.posterior(fused), fused)}
    if LEARNED in take.names:
        learned = take.cues[:, take.names.index(LEARNED)].log_softmax(1).sum(0).softmax(0)
        results = {
            "learned": judged(learned, fused),
            "evidence": judged(take.posterior(evidence), evidence),
            **results,
        }
    return results


def figures_of(results: Sequence[Result]) -> dict[str, Any]:
    """Shares with intervals, over the takes of a condition."""
    errors = np.array([result.error_deg for result in results])
    decided = np.array([result.decided for result in results])
    return {
        "takes": len(results),
        "median_error_deg": _interval(errors, lambda e: float(np.median(e))),
        "within_10_deg": _interval(errors <= 10),
        "within_20_deg": _interval(errors <= 20),
        "beyond_150_deg": _interval(errors > 150),
        "verdict": _interval(decided),
        "wrong_and_confident": _interval(decided & (errors > 30)),
        "arcs_cover": _interval(np.array([result.covered for result in results])),
    }


def foreign_told(own: Sequence[Result], foreign: Sequence[Result]) -> float:
    """Share of foreign takes that are undecidable where `_ABSTENTION` of the others are."""
    least = np.quantile([result.confidence for result in own], _ABSTENTION)
    return float(np.mean([result.confidence < least for result in foreign]))


def _interval(
    values: NDArray[Any], figure: Callable[[NDArray[Any]], float] = lambda v: float(np.mean(v))
) -> list[float]:
    """A figure and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = [
        figure(values[rng.integers(len(values), size=len(values))]) for _ in range(_N_BOOTSTRAPS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [round(float(value), 4) for value in (figure(values), low, high)]


def run(
    cache: Path, *, calibration: Calibration, n_scenes: int, workers: int, report: Path | None,
    bodies: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Render what is not in the cache, judge, print a table, and return the figures.

    bodies : of `BODIES`, those conditions alone.
    """
    evidence = load_calibration(method=Method.EVIDENCE)
    # The evidence alone is told beside the others.
    scorers = [*dict.fromkeys([training_free, *scorers_for(calibration)])]
    figures: dict[str, Any] = {}
    by_fusion: dict[str, list[Result]] = {}
    asked = {name: c for name, c in SUITE.items() if bodies is None or name.startswith(bodies)}
    for name, condition in tqdm(asked.items(), unit="condition"):
        number = [*dict.fromkeys(c.scenes for c in SUITE.values())].index(condition.scenes)
        seeds = range(_SEED + 10_000 * number, _SEED + 10_000 * number + n_scenes)
        paths = [
            *render_all(cache, f"suite{number}", condition.scenes, seeds, workers=workers)
        ]  # fmt: skip
        by_judge: dict[str, list[Result]] = {}
        for seed, path, other in zip(seeds, paths, [*paths[1:], paths[0]], strict=True):
            windows = condition.windows(load_window(path), load_window(other), seed)
            take = scored(name, windows, scorers)
            for judge, result in _judges(take, calibration, evidence).items():
                by_judge.setdefault(judge, []).append(result)
        figures[name] = {judge: figures_of(results) for judge, results in by_judge.items()}
        figures[name]["fits"] = condition.fits
        by_fusion[name] = by_judge["fusion"]
    print(table(figures))
    for kind in BODIES:
        if f"{kind}: one source" in by_fusion:
            own, foreign = (
                by_fusion[f"{kind}: {name}"] for name in ("one source", "foreign sound")
            )
            told = foreign_told(own, foreign)
            figures[f"{kind}: foreign sound"]["undecidable_at_abstention"] = told
            abstained = f"{_ABSTENTION:.0%} of one source are"
            print(f"{kind}: foreign sound undecidable where {abstained}: {told:.1%}")
    if report is not None:
        write_report(report, figures)
    return figures


def table(figures: dict[str, Any]) -> str:
    """Figures for a terminal: within 20 degrees by each judge, the rest of the fusion."""
    header = (
        "learned", "evidence", "fusion", "95 %", "<=10", "median", ">150", "verdict", "wrong",
        "cover",
    )  # fmt: skip
    lines = [f"{'within 20 degrees by':36}" + "".join(f"{name:>10}" for name in header)]
    for name, of in figures.items():
        fusion = of["fusion"]
        verdict = f"{fusion['verdict'][0]:10.0%}"
        if not of["fits"]:
            lines.append(f"{name:36}" + " " * 70 + verdict)
            continue
        shares = [of[judge]["within_20_deg"][0] if judge in of else np.nan for judge in header[:3]]
        low, high = fusion["within_20_deg"][1:]
        lines.append(
            f"{name:36}" + "".join(f"{share:10.0%}" for share in shares)
            + f"{f'{low:.0%}-{high:.0%}':>10}{fusion['within_10_deg'][0]:10.0%}"
            + f"{fusion['median_error_deg'][0]:10.1f}{fusion['beyond_150_deg'][0]:10.1%}{verdict}"
            + f"{fusion['wrong_and_confident'][0]:10.1%}{fusion['arcs_cover'][0]:10.0%}"
        )  # fmt: skip
    return "\n".join(lines)
