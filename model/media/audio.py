"""Ambisonic tracks: what a file holds, and stretches of it as discrete channels.

Uncompressed files are read by `pcm`, FLAC and other sound files by libsndfile, containers by
FFmpeg. Decoders' speaker layouts are never applied: no remix, and the channels in the order in
which they were coded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from model.errors import MediaError, NoSound, UnsupportedMedia
from model.media.container import (
    allow_decoding,
    check_readable,
    cut_short,
    flac_bits,
    length_s,
    open_container,
    reading,
    reason,
    sound_of,
    stored_format,
)
from model.media.declared import Carrier, read_declared
from model.media.pcm import PcmFile, read_pcm_file
from model.media.samples import SampleBuffer, SampleFormat

FloatArray = NDArray[np.floating]

# FFmpeg moves the channels of Vorbis into the order of its layouts for as many speakers, which no
# ambisonic track has: six are a first-order field with a head-locked pair, others part of a field.
# Coded channel of each FFmpeg channel, Vorbis I specification section 4.3.9.
_VORBIS_ORDER = {
    3: (0, 2, 1), 5: (0, 2, 1, 3, 4), 6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4), 8: (0, 2, 1, 7, 5, 6, 3, 4),
}  # fmt: skip
# Decoders need this much sound before a place to reproduce it exactly (Opus asks for 80 ms).
_PREROLL_S = 0.25
_MOST_SAMPLES = 1 << 36  # the most that FLAC can tell: 16 days at 48 kHz
LIBSNDFILE_BITS = (8, 16, 24)  # of FLAC that it reads and writes
# Below this level against the loudest channel a lossy coder's channel counts as silent.
_SILENT_DB = -60.0
# FFmpeg decodes YouTube's 5.1 AAC ambisonics as X, Y, W, (silence), Z, (silence).
YOUTUBE_51 = Carrier("YouTube's 5.1 carrier of ambisonics", components=(2, 1, 4, 0))
_YOUTUBE_51_SILENT = (3, 5)


@dataclass(frozen=True)
class AudioInfo:
    """Facts of a track.

    Attributes
    ----------
    container, codec : "wav", "rf64", "flac", "mov", ...; "pcm", "flac", "aac", ...
    n_samples : samples per channel; from the container's clock, thus approximate, if lossy.
    format : how samples are stored; None where a lossy codec has none.
    convention : "ambix", "n3d" or "fuma" if the file declares it.
    carrier : the channels' order where it is the container's own.
    start_s : time of the first sample in the container's own clock.
    n_alike : tracks of the file that have as many channels; the first of them is read.
    """

    path: Path
    container: str
    codec: str
    samplerate: int
    n_channels: int
    n_samples: int
    format: SampleFormat | None = None
    convention: str | None = None
    carrier: Carrier | None = None
    start_s: float = 0.0
    n_alike: int = 1

    @property
    def components(self) -> tuple[int, ...] | None:
        """File channel of each ACN component, where that is a carrier's order."""
        return self.carrier.components if self.carrier else None

    @property
    def duration_s(self) -> float:
        """Length of the track."""
        return self.n_samples / self.samplerate


class AudioReader(ABC):
    """An open track. `info` holds its facts; times count from its first sample.

    note : what is to be told of it, if anything.
    """

    info: AudioInfo
    note: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    @abstractmethod
    def read(self, first: int, count: int) -> FloatArray:
        """Samples [first, first + count), [shape=(n_channels, N)], float64, full scale 1.0.

        N is smaller where the track ends.

        Raises
        ------
        MediaError : this stretch cannot be decoded.
        """

    def blocks(self, size: int) -> Iterator[FloatArray]:
        """The whole track from its beginning in blocks of at most `size` samples."""
        for first in range(0, self.info.n_samples, size):
            yield self.read(first, size)


def open_audio(path: Path) -> AudioReader:
    """Open a track: a sound file, or the (best suited) sound of a container.

    Raises
    ------
    MediaError : missing, empty, damaged, or without sound.
    UnsupportedMedia : a kind of file or a codec that is not read.
    """
    check_readable(path)
    with reading(path), path.open("rb") as file:
        head, pcm = file.read(42), read_pcm_file(path)
        if pcm is not None:
            return PcmReader(pcm)
    # An AVI video is a RIFF file too.
    if head[:4] in (b"RIFF", b"riff", b"FORM", b"caff") and head[8:12] != b"AVI ":
        return SoundFileReader(path)
    if head[:4] in (b".snd", b"dns."):
        raise UnsupportedMedia(f"{path} is AU sound, which is not read: convert it to WAV or FLAC.")
    if head[:4] == b"fLaC" and (len(head) < 42 or flac_bits(head[8:]) in LIBSNDFILE_BITS):
        return SoundFileReader(path)
    return ContainerReader(path)


