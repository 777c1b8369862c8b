"""What is told, in whose words."""

import re
from typing import Any

import pytest

from model.report import one_turn_corrects, reworded, sentence


def test_all_texts_are_put_into_other_words() -> None:
    report = {
        "paths": ["/a/1.wav"], "warnings": ["/a/1.wav is loud"], "n": 3, "d": {"p": "/a/1.wav"},
        "none": None, "true": True,
    }  # fmt: skip

    told = reworded(report, lambda text: text.replace("/a/1.wav", "take.wav"))

    assert told == {
        "paths": ["take.wav"], "warnings": ["take.wav is loud"], "n": 3, "d": {"p": "take.wav"},
        "none": None, "true": True,
    }  # fmt: skip


@pytest.mark.parametrize("trajectory", [None, {"followed": False}, {"followed": True}])
def test_a_rotation_that_is_followed_is_told_as_that_of_the_beginning(
    trajectory: dict[str, bool] | None,
) -> None:
    report = {
        "verdict": "misaligned", "rotate_field_ccw_deg": 0.4, "confidence": 0.9, "reasons": [],
        "interval_deg": [-9.5, 10.5], "second_interval_deg": None, "trajectory": trajectory,
    }  # fmt: skip

    followed = trajectory is not None and trajectory["followed"]
    assert ("from above at the beginning, and on as it changes (" in sentence(report)) is followed


@pytest.mark.parametrize(
    ("changed", "corrects"),
    [
        ({}, True),
        ({"output": None}, True),
        ({"verdict": "undecidable"}, False),
        ({"fix": "mirror"}, False),
        ({"trajectory": {"followed": True}}, False),
        ({"output": {"applied_deg": 40.0}}, False),
    ],
)
def test_a_plug_in_is_named_where_it_does_what_the_output_has(
    changed: dict[str, Any], corrects: bool
) -> None:
    report = {
        "verdict": "misaligned", "rotate_field_ccw_deg": -141.1, "fix": None, "trajectory": None,
        "output": {"applied_deg": -141.1},
    }  # fmt: skip

    assert one_turn_corrects(report | changed) is corrects


def test_what_rounds_to_nothing_has_no_sign() -> None:
    report = {
        "verdict": "aligned", "rotate_field_ccw_deg": -0.04, "confidence": 0.9, "reasons": [],
        "interval_deg": [-7.5, -0.0], "second_interval_deg": None,
    }  # fmt: skip

    assert "best rotation +0.0°, 90 % interval -7.5° to +0.0°" in sentence(report)


@pytest.mark.parametrize("degrees", [0.04, -0.01, 0.05, -32.34])
def test_nobody_is_asked_to_turn_by_nothing(degrees: float) -> None:
    """Where the least difference counts, at a tolerance of 0."""
    told = sentence(
        {
            "verdict": "misaligned", "rotate_field_ccw_deg": degrees, "confidence": 0.9,
            "reasons": [], "interval_deg": [-2.5, 2.5], "second_interval_deg": None,
        }
    )  # fmt: skip

    turn = re.search(r"turn the sound field ([\d.]+)° to the (left|right)", told)
    assert turn is not None
    by = float(turn[1]) * (1 if turn[2] == "left" else -1)
    assert by == pytest.approx(degrees, abs=0.051 if abs(degrees) >= 0.05 else 0)
    assert f"rotate_field_ccw_deg {by:+}" in told
