"""A child in place of the real one: it takes every job, and never ends it."""

from __future__ import annotations

import json
import sys


def main() -> None:
    print(json.dumps({"kind": "ready"}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"kind": "progress", "stage": "score", "fraction": 0.5}), flush=True)


if __name__ == "__main__":
    main()
