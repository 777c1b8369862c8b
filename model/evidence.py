"""Evidence without training: where it sounds against where it moves, for every yaw at once.

From a window's covariances come three acoustic maps over time and azimuth: `doa` (directions of
arrival), `mvdr` (power of the minimum-variance beam) and `flux` (directions of what newly begins,
which leaves out steady noise and most reverberation). From its picture comes a map of motion.
Three kinds of cue compare them under every rotation of the field:

- synchrony: the picture moves at an azimuth when it sounds there. Correlation over time of every
  pair of azimuths, over a few lags, squared where positive (the mutual information of Gaussians to
  second order) and summed along the diagonals that belong to one rotation; as deviation from the
  same with the sound shifted in time, which fits no better than chance but has all the activity.
- tracking: the share of motion goes to an azimuth when the share of sound does (moving sources,
  speakers in turn); with the same null.
- co-location: it moves, over the whole window, where it sounds.

Maps are [shape=(T, A)] over azimuth bins in picture order; cues are [shape=(R,)] over `yaws_deg`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from model import features
from model.arcs import wrapped_deg
from model.features import WW, WX, WY

N_YAWS = 72
CUES = (
    "sync doa",
    "sync mvdr",
    "sync flux",
    "sync flux fast",
    "track flux",
    "place doa faint",
    "place doa",
    "place mvdr faint",
    "place mvdr",
    "place flux faint",
    "place flux",
)

LAGS = (-2, -1, 0, 1, 2)  # of the sound against the picture, in intervals

_CONCENTRATION = 20.0  # of the von Mises kernel of one direction: 13 degrees
_PAST = 5  # intervals that say what is not new
_N_SHIFTS = 24  # of the null
_LEAST_SHIFT = 10
_COMPRESSION = 0.4
_WHITENING = 0.8  # 0: loud azimuths count more, 1: all alike
_FAST = 25  # intervals: slower change is taken out of the fast cue
_SMOOTHING_DEG = 6.0  # of the motion map
_EPS = 1e-9


def yaws_deg() -> list[float]:
    """The rotations that are scored, `rotate_field_ccw_deg`: -175 to 180 in steps of 5."""
    step = 360 / N_YAWS
    return [step * (index + 1) - 180 for index in range(N_YAWS)]


def acoustic_maps(cov: Tensor) -> dict[str, Tensor]:
    """The maps `doa`, `mvdr` and `flux` of covariances [shape=(T, F, 10)]."""
    directions, usual = features.azimuths(N_YAWS, cov.device), _usual(cov)
    w, x, y = cov[..., WW], cov[..., WX], cov[..., WY]
    mvdr = (features.mvdr_power(cov, directions) / usual[:, None]).sqrt().mean(1)
    new_w, new_x, new_y = (_beyond_past(term) for term in (w, x, y))
    new_w = new_w.clamp(min=0)
    new_directness = (torch.hypot(new_x, new_y) / (new_w + 1e-20)).clamp(0, 1)
    weight = (new_w / usual).sqrt() * new_directness
    flux = _directed(weight, torch.atan2(new_y, new_x), directions)
    return {"doa": arrivals(cov), "mvdr": mvdr, "flux": flux}


def arrivals(cov: Tensor) -> Tensor:
    """The map `doa` of covariances [shape=(T, F, 10)]: what comes from where, [shape=(T, A)]."""
    w, x, y = cov[..., WW], cov[..., WX], cov[..., WY]
    directness = (torch.hypot(x, y) / (features.energy(cov) + 1e-20)).clamp(0, 1)
    weight = (w / _usual(cov)).sqrt() * directness
    return _directed(weight, torch.atan2(y, x), features.azimuths(N_YAWS, cov.device))


def _usual(cov: Tensor) -> Tensor:
    """The level of each band, [shape=(F,)]: bands count alike, however loud."""
    return cov[..., WW].mean(0) + 1e-20


def _directed(weight: Tensor, angle: Tensor, directions: Tensor) -> Tensor:
    """Weights [shape=(T, F)] at their directions, spread by a von Mises kernel, summed over F."""
    closeness: Tensor = (angle[..., None] - directions).cos() - 1
    kernel = closeness.mul(_CONCENTRATION).exp()
    return torch.einsum("tf,tfa->ta", weight, kernel)


def _beyond_past(series: Tensor) -> Tensor:
    """What is more than the mean of the `_PAST` intervals before, [shape=(T, F)].

    Before the first it was as in the first, so there nothing is new: exactly, for the sum is of
    differences, and compression makes much of the least rest.
    """
    padded = torch.cat([series[:1].expand(_PAST, -1), series])
    past = padded.unfold(0, _PAST, 1)[: len(series)]
    return (series[..., None] - past).mean(-1)


def compared(maps: Mapping[str, Tensor], motion: Tensor) -> Tensor:
    """All cues of a window, [shape=(len(CUES), R)], each in deviations of its own null.

    maps : `acoustic_maps`, [shape=(T, A)] each.
    motion : [shape=(T, A)], of the same T intervals, on one device.
    """
    motion = smoothed(motion.double())
    shifts = _null_shifts(len(motion), motion.device)
    cues = [synchrony(motion, maps[name], shifts) for name in ("doa", "mvdr", "flux")]
    cues.append(synchrony(motion, maps["flux"], shifts, fast=True))
    cues.append(tracking(motion, maps["flux"], shifts))
    for name in ("doa", "mvdr", "flux"):
        cues += [co_location(motion, maps[name], exponent) for exponent in (0.25, 1.0)]
    return torch.stack(cues)


def smoothed(motion: Tensor) -> Tensor:
    """A map smoothed along azimuth by a Gaussian, around the seam."""
    n = motion.shape[-1]
    offset = torch.arange(n, device=motion.device, dtype=motion.dtype)
    offset = torch.minimum(offset, n - offset) * (360 / n / _SMOOTHING_DEG)
    kernel = (-0.5 * offset**2).exp()
    spectrum = torch.fft.rfft(kernel / kernel.sum())
    smooth: Tensor = torch.fft.irfft(torch.fft.rfft(motion) * spectrum, n=n)
    return smooth.clamp(min=0)


def synchrony(motion: Tensor, sound: Tensor, shifts: Tensor, *, fast: bool = False) -> Tensor:
    """The synchrony cue; `shifts` are the null's, in intervals."""
    seen, heard = _prepared(motion, fast), _prepared(sound, fast)
    n = len(seen)
    lags = torch.tensor(LAGS, device=shifts.device)
    all_shifts = torch.cat([shifts.new_zeros(1), shifts])[:, None] + lags
    # heard[t - shift] for every shift and lag: (S, L, T, A)
    times = torch.arange(n, device=shifts.device)
    moved = heard[(times - all_shifts[..., None]) % n]
    pairs = (seen.T @ moved / n).amax(dim=1)  # (S, A seen, A heard), the best lag of each pair
    return _against_null(by_yaw(pairs.clamp(min=0).square()))


