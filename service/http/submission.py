"""From a request's body to a job: files sent along, or named ones, and options."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from pydantic import ValidationError
from starlette.requests import Request

from model.errors import MediaError, OptionError
from service import problems
from service.companions import COMPANIONS
from service.http.body import media_type
from service.http.multipart import Received, receive
from service.objects.names import ObjectName
from service.objects.store import ObjectFacts, ObjectStore
from service.problems import Problem
from service.schemas import AlignOptions, AlignRequest, OnServer, Source, Uploaded
from service.settings import Settings
from service.storage import Storage, StoredFile, safe_label
from service.uploads import UploadStore

# The sound inside the video, named as on the command line.
_INSIDE = "-"


@dataclass(frozen=True)
class StoredObject:
    """A file that lies in an object store."""

    name: ObjectName
    facts: ObjectFacts

    @property
    def label(self) -> str:
        """What to call it."""
        return safe_label(self.name.key)


Input = StoredFile | StoredObject


@dataclass(frozen=True)
class Submission:
    """A request understood.

    beside : what came with them, by `COMPANIONS`.
    output : s3://BUCKET/PREFIX/ that results are moved to; empty: they stay on the disk.
    """

    video: Input
    audio: list[Input]
    options: AlignOptions
    output: str = ""
    beside: Mapping[str, Input] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.options.join and len(self.audio) < 2:
            raise OptionError(
                f"join is for a track in several files, but only {self._first.label} came: name "
                "all of them, or leave join away."
            )

    @property
    def _first(self) -> Input:
        """The track, or the first of several."""
        return (self.audio or [self.video])[0]

    @property
    def label(self) -> str:
        """What to call the job."""
        return self.options.label or self._first.label

    @property
    def spec(self) -> dict[str, Any]:
        """The job as a worker's child takes it."""
        groups = [self.audio] if self.options.join else [[file] for file in self.audio]
        spec: dict[str, Any] = {
            "video": _entry(self.video),
            "tracks": [_track(group) for group in groups or [[self.video]]],
            "options": self.options.model_dump(exclude={"join", "label", "priority", "notify_url"}),
        }
        spec |= {name: _entry(file) for name, file in self.beside.items()}
        return {**spec, "output": self.output} if self.output else spec


def _entry(file: Input) -> dict[str, Any]:
    """A file as the child takes it; one in an object store has no path yet."""
    if isinstance(file, StoredFile):
        return {"path": str(file.path), "label": file.label}
    pinned = {"uri": file.name.uri, "size": file.facts.size, "etag": file.facts.etag}
    return {"path": None, "label": file.label, "object": pinned}


def _track(group: list[Input]) -> dict[str, Any]:
    entries = [_entry(file) for file in group]
    return {
        "paths": [entry["path"] for entry in entries],
        "labels": [entry["label"] for entry in entries],
        "objects": [entry.get("object") for entry in entries],
    }


