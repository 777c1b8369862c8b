"""Inputs, outputs and direct uploads in an object store: a real S3 server over a real socket."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import expect

from model.errors import MediaError, OptionError
from service import problems
from service.http.resultfile import stored_result
from service.jobs import NewJob, SqliteJobTable, State
from service.objects.names import ObjectName
from service.objects.store import ObjectStore
from service.objects.uploads import DirectUploads
from service.problems import Problem
from service.settings import Settings
from tests.service.browser import opened
from tests.service.conftest import Server
from tests.service.ports import free_port
from tests.service.s3_server import S3Server
from tests.service.test_service import LONG, assert_problem
from training.data.takes import TakeFiles

pytestmark = pytest.mark.needs("rclone")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3") / "root").start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3_server(bucket: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("service") / "data", settings=bucket.settings())
    running.start()
    yield running
    running.stop()


@pytest.fixture
def store(bucket: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    for name, value in bucket.settings().items():
        monkeypatch.setenv(name, value)
    with closing(ObjectStore(Settings())) as store:
        yield store


def align(server: Server, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/align", json=body, timeout=LONG)


# --- jobs ----------------------------------------------------------------------------------------


def test_inputs_and_outputs_by_uri(
    s3_server: Server, store: ObjectStore, bucket: S3Server, take: TakeFiles, upright: Path
) -> None:
    for path in (take.video, take.audio, upright):
        store.store(path, ObjectName("takes", f"in/a take/{path.name}"))

    response = align(
        s3_server, video={"uri": "s3://takes/in/a take/take.mp4"},
        audio=[{"uri": "s3://takes/in/a take/take.wav"}], output="s3://takes/out/today/",
        reference={"uri": "s3://takes/in/a take/upright.wav"}, options={"preview": True},
    )  # fmt: skip
    assert response.status_code == 202, response.text
    job = s3_server.wait_for(response.json()["id"], "succeeded", "failed")

    (result,) = cast(list[dict[str, Any]], job["results"])
    assert result["verdict"] == "misaligned"
    assert result["name"] == "take_aligned.wav"
    assert result["audio_uri"] == f"s3://takes/out/today/{job['id']}/1/audio-0.wav"
    folder = bucket.folder / "out" / "today" / str(job["id"]) / "1"
    names = {"audio-0.wav", "report-0.json", "plot-0.png", "preview-0.mp4"}
    assert {p.name for p in folder.iterdir()} == names
    # Nothing stays behind on the worker's disk.
    deadline = time.monotonic() + 5
    while list((s3_server.data_dir / "results").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    audio = httpx.get(s3_server.url + result["audio_url"], follow_redirects=True)
    report = httpx.get(s3_server.url + result["report_url"])
    plot = httpx.get(s3_server.url + result["plot_url"])
    assert audio.content == (folder / "audio-0.wav").read_bytes()
    assert 'filename="take_aligned.wav"' in audio.headers["content-disposition"]
    assert report.json()["reference"]["path"] == "upright.wav"
    assert report.json()["rotate_field_ccw_deg"] == result["rotate_field_ccw_deg"]
    assert report.headers["content-type"] == "application/json"
    assert plot.content.startswith(b"\x89PNG")
    assert plot.headers["content-type"] == "image/png"
    preview = httpx.get(s3_server.url + result["preview_url"])
    assert preview.content == (folder / "preview-0.mp4").read_bytes()
    assert preview.headers["content-type"] == "video/mp4"
    # What the request asked to be written to its own place is its own.
    assert httpx.delete(f"{s3_server.url}/jobs/{job['id']}").status_code == 204
    assert (folder / "audio-0.wav").exists()


@pytest.mark.needs("chromium")
def test_results_of_all_jobs_in_the_store(
    own_server: Server, bucket: S3Server, take: TakeFiles, tmp_path: Path
) -> None:
    """The page, which may load nothing from elsewhere, shows them nevertheless."""
    own_server.settings |= bucket.settings() | {"AVSA_RESULTS_URL": "s3://takes/results/"}
    own_server.start()
    with opened(own_server.url) as page:
        page.set_input_files("#video", take.video)
        page.set_input_files("#audio", take.audio)
        with page.expect_response("**/align") as sent:
            page.click("#start")
        job = sent.value.headers["location"]
        expect(page.locator(".verdict")).to_have_text("misaligned", timeout=90_000)
        page.wait_for_function("document.querySelector('.plot').naturalWidth > 600")
        with page.expect_download() as download:
            page.click("a.audio")
        download.value.save_as(tmp_path / "out.wav")
        assert download.value.suggested_filename == "take_aligned.wav"
    assert (tmp_path / "out.wav").stat().st_size > take.audio.stat().st_size
    folder = bucket.folder / "results" / job.rsplit("/", 1)[1]
    assert len([p for p in folder.rglob("*") if p.is_file()]) == 4

    assert httpx.delete(own_server.url + job).status_code == 204
    assert [p for p in folder.rglob("*") if p.is_file()] == []
    own_server.stop()


@pytest.fixture
def kept(own_server: Server, bucket: S3Server, store: ObjectStore, tmp_path: Path) -> str:
    """The address of a job that has ended, with results in the store."""
    own_server.settings |= bucket.settings() | {"AVSA_RESULTS_URL": "s3://takes/kept/"}
    own_server.data_dir.mkdir()
    table = SqliteJobTable(own_server.data_dir / "jobs.sqlite")
    job_id = table.submit(NewJob({"output": "s3://takes/kept/"})).id
    names = {"audio": "audio-0.wav", "report": "report-0.json", "plot": "plot-0.png"}
    objects = {kind: ObjectName("takes", f"kept/{job_id}/1/{file}") for kind, file in names.items()}
    for kind, name in objects.items():
        (tmp_path / kind).write_text(f"{{}} of {kind}")
        store.store(tmp_path / kind, name)
    result = {
        "name": "take.wav", "verdict": "aligned", "rotate_field_ccw_deg": 0.0, "confidence": 1.0,
        "audio": "audio-0.wav", "objects": {kind: name.uri for kind, name in objects.items()},
    }  # fmt: skip
    table.claim(lease_s=10)
    assert table.finish(job_id, 1, State.SUCCEEDED, results=[result])
    own_server.start()
    return f"{own_server.url}/jobs/{job_id}"


def test_head_of_a_track_in_the_store(kept: str) -> None:
    head, get = (
        httpx.request(method, f"{kept}/audio/0", follow_redirects=True)
        for method in ("HEAD", "GET")
    )
    assert (head.status_code, get.text) == (200, "{} of audio")
    for header in ("content-length", "content-disposition", "content-type", "etag"):
        assert head.headers[header] == get.headers[header]


def test_a_result_that_the_store_does_not_give_is_no_callers_fault(
    kept: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert httpx.get(f"{kept}/report.json").text == "{} of report"
    for name, file in (("report.json", "report-0.json"), ("plot.png", "plot-0.png")):
        store.delete(ObjectName("takes", f"kept/{kept.rpartition('/')[2]}/1/{file}"))
        assert_problem(httpx.get(f"{kept}/{name}"), 404, "result_gone")

    monkeypatch.setenv("AVSA_OBJECT_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Problem, match="cannot be read") as caught:
        stored_result(ObjectStore(Settings()), "s3://takes/kept/x")
    assert (caught.value.status, caught.value.code) == (502, "store_failed")


def test_objects_that_are_no_input(s3_server: Server, store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    store.store(tmp_path / "empty", ObjectName("takes", "in/empty.mp4"))
    store.store(Path(__file__), ObjectName("takes", "secret.mp4"))

    def video(uri: str) -> httpx.Response:
        return align(s3_server, video={"uri": uri})

    assert_problem(video("s3://takes/in/none.mp4"), 422, "unreadable_media", "none.mp4.*Not Found")
    assert_problem(video("s3://takes/in/empty.mp4"), 422, "unreadable_media", "is empty")
    for uri in ("s3://takes/secret.mp4", "s3://other/in/a.mp4", "s3://takes/in"):
        assert_problem(video(uri), 422, "path_not_allowed", "AVSA_OBJECT_ROOTS")
    for uri in ("http://takes/in/a", "s3://takes/in/../secret.mp4", "s3://T/", "s3:x", "file:///x"):
        assert_problem(video(uri), 422, "invalid_option", "s3://BUCKET/KEY")
    bad = align(s3_server, video={"uri": "s3://takes/in/empty.mp4"}, output="s3://takes/x/")
    assert_problem(bad, 422, "path_not_allowed", "takes/x/")


def test_an_object_that_changes_after_submission_is_not_taken(
    store: ObjectStore, bucket: S3Server, tmp_path: Path
) -> None:
    name = ObjectName("takes", "in/changing.bin")
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    store.store(path, name)
    facts = store.facts(name)
    store.delete(name)
    path.write_bytes(b"after!")
    store.store(path, name)

    with pytest.raises(MediaError, match="has changed"):
        store.fetch(name, facts, tmp_path / "b.bin", lambda fraction: None)
    gc.collect()  # a connection that it left open is told here, and fails the test
    fractions: list[float] = []
    store.fetch(name, store.facts(name), tmp_path / "c.bin", fractions.append)
    assert (tmp_path / "c.bin").read_bytes() == b"after!"
    assert fractions == [1.0]


def test_a_store_out_of_reach_is_told(bucket: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**bucket.settings(), "AWS_SECRET_ACCESS_KEY": "wrong-secret"}.items():
        monkeypatch.setenv(name, value)
    with (
        closing(ObjectStore(Settings())) as stranger,
        pytest.raises(MediaError, match="Forbidden"),
    ):
        stranger.facts(ObjectName("takes", "in/a"))
    monkeypatch.setenv("AVSA_OBJECT_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with closing(ObjectStore(Settings())) as away, pytest.raises(MediaError, match="connect"):
        away.facts(ObjectName("takes", "in/a"))


def test_a_store_that_is_away_for_a_while_costs_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it a fault of who asks meanwhile, or the end of an upload that has begun."""
    monkeypatch.setattr("service.objects.store._PAUSE_S", 0.1)
    bucket = S3Server(tmp_path / "root").start()
    for key, value in bucket.settings().items():
        monkeypatch.setenv(key, value)
    (tmp_path / "a.bin").write_bytes(b"content")
    store, name = ObjectStore(Settings()), ObjectName("takes", "in/a.bin")
    store.store(tmp_path / "a.bin", name)
    facts = store.facts(name)
    uploads = DirectUploads(store, ObjectName("takes", "direct"))
    begun = uploads.begin("0" * 32, name="b.bin", owner="", size=7)
    bucket.stop()

    with pytest.raises(MediaError, match="connect") as away:
        uploads.state(begun.id, owner="")
    with ThreadPoolExecutor() as threads:
        fetched = threads.submit(store.fetch, name, facts, tmp_path / "b.bin", lambda _: None)
        stored = threads.submit(store.store, tmp_path / "a.bin", ObjectName("takes", "in/c.bin"))
        time.sleep(3)  # longer than boto3 itself tries
        assert not fetched.done()
        assert not stored.done()
        bucket.start()
        fetched.result(timeout=30)
        stored.result(timeout=30)
    bucket.stop()
    store.close()

    assert (tmp_path / "b.bin").read_bytes() == b"content"
    assert_problem(answered(away.value), 502, "store_failed", "connect")


