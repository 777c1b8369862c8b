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
import secrets
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self

import httpx

from service.jobs import State
from service.schemas import AlignOptions, AlignRequest, JobInfo, JobPage, Uploaded

__all__ = [
    "AlignOptions", "AlignRequest", "Client", "JobInfo", "NotReached", "ServiceError", "State",
    "Uploaded",
]  # fmt: skip

_BUSY = frozenset({429, 502, 503, 504})
_CHUNK = 32 << 20  # bytes that are lost at most where an upload breaks off
_TUS = {"Tus-Resumable": "1.0.0"}
_APPEND = {**_TUS, "Content-Type": "application/offset+octet-stream"}
# The upload is elsewhere than thought, is still held by a request that died, or bytes were damaged.
_ASK_AGAIN = frozenset({409, 423, 460})
# A stream of events says something every 15 s; one that is silent for longer is dead.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)

OnBytes = Callable[[int, int], None]
OnJob = Callable[[JobInfo], None]


class ServiceError(Exception):
    """The service refused; `code` is stable, `detail` a sentence for people.

    Attributes
    ----------
    problem : the whole RFC 9457 document.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail", f"The service answered {status}."))
        super().__init__(f"{self.detail} ({status} {self.code})")


class NotReached(Exception):
    """The service could not be reached, again and again."""


class _Patience:
    """How long what fails is tried again: from its first failure on, until something gets through.

    Neither a long transfer nor a long silence uses it up.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._until: float | None = None

    def renew(self) -> None:
        """Something came of it."""
        self._until = None

    def lasts(self) -> bool:
        """Whether it may fail once more, having failed just now."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._patience_s
        return now < self._until


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
        idempotency_key : a name of yours for this submission, up to 64 characters; given again
            within a day, it is the same job. Else one is made.

        Raises
        ------
        ServiceError, NotReached.
        """
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
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

        return JobInfo.model_validate_json(self._insist(post).content)

    def submit(self, request: AlignRequest, *, idempotency_key: str | None = None) -> JobInfo:
        """Have what is there already aligned: uploads, files on the server, objects of a store.

        Raises
        ------
        ServiceError, NotReached.
        """
        headers = {
            "Idempotency-Key": idempotency_key or secrets.token_hex(16),
            "Content-Type": "application/json",
        }
        body = request.model_dump_json(exclude_unset=True)
        answer = self._insist(lambda: self._http.post("/align", content=body, headers=headers))
        return JobInfo.model_validate_json(answer.content)

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
        size = facts.st_size
        if upload_id is None:
            upload_id = self._begin(path.name, size)
            if on_begin is not None:
                on_begin(upload_id)
        patience, done = _Patience(self._patience_s), -1
        with path.open("rb") as file:
            while (offset := self._offset(upload_id, path, size)) < size:
                if offset > done:
                    patience.renew()
                    done = offset
                self._send_from(upload_id, file, offset, size, patience, on_bytes)
                now = os.fstat(file.fileno())
                if (now.st_size, now.st_mtime_ns) != (size, facts.st_mtime_ns):
                    raise ValueError(f"{path} has changed while it was sent: send it again.")
        return Uploaded(upload=upload_id)

    def _begin(self, name: str, size: int) -> str:
        metadata = f"filename {base64.b64encode(name.encode()).decode()}"
        headers = {**_TUS, "Upload-Length": str(size), "Upload-Metadata": metadata}
        answer = self._insist(lambda: self._http.post("/uploads", headers=headers))
        return str(answer.headers["location"]).rpartition("/")[2]

    def _offset(self, upload_id: str, path: Path, size: int) -> int:
        """How much of a file the service has."""
        url = f"/uploads/{upload_id}"
        answer = self._insist(lambda: self._http.head(url, headers=_TUS), _BUSY | _ASK_AGAIN)
        if answer.headers.get("upload-length") != str(size):
            begun = answer.headers.get("upload-length")
            raise ValueError(f"{path} has {size} bytes; the upload {upload_id} is of {begun}.")
        return int(answer.headers["upload-offset"])

    def _send_from(
        self, upload_id: str, file: BinaryIO, offset: int, size: int, patience: _Patience,
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
                self._pause(patience, error)
                return
            if answer.status_code in _BUSY | _ASK_AGAIN and patience.lasts():
                time.sleep(min(1.0, self._patience_s / 10))
                return
            if answer.is_error:
                raise _error_of(answer)
            patience.renew()
            offset = int(answer.headers["upload-offset"])
            if on_bytes is not None:
                on_bytes(offset, size)

    # --- watching --------------------------------------------------------------------------------

    def job(self, job_id: str) -> JobInfo:
        """Where a job stands."""
        return JobInfo.model_validate_json(self._get(f"/jobs/{job_id}").content)

    def jobs(self, *, state: State | str | None = None, limit: int = 50) -> Iterator[JobInfo]:
        """All jobs that the key may see, the newest first.

        Parameters
        ----------
        state : only those in it.
        limit : how many are asked for at a time.
        """
        query = {"limit": limit, **({"state": str(state)} if state else {})}
        while True:
            page = JobPage.model_validate_json(self._get("/jobs", params=query).content)
            yield from page.jobs
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    def watch(self, job_id: str) -> Iterator[JobInfo]:
        """A job whenever it has changed, until it has ended; taken up again if it breaks off."""
        return self._watch(job_id, math.inf)

    def _watch(self, job_id: str, until: float) -> Iterator[JobInfo]:
        """`watch`, but not for longer than to a time, within the 15 s after which streams speak."""
        patience = _Patience(self._patience_s)
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
            except httpx.TransportError as error:
                if time.monotonic() >= until:
                    return
                self._pause(patience, error)

    def _events(self, job_id: str, silence_s: float) -> Iterator[JobInfo | None]:
        """What a stream of events says; None: only that it is there."""
        url, timeout = f"/jobs/{job_id}/events", httpx.Timeout(silence_s, connect=10.0)
        with self._http.stream("GET", url, timeout=timeout) as answer:
            _refuse_error(answer)
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
        return JobInfo.model_validate_json(answer.content)

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
        patience = _Patience(self._patience_s)
        while True:
            try:
                self._continue(f"/jobs/{job_id}/audio/{track}", part, patience, on_bytes)
                break
            except httpx.TransportError as error:
                self._pause(patience, error)
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != expected:
            part.unlink()
            raise ValueError(f"{target} came damaged and was deleted: fetch it again.")
        return part.replace(target)

    def _continue(
        self, url: str, part: Path, patience: _Patience, on_bytes: OnBytes | None
    ) -> None:
        """Append to a file what is missing of it."""
        done = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={done}-"} if done else {}
        with self._http.stream("GET", url, headers=headers, follow_redirects=True) as answer:
            if answer.status_code == 416:  # nothing is missing
                return
            _refuse_error(answer)
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

    def _insist(self, send: Callable[[], httpx.Response], busy: Set[int] = _BUSY) -> httpx.Response:
        """Send until there is an answer; what is busy is asked again when it says."""
        patience = _Patience(self._patience_s)
        while True:
            try:
                answer = send()
            except httpx.TransportError as error:
                self._pause(patience, error)
                continue
            if _is_busy(answer, busy) and patience.lasts():
                after = answer.headers.get("retry-after", "")
                time.sleep(min(float(after) if after.isdigit() else 1.0, self._patience_s))
                continue
            if answer.is_error:
                raise _error_of(answer)
            return answer

    def _pause(self, patience: _Patience, error: httpx.TransportError) -> None:
        """Wait a little before the next try, or give up."""
        if not patience.lasts():
            raise NotReached(f"{self._http.base_url} was not reached: {error}") from error
        time.sleep(min(1.0, self._patience_s / 10))


def _is_busy(answer: httpx.Response, busy: Set[int]) -> bool:
    """Whether to ask again: a request that broke off here may still be read there."""
    in_flight = answer.status_code == 409 and _error_of(answer).code == "request_in_flight"
    return in_flight or answer.status_code in busy


def _refuse_error(answer: httpx.Response) -> None:
    """Raise what a stream's beginning says in its place; what passes, as a broken connection."""
    if answer.status_code in _BUSY:
        raise httpx.ReadError(f"the service answered {answer.status_code}")
    if answer.is_error:
        answer.read()
        raise _error_of(answer)


def _error_of(answer: httpx.Response) -> ServiceError:
    try:
        problem = answer.json()
    except ValueError:  # of a proxy, in whatever encoding
        problem = {}
    return ServiceError(answer.status_code, problem if isinstance(problem, dict) else {})
