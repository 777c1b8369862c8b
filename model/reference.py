"""Two ambisonic recordings of one place: the rotation between them, in closed form.

python -m model.reference REFERENCE TRACK [--json]

A camera with a microphone array of its own says where its front is; an external track of the same
sound then needs no picture. The microphones do not stand in one point, so above c / (4 d) (286 Hz
for 30 cm) their waveforms have nothing in common but their intensity vectors have: with I the
active intensity Re W* (X, Y, Z) of each bin of the short-time spectrum, the moments
M = sum w I_ref I_track^T hold the rotation. Onsets count, for echoes come from elsewhere.

- Yaw: its tangent is sum (x_t y_r - y_t x_r) / sum (x_t x_r + y_t y_r) in the plane.
- Full rotation: Wahba's problem by singular values (Kabsch, Acta Cryst. A32, 922, 1976; Markley,
  J. Astronaut. Sci. 36, 245, 1988). A negative determinant of M means mirrored channels. A third
  singular value near zero means that all sound came from one plane, or that a recording has no
  vertical component: then neither tilt nor mirroring can be told.

Every window has its moments; an interval comes from drawing windows anew (bootstrap). The tracks
are aligned in time first (`sync`).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import sync
from model.ambisonics import ChannelLayout, Convention, Fix
from model.errors import AvsaError, OptionError, UnsupportedMedia
from model.intensity import HIGHEST_HZ, LOWEST_HZ, RATE, Moments, moments
from model.listening import Ear
from model.media import AudioReader, open_audio
from model.sync import Belonging, Synchronisation, synchronise

FloatArray = NDArray[np.float64]

INTERVAL_LEVEL = 0.9
SPEED_OF_SOUND = 343.0

_WINDOWS, _LONGEST_WINDOW_S, _LEAST_WINDOWS = 60, 4.0, 12
_N_BOOTSTRAP = 400
_FLOOR_DEG = 1.0  # of the interval's half: what windows do not scatter by but all share
_DEAD = 1e-4  # power of Z against X and Y: below -40 dB there is no vertical component
_FLAT = 0.005  # third singular value against the first: below it the sound lies in a plane
_ONE_SIDED = 0.05  # second singular value in the plane against the first
_SURE = 0.95  # share of the bootstrap's draws that must agree on mirroring
_LEAST_AGREEMENT = 0.02  # of the intensities' correlation, below it directions say nothing
_WIDEST_DEG = 30.0  # half an interval wider than this decides nothing
_FLIP_Y = np.diag([1.0, -1.0, 1.0])


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
        one.
    interval_deg : arc of probability `INTERVAL_LEVEL`, (low, high), low <= high.
    rotation : best rotation of (x, y, z) about any axis, [shape=(3, 3)]; None where the sound does
        not tell it (then a yaw is all there is).
    tilt_deg : angle by which that rotation leans the vertical; None likewise.
    flip : channel to negate first ("Y", "Z"), None if none or not known.
    mirrored : whether one recording is the mirror image of the other; None where it cannot be told.
    agreement : correlation of the intensities after the rotation, 0 to 1.
    singular_values : of the moments, as shares of the first.
    reasons : what could not be told, and why.
    """

    outcome: Outcome
    rotate_field_ccw_deg: float
    interval_deg: tuple[float, float]
    rotation: FloatArray | None
    tilt_deg: float | None
    flip: str | None
    mirrored: bool | None
    agreement: float
    singular_values: tuple[float, float, float]
    reasons: tuple[str, ...]
    windows: tuple[WindowYaw, ...]
    synchronisation: Synchronisation | None


class Recording:
    """An open ambisonic track as a first-order field; fix : done to it first."""

    def __init__(
        self, reader: AudioReader, layout: ChannelLayout | None = None, fix: Fix | None = None
    ) -> None:
        self.reader = reader
        self.layout = layout or layout_of(reader)
        self._gains = self.layout.gains[:4] * np.array(fix.signs(1) if fix else (1,) * 4)
        self._ear = Ear(reader, list(self.layout.components[:4]))
        self.duration_s = self._ear.duration_s

    def field(self, start_s: float, duration_s: float) -> FloatArray:
        """W, Y, Z, X (SN3D) of a stretch, [shape=(4, N)] at 16 kHz; silence beyond the ends."""
        _, channels = self._ear.listen(start_s, duration_s, RATE)
        return np.asarray(channels * self._gains[:, None])


def layout_of(reader: AudioReader) -> ChannelLayout:
    """The channels of a file as it declares them, else AmbiX.

    Raises
    ------
    UnsupportedMedia : the file is not ambisonic.
    """
    info = reader.info
    try:
        return ChannelLayout.of(
            info.n_channels, Convention(info.convention or Convention.AMBIX),
            components=info.components,
        )  # fmt: skip
    except UnsupportedMedia as error:
        raise UnsupportedMedia(f"{info.path}: {error}") from error


