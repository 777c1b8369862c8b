"""Clips of ordinary videos for action recognition: drawn ones to learn from, whole videos to test.

A clip is what an AVSA network's video encoder takes, half a second as published; of a video that is
shorter, what there is is repeated. Items are pure functions of seed, epoch and index. Videos that
cannot be read are logged, counted once each, and left out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from model.errors import InputError, MediaError
from model.media import VideoReader
from model.networks.avsa import AvsaConfig
from training.data.actions import ActionVideo
from training.data.crops import coloured_otherwise

FloatArray = NDArray[np.float64]

_ATTEMPTS = 10  # videos of an item that may fail one after the other
_MARGIN = 128 / 112  # a picture's shorter side against the crop that is tested, as published
_FINEST = 256 / 112  # the same, at most, where crops of any size are drawn from
_ASPECTS = (3 / 4, 4 / 3)
_log = logging.getLogger(__name__)


class _Videos:
    """Listed videos, and which of them turned out broken, over all workers."""

    def __init__(self, videos: Sequence[ActionVideo]) -> None:
        self._videos = videos
        self._is_broken = torch.zeros(len(videos), dtype=torch.bool)
        self._is_broken.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def broken(self) -> list[Path]:
        """What could not be read."""
        return [self._videos[int(index)].path for index in self._is_broken.nonzero()]

    def _leave_out(self, index: int, error: InputError) -> None:
        _log.warning("%s is left out: %s", self._videos[index].path.name, error)
        self._is_broken[index] = True


class DrawnClips(_Videos, Dataset[tuple[Tensor, int]]):
    """A clip and its label: `draws` of each video an epoch, each in a random place, size and tint.

    Clips are RGB from 0 to 1, [shape=(3, T, H, W)]. least_area : of a picture, that is shown.
    """

    def __init__(
        self,
        videos: Sequence[ActionVideo],
        network: AvsaConfig,
        *,
        draws: int,
        least_area: float = 0.08,
        seed: int = 0,
    ) -> None:
        super().__init__(videos)
        self._network, self._least_area = network, least_area
        self._draws, self._seed = draws, seed
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._videos) * self._draws

    def set_epoch(self, epoch: int) -> None:
        """Other clips from now on, in workers that run too."""
        self._epoch.fill_(epoch)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        for attempt in range(_ATTEMPTS):
            # A generator for each: what is known of a video to come must not tell in the next one.
            rng = np.random.default_rng([self._seed, int(self._epoch), item, attempt])
            index = int(rng.integers(len(self._videos))) if attempt else item // self._draws
            video = self._videos[index]
            if not self._is_broken[index]:
                try:
                    return self._clip(rng, video), video.label
                except InputError as error:
                    self._leave_out(index, error)
        raise MediaError(
            f"{_ATTEMPTS} videos one after the other cannot be read, {video.path} last."
        )

    def _clip(self, rng: np.random.Generator, video: ActionVideo) -> Tensor:
        network = self._network
        length_s = network.n_frames / network.frame_rate_hz
        with VideoReader(video.path, flat=True, threads=1) as reader:
            info = reader.info
            start_s = rng.uniform(0, max(0.0, info.duration_s - length_s))
            short_px = min(round(_FINEST * network.crop_px), info.height, info.width)
            frames, times_s = _read(reader, start_s, length_s, short_px)
        frames = frames[clip_frames(times_s, start_s, network)]
        _, tall, wide, _ = frames.shape
        top, left, height, width = draw_region(rng, tall, wide, self._least_area)
        region = torch.from_numpy(frames[:, top : top + height, left : left + width])
        clip = functional.interpolate(
            region.movedim(-1, 1) / 255,
            (network.crop_px, network.crop_px),
            mode="bilinear",
            antialias=True,
        )
        if rng.random() < 0.5:
            clip = clip.flip(-1)
        return coloured_otherwise(rng, clip.transpose(0, 1)[None])[0]


@dataclass(frozen=True)
class WholeVideo:
    """A video to test on, and the clips of it that are tested.

    Attributes
    ----------
    frames : its middle square, uint8 RGB [shape=(N, 3, H, W)].
    random, uniform : which frames make up each clip, [shape=(clips, T)]: drawn over the video, and
        evenly over it.
    """

    frames: Tensor
    random: Tensor
    uniform: Tensor
    label: int

    def clips(self, which: Tensor) -> Tensor:
        """Clips as a network takes them, RGB from 0 to 1 [shape=(clips, 3, T, H, W)]."""
        return self.frames[which].transpose(1, 2) / 255


class WholeVideos(_Videos, Dataset[WholeVideo | None]):
    """Each video with `n_clips` drawn and as many even clips; None for one that cannot be read."""

    def __init__(
        self, videos: Sequence[ActionVideo], network: AvsaConfig, *, n_clips: int, seed: int
    ) -> None:
        super().__init__(videos)
        self._network, self._n_clips, self._seed = network, n_clips, seed

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> WholeVideo | None:
        network, video = self._network, self._videos[index]
        short_px = round(_MARGIN * network.crop_px)
        try:
            with VideoReader(video.path, flat=True, threads=1) as reader:
                frames, times_s = _read(reader, 0.0, math.inf, short_px)
        except InputError as error:
            self._leave_out(index, error)
            return None
        length_s = network.n_frames / network.frame_rate_hz
        frame_s = 1 / network.frame_rate_hz if len(times_s) < 2 else times_s[1] - times_s[0]
        last_s = max(0.0, float(times_s[-1]) + frame_s - length_s)
        rng = np.random.default_rng([self._seed, index])
        random, uniform = (
            np.stack([clip_frames(times_s, start_s, network) for start_s in starts_s])
            for starts_s in (
                rng.uniform(0, last_s, self._n_clips),
                np.linspace(0, last_s, self._n_clips),
            )
        )
        side = network.crop_px
        top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
        middle = frames[:, top : top + side, left : left + side]
        return WholeVideo(
            torch.from_numpy(middle).movedim(-1, 1).contiguous(),
            torch.from_numpy(random),
            torch.from_numpy(uniform),
            video.label,
        )


def _read(
    reader: VideoReader, start_s: float, length_s: float, short_px: int
) -> tuple[NDArray[np.uint8], FloatArray]:
    """Frames [shape=(T, H, W, 3)] with a shorter side of `short_px`, and their times.

    Raises
    ------
    MediaError : there are none.
    """
    info = reader.info
    scale = short_px / min(info.width, info.height)
    size = (round(scale * info.height), round(scale * info.width))
    window = reader.read(start_s, length_s, size=size, colour=True)
    if not len(window.frames):
        raise MediaError(f"{info.path} has no frames from {start_s:.1f} s on.")
    return window.frames, window.times_s


def clip_frames(times_s: FloatArray, start_s: float, network: AvsaConfig) -> NDArray[np.int64]:
    """Which of the frames at `times_s` make up the clip from a time on, [shape=(T,)].

    Each is the nearest one; a video that is over begins again.
    """
    wanted_s = start_s + np.arange(network.n_frames) / network.frame_rate_hz
    frame_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0
    shown_s = float(times_s[-1] - times_s[0]) + frame_s
    wanted_s = times_s[0] + np.maximum(wanted_s - times_s[0], 0) % shown_s
    nearest: NDArray[np.int64] = np.abs(times_s - wanted_s[:, None]).argmin(axis=1)
    return nearest


def draw_region(
    rng: np.random.Generator, height: int, width: int, least_area: float
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a part of a picture, of at least a share of its area.

    Drawn evenly in area, and in the logarithm of the aspect (3:4 to 4:3); the middle square where
    ten draws do not fit.
    """
    for _ in range(10):
        area = rng.uniform(least_area, 1) * height * width
        aspect = math.exp(rng.uniform(*np.log(_ASPECTS)))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side
