"""Fields of tracks, the angle between two, and videos with sound of their own."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np

from model.media import open_audio

RATE = 48_000


def field_of(path: Path) -> np.ndarray:
    """All samples of a track, [shape=(channels, N)]."""
    with open_audio(path) as reader:
        return np.concatenate(list(reader.blocks(1 << 16)), axis=1)


def turn_deg(before: np.ndarray, after: np.ndarray) -> float:
    """The angle between two fields, one of which is the other turned."""
    cos = np.sum(before[3] * after[3] + before[1] * after[1])
    sin = np.sum(before[3] * after[1] - before[1] * after[3])
    return math.degrees(math.atan2(sin, cos))


def with_camera_sound(video: Path, sound: np.ndarray, path: Path, *, codec: str = "aac") -> Path:
    """The video with a mono track of its own (N,), as a camera records it."""
    return _with_sound(video, sound[None], path, codec=codec, layout="mono", options={})


def with_ambisonic_track(video: Path, field: np.ndarray, path: Path) -> Path:
    """The video with a first-order track of its own that is declared as such (Opus, RFC 8486)."""
    options = {"mapping_family": "2", "b": "512k"}
    return _with_sound(video, field, path, codec="libopus", layout="ambisonic 1", options=options)


def with_plain_track(video: Path, field: np.ndarray, path: Path) -> Path:
    """The video with a first-order track of its own that declares nothing (16-bit PCM in mov)."""
    return _with_sound(video, field, path, codec="pcm_s16le", layout="4.0", options={})


def _with_sound(
    video: Path, samples: np.ndarray, path: Path, *, codec: str, layout: str,
    options: dict[str, str],
) -> Path:  # fmt: skip
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        picture = target.add_stream_from_template(source.streams.video[0])
        stream = target.add_stream(codec, rate=RATE, layout=layout, options=options)
        assert isinstance(stream, av.AudioStream)
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = picture
                target.mux(packet)
        for first in range(0, samples.shape[1], 960):
            block = samples[:, first : first + 960].T.reshape(1, -1)
            interleaved = np.ascontiguousarray(block, dtype="f4")
            frame = av.AudioFrame.from_ndarray(interleaved, "flt", layout)
            frame.sample_rate, frame.pts = RATE, first
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path
