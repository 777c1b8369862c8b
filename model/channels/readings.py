"""How likely each reading of a track's channels is: which is the omni, in what order and weights.

What sound alone can tell, and by what:

- Which channel is W. For a sum of plane waves (X² + Y² + Z²) / W² is 1 in SN3D, 2 in FuMa, 3 in
  N3D, in every cell, for diffuse sound in the mean; a directional channel in W's place gives
  ratios that are larger and spread widely.
- Which weights, by the same ratio, over bands. Its scatter over bands, and between single waves
  and the whole sound, says how far this recording can be trusted; a microphone whose W and
  velocity channels do not match cannot tell its weights.
- Which axis is vertical. To first order a wrong order is a proper rotation, so every physical test
  is blind to it; that sources lie near the horizon is a prior on scenes, not physics. Its strength
  (`_VERTICAL_EXPONENT`) is fitted on synthetic scenes (training.fit_conventions).
- Order, weights, polarity above first order: a single wave's higher channels must be the spherical
  harmonics of the direction that its first order gives.

What it cannot: a mirrored, turned or upside-down first-order field is a valid field of another
scene. Those take the picture (`model.handedness`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from model.ambisonics import (
    FUMA_CHANNEL,
    MAX_FUMA_ORDER,
    Convention,
    gains_to_sn3d,
    n_components,
    plane_wave_gains,
)
from model.channels.measures import N_BANDS, ChannelStatistics

FloatArray = NDArray[np.float64]

_LEAST_WAVES, _LEAST_WAVE_SHARE = 20, 0.1  # fewer are chance alignments of diffuse sound
# Of the log ratio, between W and the velocity channels: 0.2 dB, 0.9 dB.
_SOFTWARE_ERROR, _MICROPHONE_ERROR = 0.04, 0.2
_RATIO_TAIL = 6.0  # degrees of freedom of Student's t
_PLANAR_FACTOR, _PLANAR_ERROR = 1.1, 0.1  # without Z diffuse sound has 2/3 of it, a plane wave all
_VERTICAL_EXPONENT = 2.7
LEAST_SHARE = 3e-3  # a vertical channel that is not there says nothing of one that is
_OMNI_PRIOR = 0.97
_OMNI_SAMPLES, _OMNI_SCATTER, _OMNI_ERROR = 12.0, 0.15, 0.25
_HIGHER_SAMPLES, _HIGHER_ERROR = 12.0, 0.01
_EPS = 1e-30


class Reading(StrEnum):
    """Order and weights of a B-format track."""

    AMBIX = "ambix"
    N3D = "n3d"
    FUMA = "fuma"
    WXYZ = "wxyz"  # FuMa's order, AmbiX's weights
    W_LOW = "w_low"  # AmbiX's order, FuMa's W (-3 dB)
    WZYX = "wzyx"  # the vertical channel second; which of the others is X cannot be told


@dataclass(frozen=True)
class _Known:
    """What a reading says: file channel of W, Y, Z, X; energy ratio; how common it is."""

    convention: Convention
    channels: tuple[int, int, int, int]
    ratio: float
    prior: float


_ACN, _WXYZ = (0, 1, 2, 3), (0, 2, 3, 1)
KNOWN: Mapping[Reading, _Known] = {
    Reading.AMBIX: _Known(Convention.AMBIX, _ACN, 1.0, 0.84),
    Reading.N3D: _Known(Convention.N3D, _ACN, 3.0, 0.03),
    Reading.FUMA: _Known(Convention.FUMA, _WXYZ, 2.0, 0.09),
    Reading.WXYZ: _Known(Convention.AMBIX, _WXYZ, 1.0, 0.02),
    Reading.W_LOW: _Known(Convention.AMBIX, _ACN, 2.0, 0.015),
    Reading.WZYX: _Known(Convention.AMBIX, (0, 2, 1, 3), 1.0, 0.005),
}
_DECLARED_PRIOR = 0.98  # of the convention that a file declares


def ratio_readings(stats: ChannelStatistics, omni: int = 0) -> FloatArray:
    """Logarithms of (X² + Y² + Z²) / W² of the first four channels, by band and twice over.

    Once from all the sound of a band, once from its single plane waves (which leave out noise that
    the channels do not share) where there are enough of them.
    """
    planar = np.count_nonzero(stats.alive[:4]) < 4
    ratios = []
    for band in range(N_BANDS):
        power = np.diag(stats.covariance[band])[:4]
        if power[omni] > 0:
            ratios.append((power.sum() / power[omni] - 1) * (_PLANAR_FACTOR if planar else 1.0))
        waves = stats.waves[stats.wave_bands == band, :4] ** 2
        n_cells = np.count_nonzero(stats.energy_bands == band)
        if len(waves) >= max(_LEAST_WAVES, _LEAST_WAVE_SHARE * n_cells) and waves[:, omni].any():
            ratios.append(waves.sum() / waves[:, omni].sum() - 1)
    return np.asarray(np.log(np.clip(ratios, 1e-9, 1e9)))


def ratio_estimate(stats: ChannelStatistics, omni: int = 0) -> tuple[float, float]:
    """Median and scatter of the logarithm of the energy ratio; robust against single bad bands.

    The scatter over bands is not divided by their number: what makes a microphone's bands differ
    shifts them together as well.
    """
    readings = ratio_readings(stats, omni)
    if len(readings) == 0:
        return 0.0, math.inf
    middle = float(np.median(readings))
    scatter = 1.4826 * float(np.median(np.abs(readings - middle)))  # deviation of a Gaussian
    planar = _PLANAR_ERROR if np.count_nonzero(stats.alive[:4]) < 4 else 0.0
    return middle, math.hypot(scatter, planar)


def _log_likelihood(deviation: float, scatter: float) -> float:
    """Of a log ratio that is `deviation` off, up to a constant.

    The field was encoded by software, which keeps the ratio exactly, or by a microphone.
    """
    if not math.isfinite(scatter):
        return 0.0
    errors = (math.hypot(error, scatter) for error in (_SOFTWARE_ERROR, _MICROPHONE_ERROR))
    return float(logsumexp([_log_student(deviation, error) for error in errors]) - math.log(2))


def _log_student(deviation: float, scale: float) -> float:
    """Log-density of Student's t, up to a constant."""
    tail = _RATIO_TAIL
    return -(tail + 1) / 2 * math.log1p((deviation / scale) ** 2 / tail) - math.log(scale)


