"""Objects of an S3-compatible store: named by URI, fetched, stored, and uploaded to directly.

boto3 finds credentials where it always does: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the file
that AWS_SHARED_CREDENTIALS_FILE names, or the role of the machine.
"""

from __future__ import annotations

import errno
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import DiskFull, MediaError, OutputError
from service.objects.names import ObjectName
from service.settings import Settings

log = logging.getLogger("avsa.objects")

# How long the addresses hold that are given to others.
URL_TTL_S = 6 * 3600
_FETCH_BYTES = 64 << 20
# A store that is away for less costs no job: what it holds was hours in the making.
_PATIENCE_S, _PAUSE_S = 600.0, 2.0


class NoObject(MediaError):
    """The store answers that there is no object of the name."""


@dataclass(frozen=True)
class ObjectFacts:
    """What identifies an object's content."""

    size: int
    etag: str


class ObjectStore:
    """One S3-compatible store. Thread-safe; connected when first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The connection."""
        with self._lock:
            if self._client is None:
                # Not at import: it costs memory and time that most services do without.
                import boto3
                from botocore.config import Config

                # A session of its own: the default one is shared, and keeps the first keys it saw.
                self._client = boto3.session.Session().client(
                    "s3",
                    endpoint_url=self._settings.object_endpoint or None,
                    config=Config(
                        signature_version="s3v4",
                        s3={"addressing_style": self._settings.object_addressing},
                        retries={"mode": "standard", "total_max_attempts": 3},
                        connect_timeout=5,
                        read_timeout=30,
                        # Checksums in trailers are not known to all compatible stores.
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
            return self._client

    def close(self) -> None:
        """Give the connection back; whoever asks next is connected anew."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def facts(self, name: ObjectName) -> ObjectFacts:
        """Size and version of an object.

        Raises
        ------
        MediaError : there is none, or it may not be read.
        """
        with told(MediaError, f"{name.uri} cannot be read"):
            head = self.client.head_object(Bucket=name.bucket, Key=name.key)
        return ObjectFacts(int(head["ContentLength"]), str(head["ETag"]))

    def fetch(
        self, name: ObjectName, facts: ObjectFacts, path: Path, notify: Callable[[float], None]
    ) -> None:
        """Copy an object to a new file, going on where a broken connection stopped.

        notify : is told the fraction that is there.

        Raises
        ------
        MediaError : the object is gone, out of reach, or another one than `facts` were taken of.
        DiskFull : no space left for it.
        """
        with path.open("xb") as file:
            heard = time.monotonic()
            while (at := file.tell()) < facts.size:
                try:
                    self._fetch_range(name, facts, at, file.write)
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    raise DiskFull(f"No space is left to fetch {name.uri}.") from error
                except MediaError as error:
                    if file.tell() == at:
                        _wait(error, since=heard)
                        continue
                heard = time.monotonic()
                notify(file.tell() / facts.size)

    def _fetch_range(
        self, name: ObjectName, facts: ObjectFacts, at: int, write: Callable[[bytes], object]
    ) -> None:
        stop = min(at + _FETCH_BYTES, facts.size)
        with told(MediaError, f"{name.uri} cannot be read"):
            answer = self.client.get_object(
                Bucket=name.bucket, Key=name.key, Range=f"bytes={at}-{stop - 1}",
                IfMatch=facts.etag,
            )  # fmt: skip
        with closing(answer["Body"]) as body:
            # Not every compatible store honours IfMatch.
            if str(answer["ETag"]) != facts.etag:
                raise MediaError(
                    f"{name.uri} has changed since the job was submitted: submit again."
                )
            with told(MediaError, f"{name.uri} breaks off after byte {at}"):
                for chunk in body.iter_chunks(1 << 20):
                    write(chunk)

    def store(self, path: Path, name: ObjectName) -> None:
        """Copy a file to an object; it is there as a whole or not at all.

        Raises
        ------
        OutputError : the store does not take it.
        """
        began = time.monotonic()
        while True:
            try:
                self._store(path, name)
                return
            except OutputError as error:
                _wait(error, since=began)

    def _store(self, path: Path, name: ObjectName) -> None:
        with told(OutputError, f"{name.uri} cannot be written"):
            self.client.upload_file(str(path), name.bucket, name.key)
            head = self.client.head_object(Bucket=name.bucket, Key=name.key)
        if int(head["ContentLength"]) != path.stat().st_size:
            raise OutputError(f"{name.uri} was not written whole.")

    def delete(self, name: ObjectName) -> None:
        """Delete an object; it is no error if there is none."""
        with told(OutputError, f"{name.uri} cannot be deleted"):
            self.client.delete_object(Bucket=name.bucket, Key=name.key)

    def read(self, name: ObjectName) -> bytes:
        """A small object's content.

        Raises
        ------
        NoObject : there is none. MediaError : the store does not give it.
        """
        with told(MediaError, f"{name.uri} cannot be read"):
            content: bytes = self.client.get_object(Bucket=name.bucket, Key=name.key)["Body"].read()
        return content

    def link(self, name: ObjectName, file_name: str, media_type: str, *, method: str) -> str:
        """An address at which anybody can fetch an object for some hours, by GET or by HEAD.

        Only by the one: the store refuses a signature that was made for another method.
        """
        ascii_name = re.sub(r'[^\x20-\x7e]|["\\]', "_", file_name)
        params = {
            "Bucket": name.bucket,
            "Key": name.key,
            "ResponseContentDisposition": f'attachment; filename="{ascii_name}"',
            "ResponseContentType": media_type,
        }
        operation = "head_object" if method == "HEAD" else "get_object"
        url: str = self.client.generate_presigned_url(operation, Params=params, ExpiresIn=URL_TTL_S)
        return url


def passes(error: BaseException) -> bool:
    """Whether an error of ours stands for a store that is away, or busy, for now."""
    cause = error.__cause__
    if not type(cause).__module__.startswith(("boto3.", "botocore.")):
        return False
    from botocore import exceptions

    if isinstance(cause, exceptions.ClientError):
        status = int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return status >= 500 or status == 429
    kinds = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)
    return isinstance(cause, kinds)


def _wait(error: MediaError | OutputError, *, since: float) -> None:
    """Pause before the next try; raise the error if it does not pass, or has lasted too long."""
    if not passes(error) or time.monotonic() - since > _PATIENCE_S:
        raise error
    log.warning("%s It is tried again.", error)
    time.sleep(_PAUSE_S)


@contextmanager
def told(kind: type[MediaError | OutputError], what: str) -> Iterator[None]:
    """Raise what the store refuses as an error of ours, with the store's own words."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        fault = error.response.get("Error", {})
        words = fault.get("Message") or fault.get("Code") or "refused"
        if kind is MediaError and fault.get("Code") in ("404", "NoSuchKey"):
            kind = NoObject
        raise kind(f"{what} ({words.rstrip('.')}).") from error
    except S3UploadFailedError as error:  # which hides what the store has answered
        raise kind(f"{what} ({str(error).rstrip('.')}).") from error.__context__
    except BotoCoreError as error:
        raise kind(f"{what} ({str(error).rstrip('.')}).") from error
