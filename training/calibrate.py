"""Find how much each cue counts, when, and when the evidence suffices, on synthetic takes only.

    python -m training.data.windows WINDOWS --seed 100000 --count 400
    python -m training.data.windows LONG --seed 150000 --count 60 --duration-s 30
    python -m training.calibrate --windows WINDOWS --long LONG --method fused

Windows of LONG are cut in three. From WINDOWS come matched takes; short ones, the first seconds of
some of them, for the first step alone; foreign ones, the picture of one and the sound of another;
and ones that hear nothing but diffuse noise. What is fitted on all of them, each step on takes as
they are judged by what was fitted without them and their kin (cross-fitting, in `_FOLDS` folds):

1. the cues' weights, and for the fused method the gates: how far the learned scorer, and the rest,
   are trusted by the window's statistics. A conditional logit over the rotations of single windows,
   in which the right one is 0 for every scene (soft target, since a source has an extent) and all
   are alike where nothing fits;
2. the pooling of windows: how much less than independent they are;
3. the confidence: a logistic map from the posterior's mass near the answer to being right within
   15 degrees;
4. the arcs' mass: conformal, so that arcs cover the truth in 90 % of takes (cross-conformal: Vovk,
   Annals of Mathematics and Artificial Intelligence, 2015); what each kind of scenes would need is
   told beside it;
5. the least confidence: where at most `--wrong` of the verdicts given are more than 30 degrees off,
   and at most `--wrong-of-all` of all takes, those that fit nothing among them, have such a one.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from model.checkpoint import (
    AVSA,
    LEARNED,
    STATISTICS,
    Calibration,
    Method,
    load_scorer,
    scorer_path,
    weights_path,
)
from model.errors import AvsaError, OptionError
from model.evidence import N_YAWS, yaws_deg
from model.interruption import command
from model.judges import calibration_beside, load_avsa_scorer
from model.learned import LearnedScorer, together
from model.media import file_sha256
from model.output import JSON, check_output
from model.posterior import NEAR_DEG, answer_deg, confidence_logit, mass_to_reach
from model.wording import INTERVAL_LEVEL
from training.calibrate_avsa import judged_takes
from training.data.windows import mixed_windows
from training.options import a_share, at_least, none_or_more
from training.scored_takes import ScoredTake, scored, takes_of

_TARGET_CONCENTRATION = 60.0  # von Mises, 7.4 degrees
_FOLDS = 4  # of the takes of either length
_ENOUGH = 50  # takes of a kind of scenes, to say how often arcs cover in it


def avsa_takes(checkpoint: Path, *, seed: int, n_scenes: int, n_long: int) -> list[ScoredTake]:
    """Synthetic takes as an AVSA checkpoint judges them."""
    judged = judged_takes(load_avsa_scorer(checkpoint), seed=seed, n_scenes=n_scenes, n_long=n_long)
    takes = []
    for kind, cues in tqdm(judged, unit="take", desc="scoring"):
        statistics = torch.zeros(len(cues), len(STATISTICS), dtype=torch.float64)
        statistics[:, 0] = 1.0
        takes.append(ScoredTake(kind, (AVSA,), cues, statistics))
    return takes


@dataclass(frozen=True)
class Fit:
    """Weights [shape=(K,)] and gates [shape=(2, 4)] (learned, evidence; by `STATISTICS`)."""

    weights: Tensor
    gates: Tensor | None
    is_learned: Tensor

    def log_posterior(self, cues: Tensor, statistics: Tensor) -> Tensor:
        """Of windows [shape=(W, K, R)], normalised, [shape=(W, R)]."""
        weights = self.weights.expand(len(cues), -1)
        if self.gates is not None:
            trust = (statistics @ self.gates.T).sigmoid()  # (W, 2)
            weights = weights * torch.where(self.is_learned, trust[:, :1], trust[:, 1:])
        return torch.einsum("wk,wkr->wr", weights, cues).log_softmax(1)


def fit_weights(takes: Sequence[ScoredTake], *, steps: int = 500) -> Fit:
    """A conditional logit over windows; gates are fitted where there is a learned cue."""
    names = takes[0].names
    cues = torch.cat([take.cues for take in takes])
    statistics = torch.cat([take.statistics for take in takes])
    fits = torch.cat([torch.full((len(take.cues),), take.matched) for take in takes])
    target = torch.where(fits[:, None], _soft_target(), torch.full_like(cues[:, 0], 1 / N_YAWS))
    is_learned = torch.tensor([name in (LEARNED, AVSA) for name in names])
    weights = torch.zeros(len(names), dtype=cues.dtype, requires_grad=True)
    parameters = [weights]
    gates: Tensor | None = None
    if LEARNED in names:
        gates = torch.zeros(2, len(STATISTICS), dtype=cues.dtype)
        gates[:, 0] = 1.0
        parameters.append(gates.requires_grad_(True))
    fit = Fit(weights, gates, is_learned)
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    # The learned cue is evidence already; the others start from nothing and are held near it.
    decay = torch.where(is_learned, 0.0, 0.002).to(cues.dtype)
    for _ in range(steps):
        loss = -(target * fit.log_posterior(cues, statistics)).sum(1).mean()
        loss = loss + (decay * weights.square()).sum()
        if gates is not None:
            loss = loss + 1e-3 * gates[:, 1:].square().sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Fit(weights.detach(), None if gates is None else gates.detach(), is_learned)


def _soft_target() -> Tensor:
    yaws = torch.tensor(yaws_deg(), dtype=torch.float64).deg2rad()
    return (_TARGET_CONCENTRATION * (yaws.cos() - 1)).softmax(0)


@dataclass(frozen=True)
class Outcome:
    """A take's pooled posterior against the truth."""

    kind: str
    matched: bool
    posterior: Tensor
    scenes: str = ""

    @cached_property
    def error_deg(self) -> float:
        """Distance of the answer from 0; 180 where there is no right rotation."""
        return abs(answer_deg(self.posterior)) if self.matched else 180.0

    @cached_property
    def logit(self) -> float:
        """Logit of the mass near the answer."""
        return confidence_logit(self.posterior)


