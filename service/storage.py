"""Files of jobs on disk. Names there are ours; the names that users give are labels."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from model.errors import DiskFull


@contextmanager
def full_disk_told(what: str = "the bytes sent") -> Iterator[None]:
    """Turn the system's errors for lack of space, or of room for names, into the project's own.

    Raises
    ------
    DiskFull : the disk, or a quota, is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(f"The service has no space left for {what}.") from error
        raise


@dataclass
class StoredFile:
    """A file on disk, and the name its sender gave it."""

    path: Path
    label: str
    size: int = 0


class Storage:
    """Folders under the data directory: `uploads/JOB/` and `results/JOB/ATTEMPT/`.

    data_dir : made if it is not there.
    reserve_bytes : disk space that uploads leave free; the corrected files take about as much as
        their tracks.
    """

    def __init__(self, data_dir: Path, reserve_bytes: int = 0) -> None:
        self._uploads = data_dir / "uploads"
        self._results = data_dir / "results"
        self._reserve_bytes = reserve_bytes
        for folder in (self._uploads, self._results):
            folder.mkdir(parents=True, exist_ok=True)

    def upload_folder(self, job_id: str) -> Path:
        """Where a job's uploaded files lie."""
        return self._uploads / job_id

    def found(self, job_id: str, path: str) -> str:
        """Where a job's file lies: in the job's folder, which may have been moved since or have
        another name on another host, or where it was put.
        """
        here = self.upload_folder(job_id) / Path(path).name
        return str(here) if Path(path).parent.name == job_id and here.exists() else path

    def result_folder(self, job_id: str, attempt: int) -> Path:
        """Where an attempt writes."""
        return self._results / job_id / str(attempt)

    def begin(self, job_id: str, attempt: int) -> Path:
        """Make the folder of an attempt.

        Raises
        ------
        DiskFull : there is no room for it.
        """
        folder = self.result_folder(job_id, attempt)
        for _ in range(10):
            # Another worker may just be deleting the job's folder, for it was empty.
            with suppress(FileNotFoundError), full_disk_told("the job's results"):
                folder.mkdir(parents=True, exist_ok=True)
                break
        return folder

    def forget(self, job_id: str, attempt: int) -> None:
        """Delete what an attempt wrote that does not count."""
        shutil.rmtree(self.result_folder(job_id, attempt), ignore_errors=True)
        _drop_empty(self._results / job_id)

    def keep_only(self, job_id: str, attempt: int) -> None:
        """Delete what attempts wrote that do not count; a job may be purged meanwhile.

        Of one whose results lie in an object store nothing stays: who purges it may have another
        disk than this one.
        """
        with suppress(FileNotFoundError):
            for folder in (self._results / job_id).iterdir():
                if folder.name != str(attempt):
                    shutil.rmtree(folder, ignore_errors=True)
        _drop_empty(self.result_folder(job_id, attempt))
        _drop_empty(self._results / job_id)

    def purge(self, job_id: str) -> None:
        """Delete everything of a job."""
        shutil.rmtree(self._uploads / job_id, ignore_errors=True)
        shutil.rmtree(self._results / job_id, ignore_errors=True)

    def sweep(self, is_job: Callable[[str], bool], *, older_than_s: float) -> list[str]:
        """Delete uploads that never became a job, for their request died; returns their names.

        is_job : whether a name is a job's id.
        older_than_s : a folder in which something was written later is left alone.
        """
        swept = []
        for folder in self._uploads.iterdir():
            if _last_change(folder) < time.time() - older_than_s and not is_job(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
                swept.append(folder.name)
        return swept

    def sweep_results(
        self, attempt_of: Callable[[str], int | None], *, older_than_s: float
    ) -> list[str]:
        """Delete what lost attempts and jobs that are no more have left; returns JOB/ATTEMPT.

        A worker that is killed deletes nothing, and who purges a job may have another disk.

        attempt_of : the attempt of a job that counts; None: there is no such job.
        older_than_s : results of no job are left alone for so long after the last write.
        """
        swept = []
        for folder in self._results.iterdir():
            counts = attempt_of(folder.name)
            for attempt in _attempts(folder):
                if counts is None:
                    lost = _last_change(attempt) < time.time() - older_than_s
                else:  # one that is higher has begun since
                    lost = int(attempt.name) < counts
                if lost:
                    shutil.rmtree(attempt, ignore_errors=True)
                    swept.append(f"{folder.name}/{attempt.name}")
            _drop_empty(folder)
        return swept

    def free_bytes(self) -> int:
        """Space left on the disk."""
        return shutil.disk_usage(self._uploads).free

    def check(self) -> None:
        """Write and delete a file, as every upload and every job does.

        Raises
        ------
        OSError : the disk is gone, read-only, or broken.
        """
        with tempfile.TemporaryFile(dir=self._uploads) as file:
            file.write(b"0")

    def check_space(self, n_bytes: int) -> None:
        """Refuse what the disk cannot take.

        Raises
        ------
        DiskFull : fewer than `n_bytes` are free above the reserve.
        """
        free = self.free_bytes() - self._reserve_bytes
        if free < n_bytes:
            raise DiskFull(
                f"The service has no space left for {n_bytes} bytes: {max(0, free)} are free."
            )


def _attempts(folder: Path) -> list[Path]:
    """The attempts in a job's folder; none, if it is deleted under our eyes."""
    with suppress(FileNotFoundError):
        return [attempt for attempt in folder.iterdir() if attempt.name.isdigit()]
    return []


def _drop_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _last_change(folder: Path) -> float:
    """When something was last written in a folder; now, if it vanishes under our eyes.

    The folder's own time counts as well: an upload's file that was linked there may be old.
    """
    try:
        with os.scandir(folder) as entries:
            return max([folder.stat().st_mtime, *(entry.stat().st_mtime for entry in entries)])
    except OSError:
        return time.time()


def safe_suffix(label: str) -> str:
    """The suffix of a user's file name if it is a plain one, for decoders that look at it."""
    match = re.fullmatch(r".*(\.[A-Za-z0-9]{1,5})", label, re.DOTALL)
    return match[1].lower() if match else ""


def safe_label(name: str) -> str:
    """A user's file name as a label: its last part, without control characters, of sane length.

    Those of bidirectional text go too: one turns around all that follows it, as a sentence's rest.
    The names of a folder and the one above it name no file.
    """
    last = re.split(r"[/\\]", name)[-1]
    label = re.sub(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]", "", last)[-200:]
    return "unnamed" if label in ("", ".", "..") else label
