"""The corrected file: the input with some channels mixed anew and everything else kept.

Three ways, by what the input is:

- uncompressed in a known container: its own bytes, with only the changed channels' samples
  replaced; every chunk around the samples is copied (`riff` says what differs in WAV files);
- FLAC: encoded again, with all metadata blocks;
- anything else (lossy codecs, containers, split tracks, another clock): decoded into a new WAV.

The work is done in blocks, so memory does not grow with the file.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from model.errors import MediaError
from model.media import flac, riff
from model.media.audio import AudioInfo, AudioReader, open_audio
from model.media.clock import on_camera_clock
from model.media.container import reading
from model.media.pcm import PcmFile, read_pcm_file
from model.media.samples import SampleBuffer, SampleFormat
from model.media.split import open_split_audio
from model.media.suffixes import FUMA_SUFFIX, keeps_format, own_suffixes
from model.output import WholeFile, whole_file

FloatArray = NDArray[np.floating]
Progress = Callable[[float], None]
# Each changed channel as a weighted sum of the old ones: {channel: ((old channel, weight), ...)}.
# A weight that varies is a function of a block's first sample and size.
Weight = float | Callable[[int, int], FloatArray]
ChannelMix = Mapping[int, Sequence[tuple[int, Weight]]]

FLOAT32 = SampleFormat("float", 4, 32)
_BLOCK = 1 << 13  # samples per channel: a few blocks stay in the processor's cache
_COPY_BLOCK = 1 << 20


@dataclass(frozen=True)
class Clock:
    """The clock to lay a track on: its time t is there offset_s + (1 + drift_ppm / 10⁶) t.

    Attributes
    ----------
    n_samples : length of the result, which begins at that clock's 0.
    """

    offset_s: float
    drift_ppm: float
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
    clock: Clock | None = None,
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
    clock : lay the track on another clock, before mixing. The result is a new WAV without the
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
    joined, laid = len(sources) > 1, clock is not None
    in_own_format = (
        keep_channels is None
        and keeps_format(info, joined=joined, laid=laid, floats=float_output)
        and output.suffix.lower() in own_suffixes(info)
    )
    amb = output.suffix.lower() == FUMA_SUFFIX
    with whole(output) as part:
        if in_own_format and not mix and not float_output:
            written = _write_copy(info, part)
        elif in_own_format and info.container == "flac":
            written = _write_flac(info, part, mix, progress)
        elif in_own_format and (pcm := read_pcm_file(info.path)) is not None:
            stored = FLOAT32 if float_output else pcm.format
            written = _write_pcm(pcm, part, mix, stored, history, progress)
        else:
            written = _write_decoded(
                sources, part, mix, keep_channels, clock, float_output, amb, progress
            )
        digest = written.sha256 or file_sha256(part)
    mixer = written.mixer
    return Correction(
        path=output,
        sha256=digest,
        copied=mixer is None,
        new_wav=not in_own_format,
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


# --- mixing --------------------------------------------------------------------------------------


class _NotFinite(Exception):
    """A sample is NaN or infinite."""


class _Mixer:
    """Mixes successive blocks of channels and keeps account of what is written."""

    def __init__(self, mix: ChannelMix, sample_format: SampleFormat, gain: float = 1.0) -> None:
        half_step = (1 - sample_format.highest) / 2 if sample_format.highest < 1 else math.inf
        self._mix = mix
        self._lower, self._upper = -1 - half_step, sample_format.highest + half_step
        self._highest = sample_format.highest
        self._done = 0
        self.gain = gain
        self.peak = 0.0
        self.n_clipped = 0

    def changes(self, channel: int) -> bool:
        """Whether a channel's samples change."""
        return self.gain != 1.0 or channel in self._mix

    def __call__(self, block: FloatArray) -> FloatArray:
        """New samples of a block, [shape=(n_channels, N)]; raises `_NotFinite`."""
        mixed = block.copy()
        n_samples = block.shape[1]
        for channel, weights in self._mix.items():
            total = mixed[channel]
            total[:] = 0.0
            for source, weight in weights:
                now = weight(self._done, n_samples) if callable(weight) else weight
                total += now * block[source]
        self._done += n_samples
        if self.gain != 1.0:
            mixed *= self.gain
        lowest, highest = float(mixed.min(initial=0.0)), float(mixed.max(initial=0.0))
        if not math.isfinite(lowest) or not math.isfinite(highest):
            raise _NotFinite
        self.peak = max(self.peak, -lowest, highest)
        if lowest < self._lower or highest > self._upper:
            over = (mixed < self._lower) | (mixed > self._upper)
            self.n_clipped += int(np.count_nonzero(over))
        return mixed

    def trimmed_gain(self) -> float:
        """The gain that brings the peak to the highest value that can be stored."""
        return self.gain * self._highest / self.peak


@dataclass(frozen=True)
class _Written:
    n_samples: int
    format: SampleFormat | None
    mixer: _Mixer | None = None
    sha256: str | None = None


def _with_trim(
    mix: ChannelMix, sample_format: SampleFormat, write: Callable[[_Mixer], _Written]
) -> _Written:
    """Write once as it is; if that clips, write again with the gain that just does not."""
    mixer = _Mixer(mix, sample_format)
    written = write(mixer)
    if mixer.n_clipped:
        return write(_Mixer(mix, sample_format, mixer.trimmed_gain()))
    return written


