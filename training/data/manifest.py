"""Manifests: takes with known answers, one JSON object a line.

    {"video": "a.mp4", "audio": "a.wav", "group": "lake", "tier": "strong", "scene": "...",
     "rotations_deg": [0.0, 90.0], "rotated_deg": 0.0}

`video` and `audio` are relative to the manifest. The track fits its picture after a rotation by
minus `rotated_deg` (default 0). `rotations_deg` are field rotations to apply before asking (default
[0]). `group` names takes of one place, which are counted once when averaging; `tier` is how much
there is to see: in "weak" ones nothing visible sounds, and the right verdict is undecidable.

A take is called by its track's name without the suffix; by its path as the manifest has it, where
several are called alike; with a number behind it, where several lines name one track.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.errors import MediaError

WEAK = "weak"


@dataclass(frozen=True)
class KnownTake:
    """A line of a manifest, with absolute paths.

    name : for tables; no other take of the manifest has it.
    """

    name: str
    video: Path
    audio: Path
    group: str
    tier: str
    scene: str
    rotated_deg: float
    rotations_deg: tuple[float, ...]


def read_manifest(path: Path) -> list[KnownTake]:
    """The takes of a manifest.

    Raises
    ------
    MediaError : missing, empty, or a line that is not such an object; the line is named.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise MediaError(f"The manifest {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise MediaError(
            f"The manifest {path} is no text; it has to be lines of JSON, a take each."
        ) from error
    takes = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            rotated_deg = float(fields.get("rotated_deg", 0.0))
            asked_deg = fields.get("rotations_deg", [0.0])
            rotations_deg = tuple(map(float, asked_deg if isinstance(asked_deg, list) else []))
            if not (rotations_deg and all(map(math.isfinite, (rotated_deg, *rotations_deg)))):
                raise ValueError("its rotations are none, or no angles")
            audio, video = _text(fields, "audio"), _text(fields, "video")
            takes.append(
                KnownTake(
                    name=str(Path(audio)),
                    video=path.parent / video,
                    audio=path.parent / audio,
                    group=_text(fields, "group", audio),
                    tier=_text(fields, "tier", "all"),
                    scene=_text(fields, "scene", ""),
                    rotated_deg=rotated_deg,
                    rotations_deg=rotations_deg,
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MediaError(f"Line {number} of {path} is not a take: {error!r}.") from error
    if not takes:
        raise MediaError(f"The manifest {path} names no takes.")
    names = _distinct([take.name for take in takes])
    return [replace(take, name=name) for take, name in zip(takes, names, strict=True)]


def _text(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    text = fields[name] if default is None else fields.get(name, default)
    if not isinstance(text, str):
        raise ValueError(f"its {name} is {text!r}, and no text")
    return text


def _distinct(tracks: Sequence[str]) -> list[str]:
    """A name for each track, no two alike: as short as may be."""
    stems = Counter(Path(track).stem for track in tracks)
    names: dict[str, None] = {}
    for track in tracks:
        stem = Path(track).stem
        plain = name = stem if stems[stem] == 1 else track
        number = 1
        while name in names:
            number += 1
            name = f"{plain} ({number})"
        names[name] = None
    return list(names)
