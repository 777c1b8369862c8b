"""Manifests: what lines leave out, and where files are looked for."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from model.errors import MediaError
from training.data.manifest import read_manifest


def test_a_line_names_two_files_beside_its_manifest_and_little_else(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "a.wav"
    lines = [
        {"video": "day/a.mp4", "audio": "day/a.wav"},
        {
            "video": "b.mp4", "audio": str(elsewhere), "group": "lake", "tier": "weak",
            "scene": "rain", "rotated_deg": -30, "rotations_deg": [0, 90.5],
        },
    ]  # fmt: skip
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))

    plain, full = map(asdict, read_manifest(tmp_path / "m.jsonl"))

    assert plain == {
        "name": "day/a.wav", "video": tmp_path / "day/a.mp4", "audio": tmp_path / "day/a.wav",
        "group": "day/a.wav", "tier": "all", "scene": "", "rotated_deg": 0.0,
        "rotations_deg": (0.0,),
    }  # fmt: skip
    assert full == {
        "name": str(elsewhere), "video": tmp_path / "b.mp4", "audio": elsewhere,
        "group": "lake", "tier": "weak", "scene": "rain", "rotated_deg": -30.0,
        "rotations_deg": (0.0, 90.5),
    }  # fmt: skip


def test_the_line_that_is_wrong_is_named_by_its_number(tmp_path: Path) -> None:
    good = json.dumps({"video": "a.mp4", "audio": "a.wav"})
    (tmp_path / "m.jsonl").write_text(f'{good}\n\n{good}\n{{"video": "a.mp4"}}\n')

    with pytest.raises(MediaError, match=r"Line 4 of .*m\.jsonl is not a take"):
        read_manifest(tmp_path / "m.jsonl")
