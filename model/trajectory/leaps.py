"""Moments at which all that is heard turns at once.

Where a microphone is knocked, what is heard after it is what was heard before, turned: turned back,
the directions of sound after the moment fall on those before it better than as they are. How much
better is told as a share of what there is to fall on, so that faint structure in diffuse sound
counts as much as a voice close by; and it is told close around the moment, where sources that move
stand still.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model.evidence import N_YAWS
from model.trajectory.course import Course, level_shares

_MAPS = ("doa", "mvdr", "flux")
# What falls on each other, to either side of a moment. Chosen on synthetic takes
# (`python -m training.evaluate trajectory --seed 600000`), as all maps together were.
_SIDES_S = (0.25, 0.5, 1.0, 2.0)
_APART_S = 2.0  # leaps closer to each other are one


class Leaps:
    """For each moment and turn of the sound, how much better after falls on before, -1 to 1.

    least_turn : in bins; smaller ones are not told from what sources do.
    """

    def __init__(self, course: Course, *, least_turn: int) -> None:
        seconds = float(np.median(np.diff(course.times_s)))
        self._moments_s = np.append(course.times_s, course.times_s[-1] + seconds) - seconds / 2
        total = torch.zeros(len(self._moments_s), N_YAWS, dtype=torch.float64)
        for name in _MAPS:
            shares = level_shares(course.sound[name])
            for side_s in _SIDES_S:
                n = max(1, round(side_s / seconds))
                if 2 * n <= len(shares):
                    total[n : len(shares) - n + 1] += better_turned(shares, n)
        total /= len(_MAPS) * len(_SIDES_S)
        # Turns are known to a bin or so.
        self._shares = torch.stack([total.roll(k, 1) for k in (-1, 0, 1)]).amax(0)
        # Of the turns that are told. One number a moment: a look at all others is cheap, however
        # long the take.
        self._largest = self._shares[:, least_turn : N_YAWS - least_turn + 1].amax(1)

    def above(self, start_s: float, at_s: float, end_s: float, *, within_s: float) -> Tensor:
        """How far the largest close to a moment is above all others of a stretch, by turn, (R,).

        Turns of speech are alike leaps, but seldom only one of them is.
        """
        before_s, after_s = at_s - _APART_S, at_s + _APART_S
        sides = self._within(start_s, before_s), self._within(after_s, end_s)
        others = torch.cat([self._largest[side] for side in sides]).max()
        close = self._shares[self._within(at_s - within_s, at_s + within_s)]
        return (close.amax(0) - others).clamp(min=0)

    def best(self, turn: int, start_s: float, end_s: float) -> tuple[float, float]:
        """The moment at which a turn by so many bins is the most likely, and how much it is so."""
        within = self._within(start_s, end_s)
        values = self._shares[within, turn]
        index = int(values.argmax())
        return float(self._moments_s[within][index]), float(values[index])

    def _within(self, start_s: float, end_s: float) -> slice:
        """The moments of a stretch, one at the least."""
        first, last = np.searchsorted(self._moments_s, [start_s, end_s])
        return slice(int(first), max(int(last), int(first) + 1))


def better_turned(shares: Tensor, n: int) -> Tensor:
    """How much better `n` intervals after fall on `n` before if turned back by k bins.

    shares : [shape=(T, A)]; for the T - 2 n + 1 moments that have as many on both sides,
    [shape=(moments, R)] over k. The distance of both as they are, less that of both when turned,
    over their squares and the usual distance.
    """
    cumulated = torch.cat([shares.new_zeros(1, shares.shape[1]), shares.cumsum(0)])
    sums = cumulated[n:] - cumulated[:-n]
    spectra = torch.fft.rfft(sums)
    spectra[:, 0] = 0  # what all azimuths share falls on itself however it is turned
    before, after = spectra[:-n], spectra[n:]
    alike = torch.fft.irfft(before * after.conj(), n=shares.shape[1])
    power = torch.fft.irfft(spectra.abs().square().to(spectra.dtype), n=shares.shape[1])[:, 0]
    squares = power[:-n] + power[n:]
    usual = (squares - 2 * alike[:, 0]).mean()
    better: Tensor = 2 * (alike - alike[:, :1]) / (squares + usual + 1e-12)[:, None]
    return better
