"""Recordings made once more: of what nothing can be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.media.encode import write_audio
from training.evaluate.__main__ import main


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
