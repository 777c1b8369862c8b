"""What scenes may borrow from the real world: panoramas, recordings, measured rooms.

Every folder is optional; without any, scenes are procedural throughout.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model.errors import MediaError
from model.features import SAMPLERATE
from training.data.rerecording import ROOMS, read_mono, read_recordings, read_room

FloatArray = NDArray[np.float64]

_PICTURES = (".hdr", ".jpg", ".jpeg", ".png")
_LONGEST_PAUSE_S = 1.2


@dataclass(frozen=True)
class Materials:
    """Files to draw from; empty lists stand for none."""

    panoramas: tuple[Path, ...] = ()
    recordings: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    rooms: tuple[Path, ...] = ()

    def panorama(self, rng: np.random.Generator, height: int) -> NDArray[np.uint8]:
        """One at a size, mirrored as often as not, [shape=(H, 2 H, 3)]."""
        picture = _read_panorama(self.panoramas[rng.integers(len(self.panoramas))], height)
        return np.ascontiguousarray(picture[:, ::-1]) if rng.random() < 0.5 else picture

    def sound(self, rng: np.random.Generator, duration_s: float) -> FloatArray:
        """Recordings of one kind in a row, with pauses between, [shape=(N,)] at `SAMPLERATE`."""
        kinds = sorted(self.recordings)
        paths = self.recordings[kinds[rng.integers(len(kinds))]]
        n = round(duration_s * SAMPLERATE)
        sound = np.zeros(n)
        at = -int(rng.uniform(0, 2) * SAMPLERATE)
        pause_s = rng.uniform(0, _LONGEST_PAUSE_S)
        while at < n:
            clip = _read_recording(paths[rng.integers(len(paths))])
            begin, end = max(0, at), min(n, at + len(clip))
            if end > begin:
                sound[begin:end] += clip[begin - at : end - at] * rng.uniform(0.5, 1)
            at += len(clip) + int(rng.exponential(pause_s) * SAMPLERATE)
        return np.asarray(sound / (np.sqrt(np.mean(sound**2)) + 1e-9))

    def room(self, rng: np.random.Generator) -> FloatArray:
        """A measured response seen from a random side, [shape=(4, N)] at `SAMPLERATE`.

        Its direct sound is left out and its energy in W is that of the reverberant part alone, for
        a direct sound of energy 1.
        """
        return _read_tail(self.rooms[rng.integers(len(self.rooms))], int(rng.integers(-3, 15)))


NOTHING = Materials()


def add_materials_arguments(parser: argparse.ArgumentParser, *, sounds: bool = True) -> None:
    """The flags that name the folders; `sounds`: that of recordings too."""
    group = parser.add_argument_group("materials (without them scenes are procedural)")
    group.add_argument("--panoramas", type=Path, help="folder of 360 pictures (.hdr, .jpg, .png)")
    if sounds:
        group.add_argument(
            "--sounds", type=Path, help="folder of recordings, a subfolder for a kind"
        )
    group.add_argument("--rooms", type=Path, help=f"folder with any of {', '.join(ROOMS)}")


def read_materials(
    panoramas: Path | None = None, sounds: Path | None = None, rooms: Path | None = None
) -> Materials:
    """List the files of the folders that are given.

    Raises
    ------
    MediaError : a folder holds nothing of its kind.
    """
    pictures: tuple[Path, ...] = ()
    if panoramas is not None:
        pictures = tuple(
            path for path in sorted(panoramas.rglob("*")) if path.suffix.lower() in _PICTURES
        )
        if not pictures:
            raise MediaError(f"{panoramas} holds no pictures ({', '.join(_PICTURES)}).")
    kinds: dict[str, list[Path]] = {}
    for path in read_recordings(sounds) if sounds is not None else []:
        kinds.setdefault(_kind(path), []).append(path)
    known = [rooms / name for name in ROOMS if (rooms / name).exists()] if rooms else []
    if rooms and not known:
        raise MediaError(f"{rooms} holds none of the known rooms ({', '.join(ROOMS)}).")
    return Materials(pictures, {kind: tuple(paths) for kind, paths in kinds.items()}, tuple(known))


def _kind(path: Path) -> str:
    """Recordings that may follow each other: a folder's, of one speaker where names tell it."""
    parts = path.stem.split("_")
    speaker = parts[1] if len(parts) == 3 and parts[0].isdigit() else ""
    return f"{path.parent.name}/{speaker}"


@lru_cache(maxsize=64)
def _read_panorama(path: Path, height: int) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise MediaError(f"{path} is not a picture that can be read.")
    picture = cv2.resize(picture, (2 * height, height), interpolation=cv2.INTER_AREA)
    if picture.dtype != np.uint8:
        # Exposed so that the median is mid-grey, with a display's gamma.
        exposed = picture.astype(np.float32) * (0.2 / (np.median(picture) + 1e-6))
        picture = (255 * np.clip(exposed, 0, 1) ** (1 / 2.2) + 0.5).astype(np.uint8)
    return np.asarray(picture, dtype=np.uint8)


@lru_cache(maxsize=1024)
def _read_recording(path: Path) -> FloatArray:
    return np.asarray(read_mono(path, SAMPLERATE), dtype=np.float64)


@lru_cache(maxsize=128)
def _read_tail(path: Path, direct_to_reverberant_db: int) -> FloatArray:
    response = read_room(path, SAMPLERATE, direct_to_reverberant_db=direct_to_reverberant_db)
    n = round(0.002 * SAMPLERATE)
    tail = response / np.sqrt(np.sum(response[0, :n] ** 2))
    tail[:, :n] = 0
    return np.asarray(tail[:, : 2 * SAMPLERATE], dtype=np.float64)
