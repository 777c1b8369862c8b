"""A worker in this process, with real children, at moments that processes hit only by chance."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.errors import DiskFull
from service.companions import COMPANIONS
from service.jobs import Job, NewJob, State, new_id
from service.jobs.sqlite import SqliteJobTable
from service.objects.transfer import fetch_inputs
from service.schemas import AlignOptions
from service.settings import Settings
from service.storage import Storage
from service.workers.child import _align, _in_fields, _labelled
from service.workers.worker import Worker


@pytest.fixture
def table(tmp_path: Path) -> SqliteJobTable:
    return SqliteJobTable(tmp_path / "jobs.sqlite")


@pytest.fixture
def worker(table: SqliteJobTable, tmp_path: Path) -> Iterator[Worker]:
    settings = Settings(data_dir=tmp_path, child_module="tests.service.quick_child")
    made = Worker(table, Storage(tmp_path, 0), settings, name="here", device="cpu")
    yield made
    made.close()


def stored(table: SqliteJobTable, folder: Path, do: str = "work") -> str:
    video, audio = folder / "order.json", folder / "a.wav"
    video.write_text(json.dumps({"do": do}))
    audio.write_bytes(b"a sound")
    spec = {"video": {"path": str(video)}, "tracks": [{"paths": [str(audio)]}]}
    return table.submit(NewJob(spec)).id


def test_a_job_is_done_where_the_data_folder_is_now(table: SqliteJobTable, tmp_path: Path) -> None:
    """It was moved while the job waited, or is another path on the worker's host; what was named
    outside of it stays where it is.
    """
    before, now, root = tmp_path / "before", tmp_path / "now", tmp_path / "root"
    settings = Settings(data_dir=now, child_module="tests.service.quick_child")
    job_id, sent = new_id(), Storage(before).upload_folder
    sent(job_id).mkdir()
    root.mkdir()
    (sent(job_id) / "order.json").write_text('{"do": "work"}')
    (root / "a.wav").write_bytes(b"a sound")
    tracks = [{"paths": [str(root / "a.wav")]}]
    spec = {"video": {"path": str(sent(job_id) / "order.json")}, "tracks": tracks}
    table.submit(NewJob(spec, id=job_id))
    before.rename(now)

    worker = Worker(table, Storage(now), settings, name="here", device="cpu")
    worker.run_next()
    worker.close()
    job = table.get(job_id)
    assert job is not None
    assert job.state is State.SUCCEEDED
    assert (now / "results" / job_id / "1" / "audio-0.wav").exists()


def test_users_names_stand_in_place_of_ours_once() -> None:
    """Whatever they are called: one may hold another's name on the disk."""
    names = {
        "/d/uploads/x/file-1.mp4": "takefile-1.mp4", "/d/uploads/x/file-2.wav": "file-1.mp4",
        "/d/uploads/x/file-2": "day 2", "/d/uploads/x/file-22": r"\g<0> (1).wav",
    }  # fmt: skip
    told = {
        "/d/uploads/x/file-1.mp4 and file-2.wav differ.": "takefile-1.mp4 and file-1.mp4 differ.",
        "Run ffmpeg -i file-1.mp4 out.mp4.": "Run ffmpeg -i takefile-1.mp4 out.mp4.",
        "file-2 is empty, /d/uploads/x/file-22 not.": r"day 2 is empty, \g<0> (1).wav not.",
        "my-file-1.mp4, a.file-2.wav, file-2.wave": "my-file-1.mp4, a.file-2.wav, file-2.wave",
    }
    for text, expected in told.items():
        assert _labelled(text, names) == expected


def test_options_that_contradict_each_other_are_told_as_fields_of_the_request(
    tmp_path: Path,
) -> None:
    """And a file is called what its sender calls it, be that an option's name."""
    job = {
        "video": {"path": "/d/file-1.mp4", "label": "take.mp4"}, "device": "cpu",
        "orientation": {"path": "/d/file-2.csv", "label": "--over-time"}, "folder": str(tmp_path),
        "options": AlignOptions(over_time=True).model_dump(),
    }  # fmt: skip

    result = _align(job, {"paths": ["/d/file-3.wav"], "labels": ["take.wav"]}, 0, print)

    detail = (
        "The orientation --over-time says already how the rotation changes: leave over_time and "
        "follow away."
    )
    assert result == {"error": {"code": "invalid_option", "detail": detail}}
    assert _in_fields("(--float)") == "(float_output)"
    fields = AlignOptions.model_fields.keys() - {"float_output", "label", "priority", "notify_url"}
    for field in fields | COMPANIONS.keys():
        option = f"--{field.replace('_', '-')}"
        assert (
            _in_fields(f"{option} x: leave {option}, away.") == f"{field} x: leave {field}, away."
        )


