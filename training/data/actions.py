"""UCF101 and HMDB51 in the layouts and by the split files that they are published with.

UCF101:

    ROOT/ucfTrainTestlist/classInd.txt      1 ApplyEyeMakeup
    ROOT/ucfTrainTestlist/trainlist01.txt   ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1
    ROOT/ucfTrainTestlist/testlist01.txt    ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi
    ROOT/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi

HMDB51 (1: learn from it, 2: test on it, 0: neither):

    ROOT/testTrainMulti_7030_splits/brush_hair_test_split1.txt    NAME.avi 1
    ROOT/hmdb51_org/brush_hair/NAME.avi

Videos may lie in `UCF-101`, `hmdb51_org`, `data` or `videos`, or in ROOT itself, by class or flat.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.errors import MediaError

SPLITS = (1, 2, 3)
_UCF101_LISTS, _HMDB51_LISTS = "ucfTrainTestlist", "testTrainMulti_7030_splits"
_VIDEO_FOLDERS = ("UCF-101", "hmdb51_org", "data", "videos", ".")


@dataclass(frozen=True)
class ActionVideo:
    """A listed video; whether it is there and can be read is seen when it is opened."""

    path: Path
    label: int


@dataclass(frozen=True)
class ActionSplit:
    """What to learn from and what to test on; labels count `classes` from 0."""

    classes: tuple[str, ...]
    train: tuple[ActionVideo, ...]
    test: tuple[ActionVideo, ...]


def read_ucf101(root: Path, split: int) -> ActionSplit:
    """A split of UCF101, its classes in the published order.

    Raises
    ------
    MediaError : a list is missing or has a line that is not as published; or no video is there.
    """
    lists = root / _UCF101_LISTS
    numbered = [line.split() for line in _lines(lists / "classInd.txt")]
    if any(pair[:-1] != [str(n)] or len(pair) != 2 for n, pair in enumerate(numbered, start=1)):
        raise MediaError(f"{lists / 'classInd.txt'} does not count classes from 1 (`1 Archery`).")
    classes = tuple(name for _, name in numbered)
    train, test = (lists / f"{part}list{split:02d}.txt" for part in ("train", "test"))
    place = _videos(root, [line.split()[0] for line in _lines(train)])

    def listed(path: Path) -> tuple[ActionVideo, ...]:
        return tuple(_ucf101_video(path, line, classes, place) for line in _lines(path))

    return ActionSplit(classes, listed(train), listed(test))


def _ucf101_video(
    path: Path, line: str, classes: tuple[str, ...], place: Callable[[str], Path]
) -> ActionVideo:
    name, *number = line.split()
    action = name.partition("/")[0]
    label = classes.index(action) if action in classes else -1
    if label < 0 or number not in ([], [str(label + 1)]):
        raise MediaError(f"{path} has {line!r}, which is not `CLASS/VIDEO.avi NUMBER` of a class.")
    return ActionVideo(place(name), label)


def read_hmdb51(root: Path, split: int) -> ActionSplit:
    """A split of HMDB51, its classes sorted by name.

    Raises
    ------
    MediaError : there are no lists, or one has a line that is not as published; or no video is
        there.
    """
    folder = root / _HMDB51_LISTS
    lists = {
        match[1]: path
        for path in sorted(folder.glob(f"*_test_split{split}.txt"))
        if (match := re.fullmatch(r"(.+)_test_split\d\.txt", path.name))
    }
    if not lists:
        raise MediaError(f"{folder} has no CLASS_test_split{split}.txt files.")
    flags = {
        f"{action}/{name}": flag
        for action, path in lists.items()
        for name, flag in (_hmdb51_line(path, line) for line in _lines(path))
    }
    place = _videos(root, list(flags))
    classes = tuple(lists)

    def flagged(wanted: int) -> tuple[ActionVideo, ...]:
        return tuple(
            ActionVideo(place(name), classes.index(name.partition("/")[0]))
            for name, flag in flags.items()
            if flag == wanted
        )

    return ActionSplit(classes, flagged(1), flagged(2))


def _hmdb51_line(path: Path, line: str) -> tuple[str, int]:
    name, _, flag = line.rpartition(" ")
    if not name or flag not in ("0", "1", "2"):
        raise MediaError(f"{path} has {line!r}, which is not `VIDEO.avi 0`, 1 or 2.")
    return name.strip(), int(flag)


READERS = {"ucf101": read_ucf101, "hmdb51": read_hmdb51}


def _videos(root: Path, names: list[str]) -> Callable[[str], Path]:
    """Where a listed video is, found by those that are there."""
    for folder in _VIDEO_FOLDERS:
        for flat in (False, True):

            def place(name: str, folder: str = folder, flat: bool = flat) -> Path:
                return root / folder / (name.partition("/")[2] if flat else name)

            if any(place(name).exists() for name in names):
                return place
    raise MediaError(
        f"None of the {len(names)} listed videos ({names[0] if names else 'no lines'}) lies in "
        f"{root} or its folders {', '.join(_VIDEO_FOLDERS[:-1])}."
    )


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise MediaError(f"The list {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise MediaError(f"The list {path} is no text.") from error
