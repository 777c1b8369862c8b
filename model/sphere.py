"""The equirectangular picture: pixels to directions and back, tangent crops, rolls.

Axes and signs are those of `model.ambisonics`: with (u, v) in [0, 1) from the top left,
azimuth = 180 - 360 u and elevation = 90 - 180 v degrees; the centre column is the front and the
left half has positive azimuth. Pixel (row, column) = (i, j) covers (u, v) = ((j + ½)/W, (i + ½)/H).
Angles are radians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

FloatArray = NDArray[np.floating]


def pixel_to_direction(
    row: ArrayLike, column: ArrayLike, height: int, width: int
) -> tuple[FloatArray, FloatArray]:
    """Azimuth in (-pi, pi] and elevation of pixel centres; fractional pixels are welcome."""
    azimuth = math.pi * (1 - 2 * (np.asarray(column, dtype=np.float64) + 0.5) / width)
    elevation = math.pi * (0.5 - (np.asarray(row, dtype=np.float64) + 0.5) / height)
    return wrap_angle(azimuth), elevation


def direction_to_pixel(
    azimuth_rad: ArrayLike, elevation_rad: ArrayLike, height: int, width: int
) -> tuple[FloatArray, FloatArray]:
    """Inverse of `pixel_to_direction`: fractional row, and column in [-½, width - ½)."""
    azimuth = wrap_angle(np.asarray(azimuth_rad, dtype=np.float64))
    column = (0.5 - azimuth / math.tau) * width - 0.5
    row = (0.5 - np.asarray(elevation_rad, dtype=np.float64) / math.pi) * height - 0.5
    return row, column


def wrap_angle(angle_rad: ArrayLike) -> FloatArray:
    """The same angle in (-pi, pi]."""
    return np.asarray(math.pi - np.mod(math.pi - np.asarray(angle_rad), math.tau))


def column_azimuths(width: int) -> FloatArray:
    """Azimuth of each column's centre, [shape=(W,)], falling from just under pi."""
    return pixel_to_direction(0.0, np.arange(width), 1, width)[0]


def row_elevations(height: int) -> FloatArray:
    """Elevation of each row's centre, [shape=(H,)], falling from just under pi/2."""
    return pixel_to_direction(np.arange(height), 0.0, height, 1)[1]


def tangent_coordinates(
    azimuth_rad: ArrayLike,
    elevation_rad: ArrayLike,
    *,
    centre_azimuth_rad: float,
    centre_elevation_rad: float,
) -> tuple[FloatArray, FloatArray]:
    """Where directions meet the plane that touches the unit sphere at a centre, left and up.

    Inverse of what `tangent_map` samples: there a crop reads from the sphere, here a flat picture
    may be put on it. Directions that never meet the plane (90 degrees away and more) are infinite.
    """
    turned = np.asarray(azimuth_rad, dtype=np.float64) - centre_azimuth_rad
    elevation = np.asarray(elevation_rad, dtype=np.float64)
    forward, left = np.cos(elevation) * np.cos(turned), np.cos(elevation) * np.sin(turned)
    sin, cos = math.sin(centre_elevation_rad), math.cos(centre_elevation_rad)
    front = cos * forward + sin * np.sin(elevation)
    up = cos * np.sin(elevation) - sin * forward
    meets = front > 1e-9
    distance = np.where(meets, front, 1.0)
    return np.where(meets, left / distance, math.inf), np.where(meets, up / distance, math.inf)


@dataclass(frozen=True)
class TangentMap:
    """Where each pixel of a tangent crop at azimuth 0 reads from; it serves every azimuth.

    Attributes
    ----------
    grid : sampling grid over the slab of columns that the crop touches, [shape=(1, h, w, 2)].
    first_column, n_columns : that slab, relative to the frame's front column (W / 2).
    """

    grid: Tensor
    first_column: int
    n_columns: int


@lru_cache(maxsize=64)
def tangent_map(
    elevation_rad: float,
    fov_rad: float,
    size: tuple[int, int],
    frame_size: tuple[int, int],
    device: torch.device | str = "cpu",
) -> TangentMap:
    """Map of a gnomonic crop whose centre lies at the given elevation and azimuth 0.

    fov_rad : full horizontal angle of view, 0 to below pi (a true angle, at the crop's middle row).
    size, frame_size : (height, width) of crop and equirectangular frame; pixels are square.
    """
    if not 0 < fov_rad < math.pi:
        raise ValueError(f"field of view {fov_rad} rad is outside (0, pi)")
    (h, w), (frame_h, frame_w) = size, frame_size
    half_width = math.tan(fov_rad / 2)
    across = half_width * (2 * (np.arange(w) + 0.5) / w - 1)
    down = half_width * h / w * (2 * (np.arange(h) + 0.5) / h - 1)
    y, z = np.meshgrid(-across, -down)  # left and up on the tangent plane x = 1
    sin, cos = math.sin(elevation_rad), math.cos(elevation_rad)
    front, up = cos - sin * z, sin + cos * z
    azimuth = np.arctan2(y, front)
    row, column = direction_to_pixel(azimuth, np.arctan2(up, np.hypot(front, y)), frame_h, frame_w)
    column -= frame_w / 2
    first = math.floor(column.min())
    n_columns = math.ceil(column.max()) + 1 - first
    grid = np.stack(
        [2 * (column - first + 0.5) / n_columns - 1, 2 * (row + 0.5) / frame_h - 1], axis=-1
    )
    return TangentMap(
        torch.tensor(grid[None], dtype=torch.float32, device=device), first, n_columns
    )


def tangent_crops(
    frames: Tensor, azimuths_rad: Sequence[float], crop: TangentMap, *, nearest: bool = False
) -> Tensor:
    """Crops of the same elevation, field of view and size at several azimuths.

    One map serves them all, by whole-column rolls: a crop of a rolled frame equals the rolled
    frame's crop to the bit, and no map is built twice. The centre is therefore snapped to a
    column (at most 180 / W degrees away).

    frames : [shape=(T, channels, H, W)], floating point, of the map's frame size.
    nearest : take the nearest pixels, for what has no mean.
    Returns [shape=(V, T, channels, h, w)], bilinear unless `nearest`.
    """
    n_frames, channels, _, width = frames.shape
    grid = crop.grid.to(frames.dtype).expand(n_frames, -1, -1, -1)
    crops = frames.new_empty(len(azimuths_rad), n_frames, channels, *crop.grid.shape[1:3])
    for view, azimuth in enumerate(azimuths_rad):
        first = width // 2 + crop.first_column - columns_of(azimuth, width)
        crops[view] = functional.grid_sample(
            _wrapped_columns(frames, first % width, crop.n_columns),
            grid,
            mode="nearest" if nearest else "bilinear",
            padding_mode="border",
            align_corners=False,
        )
    return crops


def _wrapped_columns(frames: Tensor, first: int, count: int) -> Tensor:
    """`count` columns from `first` on, around the seam; a view where the seam is not touched."""
    width = frames.shape[-1]
    if first + count <= width:
        return frames[..., first : first + count]
    # A crop over a pole touches every column and its neighbours: up to one and a bit turns.
    repeats = [frames] * ((first + count - 1) // width - 1)
    rest = first + count - width * (1 + len(repeats))
    return torch.cat([frames[..., first:], *repeats, frames[..., :rest]], dim=-1)


def columns_of(angle_rad: float, width: int) -> int:
    """Whole columns nearest to an angle: turning the picture by it moves columns left by these."""
    return round(angle_rad / math.tau * width)