def vertical_log_probability(stats: ChannelStatistics) -> FloatArray:
    """Log-probability that each of channels 1, 2, 3 is the vertical one, [shape=(3,)].

    A conditional logit of the logarithm of each channel's share of the velocity's power.
    """
    power = np.diagonal(stats.whitened_covariance.sum(0))[1:4]
    share = np.clip(power / (power.sum() + _EPS), LEAST_SHARE, None)
    utility = -_VERTICAL_EXPONENT * np.log(share)
    return np.asarray(utility - logsumexp(utility))


def omni_probabilities(stats: ChannelStatistics) -> FloatArray:
    """Probability that each of the first four channels is W, [shape=(4,)].

    By how little the ratio of the others to it scatters over cells, and whether its median is one
    that some weights give.
    """
    logs = np.full(4, -np.inf)
    for channel in np.flatnonzero(stats.alive[:4]):
        scatter = _scatter_within_bands(stats, int(channel))
        middle, between = ratio_estimate(stats, int(channel))
        levels = [
            math.log(known.prior)
            + _log_student(middle - math.log(known.ratio), math.hypot(_OMNI_ERROR, between))
            for known in KNOWN.values()
        ]
        prior = _OMNI_PRIOR if channel == 0 else (1 - _OMNI_PRIOR) / 3
        logs[channel] = math.log(prior) + logsumexp(levels) - _OMNI_SAMPLES * math.log(scatter)
    if not np.isfinite(logs).any():
        return np.array([1.0, 0.0, 0.0, 0.0])
    return np.asarray(np.exp(logs - logsumexp(logs)))


