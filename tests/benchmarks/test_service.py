"""What the service commits to, measured: `make bench`, or `pytest -s` on this file alone.

Every test prints `quantity: figure (commitment)`; none asserts a time. In `make test` each runs
once and briefly, so that none of them rots.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import Server
from tests.service.redis_server import RedisServer

CONNECTIONS = 8


@pytest.fixture
def brief(request: pytest.FixtureRequest) -> bool:
    """Whether this is a run of the tests, not of the benchmarks."""
    return bool(request.config.getoption("benchmark_disable"))


@pytest.fixture
def idle_server(own_server: Server, tmp_path: Path) -> Server:
    """A server whose children wait, with a file to name in requests."""
    (tmp_path / "take.wav").write_bytes(b"not looked into")
    own_server.settings |= {
        "AVSA_MEDIA_ROOTS": json.dumps([str(tmp_path)]),
        "AVSA_CHILD_MODULE": "tests.service.patient_child",
        "AVSA_MAX_QUEUED": "1000000",
        "AVSA_MAX_JOBS_OF_KEY": "1000000",
        "AVSA_LEASE_S": "30",
        "AVSA_BEAT_S": "5",
        "AVSA_SWEEP_S": "5",
    }
    own_server.start()
    return own_server


def submit(server: Server) -> str:
    path = str(server.data_dir.parent / "take.wav")
    answer = httpx.post(f"{server.url}/align", json={"video": path})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def tell(quantity: str, figure: str, commitment: str) -> None:
    print(f"\n{quantity}: {figure} (commitment: {commitment})")


def seconds_until(done: Callable[[], bool], *, limit_s: float = 60.0) -> float:
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < limit_s
        time.sleep(0.002)
    return time.monotonic() - began


# --- requests per second --------------------------------------------------------------------------


def wrk(url: str, *, brief: bool, script: str | None = None, folder: Path) -> tuple[float, float]:
    """Requests a second, and the 99th percentile of their time in ms; every answer a 2xx."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{1 if brief else 10}s", "--latency"]
    if script is not None:
        (folder / "post.lua").write_text(script)
        command += ["-s", str(folder / "post.lua")]
    told = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", told)
    assert rate is not None, told
    assert tail is not None, told
    assert "Non-2xx" not in told, told
    return float(rate[1]), float(tail[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[tail[2]]


@pytest.fixture(params=["SQLite", pytest.param("Redis", marks=pytest.mark.needs("redis-server"))])
def table(request: pytest.FixtureRequest, idle_server: Server, tmp_path: Path) -> Iterator[str]:
    """Where the server has its jobs; in a cluster nobody works on them."""
    if request.param == "Redis":
        idle_server.stop()
        redis = RedisServer(tmp_path / "redis").start()
        idle_server.settings["AVSA_REDIS_URL"] = redis.url
        idle_server.start()
        yield "Redis"
        redis.stop()
    else:
        yield "SQLite"


@pytest.mark.needs("wrk")
def test_jobs_submitted_a_second(
    idle_server: Server, table: str, brief: bool, tmp_path: Path
) -> None:
    body = json.dumps({"video": str(tmp_path / "take.wav")})
    script = (
        f'wrk.method = "POST"\nwrk.body = [[{body}]]\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
    )
    rate, p99 = wrk(f"{idle_server.url}/align", brief=brief, script=script, folder=tmp_path)
    promised = {"SQLite": ">= 300/s, p99 <= 600 ms", "Redis": ">= 300/s, p99 <= 60 ms"}[table]
    tell(f"POST /align, {table}", f"{rate:.0f}/s, p99 {p99:.0f} ms", promised)


@pytest.mark.needs("wrk")
def test_jobs_asked_for_a_second(
    idle_server: Server, table: str, brief: bool, tmp_path: Path
) -> None:
    url = f"{idle_server.url}/jobs/{submit(idle_server)}"
    rate, p99 = wrk(url, brief=brief, folder=tmp_path)
    tell(f"GET /jobs/ID, {table}", f"{rate:.0f}/s, p99 {p99:.0f} ms", ">= 1000/s, p99 <= 25 ms")


# --- start and idle -------------------------------------------------------------------------------


def test_start_and_idle(own_server: Server, brief: bool) -> None:
    began = time.monotonic()
    own_server.start()
    tell("start to ready", f"{time.monotonic() - began:.2f} s", "<= 5 s")

    assert own_server.process is not None
    proc = Path(f"/proc/{own_server.process.pid}")
    time.sleep(1 if brief else 5)  # what belongs to the start is over
    before, span = cpu_s(proc), 1.0 if brief else 20.0
    time.sleep(span)
    share = (cpu_s(proc) - before) / span
    resident = re.search(r"VmRSS:\s+(\d+)", (proc / "status").read_text())
    assert resident is not None
    figure = f"{share:.1%} of a core, {int(resident[1]) / 1024:.0f} MB"
    tell("idle, without a child", figure, "<= 2 %, <= 150 MB")


def cpu_s(proc: Path) -> float:
    user, system = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


# --- cancel, death, drain -------------------------------------------------------------------------


def running(server: Server) -> tuple[str, int]:
    """A job that runs, and its child."""
    job_id = submit(server)
    server.wait_for(job_id, "running")
    seconds_until(lambda: len(server.children()) == 1)
    return job_id, server.children()[0]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:  # gone before it was opened, or before it was read
        return True


def test_cancel_to_dead_child(idle_server: Server, brief: bool) -> None:
    spans = []
    for _ in range(1 if brief else 10):
        job_id, child = running(idle_server)
        httpx.post(f"{idle_server.url}/jobs/{job_id}/cancel")
        spans.append(seconds_until(lambda child=child: gone(child)))  # type: ignore[misc]
        idle_server.wait_for(job_id, "cancelled")
    tell("cancel to dead child, worst", f"{max(spans):.2f} s", "<= 2 s")


def test_kill_to_no_orphan_and_a_new_attempt(idle_server: Server, brief: bool) -> None:
    if brief:
        idle_server.stop()
        idle_server.settings["AVSA_LEASE_S"] = "1"
        idle_server.settings["AVSA_BEAT_S"] = "0.3"
        idle_server.settings["AVSA_SWEEP_S"] = "0.3"
        idle_server.start()
    job_id, child = running(idle_server)
    idle_server.kill()
    killed = time.monotonic()
    orphan_s = seconds_until(lambda: gone(child))
    idle_server.start()
    seconds_until(lambda: attempt_of(idle_server, job_id) == 2, limit_s=90)
    lease = idle_server.settings["AVSA_LEASE_S"]
    tell("kill -9 to orphan gone", f"{1000 * orphan_s:.0f} ms", "<= 1 s")
    figure = f"{time.monotonic() - killed:.1f} s with a lease of {lease} s"
    tell("kill -9 to the next attempt, a restart between", figure, "<= 40 s at 30 s")


def attempt_of(server: Server, job_id: str) -> int:
    return int(httpx.get(f"{server.url}/jobs/{job_id}").json()["attempt"])


def test_drain_and_resume(idle_server: Server) -> None:
    job_id, child = running(idle_server)
    assert idle_server.process is not None
    began = time.monotonic()
    idle_server.process.send_signal(signal.SIGTERM)
    idle_server.process.wait(timeout=60)
    drained_s = time.monotonic() - began
    assert gone(child)
    began = time.monotonic()
    idle_server.start()
    seconds_until(lambda: attempt_of(idle_server, job_id) == 2)
    tell("SIGTERM to exit, a job running", f"{drained_s:.2f} s", "<= 10 s")
    tell("start to the next attempt", f"{time.monotonic() - began:.2f} s", "<= 15 s")
