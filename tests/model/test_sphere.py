"""The picture's geometry against its own definition and a slow plain crop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.ambisonics import plane_wave_gains, rotate_yaw
from model.sphere import (
    column_azimuths,
    columns_of,
    direction_to_pixel,
    pixel_to_direction,
    row_elevations,
    tangent_coordinates,
    tangent_crops,
    tangent_map,
    wrap_angle,
)

HEIGHT, WIDTH = 90, 180


def plain_crop(
    frame: np.ndarray, azimuth: float, elevation: float, fov: float, size: int
) -> np.ndarray:
    """A gnomonic crop from the definition, its map built anew: frame (H, W, channels)."""
    height, width = frame.shape[:2]
    across = math.tan(fov / 2) * (2 * (np.arange(size) + 0.5) / size - 1)
    right, down = np.meshgrid(across, across)
    ray = np.stack([np.ones_like(right), -right, -down], axis=-1)
    cos, sin = math.cos(elevation), math.sin(elevation)
    ray = ray @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    cos, sin = math.cos(azimuth), math.sin(azimuth)
    ray = ray @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    azimuths = np.arctan2(ray[..., 1], ray[..., 0])
    elevations = np.arcsin(ray[..., 2] / np.linalg.norm(ray, axis=-1))
    row, column = direction_to_pixel(azimuths, elevations, height, width)
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    down_share, right_share = (row - top)[..., None], (column - left)[..., None]

    def pixel(d_row: int, d_column: int) -> np.ndarray:
        return np.asarray(frame[np.clip(top + d_row, 0, height - 1), (left + d_column) % width])

    upper = (1 - right_share) * pixel(0, 0) + right_share * pixel(0, 1)
    lower = (1 - right_share) * pixel(1, 0) + right_share * pixel(1, 1)
    return np.asarray((1 - down_share) * upper + down_share * lower)


def test_the_centre_is_the_front_and_the_left_half_positive() -> None:
    azimuth, elevation = pixel_to_direction([-0.5, 44.5], [44.5, 89.5], HEIGHT, WIDTH)

    np.testing.assert_allclose(azimuth, [math.pi / 2, 0], atol=1e-12)
    np.testing.assert_allclose(elevation, [math.pi / 2, 0], atol=1e-12)


@given(row=st.floats(0, HEIGHT - 1), column=st.floats(0, WIDTH - 1))
def test_pixels_to_directions_and_back(row: float, column: float) -> None:
    back = direction_to_pixel(*pixel_to_direction(row, column, HEIGHT, WIDTH), HEIGHT, WIDTH)

    np.testing.assert_allclose(back, (row, column), atol=1e-9)


@given(st.floats(-100, 100))
def test_wrapping_keeps_the_direction(angle: float) -> None:
    wrapped = float(wrap_angle(angle))

    assert -math.pi < wrapped <= math.pi
    assert math.isclose(math.cos(wrapped), math.cos(angle), abs_tol=1e-9)
    assert math.isclose(math.sin(wrapped), math.sin(angle), abs_tol=1e-9)


def test_columns_and_rows_agree_with_pixels() -> None:
    azimuth, elevation = pixel_to_direction(
        np.arange(HEIGHT)[:, None], np.arange(WIDTH), HEIGHT, WIDTH
    )

    np.testing.assert_allclose(column_azimuths(WIDTH), azimuth.ravel())
    np.testing.assert_allclose(row_elevations(HEIGHT), elevation.ravel())


@pytest.mark.parametrize(
    ("azimuth", "elevation", "fov"),
    [(0, 0, 1.5), (math.pi, 0, 1.5), (-2.1, 0.6, 0.5), (1.0, -1.3, 1.2), (3.0, 1.55, 1.0)],
)
def test_crops_equal_the_plain_ones(azimuth: float, elevation: float, fov: float) -> None:
    frame = np.random.default_rng(0).random((HEIGHT, WIDTH, 3))
    azimuth = columns_of(azimuth, WIDTH) * math.tau / WIDTH
    crop_map = tangent_map(elevation, fov, (40, 40), (HEIGHT, WIDTH))

    crop = tangent_crops(torch.tensor(frame).permute(2, 0, 1)[None], [azimuth], crop_map)[0, 0]

    np.testing.assert_allclose(
        crop.permute(1, 2, 0), plain_crop(frame, azimuth, elevation, fov, 40), atol=2e-4
    )


@given(columns=st.integers(-WIDTH, WIDTH), elevation=st.floats(-1.5, 1.5))
def test_a_rolled_frames_crop_is_the_same_to_the_bit(columns: int, elevation: float) -> None:
    frames = torch.rand(2, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    crop_map = tangent_map(round(elevation, 1), 1.0, (16, 24), (HEIGHT, WIDTH))

    moved = tangent_crops(torch.roll(frames, -columns, -1), [columns * math.tau / WIDTH], crop_map)

    assert torch.equal(moved, tangent_crops(frames, [0.0], crop_map))


def test_an_impossible_field_of_view() -> None:
    with pytest.raises(ValueError, match="field of view"):
        tangent_map(0.0, math.pi, (8, 8), (HEIGHT, WIDTH))


@given(columns=st.integers(-WIDTH, WIDTH), start=st.integers(0, WIDTH - 1))
def test_picture_and_sound_roll_together(columns: int, start: int) -> None:
    picture = np.zeros((HEIGHT, WIDTH))
    picture[HEIGHT // 2, start] = 1.0
    azimuth = column_azimuths(WIDTH)[start]

    rolled = np.roll(picture, -columns, axis=-1)
    field = rotate_yaw(plane_wave_gains([azimuth], [0.0], 1), columns * math.tau / WIDTH)

    seen = column_azimuths(WIDTH)[int(np.argmax(rolled[HEIGHT // 2]))]
    heard = math.atan2(field[1, 0], field[3, 0])
    assert abs(float(wrap_angle(seen - heard))) < 1e-9


@given(
    azimuth=st.floats(-math.pi, math.pi),
    elevation=st.floats(-1.5, 1.5),
    left=st.floats(-3, 3),
    up=st.floats(-3, 3),
)
def test_tangent_coordinates_are_those_of_the_plane(
    azimuth: float, elevation: float, left: float, up: float
) -> None:
    """A point of the plane by its own basis: the centre and its derivatives by the angles."""
    cos, sin = math.cos(azimuth), math.sin(azimuth)
    centre = np.array([math.cos(elevation) * cos, math.cos(elevation) * sin, math.sin(elevation)])
    upwards = np.array(
        [-math.sin(elevation) * cos, -math.sin(elevation) * sin, math.cos(elevation)]
    )
    x, y, z = centre + left * np.array([-sin, cos, 0.0]) + up * upwards
    direction = np.array([math.atan2(y, x), math.atan2(z, math.hypot(x, y))])
    behind = np.array([math.atan2(-y, -x), -direction[1]])

    there = {"centre_azimuth_rad": azimuth, "centre_elevation_rad": elevation}
    np.testing.assert_allclose(tangent_coordinates(*direction, **there), [left, up], atol=1e-6)
    assert np.isinf(tangent_coordinates(*behind, **there)).all()