class PcmReader(AudioReader):
    """Uncompressed sound, read as stored."""

    def __init__(self, pcm: PcmFile) -> None:
        self._pcm = pcm
        self._file = pcm.path.open("rb")
        self.info = AudioInfo(
            path=pcm.path,
            container=pcm.container,
            codec="pcm",
            samplerate=pcm.samplerate,
            n_channels=pcm.n_channels,
            n_samples=pcm.n_samples,
            format=pcm.format,
            convention=pcm.convention,
        )
        if pcm.missing >= pcm.frame_size:
            missing_s = pcm.missing / pcm.frame_size / pcm.samplerate
            self.note = (
                f"{pcm.path.name} breaks off at {self.info.duration_s:.2f} s, though its header "
                f"tells of another {missing_s:.2f} s: it is cut short, or was not copied whole."
            )

    def close(self) -> None:
        self._file.close()

    def read(self, first: int, count: int) -> FloatArray:
        count = max(0, min(count, self.info.n_samples - first))
        buffer = SampleBuffer(self._pcm.format, self.info.n_channels, count)
        with reading(self.info.path):
            self._file.seek(self._pcm.data_offset + first * self._pcm.frame_size)
            if buffer.fill(self._file, count) < count:
                raise cut_short(self.info.path)
        return buffer.channels()


