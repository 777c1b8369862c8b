"""Files of strangers are opened for the first time in a cage: `python -m model.media.probe`.

The probe reads requests from standard input, one JSON object a line. For each it forks a child that
can read nothing but that one file (`sandbox`), opens it as an alignment would, decodes its
beginning, and says what it found. A file that brings the decoder down, or asks for too much memory
or time, ends that child and nothing else.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

# Imported late by av, where the cage would refuse it.
import av.subtitles.codeccontext
import av.subtitles.stream  # noqa: F401

from model import errors
from model.media.audio import open_audio
from model.media.sandbox import confine
from model.media.video import Stereo, VideoReader

Kind = Literal["video", "audio"]
# So much of a track is decoded, samples per channel.
_SAMPLES = 4096
_ERRORS = {
    kind.code: kind for kind in (errors.MediaError, errors.UnsupportedMedia, errors.UnusableContent)
}


@dataclass(frozen=True)
class Limits:
    """What a file may take to open.

    Attributes
    ----------
    memory_bytes : of address space. The largest pictures that are read need about 2 GB.
    """

    memory_bytes: int = 4 << 30
    cpu_s: int = 30
    wall_s: float = 60.0


class Probe:
    """The parent's side. Started when first used; not for several threads at a time."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the process that forks the children, while it runs."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            with suppress(OSError), self._process:  # which closes its pipes and waits for it
                self._process.kill()
            self._process = None

    def check(self, path: Path, kind: Kind, *, stereo: Stereo | None = None) -> set[str]:
        """Open a file in the cage; returns the layers of the cage that were in force.

        Raises
        ------
        MediaError, UnsupportedMedia : as opening it would; or it brings the decoder down, or takes
            more memory or time than the limits.
        """
        request = {"path": str(path), "kind": kind, "stereo": stereo}
        # Should the process be gone that forks the children, a new one is asked, once.
        answer = self._ask(request) or self._ask(request)
        if answer is None:
            raise errors.MediaError(f"{path} cannot be looked into: the probe dies of it.")
        if "code" in answer:
            raise _ERRORS.get(answer["code"], errors.MediaError)(answer["detail"])
        return set(answer["layers"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a request; None if the process died of it, or had died before."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "model.media.probe", json.dumps(asdict(self._limits))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # The children of a process with threads are fragile.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        if not line:
            self.close()
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer


def examine(path: Path, kind: Kind, stereo: Stereo | None) -> None:
    """Open a file as an alignment would and decode its beginning.

    Raises
    ------
    MediaError, UnsupportedMedia : what is wrong with it.
    """
    if kind == "video":
        with VideoReader(path, stereo=stereo, threads=1) as picture:
            picture.read_frame(0.0, size=(32, 64))
    else:
        with open_audio(path) as track:
            track.read(0, min(_SAMPLES, max(1, track.info.n_samples)))


def main(arguments: list[str]) -> int:
    """Answer requests until the input ends."""
    limits = Limits(**json.loads(arguments[0])) if arguments else Limits()
    # What libraries print must not get between our lines.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        lines.write(json.dumps(_in_child(json.loads(line), limits)) + "\n")
    return 0


def _in_child(request: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Fork, examine there, and say how it went."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 1
        try:
            os.write(writing, json.dumps(_caged(request, limits)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    try:
        answer = _read_all(reading, limits.wall_s)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    if answer:
        return cast(dict[str, Any], json.loads(answer))
    path = request["path"]
    detail = f"{path} brings the decoder down: it is damaged, or made to do harm."
    out_of_time = usage.ru_utime + usage.ru_stime >= limits.cpu_s
    if answer is None or out_of_time:
        detail = f"{path} takes more than {limits.cpu_s} s to open: it is damaged, or made to harm."
    return {"code": errors.MediaError.code, "detail": detail, "status": status}


def _read_all(reading: int, wall_s: float) -> bytes | None:
    """What comes through a pipe until it is closed; None if that takes too long."""
    data, deadline = b"", time.monotonic() + wall_s
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        chunk = os.read(reading, 1 << 16)
        if not chunk:
            return data
        data += chunk


def _caged(request: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Examine a file after giving up everything else."""
    path = Path(request["path"])
    try:
        layers = confine(
            [path] if path.is_file() else [], memory_bytes=limits.memory_bytes, cpu_s=limits.cpu_s
        )
        examine(path, request["kind"], request["stereo"])
    except errors.AvsaError as error:
        return {"code": error.code, "detail": str(error)}
    except MemoryError:
        detail = (
            f"{path} takes more than {limits.memory_bytes >> 20} MB to open: it is damaged, or "
            "made to do harm."
        )
        return {"code": errors.MediaError.code, "detail": detail}
    except Exception as error:
        # Decoders raise much on bad files: IndexError, UnicodeDecodeError, AttributeError, ...
        detail = f"{path} cannot be read ({type(error).__name__}): it is damaged."
        return {"code": errors.MediaError.code, "detail": detail}
    return {"layers": sorted(layers)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
