"""Scores windows of noise: prints the seconds a window, and the answers.

python -m tests.benchmarks.scoring WINDOWS SECONDS
"""

from __future__ import annotations

import sys
import time

import torch

from model import features, precedence
from model.checkpoint import load_calibration
from model.learned import scorers_for
from model.scoring import Window, score


def seen_and_heard(frames: torch.Tensor, field: torch.Tensor, times_s: torch.Tensor) -> Window:
    """Frames [shape=(T, H, W)] at these times and a field [shape=(4, N)], as features."""
    covariance, motion = precedence.covariance(field, times_s), features.motion(frames, times_s)
    return Window(0.0, float(times_s[-1]), covariance, motion)


def noise_window(seed: int, seconds: int) -> Window:
    """A stretch in which nothing fits."""
    generator = torch.Generator().manual_seed(seed)
    times_s = torch.arange(round(seconds * 12.5), dtype=torch.float64) / 12.5
    frames = torch.randint(0, 255, (len(times_s), *features.PICTURE_SIZE), generator=generator)
    field = torch.randn(4, seconds * features.SAMPLERATE, generator=generator, dtype=torch.float64)
    return seen_and_heard(frames.to(torch.uint8), field, times_s)


def scored(n_windows: int, seconds: int) -> list[float]:
    """Seconds that a window takes, and the answers."""
    calibration = load_calibration()
    scorers = scorers_for(calibration)
    windows = [noise_window(seed, seconds) for seed in range(n_windows)]
    score(windows[0], scorers, calibration)
    began = time.perf_counter()
    found = [score(window, scorers, calibration) for window in windows]
    return [(time.perf_counter() - began) / n_windows, *(one.best_deg for one in found)]


if __name__ == "__main__":
    print(*scored(int(sys.argv[1]), int(sys.argv[2])))
