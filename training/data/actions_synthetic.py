"""Synthetic actions in the layouts of UCF101 and HMDB51, for those who do not own them.

    python -m training.data.actions_synthetic ucf101 ROOT --videos 9
    python -m training.data.actions_synthetic hmdb51 ROOT --videos 9

A bright shape on a dark background does one of four things; nothing but its movement tells which,
and exchanging left and right changes none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from model.errors import AvsaError
from model.interruption import command
from model.media.encode import write_avi
from model.output import make_folder
from training.options import none_or_more, one_or_more

FloatArray = NDArray[np.float64]

ACTIONS = ("Across", "Blink", "Grow", "UpAndDown")
_RATE_HZ = 25.0
_SPLITS = 3


def draw_action(
    rng: np.random.Generator, action: str, *, duration_s: float = 2.0, size: tuple[int, int]
) -> Iterator[NDArray[np.uint8]]:
    """Frames of an action at 25 a second, each [shape=(H, W, 3)]."""
    height, width = size
    background = _texture(rng, size, rng.uniform(0.0, 0.4, 3))
    paint = _texture(rng, size, rng.uniform(0.6, 1.0, 3))
    radius = rng.uniform(0.18, 0.25) * height
    y, x = rng.uniform(0.4, 0.6, 2) * (height, width)
    per_s, phase = rng.uniform(1.5, 3.0), rng.uniform(0, 1)
    rows, columns = np.mgrid[:height, :width]
    for index in range(round(duration_s * _RATE_HZ)):
        swing = float(np.sin(2 * np.pi * (per_s * index / _RATE_HZ + phase)))
        down = 0.3 * height * swing if action == "UpAndDown" else 0.0
        right = 0.3 * height * swing if action == "Across" else 0.0
        grown = radius * (1 + 0.6 * swing) if action == "Grow" else radius
        away = np.hypot(rows - y - down, columns - x - right)
        opacity = np.clip(grown - away + 0.5, 0, 1)[..., None]
        if action == "Blink":
            opacity = opacity * (swing > 0)
        frame = background + opacity * (paint - background)
        yield (np.clip(frame, 0, 1) * 255 + 0.5).astype(np.uint8)


def _texture(rng: np.random.Generator, size: tuple[int, int], tint: FloatArray) -> FloatArray:
    """A mottled colour, [shape=(H, W, 3)], about 0 to 1."""
    mottled = gaussian_filter(rng.standard_normal(size), rng.uniform(1, 6))
    return np.asarray(tint + 0.05 * (mottled / mottled.std())[..., None])


def write_ucf101(
    root: Path, *, videos: int, actions: Sequence[str] = ACTIONS, seed: int = 0,
    size: tuple[int, int] = (120, 160),
) -> None:  # fmt: skip
    """Write `videos` of each class, one of each group; a third of the groups tests each split."""
    names = {
        (action, group): f"{action}/v_{action}_g{group:02d}_c01.avi"
        for action in actions
        for group in range(1, videos + 1)
    }
    for number, ((action, _), name) in enumerate(names.items()):
        _write(root / "UCF-101" / name, action, [seed, number], size)
    lists = root / "ucfTrainTestlist"
    lists.mkdir(exist_ok=True)
    _write_lines(lists / "classInd.txt", [f"{n} {name}" for n, name in enumerate(actions, start=1)])
    for split in range(_SPLITS):
        train = [
            f"{name} {actions.index(action) + 1}"
            for (action, group), name in names.items()
            if group % _SPLITS != split
        ]
        test = [name for (_, group), name in names.items() if group % _SPLITS == split]
        _write_lines(lists / f"trainlist{split + 1:02d}.txt", train)
        _write_lines(lists / f"testlist{split + 1:02d}.txt", test)


def write_hmdb51(
    root: Path, *, videos: int, actions: Sequence[str] = ACTIONS, seed: int = 0,
    size: tuple[int, int] = (120, 160),
) -> None:  # fmt: skip
    """Write `videos` of each class, named as oddly as the real ones; a third tests each split.

    Of every class, one video more is in no split.
    """
    lists = root / "testTrainMulti_7030_splits"
    make_folder(lists)
    for number, action in enumerate(actions):
        folder = action.lower()
        names = [f"#{n}_Made_(up)_{folder}_u_nm_np1_fr_goo_{n}.avi" for n in range(videos + 1)]
        for index, name in enumerate(names):
            place = [seed, number * len(names) + index]
            _write(root / "hmdb51_org" / folder / name, action, place, size)
        for split in range(_SPLITS):
            flags = [2 if index % _SPLITS == split else 1 for index in range(videos)] + [0]
            lines = [f"{name} {flag} " for name, flag in zip(names, flags, strict=True)]
            _write_lines(lists / f"{folder}_test_split{split + 1}.txt", lines)


def _write(path: Path, action: str, seed: Sequence[int], size: tuple[int, int]) -> None:
    make_folder(path.parent)
    write_avi(path, draw_action(np.random.default_rng(seed), action, size=size), rate_hz=_RATE_HZ)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


WRITERS = {"ucf101": write_ucf101, "hmdb51": write_hmdb51}


def main(argv: Sequence[str] | None = None) -> int:
    """Write a layout."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.actions_synthetic",
        description="Write synthetic actions in the layout of UCF101 or HMDB51.",
    )
    parser.add_argument("layout", choices=sorted(WRITERS))
    parser.add_argument("root", type=Path, help="where videos and lists go")
    parser.add_argument("--videos", type=one_or_more, default=9, help="of each class (default 9)")
    parser.add_argument("--seed", type=none_or_more, default=0)
    options = parser.parse_args(argv)
    try:
        WRITERS[options.layout](options.root, videos=options.videos, seed=options.seed)
    except AvsaError as error:
        print(f"training.data.actions_synthetic: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
