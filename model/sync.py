"""Time first: where a track begins in the camera's own sound, and how its clock drifts.

python -m model.sync CAMERA TRACK [--search-s 30] [--json] [--plot P.png]

Two steps, each over a fixed number of places, so that cost and memory do not grow with the take:

1. Coarse: the lines of delay over time that short frames of the camera's sound, correlated with
   all of the track within reach, agree upon (see `coarse`).
2. Fine: chunks all over the overlap are correlated near that line (GCC-PHAT, see `correlation`),
   to a fraction of a sample, and a robust line through their delays gives offset and drift (see
   `consensus`). The chunks off that line are rejected; how many are on it, and how closely, is the
   confidence, for a foreign track's chunks point anywhere. Where noise hides the most of them, all
   of them laid over each other may tell (see `stacking`).

Clocks: the track's time t is the camera's time ``offset_s + (1 + drift_ppm / 10⁶) t``; both count
from the first sample of their sound.
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

from model.coarse import BIN_S, MARGIN_S, MAX_SLOPE, coarse_lines
from model.consensus import Line, fitted, log_odds
from model.correlation import correlated, deviations, refined_peak, whitened
from model.errors import AvsaError, OptionError
from model.listening import Ear, camera_channels, track_channels
from model.media import AudioReader, open_audio
from model.output import check_output, whole_file
from model.stacking import Stack, slant_stack

FloatArray = NDArray[np.float64]

SEARCH_S = 30.0
MAX_SEARCH_S = 600.0
SURE = 0.95  # of the confidence, for or against: between, the track is not said to belong or not
_SURE_ODDS = math.log(SURE / (1 - SURE))

_FINE_RATE = 16_000
_TRIAL_CHUNKS = 8
_RIVAL = 0.8  # of the best line's support: another with more is as good
_MAX_CHUNKS, _CHUNK_S, _FINE_FRAME_S = 60, 8.0, 1.0
_REACH_S = 0.25  # the fine search to either side of the coarse line
_LEAST_CHUNKS = 4  # fewer cannot say that a track is foreign
_NEAR_S = 0.005  # of the line: a chunk that agrees with it
_NEAR_STACK_S = 0.001  # of a line that chunks show together, though most by themselves do not


class Belonging(StrEnum):
    """Whether the track was recorded where the camera was."""

    SYNCHRONISED = "synchronised"
    FOREIGN = "foreign"
    UNDECIDABLE = "undecidable"


@dataclass(frozen=True)
class Chunk:
    """A stretch of the camera's sound, found in the track.

    Attributes
    ----------
    camera_s : time of its middle on the camera's clock.
    delay_s : camera's time minus the track's at which both hold the same sound.
    strength : height of the correlation's peak, in deviations of its noise; negative if inverted.
    agrees : whether it lies on the common line.
    """

    camera_s: float
    delay_s: float
    strength: float
    agrees: bool


@dataclass(frozen=True)
class _Heard:
    """A chunk and its correlation about the coarse line, by rising delay, [shape=(C, lags)]."""

    chunk: Chunk
    curve: FloatArray


@dataclass(frozen=True)
class Synchronisation:
    """How a track's time runs against a camera's.

    Attributes
    ----------
    offset_s : camera's time at which the track begins.
    drift_ppm : by how many millionths a second of the track is longer on the camera's clock.
    offset_std_s, drift_std_ppm : standard deviations of both, from the chunks' scatter; the
        offset's is that at the middle of the overlap.
    confidence : probability that the track belongs and the line is right.
    inverted : whether the track's polarity is the opposite of the camera's.
    reason : the verdict in a sentence.
    """

    belonging: Belonging
    offset_s: float
    drift_ppm: float
    offset_std_s: float
    drift_std_ppm: float
    confidence: float
    inverted: bool
    reason: str
    chunks: tuple[Chunk, ...]

    def camera_time(self, track_s: float) -> float:
        """The camera's time of a time of the track."""
        return self.offset_s + (1 + self.drift_ppm / 1e6) * track_s

    def track_time(self, camera_s: float) -> float:
        """The track's time of a time of the camera; inverse of `camera_time`."""
        return (camera_s - self.offset_s) / (1 + self.drift_ppm / 1e6)


