"""What an operator does on the command line: `keys`, `jobs`, `doctor` and `probe`.

Each works on the stores themselves, so it needs no running service. What goes wrong on the way is
a `ValueError` with a sentence.
"""

from __future__ import annotations

import argparse
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from service.doctor import examine
from service.http.access import open_gate
from service.jobs import Job, JobTable, State, open_table
from service.keys import Scope, make_key
from service.objects.store import ObjectStore
from service.retention import Purge
from service.schemas import JobInfo
from service.settings import Settings
from service.storage import Storage
from service.webhooks import secret_of_owner

_PROBE_S = 4.0
_MOST_DAYS = 36_500
_MOST_LISTED = 1_000_000


def add_parsers(commands: Any) -> None:
    """Add the operator's commands; each sets `run`, which takes settings and arguments."""
    _add_keys(commands.add_parser("keys", help="make, list and revoke API keys"))
    _add_jobs(commands.add_parser("jobs", help="list, show, cancel and purge jobs"))
    doctor = commands.add_parser("doctor", help="find out what would keep the service from working")
    doctor.set_defaults(run=_doctor)
    probe = commands.add_parser("probe", help="health check of a container; exit status 0 or 1")
    probe.add_argument("what", choices=["api", "worker"])
    probe.set_defaults(run=lambda settings, arguments: _PROBES[arguments.what](settings))


# --- keys ----------------------------------------------------------------------------------------


