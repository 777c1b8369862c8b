"""What is written around samples: copied from an input, or made new (RIFF files only).

EBU Tech 3285 (`bext`), EBU Tech 3306 (RF64), ITU-R BS.2088 (BW64).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

from model.media.pcm import AMB_SUBFORMAT_TAIL, Chunk, PcmFile
from model.media.samples import SampleFormat

# A stretch of the output: bytes, or (offset, size) of the input to copy.
Piece = bytes | tuple[int, int]

_MAX_32 = 0xFFFFFFFF
# Chunks that describe the old samples' peaks, or are a checksum of them (BWF MetaEdit): optional,
# and wrong once samples change.
_STALE = (b"PEAK", b"levl", b"MD5 ")
_BEXT_FIXED_SIZE = 602
# Of `bext`: its version, and from version 2 on loudness and true peak, which may be left unsaid.
_BEXT_VERSION_AT, _BEXT_LOUDNESS_AT = 346, 412
_UNSAID_LOUDNESS = struct.pack("<5H", *5 * (0x7FFF,))
# Where documents tell how wide samples are: iXML, and ADM of its tracks (BS.2076).
_WIDTH_TOLD = {
    b"iXML": re.compile(rb"(<AUDIO_BIT_DEPTH>\s*)\d+"),
    b"axml": re.compile(rb"(\bbitDepth\s*=\s*[\"'])\d+"),
}
_EXTENSIBLE = 0xFFFE
_WAVE_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_DS64_SIZE = 28
# Where files of other kinds say how long they are, and how; CAF does not.
_SIZE_OF_ALL = {"aiff": (4, ">I"), "w64": (16, "<Q")}


def around_data(
    pcm: PcmFile, history: str, stored: SampleFormat
) -> tuple[list[Piece], list[Piece]]:
    """What stands before and after the samples of a corrected WAV, RF64 or BW64 file.

    All chunks in their order, to the byte, but: `bext` gains `history` as a line of its
    CodingHistory, and says no loudness any more; sizes are set right; chunks that hold peaks or a
    checksum are dropped; a file that grows over 4 GB becomes RF64; where the samples are `stored`
    in another format, `fmt `, `fact`, iXML and ADM say so. Bytes after the last chunk stay there.
    """
    other = stored != pcm.format
    data = next(chunk for chunk in pcm.chunks if chunk.name == b"data")
    # After the samples: bytes of a last, incomplete frame.
    rest: Piece = b"" if other else (pcm.data_offset + pcm.data_size, data.size - pcm.data_size)
    bodies = _bodies(pcm, data, history, stored if other else None)
    data_size = pcm.n_samples * pcm.n_channels * stored.width + _piece_size(rest)
    sizes = [data_size if body is None else sum(map(_piece_size, body)) for _, body in bodies]
    total = 4 + sum(8 + size + size % 2 for size in sizes)
    is_64 = pcm.container != "wav" or total > _MAX_32
    head: list[Piece] = []
    if is_64:
        total += 8 + _DS64_SIZE
        magic = b"BW64" if pcm.container == "bw64" else b"RF64"
        head.append(struct.pack("<4sI4s", magic, _MAX_32, b"WAVE"))
        head.append(_ds64(total, data_size, pcm.n_samples))
    else:
        head.append(struct.pack("<4sI4s", b"RIFF", total, b"WAVE"))
    tail: list[Piece] = []
    side = head
    for (name, body), size in zip(bodies, sizes, strict=True):
        side.append(struct.pack("<4sI", name, _MAX_32 if body is None and is_64 else size))
        if body is None:
            side = tail
        side.extend([rest] if body is None else body)
        side.append(b"\0" * (size % 2))
    return head, [*tail, _stray(pcm)]


def _stray(pcm: PcmFile) -> Piece:
    """What follows the last chunk and is none: too short, or as if it went on beyond the end."""
    last = pcm.chunks[-1]
    if _is_torn(last):
        return (last.offset - 8, last.size + 8)
    end = last.offset + last.size + last.size % 2
    return (end, max(0, pcm.path.stat().st_size - end))


def _is_torn(chunk: Chunk) -> bool:
    """Whether the file ends within a chunk, or what was read as one is none."""
    return chunk.missing > 0 and chunk.name not in (b"data", *_STALE)


def without_peaks(pcm: PcmFile) -> tuple[list[Piece], list[Piece]]:
    """What stands before and after the samples of a corrected file that is no RIFF file.

    All to the byte, but: chunks that hold peaks are dropped, and the size of all is set right.
    """
    start = b""
    if pcm.peaks and pcm.container in _SIZE_OF_ALL:
        at, form = _SIZE_OF_ALL[pcm.container]
        with pcm.path.open("rb") as file:
            start = file.read(at + struct.calcsize(form))
        size = struct.unpack_from(form, start, at)[0] - sum(size for _, size in pcm.peaks)
        start = start[:at] + struct.pack(form, max(0, size))

    def kept(first: int, last: int) -> Iterator[Piece]:
        for offset, size in pcm.peaks:
            if first <= offset < last:
                yield (first, offset - first)
                first = min(last, offset + size)
        yield (first, last - first)

    after = pcm.data_offset + pcm.data_size
    head = [start, *kept(len(start), pcm.data_offset)]
    return head, list(kept(after, pcm.path.stat().st_size))


def _bodies(
    pcm: PcmFile, data: Chunk, history: str, stored: SampleFormat | None
) -> list[tuple[bytes, list[Piece] | None]]:
    """Name and content of the chunks to write, in order; None for that of the samples, `data`.

    stored : the samples' new format; None if they keep theirs.
    """
    bodies: list[tuple[bytes, list[Piece] | None]] = []
    for chunk in pcm.chunks:
        name = chunk.name
        if name in (*_STALE, b"ds64") or (stored and name == b"fact") or _is_torn(chunk):
            continue
        bodies.append((name, None if chunk is data else _body(pcm, chunk, history, stored)))
        if stored and name == b"fmt ":
            bodies[-1] = (name, [_restored_fmt(pcm, chunk, stored)])
            # Every format but PCM has one (Multimedia Data Standards Update, 1994).
            bodies.append((b"fact", [struct.pack("<I", min(pcm.n_samples, _MAX_32))]))
    return bodies


def _restored_fmt(pcm: PcmFile, chunk: Chunk, stored: SampleFormat) -> bytes:
    """A `fmt ` chunk's content with another sample format; speakers and sub-format's kind stay."""
    with pcm.path.open("rb") as file:
        file.seek(chunk.offset)
        fmt = file.read(chunk.size)
    tag = _tag(stored)
    frame_size = pcm.n_channels * stored.width
    rates = (pcm.n_channels, pcm.samplerate, pcm.samplerate * frame_size, frame_size)
    if len(fmt) >= 40 and fmt[:2] == struct.pack("<H", _EXTENSIBLE):
        start = struct.pack("<HHIIHHHH", _EXTENSIBLE, *rates, 8 * stored.width, 22, stored.bits)
        return start + fmt[20:24] + struct.pack("<H", tag) + fmt[26:]
    return struct.pack("<HHIIHHH", tag, *rates, 8 * stored.width, 0)


def _body(pcm: PcmFile, chunk: Chunk, history: str, stored: SampleFormat | None) -> list[Piece]:
    if stored and chunk.name in _WIDTH_TOLD:
        with pcm.path.open("rb") as file:
            file.seek(chunk.offset)
            document = file.read(chunk.size)
        return [_WIDTH_TOLD[chunk.name].sub(rb"\g<1>%d" % stored.bits, document)]
    if chunk.name != b"bext" or chunk.size < _BEXT_FIXED_SIZE:
        return [(chunk.offset, chunk.size)]
    with pcm.path.open("rb") as file:
        file.seek(chunk.offset)
        fixed = file.read(_BEXT_FIXED_SIZE)
        lines = file.read(chunk.size - _BEXT_FIXED_SIZE)
    if int.from_bytes(fixed[_BEXT_VERSION_AT:][:2], "little") >= 2:
        # W keeps its loudness, but nobody knows which channels were counted, or how much.
        after = _BEXT_LOUDNESS_AT + len(_UNSAID_LOUDNESS)
        fixed = fixed[:_BEXT_LOUDNESS_AT] + _UNSAID_LOUDNESS + fixed[after:]
    if history:
        lines = lines.rstrip(b"\0")
        lines += b"\r\n" if lines and not lines.endswith(b"\r\n") else b""
        lines += history.encode("ascii", "replace") + b"\r\n"
    return [fixed, lines]


def _tag(stored: SampleFormat) -> int:
    """WAVE_FORMAT_IEEE_FLOAT or WAVE_FORMAT_PCM."""
    return 3 if stored.encoding == "float" else 1


def _piece_size(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece[1]


def _ds64(riff_size: int, data_size: int, n_samples: int) -> bytes:
    return struct.pack("<4sI3QI", b"ds64", _DS64_SIZE, riff_size, data_size, n_samples, 0)


def new_header(
    sample_format: SampleFormat,
    samplerate: int,
    n_channels: int,
    n_samples: int,
    *,
    amb: bool = False,
) -> bytes:
    """Header of a new WAV of discrete channels up to its samples; RF64 if it takes 64-bit sizes.

    amb : with the sub-format that says FuMa.

    A JUNK chunk holds the place of `ds64`, so the header's length does not depend on `n_samples`.
    """
    width = sample_format.width
    fmt = struct.pack(
        "<HHIIHHHHI", _EXTENSIBLE, n_channels, samplerate, samplerate * n_channels * width,
        n_channels * width, 8 * width, 22, sample_format.bits, 0,
    )  # fmt: skip
    fmt += struct.pack("<H", _tag(sample_format))
    fmt += AMB_SUBFORMAT_TAIL if amb else _WAVE_SUBFORMAT_TAIL
    chunks: Sequence[tuple[bytes, bytes]] = (
        (b"fmt ", fmt),
        (b"fact", struct.pack("<I", min(n_samples, _MAX_32))),
    )
    body = b"".join(struct.pack("<4sI", name, len(data)) + data for name, data in chunks)
    data_size = n_samples * n_channels * width
    total = 4 + 8 + _DS64_SIZE + len(body) + 8 + data_size + data_size % 2
    if total > _MAX_32:
        start = struct.pack("<4sI4s", b"RF64", _MAX_32, b"WAVE")
        place = _ds64(total, data_size, n_samples)
    else:
        start = struct.pack("<4sI4s", b"RIFF", total, b"WAVE")
        place = struct.pack("<4sI", b"JUNK", _DS64_SIZE) + bytes(_DS64_SIZE)
    return start + place + body + struct.pack("<4sI", b"data", min(data_size, _MAX_32))
