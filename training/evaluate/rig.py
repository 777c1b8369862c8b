"""How pooling the takes of a rig does, on synthetic takes that the calibration has not seen.

    python -m training.data.windows WINDOWS --seed 310000 --count 120
    python -m training.evaluate rig --windows WINDOWS

Each window is a take of ten seconds; rigs of 1 to 16 of them are drawn, all with the same
rotation. For each size: error, width and coverage of the interval; then, one take of each rig
misplaced by a random angle, how often it is named, and how often another one is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.arcs import cover, width_deg
from model.checkpoint import Calibration
from model.errors import OptionError
from model.evidence import N_YAWS
from model.learned import scorers_for
from model.rig import DISAGREES, solve
from training.data.windows import kept_windows, load_window
from training.figures import as_json, write_report
from training.scored_takes import scored

SIZES = (1, 2, 4, 8, 16)
_DRAWS = 300
_LEAST_MISPLACED_BINS = 6  # 30 degrees
_SURE = 0.8


def of_size(known: Tensor, size: int, calibration: Calibration) -> dict[str, float]:
    """Figures over draws of `size` takes."""
    rng = np.random.default_rng(size)
    found = [
        solve(known[rng.choice(len(known), size, replace=False)], calibration, tolerance_deg=10)
        for _ in range(_DRAWS)
    ]
    errors = np.array([abs(solution.rotate_field_ccw_deg) for solution in found])
    return {
        "median_error_deg": round(float(np.median(errors)), 2),
        "within_10_deg": round(float(np.mean(errors <= 10)), 4),
        "median_width_deg": round(
            float(np.median([sum(map(width_deg, s.arcs_deg)) for s in found])), 2
        ),
        "covers": round(float(np.mean([cover(s.arcs_deg, 0.0) for s in found])), 4),
    }


def misplaced(known: Tensor, size: int, calibration: Calibration) -> dict[str, float]:
    """One take of each rig turned by 30 degrees or more: whether it is named, and who else.

    Of takes whose own posterior says where they are (at least `_SURE` of it within 15 degrees of
    the truth), since no other can be seen to disagree.
    """
    rng = np.random.default_rng(1000 + size)
    near = known[:, torch.arange(-3, 4) + N_YAWS // 2 - 1].sum(1)
    sure = np.flatnonzero(near.numpy() >= _SURE)
    if not len(sure):
        return {"sure_takes": 0}
    named, others, off = [], [], []
    for _ in range(_DRAWS):
        odd = int(rng.choice(sure))
        rest = rng.choice(np.setdiff1d(np.arange(len(known)), [odd]), size - 1, replace=False)
        bins = int(rng.integers(_LEAST_MISPLACED_BINS, N_YAWS - _LEAST_MISPLACED_BINS + 1))
        solution = solve(
            torch.stack([known[odd].roll(bins), *known[rest]]), calibration, tolerance_deg=10
        )
        disagree = np.array(solution.belongs) < DISAGREES
        named.append(disagree[0])
        others.append(disagree[1:].mean())
        off.append(abs(solution.rotate_field_ccw_deg) > 10)
    return {
        "sure_takes": len(sure),
        "named": round(float(np.mean(named)), 4),
        "others_named": round(float(np.mean(others)), 4),
        "rotation_off_by_10_deg": round(float(np.mean(off)), 4),
    }


def run(windows: Path, *, report: Path | None, calibration: Calibration) -> dict[str, Any]:
    """Score, pool, print, and return the figures.

    Raises
    ------
    MediaError : there are no windows. OptionError : fewer than the largest rig has takes.
    """
    paths = kept_windows(windows)
    if len(paths) < max(SIZES):
        raise OptionError(f"{windows} holds {len(paths)} windows; rigs are of up to {max(SIZES)}.")
    scorers = scorers_for(calibration)
    known = torch.stack(
        [
            scored("matched", [load_window(path)], scorers).posterior(calibration)
            for path in tqdm(paths, unit="take", desc="scoring")
        ]
    )
    figures: dict[str, Any] = {
        "takes": len(known),
        "sizes": {size: of_size(known, size, calibration) for size in SIZES},
        "one_misplaced_of_8": misplaced(known, 8, calibration),
    }
    print(as_json(figures, indent=1))
    if report is not None:
        write_report(report, figures)
    return figures
