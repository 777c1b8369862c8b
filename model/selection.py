"""Which windows of a take are judged."""

from __future__ import annotations

from collections.abc import Sequence


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
