"""Uncompressed samples where they lie, in one piece or among a picture's frames in MP4 and MOV."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from model.errors import MediaError
from model.media.audio import AudioInfo
from model.media.container import open_container, sound_of
from model.media.pcm import PcmFile
from model.media.samples import SampleFormat


@dataclass(frozen=True)
class Laid:
    """Samples in a file.

    Attributes
    ----------
    places : offset of each run of samples, and how many they are, in the order of time.
    """

    path: Path
    format: SampleFormat
    samplerate: int
    n_channels: int
    places: Sequence[tuple[int, int]]

    @property
    def n_samples(self) -> int:
        """Samples per channel."""
        return sum(n for _, n in self.places)


def laid_in_one(pcm: PcmFile) -> Laid:
    """The samples of an uncompressed sound file."""
    places = [(pcm.data_offset, pcm.n_samples)]
    return Laid(pcm.path, pcm.format, pcm.samplerate, pcm.n_channels, places)


def is_embedded(info: AudioInfo) -> bool:
    """Whether a track's samples lie uncompressed in an MP4 or MOV, where they can be changed."""
    plain = re.fullmatch(r"pcm_([su](8|16|24|32)|f(32|64))(le|be)?", info.codec)
    return info.container == "mov" and plain is not None


def laid_among_frames(info: AudioInfo) -> Laid:
    """The samples of a track that `is_embedded`, found by reading all packets' places.

    Raises
    ------
    MediaError : they are not those that are read as the track, but for holes or an edit list.
    """
    form = info.format
    assert form is not None  # of what is uncompressed
    frame_size = info.n_channels * form.width
    places: list[tuple[int, int]] = []
    with open_container(info.path) as container:
        for packet in container.demux(sound_of(container)):
            if packet.size:
                n, odd = divmod(packet.size, frame_size)
                if odd or packet.pos is None or packet.pos < 0:
                    raise _elsewhere(info)
                places.append((packet.pos, n))
    overlap = any(at + n * frame_size > start for (at, n), (start, _) in pairwise(sorted(places)))
    laid = Laid(info.path, form, info.samplerate, info.n_channels, places)
    if overlap or laid.n_samples != info.n_samples:
        raise _elsewhere(info)
    return laid


def _elsewhere(info: AudioInfo) -> MediaError:
    return MediaError(
        f"The sound of {info.path} has holes or is edited, and cannot be changed where it lies: "
        "let a WAV be written (-o NAME.wav)."
    )
