"""What the client makes of answers: which are errors, and what is asked again, and when."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

BUSY = frozenset({429, 502, 503, 504})
M = TypeVar("M", bound=BaseModel)


class ServiceError(Exception):
    """The service refused; `code` is stable, `detail` a sentence for people.

    Attributes
    ----------
    problem : the whole RFC 9457 document.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail", f"The service answered {status}."))
        super().__init__(f"{self.detail} ({status} {self.code})")


class NotReached(Exception):
    """The service could not be reached, again and again."""


class Busy(httpx.TransportError):
    """An answer that passes, in place of a stream: as a connection that broke."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"the service answered {answer.status_code}")
        self.answer = answer


class Patience:
    """How long what fails is tried again: from its first failure on, until something gets through.

    Neither a long transfer nor a long silence uses it up.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._until: float | None = None

    def renew(self) -> None:
        """Something came of it."""
        self._until = None

    def lasts(self) -> bool:
        """Whether it may fail once more, having failed just now."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._patience_s
        return now < self._until

    def pause(self, answer: httpx.Response | None = None, until: float = math.inf) -> None:
        """Wait before the next try: as long as an answer asks for, and a little in any case."""
        asked = 0.0 if answer is None else _retry_after(answer)
        wait_s = min(max(asked, min(1.0, self._patience_s / 10)), self._patience_s)
        time.sleep(max(0.0, min(wait_s, until - time.monotonic())))

    def bear(self, error: httpx.TransportError, where: httpx.URL, until: float = math.inf) -> None:
        """Wait before the next try, though not beyond a moment, or give up.

        Raises
        ------
        ServiceError, NotReached : it has failed for too long.
        """
        answer = error.answer if isinstance(error, Busy) else None
        if not self.lasts():
            if answer is not None:
                raise error_of(answer) from error
            raise NotReached(f"{where} was not reached: {error}") from error
        self.pause(answer, until)


def _retry_after(answer: httpx.Response) -> float:
    """Seconds of a Retry-After header, which may also be a date; 0 if it says nothing."""
    said = answer.headers.get("retry-after", "")
    if said.isascii() and said.isdigit():
        return float(said)
    try:
        return parsedate_to_datetime(said).timestamp() - time.time()
    except ValueError:
        return 0.0


def is_busy(answer: httpx.Response, busy: frozenset[int] = BUSY) -> bool:
    """Whether to ask again: a request that broke off here may still be read there."""
    in_flight = answer.status_code == 409 and error_of(answer).code == "request_in_flight"
    return in_flight or answer.status_code in busy


def refuse_error(answer: httpx.Response) -> None:
    """Raise what a stream's beginning says in its place."""
    if answer.is_success or answer.status_code == 304:
        return
    answer.read()
    if answer.status_code in BUSY:
        raise Busy(answer)
    raise error_of(answer)


def error_of(answer: httpx.Response) -> ServiceError:
    """The error that an answer is."""
    if answer.is_redirect:
        where = answer.headers.get("location", "")[:200]
        detail = f"The service at {answer.url} has moved to {where!r}: give that address."
        return ServiceError(answer.status_code, {"code": "moved", "detail": detail})
    try:
        problem = answer.json()
    except ValueError:  # of a proxy, in whatever encoding
        problem = {}
    return ServiceError(answer.status_code, problem if isinstance(problem, dict) else {})


def not_ours(answer: httpx.Response) -> ServiceError:
    """The error of an answer that this service does not give."""
    detail = f"What answers at {answer.url} is no service of this kind: is the address right?"
    return ServiceError(answer.status_code, {"code": "not_understood", "detail": detail})


def parsed(model: type[M], answer: httpx.Response) -> M:
    """What an answer holds; raises `ServiceError` if that is something else."""
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as error:
        raise not_ours(answer) from error
