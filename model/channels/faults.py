"""Single findings about a track's channels, each with a probability, a sentence and a fix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import ndtr

from model.ambisonics import Convention
from model.channels.measures import ChannelStatistics
from model.channels.readings import (
    KNOWN,
    Reading,
    higher_order_error,
    higher_waves,
    ratio_estimate,
    without_sign,
)

FloatArray = NDArray[np.float64]

_OFFSET_SHARE = 0.1  # of a channel's effective value: -20 dB
_LEAST_OFFSET = 1e-4  # -80 dB full scale
_COPY, _NEAR_COPY = 1e-6, 1e-3  # departure of a correlation from 1
_RATIO_MISFIT = 0.35  # of log ratio: further from 1, 2 and 3 than a dry source can be
_LEAST_LEAK = 0.15  # of W in Z, as an amplitude: an elevation of 9 degrees
_GAIN_ERROR_DB = 3.0
_LEAST_LEADING = 0.05
_WAVES_PER_SAMPLE = 20  # neighbouring cells repeat one another
_FLIPPED, _OWN = -0.7, 0.4


@dataclass(frozen=True)
class Finding:
    """Something found about a track.

    Attributes
    ----------
    code : stable; tools may branch on it.
    probability : that it is so.
    sentence : one, for a sound person.
    fix : an option or a thing to do; None where nothing helps or nothing needs to.
    problem : something is wrong; otherwise a fact worth knowing.
    spoils_reading : order and weights cannot be told while it is so.
    """

    code: str
    probability: float
    sentence: str
    fix: str | None = None
    problem: bool = True
    spoils_reading: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class Silent:
    """What silent channels mean."""

    stats: ChannelStatistics
    channels: tuple[int, ...]
    findings: list[Finding]
    fatal: bool

    def of_reading(self, channels: Sequence[int]) -> list[Finding]:
        """What a silent channel among the first four is, if W, Y, Z, X are these channels."""
        first = [channel for channel in self.channels if channel < 4]
        if not first or len(first) > 1:
            return []  # one dry source in front
        number = ordinal(self.stats.numbers[first[0]])
        if first == [channels[2]]:
            return [
                Finding(
                    "planar", 1.0,
                    f"The {number} channel (Z) is silent: the recording is planar, which gives a "
                    "yaw but neither elevation nor tilt.", problem=False,
                )
            ]  # fmt: skip
        name = "WYZX"[list(channels).index(first[0])]
        return [
            Finding("dead_channel", 0.99,
                    f"The {number} channel ({name}) is silent: directions are wrong.",
                    "check the recorder's channels and the export")
        ]  # fmt: skip


def not_ambisonic(n_channels: int) -> Finding:
    """The channel count is none that a full-sphere field has."""
    kind = {1: "mono", 2: "stereo"}.get(n_channels, f"{n_channels} channels")
    return Finding(
        "not_ambisonic", 1.0,
        f"The track is {kind}, which is no ambisonic set of 4, 9, 16, ... channels.",
        "name the ambisonic track", spoils_reading=True,
    )  # fmt: skip


def silent() -> Finding:
    """Nothing to judge by."""
    return Finding("silent", 0.9, "Nothing sounds in the stretches that were listened to.",
                   "use a take with sound", spoils_reading=True)  # fmt: skip


def too_short(duration_s: float) -> Finding:
    """Nothing to judge by, either."""
    return Finding(
        "too_short", 0.99, f"With {duration_s:.2g} s the track is too short to tell anything of "
        "its channels.", "use a take of some seconds", spoils_reading=True,
    )  # fmt: skip


def offsets(stats: ChannelStatistics) -> list[Finding]:
    """A constant offset (DC)."""
    offset = np.abs(stats.mean)
    bad = (offset > _LEAST_OFFSET) & (offset > _OFFSET_SHARE * stats.rms)
    if not bad.any():
        return []
    return [
        Finding(
            "dc_offset", 0.99,
            f"{_channels(stats, np.flatnonzero(bad))} has a constant offset, up to "
            f"{20 * math.log10(offset.max()):.0f} dB full scale.", "high-pass the track at 20 Hz",
        )
    ]  # fmt: skip


def head_locked(stats: ChannelStatistics, n_components: int) -> list[Finding]:
    """Two channels after the components."""
    if len(stats.rms) <= n_components:
        return []
    sounding = "silent" if not stats.alive[n_components:].any() else "passed through unrotated"
    first, second = map(ordinal, stats.numbers[n_components : n_components + 2])
    return [
        Finding(
            "head_locked", 0.99,
            f"The {first} and {second} channels are a head-locked pair, {sounding}.", problem=False,
        )
    ]  # fmt: skip


def dead_channels(stats: ChannelStatistics, n_components: int) -> Silent:
    """Silent channels, and those sets of them that leave no field at all."""
    living = stats.alive[:n_components]
    dead = tuple(int(channel) for channel in np.flatnonzero(~living))
    if living.any() and not living[1:].any():
        return Silent(stats, dead, [
            Finding("no_direction", 0.99, "Only the 1st channel sounds: a mono recording, in "
                    "which there is no direction.", "use the track with all channels",
                    spoils_reading=True)
        ], fatal=True)  # fmt: skip
    if n_components == 4 and dead == (2, 3):
        return Silent(stats, dead, [
            Finding("stereo", 0.95, "Only the 1st and 2nd channels sound: a stereo pair, or a "
                    "field that has lost its other channels.", "use the track with all channels",
                    spoils_reading=True)
        ], fatal=True)  # fmt: skip
    first = [channel for channel in dead if channel < 4]
    # A dry source in front has no Y and no Z, in truth.
    if 0 in dead or (len(first) > 1 and not (stats.one_wave and _ratio_fits(stats))):
        return Silent(stats, dead, [
            Finding("dead_channel", 0.99,
                    f"{_channels(stats, first)} is silent: directions cannot be told.",
                    "check the recorder's channels and the export", spoils_reading=True)
        ], fatal=True)  # fmt: skip
    return Silent(stats, dead, [], fatal=False)


def _ratio_fits(stats: ChannelStatistics) -> bool:
    """Whether the energy ratio is that of some weights: 1, 2 or 3."""
    mean = ratio_estimate(stats)[0]
    return min(abs(mean - math.log(ratio)) for ratio in (1, 2, 3)) < _RATIO_MISFIT


def one_signal(stats: ChannelStatistics) -> list[Finding]:
    """One signal in all channels, at levels that no direction gives."""
    if not stats.one_wave or _ratio_fits(stats):
        return []
    return [
        Finding(
            "one_signal", 0.97,
            "All channels carry one signal, at levels that a source has in no direction: a test "
            "signal, or one microphone copied, not a sound field.",
            "use the track with all channels", spoils_reading=True,
        )
    ]  # fmt: skip


def capsules(probability: float, *, closed: bool) -> list[Finding]:
    """A-format, or feeds of speakers."""
    if closed:
        kind = "speaker feeds (quad), or a microphone's capsules without height"
    else:
        kind = "the capsules of a microphone (A-format) or speaker feeds"
    return [
        Finding(
            "capsules", probability,
            f"All channels hear every source with the same sign: these are {kind}, not B-format.",
            "convert to AmbiX with the microphone maker's A-to-B tool, or use the B-format file",
            spoils_reading=probability > 0.5,
        )
    ]  # fmt: skip


def omni_elsewhere(stats: ChannelStatistics, probabilities: FloatArray) -> list[Finding]:
    """W in the place of another channel."""
    channel = 1 + int(probabilities[1:].argmax())
    probability = float(probabilities[channel])
    order = [channel if place == 0 else 0 if place == channel else place for place in range(4)]
    return [
        Finding(
            "w_elsewhere", probability,
            f"The {ordinal(stats.numbers[channel])} channel, not the "
            f"{ordinal(stats.numbers[0])}, is the omnidirectional one (W).",
            f"--channels {','.join(str(stats.numbers[place] - 1) for place in order)}",
            spoils_reading=probability > 0.5,
        )
    ]  # fmt: skip


def copies(stats: ChannelStatistics, n_components: int) -> list[Finding]:
    """Channels that are one another's copy, as they are or with their polarity turned."""
    living = np.flatnonzero(stats.alive[:n_components])
    found = []
    for index, a in enumerate(living.tolist()):
        for b in living.tolist()[index + 1 :]:
            departure = 1 - abs(stats.correlation[a, b])
            level_db = abs(stats.levels_db[a] - stats.levels_db[b])
            if departure < _NEAR_COPY and level_db < 0.1:
                exact = departure < _COPY and level_db < 0.01
                found.append((a, b, 0.97 if exact else 0.7))
    # A dry source in front gives X = W; three equal channels are no direction that occurs.
    if not found or (stats.one_wave and len(found) < 3):
        return []
    a, b, probability = found[0]
    turned = " with its polarity turned" if stats.correlation[a, b] < 0 else ""
    return [
        Finding("duplicate_channel", probability,
                f"The {ordinal(stats.numbers[b])} channel is a copy of the "
                f"{ordinal(stats.numbers[a])}{turned}.",
                "check the routing and export again", spoils_reading=True)
    ]  # fmt: skip


