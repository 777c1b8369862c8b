"""Rotations that vary along a track."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.ambisonics import ChannelLayout, Convention, Fix, YawRotation
from model.media import write_corrected
from model.turning import YawAlong, turned_along

RATE = 48_000


def angle_rad(samples: np.ndarray) -> np.ndarray:
    return 0.3 + 2.0 * np.sin(samples / 9_000)


@pytest.mark.parametrize("n_channels", [4, 9, 18])
@pytest.mark.parametrize("fix", [None, Fix.INVERT])
def test_each_sample_is_turned_by_its_own_angle(
    tmp_path: Path, rng: np.random.Generator, n_channels: int, fix: Fix | None
) -> None:
    """Against a rotation for each of some samples, through a real file of several blocks."""
    layout = ChannelLayout.of(n_channels)
    track = rng.uniform(-0.3, 0.3, (n_channels, 30_000))
    soundfile.write(tmp_path / "in.wav", track.T, RATE, subtype="DOUBLE")

    mix = YawAlong(layout, angle_rad, fix=fix).channel_mix
    write_corrected([tmp_path / "in.wav"], tmp_path / "out.wav", mix)

    turned = soundfile.read(tmp_path / "out.wav")[0].T
    for at in (0, 1, 8_191, 8_192, 20_000, 29_999):
        now = YawRotation(layout, float(angle_rad(np.array(at))), fix=fix)
        np.testing.assert_allclose(turned[:, at : at + 1], now(track[:, at : at + 1]), atol=1e-12)


def test_a_constant_angle_is_a_rotation(rng: np.random.Generator) -> None:
    field = rng.standard_normal((16, 100))

    along = turned_along(field, np.full(100, 1.1))

    np.testing.assert_allclose(along, YawRotation(ChannelLayout.of(16), 1.1)(field), atol=1e-12)


def test_there_and_back(rng: np.random.Generator) -> None:
    field = rng.standard_normal((9, 5_000))
    angles = angle_rad(np.arange(5_000))

    np.testing.assert_allclose(
        turned_along(turned_along(field, angles), -angles), field, atol=1e-12
    )


def test_fuma_is_turned_in_its_own_channels(tmp_path: Path, rng: np.random.Generator) -> None:
    layout = ChannelLayout.of(4, Convention.FUMA)
    field = rng.uniform(-0.3, 0.3, (4, 2_000))
    soundfile.write(tmp_path / "in.wav", layout.from_sn3d(field).T, RATE, subtype="DOUBLE")

    write_corrected(
        [tmp_path / "in.wav"], tmp_path / "out.wav", YawAlong(layout, angle_rad).channel_mix
    )

    turned = layout.to_sn3d(soundfile.read(tmp_path / "out.wav")[0].T)
    np.testing.assert_allclose(turned, turned_along(field, angle_rad(np.arange(2_000))), atol=1e-12)