def answered(error: Exception) -> httpx.Response:
    """What a caller is told of an error."""
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.get("/")

    return asyncio.run(ask())


@pytest.mark.parametrize("uri", ["s3://takes/a/b", "s3://takes/", "s3://my.bucket-1/ä b?"])
def test_addresses_round_trip(uri: str) -> None:
    assert ObjectName.parse(uri).uri == uri


@pytest.mark.parametrize("uri", ["", "s3://", "s3://a", "s3:///k", "s3://UP/k", "s3://abc/a\nb"])
def test_addresses_of_nothing(uri: str) -> None:
    with pytest.raises(OptionError):
        ObjectName.parse(uri)


# --- direct uploads ------------------------------------------------------------------------------


def send(part: dict[str, Any], data: bytes) -> httpx.Response:
    piece = data[part["offset"] : part["offset"] + part["size"]]
    return httpx.put(part["url"], content=piece, timeout=LONG)


def test_a_direct_upload_in_parts_with_a_break(
    s3_server: Server, store: ObjectStore, tmp_path: Path
) -> None:
    data = b"".join(bytes([number]) * (32 << 20) for number in range(5))
    response = httpx.post(f"{s3_server.url}/objects", json={"name": "t.wav", "size": len(data)})
    assert response.status_code == 201, response.text
    url = s3_server.url + response.headers["location"]
    begun = response.json()
    assert [part["size"] for part in begun["missing"]] == [64 << 20, 64 << 20, 32 << 20]
    assert send(begun["missing"][1], data).status_code == 200
    tampered = begun["missing"][0]["url"].replace("partNumber=1", "partNumber=3")
    assert httpx.put(tampered, content=b"x").status_code == 403
    assert_problem(httpx.post(f"{url}/complete"), 409, "upload_not_finished", "Part 1 ")

    for part in httpx.get(url).json()["missing"]:
        assert part["number"] in (1, 3)
        assert send(part, data).status_code == 200
    assert httpx.get(url).json()["missing"] == []
    done = httpx.post(f"{url}/complete", timeout=LONG).json()

    name = ObjectName.parse(done["uri"])
    assert done == {"uri": begun["uri"], "size": len(data)}
    store.fetch(name, store.facts(name), tmp_path / "back.wav", lambda fraction: None)
    assert (tmp_path / "back.wav").read_bytes() == data
    assert_problem(httpx.get(url), 404, "upload_not_found")
    # A job may name it: it is nothing that can be read, but it is found and fetched.
    job = align(s3_server, video={"uri": done["uri"]}).json()
    assert "t.wav" in s3_server.wait_for(job["id"], "failed")["error"]["detail"]  # type: ignore[index]