def elevations(stats: ChannelStatistics, *, vertical: int) -> list[Finding]:
    """All sound at one elevation though it comes from many sides: W leaks into Z, as a rule."""
    total = stats.whitened_covariance.sum(0)
    horizontal = [channel for channel in (1, 2, 3) if channel != vertical]
    if total[vertical, vertical] <= 0 or not stats.alive[vertical]:
        return []
    slope = total[0, vertical] / total[0, 0]
    unexplained = 1 - stats.correlation[0, vertical] ** 2
    around = 1 - np.sum(total[0, horizontal] ** 2) / total[0, 0] / max(
        total[horizontal, horizontal].sum(), 1e-30
    )
    if abs(slope) < _LEAST_LEAK or around <= 0:
        return []
    logit = 3.0 * (math.log(around / max(unexplained, 1e-6)) - 2.0)
    probability = 1 / (1 + math.exp(-max(-20.0, min(20.0, logit))))
    degrees = math.degrees(math.asin(max(-1.0, min(1.0, slope))))
    return [
        Finding(
            "w_z_correlated", probability,
            f"W and Z are one signal ({stats.correlation[0, vertical]:+.2f}) though the sound "
            f"comes from many sides: everything would be {degrees:+.0f}° high; W has leaked into "
            "Z, or a capsule is faulty, so elevations cannot be trusted.",
            "none needed for a yaw; for elevations, convert the raw capsules again",
        )
    ]  # fmt: skip