def _add_keys(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("add", help="make a key and print it, once")
    add.add_argument("owner", help="whose jobs it reaches; several keys may have one owner")
    add.add_argument(
        "--scopes", default="read,submit", help=f"of {', '.join(Scope)}; parted by commas"
    )
    add.add_argument("--days", type=float, help="good for so long (for ever)")
    add.add_argument("--per-minute", type=int, help="requests a minute (no limit)")
    add.add_argument("--max-jobs", type=int, help="jobs that wait or run (the service's limit)")
    add.set_defaults(run=_add_key)
    verbs.add_parser("list", help="every key, without its secret").set_defaults(run=_list_keys)
    revoke = verbs.add_parser("revoke", help="make a key useless, within a second")
    revoke.add_argument("id", help="as `keys list` names it")
    revoke.set_defaults(run=_revoke_key)
    secret = verbs.add_parser("webhook-secret", help="print what an owner's webhooks are signed by")
    secret.add_argument("owner")
    secret.set_defaults(run=_webhook_secret)


def _add_key(settings: Settings, arguments: argparse.Namespace) -> int:
    names = [name.strip() for name in arguments.scopes.split(",")]
    unknown = sorted({*names} - {*Scope})
    if unknown:
        raise ValueError(f"The scope {unknown[0]!r} is unknown; take of {', '.join(Scope)}.")
    if arguments.days is not None and not 0 < arguments.days <= _MOST_DAYS:
        words = f"Write more than 0 and at most {_MOST_DAYS}, or leave it out: for ever."
        raise ValueError(f"A key cannot be good for {arguments.days:g} days. {words}")
    secret, key = make_key(
        arguments.owner,
        map(Scope, names),
        expires_at=time.time() + 86_400 * arguments.days if arguments.days else None,
        per_minute=arguments.per_minute,
        max_jobs=arguments.max_jobs,
    )
    open_gate(settings).keys.add(key)
    print(secret)
    return 0


def _list_keys(settings: Settings, _arguments: argparse.Namespace) -> int:
    keys = open_gate(settings).keys.all()
    if keys:
        _print_row("id", "owner", "scopes", "made", "expires", "per minute", "jobs")
    for key in keys:
        _print_row(
            key.id, key.owner, ",".join(sorted(key.scopes)), _day(key.created_at),
            _day(key.expires_at), key.per_minute, key.max_jobs,
        )  # fmt: skip
    return 0


def _revoke_key(settings: Settings, arguments: argparse.Namespace) -> int:
    if not open_gate(settings).keys.revoke(arguments.id):
        raise ValueError(f"There is no key {arguments.id}; `keys list` names them.")
    return 0


def _webhook_secret(settings: Settings, arguments: argparse.Namespace) -> int:
    if not settings.webhook_masters:
        raise ValueError("Webhooks are off: AVSA_WEBHOOK_SECRET is not set.")
    print(secret_of_owner(settings.webhook_masters[0], arguments.owner))
    return 0


# --- jobs ----------------------------------------------------------------------------------------


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    listed = verbs.add_parser("list", help="the newest jobs")
    listed.add_argument("--state", type=State, choices=list(State))
    listed.add_argument("--owner")
    listed.add_argument("--limit", type=int, default=50)
    listed.set_defaults(run=_list_jobs)
    for name, words, run in (
        ("show", "everything about a job, as JSON", _show_job),
        ("cancel", "stop it", _cancel_job),
        ("purge", "forget an ended job, with its files", _purge_job),
    ):
        verb = verbs.add_parser(name, help=words)
        verb.add_argument("id")
        verb.set_defaults(run=run)


def _list_jobs(settings: Settings, arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.limit <= _MOST_LISTED:
        raise ValueError(f"The limit is {arguments.limit}; it has to be 1 to {_MOST_LISTED}.")
    jobs = open_table(settings).newest(
        arguments.limit, owner=arguments.owner, state=arguments.state
    )
    if jobs:
        _print_row("id" + 30 * " ", "state", "owner", "stage", "done", "attempt", "made", "label")
    for job in jobs:
        _print_row(
            job.id, job.state, job.owner, job.stage, f"{job.fraction:.0%}", job.attempt,
            _day(job.created_at), job.label,
        )  # fmt: skip
    return 0


def _known(table: JobTable, job_id: str) -> Job:
    job = table.get(job_id)
    if job is None:
        raise ValueError(f"There is no job {job_id}; `jobs list` names them.")
    return job


def _show_job(settings: Settings, arguments: argparse.Namespace) -> int:
    job = _known(open_table(settings), arguments.id)
    more = {
        "owner": job.owner, "worker": job.worker, "crashes": job.crashes, "losses": job.losses,
        "drains": job.drains, "stages_s": job.stages, "spec": job.spec,
    }  # fmt: skip
    print(json.dumps({**JobInfo.of(job).model_dump(mode="json"), **more}, indent=2))
    return 0


def _cancel_job(settings: Settings, arguments: argparse.Namespace) -> int:
    table = open_table(settings)
    _known(table, arguments.id)
    table.cancel(arguments.id)
    return 0


def _purge_job(settings: Settings, arguments: argparse.Namespace) -> int:
    table = open_table(settings)
    job = _known(table, arguments.id)
    if not job.state.final:
        raise ValueError(f"The job {job.id} is {job.state}: cancel it first.")
    with closing(ObjectStore(settings)) as objects:
        Purge(table, Storage(settings.data_dir), objects, settings)(job)
    return 0


# --- health --------------------------------------------------------------------------------------


def _doctor(settings: Settings, _arguments: argparse.Namespace) -> int:
    worst = 0
    for name, well, words in examine(settings, open_table(settings), open_gate(settings)):
        print(f"{'ok  ' if well else 'FAIL'}  {name}: {words}")
        worst |= not well
    return worst


def _probe_api(settings: Settings) -> int:
    """Whether the API on this machine answers."""
    try:
        url = f"http://127.0.0.1:{settings.port}/livez"
        with urllib.request.urlopen(url, timeout=_PROBE_S) as answer:
            return int(answer.status != 200)
    except (urllib.error.URLError, OSError) as error:
        print(f"{url}: {error}")
        return 1


def _probe_worker(settings: Settings) -> int:
    """Whether a worker on this machine has told the job table lately that it is there."""
    here = f"{socket.gethostname()}:"
    if any(worker.name.startswith(here) for worker in open_table(settings).workers()):
        return 0
    print(f"No worker of {here[:-1]} has been heard of.")
    return 1


_PROBES: dict[str, Callable[[Settings], int]] = {"api": _probe_api, "worker": _probe_worker}


def _print_row(*cells: object) -> None:
    widths = (32, 12, 16, 10, 10, 10, 10, 0) if len(cells) == 8 else (12, 16, 20, 10, 10, 10, 5)
    row = zip(("-" if c in (None, "") else _printable(c) for c in cells), widths, strict=True)
    print("  ".join(f"{cell:{width}}" for cell, width in row).rstrip())


def _printable(cell: object) -> str:
    """Text without what a terminal obeys: labels are what callers like."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
                   for character in str(cell))  # fmt: skip


def _day(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
