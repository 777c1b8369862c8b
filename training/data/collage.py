"""Collages: any folder of ordinary videos with sound as 360 material for training.

    python -m training.data.collage CLIPS OUTPUT --count 2000 --workers 2

Excerpts of several videos are put on a 360 background, each as a flat picture that touches the
sphere at a random direction and size. One or two of them sound: their sound, mixed to one channel,
comes from there. The others are mute, as distractors. All are drawn, read, scaled and coded in the
same way, and which of them sound is drawn last, so nothing but the sound itself tells.

A studio adapts the scorer to its own footage so. Collages are kept as windows that
`python -m training.pretrain` reads; a run that was stopped goes on where it was, and a file that
cannot be used is left out and named.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from tqdm import tqdm

from model import features
from model.errors import AvsaError, InputError, OptionError, UnusableContent
from model.interruption import command
from model.output import make_folder
from model.scoring import Window
from model.sphere import column_azimuths, row_elevations, tangent_coordinates
from training.data.canvas import blank, disturb, draw_surroundings, shake
from training.data.materials import NOTHING, Materials, add_materials_arguments, read_materials
from training.data.ordinary import Clip, examine_clip, list_videos, read_picture, read_sound
from training.data.scenes import Conditions, draw_room
from training.data.soundfield import diffuse_noise, place, recorded
from training.data.windows import RATES_HZ, as_window, asked_for, check_asked, save_window
from training.options import a_duration, none_or_more, one_or_more
from training.processes import Processes

FloatArray = NDArray[np.float64]

_PATCH_CHANCES = (0.2, 0.3, 0.25, 0.15, 0.1)  # of 1 to 5 in a collage
_SECOND_SOUNDS = 0.2
_SIZES_DEG = (14.0, 55.0)  # of a patch's longer side
_LEAST_S = 2.0  # of a window that training may cut from
_SHRINK = 0.97  # of all patches, each time that they do not fit beside each other


@dataclass(frozen=True)
class Patch:
    """An excerpt of a video and where it is put.

    Attributes
    ----------
    start_s : of the excerpt, in the clip's time.
    azimuth_rad, elevation_rad : of its centre.
    half_size : half its width and height on the tangent plane, at distance 1.
    edge : width of its soft border, as a share of the smaller half.
    level_db : of its sound.
    sounds : whether it is heard.
    """

    clip: Clip
    start_s: float
    azimuth_rad: float
    elevation_rad: float
    half_size: tuple[float, float]
    edge: float
    level_db: float
    sounds: bool

    @property
    def radius_rad(self) -> float:
        """From its centre to its corners."""
        return math.atan(math.hypot(*self.half_size))


@dataclass(frozen=True)
class Collage:
    """A collage before it is rendered; `seed` makes the rest of its randomness repeatable."""

    seed: int
    duration_s: float
    rate_hz: float
    patches: tuple[Patch, ...]
    snr_db: float
    shake_rad: float
    flicker: float
    noise: float

    @property
    def times_s(self) -> FloatArray:
        """Of the frames."""
        return np.arange(round(self.duration_s * self.rate_hz)) / self.rate_hz


@dataclass(frozen=True)
class Excerpt:
    """What was read for a patch: grey frames [shape=(T, h, w)], and sound if it is heard."""

    frames: NDArray[np.uint8]
    sound: FloatArray | None


def draw_collage(seed: int, clips: Sequence[Clip], duration_s: float) -> Collage:
    """The collage of a seed and a list of clips, each of which is in it once at most."""
    rng = np.random.default_rng([seed, 7])
    n = min(len(clips), 1 + int(rng.choice(len(_PATCH_CHANCES), p=_PATCH_CHANCES)))
    chosen = [clips[index] for index in rng.choice(len(clips), n, replace=False)]
    places = _lay_out(rng, [clip.aspect for clip in chosen])
    starts = [float(rng.choice(clip.starts_s)) for clip in chosen]
    edges, levels = rng.uniform(0.02, 0.25, n), rng.uniform(-6, 6, n)
    n_sounding = 2 if n > 1 and rng.random() < _SECOND_SOUNDS else 1
    sounding = rng.choice(n, n_sounding, replace=False)
    shaken = rng.random() < 0.2
    return Collage(
        seed=seed,
        duration_s=duration_s,
        rate_hz=float(rng.choice(RATES_HZ)),
        patches=tuple(
            Patch(
                clip, starts[i], *places[i], edge=float(edges[i]), level_db=float(levels[i]),
                sounds=i in sounding,
            )
            for i, clip in enumerate(chosen)
        ),
        snr_db=rng.uniform(-5, 30),
        shake_rad=rng.uniform(0.001, 0.012) if shaken else 0.0,
        flicker=rng.uniform(0, 0.02),
        noise=rng.uniform(0.3, 4),
    )  # fmt: skip


def _lay_out(
    rng: np.random.Generator, aspects: Sequence[float]
) -> list[tuple[float, float, tuple[float, float]]]:
    """Azimuth, elevation and half size of patches of these shapes that do not touch.

    All are drawn anew until they fit: so size and place of each have the same distribution.
    """
    n, scale = len(aspects), 1.0
    smallest, largest = _SIZES_DEG
    while True:
        longer = np.deg2rad(np.exp(rng.uniform(math.log(smallest), math.log(largest), n))) * scale
        azimuth = rng.uniform(-np.pi, np.pi, n)
        elevation = np.clip(rng.normal(-0.08, 0.18, n), -0.6, 0.6)
        half = np.tan(longer / 2)[:, None] * [
            (min(1.0, aspect), min(1.0, 1 / aspect)) for aspect in aspects
        ]
        radius = np.arctan(np.hypot(half[:, 0], half[:, 1]))
        flat = np.cos(elevation)
        centre = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
        apart = np.arccos(np.clip(centre.T @ centre, -1, 1)) + np.pi * np.eye(n)
        if np.all(apart > radius[:, None] + radius):
            return [
                (float(azimuth[i]), float(elevation[i]), (float(half[i, 0]), float(half[i, 1])))
                for i in range(n)
            ]
        scale *= _SHRINK


def read_excerpt(collage: Collage, patch: Patch, height: int) -> Excerpt:
    """Read what a patch shows, at about the resolution of a 360 picture of that height.

    Raises
    ------
    InputError : the clip cannot be read there.
    """
    pixels = height / math.pi
    columns, rows = (max(4, round(2 * half * pixels)) for half in patch.half_size)
    frames = read_picture(patch.clip, patch.start_s, collage.times_s, (rows, columns))
    heard = read_sound(patch.clip, patch.start_s, collage.duration_s) if patch.sounds else None
    return Excerpt(frames, heard)


def render_picture(
    collage: Collage,
    excerpts: Sequence[Excerpt],
    *,
    height: int,
    materials: Materials = NOTHING,
) -> NDArray[np.uint8]:
    """The grey picture, [shape=(T, H, 2 H, 1)], uint8; an excerpt for each patch."""
    rng = np.random.default_rng([collage.seed, 8])
    background = draw_surroundings(rng, height, materials).mean(-1, keepdim=True)
    canvas = blank(background, collage.times_s)
    for patch, excerpt in zip(collage.patches, excerpts, strict=True):
        _paste(canvas.frames[..., 0].numpy(), patch, excerpt.frames)
    if collage.shake_rad:
        shake(rng, canvas, collage.shake_rad)
    disturb(rng, canvas, flicker=collage.flicker, noise=collage.noise)
    return canvas.frames.numpy()


def _paste(frames: NDArray[np.uint8], patch: Patch, picture: NDArray[np.uint8]) -> None:
    """Put a flat picture [shape=(T, h, w)] on spherical frames [shape=(T, H, W)], in place."""
    height, width = frames.shape[1:]
    left, up = tangent_coordinates(
        column_azimuths(width), row_elevations(height)[:, None],
        centre_azimuth_rad=patch.azimuth_rad, centre_elevation_rad=patch.elevation_rad,
    )  # fmt: skip
    half_width, half_height = patch.half_size
    inside = np.minimum(half_width - np.abs(left), half_height - np.abs(up))
    rows, columns = np.nonzero(inside > 0)
    grid = np.stack([-left[rows, columns] / half_width, -up[rows, columns] / half_height], -1)
    pasted = functional.grid_sample(
        torch.from_numpy(picture).float()[:, None],
        torch.from_numpy(grid).float()[None, None].expand(len(picture), -1, -1, -1),
        mode="bilinear", padding_mode="border", align_corners=False,
    )[:, 0, 0].numpy()  # fmt: skip
    opacity = np.clip(inside[rows, columns] / (patch.edge * min(patch.half_size)), 0, 1)
    behind = frames[:, rows, columns]
    frames[:, rows, columns] = (behind + opacity * (pasted - behind) + 0.5).astype(np.uint8)


def render_sound(
    collage: Collage, excerpts: Sequence[Excerpt], *, materials: Materials = NOTHING
) -> FloatArray:
    """The first-order field at the analysis rate, ACN/SN3D [shape=(4, N)], peak 0.5."""
    rng = np.random.default_rng([collage.seed, 9])
    room = draw_room(rng, features.SAMPLERATE, materials)
    n = round(collage.duration_s * features.SAMPLERATE)
    field = torch.zeros(4, n, dtype=torch.float64)
    for patch, excerpt in zip(collage.patches, excerpts, strict=True):
        if excerpt.sound is not None:
            azimuth, elevation = (np.full(2, a) for a in (patch.azimuth_rad, patch.elevation_rad))
            sound = torch.from_numpy(excerpt.sound).double() * 10 ** (patch.level_db / 20)
            field += place(sound, azimuth, elevation, features.SAMPLERATE, 1, room)
    noise = diffuse_noise(rng, n, 1) * 10 ** (-collage.snr_db / 20)
    field += noise * field[0].square().mean().sqrt()
    return recorded(rng, field, features.SAMPLERATE).numpy()


def render_collage(
    seed: int, clips: Sequence[Clip], duration_s: float, materials: Materials = NOTHING
) -> tuple[Window, dict[Path, str]]:
    """The window of a seed, fitting at a rotation of 0; and why clips could not be read.

    Where a clip is broken the collage is drawn anew without it.

    Raises
    ------
    UnusableContent : no clip is left.
    """
    height = features.PICTURE_SIZE[0]
    faults: dict[Path, str] = {}
    while usable := [clip for clip in clips if clip.path not in faults]:
        collage = draw_collage(seed, usable, duration_s)
        excerpts = []
        for patch in collage.patches:
            try:
                excerpts.append(read_excerpt(collage, patch, height))
            except InputError as error:
                faults[patch.clip.path] = str(error)
        if len(excerpts) == len(collage.patches):
            frames = render_picture(collage, excerpts, height=height, materials=materials)
            field = render_sound(collage, excerpts, materials=materials)
            rng = np.random.default_rng([seed, 6])
            return as_window(
                rng, torch.from_numpy(frames[..., 0]), torch.from_numpy(field), collage.rate_hz
            ), faults
    raise UnusableContent(
        f"None of the {len(clips)} clips can be read where it is needed; the last says: "
        f"{list(faults.values())[-1]}"
    )


def _render_and_keep(
    seed: int, clips: Sequence[Clip], duration_s: float, materials: Materials, path: Path
) -> dict[Path, str]:
    torch.set_num_threads(1)
    asked = asked_for(Conditions(duration_s=duration_s), materials)
    if path.exists():
        check_asked(path, asked)
        return {}
    window, faults = render_collage(seed, clips, duration_s, materials)
    save_window(path, window, asked)
    return faults


def render_collages(
    output: Path,
    clips: Sequence[Clip],
    seeds: Sequence[int],
    duration_s: float,
    materials: Materials = NOTHING,
    *,
    workers: int = 1,
) -> Iterator[dict[Path, str]]:
    """Keep a window for each seed as `output/collage-SEED.safetensors`, by processes, in order.

    Those that are there already are left as they are. Gives what clips could not be read, and why.

    Raises
    ------
    OptionError : one is there already, of another length or other materials.
    """
    make_folder(output)
    paths = [output / f"collage-{seed:07d}.safetensors" for seed in seeds]
    with Processes(workers) as pool:
        futures = [
            pool.submit(_render_and_keep, seed, clips, duration_s, materials, path)
            for seed, path in zip(seeds, paths, strict=True)
        ]
        for future in futures:
            yield future.result()


def _examined(path: Path, duration_s: float) -> Clip | str:
    try:
        return examine_clip(path, duration_s)
    except InputError as error:
        return str(error)


def find_clips(
    folder: Path, duration_s: float, *, workers: int = 1
) -> tuple[list[Clip], dict[Path, str]]:
    """The videos below a folder that can be used, and why the others cannot.

    Raises
    ------
    MediaError, UnusableContent : there are none.
    """
    paths = list_videos(folder)
    with Processes(workers) as pool:
        found = pool.map(_examined, paths, [duration_s] * len(paths))
        examined = list(tqdm(found, total=len(paths), unit="clip", desc="listening"))
    clips = [clip for clip in examined if isinstance(clip, Clip)]
    reasons = zip(paths, examined, strict=True)
    faults = {path: reason for path, reason in reasons if isinstance(reason, str)}
    if not clips:
        raise UnusableContent(
            f"None of the {len(paths)} videos in {folder} can be used; the first says: "
            f"{next(iter(faults.values()))}"
        )
    return clips, faults


def main(argv: Sequence[str] | None = None) -> int:
    """Make collages for training."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.collage",
        description="Make windows for training from ordinary videos with sound.",
    )
    parser.add_argument("clips", type=Path, help="folder of videos, read with its subfolders")
    parser.add_argument("output", type=Path, help="where windows go; made if it is not there")
    parser.add_argument("--count", type=one_or_more, default=2000, help="collages (default 2000)")
    parser.add_argument("--seed", type=none_or_more, default=0, help="of the first (default 0)")
    parser.add_argument("--duration-s", type=a_duration, default=6.0, help="of each (default 6)")
    parser.add_argument("--workers", type=one_or_more, default=1, help="processes (default 1)")
    add_materials_arguments(parser, sounds=False)
    options = parser.parse_args(argv)
    seeds = range(options.seed, options.seed + options.count)
    try:
        if options.duration_s < _LEAST_S:
            raise OptionError(
                f"--duration-s {options.duration_s:g} is too short: training needs windows of "
                f"{_LEAST_S:g} s or more."
            )
        materials = read_materials(options.panoramas, None, options.rooms)
        clips, faults = find_clips(options.clips, options.duration_s, workers=options.workers)
        rendered = render_collages(
            options.output, clips, seeds, options.duration_s, materials, workers=options.workers
        )
        for found in tqdm(rendered, total=len(seeds), unit="collage", desc="rendering"):
            faults |= found
    except (AvsaError, ValueError) as error:
        print(f"training.data.collage: {error}", file=sys.stderr)
        return 2
    if faults:
        print(f"{len(faults)} videos were left out at least once:", file=sys.stderr)
    for reason in faults.values():
        print(f"  {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
