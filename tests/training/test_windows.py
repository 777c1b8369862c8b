"""Kept windows: what the command is asked for is what is drawn."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from training import calibrate, fit_detections, pretrain
from training.data.scenes import Conditions, draw_scene
from training.data.windows import load_window, main, mixed_windows, render_window, save_window
from training.evaluate.__main__ import main as evaluate

ASKED = Conditions(duration_s=2.0, plain=True, n_sources=2, n_distractors=3, envelope="sustained")


def test_the_command_keeps_the_scenes_it_is_asked_for(tmp_path: Path) -> None:
    argv = ["--count", "1", "--seed", "7", "--duration-s", "2", "--plain"]

    argv += ["--sources", "2", "--silent-bodies", "3", "--envelope", "sustained"]
    code = main([str(tmp_path), *argv])

    kept = load_window(tmp_path / "plain-0000007.safetensors")
    expected = render_window(draw_scene(7, ASKED))
    assert code == 0
    torch.testing.assert_close(kept.covariance, expected.covariance, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(kept.motion.maps, expected.motion.maps, rtol=2e-3, atol=2e-3)


def test_a_kind_of_envelope_that_cannot_be_drawn_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--envelope", "recorded"])

    assert "recorded" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--panoramas", "--sounds", "--rooms"])
def test_materials_that_are_none_end_with_a_sentence(
    tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"

    assert main([str(tmp_path / "kept"), flag, str(empty)]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert f"{empty} holds no" in line


def test_a_folder_without_windows_is_no_folder_of_windows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, empty, or with too few of them, by every command that measures on one."""
    few = tmp_path / "few"
    few.mkdir()
    (few / "scene-0.safetensors").touch()
    for folder, words in ((tmp_path / "none", "none holds no windows"), (few, "windows")):
        kept = str(folder)
        assert evaluate(["rig", "--windows", kept]) == 2
        assert calibrate.main(["--windows", kept, "--long", kept]) == 2
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 2
        assert all(words in line for line in told)
    missing = str(tmp_path / "none")
    assert evaluate(["lag", "--windows", missing]) == 2
    assert fit_detections.main([missing]) == 2
    assert capsys.readouterr().err.count("holds no windows") == 2


def test_windows_of_other_scenes_are_not_taken_for_what_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second command into one folder: what a name says is not all that was asked for."""
    argv = [str(tmp_path), "--count", "1", "--duration-s", "2", "--plain"]
    assert main([*argv, "--sources", "1"]) == 0
    kept = tmp_path / "plain-0000000.safetensors"
    before = kept.read_bytes()
    assert main([*argv, "--sources", "1"]) == 0
    capsys.readouterr()

    assert main([*argv, "--sources", "2"]) == 2

    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{kept} is there already and of other scenes (n_sources 1, not 2)" in line
    assert kept.read_bytes() == before
    # A window that does not say what it was made of counts as what it is called.
    save_window(kept, load_window(kept))
    assert main([*argv, "--sources", "2"]) == 0


def test_windows_of_an_older_engine_are_not_taken_for_todays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A seed's scene is another one, or heard otherwise: a suite of both would measure neither."""
    argv = [str(tmp_path), "--count", "1", "--duration-s", "2", "--plain"]
    assert main(argv) == 0
    kept = tmp_path / "plain-0000000.safetensors"
    older = {name: asked for name, asked in asked_of(kept).items() if name != "engine"}
    save_window(kept, load_window(kept), older)
    capsys.readouterr()

    assert main(argv) == 2

    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{kept} is there already and of other scenes (engine 1, not 2)" in line


def asked_of(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        asked: dict[str, Any] = json.loads(file.metadata()["asked for"])
    return asked


def test_a_damaged_window_ends_with_a_sentence_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy that broke off: read as training material, held out, or measured on."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main([str(whole), "--count", "1", "--duration-s", "2.5", "--plain"]) == 0
    own, damaged = (folder / "plain-0000000.safetensors" for folder in (whole, broken))
    window = load_window(own)
    broken.mkdir()
    save_window(damaged, replace(window, covariance=2 * window.covariance))
    data = damaged.read_bytes()
    for index in range(1, 8):
        for path in (own, damaged):
            shutil.copy(path, path.with_stem(f"plain-{index:07d}"))
    capsys.readouterr()

    run = ["--preset", "cpu-smoke", "--steps", "1", "--output", str(tmp_path / "run")]
    asked: tuple[Callable[[], int], ...] = (
        lambda: pretrain.main([*run, "--windows", str(broken)]),
        lambda: pretrain.main([*run, "--windows", str(whole), "--validation", str(broken)]),
        lambda: evaluate(["lag", "--windows", str(broken)]),
    )
    for share, ask in itertools.product((0.0, 0.001, 0.9), asked):
        damaged.write_bytes(data[: int(share * len(data))])
        assert ask() == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"{damaged} is no kept window, or a damaged one" in line


def test_windows_of_all_folders_are_mixed(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        for index in range(20):
            (folder / f"scene-{index}.safetensors").touch()

    mixed = mixed_windows(folders)

    assert sorted(mixed) == sorted(path for folder in folders for path in folder.iterdir())
    assert mixed == mixed_windows(folders)
    for half in (mixed[:20], mixed[20:]):
        assert 5 < sum(path.parent == folders[0] for path in half) < 15
