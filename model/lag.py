"""Whether the sound comes late against the picture, where no sound of the camera tells.

The learned scorer compares what moves and what sounds over time; it is asked once more with the
sound some intervals later and earlier. Lags and yaws are scored together, for all windows of a take
share both, and the yaws are summed over. In life things move a little before or after they sound,
by up to `IN_TIME_S` on average of a take: less than that is no lag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.learned import LearnedScorer
from model.scoring import Window
from model.take import LEAST_DURATION_S
from model.wording import percent

REACH_S = 0.5
IN_TIME_S = 0.1
SURE = 0.95  # of a lag to within `IN_TIME_S`: below it nothing is said

_STEP_S = 0.05
# Of a window: so much is left to compare all lags on, and of a take that is moved by one of them.
LEAST_WINDOW_S = LEAST_DURATION_S + 2 * REACH_S
_IN_TIME_PRIOR = 0.8
# How much the scorer's log-evidence counts, and W windows, as W^(1 - exponent): the least log loss
# on three windows of each of the 48 long scenes that the yaw's pooling was found on.
_WEIGHT, _POOLING_EXPONENT = 0.8, 0.5

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Lag:
    """How late the sound comes.

    Attributes
    ----------
    late_s : of the sound against the picture; negative: early.
    std_s : of that, if it is right at all.
    probability : that it is right to within `IN_TIME_S`.
    """

    late_s: float
    std_s: float
    probability: float

    @property
    def sure(self) -> bool:
        """Whether it is to be told."""
        return self.probability >= SURE

    @property
    def out_of_time(self) -> bool:
        """Whether the sound surely comes late or early."""
        return self.sure and abs(self.late_s) > IN_TIME_S

    @property
    def sentence(self) -> str:
        """A lag that was made up for, in words."""
        when = "after" if self.late_s > 0 else "before"
        return (
            f"By the picture the sound comes {abs(self.late_s):.2f} s (± {self.std_s:.2f}) {when} "
            f"what is seen ({percent(self.probability)} sure), and was judged as if it came in "
            "time: --lay-on-picture writes it so; where it is wrong, --offset-s 0 leaves the check "
            "out."
        )

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        return {
            "late_s": round(self.late_s, 3),
            "std_s": round(self.std_s, 3),
            "probability": round(self.probability, 4),
            "made_up_for": self.out_of_time,
        }


class LagTest:
    """Collects windows; `result` is what they say together."""

    def __init__(self, scorer: LearnedScorer) -> None:
        self._scorer = scorer
        self._lags_s = np.linspace(-REACH_S, REACH_S, round(2 * REACH_S / _STEP_S) + 1)
        self._evidence: list[FloatArray] = []

    def add(self, window: Window) -> None:
        """Take a window into account, unless it is too short for that."""
        if window.duration_s < LEAST_WINDOW_S:
            return
        interval_s = window.interval_s
        reach = math.ceil(REACH_S / interval_s)
        given = self._scorer.over_lags(window, reach).numpy()
        given = given - given.mean(axis=1, keepdims=True)
        at_s = np.arange(-reach, reach + 1) * interval_s
        by_yaw = [np.interp(self._lags_s, at_s, column) for column in given.T]
        self._evidence.append(np.stack(by_yaw, axis=1))

    def posterior(self) -> FloatArray:
        """Over lags from -`REACH_S` to `REACH_S`, sums to 1; the prior where nothing was added."""
        joint = np.zeros((len(self._lags_s), 1))
        if self._evidence:
            windows = len(self._evidence)
            joint = _WEIGHT * np.sum(self._evidence, axis=0) / windows**_POOLING_EXPONENT
        in_time = np.abs(self._lags_s) <= IN_TIME_S + 1e-9
        prior = np.where(
            in_time, _IN_TIME_PRIOR / in_time.sum(), (1 - _IN_TIME_PRIOR) / (~in_time).sum()
        )
        likelihood = np.exp(joint - joint.max()).sum(axis=1) * prior
        return np.asarray(likelihood / likelihood.sum())

    def result(self) -> Lag:
        """The lag that is likeliest to be right to within `IN_TIME_S`."""
        posterior = self.posterior()
        close = np.abs(self._lags_s[:, None] - self._lags_s) <= IN_TIME_S + 1e-9
        near = close[(close @ posterior).argmax()]
        p, lags_s = posterior[near], self._lags_s[near]
        late_s = float(p @ lags_s / p.sum())
        variance = float(p @ (lags_s - late_s) ** 2 / p.sum()) + _STEP_S**2 / 12
        return Lag(late_s, math.sqrt(variance), float(p.sum()))
