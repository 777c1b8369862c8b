"""From a request understood to a job in the table: once per idempotency key, within the limits."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from starlette.requests import Request

from service.http.submission import Input, StoredObject, Submission
from service.jobs import (
    Job,
    JobTable,
    Limits,
    NewJob,
    QueueFull,
    QuotaReached,
    TableUnreachable,
)
from service.problems import Problem
from service.settings import Settings

# A submission is stored as soon as the table is back, if it is back within this.
_PATIENCE_S = 5.0
_KEY = re.compile(r'"?([!#-~]{1,255})"?')


class Admission:
    """Takes jobs into the table."""

    def __init__(self, table: JobTable, settings: Settings) -> None:
        self._table = table
        self._limits = Limits(queued=settings.max_queued, of_owner=settings.max_jobs_of_key)
        self._in_flight: set[tuple[str, str]] = set()

    def check_room(self, owner: str, key: str | None, max_jobs: int | None = None) -> None:
        """Refuse a request before its files are read, if its job would be refused anyway.

        One that repeats an earlier request under its idempotency key takes no room.
        `max_jobs` as in `admit`.

        Raises
        ------
        QuotaReached, QueueFull : the owner has as many jobs, or as many wait, as may.
        """
        try:
            self._table.check_room(owner, self._limits_of(max_jobs))
        except (QuotaReached, QueueFull):
            if key is None or self._table.of_key(owner, key, key_s=self._limits.key_s) is None:
                raise

    @contextmanager
    def in_flight(self, owner: str, key: str | None) -> Iterator[None]:
        """While a request with an idempotency key is read, another with the same is refused.

        Raises
        ------
        Problem : 409. Two that reach different processes are both read, and give one job.
        """
        if key is None:
            yield
            return
        if (owner, key) in self._in_flight:
            detail = f"A request with the idempotency key {key!r} is being read; wait for its end."
            raise Problem(409, "request_in_flight", detail, headers={"Retry-After": "2"})
        self._in_flight.add((owner, key))
        try:
            yield
        finally:
            self._in_flight.discard((owner, key))

    def admit(self, new: NewJob, max_jobs: int | None = None) -> Job:
        """Store a job; the earlier one if its idempotency key was used for the same request.

        `max_jobs` is the owner's own limit, in place of the service's.

        Raises
        ------
        KeyReused, QuotaReached, QueueFull : refused; nothing is stored.
        TableUnreachable : not known; the job's files must stay.
        """
        limits = self._limits_of(max_jobs)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._table.submit(new, limits)
            except TableUnreachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _limits_of(self, max_jobs: int | None) -> Limits:
        return self._limits if max_jobs is None else replace(self._limits, of_owner=max_jobs)


def idempotency_key(request: Request) -> str | None:
    """The `Idempotency-Key` of a request (draft-ietf-httpapi-idempotency-key-header-07).

    Raises
    ------
    Problem : it is not 1 to 255 visible ASCII characters.
    """
    text = request.headers.get("idempotency-key")
    if text is None:
        return None
    match = _KEY.fullmatch(text)
    if match is None:
        detail = f"The Idempotency-Key {text[:50]!r} is not 1 to 255 visible ASCII characters."
        raise Problem(400, "invalid_idempotency_key", detail)
    return match[1]


def fingerprint(submission: Submission, folder: Path) -> str:
    """A digest of what a request asks for: content of files in `folder`, names of others."""
    digest = hashlib.sha256(submission.options.model_dump_json().encode())
    digest.update(submission.output.encode())
    files = [("video", submission.video), *(("audio", track) for track in submission.audio)]
    for field, file in (*files, *submission.beside.items()):
        digest.update(json.dumps([field, *_facts(file, folder)]).encode())
    return digest.hexdigest()


def _facts(file: Input, folder: Path) -> list[str | int]:
    """What tells a file from others: content of one in `folder`, where any other lies."""
    if isinstance(file, StoredObject):
        return [file.name.uri, file.facts.size, file.facts.etag]
    if not file.path.is_relative_to(folder):
        return [file.label, file.size, str(file.path)]
    with file.path.open("rb") as content:
        return [file.label, file.size, hashlib.file_digest(content, "sha256").hexdigest()]
