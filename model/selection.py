"""Which windows of a take are judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW_S = 10.0
_CANDIDATES = 24  # are looked at, where no more windows are wanted than half of them


def candidates(start_s: float, end_s: float, n_windows: int) -> tuple[list[float], float, int]:
    """Where windows may begin in a span, how long they are, and how many to choose of them.

    At least half a window apart, and so many that as many as are wanted fit without overlapping:
    every second one does.
    """
    span = end_s - start_s
    duration = span / max(1, round(span / WINDOW_S)) if span < 2 * WINDOW_S else WINDOW_S
    wanted = max(1, min(n_windows, int(span / duration + 1e-6)))
    by_halves = 1 + int(2 * (span / duration - 1) + 1e-6)
    count = min(by_halves, max(_CANDIDATES, 2 * wanted - 1))
    return np.linspace(start_s, end_s - duration, count).tolist(), duration, wanted


def best_apart(
    starts: Sequence[float], interests: Sequence[float], duration: float, wanted: int
) -> list[int]:
    """Indices of up to `wanted` windows that do not overlap and have the most interest in sum.

    starts : ascending. Weighted interval scheduling by dynamic programming: a row for each window
    considered, a column for each number of windows allowed.
    """
    table: list[list[tuple[float, list[int]]]] = [[(0.0, [])] * (wanted + 1)]
    for index, start in enumerate(starts):
        n_clear = sum(other + duration <= start + 1e-6 for other in starts[:index])
        row = [(0.0, list[int]())]
        for allowed in range(1, wanted + 1):
            total, chosen = table[n_clear][allowed - 1]
            with_this = (total + interests[index], [*chosen, index])
            without = table[-1][allowed]
            row.append(with_this if with_this[0] > without[0] else without)
        table.append(row)
    return table[-1][wanted][1]
