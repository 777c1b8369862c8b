"""Angles and arcs, against walking along the circle."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.arcs import cover, told_arc, told_deg, width_deg, wrapped_deg

whole = st.integers(-720, 720)


@given(degrees=whole)
def test_wrapped_angles_are_the_same(degrees: int) -> None:
    wrapped = wrapped_deg(degrees)

    assert -180 < wrapped <= 180
    assert math.isclose(math.cos(math.radians(wrapped - degrees)), 1)


@given(degrees=st.floats(-180, 180, exclude_min=True))
@example(-179.996)
@example(-0.001)
def test_told_angles_are_within_the_same_turn(degrees: float) -> None:
    told = told_deg(degrees)

    assert -180 < told <= 180
    assert math.copysign(1, told) == 1 or told < 0
    assert abs(math.remainder(told - degrees, 360)) <= 0.005 + 1e-9
    assert told == round(told, 2)


@pytest.mark.parametrize(
    ("arc", "told"),
    [
        ((-10.004, 12.5), [-10.0, 12.5]),
        ((178.5, 181.5), [178.5, -178.5]),
        ((-190.0, -180.0), [170.0, 180.0]),
        ((-180.0, 180.0), [-180.0, 180.0]),
        ((-300.0, 90.0), [-180.0, 180.0]),
    ],
)
def test_told_arcs_end_within_a_turn(arc: tuple[float, float], told: list[float]) -> None:
    assert told_arc(arc) == told


@given(low=whole, high=whole, degrees=whole)
def test_an_arc_holds_what_lies_on_the_way(low: int, high: int, degrees: int) -> None:
    on_the_way = {low % 360}
    at = low + 1
    while (at - high) % 360:
        on_the_way.add(at % 360)
        at += 1
    on_the_way.add(high % 360)

    assert cover([(low, high)], degrees) == (degrees % 360 in on_the_way)
    assert width_deg((low, high)) == at - low


@pytest.mark.parametrize("degrees", [-180.0, 0.0, 12.3])
def test_no_arc_and_the_whole_circle(degrees: float) -> None:
    assert not cover([], degrees)
    assert cover([(-180.0, 180.0)], degrees)
