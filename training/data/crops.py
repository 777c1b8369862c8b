"""Where crops of a 360 picture look: chosen at random or by interest, apart on the sphere.

Interest is a map over cells of the sphere's middle band, [shape=(N_ELEVATIONS, A)], rows from the
top, columns in picture order: how much each place is worth looking at, per solid angle. Directions
are drawn from it one at a time, none nearer to another than `MIN_APART_RAD`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import features
from model.detections import Detection
from model.features import N_ELEVATIONS
from model.sphere import tangent_crops, tangent_map, wrap_angle

FloatArray = NDArray[np.float64]

N_AZIMUTHS = 72
MAX_ELEVATION_RAD = math.radians(60)
MIN_APART_RAD = math.radians(36)
FIELDS_OF_VIEW_RAD = (math.radians(25), math.radians(90))
_ANYWHERE = 0.1  # share of guided directions that are drawn without regard to interest
_STRETCH = 10  # times of sound that are heard together: 0.1 s
_BELL_RAD = math.radians(10)  # deviation
_TRIES = 1000


@dataclass(frozen=True)
class Views:
    """What K crops of a picture look at.

    Attributes
    ----------
    directions_rad : azimuth and elevation of each, [shape=(K, 2)].
    fields_of_view_rad : full horizontal angles, [shape=(K,)].
    mirrored : whether left and right are exchanged in what is seen; then they must be in what is
        heard (`model.viewpoints.mirrored`, before steering to `heard_rad`).
    """

    directions_rad: FloatArray
    fields_of_view_rad: FloatArray
    mirrored: bool = False

    @property
    def heard_rad(self) -> FloatArray:
        """The directions in the scene as it is shown, [shape=(K, 2)]."""
        return self.directions_rad * ([-1, 1] if self.mirrored else [1, 1])


def draw_views(
    rng: np.random.Generator,
    count: int,
    *,
    interest: FloatArray | None = None,
    fields_of_view_rad: tuple[float, float] = FIELDS_OF_VIEW_RAD,
    max_elevation_rad: float = MAX_ELEVATION_RAD,
    min_apart_rad: float = MIN_APART_RAD,
    mirror: bool = True,
) -> Views:
    """Directions by interest (default: evenly over the band), angles of view evenly, half mirrored.

    max_elevation_rad : cells whose centres lie higher or lower are not looked at.

    Raises
    ------
    ValueError : no `count` directions so far apart could be found.
    """
    flat = np.ones((N_ELEVATIONS, N_AZIMUTHS))
    wanted = flat if interest is None else _with_a_share_anywhere(interest)
    wanted = np.where(np.abs(_grid()[..., 1]) <= max_elevation_rad, wanted, 0.0)
    directions: list[FloatArray] = []
    for _ in range(count):
        directions.append(_draw_apart(rng, wanted, directions, min_apart_rad))
    return Views(
        np.stack(directions),
        rng.uniform(*fields_of_view_rad, count),
        mirrored=mirror and bool(rng.random() < 0.5),
    )


def _with_a_share_anywhere(interest: FloatArray) -> FloatArray:
    total = float((interest * cell_areas()).sum())
    if not total > 0:
        return np.ones_like(interest)
    even = total / float(cell_areas().sum() * N_AZIMUTHS)
    return (1 - _ANYWHERE) * interest + _ANYWHERE * even


def _draw_apart(
    rng: np.random.Generator, wanted: FloatArray, others: list[FloatArray], min_apart_rad: float
) -> FloatArray:
    """A direction at least so far from all others, evenly within a cell drawn by interest."""
    centres = _grid_vectors()
    weight = wanted * cell_areas()
    half_diagonal = math.hypot(math.pi / N_AZIMUTHS, MAX_ELEVATION_RAD / N_ELEVATIONS)
    for other in others:
        near = _angle(centres, unit_vectors(other)) < min_apart_rad - half_diagonal
        weight = np.where(near, 0, weight)
    total = weight.sum()
    for _ in range(_TRIES if total > 0 else 0):
        cell = rng.choice(weight.size, p=weight.ravel() / total)
        direction = _within_cell(rng, *divmod(int(cell), N_AZIMUTHS))
        if all(angle_between(direction, other) >= min_apart_rad for other in others):
            return direction
    raise ValueError(
        f"no {len(others) + 1} directions {math.degrees(min_apart_rad):.0f} degrees apart were "
        "found: take fewer crops, or a smaller distance"
    )


def _within_cell(rng: np.random.Generator, row: int, column: int) -> FloatArray:
    """A direction evenly over a cell's area."""
    top = MAX_ELEVATION_RAD * (1 - 2 * row / N_ELEVATIONS)
    bottom = MAX_ELEVATION_RAD * (1 - 2 * (row + 1) / N_ELEVATIONS)
    azimuth = math.pi - math.tau * (column + rng.random()) / N_AZIMUTHS
    height = rng.uniform(math.sin(bottom), math.sin(top))
    return np.array([float(wrap_angle(azimuth)), math.asin(height)])


def cell_centres() -> tuple[FloatArray, FloatArray]:
    """Elevations [shape=(N_ELEVATIONS,)] and azimuths [shape=(A,)] of the cells' centres."""
    rows = MAX_ELEVATION_RAD * (1 - (2 * np.arange(N_ELEVATIONS) + 1) / N_ELEVATIONS)
    return rows, features.azimuths(N_AZIMUTHS).numpy()


@lru_cache(maxsize=1)
def _grid() -> FloatArray:
    """Azimuth and elevation of the cells' centres, [shape=(N_ELEVATIONS, A, 2)]."""
    return np.stack(np.meshgrid(*cell_centres()[::-1]), axis=-1)


@lru_cache(maxsize=1)
def _grid_vectors() -> FloatArray:
    """The same as unit vectors, [shape=(N_ELEVATIONS, A, 3)]."""
    return unit_vectors(_grid())


def cell_areas() -> FloatArray:
    """Solid angle of the cells of each row, [shape=(N_ELEVATIONS, 1)], steradians."""
    edges = np.sin(np.linspace(MAX_ELEVATION_RAD, -MAX_ELEVATION_RAD, N_ELEVATIONS + 1))
    return np.asarray(-np.diff(edges)[:, None] * (math.tau / N_AZIMUTHS))


def unit_vectors(directions_rad: FloatArray) -> FloatArray:
    """Azimuth and elevation [shape=(..., 2)] as (x, y, z), [shape=(..., 3)]."""
    azimuth, elevation = directions_rad[..., 0], directions_rad[..., 1]
    flat = np.cos(elevation)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], axis=-1)


def angle_between(one_rad: FloatArray, other_rad: FloatArray) -> FloatArray:
    """Great-circle angle of directions (azimuth, elevation), [shape=(..., 2)] each, radians."""
    return _angle(unit_vectors(one_rad), unit_vectors(other_rad))


def _angle(first: FloatArray, second: FloatArray) -> FloatArray:
    """Angle of unit vectors, [shape=(..., 3)] each, radians."""
    # Kahan's formula: exact where the cosine is flat.
    apart, together = (np.linalg.norm(v, axis=-1) for v in (first - second, first + second))
    return np.asarray(2 * np.arctan2(apart, together))


# --- interest ------------------------------------------------------------------------------------


def motion_interest(maps: Tensor) -> FloatArray:
    """How much it moves, from `features.Motion.maps` [shape=(T, maps, N_ELEVATIONS, A)]."""
    return np.asarray(maps[:, features.MAPS.index("change")].double().mean(0).clamp(min=0).numpy())


def sound_interest(cov: Tensor) -> FloatArray:
    """How much sound comes from each direction, of covariances [shape=(T, F, 10)], none to null.

    Each band of each stretch of time is a bell where its intensity points, by the intensity's
    length. A beam on the whole sound would look between two sources; few bands hold both at once.
    """
    parts = torch.split(cov.double(), _STRETCH)
    cells = torch.stack([part.sum(0) for part in parts]).flatten(0, 1)
    vectors = features.intensity(cells)
    length = vectors.norm(dim=-1)
    # A field without direction differs from none by rounding only.
    length = torch.where(length > 1e-6 * features.energy(cells), length, 0.0)
    centres = _grid()
    cosines = torch.nn.functional.normalize(vectors, dim=-1) @ torch.from_numpy(
        unit_vectors(centres).reshape(-1, 3).T
    )
    interest = length @ torch.exp((cosines - 1) / _BELL_RAD**2)
    peak = float(interest.max())
    return np.asarray(interest.view(N_ELEVATIONS, N_AZIMUTHS).numpy() / (peak or 1.0))


