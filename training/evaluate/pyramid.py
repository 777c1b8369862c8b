"""A feature pyramid's head: the class of every pixel from four stages of an encoder.

Lin et al. 2017, with the semantic branch of Kirillov et al. 2019, as AVSA's supplement and code
have it: each stage's times are summed by learned weights, 1x1 convolutions bring all to one width,
coarse is added to fine, and each level is convolved up to the finest, where they are summed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_GROUPS = 32


class PyramidHead(nn.Module):
    """From feature maps of rising stages to logits.

    Parameters
    ----------
    widths : channels of each stage, the finest first.
    times : frames of each stage.
    n_classes : of the logits.
    extra : values that are known of a whole picture (its sound, say), put beside every place of the
        last stage; 0 for none.
    width, branch_width : of the pyramid, and of what is summed at its end.
    """

    def __init__(
        self,
        widths: Sequence[int],
        times: Sequence[int],
        n_classes: int,
        *,
        extra: int = 0,
        width: int = 256,
        branch_width: int = 128,
    ) -> None:
        super().__init__()
        inputs = [*widths[:-1], widths[-1] + extra]
        self.pooling = nn.ParameterList(torch.full((n,), 1 / n) for n in times)
        self.lateral = nn.ModuleList(nn.Conv2d(n_in, width, 1) for n_in in inputs)
        self.smoothing = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in inputs)
        self.branches = nn.ModuleList(
            _Branch(max(1, level), width, branch_width) for level in range(len(inputs))
        )
        self.classifier = nn.Conv2d(branch_width, n_classes, 1)

    def forward(
        self, maps: Sequence[Tensor], extra: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        """Logits [shape=(B, classes, *size)].

        maps : of each stage, [shape=(B, C, T, H, W)]. extra : [shape=(B, D)].
        """
        pooled = [
            torch.einsum("bcthw,t->bchw", stage, weights)
            for stage, weights in zip(maps, self.pooling, strict=True)
        ]
        if extra is not None:
            everywhere = extra[..., None, None].expand(-1, -1, *pooled[-1].shape[2:])
            pooled[-1] = torch.cat([pooled[-1], everywhere], dim=1)
        summed: list[Tensor] = []  # the coarsest first
        for lateral, stage in zip(reversed(self.lateral), reversed(pooled), strict=True):
            level = lateral(stage)
            if summed:
                level = level + functional.interpolate(summed[-1], level.shape[2:], mode="nearest")
            summed.append(level)
        levels = [smooth(s) for smooth, s in zip(self.smoothing, reversed(summed), strict=True)]
        sizes = [level.shape[2:] for level in levels]
        total = torch.stack(
            [
                branch(level, sizes[:index][::-1])
                for index, (branch, level) in enumerate(zip(self.branches, levels, strict=True))
            ]
        ).sum(0)
        return _scaled(self.classifier(total), size)


class _Branch(nn.Module):
    """Convolutions that bring a level to the finest one's size, doubling it after each."""

    def __init__(self, count: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            _convolution(n_in if step == 0 else n_out, n_out) for step in range(count)
        )

    def forward(self, level: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        """To the finest level's size; `sizes` are those on the way, none for the finest itself."""
        for index, step in enumerate(self.steps):
            level = step(level)
            if sizes:
                level = _scaled(level, sizes[index])
        return level


def _convolution(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
        nn.GroupNorm(math.gcd(_GROUPS, n_out), n_out),
        nn.ReLU(inplace=True),
    )


def _scaled(maps: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
