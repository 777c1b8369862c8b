"""Reports: JSON by the letter, whole, and seen to be possible before the figures are made."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.training.test_loop import SCHEDULE, Ones, Slope
from training.distributed import Ranks
from training.evaluate import __main__ as command
from training.evaluate import yaw
from training.figures import as_json, write_report
from training.loop import run


def by_the_letter(text: str) -> object:
    """As readers do that know JSON alone, browsers and jq among them."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_has_no_value_is_null(tmp_path: Path) -> None:
    figures = {"takes": 2, "told": [0.5, math.nan], 1: {"error": (math.inf, None)}, "name": "nan"}
    expected = {"takes": 2, "told": [0.5, None], "1": {"error": [None, None]}, "name": "nan"}

    write_report(tmp_path / "r.json", figures)

    assert by_the_letter((tmp_path / "r.json").read_text()) == expected
    assert by_the_letter(as_json(figures)) == expected
    assert "\n" not in as_json(figures)


def test_a_run_logs_figures_without_a_value(tmp_path: Path) -> None:
    """As of foreign sound, where one window is held out."""

    class Alone(Slope):
        def validate(self) -> dict[str, float]:
            return {"foreign told": math.nan, "rotation": 1.5}

    run(Alone(SCHEDULE, Ranks(0, 1, torch.device("cpu"))), Ones(1.0, at_step=0), tmp_path)

    last = by_the_letter((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last == {"step": SCHEDULE.steps, "foreign told": None, "rotation": 1.5}


@pytest.mark.parametrize("flag", ["--report", "--plot"])
def test_what_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(yaw, "run", lambda *_args, **_more: pytest.fail("it has begun"))
    manifest, nowhere = tmp_path / "m.jsonl", tmp_path / "none" / "r.json"
    manifest.touch()

    for place, told in (
        (nowhere, f"{nowhere} cannot be written: No such file"),
        (tmp_path, f"{tmp_path} cannot be written: it is a folder"),
        (manifest, f"The output {manifest} is an input"),
    ):
        assert command.main(["yaw", "--manifest", str(manifest), flag, str(place)]) == 2
        assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [manifest]


@pytest.mark.parametrize("more", [[], ["--picture"], ["--picture", "--formats", "FOLDER"]])
def test_conventions_of_nothing_are_refused(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["conventions", *more]) == 2
    assert "Nothing is asked about: give --manifest" in capsys.readouterr().err


def test_a_suite_of_one_scene_has_no_foreign_sound(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["yaw", "--suite", "synthetic", "--cache", "C", "--scenes", "1"])
    assert ended.value.code == 2
    assert "1 is not a whole number from 2 up" in capsys.readouterr().err
