"""The service over a real socket: aligned takes, bad input, kills and restarts."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from model.checkpoint import Method, load_calibration
from service.client import Client
from service.schemas import AlignOptions
from tests.bad_inputs import BAD_INPUTS
from tests.service.conftest import Server
from training.data.takes import TakeFiles

LONG = httpx.Timeout(120)
QUICK_CHILD = "tests.service.quick_child"
BRIEF = {"windows": 1}  # where it matters that a job ends, not what it finds
# The beginning of a multipart body, up to the file.
PART = b'--b\r\nContent-Disposition: form-data; name="video"; filename="v.mp4"\r\n\r\n'


def post(
    server: Server, video: Path | None, *audio: Path, wait_s: int | None = None,
    options: dict[str, Any] | str | None = None,
) -> httpx.Response:  # fmt: skip
    files: list[tuple[str, Any]] = [("audio", (path.name, path.open("rb"))) for path in audio]
    if video is not None:
        files.append(("video", (video.name, video.open("rb"))))
    data = {}
    if options is not None:
        data["options"] = options if isinstance(options, str) else json.dumps(options)
    headers = {"Prefer": f"wait={wait_s}"} if wait_s is not None else {}
    try:
        return httpx.post(
            f"{server.url}/align", files=files, data=data, headers=headers, timeout=LONG
        )
    finally:
        for _, (_, file) in files:
            file.close()


def assert_problem(response: httpx.Response, status: int, code: str, words: str = "") -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code), problem
    assert re.search(words, problem["detail"]), problem["detail"]


@pytest.fixture(scope="module")
def done(server: Server, take: TakeFiles) -> dict[str, Any]:
    """The example take, aligned by the server."""
    response = post(server, take.video, take.audio, options={"preview": True})
    assert response.status_code == 202
    assert response.headers["location"] == f"/jobs/{response.json()['id']}"
    assert response.headers["retry-after"]
    return server.wait_for(response.json()["id"], "succeeded", "failed")


def test_a_take_is_aligned(server: Server, take: TakeFiles, done: dict[str, Any]) -> None:
    (result,) = done["results"]
    report = httpx.get(server.url + result["report_url"]).json()
    audio = httpx.get(server.url + result["audio_url"])
    plot = httpx.get(server.url + result["plot_url"])
    preview = httpx.get(server.url + result["preview_url"])

    assert done["state"] == "succeeded"
    assert result["verdict"] == report["verdict"] == "misaligned"
    error = math.remainder(report["rotate_field_ccw_deg"] + take.rotated_deg, 360)
    assert abs(error) <= 10
    assert report["input"]["audio"]["paths"] == ["take.wav"]
    assert report["output"]["path"] == result["name"] == "take_aligned.wav"
    assert 'filename="take_aligned.wav"' in audio.headers["content-disposition"]
    assert audio.headers["x-content-type-options"] == "nosniff"
    assert hashlib.sha256(audio.content).hexdigest() == report["output"]["sha256"]
    assert plot.content.startswith(b"\x89PNG")
    assert preview.headers["content-type"] == "video/mp4"
    assert preview.content[4:12] == b"ftypisom"
    assert str(server.data_dir) not in json.dumps(report)


def test_a_report_speaks_of_the_requests_fields(server: Server, take: TakeFiles) -> None:
    asked = post(server, take.video, take.audio, wait_s=60, options=BRIEF | {"apply_deg": 40})

    report = asked.json()
    assert report["output"]["applied_deg"] == 40
    assert any("as apply_deg says" in warning for warning in report["warnings"])
    assert "--" not in asked.text


def test_a_preview_is_there_only_where_it_was_asked_for(server: Server, take: TakeFiles) -> None:
    plain = post(server, take.video, take.audio, wait_s=60, options=BRIEF)

    job = httpx.get(f"{server.url}/jobs?limit=1").json()["jobs"][0]
    assert plain.status_code == 200
    assert job["results"][0]["preview_url"] is None
    assert_problem(
        httpx.get(f"{server.url}/jobs/{job['id']}/preview.mp4"), 404, "no_preview", "preview among"
    )


def test_waiting_for_the_report(server: Server, take: TakeFiles, done: dict[str, Any]) -> None:
    response = post(server, take.video, take.audio, wait_s=60)

    assert response.status_code == 200
    assert response.headers["preference-applied"] == "wait"
    report = response.json()
    assert report["schema_version"] == 1
    assert report["rotate_field_ccw_deg"] == done["results"][0]["rotate_field_ccw_deg"]


def test_waiting_in_vain_gives_the_job(server: Server, take: TakeFiles) -> None:
    response = post(server, take.video, take.audio, wait_s=0, options=BRIEF)

    assert response.status_code == 202
    later = httpx.get(f"{server.url}/jobs/{response.json()['id']}?wait=60", timeout=LONG).json()
    assert later["state"] == "succeeded"


def test_events_tell_the_stages_and_end(server: Server, take: TakeFiles) -> None:
    job_id = post(server, take.video, take.audio).json()["id"]
    kinds, stages, fractions = [], [], []
    with httpx.stream("GET", f"{server.url}/jobs/{job_id}/events", timeout=LONG) as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        for line in events.iter_lines():
            if line.startswith("event: "):
                kinds.append(line[7:])
            elif line.startswith("data: "):
                job = json.loads(line[6:])
                stages.append(job["stage"])
                fractions.append(job["progress"])

    assert kinds[-1] == "end"
    assert set(kinds[:-1]) == {"progress"}
    assert {"score", "succeeded"} <= set(stages)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_the_evidence_alone_may_judge(
    server: Server, take: TakeFiles, done: dict[str, Any]
) -> None:
    fused = httpx.get(server.url + done["results"][0]["report_url"]).json()
    alone = post(server, take.video, take.audio, wait_s=60, options={"method": "evidence"}).json()

    assert fused["model"]["scorer_sha256"] == load_calibration().scorer
    assert alone["model"]["scorer_sha256"] is None
    assert alone["model"]["weights_sha256"] == load_calibration(method=Method.EVIDENCE).sha256
    offered = AlignOptions.model_json_schema()["properties"]["method"]["enum"]
    assert offered == list(Method)


def test_a_reference_is_compared_and_named_as_sent(
    server: Server, take: TakeFiles, upright: Path
) -> None:
    with Client(server.url) as client:
        job = client.wait(client.align(take.video, [take.audio], reference=upright).id)
        report = client.report(job.id)

    assert report["reference"]["path"] == "upright.wav"
    assert report["rotate_field_ccw_deg"] == pytest.approx(-take.rotated_deg, abs=0.5)
    assert any("the reference upright.wav" in warning for warning in report["warnings"])


def test_orientation_and_detections_come_beside(
    server: Server, take: TakeFiles, tmp_path: Path
) -> None:
    """Boxes go by the name that the video was sent under."""
    orientation, boxes = tmp_path / "gyro.csv", tmp_path / "boxes.jsonl"
    orientation.write_text("time_s,yaw_deg\n0,0\n10,30\n")
    box = {"clip": take.video.stem, "time_s": 1.0, "box": [0.4, 0.4, 0.5, 0.6]}
    boxes.write_text(json.dumps(box) + "\n")
    with Client(server.url) as client:
        sent = [
            client.align(take.video, [take.audio], orientation=orientation, detections=boxes),
            client.align(take.video, [take.audio], detections=boxes, options=AlignOptions()),
        ]
        turned, standing = (client.report(client.wait(job.id).id) for job in sent)

    assert turned["trajectory"]["kind"] == "moving"
    assert "trajectory" not in standing
    for report in (turned, standing):
        assert any(cue["name"] == "objects" for cue in report["cues"])

    box["clip"] = "another"
    boxes.write_text(json.dumps(box) + "\n")
    files = {name: (path.name, path.read_bytes()) for name, path in
             (("video", take.video), ("audio", take.audio), ("detections", boxes))}  # fmt: skip
    refused = httpx.post(f"{server.url}/align", files=files, headers={"Prefer": "wait=60"})
    told = f"boxes.jsonl hold no box of the clip {take.video.stem}"
    assert_problem(refused, 422, "invalid_option", told)


def test_several_tracks_one_of_them_bad(server: Server, take: TakeFiles, tmp_path: Path) -> None:
    _, bad, words = BAD_INPUTS["mono"](take.video, take.audio, tmp_path)

    response = post(server, take.video, bad, take.audio, wait_s=60)

    assert response.status_code == 200
    problem, report = response.json()
    assert re.search(words, problem["detail"])
    assert report["verdict"] == "misaligned"
    job = httpx.get(server.url + response.headers["content-location"]).json()
    assert job["state"] == "succeeded"
    assert [result["name"] for result in job["results"]] == [bad.name, "take_aligned.wav"]
    base = f"{server.url}/jobs/{job['id']}"
    assert_problem(httpx.get(f"{base}/audio/0"), 422, "unsupported_media", words)
    assert httpx.get(f"{base}/audio/1").status_code == 200
    assert_problem(httpx.get(f"{base}/audio/2"), 404, "track_not_found")
    for below in (-1, -5):
        assert_problem(httpx.get(f"{base}/audio/{below}"), 422, "invalid_request", "track")


# What is not a file cannot be sent: the command line's tests name these.
@pytest.mark.parametrize(
    "name", sorted(BAD_INPUTS.keys() - {"missing video", "missing track", "folder as video"})
)
def test_bad_input_is_answered_with_a_problem(
    server: Server, take: TakeFiles, tmp_path: Path, name: str
) -> None:
    video, audio, words = BAD_INPUTS[name](take.video, take.audio, tmp_path)

    response = post(server, video, *([] if audio == video else [audio]), wait_s=60)

    assert response.status_code == 422, response.text
    assert_problem(response, 422, response.json()["code"], words)
    assert str(server.data_dir) not in response.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("no json", "options|JSON"),
        ({"convention": "b-format"}, r"convention.*b-format"),
        ({"fix": "upside"}, r"fix.*upside"),
        ({"windows": 0}, "windows"),
        ({"method": "guess"}, r"method.*guess"),
        ({"colour": "blue"}, "colour"),
        ({"offset_s": "late"}, "offset_s"),
    ],
)
def test_options_that_do_not_fit(
    server: Server, take: TakeFiles, options: dict[str, Any] | str, words: str
) -> None:
    response = post(server, take.video, take.audio, options=options)
    assert_problem(response, 422, "invalid_request", words)


def test_no_overlap_is_said(server: Server, take: TakeFiles) -> None:
    response = post(server, take.video, take.audio, wait_s=60, options={"offset_s": 500})
    assert_problem(response, 422, "unusable_content", r"overlap by less than 2 s")


def test_requests_that_are_none(server: Server, take: TakeFiles) -> None:
    url = f"{server.url}/align"
    assert_problem(httpx.post(url, content=b"x"), 415, "unsupported_media_type")
    assert_problem(post(server, None, take.audio), 422, "invalid_request", "0 files called video")
    assert_problem(
        httpx.post(url, files={"film": b"x"}), 422, "invalid_request", "'film' is unknown"
    )
    two = [(name, (name, b"x")) for name in ("video", "reference", "reference")]
    twice = httpx.post(url, files=two)
    assert_problem(twice, 422, "invalid_request", "2 files called reference")
    headers = {"content-type": "multipart/form-data; boundary=b"}
    broken = httpx.post(url, content=PART + b"breaks off", headers=headers)
    assert_problem(broken, 400, "broken_body")
    assert_problem(httpx.put(url), 405, "method_not_allowed")
    for path in ("jobs/nope", "jobs/nope/events", "jobs/nope/report.json"):
        assert_problem(httpx.get(f"{server.url}/{path}"), 404, "job_not_found")
    assert_problem(httpx.get(f"{server.url}/jobs?limit=9999"), 422, "invalid_request", "limit")


def test_boundaries_and_media_types(server: Server, take: TakeFiles) -> None:
    """A type is the same in whatever case, and a boundary has an end (RFC 9110, RFC 2046)."""
    url, body = f"{server.url}/align", b'{"video": "/nowhere/a.mp4"}'
    for kind in ("application/json", "Application/JSON", "application/JSON ; charset=utf-8"):
        named = httpx.post(url, content=body, headers={"content-type": kind})
        assert_problem(named, 422, "path_not_allowed")
    headers = {"content-type": f"multipart/form-data; boundary={'b' * 300}"}
    endless = httpx.post(url, content=PART, headers=headers)
    assert_problem(endless, 400, "broken_body", "Boundary")


def test_a_field_that_came_as_what_it_is_not(server: Server, take: TakeFiles) -> None:
    """As curl sends a file whose @ was forgotten, and options from a file."""
    url, video = f"{server.url}/align", ("video", ("v.mp4", b"x"))
    for field in ("video", "audio", "reference"):
        text = httpx.post(url, files=[video], data={field: "take.wav"})
        assert_problem(text, 422, "invalid_request", f"{field} is the text 'take.wav'; send a file")
    as_file = httpx.post(url, files=[video, ("options", ("o.json", b"{}"))])
    assert_problem(as_file, 422, "invalid_request", "options came as a file; send text")
    data = {"options": ['{"label": "one"}', '{"label": "two"}']}
    assert_problem(
        httpx.post(url, files=[video], data=data), 422, "invalid_request", "several .*options"
    )


def test_tracks_without_end(server: Server) -> None:
    """Sent or named, and told in a sentence that a person can read."""
    url = f"{server.url}/align"
    named = httpx.post(url, json={"video": "a", "audio": 100 * ["b"]})
    assert_problem(named, 422, "invalid_request", "audio: .* at most 99 items")
    assert len(named.json()["detail"]) < 400
    sent = httpx.post(url, files=[("video", b"v"), *(100 * [("audio", ("a.wav", b"a"))])])
    assert_problem(sent, 422, "invalid_request", "more than 100 parts")


def test_rejected_uploads_leave_nothing(server: Server, take: TakeFiles) -> None:
    before = {path.name for path in (server.data_dir / "uploads").iterdir()}

    post(server, take.video, take.audio, options="no json")
    post(server, None, take.audio)

    assert {path.name for path in (server.data_dir / "uploads").iterdir()} == before


def test_cancel_list_and_purge(server: Server, take: TakeFiles) -> None:
    busy = post(server, take.video, take.audio).json()["id"]
    queued = post(server, take.video, take.audio).json()["id"]

    assert httpx.post(f"{server.url}/jobs/{busy}/cancel").status_code == 202
    assert_problem(httpx.delete(f"{server.url}/jobs/{queued}"), 409, "job_not_ended", "cancel it")
    assert_problem(httpx.get(f"{server.url}/jobs/{queued}/report.json"), 409, "job_not_ended")
    for _ in range(2):  # as often as one likes
        assert httpx.post(f"{server.url}/jobs/{queued}/cancel").status_code == 202
    for job_id in (busy, queued):
        assert server.wait_for(job_id, "cancelled")["error"] is None
        assert_problem(httpx.get(f"{server.url}/jobs/{job_id}/plot.png"), 409, "cancelled")

    listed: list[str] = []
    link = f"{server.url}/jobs?limit=2"
    while link:
        page = httpx.get(link)
        listed += [job["id"] for job in page.json()["jobs"]]
        following = re.match(r"<(.*)>; rel=\"next\"", page.headers.get("link", ""))
        link = server.url + following[1] if following else ""
    assert listed[:2] == [queued, busy]
    assert len(listed) == len(set(listed))

    assert httpx.delete(f"{server.url}/jobs/{queued}").status_code == 204
    assert httpx.delete(f"{server.url}/jobs/{queued}").status_code == 404
    assert not (server.data_dir / "uploads" / queued).exists()


def test_health(server: Server) -> None:
    for name in ("livez", "readyz"):
        assert httpx.get(f"{server.url}/{name}").json() == {"status": "ok"}


def test_answers_fit_the_openapi_document(server: Server, done: dict[str, Any]) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()

    def check(instance: object, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(instance, schema)

    check(httpx.get(f"{server.url}/jobs/{done['id']}").json(), "JobInfo")
    check(httpx.get(f"{server.url}/jobs").json(), "JobPage")
    check(httpx.get(f"{server.url}/jobs/nope").json(), "Problem")
    ids = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert sorted(ids) == [
        "align", "append_to_upload", "begin_direct_upload", "cancel_job", "close_session",
        "complete_direct_upload", "create_upload", "delete_upload", "drop_direct_upload",
        "get_audio", "get_direct_upload", "get_job", "get_plot", "get_preview", "get_report",
        "get_upload", "get_upload_offset", "get_webhook_secret", "list_jobs", "livez", "metrics",
        "open_session", "purge_job", "put_upload", "readyz", "upload_capabilities", "watch_job",
    ]  # fmt: skip


def test_the_process_that_answers_never_imports_torch() -> None:
    heavy = "{'torch', 'av', 'scipy', 'matplotlib'} & set(sys.modules)"
    code = f"import sys, service.app, service.__main__; sys.exit(str({heavy} or '') or 0)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- servers of their own ------------------------------------------------------------------------


def test_paths_on_the_server_below_its_roots_only(
    own_server: Server, take: TakeFiles, tmp_path: Path
) -> None:
    own_server.settings["AVSA_MEDIA_ROOTS"] = json.dumps([str(take.video.parent)])
    own_server.start()
    url = f"{own_server.url}/align"
    (tmp_path / "secret.wav").write_bytes(take.audio.read_bytes())
    escape = take.video.parent / "link.wav"
    escape.symlink_to(tmp_path / "secret.wav")

    body = {"video": str(take.video), "audio": [str(take.audio)]}
    response = httpx.post(url, json=body, headers={"Prefer": "wait=60"}, timeout=LONG)
    assert response.json()["verdict"] == "misaligned"
    for path in ("/etc/hostname", f"{take.video.parent}/../../../etc/hostname", str(escape)):
        body = {"video": str(take.video), "audio": [path]}
        assert_problem(httpx.post(url, json=body), 422, "path_not_allowed", "media root")
    assert_problem(httpx.post(url, json={"audio": []}), 422, "invalid_request", "video")
    escape.unlink()


def test_a_killed_server_finishes_the_job_once_after_its_restart(
    own_server: Server, take: TakeFiles
) -> None:
    own_server.start()
    job_id = post(own_server, take.video, take.audio, options=BRIEF).json()["id"]
    own_server.wait_for(job_id, "running")
    orphans = own_server.children()
    assert orphans

    own_server.kill()
    own_server.start()
    job = own_server.wait_for(job_id, "succeeded")

    assert job["attempt"] == 2
    results = own_server.data_dir / "results" / job_id
    assert [folder.name for folder in results.iterdir()] == ["2"]
    deadline = time.monotonic() + 5
    while any(_alive(pid) for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in orphans)


def order(server: Server, **what: Any) -> Path:
    """Something for a child that does other work; it goes as the video, and as the track."""
    path = server.data_dir.parent / f"{what['do']}.mp4"
    path.write_text(json.dumps(what))
    return path


@pytest.fixture
def quick_server(own_server: Server) -> Server:
    """One whose child does what it is told at once: where only its life and death matter."""
    own_server.settings["AVSA_CHILD_MODULE"] = QUICK_CHILD
    own_server.start()
    return own_server


def test_a_killed_child_is_replaced_and_the_job_finishes(quick_server: Server) -> None:
    work = order(quick_server, do="work", seconds=1.0)
    job_id = post(quick_server, work, work).json()["id"]
    quick_server.wait_for(job_id, "running")
    (child,) = quick_server.children()

    os.kill(child, signal.SIGKILL)
    job = quick_server.wait_for(job_id, "succeeded")

    assert job["attempt"] == 2


def test_a_job_that_kills_its_child_is_given_up_and_others_go_on(quick_server: Server) -> None:
    crash, work = order(quick_server, do="crash"), order(quick_server, do="work")
    poison = post(quick_server, crash, work).json()["id"]

    failed = quick_server.wait_for(poison, "failed")
    good = post(quick_server, work, work, wait_s=60)

    assert failed["attempt"] == 3
    assert_problem(httpx.get(f"{quick_server.url}/jobs/{poison}/report.json"), 500, "crashed")
    assert good.status_code == 200


def test_a_terminated_server_puts_its_job_back(quick_server: Server) -> None:
    work = order(quick_server, do="work", seconds=1.0)
    job_id = post(quick_server, work, work).json()["id"]
    quick_server.wait_for(job_id, "running")

    quick_server.stop()
    quick_server.start()
    job = quick_server.wait_for(job_id, "succeeded")

    assert job["attempt"] == 2
    assert "was taken back from a lost worker" not in quick_server.log()
    assert "Traceback" not in quick_server.log()


def test_a_time_limit_ends_a_job(own_server: Server) -> None:
    own_server.settings |= {"AVSA_JOB_LIMIT_S": "0.2", "AVSA_CHILD_MODULE": QUICK_CHILD}
    own_server.start()
    hang = order(own_server, do="hang")
    response = post(own_server, hang, hang, wait_s=60)
    assert_problem(response, 500, "time_limit", r"limit of 0 s")


def test_a_body_over_the_limit(own_server: Server, take: TakeFiles) -> None:
    own_server.settings["AVSA_MAX_UPLOAD_BYTES"] = "1000"
    own_server.start()
    assert_problem(post(own_server, take.video, take.audio), 413, "too_large", "limit is 1000")


@pytest.mark.needs("root")
def test_a_full_disk_is_said_and_survived(own_server: Server, take: TakeFiles) -> None:
    own_server.data_dir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(own_server.data_dir)]
    subprocess.run(mount, check=True)
    try:
        own_server.settings["AVSA_RESERVE_BYTES"] = "0"
        own_server.start()
        # Chunked, so that the length does not say it beforehand.
        response = httpx.post(
            f"{own_server.url}/align",
            content=iter([PART, *[bytes(1 << 20)] * 8]),
            headers={"content-type": "multipart/form-data; boundary=b"},
            timeout=LONG,
        )
        assert_problem(response, 507, "disk_full", "no space")
        assert list((own_server.data_dir / "uploads").iterdir()) == []
        assert httpx.get(f"{own_server.url}/livez").status_code == 200
        kept = f"{own_server.url}/uploads/{'a' * 32}"
        assert httpx.put(kept, content=bytes(100_000)).status_code == 201
        own_server.kill()

        with suppress(OSError), (own_server.data_dir / "of others").open("wb", 0) as file:
            while file.write(bytes(4096)):
                pass
        own_server.start(until="/livez")  # serves what there is
        ready = httpx.get(f"{own_server.url}/readyz")
        assert_problem(ready, 503, "not_ready", "No space left")
        assert httpx.get(kept).json()["state"] == "complete"
        refused = httpx.put(f"{own_server.url}/uploads/{'b' * 32}", content=b"more")
        assert_problem(refused, 507, "disk_full", "no space")
        assert httpx.delete(kept).status_code == 204
        assert httpx.get(f"{own_server.url}/readyz").status_code == 200
        own_server.kill()
    finally:
        subprocess.run(["umount", "-l", str(own_server.data_dir)], check=True)


def test_an_upload_is_not_held_in_memory(own_server: Server) -> None:
    own_server.start()
    assert own_server.process is not None
    status = Path(f"/proc/{own_server.process.pid}/status")

    def peak_mb() -> float:
        match = re.search(r"VmHWM:\s+(\d+)", status.read_text())
        assert match is not None
        return int(match[1]) / 1024

    before = peak_mb()
    response = httpx.post(
        f"{own_server.url}/align",
        content=iter([PART, *[bytes(1 << 20)] * 400, b"\r\n--b--\r\n"]),
        headers={"content-type": "multipart/form-data; boundary=b"},
        timeout=LONG,
    )

    assert response.status_code == 202
    assert peak_mb() - before < 64


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
