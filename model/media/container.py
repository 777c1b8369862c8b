"""Opening containers (mp4, mov, mkv, webm, ogg, ...) with FFmpeg, in one place and on a short lead.

FFmpeg guesses formats from content and follows references between files, so every open names the
protocols, formats and codecs it may use: a text file that calls itself .mp4 opens nothing else.
Only paths are opened: with a Python file object FFmpeg knows no list of protocols at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition

from model.errors import MediaError, UnsupportedMedia
from model.media.samples import Encoding, SampleFormat

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "ogg",
    "mpegts",
    "avi",
    "wav",
    "w64",
    "aiff",
    "caf",
    "flac",
)
VIDEO_CODECS = frozenset(
    {
        "h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9",
        "mpeg4", "mpeg2video", "mjpeg", "prores", "dnxhd", "cfhd", "ffv1", "rawvideo", "v210",
    }
)  # fmt: skip
AUDIO_CODECS = frozenset(
    {
        "aac", "alac", "flac", "opus", "libopus", "vorbis", "ac3", "eac3", "mp3", "mp3float",
        "wavpack", "tta",
    }
)  # fmt: skip
# Tags that are no UTF-8 are no reason to refuse a file. PyAV 19 keeps them by itself.
_TAGS: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)
# 16384 x 8192, the largest 360 picture in use; beyond it a frame alone takes hundreds of MB.
MAX_PIXELS = 16384 * 8192


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open a media file for reading and close it at the end.

    Raises
    ------
    MediaError : missing, empty, not a file, or nothing FFmpeg's allowed formats can read.
    """
    check_readable(path)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(FORMATS),
        # For the decoders with which FFmpeg looks into the streams while opening. Twice the limit:
        # what is a little too large is then refused by its size, and not as having no picture.
        **_decoder_options(),
        "max_pixels": str(2 * MAX_PIXELS),
    }
    try:
        # An absolute path, so that FFmpeg never takes a name for a protocol ("concat:a|b").
        container = av.open(str(path.resolve()), "r", options=options, **_TAGS)
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(
            f"{path} cannot be read as video or sound ({reason(error)}): it is damaged, "
            "incomplete or of another kind."
        ) from error
    with container:
        _drop_custom_layouts(container)
        yield container


def _drop_custom_layouts(container: InputContainer) -> None:
    """Leave channels in an order of their own, as of film (L C R Ls Rs LFE), without a layout.

    PyAV copies a layout without the list that such a one points to, and frees the list with every
    copy, so the process would die. The copy here is the only one, and frees it once.
    """
    for stream in container.streams.audio:
        context = stream.codec_context
        layout = context.layout if context is not None else None
        # What has no name is described by its channels: "6 channels (FL+FC+FR+BL+BR+LFE)".
        if context is not None and layout is not None and "(" in layout.name:
            context.layout = f"{layout.nb_channels} channels"


def pictures_of(container: InputContainer) -> list[av.VideoStream]:
    """The moving pictures of a container: cover art is a video stream too."""
    cover = Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def picture_of(container: InputContainer) -> av.VideoStream | None:
    """The picture that is read of a container: of several videos the largest."""
    return max(pictures_of(container), key=lambda video: video.width * video.height, default=None)


def picture_begins_s(path: Path) -> float | None:
    """Time of a file's first frame in its own clock; None where it has no picture.

    Raises
    ------
    MediaError : as `open_container`.
    """
    with open_container(path) as container:
        picture = picture_of(container)
        if picture is None:
            return None
        return float((picture.start_time or 0) * (picture.time_base or 0))


def sound_of(container: InputContainer) -> av.AudioStream | None:
    """The sound that is read of a container: of several streams the first with most channels."""
    return max(container.streams.audio, key=lambda stream: stream.channels, default=None)


