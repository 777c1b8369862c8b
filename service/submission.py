"""From a request's body to a job: uploaded files, or paths on the server, and options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request

from service import problems
from service.problems import Problem
from service.schemas import AlignOptions, PathRequest
from service.settings import Settings
from service.storage import Storage, safe_label
from service.uploads import Received, ReceivedFile, receive

# The sound inside the video, named as on the command line.
_INSIDE = "-"


@dataclass(frozen=True)
class Submission:
    """A request understood."""

    video: ReceivedFile
    audio: list[ReceivedFile]
    options: AlignOptions

    @property
    def label(self) -> str:
        """What to call the job."""
        return self.options.label or (self.audio or [self.video])[0].label

    @property
    def spec(self) -> dict[str, Any]:
        """The job as a worker's child takes it."""
        groups = [[file] for file in self.audio]
        if self.options.join and self.audio:
            groups = [self.audio]
        return {
            "video": {"path": str(self.video.path), "label": self.video.label},
            "tracks": [
                {"paths": [str(f.path) for f in group], "labels": [f.label for f in group]}
                for group in groups or [[self.video]]
            ],
            "options": self.options.model_dump(exclude={"join", "label", "priority", "notify_url"}),
        }


async def read_submission(
    request: Request, folder: Path, storage: Storage, settings: Settings
) -> Submission:
    """Read a request; uploaded files go to `folder`, which the caller deletes after a failure.

    Raises
    ------
    Problem : what is wrong with the request, or no space for it.
    """
    if request.headers.get("content-type", "").split(";")[0].strip() == "application/json":
        return _from_paths(await request.body(), settings)
    received = await receive(
        request,
        folder,
        storage,
        max_bytes=settings.max_upload_bytes,
        reserve_bytes=settings.reserve_bytes,
    )
    return _from_upload(received)


def _from_paths(body: bytes, settings: Settings) -> Submission:
    try:
        named = PathRequest.model_validate_json(body)
    except ValidationError as error:
        raise problems.of_validation_errors(error.errors()) from error
    video, *audio = (_below_roots(path, settings) for path in (named.video, *named.audio))
    return Submission(video, audio, named.options)


def _below_roots(name: str, settings: Settings) -> ReceivedFile:
    """A regular file below one of the media roots, links followed."""
    path = Path(name).resolve()
    if not any(path.is_relative_to(root.resolve()) for root in settings.media_roots):
        detail = f"The path {name} is not below a media root of the service (AVSA_MEDIA_ROOTS)."
        raise Problem(422, "path_not_allowed", detail)
    if not path.is_file():
        raise Problem(422, "unreadable_media", f"{name} does not exist or is not a file.")
    return ReceivedFile(path, safe_label(name), path.stat().st_size)


def _from_upload(received: Received) -> Submission:
    _check_fields(received)
    video, audio = received.files["video"][0], received.files.get("audio", [])
    for file in (video, *audio):
        if file.size == 0:
            raise Problem(422, "unreadable_media", f"{file.label} is empty.")
    try:
        options = AlignOptions.model_validate_json(received.fields.get("options") or "{}")
    except ValidationError as error:
        raise problems.of_validation_errors(error.errors()) from error
    return Submission(video, audio, options)


def _check_fields(received: Received) -> None:
    """Refuse what is missing or unknown, by name."""
    unknown = ({*received.files} - {"video", "audio"}) | ({*received.fields} - {"options", "audio"})
    detail = None
    if unknown:
        detail = f"The field {min(unknown)!r} is unknown; send files video and audio, and options."
    elif (count := len(received.files.get("video", []))) != 1:
        detail = f"The body has {count} files called video; send one."
    elif (text := received.fields.get("audio", _INSIDE)) != _INSIDE:
        detail = f"The field audio is the text {text[:50]!r}; send a file."
    if detail:
        raise Problem(422, "invalid_request", detail)
