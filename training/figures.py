"""Figures as JSON, for other programs: whole or not at all, and by the letter of the format."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.output import whole_file


def as_json(value: Any, *, indent: int | None = None) -> str:
    """What has no value, or no finite one, is null: JSON knows neither NaN nor infinity."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write_report(path: Path, figures: Any) -> None:
    """Write figures as a file of JSON.

    Raises
    ------
    OutputError, DiskFull : it cannot be written; nothing is left behind.
    """
    with whole_file(path) as part:
        part.write_text(as_json(figures, indent=1) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(each) for each in value]
    return value
