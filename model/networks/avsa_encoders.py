"""The two encoders of AVSA: R(2+1)D-18 for crops of the picture, a nine-layer CNN for sound.

Morgado, Li, Vasconcelos, "Learning Representations from Audio-Visual Spatial Alignment", NeurIPS
2020, supplement, table 1. Widths are free, so that a narrow copy of the same networks trains
without a GPU; the published ones are (64, 128, 256, 512): 15 379 136 and 4 735 104 parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

PUBLISHED_WIDTHS = (64, 128, 256, 512)
_FACTORISED_STRIDES = ((1, 1), (2, 2), (2, 2), (2, 2))  # in time and space, of each stage
_AUDIO_STRIDES = (1, 2, 2, 1)


class Encoder(nn.Module):
    """A stem and stages of convolutions, pooled by their maxima: [shape=(B, channels, ...)]."""

    stem: nn.Sequential
    stages: nn.ModuleList

    def trace(self, inputs: Tensor) -> Iterator[Tensor]:
        """What leaves the stem and each stage."""
        maps: Tensor = self.stem(inputs)
        yield maps
        for stage in self.stages:
            maps = stage(maps)
            yield maps

    def feature_maps(self, inputs: Tensor) -> Tensor:
        """The last stage, before pooling, [shape=(B, D, ...)]."""
        *_, last = self.trace(inputs)
        return last

    def forward(self, inputs: Tensor) -> Tensor:
        """One vector each, [shape=(B, D)]."""
        maps = self.feature_maps(inputs)
        return maps.amax(dim=tuple(range(2, maps.ndim)))


class VideoEncoder(Encoder):
    """R(2+1)D-18 as in the supplement: every 3D kernel is a spatial one and then a temporal one.

    Clips are standardised RGB [shape=(B, 3, T, H, W)], maps [shape=(B, D, T/8, H/16, W/16)].

    Against Tran et al. 2018: the width between the two is the block's output width, and a residual
    sum passes one batch normalisation and a ReLU.
    """

    def __init__(self, widths: Sequence[int] = PUBLISHED_WIDTHS) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, widths[0], (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(inplace=True),
        )
        inputs = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(FactorisedBlock(n_in, n_out, *stride), FactorisedBlock(n_out, n_out))
            for n_in, n_out, stride in zip(inputs, widths, _FACTORISED_STRIDES, strict=True)
        )


class FactorisedBlock(nn.Module):
    """Two (spatial, temporal) pairs of convolutions around a shortcut."""

    def __init__(self, n_in: int, n_out: int, time_stride: int = 1, space_stride: int = 1) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _spatial(n_in, n_out, space_stride), *_normalised(n_out),
            _temporal(n_out, n_out, time_stride), *_normalised(n_out),
            _spatial(n_out, n_out, 1), *_normalised(n_out),
            _temporal(n_out, n_out, 1),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if n_in != n_out or time_stride * space_stride > 1:
            stride = (time_stride, space_stride, space_stride)
            self.shortcut = nn.Conv3d(n_in, n_out, 1, stride, bias=False)
        self.closing = nn.Sequential(*_normalised(n_out))

    def forward(self, maps: Tensor) -> Tensor:
        closed: Tensor = self.closing(self.shortcut(maps) + self.residual(maps))
        return closed


def _spatial(n_in: int, n_out: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(n_in, n_out, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)


def _temporal(n_in: int, n_out: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(n_in, n_out, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)


def _normalised(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm3d(width), nn.ReLU(inplace=True)


class AudioEncoder(Encoder):
    """Nine convolutions over time and frequency, without shortcuts.

    Sound is standardised [shape=(B, C, T, F)], maps [shape=(B, D, T/8, F/8)], rounded up.

    n_channels : of the input, what one viewpoint hears (see `model.viewpoints`).
    """

    def __init__(self, n_channels: int = 4, widths: Sequence[int] = PUBLISHED_WIDTHS) -> None:
        super().__init__()
        self.stem = _convolution(n_channels, widths[0], kernel=7, stride=2)
        inputs = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(n_in, n_out, stride=stride), _convolution(n_out, n_out))
            for n_in, n_out, stride in zip(inputs, widths, _AUDIO_STRIDES, strict=True)
        )


def _convolution(n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )
