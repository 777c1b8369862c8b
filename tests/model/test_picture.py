"""The picture: where the sound is drawn is where it is, and notes are whole or counted."""

import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from model import features
from model.ambisonics import encode
from model.evidence import yaws_deg
from model.picture import Snapshot, _shortened, _that_fit, draw, energy_map


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


@given(st.text("WM.日", min_size=1, max_size=120), st.integers(8, 90))
def test_long_names_keep_both_ends(name: str, most: int) -> None:
    shown = _shortened(name, most)

    before, *after = shown.split("…")
    assert len(shown) == min(len(name), most)
    assert name.startswith(before)
    assert shown == name or (name.endswith(after[0]) and len(after[0]) >= most // 2)


# --- drawn ---------------------------------------------------------------------------------------


def drawn(
    tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch, **changed: Any
) -> tuple[Figure, dict[str, Tensor]]:
    """The picture of a report, and the sound of its two panoramas by their titles."""
    report = {
        "verdict": "misaligned", "rotate_field_ccw_deg": 30.0, "confidence": 0.9, "reasons": [],
        "warnings": [], "interval_deg": [27.5, 32.5], "second_interval_deg": None,
        "posterior": {"yaw_deg": yaws_deg(), "p": [1 / 72] * 72}, "windows": [],
        "input": {"audio": {"order": 1, "convention": "ambix", "samplerate_hz": 48_000,
                            "paths": ["t.wav"]}},
        "output": None, **changed,
    }  # fmt: skip
    figures: list[Figure] = []
    shown: dict[str, Tensor] = {}

    class Kept(Figure):
        def __init__(self, **sizes: Any) -> None:
            super().__init__(**sizes)
            figures.append(self)

    def panorama(_axes: Axes, _snapshot: Snapshot, cov: Tensor, title: str) -> None:
        shown[title] = cov

    monkeypatch.setattr("model.picture.Figure", Kept)
    monkeypatch.setattr("model.picture._panorama", panorama)
    draw(report, snapshot, tmp_path / "p.png")
    return figures[0], shown


def snapshot_at(azimuth_deg: float, at_s: float = 2.0, turned_deg: float = 0.0) -> Snapshot:
    noise = np.random.default_rng(0).standard_normal(24_000)
    field = encode(noise, math.radians(azimuth_deg), 0.0, 1)
    cov = features.covariance(torch.tensor(field))
    return Snapshot(at_s, np.zeros((4, 8, 3), np.uint8), cov, turned_deg)


def azimuth_deg(cov: Tensor) -> float:
    x, y, _ = features.intensity(cov).flatten(0, 1).sum(0).tolist()
    return math.degrees(math.atan2(y, x))


@pytest.mark.parametrize("known_deg", [None, 40.0])
@pytest.mark.parametrize("followed", [True, False])
def test_the_panoramas_show_the_sound_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known_deg: float | None, followed: bool
) -> None:
    """Of a take whose rotation changes by 40 degrees until then, as was found or is known."""
    curve = {"kind": "moving", "followed": followed, "steps": [], "times_s": [0.0, 4.0],
             "rotate_field_ccw_deg": [30.0, 110.0]}  # fmt: skip
    snapshot = snapshot_at(-100.0, 2.0, known_deg or 0.0)

    _, shown = drawn(tmp_path, snapshot, monkeypatch, trajectory=curve)

    turned = 30.0 + (40.0 if followed or known_deg else 0.0)
    assert [azimuth_deg(cov) for cov in shown.values()] == pytest.approx(
        [-100, -100 + turned], abs=0.1
    )


@pytest.mark.parametrize(
    ("verdict", "applied_deg", "told"),
    [
        ("misaligned", None, "Corrected"),
        ("aligned", 0.0, "Turned by the best rotation (not applied)"),
        ("undecidable", 0.0, "Turned by the best rotation (not applied)"),
        ("undecidable", 30.0, "Corrected"),
        ("aligned", -75.0, "Corrected"),
        ("misaligned", 0.0, "Turned by the best rotation (not applied)"),
    ],
)
def test_what_was_not_written_is_not_called_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, applied_deg: float | None,
    told: str,
) -> None:  # fmt: skip
    """And what is shown is what was written, where that is another rotation than was found."""
    output = {"path": "o.wav", "untouched_copy": not applied_deg, "applied_deg": applied_deg}

    _, shown = drawn(
        tmp_path, snapshot_at(0.0), monkeypatch, verdict=verdict,
        output=None if applied_deg is None else output,
    )  # fmt: skip

    degrees = applied_deg or 30.0
    assert list(shown) == ["Sound as it is", f"{told}: {degrees:+.1f}°"]
    assert azimuth_deg(list(shown.values())[1]) == pytest.approx(degrees, abs=0.1)


def test_what_is_drawn_stays_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of 200 characters beside the curve of a rotation that changes."""
    curve = {"kind": "constant", "followed": False, "steps": [], "times_s": [0.0, 4.0],
             "rotate_field_ccw_deg": [30.0, 30.0]}  # fmt: skip
    output = {"path": 50 * "take" + "_aligned.wav", "untouched_copy": False, "applied_deg": 30.0}
    told = {"order": 1, "convention": "ambix", "samplerate_hz": 48_000, "paths": [50 * "take"]}

    figure, _ = drawn(
        tmp_path, snapshot_at(0.0), monkeypatch, trajectory=curve, output=output,
        input={"audio": told},
    )  # fmt: skip

    *_, summary = figure.axes
    whole = figure.bbox
    for text in [*figure.texts, *summary.texts[:2]]:
        box = text.get_window_extent()
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1, text.get_text()


@pytest.mark.parametrize(("verdict", "told"), [("rotated", "-20.0° (rotated)"),
                                               ("undecidable", "undecidable")])  # fmt: skip
def test_a_reference_that_tells_no_angle_points_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, told: str
) -> None:
    beside = {"verdict": verdict, "rotate_field_ccw_deg": -20.0,
              "picture": {"rotate_field_ccw_deg": 30.0}}  # fmt: skip

    figure, _ = drawn(tmp_path, snapshot_at(0.0), monkeypatch, reference=beside)

    *_, ring, summary = figure.axes
    assert len(ring.collections) == (verdict == "rotated")
    assert ("diamond" in ring.get_title()) is (verdict == "rotated")
    assert f"reference  {told}; picture  +30.0°" in summary.texts[1].get_text()


@given(st.lists(st.integers(1, 60), max_size=9))
def test_notes_of_the_picture_are_whole_or_counted(lengths: list[int]) -> None:
    notes = [" ".join(["word"] * n_words) for n_words in lengths]

    *shown, last = _that_fit(notes, n_lines=5) or [""]

    left = int(last.split()[2]) if last.startswith("... and") else 0
    shown = shown if left else [*shown, last]
    assert " ".join(shown).split() == " ".join(notes[: len(notes) - left]).split()
    assert len(shown) <= 5
    assert not left or len(shown) + len(textwrap.wrap(notes[-left], 82)) > 5
