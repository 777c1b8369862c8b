"""Recordings made once more: as it is said they are, and figures against plain arithmetic."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from model.ambisonics import rotate_yaw
from model.media.encode import write_audio
from model.recordings.comparison import Comparison, Outcome, unsynchronised
from training.data.manifest import KnownTake
from training.evaluate import reference
from training.evaluate.__main__ import main
from training.evaluate.reference import VARIANTS, Answer, Setting, answers, summarise

KNOWN = KnownTake("take", Path(), Path(), "a", "strong", "", 0.0, (0.0,))


@pytest.mark.parametrize(("duration_s", "level"), [(0.05, 0.1), (2.9, 0.1), (6.0, 0.0)])
def test_takes_that_are_silent_or_too_short_are_named(
    tmp_path: Path, duration_s: float, level: float, capsys: pytest.CaptureFixture[str]
) -> None:
    track, manifest = tmp_path / "short.wav", tmp_path / "manifest.jsonl"
    noise = level * np.random.default_rng(0).standard_normal((4, round(duration_s * 24_000)))
    write_audio(track, noise, 24_000, subtype="PCM_16")
    manifest.write_text(json.dumps({"video": "none.mp4", "audio": track.name}) + "\n")

    assert main(["reference", "--manifest", str(manifest), "--rooms", str(tmp_path)]) == 2

    assert f"{track} is silent or shorter than 3 s" in capsys.readouterr().err


def found(yaw_deg: float, half_deg: float, offset_s: float = 0.0) -> Comparison:
    """As a comparison says it: the arc goes on past half a turn."""
    aligned: Any = SimpleNamespace(reason="", offset_s=offset_s)
    return replace(
        unsynchronised(aligned), outcome=Outcome.ROTATED, rotate_field_ccw_deg=yaw_deg,
        interval_deg=(yaw_deg - half_deg, yaw_deg + half_deg),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rotation_deg", "yaw_deg", "error_deg", "covered"),
    [
        (20.0, 21.5, 1.5, True), (20.0, 17.0, 3.0, False), (20.0, 23.0, 3.0, False),
        (-179.5, 179.0, 1.5, True), (179.5, -179.0, 1.5, True), (-177.0, 180.0, 3.0, False),
    ],
)  # fmt: skip
def test_errors_and_arcs_go_on_past_half_a_turn(
    rotation_deg: float, yaw_deg: float, error_deg: float, covered: bool
) -> None:
    answer = reference._answer(KNOWN, "as is", rotation_deg, 0.75, found(yaw_deg, 2.0, 0.5))

    assert answer.error_deg == pytest.approx(error_deg)
    assert answer.covered is covered
    assert answer.half_interval_deg == 2
    assert answer.offset_error_s == pytest.approx(-0.25)


def test_second_recordings_are_turned_late_and_mirrored_as_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned by what is the truth, and begun so much later, they are the first one again."""
    rate = 8000
    field = 0.1 * np.random.default_rng(0).standard_normal((4, 4 * rate))
    write_audio(tmp_path / "first.wav", field, rate, subtype="PCM_16")
    recorded: list[np.ndarray] = []

    def compared(_reference: Any, path: Path, *_: Any) -> Comparison:
        recorded.append(soundfile.read(path)[0].T)
        return found(0.0, 1.0)

    monkeypatch.setattr(reference, "_compared", compared)
    monkeypatch.setattr(reference, "read_room", lambda *_args, **_more: None)
    monkeypatch.setattr(reference, "second_microphone", lambda _rng, field, *_args, **_more: field)
    known = replace(KNOWN, audio=tmp_path / "first.wav")

    given = answers(known, tmp_path / "room", Setting(), 3, tmp_path)

    assert [answer.variant for answer in given] == list(VARIANTS)
    for answer, second in zip(given, recorded, strict=True):
        assert abs(answer.rotation_deg) > 10
        assert answer.offset_error_s is not None
        late = round(-answer.offset_error_s * rate)
        assert 0 < late <= 1.5 * rate
        mirror = {"Y mirrored": [1, -1, 1, 1], "Z mirrored": [1, 1, -1, 1]}
        signs = np.array(mirror.get(answer.variant, [1, 1, 1, 1]))[:, None]
        again = rotate_yaw(second * signs, math.radians(answer.rotation_deg))
        first = field[:, late:] * np.array([1, 1, answer.variant != "planar", 1])[:, None]
        scale = np.vdot(again, first) / np.vdot(again, again)
        np.testing.assert_allclose(scale * again, first, atol=1e-3)


def test_figures_of_a_variant_are_of_the_takes_that_are_told() -> None:
    def given(error_deg: float, covered: bool, mirrored: bool | None, tilt: float | None) -> Answer:
        return Answer(
            "take", "a", "strong", "as is", 0.0, 0.0, error_deg, 1.0, covered, "rotated", mirrored,
            tilt, 0.9, None,
        )  # fmt: skip

    told = [
        given(1.0, True, False, 3.0), given(1.5, True, False, None), given(8.0, False, True, 90.0),
        given(0.5, True, None, None),
    ]  # fmt: skip
    untold = replace(told[0], verdict="undecidable", error_deg=0.1)

    assert summarise([*told, untold]) == {
        "takes": 5, "told": 4, "within_1_deg": 2, "median_error_deg": 1.25,
        "largest_error_deg": 8.0, "covered": 3, "said_mirrored": 1, "said_not_mirrored": 2,
        "with_tilt": 2,
    }  # fmt: skip
    assert math.isnan(summarise([untold])["median_error_deg"])


def test_every_recording_of_a_take_is_elsewhere_and_counts_in_its_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def answered(known: KnownTake, room: Path, _setting: Any, seed: int, _to: Path) -> list[Answer]:
        asked.append((room.name, seed))
        found_one = reference._answer(known, "as is", 0.0, 0.0, found(float(seed), 1.0))
        return [replace(found_one, variant=variant) for variant in list(VARIANTS)[: 1 + seed]]

    monkeypatch.setattr(reference, "read_manifest", lambda _: [KNOWN, KNOWN])
    monkeypatch.setattr(reference, "answers", answered)

    figures = reference.run(tmp_path, tmp_path, repeats=2)

    assert [seed for _, seed in asked] == [0, 1, 2, 3]
    assert len({room for room, _ in asked}) == 3
    takes = {variant: figures["variants"][variant]["takes"] for variant in VARIANTS}
    assert list(takes.values()) == [4, 3, 2, 1]
    assert figures["variants"]["planar"]["largest_error_deg"] == 3
