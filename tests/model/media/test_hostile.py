"""Nothing in a file gets out of the process that opens it, and nothing brings that one down."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.errors import InputError, MediaError
from model.media import VideoReader, open_audio
from model.media.encode import write_video
from model.media.probe import Limits, Probe
from tests.model.media.hostile import CRAFTED, Bait, Kind, bait, campaign, make_bomb, small_picture
from tests.model.media.inotify import Watch


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bait]:
    with bait(tmp_path_factory.mktemp("bait")) as made:
        yield made


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    with Probe(Limits(memory_bytes=2 << 30)) as started:
        yield started


def open_it(path: Path, kind: Kind) -> None:
    """As an alignment would, without a cage."""
    if kind == "video":
        with VideoReader(path) as picture:
            picture.read_frame(0, size=(16, 32))
    else:
        with open_audio(path) as track:
            track.read(0, 100)


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_reach_nothing(target: Bait, probe: Probe, tmp_path: Path, name: str) -> None:
    make, kind = CRAFTED[name]
    path = make(target, target.folder)
    pid = probe.pid

    with Watch(target.sibling) as watch:
        for attempt in (lambda: open_it(path, kind), lambda: probe.check(path, kind)):
            with contextlib.suppress(InputError):
                attempt()
        assert watch.count() == 0
    assert target.requests == []
    assert pid is None or probe.pid == pid


def test_the_bait_would_tell(target: Bait) -> None:
    """With FFmpeg's own settings the same files do reach out: the tests above can fail."""
    import av

    make, _ = CRAFTED["ffconcat that names a sibling"]
    with Watch(target.sibling) as watch, av.open(str(make(target, target.folder))):
        assert watch.count() > 0
    make, _ = CRAFTED["playlist with a key"]
    with make(target, target.folder).open("rb") as file, pytest.raises(av.FFmpegError):
        av.open(file).close()
    assert target.requests.pop() == "/bait.mp4"
    target.requests.clear()


@pytest.mark.parametrize("name", ["http:", "concat:a|b", "file:x", "-i", "%03d", "subfile,,:"])
def test_names_are_never_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = Path(f"{name}.mp4")
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "v.mp4", small_picture(), rate_hz=10)
    (tmp_path / "v.mp4").rename(tmp_path / path)

    open_it(path, "video")
    with pytest.raises(MediaError, match="does not exist"):
        open_it(Path(f"http://127.0.0.1/{name}"), "video")


def test_what_is_no_file_is_not_waited_for(probe: Probe, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path, Path("/dev/zero")):
        with pytest.raises(MediaError, match="is not a file"):
            probe.check(path, "audio")


def test_a_bomb_is_refused_within_the_memory_it_may_take(target: Bait, tmp_path: Path) -> None:
    path = make_bomb(target, tmp_path)
    assert path.stat().st_size < 1_000_000
    with Probe(Limits(memory_bytes=500 << 20)) as strict:
        with pytest.raises(MediaError):
            strict.check(path, "video")
        write_video(tmp_path / "v.mp4", small_picture(), rate_hz=10)
        strict.check(tmp_path / "v.mp4", "video")


def test_a_file_that_takes_too_long_is_told(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", small_picture(), rate_hz=10)
    with (
        Probe(Limits(wall_s=0.0)) as hasty,
        pytest.raises(MediaError, match=r"takes more than .* s to open"),
    ):
        hasty.check(tmp_path / "v.mp4", "video")


def test_a_damaged_file_costs_one_child(probe: Probe, tmp_path: Path) -> None:
    counts = campaign(tmp_path, 150, 1, print)

    assert counts["answered"] + counts["refused"] == 150, counts
    assert counts["answered"] > 5
    assert counts["refused"] > 5
    assert counts["requests"] == counts["foreign reads"] == 0


CAGED = """
import os, socket, subprocess, sys
from pathlib import Path
from model.media.sandbox import confine
allowed, secret = Path(sys.argv[1]), Path(sys.argv[2])
layers = confine([allowed], memory_bytes=2 << 30, cpu_s=20)
assert allowed.read_bytes() == b"allowed"
def refused(what):
    try:
        what()
    except OSError:
        return True
    return False
tries = {
    "read": lambda: secret.read_bytes(),
    "passwd": lambda: Path("/etc/passwd").read_bytes(),
    "list": lambda: os.listdir(secret.parent),
    "write": lambda: (secret.parent / "new").write_bytes(b"x"),
    "overwrite": lambda: allowed.write_bytes(b"x"),
    "tcp": lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3]))),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "exec": lambda: os.execv("/bin/true", ["true"]),
}
print(",".join(sorted(layers)), ",".join(name for name, what in tries.items() if not refused(what)))
"""


@pytest.mark.needs("landlock")
def test_the_cage_holds(target: Bait, tmp_path: Path) -> None:
    allowed, secret = tmp_path / "a", tmp_path / "sub" / "secret"
    secret.parent.mkdir()
    allowed.write_bytes(b"allowed")
    secret.write_bytes(b"secret")
    result = subprocess.run(
        [sys.executable, "-c", CAGED, allowed, secret, str(target.port)],
        capture_output=True, text=True,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    layers, _, escaped = result.stdout.rstrip("\n").partition(" ")
    assert layers == "landlock,limits,seccomp"
    assert escaped == ""
    assert not (secret.parent / "new").exists()


def test_a_probe_that_was_killed_is_started_again(probe: Probe, target: Bait) -> None:
    layers = probe.check(target.sibling, "video")
    assert "limits" in layers
    assert probe.pid is not None
    os.kill(probe.pid, 9)
    assert probe.check(target.sibling, "video") == layers
