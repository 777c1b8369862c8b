"""How much each kind of evidence counts for which way round a field is (`model.handedness`).

    python -m training.fit_handedness WINDOWS [WINDOWS...]

Windows of synthetic scenes are scored as they are and mirrored, each with all its rotations. The
weights are those under which the true way round is likeliest at even odds (a conditional logit over
both ways, each the sum over its rotations), found on every other window and told on the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from model.checkpoint import Calibration, load_calibration
from model.errors import AvsaError, OptionError
from model.handedness import WEIGHTS, Hypothesis, parts, window_undone
from model.interruption import command
from model.learned import scorers_for
from model.scoring import score
from training.data.windows import load_window, mixed_windows
from training.options import at_least

_NAMES = ("learned", "cues", "following")
_LEAST = 2 * len(_NAMES)  # windows, of which half are fitted on


def both_ways(paths: Sequence[Path], calibration: Calibration) -> Tensor:
    """`handedness.parts` of windows as they are and mirrored, [shape=(N, 2, 3, R)]."""
    scorers = scorers_for(calibration)
    found = []
    for path in tqdm(paths, unit="window", desc="scoring"):
        window = load_window(path)
        ways = [window, window_undone(window, Hypothesis.MIRRORED)]
        found.append(
            torch.stack([parts(way, score(way, scorers, calibration), calibration) for way in ways])
        )
    return torch.stack(found)


def log_odds(ways: Tensor, weights: Tensor) -> Tensor:
    """Of the first of both ways, [shape=(N, 2, 3, R)] and (3,) to (N,)."""
    total = torch.einsum("nwkr,k->nwr", ways, weights).logsumexp(-1)
    return total[:, 0] - total[:, 1]


def fitted(ways: Tensor) -> Tensor:
    """The weights, none negative, under which the first way is likeliest, [shape=(3,)]."""
    roots = torch.ones(3, dtype=ways.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([roots], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.softplus(-log_odds(ways, roots.square())).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return roots.detach().square()


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, and print the weights with what they do on windows that they were not fitted on."""
    parser = argparse.ArgumentParser(
        prog="python -m training.fit_handedness", description="Fit model.handedness."
    )
    parser.add_argument("windows", type=Path, nargs="+", help="folders of kept windows")
    parser.add_argument(
        "--count", type=partial(at_least, _LEAST), default=240, help="windows at most (default 240)"
    )
    options = parser.parse_args(argv)
    try:
        paths = mixed_windows(options.windows)[: options.count]
        if len(paths) < _LEAST:
            raise OptionError(f"{len(paths)} windows are too few to fit {len(_NAMES)} weights on.")
        ways = both_ways(paths, load_calibration())
    except AvsaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    halves = (ways[::2], ways[1::2])
    tried = {"as shipped": ways.new_tensor(WEIGHTS), "fitted": fitted(halves[0])}
    for name, weights in tried.items():
        odds = log_odds(halves[1], weights)
        told = ", ".join(f"{n} {w:.2f}" for n, w in zip(_NAMES, weights, strict=True))
        loss, right = functional.softplus(-odds).mean(), (odds > 0).double().mean()
        print(f"{name}: {told}; on {len(odds)} others log loss {loss:.3f}, right {right:.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
