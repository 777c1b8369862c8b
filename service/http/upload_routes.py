"""Uploads over HTTP: resumable as tus 1.0.0 has it, or whole with one PUT.

https://tus.io/protocols/resumable-upload: creation, termination, expiration, checksum.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.access import Owner
from service.http.body import content_length, media_type, pour
from service.jobs import new_id
from service.problems import Problem, Responses, described
from service.schemas import UploadInfo
from service.storage import safe_label
from service.uploads import LOCK_WAIT_S, Check, Upload, UploadStore, Writer

TUS_VERSION = "1.0.0"
_ALGORITHMS = ("sha1", "sha256")
_CAPABILITIES = {
    "Tus-Version": TUS_VERSION,
    "Tus-Extension": "creation,termination,expiration,checksum",
    "Tus-Checksum-Algorithm": ",".join(_ALGORITHMS),
}
_CHUNK_TYPE = "application/offset+octet-stream"

router = APIRouter(prefix="/uploads", tags=["uploads"])


class Tus:
    """ASGI middleware: what tus asks of every request under /uploads.

    A method that a client cannot send is named in a header of a POST, and is then the request's.
    Every answer names the version of the protocol.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back with the header."""

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                version = (b"tus-resumable", TUS_VERSION.encode())
                message["headers"] = [*message["headers"], version]
            await send(message)

        path = scope["path"] if scope["type"] == "http" else ""
        of_one = path.startswith("/uploads/")
        if of_one and scope["method"] == "POST":
            method = Headers(scope=scope).get("x-http-method-override", "").upper()
            if method in ("PATCH", "HEAD", "DELETE"):
                scope["method"] = method  # in place: the log reads the same scope
        of_uploads = of_one or path == "/uploads"
        await self._app(scope, receive, send_with_version if of_uploads else send)


async def _store(request: Request) -> UploadStore:
    store: UploadStore = request.app.state.service.uploads
    return store


async def _idle_s(request: Request) -> float:
    limit: float = request.app.state.service.settings.upload_idle_s
    return limit


async def _speaks_tus(tus_resumable: Annotated[str, Header()] = "") -> None:
    """Refuse clients of other versions, as the protocol asks."""
    if tus_resumable != TUS_VERSION:
        detail = f"The header Tus-Resumable is {tus_resumable!r}; send {TUS_VERSION}."
        raise Problem(412, "tus_version", detail, headers={"Tus-Version": TUS_VERSION})


Store = Annotated[UploadStore, Depends(_store)]
IdleS = Annotated[float, Depends(_idle_s)]
_DigestHeader = Annotated[
    tuple[str, ...], Header(description="RFC 9530: `sha-256=:BASE64:`; checked if given")
]
_TUS = [Depends(_speaks_tus)]
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_UNKNOWN: Responses = {404: described("no such upload")}
_TAKEN: Responses = {423: described("another request is writing to it")}
_VERSION: Responses = {412: described("another version of tus")}
_REFUSED: Responses = {413: described("too large"), 507: described("no space left")}


# --- what is known -------------------------------------------------------------------------------


@router.options("", status_code=204, operation_id="upload_capabilities")
async def capabilities(store: Store) -> Response:
    """What of tus is spoken here."""
    return Response(None, 204, {**_CAPABILITIES, "Tus-Max-Size": str(store.max_bytes)})


@router.get(
    "/{upload_id}", response_model=UploadInfo, operation_id="get_upload", responses=_UNKNOWN
)
async def get_upload(upload_id: str, store: Store, owner: Owner) -> UploadInfo:
    """Where an upload stands."""
    return _info(await run_sync(lambda: store.get(upload_id, owner=owner)))


@router.head(
    "/{upload_id}",
    response_class=Response,
    operation_id="get_upload_offset",
    dependencies=_TUS,
    responses={**_UNKNOWN, **_TAKEN, **_VERSION},
)
async def get_offset(upload_id: str, store: Store, owner: Owner) -> Response:
    """Where to go on (tus): the header Upload-Offset."""
    async with _held(store, upload_id, owner) as upload:
        name = base64.b64encode(upload.name.encode()).decode()
        headers = {
            "Upload-Offset": str(upload.offset),
            "Upload-Metadata": f"filename {name}",
            "Cache-Control": "no-store",
            **_expiry(upload),
        }
        if upload.length is not None:
            headers["Upload-Length"] = str(upload.length)
        return Response(None, 200, headers)


# --- sending -------------------------------------------------------------------------------------


@router.post(
    "",
    status_code=201,
    response_class=Response,
    operation_id="create_upload",
    dependencies=_TUS,
    responses={400: described("a header is malformed"), **_REFUSED, **_VERSION},
)
async def create_upload(
    store: Store,
    owner: Owner,
    upload_length: Annotated[str, Header(description="bytes of the file")] = "",
    upload_metadata: Annotated[str, Header(description="as tus has it; filename is used")] = "",
) -> Response:
    """Begin a resumable upload (tus); the header Location says where its bytes go."""
    if not re.fullmatch(r"\d{1,18}", upload_length):
        detail = f"The header Upload-Length is {upload_length[:40]!r}; send the file's size."
        raise Problem(400, "invalid_header", detail)
    name = safe_label(_filename(upload_metadata))
    upload = await run_sync(
        lambda: store.create(new_id(), name=name, owner=owner, length=int(upload_length))
    )
    return Response(None, 201, {"Location": f"/uploads/{upload.id}", **_expiry(upload)})


@router.patch(
    "/{upload_id}",
    status_code=204,
    operation_id="append_to_upload",
    dependencies=_TUS,
    openapi_extra={"requestBody": {"required": True, "content": {_CHUNK_TYPE: _BYTES}}},
    responses={
        400: described("a header is malformed, or the body breaks off"),
        409: described("Upload-Offset is not where the upload stands"),
        415: described(f"not {_CHUNK_TYPE}"),
        460: described("the bytes do not have their checksum"),
        **_UNKNOWN, **_TAKEN, **_VERSION, **_REFUSED,
    },
)  # fmt: skip
async def append(
    request: Request,
    upload_id: str,
    store: Store,
    owner: Owner,
    idle_s: IdleS,
    upload_offset: Annotated[str, Header(description="where the bytes go")] = "",
    upload_checksum: Annotated[str, Header(description="of the body: `sha256 BASE64`")] = "",
) -> Response:
    """Send bytes of a resumable upload (tus)."""
    if media_type(request) != _CHUNK_TYPE:
        detail = f"The body must be {_CHUNK_TYPE}."
        raise Problem(415, "unsupported_media_type", detail)
    check = _check(upload_checksum)
    async with _held(store, upload_id, owner) as upload:
        if upload_offset != str(upload.offset):
            detail = f"Upload-Offset is {upload_offset[:40]!r}; the upload is at {upload.offset}."
            raise Problem(409, "wrong_offset", detail)
        if not upload.complete:
            await run_sync(_refuse_beforehand, request, store, upload)
            async with _writer(store, upload, check) as writer:
                await pour(request, writer.write, idle_s=idle_s)
            if writer.offset == upload.length:
                await run_sync(writer.finish)
        reached = await run_sync(lambda: store.get(upload_id, owner=owner))
    return Response(None, 204, {"Upload-Offset": str(reached.offset), **_expiry(reached)})


@router.put(
    "/{upload_id}",
    status_code=201,
    response_model=UploadInfo,
    operation_id="put_upload",
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/octet-stream": _BYTES}}
    },
    responses={
        400: described("a header is malformed, or the body is a part, or breaks off"),
        409: described("there is a finished upload of this id"),
        460: described("the body does not have its digest"),
        **_UNKNOWN, **_TAKEN, **_REFUSED,
    },
)  # fmt: skip
async def put_upload(
    request: Request,
    upload_id: str,
    store: Store,
    owner: Owner,
    idle_s: IdleS,
    name: Annotated[str, Query(max_length=500, description="the file's name")] = "unnamed",
    content_digest: _DigestHeader = (),
    repr_digest: _DigestHeader = (),
) -> JSONResponse:
    """Send a whole file under an id of your own making: 32 random hexadecimal digits.

    It is there as a whole or not at all; after a break, send it again under the same id.
    """
    _refuse_part(request)
    given = {"Content-Digest": content_digest, "Repr-Digest": repr_digest}
    check = Check("sha256", _given_digest(given))
    length = content_length(request)
    label, exists = safe_label(name), False
    try:
        await run_sync(lambda: store.create(upload_id, name=label, owner=owner, length=length))
    except Problem as problem:
        if problem.code != "upload_exists":
            raise
        exists = True
    async with _held(store, upload_id, owner) as upload:
        # One that was begun here, and is not empty, may have been sent by another request.
        if upload.complete and (exists or length != 0):
            detail = f"The upload {upload_id} is finished already."
            raise Problem(409, "upload_exists", detail)
        if not upload.complete:
            empty = await run_sync(store.restart, upload)
            await run_sync(_refuse_beforehand, request, store, empty)
            async with _writer(store, empty, check) as writer:
                await pour(request, writer.write, idle_s=idle_s)
            if empty.length not in (None, writer.offset):
                detail = f"The body has {writer.offset} bytes, and not {empty.length}."
                raise Problem(400, "broken_body", detail)
            await run_sync(writer.finish)
        info = _info(await run_sync(lambda: store.get(upload_id, owner=owner)))
    location = {"Location": f"/uploads/{upload_id}"}
    return JSONResponse(info.model_dump(mode="json"), 201, headers=location)


@router.delete(
    "/{upload_id}",
    status_code=204,
    operation_id="delete_upload",
    responses={**_UNKNOWN, **_TAKEN},
)
async def delete_upload(upload_id: str, store: Store, owner: Owner) -> Response:
    """Forget an upload (tus: termination); jobs that were given it keep their file."""
    async with _held(store, upload_id, owner) as upload:
        await run_sync(store.delete, upload)
    return Response(None, 204)


@asynccontextmanager
async def _held(store: UploadStore, upload_id: str, owner: str) -> AsyncIterator[Upload]:
    """Hold an upload's lock. Whoever waits for it waits without a thread: all else needs those."""
    deadline, pause = anyio.current_time() + LOCK_WAIT_S, 0.05
    async with AsyncExitStack() as stack:
        while True:
            lock = contextmanager_in_threadpool(store.locked(upload_id, owner=owner, wait_s=0.0))
            try:
                upload = await stack.enter_async_context(lock)
                break
            except Problem as problem:
                if problem.status != 423 or anyio.current_time() > deadline:
                    raise
            await anyio.sleep(pause)
            pause = min(0.5, 1.5 * pause)
        yield upload


