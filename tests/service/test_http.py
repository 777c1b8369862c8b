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


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    return problem


def test_a_405_names_what_is_allowed(polite: Server) -> None:
    allowed = {
        "align": "POST", "livez": "GET", "jobs/x": "DELETE, GET", "jobs/x/events": "GET",
        "uploads": "OPTIONS, POST", "uploads/x": "DELETE, GET, HEAD, PATCH, POST, PUT",
        "page/app.js": "GET, HEAD", "": "GET",
    }  # fmt: skip
    for path, methods in allowed.items():
        answer = httpx.request("TRACE", f"{polite.url}/{path}")
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == methods, path
