"""The corrected file: the input with some channels mixed anew and everything else kept.

Four ways, by what the input is, and what is asked for:

- uncompressed in a known container: its own bytes, with only the changed channels' samples
  replaced; every chunk around the samples is copied (`riff` says what differs in WAV files);
- FLAC: encoded again, with all metadata blocks;
- uncompressed in MP4 or MOV: where the output is one too, its own bytes, picture and all, with the
  samples replaced;
- anything else (lossy codecs, containers, split tracks, another clock): decoded into a new WAV.

The work is done in blocks, so memory does not grow with the file.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Event
from typing import IO, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from model.media import flac, riff
from model.media.audio import AudioInfo, AudioReader, open_audio
from model.media.clock import Clock, on_camera_clock
from model.media.container import cut_short, reading
from model.media.embedded import Laid, laid_among_frames, laid_in_one
from model.media.mixing import ChannelMix, Mixer, NotFinite, Written, not_finite, with_trim
from model.media.pcm import PcmFile, read_pcm_file
from model.media.samples import SampleBuffer, SampleFormat
from model.media.split import open_split_audio
from model.media.suffixes import (
    FUMA_SUFFIX,
    Rewriting,
    changed_in_place,
    keeps_format,
    own_suffixes,
)
from model.output import WholeFile, whole_file

FloatArray = NDArray[np.floating]
Progress = Callable[[float], None]

FLOAT32 = SampleFormat("float", 4, 32)
_BLOCK = 1 << 13  # samples per channel: a few blocks stay in the processor's cache
_COPY_BLOCK = 1 << 20


@dataclass(frozen=True)
class Laying:
    """On what a track is laid: a camera's clock from its 0 on, and the length of the result."""

    clock: Clock
    n_samples: int


@dataclass(frozen=True)
class Correction:
    """What was written.

    Attributes
    ----------
    copied : whether the file is a byte-for-byte copy of the input.
    new_wav : whether it is a WAV file of its own, without what surrounded the input's samples.
    format : sample format, for people.
    peak : largest magnitude in the result, full scale 1.0; None for a copy.
    trim_db : gain that was applied to all channels to keep the result below full scale.
    clipped_samples : samples cut at full scale.
    """

    path: Path
    sha256: str
    copied: bool
    new_wav: bool
    n_samples: int
    format: str
    peak: float | None
    trim_db: float
    clipped_samples: int


def write_corrected(
    sources: Sequence[Path],
    output: Path,
    mix: ChannelMix,
    *,
    keep_channels: Sequence[int] | None = None,
    laying: Laying | None = None,
    history: str = "",
    float_output: bool = False,
    progress: Progress = lambda _: None,
    whole: WholeFile = whole_file,
) -> Correction:
    """Write `sources` (one file, or the parts of a split track) to `output` with channels mixed.

    An empty `mix` changes nothing: where the output has the input's own format, the result is then
    a byte-for-byte copy.

    mix : the changed channels.
    keep_channels : the channels to write, in this order (default: all as they are).
    laying : lay the track on another clock, before mixing. The result is a new WAV without the
        track's chunks, whose times would not hold any more.
    history : a line for the CodingHistory of a Broadcast Wave file.
    float_output : write 32-bit floats, as WAV, instead of the input's sample format.
    whole : gives the temporary name to write to, and sees to it that it becomes `output`.

    Integer results that would clip get one gain over all channels, the least that is needed.

    Raises
    ------
    MediaError : the input cannot be decoded, or holds NaN or infinite samples.
    OutputError, DiskFull : the result cannot be written. Nothing is left behind.
    """
    with open_audio(sources[0]) as reader:
        info = reader.info
    asked = Rewriting(joined=len(sources) > 1, laid=laying is not None, floats=float_output)
    in_own_format = (
        keep_channels is None
        and keeps_format(info, asked)
        and output.suffix.lower() in own_suffixes(info)
    )
    in_place = changed_in_place(info, asked) and (output.suffix.lower() == info.path.suffix.lower())
    amb = output.suffix.lower() == FUMA_SUFFIX
    with whole(output) as part:
        if (in_own_format or in_place) and not mix and not float_output:
            written = _write_copy(info, part, progress)
        elif in_place:
            written = _write_in_place(laid_among_frames(info), part, mix, progress)
        elif in_own_format and info.container == "flac":
            written = _write_flac(info, part, mix, progress)
        elif in_own_format and (pcm := read_pcm_file(info.path)) is not None:
            stored = FLOAT32 if float_output else pcm.format
            written = _write_pcm(pcm, part, mix, stored, history, progress)
        else:
            written = _write_decoded(
                sources, part, mix, keep_channels, laying, float_output, amb, progress
            )
        digest = written.sha256 or file_sha256(part)
    mixer = written.mixer
    return Correction(
        path=output,
        sha256=digest,
        copied=mixer is None,
        new_wav=not (in_own_format or in_place),
        n_samples=written.n_samples,
        format=written.format.name if written.format else info.codec,
        peak=mixer.peak if mixer else None,
        trim_db=20 * math.log10(mixer.gain) if mixer else 0.0,
        clipped_samples=mixer.n_clipped if mixer else 0,
    )