@asynccontextmanager
async def _writer(store: UploadStore, upload: Upload, check: Check | None) -> AsyncIterator[Writer]:
    """A writer that is closed in every case, in a thread; what came before a break is kept."""
    writer = await run_sync(lambda: store.writer(upload, check=check))
    try:
        yield writer
    except BaseException:
        with anyio.CancelScope(shield=True):
            await run_sync(lambda: writer.close(whole=False))
        raise
    await run_sync(lambda: writer.close(whole=True))


# --- headers -------------------------------------------------------------------------------------


def _refuse_beforehand(request: Request, store: UploadStore, upload: Upload) -> None:
    """Refuse before reading it what the upload or the disk has no room for."""
    size = content_length(request) or 0
    limit = store.max_bytes if upload.length is None else upload.length
    if upload.offset + size > limit:
        detail = f"The body has {size} bytes; the upload has {limit - upload.offset} left."
        raise Problem(413, "too_large", detail)
    store.check_space(size)


def _refuse_part(request: Request) -> None:
    """Refuse the rest of a file, as clients send it that resume (RFC 9110, 14.5)."""
    part = request.headers.get("content-range")
    if part is not None:
        detail = f"Content-Range is {part[:80]!r}; send the whole file, or go on with PATCH (tus)."
        raise Problem(400, "invalid_header", detail)


