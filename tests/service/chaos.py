"""Chaos: processes are killed and frozen at random while clients submit, retry and cancel; then
the books are checked.

`python -m tests.service.chaos --kills 1000 [--seed N] [--only embedded|cluster]`

What must hold at the end:

- lost: every request that was ever answered has its job, and every job has ended, as it should:
  work with the right result, poison after three crashes, hung jobs by their cancel.
- twice: a job ends once (counters written with the end, and the workers' logs), one idempotency key
  has one job, one attempt's files are left, and what was seen ended never changes.
- orphans: no child outlives its worker by more than a moment.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from service.jobs import Job, JobTable, State, TableUnreachable
from tests.service.chaos_books import Books, Request, draw, report
from tests.service.deployment import LEASE_S, Deployment
from tests.service.launcher import Launcher
from tests.service.quick_child import expected

# Much longer than it takes: a child that does not notice its worker's end never ends.
ORPHAN_S = 20.0
MAX_CRASHES, MAX_LOSSES = 3, 10
# Sum of weights: 100. A kill of a child is the cheapest, and the worker starts another.
TARGETS = {
    "embedded": {"child": 70, "api": 30},
    "cluster": {"child": 40, "worker": 24, "api": 14, "redis": 20, "freeze": 2},
}


class Chaos:
    """One deployment, its clients, and the killer."""

    def __init__(self, mode: str, folder: Path, kills: int, seed: int, pause_s: float) -> None:
        self._mode = mode
        self._kills = kills
        self._pause_s = pause_s
        self._random = random.Random(seed)
        self._deployment = Deployment(
            folder,
            launcher=Launcher(),
            workers=2 if mode == "cluster" else 0,
            settings={
                "AVSA_MAX_CRASHES": str(MAX_CRASHES), "AVSA_MAX_LOSSES": str(MAX_LOSSES),
                "AVSA_CHILD_JOBS": "7",
            },
        )  # fmt: skip
        self._books = Books()
        self._over = threading.Event()
        self._table: JobTable | None = None

    def run(self, minutes: float) -> Books:
        """Kill until enough is killed, wait for what is left, and check."""
        began = time.monotonic()
        end = began + minutes * 60
        try:
            self._deployment.start()
            self._table = self._deployment.table()
            clients = [
                threading.Thread(target=self._client, args=(n, self._random.random()))
                for n in range(2)
            ]
            watcher = threading.Thread(target=self._watch)
            for thread in (*clients, watcher):
                thread.start()
            try:
                while sum(self._books.kills.values()) < self._kills and time.monotonic() < end:
                    time.sleep(self._random.uniform(0, 2 * self._pause_s))
                    self._kill_one()
            finally:
                self._over.set()
            for thread in (*clients, watcher):
                thread.join()
            self._settle()
            self._check()
            self._end()
        finally:
            self._deployment.stop()
            assert self._deployment.launcher is not None
            self._deployment.launcher.stop()
        self._books.seconds = time.monotonic() - began
        return self._books

    # --- clients ---

    def _client(self, number: int, seed: float) -> None:
        """Submit, again and again until it is answered, and cancel some."""
        rng = random.Random(seed)
        pending: list[tuple[float, Request]] = []
        count = 0
        while not self._over.is_set():
            count += 1
            request = draw(rng, f"client-{number}-request-{count}")
            self._books.requests.append(request)
            if rng.random() < 0.1:  # a client that hangs up; the retry below is the same request
                with suppress(httpx.HTTPError):
                    self._post(request, timeout=0.01)
            self._submit(request)
            if request.cancel_after_s is not None:
                pending.append((time.monotonic() + request.cancel_after_s, request))
            for due, waiting in list(pending):
                if time.monotonic() >= due:
                    pending.remove((due, waiting))
                    self._cancel(waiting)
            self._hold_back(rng)
        for _, waiting in pending:
            self._cancel(waiting)

    def _hold_back(self, rng: random.Random) -> None:
        """As many jobs as the workers can do, so that the queue neither starves nor grows."""
        time.sleep(rng.uniform(0, 0.3))
        while not self._over.is_set():
            with suppress(TableUnreachable):
                assert self._table is not None
                if self._table.waiting() < 12:
                    return
            time.sleep(0.2)

    def _post(self, request: Request, timeout: float = 20) -> httpx.Response:
        return httpx.post(
            f"{self._deployment.url}/align",
            files={"video": ("order.json", request.body), "audio": ("a.wav", request.audio)},
            headers={"Idempotency-Key": request.key},
            data={"options": json.dumps({"label": request.key})},
            timeout=timeout,
        )

    def _submit(self, request: Request) -> None:
        while True:
            with suppress(httpx.HTTPError):
                response = self._post(request)
                if response.status_code == 202:
                    request.job_id = response.json()["id"]
                    return
                if response.status_code not in (409, 503):
                    self._books.wrong["answers"].append(f"{response.status_code} {response.text}")
                    return
            time.sleep(0.2)

    def _cancel(self, request: Request) -> None:
        while True:
            with suppress(httpx.HTTPError):
                url = f"{self._deployment.url}/jobs/{request.job_id}/cancel"
                response = httpx.post(url, timeout=20)
                if response.status_code == 202:
                    request.cancelled = True
                    return
                if response.status_code != 503:
                    self._books.wrong["answers"].append(f"{response.status_code} {response.text}")
                    return
            time.sleep(0.2)

    def _watch(self) -> None:
        """Look at jobs all the time: what is seen ended must stay so."""
        while not self._over.is_set():
            for job in (self._deployment.get("/jobs?limit=40") or {"jobs": []})["jobs"]:
                self._see(job)
            time.sleep(0.5)

    def _see(self, job: dict[str, Any]) -> None:
        if State(job["state"]).final:
            request = next((r for r in self._books.requests if r.key == job["label"]), None)
            if request is not None and request.ended is None:
                request.ended = job
            elif request is not None and request.ended != job:
                self._books.wrong["twice"].append(f"{request.ended} became {job}")

    # --- the killer ---

    def _kill_one(self) -> None:
        weights = TARGETS[self._mode]
        target = self._random.choices(list(weights), list(weights.values()))[0]
        if target == "freeze":
            self._freeze_worker()
            return
        if target == "redis":
            assert self._deployment.redis is not None
            self._deployment.redis.kill()
            time.sleep(self._random.uniform(0, 1.5))
            self._deployment.redis.start()
        elif target == "child":
            if not self._kill_child():
                return
        else:
            name = "api" if target == "api" else self._random.choice(self._deployment.working)
            with self._held(name):
                if self._is_last(name, "losses", MAX_LOSSES):
                    return
                children = self._deployment.children(name)
                self._deployment.kill(name)
            self._expect_gone(children, name)
            time.sleep(self._random.choice([0.0, 0.0, 0.0, self._random.uniform(0, 4)]))
            self._deployment.start_one(name)
            if name == "api" and self._random.random() < 0.8:  # else it is killed as it starts
                self._deployment.wait_until_ready()
        self._books.kills[target] += 1

    def _freeze_worker(self) -> None:
        """Stop a worker for longer than its lease, and let it go on as if nothing had been."""
        name = self._random.choice(self._deployment.working)
        self._deployment.signal(name, signal.SIGSTOP)
        time.sleep(1.5 * LEASE_S)
        self._deployment.signal(name, signal.SIGCONT)
        self._books.freezes += 1

    def _kill_child(self) -> bool:
        name = self._with_child()
        if name is None:
            return False
        with self._held(name):
            if self._is_last(name, "crashes", MAX_CRASHES):
                return False
            for pid in self._deployment.children(name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return True

    @contextmanager
    def _held(self, name: str) -> Iterator[None]:
        """Keep a process from claiming another job between a look at its job and a kill."""
        self._deployment.signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                self._deployment.signal(name, signal.SIGCONT)

    def _is_last(self, name: str, count: str, limit: int) -> bool:
        """Whether a kill would be the last that a process's job may take, or nobody can tell.

        Jobs are given up after so many kills by design: a killer that goes on regardless only
        finds that again, of innocent jobs.
        """
        assert self._table is not None
        worker = f":{self._deployment.processes[name].pid}/"
        try:
            running = self._table.newest(20, state=State.RUNNING)
        except TableUnreachable:
            return True
        last = any(worker in job.worker and getattr(job, count) >= limit - 1 for job in running)
        self._books.spared += last
        return last

    def _with_child(self) -> str | None:
        """A process that has a child, now and then one that starts; None if none has in a while."""
        assert self._table is not None
        busy = self._random.random() < 0.9
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            workers = ""
            with suppress(TableUnreachable):
                running = self._table.newest(20, state=State.RUNNING) if busy else []
                workers = " ".join(job.worker for job in running)
            found = [
                name for name in self._deployment.working
                if self._deployment.children(name)
                and (not busy or f":{self._deployment.processes[name].pid}/" in workers)
            ]  # fmt: skip
            if found:
                return self._random.choice(found)
            time.sleep(0.1)
        return None

    def _expect_gone(self, children: list[int], name: str) -> None:
        deadline = time.monotonic() + ORPHAN_S
        while left := [pid for pid in children if pid in self._deployment.all_children()]:
            if time.monotonic() > deadline:
                self._books.wrong["orphans"].append(f"{left} outlive their {name}")
                return
            time.sleep(0.02)

    # --- the books ---

    def _settle(self) -> None:
        """Wait until every job has ended."""
        assert self._table is not None
        table = self._table
        self._deployment.wait_until_ready()

        def settled() -> bool:
            with suppress(TableUnreachable):
                counts = table.summary().counts
                return not (counts[State.QUEUED] or counts[State.RUNNING])
            return False

        with suppress(AssertionError):
            self._deployment.until(settled, "all jobs have ended", 300)

    def _jobs(self) -> Iterator[dict[str, Any]]:
        """All jobs, as the API lists them."""
        path = "/jobs?limit=200"
        while path:
            page: dict[str, Any] = {}

            def listed(path: str = path, page: dict[str, Any] = page) -> bool:
                page.update(self._deployment.get(path) or {})
                return bool(page)

            self._deployment.until(listed, "the API lists its jobs", 300)
            yield from page["jobs"]
            cursor = page["next_cursor"]
            path = f"/jobs?limit=200&cursor={cursor}" if cursor is not None else ""

    def _check(self) -> None:
        assert self._table is not None
        by_label: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for job in self._jobs():
            by_label[job["label"]].append(job)
            self._see(job)
        for request in self._books.requests:
            jobs = by_label.pop(request.key, [])
            if len(jobs) > 1:
                self._books.wrong["twice"].append(f"{request.key} has {len(jobs)} jobs")
            if not jobs or request.job_id not in [job["id"] for job in jobs]:
                self._books.wrong["lost"].append(f"{request.key}, told {request.job_id}: {jobs}")
                continue
            row = self._table.get(jobs[0]["id"])
            assert row is not None
            self._check_job(request, row)
        for label in by_label:
            self._books.wrong["twice"].append(f"a job that nobody asked for: {label!r}")
        ends = self._table.summary().totals
        ended = sum(count for name, count in ends.items() if name.startswith("ended."))
        if ended != len(self._books.requests):
            text = f"{ended} ends of {len(self._books.requests)} jobs"
            self._books.wrong["twice"].append(text)
        accepted = set(re.findall(r"job (\w+) attempt (\d+) \w+, accepted: True", self._log()))
        for job_id, count in Counter(job_id for job_id, _ in accepted).items():
            if count > 1:
                self._books.wrong["twice"].append(f"{count} attempts of {job_id} were accepted")

    def _log(self) -> str:
        return self._deployment.log()

    def _check_job(self, request: Request, job: Job) -> None:
        do, told = request.order["do"], f"{request}: {job}"
        self._books.outcomes[f"{do}: {job.state}{', asked to cancel' * request.cancelled}"] += 1
        self._books.attempts += job.attempt
        code = job.error["code"] if job.error else None
        right = {
            "work": job.state is State.SUCCEEDED,
            "crash": (job.state, code, job.crashes) == (State.FAILED, "crashed", MAX_CRASHES),
            "hang": False,
            "fail": (job.state, code) == (State.FAILED, "unreadable_media"),
            "break": (job.state, code) == (State.FAILED, "internal"),
        }[do]
        if not right and not (request.cancelled and job.state is State.CANCELLED):
            self._books.wrong["lost"].append(f"not as it should have ended: {told}")
        results = self._deployment.data_dir / "results" / job.id
        left = sorted(folder.name for folder in results.iterdir()) if results.exists() else []
        if job.state is State.SUCCEEDED:
            response = httpx.get(f"{self._deployment.url}/jobs/{job.id}/audio/0", timeout=120)
            if response.content != expected(request.body, request.audio):
                self._books.wrong["lost"].append(f"a wrong result: {told}")
            # What a killed worker had begun may be left where the end was told and the worker
            # killed before it tidied up; it is of no effect, and goes with the job.
            if str(job.attempt) not in left:
                self._books.wrong["lost"].append(f"results of {left}: {told}")

    def _end(self) -> None:
        """Ask all to stop; nothing may stay."""
        for name in reversed(self._deployment.names):
            self._deployment.signal(name, signal.SIGTERM)
            self._deployment.processes[name].wait(60)
        if left := self._deployment.all_children():
            self._books.wrong["orphans"].append(f"{left} are left at the end")


def main() -> int:
    """Run both kinds; the exit status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.service.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="over all kinds (100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause-s", type=float, default=0.5, help="mean, between kills (0.5)")
    parser.add_argument("--minutes", type=float, help="end the killing after so long")
    parser.add_argument("--only", choices=sorted(TARGETS))
    arguments = parser.parse_args()
    modes = [arguments.only] if arguments.only else list(TARGETS)
    bad = False
    for mode in modes:
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            chaos = Chaos(
                mode, Path(folder), arguments.kills // len(modes), arguments.seed,
                arguments.pause_s,
            )  # fmt: skip
            books = chaos.run(arguments.minutes or math.inf)
            report(mode, books)
            if books.wrong:
                bad = True
                kept = Path(tempfile.gettempdir()) / f"chaos-{mode}.log"
                kept.write_text(chaos._log())
                print(f"  the processes' log: {kept}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
