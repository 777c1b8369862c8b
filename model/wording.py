"""How results are put into words: the one place for angles, probabilities and their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from model.arcs import width_deg, wrapped_deg

INTERVAL_LEVEL = 0.9  # probability of every interval that is told
GAUSSIAN_REACH = 1.645  # standard deviations to either side that hold `INTERVAL_LEVEL`


def angle(degrees: float, digits: int = 1) -> str:
    """An angle about the vertical with its sign: "+12.3°"; the back is "+180.0°", 0 is "+0.0°"."""
    return f"{wrapped_deg(round(degrees, digits)):+z.{digits}f}°"


def span(arc: Sequence[float]) -> str:
    """An arc (low, high) by its ends: "-10.0° to +12.5°"; the whole circle from -180 to +180."""
    low, high = arc
    if width_deg((low, high)) == 360:
        return "-180.0° to +180.0°"
    return f"{angle(low)} to {angle(high)}"


def percent(probability: float) -> str:
    """A probability, rounded down: it is not told to reach what it falls short of, nor certain."""
    return f"{math.floor(100 * min(probability, 0.99) + 1e-9)} %"