def synchronise(
    camera: AudioReader,
    track: AudioReader,
    *,
    expected_s: float = 0.0,
    search_s: float = SEARCH_S,
) -> Synchronisation:
    """Find offset and drift of a track against the camera's own sound.

    Of the camera, W (ambisonic), or the first two channels are heard; of the track, W.

    expected_s : camera's time at which the track should begin.
    search_s : how far from that it may begin, to either side.

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
    ears = Ear(camera, camera_channels(camera)), Ear(track, track_channels(track))
    lines = coarse_lines(*ears, expected_s, search_s)
    # Sound that repeats itself fits at many places, but best at the true one.
    trials = [(_support(_fine_chunks(*ears, line, _TRIAL_CHUNKS), line), line) for line in lines]
    trials.sort(key=lambda trial: -trial[0])
    (best, line), *others = trials
    heard = _fine_chunks(*ears, line, _MAX_CHUNKS)
    sync = _judged([h.chunk for h in heard], line, search_s, _stacked(heard, line, search_s))
    rivals = [other for support, other in others if support > _RIVAL * best]
    if sync.belonging is Belonging.SYNCHRONISED and rivals:
        return replace(
            sync,
            belonging=Belonging.UNDECIDABLE,
            confidence=min(sync.confidence, 1 / (1 + len(rivals))),
            reason="The sound repeats itself: the track fits as well "
            f"{rivals[0].at_zero_s - line.at_zero_s:+.2f} s from there.",
        )
    return sync


# --- fine ----------------------------------------------------------------------------------------


def _support(heard: list[_Heard], line: Line) -> float:
    """How strongly the chunks near a line speak for it."""
    chunks = [h.chunk for h in heard]
    near = [c for c in chunks if abs(c.delay_s - line.delay(c.camera_s)) < _NEAR_S]
    return sum(abs(chunk.strength) for chunk in near)


def _fine_chunks(camera: Ear, track: Ear, line: Line, most: int) -> list[_Heard]:
    """Delays of chunks all over the overlap that the line claims; none that is silent."""
    start = max(0.0, line.at_zero_s / (1 - line.slope))
    end = min(camera.duration_s, (track.duration_s + line.at_zero_s) / (1 - line.slope))
    length = min(_CHUNK_S, max(_FINE_FRAME_S, (end - start) / 8))
    n_chunks = min(most, math.floor((end - start) / length))
    if n_chunks < 1:
        return []
    starts = np.linspace(start, end - length, n_chunks)
    chunks = (_measured(camera, track, float(at), length, line) for at in starts)
    return [chunk for chunk in chunks if chunk is not None]


def _measured(camera: Ear, track: Ear, at_s: float, length_s: float, line: Line) -> _Heard | None:
    """One chunk's delay near the line: correlations of its frames, each laid along the line."""
    rate = _FINE_RATE
    size, reach = round(_FINE_FRAME_S * rate), round(_REACH_S * rate)
    margin_s = _REACH_S + MARGIN_S
    camera_start, seen = camera.listen(at_s, length_s, rate)
    track_start, heard = track.listen(
        at_s - line.delay(at_s) - margin_s, length_s + 2 * margin_s, rate
    )
    seen, heard = whitened(seen, rate), whitened(heard, rate)
    total = np.zeros((len(seen), 2 * reach + 1))
    roundings = []
    for begin in range(0, seen.shape[1] - size + 1, size):
        begin_s = camera_start + begin / rate
        place = (begin_s - line.delay(begin_s + _FINE_FRAME_S / 2) - track_start) * rate - reach
        first = round(place)
        hay = heard[:, first : first + size + 2 * reach]
        total += correlated(seen[:, begin : begin + size], hay)
        roundings.append(first - place)
    strengths = deviations(total)
    if not strengths.any():
        return None
    # Channels of a pair vote together; the clearer one then says where exactly.
    joint = int(np.argmax((strengths**2).sum(axis=0)))
    clearer = strengths[int(np.argmax(np.abs(strengths[:, joint])))]
    low = max(0, joint - 1)
    at, height = refined_peak(clearer[low : joint + 2])
    # A later place in the track is a smaller delay.
    later_s = (low + at - reach + float(np.mean(roundings))) / rate
    middle = camera_start + length_s / 2
    chunk = Chunk(middle, line.delay(middle) - later_s, height, agrees=False)
    return _Heard(chunk, strengths[:, ::-1])


# --- judging -------------------------------------------------------------------------------------


def _stacked(heard: list[_Heard], coarse: Line, search_s: float) -> tuple[Stack, float] | None:
    """All chunks' correlations laid over each other, and the log-odds of that line."""
    if len(heard) < 2:
        return None
    times = np.array([h.chunk.camera_s for h in heard])
    half_span = float(np.ptp(times)) / 2
    # Steeper by a step, the first and last move by a sample; the coarse slope is off by two bins.
    step, reach = 1 / (_FINE_RATE * half_span), 2 * BIN_S / half_span
    least, most = (min(max(at, -MAX_SLOPE), MAX_SLOPE) - coarse.slope
                   for at in (coarse.slope - reach, coarse.slope + reach))  # fmt: skip
    slopes = np.arange(least, most + step, step)
    curves = np.stack([h.curve for h in heard])
    stack = slant_stack(curves, times, slopes, rate_hz=_FINE_RATE)
    line = Line(coarse.at_zero_s + stack.line.at_zero_s, coarse.slope + stack.line.slope)
    n_places = 2 * search_s * _FINE_RATE * len(slopes) * curves.shape[1]
    return Stack(line, stack.height), stack.log_odds(n_places)


