"""Where crops look: distances on the sphere, angles of view, guides, and mirrored worlds."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import features
from model.ambisonics import encode
from model.detections import Detection, read_detections
from model.errors import MediaError
from model.features import N_ELEVATIONS, SAMPLERATE, covariance
from model.sphere import direction_to_pixel
from model.viewpoints import Sound, SoundInput, mirrored, steering
from training.data.crops import (
    FIELDS_OF_VIEW_RAD,
    MAX_ELEVATION_RAD,
    N_AZIMUTHS,
    Views,
    angle_between,
    cell_areas,
    cell_centres,
    coloured_otherwise,
    cut_crops,
    draw_views,
    hue_rotations,
    luminance,
    motion_interest,
    object_interest,
    sound_interest,
    unit_vectors,
)


def plain_angle(one: np.ndarray, other: np.ndarray) -> float:
    """Great-circle angle by the haversine formula."""
    (a1, e1), (a2, e2) = one, other
    h = math.sin((e1 - e2) / 2) ** 2 + math.cos(e1) * math.cos(e2) * math.sin((a1 - a2) / 2) ** 2
    return 2 * math.asin(min(1.0, math.sqrt(h)))


interests = st.sampled_from(["anywhere", "one place", "a seam", "a row", "nothing"])


def interest(kind: str) -> np.ndarray | None:
    grid = np.zeros((N_ELEVATIONS, N_AZIMUTHS))
    if kind == "anywhere":
        return None
    if kind == "one place":
        grid[3, 20] = 1.0
    if kind == "a seam":
        grid[:, [0, -1]] = 1.0
    if kind == "a row":
        grid[-1] = 5.0
    return grid


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), count=st.sampled_from([1, 2, 4, 8]), kind=interests)
def test_crops_are_36_degrees_apart_on_the_sphere(seed: int, count: int, kind: str) -> None:
    views = draw_views(np.random.default_rng(seed), count, interest=interest(kind))

    assert views.directions_rad.shape == (count, 2)
    assert (np.abs(views.directions_rad[:, 1]) <= MAX_ELEVATION_RAD + 1e-9).all()
    assert (np.abs(views.directions_rad[:, 0]) <= math.pi).all()
    for i in range(count):
        for j in range(i):
            apart = plain_angle(views.directions_rad[i], views.directions_rad[j])
            assert apart >= math.radians(36) - 1e-9
    low, high = FIELDS_OF_VIEW_RAD
    assert ((views.fields_of_view_rad >= low) & (views.fields_of_view_rad <= high)).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="directions 36 degrees apart were found: take fewer"):
        draw_views(np.random.default_rng(0), 60)


def test_without_a_guide_directions_are_even_on_the_sphere() -> None:
    rng = np.random.default_rng(1)

    drawn = np.concatenate([draw_views(rng, 2).directions_rad for _ in range(1500)])

    # Evenly on the sphere: azimuth and the sine of elevation are uniform.
    azimuth = (drawn[:, 0] + math.pi) / math.tau
    height = (np.sin(drawn[:, 1]) / math.sin(MAX_ELEVATION_RAD) + 1) / 2
    for share in (azimuth, height):
        grid = np.sort(share) - (np.arange(len(share)) + 0.5) / len(share)
        assert np.abs(grid).max() < 1.63 / math.sqrt(len(share))  # Kolmogorov, 1 %

    # As near to each other as any two that are 36 degrees apart.
    one, other = drawn[::2], drawn[1::2]
    any_two = np.degrees(angle_between(one[:, None], other))
    near = (any_two < 42).sum() - (any_two < 36).sum()
    share_near = (np.degrees(angle_between(one, other)) < 42).mean()
    assert share_near == pytest.approx(near / (any_two >= 36).sum(), abs=0.015)


def test_crops_look_no_higher_than_they_may() -> None:
    rng = np.random.default_rng(1)
    half_a_cell = MAX_ELEVATION_RAD / N_ELEVATIONS
    limit = math.radians(22)

    drawn = [draw_views(rng, 2, max_elevation_rad=limit).directions_rad[:, 1] for _ in range(100)]

    assert limit - half_a_cell < np.abs(drawn).max() <= limit + half_a_cell


@pytest.mark.parametrize("kind", ["one place", "a seam", "a row"])
def test_guided_crops_look_where_it_is_interesting_and_elsewhere_too(kind: str) -> None:
    rng = np.random.default_rng(2)
    grid = interest(kind)
    assert grid is not None
    elevations, azimuths = cell_centres()

    first = np.stack([draw_views(rng, 1, interest=grid).directions_rad[0] for _ in range(400)])

    rows = np.abs(elevations[:, None] - first[:, 1]).argmin(0)
    columns = np.abs(np.exp(1j * azimuths[:, None]) - np.exp(1j * first[:, 0])).argmin(0)
    hits = (grid[rows, columns] > 0).mean()
    even = (cell_areas() * (grid > 0)).sum() / (cell_areas().sum() * N_AZIMUTHS)
    assert abs(hits - (0.9 + 0.1 * even)) < 0.06


def test_areas_add_up_to_the_band() -> None:
    total = cell_areas().sum() * N_AZIMUTHS

    assert total == pytest.approx(4 * math.pi * math.sin(MAX_ELEVATION_RAD))


def test_angles_are_those_of_the_haversine() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.uniform(-1.5, 1.5, (2, 50, 2))
    other[0] = one[0] + 1e-9  # where a cosine sees nothing

    angles = angle_between(one, other)

    expected = [plain_angle(a, b) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(angles, expected, atol=1e-12)


# --- guides ---------------------------------------------------------------------------------------


def peak_of(grid: np.ndarray) -> np.ndarray:
    elevations, azimuths = cell_centres()
    row, column = np.unravel_index(grid.argmax(), grid.shape)
    return np.array([azimuths[column], elevations[row]])


@pytest.mark.parametrize(("azimuth", "elevation"), [(0.4, 0.0), (-2.0, 0.6), (3.0, -0.7)])
def test_motion_guides_to_what_moves(azimuth: float, elevation: float) -> None:
    height, width = features.PICTURE_SIZE
    frames = torch.randint(90, 110, (1, height, width)).repeat(10, 1, 1)
    row, column = (int(x) for x in direction_to_pixel(azimuth, elevation, height, width))
    frames[4, row - 5 : row + 5, column - 5 : column + 5] = 250
    moves = features.motion(frames.to(torch.uint8), torch.arange(10) / 16)

    grid = motion_interest(moves.maps)

    place = np.array([azimuth, elevation])
    assert np.degrees(angle_between(peak_of(grid), place)) < 8


def test_motion_guides_by_how_much_changes_alone() -> None:
    maps = torch.rand(5, len(features.MAPS), N_ELEVATIONS, N_AZIMUTHS)

    expected = maps[:, features.MAPS.index("change")].double().mean(0)

    np.testing.assert_allclose(motion_interest(maps), expected.numpy())
    assert not motion_interest(-maps).any()


@pytest.mark.parametrize(("azimuth", "elevation"), [(0.4, 0.0), (-2.0, 0.6), (3.0, -0.7)])
def test_sound_guides_to_what_sounds(azimuth: float, elevation: float) -> None:
    noise = np.random.default_rng(0).standard_normal(SAMPLERATE // 4)
    cov = covariance(torch.tensor(encode(noise, azimuth, elevation, 1)))

    grid = sound_interest(cov)

    assert np.degrees(angle_between(peak_of(grid), np.array([azimuth, elevation]))) < 6
    assert grid.max() == 1


def test_sound_guides_to_each_of_two_sources_and_not_between() -> None:
    rng = np.random.default_rng(0)
    turns = np.repeat(rng.random(20) < 0.5, SAMPLERATE // 10)
    noise = rng.standard_normal(len(turns))
    places = (0.0, 0.0), (math.radians(90), 0.0)
    field = encode(noise * turns, *places[0], 1) + encode(noise * ~turns, *places[1], 1)

    grid = sound_interest(covariance(torch.tensor(field)))

    centres = np.stack(np.meshgrid(*cell_centres()[::-1]), axis=-1)
    for place in places:
        near = grid[np.degrees(angle_between(centres, np.array(place))) < 8].max()
        assert near > 0.5
    between = np.degrees(angle_between(centres, np.array([math.radians(45), 0.0]))) < 8
    assert grid[between].max() < 0.1


def test_sound_without_direction_guides_nowhere() -> None:
    mono = np.zeros((4, SAMPLERATE // 4))
    mono[0] = np.random.default_rng(0).standard_normal(SAMPLERATE // 4)

    assert not sound_interest(covariance(torch.tensor(mono))).any()
    assert not sound_interest(covariance(torch.zeros(4, SAMPLERATE // 4))).any()


def test_objects_guide_by_place_time_and_score(tmp_path: Path) -> None:
    file = tmp_path / "boxes.jsonl"
    lines = [
        {"clip": "a-0", "time_s": 1.0, "box": [0.95, 0.45, 1.05, 0.55], "score": 0.9},
        {"clip": "a-0", "time_s": 1.4, "box": [0.2, 0.3, 0.3, 0.4], "score": 0.5},
        {"clip": "a-0", "time_s": 8.0, "box": [0.6, 0.5, 0.7, 0.6]},
        {"clip": "b-0", "time_s": 1.0, "box": [0.4, 0.5, 0.5, 0.6]},
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")

    found = read_detections(file)

    assert {clip: len(of_clip) for clip, of_clip in found.items()} == {"a-0": 3, "b-0": 1}
    grid = object_interest(found["a-0"], 0.5, 1.0)
    behind, left = np.array([math.pi, 0.0]), np.array([math.pi / 2, math.radians(27)])
    assert np.degrees(angle_between(peak_of(grid), behind)) < 7
    centres = np.stack(np.meshgrid(*cell_centres()[::-1]), axis=-1)
    near_left = grid[np.degrees(angle_between(centres, left)) < 6].max()
    assert near_left == pytest.approx(0.5, rel=0.15)
    late = np.array([math.radians(-54), math.radians(-9)])
    assert grid[np.degrees(angle_between(centres, late)) < 10].max() < 1e-3
    assert not object_interest(found["a-0"], 3.0, 1.0).any()


@pytest.mark.parametrize(
    ("size_deg", "deviation_deg"), [((60, 20), 15), ((8, 48), 12), ((1, 2), 5)]
)
def test_objects_are_bells_as_wide_as_they_are_or_as_a_cell(
    size_deg: tuple[float, float], deviation_deg: float
) -> None:
    """Half the larger side is two deviations."""
    elevations, azimuths = cell_centres()
    width, height = map(math.radians, size_deg)
    box = Detection(1.0, float(azimuths[20]), float(elevations[5]), width, height, 0.8)

    grid = object_interest([box], 0.0, 2.0)

    for row, column in ((5, 20), (5, 22), (5, 26), (3, 20), (8, 17)):
        off = plain_angle(
            np.array([azimuths[20], elevations[5]]), np.array([azimuths[column], elevations[row]])
        )
        expected = 0.8 * math.exp(-0.5 * (math.degrees(off) / deviation_deg) ** 2)
        assert grid[row, column] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "line",
    ["{}", "[1]", '{"clip": "a", "time_s": 1, "box": [0.5, 0.2, 0.4, 0.6]}', "box",
     '{"clip": "a", "time_s": 1, "box": [0.5, 0.2, 0.6]}'],
)  # fmt: skip
def test_a_line_that_is_no_detection_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "boxes.jsonl"
    file.write_text(f"\n{line}\n")

    with pytest.raises(MediaError, match=r"Line 2 of .*boxes.jsonl is not a detection"):
        read_detections(file)


# --- cutting --------------------------------------------------------------------------------------


def spots(
    places: list[tuple[float, float]], radius: float = 0.03, height: int = 180
) -> torch.Tensor:
    """A black sphere with white spots, [shape=(1, 3, H, W)]."""
    rows, columns = np.mgrid[:height, : 2 * height]
    azimuth = math.pi * (1 - (columns + 0.5) / height)
    elevation = math.pi * (0.5 - (rows + 0.5) / height)
    here = np.stack([azimuth, elevation], axis=-1)
    white = sum(angle_between(here, np.array(place)) < radius for place in places)
    return torch.tensor(np.asarray(white), dtype=torch.float32).expand(1, 3, -1, -1)


@pytest.mark.parametrize("angle_deg", [25, 60, 90])
@pytest.mark.parametrize("elevation", [0.0, 0.8])
def test_fields_of_view_are_true_angles(angle_deg: float, elevation: float) -> None:
    """A spot on the crop's edge is half the field of view away from its centre."""
    half, azimuth = math.radians(angle_deg) / 2, math.radians(28)
    centre = unit_vectors(np.array([azimuth, elevation]))
    left = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])  # at right angles to it
    edge = math.cos(0.9 * half) * centre + math.sin(0.9 * half) * left
    place = math.atan2(edge[1], edge[0]), math.asin(edge[2])
    frames = spots([place], radius=0.01, height=720)

    crop = cut_crops(frames, Views(np.array([[azimuth, elevation]]), np.array([2 * half])), 96)

    columns = crop[0, 0, 0].sum(0)
    at = float((columns * (torch.arange(96) + 0.5)).sum() / columns.sum())
    assert at == pytest.approx(48 * (1 - math.tan(0.9 * half) / math.tan(half)), abs=0.7)