# --- cutting -------------------------------------------------------------------------------------


def object_interest(
    detections: Iterable[Detection], start_s: float, duration_s: float
) -> FloatArray:
    """Where objects are in a stretch of time: each a bell as wide as itself, by its score.

    Returns [shape=(N_ELEVATIONS, A)], zeros if there are none.
    """
    elevations, azimuths = cell_centres()
    centres = np.stack(np.meshgrid(azimuths, elevations), axis=-1)
    interest = np.zeros(centres.shape[:2])
    for detection in detections:
        if start_s <= detection.time_s < start_s + duration_s:
            place = np.array([detection.azimuth_rad, detection.elevation_rad])
            # Half its size is two deviations; a cell is the least.
            spread = max(detection.width_rad, detection.height_rad) / 4
            spread = max(spread, math.tau / len(azimuths))
            distance = angle_between(centres, place) / spread
            interest += detection.score * np.exp(-0.5 * distance**2)
    return interest


def cut_crops(frames: Tensor, views: Views, size_px: int, *, nearest: bool = False) -> Tensor:
    """The crops of a clip.

    frames : floating point, RGB from 0 to 1 or any other C channels, [shape=(T, C, H, W)],
        equirectangular.
    nearest : take the nearest pixels (labels have no mean), else interpolate.
    Returns [shape=(K, C, T, size_px, size_px)]; the centre is snapped to a column.
    """
    crops = []
    for (azimuth, elevation), angle in zip(
        views.directions_rad, views.fields_of_view_rad, strict=True
    ):
        grid = tangent_map(
            float(elevation), float(angle), (size_px, size_px), (frames.shape[2], frames.shape[3])
        )
        crop = tangent_crops(frames, [float(azimuth)], grid, nearest=nearest)[0]
        crops.append(crop.transpose(0, 1))
    cut = torch.stack(crops)
    return cut.flip(-1) if views.mirrored else cut


def coloured_otherwise(
    rng: np.random.Generator, crops: Tensor, *, strength: float = 0.4, hue: float = 0.2
) -> Tensor:
    """Crops [shape=(K, 3, T, h, w)] with each one's brightness, contrast, saturation and hue drawn.

    strength : greatest relative change of the first three. hue : greatest turn, as a share of the
    colour circle. All frames of a crop change alike.
    """
    brightness, contrast, saturation = torch.from_numpy(
        rng.uniform(1 - strength, 1 + strength, (3, len(crops), 1, 1, 1, 1))
    ).to(crops.dtype)
    bright = crops * brightness
    middle = luminance(bright).mean(dim=(1, 2, 3, 4), keepdim=True)
    contrasting = middle + contrast * (bright - middle)
    grey = luminance(contrasting)
    chroma = saturation * (contrasting - grey)
    turns = torch.from_numpy(hue_rotations(rng.uniform(-hue, hue, len(crops)) * math.tau))
    chroma = torch.einsum("kcd,kdthw->kcthw", turns.to(crops.dtype), chroma)
    return (grey + chroma).clamp(0, 1)


def luminance(crops: Tensor) -> Tensor:
    """Rec. 601 luma of RGB [shape=(K, 3, T, h, w)], [shape=(K, 1, T, h, w)]."""
    weights = crops.new_tensor(_LUMA)[:, None, None, None]
    return (crops * weights).sum(1, keepdim=True)


def hue_rotations(angles_rad: FloatArray) -> FloatArray:
    """3x3 turns of RGB differences about grey that keep luma, [shape=(K, 3, 3)]."""
    to_yiq = np.array([_LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])
    cos, sin = np.cos(angles_rad), np.sin(angles_rad)
    turn = np.zeros((len(angles_rad), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cos, -sin, sin, cos
    return np.asarray(np.linalg.inv(to_yiq) @ turn @ to_yiq)


_LUMA = (0.299, 0.587, 0.114)
