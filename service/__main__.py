"""Run the service. Settings come from the environment (`AVSA_...`).

`python -m service` serves HTTP, with a worker of its own unless AVSA_REDIS_URL names a cluster.
`python -m service worker` is a worker of the cluster.
"""

from __future__ import annotations

import argparse
import gc
import logging
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import SettingsError

from model.errors import DiskFull
from service import commands, logs, tracing
from service.app import create_app
from service.doctor import NO_KEY
from service.http.access import open_gate
from service.http.middleware import is_loopback
from service.jobs import TableUnreachable
from service.settings import Settings, told, unknown_names
from service.storage import Storage, full_disk_told
from service.workers.pool import run_worker

log = logging.getLogger("avsa.service")

# Bodies and files that are on their way are cut off after this when the service goes down.
_GRACE_S = 3
_NOT_STARTED = 3  # the exit status that uvicorn has for it


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; the exit status is 2 if they or the settings are at fault."""
    try:
        settings = Settings.load()
        arguments = _parser(settings).parse_args(argv)
        with _told_of(settings.data_dir, "made"):
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        status: int = arguments.run(settings, arguments)
        return status
    except ValidationError as error:
        for sentence in told(error):
            print(sentence, file=sys.stderr)
    except SettingsError as error:
        match = re.search(r'field "(\w+)"', str(error))
        name = f"AVSA_{match[1]}".upper() if match else str(error)
        print(f'The setting {name} does not fit: write a JSON list, ["A", "B"].', file=sys.stderr)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
    except TableUnreachable as error:
        print(error, file=sys.stderr)
        return 1
    return 2


@contextmanager
def _told_of(folder: Path, what: str) -> Iterator[None]:
    """What the system refuses of the data folder, as a sentence."""
    try:
        with full_disk_told():
            yield
    except DiskFull as error:
        raise _too_full(folder, "no folder can be made") from error
    except OSError as error:
        raise ValueError(
            f"The data folder {folder} cannot be {what} ({error.strerror}): set AVSA_DATA_DIR to "
            "another."
        ) from error


def _too_full(folder: Path, words: str) -> ValueError:
    return ValueError(
        f"The disk of the data folder {folder} is full, so that the service cannot start "
        f"({words.rstrip('.')}): free some space there, or set AVSA_DATA_DIR to another."
    )


def _check_data_dir(settings: Settings) -> bool:
    """Refuse a data folder that cannot be written; whether its disk is full, which is none such:
    results are served from there still, and deleted, which makes room.
    """
    with _told_of(settings.data_dir, "written"):
        storage = Storage(settings.data_dir)
        try:
            with full_disk_told():
                storage.check()
        except DiskFull:
            return True
    return False


def _begin_logs(settings: Settings, full: bool) -> None:
    logs.configure(settings.log_format)
    tracing.configure()
    for sentence in unknown_names():
        log.warning("%s", sentence)
    if full:
        words = "the disk of the data folder %s is full: nothing is taken until there is space"
        log.warning(words, settings.data_dir)


def _parser(settings: Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_serve)
    _add_address(parser, settings)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    serve = verbs.add_parser("serve", help="serve HTTP (what is done without a command)")
    _add_address(serve, settings)
    serve.set_defaults(run=_serve)
    worker = verbs.add_parser("worker", help="work for the cluster that AVSA_REDIS_URL names")
    worker.add_argument("--device", default=settings.device, help=f"({settings.device})")
    worker.set_defaults(run=_work)
    commands.add_parsers(verbs)
    return parser


def _add_address(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--host", default=settings.host, help=f"({settings.host})")
    parser.add_argument("--port", type=int, default=settings.port, help=f"({settings.port})")


def _serve(settings: Settings, arguments: argparse.Namespace) -> int:
    settings = Settings.load(host=arguments.host, port=arguments.port)
    full = _check_data_dir(settings)
    _begin_logs(settings, full)
    try:
        app = _guarded_app(settings)
    except (OSError, TableUnreachable) as error:  # of files that are not there yet
        if full:
            raise _too_full(settings.data_dir, str(error)) from error
        raise
    # What is loaded by now stays for good. Left among the objects that the collector goes through,
    # it costs every request of that moment some 60 ms.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=_GRACE_S,
        log_config=None,
        server_header=False,
    )
    server = _Server(config, app.state.going_down)
    with suppress(KeyboardInterrupt):
        server.run()
    return 0 if server.started else _NOT_STARTED


def _guarded_app(settings: Settings) -> FastAPI:
    if not is_loopback(settings.host) and not open_gate(settings).locked():
        raise ValueError(f"The service does not listen on {settings.host} without a key: {NO_KEY}.")
    return create_app(settings)


class _Server(uvicorn.Server):
    """Tells the application of the signal at once: the lifespan ends only when no request waits."""

    def __init__(self, config: uvicorn.Config, going_down: threading.Event) -> None:
        super().__init__(config)
        self._going_down = going_down

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal."""
        self._going_down.set()
        super().handle_exit(sig, frame)


def _work(settings: Settings, arguments: argparse.Namespace) -> int:
    if not settings.redis_url:
        raise ValueError("A worker needs AVSA_REDIS_URL; without, the service has its own.")
    settings = Settings.load(device=arguments.device)
    _begin_logs(settings, _check_data_dir(settings))
    return run_worker(settings)


if __name__ == "__main__":
    sys.exit(main())
