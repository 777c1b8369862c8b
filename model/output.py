"""Results appear whole or not at all, and never in the place of an original."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import DiskFull, OptionError, OutputError

_PREFIX = 32  # characters, of four bytes at most each, where names may have 255


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` when the block ends well.

    After any exception nothing is left behind. An older file at `path` is replaced at the end.

    Raises
    ------
    OutputError, DiskFull : the folder cannot be written, or has no space left.
    """
    try:
        # Of the name only so much that a long one leaves room for the rest.
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name[:_PREFIX]}.", suffix=".part", dir=path.parent
        )
    except OSError as error:
        raise _output_error(path, error) from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def check_output(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse, before any work is done, a result that could not be written or would hurt an input.

    Raises
    ------
    OptionError : `path` is one of the inputs.
    OutputError, DiskFull : its folder does not exist or cannot be written.
    """
    try:
        exists = path.exists()  # fails where no file can have the name
        if exists and any(same_file(path, source) for source in inputs):
            raise OptionError(
                f"The output {path} is an input: originals are never overwritten; name another."
            )
        if path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a folder.")
        if exists and not path.is_file():
            raise OutputError(f"{path} cannot be written: it is no regular file, to be replaced.")
        with tempfile.NamedTemporaryFile(prefix=".", suffix=".part", dir=path.parent):
            pass
    except OSError as error:
        raise _output_error(path, error) from error


def same_file(path: Path, other: Path) -> bool:
    """Whether two names are one file's; not where one of them is nobody's, or out of reach."""
    try:
        return path.samefile(other)
    except OSError:
        return False


def _output_error(path: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"No space is left to write {path}; nothing was written.")
    return OutputError(f"{path} cannot be written: {error.strerror or error}.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
