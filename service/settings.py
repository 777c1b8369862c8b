"""Everything that can be set, from the environment (`AVSA_...`) or a `.env` file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Typed and validated once, at start."""

    model_config = SettingsConfigDict(env_prefix="AVSA_", env_file=".env", extra="ignore")

    data_dir: Path = Field(Path("data"), description="jobs, uploads, results and the job table")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    device: str = Field("cpu", description="where children compute: cpu or cuda")
    media_roots: list[Path] = Field(
        default_factory=list, description="folders whose files may be named in a request"
    )
    max_upload_bytes: int = Field(200 << 30, gt=0, description="of one request or upload")
    reserve_bytes: int = Field(1 << 30, ge=0, description="disk space that uploads leave free")
    upload_ttl_s: float = Field(48 * 3600.0, gt=0, description="an untouched upload is swept")
    upload_idle_s: float = Field(60.0, gt=0, description="longest silence within a body")
    upload_sweep_s: float = Field(60.0, gt=0, description="how often expired uploads are swept")
    object_roots: list[str] = Field(
        default_factory=list,
        description="s3://BUCKET/PREFIX/ under which a request may name objects and outputs",
    )
    objects_url: str = Field(
        "", description="s3://BUCKET/PREFIX/ to which clients may upload directly; none: off"
    )
    results_url: str = Field(
        "", description="s3://BUCKET/PREFIX/ for results of requests that name no output; none: "
        "they stay on the worker's disk"
    )  # fmt: skip
    object_endpoint: str = Field(
        "", description="address of the object store as clients reach it too; none: AWS"
    )
    object_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="whether buckets are named in the path or in the host"
    )
    max_wait_s: float = Field(60.0, ge=0, description="longest wait a request may ask for")
    job_limit_s: float = Field(6 * 3600.0, gt=0, description="longest run of one attempt")
    lease_s: float = Field(30.0, gt=0, description="a worker silent for so long has lost its job")
    beat_s: float = Field(5.0, gt=0, description="how often a worker renews its lease")
    sweep_s: float = Field(5.0, gt=0, description="how often lost jobs are looked for")
    max_crashes: int = Field(3, ge=1, description="child crashes before a job is given up")
    max_losses: int = Field(10, ge=1, description="lost workers before a job is given up")

    @property
    def database(self) -> Path:
        """The job table."""
        return self.data_dir / "jobs.sqlite"