def outcomes(takes: Sequence[ScoredTake], calibration: Calibration) -> list[Outcome]:
    """Pooled posteriors of takes."""
    return [
        Outcome(take.kind, take.matched, take.posterior(calibration), take.scenes) for take in takes
    ]


def fit_pooling(takes: Sequence[ScoredTake], calibration: Calibration) -> Calibration:
    """Choose exponent and cap by the likelihood of the truth in takes of many windows."""
    target = _soft_target()

    def loss(candidate: Calibration) -> float:
        posteriors = torch.stack([o.posterior for o in outcomes(takes, candidate)])
        return float(-(posteriors.clamp(min=1e-12).log() @ target).mean())

    grid = [
        replace(calibration, pooling_exponent=exponent, pooling_cap=cap)
        for exponent in np.linspace(0, 1, 11).round(2).tolist()
        for cap in (3.0, 4.0, 6.0, 10.0)
    ]
    return min(grid, key=loss)


def fit_confidence(results: Sequence[Outcome], calibration: Calibration) -> Calibration:
    """Logistic regression of being right on the logit of the mass near the answer."""
    logits = torch.tensor([result.logit for result in results], dtype=torch.float64)
    right = torch.tensor([float(result.error_deg <= NEAR_DEG) for result in results])
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(
            line[0] * logits + line[1], right.double()
        )
        loss = loss + 1e-4 * line.square().sum()  # else it has no end where all is told apart
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    slope, intercept = line.detach().tolist()
    return replace(calibration, confidence_slope=slope, confidence_intercept=intercept)


def conformal_mass(results: Sequence[Outcome]) -> float:
    """Mass an arc must hold so that arcs cover the truth at `INTERVAL_LEVEL` (adaptive sets)."""
    truth = yaws_deg().index(0.0)
    needed = [mass_to_reach(result.posterior, truth) for result in results if result.matched]
    rank = math.ceil((len(needed) + 1) * INTERVAL_LEVEL)
    return sorted(needed)[min(rank, len(needed)) - 1]


def masses_by_scenes(results: Sequence[Outcome]) -> dict[str, float]:
    """`conformal_mass` of each kind of scenes that has enough takes."""
    by_scenes: dict[str, list[Outcome]] = {}
    for result in results:
        if result.matched:
            by_scenes.setdefault(result.scenes, []).append(result)
    return {scenes: conformal_mass(own) for scenes, own in by_scenes.items() if len(own) >= _ENOUGH}


def confidences(results: Sequence[Outcome], calibration: Calibration) -> np.ndarray:
    """Calibrated probability of being right, for each result."""
    logits = np.array([result.logit for result in results])
    line = calibration.confidence_slope * logits + calibration.confidence_intercept
    return np.asarray(expit(line))


