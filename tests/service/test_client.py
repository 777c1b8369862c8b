"""The Python client, against a real server that is killed meanwhile."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

from service.client import (
    AlignOptions,
    AlignRequest,
    Client,
    JobInfo,
    NotReached,
    ServiceError,
    State,
)
from tests.service.conftest import Server
from tests.service.polite_child import AUDIO


@pytest.fixture
def server(own_server: Server) -> Server:
    own_server.settings["AVSA_CHILD_MODULE"] = "tests.service.polite_child"
    own_server.start()
    return own_server


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    video, audio = tmp_path / "take.mp4", tmp_path / "take.wav"
    video.write_bytes(b"a picture")
    audio.write_bytes(b"a sound")
    return video, audio


def test_a_job_from_beginning_to_end(
    server: Server, files: tuple[Path, Path], tmp_path: Path
) -> None:
    video, audio = files
    seen: list[float] = []
    with Client(server.url) as client:
        job = client.align(video, [audio, audio], options=AlignOptions(label="reel 7"))
        done = client.wait(job.id, on_progress=lambda job: seen.append(job.progress))
        again = client.job(job.id)
        saved = client.save_audio(job.id, tmp_path / "out.wav", track=1)
        others = [client.align(video, [audio]).id for _ in range(3)]
        listed = [job.id for job in client.jobs(limit=2)]

        assert (done.state, done.label, len(done.results)) == (State.SUCCEEDED, "reel 7", 2)
        assert again == done
        assert seen == sorted(seen)
        assert saved.read_bytes() == AUDIO
        assert not (tmp_path / "out.wav.part").exists()
        assert listed == [*reversed(others), job.id]
        client.purge(job.id)
        client.purge(job.id)  # gone is gone
        with pytest.raises(ServiceError) as caught:
            client.job(job.id)
    assert (caught.value.status, caught.value.code) == (404, "job_not_found")
    assert f"no job {job.id}; ended jobs are deleted after 14 days" in caught.value.detail


def test_a_submission_that_is_repeated_is_one_job(server: Server, files: tuple[Path, Path]) -> None:
    with Client(server.url) as client:
        first = client.align(files[0], [files[1]], idempotency_key="reel-7")
        second = client.align(files[0], [files[1]], idempotency_key="reel-7")
        assert first.id == second.id
        assert len(list(client.jobs())) == 1


def test_jobs_in_a_state(own_server: Server, files: tuple[Path, Path]) -> None:
    own_server.settings["AVSA_CHILD_MODULE"] = "tests.service.patient_child"
    own_server.start()
    with Client(own_server.url) as client:
        first, *others = [client.align(files[0], [files[1]]).id for _ in range(5)]
        own_server.wait_for(first, "running")
        assert client.cancel(others[1]).state is State.CANCELLED
        waiting = [others[3], others[2], others[0]]
        assert [job.id for job in client.jobs(state="queued", limit=1)] == waiting
        assert [job.id for job in client.jobs(state=State.RUNNING)] == [first]
        with pytest.raises(ServiceError, match="state"):
            list(client.jobs(state="lost"))
    url, seen = "/jobs?limit=2&state=queued", []
    while url:
        page = httpx.get(own_server.url + url)
        seen += [job["id"] for job in page.json()["jobs"]]
        url = page.links.get("next", {}).get("url", "")
    assert seen == waiting


def test_waiting_survives_the_death_of_the_server(
    own_server: Server, files: tuple[Path, Path]
) -> None:
    own_server.settings["AVSA_CHILD_MODULE"] = "tests.service.patient_child"
    own_server.start()
    with Client(own_server.url) as client:
        job = client.align(files[0], [files[1]])

        def kill_and_restart() -> None:
            own_server.kill()
            own_server.settings["AVSA_CHILD_MODULE"] = "tests.service.polite_child"
            own_server.start()

        own_server.wait_for(job.id, "running")
        killer = threading.Thread(target=kill_and_restart)
        killer.start()
        done = client.wait(job.id, timeout_s=120)
        killer.join()
    assert (done.state, done.attempt) == (State.SUCCEEDED, 2)


def test_a_download_goes_on_where_it_broke_off(
    server: Server, files: tuple[Path, Path], tmp_path: Path
) -> None:
    part, fetched = tmp_path / "out.wav.part", []
    with Client(server.url) as client:
        job = client.wait(client.align(files[0], [files[1]]).id)

        part.write_bytes(AUDIO[:-1000])
        client.save_audio(job.id, tmp_path / "out.wav", on_bytes=lambda n, of: fetched.append(n))
        assert (tmp_path / "out.wav").read_bytes() == AUDIO
        assert min(fetched) > len(AUDIO) - 1000

        part.write_bytes(b"x" + AUDIO[1:-1000])  # of another file
        with pytest.raises(ValueError, match="damaged"):
            client.save_audio(job.id, tmp_path / "out.wav")
        assert not part.exists()


def test_a_download_follows_to_an_object_store_without_the_key(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    class Stand(BaseHTTPRequestHandler):
        """The service under the name 127.0.0.1, and a store under another."""

        def do_GET(self) -> None:
            asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            if self.path == "/jobs/x/audio/0":
                self.send_response(307)
                where = f"http://localhost:{stand.server_port}/bucket/key?signed"
                self.send_header("Location", where)
                body = b""
            else:
                self.send_response(200)
                report = json.dumps({"output": {"sha256": hashlib.sha256(AUDIO).hexdigest()}})
                body = AUDIO if self.path.startswith("/bucket/") else report.encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    stand = ThreadingHTTPServer(("127.0.0.1", 0), Stand)
    threading.Thread(target=stand.serve_forever, daemon=True).start()
    with Client(f"http://127.0.0.1:{stand.server_port}", key="avsa_secret") as client:
        client.save_audio("x", tmp_path / "out.wav")
    stand.shutdown()
    stand.server_close()

    assert (tmp_path / "out.wav").read_bytes() == AUDIO
    keys = {path: headers.get("authorization") for path, headers in asked}
    assert keys["/jobs/x/audio/0"] == "Bearer avsa_secret"
    assert keys["/bucket/key?signed"] is None


def test_patience_has_an_end(server: Server) -> None:
    server.stop()
    began = time.monotonic()
    with (
        Client(server.url, patience_s=0.5) as client,
        pytest.raises(NotReached, match=r"127\.0\.0\.1"),
    ):
        client.job("x")
    assert time.monotonic() - began < 30


def test_a_time_limit_of_waiting(own_server: Server, files: tuple[Path, Path]) -> None:
    own_server.settings["AVSA_CHILD_MODULE"] = "tests.service.patient_child"
    own_server.start()
    with Client(own_server.url) as client:
        job = client.align(files[0], [files[1]])
        with pytest.raises(TimeoutError, match=job.id):
            client.wait(job.id, timeout_s=0.0)
        assert client.cancel(job.id).id == job.id
        assert client.wait(job.id).state is State.CANCELLED


def test_a_time_limit_of_waiting_where_nothing_changes(
    own_server: Server, files: tuple[Path, Path]
) -> None:
    own_server.settings["AVSA_CHILD_MODULE"] = "tests.service.patient_child"
    own_server.start()
    with Client(own_server.url) as client:
        client.align(files[0], [files[1]])
        queued = client.align(files[0], [files[1]])
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=queued.id):
            client.wait(queued.id, timeout_s=2.0)
    assert time.monotonic() - began < 10


def test_a_name_may_hold_whatever_ends_a_line(server: Server, files: tuple[Path, Path]) -> None:
    label = "take\u2028\x85 1"
    with Client(server.url) as client:
        job = client.align(files[0], options=AlignOptions(label=label))
        assert client.wait(job.id, timeout_s=60).label == label


@pytest.mark.parametrize("size", [300_000, 1_500_000])
def test_a_file_that_changes_while_it_is_sent_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Be it cut short or recorded to still."""
    monkeypatch.setattr("service.client._CHUNK", 256 << 10)
    take = tmp_path / "take.mp4"
    take.write_bytes(bytes(1 << 20))

    def change(done: int, of: int) -> None:
        with take.open("ab") as file:
            file.truncate(size)

    with Client(server.url) as client, pytest.raises(ValueError, match="has changed"):
        client.upload(take, on_bytes=change)


