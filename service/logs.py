"""Logs: one event a line, as JSON or as text, each with the ids of its request and its job."""

from __future__ import annotations

import logging
import re
import sys
from typing import Literal

import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars

__all__ = ["Form", "bound_contextvars", "configure"]

Form = Literal["auto", "json", "text"]


def _in_one_line(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Escape what would begin a line, or order a terminal about: words may be a caller's."""
    words = str(event["event"])
    event["event"] = re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], words)
    return event


def configure(form: Form, *, level: str = "INFO") -> None:
    """Send the logs of this process to standard error, those of libraries too.

    `auto` means text on a terminal and JSON elsewhere. Fields bound with `bound_contextvars` are
    part of every line that is logged within, from whatever module.
    """
    as_json = not sys.stderr.isatty() if form == "auto" else form == "json"
    shared: list[structlog.types.Processor] = [
        merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[structlog.types.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [_in_one_line, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Uvicorn and Celery bring handlers of their own: everything goes through ours.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "kombu"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    # One line a request is told by `service.http.middleware`, with its ids.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("httpx").setLevel(logging.WARNING)
