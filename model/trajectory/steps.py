"""Where the rotation steps: the rig was knocked, or the shot re-oriented.

Three kinds of evidence tell, and are added in nats:

- sound and picture together: log-posteriors of short windows (`course.views`), which know the
  rotation itself, but each only roughly;
- the sound by itself: where the microphone turns, everything that sounds turns by the same angle.
  Turned back by the right angle, the directions of arrival before and after fall on each other and
  their histogram is sharpest: its entropy is least. That tells the angle closely, but takes turns
  of speech and moving sources for steps where the picture says otherwise;
- what is heard close around a moment (`leaps`), which tells when it was, often to a tenth of a
  second, and whether it was sudden.

A step of the picture is seen in the picture itself (`features.Motion.pan_rad`), and is one of the
rotation only if the sound has not made it too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.arcs import wrapped_deg
from model.evidence import N_YAWS
from model.trajectory.course import Course, Views, level_shares
from model.trajectory.leaps import Leaps

Pan = tuple[float, float]  # when the picture turned, and the step if the sound did not

HISTOGRAMS = ("doa", "flux")
STEP_DEG = 360 / N_YAWS
# Chosen on synthetic takes (`python -m training.evaluate trajectory --seed 600000`).
_PLACING_S = 6.0
# What tells a sudden turn, and its moment: stretches so short that moving sources stand still.
_SUDDEN_S = (1.0, 2.0, 4.0)
_PLACING_SHARE = 0.5  # of the most that any moment gains: as much less, and no step is put there
_PLACING_WEIGHT = 0.3  # of the short windows, which know the moment less well
_LEAP_WEIGHT = 20.0  # nats of a leap above all others, where a step is looked for
_LEAP_PLACING = 20.0  # of any leap, where the step is put
_LEAP_SUDDEN = 5.0  # and where it is asked how sudden it was
_LEAST_STEP_GAIN = 8.0
_FADED_GAIN = 4.0  # with what lies between its neighbours alone, a sure step may be less so
_LEAST_STEP_DEG = 20.0
_LEAST_PART_S = 6.0  # between steps, and to either end
_GRID_S = 0.25
_STRETCH_S = 24.0
_MAX_STEPS = 8


@dataclass(frozen=True)
class Step:
    """From `at_s` on, the rotation is `by_deg` more than before; `gain` in nats speaks for it.

    in_picture : whether the picture itself was seen to turn then, at once.
    sudden : nats by which what is heard close around says that it turned there, at once; about 0
        or less where it turns slowly.
    """

    at_s: float
    by_deg: float
    gain: float
    in_picture: bool = False
    sudden: float = 0.0


def offsets_deg(steps: Sequence[Step]) -> NDArray[np.float64]:
    """How far the rotation is from its first, before, between and after steps, [shape=(n + 1,)]."""
    return np.cumsum([0.0, *(step.by_deg for step in steps)])


class Histograms:
    """Directions of arrival of a course, cumulated so that any stretch is a difference."""

    def __init__(self, course: Course) -> None:
        self.times_s = course.times_s
        self._seconds = float(np.median(np.diff(course.times_s)))
        self._cumulated = []
        for name in HISTOGRAMS:
            shares = level_shares(course.sound[name])
            self._cumulated.append(torch.cat([shares.new_zeros(1, N_YAWS), shares.cumsum(0)]))

    def gains(self, start_s: float, at_s: float, end_s: float) -> Tensor:
        """Nats that a turn of the sound by k bins at `at_s` gains, [shape=(R,)] over k.

        Interval by interval the directions are draws from one histogram; its maximum likelihood is
        its negative entropy, times the number of draws (one a second).
        """
        first, middle, last = np.searchsorted(self.times_s, [start_s, at_s, end_s])
        total = torch.zeros(N_YAWS, dtype=torch.float64)
        for cumulated in self._cumulated:
            before = cumulated[middle] - cumulated[first]
            after = cumulated[last] - cumulated[middle]
            # A turn by +k bins moves azimuths left by k columns: back they go to the right.
            together = before + _rolled(after)
            draws = float(before.sum() + after.sum()) * self._seconds
            entropy = _entropy(together)
            total += draws * (entropy[0] - entropy)
        return total


def _rolled(series: Tensor) -> Tensor:
    """A series over bins [shape=(R,)] rolled by every k, [shape=(R, R)] over k and bins."""
    bins = torch.arange(N_YAWS)
    return series[(bins - bins[:, None]) % N_YAWS]


def _entropy(histograms: Tensor) -> Tensor:
    shares = histograms / (histograms.sum(-1, keepdim=True) + 1e-12)
    return -(shares * (shares + 1e-12).log()).sum(-1)


def find_steps(course: Course, seen: Views) -> list[Step]:
    """Where the rotation steps, in order of time: binary segmentation by the gain in nats."""
    evidence = StepEvidence(course, seen)
    found: list[Step] = []
    parts = [(float(course.times_s[0]), float(course.times_s[-1]))]
    while parts and len(found) < _MAX_STEPS:
        start_s, end_s = parts.pop()
        steps = [
            step
            for stretch in _stretches(start_s, end_s)
            if (step := _best_step(evidence, *stretch)) and step.gain >= _LEAST_STEP_GAIN
        ]
        if steps:
            found.append(max(steps, key=lambda step: step.gain))
            parts += [(start_s, found[-1].at_s), (found[-1].at_s, end_s)]
    return _settled(sorted(found, key=lambda step: step.at_s), course, evidence)


class StepEvidence:
    """What tells of steps of the rotation, by the number of bins k that it rises by."""

    def __init__(self, course: Course, seen: Views) -> None:
        self.heard, self.leaps, self.seen = Histograms(course), Leaps(course, least_turn=4), seen
        self.pans = _picture_steps(course)

    def gains(self, start_s: float, at_s: float, end_s: float) -> Tensor:
        """Nats that a step at `at_s` gains from `start_s` to `end_s`, [shape=(R,)] over k."""
        leaps = self.leaps.above(start_s, at_s, end_s, within_s=_GRID_S / 2)
        turns = self.heard.gains(start_s, at_s, end_s) + _LEAP_WEIGHT * leaps
        # The right rotation falls where the field was turned up.
        return turns.flip(0).roll(1) + self.seen.weight * self.view_gains(start_s, at_s, end_s)

    def view_gains(self, start_s: float, at_s: float, end_s: float) -> Tensor:
        """Of sound and picture together: the best rotation of either hypothesis, over the windows
        that do not straddle `at_s`.
        """
        before, after = self.seen.of(start_s, at_s), self.seen.of(at_s, end_s)
        by_minus_k = (before + _rolled(after)).amax(1)
        best = by_minus_k.flip(0).roll(1)
        return best - best[0]

    def pan_gains(self, start_s: float, at_s: float, end_s: float, by_deg: float) -> Tensor:
        """Gains where the picture has turned by a known angle: only that step is possible, or none.

        If the sound has turned with it, the rotation stays.
        """
        bins = round(by_deg / STEP_DEG)
        stayed = self.heard.gains(start_s, at_s, end_s)[bins % N_YAWS]
        gains = torch.full((N_YAWS,), -math.inf, dtype=torch.float64)
        together = self.seen.weight * self.view_gains(start_s, at_s, end_s)[bins % N_YAWS]
        # A jump of the picture is seen, not guessed: it is at the threshold before any evidence.
        gains[bins % N_YAWS] = _LEAST_STEP_GAIN + together - stayed
        return gains

    def sudden(self, at_s: float, by_deg: float) -> float:
        """Nats by which what is heard close around a moment says that it turned then, at once."""
        turn = _turn_of(by_deg)
        around = sum(self.heard.gains(at_s - s, at_s, at_s + s)[turn] for s in _SUDDEN_S)
        leap = self.leaps.above(at_s - _STRETCH_S, at_s, at_s + _STRETCH_S, within_s=_GRID_S / 2)[
            turn
        ]
        return float(around + _LEAP_SUDDEN * leap)


def _turn_of(by_deg: float) -> int:
    """Bins by which the field turned where the rotation stepped: it falls where that rises."""
    return -round(by_deg / STEP_DEG) % N_YAWS


def _settled(steps: Sequence[Step], course: Course, evidence: StepEvidence) -> list[Step]:
    """Steps estimated once more, each from neighbour to neighbour only; those that fade go."""
    edges = [float(course.times_s[0]), *(step.at_s for step in steps), float(course.times_s[-1])]
    settled = []
    for step, start_s, end_s in zip(steps, edges[:-2], edges[2:], strict=True):
        at_once = [by_deg for at_s, by_deg in evidence.pans if at_s == step.at_s]
        if at_once:
            gains = evidence.pan_gains(start_s, step.at_s, end_s, at_once[0])
        else:
            gains = evidence.gains(start_s, step.at_s, end_s)
            gains[_near_zero()] = -math.inf
        again = _better(None, step.at_s, gains, in_picture=bool(at_once))
        if again.gain >= _FADED_GAIN:
            settled.append(replace(again, sudden=evidence.sudden(again.at_s, again.by_deg)))
    return settled


def _stretches(start_s: float, end_s: float) -> list[tuple[float, float]]:
    """A part, and shorter stretches of it: several steps hide each other in the whole."""
    starts = np.arange(start_s, end_s - _STRETCH_S, _STRETCH_S / 2)
    return [(start_s, end_s), *((float(s), float(s) + _STRETCH_S) for s in starts)]


def _best_step(evidence: StepEvidence, start_s: float, end_s: float) -> Step | None:
    best: Step | None = None
    near_zero = _near_zero()
    for at_s in np.arange(start_s + _LEAST_PART_S, end_s - _LEAST_PART_S, _GRID_S):
        gains = evidence.gains(start_s, at_s, end_s)
        gains[near_zero] = -math.inf
        best = _better(best, float(at_s), gains)
    if best is not None:
        best = _placed(best, evidence, start_s, end_s)
    for at_s, by_deg in evidence.pans:
        if start_s + _LEAST_PART_S <= at_s <= end_s - _LEAST_PART_S:
            gains = evidence.pan_gains(start_s, at_s, end_s, by_deg)
            best = _better(best, at_s, gains, in_picture=True)
    return best


def _placed(step: Step, evidence: StepEvidence, start_s: float, end_s: float) -> Step:
    """A step put where the sound says, which knows the moment better than windows of 6 s do; its
    gain then tells how sudden it is, too.
    """
    heard, turn = evidence.heard, _turn_of(step.by_deg)
    first = max(start_s + _LEAST_PART_S, step.at_s - _PLACING_S)
    last = min(end_s - _LEAST_PART_S, step.at_s + _PLACING_S)
    placings = []
    for middle_s in np.arange(first, last, _GRID_S).tolist():
        at_s, leap = evidence.leaps.best(turn, middle_s - _GRID_S / 2, middle_s + _GRID_S / 2)
        near = max(start_s, at_s - _STRETCH_S), at_s, min(end_s, at_s + _STRETCH_S)
        together = float(evidence.view_gains(start_s, at_s, end_s)[-turn % N_YAWS])
        gain = float(heard.gains(start_s, at_s, end_s)[turn]) + evidence.seen.weight * together
        sudden = evidence.sudden(at_s, step.by_deg)
        fit = sudden + _LEAP_PLACING * leap + float(heard.gains(*near)[turn])
        placings.append((at_s, gain, sudden, fit + _PLACING_WEIGHT * together))
    most = max(gain for _, gain, _, _ in placings)
    allowed = [p for p in placings if p[1] >= most - _PLACING_SHARE * abs(most)]
    at_s, _, sudden, _ = max(allowed, key=lambda placing: placing[3])
    return replace(step, at_s=at_s, gain=step.gain + sudden)


def _better(best: Step | None, at_s: float, gains: Tensor, *, in_picture: bool = False) -> Step:
    bins = int(gains.argmax())
    gain = float(gains[bins])
    if best is not None and best.gain >= gain:
        return best
    return Step(at_s, wrapped_deg(bins * STEP_DEG), gain, in_picture)


def _near_zero() -> Tensor:
    bins = torch.arange(N_YAWS)
    return torch.minimum(bins, N_YAWS - bins) * STEP_DEG < _LEAST_STEP_DEG


def _picture_steps(course: Course) -> list[Pan]:
    """Times at which the picture turned at once, and the step of the rotation if the sound did not.

    Where the camera turns to the left, what is seen moves right, and the sound has to follow.
    """
    large = np.flatnonzero(np.abs(course.pan_deg) >= _LEAST_STEP_DEG)
    return [(float(course.times_s[i]), -float(course.pan_deg[i])) for i in large]
