"""Uploads past this service, over HTTP: begin, ask what is missing, complete, drop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request, Response

from service.http.access import Owner
from service.jobs import new_id
from service.objects.names import ObjectName
from service.objects.uploads import DirectUploads, DirectUploadState
from service.problems import Problem, Responses, described
from service.schemas import CompletedUpload, DirectUpload, DirectUploadRequest, Part
from service.storage import safe_label

router = APIRouter(prefix="/objects", tags=["uploads"])


async def _direct(request: Request) -> DirectUploads:
    service = request.app.state.service
    folder = service.settings.objects_url
    if not folder:
        detail = "This service takes no direct uploads: AVSA_OBJECTS_URL is not set."
        raise Problem(404, "no_object_store", detail)
    return DirectUploads(service.objects, ObjectName.parse(folder))


Direct = Annotated[DirectUploads, Depends(_direct)]
_UNKNOWN: Responses = {404: described("no such upload, or no object store")}
_BROKEN: Responses = {
    500: described("the object store does not take it"),
    502: described("the object store does not answer", "store_failed"),
}


@router.post(
    "",
    status_code=201,
    response_model=DirectUpload,
    operation_id="begin_direct_upload",
    responses={400: described("the body is no text"), **_UNKNOWN, **_BROKEN},
)
async def begin(
    body: DirectUploadRequest, direct: Direct, owner: Owner, response: Response
) -> DirectUpload:
    """Begin an upload to the object store; PUT each part's bytes to its address."""
    name = safe_label(body.name)
    state = await run_sync(lambda: direct.begin(new_id(), name=name, owner=owner, size=body.size))
    response.headers["Location"] = f"/objects/{state.id}"
    return _public(state)


@router.get(
    "/{upload_id}",
    response_model=DirectUpload,
    operation_id="get_direct_upload",
    responses={**_UNKNOWN, **_BROKEN},
)
async def get_state(upload_id: str, direct: Direct, owner: Owner) -> DirectUpload:
    """What is missing, with new addresses: to go on after a break."""
    return _public(await run_sync(lambda: direct.state(upload_id, owner=owner)))


@router.post(
    "/{upload_id}/complete",
    response_model=CompletedUpload,
    operation_id="complete_direct_upload",
    responses={**_UNKNOWN, **_BROKEN, 409: described("parts are missing")},
)
async def complete(upload_id: str, direct: Direct, owner: Owner) -> CompletedUpload:
    """Join the parts; a job may name the object then."""
    name, facts = await run_sync(lambda: direct.complete(upload_id, owner=owner))
    return CompletedUpload(uri=name.uri, size=facts.size)


@router.delete(
    "/{upload_id}",
    status_code=204,
    operation_id="drop_direct_upload",
    responses={**_UNKNOWN, **_BROKEN},
)
async def drop(upload_id: str, direct: Direct, owner: Owner) -> Response:
    """Drop an upload that is not complete."""
    await run_sync(lambda: direct.abort(upload_id, owner=owner))
    return Response(None, 204)


def _public(state: DirectUploadState) -> DirectUpload:
    return DirectUpload(
        id=state.id,
        uri=state.name.uri,
        size=state.size,
        part_size=state.part_size,
        missing=[Part(number=p.number, offset=p.offset, size=p.size, url=p.url)
                 for p in state.missing],
        expires_at=datetime.now(UTC) + timedelta(seconds=state.urls_valid_s),
    )  # fmt: skip
