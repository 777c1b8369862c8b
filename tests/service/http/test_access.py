"""Who may: keys, owners, scopes, foreign pages and foreign names, over a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import Server
from tests.service.launcher import launcher
from tests.service.ports import free_port

ADMIN = "avsa_the-operators-own-key-0123456789abcdef"


def command(server: Server, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """`python -m service` beside the server, on its data."""
    environment = {
        **os.environ,
        "AVSA_DATA_DIR": str(server.data_dir),
        **server.settings,
        **changes,
    }
    return launcher().run(arguments, environment)


def new_key(server: Server, *arguments: str) -> str:
    done = command(server, "keys", "add", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class Locked:
    """A server with keys of two owners and the operator's."""

    server: Server
    alice: str
    bob: str
    reader: str
    scraper: str

    def ask(self, key: str | None, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **more.pop("headers", {})}
        return httpx.request(method, self.server.url + path, headers=headers, **more)

    def submit(self, key: str | None, **options: Any) -> httpx.Response:
        body = {"video": str(self.server.data_dir.parent / "take.wav"), "options": options}
        return self.ask(key, "POST", "/align", json=body)

    def wait_for(self, job_id: str, state: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while (job := self.ask(ADMIN, "GET", f"/jobs/{job_id}").json())["state"] != state:
            assert time.monotonic() < deadline, f"{job}\n{self.server.log()}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    folder = tmp_path_factory.mktemp("locked")
    (folder / "take.wav").write_bytes(b"not looked into")
    (folder / "secrets").mkdir()
    (folder / "secrets" / "avsa_admin_key").write_text(ADMIN)
    (folder / "secrets" / "avsa_webhook_secret").write_text("w" * 43 + "\n")
    server = Server(folder / "data")
    server.settings = {
        "AVSA_MEDIA_ROOTS": json.dumps([str(folder)]),
        "AVSA_CHILD_MODULE": "tests.service.patient_child",
        "AVSA_SECRETS_DIR": str(folder / "secrets"),
        "AVSA_LOG_FORMAT": "json",
    }
    server.start()
    yield Locked(
        server,
        alice=new_key(server, "alice"),
        bob=new_key(server, "bob", "--max-jobs", "2", "--per-minute", "1000"),
        reader=new_key(server, "alice", "--scopes", "read"),
        scraper=new_key(server, "prometheus", "--scopes", "metrics"),
    )
    server.stop()


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


# --- without a key -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.7.7", "::", "example.com"])
def test_beyond_loopback_not_without_a_key(own_server: Server, host: str) -> None:
    done = command(own_server, "serve", "--host", host)
    assert done.returncode == 2
    assert "keys add" in done.stderr
    assert host in done.stderr


def test_every_operation_but_the_open_ones_needs_a_key(locked: Locked) -> None:
    document = locked.ask(None, "GET", "/openapi.json").json()
    answers = {
        operation["operationId"]: locked.ask(
            None, method.upper(), path.format(job_id="x", track=0, upload_id="x")
        ).status_code
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }

    assert {name for name, status in answers.items() if status != 401} == {
        "livez", "readyz", "open_session", "close_session",
    }  # fmt: skip


def test_wrong_keys(locked: Locked) -> None:
    for wrong in ("", "x", locked.alice + "x", locked.alice[:-1], "avsa_"):
        assert code(locked.ask(wrong or None, "GET", "/jobs"))[0] == 401
    stale = locked.ask(None, "GET", "/jobs", headers={"Cookie": "avsa_key=avsa_stale"})
    assert code(stale) == (401, "key_unknown")
    answer = locked.ask("avsa_wrong", "GET", "/jobs")
    assert code(answer) == (401, "key_unknown")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_what_is_held_in_memory_is_small_whoever_sends_it(locked: Locked) -> None:
    """The framework reads JSON before it is asked who calls; some is open to all."""
    piece = b"x" * (1 << 18)
    for key, path in ((None, "/session"), (None, "/objects"), (locked.alice, "/align")):
        for content in (6 * piece, iter(6 * [piece])):  # announced, and not
            headers = {"Content-Type": "application/json"}
            answer = locked.ask(key, "POST", path, content=content, headers=headers)
            assert code(answer) == (413, "too_large"), path
            assert "x-request-id" in answer.headers
    fits = locked.ask(None, "POST", "/session", content=4 * piece)
    assert code(fits) == (422, "invalid_request")


# --- with one ------------------------------------------------------------------------------------


def test_jobs_of_others_are_not_there(locked: Locked) -> None:
    job_id = locked.submit(locked.alice).json()["id"]
    paths = [
        ("GET", f"/jobs/{job_id}"), ("GET", f"/jobs/{job_id}/events"),
        ("GET", f"/jobs/{job_id}/report.json"), ("GET", f"/jobs/{job_id}/audio/0"),
        ("GET", f"/jobs/{job_id}/plot.png"), ("GET", f"/jobs/{job_id}/preview.mp4"),
        ("POST", f"/jobs/{job_id}/cancel"), ("DELETE", f"/jobs/{job_id}"),
    ]  # fmt: skip

    for method, path in paths:
        answer = locked.ask(locked.bob, method, path)
        never = locked.ask(locked.bob, method, path.replace(job_id, "0" * 32))
        assert code(answer) == code(never) == (404, "job_not_found"), path
        # What is said of another's job is what is said of none.
        assert answer.json()["detail"].replace(job_id, "0" * 32) == never.json()["detail"]

    def listed(key: str) -> list[str]:
        return [job["id"] for job in locked.ask(key, "GET", "/jobs").json()["jobs"]]

    assert job_id not in listed(locked.bob)
    assert job_id in listed(locked.alice)
    assert job_id in listed(locked.reader)  # another key of the same owner
    assert job_id in listed(ADMIN)
    assert locked.ask(locked.alice, "POST", f"/jobs/{job_id}/cancel").status_code == 202


def test_uploads_of_others_are_not_there(locked: Locked) -> None:
    tus = {"Tus-Resumable": "1.0.0"}
    begun = locked.ask(locked.alice, "POST", "/uploads", headers={**tus, "Upload-Length": "3"})
    path = begun.headers["location"]
    upload_id = path.removeprefix("/uploads/")
    never = "0" * 32
    chunk = {**tus, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}

    for method, headers in (("GET", {}), ("PATCH", chunk), ("DELETE", {})):
        answers = [
            locked.ask(locked.bob, method, f"/uploads/{name}", headers=headers, content=b"abc")
            for name in (upload_id, never)
        ]
        assert [code(answer) for answer in answers] == [(404, "upload_not_found")] * 2
    assert locked.ask(locked.bob, "HEAD", path, headers=tus).status_code == 404
    assert locked.ask(None, "HEAD", path, headers=tus).status_code == 401
    assert code(locked.ask(locked.bob, "PUT", path, content=b"abc")) == (404, "upload_not_found")

    assert locked.ask(locked.alice, "PATCH", path, headers=chunk, content=b"abc").is_success
    named = {"video": {"upload": upload_id}}
    assert code(locked.ask(locked.bob, "POST", "/align", json=named)) == (404, "upload_not_found")
    job = locked.ask(locked.alice, "POST", "/align", json=named).json()
    assert locked.ask(locked.alice, "POST", f"/jobs/{job['id']}/cancel").status_code == 202


def test_a_key_for_submitting_is_enough_to_resume_an_upload(locked: Locked) -> None:
    sender = new_key(locked.server, "sender", "--scopes", "submit")
    tus = {"Tus-Resumable": "1.0.0"}
    begun = locked.ask(sender, "POST", "/uploads", headers={**tus, "Upload-Length": "3"})
    path = begun.headers["location"]

    assert locked.ask(sender, "HEAD", path, headers=tus).headers["upload-offset"] == "0"
    assert locked.ask(sender, "GET", path).json()["state"] == "waiting"
    assert locked.ask(sender, "OPTIONS", "/uploads").status_code == 204
    assert code(locked.ask(locked.reader, "GET", path)) == (403, "scope_missing")
    # What answers it holds addresses to write to.
    assert code(locked.ask(locked.reader, "GET", "/objects/x")) == (403, "scope_missing")


def test_ids_have_128_bits(locked: Locked) -> None:
    ids = {locked.submit(locked.alice).json()["id"] for _ in range(5)}
    assert all(len(job_id) == 32 and int(job_id, 16) >= 0 for job_id in ids)
    for job_id in ids:
        locked.ask(ADMIN, "POST", f"/jobs/{job_id}/cancel")


def test_scopes(locked: Locked) -> None:
    assert code(locked.submit(locked.reader)) == (403, "scope_missing")
    assert code(locked.ask(locked.reader, "POST", "/jobs/x/cancel")) == (403, "scope_missing")
    assert code(locked.ask(locked.alice, "GET", "/metrics")) == (403, "scope_missing")
    assert code(locked.ask(locked.scraper, "GET", "/jobs")) == (403, "scope_missing")
    assert locked.ask(locked.scraper, "GET", "/metrics").status_code == 200
    assert locked.ask(ADMIN, "GET", "/metrics").status_code == 200


def test_a_key_has_its_own_limit_of_jobs(locked: Locked) -> None:
    ids = [locked.submit(locked.bob).json()["id"] for _ in range(2)]
    assert code(locked.submit(locked.bob)) == (429, "quota_reached")
    for job_id in ids:
        locked.ask(locked.bob, "POST", f"/jobs/{job_id}/cancel")


def test_a_key_has_its_own_rate(locked: Locked) -> None:
    key = new_key(locked.server, "hasty", "--per-minute", "3")
    answers = [locked.ask(key, "GET", "/jobs") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    session = locked.ask(None, "POST", "/session", json={"key": key})
    assert code(session) == (429, "too_many_requests")
    described = locked.ask(None, "GET", "/openapi.json").json()["paths"]["/session"]["post"]
    assert {"429", "503"} <= described["responses"].keys()
    assert int(answers[-1].headers["retry-after"]) <= 60


def test_a_revoked_key_is_useless_within_a_second(locked: Locked) -> None:
    key = new_key(locked.server, "leaver")
    assert locked.ask(key, "GET", "/jobs").status_code == 200
    lines = command(locked.server, "keys", "list").stdout.splitlines()
    (key_id,) = [line.split()[0] for line in lines if "leaver" in line]
    assert key not in "\n".join(lines)

    assert command(locked.server, "keys", "revoke", key_id).returncode == 0

    time.sleep(1.0)
    assert code(locked.ask(key, "GET", "/jobs")) == (401, "key_unknown")
    assert command(locked.server, "keys", "revoke", key_id).returncode == 2


def test_a_session_for_pages(locked: Locked) -> None:
    with httpx.Client(base_url=locked.server.url) as page:
        assert code(page.post("/session", json={"key": "avsa_wrong"})) == (401, "key_unknown")
        opened = page.post("/session", json={"key": locked.alice})
        assert opened.status_code == 204
        cookie = opened.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert page.get("/jobs").status_code == 200
        assert page.delete("/session").status_code == 204
        assert page.get("/jobs").status_code == 401


# --- foreign pages and names ----------------------------------------------------------------------


def test_a_foreign_page_changes_nothing(locked: Locked) -> None:
    own = {"Origin": locked.server.url}
    near = f"http://127.0.0.1:{locked.server.port + 1}"
    for origin in ("https://evil.example", "null", near, "http://[", ""):
        answer = locked.ask(locked.alice, "POST", "/jobs/x/cancel", headers={"Origin": origin})
        assert code(answer) == (403, "foreign_origin")
        assert "access-control-allow-origin" not in answer.headers
    assert locked.ask(locked.alice, "POST", "/jobs/x/cancel", headers=own).status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[", ""]
)
def test_a_foreign_name_for_loopback_is_refused(locked: Locked, host: str) -> None:
    answer = locked.ask(locked.alice, "GET", "/jobs", headers={"Host": host})
    assert answer.status_code in (400, 421)


def test_no_page_of_another_origin_may_read(locked: Locked) -> None:
    answer = locked.ask(locked.alice, "GET", "/jobs", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert locked.ask(None, "OPTIONS", "/align", headers=asked).status_code in (401, 405)


@pytest.mark.parametrize("host", ["LOCALHOST:1", "127.0.0.2:8000", "[::1]:8000"])
def test_every_name_of_loopback_is_its_own(locked: Locked, host: str) -> None:
    """As of a service that listens at another of its addresses."""
    assert locked.ask(locked.alice, "GET", "/jobs", headers={"Host": host}).status_code == 200


def test_an_origin_that_is_named_may(own_server: Server) -> None:
    own_server.settings["AVSA_CORS_ORIGINS"] = '["https://portal.example"]'
    own_server.start()
    headers = {"Origin": "https://portal.example"}
    allowed = httpx.get(f"{own_server.url}/jobs", headers=headers)
    assert allowed.headers["access-control-allow-origin"] == "https://portal.example"
    assert "Location" in allowed.headers["access-control-expose-headers"]
    assert httpx.post(f"{own_server.url}/jobs/x/cancel", headers=headers).status_code == 404
    other = httpx.get(f"{own_server.url}/jobs", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_an_origin_that_is_named_may_read_what_went_wrong(tmp_path: Path) -> None:
    portal = "https://portal.example"
    app = create_app(Settings(data_dir=tmp_path, cors_origins=frozenset({portal})))

    async def asked(host: str) -> httpx.Response:
        how = httpx.ASGITransport(app)  # not started, so that all it does fails
        async with httpx.AsyncClient(transport=how, base_url=f"http://{host}") as page:
            return await page.get("/jobs", headers={"Origin": portal})

    for host, status in (("127.0.0.1", 500), ("evil.example", 421)):
        answer = asyncio.run(asked(host))
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == portal


@pytest.mark.parametrize("path", ["/", "/jobs", "/nowhere", "/docs/", "/livez", "/page/app.js"])
def test_every_answer_has_the_safe_headers(locked: Locked, path: str) -> None:
    headers = locked.ask(None, "GET", path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "server" not in headers
    kept = path in ("/", "/docs/", "/page/app.js")  # to be asked about every time
    assert headers["cache-control"] == ("private, no-cache" if kept else "no-store")


# --- what is told --------------------------------------------------------------------------------


def test_logs_are_json_with_the_ids_of_request_and_job_and_without_secrets(locked: Locked) -> None:
    request_id = "mine-123"
    job_id = locked.submit(locked.alice, label="x").json()["id"]
    locked.wait_for(job_id, "running")
    answer = locked.ask(
        locked.alice, "GET", f"/jobs/{job_id}", headers={"X-Request-ID": request_id}
    )
    locked.ask(locked.alice, "POST", f"/jobs/{job_id}/cancel")
    assert answer.headers["x-request-id"] == request_id
    other = locked.ask(None, "GET", "/livez", headers={"X-Request-ID": "no good!"})
    assert other.headers["x-request-id"] != "no good!"

    text = (locked.server.data_dir.parent / "server.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]

    (told,) = [line for line in lines if line.get("request_id") == request_id]
    assert (told["status"], told["operation"], told["event"]) == (
        200,
        "get_job",
        f"GET /jobs/{job_id}",
    )
    assert told["key"]
    queued = [line for line in lines if line.get("job_id") == job_id]
    assert any("request_id" in line for line in queued)
    assert any(line["logger"] == "avsa.worker" and line["attempt"] == 1 for line in queued)
    for secret in (ADMIN, locked.alice, locked.bob, "w" * 43):
        assert secret not in text


def test_metrics_tell_of_jobs_and_requests(locked: Locked) -> None:
    job_id = locked.submit(locked.alice).json()["id"]
    assert locked.ask(locked.alice, "BREW", "/jobs").status_code == 405
    numbers = locked.ask(locked.scraper, "GET", "/metrics").text
    locked.ask(locked.alice, "POST", f"/jobs/{job_id}/cancel")

    names = (
        'avsa_jobs{state="queued"}', "avsa_queue_age_seconds", "avsa_lease_age_seconds",
        'avsa_jobs_ended_total{state="cancelled"}',
        'avsa_attempts_cut_short_total{reason="crashes"}',
        "avsa_workers 1.0", "avsa_child_memory_bytes", "avsa_disk_free_bytes",
        'avsa_http_requests_total{method="POST",operation="align",status="202"}',
    )  # fmt: skip
    for name in names:
        assert name in numbers, name
    assert 'method="other"' in numbers
    assert "BREW" not in numbers


def test_webhooks_at_submission(locked: Locked, own_server: Server) -> None:
    for url, words in [
        ("http://example.com/", "https"),
        ("https://127.0.0.1/x", "public"),
        ("https://[::1]/x", "public"),
        ("https://169.254.169.254/latest", "public"),
        ("https://u:p@example.com/", "user"),
    ]:
        answer = locked.submit(locked.alice, notify_url=url)
        assert answer.status_code == 422, url
        assert words in answer.json()["detail"], url
    secret = locked.ask(locked.alice, "GET", "/webhook-secret").json()["secret"]
    printed = command(locked.server, "keys", "webhook-secret", "alice")
    assert secret == printed.stdout.strip()
    assert secret != locked.ask(locked.bob, "GET", "/webhook-secret").json()["secret"]


# --- the operator's commands ----------------------------------------------------------------------


def test_jobs_on_the_command_line(locked: Locked) -> None:
    job_id = locked.submit(locked.alice, label="reel 9").json()["id"]
    server = locked.server

    listed = command(server, "jobs", "list", "--owner", "alice").stdout
    shown = json.loads(command(server, "jobs", "show", job_id).stdout)
    refused = command(server, "jobs", "purge", job_id)
    cancelled = command(server, "jobs", "cancel", job_id)

    assert job_id in listed
    assert "reel 9" in listed
    assert (shown["owner"], shown["label"]) == ("alice", "reel 9")
    assert refused.returncode == 2
    assert "cancel it first" in refused.stderr
    assert cancelled.returncode == 0
    locked.wait_for(job_id, "cancelled")
    assert command(server, "jobs", "purge", job_id).returncode == 0
    assert code(locked.ask(ADMIN, "GET", f"/jobs/{job_id}")) == (404, "job_not_found")
    assert "There is no job" in command(server, "jobs", "show", job_id).stderr


def test_a_label_does_nothing_to_the_operators_terminal(locked: Locked) -> None:
    job_id = locked.submit(
        locked.alice, label="\x1b]0;mine\x07\x9b2J\nforged \u202e e\u0301"
    ).json()["id"]
    (line,) = (
        line
        for line in command(locked.server, "jobs", "list").stdout.splitlines()
        if line.startswith(job_id)
    )
    assert line.isprintable()
    assert line.endswith("forged \N{REPLACEMENT CHARACTER} e\u0301")
    locked.ask(ADMIN, "POST", f"/jobs/{job_id}/cancel")


def test_the_doctor_and_the_probe(locked: Locked, tmp_path: Path) -> None:
    well = command(locked.server, "doctor")
    assert well.returncode == 0, well.stdout
    assert "ok    job table" in well.stdout
    assert "ok    worker's child: starts" in well.stdout

    ill = command(
        locked.server, "doctor", AVSA_DEVICE="cuda", AVSA_MEDIA_ROOTS='["/nowhere"]',
        AVSA_RESERVE_BYTES=str(1 << 60), AVSA_HOST="0.0.0.0", CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    assert ill.returncode == 1
    for name in ("media roots", "data folder"):
        assert f"FAIL  {name}" in ill.stdout

    port = {"AVSA_PORT": str(locked.server.port)}
    assert command(locked.server, "probe", "api", **port).returncode == 0
    assert command(locked.server, "probe", "api", AVSA_PORT="1").returncode == 1
    assert command(locked.server, "probe", "worker").returncode == 0


@pytest.mark.parametrize("arguments", [("keys", "list"), ("serve", "--host", "0.0.0.0")])
def test_keys_out_of_reach_are_told_in_a_sentence(
    own_server: Server, arguments: tuple[str, ...]
) -> None:
    done = command(own_server, *arguments, AVSA_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("The keys are out of reach: ")
    assert line.endswith("Connection refused.")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AVSA_PORT": "many"}, "AVSA_PORT"),
        ({"AVSA_ADMIN_KEY": "short"}, "AVSA_ADMIN_KEY"),
        ({"AVSA_SECRETS_DIR": "/nowhere"}, "/nowhere"),
        ({"AVSA_DATA_DIR": "/dev/null/avsa"}, "AVSA_DATA_DIR"),
    ],
)
def test_settings_that_do_not_fit(own_server: Server, changes: dict[str, str], words: str) -> None:
    done = command(own_server, "doctor", **changes)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
