"""How a command ends: by a fault of ours, by a signal, by what it prints to."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile

from model.interruption import Interrupted, command, interruptible
from training.data.takes import TakeFiles

# --- a fault of ours ------------------------------------------------------------------------------


def broken() -> int:
    raise ValueError("of\nours")


def test_a_fault_of_ours_is_one_line_and_more_for_those_who_ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", "take.wav"])
    assert command(broken, in_a_line=True) == 1
    assert capsys.readouterr().err == (
        "internal error: ValueError: of\\nours (--debug shows more)\n"
    )

    monkeypatch.setattr(sys, "argv", ["command", "take.wav", "--debug"])
    assert command(broken, in_a_line=True) == 1
    assert "in broken" in capsys.readouterr().err


def test_a_training_shows_where_it_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(broken) == 1
    assert "in broken" in capsys.readouterr().err


def test_a_fault_without_words_is_told_by_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    def starved() -> int:
        raise MemoryError

    assert command(starved, in_a_line=True) == 1
    assert "internal error: MemoryError" in capsys.readouterr().err


def test_streams_may_be_closed_and_no_file_takes_their_place(tmp_path: Path) -> None:
    """As by `2>&-`: what libraries print there would otherwise land in a result."""
    told = (
        "import os, sys; from model.interruption import command\n"
        "def main():\n"
        "    with open('o.wav', 'w') as result:\n"
        "        os.write(2, b'a library warns'); print('done', sys.stderr.isatty())\n"
        "        return result.fileno()\n"
        "sys.exit(command(main))"
    )

    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, told], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip

    assert done.returncode >= 3
    assert (tmp_path / "o.wav").read_bytes() == b""


COMMANDS = {
    "model.align": ["v.mp4", "a.wav"], "model.conventions": ["a.wav"],
    "model.reference": ["a.wav", "b.wav"], "model.rig": ["a.mp4", "--output-dir", "x"],
    "model.sync": ["v.mp4", "a.wav"],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_of_the_library_ends_so(
    module: str,
    debug: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parse = ArgumentParser.parse_args

    def parse_and_break(self: ArgumentParser, *arguments: Any) -> None:
        parse(self, *arguments)
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(ArgumentParser, "parse_args", parse_and_break)
    monkeypatch.setattr(sys, "argv", [module, *COMMANDS[module], *debug])

    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")

    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert ("in parse_and_break" in told) == bool(debug)
    assert debug or told == "internal error: ZeroDivisionError: of ours (--debug shows more)\n"


# --- told to stop ---------------------------------------------------------------------------------


@contextmanager
def heeded(number: signal.Signals) -> Iterator[None]:
    """What is begun inside heeds a signal, though tests may run where it is ignored (nohup, &)."""
    before = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.fixture(scope="module")
def long(take: TakeFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A track that takes a while to write."""
    path = tmp_path_factory.mktemp("long") / "long.wav"
    sound = soundfile.read(take.audio)[0]
    with soundfile.SoundFile(path, "w", 48_000, 4, subtype="PCM_24") as file:
        for _ in range(200):
            file.write(sound)
    yield path
    path.unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_told_to_stop_leaves_nothing(
    take: TakeFiles, long: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """While a file is being written."""
    results = tmp_path / "results"
    results.mkdir()
    arguments: list[Path | str] = [
        take.video, long, "--windows", "1", "--method", "evidence", "--apply-deg", "30",
        "--output-dir", results,
    ]  # fmt: skip
    with heeded(number):
        at_work = subprocess.Popen(
            [sys.executable, "-m", "model.align", *arguments], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    while at_work.poll() is None and not list(results.iterdir()):
        time.sleep(0.01)

    time.sleep(0.1)
    at_work.send_signal(number)

    assert at_work.communicate() == ("", f"stopped by {number.name}; nothing is left half done\n")
    assert at_work.returncode == 128 + number
    assert not list(results.iterdir())


@pytest.mark.parametrize(
    "name",
    ["model.align", "model.rig", "model.conventions", "training.pretrain", "training.evaluate"],
)
def test_who_stops_it_while_it_starts_sees_no_trace(name: str) -> None:
    """Its imports take seconds."""
    with heeded(signal.SIGINT):
        starting = subprocess.Popen(
            [sys.executable, "-v", "-m", name, "--help"], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert starting.stderr is not None
    while not starting.stderr.readline().startswith("import 'numpy"):
        assert starting.poll() is None

    starting.send_signal(signal.SIGINT)

    told = starting.communicate()[1]
    assert "stopped by SIGINT; nothing is left half done\n" in told
    assert "Traceback (most" not in told
    assert starting.returncode == 128 + signal.SIGINT


def test_a_reader_that_has_enough_is_no_fault(take: TakeFiles, tmp_path: Path) -> None:
    """As `head` is, in the middle of a report."""
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [sys.executable, "-m", "model.conventions", take.audio, "--json"], stdout=writing,
        stderr=subprocess.PIPE,
    )  # fmt: skip

    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 128 + signal.SIGPIPE


def test_a_disk_too_full_for_what_is_printed_is_told_in_a_sentence(take: TakeFiles) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "model.conventions", take.audio, "--json"], stdout=full,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    assert done.stderr == "error: output cannot be written: No space left on device.\n"
    assert done.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_is_heeded_and_left_as_it_was(number: signal.Signals) -> None:
    with heeded(number):
        with pytest.raises(Interrupted) as stopped, interruptible():
            os.kill(os.getpid(), number)
        assert stopped.value.number == number
        assert signal.getsignal(number) is signal.SIG_DFL


def test_what_is_ignored_stays_so() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