def test_mirrored_pictures_fit_mirrored_sound() -> None:
    """In a mirrored world too, what sounds in front of a crop is seen in its middle."""
    source = (0.8, 0.3)
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLERATE // 4)
    sound = SoundInput(Sound.INTENSITY)
    cov = sound.covariance(torch.tensor(encode(noise, *source, 1)))
    offset = np.array([0.8 - 0.25, 0.3])  # the source stands to the left of the crop's centre
    for flipped in (False, True):
        views = Views(offset[None], np.array([math.radians(90)]), mirrored=flipped)

        crop = cut_crops(spots([source]), views, 64)[0, 0, 0]
        heard = sound.at(mirrored(cov) if flipped else cov, steering(*views.heard_rad.T))[0]

        columns = crop.sum(0)
        right = float((columns * torch.linspace(-1, 1, 64)).sum() / columns.sum())
        leftwards = float(heard[2].mean())
        assert float(heard[1].mean()) > 0.9  # nearly in front of it
        assert abs(right) > 0.15
        assert (leftwards > 0.1) is (right < 0)
        assert (right < 0) is not flipped


def test_a_draw_mirrors_half_of_the_time_or_never() -> None:
    rng = np.random.default_rng(0)

    assert 60 < sum(draw_views(rng, 1).mirrored for _ in range(200)) < 140
    assert not any(draw_views(rng, 1, mirror=False).mirrored for _ in range(20))


