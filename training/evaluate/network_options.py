"""Which AVSA network a probe is of: a checkpoint, or an untrained one as the floor."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import load_avsa
from model.networks.avsa import NARROW, PUBLISHED, AvsaNetwork
from training.options import at_least, none_or_more

_OVERRIDES = {"epochs": 1, "draws": 1, "batch": 1, "workers": 0}  # with the least of each
_UNTRAINED = {"published": PUBLISHED, "narrow": NARROW}


def add_network_options(command: Any) -> None:
    """Let a command be told which network it is to probe."""
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", type=Path, help="an AVSA network, of training.pretrain")
    what.add_argument(
        "--untrained", choices=sorted(_UNTRAINED), help="a network of random weights instead"
    )
    command.add_argument("--seed", type=none_or_more, default=0, help="of weights and data (0)")
    command.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    for name, least in _OVERRIDES.items():
        command.add_argument(
            f"--{name}", type=partial(at_least, least), help=f"instead of the preset's {name}"
        )


def preset_overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings that were given in the place of the preset's."""
    given = {name: getattr(arguments, name) for name in _OVERRIDES}
    return {name: value for name, value in given.items() if value is not None}


def network_of(arguments: argparse.Namespace) -> AvsaNetwork:
    """The network that a command was told of, on its device.

    Raises
    ------
    MediaError : its file cannot be read as one.
    """
    if arguments.checkpoint is not None:
        return load_avsa(arguments.checkpoint).to(arguments.device)
    torch.manual_seed(arguments.seed)
    return AvsaNetwork(_UNTRAINED[arguments.untrained]).to(arguments.device)
