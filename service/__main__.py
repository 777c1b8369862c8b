"""Run the service: `python -m service`. Settings come from the environment (`AVSA_...`)."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import uvicorn

from service.app import create_app
from service.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop."""
    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    parser.add_argument("--host", default=settings.host, help=f"({settings.host})")
    parser.add_argument("--port", type=int, default=settings.port, help=f"({settings.port})")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    uvicorn.run(create_app(settings), host=arguments.host, port=arguments.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
