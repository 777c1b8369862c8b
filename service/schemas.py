"""What goes over the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service import examples
from service.companions import COMPANIONS
from service.jobs import DEFAULT_PRIORITY, HIGHEST_PRIORITY, LOWEST_PRIORITY, Job, State

# Of one request; with the video as many files as a multipart body may have parts.
MAX_TRACKS = 99


def _shown(example: dict[str, Any]) -> ConfigDict:
    """A model's example in the document."""
    return ConfigDict(json_schema_extra={"examples": [example]})


class AlignOptions(BaseModel):
    """The `options` of a request; all have defaults."""

    model_config = ConfigDict(extra="forbid", **_shown(examples.OPTIONS))

    convention: Literal["auto", "ambix", "n3d", "fuma"] = Field(
        "auto",
        description="order and weights of the tracks; auto: as declared, else as they surely "
        "sound, else AmbiX",
    )
    fix: Literal["invert", "mirror"] | None = Field(
        None, description="done to the field first: the microphone hung upside down, or left and "
        "right are exchanged"
    )  # fmt: skip
    channels: list[int] | None = Field(
        None, description="file channel of each ACN component, for orders of no convention"
    )
    join: bool = Field(False, description="the audio files are one track, split by channels")
    stereo: Literal["mono", "top-bottom", "left-right"] | None = Field(
        None, description="packing of the picture, if not as declared"
    )
    offset_s: float | None = Field(
        None,
        description="time in the picture at which the track begins; else by the camera's sound",
        allow_inf_nan=False,
    )
    windows: int = Field(8, ge=1, le=64, description="windows that are judged, at most")
    tolerance_deg: float = Field(10.0, ge=0, lt=180, description="a rotation still called aligned")
    method: Literal["fused", "evidence", "avsa"] = Field(
        "fused",
        description="what judges: the learned scorer and how places look, training-free evidence, "
        "or the operator's AVSA checkpoint",
    )
    float_output: bool = Field(False, description="write 32-bit float samples")
    apply_undecided: bool = Field(
        False, description="write the best rotation even where the verdict is undecidable"
    )
    apply_deg: float | None = Field(
        None, gt=-360, lt=360, description="write this rotation, whatever is found: degrees, + "
        "turns sources to the left"
    )  # fmt: skip
    over_time: bool = Field(
        False, description="look whether the rotation changes along the take (decodes all of it)"
    )
    follow: bool = Field(False, description="over_time, and write the rotation as it changes")
    lay_on_picture: bool = Field(
        False, description="write the track on the picture's clock, from first frame to last (WAV)"
    )
    preview: bool = Field(
        False, description="some seconds to watch as well: the sound over the picture (MP4)"
    )
    priority: int = Field(
        DEFAULT_PRIORITY, ge=LOWEST_PRIORITY, le=HIGHEST_PRIORITY,
        description="of the jobs that wait the highest runs first, then the oldest",
    )  # fmt: skip
    label: str = Field("", max_length=200, description="a name of yours for the job")
    notify_url: str | None = Field(
        None, max_length=2000, pattern="^https://", description="told when the job has ended: a "
        "webhook as Standard Webhooks has it, at a public address"
    )  # fmt: skip


