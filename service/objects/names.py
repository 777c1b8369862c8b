"""How objects are named: `s3://BUCKET/KEY`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from model.errors import OptionError


@dataclass(frozen=True)
class ObjectName:
    """A bucket and a key (or the beginning of keys)."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read `s3://BUCKET/KEY`; raises `OptionError` for anything else."""
        match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^\x00-\x1f]{0,1024})", uri)
        if match is None or {"..", "."} & set(match[2].split("/")):
            raise OptionError(f"{uri[:200]!r} is no address of an object: write s3://BUCKET/KEY.")
        return cls(match[1], match[2])

    @property
    def uri(self) -> str:
        """The address as text."""
        return f"s3://{self.bucket}/{self.key}"

    def below(self, *names: str) -> ObjectName:
        """A name under this one, which is taken for a folder."""
        return ObjectName(self.bucket, "/".join([self.key.rstrip("/"), *names]).lstrip("/"))

    def is_below(self, root: ObjectName) -> bool:
        """Whether this lies under a folder."""
        prefix = root.key.rstrip("/") + "/" if root.key else ""
        return self.bucket == root.bucket and self.key.startswith(prefix)