class SoundFileReader(AudioReader):
    """FLAC and the compressed WAV, AIFF and CAF codecs, by libsndfile."""

    _BITS = {  # noqa: RUF012 - a constant
        "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24,
        "ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24, "ALAC_32": 32,
    }  # fmt: skip

    def __init__(self, path: Path) -> None:
        try:
            self._file = soundfile.SoundFile(path)
        except soundfile.LibsndfileError as error:
            raise MediaError(
                f"{path} cannot be read as sound ({error.error_string.rstrip('.')}): it is "
                "damaged or of another kind."
            ) from error
        bits = self._BITS.get(self._file.subtype)
        if self._file.frames > _MOST_SAMPLES:
            self._file.close()
            raise _endless(path)
        self.info = AudioInfo(
            path=path,
            container=self._file.format.lower(),
            codec="flac" if self._file.format == "FLAC" else self._file.subtype.lower(),
            samplerate=self._file.samplerate,
            n_channels=self._file.channels,
            n_samples=self._file.frames,
            format=SampleFormat("signed", (bits + 7) // 8, bits) if bits else None,
        )

    def close(self) -> None:
        self._file.close()

    def read(self, first: int, count: int) -> FloatArray:
        try:
            self._file.seek(min(first, self.info.n_samples))
            block = self._file.read(count, dtype="float64", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise MediaError(
                f"{self.info.path} cannot be decoded at {first / self.info.samplerate:.1f} s "
                f"({error.error_string.rstrip('.')})."
            ) from error
        return np.ascontiguousarray(block.T)


class ContainerReader(AudioReader):
    """The sound of a container (mp4, mov, mkv, webm, ogg, opus, ...), by FFmpeg."""

    def __init__(self, path: Path) -> None:
        with ExitStack() as stack:
            self._container = stack.enter_context(open_container(path))
            stream = sound_of(self._container)
            if stream is None:
                raise NoSound(f"{path} has no sound: name the ambisonic track's own file.")
            self._stream = stream
            allow_decoding(path, self._stream)
            self.info = self._facts(path)
            if self.info.codec == "flac" and self.info.n_samples == 0:
                raise _endless(path)
            notes = [self._heed_declared()]
            if self._is_youtubes():
                self.info = replace(self.info, convention="ambix", carrier=YOUTUBE_51)
            if self.info.n_alike > 1:
                notes.append(
                    f"{path.name} holds {self.info.n_alike} tracks of {self.info.n_channels} "
                    "channels, of which the first is read."
                )
            self.note = " ".join(filter(None, notes)) or None
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def _facts(self, path: Path) -> AudioInfo:
        stream, every = self._stream, self._container.streams.audio
        start_s = float((stream.start_time or 0) * (stream.time_base or 0))
        return AudioInfo(
            path=path,
            container=self._container.format.name.split(",")[0],
            codec=stream.codec_context.name,
            samplerate=stream.rate,
            n_channels=stream.channels,
            n_samples=round(length_s(self._container, stream) * stream.rate),
            format=stored_format(stream),
            # FFmpeg names a layout so from an Opus mapping family (ACN, SN3D).
            convention="ambix" if stream.layout.name.startswith("ambisonic") else None,
            start_s=start_s,
            n_alike=sum(other.channels == stream.channels for other in every),
        )

    def _heed_declared(self) -> str | None:
        """Take over what the file declares of its order; what is to be told of that."""
        path, n_channels = self.info.path, self.info.n_channels
        with reading(path):
            declared = read_declared(path, self._stream.id, n_channels)
        convention = declared.convention or self.info.convention
        self.info = replace(self.info, convention=convention, carrier=declared.carrier)
        return declared.note

    def _is_youtubes(self) -> bool:
        """Whether this is YouTube's 5.1 AAC, told by its two silent channels."""
        if (self.info.codec, self._stream.layout.name) != ("aac", "5.1"):
            return False
        start = self.read(0, 10 * self.info.samplerate)
        peaks = np.abs(start).max(axis=1, initial=0.0)
        threshold = peaks.max() * 10 ** (_SILENT_DB / 20)
        silent = all(peaks[channel] <= threshold for channel in _YOUTUBE_51_SILENT)
        return bool(peaks.max() > 0) and silent

    def read(self, first: int, count: int) -> FloatArray:
        parts: list[FloatArray] = [np.empty((self.info.n_channels, 0))]
        missing = count
        with closing(self._samples_from(first)) as blocks:
            for block in blocks:
                parts.append(block[:, :missing])
                missing -= parts[-1].shape[1]
                if missing <= 0:
                    break
        return np.concatenate(parts, axis=1)

    def blocks(self, size: int) -> Iterator[FloatArray]:
        held: list[FloatArray] = []
        n_held = 0
        with closing(self._samples_from(0)) as blocks:
            for block in blocks:
                held.append(block)
                n_held += block.shape[1]
                if n_held >= size:
                    joined = np.concatenate(held, axis=1)
                    whole = n_held - n_held % size
                    for at in range(0, whole, size):
                        yield joined[:, at : at + size]
                    held, n_held = [joined[:, whole:]], n_held - whole
        if n_held:
            yield np.concatenate(held, axis=1)

    def _samples_from(self, first: int) -> Generator[FloatArray]:
        """Blocks [shape=(n_channels, N)] from a sample on, each where the last one ended.

        Where the container has a hole there is silence, so that all after it stays in time.
        """
        rate, reached = self.info.samplerate, first
        with closing(self._decode_from(max(0.0, first / rate - _PREROLL_S))) as decoded:
            for at, block in decoded:
                ends = min(at, self.info.n_samples)
                for hole in range(reached, ends, rate):
                    yield np.zeros((self.info.n_channels, min(rate, ends - hole)))
                reached = max(reached, ends)
                part = block[:, max(0, reached - at) :]
                reached += part.shape[1]
                yield part

    def _decode_from(self, start_s: float) -> Generator[tuple[int, FloatArray]]:
        """Decoded blocks [shape=(n_channels, N)] with the place of their first sample."""
        ticks_per_s = 1 / float(self._stream.time_base or 1)
        # Planar frames of 8 and more channels crash PyAV's to_ndarray; interleaving is not a remix.
        interleave = av.AudioResampler(
            format=self._stream.format.packed, layout=self._stream.layout, rate=self._stream.rate
        )
        expected: int | None = None
        try:
            self._container.seek(
                int((self.info.start_s + start_s) * ticks_per_s), stream=self._stream, backward=True
            )
            for frame in self._container.decode(self._stream):
                at = round((float(frame.time or 0.0) - self.info.start_s) * self.info.samplerate)
                # Clocks of milliseconds (Matroska) are coarser than samples: only jumps count.
                if expected is None or abs(at - expected) > self.info.samplerate // 20:
                    expected = at
                for packed in interleave.resample(frame):
                    block = self._as_numbers(packed)
                    if expected + block.shape[1] > 0:
                        yield max(0, expected), block[:, max(0, -expected) :]
                    expected += block.shape[1]
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(
                f"The sound of {self.info.path} cannot be decoded at {start_s:.1f} s "
                f"({reason(error)})."
            ) from error

    def _as_numbers(self, frame: av.AudioFrame) -> FloatArray:
        samples = frame.to_ndarray().reshape(-1, self.info.n_channels).T
        numbers: FloatArray = samples.astype(np.float64)
        if samples.dtype.kind != "f":
            zero = 2.0 ** (8 * samples.dtype.itemsize - 1)
            numbers = numbers / zero - (1.0 if samples.dtype.kind == "u" else 0.0)
        if self.info.codec == "vorbis" and self.info.n_channels in _VORBIS_ORDER:
            coded = np.empty_like(numbers)
            coded[list(_VORBIS_ORDER[self.info.n_channels])] = numbers
            return coded
        return np.ascontiguousarray(numbers)


def _endless(path: Path) -> MediaError:
    return MediaError(
        f"{path} does not say how long it is, as FLAC that was written to a pipe: encode it again "
        "into a file."
    )
