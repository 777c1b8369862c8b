"""The rotation between two recordings from moments of their directions, in closed form.

Moments are M = sum w v_ref v_track^T, of intensities (`intensity`) and of waveforms at low
frequencies (`coherence`), which tell more where sound comes from everywhere. Both are of the same
form, and are added, each by its precision.

- Yaw: its tangent is sum (x_t y_r - y_t x_r) / sum (x_t x_r + y_t y_r) in the plane.
- Full rotation: Wahba's problem by singular values (Kabsch, Acta Cryst. A32, 922, 1976; Markley,
  J. Astronaut. Sci. 36, 245, 1988). A negative determinant of M means mirrored channels. A third
  singular value near zero means that all sound came from one plane, or that a recording has no
  vertical component: then neither tilt nor mirroring can be told.
- An upside-down microphone (a tilt surely over 90 degrees) is turned upright first: the yaw is what
  is left then.

Every window has its moments; an interval comes from drawing windows anew (bootstrap).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from model.arcs import wrapped_deg
from model.recordings.coherence import CrossSpectra
from model.recordings.intensity import Moments
from model.sync import Synchronisation
from model.wording import GAUSSIAN_REACH, INTERVAL_LEVEL, percent

FloatArray = NDArray[np.float64]

_N_BOOTSTRAP = 400
# What all windows share (echoes), so that their scatter does not show it: the deviation of the yaw
# of intensities and of waveforms, as multiples of what bands scatter by; of the former, besides.
_SHARED_BY_BANDS = (1.0, 2.0)
_SHARED_DEG = 0.2
_LEAST_HALF_DEG = 1.0  # of the interval
_DEAD = 1e-4  # power of Z against X and Y: below -40 dB there is no vertical component
_FLAT = 0.005  # third singular value against the first: below it the sound lies in a plane
_ONE_SIDED = 0.03  # second singular value in the plane against the first
_SURE = 0.95  # share of the bootstrap's draws that must agree on mirroring
# Of the intensities' correlation and the waveforms' coherence: below both, directions say nothing.
_LEAST_AGREEMENT, _LEAST_COHERENCE = 0.02, 0.05
_WIDEST_DEG = 30.0  # half an interval wider than this decides nothing
_TOLD_TILT_DEG = 5.0  # a smaller one does not matter
_AS_IT_IS, _FLIP_Y, _INVERTED = np.eye(3), np.diag([1.0, -1.0, 1.0]), np.diag([1.0, -1.0, -1.0])


class Outcome(StrEnum):
    """What a comparison says."""

    ROTATED = "rotated"
    MIRRORED = "mirrored"
    UNDECIDABLE = "undecidable"


@dataclass(frozen=True)
class WindowYaw:
    """One window's own rotation about the vertical; weights sum to 1."""

    start_s: float
    duration_s: float
    yaw_deg: float
    weight: float


@dataclass(frozen=True)
class Comparison:
    """The rotation to apply to a track so that it fits a reference.

    Attributes
    ----------
    rotate_field_ccw_deg : rotation about the vertical, in (-180, 180]; after `flip`, if there is
        one, and after half a turn about the front axis (`Fix.INVERT`), if `upside_down`.
    interval_deg : arc of probability `INTERVAL_LEVEL`, (low, high), low <= high, one
        of which may lie beyond half a turn.
    rotation : best rotation of (x, y, z) about any axis, [shape=(3, 3)]; None where the sound does
        not tell it (then a yaw is all there is).
    tilt_deg : angle by which that rotation leans the vertical; None likewise.
    tilt_interval_deg : (low, high) of probability `INTERVAL_LEVEL`; None likewise.
    flip : channel to negate first ("Y", "Z"), None if none or not known.
    mirrored : whether one recording is the mirror image of the other; None where it cannot be told.
    agreement : correlation of the intensities after the rotation, 0 to 1.
    coherence : of the waveforms at low frequencies, 0 to 1.
    singular_values : of the moments, as shares of the first.
    reasons : what could not be told, and why.
    """

    outcome: Outcome
    rotate_field_ccw_deg: float
    interval_deg: tuple[float, float]
    rotation: FloatArray | None
    tilt_deg: float | None
    tilt_interval_deg: tuple[float, float] | None
    flip: str | None
    mirrored: bool | None
    agreement: float
    coherence: float
    singular_values: tuple[float, float, float]
    reasons: tuple[str, ...]
    windows: tuple[WindowYaw, ...]
    synchronisation: Synchronisation | None

    @property
    def upside_down(self) -> bool:
        """Whether one of the microphones surely was."""
        return self.tilt_interval_deg is not None and self.tilt_interval_deg[0] > 90


