"""Angles in degrees on the circle, and arcs of them.

An arc is (low, high): from low counter-clockwise to high. One whose ends are the same angle is the
whole circle.
"""

from __future__ import annotations

from collections.abc import Iterable

Arc = tuple[float, float]


def wrapped_deg(degrees: float) -> float:
    """The same angle in (-180, 180]."""
    return 180.0 - (180.0 - degrees) % 360


def told_deg(degrees: float) -> float:
    """An angle in (-180, 180] to a hundredth, as reports have it: in the same range, never -0."""
    rounded = round(degrees, 2) + 0.0
    return 180.0 if rounded == -180.0 else rounded


def told_arc(arc: Arc) -> list[float]:
    """An arc, low <= high, whose ends may lie beyond a turn, as reports have it.

    Its ends are as of `told_deg`, but for the whole circle, which is [-180, 180].
    """
    low, high = arc
    if high - low >= 360:
        return [-180.0, 180.0]
    return [told_deg(wrapped_deg(low)), told_deg(wrapped_deg(high))]


def width_deg(arc: Arc) -> float:
    """How many degrees an arc spans, in (0, 360]."""
    low, high = arc
    return (high - low) % 360 or 360.0


def cover(arcs: Iterable[Arc], degrees: float) -> bool:
    """Whether one of the arcs holds an angle."""
    return any((degrees - arc[0]) % 360 <= width_deg(arc) for arc in arcs)
