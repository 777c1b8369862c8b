"""From evidence to a verdict: windows are scored, pooled into a posterior over yaw, and judged.

Scorers are the seam for other judges: each gives named log-evidence per rotation for a window, and
may give statistics that say how far to trust it there. The calibration says how much each name
counts, and when. The training-free cues are one scorer; `model.learned` holds the learned one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
from torch import Tensor

from model.checkpoint import Calibration
from model.evidence import CUES, N_YAWS, best_yaw_deg, evidence
from model.features import Motion
from model.moments import Moment

NEAR_DEG = 15.0
INTERVAL_LEVEL = 0.9
_STEP_DEG = 360 / N_YAWS


class Verdict(StrEnum):
    """What the evidence says of the track as it is."""

    ALIGNED = "aligned"
    MISALIGNED = "misaligned"
    UNDECIDABLE = "undecidable"


@dataclass(frozen=True)
class Window:
    """A stretch of picture and sound, ready to be scored.

    Attributes
    ----------
    start_s, duration_s : place in the picture's time.
    covariance : of the sound between the picture's frames, [shape=(T, F, 10)].
    motion : of the picture, T intervals.
    moments : looks around with their sound, for scorers that need them.
    """

    start_s: float
    duration_s: float
    covariance: Tensor
    motion: Motion
    moments: Sequence[Moment] = ()


@dataclass(frozen=True)
class Evidence:
    """What a scorer says of a window.

    Attributes
    ----------
    cues : log-evidence per rotation by name, over `evidence.yaws_deg`, [shape=(R,)] each.
    statistics : what tells how far to trust a window's cues, by name.
    """

    cues: Mapping[str, Tensor]
    statistics: Mapping[str, float] = field(default_factory=dict)


Scorer = Callable[[Window], Evidence]


def training_free(window: Window) -> Evidence:
    """The cues of `model.evidence`."""
    cues = evidence(window.covariance, window.motion.energy)
    return Evidence(dict(zip(CUES, cues, strict=True)))


@dataclass(frozen=True)
class ScoredWindow:
    """A window's cues, and what they say together under a calibration.

    Attributes
    ----------
    cues : log-evidence by name, [shape=(R,)] each.
    log_posterior : normalised, [shape=(R,)].
    statistics : by name; see `Evidence`.
    """

    start_s: float
    duration_s: float
    cues: Mapping[str, Tensor]
    log_posterior: Tensor
    statistics: Mapping[str, float] = field(default_factory=dict)

    @property
    def best_deg(self) -> float:
        """The rotation this window votes for."""
        return best_yaw_deg(self.log_posterior)

    @property
    def information(self) -> float:
        """What the window tells, in nats: 0 if all rotations are alike."""
        return float((self.log_posterior.exp() * self.log_posterior).sum() + math.log(N_YAWS))


@dataclass(frozen=True)
class Judgement:
    """The pooled answer.

    Attributes
    ----------
    rotate_field_ccw_deg : best rotation, in (-180, 180].
    arcs_deg : one or two arcs [low, high] that hold the truth in `INTERVAL_LEVEL` of cases, the
        best rotation's first; low is clockwise of high, and an arc may pass 180.
    confidence : probability that the best rotation is within `NEAR_DEG`.
    posterior : over `evidence.yaws_deg`, sums to 1, [shape=(R,)].
    reasons : in words, why the verdict is undecidable; empty otherwise.
    """

    verdict: Verdict
    rotate_field_ccw_deg: float
    arcs_deg: list[tuple[float, float]]
    confidence: float
    posterior: Tensor
    reasons: list[str]


def score(window: Window, scorers: Sequence[Scorer], calibration: Calibration) -> ScoredWindow:
    """Score a window by all scorers; names without a weight do not count."""
    found = [scorer(window) for scorer in scorers]
    cues = {name: cue.double().cpu() for given in found for name, cue in given.cues.items()}
    statistics = {name: value for given in found for name, value in given.statistics.items()}
    total = sum(
        (calibration.weight(name, statistics) * cue for name, cue in cues.items()),
        start=torch.zeros(N_YAWS, dtype=torch.float64),
    )
    return ScoredWindow(window.start_s, window.duration_s, cues, total.log_softmax(0), statistics)


def pool(log_posteriors: Tensor, calibration: Calibration) -> Tensor:
    """One posterior from those of the windows, [shape=(W, R)] to [shape=(R,)].

    Each window's log-probabilities are cut at a cap below its peak, so that none can veto, and
    their sum is tempered: what misleads one window of a take often misleads them all.
    """
    below_peak = log_posteriors - log_posteriors.amax(1, keepdim=True)
    total = below_peak.clamp(min=-calibration.pooling_cap).sum(0)
    tempered: Tensor = total / len(log_posteriors) ** calibration.pooling_exponent
    return tempered.softmax(0)


def judge(
    windows: Sequence[ScoredWindow], calibration: Calibration, *, tolerance_deg: float
) -> Judgement:
    """Pool windows (at least one) and decide.

    The track is aligned if the best rotation lies within `tolerance_deg` of 0.
    """
    posterior = pool(torch.stack([window.log_posterior for window in windows]), calibration)
    best = best_yaw_deg(posterior.clamp(min=1e-12).log())
    confidence = confidence_of(posterior, calibration)
    arcs = credible_arcs(posterior, calibration.arc_mass)
    verdict = verdict_of(best, confidence, calibration, tolerance_deg=tolerance_deg)
    reasons = []
    if verdict is Verdict.UNDECIDABLE:
        reasons = _reasons(windows, posterior, arcs, confidence, calibration)
    return Judgement(verdict, best, arcs, confidence, posterior, reasons)


def mass_near_peak(posterior: Tensor) -> float:
    """Posterior mass within `NEAR_DEG` of the peak."""
    reach = round(NEAR_DEG / _STEP_DEG)
    peak = int(posterior.argmax())
    near = (peak + torch.arange(-reach, reach + 1)) % N_YAWS
    return float(posterior[near].sum())


def withheld(judgement: Judgement, reason: str) -> Judgement:
    """A judgement without a verdict, for a reason that comes before all evidence."""
    return replace(judgement, verdict=Verdict.UNDECIDABLE, reasons=[reason, *judgement.reasons])


def verdict_of(
    best_deg: float, confidence: float, calibration: Calibration, *, tolerance_deg: float
) -> Verdict:
    """The decision rule: sure enough, then near enough to 0."""
    if confidence < calibration.least_confidence:
        return Verdict.UNDECIDABLE
    return Verdict.ALIGNED if abs(best_deg) <= tolerance_deg else Verdict.MISALIGNED


def confidence_of(posterior: Tensor, calibration: Calibration) -> float:
    """Probability that a posterior's best rotation is within `NEAR_DEG`, [shape=(R,)]."""
    mass = min(max(mass_near_peak(posterior), 1e-6), 1 - 1e-6)
    logit = math.log(mass / (1 - mass))
    return 1 / (
        1 + math.exp(-calibration.confidence_slope * logit - calibration.confidence_intercept)
    )