def _scatter_within_bands(stats: ChannelStatistics, omni: int) -> float:
    """Spread of the log energy ratio over cells of one band, the mean of all bands.

    What differs between bands is a microphone's frequency response and has no direction.
    """
    spreads = []
    for band in np.unique(stats.energy_bands):
        energies = stats.energies[stats.energy_bands == band, :4]
        own = energies[:, omni]
        ratios = np.log((energies.sum(1) - own + _EPS) / (own + _EPS))
        low, high = np.quantile(ratios, [0.16, 0.84])  # two deviations of a Gaussian
        spreads.append((high - low) / 2)
    return math.hypot(float(np.mean(spreads)) if spreads else 1.0, _OMNI_SCATTER)


def reading_probabilities(
    stats: ChannelStatistics, *, n_components_: int = 4, declared: Convention | None = None
) -> dict[Reading, float]:
    """Posterior over readings of a track whose first channel is W.

    n_components_ : channels that hold components, (N + 1)².
    declared : what the file says of itself.
    """
    mean, scatter = ratio_estimate(stats)
    order = math.isqrt(min(n_components_, len(stats.rms))) - 1
    vertical = vertical_log_probability(stats)
    logs = {}
    ends = n_components_ > n_components(MAX_FUMA_ORDER)  # FuMa has no such order
    for reading, known in KNOWN.items():
        # A silent second channel is a dead Y before it is the Z of so rare an order.
        unlikely = reading is Reading.WZYX and (n_components_ > 4 or not stats.alive[1])
        if unlikely or (ends and known.channels == _WXYZ):
            logs[reading] = -math.inf
            continue
        log = math.log(_prior(reading, declared)) + vertical[known.channels[2] - 1]
        log += _log_likelihood(mean - math.log(known.ratio), scatter)
        if order >= 2:
            log += _degrees_log_likelihood(stats, known, order)
        higher = higher_order_error(stats, reading, n_components_)
        if higher is not None:
            log -= _HIGHER_SAMPLES * math.log(higher + _HIGHER_ERROR)
        logs[reading] = log
    total = logsumexp(list(logs.values()))
    return {reading: math.exp(log - total) for reading, log in logs.items()}


def _prior(reading: Reading, declared: Convention | None) -> float:
    if declared is None:
        return KNOWN[reading].prior
    if reading == declared.value:
        return _DECLARED_PRIOR
    others = sum(known.prior for other, known in KNOWN.items() if other != declared.value)
    return (1 - _DECLARED_PRIOR) * KNOWN[reading].prior / others


# --- above first order ---------------------------------------------------------------------------


def _file_channels(known: _Known, order: int) -> list[int]:
    """File channel of each ACN component."""
    count = n_components(order)
    return list(FUMA_CHANNEL[:count] if known.channels == _WXYZ else range(count))


def _degrees_log_likelihood(stats: ChannelStatistics, known: _Known, order: int) -> float:
    """How well the energies of the degrees fit: in SN3D all are alike for any sum of plane waves.

    The sum over m of Y_lm² is 1 in every direction (addition theorem), whatever the scene.
    """
    channels = _file_channels(known, order)
    gains = gains_to_sn3d(order, known.convention)
    power = np.diagonal(stats.covariance, axis1=1, axis2=2)[:, channels] * gains**2
    power = power[power.sum(1) > 0]
    log = 0.0
    for degree in range(2, order + 1):
        of_degree = power[:, degree**2 : (degree + 1) ** 2].sum(1)
        readings = np.log((of_degree + _EPS) / (power[:, 1:4].sum(1) + _EPS))
        log += _log_likelihood(float(np.median(readings)), float(np.std(readings)))
    return log


