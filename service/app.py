"""The application: settings in, a FastAPI object out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import metadata, resources

from anyio.to_thread import run_sync
from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.staticfiles import StaticFiles

from service import problems, webhooks
from service.http import access, health, openapi
from service.http.admission import Admission
from service.http.body import BodyLimit, PlainBody
from service.http.middleware import RequestLog, SafeHeaders, SameSite, is_loopback
from service.http.object_routes import router as objects_router
from service.http.result_routes import router as results_router
from service.http.routes import Service, router
from service.http.upload_routes import Tus
from service.http.upload_routes import router as uploads_router
from service.http.webhook_routes import router as webhooks_router
from service.jobs import open_table
from service.metrics import Metrics
from service.objects.store import ObjectStore
from service.queue import Reconciler, WakeUps, make_celery
from service.retention import Purge, Retention
from service.settings import Settings
from service.storage import Storage
from service.sweeper import Sweeper
from service.uploads import UploadStore
from service.workers.pool import Pool


def _upload_store(settings: Settings, storage: Storage) -> UploadStore:
    return UploadStore(
        settings.data_dir, storage,
        max_bytes=settings.max_upload_bytes, ttl_s=settings.upload_ttl_s,
    )  # fmt: skip


def create_app(settings: Settings) -> FastAPI:
    """The service; starting and stopping what belongs to it is the lifespan's.

    Embedded, the workers are in this process; in a cluster (`redis_url`) they are elsewhere.
    """
    table = open_table(settings)
    storage = Storage(settings.data_dir, settings.reserve_bytes)
    objects = ObjectStore(settings)
    purge = Purge(table, storage, objects, settings)
    uploads = _upload_store(settings, storage)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        celery = make_celery(settings)
        pool = None if settings.redis_url else Pool(celery, table, storage, settings)
        if pool is not None:
            pool.start()
        chores = [pool.announce, pool.keep_working] if pool is not None else []
        reconciler = Reconciler(table, WakeUps(celery, table), settings, chores)
        reconciler.start()
        retention = Retention(table, purge, storage, settings)
        retention.start()
        admission = Admission(table, settings)
        sweeper = Sweeper(
            uploads, storage, lambda name: table.get(name) is not None,
            every_s=settings.upload_sweep_s, ttl_s=settings.upload_ttl_s,
        )  # fmt: skip
        sweeper.start()
        app.state.service = Service(
            settings, table, storage, reconciler, admission, uploads, objects, purge,
            app.state.going_down,
        )  # fmt: skip
        deliveries = asyncio.create_task(webhooks.deliver(table, settings))
        try:
            yield
        finally:
            deliveries.cancel()
            with suppress(asyncio.CancelledError):
                await deliveries
            await run_sync(sweeper.stop)
            await run_sync(retention.stop)
            await run_sync(reconciler.stop)
            if pool is not None:
                await run_sync(pool.stop)
            objects.close()

    app = FastAPI(
        title="avsa-align",
        version=metadata.version("avsa-align"),
        summary="Finds the rotation that makes an ambisonic track fit a 360-degree picture.",
        lifespan=lifespan,
        docs_url=None,  # the page's own, below: its files come from here
        redoc_url=None,
    )
    app.state.going_down = threading.Event()  # set when a signal has come
    app.state.gate = access.open_gate(settings)
    app.state.metrics = Metrics(table, storage.free_bytes)
    problems.install(app)
    health.install(app)
    _add_middleware(app, settings)
    _add_routes(app)
    openapi.describe(app)
    return app


def _add_routes(app: FastAPI) -> None:
    """What is answered, to whom it may be."""
    parts = (
        router, results_router, access.router, webhooks_router, health.router, uploads_router,
        objects_router,
    )  # fmt: skip
    for part in parts:
        app.include_router(part, dependencies=[Depends(access.authorise)])
    _answer_head(app)
    _add_pages(app)


def _answer_head(app: FastAPI) -> None:
    """HEAD wherever there is GET, as HTTP wants it: what a file is, is asked before it is fetched.

    Not of events: they have no end to be told beforehand.
    """
    routes = [(context.path, context.original_route) for context in iter_route_contexts(app.routes)]
    with_head = {
        path for path, route in routes if "HEAD" in (getattr(route, "methods", None) or ())
    }
    for path, route in routes:
        if not isinstance(route, APIRoute) or "GET" not in (route.methods or ()):
            continue
        if path is not None and path not in with_head and route.operation_id != "watch_job":
            app.add_api_route(
                path, route.endpoint, methods=["HEAD"], operation_id=route.operation_id,
                response_model=route.response_model, response_class=route.response_class,
                dependencies=[Depends(access.authorise)], include_in_schema=False,
            )  # fmt: skip


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """What every request passes, the last first."""
    app.add_middleware(BodyLimit)
    app.add_middleware(PlainBody)
    app.add_middleware(Tus)
    app.add_middleware(SameSite, loopback=is_loopback(settings.host), origins=settings.cors_origins)
    app.add_middleware(
        RequestLog, observe=app.state.metrics.observe, going_down=app.state.going_down
    )
    # Outside of what answers by itself: a page of an allowed origin may read those answers too.
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[
                "Location", "Retry-After", "X-Request-ID", "Upload-Offset", "Upload-Length",
                "Upload-Expires", "Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size",
            ],
        )  # fmt: skip
    app.add_middleware(SafeHeaders)


def _add_pages(app: FastAPI) -> None:
    """The page and `/docs`, each under a name of its own: a folder at `/` would answer for all
    that the interface does not, with a 404 in place of its 405.
    """
    web = str(resources.files("service") / "web")
    swagger = str(resources.files("fastapi_offline") / "static")
    app.mount("/page", StaticFiles(directory=f"{web}/page"), name="page")
    app.mount("/docs", StaticFiles(directory=f"{web}/docs", html=True), name="docs")
    app.mount("/swagger", StaticFiles(directory=swagger), name="swagger")

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(f"{web}/index.html")
