"""From evidence to a verdict: windows are scored, pooled into a posterior over yaw, and judged.

Scorers are the seam for other judges: each gives named log-evidence per rotation for a window, and
may give statistics that say how far to trust it there. The calibration says how much each name
counts, and when. The training-free cues are one scorer, and those of `model.looks` alone another;
`model.learned` holds the learned one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from model.arcs import told_deg
from model.checkpoint import Calibration
from model.evidence import CUES, N_YAWS, acoustic_maps, arrivals, compared
from model.features import Motion
from model.looks import LOOK_CUES, look_evidence
from model.moments import Moment
from model.posterior import answer_deg, confidence_of, credible_arcs, pool
from model.wording import percent, span


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

    @property
    def interval_s(self) -> float:
        """Mean length of an interval."""
        edges_s = self.motion.edges_s
        return float(edges_s[-1] - edges_s[0]) / (len(edges_s) - 1)

    def part(self, first: int, last: int) -> Window:
        """The intervals from `first` to before `last`, told at the place of all."""
        motion, inside = self.motion, slice(first, last)
        part = Motion(
            motion.energy[inside], motion.maps[inside], motion.edges_s[first : last + 1],
            motion.cuts[inside], motion.pan_rad[inside],
        )  # fmt: skip
        return replace(self, covariance=self.covariance[inside], motion=part)


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
TRAINING_FREE = (*CUES, *LOOK_CUES)


def training_free(window: Window) -> Evidence:
    """The cues of `model.evidence` and `model.looks`."""
    sound, motion = acoustic_maps(window.covariance), window.motion
    cues = torch.cat([compared(sound, motion.energy), look_evidence(sound["doa"], motion.maps)])
    return Evidence(dict(zip(TRAINING_FREE, cues, strict=True)))


def by_looks(window: Window) -> Evidence:
    """The cues of `model.looks` alone: what the learned scorer does not know already."""
    cues = look_evidence(arrivals(window.covariance), window.motion.maps)
    return Evidence(dict(zip(LOOK_CUES, cues, strict=True)))


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
        return answer_deg(self.log_posterior.exp())

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
    arcs_deg : one or two arcs [low, high] that hold the truth in `wording.INTERVAL_LEVEL` of
        cases, the best rotation's first; low is clockwise of high, and an arc may pass 180.
    confidence : probability that the best rotation is within `posterior.NEAR_DEG`.
    posterior : over `evidence.yaws_deg`, sums to 1, [shape=(R,)].
    reasons : in words, why the verdict is undecidable; empty otherwise.
    """

    verdict: Verdict
    rotate_field_ccw_deg: float
    arcs_deg: list[tuple[float, float]]
    confidence: float
    posterior: Tensor
    reasons: list[str]

    def as_json(self) -> dict[str, Any]:
        """All but the posterior, as reports have it."""
        first, *others = self.arcs_deg
        return {
            "verdict": self.verdict.value,
            "rotate_field_ccw_deg": told_deg(self.rotate_field_ccw_deg),
            "interval_deg": list(first),
            "second_interval_deg": list(others[0]) if others else None,
            "confidence": round(self.confidence, 4),
            "reasons": self.reasons,
        }


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


def judge(
    windows: Sequence[ScoredWindow], calibration: Calibration, *, tolerance_deg: float
) -> Judgement:
    """Pool windows (at least one) and decide.

    The track is aligned if the best rotation lies within `tolerance_deg` of 0.
    """
    posterior = pool(torch.stack([window.log_posterior for window in windows]), calibration)
    best = answer_deg(posterior)
    confidence = confidence_of(posterior, calibration)
    arcs = credible_arcs(posterior, calibration.arc_mass)
    verdict = verdict_of(best, confidence, calibration, tolerance_deg=tolerance_deg)
    reasons = []
    if verdict is Verdict.UNDECIDABLE:
        reasons = _reasons(windows, best, arcs, confidence, calibration)
    return Judgement(verdict, best, arcs, confidence, posterior, reasons)


def withheld(judgement: Judgement, reason: str) -> Judgement:
    """A judgement without a verdict, for a reason that comes before all evidence."""
    return replace(judgement, verdict=Verdict.UNDECIDABLE, reasons=[reason, *judgement.reasons])


def verdict_of(
    best_deg: float, confidence: float, calibration: Calibration, *, tolerance_deg: float
) -> Verdict:
    """The decision rule: sure enough, then near enough to 0, as the angle is told."""
    if confidence < calibration.least_confidence:
        return Verdict.UNDECIDABLE
    return Verdict.ALIGNED if abs(told_deg(best_deg)) <= tolerance_deg else Verdict.MISALIGNED


def _reasons(
    windows: Sequence[ScoredWindow],
    best_deg: float,
    arcs: Sequence[tuple[float, float]],
    confidence: float,
    calibration: Calibration,
) -> list[str]:
    """Why the evidence does not suffice, for people."""
    reasons = [
        f"The best rotation is right with a probability of only {percent(confidence)}; a verdict "
        f"takes {percent(calibration.least_confidence)}."
    ]
    if max(window.information for window in windows) < 0.3:
        reasons.append("In no window does movement go with sound at one rotation more than others.")
    elif len(windows) > 1:
        near = sum(abs(math.remainder(window.best_deg - best_deg, 360)) <= 30 for window in windows)
        reasons.append(f"{near} of {len(windows)} windows vote within 30° of the best rotation.")
    if len(arcs) == 2:
        reasons.append(f"Two rotations fit: {' and '.join(map(span, arcs))}.")
    return reasons
