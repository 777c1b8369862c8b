"""Uploads that survive every cut: the length of the file on disk is the offset.

An upload is a folder `incoming/ID/` with `upload.json` (what its creator said; never changed) and
`data.part`, which becomes `data` when all of it has come. A lock on `upload.json` keeps two writers
apart, also across processes. While bytes are written whose checksum is not proven yet, the file
`unproven` holds the length to go back to if the process dies before it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from service.problems import Problem
from service.storage import Storage, StoredFile, full_disk_told, safe_suffix

# A power cut costs at most so much of what was sent; and the disk keeps pace with the sender.
_SYNC_BYTES = 64 << 20
_NO_UPLOAD = "There is no upload {}; one to which nothing is sent for a while is deleted."
# How long a writer waits for the one before it, whose connection may just have broken.
LOCK_WAIT_S = 3.0


@dataclass(frozen=True)
class Upload:
    """What is known of an upload.

    Attributes
    ----------
    length : bytes it will have; None while a body of unannounced length is coming in.
    offset : bytes that are there.
    sha256 : of the whole, where it was computed on the way.
    expires_at : when it is swept, seconds since 1970; later after every write.
    """

    id: str
    name: str
    owner: str
    length: int | None
    offset: int
    complete: bool
    sha256: str | None
    expires_at: float


@dataclass(frozen=True)
class _Facts:
    """What stands in `upload.json`."""

    name: str
    owner: str
    length: int | None


class UploadStore:
    """All uploads under one folder. Safe from any thread and any process that shares the disk.

    max_bytes : of one upload.
    ttl_s : an upload is swept so long after its last byte.
    """

    def __init__(self, data_dir: Path, storage: Storage, *, max_bytes: int, ttl_s: float) -> None:
        self._folder = data_dir / "incoming"
        self._storage = storage
        self._ttl_s = ttl_s
        self.max_bytes = max_bytes
        self._folder.mkdir(parents=True, exist_ok=True)

    def check_space(self, n_bytes: int) -> None:
        """Raise `DiskFull` if the disk cannot take so much more."""
        self._storage.check_space(n_bytes)

    def create(self, upload_id: str, *, name: str, owner: str, length: int | None) -> Upload:
        """Begin an upload. Once this returns, it can be resumed.

        Raises
        ------
        Problem : too long (413), or there is one of this id already (409).
        DiskFull : no space for it.
        """
        if (length or 0) > self.max_bytes:
            detail = f"The upload has {length} bytes; the limit is {self.max_bytes}."
            raise Problem(413, "too_large", detail)
        self._storage.check_space(length or 0)
        path = self._path(upload_id)
        # Of several at once that begin the same, the first to rename its own has it.
        building = self._folder / f".{upload_id}.{secrets.token_hex(4)}.new"
        try:
            with full_disk_told():
                self._folder.mkdir(exist_ok=True)  # whoever made room may have deleted it
                building.mkdir()
                facts = json.dumps(asdict(_Facts(name, owner, length)))
                _write_durably(building / "upload.json", facts)
                (building / ("data" if length == 0 else "data.part")).touch()
                building.rename(path)  # never replaces a folder that has files in it
                _sync_folder(self._folder)
        except OSError as error:
            if not path.exists():
                raise
            detail = f"There is an upload {upload_id} already."
            raise Problem(409, "upload_exists", detail) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return self.get(upload_id, owner=owner)

    def get(self, upload_id: str, *, owner: str) -> Upload:
        """What is known of an upload.

        Raises
        ------
        Problem : there is none of this id, or it is another owner's (404).
        """
        folder = self._path(upload_id)
        try:
            facts = _facts_of(folder)
            data, complete = _data_of(folder)
            # Bytes whose checksum is still being taken do not count.
            proven = _read_number(folder / "unproven")
        except FileNotFoundError as error:
            raise _unknown(upload_id) from error
        except (ValueError, TypeError) as error:
            detail = f"What is known of the upload {upload_id} is damaged: begin another."
            raise Problem(404, "upload_not_found", detail) from error
        if facts.owner != owner:
            raise _unknown(upload_id)
        return Upload(
            id=upload_id,
            name=facts.name,
            owner=facts.owner,
            length=facts.length if not complete else data.st_size,
            offset=data.st_size if proven is None else proven,
            complete=complete,
            sha256=_read_text(folder / "sha256"),
            expires_at=data.st_mtime + self._ttl_s,
        )

    @contextmanager
    def locked(
        self, upload_id: str, *, owner: str, wait_s: float = LOCK_WAIT_S
    ) -> Iterator[Upload]:
        """Hold an upload's lock, with what is known of it; wait for its holder for `wait_s`.

        What a writer that died has left is put in order first: unproven bytes are cut off, and an
        upload whose last byte has come is finished.

        Raises
        ------
        Problem : unknown (404), or another request holds the lock and keeps it (423).
        """
        self.get(upload_id, owner=owner)
        folder = self._path(upload_id)
        lock = _take(folder / "upload.json", upload_id, wait_s)
        try:
            proven = _read_number(folder / "unproven")
            if proven is not None:
                os.truncate(folder / "data.part", proven)
                (folder / "unproven").unlink()
            upload = self.get(upload_id, owner=owner)
            if not upload.complete and upload.offset == upload.length:
                _finish(folder)
                upload = self.get(upload_id, owner=owner)
            yield upload
        finally:
            os.close(lock)

    def writer(self, upload: Upload, *, check: Check | None = None) -> Writer:
        """Append to an upload whose lock is held."""
        limit = self.max_bytes if upload.length is None else upload.length
        return Writer(self._path(upload.id), self._storage, upload.offset, limit, check)

    def restart(self, upload: Upload) -> Upload:
        """Drop the bytes of an unfinished upload whose lock is held."""
        os.truncate(self._path(upload.id) / "data.part", 0)
        return replace(upload, offset=0)

    def delete(self, upload: Upload) -> None:
        """Forget an upload whose lock is held; jobs that have taken it keep its bytes."""
        gone = self._folder / f".{upload.id}.{secrets.token_hex(4)}.gone"
        self._path(upload.id).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def take(self, upload_id: str, folder: Path, stem: str, *, owner: str) -> StoredFile:
        """Put a finished upload's bytes into a job's folder, without a copy.

        A hard link: the job's file lives on when the upload is deleted or swept, and an upload may
        serve several jobs.

        Raises
        ------
        Problem : unknown (404), or not finished (409).
        """
        known = self.get(upload_id, owner=owner)
        if known.offset != known.length:  # its writer, who has the lock, need not be waited for
            raise _unfinished(known)
        with self.locked(upload_id, owner=owner) as upload:
            if not upload.complete:
                raise _unfinished(upload)
            path = folder / f"{stem}{safe_suffix(upload.name)}"
            with full_disk_told():
                folder.mkdir(parents=True, exist_ok=True)
                os.link(self._path(upload_id) / "data", path)
        return StoredFile(path, upload.name, upload.offset)

    def sweep(self) -> list[str]:
        """Delete what has expired, and what is left of processes that died; returns the ids."""
        swept = []
        for folder in self._folder.iterdir() if self._folder.exists() else ():
            with suppress(Problem, OSError):
                try:
                    owner = _facts_of(folder).owner
                    expired = self.get(folder.name, owner=owner).expires_at < time.time()
                except (ValueError, TypeError, FileNotFoundError, Problem):
                    # Half made, half deleted, or damaged: nobody can go on with it.
                    if folder.stat().st_mtime < time.time() - self._ttl_s:
                        shutil.rmtree(folder, ignore_errors=True)
                    continue
                if expired:
                    with self.locked(folder.name, owner=owner) as upload:
                        if upload.expires_at < time.time():
                            self.delete(upload)
                            swept.append(folder.name)
        return swept

    def _path(self, upload_id: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{32}", upload_id):
            raise _unknown(upload_id)
        return self._folder / upload_id


@dataclass(frozen=True)
class Check:
    """A digest to take of what is written, and what it must be, if that is known.

    algorithm : a name of `hashlib`.
    """

    algorithm: str
    expected: bytes | None = None


class Writer:
    """Appends to `data.part`; bytes that must have a digest count once they are proven."""

    def __init__(
        self, folder: Path, storage: Storage, offset: int, limit: int, check: Check | None
    ) -> None:
        self._folder = folder
        self._storage = storage
        self._limit = limit
        self._check = check or Check("sha256")
        self._start = self.offset = offset
        self._unsynced = 0
        self._hash = hashlib.new(check.algorithm, usedforsecurity=False) if check else None
        if self._check.expected is not None:
            with full_disk_told():
                _write_durably(folder / "unproven", str(offset))
        self._file = os.open(folder / "data.part", os.O_WRONLY | os.O_APPEND)

    @property
    def digest(self) -> bytes:
        """Of what was written, if a check was given; else empty."""
        return self._hash.digest() if self._hash else b""

    def write(self, data: bytearray) -> None:
        """Append bytes.

        Raises
        ------
        Problem : more than the upload has left (413).
        DiskFull : no space; what fitted stays, and the upload can be resumed.
        """
        if self.offset + len(data) > self._limit:
            detail = f"The body goes beyond the upload's length of {self._limit} bytes."
            raise Problem(413, "too_large", detail)
        self._storage.check_space(len(data))
        view = memoryview(data)
        with full_disk_told():
            while view:
                n = os.write(self._file, view)
                if self._hash is not None:
                    self._hash.update(view[:n])
                self.offset += n
                self._unsynced += n
                view = view[n:]
            if self._unsynced >= _SYNC_BYTES:
                os.fdatasync(self._file)
                self._unsynced = 0

    def close(self, *, whole: bool) -> None:
        """End the writing; `whole`: the body came to its end.

        Raises
        ------
        Problem : the bytes do not have the digest they must have (460); they are gone.
        """
        expected = self._check.expected
        proven = expected is None or (whole and self.digest == expected)
        try:
            if not proven:
                os.ftruncate(self._file, self._start)
                self.offset = self._start
            with full_disk_told():
                os.fsync(self._file)
        finally:
            os.close(self._file)
        (self._folder / "unproven").unlink(missing_ok=True)
        if whole and not proven:
            assert expected is not None
            detail = (
                f"The bytes have the {self._check.algorithm} {self.digest.hex()} and not "
                f"{expected.hex()}: they were damaged on the way and dropped; send them again."
            )
            raise Problem(460, "checksum_mismatch", detail)

    def finish(self) -> None:
        """All bytes of the upload are there: it is complete."""
        if self._check.algorithm == "sha256" and self._hash is not None and self._start == 0:
            with full_disk_told():
                _write_durably(self._folder / "sha256", self.digest.hex())
        _finish(self._folder)


def _facts_of(folder: Path) -> _Facts:
    """What an upload's creator said; ValueError or TypeError if the file is damaged."""
    return _Facts(**json.loads((folder / "upload.json").read_bytes()))


