"""Evidence without training: how each place looks, against how loud it is there.

Change tells that something moves; how it looks tells how far it has moved. What swells, bobs,
brightens or opens with a slow sound changes by little from one frame to the next, and by much in
all. So at each azimuth the brightness of the picture's cells, from top to bottom, is reduced to the
one curve over time that most of them follow, up or down (their first principal component), and that
curve is correlated with what is heard at each azimuth. Two curves of T intervals that vary slowly
have n < T independent ones (Bartlett, Journal of the Royal Statistical Society, 1946), and a
correlation r of theirs is -n/2 log(1 - r²) - 1/2 log n in favour of their having to do with each
other (Schwarz, Annals of Statistics, 1978). One azimuth is where the source is seen, so the
likelihoods are summed over azimuths, by how much happens at each and how loud it is there.

Maps are [shape=(T, A)] over azimuth bins in picture order; cues are [shape=(R,)] over `yaws_deg`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from model.evidence import LAGS, by_yaw
from model.features import MAPS

LOOK_CUES = ("look doa", "look mvdr")

# Chosen on synthetic windows, by the likelihood of the right rotation beside all other cues.
_INDEPENDENT = 0.5  # of the intervals that Bartlett's formula counts
_LIVELY = 100.0  # variance, in that of the picture's noise, that counts half
_LOUDNESS = 1.5  # exponent of an azimuth's share of the sound
_COMPRESSION = 0.4
_LEAST_NOISE = 2e-3  # standard deviations of brightness: about what maps are kept to
_MOST = 0.95  # of a correlation: beyond it, how loud it is there tells more
_EPS = 1e-9


def look_evidence(sound: Mapping[str, Tensor], maps: Tensor) -> Tensor:
    """The cues `LOOK_CUES` of a window, [shape=(2, R)], in nats.

    sound : `evidence.acoustic_maps`, [shape=(T, A)] each.
    maps : of the picture, [shape=(T, len(MAPS), E, A)], of the same T intervals, on one device.
    """
    seen, variance = looks(maps)
    lively = (variance / (variance + _LIVELY) + _EPS).log()
    return torch.stack([_cue(seen, lively, sound[name]) for name in ("doa", "mvdr")])


def looks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """How each azimuth looks over time, of either sign and unit size, [shape=(T, A)], and its
    variance in units of the picture's noise, [shape=(A,)].
    """
    look = maps[:, MAPS.index("brightness")].double()
    look = look - look.mean(0)
    jitter = (look.diff(dim=0).square().mean(0) / 2).sqrt()
    cells = (look / (jitter.median() + _LEAST_NOISE)).permute(2, 0, 1)  # (A, T, E)
    variances, directions = torch.linalg.eigh(cells.mT @ cells / len(look))
    course = (cells @ directions[..., -1:])[..., 0].T
    return _unit(course), variances[:, -1].clamp(min=0)


def _cue(seen: Tensor, lively: Tensor, sound: Tensor) -> Tensor:
    heard = _unit(sound.double().clamp(min=0) ** _COMPRESSION)
    loudness = (sound.mean(0) / (sound.mean() + _EPS**2) + 1e-3).log()
    correlation = _correlation(seen, heard).clamp(max=_MOST)
    n = _INDEPENDENT * _independent(seen, heard)
    likelihood = -0.5 * n * (1 - correlation.square()).log() - 0.5 * n.log()
    return by_yaw(likelihood + lively[:, None] + _LOUDNESS * loudness, torch.logsumexp)


def _unit(series: Tensor) -> Tensor:
    """Centred and of unit size in time, [shape=(T, A)]; 0 where nothing varies."""
    series = series - series.mean(0)
    return series / (series.square().mean(0).sqrt() + _EPS)


def _correlation(seen: Tensor, heard: Tensor) -> Tensor:
    """Of each azimuth seen with each heard, of either sign, at the best lag, [shape=(A, A)]."""
    n = len(seen)
    by_lag = [
        seen[max(lag, 0) : n - max(-lag, 0)].T @ heard[max(-lag, 0) : n - max(lag, 0)]
        for lag in LAGS
        if abs(lag) < n
    ]
    return (torch.stack(by_lag) / n).abs().amax(0)


def _independent(seen: Tensor, heard: Tensor) -> Tensor:
    """How many independent intervals each pair of azimuths has, 1 to T, [shape=(A, A)]."""
    n = len(seen)
    alike = 1 + 2 * _autocorrelation(seen).T @ _autocorrelation(heard)
    return (n / alike.clamp(min=1)).clamp(min=1)


def _autocorrelation(series: Tensor) -> Tensor:
    """Of unit series [shape=(T, A)] with themselves later, by 1 to a third of their length."""
    n = len(series)
    power = torch.fft.rfft(series, n=2 * n, dim=0).abs().square()
    later: Tensor = torch.fft.irfft(power, n=2 * n, dim=0)
    return later[1 : max(2, n // 3)] / n
