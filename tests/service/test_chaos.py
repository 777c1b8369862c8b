"""The short form of `python -m tests.service.chaos`, which is the long one."""

from pathlib import Path

import pytest

from tests.service.chaos import Chaos
from tests.service.chaos_books import report


@pytest.mark.parametrize(
    "mode", ["embedded", pytest.param("cluster", marks=pytest.mark.needs("redis-server"))]
)
def test_no_job_is_lost_or_doubled_whatever_is_killed(mode: str, tmp_path: Path) -> None:
    books = Chaos(mode, tmp_path, kills=16, seed=1, pause_s=0.4).run(minutes=0.75)

    report(mode, books)
    assert not books.wrong
    assert books.kills
    assert any(what.startswith("work: succeeded") for what in books.outcomes)
