"""Find how much each cue counts and when the evidence suffices, on synthetic takes only.

    python -m training.calibrate --cache CACHE

renders takes to real media files, reads them back as the product does, and fits, each on takes that
the step before has not seen:

1. the cues' weights: a conditional logit over the rotations of single windows, in which the right
   one is 0 for every scene (soft target, since a source has an extent);
2. the pooling of windows: how much less than independent they are;
3. the confidence: a logistic map from the posterior's mass near its peak to being right within
   15 degrees, on takes of which some have foreign sound or none;
4. the arcs' mass: split conformal, so that arcs cover the truth in 90 % of takes;
5. the least confidence: where at most `--wrong` of the verdicts given are more than 30 degrees off.

Rendered windows are kept in CACHE, so a run may be stopped and taken up again.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from model.checkpoint import Calibration
from model.evidence import CUES, evidence, yaws_deg
from model.scoring import INTERVAL_LEVEL, NEAR_DEG, mass_near_peak, pool
from model.take import Take, Track
from training.data.scenes import Conditions, draw_scene
from training.data.takes import write_take

_TARGET_CONCENTRATION = 60.0  # von Mises, 7.4 degrees
_PICTURE_HEIGHT = 384
_MATCHED = Conditions()
_LONG = Conditions(duration_s=60.0)
_KINDS = {
    "matched": _MATCHED,
    "foreign": Conditions(foreign=True),
    "silent": Conditions(silent=True),
    "long": _LONG,
    "long foreign": Conditions(duration_s=60.0, foreign=True),
}


@dataclass(frozen=True)
class Rendered:
    """Cues of the windows of one synthetic take, [shape=(W, len(CUES), R)]; the truth is 0."""

    kind: str
    cues: Tensor

    @property
    def matched(self) -> bool:
        """Whether there is a right rotation at all."""
        return self.kind in ("matched", "long")


def render(kind: str, seed: int, cache: Path) -> Rendered:
    """Cues of a take, from the cache or rendered anew through real files."""
    kept = cache / f"{kind.replace(' ', '-')}-{seed}.pt"
    if kept.exists():
        return Rendered(kind, torch.load(kept, weights_only=True))
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, 5])
    scene = draw_scene(seed, _KINDS[kind])
    with tempfile.TemporaryDirectory() as folder:
        files = write_take(
            scene, Path(folder), "take", height=_PICTURE_HEIGHT, samplerate=24_000, colour=False,
            rate_hz=float(rng.choice([12.5, 15.0])), crf=int(rng.integers(18, 30)),
            keyframe_s=float(rng.choice([1.0, 2.0, 5.0, 10.0])),
        )  # fmt: skip
        with Take(files.video, Track((files.audio,))) as take:
            windows = [take.window(*place) for place in take.choose_windows(8)]
    cues = torch.stack([evidence(w.covariance, w.motion.energy) for w in windows if w])
    part = kept.with_suffix(".part")
    torch.save(cues, part)
    part.replace(kept)
    return Rendered(kind, cues)


def fit_weights(cues: Tensor, *, decay: float = 0.02, steps: int = 500) -> Tensor:
    """Weights [shape=(K,)] of a conditional logit over windows [shape=(n, K, R)]."""
    target = _soft_target()
    weights = torch.zeros(cues.shape[1], dtype=cues.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.05)
    for _ in range(steps):
        log_posterior = torch.einsum("nkr,k->nr", cues, weights).log_softmax(1)
        loss = -(log_posterior @ target).mean() + decay * weights.square().sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weights.detach()


def _soft_target() -> Tensor:
    yaws = torch.tensor(yaws_deg(), dtype=torch.float64).deg2rad()
    return (_TARGET_CONCENTRATION * (yaws.cos() - 1)).softmax(0)


@dataclass(frozen=True)
class Outcome:
    """A take's pooled posterior against the truth."""

    matched: bool
    posterior: Tensor

    @property
    def error_deg(self) -> float:
        """Distance of the peak from 0; 180 where there is no right rotation."""
        return abs(yaws_deg()[int(self.posterior.argmax())]) if self.matched else 180.0

    @property
    def logit(self) -> float:
        """Logit of the mass near the peak."""
        mass = min(max(mass_near_peak(self.posterior), 1e-6), 1 - 1e-6)
        return math.log(mass / (1 - mass))


def outcomes(takes: Sequence[Rendered], calibration: Calibration) -> list[Outcome]:
    """Pooled posteriors of takes under a calibration."""
    weights = torch.tensor([calibration.weights[name] for name in CUES], dtype=torch.float64)
    return [
        Outcome(
            take.matched,
            pool(torch.einsum("wkr,k->wr", take.cues, weights).log_softmax(1), calibration),
        )
        for take in takes
    ]


