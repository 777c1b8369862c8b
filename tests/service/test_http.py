"""What HTTP itself asks of a server, against a real one with a child that does no work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.conftest import Server


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
        "uploads/x": "DELETE, GET, HEAD, PATCH, POST, PUT",
        "page/app.js": "GET, HEAD", "": "GET, HEAD",
    }  # fmt: skip
    for path, methods in allowed.items():
        answer = httpx.request("TRACE", f"{polite.url}/{path}")
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == methods, path


def test_head_answers_as_get_does_without_a_body(polite: Server, ended: str) -> None:
    files = [f"{ended}/{name}" for name in ("audio/0", "report.json", "plot.png")]
    for path in ("", "livez", "jobs", ended, *files):
        head, get = (httpx.request(name, f"{polite.url}/{path}") for name in ("HEAD", "GET"))
        assert (head.status_code, head.content) == (200, b""), path
        for header in ("content-type", "content-length", "etag"):
            assert head.headers.get(header) == get.headers.get(header)
    assert httpx.head(f"{polite.url}/jobs/nope").status_code == 404
