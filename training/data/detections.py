"""Objects found by any detector, through a file: what guided crops look at.

One JSON object a line:

    {"clip": "kqAZkf5Odyw-80", "time_s": 1.5, "box": [0.2, 0.4, 0.3, 0.6], "score": 0.9}

`clip` names the video without its suffix; `box` is left, top, right, bottom in shares of the
equirectangular frame, and right above 1 crosses its seam; `score` (default 1) is how sure it is.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import MediaError
from training.data.crops import FloatArray, angle_between, cell_centres


@dataclass(frozen=True)
class Detection:
    """An object: its place on the sphere and its size."""

    time_s: float
    azimuth_rad: float
    elevation_rad: float
    width_rad: float
    height_rad: float
    score: float


def read_detections(path: Path) -> dict[str, list[Detection]]:
    """Objects by clip.

    Raises
    ------
    MediaError : the file cannot be read, or a line is no such object; it is named.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise MediaError(f"The detections {path} cannot be read: {error.strerror}.") from error
    found: dict[str, list[Detection]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            detection = _detection(fields)
            found[str(fields["clip"])].append(detection)
        except (ValueError, KeyError, TypeError) as error:
            raise MediaError(f"Line {number} of {path} is not a detection: {error!r}.") from error
    return dict(found)


def _detection(fields: dict[str, object]) -> Detection:
    left, top, right, bottom = (float(edge) for edge in fields["box"])  # type: ignore[attr-defined]
    if not (0 <= left < right <= left + 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"box {fields['box']} is not left < right, top < bottom within the frame")
    elevation = math.pi * (0.5 - (top + bottom) / 2)
    return Detection(
        time_s=float(str(fields["time_s"])),
        azimuth_rad=math.pi * (1 - (left + right)),
        elevation_rad=elevation,
        width_rad=(right - left) * math.tau * math.cos(elevation),
        height_rad=(bottom - top) * math.pi,
        score=float(str(fields.get("score", 1.0))),
    )


def object_interest(
    detections: Iterable[Detection], start_s: float, duration_s: float
) -> FloatArray:
    """Where objects are in a stretch of time: each a bell as wide as itself, by its score.

    Returns [shape=(N_ELEVATIONS, A)], zeros if there are none.
    """
    elevations, azimuths = cell_centres()
    centres = np.stack(np.meshgrid(azimuths, elevations), axis=-1)
    interest = np.zeros(centres.shape[:2])
    for detection in detections:
        if start_s <= detection.time_s < start_s + duration_s:
            place = np.array([detection.azimuth_rad, detection.elevation_rad])
            # Half its size is two deviations; a cell is the least.
            spread = max(detection.width_rad, detection.height_rad) / 4
            spread = max(spread, math.tau / len(azimuths))
            distance = angle_between(centres, place) / spread
            interest += detection.score * np.exp(-0.5 * distance**2)
    return interest
