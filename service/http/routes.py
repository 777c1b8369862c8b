"""The HTTP interface: submit, watch, cancel, purge."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service import examples, problems, tracing, webhooks
from service.companions import COMPANIONS
from service.http.access import Caller, CallerDep
from service.http.admission import Admission, fingerprint, idempotency_key
from service.http.resultfile import kept_result, stored_result
from service.http.submission import Intake, names_files, read_submission
from service.jobs import (
    Job,
    JobTable,
    KeyReused,
    NewJob,
    QueueFull,
    QuotaReached,
    State,
    TableUnreachable,
    new_id,
)
from service.objects.store import ObjectStore
from service.problems import Problem, Responses
from service.queue import Reconciler
from service.retention import Purge
from service.schemas import JobInfo, JobPage
from service.settings import Settings
from service.storage import Storage
from service.uploads import UploadStore

log = logging.getLogger("avsa.http")

_POLL_S = 0.1
RETRY_AFTER = {"Retry-After": "2"}


@dataclass(frozen=True)
class Service:
    """What requests work with."""

    settings: Settings
    table: JobTable
    storage: Storage
    reconciler: Reconciler
    admission: Admission
    uploads: UploadStore
    objects: ObjectStore
    purge: Purge
    going_down: threading.Event  # then nothing is waited for

    async def job(self, job_id: str, caller: Caller) -> Job:
        """A job by its id; 404 if there is none, or none of the caller's."""
        job = await run_sync(self.table.get, job_id)
        if job is None or not caller.may_see(job.owner):
            raise self._not_found(job_id)
        return job

    async def until_final(self, job: Job, wait_s: float) -> Job:
        """The job as soon as it has ended, or as it is after `wait_s`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(wait_s, self.settings.max_wait_s)
        while not (job.state.final or self.going_down.is_set()) and loop.time() < deadline:
            await asyncio.sleep(min(_POLL_S, max(0.0, deadline - loop.time())))
            job = await self.latest(job)
        return job

    async def latest(self, job: Job) -> Job:
        """The job as it is now, or as it was last seen if the table is out of reach."""
        with suppress(TableUnreachable):
            current = await run_sync(self.table.get, job.id)
            if current is None:
                raise self._not_found(job.id)
            return current
        return job

    def _not_found(self, job_id: str) -> Problem:
        """Said the same of another owner's."""
        days = f"{self.settings.keep_days:g} days"
        detail = f"There is no job {job_id[:64]}; ended jobs are deleted after {days}."
        return Problem(404, "job_not_found", detail)

    def result_file(self, job: Job, name: str) -> Path:
        """A file that the attempt that counts has written."""
        return self.storage.result_folder(job.id, job.attempt) / name

    def report(self, job: Job, track: int) -> bytes:
        """The report of a track, from the disk or the object store."""
        objects = job.results[track].get("objects")
        if objects:
            return stored_result(self.objects, objects["report"])
        return kept_result(self.result_file(job, f"report-{track}.json"))


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


async def _known_job(job_id: str, service: ServiceDep, caller: CallerDep) -> Job:
    return await service.job(job_id, caller)


JobDep = Annotated[Job, Depends(_known_job)]
Wait = Annotated[float, Query(ge=0, description="seconds to wait for the job's end")]

router = APIRouter()


_NOT_FOUND: Responses = {404: problems.described("no such job")}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["video"],
                    "properties": {
                        "video": {"type": "string", "format": "binary"},
                        "audio": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        **{
                            name: {"type": "string", "format": "binary", "description": told}
                            for name, told in COMPANIONS.items()
                        },
                        "options": {"type": "string", "description": "AlignOptions as JSON"},
                    },
                },
                "example": examples.FORM,
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/AlignRequest"}},
        },
    }
}


# --- submitting ----------------------------------------------------------------------------------


@router.post(
    "/align",
    status_code=202,
    response_model=JobInfo,
    operation_id="align",
    openapi_extra=_BODY,
    responses={
        200: {"description": "with Prefer: wait=N, the finished report (several tracks: a list)"},
        400: problems.described("the body is broken"),
        404: problems.described("there is no such upload, or a result is gone"),
        409: problems.described(
            "a request with this Idempotency-Key is being read, or an upload is not finished"
        ),
        413: problems.described("too large"),
        415: problems.described("neither multipart nor JSON"),
        422: problems.described("something in the request does not fit"),
        423: problems.described("another request holds an upload"),
        429: problems.described("as many jobs wait or run for this key as may"),
        502: problems.described("an object store does not answer", "store_failed"),
        503: problems.described("as many jobs wait as may, or the job table is out of reach"),
        507: problems.described("no space left"),
    },
)
async def align(request: Request, service: ServiceDep, caller: CallerDep) -> Response:
    """Align one or more ambisonic tracks with a 360 video.

    Multipart with the files `video`, `audio` (repeated for several tracks; left out: the sound
    inside the video), perhaps `reference`, `orientation` or `detections`, and `options` as JSON; or
    a JSON body that names finished uploads, files on the server, or objects of a store.
    """
    key = idempotency_key(request)
    if not names_files(request):  # else there is nothing to read, and the table refuses
        await run_sync(service.admission.check_room, caller.owner, key, caller.max_jobs)
    with service.admission.in_flight(caller.owner, key):
        job = await _submitted(request, service, caller, key)
    service.reconciler.wake()
    log.info("job %s is queued", job.id, extra={"job_id": job.id})
    wait_s = _preferred_wait(request)
    if wait_s is not None:
        job = await service.until_final(job, wait_s)
        if job.state.final:
            return await run_sync(_finished, service, job)
    return JSONResponse(
        JobInfo.of(job).model_dump(mode="json"),
        202,
        headers={"Location": f"/jobs/{job.id}", **RETRY_AFTER},
    )


