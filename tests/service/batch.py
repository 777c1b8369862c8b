"""A batch of real alignments by two workers, each in a network namespace of its own and with a disk
of its own; they share Redis and an object store, and nothing else. One is killed halfway.

`python -m tests.service.batch [--jobs 40] [--takes 8]`, as root; `--one-network` for others.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import httpx
import torch

from model.align import Outputs, align
from model.options import Options
from model.take import Track
from service.jobs import State
from tests.service.deployment import Deployment
from tests.service.namespaces import ADDRESS, Namespace, namespaces
from tests.service.redis_server import RedisServer
from tests.service.s3_server import S3Server
from training.data.scenes import Conditions, draw_scene
from training.data.takes import TakeFiles, write_take

EASY = Conditions(
    duration_s=6.0, n_sources=1, n_distractors=0, calm=True, snr_db=25.0, envelope="speech",
    offscreen=False, shaken=False,
)  # fmt: skip


def render(folder: Path, count: int) -> list[tuple[TakeFiles, str]]:
    """Takes, and the digest of each one's corrected file when aligned without any service."""
    made = []
    for seed in range(count):
        take = write_take(
            draw_scene(seed, EASY), folder, f"take-{seed}", rotate_deg=40.0 * seed - 120.0,
            height=128, rate_hz=10.0, colour=False,
        )  # fmt: skip
        output = folder / f"alone-{seed}.wav"
        align(
            take.video,
            Track((take.audio,)),
            Outputs(output),
            Options(n_windows=2, apply_undecided=True),
        )
        made.append((take, hashlib.sha256(output.read_bytes()).hexdigest()))
    return made


def put(takes: Sequence[TakeFiles], bucket: S3Server) -> None:
    """Lay takes into the object store."""
    folder = bucket.folder / "in"
    folder.mkdir()
    for take in takes:
        for path in (take.video, take.audio):
            shutil.copy(path, folder / path.name)


def submit(deployment: Deployment, take: TakeFiles, number: int) -> str:
    request = {
        "video": {"uri": f"s3://takes/in/{take.video.name}"},
        "audio": [{"uri": f"s3://takes/in/{take.audio.name}"}],
        "options": {"windows": 2, "apply_undecided": True},
        "output": "s3://takes/out/",
    }
    headers = {"Idempotency-Key": f"batch-{number}"}
    response = httpx.post(f"{deployment.url}/align", json=request, headers=headers, timeout=120)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def run(
    folder: Path, n_jobs: int, n_takes: int, prefixes: Sequence[list[str]], address: str
) -> bool:
    """Do it, print what happened, and say whether all was right."""
    takes = render(folder, n_takes)
    bucket = S3Server(folder / "s3", address).start()
    put([take for take, _ in takes], bucket)
    settings = {
        "AVSA_CHILD_MODULE": "service.workers.child", "AVSA_LEASE_S": "10", "AVSA_BEAT_S": "2",
        "OMP_NUM_THREADS": "1",  # as here: sums in another order differ in their last bits
    }  # fmt: skip
    deployment = Deployment(
        folder / "service",
        workers=2,
        settings=settings | bucket.settings(),
        redis=RedisServer(folder / "redis", address=address, options={"protected-mode": "no"}),
        prefixes={f"worker-{n}": prefix for n, prefix in enumerate(prefixes)},
    )
    try:
        deployment.start()
        table = deployment.table()
        began = time.monotonic()
        jobs = {submit(deployment, takes[n % n_takes][0], n): n for n in range(n_jobs)}

        def ended() -> int:
            return sum(n for state, n in table.summary().counts.items() if state.final)

        def halfway() -> bool:
            victim = deployment.processes["worker-0"].pid
            at_it = any(
                f":{victim}/" in job.worker for job in table.newest(n_jobs, state=State.RUNNING)
            )
            return ended() >= n_jobs // 2 and at_it

        deployment.until(halfway, "half of the batch is done", 1800)
        done_before = ended()
        deployment.kill("worker-0")
        deployment.until(lambda: ended() == n_jobs, "the batch is done", 1800)
        seconds = time.monotonic() - began

        states: Counter[str] = Counter()
        attempts: Counter[int] = Counter()
        right = 0
        for job_id, n in jobs.items():
            job = table.get(job_id)
            assert job is not None
            states[job.state] += 1
            attempts[job.attempt] += 1
            url = f"{deployment.url}/jobs/{job_id}/audio/0"
            audio = httpx.get(url, follow_redirects=True, timeout=60).content
            right += hashlib.sha256(audio).hexdigest() == takes[n % n_takes][1]
        totals = {k: v for k, v in table.summary().totals.items() if not k.startswith("stage.")}
        print(
            f"{n_jobs} alignments in {seconds:.0f} s, one of two workers killed after {done_before}"
        )
        print(f"states {dict(states)}, attempts {dict(attempts)}, totals {totals}")
        print(f"outputs equal to those of model.align alone: {right} of {n_jobs}")
        return right == n_jobs == states["succeeded"] == totals["ended.succeeded"]
    finally:
        deployment.stop()
        bucket.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.service.batch", description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--takes", type=int, default=8, help="different ones")
    parser.add_argument("--one-network", action="store_true", help="without namespaces")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    apart: AbstractContextManager[list[Namespace]] = namespaces(2)
    if arguments.one_network:
        apart = nullcontext([])
    with tempfile.TemporaryDirectory(prefix="batch-") as folder, apart as hosts:
        prefixes = [host.prefix for host in hosts] or [["env"], ["env"]]
        address = ADDRESS if hosts else "127.0.0.1"
        return int(not run(Path(folder), arguments.jobs, arguments.takes, prefixes, address))


if __name__ == "__main__":
    sys.exit(main())
