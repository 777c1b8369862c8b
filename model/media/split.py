"""A track whose channels are spread over several files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import OptionError
from model.media.audio import AudioInfo, AudioReader, open_audio
from model.media.samples import common_format

FloatArray = NDArray[np.floating]

_WORTH_TELLING_S = 0.01  # of parts that end apart; lossy ones tell so roughly


def open_split_audio(paths: Sequence[Path]) -> AudioReader:
    """Open one track whose channels are spread over several files, in the order given.

    Raises
    ------
    OptionError : the files differ in sample rate.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(open_audio(path)) for path in paths]
        reader = readers[0] if len(readers) == 1 else JoinedReader(readers)
        stack.pop_all()
    return reader


class JoinedReader(AudioReader):
    """Channels of several files, one file's after the other's, as one track."""

    def __init__(self, readers: Sequence[AudioReader]) -> None:
        self._readers = readers
        infos = [reader.info for reader in readers]
        first = infos[0]
        for info in infos[1:]:
            if info.samplerate != first.samplerate:
                raise OptionError(
                    f"{first.path} runs at {first.samplerate} Hz and {info.path} at "
                    f"{info.samplerate} Hz: files of one split track must share a rate."
                )
        self.note = next((reader.note for reader in readers if reader.note), None)
        shortest, longest = (way(infos, key=lambda info: info.duration_s) for way in (min, max))
        if longest.duration_s - shortest.duration_s > _WORTH_TELLING_S:
            self.note = (
                f"The track ends where {shortest.path.name} does, though {longest.path.name} goes "
                f"on for another {longest.duration_s - shortest.duration_s:.2f} s."
            )
        self.info = AudioInfo(
            path=first.path,
            container=first.container,
            codec=first.codec,
            samplerate=first.samplerate,
            n_channels=sum(info.n_channels for info in infos),
            n_samples=min(info.n_samples for info in infos),
            format=common_format([info.format for info in infos]),
            convention=first.convention,
            start_s=first.start_s,
        )

    def close(self) -> None:
        for reader in self._readers:
            reader.close()

    def read(self, first: int, count: int) -> FloatArray:
        parts = [reader.read(first, count) for reader in self._readers]
        shortest = min(part.shape[1] for part in parts)
        return np.concatenate([part[:, :shortest] for part in parts])

    def blocks(self, size: int) -> Iterator[FloatArray]:
        for parts in zip(*(reader.blocks(size) for reader in self._readers), strict=False):
            shortest = min(part.shape[1] for part in parts)
            yield np.concatenate([part[:, :shortest] for part in parts])