def least_confidence(
    results: Sequence[Outcome], confidence: np.ndarray, *, wrong: float, wrong_of_all: float
) -> float:
    """The lowest threshold with few verdicts that are 30 degrees off.

    One more of them is counted than was seen, as in conformal risk control (Angelopoulos et al.,
    2022), so that it also holds for takes to come.

    wrong, wrong_of_all : the largest share of the verdicts, and of all takes.
    """
    off = np.array([result.error_deg > 30 for result in results])
    for threshold in np.arange(0.3, 1.0, 0.01).round(2):
        given = confidence >= threshold
        most = min(wrong * (given.sum() + 1), wrong_of_all * (len(given) + 1))
        if off[given].sum() + 1 <= most:
            return float(threshold)
    return 0.99


def calibrate(
    takes: Sequence[ScoredTake], *, wrong: float = 0.05, wrong_of_all: float = 0.02
) -> Calibration:
    """All steps; at least `_FOLDS` takes that are long, and as many that are not."""
    calibration = _weighed(takes)
    judged = [
        outcomes([take for take in fold if take.kind != "short"], _weighed(others))
        for fold, others in _folds(takes)
    ]
    results = [result for fold in judged for result in fold]
    calibration = fit_confidence(results, calibration)
    calibration = replace(calibration, arc_mass=round(conformal_mass(results), 4))
    confidence = []
    for fold in judged:
        others = [result for other in judged if other is not fold for result in other]
        confidence.append(confidences(fold, fit_confidence(others, calibration)))
    threshold = least_confidence(
        results, np.concatenate(confidence), wrong=wrong, wrong_of_all=wrong_of_all
    )
    calibration = replace(calibration, least_confidence=threshold)
    report(results, np.concatenate(confidence), calibration)
    return calibration


def _weighed(takes: Sequence[ScoredTake]) -> Calibration:
    """The first two steps: weights by the takes of one window, pooling by the long ones."""
    fit = fit_weights([take for take in takes if take.kind != "long"])
    weights = zip(takes[0].names, fit.weights, strict=True)
    calibration = Calibration(
        name="",
        weights={name: round(float(weight), 4) for name, weight in weights},
        pooling_exponent=0.0,
        pooling_cap=6.0,
        confidence_slope=1.0,
        confidence_intercept=0.0,
        arc_mass=INTERVAL_LEVEL,
        least_confidence=0.5,
        gates=_named_gates(fit),
    )
    return fit_pooling([take for take in takes if take.kind == "long"], calibration)


def _folds(takes: Sequence[ScoredTake]) -> Iterator[tuple[list[ScoredTake], list[ScoredTake]]]:
    """Each fold and all others. Takes made of the same windows follow each other: runs of takes."""
    runs = []
    for long in (False, True):
        of_length = [i for i, take in enumerate(takes) if (take.kind == "long") is long]
        runs.append(np.array_split(np.array(of_length), _FOLDS))
    for parts in zip(*runs, strict=True):
        inside = {int(index) for part in parts for index in part}
        yield (
            [take for index, take in enumerate(takes) if index in inside],
            [take for index, take in enumerate(takes) if index not in inside],
        )


def _named_gates(fit: Fit) -> dict[str, dict[str, float]]:
    if fit.gates is None:
        return {}
    return {
        group: {name: round(float(c), 4) for name, c in zip(STATISTICS, row, strict=True)}
        for group, row in zip((LEARNED, "evidence"), fit.gates, strict=True)
    }