def _filename(metadata: str) -> str:
    """The value of `filename` (or `name`) in an Upload-Metadata header."""
    values = {}
    for pair in filter(None, metadata.split(",")):
        key, _, value = pair.strip().partition(" ")
        try:
            values[key] = base64.b64decode(value, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError) as error:
            detail = f"Upload-Metadata has {pair[:80]!r}, which is no key with a base64 value."
            raise Problem(400, "invalid_header", detail) from error
    return values.get("filename") or values.get("name") or "unnamed"


def _check(header: str) -> Check | None:
    """The check that an Upload-Checksum header asks for."""
    if not header:
        return None
    algorithm, _, value = header.partition(" ")
    if algorithm not in _ALGORITHMS:
        detail = f"The checksum {algorithm[:20]!r} is not known; send one of {_ALGORITHMS}."
        raise Problem(400, "invalid_header", detail)
    return Check(algorithm, _digest(value, algorithm, "Upload-Checksum"))


def _given_digest(headers: Mapping[str, Sequence[str]]) -> bytes | None:
    """The SHA-256 of headers of digests (RFC 9530), which of a whole file in no coding all say the
    same. A header may come in several lines; other digests in it are passed over.
    """
    found = {}
    for name, lines in headers.items():
        for member in ",".join(lines).split(","):
            algorithm, _, value = member.strip().partition("=")
            if algorithm == "sha-256":
                found[name] = _digest(value.partition(";")[0].strip(":"), "sha256", name)
    if len(set(found.values())) > 1:
        detail = f"{' and '.join(found)} have not the same sha-256; send one of them, or neither."
        raise Problem(400, "invalid_header", detail)
    return next(iter(found.values()), None)


def _digest(value: str, algorithm: str, header: str) -> bytes:
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        detail = f"{header} has {value[:80]!r}, which is no {algorithm} in base64."
        raise Problem(400, "invalid_header", detail)
    return digest


def _expiry(upload: Upload) -> dict[str, str]:
    expires = datetime.fromtimestamp(upload.expires_at, UTC)
    return {"Upload-Expires": format_datetime(expires, usegmt=True)}


def _info(upload: Upload) -> UploadInfo:
    return UploadInfo(
        id=upload.id,
        state="complete" if upload.complete else "waiting",
        name=upload.name,
        offset=upload.offset,
        length=upload.length,
        sha256=upload.sha256,
        expires_at=datetime.fromtimestamp(upload.expires_at, UTC),
    )