@dataclass(frozen=True)
class Intake:
    """What named files are looked up in.

    folder : of the job to come; files are put there.
    owner : who asks.
    """

    folder: Path
    owner: str
    settings: Settings
    uploads: UploadStore
    objects: ObjectStore

    def resolve(self, source: Source | str, number: int) -> Input:
        """A named file.

        Raises
        ------
        Problem : it is not there, not finished, or nothing a request may name.
        AvsaError : the object store does not have it.
        """
        if isinstance(source, str):
            source = OnServer(path=source)
        if isinstance(source, OnServer):
            return self._below_roots(source.path)
        if isinstance(source, Uploaded):
            file = self.uploads.take(source.upload, self.folder, f"file-{number}", owner=self.owner)
            _refuse_empty(file.label, file.size)
            return file
        name = self.allowed(source.uri)
        facts = self.objects.facts(name)
        _refuse_empty(source.uri, facts.size)
        return StoredObject(name, facts)

    def allowed(self, uri: str) -> ObjectName:
        """An object, or a folder of them, below the object roots or among the direct uploads.

        Raises
        ------
        OptionError : no address of an object.
        Problem : not allowed (422).
        """
        name = ObjectName.parse(uri)
        roots = [*self.settings.object_roots, self.settings.objects_url]
        if not any(name.is_below(ObjectName.parse(root)) for root in filter(None, roots)):
            detail = f"{uri} is not below an object root of the service (AVSA_OBJECT_ROOTS)."
            raise Problem(422, "path_not_allowed", detail)
        return name

    def _below_roots(self, name: str) -> StoredFile:
        """A regular file below one of the media roots, links followed."""
        try:
            path = Path(name).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # loops of links, zero bytes
            raise MediaError(f"{name[:500]!r} is no path of a file.") from error
        if not any(path.is_relative_to(root.resolve()) for root in self.settings.media_roots):
            detail = f"The path {name} is not below a media root of the service (AVSA_MEDIA_ROOTS)."
            raise Problem(422, "path_not_allowed", detail)
        try:
            # Without following a link that was put there since, or waiting for a pipe's other end.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise MediaError(f"{name} does not exist or cannot be opened.") from error
        try:
            facts = os.fstat(handle)
        finally:
            os.close(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise MediaError(f"{name} is not a file.")
        return StoredFile(path, safe_label(name), facts.st_size)


def names_files(request: Request) -> bool:
    """Whether a request names its files instead of sending them."""
    return media_type(request) == "application/json"


async def read_submission(request: Request, storage: Storage, intake: Intake) -> Submission:
    """Read a request; files go to the intake's folder, which the caller deletes after a failure.

    Raises
    ------
    Problem, AvsaError : what is wrong with the request, or no space for it.
    """
    settings = intake.settings
    if names_files(request):
        body = await request.body()
        return await run_sync(_from_names, body, intake)
    received = await receive(
        request,
        intake.folder,
        storage,
        max_bytes=settings.max_upload_bytes,
        idle_s=settings.upload_idle_s,
    )
    return _from_upload(received, settings)


def _from_names(body: bytes, intake: Intake) -> Submission:
    try:
        named = AlignRequest.model_validate_json(body)
    except ValidationError as error:
        raise problems.of_validation_errors(error.errors()) from error
    output = intake.settings.results_url
    if named.output is not None:
        output = intake.allowed(named.output).uri
    video, *audio = (
        intake.resolve(source, number)
        for number, source in enumerate((named.video, *named.audio), start=1)
    )
    beside = {
        name: intake.resolve(source, number)
        for number, name in enumerate(COMPANIONS, start=len(audio) + 2)
        if (source := getattr(named, name)) is not None
    }
    return Submission(video, audio, _judged_by(named.options, intake.settings), output, beside)


def _from_upload(received: Received, settings: Settings) -> Submission:
    _check_fields(received)
    video, audio = received.files["video"][0], received.files.get("audio", [])
    beside = {name: received.files[name][0] for name in COMPANIONS if name in received.files}
    for file in (video, *audio, *beside.values()):
        _refuse_empty(file.label, file.size)
    try:
        options = AlignOptions.model_validate_json(received.fields.get("options") or "{}")
    except ValidationError as error:
        raise problems.of_validation_errors(error.errors()) from error
    judged_by = _judged_by(options, settings)
    return Submission(video, [*audio], judged_by, settings.results_url, beside)


def _judged_by(options: AlignOptions, settings: Settings) -> AlignOptions:
    """Options, if this service can judge so."""
    if options.method == "avsa" and settings.checkpoint is None:
        raise OptionError(
            "The method avsa is not offered here, for the operator has set no AVSA_CHECKPOINT: "
            "use fused or evidence."
        )
    return options


def _refuse_empty(name: str, size: int) -> None:
    if size == 0:
        raise MediaError(f"{name} is empty.")


def _check_fields(received: Received) -> None:
    """Refuse what is missing, unknown, or sent as what it is not, by name."""
    files = ["video", "audio", *COMPANIONS]
    texts = {name: text for name, text in received.fields.items() if name in files}
    if texts.get("audio") == _INSIDE:
        del texts["audio"]
    unknown = {*received.files, *received.fields} - {*files, "options"}
    several = [name for name in COMPANIONS if len(received.files.get(name, [])) > 1]
    detail = None
    if unknown:
        detail = (
            f"The field {min(unknown)!r} is unknown; send files {', '.join(files[:-1])} and "
            f"{files[-1]}, and options."
        )
    elif texts:
        name, text = min(texts.items())
        detail = f"The field {name} is the text {text[:50]!r}; send a file."
    elif "options" in received.files:
        detail = "The field options came as a file; send text."
    elif (count := len(received.files.get("video", []))) != 1:
        detail = f"The body has {count} files called video; send one."
    elif several:
        count = len(received.files[several[0]])
        detail = f"The body has {count} files called {several[0]}; send one or none."
    if detail:
        raise Problem(422, "invalid_request", detail)
