"""How the service is, for load balancers and for Prometheus."""

from __future__ import annotations

import logging

from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI, Request, Response

from service import examples, metrics, problems
from service.http.routes import Service, ServiceDep
from service.problems import Problem
from service.schemas import Health

log = logging.getLogger("avsa.http")
router = APIRouter(tags=["health"])


@router.get("/livez", response_model=Health, operation_id="livez")
async def livez() -> Health:
    """The process answers."""
    return Health()


@router.get(
    "/readyz",
    response_model=Health,
    operation_id="readyz",
    responses={503: problems.described("jobs cannot be taken", "not_ready")},
)
async def readyz(service: ServiceDep) -> Health:
    """Jobs can be taken: table and disk can be written, there is space, the reconciler runs."""
    fault = await run_sync(_fault, service)
    if fault:
        raise Problem(503, "not_ready", fault, headers={"Retry-After": "2"})
    return Health()


def _fault(service: Service) -> str | None:
    """Why jobs cannot be taken; None if they can."""
    try:
        service.table.check()
    except Exception as error:
        return f"The job table cannot be written: {str(error).rstrip('.')}."
    if fault := _fault_of_disk(service):
        return fault
    if service.storage.free_bytes() < service.settings.reserve_bytes:
        return "The disk is full."
    if service.reconciler.sweep_age_s > 10 * service.settings.sweep_s:
        return "The reconciler has stopped."
    return None


def _fault_of_disk(service: Service) -> str | None:
    try:
        service.storage.check()
    except OSError as error:
        return f"The data folder {service.settings.data_dir} cannot be written: {error.strerror}."
    return None


def install(app: FastAPI) -> None:
    """Answer what fails for a disk that is gone, broken or read-only with a 503."""

    async def of_system(request: Request, error: Exception) -> Response:
        fault = await run_sync(_fault_of_disk, request.app.state.service)
        if fault is None:
            raise error
        log.error("%s", fault, exc_info=error)
        problem = Problem(503, "disk_failed", fault, headers={"Retry-After": "5"})
        return problems.response(problem)

    app.add_exception_handler(OSError, of_system)


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"description": "numbers", "content": {"text/plain": {"example": examples.METRICS}}}
    },
)
async def get_metrics(request: Request) -> Response:
    """Numbers for Prometheus; where there are keys, one with the scope `metrics` is needed."""
    text = await run_sync(request.app.state.metrics.text)
    return Response(text, headers={"content-type": metrics.MEDIA_TYPE})