def credible_arcs(posterior: Tensor, mass: float) -> list[tuple[float, float]]:
    """The most probable bins that hold `mass`, as one or two arcs (nearest ones are joined).

    posterior : over equal bins from -180 degrees (which the first one lies just above) to 180.
    The arc that holds the peak comes first.
    """
    n_bins = len(posterior)
    step = 360 / n_bins
    order = posterior.argsort(descending=True, stable=True)
    count = int((posterior[order].cumsum(0) < mass - 1e-12).sum()) + 1
    chosen = sorted(order[:count].tolist())
    if len(chosen) == n_bins:
        return [(-180.0, 180.0)]
    runs: list[list[int]] = []
    for index in chosen:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    if len(runs) > 1 and runs[0][0] == 0 and runs[-1][1] == n_bins - 1:
        runs[0][0] = runs.pop()[0] - n_bins
    while len(runs) > 2:
        gaps = [(runs[(i + 1) % len(runs)][0] - runs[i][1]) % n_bins for i in range(len(runs))]
        i = gaps.index(min(gaps))
        after = runs[(i + 1) % len(runs)]
        end = after[1] if after[1] >= runs[i][0] else after[1] + n_bins
        runs[i] = [runs[i][0], end]
        runs.remove(after)
    peak = int(order[0])
    runs.sort(key=lambda run: (peak - run[0]) % n_bins > run[1] - run[0])
    return [
        (_wrapped((low + 0.5) * step - 180), _wrapped((high + 1.5) * step - 180))
        for low, high in runs
    ]


def _wrapped(degrees: float) -> float:
    """The same angle in (-180, 180]."""
    return 180.0 - (180.0 - degrees) % 360


def _reasons(
    windows: Sequence[ScoredWindow],
    posterior: Tensor,
    arcs: Sequence[tuple[float, float]],
    confidence: float,
    calibration: Calibration,
) -> list[str]:
    """Why the evidence does not suffice, for people."""
    reasons = [
        f"The best rotation is right with a probability of only {confidence:.0%}; a verdict takes "
        f"{calibration.least_confidence:.0%}."
    ]
    if max(window.information for window in windows) < 0.3:
        reasons.append("In no window does movement go with sound at one rotation more than others.")
    elif len(windows) > 1:
        near = sum(
            abs(math.remainder(window.best_deg - best_yaw_deg(posterior.log()), 360)) <= 30
            for window in windows
        )
        reasons.append(f"{near} of {len(windows)} windows vote within 30° of the best rotation.")
    if len(arcs) == 2:
        spans = " and ".join(f"{low:+.0f}° to {high:+.0f}°" for low, high in arcs)
        reasons.append(f"Two rotations fit: {spans}.")
    return reasons