def test_of_a_direct_upload_whose_end_was_not_heard_the_end_is_told_again(
    s3_server: Server,
) -> None:
    begun = httpx.post(f"{s3_server.url}/objects", json={"name": "a.wav", "size": 3}).json()
    url = f"{s3_server.url}/objects/{begun['id']}"
    assert send(begun["missing"][0], b"abc").status_code == 200

    answers = [httpx.post(f"{url}/complete", timeout=LONG) for _ in range(2)]

    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"uri": begun["uri"], "size": 3})
    ] * 2
    for method in ("GET", "DELETE"):
        assert_problem(httpx.request(method, url), 404, "upload_not_found")
    assert httpx.post(f"{url}/complete", timeout=LONG).status_code == 200


def test_a_direct_upload_dropped(s3_server: Server) -> None:
    begun = httpx.post(f"{s3_server.url}/objects", json={"name": "a/../b", "size": 1}).json()
    url = f"{s3_server.url}/objects/{begun['id']}"
    assert begun["uri"].endswith(f"/{begun['id']}/b")
    assert httpx.delete(url).status_code == 204
    assert_problem(httpx.get(url), 404, "upload_not_found")
    assert_problem(httpx.post(f"{url}/complete"), 404, "upload_not_found")
    assert_problem(httpx.get(f"{s3_server.url}/objects/..x"), 404, "upload_not_found")


@pytest.mark.parametrize("name", ["..", ".", "a/..", "\x00", "take\n.wav"])
def test_of_any_name_the_address_is_one_that_a_job_may_name(s3_server: Server, name: str) -> None:
    begun = httpx.post(f"{s3_server.url}/objects", json={"name": name, "size": 1}).json()
    assert ObjectName.parse(begun["uri"]).uri == begun["uri"]


def test_without_a_store_there_are_no_direct_uploads(server: Server) -> None:
    response = httpx.post(f"{server.url}/objects", json={"name": "a", "size": 1})
    assert_problem(response, 404, "no_object_store", "AVSA_OBJECTS_URL")
