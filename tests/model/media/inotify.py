"""Whether anybody opens a file: the kernel's word (inotify)."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

_IN_ACCESS, _IN_OPEN, _NONBLOCK = 0x1, 0x20, 0o4000


class Watch:
    """Counts opens and reads of a file, by any process, from its start on."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(_NONBLOCK)
        added = libc.inotify_add_watch(self._handle, os.fsencode(path), _IN_ACCESS | _IN_OPEN)
        if self._handle < 0 or added < 0:
            raise OSError(ctypes.get_errno(), f"{path} cannot be watched")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        os.close(self._handle)

    def count(self) -> int:
        """Events since it was asked last."""
        number = 0
        while True:
            try:
                data = os.read(self._handle, 1 << 16)
            except BlockingIOError:
                return number
            while data:
                _, _, _, length = struct.unpack_from("iIII", data)
                data, number = data[16 + length :], number + 1
