"""Crops of YT-360's pictures with the class of every pixel, and what is heard there.

Picture, class map and sound are taken at the same moment and cut by the same views, and mirrored
together. Items are pure functions of seed, epoch and index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from model.errors import UnusableContent
from model.networks.avsa import AvsaConfig
from model.viewpoints import mirrored, steering
from training.data.clips import (
    Clip,
    ClipDraws,
    ClipFiles,
    Cropping,
    by_recording,
    crops_at,
    draw_moments,
)
from training.data.crops import Views, coloured_otherwise, cut_crops, draw_views
from training.data.segmentation import FOLDER, LabelMap, has_maps, read_labels
from training.data.tensors import Tensors


@dataclass(frozen=True)
class Labelled(Tensors):
    """Items as a network takes them, [shape=(B, ...)]; a single one has no B.

    Attributes
    ----------
    pictures, sounds : as in `training.data.clips.Crops`, K viewpoints.
    labels : of the pictures, 0 to 31 or `IGNORED`, int64 [shape=(B, K, H, W)].
    """

    pictures: Tensor
    sounds: Tensor
    labels: Tensor


class LabelledCrops(ClipDraws, Dataset[Labelled]):
    """Items by recording, `draws` of each an epoch: of one of its clips a moment, and K views.

    Clips without class maps are left out (`n_without_maps`).

    Raises
    ------
    UnusableContent : no clip has maps.
    """

    def __init__(
        self,
        root: Path,
        clips: Sequence[Clip],
        network: AvsaConfig,
        cropping: Cropping,
        *,
        draws: int = 1,
        seed: int = 0,
    ) -> None:
        self._maps = root / FOLDER
        grouped = by_recording(
            clip
            for clip in clips
            if has_maps(self._maps / clip.name) and clip.duration_s >= network.sound_s
        )
        if not grouped:
            raise UnusableContent(f"None of the {len(clips)} clips has class maps in {self._maps}.")
        super().__init__([*grouped.values()], draws=draws, seed=seed)
        self.n_clips = sum(map(len, grouped.values()))
        self.n_without_maps = len(clips) - self.n_clips
        self._network, self._cropping = network, cropping
        self._media = ClipFiles()

    def __getitem__(self, index: int) -> Labelled:
        return self._drawn(int(self._epoch), index, lambda rng, clip, _: self._item(rng, clip))

    def _item(self, rng: np.random.Generator, clip: Clip) -> Labelled:
        network, cropping = self._network, self._cropping
        heard_s = draw_moments(rng, clip.duration_s, 1, network.sound_s)
        length_s = network.n_frames / network.frame_rate_hz
        seen_s = float(heard_s[0] + rng.uniform(0, network.sound_s - length_s))
        views = draw_views(
            rng,
            cropping.n_viewpoints,
            fields_of_view_rad=cropping.fields_of_view_rad,
            mirror=cropping.augment,
        )
        size = cropping.frame_height, 2 * cropping.frame_height
        classes = read_labels(self._maps / clip.name, seen_s + length_s)
        pictures = crops_at(self._media, clip, seen_s, network, views, size)
        covariance = self._media.sound(clip, heard_s, network)[0]
        if views.mirrored:
            covariance = mirrored(covariance)
        if cropping.augment:
            pictures = coloured_otherwise(rng, pictures)
            covariance = covariance * rng.uniform(0.9, 1.1) ** 2
        return Labelled(
            pictures,
            network.sound.at(covariance, steering(views.heard_rad[:, 0], views.heard_rad[:, 1])),
            cut_labels(classes, views, network.crop_px, size),
        )


def cut_labels(
    classes: LabelMap, views: Views, size_px: int, frame_size: tuple[int, int]
) -> Tensor:
    """The labels of crops, int64 [shape=(K, size_px, size_px)].

    classes : of the whole picture, of any size. frame_size : (height, width) of the picture from
        which the crops are cut; labels are brought to it first, so that both are cut alike.
    """
    whole = torch.from_numpy(classes).float()[None, None]
    framed = functional.interpolate(whole, frame_size, mode="nearest-exact")
    return cut_crops(framed, views, size_px, nearest=True)[:, 0, 0].long()