def file_sha256(path: Path, stop: Event | None = None) -> str:
    """SHA-256 of a file, as hexadecimal digits; of its beginning only if told to `stop`."""
    digest = hashlib.sha256()
    with reading(path), path.open("rb") as file:
        while (block := file.read(_COPY_BLOCK)) and not (stop and stop.is_set()):
            digest.update(block)
    return digest.hexdigest()


# --- uncompressed files --------------------------------------------------------------------------


def _write_pcm(
    pcm: PcmFile,
    output: Path,
    mix: ChannelMix,
    stored: SampleFormat,
    history: str,
    progress: Progress,
) -> Written:
    with reading(pcm.path):
        around = riff.around_data(pcm, history, stored) if pcm.chunks else riff.without_peaks(pcm)
    head, tail = around

    def write(mixer: Mixer) -> Written:
        with _opened(pcm.path) as source:
            mixed = _mixed_data(laid_in_one(pcm), source, mixer, stored, progress)
            samples = (data for _, data in mixed)
            parts = chain(_pieces(pcm.path, source, head), samples)
            digest = _write_parts(output, chain(parts, _pieces(pcm.path, source, tail)))
        return Written(pcm.n_samples, stored, mixer, digest)

    return with_trim(mix, stored, write)


def _write_copy(info: AudioInfo, output: Path, progress: Progress) -> Written:
    with _opened(info.path) as source:
        size = source.seek(0, os.SEEK_END)
        digest = _write_parts(output, _first(info.path, source, size, progress))
    return Written(info.n_samples, info.format, sha256=digest)


def _first(
    path: Path, source: BinaryIO, size: int, progress: Progress
) -> Iterator[bytes | memoryview]:
    """So many bytes of the source, which is `path`, in blocks."""
    done = 0
    for data in _pieces(path, source, [(0, size)]):
        yield data
        done += len(data)
        progress(done / size)


def _opened(path: Path) -> BinaryIO:
    with reading(path):
        return path.open("rb")