class OnServer(BaseModel):
    """A file on the server."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="below one of the service's media roots")


class Uploaded(BaseModel):
    """A finished upload."""

    model_config = ConfigDict(extra="forbid")

    upload: str = Field(description="its id")


class Stored(BaseModel):
    """An object of an S3-compatible store."""

    model_config = ConfigDict(extra="forbid")

    uri: str = Field(description="s3://BUCKET/KEY, below one of the service's object roots")


Source = OnServer | Uploaded | Stored


class AlignRequest(BaseModel):
    """A request that names its files instead of sending them."""

    model_config = ConfigDict(extra="forbid", **_shown(examples.REQUEST))

    video: Source | str = Field(description="the 360 video; a text is a path on the server")
    audio: list[Source | str] = Field(
        default_factory=list, max_length=MAX_TRACKS,
        description="the tracks; none: the sound inside the video",
    )  # fmt: skip
    reference: Source | str | None = Field(None, description=COMPANIONS["reference"])
    orientation: Source | str | None = Field(None, description=COMPANIONS["orientation"])
    detections: Source | str | None = Field(None, description=COMPANIONS["detections"])
    options: AlignOptions = Field(default_factory=AlignOptions)
    output: str | None = Field(
        None, description="s3://BUCKET/PREFIX/ below one of the service's object roots: results "
        "are written under it, in a folder of the job's id, and kept there when it is purged"
    )  # fmt: skip


class UploadInfo(BaseModel):
    """Where an upload stands."""

    model_config = _shown(examples.UPLOAD)

    id: str
    state: Literal["waiting", "complete"] = Field(description="complete: a job may name it")
    name: str
    offset: int = Field(ge=0, description="bytes that are there")
    length: int | None = Field(description="bytes of the whole; null while that is not known")
    sha256: str | None = Field(description="of the whole, where it came in one piece")
    expires_at: datetime = Field(description="swept then; later after every byte")


class DirectUploadRequest(BaseModel):
    """A file that the client wants to send to the object store itself."""

    model_config = ConfigDict(extra="forbid", **_shown(examples.DIRECT_REQUEST))

    name: str = Field(max_length=500, description="the file's name")
    size: int = Field(gt=0, le=10_000 * (5 << 30), description="its bytes")


class Part(BaseModel):
    """A part that is missing yet."""

    number: int = Field(ge=1, le=10_000)
    offset: int = Field(description="where in the file it begins")
    size: int
    url: str = Field(description="send its bytes there with PUT")


class DirectUpload(BaseModel):
    """A multipart upload to the object store. Asked again, it tells what is missing still."""

    model_config = _shown(examples.DIRECT)

    id: str
    uri: str = Field(description="what a job names, once the upload is complete")
    size: int
    part_size: int
    missing: list[Part] = Field(description="at most 1000 at a time")
    expires_at: datetime = Field(description="of the addresses; ask for new ones after that")


class CompletedUpload(BaseModel):
    """An object that is there."""

    model_config = _shown(examples.STORED)

    uri: str
    size: int


class ErrorInfo(BaseModel):
    """What went wrong."""

    code: str = Field(description="stable; tools may branch on it")
    detail: str = Field(description="one sentence, with the offending value and what to do")


class TrackResult(BaseModel):
    """What came out for one track."""

    name: str | None = Field(
        None, description="file name of the corrected track; of one that failed, as it was sent"
    )
    verdict: Literal["aligned", "misaligned", "undecidable"] | None = None
    rotate_field_ccw_deg: float | None = Field(
        None, description="turn the field by this, counter-clockwise seen from above"
    )
    confidence: float | None = None
    audio_url: str | None = Field(None, description="the corrected file")
    report_url: str | None = None
    plot_url: str | None = None
    preview_url: str | None = Field(None, description="where a preview was asked for")
    audio_uri: str | None = Field(None, description="where it lies in an object store")
    error: ErrorInfo | None = None


class JobInfo(BaseModel):
    """Where a job stands."""

    model_config = _shown(examples.JOB)

    id: str
    state: State
    label: str
    priority: int
    stage: str = Field(description="what is being done")
    progress: float = Field(ge=0, le=1)
    attempt: int = Field(description="1, or more if a worker was lost")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    results: list[TrackResult]
    error: ErrorInfo | None

    @classmethod
    def of(cls, job: Job) -> JobInfo:
        """The public view of a job."""
        return cls(
            id=job.id,
            state=job.state,
            label=job.label,
            priority=job.priority,
            stage=job.stage,
            progress=job.fraction,
            attempt=job.attempt,
            created_at=_time(job.created_at),
            started_at=_time(job.started_at) if job.started_at else None,
            finished_at=_time(job.finished_at) if job.finished_at else None,
            results=[_result(job, index, result) for index, result in enumerate(job.results)],
            error=ErrorInfo(**job.error) if job.error else None,
        )


class JobPage(BaseModel):
    """Jobs, the newest first."""

    model_config = _shown(examples.PAGE)

    jobs: list[JobInfo]
    next_cursor: int | None = Field(description="`cursor` of the next page; null on the last")


class WebhookEvent(BaseModel):
    """What is sent to the `notify_url` of a job that has ended."""

    model_config = _shown(examples.EVENT)

    type: str = Field(description="job.succeeded, job.failed or job.cancelled")
    timestamp: datetime = Field(description="when it ended")
    data: JobInfo


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="urn:avsa-align:problem:CODE")
    title: str
    status: int
    code: str = Field(description="stable; tools may branch on it")
    detail: str = Field(description="one sentence, with the offending value and what to do")


class Health(BaseModel):
    """The service is there."""

    model_config = _shown({"status": "ok"})

    status: Literal["ok"] = "ok"


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _result(job: Job, index: int, result: dict[str, Any]) -> TrackResult:
    if result.get("error"):
        sent = job.spec["tracks"][index]["labels"]
        return TrackResult(name=", ".join(sent), error=ErrorInfo(**result["error"]))
    base = f"/jobs/{job.id}"
    return TrackResult(
        name=result["name"],
        verdict=result["verdict"],
        rotate_field_ccw_deg=result["rotate_field_ccw_deg"],
        confidence=result["confidence"],
        audio_url=f"{base}/audio/{index}",
        report_url=f"{base}/report.json?track={index}",
        plot_url=f"{base}/plot.png?track={index}",
        preview_url=f"{base}/preview.mp4?track={index}" if result.get("preview") else None,
        audio_uri=result.get("objects", {}).get("audio"),
    )


class WebhookSecret(BaseModel):
    """What webhooks are signed with."""

    secret: str = Field(
        description="of this key's owner, as Standard Webhooks writes it",
        examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"],
    )