def _not_finite(path: Path, at_s: float) -> MediaError:
    return MediaError(
        f"{path} holds NaN or infinite samples near {at_s:.1f} s: repair the track first."
    )


# --- uncompressed files --------------------------------------------------------------------------


def _write_pcm(
    pcm: PcmFile,
    output: Path,
    mix: ChannelMix,
    stored: SampleFormat,
    history: str,
    progress: Progress,
) -> _Written:
    with reading(pcm.path):
        around = riff.around_data(pcm, history, stored) if pcm.chunks else riff.without_peaks(pcm)
    head, tail = around

    def write(mixer: _Mixer) -> _Written:
        with _opened(pcm.path) as source:
            samples = _mixed_data(pcm, source, mixer, stored, progress)
            parts = chain(_pieces(pcm.path, source, head), samples)
            digest = _write_parts(output, chain(parts, _pieces(pcm.path, source, tail)))
        return _Written(pcm.n_samples, stored, mixer, digest)

    return _with_trim(mix, stored, write)


def _write_copy(info: AudioInfo, output: Path) -> _Written:
    with _opened(info.path) as source:
        whole = (0, source.seek(0, os.SEEK_END))
        digest = _write_parts(output, _pieces(info.path, source, [whole]))
    return _Written(info.n_samples, info.format, sha256=digest)


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
            yield data


def _mixed_data(
    pcm: PcmFile, source: BinaryIO, mixer: _Mixer, stored: SampleFormat, progress: Progress
) -> Iterator[memoryview]:
    """The samples as they are to be stored, block by block, after mixing."""
    read = SampleBuffer(pcm.format, pcm.n_channels, _BLOCK)
    written, changed = read, [at for at in range(pcm.n_channels) if mixer.changes(at)]
    if stored != pcm.format:
        written = SampleBuffer(stored, pcm.n_channels, _BLOCK)
        changed = list(range(pcm.n_channels))
    source.seek(pcm.data_offset)
    for first in range(0, pcm.n_samples, _BLOCK):
        with reading(pcm.path):
            n_samples = read.fill(source, min(_BLOCK, pcm.n_samples - first))
        try:
            mixed = mixer(read.channels())
        except _NotFinite:
            raise _not_finite(pcm.path, first / pcm.samplerate) from None
        written.resize(n_samples)
        for index in changed:
            written.set_channel(index, mixed[index])
        yield written.data
        progress((first + n_samples) / pcm.n_samples)


# --- FLAC, and everything else -------------------------------------------------------------------


def _mixed_blocks(
    reader: AudioReader, mixer: _Mixer, progress: Progress, clock: Clock | None = None
) -> Iterator[FloatArray]:
    """The track in blocks [shape=(n_channels, N)] on a clock, its own or another, after mixing."""
    done = 0
    blocks: Iterable[FloatArray] = reader.blocks(_BLOCK)
    if clock is not None:
        blocks = on_camera_clock(
            blocks, reader.info.n_channels, samplerate=reader.info.samplerate,
            offset_s=clock.offset_s, drift_ppm=clock.drift_ppm, n_samples=clock.n_samples,
        )  # fmt: skip
        blocks = (
            block[:, first : first + _BLOCK]
            for block in blocks
            for first in range(0, block.shape[1], _BLOCK)
        )
    for block in blocks:
        try:
            yield mixer(block)
        except _NotFinite:
            raise _not_finite(reader.info.path, done / reader.info.samplerate) from None
        done += block.shape[1]
        n_samples = clock.n_samples if clock else reader.info.n_samples
        progress(min(1.0, done / max(1, n_samples)))


def _write_flac(info: AudioInfo, output: Path, mix: ChannelMix, progress: Progress) -> _Written:
    stored = info.format
    assert stored is not None  # FLAC is lossless
    steps = 2.0 ** (stored.bits - 1)

    def write(mixer: _Mixer) -> _Written:
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
        return _Written(info.n_samples, stored, mixer)

    return _with_trim(mix, stored, write)


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
    clock: Clock | None,
    float_output: bool,
    amb: bool,
    progress: Progress,
) -> _Written:
    with open_split_audio(sources) as reader:
        info = reader.info
    stored = FLOAT32 if float_output or info.format is None else _little_endian(info.format)
    channels = list(range(info.n_channels) if keep_channels is None else keep_channels)

    def write(mixer: _Mixer) -> _Written:
        header = partial(riff.new_header, stored, info.samplerate, len(channels), amb=amb)
        buffer = SampleBuffer(stored, len(channels), _BLOCK)
        n_samples = 0
        with open_split_audio(sources) as reader, output.open("wb") as target:
            target.write(header(0))
            for mixed in _mixed_blocks(reader, mixer, progress, clock):
                buffer.resize(mixed.shape[1])
                for place, channel in enumerate(channels):
                    buffer.set_channel(place, mixed[channel])
                target.write(buffer.data)
                n_samples += mixed.shape[1]
            target.write(b"\0" * (n_samples * len(channels) * stored.width % 2))
            target.seek(0)
            target.write(header(n_samples))
        return _Written(n_samples, stored, mixer)

    return _with_trim(mix, stored, write)


def _little_endian(stored: SampleFormat) -> SampleFormat:
    """The same samples as WAV stores them: little-endian, 8 bits unsigned."""
    encoding = "unsigned" if stored.width == 1 else stored.encoding
    return SampleFormat(encoding, stored.width, stored.bits)
