"""What a request is taken for: the same as an earlier one, one too many, or a new job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.errors import OptionError
from service.http.admission import Admission, fingerprint
from service.http.submission import StoredObject, Submission
from service.jobs import NewJob, QueueFull, QuotaReached
from service.jobs.sqlite import SqliteJobTable
from service.objects.names import ObjectName
from service.objects.store import ObjectFacts
from service.problems import Problem
from service.schemas import AlignOptions
from service.settings import Settings
from service.storage import StoredFile


@pytest.fixture
def table(tmp_path: Path) -> SqliteJobTable:
    return SqliteJobTable(tmp_path / "jobs.sqlite")


def test_of_a_full_queue_nothing_is_read_but_what_it_holds_already(table: SqliteJobTable) -> None:
    admission = Admission(table, Settings(max_queued=2))
    first = NewJob({}, owner="a", idempotency_key="k", fingerprint="f")
    table.submit(first)
    admission.check_room("a", None)
    table.submit(NewJob({}))

    admission.check_room("a", "k")
    for owner, key in (("a", None), ("a", "l"), ("b", "k")):
        with pytest.raises(QueueFull):
            admission.check_room(owner, key)


def test_of_a_key_with_as_many_jobs_as_it_may_nothing_is_read(table: SqliteJobTable) -> None:
    admission = Admission(table, Settings(max_jobs_of_key=2))
    table.submit(NewJob({}, owner="a", idempotency_key="k", fingerprint="f"))

    admission.check_room("a", None)
    with pytest.raises(QuotaReached):
        admission.check_room("a", None, 1)
    admission.check_room("a", "k", 1)
    table.submit(NewJob({}, owner="a"))
    with pytest.raises(QuotaReached):
        admission.check_room("a", "l")
    admission.check_room("a", None, 3)
    admission.check_room("b", None)


def test_of_two_requests_under_a_key_at_once_one_is_read(table: SqliteJobTable) -> None:
    admission = Admission(table, Settings())
    for _ in range(2):
        with (
            admission.in_flight("a", "k"),
            admission.in_flight("b", "k"),
            admission.in_flight("a", None),
            admission.in_flight("a", None),
            pytest.raises(Problem) as refused,
            admission.in_flight("a", "k"),
        ):
            pass
        assert (refused.value.status, refused.value.code) == (409, "request_in_flight")
        assert refused.value.headers["Retry-After"]


def of_store(key: str = "in/take.mp4", size: int = 9, etag: str = "e") -> StoredObject:
    return StoredObject(ObjectName("takes", key), ObjectFacts(size, etag))


def requests(folder: Path) -> Iterator[Submission]:
    """Requests that all ask for something else."""

    def sent(content: bytes, label: str = "take.wav") -> StoredFile:
        path = folder / f"file-{len(list(folder.iterdir()))}.wav"
        path.write_bytes(content)
        return StoredFile(path, label, len(content))

    def on_server(path: str, size: int = 4) -> StoredFile:
        return StoredFile(Path(path), "take.wav", size)

    plain = Submission(of_store(), [sent(b"here")], AlignOptions())
    changes: list[dict[str, Any]] = [
        {}, {"output": "s3://takes/out/"}, {"options": AlignOptions(label="other")},
        {"video": of_store(key="in/other.mp4")}, {"video": of_store(size=8)},
        {"video": of_store(etag="f")}, {"video": sent(b"here")}, {"audio": []},
        {"audio": [sent(b"that")]}, {"audio": [sent(b"here", "b.wav")]},
        {"audio": [sent(b"here"), sent(b"here")]}, {"audio": [on_server("/media/take.wav")]},
        {"audio": [on_server("/more/take.wav")]}, {"audio": [on_server("/media/take.wav", 5)]},
        {"beside": {"reference": sent(b"r")}}, {"beside": {"orientation": sent(b"r")}},
    ]  # fmt: skip
    for change in changes:
        yield replace(plain, **change)


def test_each_request_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()

    first, second = ([fingerprint(s, folder) for s in requests(folder)] for folder in folders)

    assert first == second
    assert len(set(first)) == len(first)


def test_what_is_to_be_joined_is_several_files() -> None:
    options, track = AlignOptions(join=True), of_store("in/a.wav")
    for audio in ([track], []):
        with pytest.raises(OptionError, match=r"only (a\.wav|take\.mp4) came"):
            Submission(of_store(), [*audio], options)
    joined = Submission(of_store(), [track, of_store("in/b.wav")], options)
    assert [entry["labels"] for entry in joined.spec["tracks"]] == [["a.wav", "b.wav"]]