def tracking(motion: Tensor, sound: Tensor, shifts: Tensor) -> Tensor:
    """The tracking cue; `shifts` are the null's, in intervals."""
    seen, heard = (_shares(series) for series in (motion.sqrt(), sound))
    return _against_null(_shifted_products(seen, heard, shifts))


def _shifted_products(seen: Tensor, heard: Tensor, shifts: Tensor) -> Tensor:
    """Sums over time and azimuth of two maps' products, for no shift in time and then each of
    `shifts` of the sound, and for each rotation, (S + 1, R).
    """
    spectrum_seen, spectrum_heard = torch.fft.rfft(seen), torch.fft.rfft(heard).conj()
    n = len(seen)
    times = torch.arange(n, device=shifts.device)
    all_shifts = torch.cat([shifts.new_zeros(1), shifts])[:, None]
    moved = spectrum_heard[(times - all_shifts) % n]  # (S + 1, T, frequencies)
    return _reordered(torch.fft.irfft((spectrum_seen * moved).sum(1), n=seen.shape[1]))


def following(cov: Tensor, motion: Tensor) -> Tensor:
    """How well motion follows the direction of the sound as a whole, [shape=(R,)].

    The share of motion at the azimuth of the summed intensity, over time, in deviations of the same
    with the sound shifted in time. No cue of the yaw's: it tells which way round a field is.

    cov : [shape=(T, F, 10)]; motion : [shape=(T, A)].
    """
    flow = cov[..., [WX, WY]].sum(-2)
    direction = torch.atan2(flow[:, 1], flow[:, 0])[:, None]
    heard = _directed(torch.ones_like(direction), direction, features.azimuths(N_YAWS, cov.device))
    seen = _shares(smoothed(motion.double()).sqrt())
    scores = _shifted_products(seen, heard, _null_shifts(len(seen), seen.device))
    return scores[0] / (scores[1:].std() + _EPS)