def _write_parts(output: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Write a file of parts; returns its SHA-256."""
    digest = hashlib.sha256()
    with output.open("wb") as target:
        for data in parts:
            target.write(data)
            digest.update(data)
    return digest.hexdigest()


def _pieces(
    path: Path, source: BinaryIO, pieces: Sequence[riff.Piece]
) -> Iterator[bytes | memoryview]:
    """The bytes of pieces, those that come from the source, which is `path`, in blocks."""
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        offset, size = piece
        for at in range(offset, offset + size, _COPY_BLOCK):
            with reading(path):
                source.seek(at)
                data = source.read(min(_COPY_BLOCK, offset + size - at))
            if len(data) < min(_COPY_BLOCK, offset + size - at):
                raise cut_short(path)
            yield data


def _write_in_place(laid: Laid, output: Path, mix: ChannelMix, progress: Progress) -> Written:
    """A copy of the whole file, in which the samples are then replaced."""
    with _opened(laid.path) as source:
        size = source.seek(0, os.SEEK_END)
        with output.open("wb") as target:
            for data in _first(laid.path, source, size, lambda done: progress(done / 2)):
                target.write(data)

    def later(done: float) -> None:
        progress((1 + done) / 2)

    def write(mixer: Mixer) -> Written:
        with _opened(laid.path) as source, output.open("r+b") as target:
            for offset, data in _mixed_data(laid, source, mixer, laid.format, later):
                target.seek(offset)
                target.write(data)
        return Written(laid.n_samples, laid.format, mixer)

    return with_trim(mix, laid.format, write)


def _mixed_data(
    laid: Laid, source: BinaryIO, mixer: Mixer, stored: SampleFormat, progress: Progress
) -> Iterator[tuple[int, memoryview]]:
    """The samples as they are to be stored, after mixing, and where they lay, block by block."""
    read = SampleBuffer(laid.format, laid.n_channels, _BLOCK)
    written, changed = read, [at for at in range(laid.n_channels) if mixer.changes(at)]
    if stored != laid.format:
        written = SampleBuffer(stored, laid.n_channels, _BLOCK)
        changed = list(range(laid.n_channels))
    done, n_samples = 0, laid.n_samples
    for offset, n in _in_blocks(laid):
        with reading(laid.path):
            source.seek(offset)
            if read.fill(source, n) < n:
                raise cut_short(laid.path)
        try:
            mixed = mixer(read.channels())
        except NotFinite:
            raise not_finite(laid.path, done / laid.samplerate) from None
        written.resize(n)
        for index in changed:
            written.set_channel(index, mixed[index])
        yield offset, written.data
        done += n
        progress(done / n_samples)


def _in_blocks(laid: Laid) -> Iterator[tuple[int, int]]:
    """Offsets of samples, and how many they are, `_BLOCK` at most."""
    frame_size = laid.n_channels * laid.format.width
    for offset, n_samples in laid.places:
        for first in range(0, n_samples, _BLOCK):
            yield offset + first * frame_size, min(_BLOCK, n_samples - first)


# --- FLAC, and everything else -------------------------------------------------------------------


def _mixed_blocks(
    reader: AudioReader, mixer: Mixer, progress: Progress, laying: Laying | None = None
) -> Iterator[FloatArray]:
    """The track in blocks [shape=(n_channels, N)] on a clock, its own or another, after mixing."""
    done = 0
    blocks: Iterable[FloatArray] = reader.blocks(_BLOCK)
    n_samples = laying.n_samples if laying else reader.info.n_samples
    if laying is not None:
        blocks = on_camera_clock(
            blocks, reader.info.n_channels, laying.clock,
            samplerate=reader.info.samplerate, n_samples=n_samples,
        )  # fmt: skip
        blocks = (
            block[:, first : first + _BLOCK]
            for block in blocks
            for first in range(0, block.shape[1], _BLOCK)
        )
    for block in blocks:
        try:
            yield mixer(block)
        except NotFinite:
            raise not_finite(reader.info.path, done / reader.info.samplerate) from None
        done += block.shape[1]
        progress(min(1.0, done / max(1, n_samples)))


def _write_flac(info: AudioInfo, output: Path, mix: ChannelMix, progress: Progress) -> Written:
    stored = info.format
    assert stored is not None  # FLAC is lossless
    steps = 2.0 ** (stored.bits - 1)

    def write(mixer: Mixer) -> Written:
        with (
            tempfile.NamedTemporaryFile(dir=output.parent, suffix=".part") as encoded,
            open_audio(info.path) as reader,
        ):
            with (
                _own_reason(encoded),
                soundfile.SoundFile(
                    encoded.name, "w", info.samplerate, info.n_channels,
                    subtype=f"PCM_{stored.bits}" if stored.bits > 8 else "PCM_S8", format="FLAC",
                ) as file,
            ):  # fmt: skip
                for mixed in _mixed_blocks(reader, mixer, progress):
                    codes = np.clip(np.rint(mixed.T * steps), -steps, steps - 1)
                    # libsndfile takes the top bits of 32-bit integers.
                    file.write(codes.astype(np.int32) << (32 - stored.bits))
            flac.carry_metadata(info.path, Path(encoded.name), output)
        return Written(info.n_samples, stored, mixer)

    return with_trim(mix, stored, write)


@contextmanager
def _own_reason(file: IO[bytes]) -> Iterator[None]:
    """Raises the system's own reason where libsndfile cannot write on in an open file.

    libsndfile says "System error" of a full disk; the system itself says it to the next who writes.
    """
    try:
        yield
    except soundfile.LibsndfileError as error:
        file.seek(0, os.SEEK_END)
        file.write(bytes(_COPY_BLOCK))
        file.flush()
        raise OSError(errno.EIO, error.error_string.rstrip(".")) from error


def _write_decoded(
    sources: Sequence[Path],
    output: Path,
    mix: ChannelMix,
    keep_channels: Sequence[int] | None,
    laying: Laying | None,
    float_output: bool,
    amb: bool,
    progress: Progress,
) -> Written:
    with open_split_audio(sources) as reader:
        info = reader.info
    stored = FLOAT32 if float_output or info.format is None else _little_endian(info.format)
    channels = list(range(info.n_channels) if keep_channels is None else keep_channels)

    def write(mixer: Mixer) -> Written:
        header = partial(riff.new_header, stored, info.samplerate, len(channels), amb=amb)
        buffer = SampleBuffer(stored, len(channels), _BLOCK)
        n_samples = 0
        with open_split_audio(sources) as reader, output.open("wb") as target:
            target.write(header(0))
            for mixed in _mixed_blocks(reader, mixer, progress, laying):
                buffer.resize(mixed.shape[1])
                for place, channel in enumerate(channels):
                    buffer.set_channel(place, mixed[channel])
                target.write(buffer.data)
                n_samples += mixed.shape[1]
            target.write(b"\0" * (n_samples * len(channels) * stored.width % 2))
            target.seek(0)
            target.write(header(n_samples))
        return Written(n_samples, stored, mixer)

    return with_trim(mix, stored, write)


def _little_endian(stored: SampleFormat) -> SampleFormat:
    """The same samples as WAV stores them: little-endian, 8 bits unsigned."""
    encoding = "unsigned" if stored.width == 1 else stored.encoding
    return SampleFormat(encoding, stored.width, stored.bits)
