"""Angles, arcs and probabilities in words: read back they are what was told, in one form."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.wording import angle, percent, span


@given(st.floats(-720, 720), st.integers(0, 2))
def test_an_angle_reads_back_as_itself_between_minus_and_plus_180(
    degrees: float, digits: int
) -> None:
    told = angle(degrees, digits)

    assert re.fullmatch(r"[+-]\d+(\.\d+)?°", told)
    value = float(told[:-1])
    assert -180 < value <= 180
    off = (value - degrees + 180) % 360 - 180
    assert abs(off) <= 0.5 * 10**-digits + 1e-9
    assert value or told[0] == "+"


@pytest.mark.parametrize("degrees", [-179.97, 180.0, -180.0])
def test_the_back_has_one_name(degrees: float) -> None:
    assert angle(degrees) == "+180.0°"


@given(st.floats(0, 1))
def test_a_probability_is_never_told_to_be_more_than_it_is_nor_certain(probability: float) -> None:
    told = int(percent(probability).removesuffix(" %"))

    assert told <= 99
    assert told <= 100 * probability + 1e-6 < told + 1 or probability > 0.99


@given(st.integers(0, 99))
def test_whole_percents_are_told_as_they_are(whole: int) -> None:
    assert percent(whole / 100) == f"{whole} %"


def test_an_arc_is_told_by_its_ends_and_the_circle_by_all_of_it() -> None:
    assert span([170.0, -179.97]) == "+170.0° to +180.0°"
    assert span((-180.0, 180.0)) == "-180.0° to +180.0°"
