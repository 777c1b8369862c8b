"""What chaos asks for, what it was told, and what was found wrong."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

ORDERS = {"work": 80, "crash": 6, "hang": 6, "fail": 5, "break": 3}


@dataclass
class Request:
    """What a client wants, and what it was told."""

    key: str
    order: dict[str, Any]
    audio: bytes
    cancel_after_s: float | None
    job_id: str | None = None
    cancelled: bool = False
    ended: dict[str, Any] | None = None

    @property
    def body(self) -> bytes:
        return json.dumps(self.order).encode()


@dataclass
class Books:
    """What happened, and what was found wrong."""

    kills: Counter[str] = field(default_factory=Counter)
    requests: list[Request] = field(default_factory=list)
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    outcomes: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    spared: int = 0
    freezes: int = 0
    seconds: float = 0.0


def draw(rng: random.Random, key: str) -> Request:
    """A request as clients make them."""
    do = rng.choices(list(ORDERS), list(ORDERS.values()))[0]
    cancel = do == "hang" or rng.random() < 0.1
    return Request(
        key,
        {"do": do, "seconds": rng.choice([0.0, 0.1, 0.3, 0.3, 1.0, 4.0])},
        rng.randbytes(64),
        rng.choice([0.0, 0.5, 3.0]) if cancel else None,
    )


def report(mode: str, books: Books) -> None:
    """Print what was done and found."""
    kills = ", ".join(f"{name} {count}" for name, count in sorted(books.kills.items()))
    found = ", ".join(f"{name} {len(books.wrong[name])}" for name in ("lost", "twice", "orphans"))
    print(
        f"{mode}: {sum(books.kills.values())} kills ({kills}), {books.freezes} workers frozen; "
        f"{books.spared} spared; {len(books.requests)} jobs in {books.attempts} attempts, "
        f"{books.seconds:.0f} s: {found}"
    )
    print("  " + "; ".join(f"{what}: {n}" for what, n in sorted(books.outcomes.items())))
    for name, cases in list(books.wrong.items()):
        if not cases:
            del books.wrong[name]
        for case in cases[:10]:
            print(f"  WRONG ({name}): {case[:1500]}")
    sys.stdout.flush()
