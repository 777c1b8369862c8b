"""What a posterior over rotations says: the answer, how sure it is, where else the truth may be.

A posterior is over equal bins up to 180 degrees (`evidence.yaws_deg`, or finer ones), sums to 1,
and has the shape (R,).
"""

from __future__ import annotations

import math

import torch
from scipy.special import expit
from torch import Tensor

from model.arcs import wrapped_deg
from model.checkpoint import Calibration
from model.evidence import best_yaw_deg

NEAR_DEG = 15.0
# Of the bell by which the mass around a rotation is weighed, about as wide as what sounds. Of 0 to
# 20 degrees the one with most answers within 10 degrees of the truth, on takes of `calibrate`.
_BELL_DEG = 8.0


def pool(log_posteriors: Tensor, calibration: Calibration) -> Tensor:
    """One posterior from those of the windows, [shape=(W, R)] to [shape=(R,)].

    Each window's log-probabilities are cut at a cap below its peak, so that none can veto, and
    their sum is tempered: what misleads one window of a take often misleads them all.
    """
    below_peak = log_posteriors - log_posteriors.amax(1, keepdim=True)
    total = below_peak.clamp(min=-calibration.pooling_cap).sum(0)
    tempered: Tensor = total / len(log_posteriors) ** calibration.pooling_exponent
    return tempered.softmax(0)


def mass_around(posterior: Tensor) -> Tensor:
    """The posterior's mass around each rotation, weighed by a bell, [shape=(R,)]."""
    n_bins = len(posterior)
    off = torch.arange(n_bins, dtype=posterior.dtype, device=posterior.device)
    off = torch.minimum(off, n_bins - off) * (360 / n_bins)
    bell = (-0.5 * (off / _BELL_DEG) ** 2).exp()
    spectrum = torch.fft.rfft(posterior) * torch.fft.rfft(bell)
    around: Tensor = torch.fft.irfft(spectrum, n=n_bins)
    return around.clamp(min=1e-12)


def answer_deg(posterior: Tensor) -> float:
    """The rotation that most of the posterior lies around, in (-180, 180].

    Its highest bin alone may be chance, with most of the mass to one side of it.
    """
    return best_yaw_deg(mass_around(posterior).log())


def mass_near(posterior: Tensor, angle_deg: float) -> float:
    """Posterior mass within `NEAR_DEG` of an angle, by whole bins."""
    n_bins = len(posterior)
    reach = round(NEAR_DEG * n_bins / 360)
    nearest = round((angle_deg + 180) * n_bins / 360) - 1
    near = nearest + torch.arange(-reach, reach + 1)
    return float(posterior[near % n_bins].sum())


def confidence_logit(posterior: Tensor) -> float:
    """Logit of the mass near the answer, what a confidence is calibrated from."""
    mass = min(max(mass_near(posterior, answer_deg(posterior)), 1e-6), 1 - 1e-6)
    return math.log(mass / (1 - mass))


def confidence_of(posterior: Tensor, calibration: Calibration) -> float:
    """Probability that a posterior's answer is within `NEAR_DEG`."""
    line = calibration.confidence_slope * confidence_logit(posterior)
    return float(expit(line + calibration.confidence_intercept))


def mass_to_reach(posterior: Tensor, index: int) -> float:
    """Mass that `credible_arcs` need to hold a bin, and all that come before it."""
    around = mass_around(posterior)
    as_likely = around >= around[index] * (1 - 1e-9)  # equal ones, but for rounding, count too
    return float(posterior[as_likely].sum())


def credible_arcs(posterior: Tensor, mass: float) -> list[tuple[float, float]]:
    """The bins that most mass lies around, until they hold `mass`, as one or two arcs.

    Nearest ones are joined; the arc that holds the answer comes first.
    """
    n_bins = len(posterior)
    step = 360 / n_bins
    order = mass_around(posterior).argsort(descending=True, stable=True)
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
        (wrapped_deg((low + 0.5) * step - 180), wrapped_deg((high + 1.5) * step - 180))
        for low, high in runs
    ]
