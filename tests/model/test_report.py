"""The picture: where the sound is drawn is where it is, and notes are whole or counted."""

import math
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import features
from model.ambisonics import encode
from model.report import _that_fit, energy_map, relabelled, sentence


@pytest.mark.parametrize(("azimuth_deg", "elevation_deg"), [(0, 0), (120, 30), (-179, -40)])
def test_the_map_peaks_at_the_source(azimuth_deg: float, elevation_deg: float) -> None:
    rng = np.random.default_rng(0)
    direction = math.radians(azimuth_deg), math.radians(elevation_deg)
    field = encode(rng.standard_normal(24_000), *direction, 1)
    cov = features.covariance(torch.tensor(field + 0.01 * rng.standard_normal(field.shape)))

    energy = energy_map(cov)

    row, column = divmod(int(energy.argmax()), energy.shape[1])
    assert energy.max() == pytest.approx(1)
    assert abs(90 - 180 * (row + 0.5) / energy.shape[0] - elevation_deg) <= 5
    seen = 180 - 360 * (column + 0.5) / energy.shape[1]
    assert abs(math.remainder(seen - azimuth_deg, 360)) <= 5


def test_a_name_that_is_another_file_s_path_is_left_as_it_is() -> None:
    told = relabelled({"reasons": ["/1/a and b"]}, {"/1/a": "b", "b": "c"})

    assert told == {"reasons": ["b and c"]}


def test_other_names_for_paths_also_inside_sentences() -> None:
    report = {
        "paths": ["/a/1.wav"],
        "warnings": ["/a/1.wav is loud"],
        "n": 3,
        "d": {"p": "/a/1.wav"},
    }

    told = relabelled(report, {"/a/1.wav": "take.wav", "/a": "never"})

    assert told == {
        "paths": ["take.wav"], "warnings": ["take.wav is loud"], "n": 3, "d": {"p": "take.wav"},
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


def test_what_rounds_to_nothing_has_no_sign() -> None:
    report = {
        "verdict": "aligned", "rotate_field_ccw_deg": -0.04, "confidence": 0.9, "reasons": [],
        "interval_deg": [-7.5, -0.0], "second_interval_deg": None,
    }  # fmt: skip

    assert "best rotation +0.0°, 90 % interval -7.5° to +0.0°" in sentence(report)


@given(st.lists(st.integers(1, 60), max_size=9))
def test_notes_of_the_picture_are_whole_or_counted(lengths: list[int]) -> None:
    notes = [" ".join(["word"] * n_words) for n_words in lengths]

    *shown, last = _that_fit(notes, n_lines=5) or [""]

    left = int(last.split()[2]) if last.startswith("... and") else 0
    shown = shown if left else [*shown, last]
    assert " ".join(shown).split() == " ".join(notes[: len(notes) - left]).split()
    assert len(shown) <= 5
    assert not left or len(shown) + len(textwrap.wrap(notes[-left], 82)) > 5
