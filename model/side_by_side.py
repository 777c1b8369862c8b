"""The picture's answer and that of a reference recording, side by side, and both together.

A camera's own ambisonic track, or a second microphone, gives the rotation in closed form
(`model.reference`), to a degree where the picture gives ten. But its front need not be the
picture's: what the picture says decides whether it is believed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import reference
from model.ambisonics import Fix
from model.arcs import width_deg, wrapped_deg
from model.checkpoint import Calibration
from model.errors import AvsaError, OptionError
from model.evidence import N_YAWS, yaws_deg
from model.media import open_audio
from model.output import same_file
from model.posterior import NEAR_DEG, mass_near
from model.recordings.comparison import Comparison, Outcome
from model.reference import Recording
from model.scoring import Judgement, Verdict, verdict_of, withheld
from model.sync import Belonging
from model.take import Take
from model.wording import GAUSSIAN_REACH, INTERVAL_LEVEL, angle, percent

# Belief, before the picture is looked at, that a reference's front is the picture's. An
# assumption: no footage is at hand to count how often a camera's own microphone is turned.
_TRUST = 0.95
_LEANING_DEG = 45.0  # a rotation that tilts by more is no rotation about the vertical


@dataclass(frozen=True)
class Reference:
    """A recording that the track was compared with.

    Attributes
    ----------
    own : whether it is the camera's, found in the picture's own file.
    fix : what was done to the track before.
    """

    path: Path
    own: bool
    comparison: Comparison
    fix: Fix | None = None

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        return "the camera's own ambisonic track" if self.own else f"the reference {self.path}"


@dataclass(frozen=True)
class SideBySide:
    """A reference's answer beside the picture's.

    Attributes
    ----------
    picture : what the picture alone says.
    together : what is made of both.
    belief : probability that the reference's rotation is right; None where it tells none.
    note : both answers in a sentence.
    fault : why no rotation makes the track fit the reference, and what to do; None if one does.
    """

    reference: Reference
    picture: Judgement
    together: Judgement
    belief: float | None
    note: str
    fault: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Both answers for the report."""
        return {
            "path": str(self.reference.path),
            "own": self.reference.own,
            "belief": None if self.belief is None else round(self.belief, 4),
            **reference.as_json(self.reference.comparison),
            "picture": self.picture.as_json(),
        }


def check_reference(given: Path, track: Sequence[Path]) -> None:
    """Refuse, before anything is judged, a recording that cannot be a track's reference.

    Raises
    ------
    OptionError : it cannot be read, is not ambisonic, or is the track itself.
    """
    if any(same_file(given, path) for path in track):
        raise OptionError(
            f"The reference {given} is the track itself, which fits itself as it is: name another "
            "recording, or leave --reference away."
        )
    try:
        with open_audio(given) as opened:
            reference.layout_of(opened)
    except AvsaError as error:
        raise _cannot_serve(given, error) from error


def _cannot_serve(given: Path, error: AvsaError) -> OptionError:
    return OptionError(f"The reference {given} cannot serve: {error}")


def find_reference(take: Take, given: Path | None) -> Reference | None:
    """Compare a take's track with a reference, or with the camera's own track if that is ambisonic.

    given : the file that the user names, if `check_reference` lets it pass; None: the picture's
        own file, if it declares an ambisonic track, the take's track is another, and the microphone
        is not known to have turned.

    Raises
    ------
    OptionError : `given` cannot serve. What the camera has by itself is left out with a warning.
    """
    unasked = given is None
    if given is None:
        if take.orientation or take.shared or not take.video.has_sound:
            return None
        given = take.video.path
    own = same_file(given, take.video.path)
    try:
        with open_audio(given) as opened:
            if unasked and opened.info.convention is None:
                return None
            known = take.placement.sync if own else None
            if unasked and known is not None and known.belonging is not Belonging.SYNCHRONISED:
                return None  # the placement's own note tells of it
            found = reference.compare(
                Recording(opened),
                Recording(take.reader, take.layout, take.track.fix),
                synchronisation=known,
            )
    except AvsaError as error:
        if unasked:
            take.warnings.append(f"The camera's own ambisonic track was left out: {error}")
            return None
        raise _cannot_serve(given, error) from error
    return Reference(given, own, found, take.track.fix)


def side_by_side(
    found: Reference, picture: Judgement, calibration: Calibration, *, tolerance_deg: float
) -> SideBySide:
    """Put a reference's answer beside the picture's, and make one of both."""
    c, fault = found.comparison, _fault(found)
    # A fault is the verdict's reason, with what to do; the comparison does not know of a fix.
    told = f"By {found.name}: {(reference.angle_sentence if fault else reference.sentence)(c)}"
    seen = f"By the picture: {angle(picture.rotate_field_ccw_deg)} ({picture.verdict.value}, "
    seen += f"confidence {percent(picture.confidence)})."
    if fault:
        doubted = withheld(picture, fault)
        return SideBySide(found, picture, doubted, None, f"{told} {seen}", fault)
    if c.outcome is Outcome.UNDECIDABLE:
        return SideBySide(found, picture, picture, None, told)
    near = mass_near(picture.posterior, c.rotate_field_ccw_deg)
    belief = belief_in_reference(near, picture.confidence)
    together = _together(c, picture, belief, near, calibration, tolerance_deg)
    if together.verdict is Verdict.UNDECIDABLE:
        reason = f"{found.name[0].upper()}{found.name[1:]} "
        if belief < INTERVAL_LEVEL:
            reason += "and the picture disagree."
        else:
            reason += f"tells the rotation only to ±{_half_deg(c):.0f}°, and the picture no better."
        together = replace(together, reasons=[reason, *picture.reasons])
    return SideBySide(found, picture, together, belief, f"{told} {seen}")


