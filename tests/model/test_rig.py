"""Many takes of one rig."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.decision import judge_take
from model.errors import DiskFull, InputError, OptionError, UnusableContent
from model.rig import (
    DISAGREES,
    RigSolution,
    Row,
    _tell,
    find_takes,
    judge_row,
    main,
    read_table,
    run,
    solve,
    write_table,
)
from model.take import Take
from tests.model.test_scoring import CALIBRATION, bump
from training.data.takes import TakeFiles


def solved(*posteriors: Tensor) -> RigSolution:
    return solve(torch.stack(posteriors), CALIBRATION, tolerance_deg=10)


def off(solution: RigSolution, right_deg: float) -> float:
    return abs(math.remainder(solution.rotate_field_ccw_deg - right_deg, 360))


def width(solution: RigSolution) -> float:
    return sum((high - low) % 360 or 360 for low, high in solution.arcs_deg)


def takes_of(rng: np.random.Generator, n: int, right_deg: float) -> list[Tensor]:
    """Posteriors whose modes are as far off as their widths say: von Mises of 12 degrees."""
    return [bump(right_deg + math.degrees(rng.vonmises(0, 23)), height=23).exp() for _ in range(n)]


def test_the_interval_shrinks_with_the_root_of_the_number(rng: np.random.Generator) -> None:
    # A single take may be misplaced, which widens its interval: from two on the root rules.
    widths = {
        n: np.mean([width(solved(*takes_of(rng, n, 40.0))) for _ in range(30)]) for n in (2, 8, 32)
    }

    assert widths[2] / widths[8] == pytest.approx(2, rel=0.2)
    assert widths[8] / widths[32] == pytest.approx(2, rel=0.2)


def test_the_interval_holds_the_truth(rng: np.random.Generator) -> None:
    trials = [solved(*takes_of(rng, 8, -178.0)) for _ in range(200)]

    covered = np.mean(
        [any((-178 - low) % 360 <= (high - low) % 360 for low, high in t.arcs_deg) for t in trials]
    )
    assert 0.84 <= covered <= 0.97  # 0.9 wanted; 4 deviations of a binomial of 200


@given(st.integers(-35, 36).map(lambda k: 5.0 * k))
def test_a_take_turned_turns_the_answer(by_deg: float) -> None:
    posteriors = [bump(10).exp(), bump(20).exp(), bump(-170, height=3).exp()]
    turned = [p.roll(int(by_deg / 5)) for p in posteriors]

    assert off(solved(*turned), solved(*posteriors).rotate_field_ccw_deg + by_deg) < 1e-6


def test_one_misplaced_take_of_eight_is_named(rng: np.random.Generator) -> None:
    posteriors = takes_of(rng, 7, 30.0)
    posteriors.insert(3, bump(120).exp())

    solution = solved(*posteriors)

    assert off(solution, 30.0) < 10
    assert [index for index, p in enumerate(solution.belongs) if p < DISAGREES] == [3]


def test_a_take_that_knows_nothing_changes_nothing() -> None:
    posteriors = [bump(30).exp(), bump(36).exp()]
    flat = torch.full((72,), 1 / 72, dtype=torch.float64)

    alone, with_flat = solved(*posteriors), solved(*posteriors, flat)

    torch.testing.assert_close(alone.posterior, with_flat.posterior)
    assert with_flat.belongs[2] == pytest.approx(0.9)


def test_between_the_takes_bins_and_through_them(rng: np.random.Generator) -> None:
    """The finer posterior at the bins of the takes is what they say there."""
    rough = torch.tensor(rng.dirichlet(np.full(72, 2.0), 3))

    solution = solved(*rough)

    expected = (0.9 * 72 * rough + 0.1).log().sum(0)
    torch.testing.assert_close(solution.posterior[9::10].log().diff(), expected.diff())


def test_one_take_is_as_it_is_by_itself() -> None:
    assert off(solved(bump(-57).exp()), -57) < 0.5


# --- files ---------------------------------------------------------------------------------------


def touch(*paths: Path) -> None:
    for path in paths:
        path.touch()


def test_takes_are_found_by_name(tmp_path: Path) -> None:
    touch(
        *(tmp_path / name for name in ("a.mp4", "a.wav", "b[1].mov", "b[1].flac", "c.mp4", "n.txt"))
    )

    takes = find_takes([tmp_path])

    assert [(t.name, t.audio.name) for t in takes] == [
        ("a", "a.wav"), ("b[1]", "b[1].flac"), ("c", "c.mp4"),
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".BWF", ".bw64", ".wave", ".aifc"])
def test_tracks_are_found_by_every_suffix_that_is_written(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / "a.mp4", tmp_path / f"a{suffix}")

    assert [take.audio.name for take in find_takes([tmp_path])] == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", [".ts", ".m2ts", ".MTS"])
def test_transport_streams_are_videos(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / f"a{suffix}", tmp_path / "a.wav")

    assert [(t.video.name, t.audio.name) for t in find_takes([tmp_path])] == [
        (f"a{suffix}", "a.wav")
    ]


def test_what_a_mac_leaves_beside_a_take_is_none(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.mp4", "a.wav", "._a.mp4", "._a.wav")))

    assert [take.name for take in find_takes([tmp_path])] == ["a"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_takes_are_listed_by_a_manifest(tmp_path: Path, mark: str) -> None:
    lines = [{"video": "x.mp4", "audio": "y.wav"}, {"video": "z.mp4"}]
    (tmp_path / "m.jsonl").write_text(mark + "\n".join(map(json.dumps, lines)))

    takes = find_takes([tmp_path / "m.jsonl"])

    assert [t.audio for t in takes] == [tmp_path / "y.wav", tmp_path / "z.mp4"]


def test_takes_that_cannot_be_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    touch(tmp_path / "a.mp4", tmp_path / "a.wav", tmp_path / "a.flac", tmp_path / "other" / "b.mp4")
    touch(tmp_path / "b.mp4")
    (tmp_path / "bad.jsonl").write_text('{"audio": "x.wav"}')
    os.mkfifo(tmp_path / "pipe.jsonl")
    for places, words in (
        ([tmp_path / "a.mp4"], "2 tracks of its name"),
        ([tmp_path / "empty"], "holds no videos"),
        ([tmp_path / "b.mp4", tmp_path / "other"], "Two takes are called b"),
        ([tmp_path / "bad.jsonl"], r"Line 1 of .*bad\.jsonl"),
        ([tmp_path / "c.mp4", tmp_path / "other" / "C.mov"], "Two takes are called c"),
        ([tmp_path / "none.jsonl"], "does not exist"),
        ([tmp_path / "pipe.jsonl"], "is not a file"),
    ):
        with pytest.raises(InputError, match=words):
            find_takes(places)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"video": "a\\u0000b"}', "Line 1 of"),
        ('{"video": "\\ud800.mp4"}', "Line 1 of"),
        ("[" * 100_000, "Line 1 of"),
        (None, "File name too long"),
    ],
)
def test_what_no_file_can_be_called_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str | None, words: str
) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(line or "")
    place = manifest if line else tmp_path / (300 * "x")

    assert main([str(place), "--output-dir", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert words in told


def test_a_folder_that_is_closed_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", closed)  # nothing is closed to root

    assert main([str(tmp_path), "--output-dir", str(tmp_path)]) == 2
    assert f"{tmp_path} cannot be read: Permission denied." in capsys.readouterr().err


@pytest.fixture(scope="module")
def day(take: TakeFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day's folder: the example twice, and a take that is broken."""
    folder = tmp_path_factory.mktemp("day")
    for name in ("one", "two"):
        shutil.copyfile(take.video, folder / f"{name}.mp4")
        shutil.copyfile(take.audio, folder / f"{name}.wav")
    shutil.copyfile(take.video, folder / "bad.mp4")
    (folder / "bad.wav").write_text("no sound")
    return folder


