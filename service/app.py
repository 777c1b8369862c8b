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
from service.admission import Admission
from service.jobs import open_table
from service.pool import Pool
from service.queue import Reconciler, WakeUps, make_celery
from service.retention import Retention
from service.routes import Service, router
from service.schemas import PathRequest, ProblemDocument
from service.settings import Settings
from service.storage import Storage


def create_app(settings: Settings) -> FastAPI:
    """The service; starting and stopping what belongs to it is the lifespan's.

    Embedded, the workers are in this process; in a cluster (`redis_url`) they are elsewhere.
    """
    table = open_table(settings)
    storage = Storage(settings.data_dir)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        celery = make_celery(settings)
        pool = None if settings.redis_url else Pool(celery, table, storage, settings)
        chores = [Retention(table, storage, settings).sweep]
        if pool is not None:
            chores += [pool.announce, pool.keep_working]
            pool.start()
        reconciler = Reconciler(table, WakeUps(celery, table), settings, chores)
        reconciler.start()
        admission = Admission(table, settings)
        app.state.service = Service(settings, table, storage, reconciler, admission)
        try:
            yield
        finally:
            await run_sync(reconciler.stop)
            if pool is not None:
                await run_sync(pool.stop)

    app = FastAPI(
        title="avsa-align",
        version=metadata.version("avsa-align"),
        summary="Finds the rotation that makes an ambisonic track fit a 360-degree picture.",
        lifespan=lifespan,
    )
    problems.install(app)
    app.add_middleware(SecurityHeaders)
    app.include_router(router)
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
        for name, model in (("PathRequest", PathRequest), ("Problem", ProblemDocument)):
            described = model.model_json_schema(ref_template=template)
            schemas.update(described.pop("$defs", {}))
            schemas[name] = described
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
