"""What HTTP itself asks of a server, against a real one with a child that does no work."""

from __future__ import annotations

import gzip
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.conftest import Server
from tests.service.polite_child import AUDIO


@pytest.fixture(scope="module")
def polite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("http") / "data")
    running.settings["AVSA_CHILD_MODULE"] = "tests.service.polite_child"
    running.start()
    yield running
    running.stop()


@pytest.fixture
def ended(polite: Server) -> str:
    """The path of a job that has ended."""
    files = {"video": ("take.mp4", b"v"), "audio": ("take.wav", b"a")}
    job = httpx.post(f"{polite.url}/align", files=files).json()
    polite.wait_for(job["id"], "succeeded")
    return f"jobs/{job['id']}"


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Server]:
    """A server at a job that has no end."""
    running = Server(tmp_path / "data")
    running.settings["AVSA_CHILD_MODULE"] = "tests.service.patient_child"
    running.start()
    yield running
    running.stop()


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    return problem


def test_a_405_names_what_is_allowed(polite: Server) -> None:
    allowed = {
        "align": "POST", "livez": "GET, HEAD", "jobs/x": "DELETE, GET, HEAD",
        "jobs/x/events": "GET", "uploads": "OPTIONS, POST",
        "uploads/x": "DELETE, GET, HEAD, PATCH, PUT",
        "page/app.js": "GET, HEAD", "": "GET, HEAD",
    }  # fmt: skip
    for path, methods in allowed.items():
        answer = httpx.request("TRACE", f"{polite.url}/{path}")
        detail = refused(answer, 405, "method_not_allowed")["detail"]
        assert answer.headers["allow"] == methods, path
        assert f"'TRACE' is not for '/{path}'; send one of {methods}" in detail
    missing = httpx.get(f"{polite.url}/takes/7")
    assert "nothing at '/takes/7'" in refused(missing, 404, "not_found")["detail"]


