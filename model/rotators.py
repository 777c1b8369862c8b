"""A rotation as rotator plug-ins take it: half of them turn left on +, half turn right.

For whoever leaves the file as it is and turns the field in the session. The signs are those of the
plug-ins as they come, with none of their own inversions switched on: IEM SceneRotator
(`calcRotationMatrix`), ATK (`FoaRotate`), SPARTA Rotator (SAF's `yawPitchRoll2Rzyx`) and ambiX
rotator (`calcParams`).
"""

from __future__ import annotations

from model.arcs import told_deg
from model.wording import angle

_LEFT = {"IEM SceneRotator": "yaw", "ATK Rotate": "angle"}
_RIGHT = {"SPARTA Rotator": "yaw", "ambiX rotator": "yaw"}


def settings(rotate_field_ccw_deg: float) -> list[dict[str, str | float]]:
    """What to set in each: its name, the parameter, and its value in degrees in (-180, 180]."""
    return [
        {"name": name, "parameter": parameter, "value_deg": told_deg(degrees)}
        for rotators, degrees in ((_LEFT, rotate_field_ccw_deg), (_RIGHT, -rotate_field_ccw_deg))
        for name, parameter in rotators.items()
    ]


def words(told: list[dict[str, str | float]]) -> str:
    """Settings in a line: names that share a value together."""
    names: dict[float, list[str]] = {}
    for one in told:
        names.setdefault(float(one["value_deg"]), []).append(str(one["name"]))
    return "; ".join(f"{', '.join(same)} {angle(degrees)}" for degrees, same in names.items())
