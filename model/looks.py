"""Evidence without training: how each place looks, against how loud it is there.

Change tells that something moves; how it looks tells how far it has moved. What swells, bobs,
brightens or opens with a slow sound changes by little from one frame to the next, and by much in
all. So how bright each cell of the picture is, and how rich in contrast, is correlated over time,
up or down, with what is heard at each azimuth. Two curves of T intervals that vary slowly have
n < T independent ones (Bartlett, Journal of the Royal Statistical Society, 1946), and a correlation
r of theirs is -n/2 log(1 - r²) - 1/2 log n in favour of their having to do with each other
(Schwarz, Annals of Statistics, 1978). In one cell the source is seen, so the likelihoods are summed
over cells, by how much happens in each, and over azimuths, by how loud it is there.

What the whole picture does, its median cell, is the camera's exposure or flicker, and is taken out.
A cell of variance q, in that of the picture's noise, correlates by q / (q + c) of r², since what is
noise has nothing to do with any sound.

Maps are [shape=(T, E, A)] over elevation and azimuth bins in picture order, those of sound
[shape=(T, A)]; cues are [shape=(R,)] over `yaws_deg`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.evidence import LAGS, by_yaw
from model.features import MAPS

LOOK_CUES = ("look brightness", "look contrast")

# Chosen on synthetic windows, by the likelihood of the right rotation beside the learned scorer.
_INDEPENDENT = 0.5  # of the intervals that Bartlett's formula counts
_LIVELY = 1.0  # variance, in that of the picture's noise, that counts half
_DOUBT = 0.1  # the same, of a cell's r²
_LOUDNESS = 2.2  # exponent of an azimuth's share of the sound
_COMPRESSION = 0.4
_LEAST_NOISE = 2e-3  # standard deviations: about what maps are kept to
_MOST = 0.95  # of a correlation: beyond it, how loud it is there tells more
_POWER = 0.7  # of a cue: a few wrong azimuths have very much
_EPS = 1e-9


def look_evidence(sound: Tensor, maps: Tensor) -> Tensor:
    """The cues `LOOK_CUES` of a window, 0 where least, [shape=(2, R)].

    sound : the directions of arrival of `evidence.acoustic_maps`, [shape=(T, A)].
    maps : of the picture, [shape=(T, len(MAPS), E, A)], of the same T intervals, on one device.
    """
    heard = _unit(sound.double().clamp(min=0) ** _COMPRESSION)
    loudness = _LOUDNESS * (sound.mean(0) / (sound.mean() + _EPS**2) + 1e-3).log()
    cues = []
    for name in LOOK_CUES:
        look = maps[:, MAPS.index(name.removeprefix("look "))].double()
        exposure = look.flatten(1).median(1).values[:, None, None]  # of the whole picture
        pairs = _likelihood(look - exposure, heard)
        cue = by_yaw(pairs + loudness, torch.logsumexp)
        cues.append((cue - cue.min()) ** _POWER)
    return torch.stack(cues)


def _likelihood(look: Tensor, heard: Tensor) -> Tensor:
    """Log-likelihood that an azimuth of a map looks as another sounds, [shape=(A, A)]."""
    size = _size(look)[..., None]  # (E, A, 1)
    seen = _unit(look).flatten(1)
    strength = (size / (size + _DOUBT)).sqrt()
    correlation = _correlation(seen, heard).view(*look.shape[1:], -1) * strength
    n = _INDEPENDENT * _independent(seen, heard).view(*look.shape[1:], -1)
    likelihood = -0.5 * n * (1 - correlation.clamp(max=_MOST).square()).log() - 0.5 * n.log()
    return torch.logsumexp(likelihood + (size / (size + _LIVELY) + _EPS).log(), 0)


def _size(look: Tensor) -> Tensor:
    """Variance of each cell, in that of the picture's noise, [shape=(E, A)]."""
    jitter = (look.diff(dim=0).square().mean(0) / 2).sqrt()
    return look.var(0, correction=0) / (jitter.median() + _LEAST_NOISE).square()


def _unit(series: Tensor) -> Tensor:
    """Centred and of unit size in time, [shape=(T, ...)]; 0 where nothing varies."""
    series = series - series.mean(0)
    return series / (series.square().mean(0).sqrt() + _EPS)


def _correlation(seen: Tensor, heard: Tensor) -> Tensor:
    """Of all seen [shape=(T, N)] with all heard [shape=(T, A)], of either sign, at the best lag,
    [shape=(N, A)].
    """
    n = len(seen)
    by_lag = [
        seen[max(lag, 0) : n - max(-lag, 0)].T @ heard[max(-lag, 0) : n - max(lag, 0)]
        for lag in LAGS
        if abs(lag) < n
    ]
    return (torch.stack(by_lag) / n).abs().amax(0)


def _independent(seen: Tensor, heard: Tensor) -> Tensor:
    """How many independent intervals each pair has, 1 to T, [shape=(N, A)]."""
    n = len(seen)
    alike = 1 + 2 * _autocorrelation(seen).T @ _autocorrelation(heard)
    return (n / alike.clamp(min=1)).clamp(min=1)


def _autocorrelation(series: Tensor) -> Tensor:
    """Of unit series [shape=(T, N)] with themselves later, by 1 to a third of their length."""
    n = len(series)
    power = torch.fft.rfft(series, n=2 * n, dim=0).abs().square()
    later: Tensor = torch.fft.irfft(power, n=2 * n, dim=0)
    return later[1 : max(2, n // 3)] / n
