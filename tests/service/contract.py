"""Over 500 requests made from the OpenAPI document: `python -m tests.service.contract`.

schemathesis makes them, fitting and not fitting ones, and follows the document's links. None may be
answered by a 5xx, or by a status or a body that the document does not name, or let in without key.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.service.conftest import Server

KEY = "avsa_the-operators-own-key-0123456789abcdef"
# A version of tus that is not spoken, or none, is refused with 412, as that protocol says.
_CONFIG = """[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 415, 422, 428, 429, "5xx"]
"""
# A path that fits the schema has to lie below a media root too: fitting requests may be refused.
_LEFT_OUT = "positive_data_acceptance"


def start(folder: Path) -> Server:
    """A server with a key, and a child that does little."""
    (folder / "take.wav").write_bytes(b"not looked into")
    server = Server(folder / "data")
    server.settings = {
        "AVSA_MEDIA_ROOTS": json.dumps([str(folder)]),
        "AVSA_CHILD_MODULE": "tests.service.polite_child",
        "AVSA_ADMIN_KEY": KEY,
        "AVSA_WEBHOOK_SECRET": "w" * 43,
        "AVSA_MAX_WAIT_S": "1",
    }
    server.start()
    return server


def check(
    server: Server, *, examples: int, seed: int = 1, phases: str = "coverage,fuzzing,stateful"
) -> subprocess.CompletedProcess[str]:
    """Run schemathesis; `examples` are made of each operation in each of its phases, at most."""
    config = server.data_dir.parent / "schemathesis.toml"
    config.write_text(_CONFIG)
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("st")), "--config-file", str(config),
            "run", f"{server.url}/openapi.json",
            "--header", f"Authorization: Bearer {KEY}", "--checks", "all",
            "--exclude-checks", _LEFT_OUT,
            "--phases", phases,
            "--max-examples", str(examples), "--seed", str(seed), "--request-timeout", "20",
            "--continue-on-failure", "--no-shrink", "--output-sanitize", "false",
        ],
        capture_output=True, text=True, cwd=server.data_dir.parent, timeout=3000,
        env={
            **os.environ, "SCHEMATHESIS_HOOKS": "tests.service.contract_hooks",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
    )  # fmt: skip


def main() -> int:
    """Check, and tell what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=40, help="per operation and phase")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = start(Path(folder))
        try:
            done = check(server, examples=arguments.examples, seed=arguments.seed)
        finally:
            server.stop()
    print(done.stdout, done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
