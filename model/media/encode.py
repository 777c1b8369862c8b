"""Writing new media, for previews and synthetic takes: H.264 in MP4, sound as WAV or FLAC.

Ordinary videos are also written as MPEG-4 in AVI, which older data sets consist of.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from model.media.audio import YOUTUBE_51
from model.media.container import open_container

_FILM_SAMPLERATE = 48_000


def write_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    *,
    rate_hz: float,
    crf: int = 20,
    keyframe_s: float = 2.0,
    preset: str = "veryfast",
) -> None:
    """Encode frames, each [shape=(H, W, 1 or 3)] with even sides, as H.264.

    crf : quality, 0 (lossless) to 51; cameras are near 18, web video near 26.
    """
    rate = Fraction(rate_hz).limit_denominator(1001)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(
            "libx264", rate=rate, options={"crf": str(crf), "preset": preset, "threads": "2"}
        )
        stream.gop_size = max(1, round(keyframe_s * rate_hz))
        _encode(container, stream, frames)


def write_film(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    sound: NDArray[np.floating],
    samplerate: int,
    *,
    rate_hz: float,
    comment: str,
) -> None:
    """Encode frames as in `write_video`, with stereo sound [shape=(2, N)] as AAC beside them.

    comment : a tag of the file, by which `comment_of` knows it again.
    """
    rate = Fraction(rate_hz).limit_denominator(1001)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        container.metadata["comment"] = comment
        options = {"crf": "23", "preset": "veryfast", "threads": "2"}
        picture = container.add_stream("libx264", rate=rate, options=options)
        heard = container.add_stream("aac", rate=_FILM_SAMPLERATE, layout="stereo")
        heard.bit_rate = 160_000
        _encode(container, picture, frames)
        resampler = av.AudioResampler("fltp", "stereo", _FILM_SAMPLERATE)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound, "f4"), "fltp", "stereo")
        frame.sample_rate = samplerate
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(heard.encode(part))
        container.mux(heard.encode(None))


def comment_of(path: Path) -> str | None:
    """The comment among the tags of a film.

    Raises
    ------
    MediaError : it is none that can be opened.
    """
    with open_container(path) as container:
        return container.metadata.get("comment")


def write_avi(
    path: Path, frames: Iterable[NDArray[np.uint8]], *, rate_hz: float, bit_rate: int = 1_000_000
) -> None:
    """Encode frames, each [shape=(H, W, 1 or 3)] with even sides, as MPEG-4 part 2 in AVI."""
    rate = Fraction(rate_hz).limit_denominator(1001)
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=rate, options={"threads": "1"})
        stream.bit_rate = bit_rate
        _encode(container, stream, frames)


def _encode(
    container: av.container.OutputContainer,
    stream: av.VideoStream,
    frames: Iterable[NDArray[np.uint8]],
) -> None:
    """Encode and write a whole stream, whose size is that of the first frame."""
    stream.pix_fmt = "yuv420p"
    for index, frame in enumerate(frames):
        if index == 0:
            stream.height, stream.width = frame.shape[:2]
        grey = frame.shape[2] == 1
        picture = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(frame[..., 0] if grey else frame), "gray" if grey else "rgb24"
        )
        picture.pts = index
        container.mux(stream.encode(picture))
    container.mux(stream.encode(None))


def write_audio(
    path: Path, field: NDArray[np.floating], samplerate: int, *, subtype: str = "PCM_24"
) -> None:
    """Write channels [shape=(n_channels, N)] as a sound file of the kind its suffix names."""
    soundfile.write(path, field.T, samplerate, subtype=subtype)


def write_youtube_audio(path: Path, field: NDArray[np.floating], samplerate: int) -> None:
    """Write a first-order field (W, Y, Z, X) [shape=(4, N)] as YouTube does: AAC 5.1 in MP4.

    Direction is what channels share and by how much they differ, so the coder may neither put noise
    in a band's place (substitution) nor one waveform in both of X and Y (intensity stereo). Its
    slow search for steps makes levels differ by band where there is much to code; "fast" does not.
    """
    channels = np.zeros((6, field.shape[1]), dtype=np.float32)
    channels[list(YOUTUBE_51.components)] = field
    with av.open(str(path), "w", format="mp4") as container:
        options = {"aac_pns": "0", "aac_is": "0", "aac_coder": "fast"}
        stream = container.add_stream("aac", rate=samplerate, layout="5.1", options=options)
        stream.bit_rate = 256_000
        packed = np.ascontiguousarray(channels.T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, "flt", "5.1")
        frame.sample_rate = samplerate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def through_vorbis(
    field: NDArray[np.floating], samplerate: int, *, quality: float
) -> NDArray[np.float64]:
    """A field [shape=(C, N)] after lossy coding, all channels in one stream.

    quality : 0 (smallest) to 1 (best).
    """
    file = io.BytesIO()
    soundfile.write(
        file, field.T, samplerate, format="OGG", subtype="VORBIS", compression_level=1 - quality
    )
    file.seek(0)
    decoded = soundfile.read(file, dtype="float64", always_2d=True)[0].T
    return np.asarray(decoded[:, : field.shape[1]])
