"""Two ambisonic recordings of one place: the rotation between them, in closed form.

python -m model.reference REFERENCE TRACK [--json]

A camera with a microphone array of its own says where its front is; an external track of the same
sound then needs no picture. The microphones do not stand in one point, so above c / (4 d) (286 Hz
for 30 cm) their waveforms have nothing in common but their intensity vectors have: with I the
active intensity Re W* (X, Y, Z) of each bin of the short-time spectrum, the moments
M = sum w I_ref I_track^T hold the rotation. Onsets count, for echoes come from elsewhere.

Below, and as far above as the way between the microphones can be found (`displacement`), what is
new in the waveforms themselves is compared (`echoes`, `coherence`), which tells more where sound
comes from everywhere.

The tracks are aligned in time first (`sync`); the moments' solution is `comparison`'s.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import sync
from model.ambisonics import ChannelLayout, Convention, Fix
from model.arcs import told_arc, told_deg
from model.errors import AvsaError, OptionError, UnsupportedMedia, in_one_line
from model.interruption import add_debug, command
from model.media import AudioReader, Clock, open_audio
from model.recordings.coherence import cross_spectra
from model.recordings.comparison import Comparison, Outcome, solve, turn_of, unsynchronised
from model.recordings.displacement import SPEED_OF_SOUND, displacement_m, moved
from model.recordings.echoes import LONGEST_S, Pair, late_by_s, unforeseen, without_echoes
from model.recordings.intensity import HIGHEST_HZ, LOWEST_HZ, RATE, moments
from model.sync import Belonging, Synchronisation, synchronise
from model.timing.listening import Ear
from model.wording import INTERVAL_LEVEL, angle, percent

FloatArray = NDArray[np.float64]

# Taken where it is not known; beyond, echoes are left alone and no place is sought.
_LIKELY_M, _FARTHEST_M = 1.0, 3.0
_MICROPHONES_S = 0.0006  # by which their own responses, and what is left of the offset, delay
# Half of the intensities are left to compare; in whole centimetres, as it is told.
_LEAST_SPACING_M = math.ceil(100 * SPEED_OF_SOUND / (2 * HIGHEST_HZ)) / 100
_WINDOWS, _LONGEST_WINDOW_S, _LEAST_WINDOWS = 60, 4.0, 12


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
        """W, Y, Z, X (SN3D) of a stretch, [shape=(4, N)] at 16 kHz; silence beyond the ends.

        N is the duration's, whatever the file's own rate: fields of two files lie on each other.
        """
        _, channels = self._ear.listen(start_s, duration_s, RATE)
        return np.asarray(channels[:, : round(duration_s * RATE)] * self._gains[:, None])


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
        and above 200 Hz anyway, and what comes later than sound takes for it is taken for echoes.
    synchronisation : of the track against the reference, if it is known already.

    Raises
    ------
    MediaError, UnusableContent : as `sync.synchronise`.
    OptionError : a spacing that leaves nothing to compare.
    """
    lowest_hz, way_m = _lowest_hz(spacing_m), _LIKELY_M if spacing_m is None else spacing_m
    aligned = synchronisation or synchronise(
        reference.reader, track.reader, w_channel=track.layout.components[0]
    )
    if aligned.belonging is not Belonging.SYNCHRONISED:
        return unsynchronised(aligned)
    start = max(0.0, aligned.offset_s)
    end = min(reference.duration_s, aligned.camera_s(track.duration_s))
    length = min(_LONGEST_WINDOW_S, (end - start) / _LEAST_WINDOWS)
    n_windows = min(_WINDOWS, math.floor((end - start) / length + 1e-9))
    starts = np.linspace(start, end - length, n_windows)
    heard = _heard(reference, track, aligned, starts, length)
    pairs = list(_later(_without_echoes(heard, way_m)))
    known = moments(pairs, lowest_hz=lowest_hz)
    turn = turn_of(known.by_window.sum(0))
    spectra = cross_spectra(_later(_in_one_place(heard, pairs, turn, way_m)))
    return solve(known, spectra, starts, length, aligned)


def _heard(
    reference: Recording,
    track: Recording,
    clock: Clock,
    starts: FloatArray,
    length_s: float,
) -> list[Pair]:
    """Both fields over stretches of the reference's time, and over what came before each.

    clock : of the track, against the reference's.
    """

    def fields(late_s: float) -> list[Pair]:
        at = [(start - LONGEST_S, clock.track_s(start - LONGEST_S)) for start in starts]
        return [
            (
                reference.field(ours, length_s + LONGEST_S),
                track.field(its + late_s, length_s + LONGEST_S),
            )
            for ours, its in at
        ]

    return fields(late_by_s(fields(0.0)))


