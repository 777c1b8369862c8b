"""The command line of the evaluations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model.errors import AvsaError
from training.evaluate import conventions, reference, sync, yaw


def main(argv: Sequence[str] | None = None) -> int:
    """Run one evaluation; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="EVALUATION")
    command = commands.add_parser("yaw", help="error of the rotation, in degrees, and verdicts")
    command.add_argument("--manifest", type=Path, required=True, help="takes with known answers")
    command.add_argument("--report", type=Path, help="write all figures as JSON")
    command.add_argument("--plot", type=Path, help="write the picture as PNG")
    command.add_argument("--weights", type=Path, help="another calibration")
    command.add_argument("--windows", type=int, default=8, help="windows of a take (8)")
    command.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    command.set_defaults(run=_yaw)
    command = commands.add_parser("sync", help="error of offset and drift, strangers refused")
    command.add_argument("--sounds", type=Path, required=True, help="folder of real recordings")
    command.add_argument("--rooms", type=Path, required=True, help="folder of room responses")
    command.add_argument("--takes", type=int, default=20, help="takes that are simulated (20)")
    command.add_argument("--duration-s", type=float, default=600.0, help="of a take (600)")
    command.add_argument("--max-offset-s", type=float, default=30.0, help="to either side (30)")
    command.add_argument("--snr-db", type=float, default=0.0, help="of both recorders (0)")
    command.add_argument("--report", type=Path, help="write all figures as JSON")
    command.set_defaults(run=_sync)
    command = commands.add_parser("reference", help="error of the rotation between recordings")
    command.add_argument("--manifest", type=Path, required=True, help="takes to record once more")
    command.add_argument("--rooms", type=Path, required=True, help="folder of room responses")
    command.add_argument("--spacing-m", type=float, default=0.3, help="between microphones (0.3)")
    command.add_argument("--snr-db", type=float, default=10.0, help="of the second one (10)")
    command.add_argument(
        "--direct-to-reverberant-db", type=float, default=12.0, help="of the other room (12)"
    )
    command.add_argument("--report", type=Path, help="write all figures as JSON")
    command.set_defaults(run=_reference)
    command = commands.add_parser("conventions", help="what the convention doctor says of tracks")
    command.add_argument("--manifest", type=Path, help="rightly recorded AmbiX takes")
    command.add_argument("--formats", type=Path, help="folder of the known format files")
    command.add_argument(
        "--picture", action="store_true", help="ask each take's picture which way round it is"
    )
    command.add_argument("--weights", type=Path, help="another calibration")
    command.add_argument("--report", type=Path, help="write all figures as JSON")
    command.set_defaults(run=_conventions)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except AvsaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _yaw(arguments: argparse.Namespace) -> None:
    yaw.run(
        arguments.manifest,
        report=arguments.report,
        plot=arguments.plot,
        weights=arguments.weights,
        n_windows=arguments.windows,
        device=arguments.device,
    )


def _sync(arguments: argparse.Namespace) -> None:
    sync.run(
        arguments.sounds,
        arguments.rooms,
        n_takes=arguments.takes,
        setting=sync.Setting(
            duration_s=arguments.duration_s,
            snr_db=arguments.snr_db,
            max_offset_s=arguments.max_offset_s,
        ),
        report=arguments.report,
    )


def _reference(arguments: argparse.Namespace) -> None:
    reference.run(
        arguments.manifest,
        arguments.rooms,
        setting=reference.Setting(
            spacing_m=arguments.spacing_m,
            snr_db=arguments.snr_db,
            direct_to_reverberant_db=arguments.direct_to_reverberant_db,
        ),
        report=arguments.report,
    )


def _conventions(arguments: argparse.Namespace) -> None:
    conventions.run(
        arguments.manifest,
        formats=arguments.formats,
        picture=arguments.picture,
        weights=arguments.weights,
        report=arguments.report,
    )


if __name__ == "__main__":
    sys.exit(main())
