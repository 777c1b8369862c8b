"""What an AVSA network judges: crops all around the horizon at moments of a take, and their sound.

Crops stand where `yaw_scores` expects them. A window is judged by the mean over its moments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.networks.avsa import AvsaConfig
from model.sphere import tangent_crops, tangent_map
from model.yaw_scores import viewpoint_azimuths

FRAME_SIZE = (320, 640)  # at which the picture is read
MOMENTS = 4  # of a window, evenly over it
_FIELD_OF_VIEW_RAD = math.pi / 2
_LEAST_SHARE = 0.5  # of a moment's frames that must be there


@dataclass(frozen=True)
class Moment:
    """A look around and its sound.

    Attributes
    ----------
    crops : RGB from 0 to 1 at `viewpoint_azimuths(K)` on the horizon, [shape=(K, 3, T, H, W)].
    covariance : of the field, by `SoundInput.covariance`, [shape=(T, F, 10)].
    """

    crops: Tensor
    covariance: Tensor


def moment_starts(start_s: float, duration_s: float, config: AvsaConfig) -> list[float]:
    """Where the moments of a window begin; fewer where it is too short for all."""
    count = max(1, min(MOMENTS, int(duration_s / config.sound_s)))
    room_s = max(0.0, duration_s - config.sound_s)
    return [start_s + (index + 0.5) / count * room_s for index in range(count)]


def picture_span(start_s: float, config: AvsaConfig) -> tuple[float, float]:
    """Start and duration of the picture in the middle of the sound of a moment."""
    length_s = config.n_frames / config.frame_rate_hz
    return start_s + (config.sound_s - length_s) / 2, length_s


def crops_around(
    frames: NDArray[np.uint8], times_s: NDArray[np.float64], start_s: float, config: AvsaConfig
) -> Tensor | None:
    """Crops of frames, RGB [shape=(T, H, W, 3)] at these times, of the picture from `start_s` on.

    The frame nearest to each of the network's times is taken. None if the picture has too little.
    """
    wanted = start_s + np.arange(config.n_frames) / config.frame_rate_hz
    if not len(times_s) or times_s[-1] - times_s[0] < _LEAST_SHARE * (wanted[-1] - wanted[0]):
        return None
    nearest = np.abs(times_s[None] - wanted[:, None]).argmin(1)
    pictures = torch.from_numpy(frames[nearest]).permute(0, 3, 1, 2).float() / 255
    crop = tangent_map(0.0, _FIELD_OF_VIEW_RAD, (config.crop_px, config.crop_px), frames.shape[1:3])
    crops = tangent_crops(pictures, viewpoint_azimuths(config.viewpoints), crop)
    return crops.transpose(1, 2)
