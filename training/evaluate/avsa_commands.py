"""The command line of the evaluations of AVSA networks."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model.checkpoint import load_avsa
from model.errors import OptionError
from model.networks.avsa import AvsaNetwork
from model.yaw_scores import yaw_scores
from training.data.clips import Clip, ClipCrops, Cropping
from training.data.yt360 import check_apart, read_index, read_list
from training.evaluate import variants
from training.evaluate.alignment import Looking, summary, yaw_errors_deg
from training.evaluate.bins import PUBLISHED_PROBE, Probe, bins, check_foreign
from training.figures import write_report
from training.options import even_height, none_or_more, one_or_more, positive

_PROBES = {"published": PUBLISHED_PROBE, "few-clips": Probe()}


def add_bins(commands: Any) -> Any:
    """`bins`: AVC-Bin, AVSA-Bin and the yaw error of a network on clips."""
    command = commands.add_parser(
        "bins", help="AVC-Bin, AVSA-Bin and yaw error of an AVSA network, on YT-360's layout"
    )
    command.add_argument("network", type=Path, help="avsa.safetensors of a training")
    command.add_argument("--clips", type=Path, required=True, help="indexed folder of clips")
    command.add_argument(
        "--train-ids", type=Path, required=True, help="recordings that the heads learn from"
    )
    command.add_argument("--test-ids", type=Path, required=True, help="recordings to measure on")
    command.add_argument(
        "--probe", choices=list(_PROBES), default="published",
        help="the published training of the heads, or one for few clips",
    )  # fmt: skip
    command.add_argument("--draws", type=one_or_more, help="pairs of each recording")
    command.add_argument(
        "--moments", type=one_or_more, default=3, help="of a clip, for its yaw (3)"
    )
    command.add_argument("--frame-height", type=even_height, default=320, help="pixels (320)")
    command.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    command.set_defaults(run=_run_bins)
    return command


def _run_bins(arguments: argparse.Namespace) -> None:
    network = load_avsa(arguments.network).to(arguments.device)
    probe = _PROBES[arguments.probe]
    if arguments.draws is not None:
        probe = replace(probe, draws=arguments.draws)
    cropping = Cropping(n_viewpoints=4, frame_height=arguments.frame_height, augment=False)
    train, test = (
        read_index(arguments.clips, read_list(ids))
        for ids in (arguments.train_ids, arguments.test_ids)
    )
    check_apart(train, test)
    for clips in (train, test):
        check_foreign(clips)
    items = [ClipCrops(clips, network.config, cropping) for clips in (train, test)]
    figures: dict[str, Any] = bins(network, *items, probe=probe)
    looking = Looking(n_moments=arguments.moments, frame_height=arguments.frame_height)
    figures |= _yaw(network, test, looking)
    for what, values in figures.items():
        print(what)
        for name, value in values.items():
            unit = f"{value:.1f}°" if name == "median error" else f"{100 * value:.1f} %"
            print(f"  {name:32} {unit}")
    if arguments.report is not None:
        write_report(arguments.report, figures)


def _yaw(network: AvsaNetwork, clips: list[Clip], looking: Looking) -> dict[str, dict[str, float]]:
    """Yaw error by both ways of scoring."""
    return {
        f"yaw, {name}": summary(
            np.asarray(
                yaw_errors_deg(
                    network, clips, partial(yaw_scores, translated=through), looking=looking
                )
            )
        )
        for name, through in (("encoders", False), ("translated", True))
    }


def add_variants(commands: Any) -> Any:
    """`variants`: the table of all variants."""
    command = commands.add_parser(
        "variants", help="train and measure every variant of AVSA on the same synthetic scenes"
    )
    command.add_argument("--output", type=Path, required=True, help="folder; resumed if it exists")
    command.add_argument("--budget", type=positive, default=1.0, help="times the default steps (1)")
    command.add_argument(
        "--rows", nargs="+", metavar="TEXT", help="only variants whose group or name holds one"
    )
    command.add_argument(
        "--seed", type=none_or_more, default=0, help="of the trainings; not of scenes (0)"
    )
    command.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    command.add_argument("--workers", type=one_or_more, default=2, help="rows at a time (2)")
    command.set_defaults(run=_run_variants)
    return command


def _run_variants(arguments: argparse.Namespace) -> None:
    chosen = [
        variant
        for variant in variants.VARIANTS
        if arguments.rows is None
        or any(text in f"{variant.group} {variant.name}" for text in arguments.rows)
    ]
    if not chosen:
        raise OptionError(f"No variant's group or name holds any of {arguments.rows}.")
    usual = variants.Budget()
    budget = replace(
        usual,
        steps=math.ceil(arguments.budget * usual.steps),
        first_steps=math.ceil(arguments.budget * usual.first_steps),
        seed=arguments.seed,
    )
    variants.run(
        arguments.output, budget=budget, device=arguments.device,
        workers=arguments.workers, variants=chosen,
    )  # fmt: skip
    text = (arguments.output / "variants.md").read_text()
    if arguments.report is not None:
        write_report(arguments.report, json.loads((arguments.output / "variants.json").read_text()))
    print(text)
