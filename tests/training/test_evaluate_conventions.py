"""The confusion table over conventions, on synthetic takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.ambisonics import encode
from model.media.encode import write_audio
from training.data.takes import TakeFiles
from training.evaluate.__main__ import main
from training.evaluate.conventions import TURNS, measured, tellable


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


def test_of_a_track_too_short_to_be_measured_no_order_can_be_told() -> None:
    moment = np.asarray(encode(np.random.default_rng(0).standard_normal(1200), 0.6, 0.05, 1))

    stats = measured(moment, 24_000)

    for truth in ("n3d", "fuma", "w x y z", "w z y x", "swapped W, Y", "swapped W, X"):
        assert not tellable(truth, stats)
