"""What the index of YT-360 says of clips, without footage: facts, and why some are left out."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model.channels.faults import Finding
from model.conventions import Diagnosis
from model.errors import MediaError, OptionError
from training.data import yt360
from training.data.clips import Clip
from training.data.yt360 import check_apart, examine, read_index, read_list, skipped


@pytest.mark.parametrize(
    ("seen_s", "heard_s", "told"),
    [(9.8764, 10.0, 9.876), (10.0, 9.5, 9.5), (1.4, 10.0, None), (10.0, 1.4, None), (1.5, 2, 1.5)],
)
def test_facts_are_of_what_both_picture_and_sound_have(
    seen_s: float, heard_s: float, told: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = SimpleNamespace(info=SimpleNamespace(duration_s=heard_s))
    monkeypatch.setattr(yt360, "_examine_picture", lambda _: seen_s)
    monkeypatch.setattr(yt360, "open_audio", lambda _: nullcontext(reader))
    monkeypatch.setattr(yt360, "_examine_sound", lambda _: ([2, 1, 4, 0], True))

    line = examine("abcdefghijk-30", Path("v.mp4"), Path("s.m4a"))

    facts = {"video": "v.mp4", "audio": "s.m4a", "components": [2, 1, 4, 0], "planar": True}
    rest = {"skipped": "too short"} if told is None else facts | {"duration_s": told}
    assert line == {"name": "abcdefghijk-30", "recording": "abcdefghijk"} | rest


@pytest.mark.parametrize(("z_db", "planar"), [(-48.0, False), (-52.0, True), (-300.0, True)])
def test_height_is_silent_50_decibels_below_w(
    z_db: float, planar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of channels X, Y, W, nothing, Z, nothing, as YouTube has them."""
    field = np.random.default_rng(0).standard_normal((6, 1000))
    field[4] = field[2] * 10 ** (z_db / 20)
    field[[3, 5]] = 100
    info = SimpleNamespace(
        components=(2, 1, 4, 0), n_channels=6, n_samples=1000, samplerate=100, path=Path("a")
    )  # fmt: skip
    reader: Any = SimpleNamespace(info=info, read=lambda first, count: field[:, first:count])
    monkeypatch.setattr(yt360, "diagnose", lambda *_, **__: Diagnosis((), {}))

    assert yt360._examine_sound(reader) == ([2, 1, 4, 0], planar)
    for n_channels in (2, 5, 6, 9):
        info.components, info.n_channels = None, n_channels
        with pytest.raises(yt360._Unusable, match=f"has {n_channels} channels"):
            yt360._examine_sound(reader)
    info.n_channels = 4
    assert yt360._examine_sound(reader)[0] == [0, 1, 2, 3]


def test_wrong_readings_that_exclude_one_another_are_likelier_together() -> None:
    first, second = Finding("wxyz", 0.3, ""), Finding("w_elsewhere", 0.35, "")
    other, spoilt = Finding("clipped", 0.9, ""), Finding("silent", 0.9, "", spoils_reading=True)

    def why(*findings: Finding) -> Finding | None:
        return yt360._misread(Diagnosis(findings, {}))

    assert why(first, second, other) is second
    assert why(first) is why(second, other) is None
    assert why(other, spoilt, first) is spoilt


def test_hidden_files_and_others_are_no_clips(tmp_path: Path) -> None:
    for name in ("video/a.mp4", "video/.b.mp4", "video/c.txt", "audio/a.flac", "audio/.d.m4a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    pairs = yt360._pairs(tmp_path)

    assert pairs == {"a": (tmp_path / "video/a.mp4", tmp_path / "audio/a.flac")}
    state = yt360._state(pairs)
    header = {"format": 1, "state": state}
    line = {"name": "a", "recording": "a", "skipped": "broken"}
    used = {"video": "a.mp4", "audio": "a.flac", "duration_s": 2.0, "components": [0, 1, 2, 3],
            "planar": False}  # fmt: skip
    used = {"name": "b", "recording": "b", **used}
    for first, refused in ((header, False), (header | {"format": 2}, True)):
        text = "\n".join(map(json.dumps, (first, line, line | {"skipped": "silent"}, line, used)))
        (tmp_path / "index.jsonl").write_text(text)
        if refused:
            with pytest.raises(MediaError, match="is not of what now lies in"):
                read_index(tmp_path)
        else:
            assert [clip.name for clip in read_index(tmp_path)] == ["b"]
            assert skipped(tmp_path) == {"broken": 2, "silent": 1}


@pytest.mark.parametrize("wrong", ["tenletters", "twelveletter"])
def test_ids_that_are_too_long_or_too_short_are_named(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "list.txt").write_text(f"\n abcdefghijk \n{wrong}\n")

    with pytest.raises(MediaError, match=f"'{wrong}', which is no ID"):
        read_list(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("\n abcdefghijk \n")
    assert read_list(tmp_path / "list.txt") == ["abcdefghijk"]


def test_lists_that_share_a_recording_are_named_though_clips_are_others() -> None:
    def clip(name: str) -> Clip:
        return Clip(name, name[:1], Path(name), Path(name), 2.0, (0, 1, 2, 3))

    with pytest.raises(OptionError, match="1 recordings are both learned from and measured on, as"):
        check_apart([clip("a-0"), clip("b-0")], [clip("b-10"), clip("c-0")])
    check_apart([clip("a-0")], [clip("b-0")])
