"""Bad input of every kind, for the command line and for the service.

Each maker gets the paths of a good picture and track and a folder to write to, and returns the pair
to align and a pattern that the answer must match.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile

Maker = Callable[[Path, Path, Path], tuple[Path, Path, str]]

RATE = 48_000


def noise(n_channels: int, seconds: float = 4.0) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.2, 0.2, (round(seconds * RATE), n_channels))


def _text(path: Path) -> Path:
    path.write_text("this is a text, neither sound nor picture\n" * 50)
    return path


def _track(path: Path, samples: np.ndarray, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, RATE, subtype=subtype)
    return path


def truncated(source: Path, path: Path, share: float) -> Path:
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def audio_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((2, RATE), "f4"), "fltp", "stereo")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def huge_header(path: Path) -> Path:
    """A tiny video (one small JPEG picture) whose headers declare 20000 x 10000 pixels."""
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64), np.uint8), "yuvj420p")
        for index in range(40):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    entry = data.index(b"jpeg", data.index(b"stsd"))
    struct.pack_into(">HH", data, entry + 28, 20000, 10000)
    at = 0
    while (at := data.find(b"\xff\xc0\x00\x11", at + 1)) > 0:
        struct.pack_into(">HH", data, at + 5, 10000, 20000)
    path.write_bytes(data)
    return path


def planar_wave(n: int) -> np.ndarray:
    wave = np.random.default_rng(0).uniform(-0.2, 0.2, n)
    return np.stack([wave, 0.5 * wave, 0.1 * wave, 0.8 * wave], axis=1)


def _not_finite(path: Path, value: float) -> Path:
    samples = planar_wave(4 * RATE)
    samples[RATE, 2] = value
    return _track(path, samples, "FLOAT")


def _dead(path: Path, channel: int) -> Path:
    samples = planar_wave(4 * RATE)
    samples[:, channel] = 0
    return _track(path, samples)


def _clipped(path: Path) -> Path:
    return _track(path, np.clip(50 * planar_wave(4 * RATE), -1, 1))


BAD_INPUTS: dict[str, Maker] = {
    "missing video": lambda v, a, d: (d / "none.mp4", a, r"none\.mp4 does not exist"),
    "missing track": lambda v, a, d: (v, d / "none.wav", r"none\.wav does not exist"),
    "empty video": lambda v, a, d: (_touch(d / "e.mp4"), a, r"e\.mp4 is empty"),
    "empty track": lambda v, a, d: (v, _touch(d / "e.wav"), r"e\.wav is empty"),
    "truncated video": lambda v, a, d: (
        truncated(v, d / "t.mp4", 0.02), a, r"t\.mp4 ",
    ),
    "truncated track": lambda v, a, d: (
        v, truncated(a, d / "t.wav", 2e-5), r"t\.wav has no sound data",
    ),
    "text as video": lambda v, a, d: (_text(d / "t.mp4"), a, r"t\.mp4 cannot be read"),
    "text as track": lambda v, a, d: (v, _text(d / "t.wav"), r"t\.wav cannot be read"),
    "folder as video": lambda v, a, d: (d, a, r"is not a file"),
    "sound only as video": lambda v, a, d: (audio_only(d / "s.mp4"), a, r"s\.mp4 has no picture"),
    "track from a silent video": lambda v, a, d: (v, v, r"has no sound"),
    "mono": lambda v, a, d: (v, _track(d / "m.wav", noise(1)), r"m\.wav is mono"),
    "stereo": lambda v, a, d: (v, _track(d / "s.wav", noise(2)), r"s\.wav is stereo"),
    "three channels": lambda v, a, d: (v, _track(d / "3.wav", noise(3)), r"3 channels"),
    "five channels": lambda v, a, d: (v, _track(d / "5.wav", noise(5)), r"5 channels"),
    "silence": lambda v, a, d: (v, _track(d / "z.wav", 0 * noise(4)), r"z\.wav is silent"),
    "dead W": lambda v, a, d: (v, _dead(d / "w.wav", 0), r"1st channel \(W\) of .*w\.wav is dead"),
    "dead X": lambda v, a, d: (v, _dead(d / "x.wav", 3), r"4th channel \(X\) of .*x\.wav is dead"),
    "NaN": lambda v, a, d: (v, _not_finite(d / "n.wav", np.nan), r"n\.wav holds NaN"),
    "infinity": lambda v, a, d: (v, _not_finite(d / "n.wav", np.inf), r"n\.wav holds NaN"),
    "clipped": lambda v, a, d: (v, _clipped(d / "c.wav"), r"c\.wav is clipped"),
    "0.3 s": lambda v, a, d: (v, _track(d / "k.wav", noise(4, 0.3)), r"k\.wav is 0\.30 s long"),
    "huge picture": lambda v, a, d: (huge_header(d / "h.mov"), a, r"20000x10000"),
}  # fmt: skip


def _touch(path: Path) -> Path:
    path.touch()
    return path
