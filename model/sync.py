"""Time first: where a track begins in the camera's own sound, and how its clock drifts.

python -m model.sync CAMERA TRACK [--search-s 30] [--json] [--plot P.png]

Three steps, each over a fixed number of chunks, so that cost and memory do not grow with the take:

1. Coarse: the lines of delay over time that short frames of the camera's sound, correlated with
   all of the track within reach, agree upon (see `coarse`).
2. Elsewhere: sound that repeats itself fits at many places. A few chunks, laid over each other,
   compare those lines and the ones most like the best of them (see `fine`); where one fits about
   as well, nothing is sure.
3. Fine: chunks all over the overlap are correlated near the best line (GCC-PHAT, see
   `correlation`), and a robust line through their delays gives offset and drift (see `consensus`).
   The chunks off that line are rejected; how many are on it, and how closely, is the confidence,
   for a foreign track's chunks point anywhere. Where noise hides the most of them, all of them laid
   over each other may tell (see `stacking`).

Times of the camera and of the track (`Clock`) count from the first sample of their sound.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import expit

from model.errors import AvsaError, MediaError, NoSound, OptionError, in_one_line
from model.interruption import add_debug, command
from model.media import AudioReader, Clock, open_audio, picture_begins_s
from model.output import PNG, check_output, whole_file
from model.timing.coarse import BIN_S, MAX_SLOPE, coarse_lines, lines_like
from model.timing.consensus import Fit, Line, fitted, log_odds
from model.timing.fine import APART_S, RATE, REACH_S, Chunk, Place, chunks_near, places_of
from model.timing.listening import Ear, camera_channels, track_channels
from model.wording import GAUSSIAN_REACH, percent

FloatArray = NDArray[np.float64]

SEARCH_S = 30.0
MAX_SEARCH_S = 600.0
SURE = 0.95  # of the confidence, for or against: between, the track is not said to belong or not
_SURE_ODDS = math.log(SURE / (1 - SURE))

_MAX_CHUNKS, _TRIAL_CHUNKS = 60, 8
_RIVAL = 0.8  # of the best place's height: another that is higher is as good
_N_ALIKE = 6  # places all over the search that sound which repeats itself may fit
_LEAST_CHUNKS = 4  # fewer cannot say that a track is foreign
_NEAR_S = 0.005  # of the line: a chunk that agrees with it
WORTH_TELLING_S = 0.02  # by which a picture and a sound begin or end apart
_NEAR_STACK_S = 0.001  # of a line that chunks show together, though most by themselves do not


class Belonging(StrEnum):
    """Whether the track was recorded where the camera was."""

    SYNCHRONISED = "synchronised"
    FOREIGN = "foreign"
    UNDECIDABLE = "undecidable"


@dataclass(frozen=True, kw_only=True)
class Synchronisation(Clock):
    """How a track's time runs against that of a camera's sound.

    Attributes
    ----------
    offset_std_s, drift_std_ppm : standard deviations of both, from the chunks' scatter; the
        offset's is that at the middle of the overlap.
    confidence : probability that the track belongs and the line is right.
    inverted : whether the track's polarity is the opposite of the camera's.
    reason : the verdict in a sentence.
    """

    belonging: Belonging
    offset_std_s: float
    drift_std_ppm: float
    confidence: float
    inverted: bool
    reason: str
    chunks: tuple[Chunk, ...]


def synchronise(
    camera: AudioReader,
    track: AudioReader,
    *,
    expected_s: float = 0.0,
    search_s: float = SEARCH_S,
    w_channel: int | None = None,
) -> Synchronisation:
    """Find offset and drift of a track against the camera's own sound.

    Of the camera, W (ambisonic), or the first two channels are heard; of the track, W.

    expected_s : camera's time at which the track should begin.
    search_s : how far from that it may begin, to either side.
    w_channel : the track's file channel that is W; None: as the file declares.

    Raises
    ------
    MediaError : a file cannot be decoded.
    OptionError : a search of no or too great a reach.
    UnusableContent : too little of both can overlap, or one of them is silent.
    """
    if not 0 < search_s <= MAX_SEARCH_S or not math.isfinite(expected_s):
        raise OptionError(
            f"A search of {search_s:g} s around {expected_s:g} s makes no sense: the reach must "
            f"lie between 0 and {MAX_SEARCH_S:.0f} s."
        )
    heard_of_track = track_channels(track) if w_channel is None else [w_channel]
    ears = Ear(camera, camera_channels(camera)), Ear(track, heard_of_track)
    lines = coarse_lines(*ears, expected_s, search_s)
    told = _told(ears, lines, expected_s, search_s)
    if told:
        alike = lines_like(told[0].line, *ears, expected_s, search_s, _N_ALIKE)
        told = _highest_first(told + _told(ears, alike, expected_s, search_s))
    line = told[0].line if told else lines[0]
    heard = chunks_near(*ears, line, _MAX_CHUNKS)
    near = _within(places_of(heard, line, search_s), expected_s, search_s)
    together = max(near, key=lambda place: place.odds) if near else None
    sync = _judged([h.chunk for h in heard], line, search_s, together)
    rivals_s = _rivals_s(told, ears[0].duration_s / 2)
    if sync.belonging is Belonging.SYNCHRONISED and rivals_s:
        return replace(
            sync,
            belonging=Belonging.UNDECIDABLE,
            confidence=min(sync.confidence, 1 / (1 + len(rivals_s))),
            reason=_many_places(sync.offset_s, rivals_s),
        )
    return sync


# --- judging -------------------------------------------------------------------------------------


def _told(
    ears: tuple[Ear, Ear], lines: list[Line], expected_s: float, search_s: float
) -> list[Place]:
    """Places near lines that some chunks show to be more than chance, the highest first."""
    places = [
        place
        for line in lines
        for place in places_of(chunks_near(*ears, line, _TRIAL_CHUNKS), line, search_s)
    ]
    return _highest_first([p for p in _within(places, expected_s, search_s) if p.odds > 0])


def _within(places: list[Place], expected_s: float, search_s: float) -> list[Place]:
    """Those where a search was asked for: the fine one looks further."""
    return [p for p in places if abs(p.line.at_zero_s - expected_s) < search_s + BIN_S]


def _highest_first(places: list[Place]) -> list[Place]:
    return sorted(places, key=lambda place: -abs(place.height))


def _rivals_s(places: list[Place], at_s: float) -> list[float]:
    """How far from the first of places others lie, at that time, that fit about as well."""
    apart_s = [0.0]
    for place in places:
        away_s = place.line.delay(at_s) - places[0].line.delay(at_s)
        high = abs(place.height) > _RIVAL * abs(places[0].height)
        if high and all(abs(away_s - other) > APART_S for other in apart_s):
            apart_s.append(away_s)
    return apart_s[1:]


def _many_places(offset_s: float, rivals_s: list[float]) -> str:
    more = f" and at {len(rivals_s) - 1} more places" if len(rivals_s) > 1 else ""
    return (
        f"The sound repeats itself: the track fits at {offset_s:+.2f} s, at "
        f"{offset_s + rivals_s[0]:+.2f} s{more}. Say where it begins, or search less far."
    )


def _judged(
    chunks: list[Chunk], coarse: Line, search_s: float, together: Place | None = None
) -> Synchronisation:
    """By the line near the coarse one that chunks agree on, or by that of all of them together."""
    times = np.array([chunk.camera_s for chunk in chunks])
    delays = np.array([chunk.delay_s for chunk in chunks])
    fit = _fit_near(times, delays, coarse, _NEAR_S)
    odds = log_odds(times, delays - fit.line.delay(times), reach_s=REACH_S, search_s=search_s)
    strengths = [c.strength for c, agrees in zip(chunks, fit.agrees, strict=True) if agrees]
    by_all = together is not None and odds < _SURE_ODDS and together.odds > 0
    if together is not None:
        odds = max(odds, together.odds)
    if together is not None and by_all:
        fit = _fit_near(times, delays, together.line, _NEAR_STACK_S)
        strengths = [together.height]
        if fit.agrees.sum() < 2:  # the stack's own line: to a sample, its slope to what clocks do
            fit = replace(fit, level_std_s=1 / RATE, slope_std=MAX_SLOPE)
    confidence = float(expit(odds))
    belonging, reason = _verdict(
        len(chunks), int(fit.agrees.sum()), confidence, search_s, by_all=by_all
    )
    stretch = 1 / (1 - fit.line.slope)
    return Synchronisation(
        belonging=belonging,
        offset_s=fit.line.at_zero_s * stretch,
        drift_ppm=(stretch - 1) * 1e6,
        offset_std_s=fit.level_std_s,
        drift_std_ppm=fit.slope_std * 1e6,
        confidence=confidence,
        inverted=bool(strengths) and float(np.median(strengths)) < 0,
        reason=reason,
        chunks=tuple(replace(c, agrees=bool(a)) for c, a in zip(chunks, fit.agrees, strict=True)),
    )


def _fit_near(times: FloatArray, delays: FloatArray, about: Line, near_s: float) -> Fit:
    """The line through the delays near another; fewer than two leave that one as it is."""
    near = np.abs(delays - about.delay(times)) < near_s
    return fitted(times, delays, near) if near.sum() >= 2 else Fit(about, near, math.inf, math.inf)


def _verdict(
    n_chunks: int, n_agreeing: int, confidence: float, search_s: float, *, by_all: bool
) -> tuple[Belonging, str]:
    agree = f"{n_agreeing} of {n_chunks} chunks agree on one delay"
    if confidence >= SURE:
        laid = ", and all of them laid over each other show it" if by_all else ""
        return Belonging.SYNCHRONISED, f"{agree}{laid}."
    if confidence > 1 - SURE or n_chunks < _LEAST_CHUNKS:
        return Belonging.UNDECIDABLE, f"Only {agree}: too little sound is shared to be sure."
    return (
        Belonging.FOREIGN,
        f"Only {agree}: the track does not belong to the camera's sound, or begins more than "
        f"{search_s:g} s from where it was expected.",
    )


# --- telling -------------------------------------------------------------------------------------


def as_json(sync: Synchronisation) -> dict[str, Any]:
    """The result for JSON; what cannot be told (infinite deviations) is null."""
    known = math.isfinite(sync.offset_std_s)
    return {
        "verdict": sync.belonging.value,
        "offset_s": round(sync.offset_s, 6),
        "offset_std_s": round(sync.offset_std_s, 6) if known else None,
        "drift_ppm": round(sync.drift_ppm, 3),
        "drift_std_ppm": round(sync.drift_std_ppm, 3) if known else None,
        "confidence": round(sync.confidence, 4),
        "polarity_inverted": sync.inverted,
        "reason": sync.reason,
        "chunks": [
            {**asdict(chunk), "camera_s": round(chunk.camera_s, 3),
             "delay_s": round(chunk.delay_s, 6), "strength": round(chunk.strength, 2)}
            for chunk in sync.chunks
        ],
    }  # fmt: skip


def sentence(sync: Synchronisation) -> str:
    """The result in a line."""
    if sync.belonging is not Belonging.SYNCHRONISED:
        return f"{sync.belonging.value}: {sync.reason}"
    inverted = ", polarity inverted" if sync.inverted else ""
    return (
        f"the track begins at {sync.offset_s:+z.4f} s of the camera and drifts by "
        f"{sync.drift_ppm:+z.1f} ± {GAUSSIAN_REACH * sync.drift_std_ppm:.1f} ppm{inverted} "
        f"(confidence {percent(sync.confidence)}; {sync.reason.rstrip('.')})"
    )


def draw(sync: Synchronisation, path: Path) -> None:
    """The chunks' delays about the line, as PNG."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    middle = float(np.mean([c.camera_s for c in sync.chunks])) if sync.chunks else 0.0
    level = middle - sync.track_s(middle)
    for agrees, colour, label in ((True, "#2e8b57", "agree"), (False, "#c8501e", "rejected")):
        chosen = [c for c in sync.chunks if c.agrees == agrees]
        axes.scatter(
            [c.camera_s for c in chosen], [1e3 * (c.delay_s - level) for c in chosen],
            s=[8 + min(abs(c.strength), 40) for c in chosen], color=colour,
            label=f"{len(chosen)} chunks {label}", zorder=3,
        )  # fmt: skip
    times = np.array([c.camera_s for c in sync.chunks])
    axes.plot(times, 1e3 * (times - sync.track_s(times) - level), color="#1f5fa8", linewidth=1)
    axes.set(xlabel="camera's time, s", ylabel=f"delay beyond {level:+.3f} s, ms")
    axes.set_title(sentence(sync), fontsize=9, wrap=True)
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, format="png")


