"""Files made to do harm, and a campaign of damaged ones through the probe:

python -m tests.model.media.hostile --mutants 10000
"""

from __future__ import annotations

import argparse
import http.server
import random
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import av
import numpy as np
import soundfile

from model.errors import InputError
from model.media.encode import write_video
from model.media.probe import Limits, Probe
from tests.model.media.inotify import Watch

Kind = Literal["video", "audio"]


@dataclass
class Bait:
    """What a file may not touch: a readable take in another folder, and a server that counts."""

    folder: Path
    port: int
    requests: list[str] = field(default_factory=list)

    @property
    def sibling(self) -> Path:
        return self.folder / "sibling.mp4"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/bait.mp4"


@contextmanager
def bait(folder: Path) -> Iterator[Bait]:
    """A take that FFmpeg could read, and a web server on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made = Bait(folder, server.server_address[1], requests)
    write_video(made.sibling, small_picture(), rate_hz=10)
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def small_picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (10, 32, 64, 1), np.uint8)


# --- crafted files -------------------------------------------------------------------------------

Maker = Callable[[Bait, Path], Path]


def _text(suffix: str, lines: Callable[[Bait], list[str]]) -> Maker:
    def make(bait: Bait, folder: Path) -> Path:
        path = folder / f"crafted{suffix}"
        path.write_text("\n".join(lines(bait)) + "\n")
        return path

    return make


def _playlist(bait: Bait) -> list[str]:
    return [
        "#EXTM3U", "#EXT-X-TARGETDURATION:10", f'#EXT-X-KEY:METHOD=AES-128,URI="{bait.url}"',
        "#EXTINF:10,", str(bait.sibling), "#EXT-X-ENDLIST",
    ]  # fmt: skip


def _session(bait: Bait) -> list[str]:
    return [
        "v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "c=IN IP4 127.0.0.1", "t=0 0",
        f"m=audio {bait.port} RTP/AVP 0", "a=rtpmap:0 PCMU/8000",
    ]  # fmt: skip


def _manifest(bait: Bait) -> list[str]:
    return [
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" ',
        'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-main:2011">',
        "<Period>",
        f'<AdaptationSet><Representation id="1" bandwidth="1"><BaseURL>{bait.url}</BaseURL>',
        "</Representation></AdaptationSet></Period></MPD>",
    ]


def _external_reference(bait: Bait, folder: Path) -> Path:
    """A QuickTime movie whose samples lie, so it says, in another file."""
    path = folder / "reference.mov"
    data = bait.sibling.read_bytes()
    # The data reference "url ", this file itself (flag 1), becomes one that names the sibling.
    at = data.index(b"dref")
    size = struct.unpack(">I", data[at + 12 - 0 : at + 16])[0]
    target = f"file://{bait.sibling}".encode() + b"\0"
    entry = struct.pack(">I4sI", 12 + len(target), b"url ", 0) + target
    patched = data[: at + 12] + entry + data[at + 12 + size :]
    grown = len(entry) - size
    out = bytearray(patched)
    for box in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        start = out.index(box) - 4
        (old,) = struct.unpack_from(">I", out, start)
        struct.pack_into(">I", out, start, old + grown)
    path.write_bytes(out)
    return path


def _pictures_in(codec: str, suffix: str) -> Maker:
    """A codec that is on no list, in a container that is."""

    def make(bait: Bait, folder: Path) -> Path:
        path = folder / f"{codec}{suffix}"
        with av.open(str(path), "w") as container:
            stream = cast(av.VideoStream, container.add_stream(codec, rate=10))
            stream.width, stream.height = 64, 32
            stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
            for _ in range(3):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 64, 3), np.uint8), "rgb24")
                container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode(None))
        return path

    return make


def _bomb(bait: Bait, folder: Path) -> Path:
    """A few KB that unfold to frames of 16384 x 8192 pixels."""
    path = folder / "bomb.mp4"
    options = {"preset": "ultrafast", "crf": "51", "x264-params": "ref=1:rc-lookahead=0:threads=1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 16384, 8192, "yuv420p"
        frame = av.VideoFrame(16384, 8192, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _wav(channels: int = 4, rate: int = 48_000, align: int = 8, size: int = 800) -> Maker:
    def make(bait: Bait, folder: Path) -> Path:
        path = folder / "header.wav"
        form = struct.pack("<HHIIHH", 1, channels, rate, rate * align & 0xFFFFFFFF, align, 16)
        chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size)
        path.write_bytes(
            b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks + bytes(800)
        )
        return path

    return make


def _long_chunks(bait: Bait, folder: Path) -> Path:
    """A WAV whose chunks nest and overlap without end."""
    path = folder / "chunks.wav"
    path.write_bytes(b"RIFF" + b"\xff" * 4 + b"WAVE" + (b"LIST" + b"\0" * 4) * 20_000)
    return path


# (file, kind): none may open the sibling, ask the server, or bring anything down.
CRAFTED: dict[str, tuple[Maker, Kind]] = {
    "ffconcat that names a sibling": (
        _text(".mp4", lambda b: ["ffconcat version 1.0", f"file {b.sibling.name}"]), "video"),
    "ffconcat with an absolute path": (
        _text(".mp4", lambda b: ["ffconcat version 1.0", f"file {b.sibling}"]), "video"),
    "ffconcat with an address": (
        _text(".mp4", lambda b: ["ffconcat version 1.0", f"file {b.url}"]), "video"),
    "playlist with a key": (_text(".m3u8", _playlist), "video"),
    "playlist as mp4": (_text(".mp4", _playlist), "video"),
    "playlist as wav": (_text(".wav", _playlist), "audio"),
    "session as mp4": (_text(".mp4", _session), "video"),
    "session as sdp": (_text(".sdp", _session), "audio"),
    "manifest as mp4": (_text(".mp4", _manifest), "video"),
    "manifest as mpd": (_text(".mpd", _manifest), "video"),
    "movie of another file's samples": (_external_reference, "video"),
    "PNG in a movie": (_pictures_in("png", ".mov"), "video"),
    "65535 channels": (_wav(channels=65535, align=65535), "audio"),
    "no rate": (_wav(rate=0), "audio"),
    "a rate of 2^32 - 1": (_wav(rate=2**32 - 1), "audio"),
    "no block align": (_wav(align=0), "audio"),
    "a size of 2^32 - 1": (_wav(size=2**32 - 1), "audio"),
    "endless chunks": (_long_chunks, "audio"),
}  # fmt: skip
make_bomb = _bomb


# --- damaged files -------------------------------------------------------------------------------


def seeds(folder: Path) -> list[tuple[Path, Kind]]:
    """Small good files of the kinds that are read."""
    folder.mkdir(parents=True, exist_ok=True)
    made: list[tuple[Path, Kind]] = []
    for name in ("picture.mp4", "picture.mkv", "picture.mov"):
        with av.open(str(folder / name), "w") as container:
            codec = "mpeg4" if name.endswith("mov") else "libx264"
            stream = cast(av.VideoStream, container.add_stream(codec, rate=10))
            stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
            for grey in small_picture()[..., 0]:
                frame = av.VideoFrame.from_ndarray(grey, "gray").reformat(format="yuv420p")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        made.append((folder / name, "video"))
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (2000, 4))
    for name, kind in (("t.wav", "PCM_24"), ("t.flac", "PCM_16"), ("t.aiff", "PCM_16"),
                       ("t.caf", "PCM_16"), ("t.w64", "PCM_16"), ("t.ogg", "VORBIS")):  # fmt: skip
        soundfile.write(folder / name, samples, 48_000, subtype=kind)
        made.append((folder / name, "audio"))
    return made


def mutate(data: bytes, random: random.Random) -> bytes:
    """Damage: bytes changed, fields blown up, pieces cut, doubled or moved."""
    out = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 4, 16, 64])):
        at, kind = random.randrange(max(1, len(out))), random.randrange(6)
        if kind == 0:
            out[at : at + 1] = bytes([random.randrange(256)])
        elif kind == 1:
            out[at : at + 4] = random.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80"])
        elif kind == 2:
            del out[at : at + random.randrange(1, 200)]
        elif kind == 3:
            out[at:at] = out[at : at + random.randrange(1, 200)]
        elif kind == 4:
            # Headers are where the harm is done.
            early = random.randrange(min(600, max(1, len(out))))
            out[early : early + 1] = bytes([random.randrange(256)])
        else:
            out[at : at + 8] = random.randbytes(8)
    return bytes(out)


def campaign(folder: Path, n_mutants: int, seed: int, tell: Callable[[str], None]) -> Counter[str]:
    """Probe damaged files; counts of what came out.

    "answered" and "refused" are as it should be; "brought down" killed a forked child; "lost" the
    process that forks them; "requests" and "foreign reads" are what reached the bait.
    """
    counts: Counter[str] = Counter({"brought down": 0, "lost": 0})
    generator = random.Random(seed)
    good = [(path.read_bytes(), path.suffix, kind) for path, kind in seeds(folder / "seeds")]
    limits = Limits(memory_bytes=2 << 30, cpu_s=10, wall_s=30)
    crafted = folder / "crafted"
    crafted.mkdir()
    with (
        bait(folder / "bait") as target,
        Watch(target.sibling) as watch,
        Probe(limits) as probe,
    ):
        pids, began = set(), time.monotonic()
        for index in range(n_mutants):
            data, suffix, kind = generator.choice(good)
            path = crafted / f"mutant{suffix}"
            path.write_bytes(mutate(data, generator))
            try:
                probe.check(path, kind)
                counts["answered"] += 1
            except InputError as error:
                down = "brings the decoder down" in str(error)
                counts["brought down" if down else "refused"] += 1
                if down:
                    (folder / f"down-{index}{suffix}").write_bytes(path.read_bytes())
            except Exception:
                counts["lost"] += 1
            path.unlink()
            pids.add(probe.pid)
            if (index + 1) % 1000 == 0:
                tell(f"{index + 1} in {time.monotonic() - began:.0f} s: {dict(counts)}")
        counts["lost"] += len(pids) - 1
        counts["requests"], counts["foreign reads"] = len(target.requests), watch.count()
    return counts


def main() -> int:
    """Run a campaign; exit 1 if anything was brought down or got out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = campaign(Path(folder), arguments.mutants, arguments.seed, print)
    print(dict(counts))
    bad = ("brought down", "lost", "requests", "foreign reads")
    return int(any(counts[name] for name in bad))


if __name__ == "__main__":
    sys.exit(main())
