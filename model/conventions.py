"""The convention doctor: is this track what it claims to be, before any angle is sought?

    python -m model.conventions FILE ... [--json]

A wrong convention is a commoner fault than a wrong angle, and an aligner that trusts its input is
confidently wrong. From the sound alone a track is weighed against every common reading of its
channels (`model.channels.readings` says what sound can tell, and what it cannot) and checked for
dead, copied, offset and mismatched channels. Each finding has a probability, a sentence and a fix.
Nothing is changed here: `Diagnosis.selection` is what a job under `--convention auto` may take
over, which is order and weights only, and only when they are sure.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from model.ambisonics import FUMA_CHANNEL, ChannelLayout, Convention
from model.channels import faults
from model.channels.faults import Finding
from model.channels.measures import ChannelStatistics, measure_track, too_short
from model.channels.readings import (
    KNOWN,
    Reading,
    capsule_probability,
    omni_probabilities,
    reading_probabilities,
)
from model.errors import AvsaError, UnsupportedMedia, UnusableContent, in_one_line
from model.interruption import add_debug, command
from model.media import AudioInfo, AudioReader, open_split_audio
from model.wording import percent

LIKELY = 0.5  # from here on a finding is told as a warning
SURE = 0.95  # from here on order and weights are taken over
_WORTH_TELLING = 0.1
READING_CODES = frozenset(reading.value for reading in Reading)  # findings about order and weights


@dataclass(frozen=True)
class Selection:
    """Order and weights to read a track by, in place of AmbiX."""

    convention: Convention
    components: tuple[int, ...] | None = None

    @property
    def option(self) -> str:
        """The option that asks for the same."""
        if self.components is None:
            return f"--convention {self.convention.value}"
        return f"--channels {','.join(map(str, self.components))}"


@dataclass(frozen=True)
class Diagnosis:
    """What a track's channels are found to be.

    Attributes
    ----------
    findings : the likeliest first, problems before notes.
    readings : probability of each order and weights, given that it is B-format with W first.
    selection : what to read the track by where that is sure and nothing was declared, else None.
    declared : whether user or file say what order and weights are.
    """

    findings: tuple[Finding, ...]
    readings: dict[Reading, float]
    selection: Selection | None = None
    declared: bool = False

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Findings that say something is wrong and are more likely true than not."""
        return tuple(f for f in self.findings if f.problem and f.probability >= LIKELY)

    @property
    def warnings(self) -> list[str]:
        """The problems as sentences, with what to do or what was done, and how sure that is."""
        return [self._warning(finding) for finding in self.problems]

    def _warning(self, finding: Finding) -> str:
        words = f"{finding.sentence} ({percent(finding.probability)} sure.)"
        if self.selection is not None and finding.code in READING_CODES:
            return f"{words} It declares nothing, so it was read so; --convention ambix forbids it."
        return f"{words} Fix: {finding.fix}." if finding.fix else words

    def with_findings(self, findings: Sequence[Finding]) -> Diagnosis:
        """The diagnosis with what else was found, as by the picture."""
        return replace(self, findings=_told([*self.findings, *findings]))

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "readings": {reading.value: round(p, 4) for reading, p in self.readings.items()},
            "selected": None
            if self.selection is None
            else {
                "convention": self.selection.convention.value,
                "components": self.selection.components,
            },
        }


def diagnose(
    reader: AudioReader,
    *,
    convention: Convention | None = None,
    components: Sequence[int] | None = None,
) -> Diagnosis:
    """Examine an open track from its sound alone.

    convention, components : what the user says of order and weights (`ChannelLayout.of`); else
        what the file declares counts, and only where that is nothing is there a selection.

    Raises
    ------
    MediaError : the track cannot be decoded.
    OptionError : `components` does not fit the track.
    """
    info = reader.info
    if convention is None and info.convention is not None:
        convention = Convention(info.convention)
    if components is None:
        components = info.components
    if components is not None:
        convention = convention or Convention.AMBIX
        layout = ChannelLayout.of(info.n_channels, convention, components=components)
    elif (counted := _layout(info)) is None:
        return Diagnosis((faults.not_ambisonic(info.n_channels),), {})
    else:
        layout = counted
    # 0 is what containers say that do not know it.
    if info.n_samples and too_short(info.n_samples, info.samplerate):
        return Diagnosis((faults.too_short(info.duration_s),), {})
    n_components = len(layout.components)
    channels = None if components is None else _in_file_order(layout)
    try:
        stats = measure_track(reader, channels)
    except UnusableContent:
        return Diagnosis((faults.silent(),), {})
    return judge_channels(stats, n_components=n_components, declared=convention)


