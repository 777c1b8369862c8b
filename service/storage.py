"""Files of jobs on disk. Names there are ours; the names that users give are labels."""

from __future__ import annotations

import re
import shutil
from pathlib import Path


class Storage:
    """Folders under the data directory: `uploads/JOB/` and `results/JOB/ATTEMPT/`."""

    def __init__(self, data_dir: Path) -> None:
        self._uploads = data_dir / "uploads"
        self._results = data_dir / "results"
        for folder in (self._uploads, self._results):
            folder.mkdir(parents=True, exist_ok=True)

    def upload_folder(self, job_id: str) -> Path:
        """Where a job's uploaded files lie."""
        return self._uploads / job_id

    def result_folder(self, job_id: str, attempt: int) -> Path:
        """Where an attempt writes."""
        return self._results / job_id / str(attempt)

    def keep_only(self, job_id: str, attempt: int) -> None:
        """Delete what attempts wrote that do not count."""
        for folder in (self._results / job_id).iterdir():
            if folder.name != str(attempt):
                shutil.rmtree(folder, ignore_errors=True)

    def purge(self, job_id: str) -> None:
        """Delete everything of a job."""
        shutil.rmtree(self._uploads / job_id, ignore_errors=True)
        shutil.rmtree(self._results / job_id, ignore_errors=True)

    def free_bytes(self) -> int:
        """Space left on the disk."""
        return shutil.disk_usage(self._uploads).free


def safe_suffix(label: str) -> str:
    """The suffix of a user's file name if it is a plain one, for decoders that look at it."""
    match = re.fullmatch(r".*(\.[A-Za-z0-9]{1,5})", label, re.DOTALL)
    return match[1].lower() if match else ""


def safe_label(name: str) -> str:
    """A user's file name as a label: its last part, without control characters, of sane length."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[\x00-\x1f\x7f]", "", last)[-200:] or "unnamed"
