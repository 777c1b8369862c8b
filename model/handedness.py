"""Which way round a field is, by the picture: upright, upside down, mirrored, or misread as AmbiX.

Each hypothesis only changes signs and places of the covariance terms, so it is scored with all
its yaws by the same evidence as the yaw itself and by whether motion follows the sound's direction,
without another transform. The log-evidence of hypothesis and yaw together is pooled over windows
as that of the yaws is, and summed over yaws.

What the picture cannot tell: a single source that stays where it is fits a mirrored field as well
as its own, at another yaw; it takes a source that moves, or several in different directions.
Upside down and mirrored differ in the sign of Z only, which evidence over azimuth does not see:
their sum is what is found, and shared out by how common either is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from model import features
from model.ambisonics import Fix
from model.arcs import told_deg
from model.channels.faults import Finding
from model.channels.readings import Reading
from model.checkpoint import AVSA, LEARNED, Calibration
from model.conventions import Diagnosis
from model.evidence import following
from model.posterior import answer_deg, pool
from model.scoring import ScoredWindow, Scorer, Window, score
from model.viewpoints import mirrored
from model.wording import angle


class Hypothesis(StrEnum):
    """What was done to the field before it came here."""

    UPRIGHT = "upright"
    INVERTED = "inverted"  # half a turn about the front axis
    MIRRORED = "mirrored"  # Y negated
    FUMA_READ = "fuma_read"  # a FuMa file read as AmbiX


# How common each is among tracks that come here.
PRIOR = {
    Hypothesis.UPRIGHT: 0.90,
    Hypothesis.INVERTED: 0.05,
    Hypothesis.MIRRORED: 0.03,
    Hypothesis.FUMA_READ: 0.02,
}
_LEAST_PRIOR = 1e-4
# How much `parts` count between hypotheses: found on synthetic windows with an earlier scorer. What
# `training.fit_handedness` finds with the shipped one is hardly better (training/LOG.md).
WEIGHTS = (2.0, 2.0, 0.5)


def undone(cov: Tensor, hypothesis: Hypothesis) -> Tensor:
    """The covariance terms [shape=(..., 10)] with what a hypothesis says was done undone."""
    if hypothesis is Hypothesis.INVERTED:
        return features.remapped(cov, signs=(1, -1, -1))
    if hypothesis is Hypothesis.MIRRORED:
        return mirrored(cov)
    if hypothesis is Hypothesis.FUMA_READ:
        # X, Y, Z were read as Y, Z, X.
        return features.remapped(cov, axes=(1, 2, 0), omni_gain=math.sqrt(2))
    return cov


def window_undone(window: Window, hypothesis: Hypothesis) -> Window:
    """A window with what a hypothesis says was done to its sound undone."""
    moments = [
        replace(moment, covariance=undone(moment.covariance, hypothesis))
        for moment in window.moments
    ]
    return replace(window, covariance=undone(window.covariance, hypothesis), moments=moments)


def parts(window: Window, scored: ScoredWindow, calibration: Calibration) -> Tensor:
    """A window's log-evidence for each rotation, by what gives it, float64, [shape=(3, R)].

    The learned scorer and the training-free cues, each cue by its calibrated weight, and whether
    motion follows the sound's direction (`evidence.following`).
    """
    following_it = following(window.covariance, window.motion.energy).double().cpu()
    learned, cues = torch.zeros_like(following_it), torch.zeros_like(following_it)
    for name, weight in calibration.weights.items():
        part = learned if name in (LEARNED, AVSA) else cues
        if name in scored.cues:
            part += weight * scored.cues[name].double().cpu()
    return torch.stack([learned, cues, following_it])


def prior_given(diagnosis: Diagnosis) -> dict[Hypothesis, float]:
    """The prior where sound has already said how likely the order W X Y Z is.

    Where FuMa's order was taken over, or rules the reading out, it is no hypothesis any more.
    """
    fuma = 0.0
    if diagnosis.readings and diagnosis.selection is None and not diagnosis.declared:
        fuma = diagnosis.readings[Reading.FUMA] + diagnosis.readings[Reading.WXYZ]
    fuma = 0.0 if fuma < _LEAST_PRIOR else min(fuma, 1 - _LEAST_PRIOR)
    rest = (1 - fuma) / (1 - PRIOR[Hypothesis.FUMA_READ])
    prior = {hypothesis: p * rest for hypothesis, p in PRIOR.items()}
    prior[Hypothesis.FUMA_READ] = fuma
    return {hypothesis: p for hypothesis, p in prior.items() if p > 0}


@dataclass(frozen=True)
class Handedness:
    """Posterior over hypotheses.

    Attributes
    ----------
    probabilities : they sum to 1.
    yaws_deg : the best rotation under each, after undoing it.
    """

    probabilities: Mapping[Hypothesis, float]
    yaws_deg: Mapping[Hypothesis, float]

    @property
    def reversed_probability(self) -> float:
        """That left and right are exchanged, by either cause."""
        return self.probabilities[Hypothesis.INVERTED] + self.probabilities[Hypothesis.MIRRORED]

    def findings(self, fix: Fix | None = None) -> list[Finding]:
        """What is wrong, if the picture is right.

        fix : what was done to the field already; both fixes exchange left and right.
        """
        why = "the microphone hung upside down (or Y was negated: --fix mirror)"
        mend = "--fix invert"
        if fix is not None:
            why, mend = f"by --fix {fix.value}", f"leave --fix {fix.value} away"
        best_deg = self.yaws_deg[Hypothesis.INVERTED]
        fuma = self.probabilities.get(Hypothesis.FUMA_READ, 0.0)
        return [
            Finding(
                "reversed", self.reversed_probability,
                f"Left and right are exchanged against the picture: {why}; with that undone, "
                f"{angle(best_deg, 0)} would fit.",
                mend,
            ),
            Finding(
                "fuma_read", fuma, "The sound fits the picture if its order is W X Y Z (FuMa).",
                "--convention fuma",
            ),
        ]  # fmt: skip

    def as_json(self) -> list[dict[str, object]]:
        """For a report."""
        return [
            {
                "hypothesis": hypothesis.value,
                "p": round(probability, 4),
                "rotate_field_ccw_deg": told_deg(self.yaws_deg[hypothesis]),
            }
            for hypothesis, probability in self.probabilities.items()
        ]


class HandednessTest:
    """Collects windows; `result` is the posterior over the hypotheses."""

    def __init__(
        self,
        calibration: Calibration,
        scorers: Sequence[Scorer],
        prior: Mapping[Hypothesis, float] = PRIOR,
    ) -> None:
        self._calibration = calibration
        self._scorers = scorers
        self._prior = prior
        self._evidence: dict[Hypothesis, list[Tensor]] = {
            hypothesis: [] for hypothesis in prior if hypothesis is not Hypothesis.MIRRORED
        }

    def add(self, window: Window, upright: ScoredWindow) -> None:
        """Take a window into account that was already scored as it is."""
        for hypothesis, log_evidence in self._evidence.items():
            scored, other = upright, window
            if hypothesis is not Hypothesis.UPRIGHT:
                other = window_undone(window, hypothesis)
                scored = score(other, self._scorers, self._calibration)
            found = parts(other, scored, self._calibration)
            log_evidence.append(found.new_tensor(WEIGHTS) @ found)

    def result(self) -> Handedness:
        """The posterior of all windows, of which there is at least one."""
        # Windows by hypotheses by yaws: one distribution over both, pooled like that over yaws.
        joint = torch.stack([torch.stack(windows) for windows in self._evidence.values()], dim=1)
        pooled = pool(joint.flatten(1), self._calibration).view(joint.shape[1:])
        log_odds = pooled.sum(1).clamp(min=1e-12).log()
        of = dict(zip(self._evidence, log_odds.tolist(), strict=True))
        yaws = {
            hypothesis: answer_deg(row / row.sum().clamp(min=1e-300))
            for hypothesis, row in zip(self._evidence, pooled, strict=True)
        }
        if Hypothesis.INVERTED in of:
            # The same to evidence over azimuth.
            of[Hypothesis.MIRRORED] = of[Hypothesis.INVERTED]
            yaws[Hypothesis.MIRRORED] = yaws[Hypothesis.INVERTED]
        logs = {h: math.log(p) + of[h] for h, p in self._prior.items()}
        highest = max(logs.values())
        odds = {h: math.exp(log - highest) for h, log in logs.items()}
        return Handedness({h: o / sum(odds.values()) for h, o in odds.items()}, yaws)
