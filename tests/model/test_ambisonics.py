"""Ambisonic maths against spharpy, and against encoding: rotate the points, or rotate the field."""

import math

import numpy as np
import pytest
import spharpy
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from model.ambisonics import (
    ChannelLayout,
    Convention,
    Fix,
    YawRotation,
    degrees_and_indices,
    encode,
    n_components,
    pitch_matrix,
    plane_wave_gains,
    rotate,
    rotate_yaw,
    sh_rotation_matrix,
    steering_matrix,
    yaw_matrix,
    yaw_pairs,
)
from model.errors import OptionError, UnsupportedMedia

orders = st.integers(1, 7)
angles = st.floats(-7, 7)


def directions(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    vectors = np.random.default_rng(seed).standard_normal((3, n))
    vectors /= np.linalg.norm(vectors, axis=0)
    return vectors, np.arctan2(vectors[1], vectors[0]), np.arcsin(vectors[2])


def test_gains_equal_spharpy() -> None:
    _, azimuth, elevation = directions(200)
    points = spharpy.SamplingSphere.from_spherical_elevation(azimuth, elevation, 1.0)
    theirs = spharpy.spherical.spherical_harmonic_basis_real(
        7, points, normalization="SN3D", channel_convention="ACN", condon_shortley=False
    )

    # AmbiX leaves out the sqrt(1 / 4 pi) of physics.
    ours = plane_wave_gains(azimuth, elevation, 7).T
    np.testing.assert_allclose(ours, theirs * math.sqrt(4 * math.pi), atol=1e-12)


def test_rotation_equals_spharpy_wigner() -> None:
    # spharpy's real Wigner D rotates counter-clockwise for a positive first angle.
    theirs = spharpy.transforms.wigner_d_rotation_real(7, 0.7, 0.0, 0.0)

    np.testing.assert_allclose(sh_rotation_matrix(yaw_matrix(0.7), 7), theirs, atol=1e-12)


def test_first_order_is_w_y_z_x() -> None:
    front, left, top = plane_wave_gains([0, math.pi / 2, 0], [0, 0, math.pi / 2], 1).T

    np.testing.assert_allclose(front, [1, 0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(left, [1, 1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(top, [1, 0, 1, 0], atol=1e-15)


@given(order=orders, angle=angles)
def test_rotating_the_field_equals_encoding_the_turned_source(order: int, angle: float) -> None:
    _, azimuth, elevation = directions(20)
    field = plane_wave_gains(azimuth, elevation, order)

    np.testing.assert_allclose(
        rotate_yaw(field, angle), plane_wave_gains(azimuth + angle, elevation, order), atol=1e-12
    )


@given(order=orders, seed=st.integers(0, 2**31))
def test_full_rotation_equals_encoding_the_turned_source(order: int, seed: int) -> None:
    rotation = Rotation.random(rng=seed).as_matrix()
    vectors, azimuth, elevation = directions(20)
    turned = rotation @ vectors

    field = rotate(plane_wave_gains(azimuth, elevation, order), rotation)

    expected = plane_wave_gains(
        np.arctan2(turned[1], turned[0]), np.arcsin(np.clip(turned[2], -1, 1)), order
    )
    np.testing.assert_allclose(field, expected, atol=1e-10)


@given(order=orders, angle=angles)
def test_closed_form_equals_the_recursion(order: int, angle: float) -> None:
    field = np.random.default_rng(0).standard_normal((n_components(order), 5))

    np.testing.assert_allclose(
        rotate_yaw(field, angle), rotate(field, yaw_matrix(angle)), atol=1e-12
    )


@given(order=orders, angle=angles)
def test_rotation_and_its_inverse_give_the_field_back(order: int, angle: float) -> None:
    field = np.random.default_rng(0).standard_normal((n_components(order), 5))

    np.testing.assert_allclose(rotate_yaw(rotate_yaw(field, angle), -angle), field, atol=1e-12)


@pytest.mark.parametrize("turns", [0, 1, -1, 3])
@pytest.mark.parametrize("order", range(1, 8))
def test_whole_turns_are_the_identity_to_the_bit(order: int, turns: int) -> None:
    field = np.random.default_rng(0).standard_normal((n_components(order), 50))

    assert np.array_equal(rotate_yaw(field, turns * math.tau), field)
    assert np.array_equal(rotate(field, np.eye(3)), field)


def test_right_angles_only_swap_and_negate() -> None:
    w, y, z, x = field = np.random.default_rng(0).standard_normal((4, 50))

    assert np.array_equal(rotate_yaw(field, math.pi / 2), [w, x, z, -y])
    assert np.array_equal(rotate_yaw(field, math.pi), [w, -y, z, -x])


def test_a_stream_may_be_cut_anywhere() -> None:
    field = np.random.default_rng(0).standard_normal((16, 1000))
    rotation = YawRotation(ChannelLayout.of(16), 0.3)

    cut = np.concatenate([rotation(field[:, :137]), rotation(field[:, 137:])], axis=1)

    assert np.array_equal(cut, rotation(field))


@given(azimuth=angles, elevation=st.floats(-1.5, 1.5))
def test_steering_brings_any_direction_to_the_front(azimuth: float, elevation: float) -> None:
    steered = rotate(
        plane_wave_gains([azimuth], [elevation], 3), steering_matrix(azimuth, elevation)
    )

    np.testing.assert_allclose(steered, plane_wave_gains([0.0], [0.0], 3), atol=1e-10)


def test_pitch_lowers_the_front() -> None:
    np.testing.assert_allclose(
        pitch_matrix(0.4) @ [math.cos(0.4), 0, math.sin(0.4)], [1, 0, 0], atol=1e-15
    )


@pytest.mark.parametrize("head_locked", [0, 2])
@pytest.mark.parametrize("convention", Convention)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_rotating_in_the_files_convention_equals_converting(
    order: int, convention: Convention, head_locked: int
) -> None:
    layout = ChannelLayout.of(n_components(order) + head_locked, convention)
    block = np.random.default_rng(0).standard_normal((layout.n_channels, 30))

    rotated = YawRotation(layout, 0.8)(block)

    np.testing.assert_allclose(
        layout.to_sn3d(rotated), rotate_yaw(layout.to_sn3d(block), 0.8), atol=1e-12
    )
    assert np.array_equal(rotated[list(layout.other_channels)], block[list(layout.other_channels)])


@pytest.mark.parametrize("convention", Convention)
def test_conversion_there_and_back(convention: Convention) -> None:
    layout = ChannelLayout.of(16, convention)
    field = np.random.default_rng(0).standard_normal((16, 30))

    np.testing.assert_allclose(layout.to_sn3d(layout.from_sn3d(field)), field, atol=1e-12)


def test_fuma_is_maxn_with_w_three_decibels_down() -> None:
    """FuMa's definition: every component but W peaks at 1 over the sphere."""
    elevation, azimuth = np.meshgrid(
        np.linspace(-np.pi / 2, np.pi / 2, 361), np.linspace(0, np.pi * 2, 721)
    )
    field = plane_wave_gains(azimuth.ravel(), elevation.ravel(), 3)

    fuma = ChannelLayout.of(16, Convention.FUMA).from_sn3d(field)

    np.testing.assert_allclose(np.abs(fuma[1:]).max(axis=1), 1.0, atol=2e-4)
    np.testing.assert_allclose(fuma[0], 1 / math.sqrt(2))
    assert np.array_equal(fuma[[1, 2, 3]], field[[3, 1, 2]])  # X, Y, Z after W


def test_n3d_is_orthonormal_over_the_sphere() -> None:
    _, azimuth, elevation = directions(200_000)
    n3d = ChannelLayout.of(16, Convention.N3D).from_sn3d(plane_wave_gains(azimuth, elevation, 3))

    np.testing.assert_allclose(n3d @ n3d.T / n3d.shape[1], np.eye(16), atol=0.03)


@pytest.mark.parametrize(
    ("n_channels", "order", "n_other"),
    [(4, 1, 0), (6, 1, 2), (9, 2, 0), (11, 2, 2), (16, 3, 0), (18, 3, 2), (64, 7, 0), (66, 7, 2)],
)
def test_channel_bookkeeping(n_channels: int, order: int, n_other: int) -> None:
    layout = ChannelLayout.of(n_channels)

    assert (layout.order, len(layout.other_channels)) == (order, n_other)


@pytest.mark.parametrize("n_channels", [1, 2, 3, 5, 7, 8, 10, 12, 81, 83])
def test_other_channel_counts_are_refused_by_name(n_channels: int) -> None:
    with pytest.raises(UnsupportedMedia, match=f"{n_channels} channels"):
        ChannelLayout.of(n_channels)


def test_fuma_ends_at_third_order() -> None:
    with pytest.raises(UnsupportedMedia, match="order 4"):
        ChannelLayout.of(25, Convention.FUMA)


def test_named_components() -> None:
    layout = ChannelLayout.of(6, components=(2, 1, 4, 0))
    block = np.arange(6.0)[:, None]

    assert layout.to_sn3d(block).ravel().tolist() == [2, 1, 4, 0]
    assert layout.other_channels == (3, 5)


@pytest.mark.parametrize("components", [(0, 1, 2), (0, 0, 1, 2), (0, 1, 2, 4)])
def test_components_that_cannot_be(components: tuple[int, ...]) -> None:
    with pytest.raises(OptionError):
        ChannelLayout.of(4, components=components)


def test_encoding_a_moving_source() -> None:
    signal, azimuth = np.ones(100), np.linspace(0, 1, 100)

    field = encode(signal, azimuth, np.zeros(100), 2)

    np.testing.assert_allclose(np.arctan2(field[1], field[3]), azimuth)


def test_pairs_cover_every_component_but_the_zonal_ones() -> None:
    touched = {acn for plus, minus, _ in yaw_pairs(3) for acn in (plus, minus)}

    assert touched == {acn for acn, (_, m) in enumerate(degrees_and_indices(3)) if m != 0}


@given(orders, st.sampled_from(Fix))
def test_a_fix_moves_every_source_as_it_says(order: int, fix: Fix) -> None:
    """Encoding where the source then is equals the signs, in every convention."""
    (x, y, z), azimuth, elevation = directions(50)
    before = plane_wave_gains(azimuth, elevation, order)
    height = -z if fix is Fix.INVERT else z
    after = plane_wave_gains(np.arctan2(-y, x), np.arcsin(height), order)

    np.testing.assert_allclose(np.array(fix.signs(order))[:, None] * before, after, atol=1e-12)
    for convention in Convention:
        if convention is Convention.FUMA and order > 3:
            continue
        layout = ChannelLayout.of(n_components(order), convention)
        fixed = YawRotation(layout, 0.0, fix=fix)(layout.from_sn3d(before))
        np.testing.assert_allclose(fixed, layout.from_sn3d(after), atol=1e-12)


@given(angles, st.sampled_from(Fix))
def test_a_fix_comes_before_the_rotation(angle: float, fix: Fix) -> None:
    _, azimuth, elevation = directions(20)
    field = plane_wave_gains(azimuth, elevation, 3)
    layout = ChannelLayout.of(16)
    rotation = YawRotation(layout, angle, fix=fix)

    expected = rotate_yaw(np.array(fix.signs(3))[:, None] * field, angle)

    np.testing.assert_allclose(rotation(field), expected, atol=1e-12)
    assert not rotation.is_identity
    assert all(weight for mix in rotation.channel_mix.values() for _, weight in mix)
