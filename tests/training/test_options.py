"""Commands that make material or train, used badly: one sentence, before any work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from model.checkpoint import scorer_path
from training import average, calibrate, fit_conventions, fit_handedness, pretrain
from training.data import (
    actions_synthetic,
    collage,
    footage,
    takes,
    windows,
    yt360,
    yt360_prepare,
    yt360_synthetic,
)
from training.data.windows import save_window
from training.evaluate.__main__ import main as evaluate

Main = Callable[[Sequence[str]], int]


@pytest.mark.parametrize(
    ("main", "words", "told"),
    [
        (windows.main, "OUT --count 0", "0 is not a whole number from 1 up"),
        (windows.main, "OUT --workers 0", "0 is not a whole number from 1 up"),
        (windows.main, "OUT --seed -1", "-1 is not a whole number from 0 up"),
        (windows.main, "OUT --sources 0", "0 is not a whole number from 1 up"),
        (windows.main, "OUT --silent-bodies -1", "-1 is not a whole number from 0 up"),
        (windows.main, "OUT --duration-s 0.05", "0.05 is not a duration from 0.5 s up"),
        (windows.main, "OUT --duration-s nan", "nan is not a duration from 0.5 s up"),
        (takes.main, "OUT --count 0", "0 is not a whole number from 1 up"),
        (takes.main, "OUT --height 161", "161 is odd"),
        (takes.main, "OUT --height 0", "0 is not a whole number from 16 up"),
        (takes.main, "OUT --duration-s ten", "ten is not a number"),
        (takes.main, "OUT --distractors -1", "-1 is not a whole number from 0 up"),
        (footage.main, "IN OUT --per-take 0", "0 is not a whole number from 1 up"),
        (collage.main, "IN OUT --duration-s inf", "inf is not a duration from 0.5 s up"),
        (collage.main, "IN OUT --workers 0", "0 is not a whole number from 1 up"),
        (yt360.main, "IN --workers 0", "0 is not a whole number from 1 up"),
        (yt360_prepare.main, "IN OUT --height 321", "321 is odd"),
        (yt360_synthetic.main, "OUT --recordings 0", "0 is not a whole number from 1 up"),
        (actions_synthetic.main, "ucf101 OUT --videos 0", "0 is not a whole number from 1 up"),
        (pretrain.main, "--windows IN --output OUT --batch 0", "0 is not a whole number from 1"),
        (pretrain.main, "--windows IN --output OUT --steps 0", "0 is not a whole number from 1"),
        (pretrain.main, "--windows IN --output OUT --workers -1", "-1 is not a whole number"),
        (pretrain.main, "--clips IN --output OUT --learning-rate nan", "nan is not a number above"),
        (evaluate, "yaw --manifest IN --windows 0", "0 is not a whole number from 1 up"),
        (evaluate, "sync --sounds IN --rooms IN --takes 0", "0 is not a whole number from 1 up"),
        (evaluate, "trajectory --workers 0", "0 is not a whole number from 1 up"),
        (evaluate, "variants --output OUT --budget 0", "0 is not a number above 0"),
        (pretrain.main, "--clips IN --output OUT --depth -1", "-1 is not a whole number from 1"),
        (calibrate.main, "--scenes 3", "3 is not a whole number from 4 up"),
        (calibrate.main, "--long-scenes 0", "0 is not a whole number from 4 up"),
        (calibrate.main, "--seed -1", "-1 is not a whole number from 0 up"),
        (calibrate.main, "--wrong nan", "nan is not a share above 0 and up to 1"),
        (calibrate.main, "--wrong-of-all -1", "-1 is not a share above 0 and up to 1"),
        (average.main, "IN IN --output OUT --shares nan nan", "nan is not a finite number"),
        (fit_conventions.main, "--count 0", "0 is not a whole number from 1 up"),
        (fit_handedness.main, "IN --count -3", "-3 is not a whole number from 6 up"),
        (evaluate, "sync --sounds IN --rooms IN --max-offset-s -3", "-3 is not a number from 0 up"),
        (evaluate, "sync --sounds IN --rooms IN --snr-db nan", "nan is not a finite number"),
        (evaluate, "reference --manifest IN --rooms IN --spacing-m -1", "-1 is not a number above"),
    ],
)
def test_numbers_without_sense_are_refused(
    tmp_path: Path, main: Main, words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"IN": str(tmp_path / "in"), "OUT": str(tmp_path / "out")}

    with pytest.raises(SystemExit) as ended:
        main([places.get(word, word) for word in words.split()])

    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (windows.main, "OUT --count 1"),
        (takes.main, "OUT"),
        (yt360_synthetic.main, "OUT"),
        (actions_synthetic.main, "ucf101 OUT"),
        (actions_synthetic.main, "hmdb51 OUT"),
    ],
)
def test_a_folder_that_cannot_be_made_is_told(
    tmp_path: Path, main: Main, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    below = str(tmp_path / "file" / "folder")

    assert main([below if word == "OUT" else word for word in words.split()]) == 2

    line = capsys.readouterr().err.splitlines()[-1]
    assert below in line
    assert "cannot be written: Not a directory" in line


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (calibrate.main, "--windows IN --long IN --output"),
        (calibrate.main, "--method avsa --checkpoint IN --output"),
        (average.main, "SCORER --windows IN --output"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, main: Main, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing at IN, which the work would tell."""
    places = {"IN": str(tmp_path / "in"), "SCORER": str(scorer_path())}
    output = tmp_path / "none" / "it"

    assert main([*(places.get(word, word) for word in words.split()), str(output)]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert f"{output} cannot be written: No such file or directory" in line


@pytest.mark.parametrize(
    ("main", "words", "told"),
    [
        (calibrate.main, "--windows IN --long IN --checkpoint IN", "--checkpoint is of --method"
         " avsa, not of fused: leave it away, or say which method"),
        (calibrate.main, "--method avsa --checkpoint IN --long IN", "--long is of --method fused"
         " and evidence, not of avsa"),
        (calibrate.main, "--method evidence --windows IN --long IN --scorer IN", "--scorer is of"
         " --method fused, not of evidence"),
        (calibrate.main, "--windows IN --long IN --long-scenes 9", "--long-scenes is of --method"
         " avsa, not of fused"),
        (evaluate, "yaw --suite synthetic --cache IN --plot P", "--plot is of the takes of a"),
        (evaluate, "sync --sounds IN --rooms IN", "IN holds one recording alone"),
    ],
)  # fmt: skip
def test_what_would_be_for_nothing_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    main: Main,
    words: str,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A calibration of something else than was meant, a picture that is never written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "IN").mkdir()
    (tmp_path / "IN" / "dog.wav").touch()

    assert main(words.split()) == 2

    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["IN"]