def _data_of(folder: Path) -> tuple[os.stat_result, bool]:
    """What is known of an upload's bytes, and whether they are all there."""
    for name in ("data", "data.part", "data"):  # it may be finished between two looks
        with suppress(FileNotFoundError):
            return (folder / name).stat(), name == "data"
    raise FileNotFoundError(folder)


def _finish(folder: Path) -> None:
    (folder / "data.part").rename(folder / "data")
    _sync_folder(folder)


def _unknown(upload_id: str) -> Problem:
    return Problem(404, "upload_not_found", _NO_UPLOAD.format(upload_id[:64]))


def _unfinished(upload: Upload) -> Problem:
    detail = (
        f"The upload {upload.id} has {upload.offset} bytes of {upload.length or 'more'}: "
        "finish it first."
    )
    return Problem(409, "upload_not_finished", detail)


def _take(path: Path, upload_id: str, wait_s: float) -> int:
    """Open an upload's file and lock it, waiting a little for its holder; to be closed."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise _unknown(upload_id) from error
        if _locked(lock, path):
            return lock
        os.close(lock)
        if time.monotonic() >= deadline:
            detail = f"Another request is writing to the upload {upload_id}: try again later."
            raise Problem(423, "upload_locked", detail, headers={"Retry-After": "2"})
        time.sleep(0.05)


def _locked(lock: int, path: Path) -> bool:
    """Lock an open file at once, if it is still the one of its path.

    Who waited for an upload that was deleted, and begun again under its id, holds a lock that keeps
    nobody out.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _read_number(path: Path) -> int | None:
    text = _read_text(path)
    return int(text) if text else None


def _write_durably(path: Path, text: str) -> None:
    """Write a small file whole, through a power cut."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
