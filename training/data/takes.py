"""Synthetic takes as real media files, with the rotation that would set them right.

    python -m training.data.takes FOLDER --count 3

writes `take-0001.mp4` (H.264, no sound) and `take-0001.wav` (24-bit first-order AmbiX), ... and a
`manifest.jsonl` that `python -m training.evaluate yaw` reads.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.ambisonics import rotate_yaw
from model.errors import AvsaError
from model.interruption import command
from model.media.encode import write_audio, write_video
from model.output import JSON, check_output, make_folder, whole_file
from training.data.scenes import Conditions, Scene, draw_scene, render_picture, render_sound
from training.options import a_duration, even_height, none_or_more, one_or_more


@dataclass(frozen=True)
class TakeFiles:
    """A take on disk.

    Attributes
    ----------
    rotated_deg : how far the field was turned, counter-clockwise: the right correction is minus it.
    """

    video: Path
    audio: Path
    rotated_deg: float


def write_take(
    scene: Scene,
    folder: Path,
    name: str,
    *,
    rotate_deg: float = 0.0,
    height: int = 480,
    rate_hz: float = 25.0,
    samplerate: int = 48_000,
    order: int = 1,
    colour: bool = True,
    crf: int = 22,
    keyframe_s: float = 2.0,
    suffix: str = ".wav",
    subtype: str = "PCM_24",
) -> TakeFiles:
    """Render a scene to `folder/name.mp4` and `folder/name.wav`, its field turned by `rotate_deg`.

    height : of the picture, an even number; it is twice as wide.
    crf, keyframe_s : the video coder's quality and refresh.
    """
    video, audio = folder / f"{name}.mp4", folder / f"{name}{suffix}"
    frames = render_picture(scene, height=height, rate_hz=rate_hz, colour=colour).numpy()
    write_video(video, frames, rate_hz=rate_hz, crf=crf, keyframe_s=keyframe_s)
    field = render_sound(scene, samplerate=samplerate, order=order).numpy()
    write_audio(audio, rotate_yaw(field, math.radians(rotate_deg)), samplerate, subtype=subtype)
    return TakeFiles(video, audio, rotate_deg)


def main(argv: Sequence[str] | None = None) -> int:
    """Write takes and their manifest."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.takes", description="Write synthetic takes to media files."
    )
    parser.add_argument("folder", type=Path, help="where the files go; made if it is not there")
    parser.add_argument("--count", type=one_or_more, default=1, help="number of takes (default 1)")
    parser.add_argument(
        "--seed", type=none_or_more, default=0, help="of the first take (default 0)"
    )
    parser.add_argument("--duration-s", type=a_duration, default=20.0, help="of each (default 20)")
    parser.add_argument(
        "--height", type=even_height, default=480, help="pixels; width is twice (default 480)"
    )
    parser.add_argument(
        "--distractors", type=none_or_more,
        help="silent bodies in each take (default: 0 to 5 at random)",
    )  # fmt: skip
    parser.add_argument(
        "--easy", action="store_true", help="one visible source and calm bystanders, little noise"
    )
    options = parser.parse_args(argv)
    try:
        make_folder(options.folder)
        _write_takes(options)
    except AvsaError as error:
        print(f"training.data.takes: {error}", file=sys.stderr)
        return 2
    return 0


def _write_takes(options: argparse.Namespace) -> None:
    conditions = Conditions(duration_s=options.duration_s, n_distractors=options.distractors)
    if options.easy:
        conditions = Conditions(
            duration_s=options.duration_s, n_sources=1, n_distractors=2, calm=True, snr_db=25.0,
            envelope="speech", offscreen=False, shaken=False, flawless=True,
        )  # fmt: skip
    manifest = options.folder / "manifest.jsonl"
    check_output(manifest, [], begins=JSON)
    lines = []
    for index in range(options.count):
        number = options.seed + index
        rotate_deg = round(float(np.random.default_rng([number, 4]).uniform(-180, 180)), 1)
        name = f"take-{number:04d}"
        scene = draw_scene(number, conditions)
        take = write_take(scene, options.folder, name, rotate_deg=rotate_deg, height=options.height)
        line = {
            "video": take.video.name,
            "audio": take.audio.name,
            "group": name,
            "tier": "synthetic",
            "scene": f"{len(scene.sources)} sources, {len(scene.distractors)} silent bodies",
            "rotated_deg": rotate_deg,
            "rotations_deg": [0.0],
        }
        lines.append(json.dumps(line) + "\n")
        print(f"{take.video}  {take.audio}  turned by {rotate_deg:+.1f}°", file=sys.stderr)
    with whole_file(manifest) as part:
        part.write_text("".join(lines))


if __name__ == "__main__":
    sys.exit(command(main))