def _camera(path: Path) -> AudioReader:
    """The sound of a camera's file.

    Raises
    ------
    NoSound, MediaError : it has none, or cannot be read.
    """
    try:
        return open_audio(path)
    except NoSound as error:
        raise NoSound(
            f"{path} has no sound of its own, which alone would tell where the track begins: find "
            "it by eye, and say it to model.align by --offset-s."
        ) from error


def _note_on_picture(path: Path, camera: AudioReader, sync: Synchronisation) -> str | None:
    """Where a track begins in the camera's picture, if its sound begins at another time."""
    try:
        picture_s = picture_begins_s(path)
    except MediaError:  # sound files are read by others, too
        picture_s = None
    late_s = 0.0 if picture_s is None else camera.info.start_s - picture_s
    if sync.belonging is not Belonging.SYNCHRONISED or abs(late_s) < WORTH_TELLING_S:
        return None
    return (
        f"  note: the camera's sound begins at {late_s:+.3f} s of its picture, so the track at "
        f"{sync.offset_s + late_s:+z.3f} s of that (--offset-s of model.align)."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m model.sync", description="Find where a track begins in a camera's sound."
    )
    parser.add_argument("camera", type=Path, help="the camera's file, with sound of its own")
    parser.add_argument("track", type=Path, help="the track to place")
    parser.add_argument("--expected-s", type=float, default=0.0, help="where it should begin (0)")
    parser.add_argument("--search-s", type=float, default=SEARCH_S, help="how far from that (30)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--plot", type=Path, help="write the picture as PNG")
    add_debug(parser)
    arguments = parser.parse_args(argv)
    try:
        if arguments.plot is not None:
            check_output(arguments.plot, [arguments.camera, arguments.track], begins=PNG)
        with _camera(arguments.camera) as camera, open_audio(arguments.track) as track:
            sync = synchronise(
                camera, track, expected_s=arguments.expected_s, search_s=arguments.search_s
            )
            note = _note_on_picture(arguments.camera, camera, sync)
        if arguments.plot is not None:
            draw(sync, arguments.plot)
    except AvsaError as error:
        print(f"error: {in_one_line(error)}", file=sys.stderr)
        return 2
    print(json.dumps(as_json(sync), indent=2) if arguments.json else sentence(sync))
    if note and not arguments.json:
        print(note)
    return 0


if __name__ == "__main__":
    sys.exit(command(main, in_a_line=True))