async def _submitted(request: Request, service: Service, caller: Caller, key: str | None) -> Job:
    """Read a request and store its job, or find the one that it repeats."""
    job_id = new_id()
    folder = service.storage.upload_folder(job_id)
    intake = Intake(folder, caller.owner, service.settings, service.uploads, service.objects)
    try:
        submission = await read_submission(request, service.storage, intake)
        notify = webhooks.notice(submission.options.notify_url, service.settings)
        digest = await run_sync(fingerprint, submission, folder) if key else None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    spec = submission.spec
    if trace := tracing.carried():
        spec["trace"] = trace
    new = NewJob(
        spec, id=job_id, label=submission.label, priority=submission.options.priority,
        owner=caller.owner, notify=notify, idempotency_key=key, fingerprint=digest,
    )  # fmt: skip
    try:
        job = await run_sync(service.admission.admit, new, caller.max_jobs)
    except (KeyReused, QuotaReached, QueueFull):  # after any other error the job may be stored
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if job.id != job_id:
        shutil.rmtree(folder, ignore_errors=True)
    return job


def _preferred_wait(request: Request) -> float | None:
    """Seconds of a `Prefer: wait=N` header (RFC 7240), which may come in several, in any case."""
    preferred = ", ".join(request.headers.getlist("prefer"))
    match = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d+)", preferred, re.IGNORECASE)
    return float(match[1]) if match else None


def _finished(service: Service, job: Job) -> Response:
    """The answer for a job that ended while its request waited."""
    if job.state is not State.SUCCEEDED:
        raise ended_without_result(job)
    reports = [
        problems.document(problems.of_job_error(result["error"]))
        if result.get("error")
        else json.loads(service.report(job, index))
        for index, result in enumerate(job.results)
    ]
    return JSONResponse(
        reports[0] if len(reports) == 1 else reports,
        headers={"Content-Location": f"/jobs/{job.id}", "Preference-Applied": "wait"},
    )


def ended_without_result(job: Job) -> Problem:
    if job.error is not None:
        problem = problems.of_job_error(job.error)
    else:
        problem = Problem(409, "cancelled", f"The job {job.id} was cancelled.")
    problem.fields["job"] = f"/jobs/{job.id}"
    return problem


# --- watching ------------------------------------------------------------------------------------


@router.get("/jobs", response_model=JobPage, operation_id="list_jobs")
async def list_jobs(
    service: ServiceDep,
    caller: CallerDep,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[
        int | None, Query(ge=0, lt=1 << 63, description="from the page before")
    ] = None,
    state: Annotated[State | None, Query(description="only those in it")] = None,
) -> JobPage:
    """All jobs that the key may see, the newest first."""
    owner = None if caller.sees_all else caller.owner
    jobs = await run_sync(
        lambda: service.table.newest(limit + 1, before=cursor, owner=owner, state=state)
    )
    page = jobs[:limit]
    next_cursor = page[-1].number if len(jobs) > limit else None
    if next_cursor is not None:
        same = f"&state={state}" if state else ""
        link = f'</jobs?limit={limit}&cursor={next_cursor}{same}>; rel="next"'
        response.headers["Link"] = link
    return JobPage(jobs=[JobInfo.of(job) for job in page], next_cursor=next_cursor)


@router.get("/jobs/{job_id}", response_model=JobInfo, operation_id="get_job", responses=_NOT_FOUND)
async def get_job(job: JobDep, service: ServiceDep, wait: Wait = 0.0) -> JobInfo:
    """Where a job stands; with `wait`, as soon as it has ended."""
    return JobInfo.of(await service.until_final(job, wait))


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    operation_id="watch_job",
    responses={
        200: {"content": {"text/event-stream": {"example": examples.JOB_ENDED}}},
        **_NOT_FOUND,
    },
)
async def watch_job(job: JobDep, service: ServiceDep) -> AsyncIterator[ServerSentEvent]:
    """Server-Sent Events, each a job as `get_job` gives it, until it has ended.

    The event's type is `progress`, and `end` for the last one.
    """
    number, told = 0, None
    while True:
        info = JobInfo.of(job)
        if info != told:
            number, told = number + 1, info
            kind = "end" if job.state.final else "progress"
            yield ServerSentEvent(data=info, event=kind, id=str(number))
        if job.state.final:
            return
        await asyncio.sleep(_POLL_S)
        if service.going_down.is_set():  # a browser connects again by itself
            return
        try:
            job = await service.latest(job)
        except Problem:  # it was deleted; whoever connects again is told so
            return


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    response_model=JobInfo,
    operation_id="cancel_job",
    responses=_NOT_FOUND,
)
async def cancel_job(job: JobDep, service: ServiceDep) -> JobInfo:
    """Cancel a job; one that has ended stays as it is."""
    cancelled = await run_sync(service.table.cancel, job.id)
    return JobInfo.of(cancelled or job)


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    operation_id="purge_job",
    responses={**_NOT_FOUND, 409: problems.described("not ended yet")},
)
async def purge_job(job: JobDep, service: ServiceDep) -> None:
    """Delete an ended job with all its files."""
    if not job.state.final:
        detail = f"The job {job.id} is {job.state}: cancel it first."
        raise Problem(409, "job_not_ended", detail)
    await run_sync(service.purge, job)