def test_a_day_is_solved_and_corrected(
    take: TakeFiles, day: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([str(day), "--output-dir", str(tmp_path)])

    told = capsys.readouterr()
    table = json.loads((tmp_path / "rig.json").read_text())
    rows = {row["take"]: row for row in table["takes"]}
    assert status == 2
    assert "bad: " in told.err
    assert "2 takes together say" in told.out
    assert abs(math.remainder(table["rig"]["rotate_field_ccw_deg"] + take.rotated_deg, 360)) <= 10
    assert rows["one"]["agrees"]
    assert rows["one"]["applied_deg"] == table["rig"]["rotate_field_ccw_deg"]
    assert (tmp_path / "one_aligned.wav").read_bytes() == (
        tmp_path / "two_aligned.wav"
    ).read_bytes()
    assert not (tmp_path / "bad_aligned.wav").exists()
    with (tmp_path / "rig.csv").open() as file:
        assert [row["take"] for row in csv.DictReader(file)] == ["bad", "one", "two"]


def test_a_stopped_day_is_taken_up_again(
    day: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    first, (one,) = run([day / "one.mp4"], tmp_path, quiet=True)
    assert main([str(day / "one.mp4"), "--output-dir", str(tmp_path)]) == 0
    assert f": 1 take says rotate_field_ccw_deg {first.rotate_field_ccw_deg:+.1f}° " in (
        capsys.readouterr().out
    )
    written = (tmp_path / "one_aligned.wav").stat()
    judged: list[Path] = []

    def counted(take: Take, *args: Any, **kwargs: Any) -> Any:
        judged.append(take.video.path)
        return judge_take(take, *args, **kwargs)

    monkeypatch.setattr("model.rig.judge_take", counted)
    again, _ = run([day / "one.mp4"], tmp_path, quiet=True)

    assert judged == []
    assert (tmp_path / "one_aligned.wav").stat().st_mtime_ns == written.st_mtime_ns
    assert again.rotate_field_ccw_deg == first.rotate_field_ccw_deg
    run([day / "two.mp4"], tmp_path, quiet=True)
    assert judged == [day / "two.mp4"]
    table = json.loads((tmp_path / "rig.json").read_text())
    assert table["rig"]["takes"] == ["two"]
    assert [row["take"] for row in table["takes"]] == ["two", "one"]
    assert read_table(tmp_path)["one"] == one
    assert "one" in (tmp_path / "rig.csv").read_text()
    run([day / "one.mp4", day / "two.mp4"], tmp_path, quiet=True)
    assert judged == [day / "two.mp4"]


@pytest.mark.parametrize("changed", [None, "error", "track", "weights", "tolerance"])
def test_a_take_is_judged_again_if_anything_it_was_judged_by_has_changed(
    tmp_path: Path, changed: str | None
) -> None:
    touch(tmp_path / "t.mp4", tmp_path / "t.wav")
    (take,) = find_takes([tmp_path])
    known = Row(
        "t", "v", "a", "aligned", 1.0, posterior=[1.0], error="x" if changed == "error" else None,
        judged_from=[*take.fingerprint(), "sha", 10.0],
    )  # fmt: skip
    if changed == "track":
        take.audio.write_text("another")

    row = judge_row(
        take, replace(CALIBRATION, sha256="new" if changed == "weights" else "sha"), {"t": known},
        tolerance_deg=5.0 if changed == "tolerance" else 10.0, scorers=[],
    )  # fmt: skip

    assert (row.verdict is None) is (changed is not None)  # such files cannot be judged
    assert changed or row == replace(known, video=str(take.video), audio=str(take.audio))


def test_what_is_told_of_a_day_obeys_no_name_and_has_no_sign_of_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    solution = solved(bump(-0.04).exp())
    row = Row("a\nb\x1b[2J", "v", "a", "aligned", -0.04, [-5.0, 5.0], posterior=[1.0], agrees=False)

    _tell(solution, [row], tmp_path / "c\nd")

    told = capsys.readouterr().out
    assert told.count("\n") == 3
    assert r"  a\nb\x1b[2J disagrees: by itself it says +0.0° (-5.0° to +5.0°)" in told
    assert "rotate_field_ccw_deg +0.0° (90 % interval" in told


def test_of_the_tables_neither_is_newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is full after the first."""
    write_table(tmp_path, [Row("before", "v", "a")], None)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    written = Path.write_text

    def full(path: Path, *given: Any, **more: Any) -> int:
        if "rig.csv" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, *given, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskFull):
        write_table(tmp_path, [Row("after", "v", "a")], None)

    assert before.keys() == {"rig.json", "rig.csv"}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_runs_into_one_folder_at_once_keep_each_others_rows(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_table(tmp_path, [Row(name, "v", "a")], None)

    assert read_table(tmp_path).keys() == {"one", "two"}


@pytest.mark.parametrize("name", ["rig.csv", "rig.json"])
def test_somebodys_own_table_stays(take: TakeFiles, tmp_path: Path, name: str) -> None:
    text = {"rig.csv": "camera,microphone\n", "rig.json": '{"camera": "left"}'}[name]
    (tmp_path / name).write_text(text)

    with pytest.raises(OptionError, match=rf"{name} is there already, and not of the kind"):
        run([take.video], tmp_path, quiet=True)

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, text)]


def test_no_original_of_the_run_is_overwritten(take: TakeFiles, tmp_path: Path) -> None:
    """One take's corrected file would have the name of another take's track."""
    for name in ("t", "t_aligned"):
        shutil.copyfile(take.video, tmp_path / f"{name}.mp4")
        shutil.copyfile(take.audio, tmp_path / f"{name}.wav")

    _, (first, second) = run([tmp_path], tmp_path, quiet=True)

    assert first.error is not None
    assert "t_aligned.wav is an input" in first.error
    assert (tmp_path / "t_aligned.wav").read_bytes() == take.audio.read_bytes()
    assert second.output == str(tmp_path / "t_aligned_aligned.wav")


@pytest.mark.parametrize("tolerance", ["-5", "nan", "180"])
def test_a_tolerance_that_is_none(
    tolerance: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--output-dir", str(tmp_path), "--tolerance-deg", tolerance]) == 2
    assert "The tolerance is" in capsys.readouterr().err


def test_a_day_of_which_nothing_can_be_judged(day: Path, tmp_path: Path) -> None:
    with pytest.raises(UnusableContent, match=r"bad\.wav cannot be read"):
        run([day / "bad.mp4"], tmp_path, quiet=True)

    assert json.loads((tmp_path / "rig.json").read_text())["takes"][0]["error"]
