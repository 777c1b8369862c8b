"""The command line of the evaluations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from model.checkpoint import Method, load_calibration
from model.errors import AvsaError, OptionError
from model.interruption import command
from model.options import check_device
from model.output import check_output
from training.evaluate import (
    action,
    avsa_commands,
    conventions,
    lag,
    localise,
    reference,
    rig,
    segmentation,
    suite,
    sync,
    trajectory,
    yaw,
)
from training.options import (
    a_duration,
    at_least,
    finite,
    none_or_more,
    not_negative,
    one_or_more,
    positive,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one evaluation; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="EVALUATION")
    for add in (
        _add_yaw,
        _add_rig,
        _add_trajectory,
        _add_conventions,
        _add_sync,
        _add_lag,
        _add_reference,
        avsa_commands.add_bins,
        avsa_commands.add_variants,
        localise.add_command,
        segmentation.add_command,
        action.add_command,
    ):
        command = add(commands)
        command.add_argument("--report", type=Path, help="write all figures as JSON")
    arguments = parser.parse_args(argv)
    try:
        check_device(getattr(arguments, "device", "cpu"))
        _check_outputs(arguments)
        arguments.run(arguments)
    except AvsaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Refuse what could not be written before the hours that its figures take."""
    paths = {name: value for name, value in vars(arguments).items() if isinstance(value, Path)}
    outputs = [paths.pop(name) for name in ("report", "plot") if name in paths]
    for path in outputs:
        check_output(path, paths.values())


def _add_yaw(commands: Any) -> Any:
    command = commands.add_parser("yaw", help="error of the rotation, in degrees, and verdicts")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--manifest", type=Path, help="takes with known answers")
    what.add_argument("--suite", choices=["synthetic"], help="scenes of fixed seeds, by condition")
    command.add_argument("--cache", type=Path, help="folder for the suite's rendered windows")
    command.add_argument(
        "--scenes", type=partial(at_least, 2), default=200, help="of each condition (200)"
    )
    command.add_argument("--bodies", choices=suite.BODIES, help="of the suite (default: both)")
    command.add_argument("--workers", type=one_or_more, default=2, help="that render the suite (2)")
    command.add_argument("--plot", type=Path, help="write the picture as PNG (manifest)")
    _add_judge(command)
    command.add_argument(
        "--detections", type=Path, help="what a detector found in the takes (manifest)"
    )
    command.add_argument("--windows", type=one_or_more, default=8, help="windows of a take (8)")
    command.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    command.set_defaults(run=_run_yaw)
    return command


def _run_yaw(arguments: argparse.Namespace) -> None:
    calibration = load_calibration(arguments.weights, arguments.method)
    if arguments.manifest is not None:
        yaw.run(
            arguments.manifest, report=arguments.report, plot=arguments.plot,
            calibration=calibration, n_windows=arguments.windows, device=arguments.device,
            detections=arguments.detections,
        )  # fmt: skip
        return
    for name in ("plot", "detections"):
        if getattr(arguments, name) is not None:
            raise OptionError(f"--{name} is of the takes of a --manifest: leave it away.")
    if arguments.cache is None:
        raise OptionError("--suite needs --cache, a folder for what it renders.")
    suite.run(
        arguments.cache, calibration=calibration, n_scenes=arguments.scenes,
        workers=arguments.workers, report=arguments.report, bodies=arguments.bodies,
    )  # fmt: skip


def _add_judge(command: Any) -> None:
    command.add_argument(
        "--method", type=Method, choices=[Method.FUSED, Method.EVIDENCE], default=Method.FUSED,
        help="what takes are judged by (fused)",
    )  # fmt: skip
    command.add_argument("--weights", type=Path, help="another calibration of that method")


def _add_rig(commands: Any) -> Any:
    command = commands.add_parser("rig", help="rigs of several synthetic takes, pooled")
    command.add_argument("--windows", type=Path, required=True, help="folder of 10-s windows")
    _add_judge(command)
    command.set_defaults(
        run=lambda a: rig.run(
            a.windows, report=a.report, calibration=load_calibration(a.weights, a.method)
        )
    )
    return command


