"""The confusion table over conventions, on synthetic takes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model.ambisonics import encode
from model.channels.faults import Finding
from model.conventions import Diagnosis
from model.media.encode import write_audio
from training.data.takes import TakeFiles
from training.evaluate import conventions
from training.evaluate.__main__ import main
from training.evaluate.conventions import (
    TURNS,
    Answer,
    PictureAnswer,
    measured,
    picture_table,
    said,
    summarise,
    table,
    tellable,
)


def test_a_manifest_gives_a_confusion_table(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps({"video": str(take.video), "audio": str(take.audio)}) + "\n")
    report = tmp_path / "report.json"

    arguments = ["conventions", "--manifest", str(manifest), "--picture", "--report", str(report)]
    assert main(arguments) == 0

    figures = json.loads(report.read_text())
    told = capsys.readouterr().out
    assert list(figures["takes"]["confusion"]) == list(TURNS)
    assert figures["takes"]["untouched"] == 1
    assert figures["takes"]["false_alarms_untouched"] == 0
    rights = [a["right"] for a in figures["takes"]["answers"] if a["tellable"]]
    assert figures["takes"]["right_where_tellable"] == pytest.approx(np.mean(rights), abs=1e-4)
    assert "right where sound alone can tell" in told
    # As it is and mirrored, from even odds: one is the other's complement.
    upright, mirrored = figures["picture"]
    assert upright["p_reversed"] + mirrored["p_reversed"] == pytest.approx(1, abs=1e-3)
    assert upright["right"] == (upright["p_reversed"] < 0.5)
    assert mirrored["right"] == (mirrored["p_reversed"] > 0.5)


def test_a_missing_manifest_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conventions", "--manifest", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("n_channels", [1, 2])
def test_a_track_of_too_few_channels_is_named(
    tmp_path: Path, n_channels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    track, manifest = tmp_path / "few.wav", tmp_path / "manifest.jsonl"
    noise = np.random.default_rng(0).standard_normal((n_channels, 48_000)) / 10
    write_audio(track, noise, 48_000, subtype="PCM_16")
    manifest.write_text(json.dumps({"video": "few.mp4", "audio": track.name}) + "\n")

    assert main(["conventions", "--manifest", str(manifest)]) == 2

    told = capsys.readouterr().err
    assert f"{track} has {n_channels} channels; takes of a manifest are AmbiX" in told


def test_what_can_be_told_is_judged_by_the_truth() -> None:
    rng = np.random.default_rng(0)
    level = sum(encode(rng.standard_normal(96_000), a, 0.05, 1) for a in (0.6, 2.4, -1.9))
    steep = sum(encode(rng.standard_normal(96_000), a, 1.2, 1) for a in (0.6, 2.4, -1.9))

    assert tellable("w x y z", measured(np.asarray(level), 24_000))
    assert not tellable("w x y z", measured(np.asarray(steep), 24_000))
    for stats in (measured(np.asarray(level), 24_000), measured(np.asarray(steep), 24_000)):
        assert tellable("n3d", stats)
        assert tellable("A-format", stats)
        assert not tellable("mirrored", stats)


def test_a_track_is_measured_in_whole_stretches_from_its_beginning_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conventions, "measure", lambda stretches, _rate: stretches)

    for seconds, starts in ((11, [0, 700]), (9, [0, 500]), (4, [0]), (1, [0])):
        stretches: Any = measured(np.arange(100.0 * seconds)[None], 100)
        assert [part.shape for part in stretches] == [(1, min(400, 100 * seconds))] * len(starts)
        assert [int(part[0, 0]) for part in stretches] == starts


def test_of_a_track_too_short_to_be_measured_no_order_can_be_told() -> None:
    moment = np.asarray(encode(np.random.default_rng(0).standard_normal(1200), 0.6, 0.05, 1))

    stats = measured(moment, 24_000)

    for truth in ("n3d", "fuma", "w x y z", "w z y x", "swapped W, Y", "swapped W, X"):
        assert not tellable(truth, stats)


def test_turns_are_what_they_are_called() -> None:
    """Of a field whose W, Y, Z and X are 1, 2, 3 and 4."""
    half, root = math.sqrt(0.5), math.sqrt(3)

    turned = {
        name: turn(np.array([[1.0], [2], [3], [4]]))[:, 0] for name, (turn, _) in TURNS.items()
    }

    for name, channels in {
        "true": (1, 2, 3, 4), "w x y z": (1, 4, 2, 3), "w z y x": (1, 3, 2, 4),
        "fuma": (half, 4, 2, 3), "n3d": (1, 2 * root, 3 * root, 4 * root),
        "mirrored": (1, -2, 3, 4), "inverted": (1, -2, -3, 4), "swapped W, Y": (2, 1, 3, 4),
        "swapped W, X": (4, 2, 3, 1), "W only": (1, 0, 0, 0), "dead Z": (1, 2, 0, 4),
        "dead X": (1, 2, 3, 0), "copied": (1, 2, 3, 2),
    }.items():  # fmt: skip
        assert turned.pop(name) == pytest.approx(channels), name
    assert set(turned) == {"A-format", "quad", "stereo"}


def test_capsules_hear_what_is_in_front_of_them_and_nothing_behind() -> None:
    up = math.asin(3**-0.5)
    # Left front up, right front down, left back down, right back up: any two are apart by an angle
    # whose cosine is -1 / 3.
    for index, (azimuth_deg, elevation) in enumerate(
        [(45, up), (-45, -up), (135, -up), (-135, up)]
    ):
        source = encode(np.ones(1), math.radians(azimuth_deg), elevation, 1)
        expected = np.where(np.arange(4) == index, 1, 1 / 3)
        assert TURNS["A-format"][0](source)[:, 0] == pytest.approx(expected)
    for azimuth_deg, heard in ((45, (1, 0.5, 0.5, 0)), (-45, (0.5, 1, 0, 0.5)),
                               (135, (0.5, 0, 1, 0.5)), (-135, (0, 0.5, 0.5, 1))):  # fmt: skip
        source = encode(np.ones(1), math.radians(azimuth_deg), 0.0, 1)
        assert TURNS["quad"][0](source)[:, 0] == pytest.approx(heard, abs=1e-9)
    left = encode(np.ones(1), math.pi / 2, 0.0, 1)
    assert TURNS["stereo"][0](left)[:, 0] == pytest.approx([1, 0, 0, 0], abs=1e-9)


@pytest.mark.parametrize(
    ("power", "told"),
    [
        ((1, 0.9, 0.5, 1.0), set()), ((1, 0.9, 0.4, 1.0), {"fuma"}),
        ((1, 1.0, 0.18, 0.9), {"fuma", "w x y z"}),
        ((1, 1, 0.1, 0.9), {"fuma", "w x y z", "w z y x"}),
    ],
)  # fmt: skip
def test_orders_are_told_by_a_vertical_channel_that_is_weak(
    power: tuple[float, ...], told: set[str]
) -> None:
    stats: Any = SimpleNamespace(
        whitened_covariance=np.diag(power)[None] * np.array([0.25, 0.75])[:, None, None],
        alive=[True] * 4,
    )  # fmt: skip
    silent: Any = SimpleNamespace(**vars(stats) | {"alive": [True, True, False, True]})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conventions, "ratio_estimate", lambda _: (0.0, 0.1))
        orders = ("fuma", "w x y z", "w z y x")
        assert {truth for truth in orders if tellable(truth, stats)} == told
        assert not tellable("w z y x", silent)


def test_places_of_w_and_weights_are_told_by_what_stands_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    powers = np.diag([1.0, 0.6, 0.2, 0.2])[None]  # most of the energy is to the sides
    stats: Any = SimpleNamespace(whitened_covariance=powers, alive=[True] * 4)
    for mean, error, weights, places in (
        (0.3, 0.3, True, {"swapped W, X"}), (-0.3, 0.3, True, {"swapped W, X"}),
        (0.4, 0.1, False, {"swapped W, X"}), (0.0, 0.4, False, set()),
    ):  # fmt: skip
        estimate = mean, error
        monkeypatch.setattr(conventions, "ratio_estimate", lambda _, e=estimate: e)
        assert tellable("n3d", stats) is weights
        swaps = ("swapped W, X", "swapped W, Y")
        assert {truth for truth in swaps if tellable(truth, stats)} == places
        assert tellable("stereo", stats)
        assert not tellable("mirrored", stats)
        assert not tellable("inverted", stats)


def test_what_is_said_is_the_likeliest_problem_but_for_a_leak() -> None:
    leak = Finding("w_z_correlated", 0.95, "")
    problem, unlikely = Finding("n3d", 0.7, ""), Finding("wxyz", 0.2, "")
    note = Finding("planar", 0.99, "", problem=False)

    def of(*findings: Finding) -> tuple[str, float]:
        return said(Diagnosis(findings, {}))

    assert of(leak, problem, unlikely, note) == ("n3d", 0.7)
    assert of(leak, unlikely) == ("none", 0.8)
    assert of(unlikely, note) == ("planar", 0.8)
    assert of() == ("none", 1.0)


def given(truth: str, code: str, *, right: bool, tells: bool = True) -> Answer:
    return Answer("take", truth, code, right, tells, 0.9, ())


def test_shares_are_of_what_can_be_told_and_of_untouched_takes() -> None:
    answers = [
        given("true", "none", right=True), given("true", "n3d", right=False),
        given("true", "none", right=True, tells=False), given("true", "planar", right=True),
        given("n3d", "n3d", right=True), given("n3d", "none", right=False, tells=False),
        given("n3d", "none", right=False),
    ]  # fmt: skip

    figures = summarise(answers)

    assert figures["right_where_tellable"] == pytest.approx(3 / 5)
    assert (figures["tellable"], figures["untouched"]) == (5, 4)
    assert figures["false_alarms_untouched"] == 0.25
    assert figures["confusion"]["true"] == {"none": 2, "n3d": 1, "planar": 1}
    assert figures["confusion"]["n3d"] == {"none": 2, "n3d": 1}
    true, n3d = (line.split() for line in table(answers, figures).splitlines()[1:3])
    assert true[:7] == ["true", "3", "/", "4", "2", "/", "3"]
    assert n3d[:7] == ["n3d", "1", "/", "3", "1", "/", "2"]
    assert summarise(answers[4:])["false_alarms_untouched"] is None


def test_of_pictures_the_share_that_is_told_is_that_of_its_tier() -> None:
    answers = [
        PictureAnswer(f"take {index}", tier, truth, 0.5, right)
        for index, (tier, rights) in enumerate(
            [("strong", (True, True)), ("strong", (True, False)), ("weak", (False, False))]
        )
        for truth, right in zip(("upright", "reversed"), rights, strict=True)
    ]

    *_, strong, weak = picture_table(answers).splitlines()

    assert strong == "told the right way round, strong: 75% of 4"
    assert weak == "told the right way round, weak: 0% of 2"
