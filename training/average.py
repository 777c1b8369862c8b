"""One scorer from several of one descent: the mean of their weights.

    python -m training.average FIRST.safetensors SECOND.safetensors --windows HELD_OUT --output MEAN

Runs that began with one another's weights lie in one basin of the loss, and the mean of their
weights is often better than either, above all on what neither was trained on (Izmailov et al.,
UAI 2018; Wortsman et al., "Model soups", ICML 2022). That has to be seen: with HELD_OUT, windows
that no training has seen, figures of each and of the mean are printed. A smaller scorer is grown to
the sizes of the last one first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from model.checkpoint import load_scorer, save_scorer
from model.errors import AvsaError, OptionError
from model.interruption import command
from model.media import file_sha256
from model.networks.equivariant import EquivariantScorer
from model.output import check_output
from training.data.windows import kept_windows
from training.growth import grown
from training.options import finite
from training.pretrain_scorer import validate


def mean_of(
    networks: Sequence[EquivariantScorer], shares: Sequence[float] | None = None
) -> EquivariantScorer:
    """The mean of scorers' weights, at the sizes of the last.

    shares : of each, adding up to 1; all alike if not given.

    Raises
    ------
    OptionError : shares that do not fit, or a scorer that cannot be grown to the last one's sizes.
    """
    shares = shares or [1 / len(networks)] * len(networks)
    if len(shares) != len(networks) or abs(sum(shares) - 1) > 1e-6:
        raise OptionError(f"Shares {list(shares)} do not add up to 1 over {len(networks)} scorers.")
    mean = EquivariantScorer(networks[-1].config)
    torch.manual_seed(0)  # of what growing draws
    weights = [dict(grown(network, mean.config).named_parameters()) for network in networks]
    with torch.no_grad():
        for name, own in mean.named_parameters():
            parts = [share * each[name] for share, each in zip(shares, weights, strict=True)]
            own.copy_(torch.stack(parts).sum(0))
    return mean.eval().requires_grad_(False)


def main(argv: Sequence[str] | None = None) -> int:
    """Average scorers, and say how good the mean is."""
    parser = argparse.ArgumentParser(
        prog="python -m training.average", description="The mean of scorers of one descent."
    )
    parser.add_argument("scorers", type=Path, nargs="+", help="weights, the largest scorer last")
    parser.add_argument("--shares", type=finite, nargs="+", help="of each (default: all alike)")
    parser.add_argument("--windows", type=Path, help="folder of windows to measure all of them on")
    parser.add_argument(
        "--microphones", action="store_true", help="measure with microphones that have faults"
    )
    parser.add_argument("--output", type=Path, help="where the mean is written; not if not given")
    options = parser.parse_args(argv)
    try:
        if not (options.windows or options.output):
            raise OptionError("Nothing is asked for: give --output, --windows, or both.")
        if options.output:
            check_output(options.output, options.scorers)
        networks = [load_scorer(path) for path in options.scorers]
        mean = mean_of(networks, options.shares)
        if options.windows:
            held_out = kept_windows(options.windows)
            for name, network in zip([*options.scorers, "mean"], [*networks, mean], strict=True):
                figures = validate(
                    network, held_out, torch.device("cpu"), microphones=options.microphones
                )
                print(f"{name}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
        if options.output:
            provenance = {
                "command": "python -m training.average",
                "of": [file_sha256(path) for path in options.scorers],
                "shares": options.shares or "alike",
            }
            save_scorer(options.output, mean, provenance)
    except AvsaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
