"""The command line of the evaluations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model.errors import AvsaError
from training.evaluate import conventions, yaw


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