def _later(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Stretches without what came before them."""
    n = round(LONGEST_S * RATE)
    return ((ref[:, n:], own[:, n:]) for ref, own in pairs)


def _without_echoes(heard: Sequence[Pair], way_m: float) -> Sequence[Pair]:
    """The same pairs, the track without its echoes, unless it may have come from too far."""
    if way_m > _FARTHEST_M:
        return heard
    return without_echoes(heard, direct_s=_direct_s(way_m))


def _in_one_place(
    heard: Sequence[Pair], pairs: Sequence[Pair], turn: FloatArray, way_m: float
) -> Iterable[Pair]:
    """What is new in both fields, the reference as it would be heard where the track was.

    pairs : the same without the track's echoes, which its place is found by.
    """
    if way_m > _FARTHEST_M:
        return heard
    place = displacement_m(pairs, turn, way_m=way_m)
    there = [(moved(ref, place, RATE), own) for ref, own in heard]
    return unforeseen(there, [ref for ref, _ in heard], direct_s=_direct_s(way_m))


def _direct_s(way_m: float) -> float:
    """By how much direct sound may come earlier or later in the track."""
    return way_m / SPEED_OF_SOUND + _MICROPHONES_S


def _lowest_hz(spacing_m: float | None) -> float:
    if spacing_m is None:
        return LOWEST_HZ
    if not spacing_m >= _LEAST_SPACING_M:
        raise OptionError(
            f"A spacing of {spacing_m:g} m makes no sense here: it must be at least "
            f"{_LEAST_SPACING_M:g} m; leave it away if it is not known."
        )
    return max(LOWEST_HZ, SPEED_OF_SOUND / (4 * spacing_m))


# --- telling -------------------------------------------------------------------------------------


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The result for JSON."""
    c = comparison
    return {
        "verdict": c.outcome.value,
        "rotate_field_ccw_deg": told_deg(c.rotate_field_ccw_deg),
        "interval_deg": told_arc(c.interval_deg),
        "interval_level": INTERVAL_LEVEL,
        "rotation": None if c.rotation is None else np.round(c.rotation, 5).tolist(),
        "tilt_deg": None if c.tilt_deg is None else round(c.tilt_deg, 2),
        "tilt_interval_deg": c.tilt_interval_deg
        and [round(edge, 2) for edge in c.tilt_interval_deg],
        "upside_down": c.upside_down,
        "mirrored": c.mirrored,
        "flip": c.flip,
        "agreement": round(c.agreement, 4),
        "coherence": round(c.coherence, 4),
        "singular_values": [round(value, 4) for value in c.singular_values],
        "reasons": list(c.reasons),
        "windows": [
            {name: round(value, 3) for name, value in asdict(window).items()}
            for window in c.windows
        ],
        "synchronisation": c.synchronisation and sync.as_json(c.synchronisation),
    }


def sentence(comparison: Comparison) -> str:
    """The result in a line, and what is to be known of it."""
    reasons = " ".join(comparison.reasons)
    if comparison.outcome is Outcome.UNDECIDABLE:
        return f"undecidable: {reasons}"
    return f"{angle_sentence(comparison)} {reasons}".rstrip()


def angle_sentence(comparison: Comparison) -> str:
    """The result alone, of a comparison that has one."""
    low, high = comparison.interval_deg
    return (
        f"{comparison.outcome.value}: rotate_field_ccw_deg "
        f"{angle(comparison.rotate_field_ccw_deg)} "
        f"({percent(INTERVAL_LEVEL)} within ±{(high - low) / 2:.1f}°)."
    )


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
    add_debug(parser)
    arguments = parser.parse_args(argv)
    try:
        with open_audio(arguments.reference) as reference, open_audio(arguments.track) as track:
            found = compare(Recording(reference), Recording(track), spacing_m=arguments.spacing_m)
    except AvsaError as error:
        print(f"error: {in_one_line(error)}", file=sys.stderr)
        return 2
    print(json.dumps(as_json(found), indent=2) if arguments.json else sentence(found))
    return 0


if __name__ == "__main__":
    sys.exit(command(main, in_a_line=True))
