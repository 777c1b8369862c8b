"""Deletes uploads that have expired and what requests that died have left."""

from __future__ import annotations

from collections.abc import Callable

from service.repeating import Repeating
from service.storage import Storage
from service.uploads import UploadStore


class Sweeper(Repeating):
    """Sweeps every `every_s`.

    is_job : whether a folder's name is a job's id.
    ttl_s : files of requests are left alone for so long after the last write.
    """

    def __init__(
        self, uploads: UploadStore, storage: Storage, is_job: Callable[[str], bool],
        *, every_s: float, ttl_s: float,
    ) -> None:  # fmt: skip
        super().__init__("sweeper", every_s=every_s)
        self._uploads = uploads
        self._storage = storage
        self._is_job = is_job
        self._ttl_s = ttl_s

    def sweep(self) -> None:
        """Delete what is due."""
        for upload_id in self._uploads.sweep():
            self._log.info("the upload %s has expired", upload_id)
        for name in self._storage.sweep(self._is_job, older_than_s=self._ttl_s):
            self._log.info("the files of a request that died are deleted: %s", name)