def test_a_child_that_dies_while_it_has_no_job_is_no_jobs_fault(
    table: SqliteJobTable, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = stored(table, tmp_path)
    claim = table.claim

    def claim_and_kill(*, lease_s: float, worker: str = "") -> Job | None:
        job = claim(lease_s=lease_s, worker=worker)
        pid = child()
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return job

    def child() -> int:
        pid = worker.info["child_pid"]
        assert isinstance(pid, int)
        return pid

    monkeypatch.setattr(table, "claim", claim_and_kill)
    worker.run_next()
    job = table.get(job_id)
    assert job is not None
    assert (job.state, job.attempt, job.crashes, job.drains) == (State.QUEUED, 1, 0, 1)
    assert list((tmp_path / "results").iterdir()) == []

    monkeypatch.undo()
    worker.run_next()
    job = table.get(job_id)
    assert job is not None
    assert (job.state, job.attempt, job.crashes) == (State.SUCCEEDED, 2, 0)


def test_a_worker_told_to_stop_does_not_wait_for_a_child_that_starts(
    table: SqliteJobTable, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, child_module="tests.service.slow_child")
    worker = Worker(table, Storage(tmp_path, 0), settings, name="here", device="cpu")
    job_id = stored(table, tmp_path)
    running = threading.Thread(target=worker.run_next)
    running.start()
    deadline = time.monotonic() + 10
    while worker.info["child_pid"] is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker.info["child_pid"] is not None

    worker.stop()
    running.join(5)

    assert not running.is_alive()
    assert worker.info["child_pid"] is None
    job = table.get(job_id)
    assert job is not None
    assert (job.state, job.attempt) == (State.QUEUED, 0)


def test_a_job_that_is_deleted_as_soon_as_it_ends_harms_nothing(
    table: SqliteJobTable, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A client that watches may be quicker than the worker that tidies up."""
    storage, finish = Storage(tmp_path, 0), table.finish

    def finish_and_purge(job_id: str, attempt: int, state: State, **fields: Any) -> bool:
        accepted = finish(job_id, attempt, state, **fields)
        storage.purge(job_id)
        table.purge(job_id)
        return accepted

    stored(table, tmp_path)
    worker.run_next()
    child = worker.info["child_pid"]
    monkeypatch.setattr(table, "finish", finish_and_purge)
    job_id = stored(table, tmp_path)
    worker.run_next()

    assert table.get(job_id) is None
    assert not (tmp_path / "results" / job_id).exists()
    assert worker.info["child_pid"] == child  # still warm
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_cancelled_jobs_child_is_gone_before_its_end_is_told_and_then_its_files(
    table: SqliteJobTable, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = stored(table, tmp_path, "hang")
    children: list[object] = []
    finish = table.finish

    def look_and_finish(*attempt: Any, **fields: Any) -> bool:
        children.append(worker.info["child_pid"])
        return finish(*attempt, **fields)

    def begun() -> bool:
        job = table.get(job_id)
        return job is not None and job.stage == "begin"

    monkeypatch.setattr(table, "finish", look_and_finish)
    running = threading.Thread(target=worker.run_next)
    running.start()
    deadline = time.monotonic() + 60
    while not begun():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (tmp_path / "results" / job_id / "1" / "half.wav").touch()
    table.cancel(job_id)
    running.join(60)

    job = table.get(job_id)
    assert job is not None
    assert (job.state, children) == (State.CANCELLED, [None])
    assert list((tmp_path / "results").iterdir()) == []


def test_of_a_job_that_leaves_no_files_no_folders_stay(
    table: SqliteJobTable, worker: Worker, tmp_path: Path
) -> None:
    """As of one whose results are in an object store: another host may purge it."""
    done = stored(table, tmp_path)
    worker.run_next()
    stored(table, tmp_path, "fail")
    worker.run_next()
    stored(table, tmp_path, "crash")
    for _ in range(3):
        worker.run_next()

    assert table.waiting() == 0
    assert [folder.name for folder in (tmp_path / "results").iterdir()] == [done]


@pytest.mark.needs("root")
def test_a_worker_whose_disk_only_reads_takes_no_job(
    table: SqliteJobTable, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be the end of all that wait, one after the other."""
    monkeypatch.setattr("service.workers.worker._BACK_OFF_S", 0.01)
    job_id = stored(table, tmp_path)
    for name in ("uploads", "results"):
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path / name)]
        subprocess.run(mount, check=True)
    try:
        worker.run_next()
        job = table.get(job_id)
    finally:
        for name in ("uploads", "results"):
            subprocess.run(["umount", tmp_path / name], check=True)
    assert job is not None
    assert (job.state, job.attempt, job.crashes) == (State.QUEUED, 0, 0)
    worker.run_next()
    job = table.get(job_id)
    assert job is not None
    assert job.state is State.SUCCEEDED


@pytest.mark.needs("root")
def test_a_disk_without_room_for_a_folder_is_full_and_no_crash(
    table: SqliteJobTable, worker: Worker, tmp_path: Path
) -> None:
    """As where all inodes are used up."""
    results, uploads = tmp_path / "results", tmp_path / "uploads"
    job_id = stored(table, tmp_path)
    entry = {"uri": "s3://takes/a.mp4", "size": 1, "etag": "x"}
    for folder in (results, uploads):
        mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", str(folder)]
        subprocess.run(mount, check=True)
    try:
        worker.run_next()
        with pytest.raises(DiskFull, match="the job's files"):
            fetch_inputs(
                {"folder": results, "tracks": [], "video": {"label": "a", "object": entry}}, print
            )
    finally:
        for folder in (results, uploads):
            subprocess.run(["umount", folder], check=True)
    job = table.get(job_id)
    assert job is not None
    assert (job.state, job.crashes) == (State.FAILED, 0)
    assert job.error == {
        "code": "disk_full", "detail": "The service has no space left for the job's results."
    }  # fmt: skip
