"""A whole take as maps over time and azimuth, and what its short windows say of the rotation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint import Calibration
from model.evidence import CUES, acoustic_maps, compared
from model.take import Progress, Take

FloatArray = NDArray[np.float64]

BLOCK_S = 10.0
VIEW_S, HOP_S = 6.0, 1.0  # of the short windows
_VETO = 6.0  # no window counts more than this many nats against a rotation
_LEVEL_FLOOR = 0.5  # of the mean level: a quiet interval's directions count less


@dataclass(frozen=True)
class Course:
    """A whole take in maps.

    Attributes
    ----------
    times_s : middle of each interval, [shape=(T,)].
    motion : of the picture, [shape=(T, A)].
    sound : the maps of `evidence.acoustic_maps`, [shape=(T, A)] each.
    pan_deg : how far the picture turned in each interval, counter-clockwise, [shape=(T,)].
    """

    times_s: FloatArray
    motion: Tensor
    sound: dict[str, Tensor]
    pan_deg: FloatArray

    def part(self, start_s: float, end_s: float) -> Course:
        """The intervals whose middles lie in [start_s, end_s)."""
        first, last = np.searchsorted(self.times_s, [start_s, end_s])
        return Course(
            self.times_s[first:last],
            self.motion[first:last],
            {name: series[first:last] for name, series in self.sound.items()},
            self.pan_deg[first:last],
        )


def read_course(take: Take, progress: Progress = lambda _: None) -> Course:
    """The maps of all that picture and track share, block by block."""
    parts: list[Course] = []
    frame_s = 1 / take.video.rate_hz
    starts = np.arange(take.start_s, take.end_s - 1.0, BLOCK_S)
    for index, start_s in enumerate(starts):
        # One frame more than a block: blocks share a frame, and no interval is lost between them.
        duration_s = min(BLOCK_S + 1.5 * frame_s, take.end_s - start_s)
        window = take.window(float(start_s), duration_s)
        progress((index + 1) / len(starts))
        if window is None:
            continue
        edges = window.motion.edges_s.cpu().numpy()
        part = Course(
            (edges[1:] + edges[:-1]) / 2,
            window.motion.energy.float().cpu(),
            {n: m.float().cpu() for n, m in acoustic_maps(window.covariance).items()},
            np.rad2deg(window.motion.pan_rad.cpu().numpy()),
        )
        parts.append(part.part(parts[-1].times_s[-1] + 1e-6 if parts else -math.inf, math.inf))
    return Course(
        np.concatenate([part.times_s for part in parts]),
        torch.cat([part.motion for part in parts]),
        {name: torch.cat([part.sound[name] for part in parts]) for name in parts[0].sound},
        np.concatenate([part.pan_deg for part in parts]),
    )


def level_shares(series: Tensor) -> Tensor:
    """A map [shape=(T, A)] as shares over azimuth, less where it is quiet."""
    series = series.double()
    level = series.sum(1, keepdim=True)
    return series / (level + _LEVEL_FLOOR * level.mean() + 1e-12)


@dataclass(frozen=True)
class Views:
    """Log-posteriors of short windows, their peak 0 and cut below, [shape=(n, R)]."""

    starts_s: FloatArray
    log_posteriors: Tensor

    def of(self, start_s: float, end_s: float) -> Tensor:
        """Sum over the windows that lie within [start_s, end_s], [shape=(R,)], in nats.

        Windows overlap, so each counts for the share of it that is its own.
        """
        within = (self.starts_s >= start_s - 0.1) & (self.starts_s + VIEW_S <= end_s + 0.1)
        return self.log_posteriors[torch.from_numpy(within)].sum(0) * (HOP_S / VIEW_S)


def views(course: Course, calibration: Calibration) -> Views:
    """Score short windows along a course."""
    weights = torch.tensor([calibration.weights[name] for name in CUES], dtype=torch.float64)
    starts = np.arange(course.times_s[0], course.times_s[-1] - VIEW_S + 0.1, HOP_S)
    scored = []
    for start_s in starts:
        part = course.part(start_s, start_s + VIEW_S)
        cues = compared({n: m.double() for n, m in part.sound.items()}, part.motion)
        log_posterior = (weights @ cues).log_softmax(0)
        scored.append((log_posterior - log_posterior.max()).clamp(min=-_VETO))
    return Views(starts, torch.stack(scored))
