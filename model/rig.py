"""Many takes of one rig: one rotation for a shooting day, and every take corrected by it.

    python -m model.rig TAKE [TAKE ...] --output-dir DIR

A TAKE is a video, with its track beside it under the same name (or inside it), a folder of such, or
a manifest in JSON lines with `video` and `audio`. Every take is judged by itself; the posteriors
are pooled into one, which is sharper than each. A take that disagrees with the others is named: its
rig was knocked, its files were mixed up, or it was misjudged.

`rig.json` and `rig.csv` in DIR hold what is known of each take and are written after each, so a run
may be stopped and taken up again; a take that fails does not stop the rest. Takes of earlier runs
that are not named again keep their rows, but have no say in the rotation.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from model.align import correct
from model.arcs import told_deg
from model.checkpoint import Calibration, load_calibration
from model.decision import judge_take
from model.errors import AvsaError, OptionError, UnusableContent, in_one_line
from model.interruption import add_debug, command
from model.learned import scorers_for
from model.media import check_readable, output_suffix, reading
from model.options import check_tolerance
from model.output import Together, check_folder, check_output
from model.posterior import answer_deg, confidence_of, credible_arcs
from model.scoring import Scorer, Verdict, verdict_of
from model.take import Take, Track
from model.wording import INTERVAL_LEVEL, angle, percent, span

SCHEMA_VERSION = 1
# How the tables begin: others of their names are somebody's own.
_TABLES = {"rig.json": b'{\n "schema_version": ', "rig.csv": b"take,video,audio,"}
_MISPLACED = 0.1  # how many takes are knocked, mixed up or misjudged, before they are seen
DISAGREES = 0.5  # a take that belongs with less than this probability is named
_N_WINDOWS = 8
_FINE_BINS = 720  # the pooled posterior is sharper than 5 degrees
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".mkv", ".webm", ".m4v", ".avi", ".mts", ".m2ts", ".ts"}
)
_AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".bwf", ".bw64", ".rf64", ".w64", ".amb", ".aif", ".aiff", ".aifc", ".caf",
     ".flac", ".ogg"}
)  # fmt: skip


@dataclass(frozen=True)
class RigTake:
    """Files of one take; the track may be the video itself."""

    name: str
    video: Path
    audio: Path

    def fingerprint(self) -> list[int]:
        """Sizes and times of change: whether the files are still those that were judged."""
        stats = [path.stat() for path in (self.video, self.audio)]
        return [value for stat in stats for value in (stat.st_size, stat.st_mtime_ns)]


@dataclass(frozen=True)
class Row:
    """What is known of one take.

    Attributes
    ----------
    verdict, rotate_field_ccw_deg, interval_deg, confidence, posterior : the take judged by itself.
    belongs : probability that the others' rotation holds for it too.
    agrees : False where `belongs` is small: the take is named.
    output, applied_deg : the corrected file, once it is written.
    error : why it could not be judged or written.
    judged_from : fingerprint of the files, the weights and the tolerance.
    """

    take: str
    video: str
    audio: str
    verdict: str | None = None
    rotate_field_ccw_deg: float | None = None
    interval_deg: list[float] | None = None
    confidence: float | None = None
    belongs: float | None = None
    agrees: bool | None = None
    output: str | None = None
    applied_deg: float | None = None
    error: str | None = None
    judged_from: list[Any] | None = None
    posterior: list[float] | None = None


@dataclass(frozen=True)
class RigSolution:
    """One rotation for all takes.

    Attributes
    ----------
    arcs_deg : one or two arcs [low, high] that hold the truth at the calibrated level.
    confidence : probability that the rotation is within 15 degrees, for takes that belong.
    posterior : over `_FINE_BINS` bins up to 180 degrees.
    belongs : of each take, given all others.
    """

    verdict: Verdict
    rotate_field_ccw_deg: float
    arcs_deg: list[tuple[float, float]]
    confidence: float
    posterior: Tensor
    belongs: list[float]


# --- pooling -------------------------------------------------------------------------------------


def solve(posteriors: Tensor, calibration: Calibration, *, tolerance_deg: float) -> RigSolution:
    """Pool posteriors of independent takes, [shape=(n, R)] with n at least 1.

    Each take is a mixture: it has the rig's rotation, or, one time in ten, any other. So a take
    that is sure of something else cannot veto, and one that knows nothing changes nothing.
    """
    bins = posteriors.shape[1]
    evidence = ((1 - _MISPLACED) * bins * posteriors + _MISPLACED).log()
    pooled = evidence.sum(0)
    belongs = []
    for index, posterior in enumerate(posteriors):
        others = (pooled - evidence[index]).softmax(0)
        fit = (1 - _MISPLACED) * bins * float((others * posterior).sum())
        belongs.append(fit / (fit + _MISPLACED))
    coarse = pooled.softmax(0)
    fine = _refined(pooled).softmax(0)
    best = answer_deg(fine)
    confidence = confidence_of(coarse, calibration)
    return RigSolution(
        verdict=verdict_of(best, confidence, calibration, tolerance_deg=tolerance_deg),
        rotate_field_ccw_deg=best,
        arcs_deg=credible_arcs(fine, calibration.arc_mass),
        confidence=confidence,
        posterior=fine,
        belongs=belongs,
    )


def _refined(log_posterior: Tensor) -> Tensor:
    """A log-posterior [shape=(R,)], R even, at `_FINE_BINS` bins, by trigonometric interpolation.

    The last of either is 180 degrees.
    """
    spectrum = torch.fft.rfft(log_posterior.roll(1))
    spectrum[-1] /= 2  # of finer bins the highest wave of coarse ones is two, m and -m
    fine: Tensor = torch.fft.irfft(spectrum, n=_FINE_BINS) * (_FINE_BINS / len(log_posterior))
    return fine.roll(-1)


# --- the takes -----------------------------------------------------------------------------------


def find_takes(places: Sequence[Path]) -> list[RigTake]:
    """The takes that videos, folders and manifests name, in order.

    Raises
    ------
    OptionError : nothing is there, a video has several tracks of its name, or two takes share one.
    MediaError : a folder or a file is out of reach.
    """
    takes: list[RigTake] = []
    for place in places:
        with reading(place):
            takes += _takes_at(place)
    names = [take.name.casefold() for take in takes]  # which is all the same on many a disk
    for take, name in zip(takes, names, strict=True):
        if names.count(name) > 1:
            raise OptionError(
                f"Two takes are called {take.name}: rename one, their results would clash."
            )
    return takes


def _takes_at(place: Path) -> list[RigTake]:
    if place.is_dir():
        videos = sorted(
            path
            for path in place.iterdir()
            # Macs put "._take.mp4" beside "take.mp4" on disks of others: no picture, but notes.
            if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")
        )
        if not videos:
            raise OptionError(f"The folder {place} holds no videos.")
        return [_with_track(video) for video in videos]
    return _listed(place) if place.suffix == ".jsonl" else [_with_track(place)]


def _with_track(video: Path) -> RigTake:
    beside = [
        path
        for path in sorted(video.parent.glob(f"{escape(video.stem)}.*"))
        if path.suffix.lower() in _AUDIO_SUFFIXES
    ]
    if len(beside) > 1:
        raise OptionError(
            f"{video} has {len(beside)} tracks of its name ({', '.join(p.name for p in beside)}): "
            "say which in a manifest."
        )
    return RigTake(video.stem, video, beside[0] if beside else video)


def _listed(manifest: Path) -> list[RigTake]:
    takes = []
    check_readable(manifest)
    try:
        lines = manifest.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise OptionError(f"The manifest {manifest} is no text: {error}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            names = entry["video"], entry.get("audio", entry["video"])
            video, audio = (manifest.parent / name for name in names)
            if b"\0" in os.fsencode(video) + os.fsencode(audio):
                raise ValueError("no file has such a name")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OptionError(
                f"Line {number} of {manifest} is not a JSON object with `video` and `audio`."
            ) from error
        takes.append(RigTake(video.stem, video, audio))
    if not takes:
        raise OptionError(f"The manifest {manifest} is empty.")
    return takes


# --- the table -----------------------------------------------------------------------------------


def read_table(folder: Path) -> dict[str, Row]:
    """Rows of an earlier run by take; none if there was none or it was of another version."""
    try:
        table = json.loads((folder / "rig.json").read_text())
        if table["schema_version"] != SCHEMA_VERSION:
            return {}
        return {row["take"]: Row(**row) for row in table["takes"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_table(folder: Path, rows: Sequence[Row], solution: RigSolution | None) -> None:
    """Write `rig.json` and `rig.csv`, both whole or neither.

    rows : of this run, whose takes `solution` pools; takes of earlier runs, or of one beside it,
        keep those that the table has.
    """
    found = None
    if solution is not None:
        found = {
            "verdict": solution.verdict.value,
            "rotate_field_ccw_deg": told_deg(solution.rotate_field_ccw_deg),
            "interval_deg": list(solution.arcs_deg[0]),
            "second_interval_deg": list(solution.arcs_deg[1]) if solution.arcs_deg[1:] else None,
            "confidence": round(solution.confidence, 4),
            "takes": [row.take for row in rows if row.posterior is not None],
        }
    ours = {row.take for row in rows}
    rows = [*rows, *(row for name, row in read_table(folder).items() if name not in ours)]
    takes = [asdict(row) for row in rows]
    table = {"schema_version": SCHEMA_VERSION, "rig": found, "takes": takes}
    text = io.StringIO()
    columns = [key for key in asdict(Row("", "", "")) if key not in ("posterior", "judged_from")]
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    arcs = [row.interval_deg and span(row.interval_deg).replace("°", "") for row in rows]
    writer.writerows(
        {**asdict(row), "interval_deg": arc} for row, arc in zip(rows, arcs, strict=True)
    )
    with Together() as both:
        with both.file(folder / "rig.json") as part:
            part.write_text(json.dumps(table, indent=1) + "\n")
        with both.file(folder / "rig.csv") as part:
            part.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")


# --- the run -------------------------------------------------------------------------------------


def judge_row(
    take: RigTake,
    calibration: Calibration,
    known: Mapping[str, Row],
    *,
    tolerance_deg: float,
    scorers: Sequence[Scorer],
) -> Row:
    """A take judged by itself, or as an earlier run judged the same files by the same weights."""
    row = Row(take.name, str(take.video), str(take.audio))
    try:
        judged_from = [*take.fingerprint(), calibration.sha256, tolerance_deg]
        earlier = known.get(take.name)
        if earlier is not None and earlier.judged_from == judged_from and not earlier.error:
            return replace(earlier, video=row.video, audio=row.audio)
        with Take(take.video, Track((take.audio,))) as opened:
            if opened.placement.foreign:
                raise UnusableContent(
                    f"{take.audio} does not belong to it: {opened.placement.note}"
                )
            judgement, _, _ = judge_take(
                opened, calibration, n_windows=_N_WINDOWS, tolerance_deg=tolerance_deg,
                scorers=scorers,
            )  # fmt: skip
    except OSError as error:
        return replace(row, error=f"{error.filename} cannot be read: {error.strerror}.")
    except AvsaError as error:
        return replace(row, error=str(error))
    return replace(
        row,
        verdict=judgement.verdict.value,
        rotate_field_ccw_deg=told_deg(judgement.rotate_field_ccw_deg),
        interval_deg=list(judgement.arcs_deg[0]),
        confidence=round(judgement.confidence, 4),
        judged_from=judged_from,
        posterior=[round(float(p), 7) for p in judgement.posterior],
    )


def correct_row(row: Row, folder: Path, applied_deg: float, originals: Sequence[Path]) -> Row:
    """Write a take's corrected file, unless an earlier run has written the same.

    originals : files of all takes of the run, none of which is overwritten.
    """
    if row.output and row.applied_deg == applied_deg and Path(row.output).is_file():
        return row
    try:
        with Take(Path(row.video), Track((Path(row.audio),))) as take:
            output = folder / f"{row.take}_aligned{output_suffix(take.audio)}"
            check_output(output, originals)
            correct(take, output, applied_deg)
    except AvsaError as error:
        return replace(row, output=None, applied_deg=None, error=str(error))
    return replace(row, output=str(output), applied_deg=applied_deg)


def run(
    places: Sequence[Path], folder: Path, *, tolerance_deg: float = 10.0, quiet: bool = False
) -> tuple[RigSolution, list[Row]]:
    """Judge, pool and correct takes; results and the table go to `folder`.

    Raises
    ------
    OptionError : the takes cannot be told, or the tolerance is none.
    UnusableContent : no take could be judged; the table says why for each.
    """
    check_tolerance(tolerance_deg)
    calibration = load_calibration()
    scorers = scorers_for(calibration)
    takes = find_takes(places)
    check_folder(folder)
    for name, begins in _TABLES.items():
        check_output(folder / name, [], begins=begins)
    known = read_table(folder)
    rows: list[Row] = []
    silent = quiet or not sys.stderr.isatty()
    for take in tqdm(takes, desc="judging", unit="take", disable=silent):
        rows.append(
            judge_row(take, calibration, known, tolerance_deg=tolerance_deg, scorers=scorers)
        )
        write_table(folder, rows, None)
    judged = [index for index, row in enumerate(rows) if row.posterior is not None]
    if not judged:
        raise UnusableContent(f"None of {len(rows)} takes can be judged; {rows[0].error}")
    posteriors = torch.tensor([rows[index].posterior for index in judged], dtype=torch.float64)
    solution = solve(posteriors, calibration, tolerance_deg=tolerance_deg)
    for index, belongs in zip(judged, solution.belongs, strict=True):
        rows[index] = replace(
            rows[index], belongs=round(belongs, 4), agrees=len(judged) < 2 or belongs >= DISAGREES
        )
    turn = solution.verdict is Verdict.MISALIGNED
    applied_deg = told_deg(solution.rotate_field_ccw_deg) if turn else 0.0
    originals = [path for take in takes for path in (take.video, take.audio)]
    for index in tqdm(judged, desc="writing", unit="take", disable=silent):
        rows[index] = correct_row(rows[index], folder, applied_deg, originals)
        write_table(folder, rows, solution)
    write_table(folder, rows, solution)
    return solution, rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 if any take failed)."""
    parser = argparse.ArgumentParser(
        prog="python -m model.rig", description="Align the takes of one rig with one rotation."
    )
    parser.add_argument("takes", type=Path, nargs="+", help="videos, folders or manifests (.jsonl)")
    parser.add_argument("--output-dir", type=Path, required=True, help="for files and the table")
    parser.add_argument("--tolerance-deg", type=float, default=10.0, help="still aligned (10)")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    add_debug(parser)
    options = parser.parse_args(argv)
    try:
        solution, rows = run(
            options.takes, options.output_dir,
            tolerance_deg=options.tolerance_deg, quiet=options.quiet,
        )  # fmt: skip
    except AvsaError as error:
        print(f"error: {in_one_line(error)}", file=sys.stderr)
        return 2
    for row in rows:
        if row.error:
            print(f"error: {in_one_line(f'{row.take}: {row.error}')}", file=sys.stderr)
    if not options.quiet:
        _tell(solution, rows, options.output_dir)
    return 2 if any(row.error for row in rows) else 0


def _tell(solution: RigSolution, rows: Sequence[Row], folder: Path) -> None:
    judged = [row for row in rows if row.posterior is not None]
    arcs = " or ".join(map(span, solution.arcs_deg))
    print(
        f"{solution.verdict.value.capitalize()}: "
        f"{'1 take says' if len(judged) == 1 else f'{len(judged)} takes together say'} "
        f"rotate_field_ccw_deg {angle(solution.rotate_field_ccw_deg)} "
        f"({percent(INTERVAL_LEVEL)} interval {arcs}; confidence {percent(solution.confidence)})."
    )
    for row in judged:
        if not row.agrees:
            assert row.rotate_field_ccw_deg is not None
            assert row.interval_deg is not None
            print(
                f"  {in_one_line(row.take)} disagrees: by itself it says "
                f"{angle(row.rotate_field_ccw_deg)} ({span(row.interval_deg)}); look whether its "
                "rig was moved."
            )
    print(in_one_line(f"  table: {folder / 'rig.csv'}, {folder / 'rig.json'}"))


if __name__ == "__main__":
    sys.exit(command(main, in_a_line=True))