def _layout(info: AudioInfo) -> ChannelLayout | None:
    """The layout of an AmbiX file with as many channels; None if the count is no ambisonic one."""
    try:
        return ChannelLayout.of(info.n_channels)
    except UnsupportedMedia:
        return None


def _in_file_order(layout: ChannelLayout) -> list[int]:
    """The channels in the order in which a file of the layout's convention has them."""
    if layout.convention is not Convention.FUMA:
        return list(layout.components)
    n_components = len(layout.components)
    return [layout.components[FUMA_CHANNEL.index(place)] for place in range(n_components)]


def judge_channels(
    stats: ChannelStatistics, *, n_components: int = 4, declared: Convention | None = None
) -> Diagnosis:
    """The diagnosis of measured channels, of which the first `n_components` hold components."""
    findings = faults.offsets(stats) + faults.head_locked(stats, n_components)
    silent = faults.dead_channels(stats, n_components)
    if silent.fatal:
        return Diagnosis(_told(findings + silent.findings), {})
    capsules, closed = capsule_probability(stats)
    omni = omni_probabilities(stats)
    readings = reading_probabilities(stats, n_components_=n_components, declared=declared)
    sound = (1 - capsules) * omni[0]  # B-format with W in front
    likely = {reading: p * sound for reading, p in readings.items()}
    findings += faults.one_signal(stats)
    findings += faults.capsules(capsules, closed=closed)
    findings += faults.omni_elsewhere(stats, omni * (1 - capsules))
    findings += faults.copies(stats, n_components)
    best = max(readings, key=lambda reading: readings[reading])
    if sound > LIKELY:
        findings += silent.of_reading(KNOWN[best].channels)
        findings += faults.elevations(stats, vertical=KNOWN[best].channels[2])
        findings += faults.gain_errors(stats)
        findings += faults.higher_channels(stats, best, n_components)
    if declared is None or best != declared.value:
        findings += faults.other_reading(likely, declared, n_components)
    selection = None
    if declared is None and not any(f.problem and f.spoils_reading for f in findings):
        selection = _selection(likely, n_components)
    return Diagnosis(_told(findings), readings, selection, declared is not None)


def _told(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings worth telling, in the order in which they are told."""
    told = [finding for finding in findings if finding.probability >= _WORTH_TELLING]
    return tuple(sorted(told, key=lambda finding: (not finding.problem, -finding.probability)))


def _selection(readings: dict[Reading, float], n_components: int) -> Selection | None:
    """What may be taken over: FuMa's order (whatever its weights) or N3D, if sure."""
    fuma, wxyz = readings[Reading.FUMA], readings[Reading.WXYZ]
    if fuma + wxyz >= SURE:
        if wxyz > fuma and n_components == 4:
            return Selection(Convention.AMBIX, KNOWN[Reading.WXYZ].channels)
        return Selection(Convention.FUMA)
    if readings[Reading.N3D] >= SURE:
        return Selection(Convention.N3D)
    return None


# --- command line --------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Examine files; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m model.conventions",
        description="Tell from the sound alone what convention a track is in, and what is wrong.",
        epilog="Exit status: 0 done, whatever was found; 2 bad input.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="ambisonic tracks")
    parser.add_argument(
        "--join", action="store_true", help="the files are one track, split by channels"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a track")
    add_debug(parser)
    arguments = parser.parse_args(argv)
    tracks = [arguments.files] if arguments.join else [[path] for path in arguments.files]
    status = 0
    for paths in tracks:
        try:
            with open_split_audio(paths) as reader:
                diagnosis = diagnose(reader)
        except AvsaError as error:
            print(f"error: {in_one_line(error)}", file=sys.stderr)
            status = 2
            continue
        if arguments.json:
            print(json.dumps({"paths": [str(path) for path in paths], **diagnosis.as_json()}))
        else:
            print(_in_words(in_one_line(paths[0].name), diagnosis))
    return status


def _in_words(name: str, diagnosis: Diagnosis) -> str:
    """A diagnosis for a terminal."""
    if diagnosis.readings:
        best = max(diagnosis.readings, key=lambda reading: diagnosis.readings[reading])
        reads = f"{best.value} ({percent(diagnosis.readings[best])})"
    else:
        reads = "no reading"
    lines = [f"{name}: {'problems found' if diagnosis.problems else 'no problem found'}; {reads}"]
    for finding in diagnosis.findings:
        lines.append(f"  {finding.code} ({percent(finding.probability)}): {finding.sentence}")
        if finding.fix:
            lines.append(f"    fix: {finding.fix}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(command(main, in_a_line=True))