def compare(
    reference: Recording,
    track: Recording,
    *,
    spacing_m: float | None = None,
    synchronisation: Synchronisation | None = None,
) -> Comparison:
    """Find the rotation that makes a track fit a reference.

    spacing_m : distance of the microphones, if known: intensities are compared above c / (4 d),
        and above 200 Hz anyway.
    synchronisation : of the track against the reference, if it is known already.

    Raises
    ------
    MediaError, UnusableContent : as `sync.synchronise`.
    OptionError : a spacing that leaves nothing to compare.
    """
    lowest_hz = _lowest_hz(spacing_m)
    aligned = synchronisation or synchronise(reference.reader, track.reader)
    if aligned.belonging is not Belonging.SYNCHRONISED:
        return _undecidable(aligned)
    start = max(0.0, aligned.offset_s)
    end = min(reference.duration_s, aligned.camera_time(track.duration_s))
    length = min(_LONGEST_WINDOW_S, (end - start) / _LEAST_WINDOWS)
    n_windows = min(_WINDOWS, math.floor((end - start) / length + 1e-9))
    starts = np.linspace(start, end - length, n_windows)
    pairs = [
        (reference.field(at, length), track.field(aligned.track_time(at), length)) for at in starts
    ]
    return solve(moments(pairs, lowest_hz=lowest_hz), starts, length, aligned)


def _lowest_hz(spacing_m: float | None) -> float:
    if spacing_m is None:
        return LOWEST_HZ
    limit = SPEED_OF_SOUND / (4 * spacing_m) if spacing_m > 0 else math.inf
    if limit > HIGHEST_HZ / 2:
        raise OptionError(
            f"A spacing of {spacing_m:g} m makes no sense here: it must be at least "
            f"{SPEED_OF_SOUND / (2 * HIGHEST_HZ):.2f} m; leave it away if it is not known."
        )
    return max(LOWEST_HZ, limit)


def _undecidable(aligned: Synchronisation) -> Comparison:
    return Comparison(
        Outcome.UNDECIDABLE, 0.0, (-180.0, 180.0), None, None, None, None, 0.0, (0.0, 0.0, 0.0),
        (f"The track could not be laid on the reference in time ({aligned.reason})",), (), aligned,
    )  # fmt: skip


# --- solving -------------------------------------------------------------------------------------


def yaw_of(cross: FloatArray) -> FloatArray:
    """Best rotation about the vertical, radians, of moments [shape=(..., 3, 3)]."""
    cosine = cross[..., 0, 0] + cross[..., 1, 1]
    sine = cross[..., 1, 0] - cross[..., 0, 1]
    return np.asarray(np.arctan2(sine, cosine))


