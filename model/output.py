"""Results appear whole or not at all, and never in the place of an original."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from model.errors import DiskFull, OptionError, OutputError

# Gives the temporary name to write to in a path's place, for the length of a `with` block.
WholeFile = Callable[[Path], AbstractContextManager[Path]]
# How they begin.
JSON, PNG = b"{", b"\x89PNG\r\n\x1a\n"
_PREFIX = 32  # characters, of four bytes at most each, where names may have 255


class Together:
    """Files that appear together when its block ends well, or not at all.

    After any exception nothing is left behind. Older files are replaced at the end.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Path, Path]] = []

    def __enter__(self) -> Self:
        return self

    @contextmanager
    def file(self, path: Path) -> Iterator[Path]:
        """A temporary name beside `path` to write to; what is there at the end becomes `path`.

        Raises
        ------
        OutputError, DiskFull : the folder cannot be written, or has no space left.
        """
        # Of the name only so much that a long one leaves room for the rest.
        part = path.parent / f".{path.name[:_PREFIX]}.{secrets.token_hex(8)}.part"
        self._parts.append((part, path))  # first: a signal may come as soon as it is there
        try:
            part.touch(0o600, exist_ok=False)
            yield part
        except OSError as error:
            raise _output_error(path, error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._put_in_place()
        finally:
            for part, _ in self._parts:
                with suppress(OSError):  # perhaps it was never there
                    part.unlink()

    def _put_in_place(self) -> None:
        for part, path in self._parts:  # all, before any is put: a folder may have gone
            with writing(path):
                part.chmod(0o666 & ~_umask())
        for part, path in self._parts:
            with writing(path):
                part.replace(path)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` when the block ends well.

    After any exception nothing is left behind. An older file at `path` is replaced at the end.

    Raises
    ------
    OutputError, DiskFull : the folder cannot be written, or has no space left.
    """
    with Together() as one, one.file(path) as part:
        yield part


def check_output(path: Path, inputs: Iterable[Path], *, begins: bytes = b"") -> None:
    """Refuse, before any work is done, a result that could not be written or would hurt an input.

    begins : how files of its kind begin: what is there and begins otherwise is not replaced.

    Raises
    ------
    OptionError : `path` is one of the inputs, or a file of another kind.
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
        if exists and begins:
            with path.open("rb") as file:
                found = file.read(len(begins))
            if found and found != begins:
                raise OptionError(
                    f"The output {path} is there already, and not of the kind that would take its "
                    "place: name another."
                )
        with tempfile.NamedTemporaryFile(prefix=".", suffix=".part", dir=path.parent):
            pass
    except OSError as error:
        raise _output_error(path, error) from error


def check_folder(path: Path) -> None:
    """Refuse a folder for results that is not there.

    Raises
    ------
    OptionError, OutputError : it is not, or is out of reach.
    """
    with writing(path):
        if not path.is_dir():
            raise OptionError(f"The output folder {path} does not exist.")


def make_folder(path: Path) -> None:
    """Have a folder there, with those above it.

    Raises
    ------
    OutputError, DiskFull : it cannot be made.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses while `path` is written to, as our error.

    Raises
    ------
    OutputError, DiskFull : it does.
    """
    try:
        yield
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