def co_location(motion: Tensor, sound: Tensor, exponent: float) -> Tensor:
    """Correlation over azimuth of the two maps' means over time, times 3.

    exponent : compression of both before averaging; a small one counts faint movers in full.
    """
    seen, heard = (_standardised((series**exponent).mean(0)) for series in (motion, sound))
    product = torch.fft.rfft(seen) * torch.fft.rfft(heard).conj()
    return 3 * _reordered(torch.fft.irfft(product, n=len(seen))) / len(seen)


def _prepared(series: Tensor, fast: bool) -> Tensor:
    """A map compressed, centred in time and partly whitened per azimuth."""
    series = series.clamp(min=0) ** _COMPRESSION
    if fast:
        series = series - _slow(series)
    series = series - series.mean(0)
    each, overall = series.std(0), series.std() + _EPS
    scale = each**_WHITENING * overall ** (1 - _WHITENING) + 0.15 * overall
    return series / (scale + _EPS)


def _slow(series: Tensor) -> Tensor:
    """Moving average over `_FAST` intervals, edges repeated."""
    before = _FAST // 2
    first, last = series[:1].expand(before, -1), series[-1:].expand(_FAST - 1 - before, -1)
    return torch.cat([first, series, last]).unfold(0, _FAST, 1).mean(-1)


def _shares(series: Tensor) -> Tensor:
    """Each interval as shares of its sum over azimuth, centred in time."""
    total = series.sum(1, keepdim=True)
    shares = series / (total + 0.1 * total.mean() + _EPS)
    return shares - shares.mean(0)


def _standardised(values: Tensor) -> Tensor:
    return (values - values.mean()) / (values.std() + _EPS)


def _null_shifts(n: int, device: torch.device) -> Tensor:
    """Circular shifts in time that make sound and picture strangers, evenly spread."""
    least = min(_LEAST_SHIFT, n // 3)
    return torch.linspace(least, n - least, _N_SHIFTS, device=device).round().long()


def _against_null(scores: Tensor) -> Tensor:
    """The first of scores [shape=(S, R)] in deviations of the others."""
    score, null = scores[0], scores[1:]
    return (score - null.mean(0)) / (0.5 * null.std(0) + 0.5 * null.std() + _EPS)


def by_yaw(pairs: Tensor, together: Callable[[Tensor, int], Tensor] = torch.sum) -> Tensor:
    """Pairs (seen, heard) [shape=(..., A, A)] along the diagonal of each yaw, [shape=(..., R)].

    together : what becomes of all pairs of a yaw; takes a dimension.
    """
    n = pairs.shape[-1]
    seen = torch.arange(n, device=pairs.device)[:, None]
    heard = (seen - torch.arange(n, device=pairs.device)) % n
    return _reordered(together(pairs[..., seen, heard], -2))


def _reordered(by_columns: Tensor) -> Tensor:
    """Scores by how many columns the sound has to move right, reordered as `yaws_deg`.

    Azimuth falls from left to right, so j columns to the right turn the field by -j bins.
    """
    n = by_columns.shape[-1]
    yaw_bins = torch.arange(n, device=by_columns.device) + 1 - n // 2
    return by_columns[..., (-yaw_bins) % n]


def best_yaw_deg(scores: Tensor) -> float:
    """The best rotation of scores [shape=(R,)], refined between bins by a parabola."""
    n = len(scores)
    peak = int(scores.argmax())
    left, centre, right = (float(scores[(peak + offset) % n]) for offset in (-1, 0, 1))
    bend = left - 2 * centre + right
    part = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return wrapped_deg(360 / n * (peak + 1 + part) - 180)