def unsynchronised(aligned: Synchronisation) -> Comparison:
    """Nothing can be said of tracks that could not be laid on each other in time."""
    reason = f"The track could not be laid on the reference in time ({aligned.reason})"
    return Comparison(
        outcome=Outcome.UNDECIDABLE, rotate_field_ccw_deg=0.0, interval_deg=(-180.0, 180.0),
        rotation=None, tilt_deg=None, tilt_interval_deg=None, flip=None, mirrored=None,
        agreement=0.0, coherence=0.0, singular_values=(0.0, 0.0, 0.0),
        reasons=(reason,), windows=(), synchronisation=aligned,
    )  # fmt: skip


def yaw_of(cross: FloatArray) -> FloatArray:
    """Best rotation about the vertical, radians, of moments [shape=(..., 3, 3)]."""
    cosine = cross[..., 0, 0] + cross[..., 1, 1]
    sine = cross[..., 1, 0] - cross[..., 0, 1]
    return np.asarray(np.arctan2(sine, cosine))


def turn_of(cross: FloatArray) -> FloatArray:
    """Best rotation, mirrored or not, of moments [shape=(3, 3)]."""
    u, _, vt = np.linalg.svd(cross)
    return np.asarray(u @ vt)


def rotation_of(cross: FloatArray) -> FloatArray:
    """Best proper rotation of moments [shape=(..., 3, 3)] (Wahba, Kabsch)."""
    u, _, vt = np.linalg.svd(cross)
    u[..., :, 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    rotation: FloatArray = u @ vt
    return rotation


@dataclass(frozen=True)
class _Pooled:
    """Moments of intensities and waveforms, [shape=(N, 3, 3)], added by precision.

    shared_rad : deviation of the yaw that all windows share.
    """

    cross: FloatArray
    shared_rad: float
    coherence: float


def _pooled(known: Moments, spectra: CrossSpectra) -> _Pooled:
    """Of intensities alone where the waveforms have nothing in common."""
    cross, shared, coherence = known.by_window, 0.0, 0.0
    echoes = math.hypot(
        math.radians(_SHARED_DEG), _SHARED_BY_BANDS[0] * math.sqrt(_scatter(known.by_band))
    )
    for _ in range(2):  # the waveforms' phases are taken at the best turn so far
        waves = spectra.moments(turn_of(cross.sum(0)))
        coherence = waves.coherence
        if coherence < _LEAST_COHERENCE:
            return _Pooled(known.by_window, echoes, coherence)
        of_waves = _SHARED_BY_BANDS[1] * math.sqrt(_scatter(waves.by_band))
        parts = [(known.by_window, echoes), (waves.by_window, of_waves)]
        precisions = [1 / (_scatter(own) + deviation**2 + 1e-12) for own, deviation in parts]
        scaled = [
            precision * own / (_plane(own.sum(0)) or 1.0)
            for (own, _), precision in zip(parts, precisions, strict=True)
        ]
        cross = scaled[0] + scaled[1]
        shares = np.array(precisions) / sum(precisions)
        shared = math.hypot(*(shares * [deviation for _, deviation in parts]))
    return _Pooled(cross, shared, coherence)


def _plane(total: FloatArray) -> float:
    """How much moments say in the horizontal plane: its singular values' sum."""
    return float(np.linalg.svd(total[:2, :2], compute_uv=False).sum())


def _scatter(cross: FloatArray) -> float:
    """Variance of the yaw of moments [shape=(N, 3, 3)], mirrored or not, rad², by bootstrap."""
    if np.linalg.det(cross.sum(0)[:2, :2]) < 0:
        cross = cross @ _FLIP_Y
    yaw = yaw_of(cross.sum(0))
    return float(np.mean(np.angle(np.exp(1j * (yaw_of(_bootstrap(cross)) - yaw))) ** 2))


def solve(
    known: Moments,
    spectra: CrossSpectra,
    starts: FloatArray,
    length_s: float,
    aligned: Synchronisation | None = None,
) -> Comparison:
    """The rotation that windows' intensities and waveforms say, with an interval.

    starts : of the windows, s, [shape=(N,)]; length_s : of each.
    """
    pooled = _pooled(known, spectra)
    windows, total, draws = pooled.cross, pooled.cross.sum(0), _bootstrap(pooled.cross)
    values = np.linalg.svd(total, compute_uv=False)
    flat = known.vertical < _DEAD or values[2] < _FLAT * values[0]
    mirrored, flip = _handedness(total, draws, flat)
    reasons = _reasons(total, known.vertical, flat, mirrored, flip)
    rotation = None if flat or mirrored else rotation_of(total)
    tilt = None if rotation is None else _tilt(rotation, draws, pooled.shared_rad)
    upside_down = tilt is not None and tilt.low_deg > 90
    undone = _INVERTED if upside_down else _FLIP_Y if flip == "Y" else _AS_IT_IS
    windows, total, draws = (cross @ undone for cross in (windows, total, draws))
    yaw = float(yaw_of(total))
    half = _half_interval(draws, yaw, pooled.shared_rad)
    agreement = _agreement(known, undone)
    outcome = Outcome.MIRRORED if mirrored else Outcome.ROTATED
    strangers = agreement < _LEAST_AGREEMENT and pooled.coherence < _LEAST_COHERENCE
    if strangers or half > math.radians(_WIDEST_DEG):
        outcome = Outcome.UNDECIDABLE
        reasons.append(
            f"The directions of the two recordings agree too little ({percent(agreement)}, "
            f"interval ±{math.degrees(half):.0f}°) to tell a rotation."
        )
    elif tilt is not None:
        reasons += tilt.sentences()
    return Comparison(
        outcome=outcome,
        rotate_field_ccw_deg=wrapped_deg(math.degrees(yaw)),
        interval_deg=(math.degrees(yaw - half), math.degrees(yaw + half)),
        rotation=rotation,
        tilt_deg=None if tilt is None else tilt.deg,
        tilt_interval_deg=None if tilt is None else (tilt.low_deg, tilt.high_deg),
        flip=flip,
        mirrored=mirrored,
        agreement=agreement,
        coherence=pooled.coherence,
        singular_values=tuple((values / (values[0] or 1.0)).tolist()),
        reasons=tuple(reasons),
        windows=_windows(windows, starts, length_s),
        synchronisation=aligned,
    )


@dataclass(frozen=True)
class _Tilt:
    """Angle by which a rotation leans the vertical, and its interval."""

    deg: float
    low_deg: float
    high_deg: float

    def sentences(self) -> list[str]:
        """What is to be known of it: nothing of one that may be none, or is too small to matter."""
        if self.low_deg > 90:
            return [
                f"One of the microphones was upside down (tilt {self.deg:.0f}°): --fix invert "
                "first, then rotate."
            ]
        if self.deg > _TOLD_TILT_DEG and self.low_deg > 0:
            return [
                f"One of the microphones leans: tilt {self.deg:.0f}° "
                f"({percent(INTERVAL_LEVEL)} within {self.low_deg:.0f}° to "
                f"{self.high_deg:.0f}°), which no rotation about the vertical mends."
            ]
        return []


def _tilt(rotation: FloatArray, draws: FloatArray, shared_rad: float) -> _Tilt:
    """The tilt of a rotation [shape=(3, 3)], whose vertical strays as those of the draws do.

    A tilt of 0 cannot stray below 0: what is looked at is how far apart the leaning verticals are.
    """
    up, drawn = rotation[:, 2], rotation_of(draws)[:, :, 2]
    off = np.arccos(np.clip(drawn @ up, -1, 1))
    half = math.degrees(_half_of(off, shared_rad))
    deg = math.degrees(math.acos(np.clip(up[2], -1, 1)))
    return _Tilt(deg, max(0.0, deg - half), min(180.0, deg + half))


def _reasons(
    total: FloatArray, vertical: float, flat: bool, mirrored: bool | None, flip: str | None
) -> list[str]:
    """What the moments cannot tell, and what is wrong with the channels, in sentences."""
    reasons = []
    if flat:
        planar = vertical < _DEAD
        source = "A recording is planar (Z is silent)" if planar else "All sound is in one plane"
        reasons.append(f"{source}: the yaw can be had, but tilt cannot be had.")
    if flip:
        sides = {"Y": "left and right: negate Y, then rotate", "Z": "up and down: negate Z"}[flip]
        reasons.append(f"The track is a mirror image of the reference, {sides}.")
    elif mirrored is None and not flat:
        reasons.append("Whether channels are mirrored cannot be told.")
    elif mirrored is None and _one_sided(total):
        reasons.append("All sound comes from one side: if Y is mirrored, this yaw is wrong.")
    return reasons


def _one_sided(total: FloatArray) -> bool:
    """Whether one direction is all there is in the plane, so that a mirror image is a rotation."""
    values = np.linalg.svd(total[:2, :2], compute_uv=False)
    return bool(values[1] < _ONE_SIDED * values[0])


def _bootstrap(cross: FloatArray) -> FloatArray:
    """Moments of as many windows drawn anew, [shape=(draws, 3, 3)]; the same draws each time."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(cross), np.full(len(cross), 1 / len(cross)), _N_BOOTSTRAP)
    return np.asarray(np.einsum("bn,nij->bij", counts, cross))


def _handedness(total: FloatArray, draws: FloatArray, flat: bool) -> tuple[bool | None, str | None]:
    """Whether the track is mirrored (None: cannot be told) and the channel that is the wrong way.

    Horizontally a mirror image and an upside-down microphone look the same; with the vertical, the
    determinant tells them apart.
    """
    turns = np.linalg.det(draws[:, :2, :2])
    across = np.mean(turns < 0)
    if flat:
        # Of one source the mirror image is a rotation, whatever echoes say.
        return (True, "Y") if across > _SURE and not _one_sided(total) else (None, None)
    negative = float(np.mean(np.linalg.det(draws) < 0))
    if 1 - _SURE <= negative <= _SURE:
        return None, None
    if negative < 0.5:
        return False, None
    if np.linalg.det(total[:2, :2]) > 0:
        return True, "Z"
    return (None, None) if _one_sided(total) else (True, "Y")


def _half_interval(draws: FloatArray, yaw: float, shared_rad: float) -> float:
    """Half of the arc about `yaw`, radians, of probability `INTERVAL_LEVEL`.

    It holds that share of the draws, widened by what they all share.
    """
    return _half_of(np.abs(np.angle(np.exp(1j * (yaw_of(draws) - yaw)))), shared_rad)


def _half_of(off: FloatArray, shared_rad: float) -> float:
    """Half of an interval, radians, whose draws are so far off, [shape=(draws,)]."""
    half = math.hypot(np.quantile(off, INTERVAL_LEVEL), GAUSSIAN_REACH * shared_rad)
    return min(math.pi, max(half, math.radians(_LEAST_HALF_DEG)))


def _agreement(known: Moments, undone: FloatArray) -> float:
    """Correlation of the intensities in the horizontal plane after their best yaw.

    undone : what is done to the track first, [shape=(3, 3)].
    """
    total = known.by_window.sum(0) @ undone
    plane = np.hypot(total[0, 0] + total[1, 1], total[1, 0] - total[0, 1])
    scale = math.sqrt(float(known.power_ref.sum() * known.power_track.sum()))
    return float(plane / scale) if scale > 0 else 0.0


def _windows(cross: FloatArray, starts: FloatArray, length_s: float) -> tuple[WindowYaw, ...]:
    weights = np.hypot(cross[:, 0, 0] + cross[:, 1, 1], cross[:, 1, 0] - cross[:, 0, 1])
    weights = weights / (weights.sum() or 1.0)
    return tuple(
        WindowYaw(float(start), length_s, wrapped_deg(math.degrees(float(yaw))), float(weight))
        for start, yaw, weight in zip(starts, yaw_of(cross), weights, strict=True)
    )
