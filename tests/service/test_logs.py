"""Logs, as they are written."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOGGED = """
import logging
from service import logs
logs.configure("{form}")
logging.getLogger("avsa.http").info("%s %s", "GET", "/\\x1b[2J\\x9b\\n2026-11-30 [info] made up")
try:
    raise OSError("a disk is gone")
except OSError:
    logging.exception("unhandled")
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_callers_send_writes_no_line_of_its_own(form: str) -> None:
    """A path is logged before it is known who calls."""
    code = LOGGED.format(form=form)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, *trace = done.stderr.split("\n")
    assert "made up" in first
    assert first.isprintable()
    assert "unhandled" in second
    assert "a disk is gone" in "\n".join([second, *trace])
