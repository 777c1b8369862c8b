"""The command line of `python -m model.align`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from model import rotators
from model.align import Outputs, align, corrected_suffix
from model.ambisonics import Convention, Fix
from model.checkpoint import Method
from model.errors import AvsaError, OptionError, in_one_line
from model.interruption import add_debug
from model.media import Stereo
from model.options import Options
from model.output import check_folder
from model.report import one_turn_corrects, sentence
from model.take import Track


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of `python -m model.align`."""
    parser = argparse.ArgumentParser(
        prog="python -m model.align",
        description="Find the rotation that makes ambisonic sound fit a 360 picture.",
        epilog="Exit status: 0 done, whatever the verdict; 2 bad input; 1 our fault.",
    )
    parser.add_argument("video", type=Path, help="360 video (equirectangular)")
    parser.add_argument("audio", nargs="+", help="ambisonic tracks; - for the sound inside VIDEO")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", type=Path, help="the corrected file")
    where.add_argument(
        "--output-dir", type=Path,
        help="folder for corrected file, report and picture of every track",
    )  # fmt: skip
    parser.add_argument("--report", type=Path, help="write the report as JSON")
    parser.add_argument("--plot", type=Path, help="write the picture as PNG")
    parser.add_argument(
        "--preview", type=Path, help="write some seconds to watch as MP4: sound over the picture"
    )
    _add_reading(parser)
    _add_judging(parser)
    parser.add_argument("--json", action="store_true", help="print the report")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    add_debug(parser)
    return parser.parse_args(argv)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """How the files are to be read."""
    parser.add_argument(
        "--convention", choices=["auto", *Convention], default="auto",
        help="order and weights of the tracks (auto: as declared, else as they surely sound, "
        "else AmbiX)",
    )  # fmt: skip
    parser.add_argument(
        "--fix", type=Fix, choices=list(Fix),
        help="done to the field first: invert (the microphone hung upside down) or mirror",
    )  # fmt: skip
    parser.add_argument(
        "--channels", help="file channel of W,Y,Z,X,... from 0, for orders of no convention"
    )
    parser.add_argument(
        "--join", action="store_true", help="the AUDIO files are one track, split by channels"
    )
    parser.add_argument("--stereo", choices=get_args(Stereo), help="packing of the picture")
    parser.add_argument(
        "--offset-s",
        type=float,
        help="time in VIDEO at which AUDIO begins (else: as the camera's own sound says)",
    )


