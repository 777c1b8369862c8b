"""Objects found by any detector, through a file: where what may sound is seen, moving or not.

One JSON object a line:

    {"clip": "kqAZkf5Odyw-80", "time_s": 1.5, "box": [0.2, 0.4, 0.3, 0.6], "score": 0.9}

`clip` names the video without its suffix (left out: any); `box` is left, top, right, bottom in
shares of the equirectangular frame (of one eye's) as it is stored, and right above 1 crosses its
seam; `score` (default 1) is how sure the detector is. What is worth a box is for who runs the
detector to say: people, instruments and vehicles, not chairs.

The cue `OBJECTS` is evidence of the yaw beside the others: objects are where it sounds. It sees
what stands still and still sounds, which motion cannot.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model import features
from model.checkpoint import OBJECTS
from model.errors import MediaError, OptionError
from model.evidence import N_YAWS, acoustic_maps, co_location
from model.scoring import Evidence, Window

ANY = ""  # the clip of boxes that name none
_COMPRESSION = 0.5  # of the sound: faint sounds count, not in full


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
    """Objects by clip; those of no clip by `ANY`.

    Raises
    ------
    MediaError : the file cannot be read, or a line is no such object; it is named.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except OSError as error:
        raise MediaError(f"The detections {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise MediaError(f"The detections {path} are no text: one JSON object a line.") from error
    found: dict[str, list[Detection]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            detection = _detection(fields)
            found[str(fields.get("clip", ANY))].append(detection)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise MediaError(f"Line {number} of {path} is not a detection: {error!r}.") from error
    return dict(found)


def _detection(fields: dict[str, object]) -> Detection:
    left, top, right, bottom = (float(edge) for edge in fields["box"])  # type: ignore[attr-defined]
    if not (0 <= left < right <= left + 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"box {fields['box']} is not left < right, top < bottom within the frame")
    time_s, score = float(str(fields["time_s"])), float(str(fields.get("score", 1.0)))
    if not (math.isfinite(time_s) and math.isfinite(score) and score >= 0):
        raise ValueError(f"time {time_s} s and score {score} are not numbers, the score from 0 up")
    elevation = math.pi * (0.5 - (top + bottom) / 2)
    return Detection(
        time_s=time_s,
        azimuth_rad=math.pi * (1 - (left + right)),
        elevation_rad=elevation,
        width_rad=(right - left) * math.tau * math.cos(elevation),
        height_rad=(bottom - top) * math.pi,
        score=score,
    )


def own_of(found: Mapping[str, list[Detection]], clip: str) -> list[Detection]:
    """Objects of a clip, and those of no clip, of what `read_detections` gives."""
    return [*found.get(clip, []), *found.get(ANY, [])]


def detections_of(path: Path, clip: str) -> list[Detection]:
    """What a file says of a video, by the name of its clip.

    Raises
    ------
    MediaError : see `read_detections`.
    OptionError : it says nothing of this video.
    """
    own = own_of(read_detections(path), clip)
    if not own:
        raise OptionError(
            f'The detections {path} hold no box of the clip {clip}: their "clip" should be that, '
            "or be left out."
        )
    return own


def object_map(detections: Sequence[Detection]) -> Tensor:
    """Where objects are by azimuth, in picture order, [shape=(A,)]: bells as wide as the boxes."""
    azimuths = features.azimuths(N_YAWS)
    bells = torch.zeros(N_YAWS, dtype=torch.float64)
    for detection in detections:
        # Half its width is two deviations; a bin is the least.
        spread = max(detection.width_rad / 4, math.tau / N_YAWS)
        away = torch.remainder(azimuths - detection.azimuth_rad + math.pi, math.tau) - math.pi
        bells += detection.score * (-0.5 * (away / spread) ** 2).exp()
    return bells


class ObjectScorer:
    """Detections of a take as a scorer."""

    def __init__(self, detections: Sequence[Detection]) -> None:
        self._detections = detections

    def __call__(self, window: Window) -> Evidence:
        """The cue `OBJECTS`: correlation of objects and sound over azimuth; 0 without objects."""
        end_s = window.start_s + window.duration_s
        seen = [d for d in self._detections if window.start_s <= d.time_s < end_s]
        if not seen:
            return Evidence({OBJECTS: torch.zeros(N_YAWS, dtype=torch.float64)})
        # Nowhere or everywhere alike: the correlation is 0 then, too.
        objects = object_map(seen)[None]
        maps = acoustic_maps(window.covariance.cpu().double())
        cues = [co_location(objects, sound**_COMPRESSION, 1.0) for sound in maps.values()]
        return Evidence({OBJECTS: torch.stack(cues).mean(0)})
