"""What the convention doctor says of tracks whose convention is known.

Every take of a manifest (AmbiX, rightly recorded) is examined as it is and turned into other
conventions and faults; the files of a folder of formats are examined as they are. The table counts
what was said, by what was true.

Sound alone cannot tell everything. Whether it can is judged by the truth, never by the answer:

- weights, if the recording itself keeps its own: in true form its (X² + Y² + Z²) / W² lies nearer
  to 1 than to 2 and scatters over bands by less than that;
- the order W X Y Z, if the vertical channel is in truth the weakest of the three, by 3 dB where the
  weights speak for it too, by 6.5 dB where they do not (that is what 40 to 1 against it take);
  for W Z Y X, which is rarer, by 8.5 dB, and not silent (then it is a dead Y as well);
- a silent X, as such or as the Z of a planar track in the order W X Y Z, which it is as well;
- W's place, if what stands in it is no omni itself (no source straight on that axis has most of the
  energy);
- a mirrored or inverted field, never: it is a valid field. The picture is asked (`--picture`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.ambisonics import ChannelLayout, Convention, Fix
from model.channels.measures import ChannelStatistics, measure
from model.channels.readings import ratio_estimate
from model.checkpoint import Calibration
from model.conventions import Diagnosis, diagnose, judge_channels
from model.errors import UnusableContent
from model.handedness import HandednessTest, Hypothesis, undone
from model.learned import scorers_for
from model.media import open_audio, open_split_audio
from model.scoring import score
from training.data.manifest import KnownTake, read_manifest
from training.evaluate.yaw import read_windows
from training.figures import write_report

FloatArray = NDArray[np.floating]

_STRETCH_S = 4.0
_WINDOWS = 8
_RARE_ORDER_DB = 8.5  # what the vertical channel must be weaker by, against 170 to 1
_LEAK = "w_z_correlated"
# Directions of the capsules of a tetrahedral microphone: left-front-up, right-front-down,
# left-back-down, right-back-up, as (x, y, z).
_TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / math.sqrt(3)
_SQUARE = np.radians([45, -45, 135, -135])
_FORMATS: Sequence[tuple[tuple[str, ...], str]] = (
    (("BF_rec1.ogg",), "fuma"),
    (("BF_rec3.ogg",), "fuma"),
    (("floorball_wxyz.ogg",), "fuma"),
    (("HOA3_rec1_01-08ch.ogg", "HOA3_rec1_09-16ch.ogg"), "n3d"),
    (("3oa_example_ch0-ch7.wav", "3oa_example_ch8-ch15.wav"), "true"),
    (
        ("castanetsorgRev_dynamic_A-90_A90_E60_60_glockshortRev_fixed_A60_E15_FOA_REF.wav",),
        "true",
    ),
    (("rnc_crowdAmbiOut.caf",), "dead Z"),
    (("sawtooth_10000_foa_48khz.wav",), "one signal"),
    (("sawtooth_8000_toa_48khz.wav",), "one signal"),
    (("audiolab-acoustic-guitar_2OA_470_ALLRAD_0.5s.wav",), "not ambisonic"),
)


def _as(convention: Convention) -> Callable[[FloatArray], FloatArray]:
    layout = ChannelLayout.of(4, convention)
    return lambda field: np.asarray(layout.from_sn3d(field), dtype=np.float64)


def _fixed(fix: Fix) -> Callable[[FloatArray], FloatArray]:
    signs = np.array(fix.signs(1))
    return lambda field: np.asarray(field * signs[:, None])


def _silenced(*channels: int) -> Callable[[FloatArray], FloatArray]:
    keep = np.array([channel not in channels for channel in range(4)])
    return lambda field: np.asarray(field * keep[:, None])


def _capsules(field: FloatArray) -> FloatArray:
    """Cardioids of a coincident tetrahedron."""
    w, y, z, x = field
    return np.asarray((w + _TETRAHEDRON @ np.stack([x, y, z])) / 2)


def _quad(field: FloatArray) -> FloatArray:
    """Cardioids towards four speakers."""
    w, y, _, x = field
    return np.asarray((w + np.outer(np.cos(_SQUARE), x) + np.outer(np.sin(_SQUARE), y)) / 2)


def _stereo(field: FloatArray) -> FloatArray:
    """Cardioids to both sides, and two silent channels."""
    w, y, *_ = field
    return np.stack([(w + y) / 2, (w - y) / 2, 0 * w, 0 * w])


# What is done to a W Y Z X field, and the answers that are right.
TURNS: dict[str, tuple[Callable[[FloatArray], FloatArray], frozenset[str]]] = {
    "true": (lambda field: field, frozenset({"none", "planar"})),
    "fuma": (_as(Convention.FUMA), frozenset({"fuma", "wxyz"})),
    "n3d": (_as(Convention.N3D), frozenset({"n3d"})),
    "w x y z": (lambda field: field[[0, 3, 1, 2]], frozenset({"fuma", "wxyz"})),
    "w z y x": (lambda field: field[[0, 2, 1, 3]], frozenset({"wzyx"})),
    "mirrored": (_fixed(Fix.MIRROR), frozenset({"none", "planar"})),
    "inverted": (_fixed(Fix.INVERT), frozenset({"none", "planar"})),
    "swapped W, Y": (lambda field: field[[1, 0, 2, 3]], frozenset({"w_elsewhere"})),
    "swapped W, X": (lambda field: field[[3, 1, 2, 0]], frozenset({"w_elsewhere"})),
    "W only": (_silenced(1, 2, 3), frozenset({"no_direction"})),
    "dead Z": (_silenced(2), frozenset({"planar"})),
    "dead X": (_silenced(3), frozenset({"dead_channel", "stereo", "fuma", "wxyz"})),
    "A-format": (_capsules, frozenset({"capsules"})),
    "quad": (_quad, frozenset({"capsules"})),
    "stereo": (_stereo, frozenset({"stereo"})),
    "copied": (lambda field: field[[0, 1, 2, 1]], frozenset({"duplicate_channel"})),
}
_OF_FILES = {"one signal": frozenset({"one_signal"}), "not ambisonic": frozenset({"not_ambisonic"})}


@dataclass(frozen=True)
class Answer:
    """What was said of one track in one form.

    Attributes
    ----------
    truth, said : a name of `TURNS`, a finding's code (`none`, `planar` without a problem).
    tellable : whether sound alone can tell, by the truth.
    probability : of what was said.
    problems : codes of all findings that say something is wrong.
    """

    take: str
    truth: str
    said: str
    right: bool
    tellable: bool
    probability: float
    problems: tuple[str, ...]


def said(diagnosis: Diagnosis) -> tuple[str, float]:
    """The likeliest problem that makes a convention, or none, and its probability.

    That W leaks into Z says nothing of order and weights; it is counted by itself.
    """
    others = [finding for finding in diagnosis.findings if finding.code != _LEAK]
    likely = [finding for finding in others if finding in diagnosis.problems]
    if likely:
        return likely[0].code, likely[0].probability
    sure = 1 - max((f.probability for f in others if f.problem), default=0.0)
    planar = any(finding.code == "planar" for finding in diagnosis.findings)
    return ("planar" if planar else "none"), sure


def measured(channels: FloatArray, samplerate: int) -> ChannelStatistics:
    """The doctor's measurements of an array, [shape=(C, N)], in stretches as of a file."""
    size = min(channels.shape[1], round(_STRETCH_S * samplerate))
    n_stretches = max(1, channels.shape[1] // size)
    starts = np.linspace(0, channels.shape[1] - size, n_stretches).astype(int)
    return measure([channels[:, at : at + size] for at in starts], samplerate)


def tellable(truth: str, stats: ChannelStatistics) -> bool:
    """Whether sound alone can tell a turn, given the recording in its true form."""
    mean, error = ratio_estimate(stats)
    midway = math.log(2) / 2
    power = np.diag(stats.whitened_covariance.sum(0))
    if truth == "n3d":
        return abs(mean) < midway and error < midway
    if truth == "w z y x":
        return bool(power[2] < 10 ** (-_RARE_ORDER_DB / 10) * min(power[1], power[3])) and bool(
            stats.alive[2]
        )
    if truth in ("fuma", "w x y z"):
        margin_db = 3.0 if truth == "fuma" else 6.5
        return bool(power[2] < 10 ** (-margin_db / 10) * min(power[1], power[3]))
    if truth in ("swapped W, Y", "swapped W, X"):
        on_axis = power[1 if truth.endswith("Y") else 3]
        return bool(on_axis < 0.5 * power[1:4].sum()) and error < midway
    return truth not in ("mirrored", "inverted")


def examine(known: KnownTake) -> Iterator[Answer]:
    """The answers for a take in every form."""
    with open_audio(known.audio) as reader:
        if reader.info.n_channels < 4:
            raise UnusableContent(
                f"{known.audio} has {reader.info.n_channels} channels; takes of a manifest are "
                "AmbiX, of 4 or more."
            )
        field, rate = reader.read(0, reader.info.n_samples), reader.info.samplerate
    field = np.asarray(field[:4], dtype=np.float64)
    as_recorded = measured(field, rate)
    for truth, (turn, right) in TURNS.items():
        diagnosis = judge_channels(measured(turn(field), rate))
        code, probability = said(diagnosis)
        problems = tuple(finding.code for finding in diagnosis.problems)
        yield Answer(
            known.name, truth, code, code in right, tellable(truth, as_recorded), probability,
            problems,
        )  # fmt: skip


def examine_formats(folder: Path) -> Iterator[Answer]:
    """The answers for the format files that are there."""
    for names, truth in _FORMATS:
        with open_split_audio([folder / name for name in names]) as reader:
            diagnosis = diagnose(reader)
        code, probability = said(diagnosis)
        right = _OF_FILES[truth] if truth in _OF_FILES else TURNS[truth][1]
        problems = tuple(finding.code for finding in diagnosis.problems)
        yield Answer(names[0], truth, code, code in right, True, probability, problems)


@dataclass(frozen=True)
class PictureAnswer:
    """What the picture said of one take in one form.

    Attributes
    ----------
    truth : `upright` or `reversed` (mirrored or inverted: one, to evidence over azimuth).
    p_reversed : posterior that left and right are exchanged, from even odds.
    right : whether more than half of the posterior is on the truth's side.
    """

    take: str
    tier: str
    truth: str
    p_reversed: float
    right: bool


def ask_picture(known: KnownTake, calibration: Calibration) -> Iterator[PictureAnswer]:
    """Which way round the picture says a take is, as it is and mirrored."""
    scorers = scorers_for(calibration)
    even = {Hypothesis.UPRIGHT: 0.5, Hypothesis.INVERTED: 0.25, Hypothesis.MIRRORED: 0.25}
    tests = {
        truth: HandednessTest(calibration, scorers, even)
        for truth in (Hypothesis.UPRIGHT, Hypothesis.MIRRORED)
    }
    for window in read_windows(known, n_windows=_WINDOWS, device="cpu"):
        for truth, test in tests.items():
            turned = replace(window, covariance=undone(window.covariance, truth))
            test.add(turned, score(turned, scorers, calibration))
    for truth, test in tests.items():
        p = test.result().reversed_probability
        name = "upright" if truth is Hypothesis.UPRIGHT else "reversed"
        right = p < 0.5 if truth is Hypothesis.UPRIGHT else p > 0.5
        yield PictureAnswer(known.name, known.tier, name, round(p, 4), right)


def picture_table(answers: Sequence[PictureAnswer]) -> str:
    """For a terminal: a line for each take, then the share told by tier."""
    lines = [f"{'take':28} {'tier':8} reversed, if upright / if mirrored"]
    for one, other in zip(answers[::2], answers[1::2], strict=True):
        lines.append(
            f"{one.take[:28]:28} {one.tier:8} {one.p_reversed:6.1%} / {other.p_reversed:6.1%}"
        )
    for tier in sorted({a.tier for a in answers}):
        of_tier = [a.right for a in answers if a.tier == tier]
        lines.append(f"told the right way round, {tier}: {np.mean(of_tier):.0%} of {len(of_tier)}")
    return "\n".join(lines)


def summarise(answers: Sequence[Answer]) -> dict[str, Any]:
    """Shares of right answers, and the confusion table."""
    can = [a for a in answers if a.tellable]
    untouched = [a for a in answers if a.truth == "true"]
    return {
        "right_where_tellable": round(float(np.mean([a.right for a in can])), 4),
        "tellable": len(can),
        "false_alarms_untouched": round(float(np.mean([not a.right for a in untouched])), 4)
        if untouched
        else None,
        "untouched": len(untouched),
        "confusion": {
            truth: dict(Counter(a.said for a in answers if a.truth == truth).most_common())
            for truth in dict.fromkeys(a.truth for a in answers)
        },
    }


def run(
    manifest: Path | None,
    *,
    formats: Path | None = None,
    picture: Calibration | None = None,
    report: Path | None = None,
) -> dict[str, Any]:
    """Examine takes and format files, print the tables, return all figures.

    picture : what to ask the picture of each take with, which way round its field is.

    Raises
    ------
    AvsaError : a file cannot be read; it is named.
    """
    figures: dict[str, Any] = {}
    if manifest is not None:
        takes = tqdm(read_manifest(manifest), unit="take", desc="examining")
        figures["takes"] = _figures([answer for known in takes for answer in examine(known)])
        if picture is not None:
            seen = [
                answer
                for known in tqdm(read_manifest(manifest), unit="take", desc="looking")
                for answer in ask_picture(known, picture)
            ]
            print(picture_table(seen))
            figures["picture"] = [asdict(answer) for answer in seen]
    if formats is not None:
        figures["formats"] = _figures(list(examine_formats(formats)))
    if report is not None:
        write_report(report, figures)
    return figures


def _figures(answers: Sequence[Answer]) -> dict[str, Any]:
    figures = summarise(answers)
    print(table(answers, figures))
    return {**figures, "answers": [asdict(answer) for answer in answers]}


def table(answers: Sequence[Answer], figures: dict[str, Any]) -> str:
    """For a terminal: a line for each truth, then every wrong answer."""
    lines = [f"{'truth':14} {'right':>9} {'tellable':>10}  said"]
    for truth, counts in figures["confusion"].items():
        of_truth = [a for a in answers if a.truth == truth]
        can = [a for a in of_truth if a.tellable]
        told = ", ".join(f"{code} {count}" for code, count in counts.items())
        lines.append(
            f"{truth:14} {sum(a.right for a in of_truth):3d} / {len(of_truth):3d}"
            f" {sum(a.right for a in can):4d} / {len(can):3d}  {told}"
        )
    lines.append(
        f"\nright where sound alone can tell: {figures['right_where_tellable']:.1%} of "
        f"{figures['tellable']}"
    )
    leaks = [a.take for a in answers if a.truth == "true" and _LEAK in a.problems]
    lines.append(f"W correlated with Z, untouched: {', '.join(leaks) or 'none'}")
    lines += [
        f"  wrong: {a.take[:40]:40} {a.truth:14} said {a.said} ({a.probability:.0%})"
        + ("" if a.tellable else "  (not tellable)")
        for a in answers
        if not a.right
    ]
    return "\n".join(lines)
