"""Where the samples lie in files of uncompressed sound, and what surrounds them.

An uncompressed file is a head, interleaved samples, and a tail. Knowing the three is enough to
correct the sound and keep everything else to the byte: whatever a recorder or an editor wrote
around the samples is copied, understood or not.

Read here: WAV and WAVEX, RF64 and BW64 (EBU Tech 3306, ITU-R BS.2088), `.amb` (WAVEX with an
ambisonic sub-format), Sony W64, AIFF and AIFC, Apple CAF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model.errors import MediaError
from model.media.declared import CONVENTION_OF_TAG
from model.media.samples import Encoding, SampleFormat

_WAVE_PCM, _WAVE_FLOAT, _WAVE_EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
# The WAVEX sub-format of ".amb" files after its first two bytes (Dobson): always FuMa.
AMB_SUBFORMAT_TAIL = bytes.fromhex("00002107d3118644c8c1ca000000")
_UNKNOWN_SIZE = 0xFFFFFFFF
# What is declared where nobody knows yet how long it gets: by sox, by arecord.
_PLACEHOLDERS = (0x7FFFF000, 0x7FFFFFFF, 0x80000000)
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
# Beyond it a rate is no rate: 64 x DSD is 2.8 MHz.
_MAX_RATE_HZ = 10_000_000


@dataclass(frozen=True)
class Chunk:
    """A chunk of a RIFF file: name, and where its payload lies.

    Attributes
    ----------
    missing : bytes that its header tells of beyond the end of the file.
    """

    name: bytes
    offset: int
    size: int
    missing: int = 0


@dataclass(frozen=True)
class PcmFile:
    """An uncompressed sound file.

    Attributes
    ----------
    container : "wav", "rf64", "bw64", "w64", "aiff" or "caf".
    data_offset, data_size : the samples, in bytes; whole frames only.
    missing : bytes of samples that the header tells of beyond the end of the file.
    convention : "fuma", "ambix" or "n3d" where the file declares it.
    chunks : of a RIFF file, in file order; empty for the others.
    peaks : of the others: where chunks about the samples' peaks lie, offset and size of each whole.
    """

    path: Path
    container: str
    format: SampleFormat
    samplerate: int
    n_channels: int
    data_offset: int
    data_size: int
    missing: int = 0
    convention: str | None = None
    chunks: tuple[Chunk, ...] = ()
    peaks: tuple[tuple[int, int], ...] = ()

    @property
    def frame_size(self) -> int:
        """Bytes of one sample of every channel."""
        return self.n_channels * self.format.width

    @property
    def n_samples(self) -> int:
        """Samples per channel."""
        return self.data_size // self.frame_size


def read_pcm_file(path: Path) -> PcmFile | None:
    """Describe an uncompressed file; None if `path` is of another kind or compressed inside.

    Raises
    ------
    MediaError : the file breaks off before its samples.
    """
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0, 2)
        length = file.tell()
        file.seek(0)
        try:
            if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
                return _read_riff(path, file, length)
            if head == _W64_RIFF:
                return _read_w64(path, file, length)
            if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
                return _read_aiff(path, file, length)
            if head[:4] == b"caff":
                return _read_caf(path, file, length)
        except (struct.error, IndexError, ZeroDivisionError) as error:
            raise MediaError(f"{path} breaks off inside its header: it is damaged.") from error
    return None


def _build(
    path: Path,
    container: str,
    sample_format: SampleFormat | None,
    samplerate: float,
    n_channels: int,
    data: tuple[int, int, int] | None,
    *,
    declared_frame: int,
    convention: str | None = None,
    chunks: tuple[Chunk, ...] = (),
    peaks: Sequence[tuple[int, int]] = (),
) -> PcmFile | None:
    """The file that was found; None if its samples are compressed.

    data : where the samples lie, how many bytes of them there are, and how many are missing.
    declared_frame : bytes of a sample of all channels as the header says; 0 where it does not.
    """
    if sample_format is None:
        return None
    for width in range(sample_format.width + 1, 9):
        if n_channels and declared_frame == n_channels * width:
            raise MediaError(
                f"{path} declares {sample_format.bits} bits in {width} bytes a sample, of which "
                "readers make different things: save it anew as WAV of 24 or 32 bits."
            )
    if data is None:
        raise MediaError(f"{path} has no sound data: it is damaged or incomplete.")
    offset, size, missing = data
    size -= size % (n_channels * sample_format.width)
    if size <= 0:
        raise MediaError(f"{path} has no sound data: not one sample of all {n_channels} channels.")
    if not 1 <= samplerate <= _MAX_RATE_HZ:
        raise MediaError(f"{path} declares a sample rate of {samplerate:g} Hz: it is damaged.")
    return PcmFile(
        path, container, sample_format, round(samplerate), n_channels, offset, size,
        missing, convention, chunks, tuple(peaks),
    )  # fmt: skip


# --- WAV, WAVEX, RF64, BW64 ----------------------------------------------------------------------


def _read_riff(path: Path, file: BinaryIO, length: int) -> PcmFile | None:
    container = {b"RIFF": "wav", b"RF64": "rf64", b"BW64": "bw64"}[file.read(12)[:4]]
    chunks = tuple(_riff_chunks(file, length))
    payload = {
        chunk.name: _payload(file, chunk)
        for chunk in chunks
        if chunk.name in (b"fmt ", b"axml") and chunk.size < 1 << 24
    }
    if b"fmt " not in payload:
        raise MediaError(f"{path} has no format chunk: it is damaged or incomplete.")
    sample_format, is_amb = _wave_format(payload[b"fmt "])
    n_channels, samplerate, _, frame = struct.unpack_from("<HIIH", payload[b"fmt "], 2)
    data = next(((c.offset, c.size, c.missing) for c in chunks if c.name == b"data"), None)
    convention = "fuma" if is_amb or path.suffix.lower() == ".amb" else None
    if convention is None and b"axml" in payload:
        convention = _adm_convention(payload[b"axml"])
    return _build(
        path, container, sample_format, samplerate, n_channels, data,
        declared_frame=frame, convention=convention, chunks=chunks,
    )  # fmt: skip


def _riff_chunks(file: BinaryIO, length: int) -> Iterator[Chunk]:
    """The chunks of a RIFF file whose 12-byte head has been read; sizes are the true ones."""
    sizes_64: dict[bytes, int] = {}
    at, found = 12, False
    while at + 8 <= length:
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        found |= name == b"data"
        if _is_filling(name, found):
            return
        if name == b"ds64":
            sizes_64 = _ds64(file.read(min(size, 1 << 16)))
        if size == _UNKNOWN_SIZE or (name == b"data" and size == 0 and b"data" in sizes_64):
            size = sizes_64.get(name, length - at - 8)
        elif name == b"data" and size == 0:
            size = length - at - 8  # a recorder that never came back to fill it in
        there = min(size, length - at - 8)
        yield Chunk(name, at + 8, there, 0 if size in _PLACEHOLDERS else size - there)
        at, size = at + 8 + there, there
        if size % 2 and not _is_unpadded(file, at, length):
            at += 1


def _is_filling(name: bytes, found: bool) -> bool:
    """Whether there are no more chunks, once the samples are found: what fills a file up is zero.

    Recorders and file systems reserve space in large pieces, of which eight bytes at a time would
    make chunks without end.
    """
    return found and not any(name)


def _is_unpadded(file: BinaryIO, at: int, length: int) -> bool:
    """Whether a chunk begins right behind one of odd size, as some recorders write it.

    Behind a padding byte, which is zero as a rule, there would be a name and a size as well.
    """
    file.seek(at)
    head = file.read(9)

    def is_chunk(start: int) -> bool:
        name, size = struct.unpack_from("<4sI", head, start)
        fits = at + start + 8 + size <= length or size == _UNKNOWN_SIZE
        return fits and all(32 <= byte < 127 for byte in name)

    return len(head) >= 8 and is_chunk(0) and not (len(head) == 9 and is_chunk(1))


def _ds64(payload: bytes) -> dict[bytes, int]:
    """The 64-bit sizes of chunks, by name."""
    _, data_size, _, n_entries = struct.unpack_from("<3QI", payload)
    sizes = {b"data": data_size}
    for index in range(n_entries):
        name, size = struct.unpack_from("<4sQ", payload, 28 + 12 * index)
        sizes[name] = size
    return sizes


def _payload(file: BinaryIO, chunk: Chunk) -> bytes:
    file.seek(chunk.offset)
    return file.read(chunk.size)


def _wave_format(fmt: bytes) -> tuple[SampleFormat | None, bool]:
    """Sample format of a `fmt ` chunk (None: compressed), and whether it says ambisonic."""
    tag, _, _, _, _, bits = struct.unpack_from("<HHIIHH", fmt)
    valid_bits, is_amb = bits, False
    if tag == _WAVE_EXTENSIBLE:
        valid_bits = struct.unpack_from("<H", fmt, 18)[0] or bits
        tag = struct.unpack_from("<H", fmt, 24)[0]
        is_amb = fmt[26:40] == AMB_SUBFORMAT_TAIL
    width = (bits + 7) // 8
    if tag == _WAVE_FLOAT and bits in (32, 64):
        return SampleFormat("float", width, bits), is_amb
    if tag == _WAVE_PCM and 8 <= bits <= 32:
        valid_bits = min(valid_bits, bits)
        return SampleFormat("unsigned" if bits == 8 else "signed", width, valid_bits), is_amb
    return None, is_amb


def _adm_convention(axml: bytes) -> str | None:
    """Normalisation that an ADM document (BS.2076) declares for its HOA blocks."""
    for name in (b"SN3D", b"N3D", b"FuMa"):
        if b"<normalization>" + name in axml:
            return {b"SN3D": "ambix", b"N3D": "n3d", b"FuMa": "fuma"}[name]
    return None


# --- W64, AIFF, CAF ------------------------------------------------------------------------------


def _read_w64(path: Path, file: BinaryIO, length: int) -> PcmFile | None:
    sample_format, rate, n_channels, frame, data, peaks = None, 0, 0, 0, None, []
    at = 40
    while at + 24 <= length:
        file.seek(at)
        guid, size = struct.unpack("<16sQ", file.read(24))
        if _is_filling(guid, data is not None):
            break
        size = max(24, size)
        if guid == b"fmt " + _W64_TAIL:
            fmt = file.read(min(size, 4096) - 24)
            sample_format, _ = _wave_format(fmt)
            n_channels, rate, _, frame = struct.unpack_from("<HIIH", fmt, 2)
        elif guid == b"data" + _W64_TAIL:
            there = min(size, length - at)
            data = (at + 24, there - 24, size - there)
        elif guid == b"levl" + _W64_TAIL:
            peaks.append((at, (size + 7) // 8 * 8))
        at += (size + 7) // 8 * 8
    return _build(
        path, "w64", sample_format, rate, n_channels, data, declared_frame=frame, peaks=peaks
    )


def _read_aiff(path: Path, file: BinaryIO, length: int) -> PcmFile | None:
    sample_format, rate, n_channels, data, peaks = None, 0.0, 0, None, []
    at = 12
    while at + 8 <= length:
        file.seek(at)
        name, size = struct.unpack(">4sI", file.read(8))
        if _is_filling(name, data is not None):
            break
        if name == b"COMM":
            comm = file.read(size)
            n_channels, _, bits = struct.unpack_from(">hIh", comm)
            rate = _extended_float(comm[8:18])
            sample_format = _aiff_format(comm[18:22] or b"NONE", bits)
        elif name == b"SSND":
            skip = struct.unpack(">I", file.read(4))[0]
            there = min(size, length - at - 8)
            data = (at + 16 + skip, there - 8 - skip, size - there)
        elif name == b"PEAK":
            peaks.append((at, 8 + size + size % 2))
        at += 8 + size + size % 2
    return _build(
        path, "aiff", sample_format, rate, n_channels, data, declared_frame=0, peaks=peaks
    )


def _aiff_format(compression: bytes, bits: int) -> SampleFormat | None:
    width = (bits + 7) // 8
    if compression in (b"NONE", b"twos", b"in24", b"in32"):
        return SampleFormat("signed", width, bits, big_endian=True)
    if compression in (b"sowt", b"42ni", b"23ni", b"42n1", b"23n1"):
        return SampleFormat("signed", width, bits)
    floats = {b"fl32": 4, b"FL32": 4, b"fl64": 8, b"FL64": 8}
    if compression in floats:
        return SampleFormat("float", floats[compression], 8 * floats[compression], big_endian=True)
    return None


def _extended_float(data: bytes) -> float:
    """An 80-bit IEEE 754 number."""
    exponent, mantissa = struct.unpack(">HQ", data)
    return float(mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63))


def _read_caf(path: Path, file: BinaryIO, length: int) -> PcmFile | None:
    sample_format, rate, n_channels, frame, data, convention = None, 0.0, 0, 0, None, None
    peaks = []
    at = 8
    while at + 12 <= length:
        file.seek(at)
        name, size = struct.unpack(">4sq", file.read(12))
        if _is_filling(name, data is not None):
            break
        size = length - at - 12 if size < 0 else size  # -1: to the end of the file
        if name == b"desc":
            rate, codec, flags, frame, _, n_channels, bits = struct.unpack(">d4s5I", file.read(32))
            if codec == b"lpcm":
                encoding: Encoding = "float" if flags & 1 else "signed"
                width = (bits + 7) // 8
                sample_format = SampleFormat(encoding, width, bits, big_endian=not flags & 2)
        elif name == b"chan":
            tag = struct.unpack(">I", file.read(4))[0] >> 16
            convention = CONVENTION_OF_TAG.get(tag)
        elif name == b"data":
            there = min(size, length - at - 12)
            data = (at + 16, there - 4, size - there)  # after an edit count
        elif name in (b"peak", b"ovvw"):  # the latter are the samples' peaks as they are drawn
            peaks.append((at, 12 + size))
        at += 12 + size
    return _build(
        path, "caf", sample_format, rate, n_channels, data,
        declared_frame=frame, convention=convention, peaks=peaks,
    )  # fmt: skip
