"""Synthetic scenes in the layout of YT-360, for those who do not own it, and for tests.

    python -m training.data.yt360_synthetic ROOT --recordings 8 --clips 2

writes 16:9 pictures that hold a full sphere, and YouTube's 5.1 AAC, as the real ones are; every
fourth recording is planar (Z silent). Beside them `train.txt`, `test.txt` (a fifth of the
recordings) and `segments.txt`. `--maps` adds `segmentation/ID-START/`, what is where four times a
second.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from model.errors import AvsaError
from model.interruption import command
from model.media.encode import write_video, write_youtube_audio
from model.output import make_folder
from training.data.scene_labels import render_classes
from training.data.scenes import Conditions, Scene, draw_scene, render_picture, render_sound
from training.data.segmentation import FOLDER, RATE_HZ, write_maps
from training.options import a_duration, even_height, none_or_more, one_or_more

_SPACING_S = 10  # between starts of clips, as published
_RATE_HZ, _SAMPLERATE = 24.0, 48_000


def identity(seed: int) -> str:
    """An ID of 11 characters, as YouTube's are."""
    return f"synth{seed:06d}"


def write_clip(scene: Scene, root: Path, name: str, *, height: int = 360) -> None:
    """Render a scene as `video/name.mp4` and `audio/name.m4a`; the picture is 16:9."""
    write_video(
        root / "video" / f"{name}.mp4",
        _squeezed(render_picture(scene, height=height, rate_hz=_RATE_HZ, colour=True).numpy()),
        rate_hz=_RATE_HZ,
        crf=26,
    )
    field = render_sound(scene, samplerate=_SAMPLERATE).numpy()
    write_youtube_audio(root / "audio" / f"{name}.m4a", field, _SAMPLERATE)


def write_clip_maps(scene: Scene, root: Path, name: str, *, height: int = 360) -> None:
    """Write what is where in a scene's picture as `segmentation/name/`, 16:9 as the picture is."""
    folder = root / FOLDER / name
    make_folder(folder)
    every = round(_RATE_HZ / RATE_HZ)
    columns = _width(height)
    kept = (np.arange(columns) * 2 + 1) * height // columns  # nearest of the 2 x height
    maps = render_classes(scene, height=height, rate_hz=_RATE_HZ, every=every)
    for number, classes in enumerate(maps):
        write_maps(folder, number, classes[:, kept])


def _width(height: int) -> int:
    """Of a 16:9 picture, even."""
    return 2 * round(height * 8 / 9)


def _squeezed(frames: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """2:1 frames [shape=(T, H, W, 3)] as 16:9 of the same height, widths even."""
    height = frames.shape[1]
    width = _width(height)
    for frame in frames:
        picture = torch.from_numpy(frame).movedim(-1, 0)[None].float()
        scaled = functional.interpolate(picture, (height, width), mode="area")
        yield scaled[0].movedim(0, -1).round().to(torch.uint8).numpy()


def write_layout(
    root: Path, *, recordings: int, clips: int, conditions: Conditions, seed: int = 0,
    height: int = 360, maps: bool = False,
) -> None:  # fmt: skip
    """Write folders and lists: clips of one recording are moments of like scenes.

    maps : write class maps too.

    `conditions.planar` is replaced: every fourth recording is planar, all others are not.
    """
    for folder in ("video", "audio"):
        make_folder(root / folder)
    starts = [clip * _SPACING_S for clip in range(clips)]
    names = [identity(seed + index) for index in range(recordings)]
    for index, name in enumerate(names):
        for start in starts:
            seed_of_clip = 1000 * (seed + index) + start
            scene = draw_scene(seed_of_clip, replace(conditions, planar=index % 4 == 3))
            write_clip(scene, root, f"{name}-{start}", height=height)
            if maps:
                write_clip_maps(scene, root, f"{name}-{start}", height=height)
    n_test = max(1, recordings // 5)
    (root / "train.txt").write_text("".join(f"{name}\n" for name in names[:-n_test]))
    (root / "test.txt").write_text("".join(f"{name}\n" for name in names[-n_test:]))
    listed = ",".join(map(str, starts))
    (root / "segments.txt").write_text("".join(f"{name} {listed}\n" for name in names))


def main(argv: Sequence[str] | None = None) -> int:
    """Write a layout."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.yt360_synthetic",
        description="Write synthetic scenes in the layout of YT-360.",
    )
    parser.add_argument("root", type=Path, help="where video/, audio/ and the lists go")
    parser.add_argument("--recordings", type=one_or_more, default=8, help="default 8")
    parser.add_argument(
        "--clips", type=one_or_more, default=2, help="of each recording (default 2)"
    )
    parser.add_argument(
        "--duration-s", type=a_duration, default=10.0, help="of each clip (default 10)"
    )
    parser.add_argument("--height", type=even_height, default=360, help="pixels (default 360)")
    parser.add_argument("--maps", action="store_true", help="write class maps too")
    parser.add_argument("--seed", type=none_or_more, default=0)
    options = parser.parse_args(argv)
    try:
        write_layout(
            options.root,
            recordings=options.recordings,
            clips=options.clips,
            conditions=replace(Conditions(), duration_s=options.duration_s),
            seed=options.seed,
            height=options.height,
            maps=options.maps,
        )
    except AvsaError as error:
        print(f"training.data.yt360_synthetic: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
