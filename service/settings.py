"""Everything that can be set, from the environment (`AVSA_...`), a `.env` file, or secret files.

A file of the folder that `AVSA_SECRETS_DIR` names holds the setting of its name: the content of
`avsa_admin_key` there is AVSA_ADMIN_KEY. The environment has precedence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.connection import parse_url

from model.errors import OptionError
from service.logs import Form
from service.objects.names import ObjectName


def _of_store(uri: str) -> str:
    """A folder of an object store; empty: none."""
    if uri:
        try:
            ObjectName.parse(uri)
        except OptionError as error:
            raise ValueError(str(error).rstrip(".")) from error
    return uri


_StoreFolder = Annotated[str, AfterValidator(_of_store)]


def _of_page(origin: str) -> str:
    """An origin as browsers send it: any other is never met."""
    if not re.fullmatch(r"https?://[^\s/?#@*]+", origin):
        raise ValueError("write each as https://HOST or https://HOST:PORT")
    return origin


_Origin = Annotated[str, AfterValidator(_of_page)]
# What is waited for, or added to a time: beyond it neither is possible.
_Seconds = Annotated[float, Field(gt=0, le=1e9)]


class Settings(BaseSettings):
    """Typed and validated once, at start."""

    model_config = SettingsConfigDict(env_prefix="AVSA_", env_file=".env", extra="ignore")

    data_dir: Path = Field(Path("data"), description="jobs, uploads, results and the job table")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    redis_url: str = Field("", description="a cluster: where table and broker are; else SQLite")
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda(:\d+)?)(,(cpu|cuda(:\d+)?))*$",
        description="where children compute: cpu, cuda, or a worker each: cuda:0,cuda:1",
    )
    checkpoint: FilePath | None = Field(
        None, description="AVSA network of the method avsa; its calibration is beside it"
    )
    media_roots: list[Path] = Field(
        default_factory=list, description="folders whose files may be named in a request"
    )
    max_upload_bytes: int = Field(200 << 30, gt=0, description="of one request or upload")
    reserve_bytes: int = Field(1 << 30, ge=0, description="disk space that uploads leave free")
    upload_ttl_s: _Seconds = Field(48 * 3600.0, description="an untouched upload is swept")
    upload_idle_s: float = Field(60.0, gt=0, description="longest silence within a body")
    upload_sweep_s: _Seconds = Field(60.0, description="how often expired uploads are swept")
    object_roots: list[_StoreFolder] = Field(
        default_factory=list,
        description="s3://BUCKET/PREFIX/ under which a request may name objects and outputs",
    )
    objects_url: _StoreFolder = Field(
        "", description="s3://BUCKET/PREFIX/ to which clients may upload directly; none: off"
    )
    results_url: _StoreFolder = Field(
        "", description="s3://BUCKET/PREFIX/ for results of requests that name no output; none: "
        "they stay on the worker's disk"
    )  # fmt: skip
    object_endpoint: str = Field(
        "",
        pattern="^(https?://.+)?$",
        description="address of the object store as clients reach it too; none: AWS",
    )
    object_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="whether buckets are named in the path or in the host"
    )
    max_wait_s: float = Field(60.0, ge=0, description="longest wait a request may ask for")
    job_limit_s: float = Field(6 * 3600.0, gt=0, description="longest run of one attempt")
    lease_s: _Seconds = Field(30.0, description="a worker silent for so long has lost its job")
    beat_s: float = Field(5.0, gt=0, description="how often a worker renews its lease")
    sweep_s: _Seconds = Field(5.0, description="how often lost jobs are looked for")
    max_crashes: int = Field(3, ge=1, description="child crashes before a job is given up")
    max_losses: int = Field(10, ge=1, description="lost workers before a job is given up")
    max_queued: int = Field(10_000, ge=1, description="jobs that may wait")
    max_jobs_of_key: int = Field(1000, ge=1, description="jobs of one key that wait or run")
    wake_up_s: _Seconds = Field(
        60.0, description="a message that was fetched and not acted on comes back after this"
    )
    keep_days: float = Field(14.0, gt=0, description="ended jobs are deleted after so long")
    admin_key: SecretStr | None = Field(
        None, min_length=32, description="an API key that may do everything"
    )
    webhook_secret: SecretStr | None = Field(
        None, min_length=32,
        description="what webhooks' secrets follow from; a new one before the old, with a blank",
    )  # fmt: skip
    webhook_hosts: frozenset[str] = Field(
        frozenset(), description="hosts that webhooks may reach at addresses that are not public"
    )
    cors_origins: frozenset[_Origin] = Field(
        frozenset(), description="origins whose pages may use the service, as https://host"
    )
    log_format: Form = Field("auto", description="json, text, or text on a terminal only")
    child_module: str = Field(
        "service.workers.child", description="what children run (tests: their own)"
    )
    child_memory_bytes: int = Field(16 << 30, gt=0, description="a child beyond it is ended")
    child_start_s: float = Field(300.0, gt=0, description="longest start of a child")
    child_jobs: int = Field(200, ge=1, description="a child is replaced after so many jobs")

    @field_validator("data_dir", mode="before")
    @classmethod
    def _is_a_folder(cls, folder: Any) -> Any:
        if folder == "":  # which would be whatever folder one is in
            raise ValueError("it is empty; write a folder")
        return folder

    @field_validator("object_endpoint")
    @classmethod
    def _is_of_a_store(cls, url: str) -> str:
        with suppress(ValueError):
            parts = urlsplit(url)
            if not url or (parts.hostname and parts.port != 0 and not re.search(r"\s", url)):
                return url
        raise ValueError("write https://HOST or https://HOST:PORT")

    @field_validator("redis_url")
    @classmethod
    def _is_of_redis(cls, url: str) -> str:
        with suppress(ValueError):  # whose words may hold a part of the password
            parse_url(url or "redis://")  # type: ignore[no-untyped-call]
            # The library takes the database 0 for any name that is no number.
            if re.fullmatch(r"(/\d*)?", urlsplit(url).path):
                return url
        raise ValueError(
            "write redis://HOST:PORT/NUMBER, and what is no letter or digit of a password as %XX"
        )

    @field_validator("webhook_secret")
    @classmethod
    def _each_is_long(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret and min(map(len, secret.get_secret_value().split()), default=0) < 32:
            raise ValueError("each secret in it has to have 32 characters or more")
        return secret

    @field_validator("beat_s")
    @classmethod
    def _beats_within_the_lease(cls, beat_s: float, info: ValidationInfo) -> float:
        lease_s = info.data.get("lease_s", beat_s + 1)
        if beat_s >= lease_s:
            raise ValueError(f"{beat_s:g} s are no less than the AVSA_LEASE_S of {lease_s:g} s")
        return beat_s

    @classmethod
    def load(cls, **given: Any) -> Self:
        """The settings of this process, but for those that are given.

        Raises
        ------
        ValidationError : one does not fit. FileNotFoundError : the secrets' folder is not there.
        """
        folder = os.environ.get("AVSA_SECRETS_DIR")
        if folder and not Path(folder).is_dir():
            raise FileNotFoundError(f"AVSA_SECRETS_DIR is {folder}, which is no folder.")
        return cls(_secrets_dir=folder or None, **given)

    @property
    def webhook_masters(self) -> tuple[str, ...]:
        """The secrets of webhooks, the newest first."""
        return tuple(self.webhook_secret.get_secret_value().split()) if self.webhook_secret else ()

    @property
    def key_database(self) -> Path:
        """The API keys."""
        return self.data_dir / "keys.sqlite"

    @property
    def devices(self) -> list[str]:
        """One per worker."""
        return self.device.split(",")

    @property
    def database(self) -> Path:
        """The job table."""
        return self.data_dir / "jobs.sqlite"


# What has the settings' prefix and is none of them.
OTHER_NAMES = frozenset({"AVSA_SECRETS_DIR", "AVSA_PUBLISH", "AVSA_VERSION", "AVSA_WORKER_MEMORY"})
# Whose values are not shown.
_SECRETS = frozenset({"admin_key", "webhook_secret", "redis_url"})


def told(error: ValidationError) -> Iterator[str]:
    """What does not fit of the settings, a sentence each."""
    for fault in error.errors():
        name = str(fault["loc"][0])
        words = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "string_pattern_mismatch":
            words = f"write {Settings.model_fields[name].description}"
        elif fault["type"] == "too_short":
            words = f"write {fault['ctx']['min_length']} characters or more"
        value = "" if name in _SECRETS else f" (it is {str(fault['input'])[:200]!r})"
        yield f"The setting AVSA_{name.upper()} does not fit: {words}{value}."


def unknown_names() -> Iterator[str]:
    """What looks like a setting in the environment and is none, a sentence each: it was meant."""
    known = {f"AVSA_{name.upper()}" for name in Settings.model_fields}
    for name in sorted(set(os.environ) - known - OTHER_NAMES):
        if name.startswith("AVSA_"):
            near = get_close_matches(name, known, n=1)
            yield f"there is no setting {name}" + (f": is {near[0]} meant?" if near else "")