def belief_in_reference(near: float, confidence: float) -> float:
    """Probability that a reference's rotation is right, once the picture was looked at.

    near : the picture's mass around that rotation. confidence : in the picture; as far as it is
        wrong, its posterior says nothing.

    Bayes: a reference with another front could say any angle, so its agreement with the picture by
    chance is that of a uniform angle.
    """
    chance = mass_near(torch.full((N_YAWS,), 1 / N_YAWS), 0.0)
    expected = confidence * near + (1 - confidence) * chance
    odds = _TRUST / (1 - _TRUST) * expected / chance
    return odds / (1 + odds)


def _together(
    c: Comparison,
    picture: Judgement,
    belief: float,
    near: float,
    calibration: Calibration,
    tolerance_deg: float,
) -> Judgement:
    """The surer of the reference's angle and the picture's; the picture's if its arc is narrower.

    Where the reference is right, the truth lies as its interval says. The picture's angle is then
    as sure as both say together, else as it was alone.
    """
    peak, arc = _peak(c), _wrapped_arc(c)
    both = peak * _seen(picture)
    both /= both.sum()
    of_reference = belief * _reach(c) + (1 - belief) * near
    of_picture = belief * mass_near(both, picture.rotate_field_ccw_deg)
    of_picture += (1 - belief) * picture.confidence
    narrower = width_deg(picture.arcs_deg[0]) < width_deg(arc) and of_picture >= of_reference
    if belief >= 0.5 and not narrower:
        best, confidence, arcs = c.rotate_field_ccw_deg, of_reference, [arc, picture.arcs_deg[0]]
    else:
        best, confidence, arcs = (
            picture.rotate_field_ccw_deg,
            of_picture,
            [picture.arcs_deg[0], arc],
        )
    verdict = verdict_of(best, confidence, calibration, tolerance_deg=tolerance_deg)
    arcs = arcs[:1] if belief >= INTERVAL_LEVEL else arcs
    posterior = belief * (both if narrower else peak) + (1 - belief) * picture.posterior
    return Judgement(verdict, best, arcs, confidence, posterior, [])


def _seen(picture: Judgement) -> Tensor:
    """What the picture says of the truth: as far as it is wrong, nothing."""
    return picture.confidence * picture.posterior + (1 - picture.confidence) / N_YAWS


def _peak(c: Comparison) -> Tensor:
    """The reference's answer as a posterior over `yaws_deg`: a normal bell, at least a bin wide."""
    deviation = max(_deviation_deg(c), 180 / N_YAWS)
    off = [math.remainder(yaw - c.rotate_field_ccw_deg, 360) / deviation for yaw in yaws_deg()]
    return (-0.5 * torch.tensor(off, dtype=torch.float64) ** 2).softmax(0)


def _reach(c: Comparison) -> float:
    """Probability that a reference that is right is within `NEAR_DEG`."""
    return math.erf(NEAR_DEG / _deviation_deg(c) / math.sqrt(2))


def _deviation_deg(c: Comparison) -> float:
    return _half_deg(c) / GAUSSIAN_REACH


def _half_deg(c: Comparison) -> float:
    low, high = c.interval_deg
    return (high - low) / 2


def _wrapped_arc(c: Comparison) -> tuple[float, float]:
    low, high = map(wrapped_deg, c.interval_deg)
    return low, high


def _fault(found: Reference) -> str | None:
    """Why no rotation about the vertical fits the track to the reference, and what to do."""
    c, against = found.comparison, f"against {found.name}"
    if c.outcome is Outcome.UNDECIDABLE:
        return None
    if c.flip == "Y":
        return f"Left and right are exchanged {against}: {_mend((-1, 1), found.fix)}."
    if c.flip == "Z":
        return f"Up and down are exchanged {against}: {_mend((1, -1), found.fix)}."
    if c.tilt_deg is None or c.tilt_interval_deg is None:
        return None
    if c.upside_down and c.tilt_deg > 180 - _LEANING_DEG:
        told = f"The microphone was upside down {against} (tilt {c.tilt_deg:.0f}°)"
        return f"{told}: {_mend((-1, -1), found.fix)}."
    if c.tilt_interval_deg[0] > _LEANING_DEG:
        return (
            f"The microphone leans by {c.tilt_deg:.0f}° {against}: a rotation about the vertical "
            "does not make it fit."
        )
    return None


def _mend(wrong: tuple[int, int], fix: Fix | None) -> str:
    """What to do where Y and Z have these signs against a reference after a fix."""
    done = fix.signs(1)[1:3] if fix else (1, 1)
    needed = (wrong[0] * done[0], wrong[1] * done[1])
    for other in Fix:
        if other.signs(1)[1:3] == needed:
            return f"try --fix {other.value}" + (f" instead of {fix.value}" if fix else "")
    leave = f"leave --fix {fix.value} away" if fix else ""
    if needed == (1, 1):
        return leave
    return "one of the two has Z negated" + (f"; {leave}" if leave else "")