def check_readable(path: Path) -> None:
    """Raise a `MediaError` that says why `path` cannot be a media file; return if it may be one."""
    try:
        if not path.exists():
            raise MediaError(f"{path} does not exist.")
        if not path.is_file():
            raise MediaError(f"{path} is not a file.")
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise MediaError(f"{path} cannot be opened: {error.strerror}.") from error
    if empty:
        raise MediaError(f"{path} is empty.")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the system refuses while `path` is read, as our error: of a disk that fails, or is gone.

    Raises
    ------
    MediaError : it does.
    """
    try:
        yield
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror or error}.") from error


def cut_short(path: Path) -> MediaError:
    """The error of a file that ends before what it held when it was opened."""
    return MediaError(
        f"{path} has become shorter while it was read: let what writes or copies it finish first."
    )


@cache
def _decoder_options() -> dict[str, str]:
    """Limits of a decoder; what is given to the container alone does not reach those we use."""
    pcm = {name for name in av.codecs_available if name.startswith("pcm_")}
    codecs = ",".join(sorted(VIDEO_CODECS | AUDIO_CODECS | pcm))
    return {"codec_whitelist": codecs, "max_pixels": str(MAX_PIXELS)}


def length_s(container: InputContainer, stream: av.VideoStream | av.AudioStream) -> float:
    """Seconds from a stream's first sample or frame to its end; 0 if nothing tells.

    Matroska tells when the whole file ends, and in a tag, if the writer left one, when the stream
    does: counted from 0 as FFmpeg writes it, from the stream's own beginning as mkvmerge does.
    """
    tick_s = float(stream.time_base or 0)
    if stream.duration:
        return stream.duration * tick_s
    start_s = (stream.start_time or 0) * tick_s
    end_s = (container.duration or 0) / 1e6
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        from_start = "_STATISTICS_WRITING_APP" in stream.metadata
        told_s = 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
        told_s += start_s if from_start else 0.0
        end_s = told_s if start_s < told_s < end_s else end_s
    return max(0.0, end_s - start_s)


def stored_format(stream: av.AudioStream) -> SampleFormat | None:
    """How a lossless stream stores its samples; None for a lossy codec."""
    codec = stream.codec_context.name
    pcm = re.fullmatch(r"pcm_([suf])(\d+)(le|be)?(_planar)?", codec)
    if pcm:
        bits = int(pcm[2])
        if pcm[1] == "f" or bits > 32:
            return SampleFormat("float", bits // 8, bits, big_endian=pcm[3] == "be")
        encoding: Encoding = "unsigned" if pcm[1] == "u" else "signed"
        return SampleFormat(encoding, (bits + 7) // 8, bits, big_endian=pcm[3] == "be")
    if codec in ("flac", "alac", "tta", "wavpack"):
        if stream.format.name.startswith("flt"):
            return SampleFormat("float", 4, 32)
        bits = _coded_bits(stream) or stream.format.bits
        return SampleFormat("signed", (bits + 7) // 8, bits)
    return None


def _coded_bits(stream: av.AudioStream) -> int:
    """Bits of a sample as the coder's own header says; decoders fill them up to 16 or 32.

    0 where it does not say: WavPack tells in every packet.
    """
    codec, header = stream.codec_context.name, stream.codec_context.extradata or b""
    bits = 0
    if codec == "flac" and len(header) >= 34:
        bits = flac_bits(header)
    elif codec == "alac" and len(header) >= 18:
        bits = header[17]  # after the atom's head: frame length, version, bits
    elif codec == "tta" and len(header) >= 10:
        bits = int.from_bytes(header[8:10], "little")
    return bits if 8 <= bits <= stream.format.bits else 0


def flac_bits(streaminfo: bytes) -> int:
    """Bits of a sample by a FLAC file's STREAMINFO block (RFC 9639, section 8.2)."""
    return ((streaminfo[12] & 1) << 4 | streaminfo[13] >> 4) + 1


def allow_decoding(
    path: Path, stream: av.VideoStream | av.AudioStream, *, threads: int = 0
) -> None:
    """Set limits on a stream's decoder, or refuse a codec that is not on the list.

    threads : that decode the picture; 0: one per core. Each holds frames of its own.

    Raises
    ------
    UnsupportedMedia : unknown or refused codec, or a picture above `MAX_PIXELS`.
    """
    context = stream.codec_context
    codec = context.name if context is not None else "unknown"
    if stream.type == "video":
        if codec not in VIDEO_CODECS:
            raise UnsupportedMedia(
                f"{path} holds {codec} video, which is not read: convert it with "
                f"ffmpeg -i {path.name} -c:v libx264 -crf 16 -c:a copy converted.mp4."
            )
        if stream.width * stream.height > MAX_PIXELS:
            raise UnsupportedMedia(
                f"{path} declares a picture of {stream.width}x{stream.height}; the limit is "
                f"16384x8192: scale it down first."
            )
        context.thread_type = "AUTO"
        context.thread_count = threads
    elif codec not in AUDIO_CODECS and not codec.startswith("pcm_"):
        raise UnsupportedMedia(
            f"{path} holds {codec} sound, which is not read: convert it to WAV or FLAC."
        )
    context.options = _decoder_options()


def reason(error: Exception) -> str:
    """FFmpeg's own words for an error, without the file name it repeats."""
    return str(getattr(error, "strerror", None) or error)