def _add_judging(parser: argparse.ArgumentParser) -> None:
    """What is judged, by what, and what is made of it."""
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--windows", type=int, default=8, help="windows that are judged (8)")
    parser.add_argument("--tolerance-deg", type=float, default=10.0, help="still aligned (10)")
    parser.add_argument(
        "--method", type=Method, choices=list(Method), default=Method.FUSED,
        help="fused (default), learned scorer and how places look; evidence, without training; or "
        "avsa, a network that was trained by python -m training.pretrain",
    )  # fmt: skip
    parser.add_argument("--weights", type=Path, help="another calibration of that method")
    parser.add_argument(
        "--checkpoint", type=Path,
        help="network of --method avsa; its calibration lies beside it, as FILE.json",
    )  # fmt: skip
    parser.add_argument(
        "--reference", type=Path,
        help="an ambisonic recording whose front is the picture's (else: VIDEO's own ambisonic "
        "track, if it declares one)",
    )  # fmt: skip
    parser.add_argument("--float", action="store_true", help="write 32-bit float samples")
    written = parser.add_mutually_exclusive_group()
    written.add_argument(
        "--apply-undecided", action="store_true",
        help="write the best rotation even where the verdict is undecidable",
    )  # fmt: skip
    written.add_argument(
        "--apply-deg", type=float, metavar="D",
        help="write this rotation, whatever is found: degrees, + turns sources to the left",
    )  # fmt: skip
    parser.add_argument(
        "--over-time", action="store_true",
        help="look whether the rotation changes along the take (decodes all of it)",
    )  # fmt: skip
    parser.add_argument(
        "--follow", action="store_true", help="--over-time, and write the rotation as it changes"
    )
    parser.add_argument(
        "--orientation", type=Path, metavar="CSV",
        help="how the microphone turned, as columns time_s (of VIDEO) and yaw_deg "
        "(counter-clockwise): the output is turned along it",
    )  # fmt: skip
    parser.add_argument(
        "--detections", type=Path, metavar="FILE",
        help="objects that a detector found in VIDEO, as evidence beside the rest: JSON lines of "
        'time_s, box ([left, top, right, bottom] in shares of the frame) and score',
    )  # fmt: skip
    parser.add_argument(
        "--detector", type=Path, metavar="WEIGHTS",
        help="a detector of torchvision's that finds them: its file of weights, as published",
    )  # fmt: skip
    parser.add_argument(
        "--lay-on-picture", action="store_true",
        help="write the track shifted and resampled to the picture's clock, and as long (WAV)",
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = parse_arguments(argv)
    status = 0
    try:
        options = Options(
            n_windows=arguments.windows,
            tolerance_deg=arguments.tolerance_deg,
            stereo=arguments.stereo,
            device=arguments.device,
            method=arguments.method,
            weights=arguments.weights,
            checkpoint=arguments.checkpoint,
            reference=arguments.reference,
            float_output=arguments.float,
            apply_undecided=arguments.apply_undecided,
            apply_deg=arguments.apply_deg,
            over_time=arguments.over_time,
            follow=arguments.follow,
            orientation=arguments.orientation,
            lay_on_picture=arguments.lay_on_picture,
            detections=arguments.detections,
            detector=arguments.detector,
        )
        jobs = _jobs(arguments, options)
    except AvsaError as error:
        print(f"error: {in_one_line(error)}", file=sys.stderr)
        return 2
    for track, outputs in jobs:
        try:
            report = _run(arguments, track, outputs, options)
        except AvsaError as error:
            print(f"error: {in_one_line(error)}", file=sys.stderr)
            status = max(status, 2)
        else:
            _tell(arguments, report, outputs)
    return status


def _jobs(arguments: argparse.Namespace, options: Options) -> list[tuple[Track, Outputs]]:
    """The tracks to align and where their results go."""
    paths = [arguments.video if name == "-" else Path(name) for name in arguments.audio]
    if arguments.join and len(paths) == 1:
        raise OptionError(
            f"--join is for a track in several files, but only {paths[0]} was named: name all of "
            "them, or leave --join away."
        )
    twice = arguments.join and next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise OptionError(
            f"--join {twice} was named twice: name each file of a split track once, in their order."
        )
    groups = [tuple(paths)] if arguments.join else [(path,) for path in paths]
    named = arguments.output, arguments.report, arguments.plot, arguments.preview
    if len(groups) > 1 and any(named):
        raise OptionError(
            "Several tracks were named: use --output-dir, not -o, --report, --plot or --preview."
        )
    components = _components(arguments.channels)
    convention = None if arguments.convention == "auto" else Convention(arguments.convention)
    jobs = [
        (
            Track(group, convention, components, arguments.offset_s, arguments.fix),
            _outputs(arguments, group, options),
        )
        for group in groups
    ]
    _check_apart([arguments.video, *paths, *options.files], [outputs for _, outputs in jobs])
    return jobs


def _check_apart(inputs: Sequence[Path], outputs: Sequence[Outputs]) -> None:
    """Refuse results in the place of each other, or of any input: one job's is another's too."""
    taken: set[str] = set()
    for path in (path for one in outputs for path in one.paths):
        place = os.path.realpath(path)  # `Path.resolve` fails of links that go in circles
        if place.casefold() in taken:  # which is the same place on many a disk
            raise OptionError(
                f"Two results would be written to {path}: rename one, or align it by itself."
            )
        if any(place == os.path.realpath(source) for source in inputs):
            raise OptionError(
                f"{path} is named as an input and would be written as a result: originals are "
                "never overwritten. Leave it out, or use --output-dir."
            )
        taken.add(place.casefold())


def _components(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(f"--channels {text} is not a list of numbers like 0,1,2,3.") from error


def _outputs(arguments: argparse.Namespace, paths: tuple[Path, ...], options: Options) -> Outputs:
    outputs = Outputs(arguments.output, arguments.report, arguments.plot, arguments.preview)
    if arguments.output is not None:
        return outputs
    folder = arguments.output_dir or paths[0].parent
    try:
        suffix = corrected_suffix(paths, options)
    except AvsaError:
        suffix = ".wav"  # aligning it will say what is wrong
    stem = folder / f"{paths[0].stem}_aligned"
    outputs = replace(outputs, audio=stem.with_name(stem.name + suffix))
    if arguments.output_dir is not None:
        check_folder(folder)
        outputs = replace(
            outputs,
            report=outputs.report or stem.with_name(stem.name + ".json"),
            plot=outputs.plot or stem.with_name(stem.name + ".png"),
        )
    return outputs


def _run(
    arguments: argparse.Namespace, track: Track, outputs: Outputs, options: Options
) -> dict[str, Any]:
    """One job, with a progress bar on a terminal."""
    silent = arguments.quiet or arguments.json or not sys.stderr.isatty()
    with tqdm(
        total=100, disable=silent, desc=track.paths[0].name, leave=False,
        bar_format="{desc}: {percentage:3.0f}%|{bar:30}| {postfix} {elapsed}",
    ) as bar:  # fmt: skip

        def notify(stage: str, fraction: float) -> None:
            bar.set_postfix_str(stage, refresh=False)
            bar.update(100 * fraction - bar.n)

        return align(arguments.video, track, outputs, options, notify=notify)


def _tell(arguments: argparse.Namespace, report: dict[str, Any], outputs: Outputs) -> None:
    if arguments.json:
        print(json.dumps(report, indent=2))
    elif not arguments.quiet:
        name = Path(report["input"]["audio"]["paths"][0]).name
        print(in_one_line(f"{name}: {sentence(report)}"))
        for warning in report["warnings"]:
            print(in_one_line(f"  note: {warning}"))
        if one_turn_corrects(report):
            print(f"  in a plug-in instead: {rotators.words(report['rotators'])}")
        untouched = report["output"] and report["output"]["untouched_copy"]
        for name, path in (
            ("untouched copy" if untouched else "corrected", outputs.audio),
            ("report", outputs.report), ("picture", outputs.plot),
            ("preview", outputs.preview),
        ):  # fmt: skip
            if path is not None:
                print(in_one_line(f"  {name}: {path}"))
