"""Workers end with their command, however it ends, and leave nothing half written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from model.interruption import Interrupted
from training.processes import Processes

COMMAND = """
import sys, time
from pathlib import Path
from model.interruption import command
from model.output import whole_file
from training import processes

processes._CLEANED_UP_S = 1.0

def work(path):
    with whole_file(path) as part:
        part.write_text("half")
        time.sleep(60)

def main():
    with processes.Processes(2) as pool:
        list(pool.map(work, [Path(sys.argv[1]) / str(number) for number in range(8)]))
    return 0

sys.exit(command(main))
"""


@pytest.mark.parametrize(
    ("number", "whole_group", "status"),
    [
        (signal.SIGTERM, False, 128 + signal.SIGTERM),
        (signal.SIGINT, True, 128 + signal.SIGINT),
        (signal.SIGKILL, False, -signal.SIGKILL),
    ],
)
def test_a_command_that_is_stopped_leaves_no_worker_and_no_half_of_a_file(
    tmp_path: Path, number: signal.Signals, whole_group: bool, status: int
) -> None:
    arguments = [sys.executable, "-c", COMMAND, str(tmp_path)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, start_new_session=True) as command:
        wait_for(lambda: len(list(tmp_path.glob(".*.part"))) == 2)
        (os.killpg if whole_group else os.kill)(command.pid, number)
        told = command.communicate(timeout=20)[1].decode()  # ends when no worker holds the pipe

    assert command.returncode == status
    assert not list(tmp_path.iterdir())
    if number is not signal.SIGKILL:
        assert told == f"stopped by {number.name}; nothing is left half done\n"


def wait_for(condition) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_block_that_fails_does_not_wait_for_its_work() -> None:
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError), Processes(1) as pool:  # noqa: PT012
        under_way, ahead = (pool.submit(time.sleep, 60) for _ in range(2))
        wait_for(under_way.running)
        raise ZeroDivisionError

    assert time.monotonic() - began < 20
    for future in (under_way, ahead):
        assert isinstance(outcome(future), Interrupted | CancelledError)


def outcome(future) -> BaseException | None:  # type: ignore[no-untyped-def]
    try:
        return future.exception()  # type: ignore[no-any-return]
    except CancelledError as error:
        return error
