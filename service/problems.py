"""Errors as RFC 9457 problem documents with a stable `code`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Mount

from model.errors import AvsaError
from service.jobs import KeyReused, QueueFull, QuotaReached, TableUnreachable
from service.objects.store import passes

MEDIA_TYPE = "application/problem+json"
# What a route may answer, for the OpenAPI document.
Responses = dict[int | str, dict[str, Any]]
# Status of every code that a job can end with: those of `model.errors`, and the service's own.
STATUS_OF_CODE = {
    "invalid_input": 422,
    "invalid_option": 422,
    "unreadable_media": 422,
    "unsupported_media": 422,
    "unusable_content": 422,
    "output_failed": 500,
    "disk_full": 507,
    "cancelled": 409,
    "internal": 500,
    "crashed": 500,
    "worker_lost": 500,
    "time_limit": 500,
}
# Of states that are no part of HTTP itself.
_TITLES = {460: "Checksum Mismatch"}


class Problem(Exception):
    """An answer that is a problem document."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.fields = fields


def of_job_error(error: dict[str, Any]) -> Problem:
    """The problem that a job's error is, asked for over HTTP."""
    return Problem(STATUS_OF_CODE.get(error["code"], 500), error["code"], error["detail"])


def store_failed(error: AvsaError) -> Problem:
    """The problem of an object store that does not answer, which is no caller's fault."""
    return Problem(502, "store_failed", str(error), headers={"Retry-After": "5"})


def document(problem: Problem) -> dict[str, Any]:
    """The body of a problem."""
    return {
        "type": f"urn:avsa-align:problem:{problem.code}",
        "title": title_of(problem.status),
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        **problem.fields,
    }


def title_of(status: int) -> str:
    """What a status is called."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def response(problem: Problem) -> JSONResponse:
    """The answer of a problem."""
    return JSONResponse(
        document(problem), problem.status, headers=problem.headers, media_type=MEDIA_TYPE
    )


# What the job table refuses, as it is said over HTTP.
_OF_THE_TABLE = {
    TableUnreachable: (503, "table_unreachable"),
    QueueFull: (503, "queue_full"),
    QuotaReached: (429, "quota_reached"),
    KeyReused: (422, "idempotency_key_reused"),
}


def install(app: FastAPI) -> None:
    """Answer every error as a problem document; what nobody expected is `middleware`'s."""

    async def of_problem(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return response(error)

    async def of_ours(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, AvsaError)
        if passes(error):
            return response(store_failed(error))
        return response(of_job_error({"code": error.code, "detail": str(error)}))

    async def of_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        phrase = HTTPStatus(error.status_code).phrase
        code, detail = phrase.lower().replace(" ", "_"), str(error.detail)
        headers = dict(error.headers or {})
        path = request.url.path[:80]
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_methods(app, request.url.path)))
            method = request.method[:20]
            detail = f"The method {method!r} is not for {path!r}; send one of {headers['Allow']}."
        elif error.status_code == 404:  # of the router, which knows no more of it
            detail = f"There is nothing at {path!r}; what there is, /docs tells."
        return response(Problem(error.status_code, code, detail, headers=headers))

    async def of_disconnect(_request: Request, _error: Exception) -> JSONResponse:
        # Whoever has gone hears nothing of it; but it is no failure of the service's.
        return response(Problem(400, "broken_body", "The connection ended within the body."))

    async def of_validation(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return response(of_validation_errors(error.errors()))

    async def of_table(_request: Request, error: Exception) -> JSONResponse:
        status, code = _OF_THE_TABLE[type(error)]
        headers = {} if status == 422 else {"Retry-After": "5"}
        return response(Problem(status, code, str(error), headers=headers))

    app.add_exception_handler(Problem, of_problem)
    app.add_exception_handler(AvsaError, of_ours)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(ClientDisconnect, of_disconnect)
    app.add_exception_handler(RequestValidationError, of_validation)
    for kind in _OF_THE_TABLE:
        app.add_exception_handler(kind, of_table)


def _methods(app: FastAPI, path: str) -> set[str]:
    """All methods of a path; the framework tells those of the first route that it finds."""
    found = set[str]()
    for route in iter_route_contexts(app.routes):  # `app.routes` hides those of included routers
        if route.path_regex.match(path):
            found |= {"GET", "HEAD"} if isinstance(route.route, Mount) else route.methods or set()
    return found


def described(words: str, code: str = "invalid_request") -> dict[str, Any]:
    """An answer that is a problem document, for the OpenAPI document; `code` is an example's."""
    return {
        "description": words,
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": {
                    "type": f"urn:avsa-align:problem:{code}",
                    "code": code,
                    "detail": words,
                },
            }
        },
    }


def of_validation_errors(errors: Any) -> Problem:
    """The problem of a request that does not fit its schema, naming each field and its value."""
    found = [
        {
            "field": ".".join(str(part) for part in error["loc"]),
            "problem": error["msg"],
            "value": repr(error.get("input"))[:200],
        }
        for error in errors
    ]
    words = "; ".join(
        f"{e['field'] or 'the whole'}: {e['problem']} (got {e['value']})" for e in found
    )
    return Problem(422, "invalid_request", f"The request does not fit: {words}.", errors=found)