def test_a_body_that_its_sender_leaves_is_no_fault_of_the_service(polite: Server) -> None:
    failed = 'avsa_http_requests_total{method="POST",operation="align",status="500"}'
    with socket.create_connection(("127.0.0.1", polite.port)) as caller:
        head = "POST /align HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        caller.sendall(f"{head}Content-Length: 50\r\n\r\n{{".encode())
        caller.shutdown(socket.SHUT_WR)
        assert caller.recv(1000) == b""
    deadline = time.monotonic() + 10
    while failed.replace("500", "400") not in (numbers := httpx.get(f"{polite.url}/metrics").text):
        assert time.monotonic() < deadline, numbers
    assert failed not in numbers


def test_what_is_no_json_is_told_in_a_sentence(polite: Server) -> None:
    json, video = {"content-type": "application/json"}, {"video": b"v"}
    for answer in (
        httpx.post(f"{polite.url}/align", content=b"{", headers=json),
        httpx.post(f"{polite.url}/align", files=video, data={"options": "{"}),
    ):
        assert "fit: the whole: Invalid JSON" in refused(answer, 422, "invalid_request")["detail"]


def test_head_answers_as_get_does_without_a_body(polite: Server, ended: str) -> None:
    files = [f"{ended}/{name}" for name in ("audio/0", "report.json", "plot.png")]
    for path in ("", "livez", "jobs", ended, *files):
        head, get = (httpx.request(name, f"{polite.url}/{path}") for name in ("HEAD", "GET"))
        assert (head.status_code, head.content) == (200, b""), path
        for header in ("content-type", "content-length", "etag"):
            assert head.headers.get(header) == get.headers.get(header)
    assert httpx.head(f"{polite.url}/jobs/nope").status_code == 404


def test_parts_of_a_result(polite: Server, ended: str) -> None:
    url = f"{polite.url}/{ended}/audio/0"

    def part(asked: str) -> httpx.Response:
        return httpx.get(url, headers={"Range": asked})

    assert (part("bytes=5-9").status_code, part("bytes=5-9").content) == (206, AUDIO[5:10])
    for whole in ("items=0-5", "bytes=a-b", "bytes=", "nonsense"):  # to be passed over
        assert (part(whole).status_code, part(whole).content) == (200, AUDIO), whole
    beyond = part(f"bytes={len(AUDIO)}-")
    assert f"{len(AUDIO)} bytes" in refused(beyond, 416, "range_not_satisfiable")["detail"]
    assert beyond.headers["content-range"] == f"bytes */{len(AUDIO)}"


def test_what_a_caller_has_is_not_sent_again(polite: Server, ended: str) -> None:
    url = f"{polite.url}/{ended}/audio/0"
    etag = httpx.get(url).headers["etag"]
    for known in (etag, f'W/{etag}, "other"', "*"):
        again = httpx.get(url, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    two = [("If-None-Match", '"other"'), ("If-None-Match", etag)]  # lines are one list
    assert httpx.get(url, headers=two).status_code == 304
    assert httpx.get(url, headers={"If-None-Match": '"other"'}).content == AUDIO


def test_of_another_file_nothing_is_sent(polite: Server, ended: str) -> None:
    """Whoever goes on with a download would put two files together."""
    url = f"{polite.url}/{ended}/audio/0"
    have = httpx.head(url).headers
    old, other = "Mon, 01 Jan 2001 00:00:00 GMT", '"other"'

    def status(**conditions: str) -> int:
        named = {name.replace("_", "-"): value for name, value in conditions.items()}
        return httpx.get(url, headers={"Range": "bytes=5-9", **named}).status_code

    for fits in (have["etag"], f"{other}, {have['etag']}", "*"):
        assert status(if_match=fits, if_unmodified_since=old) == 206
    refused(httpx.get(url, headers={"If-Match": other}), 412, "precondition_failed")
    assert status(if_match=f"W/{have['etag']}") == 412  # it may differ in some bytes
    assert status(if_unmodified_since=old) == 412
    assert status(if_unmodified_since=have["last-modified"]) == 206
    assert status(if_modified_since=have["last-modified"]) == 304
    assert status(if_modified_since=have["last-modified"], if_none_match=other) == 206
    for passed_over in (old, "yesterday"):
        assert status(if_modified_since=passed_over) == 206
    assert status(if_unmodified_since="yesterday") == 206


def test_a_result_that_the_disk_has_lost_is_told(polite: Server, ended: str) -> None:
    for path in Path(polite.data_dir, "results", ended.removeprefix("jobs/"), "1").iterdir():
        path.unlink()
    for name in ("audio/0", "report.json", "plot.png"):
        refused(httpx.get(f"{polite.url}/{ended}/{name}"), 404, "result_gone")


def test_a_request_that_waits_for_a_result_that_the_disk_has_lost_is_told(polite: Server) -> None:
    """As one that is repeated days later, under its idempotency key."""
    headers = {"Idempotency-Key": "days-ago", "Prefer": "wait=30"}

    def ask() -> httpx.Response:
        files = {"video": ("take.mp4", b"v"), "audio": ("take.wav", b"a")}
        return httpx.post(f"{polite.url}/align", files=files, headers=headers, timeout=60)

    done = ask()
    assert done.status_code == 200
    job_id = done.headers["content-location"].removeprefix("/jobs/")
    (polite.data_dir / "results" / job_id / "1" / "report-0.json").unlink()
    refused(ask(), 404, "result_gone")


@pytest.mark.parametrize(
    "preferred",
    [["wait=30"], ["respond-async, wait=30"], ["respond-async", "wait=30"], ['Wait="30"']],
)
def test_a_preference_to_wait_is_seen(polite: Server, preferred: list[str]) -> None:
    """As RFC 7240 lets it be written: in lines that are one list, its name in any case."""
    files = {"video": ("take.mp4", b"v"), "audio": ("take.wav", b"a")}
    lines = [("Prefer", line) for line in preferred]
    answer = httpx.post(f"{polite.url}/align", files=files, headers=lines, timeout=60)
    assert (answer.status_code, answer.headers.get("preference-applied")) == (200, "wait")


@pytest.mark.parametrize("sent", ["takes\u202egpj.wav", "\u2067takes\u2066gpj.wav\u202d"])
def test_a_name_turns_no_text_around(polite: Server, sent: str) -> None:
    """All that follows it, as the rest of an error's sentence, would be read from the right."""
    files = {"video": ("take.mp4", b"v"), "audio": (sent, b"a")}
    assert httpx.post(f"{polite.url}/align", files=files).json()["label"] == "takesgpj.wav"
    url = f"{polite.url}/uploads/{os.urandom(16).hex()}"
    put = httpx.put(url, params={"name": sent}, content=b"a").json()
    assert put["name"] == "takesgpj.wav"


def test_a_body_in_a_coding_is_refused_and_nothing_of_it_is_kept(polite: Server) -> None:
    """Its bytes would be taken for the file's."""
    url = f"{polite.url}/uploads/{'c' * 32}"
    gzipped = {"Content-Encoding": "gzip"}
    refusal = httpx.put(url, content=gzip.compress(b"a take"), headers=gzipped)
    assert "'gzip'" in refused(refusal, 415, "unsupported_media_type")["detail"]
    assert refusal.headers["accept-encoding"] == "identity"
    assert httpx.get(url).status_code == 404
    for path in ("align", "uploads", "session"):
        answer = httpx.post(f"{polite.url}/{path}", content=b"x", headers=gzipped)
        refused(answer, 415, "unsupported_media_type")
    assert httpx.put(url, content=b"x", headers={"Content-Encoding": "identity"}).is_success


def test_events_of_a_job_that_is_deleted_come_to_an_end(busy: Server) -> None:
    job_ids = [
        httpx.post(f"{busy.url}/align", files={"video": b"v"}).json()["id"] for _ in range(6)
    ]
    for job_id in job_ids[1:]:  # they wait, so that cancelling ends them at once
        url = f"{busy.url}/jobs/{job_id}"
        with httpx.stream("GET", f"{url}/events") as events:
            lines = events.iter_lines()
            assert next(lines) == "event: progress"
            httpx.post(f"{url}/cancel")
            assert httpx.delete(url).status_code == 204
            list(lines)
        assert httpx.get(f"{url}/events").status_code == 404
    assert "unhandled" not in busy.log()


def test_going_down_is_no_fault(busy: Server) -> None:
    """Whoever waits is answered, what is cut off is to be sent again, and nothing looks broken."""
    url = f"{busy.url}/jobs/{httpx.post(f'{busy.url}/align', files={'video': b'v'}).json()['id']}"
    got: dict[str, httpx.Response] = {}

    def begin(name: str, ask: Callable[[], httpx.Response]) -> threading.Thread:
        thread = threading.Thread(target=lambda: got.update({name: ask()}))
        thread.start()
        return thread

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="video"; filename="v.mp4"\r\n\r\n'
        for _ in range(100):  # for longer than the service lets it
            yield b"x"
            time.sleep(0.1)

    multipart = {"content-type": "multipart/form-data; boundary=b"}
    asked = [
        begin("events", lambda: httpx.get(f"{url}/events", timeout=60)),
        begin("waiting", lambda: httpx.get(f"{url}?wait=50", timeout=60)),
        begin("body", lambda: httpx.post(f"{busy.url}/align", content=endless(), headers=multipart,
                                         timeout=60)),
    ]  # fmt: skip
    time.sleep(1)
    busy.stop()
    for thread in asked:
        thread.join()

    assert "event: end" not in got["events"].text
    assert got["waiting"].json()["state"] in ("queued", "running")
    refused(got["body"], 503, "going_down")
    assert "Traceback" not in busy.log()