def gain_errors(stats: ChannelStatistics) -> list[Finding]:
    """One velocity channel louder or softer than the others.

    Single plane waves lie on an ellipsoid, W² = a Y² + b Z² + c X², fitted by least squares; in
    all conventions a = b = c. It takes waves from enough directions.
    """
    waves = stats.waves[stats.waves[:, 0] ** 2 > 0.05]
    if not stats.alive[:4].all() or len(waves) < 10 * _WAVES_PER_SAMPLE:
        return []
    rows = waves[:, 1:4] ** 2 / waves[:, :1] ** 2
    # Each channel has to lead in some waves, or its weight rests on noise.
    if np.min(np.mean(rows > 0.5 * rows.sum(axis=1, keepdims=True), axis=0)) < _LEAST_LEADING:
        return []
    normal = rows.T @ rows / len(rows)
    if np.linalg.cond(normal) > 100:
        return []
    weights = np.linalg.solve(normal, rows.mean(axis=0))
    if weights.min() <= 0:
        return []
    residual = np.std(1 - rows @ weights)
    variance = np.diag(np.linalg.inv(normal)) * _WAVES_PER_SAMPLE / len(rows)
    level_db = -10 * np.log10(weights)
    error_db = 10 / math.log(10) * residual * np.sqrt(variance) / weights
    middle = np.median(level_db)
    worst = int(np.argmax(np.abs(level_db - middle)))
    excess_db = float(level_db[worst] - middle)
    # Of a recording whose energies fit no ratio well, gains are not to be told either.
    scatter_db = 10 / math.log(10) * ratio_estimate(stats)[1]
    scale = math.hypot(float(np.max(error_db)), scatter_db, 0.5)
    return [
        Finding(
            "gain_error", float(ndtr((abs(excess_db) - _GAIN_ERROR_DB) / scale)),
            f"The {ordinal(stats.numbers[1 + worst])} channel is {abs(excess_db):.1f} dB too "
            f"{'loud' if excess_db > 0 else 'soft'} against the other directional channels.",
            f"change its gain by {-excess_db:+.1f} dB",
        )
    ]  # fmt: skip


