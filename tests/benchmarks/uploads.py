"""What a long upload costs the service:

    python -m tests.benchmarks.uploads --gigabytes 12 [--method patch|put]

A sparse file is sent over loopback to `python -m service`, in one stream. Printed: MB/s, the memory
the service took above what it had idle, and how long /livez took to answer meanwhile.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.service.conftest import Server

_READ = 1 << 20


def peak_mb(pid: int) -> float:
    """Most memory a process has had resident."""
    match = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(_READ):
            yield data


def ask(url: str, done: threading.Event, waits_ms: list[float]) -> None:
    """Time /livez until told to stop."""
    with httpx.Client() as client:
        while not done.wait(0.02):
            began = time.perf_counter()
            client.get(f"{url}/livez").raise_for_status()
            waits_ms.append(1000 * (time.perf_counter() - began))


def send(server: Server, path: Path, method: str) -> None:
    size = path.stat().st_size
    headers = {"Content-Length": str(size)}
    if method == "put":
        url = f"{server.url}/uploads/{os.urandom(16).hex()}"
        response = httpx.put(url, content=pieces(path), headers=headers, timeout=600)
    else:
        tus = {"Tus-Resumable": "1.0.0"}
        created = httpx.post(f"{server.url}/uploads", headers={**tus, "Upload-Length": str(size)})
        url = server.url + created.headers["location"]
        kind = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
        response = httpx.patch(
            url, content=pieces(path), headers={**headers, **tus, **kind}, timeout=600
        )
    response.raise_for_status()
    assert httpx.get(url).json()["offset"] == size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=12)
    parser.add_argument("--method", choices=["patch", "put"], default="patch")
    arguments = parser.parse_args()
    size = int(arguments.gigabytes * 1e9)
    with tempfile.TemporaryDirectory() as name:
        if shutil.disk_usage(name).free < size + (2 << 30):
            print(f"{size} bytes do not fit into {name}", file=sys.stderr)
            return 2
        path = Path(name) / "sparse.bin"
        with path.open("wb") as file:
            file.truncate(size)
        server = Server(Path(name) / "data")
        server.start()
        assert server.process is not None
        before, waits_ms, done = peak_mb(server.process.pid), list[float](), threading.Event()
        asking = threading.Thread(target=ask, args=(server.url, done, waits_ms))
        asking.start()
        began = time.perf_counter()
        try:
            send(server, path, arguments.method)
            seconds = time.perf_counter() - began
            more = peak_mb(server.process.pid) - before
        finally:
            done.set()
            asking.join()
            server.kill()
    waits_ms.sort()
    print(
        f"{arguments.method} {size / 1e9:.1f} GB: {size / 1e6 / seconds:.0f} MB/s, "
        f"{more:.0f} MB more memory, /livez p50 {waits_ms[len(waits_ms) // 2]:.1f} ms "
        f"p99 {waits_ms[int(0.99 * len(waits_ms))]:.1f} ms of {len(waits_ms)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
