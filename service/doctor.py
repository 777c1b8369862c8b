"""`python -m service doctor`: what would keep the service from working, before it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata, util

from service.http.access import Gate
from service.http.middleware import is_loopback
from service.jobs import JobTable
from service.settings import Settings
from service.workers.gpu import gpu_memory

_CHILD_S = 120.0


class Fault(Exception):
    """What is wrong, and what to do about it."""


Check = Callable[[], str]


def examine(settings: Settings, table: JobTable, gate: Gate) -> Iterator[tuple[str, bool, str]]:
    """Run every check; yields its name, whether all is well, and a sentence."""
    checks: list[tuple[str, Check]] = [
        ("versions", _versions),
        ("data folder", lambda: _data_folder(settings)),
        ("job table", lambda: _table(table)),
        ("workers", lambda: _workers(table)),
        ("access", lambda: _access(settings, gate)),
        ("media roots", lambda: _media_roots(settings)),
        ("webhooks", lambda: _webhooks(settings)),
        ("GPU", lambda: _gpu(settings)),
        ("worker's child", lambda: _child(settings)),
    ]
    for name, check in checks:
        try:
            yield name, True, check()
        except Fault as fault:
            yield name, False, str(fault)
        except Exception as error:
            yield name, False, f"{type(error).__name__}: {error}"


def _versions() -> str:
    found = []
    for name in ("avsa-align", "fastapi", "celery", "redis", "torch", "av"):
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return f"Python {sys.version.split()[0]}, " + ", ".join(found)


def _data_folder(settings: Settings) -> str:
    folder = settings.data_dir
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"0")
            file.flush()
            os.fsync(file.fileno())
        space = os.statvfs(folder)
    except OSError as error:
        raise Fault(f"{folder} cannot be written (AVSA_DATA_DIR): {error}") from error
    free = space.f_bavail * space.f_frsize
    if free < settings.reserve_bytes:
        raise Fault(f"{folder} has {free >> 20} MiB free, less than AVSA_RESERVE_BYTES asks for")
    return f"{folder.resolve()}, {free >> 30} GiB free"


def _table(table: JobTable) -> str:
    table.check()
    summary = table.summary()
    counts = ", ".join(f"{count} {state}" for state, count in sorted(summary.counts.items()))
    if summary.oldest_queued_at is not None:
        counts += f"; the oldest waits for {summary.now - summary.oldest_queued_at:.0f} s"
    return counts or "no jobs"


def _workers(table: JobTable) -> str:
    workers = table.workers()
    if not workers:
        return "none is there now (embedded, they come with the service)"
    return ", ".join(f"{w.name} {json.dumps(w.info)}" for w in workers)


def _access(settings: Settings, gate: Gate) -> str:
    if gate.locked():
        return f"{len(gate.keys.all()) + (gate.admin is not None)} keys; everyone needs one"
    if not is_loopback(settings.host):
        raise Fault(f"there is no key, and AVSA_HOST is {settings.host}: {NO_KEY}")
    return f"no keys; whoever is on this machine may do everything ({settings.host})"


NO_KEY = (
    "make one with `python -m service keys add OWNER`, or listen on this machine only (127.0.0.1)"
)


def _media_roots(settings: Settings) -> str:
    for root in settings.media_roots:
        if not root.is_dir() or not os.access(root, os.R_OK | os.X_OK):
            raise Fault(f"{root} is no folder that can be read (AVSA_MEDIA_ROOTS)")
    return ", ".join(map(str, settings.media_roots)) or "none: files come as uploads"


def _webhooks(settings: Settings) -> str:
    if not settings.webhook_masters:
        return "off: AVSA_WEBHOOK_SECRET is not set"
    if min(map(len, settings.webhook_masters)) < 32:
        raise Fault("AVSA_WEBHOOK_SECRET has less than 32 characters; take 32 random bytes")
    return f"{len(settings.webhook_masters)} secrets"


def _gpu(settings: Settings) -> str:
    gpus = [f"{gpu.name}, {gpu.total >> 30} GiB" for gpu in gpu_memory()]
    if settings.device.startswith("cuda") and not gpus:
        raise Fault(f"AVSA_DEVICE is {settings.device}, but the driver shows no GPU here")
    return "; ".join(gpus) or "none"


def _child(settings: Settings) -> str:
    """Start the process that does the work, as a worker would, and wait until it is ready."""
    if util.find_spec("torch") is None:
        return "not here: this installation answers HTTP only"
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-m", settings.child_module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        ) as process,
    ):  # fmt: skip
        timer = threading.Timer(_CHILD_S, process.kill)
        timer.start()
        assert process.stdout is not None
        said = process.stdout.readline()
        timer.cancel()
        process.kill()
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    if b'"ready"' not in said:
        raise Fault(f"it did not get ready: {' '.join(last) or 'it said nothing'}")
    return "starts"
