"""Uploads over a real socket: the clients people use, cuts of every kind, a full disk."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError
from tusclient.uploader import Uploader

from tests.service.conftest import Server
from tests.service.test_service import LONG, PART, assert_problem
from training.data.takes import TakeFiles

TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = {**TUS, "Content-Type": "application/offset+octet-stream"}
# UPLOAD_KILLS=20 for the long form.
KILLS = int(os.environ.get("UPLOAD_KILLS", "6"))
TUSJS = Path(__file__).parent / "tusjs"


def random_file(path: Path, size: int) -> Path:
    path.write_bytes(np.random.default_rng(size).bytes(size))
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stored(server: Server, url: str) -> Path:
    """Where the server keeps a finished upload."""
    return server.data_dir / "incoming" / url.rsplit("/", 1)[1] / "data"


def create(server: Server, length: int, **headers: str) -> str:
    response = httpx.post(
        f"{server.url}/uploads", headers={**TUS, "Upload-Length": str(length), **headers}
    )
    assert response.status_code == 201, response.text
    return server.url + response.headers["location"]


def patch(
    url: str, offset: int, content: bytes | Iterator[bytes], **headers: str
) -> httpx.Response:
    return httpx.patch(
        url, content=content, headers={**CHUNK, "Upload-Offset": str(offset), **headers},
        timeout=LONG,
    )  # fmt: skip


def offset(url: str) -> int:
    response = httpx.head(url, headers=TUS)
    assert response.status_code == 200, response
    assert response.headers["cache-control"] == "no-store"
    return int(response.headers["upload-offset"])


def digest(data: bytes, name: str = "sha256") -> str:
    return f"{name} {base64.b64encode(hashlib.new(name, data).digest()).decode()}"


@contextmanager
def tuspy(server: Server, path: Path, **options: Any) -> Iterator[Uploader]:
    with path.open("rb") as file:
        options = {"metadata": {"filename": path.name}, **options}
        yield TusClient(f"{server.url}/uploads").uploader(file_stream=file, **options)


# --- the clients people use ----------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [False, True])
def test_tuspy(server: Server, tmp_path: Path, checksum: bool) -> None:
    path = random_file(tmp_path / "take.wav", 3_000_001)
    options = {"upload_checksum": checksum, "metadata": {"filename": "a/é.wav"}}
    with tuspy(server, path, chunk_size=1 << 20, **options) as uploader:
        uploader.upload_chunk()
    with tuspy(server, path, url=uploader.url, chunk_size=700_000, **options) as resumed:
        resumed.upload()

    info = httpx.get(uploader.url).json()
    assert (info["state"], info["offset"], info["name"]) == ("complete", 3_000_001, "é.wav")
    assert sha256(stored(server, uploader.url)) == sha256(path)


@pytest.mark.needs("tus-js-client")
def test_tus_js_client_through_two_kills(own_server: Server, tmp_path: Path) -> None:
    path = random_file(tmp_path / "take.mp4", 60_000_000)
    own_server.start()
    client = subprocess.Popen(
        ["node", TUSJS / "upload.mjs", f"{own_server.url}/uploads", path, str(4 << 20)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stderr is not None
    for reached in (15_000_000, 40_000_000):
        for line in client.stderr:
            if line.strip().isdigit() and int(line) > reached:
                break
        own_server.kill()
        own_server.start()
    url, errors = client.communicate(timeout=60)

    assert client.returncode == 0, errors
    assert sha256(stored(own_server, url.strip())) == sha256(path)
    assert httpx.get(url.strip()).json()["name"] == "große Aufnahme.mp4"


@pytest.mark.needs("curl")
def test_one_put_with_curl(server: Server, tmp_path: Path) -> None:
    path = random_file(tmp_path / "take.wav", 5_000_000)
    content_digest = base64.b64encode(bytes.fromhex(sha256(path))).decode()
    url = f"{server.url}/uploads/{os.urandom(16).hex()}"

    def curl(*arguments: str) -> tuple[int, dict[str, Any]]:
        call = ["curl", "-s", "-w", "\n%{http_code}", "-T", str(path), f"{url}?name=take.wav"]
        body, _, status = subprocess.run(
            [*call, *arguments], capture_output=True, text=True, check=True
        ).stdout.rpartition("\n")
        return int(status), json.loads(body)

    status, problem = curl("-C", "4000000")  # which sends the rest, as if some were there
    assert (status, problem["code"]) == (400, "invalid_header")
    assert "bytes 4000000-4999999/5000000" in problem["detail"]

    wrong = f"Content-Digest: sha-256=:{base64.b64encode(bytes(32)).decode()}:"
    status, problem = curl("-H", wrong)
    assert (status, problem["code"]) == (460, "checksum_mismatch")
    assert httpx.get(url).json()["state"] == "waiting"
    assert httpx.get(url).json()["offset"] == 0

    status, info = curl("-H", f"Content-Digest: sha-256=:{content_digest}:")
    assert (status, info["state"], info["sha256"]) == (201, "complete", sha256(path))
    assert sha256(stored(server, url)) == sha256(path)
    assert curl()[0] == 409


def digest_of(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def test_digests_may_come_in_several_lines(server: Server) -> None:
    """As all lists do (RFC 9110, 5.3), whichever of them it is that we know."""
    url, other = f"{server.url}/uploads/{'d' * 32}", "sha-512=:AAAA:"
    right, wrong = (f"sha-256=:{digest_of(data)}:" for data in (b"a take", b"another"))

    def put(*digests: tuple[str, str]) -> httpx.Response:
        return httpx.put(url, content=b"a take", headers=list(digests))

    for name in ("Content-Digest", "Repr-Digest"):
        assert_problem(put((name, other), (name, wrong)), 460, "checksum_mismatch")
        assert_problem(put((name, wrong), (name, other)), 460, "checksum_mismatch")
    differing = put(("Content-Digest", right), ("Repr-Digest", wrong))
    assert_problem(differing, 400, "invalid_header", "Content-Digest and Repr-Digest")
    assert put(("Content-Digest", other), ("Content-Digest", right)).status_code == 201


# --- cuts ----------------------------------------------------------------------------------------


class SteadyClient(threading.Thread):
    """Sends a file over and over from where the server says it is, until all of it is there.

    Half of its requests carry a checksum, of a piece; the others go on to the end.
    """

    def __init__(self, url: str, data: bytes, chunk: int = 50_000) -> None:
        super().__init__(daemon=True)
        self.url, self.data, self.chunk = url, data, chunk
        self.n_requests = 0

    def run(self) -> None:
        while (at := self.ask()) < len(self.data):
            self.n_requests += 1
            try:
                if self.n_requests % 2:
                    patch(self.url, at, self.slowly(self.data[at:]))
                else:
                    piece = self.data[at : at + 2_000_000]
                    patch(self.url, at, self.slowly(piece), **{"Upload-Checksum": digest(piece)})
            except httpx.TransportError:
                continue

    def ask(self) -> int:
        while True:
            try:
                return offset(self.url)
            except (httpx.TransportError, AssertionError):
                time.sleep(0.05)

    def slowly(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), self.chunk):
            yield data[at : at + self.chunk]
            time.sleep(0.002)


def test_kills_within_one_upload(own_server: Server, tmp_path: Path) -> None:
    data = np.random.default_rng(1).bytes(KILLS * 6_000_000)
    own_server.start()
    url = create(own_server, len(data))
    part = stored(own_server, url).with_name("data.part")
    client = SteadyClient(url, data)
    client.start()
    sizes = []
    for _ in range(KILLS):
        before = part.stat().st_size
        while part.stat().st_size < before + 4_200_000:
            time.sleep(0.005)
        own_server.kill()
        sizes.append(part.stat().st_size)
        own_server.start()
    client.join(timeout=120)

    assert not client.is_alive()
    assert all(0 < size < len(data) for size in sizes)
    assert hashlib.sha256(data).hexdigest() == sha256(stored(own_server, url))


def test_a_broken_connection_keeps_what_came(server: Server) -> None:
    data = np.random.default_rng(2).bytes(3_000_000)
    url = create(server, len(data))

    def breaking() -> Iterator[bytes]:
        yield data[:1_500_000]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patch(url, 0, breaking())

    reached = offset(url)
    assert 0 < reached <= 1_500_000
    assert patch(url, reached, data[reached:]).status_code == 204
    assert stored(server, url).read_bytes() == data


def test_a_silent_sender_is_not_waited_for(own_server: Server) -> None:
    own_server.settings["AVSA_UPLOAD_IDLE_S"] = "0.5"
    own_server.start()
    url = create(own_server, 100)

    def falling_silent() -> Iterator[bytes]:
        yield b"x" * 10
        time.sleep(1.5)

    assert_problem(patch(url, 0, falling_silent()), 400, "broken_body", "0 s|1 s")
    assert offset(url) == 10


@contextmanager
def half_sent(server: Server, url: str) -> Iterator[None]:
    """A request holds an upload of 100 bytes, with 10 sent; the rest comes at the end."""
    going_on = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"x" * 10
        going_on.wait(30)
        yield b"x" * 90

    first = threading.Thread(target=patch, args=(url, 0, body()))
    first.start()
    lock = stored(server, url).parent / "upload.json"
    while not is_held(lock):
        time.sleep(0.02)
    try:
        yield
    finally:
        going_on.set()
        first.join(30)


def is_held(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_of_two_writers_one_is_told_to_wait(server: Server) -> None:
    url = create(server, 100)

    with half_sent(server, url):
        assert_problem(patch(url, 0, b"y" * 100), 423, "upload_locked", "Another request")

    assert stored(server, url).read_bytes() == b"x" * 100


def test_many_that_wait_for_one_upload_hold_up_nothing_else(server: Server) -> None:
    url = create(server, 100)

    def ask(n: int) -> int:
        if n % 2:
            return httpx.head(url, headers=TUS, timeout=LONG).status_code
        named = {"video": {"upload": url.rsplit("/", 1)[1]}}
        return httpx.post(f"{server.url}/align", json=named, timeout=LONG).status_code

    with half_sent(server, url), ThreadPoolExecutor(120) as pool:
        answers = [pool.submit(ask, n) for n in range(120)]
        time.sleep(1.5)  # all of them are there, and half of them wait
        began = time.monotonic()
        assert httpx.get(f"{server.url}/jobs", timeout=LONG).status_code == 200
        assert time.monotonic() - began < 1.0
        assert {answer.result() for answer in answers} == {423, 409}


def test_of_several_puts_of_one_id_at_once_one_is_kept(server: Server) -> None:
    answers: list[tuple[bytes, httpx.Response]] = []

    def put(url: str, data: bytes, together: threading.Barrier) -> None:
        with httpx.Client(timeout=LONG) as client:
            client.get(f"{server.url}/livez")  # connected before they start together
            together.wait(30)
            answers.append((data, client.put(url, content=data)))

    for _ in range(8):
        url = f"{server.url}/uploads/{os.urandom(16).hex()}"
        together = threading.Barrier(6)
        answers.clear()
        threads = [threading.Thread(target=put, args=(url, bytes([n]) * 5000, together))
                   for n in range(6)]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        ((kept, answer),) = [(data, a) for data, a in answers if a.status_code == 201]
        assert stored(server, url).read_bytes() == kept
        assert answer.json()["sha256"] == hashlib.sha256(kept).hexdigest()
        for _, other in answers:
            if other is not answer:
                assert_problem(other, 409, "upload_exists")


def test_damaged_bytes_are_dropped(server: Server) -> None:
    url = create(server, 200)
    assert patch(url, 0, b"a" * 100, **{"Upload-Checksum": digest(b"a" * 100, "sha1")}).is_success
    wrong = patch(url, 100, b"b" * 100, **{"Upload-Checksum": digest(b"c" * 100)})
    assert_problem(wrong, 460, "checksum_mismatch", "damaged on the way")
    assert offset(url) == 100
    assert patch(url, 100, b"c" * 100, **{"Upload-Checksum": digest(b"c" * 100)}).is_success
    assert stored(server, url).read_bytes() == b"a" * 100 + b"c" * 100


# --- the disk ------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.needs("root")
def test_a_full_disk_is_told_and_the_upload_goes_on_when_there_is_space(
    own_server: Server, tmp_path: Path
) -> None:
    path = random_file(tmp_path / "take.wav", 30_000_000)
    with small_disk(own_server.data_dir, "40m"):
        own_server.settings["AVSA_RESERVE_BYTES"] = "0"
        own_server.start()
        headers = {**TUS, "Upload-Length": "50000000"}
        refused = httpx.post(f"{own_server.url}/uploads", headers=headers)
        assert_problem(refused, 507, "disk_full", "50000000 bytes")
        with tuspy(own_server, path, chunk_size=10_000_000) as uploader:
            uploader.upload_chunk()
            ballast = random_file(own_server.data_dir / "ballast", 15_000_000)
            uploader.upload_chunk()
            with pytest.raises(TusCommunicationError) as told:
                uploader.upload_chunk()
        assert told.value.status_code == 507
        # Sent without its length, it fills the disk to the brim; what fitted counts.
        body = iter([path.read_bytes()[20_000_000:]])
        assert_problem(patch(uploader.url, 20_000_000, body), 507, "disk_full")
        assert httpx.get(f"{own_server.url}/livez").status_code == 200
        reached = offset(uploader.url)

        ballast.unlink()
        with tuspy(own_server, path, url=uploader.url) as resumed:
            resumed.upload()

        assert 20_000_000 <= reached < 30_000_000
        assert sha256(stored(own_server, uploader.url)) == sha256(path)
        own_server.stop()


@pytest.mark.needs("root")
def test_a_disk_that_has_room_for_no_file_is_full_too(own_server: Server) -> None:
    with small_disk(own_server.data_dir, "40m,nr_inodes=80"):
        own_server.start()
        url = create(own_server, 3)
        assert patch(url, 0, b"abc").status_code == 204
        for number in range(80):
            with suppress(OSError):
                (own_server.data_dir / f"ballast-{number}").touch()

        align = f"{own_server.url}/align"
        assert_problem(httpx.post(align, files={"video": b"v"}), 507, "disk_full")
        named = {"video": {"upload": url.rsplit("/", 1)[1]}}
        assert_problem(httpx.post(align, json=named), 507, "disk_full")
        own_server.stop()


def test_what_is_left_lying_is_swept(own_server: Server) -> None:
    own_server.start()
    waiting, finished = create(own_server, 100), create(own_server, 3)
    patch(waiting, 0, b"x" * 50)
    patch(finished, 0, b"abc")
    with pytest.raises(RuntimeError), httpx.Client() as client:
        client.post(
            f"{own_server.url}/align", content=_breaking(own_server),
            headers={"content-type": "multipart/form-data; boundary=b"},
        )  # fmt: skip
    uploads = own_server.data_dir / "uploads"
    incoming = own_server.data_dir / "incoming"
    assert len(list(uploads.iterdir())) == 1
    assert len(list(incoming.iterdir())) == 2

    own_server.settings |= {"AVSA_UPLOAD_TTL_S": "0.5", "AVSA_UPLOAD_SWEEP_S": "0.2"}
    time.sleep(0.5)
    own_server.start()
    deadline = time.monotonic() + 20
    while [*uploads.iterdir(), *incoming.iterdir()] and time.monotonic() < deadline:
        time.sleep(0.1)

    assert [*uploads.iterdir(), *incoming.iterdir()] == []
    assert httpx.head(waiting, headers=TUS).status_code == 404


def _breaking(server: Server) -> Iterator[bytes]:
    """A multipart body within which the server is killed."""
    yield PART + b"x" * (9 << 20)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if [f for f in (server.data_dir / "uploads").rglob("*") if f.is_file()]:
            break
        time.sleep(0.02)
    server.kill()
    raise RuntimeError


# --- what jobs do with them ----------------------------------------------------------------------


def test_a_job_of_uploads_survives_their_deletion(server: Server, take: TakeFiles) -> None:
    urls = []
    for path in (take.video, take.audio):
        with tuspy(server, path) as uploader:
            uploader.upload()
        urls.append(uploader.url)
    video, audio = ({"upload": url.rsplit("/", 1)[1]} for url in urls)

    response = httpx.post(f"{server.url}/align", json={"video": video, "audio": [audio]})
    assert response.status_code == 202, response.text
    for url in urls:
        assert httpx.delete(url, headers=TUS).status_code == 204
        assert httpx.head(url, headers=TUS).status_code == 404
    job = server.wait_for(response.json()["id"], "succeeded", "failed")

    (result,) = cast(list[dict[str, Any]], job["results"])
    assert result["name"] == "take_aligned.wav"
    assert result["verdict"] == "misaligned"


def test_unfinished_and_unknown_uploads_are_no_input(server: Server) -> None:
    url = create(server, 100)
    patch(url, 0, b"x" * 40)

    def align(upload: str) -> httpx.Response:
        return httpx.post(f"{server.url}/align", json={"video": {"upload": upload}})

    assert_problem(align(url.rsplit("/", 1)[1]), 409, "upload_not_finished", "40 bytes of 100")
    for unknown in ("0" * 32, "../uploads", "x"):
        assert_problem(align(unknown), 404, "upload_not_found")
    empty = create(server, 0)
    assert offset(empty) == 0
    assert_problem(align(empty.rsplit("/", 1)[1]), 422, "unreadable_media", "is empty")


# --- the protocol --------------------------------------------------------------------------------


def test_what_is_spoken(server: Server) -> None:
    answer = httpx.options(f"{server.url}/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    extensions = set(answer.headers["tus-extension"].split(","))
    assert extensions == {"creation", "termination", "expiration", "checksum"}
    assert {"sha1", "sha256"} <= set(answer.headers["tus-checksum-algorithm"].split(","))
    assert int(answer.headers["tus-max-size"]) > 100e9
    assert "upload-expires" in httpx.head(create(server, 1), headers=TUS).headers


def test_requests_that_are_refused(server: Server) -> None:
    uploads, url = f"{server.url}/uploads", create(server, 100)

    def creation(**headers: str) -> httpx.Response:
        return httpx.post(uploads, headers={**TUS, **headers})

    older = httpx.post(uploads, headers={"Tus-Resumable": "0.2.2", "Upload-Length": "1"})
    assert_problem(older, 412, "tus_version", "0.2.2")
    assert older.headers["tus-version"] == older.headers["tus-resumable"] == "1.0.0"
    for length in ("", "-1", "many", "1" * 30):
        assert_problem(creation(**{"Upload-Length": length}), 400, "invalid_header")
    assert_problem(creation(**{"Upload-Length": str(10**15)}), 413, "too_large")
    bad = {"Upload-Length": "1", "Upload-Metadata": "filename not-base64!"}
    assert_problem(creation(**bad), 400, "invalid_header", "not-base64!")
    assert_problem(patch(url, 7, b"x"), 409, "wrong_offset", "'7'.* 0")
    assert_problem(patch(url, 0, b"x" * 101), 413, "too_large", "100 left")
    assert_problem(patch(url, 0, iter([b"x" * 101])), 413, "too_large", "100 bytes")
    assert_problem(
        patch(url, 0, b"x", **{"Content-Type": "text/plain"}), 415, "unsupported_media_type"
    )
    same = {"Content-Type": "Application/Offset+Octet-Stream"}  # types are the same in any case
    assert_problem(patch(url, 7, b"x", **same), 409, "wrong_offset")
    for checksum in ("crc32 AAAA", "sha1 AAAA", "sha256"):
        answer = patch(url, 0, b"x", **{"Upload-Checksum": checksum})
        assert_problem(answer, 400, "invalid_header")
    for unknown in ("0" * 32, "x", "..", "%2e%2e"):
        assert patch(f"{uploads}/{unknown}", 0, b"x").status_code in (404, 405)
        assert httpx.delete(f"{uploads}/{unknown}").status_code in (404, 405)
    assert offset(url) == 0


def test_methods_may_be_named_in_a_header(server: Server) -> None:
    url = create(server, 3)

    def post(method: str, content: bytes = b"", **headers: str) -> httpx.Response:
        override = {"X-HTTP-Method-Override": method}
        return httpx.post(url, content=content, headers={**CHUNK, **override, **headers})

    assert post("PATCH", b"abc", **{"Upload-Offset": "0"}).status_code == 204
    assert post("HEAD").headers["upload-offset"] == "3"
    assert post("GET").status_code == 405
    assert post("DELETE").status_code == 204
    assert httpx.get(url).status_code == 404