def other_reading(
    readings: Mapping[Reading, float], declared: Convention | None, n_components: int
) -> list[Finding]:
    """Order or weights other than those that are assumed (declared, or else AmbiX)."""
    assumed = (declared or Convention.AMBIX).value
    reads = "declares" if declared else "is taken for"
    fuma = "--convention fuma"
    told = {
        Reading.AMBIX: ("ACN order and SN3D weights (AmbiX)", "--convention ambix"),
        Reading.N3D: ("ACN order and N3D weights", "--convention n3d"),
        Reading.FUMA: ("FuMa order (W X Y Z) and weights", fuma),
        Reading.WXYZ: (
            "the order W X Y Z with AmbiX's weights",
            "--channels 0,2,3,1" if n_components == 4 else fuma,
        ),
        Reading.W_LOW: ("ACN order with W 3 dB low", "raise W by 3 dB"),
        Reading.WZYX: (
            "an order with Z second; W Z Y X if it is not W Z X Y",
            "--channels 0,2,1,3 (or 0,3,1,2)",
        ),
    }
    probabilities = dict(readings)
    if assumed != Reading.FUMA.value:
        # That the order is W X Y Z is surer than which weights go with it.
        first, second = sorted((Reading.FUMA, Reading.WXYZ), key=lambda r: -readings[r])
        probabilities[first] += probabilities.pop(second)
    return [
        Finding(reading.value, probability,
                f"The track {reads} {assumed} but sounds like {told[reading][0]}.",
                told[reading][1])
        for reading, probability in probabilities.items() if reading.value != assumed
    ]  # fmt: skip


def higher_channels(stats: ChannelStatistics, reading: Reading, n_components: int) -> list[Finding]:
    """Channels above first order, and signs of the first, that contradict the rest."""
    waves = higher_waves(stats, reading, n_components)
    if waves is None:
        return []
    error = higher_order_error(stats, reading, n_components) or 0.0
    for channel in range(4):
        other = higher_order_error(without_sign(stats, channel), reading, n_components)
        if other is not None and other < 0.3 * error:
            return [_flipped(channel, 1 - other / error)]
    measured, predicted = waves
    scale = np.sqrt(np.outer((measured**2).sum(0), (predicted**2).sum(0))) + 1e-30
    match = measured.T @ predicted / scale
    rows, columns = linear_sum_assignment(-np.abs(match))
    findings = []
    order = KNOWN[reading].convention
    for row, column in zip(rows, columns, strict=True):
        if row == column and match[row, row] < _FLIPPED:
            findings.append(_flipped(int(row) + 4, abs(float(match[row, row]))))
        if row < column and columns[column] == row and abs(match[row, row]) < _OWN:
            found = min(abs(float(match[row, column])), abs(float(match[column, row])))
            if found > -_FLIPPED:
                findings.append(Finding(
                    "swapped_channels", found, f"The components ACN {row + 4} and {column + 4} "
                    "have changed places.", f"--channels with these two swapped ({order.value})",
                ))  # fmt: skip
    return findings


def _flipped(component: int, probability: float) -> Finding:
    return Finding(
        "flipped_channel", probability,
        f"The component ACN {component} has its polarity turned against the others.",
        "turn its polarity",
    )  # fmt: skip


def _channels(stats: ChannelStatistics, channels: Sequence[int] | NDArray[np.intp]) -> str:
    """For a sentence with a singular verb: The 3rd channel, Each of the 2nd and 3rd channels."""
    numbers = [ordinal(stats.numbers[int(channel)]) for channel in channels]
    if len(numbers) == 1:
        return f"The {numbers[0]} channel"
    return f"Each of the {', '.join(numbers[:-1])} and {numbers[-1]} channels"


def ordinal(number: int) -> str:
    """1st, 2nd, ...: of channels, which editors count from 1 and `--channels` from 0."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if 10 < number % 100 < 14 else ending}"