def rotation_of(cross: FloatArray) -> FloatArray:
    """Best proper rotation of moments [shape=(..., 3, 3)] (Wahba, Kabsch)."""
    u, _, vt = np.linalg.svd(cross)
    u[..., :, 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    rotation: FloatArray = u @ vt
    return rotation


def solve(
    known: Moments,
    starts: FloatArray,
    length_s: float,
    aligned: Synchronisation | None = None,
) -> Comparison:
    """The rotation that windows' moments say, with an interval.

    starts : of the windows, s, [shape=(N,)]; length_s : of each.
    """
    total = known.cross.sum(0)
    values = np.linalg.svd(total, compute_uv=False)
    draws = _bootstrap(known.cross)
    flat = known.vertical < _DEAD or values[2] < _FLAT * values[0]
    mirrored, flip = _handedness(total, draws, flat)
    reasons = _reasons(known, flat, mirrored, flip)
    if flip == "Y":
        total, draws = total @ _FLIP_Y, draws @ _FLIP_Y
    windows = known.cross @ _FLIP_Y if flip == "Y" else known.cross
    yaw = float(yaw_of(total))
    half = _half_interval(draws, yaw)
    rotation = None if flat or mirrored else rotation_of(total)
    tilt = None if rotation is None else math.degrees(math.acos(np.clip(rotation[2, 2], -1, 1)))
    agreement = _agreement(total, known)
    outcome = Outcome.MIRRORED if mirrored else Outcome.ROTATED
    if agreement < _LEAST_AGREEMENT or half > math.radians(_WIDEST_DEG):
        outcome = Outcome.UNDECIDABLE
        reasons.append(
            f"The directions of the two recordings agree too little ({agreement:.0%}, interval "
            f"±{math.degrees(half):.0f}°) to tell a rotation."
        )
    if tilt is not None and tilt > 90:
        reasons.append(f"One of the microphones was upside down (tilt {tilt:.0f}°).")
    return Comparison(
        outcome=outcome,
        rotate_field_ccw_deg=_degrees(yaw),
        interval_deg=(math.degrees(yaw - half), math.degrees(yaw + half)),
        rotation=rotation,
        tilt_deg=tilt,
        flip=flip,
        mirrored=mirrored,
        agreement=agreement,
        singular_values=tuple((values / (values[0] or 1.0)).tolist()),
        reasons=tuple(reasons),
        windows=_windows(windows, starts, length_s),
        synchronisation=aligned,
    )


def _reasons(known: Moments, flat: bool, mirrored: bool | None, flip: str | None) -> list[str]:
    """What the moments cannot tell, and what is wrong with the channels, in sentences."""
    reasons = []
    if flat:
        planar = known.vertical < _DEAD
        source = "A recording is planar (Z is silent)" if planar else "All sound is in one plane"
        reasons.append(f"{source}: the yaw can be had, but tilt cannot be had.")
    if flip:
        sides = {"Y": "left and right: negate Y, then rotate", "Z": "up and down: negate Z"}[flip]
        reasons.append(f"The track is a mirror image of the reference, {sides}.")
    elif mirrored is None and not flat:
        reasons.append("Whether channels are mirrored cannot be told.")
    elif mirrored is None and _one_sided(known.cross.sum(0)):
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
        if across > _SURE:
            return True, "Y"
        return None, None
    negative = float(np.mean(np.linalg.det(draws) < 0))
    if 1 - _SURE <= negative <= _SURE:
        return None, None
    if negative < 0.5:
        return False, None
    return True, "Y" if np.linalg.det(total[:2, :2]) < 0 else "Z"


def _half_interval(draws: FloatArray, yaw: float) -> float:
    """Half of the arc about `yaw`, radians, that holds `INTERVAL_LEVEL` of the draws."""
    off = np.abs(np.angle(np.exp(1j * (yaw_of(draws) - yaw))))
    return min(math.pi, float(np.hypot(np.quantile(off, INTERVAL_LEVEL), math.radians(_FLOOR_DEG))))


def _agreement(total: FloatArray, known: Moments) -> float:
    """Correlation of the intensities in the horizontal plane after the best yaw."""
    plane = np.hypot(total[0, 0] + total[1, 1], total[1, 0] - total[0, 1])
    scale = math.sqrt(float(known.power_ref.sum() * known.power_track.sum()))
    return float(plane / scale) if scale > 0 else 0.0


def _windows(cross: FloatArray, starts: FloatArray, length_s: float) -> tuple[WindowYaw, ...]:
    weights = np.hypot(cross[:, 0, 0] + cross[:, 1, 1], cross[:, 1, 0] - cross[:, 0, 1])
    weights = weights / (weights.sum() or 1.0)
    return tuple(
        WindowYaw(float(start), length_s, _degrees(float(yaw)), float(weight))
        for start, yaw, weight in zip(starts, yaw_of(cross), weights, strict=True)
    )


def _degrees(angle_rad: float) -> float:
    """Degrees in (-180, 180]."""
    degrees = math.remainder(math.degrees(angle_rad), 360)
    return 180.0 if degrees == -180.0 else degrees


# --- telling -------------------------------------------------------------------------------------


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The result for JSON."""
    c = comparison
    return {
        "verdict": c.outcome.value,
        "rotate_field_ccw_deg": round(c.rotate_field_ccw_deg, 2),
        "interval_deg": [round(edge, 2) for edge in c.interval_deg],
        "interval_level": INTERVAL_LEVEL,
        "rotation": None if c.rotation is None else np.round(c.rotation, 5).tolist(),
        "tilt_deg": None if c.tilt_deg is None else round(c.tilt_deg, 2),
        "mirrored": c.mirrored,
        "flip": c.flip,
        "agreement": round(c.agreement, 4),
        "singular_values": [round(value, 4) for value in c.singular_values],
        "reasons": list(c.reasons),
        "windows": [
            {name: round(value, 3) for name, value in asdict(window).items()}
            for window in c.windows
        ],
        "synchronisation": c.synchronisation and sync.as_json(c.synchronisation),
    }


def sentence(comparison: Comparison) -> str:
    """The result in a line."""
    reasons = " ".join(comparison.reasons)
    if comparison.outcome is Outcome.UNDECIDABLE:
        return f"undecidable: {reasons}"
    low, high = comparison.interval_deg
    return (
        f"{comparison.outcome.value}: rotate_field_ccw_deg {comparison.rotate_field_ccw_deg:+.1f} "
        f"({INTERVAL_LEVEL:.0%} within ±{(high - low) / 2:.1f}). {reasons}"
    ).rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m model.reference",
        description="Find the rotation of an ambisonic track against another of the same sound.",
    )
    parser.add_argument("reference", type=Path, help="the recording whose front is right")
    parser.add_argument("track", type=Path, help="the track to rotate")
    parser.add_argument("--spacing-m", type=float, help="distance of the microphones, if known")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args(argv)
    try:
        with open_audio(arguments.reference) as reference, open_audio(arguments.track) as track:
            found = compare(Recording(reference), Recording(track), spacing_m=arguments.spacing_m)
    except AvsaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(as_json(found), indent=2) if arguments.json else sentence(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
