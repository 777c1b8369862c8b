"""What plug-ins are told to do is what is meant, by what they publish of themselves."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.ambisonics import ChannelLayout, YawRotation, encode
from model.rotators import settings, words

Matrix = NDArray[np.float64]


def _iem(yaw: float) -> Matrix:
    """`rotMat` of calcRotationMatrix, pitch and roll 0."""
    return np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])


def _atk(angle: float) -> Matrix:
    """FoaRotate's help: "pi/2 will rotate a source at [0, 0] to [pi/2, 0]", + being left."""
    sources = np.array([0.0, math.pi / 2]) + angle
    return np.array([np.cos(sources), np.sin(sources)])


def _saf(yaw: float) -> Matrix:
    """`Rz` of yawPitchRoll2Rzyx."""
    return np.array([[math.cos(yaw), math.sin(yaw)], [-math.sin(yaw), math.cos(yaw)]])


def _ambix(yaw: float) -> Matrix:
    """`RotZ` of calcParams, which takes the negative angle and has its inputs in rows."""
    yaw = -yaw
    return np.array([[math.cos(yaw), math.sin(yaw)], [-math.sin(yaw), math.cos(yaw)]]).T


# What each does to (X, Y) of a first-order field, by its parameter, under its own name, in radians.
PLUGINS: dict[str, Callable[..., Matrix]] = {
    "IEM SceneRotator": _iem, "ATK Rotate": _atk, "SPARTA Rotator": _saf, "ambiX rotator": _ambix,
}  # fmt: skip


@given(st.floats(-179.99, 180.0), st.floats(-180, 180))
@example(180.0, 0.0)
def test_every_plug_in_does_what_the_corrected_file_has(degrees: float, azimuth: float) -> None:
    field = encode(np.ones(1), math.radians(azimuth), 0.0, 1)
    _, y, _, x = YawRotation(ChannelLayout.of(4), math.radians(degrees))(field)[:, 0]

    told = settings(degrees)

    assert {str(one["name"]) for one in told} == set(PLUGINS)
    for one in told:
        value = {str(one["parameter"]): math.radians(float(one["value_deg"]))}
        matrix = PLUGINS[str(one["name"])](**value)
        assert matrix @ field[[3, 1], 0] == pytest.approx([x, y], abs=1e-4)  # of a hundredth
        assert -180 < float(one["value_deg"]) <= 180


def test_names_that_share_a_value_are_told_together() -> None:
    left, right = "IEM SceneRotator, ATK Rotate", "SPARTA Rotator, ambiX rotator"

    assert words(settings(-37.5)) == f"{left} -37.5°; {right} +37.5°"
    assert words(settings(180.0)) == f"{left}, {right} +180.0°"