def _judged(
    chunks: list[Chunk], coarse: Line, search_s: float, stacked: tuple[Stack, float] | None = None
) -> Synchronisation:
    """By the line near the coarse one that chunks agree on, or by that of all of them together."""
    times = np.array([chunk.camera_s for chunk in chunks])
    delays = np.array([chunk.delay_s for chunk in chunks])
    line, agrees, level_std, slope_std = _line_near(times, delays, coarse, _NEAR_S)
    odds = log_odds(times, delays - line.delays(times), reach_s=_REACH_S, search_s=search_s)
    strengths = [c.strength for c, agree in zip(chunks, agrees, strict=True) if agree]
    together = False
    if stacked is not None:
        stack, stack_odds = stacked
        together = odds < _SURE_ODDS and stack_odds > 0
        odds = max(odds, stack_odds)
        if together:
            line, agrees, level_std, slope_std = _line_near(
                times, delays, stack.line, _NEAR_STACK_S
            )
            strengths = [stack.height]
            if agrees.sum() < 2:  # the stack's own line: to a sample, its slope to what clocks do
                level_std, slope_std = 1 / _FINE_RATE, MAX_SLOPE
    confidence = 1 / (1 + math.exp(-min(odds, 50.0))) if odds > -50 else 0.0
    belonging, reason = _verdict(
        len(chunks), int(agrees.sum()), confidence, search_s, together=together
    )
    stretch = 1 / (1 - line.slope)
    return Synchronisation(
        belonging=belonging,
        offset_s=line.at_zero_s * stretch,
        drift_ppm=(stretch - 1) * 1e6,
        offset_std_s=level_std,
        drift_std_ppm=slope_std * 1e6,
        confidence=confidence,
        inverted=bool(strengths) and float(np.median(strengths)) < 0,
        reason=reason,
        chunks=tuple(replace(c, agrees=bool(a)) for c, a in zip(chunks, agrees, strict=True)),
    )


def _line_near(
    times: FloatArray, delays: FloatArray, about: Line, near_s: float
) -> tuple[Line, NDArray[np.bool_], float, float]:
    """The line through the delays near another, which of them agree, and its deviations.

    Fewer than two leave the other line as it is.
    """
    agrees = np.abs(delays - about.delays(times)) < near_s
    if agrees.sum() < 2:
        return about, agrees, math.inf, math.inf
    fit = fitted(times, delays, agrees)
    return fit.line, fit.agrees, fit.level_std_s, fit.slope_std


def _verdict(
    n_chunks: int, n_agreeing: int, confidence: float, search_s: float, *, together: bool
) -> tuple[Belonging, str]:
    agree = f"{n_agreeing} of {n_chunks} chunks agree on one delay"
    if confidence >= SURE:
        laid = ", and all of them laid over each other show it" if together else ""
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
        f"the track begins at {sync.offset_s:+.4f} s of the camera and drifts by "
        f"{sync.drift_ppm:+.1f} ± {1.64 * sync.drift_std_ppm:.1f} ppm{inverted} "
        f"(confidence {sync.confidence:.0%}; {sync.reason.rstrip('.')})"
    )


def draw(sync: Synchronisation, path: Path) -> None:
    """The chunks' delays about the line, as PNG."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    middle = float(np.mean([c.camera_s for c in sync.chunks])) if sync.chunks else 0.0
    level = middle - sync.track_time(middle)
    for agrees, colour, label in ((True, "#2e8b57", "agree"), (False, "#c8501e", "rejected")):
        chosen = [c for c in sync.chunks if c.agrees == agrees]
        axes.scatter(
            [c.camera_s for c in chosen], [1e3 * (c.delay_s - level) for c in chosen],
            s=[8 + min(abs(c.strength), 40) for c in chosen], color=colour,
            label=f"{len(chosen)} chunks {label}", zorder=3,
        )  # fmt: skip
    times = np.array([c.camera_s for c in sync.chunks])
    line = times - (times - sync.offset_s) / (1 + sync.drift_ppm / 1e6)
    axes.plot(times, 1e3 * (line - level), color="#1f5fa8", linewidth=1)
    axes.set(xlabel="camera's time, s", ylabel=f"delay beyond {level:+.3f} s, ms")
    axes.set_title(sentence(sync), fontsize=9, wrap=True)
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, format="png")


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
    arguments = parser.parse_args(argv)
    try:
        if arguments.plot is not None:
            check_output(arguments.plot, [arguments.camera, arguments.track])
        with open_audio(arguments.camera) as camera, open_audio(arguments.track) as track:
            sync = synchronise(
                camera, track, expected_s=arguments.expected_s, search_s=arguments.search_s
            )
        if arguments.plot is not None:
            draw(sync, arguments.plot)
    except AvsaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(as_json(sync), indent=2) if arguments.json else sentence(sync))
    return 0


if __name__ == "__main__":
    sys.exit(main())