# --- colour ---------------------------------------------------------------------------------------


def test_colours_change_alike_in_all_frames_and_differently_in_each_crop() -> None:
    crops = torch.rand(3, 3, 1, 8, 8).repeat(1, 1, 4, 1, 1)

    changed = coloured_otherwise(np.random.default_rng(0), crops)

    assert ((changed >= 0) & (changed <= 1)).all()
    for crop, before in zip(changed, crops, strict=True):
        assert (crop - before).abs().mean() > 0.02
        torch.testing.assert_close(crop, crop[:, :1].expand_as(crop))
    one = coloured_otherwise(np.random.default_rng(0), crops[:1].repeat(2, 1, 1, 1, 1))
    assert not one[0].allclose(one[1])


def test_nothing_changes_without_strength() -> None:
    crops = torch.rand(2, 3, 2, 8, 8)

    same = coloured_otherwise(np.random.default_rng(0), crops, strength=0.0, hue=0.0)

    torch.testing.assert_close(same, crops)


def test_brightness_contrast_and_saturation_are_drawn_evenly_for_each_crop() -> None:
    """Of crops whose left is dark, and whose right is bright and reddish."""
    left, right = torch.full((3,), 0.25), torch.tensor([0.46, 0.35, 0.35])
    crops = torch.stack([left, right], 1)[None, :, None, None, :].repeat(400, 1, 2, 3, 1)

    changed = coloured_otherwise(np.random.default_rng(0), crops, hue=0.0)

    luma, luma_before = luminance(changed), luminance(crops)
    brightness = (luma.mean((1, 2, 3, 4)) / luma_before.mean((1, 2, 3, 4))).numpy()
    step = (luma[..., 1] - luma[..., 0]).mean((1, 2, 3)).numpy()
    contrast = step / brightness / float((luma_before[..., 1] - luma_before[..., 0]).mean())
    redness = (changed[:, 0] - changed[:, 1])[..., 1].mean((1, 2)).numpy()
    saturation = redness / brightness / contrast / 0.11
    drawn = np.array([brightness, contrast, saturation])
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.15
    for factors in drawn:
        grid = (np.sort(factors) - 0.6) / 0.8 - (np.arange(400) + 0.5) / 400
        assert np.abs(grid).max() < 1.63 / 20  # Kolmogorov, 1 %


def test_hue_keeps_luma_and_grey() -> None:
    turns = torch.tensor(hue_rotations(np.array([0.5, -1.2])))
    colours = torch.rand(2, 3, 1, 4, 4).double()

    turned = torch.einsum("kcd,kdthw->kcthw", turns, colours)

    torch.testing.assert_close(luminance(turned), luminance(colours), atol=1e-6, rtol=0)
    grey = torch.ones(3).double()
    torch.testing.assert_close(turns @ grey, grey.expand(2, 3), atol=1e-6, rtol=0)
    assert not turned.allclose(colours, atol=0.05)