class Moody(BaseHTTPRequestHandler):
    """A service that is slow to begin with, and then gives what `answers` holds."""

    answers: ClassVar[list[tuple[int, bytes]]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if not self.answers:
            time.sleep(2.2)
            self.answers.extend([
                (0, b""), (409, b'{"code": "request_in_flight"}'), (503, b""), (400, b"\xe9"),
            ])  # fmt: skip
        status, body = self.answers.pop(0)
        if status:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(body)
        self.close_connection = True


def test_patience_begins_with_the_first_failure(files: tuple[Path, Path]) -> None:
    """Not with a request that is long under way; and what a proxy says need be no JSON."""
    stand = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=stand.serve_forever, daemon=True).start()
    with (
        Client(f"http://127.0.0.1:{stand.server_port}", patience_s=2.0) as client,
        pytest.raises(ServiceError, match="400"),
    ):
        client.align(files[0])
    stand.shutdown()
    stand.server_close()
    assert Moody.answers == []


def test_an_upload_survives_the_deaths_of_the_server(
    server: Server, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.client._CHUNK", 256 << 10)
    take, sent, kills = tmp_path / "long take.mp4", [0], [2 << 20, 5 << 20]
    take.write_bytes(random.Random(0).randbytes(8 << 20))

    def kill(done: int, size: int) -> None:
        sent.append(done)
        if kills and done > kills[0]:
            kills.pop(0)
            server.kill()
            server.start()

    with Client(server.url) as client:
        video = client.upload(take, on_bytes=kill)
        audio = client.upload(files[1])
        assert not kills
        assert (sent[-1], sent) == (8 << 20, sorted(sent))
        stored = server.data_dir / "incoming" / video.upload / "data"
        assert stored.read_bytes() == take.read_bytes()
        job = client.wait(client.submit(AlignRequest(video=video, audio=[audio])).id)
        assert job.state is State.SUCCEEDED


def test_an_upload_goes_on_in_another_process(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.client._CHUNK", 256 << 10)
    take, begun = tmp_path / "take.mp4", list[str]()
    take.write_bytes(bytes(1 << 20))

    def stop(done: int, size: int) -> None:
        if done >= 512 << 10:
            raise KeyboardInterrupt

    with Client(server.url) as client, pytest.raises(KeyboardInterrupt):
        client.upload(take, on_begin=begun.append, on_bytes=stop)

    sent = list[int]()
    with Client(server.url) as client:
        client.upload(take, upload_id=begun[0], on_bytes=lambda done, of: sent.append(done))
        assert sent == [768 << 10, 1 << 20]
        other = tmp_path / "other.mp4"
        other.write_bytes(b"of another size")
        with pytest.raises(ValueError, match="15 bytes"):
            client.upload(other, upload_id=begun[0])
        with pytest.raises(ServiceError) as caught:
            client.upload(take, upload_id="0" * 32)
    assert caught.value.status == 404


Answer = tuple[int, dict[str, str], bytes]
UPLOAD = "a" * 32
BEGUN: list[Answer] = [
    (201, {"Location": f"/uploads/{UPLOAD}"}, b""),
    (200, {"Upload-Offset": "0", "Upload-Length": "9"}, b""),
]
DONE: Answer = (200, {"Upload-Offset": "9", "Upload-Length": "9"}, b"")
ENDED = JobInfo(
    id="x", state=State.CANCELLED, label="", priority=5, stage="cancelled", progress=0, attempt=0,
    created_at=datetime.now(UTC), started_at=None, finished_at=None, results=[], error=None,
).model_dump_json().encode()  # fmt: skip


@contextmanager
def answering(*answers: Answer) -> Iterator[str]:
    """The address of what gives these answers, the last of them over and over."""
    left = list(answers)

    class Stand(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_POST = do_HEAD = do_PATCH = do_GET  # noqa: N815 - names of the base class

    stand = ThreadingHTTPServer(("127.0.0.1", 0), Stand)
    thread = threading.Thread(target=stand.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{stand.server_port}"
    stand.shutdown()
    stand.server_close()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept, in no time."""
    seconds: list[float] = []
    monkeypatch.setattr("service.answers.time.sleep", seconds.append)
    return seconds


def test_what_is_busy_is_asked_again_when_it_says(
    files: tuple[Path, Path], slept: list[float]
) -> None:
    """By an upload and by events as by all else, in seconds or as a date."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    busy: list[Answer] = [
        (status, {"Retry-After": after}, b"")
        for status, after in ((429, "20"), (503, soon), (503, "0"), (429, "1000"))
    ]
    event: Answer = (200, {}, b"data:" + ENDED + b"\n\n")
    with answering(*BEGUN, busy[0], DONE) as url, Client(url) as client:
        client.upload(files[0])
    with answering(*busy, event) as url, Client(url) as client:
        assert client.wait("x").state is State.CANCELLED
    with answering(*busy, (200, {}, ENDED)) as url, Client(url) as client:
        client.job("x")
    assert slept == pytest.approx([20, *(2 * [20, 50, 1, 120])], abs=2)

    slept.clear()
    with answering(busy[0]) as url, Client(url) as client, pytest.raises(TimeoutError):
        client.wait("x", timeout_s=0.2)
    assert max(slept) <= 0.2
    with (
        answering(busy[0]) as url,
        Client(url, patience_s=0.1) as client,
        pytest.raises(ServiceError, match="429"),
    ):
        client.wait("x")


def test_an_upload_that_is_given_up_says_how_to_go_on(files: tuple[Path, Path]) -> None:
    full = b'{"code": "disk_full", "detail": "The service has no space left for 9 bytes."}'
    with (
        answering(*BEGUN, (507, {}, full)) as url,
        Client(url) as client,
        pytest.raises(ServiceError, match="no space left") as caught,
    ):
        client.upload(files[0])
    assert f"upload_id='{UPLOAD}'" in caught.value.__notes__[0]


def test_what_is_elsewhere_or_another_service_is_told(files: tuple[Path, Path]) -> None:
    moved = (301, {"Location": "https://elsewhere.example/"}, b"")
    for answer, words in ((moved, "moved to 'https://elsewhere"), ((200, {}, b"<html>"), "right?")):
        with answering(answer) as url, Client(url, patience_s=0.1) as client:
            for ask in (lambda: client.job("x"), lambda: client.upload(files[0])):
                with pytest.raises(ServiceError) as caught:
                    ask()
                assert words in caught.value.detail
            with pytest.raises((ServiceError, NotReached)):
                client.wait("x")


def test_what_cannot_be_sent_is_told_at_once(files: tuple[Path, Path]) -> None:
    for url in ("align.example", "ftp://align.example", "https://", ""):
        with pytest.raises(ValueError, match="no address of a service"):
            Client(url)
    for key in ("avsa_secret\n", "avsa_sécret"):
        with pytest.raises(ValueError, match="character") as caught:
            Client("http://here", key=key)
        assert "cret" not in str(caught.value)
    with (
        Client("http://127.0.0.1:1") as client,
        pytest.raises(ValueError, match="'reel é' is not 1 to 255 visible"),
    ):
        client.align(files[0], idempotency_key="reel é")