def higher_waves(
    stats: ChannelStatistics, reading: Reading, n_components_: int
) -> tuple[FloatArray, FloatArray] | None:
    """Gains above first order as measured and as the first order predicts them.

    Both in ACN/SN3D, relative to the first order's magnitude, [shape=(K, C - 4)]; None where the
    track has no higher channels or too few single waves.
    """
    order = math.isqrt(min(n_components_, len(stats.rms))) - 1
    known = KNOWN[reading]
    if order < 2 or (known.channels == _WXYZ and order > MAX_FUMA_ORDER):
        return None
    gains: FloatArray = stats.waves[:, _file_channels(known, order)] * gains_to_sn3d(
        order, known.convention
    )
    y, z, x = gains[:, 1:4].T
    strength = np.sqrt(x**2 + y**2 + z**2)
    # A wave's sign is free; W, which is positive, fixes it.
    strength = np.where(gains[:, 0] < 0, -strength, strength)
    directed = np.abs(strength) > 0.1
    y, z, x, strength, gains = (value[directed] for value in (y, z, x, strength, gains))
    if len(gains) < _LEAST_WAVES:
        return None
    y, z, x = y / strength, z / strength, x / strength
    predicted = plane_wave_gains(np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1)), order)
    return np.asarray(gains[:, 4:] / strength[:, None]), np.asarray(predicted[4:].T, np.float64)


def higher_order_error(
    stats: ChannelStatistics, reading: Reading, n_components_: int
) -> float | None:
    """Error of the predicted gains above first order, 0 (all right) to 2, as a share of both."""
    waves = higher_waves(stats, reading, n_components_)
    if waves is None:
        return None
    measured, predicted = waves
    total = np.sum(measured**2) + np.sum(predicted**2)
    return float(np.sum((measured - predicted) ** 2) / total)


def without_sign(stats: ChannelStatistics, channel: int) -> ChannelStatistics:
    """The same waves with the polarity of one channel turned."""
    waves = stats.waves.copy()
    waves[:, channel] *= -1
    return replace(stats, waves=waves)


# --- no B-format at all --------------------------------------------------------------------------

# Intercept for even odds, and weights of `capsule_features` (training.fit_conventions).
_CAPSULE_LOGIT = (-2.5, 5.1, 6.0, 2.1)
_CAPSULE_PRIOR_LOGIT = -2.2
_ALIKE_DB, _UNLIKE_PER_DB = 12.0, 0.5  # capsules and speakers are about as loud
_CLOSED, _CLOSED_LOGIT = 1e-3, 8.0


def capsule_probability(stats: ChannelStatistics) -> tuple[float, bool]:
    """Probability that the first four channels are capsules (A-format) or speaker feeds.

    Their directivities are positive nearly everywhere, so they hear every source with one sign and
    are positively correlated; B-format's velocity channels change sign across the scene.

    The second value is whether the channels close, that is, whether two add up to the other two:
    exactly so in speaker feeds decoded from a first-order field, and in capsules without height.
    """
    features = capsule_features(stats)
    if features is None:
        return 0.0, False
    intercept, *weights = _CAPSULE_LOGIT
    logit = intercept + _CAPSULE_PRIOR_LOGIT + float(np.dot(weights, features))
    unlike_db = float(np.ptp(stats.levels_db[:4])) - _ALIKE_DB
    logit -= _UNLIKE_PER_DB * max(0.0, unlike_db)
    closed = _closes(stats)
    logit += _CLOSED_LOGIT if closed else 0.0
    return 1 / (1 + math.exp(-logit)), closed


def capsule_features(stats: ChannelStatistics) -> tuple[float, float, float] | None:
    """What tells capsules from B-format; None where too little sounds.

    The least correlation of two channels, the share of single waves that all channels hear with one
    sign, and the log scatter of the energy ratio to the first channel.
    """
    if not stats.alive[:4].all() or len(stats.waves) < _LEAST_WAVES or stats.one_wave:
        return None
    waves = stats.waves[:, :4]
    one_sign = float(np.mean(waves.min(axis=1) * waves.max(axis=1) >= 0))
    scatter = math.log(_scatter_within_bands(stats, 0))
    return float(stats.correlation[:4, :4].min()), one_sign, scatter


def _closes(stats: ChannelStatistics) -> bool:
    """Whether two of the first four channels add up to the other two."""
    covariance = stats.covariance.sum(0)[:4, :4]
    signs = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
    powers = np.einsum("pc,cd,pd->p", signs, covariance, signs)
    return bool(powers.min() < _CLOSED * np.trace(covariance))
