"""Results appear whole or not at all, wherever the work is interrupted."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from model.errors import OutputError
from model.interruption import Interrupted
from model.output import Together, whole_file


def test_a_signal_that_comes_as_a_file_begins_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, touch = [], Path.touch

    def stopped(path: Path, *arguments: Any, **options: Any) -> None:
        touch(path, *arguments, **options)
        made.append(path.exists())
        raise Interrupted(15)

    monkeypatch.setattr(Path, "touch", stopped)
    with pytest.raises(Interrupted), whole_file(tmp_path / "result"):
        pass

    assert made == [True]
    assert not list(tmp_path.iterdir())


def test_files_appear_together_or_none_does(tmp_path: Path) -> None:
    old = tmp_path / "a"
    old.write_text("old")

    def write(last: str) -> None:
        with Together() as all_:
            for name in ("a", last):
                with all_.file(tmp_path / name) as part:
                    part.write_text("new")
            assert old.read_text() == "old"

    with pytest.raises(OutputError, match="nowhere"):
        write("nowhere/b")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]

    def lose() -> None:
        with Together() as all_:
            for name in ("a", "lost/b"):
                with all_.file(tmp_path / name):
                    pass
            shutil.rmtree(tmp_path / "lost")

    (tmp_path / "lost").mkdir()
    with pytest.raises(OutputError, match="lost/b cannot be written"):
        lose()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]

    write("b")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}