def report(results: Sequence[Outcome], confidence: np.ndarray, calibration: Calibration) -> None:
    """Print how takes were judged by what was fitted without them."""
    given = confidence >= calibration.least_confidence
    off = np.array([result.error_deg > 30 for result in results])
    for kind in dict.fromkeys(result.kind for result in results):
        of_kind = np.array([result.kind == kind for result in results])
        line = f"{kind:8} {of_kind.sum():4d} takes, verdicts for {np.mean(given[of_kind]):.0%}"
        if results[int(of_kind.argmax())].matched:
            chosen = [result for result in results if result.kind == kind]
            errors = np.array([result.error_deg for result in chosen])
            covered = [conformal_mass([result]) <= calibration.arc_mass for result in chosen]
            line += (
                f"; median error {np.median(errors):.1f}°, within 10/20/30° "
                f"{np.mean(errors <= 10):.0%}/{np.mean(errors <= 20):.0%}/"
                f"{np.mean(errors <= 30):.0%}, arcs cover {np.mean(covered):.0%}"
            )
        print(line)
    for scenes, mass in masses_by_scenes(results).items():
        print(f"arcs that cover in {scenes}: a mass of {mass:.3f}")
    print(
        f"more than 30° wrong: {np.mean(off[given]) if given.any() else 0:.1%} of verdicts, "
        f"{np.mean(off & given):.1%} of takes"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Score, fit, report, save."""
    parser = argparse.ArgumentParser(
        prog="python -m training.calibrate", description="Calibrate the judge on synthetic takes."
    )
    parser.add_argument("--windows", type=Path, nargs="+", help="folders of 10-s windows")
    parser.add_argument("--long", type=Path, help="folder of 30-s windows")
    parser.add_argument("--method", type=Method, choices=list(Method), default=Method.FUSED)
    parser.add_argument("--scorer", type=Path, help="learned scorer (default: the shipped one)")
    parser.add_argument("--checkpoint", type=Path, help="AVSA network, for --method avsa")
    scenes = partial(at_least, _FOLDS)
    parser.add_argument("--scenes", type=scenes, help="of 10 s, for avsa (200)")
    parser.add_argument("--long-scenes", type=scenes, help="of 30 s, for avsa (40)")
    parser.add_argument("--seed", type=none_or_more, help="of the first, for avsa (800000)")
    parser.add_argument("--output", type=Path, help="(default: shipped; avsa: by the checkpoint)")
    parser.add_argument(
        "--wrong", type=a_share, default=0.05, help="share of verdicts (default 0.05)"
    )
    parser.add_argument(
        "--wrong-of-all", type=a_share, default=0.02, help="share of all takes (default 0.02)"
    )
    options = parser.parse_args(argv)
    try:
        output = _fitted(options)
    except AvsaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(output)
    return 0


# Which methods each of these options is of.
_OF = {
    "windows": (Method.FUSED, Method.EVIDENCE),
    "long": (Method.FUSED, Method.EVIDENCE),
    "scorer": (Method.FUSED,),
    "checkpoint": (Method.AVSA,),
    "scenes": (Method.AVSA,),
    "long_scenes": (Method.AVSA,),
    "seed": (Method.AVSA,),
}
_AVSA_SCENES = {"scenes": 200, "long_scenes": 40, "seed": 800_000}


def _fitted(options: argparse.Namespace) -> Path:
    """Do what is asked for; where the calibration is kept."""
    for name, methods in _OF.items():
        if getattr(options, name) is not None and options.method not in methods:
            option = "--" + name.replace("_", "-")
            raise OptionError(
                f"{option} is of --method {' and '.join(methods)}, not of {options.method}: leave "
                "it away, or say which method is meant."
            )
    if options.method is Method.AVSA and options.checkpoint is None:
        raise OptionError("--method avsa needs --checkpoint.")
    output: Path = options.output or (
        calibration_beside(options.checkpoint)
        if options.method is Method.AVSA
        else weights_path(options.method)
    )
    check_output(output, filter(None, (options.scorer, options.checkpoint)), begins=JSON)
    takes, scorer, data = _scored_takes(options)
    calibration = replace(
        calibrate(takes, wrong=options.wrong, wrong_of_all=options.wrong_of_all),
        name="avsa" if options.method is Method.AVSA else f"{options.method}-2",
        scorer=file_sha256(scorer) if scorer else "",
        provenance={
            "command": f"python -m training.calibrate --method {options.method}", "data": data,
        },
    )  # fmt: skip
    calibration.save(output)
    return output


def _scored_takes(options: argparse.Namespace) -> tuple[list[ScoredTake], Path | None, str]:
    """Takes, the network they were scored with if there is one, and what they are in words."""
    if options.method is Method.AVSA:
        asked = {name: getattr(options, name) for name in _AVSA_SCENES}
        drawn = _AVSA_SCENES | {name: value for name, value in asked.items() if value is not None}
        takes = avsa_takes(
            options.checkpoint, seed=drawn["seed"], n_scenes=drawn["scenes"],
            n_long=drawn["long_scenes"],
        )  # fmt: skip
        told = f"{drawn['scenes']} synthetic scenes and {drawn['long_scenes']} long ones"
        return takes, options.checkpoint, told
    if options.windows is None or options.long is None:
        raise OptionError(f"--method {options.method} needs --windows and --long.")
    scorer = (options.scorer or scorer_path()) if options.method is Method.FUSED else None
    scorers = together(LearnedScorer(load_scorer(scorer)) if scorer else None)
    paths = [mixed_windows(folders) for folders in (options.windows, [options.long])]
    if min(map(len, paths)) < _FOLDS:
        raise OptionError(
            f"--windows hold {len(paths[0])} windows and --long {len(paths[1])}: it takes at least "
            f"{_FOLDS} of each."
        )
    takes = [
        replace(scored(kind, windows, scorers), scenes=scenes)
        for kind, scenes, windows in tqdm(takes_of(*paths), unit="take", desc="scoring")
    ]
    data = f"{len(paths[0])} synthetic windows and {len(paths[1])} long ones"
    return takes, scorer, data


if __name__ == "__main__":
    sys.exit(command(main))
