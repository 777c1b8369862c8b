"""Uploads past this service: clients send the parts of a file to the object store themselves.

Every part goes to an address signed for it alone. A part that has come is not sent again: whoever
asks is told what is missing. All state lies in the store, so any process of the service can go on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from model.errors import MediaError, OutputError
from service.objects.names import ObjectName
from service.objects.store import URL_TTL_S, NoObject, ObjectFacts, ObjectStore, passes, told
from service.problems import Problem

# AWS takes 10 000 parts of 5 MiB to 5 GiB each.
_MAX_PARTS = 10_000
_PART_BYTES = 64 << 20
_LISTED_PARTS = 1000


@dataclass(frozen=True)
class _Begun:
    """What is kept of a direct upload, beside it in the store."""

    key: str
    upload_id: str
    owner: str
    size: int
    part_size: int


@dataclass(frozen=True)
class MissingPart:
    """A part that has not come, and where to send it."""

    number: int
    offset: int
    size: int
    url: str


@dataclass(frozen=True)
class DirectUploadState:
    """Where a direct upload stands."""

    id: str
    name: ObjectName
    size: int
    part_size: int
    missing: list[MissingPart]
    urls_valid_s: int = URL_TTL_S


class DirectUploads:
    """Presigned multipart uploads below a folder of the store."""

    def __init__(self, store: ObjectStore, folder: ObjectName) -> None:
        self._store = store
        self._folder = folder

    def begin(self, upload_id: str, *, name: str, owner: str, size: int) -> DirectUploadState:
        """Begin an upload.

        Raises
        ------
        OutputError : the store does not take it.
        """
        part_size = _PART_BYTES
        while part_size * _MAX_PARTS < size:
            part_size *= 2
        target = self._folder.below(upload_id, name)
        client = self._store.client
        with told(OutputError, f"{target.uri} cannot be written"):
            answer = client.create_multipart_upload(Bucket=target.bucket, Key=target.key)
            begun = _Begun(target.key, answer["UploadId"], owner, size, part_size)
            record = self._record(upload_id)
            client.put_object(
                Bucket=record.bucket, Key=record.key, Body=json.dumps(asdict(begun)).encode()
            )
        return self._state(upload_id, begun, {})

    def state(self, upload_id: str, *, owner: str) -> DirectUploadState:
        """What is missing; raises `Problem` (404) if there is no such upload."""
        begun = self._begun(upload_id, owner)
        return self._state(upload_id, begun, self._parts(upload_id, begun))

    def complete(self, upload_id: str, *, owner: str) -> tuple[ObjectName, ObjectFacts]:
        """Join the parts; said again, for the answer was lost, it is answered again.

        Raises
        ------
        Problem : some are missing (409), or it is unknown (404).
        OutputError : the store does not take it.
        """
        begun = self._begun(upload_id, owner)
        target = ObjectName(self._folder.bucket, begun.key)
        try:
            parts = self._parts(upload_id, begun)
        except Problem as unknown:
            return target, self._joined(target, unknown)
        missing = self._state(upload_id, begun, parts).missing
        if missing:
            detail = (
                f"Part {missing[0].number} of the upload {upload_id} is missing or has not "
                f"{missing[0].size} bytes."
            )
            raise Problem(409, "upload_not_finished", detail)
        with told(OutputError, f"{target.uri} cannot be written"):
            self._store.client.complete_multipart_upload(
                Bucket=target.bucket, Key=target.key, UploadId=begun.upload_id,
                MultipartUpload={"Parts": [
                    {"PartNumber": number, "ETag": part["ETag"]}
                    for number, part in sorted(parts.items())
                ]},
            )  # fmt: skip
        return target, self._store.facts(target)

    def _joined(self, target: ObjectName, unknown: Problem) -> ObjectFacts:
        """The object of an upload that has no parts any more; raises `unknown` if there is none."""
        try:
            return self._store.facts(target)
        except NoObject as error:
            raise unknown from error

    def abort(self, upload_id: str, *, owner: str) -> None:
        """Drop an upload that is not complete; raises `Problem` (404) if there is none."""
        begun = self._begun(upload_id, owner)
        self._parts(upload_id, begun)  # else it is complete, or dropped
        with told(OutputError, f"The upload {upload_id} cannot be dropped"):
            self._store.client.abort_multipart_upload(
                Bucket=self._folder.bucket, Key=begun.key, UploadId=begun.upload_id
            )
        self._forget(upload_id)

    def _record(self, upload_id: str) -> ObjectName:
        if not re.fullmatch(r"[0-9a-f]{32}", upload_id):
            raise _unknown(upload_id)
        return self._folder.below(f"{upload_id}.json")

    def _begun(self, upload_id: str, owner: str) -> _Begun:
        record = self._record(upload_id)
        try:
            begun = _Begun(**json.loads(self._store.read(record)))
        except MediaError as error:
            if passes(error):
                raise
            raise _unknown(upload_id) from error
        if begun.owner != owner:
            raise _unknown(upload_id)
        return begun

    def _forget(self, upload_id: str) -> None:
        self._store.delete(self._record(upload_id))

    def _parts(self, upload_id: str, begun: _Begun) -> dict[int, dict[str, Any]]:
        """Parts that have come, by number."""
        pages = self._store.client.get_paginator("list_parts").paginate(
            Bucket=self._folder.bucket, Key=begun.key, UploadId=begun.upload_id
        )
        try:
            with told(MediaError, f"The upload {upload_id} cannot be read"):
                return {
                    part["PartNumber"]: part for page in pages for part in page.get("Parts", [])
                }
        except MediaError as error:
            if passes(error):
                raise
            raise _unknown(upload_id) from error

    def _state(
        self, upload_id: str, begun: _Begun, parts: dict[int, dict[str, Any]]
    ) -> DirectUploadState:
        name = ObjectName(self._folder.bucket, begun.key)
        missing = list(self._missing(name, begun, parts))
        return DirectUploadState(upload_id, name, begun.size, begun.part_size, missing)

    def _missing(
        self, name: ObjectName, begun: _Begun, parts: dict[int, dict[str, Any]]
    ) -> Iterator[MissingPart]:
        found = 0
        for number, offset in enumerate(range(0, begun.size, begun.part_size), start=1):
            size = min(begun.part_size, begun.size - offset)
            if number in parts and int(parts[number]["Size"]) == size:
                continue
            found += 1
            if found > _LISTED_PARTS:
                return
            params = {
                "Bucket": name.bucket, "Key": name.key, "UploadId": begun.upload_id,
                "PartNumber": number,
            }  # fmt: skip
            url = self._store.client.generate_presigned_url(
                "upload_part", Params=params, ExpiresIn=URL_TTL_S
            )
            yield MissingPart(number, offset, size, url)


def _unknown(upload_id: str) -> Problem:
    return Problem(404, "upload_not_found", f"There is no direct upload {upload_id[:64]}.")