def fit_pooling(takes: Sequence[Rendered], calibration: Calibration) -> Calibration:
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
    """Logistic regression of being right on the logit of the mass near the peak."""
    logits = torch.tensor([result.logit for result in results], dtype=torch.float64)
    right = torch.tensor([float(result.error_deg <= NEAR_DEG) for result in results])
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(
            line[0] * logits + line[1], right.double()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    slope, intercept = line.detach().tolist()
    return replace(calibration, confidence_slope=slope, confidence_intercept=intercept)


def conformal_mass(results: Sequence[Outcome]) -> float:
    """Mass an arc must hold so that arcs cover the truth at `INTERVAL_LEVEL` (adaptive sets)."""
    needed = []
    truth = yaws_deg().index(0.0)
    for result in results:
        if result.matched:
            more_likely = result.posterior >= result.posterior[truth]
            needed.append(float(result.posterior[more_likely].sum()))
    rank = math.ceil((len(needed) + 1) * INTERVAL_LEVEL)
    return sorted(needed)[min(rank, len(needed)) - 1]


def confidences(results: Sequence[Outcome], calibration: Calibration) -> np.ndarray:
    """Calibrated probability of being right, for each result."""
    logits = np.array([result.logit for result in results])
    line = calibration.confidence_slope * logits + calibration.confidence_intercept
    return np.asarray(1 / (1 + np.exp(-line)))


def least_confidence(
    results: Sequence[Outcome], calibration: Calibration, *, wrong: float
) -> float:
    """The lowest threshold at which at most `wrong` of the verdicts are off by 30 degrees."""
    confidence = confidences(results, calibration)
    off = np.array([result.error_deg > 30 for result in results])
    for threshold in np.arange(0.3, 1.0, 0.01).round(2):
        given = confidence >= threshold
        if given.any() and off[given].mean() <= wrong:
            return float(threshold)
    return 0.99


def calibrate(takes: Sequence[Rendered], *, wrong: float, data: str) -> Calibration:
    """All steps, on disjoint halves where a step must not see the one before."""
    singles = [take for take in takes if take.kind == "matched"]
    half = len(singles) // 2
    weights = fit_weights(torch.cat([take.cues for take in singles[:half]]))
    calibration = Calibration(
        name="evidence-1",
        weights={name: round(float(w), 4) for name, w in zip(CUES, weights, strict=True)},
        pooling_exponent=0.0,
        pooling_cap=6.0,
        confidence_slope=1.0,
        confidence_intercept=0.0,
        arc_mass=INTERVAL_LEVEL,
        least_confidence=0.5,
        provenance={"data": data, "command": "python -m training.calibrate"},
    )
    long = [take for take in takes if take.kind == "long"]
    calibration = fit_pooling(long[: len(long) // 2], calibration)
    unseen = [*singles[half:], *long[len(long) // 2 :]]
    unseen += [take for take in takes if not take.matched]
    results = outcomes(unseen, calibration)
    calibration = fit_confidence(results[::2], calibration)
    calibration = replace(calibration, arc_mass=round(conformal_mass(results[::2]), 4))
    threshold = least_confidence(results[::2], calibration, wrong=wrong)
    calibration = replace(calibration, least_confidence=threshold)
    report(results[1::2], calibration)
    return calibration


def report(results: Sequence[Outcome], calibration: Calibration) -> None:
    """Print how a calibration does on results it was not fitted on."""
    matched = [result for result in results if result.matched]
    errors = np.array([result.error_deg for result in matched])
    confidence = confidences(results, calibration)
    given = confidence >= calibration.least_confidence
    off = np.array([result.error_deg > 30 for result in results])
    is_matched = np.array([result.matched for result in results])
    covered = [conformal_mass([result]) <= calibration.arc_mass for result in matched]
    print(
        f"held out: {len(matched)} matched takes: median error {np.median(errors):.1f}°, within "
        f"10/20/30°: {np.mean(errors <= 10):.0%}/{np.mean(errors <= 20):.0%}/"
        f"{np.mean(errors <= 30):.0%}; arcs cover {np.mean(covered):.0%}\n"
        f"verdicts: {np.mean(given[is_matched]):.0%} of matched, "
        f"{np.mean(given[~is_matched]):.0%} of foreign and silent; more than 30° wrong: "
        f"{np.mean(off[given]) if given.any() else 0:.1%} of verdicts, "
        f"{np.mean(off & given):.1%} of takes"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Render, fit, report, save."""
    parser = argparse.ArgumentParser(
        prog="python -m training.calibrate",
        description="Calibrate the training-free judge on synthetic takes.",
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder for rendered windows")
    parser.add_argument("--output", type=Path, default=Path("model/weights/evidence.json"))
    parser.add_argument("--scenes", type=int, default=800, help="10-s scenes (default 800)")
    parser.add_argument("--takes", type=int, default=60, help="60-s takes (default 60)")
    parser.add_argument("--negatives", type=int, default=160, help="scenes with foreign sound")
    parser.add_argument(
        "--wrong", type=float, default=0.05, help="share of verdicts (default 0.05)"
    )
    parser.add_argument("--seed", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(argv)
    options.cache.mkdir(parents=True, exist_ok=True)
    counts = {
        "matched": options.scenes,
        "foreign": options.negatives,
        "silent": options.negatives // 4,
        "long": options.takes,
        "long foreign": options.takes // 4,
    }
    jobs = [(kind, options.seed + i) for kind, n in counts.items() for i in range(n)]
    with ProcessPoolExecutor(options.workers) as pool_of_workers:
        futures = [pool_of_workers.submit(render, *job, options.cache) for job in jobs]
        takes = [future.result() for future in tqdm(futures, unit="take", desc="rendering")]
    note = ", ".join(f"{n} {kind}" for kind, n in counts.items())
    calibration = calibrate(
        takes, wrong=options.wrong, data=f"synthetic takes from seed {options.seed}: {note}"
    )
    calibration.save(options.output)
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
