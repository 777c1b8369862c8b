"""The application: settings in, a FastAPI object out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata, resources
from typing import Any

from anyio.to_thread import run_sync
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.jobs import JobTable
from service.object_routes import router as objects_router
from service.objectstore import ObjectStore
from service.queue import EmbeddedQueue
from service.routes import Service, router
from service.schemas import AlignRequest, ProblemDocument
from service.settings import Settings
from service.storage import Storage
from service.sweeper import Sweeper
from service.upload_routes import TusVersion
from service.upload_routes import router as uploads_router
from service.uploads import UploadStore
from service.worker import Worker


def create_app(settings: Settings) -> FastAPI:
    """The service with its embedded queue; starting and stopping it is the lifespan's."""
    table = JobTable(settings.database)
    storage = Storage(settings.data_dir, settings.reserve_bytes)
    uploads = UploadStore(
        settings.data_dir, storage,
        max_bytes=settings.max_upload_bytes, ttl_s=settings.upload_ttl_s,
    )  # fmt: skip
    sweeper = Sweeper(
        uploads, storage, lambda name: table.get(name) is not None,
        every_s=settings.upload_sweep_s, ttl_s=settings.upload_ttl_s,
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        queue = EmbeddedQueue(table, Worker(table, storage, settings), settings)
        objects = ObjectStore(settings)
        app.state.service = Service(settings, table, storage, queue, uploads, objects)
        queue.start()
        sweeper.start()
        try:
            yield
        finally:
            await run_sync(sweeper.stop)
            await run_sync(queue.stop)

    app = FastAPI(
        title="avsa-align",
        version=metadata.version("avsa-align"),
        summary="Finds the rotation that makes an ambisonic track fit a 360-degree picture.",
        lifespan=lifespan,
    )
    problems.install(app)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(TusVersion)
    for part in (router, uploads_router, objects_router):
        app.include_router(part)
    page = str(resources.files("service") / "web")
    app.mount("/", StaticFiles(directory=page, html=True), name="page")
    _describe(app)
    return app


class SecurityHeaders:
    """ASGI middleware: what a browser may do with an answer."""

    _HEADERS = (
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back with the headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _describe(app: FastAPI) -> None:
    """Add to the OpenAPI document what no route's signature names."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        schemas = schema["components"]["schemas"]
        template = "#/components/schemas/{model}"
        for name, model in (("AlignRequest", AlignRequest), ("Problem", ProblemDocument)):
            described = model.model_json_schema(ref_template=template)
            schemas.update(described.pop("$defs", {}))
            schemas[name] = described
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
