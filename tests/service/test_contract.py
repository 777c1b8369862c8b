"""The OpenAPI document against the service: requests made from it, by schemathesis.

A short form of `python -m tests.service.contract`, which sends over 500.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.service.conftest import Server
from tests.service.contract import check, start


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("contract"))
    yield server
    server.stop()


def test_no_request_breaks_the_contract(served: Server) -> None:
    done = check(served, examples=4, phases="fuzzing")
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"(\d+) generated", done.stdout), done.stdout[-2000:]
