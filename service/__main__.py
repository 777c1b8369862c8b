"""Run the service. Settings come from the environment (`AVSA_...`).

`python -m service` serves HTTP, with a worker of its own unless AVSA_REDIS_URL names a cluster.
`python -m service worker` is a worker of the cluster.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import uvicorn

from service.app import create_app
from service.pool import run_worker
from service.settings import Settings

# Requests that wait for a job's end are cut off after this when the service goes down.
_GRACE_S = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, or work, until told to stop; returns the exit status."""
    settings = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default=settings.host, help=f"({settings.host})")
    parser.add_argument("--port", type=int, default=settings.port, help=f"({settings.port})")
    commands = parser.add_subparsers(dest="command")
    worker = commands.add_parser("worker", help="work for the cluster that AVSA_REDIS_URL names")
    worker.add_argument("--device", default=settings.device, help=f"({settings.device})")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if arguments.command == "worker":
        if not settings.redis_url:
            parser.error("a worker needs AVSA_REDIS_URL; without, the service has its own")
        return run_worker(settings.model_copy(update={"device": arguments.device}))
    uvicorn.run(
        create_app(settings),
        host=arguments.host,
        port=arguments.port,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
