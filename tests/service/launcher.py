"""Starts processes of the service by forking one that has done the imports.

A start then costs a tenth, which is what hundreds of them in a row are made of. Apart from that the
processes are the real ones: their own session, environment and log, killed like any other.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn


class Forked:
    """A process of a launcher, with what tests use of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        """None while it runs; its status is not known after."""
        process = Path(f"/proc/{self.pid}")
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            # Its first thread may have ended before others that hold files open.
            return 0 if state == "Z" and len(list((process / "task").iterdir())) < 2 else None
        except OSError:
            return 0

    def wait(self, timeout: float = 60) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("forked", timeout)
            time.sleep(0.005)
        return 0

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Launcher:
    """The process that forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.service.launcher"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, arguments: list[str], environment: dict[str, str], log: Path) -> Forked:
        """Run `python -m service ARGUMENTS`; what it prints goes into its log."""
        return self._fork(arguments, environment, [str(log)] * 2)

    def run(
        self, arguments: Sequence[str], environment: dict[str, str], timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m service ARGUMENTS` to its end."""
        with TemporaryDirectory() as folder:
            out, err, status = (Path(folder) / name for name in ("out", "err", "status"))
            self._fork([*arguments], environment, [str(out), str(err)], str(status)).wait(timeout)
            return subprocess.CompletedProcess(
                arguments, int(status.read_text()), out.read_text(), err.read_text()
            )

    def _fork(
        self,
        arguments: list[str],
        environment: dict[str, str],
        outputs: list[str],
        status: str | None = None,
    ) -> Forked:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "arguments": arguments, "environment": environment, "outputs": outputs,
            "status": status,
        }  # fmt: skip
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Forked(int(self._process.stdout.readline()))

    def stop(self) -> None:
        """What it has started runs on."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@cache
def launcher() -> Launcher:
    """The one of this process."""
    made = Launcher()
    atexit.register(made.stop)
    return made


def main() -> int:
    """Fork as told on standard input, and answer each with the process id."""
    import uvicorn.protocols.http.h11_impl  # noqa: F401 - all imported before the first fork

    import service.__main__

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _be_told(json.loads(line), service.__main__.main)
        print(pid, flush=True)
    return 0


def _be_told(order: dict[str, Any], command: Callable[[list[str]], int]) -> NoReturn:
    """The child's whole life."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.environ.clear()
    os.environ.update(order["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(order["outputs"], 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), number)
    sys.argv = ["service", *order["arguments"]]
    status = 1
    try:
        status = command(order["arguments"])
    except SystemExit as end:  # of argparse
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    if order["status"]:
        Path(order["status"]).write_text(str(status))
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
