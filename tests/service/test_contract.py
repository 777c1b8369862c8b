"""The OpenAPI document against the service: requests made from it, by schemathesis.

A short form of `python -m tests.service.contract`, which sends over 500.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from service import schemas
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import Server
from tests.service.contract import check, start


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("contract"))
    yield server
    server.stop()


def test_no_request_breaks_the_contract(served: Server) -> None:
    done = check(served, examples=4, phases="fuzzing")
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"(\d+) generated", done.stdout), done.stdout[-2000:]


def test_every_body_has_an_example_that_fits(tmp_path: Path) -> None:
    document = create_app(Settings(data_dir=tmp_path)).openapi()
    models = document["components"]["schemas"]
    bodies = [
        (f"{method} {path}", media)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for part in (operation.get("requestBody", {}), *operation["responses"].values())
        for kind, media in part.get("content", {}).items()
        if "octet-stream" not in kind
    ]
    assert len(bodies) > 20
    for where, media in bodies:
        name = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name == "Problem":
            schemas.ProblemDocument.model_validate(media["example"])
        described = models.get(name, {})
        fields = described.get("properties", {})
        assert (
            "example" in media
            or "examples" in media
            or "examples" in described
            or (fields and all("examples" in field for field in fields.values()))
        ), where


@pytest.mark.parametrize(
    "model",
    [schemas.AlignRequest, schemas.AlignOptions, schemas.JobInfo, schemas.JobPage,
     schemas.UploadInfo, schemas.DirectUpload, schemas.DirectUploadRequest, schemas.CompletedUpload,
     schemas.WebhookEvent, schemas.Health],
)  # fmt: skip
def test_examples_are_what_their_model_takes(model: type[BaseModel]) -> None:
    for example in model.model_json_schema()["examples"]:
        model.model_validate(example)
        unknown = set(example) - set(model.model_fields)
        assert not unknown