def _add_trajectory(commands: Any) -> Any:
    command = commands.add_parser("trajectory", help="steps and curves of synthetic takes")
    command.add_argument("--takes", type=one_or_more, default=60, help="scenes of a minute (60)")
    command.add_argument("--seed", type=none_or_more, default=700_000, help="of the first (700000)")
    command.add_argument("--weights", type=Path, help="another calibration")
    command.add_argument("--workers", type=one_or_more, default=2)
    command.set_defaults(
        run=lambda a: trajectory.run(
            a.takes, seed=a.seed, report=a.report, weights=a.weights, workers=a.workers
        )
    )
    return command


def _add_conventions(commands: Any) -> Any:
    command = commands.add_parser("conventions", help="what the convention doctor says of tracks")
    command.add_argument("--manifest", type=Path, help="rightly recorded AmbiX takes")
    command.add_argument("--formats", type=Path, help="folder of the known format files")
    command.add_argument(
        "--picture", action="store_true", help="ask each take's picture which way round it is"
    )
    _add_judge(command)
    command.set_defaults(run=_run_conventions)
    return command


def _run_conventions(arguments: argparse.Namespace) -> None:
    if arguments.manifest is None and (arguments.formats is None or arguments.picture):
        raise OptionError(
            "Nothing is asked about: give --manifest, or --formats without --picture."
        )
    picture = arguments.picture
    conventions.run(
        arguments.manifest, formats=arguments.formats, report=arguments.report,
        picture=load_calibration(arguments.weights, arguments.method) if picture else None,
    )  # fmt: skip


def _add_sync(commands: Any) -> Any:
    command = commands.add_parser("sync", help="error of offset and drift, strangers refused")
    command.add_argument("--sounds", type=Path, required=True, help="folder of real recordings")
    command.add_argument("--rooms", type=Path, required=True, help="folder of room responses")
    command.add_argument(
        "--takes", type=one_or_more, default=20, help="takes that are simulated (20)"
    )
    command.add_argument("--duration-s", type=a_duration, default=600.0, help="of a take (600)")
    command.add_argument(
        "--max-offset-s", type=not_negative, default=30.0, help="to either side (30)"
    )
    command.add_argument("--snr-db", type=finite, default=0.0, help="of both recorders (0)")
    command.set_defaults(
        run=lambda a: sync.run(
            a.sounds, a.rooms, n_takes=a.takes, report=a.report,
            setting=sync.Setting(
                duration_s=a.duration_s, snr_db=a.snr_db, max_offset_s=a.max_offset_s
            ),
        )
    )  # fmt: skip
    return command


def _add_lag(commands: Any) -> Any:
    command = commands.add_parser("lag", help="whether late sound is told by the picture")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--manifest", type=Path, help="takes whose sound is in time")
    what.add_argument("--windows", type=Path, help="folder of long synthetic windows")
    command.set_defaults(
        run=lambda a: lag.run(manifest=a.manifest, windows=a.windows, report=a.report)
    )
    return command


def _add_reference(commands: Any) -> Any:
    command = commands.add_parser("reference", help="error of the rotation between recordings")
    command.add_argument("--manifest", type=Path, required=True, help="takes to record once more")
    command.add_argument("--rooms", type=Path, required=True, help="folder of room responses")
    command.add_argument(
        "--spacing-m", type=positive, default=0.3, help="between microphones (0.3)"
    )
    command.add_argument("--snr-db", type=finite, default=10.0, help="of the second one (10)")
    command.add_argument(
        "--direct-to-reverberant-db", type=finite, default=12.0, help="of the other room (12)"
    )
    command.add_argument(
        "--repeats", type=one_or_more, default=1, help="second recordings of a take (1)"
    )
    command.set_defaults(
        run=lambda a: reference.run(
            a.manifest, a.rooms, repeats=a.repeats, report=a.report,
            setting=reference.Setting(
                spacing_m=a.spacing_m, snr_db=a.snr_db,
                direct_to_reverberant_db=a.direct_to_reverberant_db,
            ),
        )
    )  # fmt: skip
    return command


if __name__ == "__main__":
    sys.exit(command(main))
