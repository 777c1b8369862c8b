"""A client of the service, typed: `Client` uploads, submits, watches, waits and fetches.

    with Client("https://align.example", key="avsa_...") as client:
        job = client.align("take.mp4", ["take.wav"])
        job = client.wait(job.id, on_progress=lambda job: print(job.stage, job.progress))
        client.save_audio(job.id, "corrected.wav")

Takes of gigabytes go up piece by piece, and are named by the submission then:

        video, audio = client.upload("take.mp4"), client.upload("take.wav")
        job = client.submit(AlignRequest(video=video, audio=[audio]))

What fails for a while (a restart, a lost connection, too many requests) is tried again, and nothing
is done twice by it: a submission carries an idempotency key, uploads go on where the service has
them, event streams are taken up again, and a download goes on where it broke off.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self

import httpx

from service.answers import (
    BUSY,
    NotReached,
    Patience,
    ServiceError,
    error_of,
    is_busy,
    not_ours,
    parsed,
    refuse_error,
)
from service.jobs import State
from service.schemas import AlignOptions, AlignRequest, JobInfo, JobPage, Uploaded

__all__ = [
    "AlignOptions", "AlignRequest", "Client", "JobInfo", "NotReached", "ServiceError", "State",
    "Uploaded",
]  # fmt: skip

_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")
_CHUNK = 32 << 20  # bytes that are lost at most where an upload breaks off
_TUS = {"Tus-Resumable": "1.0.0"}
_APPEND = {**_TUS, "Content-Type": "application/offset+octet-stream"}
# The upload is elsewhere than thought, is still held by a request that died, or bytes were damaged.
_ASK_AGAIN = frozenset({409, 423, 460})
# A stream of events says something every 15 s; one that is silent for longer is dead.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)

OnBytes = Callable[[int, int], None]
OnJob = Callable[[JobInfo], None]


class Client:
    """A connection to a service; safe to use from one thread at a time.

    Parameters
    ----------
    url : where the service is, without a path.
    key : an API key, if the service wants one.
    patience_s : for how long what fails for a while is tried again, from its first failure on.
    verify : as of httpx: False, or an SSL context, for certificates of one's own.
    """

    def __init__(
        self, url: str, *, key: str | None = None, patience_s: float = 120.0, verify: Any = True
    ) -> None:
        if httpx.URL(url).scheme not in ("http", "https") or not httpx.URL(url).host:
            raise ValueError(f"{url[:200]!r} is no address of a service: write https://HOST:PORT.")
        if key and not _VISIBLE.fullmatch(key):
            raise ValueError("The key has a character that no key has: give it as it was shown.")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=url.rstrip("/"), headers=headers, timeout=_TIMEOUT, verify=verify
        )
        self._patience_s = patience_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # --- submitting ------------------------------------------------------------------------------

    def align(
        self, video: str | Path, audio: Sequence[str | Path] = (), *,
        reference: str | Path | None = None, orientation: str | Path | None = None,
        detections: str | Path | None = None, options: AlignOptions | None = None,
        idempotency_key: str | None = None,
    ) -> JobInfo:  # fmt: skip
        """Send files in one request and have them aligned; see `upload` for long ones.

        Parameters
        ----------
        audio : the tracks; none: the sound inside the video.
        reference : an ambisonic recording whose front is the picture's.
        orientation : a CSV file that says how the microphone turned.
        detections : objects that a detector found in the video, as JSON lines.
        idempotency_key : a name of yours for this submission, up to 255 visible ASCII characters;
            given again within a day, it is the same job. Else one is made.

        Raises
        ------
        ServiceError, NotReached.
        """
        headers = {"Idempotency-Key": _named(idempotency_key)}
        data = {"options": options.model_dump_json()} if options else {}
        sent = [("video", video), *(("audio", path) for path in audio)]
        beside = {"reference": reference, "orientation": orientation, "detections": detections}
        sent += [(name, path) for name, path in beside.items() if path]

        def post() -> httpx.Response:
            with ExitStack() as stack:
                files: list[tuple[str, Any]] = [
                    (field, (Path(path).name, stack.enter_context(Path(path).open("rb"))))
                    for field, path in sent
                ]
                return self._http.post("/align", files=files, data=data, headers=headers)

        return parsed(JobInfo, self._insist(post))

    def submit(self, request: AlignRequest, *, idempotency_key: str | None = None) -> JobInfo:
        """Have what is there already aligned: uploads, files on the server, objects of a store.

        Raises
        ------
        ServiceError, NotReached.
        """
        headers = {
            "Idempotency-Key": _named(idempotency_key),
            "Content-Type": "application/json",
        }
        body = request.model_dump_json(exclude_unset=True)
        answer = self._insist(lambda: self._http.post("/align", content=body, headers=headers))
        return parsed(JobInfo, answer)

    def upload(
        self, path: str | Path, *, upload_id: str | None = None,
        on_begin: Callable[[str], None] | None = None, on_bytes: OnBytes | None = None,
    ) -> Uploaded:  # fmt: skip
        """Send a file of any size in pieces, each with its checksum.

        What breaks off goes on where the service has it: by itself as long as patience lasts, and
        after that, or in another process, with the `upload_id` that `on_begin` was told.

        Raises
        ------
        ServiceError, NotReached, OSError; ValueError : the upload is of a file of another size, or
            the file has changed meanwhile.
        """
        path = Path(path)
        facts = path.stat()
        if upload_id is None:
            upload_id = self._begin(path.name, facts.st_size)
            if on_begin is not None:
                on_begin(upload_id)
        try:
            self._send(upload_id, path, facts, on_bytes)
        except (ServiceError, NotReached) as error:
            if getattr(error, "status", None) not in (404, 413):
                error.add_note(f"What was sent is kept: go on with upload_id={upload_id!r}.")
            raise
        return Uploaded(upload=upload_id)

    def _send(
        self, upload_id: str, path: Path, facts: os.stat_result, on_bytes: OnBytes | None
    ) -> None:
        """Send what is missing of a file."""
        size, patience, done = facts.st_size, Patience(self._patience_s), -1
        with path.open("rb") as file:
            while (offset := self._offset(upload_id, path, size)) < size:
                if offset > done:
                    patience.renew()
                    done = offset
                self._send_from(upload_id, file, offset, size, patience, on_bytes)
                now = os.fstat(file.fileno())
                if (now.st_size, now.st_mtime_ns) != (size, facts.st_mtime_ns):
                    raise ValueError(f"{path} has changed while it was sent: send it again.")

    def _begin(self, name: str, size: int) -> str:
        metadata = f"filename {base64.b64encode(name.encode()).decode()}"
        headers = {**_TUS, "Upload-Length": str(size), "Upload-Metadata": metadata}
        answer = self._insist(lambda: self._http.post("/uploads", headers=headers))
        upload_id = str(answer.headers.get("location", "")).rpartition("/")[2]
        if not upload_id:
            raise not_ours(answer)
        return upload_id

    def _offset(self, upload_id: str, path: Path, size: int) -> int:
        """How much of a file the service has."""
        url = f"/uploads/{upload_id}"
        answer = self._insist(lambda: self._http.head(url, headers=_TUS), BUSY | _ASK_AGAIN)
        if answer.headers.get("upload-length") != str(size):
            begun = answer.headers.get("upload-length")
            raise ValueError(f"{path} has {size} bytes; the upload {upload_id} is of {begun}.")
        return int(answer.headers["upload-offset"])

    def _send_from(
        self, upload_id: str, file: BinaryIO, offset: int, size: int, patience: Patience,
        on_bytes: OnBytes | None,
    ) -> None:  # fmt: skip
        """Send pieces until all are sent or something breaks off."""
        file.seek(offset)
        while piece := file.read(min(_CHUNK, size - offset)):
            digest = base64.b64encode(hashlib.sha256(piece).digest()).decode()
            headers = {
                **_APPEND, "Upload-Offset": str(offset), "Upload-Checksum": f"sha256 {digest}",
            }  # fmt: skip
            try:
                answer = self._http.patch(f"/uploads/{upload_id}", content=piece, headers=headers)
            except httpx.TransportError as error:
                patience.bear(error, self._http.base_url)
                return
            if answer.status_code in BUSY | _ASK_AGAIN and patience.lasts():
                patience.pause(answer)
                return
            if not answer.is_success:
                raise error_of(answer)
            patience.renew()
            offset = int(answer.headers["upload-offset"])
            if on_bytes is not None:
                on_bytes(offset, size)

    # --- watching --------------------------------------------------------------------------------

    def job(self, job_id: str) -> JobInfo:
        """Where a job stands."""
        return parsed(JobInfo, self._get(f"/jobs/{job_id}"))

    def jobs(self, *, state: State | str | None = None, limit: int = 50) -> Iterator[JobInfo]:
        """All jobs that the key may see, the newest first.

        Parameters
        ----------
        state : only those in it.
        limit : how many are asked for at a time.
        """
        query = {"limit": limit, **({"state": str(state)} if state else {})}
        while True:
            page = parsed(JobPage, self._get("/jobs", params=query))
            yield from page.jobs
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    def watch(self, job_id: str) -> Iterator[JobInfo]:
        """A job whenever it has changed, until it has ended; taken up again if it breaks off."""
        return self._watch(job_id, math.inf)

    def _watch(self, job_id: str, until: float) -> Iterator[JobInfo]:
        """`watch`, but not for longer than to a time, within the 15 s after which streams speak."""
        patience = Patience(self._patience_s)
        while True:
            silence_s = max(1.0, min(60.0, until - time.monotonic()))
            try:
                for job in self._events(job_id, silence_s):
                    patience.renew()
                    if job is not None:
                        yield job
                        if job.state.final:
                            return
                    if time.monotonic() >= until:
                        return
                raise httpx.ReadError("the events broke off")
            except httpx.TransportError as error:
                if time.monotonic() >= until:
                    return
                patience.bear(error, self._http.base_url, until)

    def _events(self, job_id: str, silence_s: float) -> Iterator[JobInfo | None]:
        """What a stream of events says; None: only that it is there."""
        url, timeout = f"/jobs/{job_id}/events", httpx.Timeout(silence_s, connect=10.0)
        with self._http.stream("GET", url, timeout=timeout) as answer:
            refuse_error(answer)
            rest = b""
            for block in answer.iter_bytes():  # names may hold what else ends a line
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    said = line.startswith(b"data:")
                    yield JobInfo.model_validate_json(line[5:]) if said else None

    def wait(
        self, job_id: str, *, on_progress: OnJob | None = None, timeout_s: float | None = None
    ) -> JobInfo:
        """The job as soon as it has ended, in whatever state.

        Raises
        ------
        TimeoutError : it has not ended within `timeout_s`; it runs on.
        """
        until = math.inf if timeout_s is None else time.monotonic() + timeout_s
        for job in self._watch(job_id, until):
            if on_progress is not None:
                on_progress(job)
            if job.state.final:
                return job
        raise TimeoutError(f"The job {job_id} has not ended within {timeout_s} s.")

    def cancel(self, job_id: str) -> JobInfo:
        """Cancel a job; one that has ended stays as it is."""
        answer = self._insist(lambda: self._http.post(f"/jobs/{job_id}/cancel"))
        return parsed(JobInfo, answer)

    def purge(self, job_id: str) -> None:
        """Delete an ended job with all its files; one that is gone already is no error."""
        try:
            self._insist(lambda: self._http.delete(f"/jobs/{job_id}"))
        except ServiceError as error:
            if error.status != 404:
                raise

    # --- fetching --------------------------------------------------------------------------------

    def report(self, job_id: str, track: int = 0) -> dict[str, Any]:
        """The report of a track."""
        answer = self._get(f"/jobs/{job_id}/report.json", params={"track": track})
        report: dict[str, Any] = answer.json()
        return report

    def save_audio(
        self, job_id: str, target: str | Path, *, track: int = 0, on_bytes: OnBytes | None = None
    ) -> Path:
        """Fetch the corrected file of a track, checked against the report's SHA-256.

        It grows as `TARGET.part`, from where an earlier try broke off, and appears whole or not at
        all.

        Raises
        ------
        ServiceError, NotReached, OSError; ValueError : what came is not what the report promises.
        """
        target = Path(target)
        part = target.with_name(f"{target.name}.part")
        expected = self.report(job_id, track)["output"]["sha256"]
        patience = Patience(self._patience_s)
        while True:
            try:
                self._continue(f"/jobs/{job_id}/audio/{track}", part, patience, on_bytes)
                break
            except httpx.TransportError as error:
                patience.bear(error, self._http.base_url)
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != expected:
            part.unlink()
            raise ValueError(f"{target} came damaged and was deleted: fetch it again.")
        return part.replace(target)

    def _continue(self, url: str, part: Path, patience: Patience, on_bytes: OnBytes | None) -> None:
        """Append to a file what is missing of it."""
        done = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={done}-"} if done else {}
        with self._http.stream("GET", url, headers=headers, follow_redirects=True) as answer:
            if answer.status_code == 416:  # nothing is missing
                return
            refuse_error(answer)
            if answer.status_code == 200:
                done = 0
            total = done + int(answer.headers.get("content-length", 0))
            with part.open("ab" if done else "wb") as file:
                for block in answer.iter_bytes(1 << 20):
                    patience.renew()
                    file.write(block)
                    done += len(block)
                    if on_bytes is not None:
                        on_bytes(done, total)
                file.flush()
                os.fsync(file.fileno())

    # --- persistence -----------------------------------------------------------------------------

    def _get(self, path: str, *, params: dict[str, Any] | None = None) -> httpx.Response:
        return self._insist(lambda: self._http.get(path, params=params))

    def _insist(
        self, send: Callable[[], httpx.Response], busy: frozenset[int] = BUSY
    ) -> httpx.Response:
        """Send until there is an answer; what is busy is asked again when it says."""
        patience = Patience(self._patience_s)
        while True:
            try:
                answer = send()
            except httpx.TransportError as error:
                patience.bear(error, self._http.base_url)
                continue
            if is_busy(answer, busy) and patience.lasts():
                patience.pause(answer)
                continue
            if not answer.is_success:
                raise error_of(answer)
            return answer


def _named(idempotency_key: str | None) -> str:
    """A submission's name, which goes into a header."""
    if idempotency_key is not None and not _VISIBLE.fullmatch(idempotency_key):
        words = "is not 1 to 255 visible ASCII characters"
        raise ValueError(f"The idempotency key {idempotency_key[:300]!r} {words}.")
    return idempotency_key or secrets.token_hex(16)
