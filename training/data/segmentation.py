"""Class maps of YT-360's pictures, in the layout of those that were published for it.

    ROOT/segmentation/ID-START/things-%04d.png     0 to 79: COCO's things; 80: none
    ROOT/segmentation/ID-START/stuff-%04d.png      1 to 53: COCO's stuff; 0: a thing; 54: unsure

four a second, equirectangular, the class in the first channel. They are predictions of a panoptic
network, and unsure ones were dropped. Things hide stuff; 32 classes are kept, and all else is
`IGNORED`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.errors import MediaError, UnusableContent

LabelMap = NDArray[np.uint8]

FOLDER = "segmentation"
RATE_HZ = 4.0
IGNORED = 255
NO_THING, NO_STUFF = 80, 54
# The kept classes, in the order of their labels, with their index: things, then 80 + stuff.
CLASSES = {
    "person": 0, "car": 2, "airplane": 4, "boat": 8, "motorcycle": 3, "train": 6, "tv": 62,
    "chair": 56, "dining table": 60, "cake": 55, "bed": 59, "umbrella": 25, "bus": 5, "truck": 7,
    "potted plant": 58, "keyboard": 66, "sky": 120, "wall": 132, "tree": 117, "ceiling": 119,
    "building": 130, "floor": 123, "grass": 126, "road": 101, "mountain": 125, "pavement": 124,
    "snow": 106, "dirt": 127, "rock": 131, "sea": 104, "sand": 103, "window": 116,
}  # fmt: skip
_LABELS = np.full(256, IGNORED, dtype=np.uint8)
_LABELS[list(CLASSES.values())] = np.arange(len(CLASSES))


def has_maps(folder: Path) -> bool:
    """Whether a clip's folder holds any."""
    return next(folder.glob("things-*.png"), None) is not None


def map_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """Where things and stuff of a number are, or go."""
    return folder / f"things-{number:04d}.png", folder / f"stuff-{number:04d}.png"


def read_labels(folder: Path, end_s: float) -> LabelMap:
    """Labels of a stretch of picture that ends at a time: 0 to 31, or `IGNORED`, [shape=(H, W)].

    As published, they are of the last map before its end; and of an earlier one where that is
    missing.

    Raises
    ------
    UnusableContent : there is none. MediaError : a map cannot be read, or is not one.
    """
    for number in range(math.floor(end_s * RATE_HZ), -1, -1):
        things_path, stuff_path = map_paths(folder, number)
        if things_path.exists() and stuff_path.exists():
            things = _read(things_path, NO_THING)
            stuff = _read(stuff_path, NO_STUFF)
            if things.shape != stuff.shape:
                raise MediaError(f"{things_path} is of another size than {stuff_path.name}.")
            return _LABELS[np.where(things == NO_THING, NO_THING + stuff, things)]
    raise UnusableContent(f"{folder} has no class maps up to {end_s:.2f} s.")


def _read(path: Path, highest: int) -> LabelMap:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except (OSError, UnidentifiedImageError) as error:
        raise MediaError(f"{path} cannot be read as a PNG picture: {error}.") from error
    classes = pixels[..., 0] if pixels.ndim == 3 else pixels
    if classes.dtype != np.uint8 or classes.max() > highest:
        raise MediaError(
            f"{path} is no map of classes 0 to {highest}: it has {classes.max()} ({classes.dtype})."
        )
    return classes


def write_maps(folder: Path, number: int, classes: LabelMap) -> None:
    """Write a map of things and 80 + stuff, [shape=(H, W)], as the two that `read_labels` reads."""
    is_thing = classes < NO_THING
    things_path, stuff_path = map_paths(folder, number)
    Image.fromarray(np.where(is_thing, classes, np.uint8(NO_THING))).save(things_path)
    stuff = np.where(is_thing, np.uint8(0), classes - np.uint8(NO_THING))
    Image.fromarray(stuff).save(stuff_path)
