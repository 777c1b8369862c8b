"""The OpenAPI document: what routes do not say themselves, said once for all of them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service import problems
from service.http.access import OPEN
from service.schemas import AlignRequest, ProblemDocument, WebhookEvent

_TEMPLATE = "#/components/schemas/{model}"
# What every operation may answer, by who asks and how the service is; the codes are examples.
_ANYWHERE = {
    "403": problems.described("not for this key, or from a foreign page", "scope_missing"),
    "413": problems.described("more than 1 MiB that is no file", "too_large"),
    "415": problems.described("a body in a coding, as gzip", "unsupported_media_type"),
    "421": problems.described("not a name of this service", "wrong_host"),
    "500": problems.described("the service failed", "internal"),
    "503": problems.described("the service goes down, or cannot reach table or disk", "going_down"),
}
_BEHIND_THE_GATE = {
    "401": problems.described("a key is needed, or is not valid", "key_needed"),
    "429": problems.described("too many requests, or jobs, of this key", "too_many_requests"),
}
# How a caller may name a request; it comes back with the answer, and is in the logs.
_REQUEST_ID = {
    "description": "the request's name in the logs; a caller's own is taken over",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}


def describe(app: FastAPI) -> None:
    """Complete the document that `app.openapi` makes; it is made once."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        known = app.openapi_schema is not None
        document = generate()
        if not known:
            _complete(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    models: list[tuple[str, type[BaseModel]]] = [
        ("AlignRequest", AlignRequest), ("Problem", ProblemDocument),
        ("WebhookEvent", WebhookEvent),
    ]  # fmt: skip
    for name, model in models:
        described = model.model_json_schema(ref_template=_TEMPLATE)
        schemas.update(described.pop("$defs", {}))
        schemas[name] = described
    # What FastAPI assumes of its own errors; ours are problem documents.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            _complete_operation(operation)
    document["webhooks"] = {"job_ended": {"post": _WEBHOOK}}


def _complete_operation(operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422")):
        answers["422"] = problems.described("something in the request does not fit")
    more = dict(_ANYWHERE)
    if operation["operationId"] in OPEN:
        operation["security"] = []
    else:
        more |= _BEHIND_THE_GATE
        operation["security"].append({})  # none is needed on loopback while there are no keys
    for status, answer in more.items():
        answers.setdefault(status, answer)
    for status, answer in answers.items():
        answer.setdefault("headers", {})["X-Request-ID"] = _REQUEST_ID
        example = answer.get("content", {}).get(problems.MEDIA_TYPE, {}).get("example")
        if example is not None:
            example |= {"status": int(status), "title": problems.title_of(int(status))}


_WEBHOOK = {
    "operationId": "job_ended",
    "summary": "A job has ended; sent to its `notify_url`",
    "description": "Signed as Standard Webhooks has it (webhook-id, webhook-timestamp, "
    "webhook-signature). What is not answered with a 2xx within 10 s is sent again, eight times "
    "within 25 hours, with the same webhook-id.",
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/WebhookEvent"}}},
    },
    "responses": {"2XX": {"description": "heard"}, "410": {"description": "send no more of this"}},
}