def test_a_manifest_that_cannot_be_written_is_told_before_takes_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And one that is a file of another kind stays."""
    manifest = tmp_path / "manifest.jsonl"
    manifest.mkdir()
    assert takes.main([str(tmp_path)]) == 2
    assert f"{manifest} cannot be written: it is a folder" in capsys.readouterr().err
    manifest.rmdir()
    manifest.write_text("notes")
    assert takes.main([str(tmp_path)]) == 2
    assert manifest.read_text() == "notes"
    assert [path.name for path in tmp_path.iterdir()] == [manifest.name]


def test_what_is_averaged_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(scorer_path().read_bytes())

    assert average.main([str(own), str(scorer_path()), "--output", str(own)]) == 2

    assert "originals are never overwritten" in capsys.readouterr().err
    assert own.read_bytes() == scorer_path().read_bytes()


def test_a_run_that_cannot_be_kept_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "windows"
    assert windows.main([str(kept), "--count", "1", "--duration-s", "2.5", "--plain"]) == 0
    window = windows.load_window(kept / "plain-0000000.safetensors")
    for index in range(1, 8):
        save_window(kept / f"plain-{index:07d}.safetensors", window)
    run = tmp_path / "run"
    train = ["--preset", "cpu-smoke", "--windows", str(kept), "--output", str(run)]
    capsys.readouterr()

    run.touch()
    assert pretrain.main(train) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{run} cannot be written: File exists" in line
