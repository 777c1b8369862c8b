"""What came of a job, over HTTP: corrected files, reports, pictures, previews."""

from __future__ import annotations

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, RedirectResponse

from service import problems
from service.http.resultfile import ResultFile, stored_result
from service.http.routes import RETRY_AFTER, JobDep, Service, ServiceDep, ended_without_result
from service.jobs import Job
from service.objects.names import ObjectName
from service.problems import Problem, Responses

router = APIRouter()

TrackNumber = Annotated[int, Query(ge=0, description="which of the request's tracks")]
TrackInPath = Annotated[int, PathParameter(ge=0, description="which of the request's tracks")]

_RESULT: Responses = {
    206: {"description": "the part that Range asks for"},
    304: {"description": "it is what If-None-Match names, or no younger than If-Modified-Since"},
    404: problems.described("no such job or track, or the file is gone"),
    409: problems.described("not ended yet, or cancelled"),
    412: problems.described("it is another than If-Match names", "precondition_failed"),
    416: problems.described("Range begins beyond the end of the file"),
    422: problems.described("the job failed for its input"),
    500: problems.described("the job failed for a reason of ours"),
    502: problems.described("the object store does not give it", "store_failed"),
}


def _result(job: Job, track: int) -> dict[str, Any]:
    """A track's result, or the problem that stands in its place."""
    if not job.state.final:
        detail = f"The job {job.id} is {job.state}: wait for its end."
        raise Problem(409, "job_not_ended", detail, headers=RETRY_AFTER)
    if not job.results:
        raise ended_without_result(job)
    if track >= len(job.results):
        detail = f"The job {job.id} has {len(job.results)} tracks; there is none of number {track}."
        raise Problem(404, "track_not_found", detail)
    result = job.results[track]
    if result.get("error"):
        raise problems.of_job_error(result["error"])
    return result


@router.get(
    "/jobs/{job_id}/audio/{track}",
    response_class=FileResponse,
    operation_id="get_audio",
    responses={307: {"description": "it lies in an object store, there"}, **_RESULT},
)
async def get_audio(
    request: Request, job: JobDep, track: TrackInPath, service: ServiceDep
) -> Response:
    """The corrected file of a track."""
    result = _result(job, track)
    media_type, name = "application/octet-stream", result["name"]
    if "objects" in result:
        at = ObjectName.parse(result["objects"]["audio"])
        link = await run_sync(
            lambda: service.objects.link(at, name, media_type, method=request.method)
        )
        return RedirectResponse(link, 307, headers={"Cache-Control": "no-store"})
    path = service.result_file(job, result["audio"])
    return ResultFile(path, filename=name, media_type=media_type)


@router.get(
    "/jobs/{job_id}/report.json",
    response_class=FileResponse,
    operation_id="get_report",
    responses=_RESULT,
)
async def get_report(job: JobDep, service: ServiceDep, track: TrackNumber = 0) -> Response:
    """The report of a track."""
    return await _beside(service, job, track, "report", "json", "application/json")


@router.get(
    "/jobs/{job_id}/plot.png",
    response_class=FileResponse,
    operation_id="get_plot",
    responses=_RESULT,
)
async def get_plot(job: JobDep, service: ServiceDep, track: TrackNumber = 0) -> Response:
    """The picture of a track's result."""
    return await _beside(service, job, track, "plot", "png", "image/png")


@router.get(
    "/jobs/{job_id}/preview.mp4",
    response_class=FileResponse,
    operation_id="get_preview",
    responses=_RESULT,
)
async def get_preview(job: JobDep, service: ServiceDep, track: TrackNumber = 0) -> Response:
    """Some seconds to watch of a track's result, where they were asked for."""
    if not _result(job, track).get("preview"):
        detail = f"The job {job.id} has no preview: ask for it with preview among the options."
        raise Problem(404, "no_preview", detail)
    return await _beside(service, job, track, "preview", "mp4", "video/mp4")


async def _beside(
    service: Service, job: Job, track: int, kind: str, suffix: str, media_type: str
) -> Response:
    """A small file beside a track's audio. From an object store it is passed on, for a page may
    load nothing from elsewhere.
    """
    result = _result(job, track)
    if "objects" in result:
        content = await run_sync(stored_result, service.objects, result["objects"][kind])
        return Response(content, media_type=media_type)
    return ResultFile(service.result_file(job, f"{kind}-{track}.{suffix}"), media_type=media_type)
