"""Windows of synthetic scenes, ready to be scored: rendered once, kept, read by training.

    python -m training.data.windows FOLDER --count 4000 --workers 2

A window is rendered at the size that features are computed at; half of the pictures and a third of
the sounds go through real coders on the way, whole frames and whole fields, so that nothing that
sounds is coded differently from what does not. Kept windows are safetensors files; a run that was
stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from model import features, precedence
from model.errors import AvsaError, MediaError, OptionError
from model.interruption import command
from model.media import VideoReader
from model.media.encode import through_vorbis, write_video
from model.options import check_device
from model.output import make_folder, whole_file
from model.scoring import Window
from training.data.bodies import BODY_KINDS
from training.data.materials import NOTHING, Materials, add_materials_arguments, read_materials
from training.data.scenes import (
    Conditions,
    Scene,
    draw_scene,
    render_picture,
    render_sound,
)
from training.data.signals import DRAWN_ENVELOPES
from training.options import a_duration, none_or_more, one_or_more
from training.processes import Processes

RATES_HZ = (10.0, 12.0, 12.5, 15.0)  # of pictures
_ASKED = "asked for"  # in a kept window's header
# Raised whenever a seed's scene comes to be another one, or windows hold something else of it:
# 2 hears bodies where they are seen, and what is heard first. Kept windows that name none are of 1.
_ENGINE = 2
_TAIL = 4096  # bytes at a window's end: scenes of one seed may differ in their contents alone
_CODED_PICTURES, _CODED_SOUNDS = 0.5, 0.33


def render_window(
    scene: Scene, materials: Materials = NOTHING, device: torch.device | str = "cpu"
) -> Window:
    """A whole scene as one window, fitting at a rotation of 0.

    device : where the picture is drawn and the features are computed.
    """
    rng = np.random.default_rng([scene.seed, 6])
    rate_hz = float(rng.choice(RATES_HZ))
    frames = render_picture(
        scene, height=features.PICTURE_SIZE[0], rate_hz=rate_hz, materials=materials, device=device
    )[..., 0]
    field = render_sound(scene, samplerate=features.SAMPLERATE, materials=materials, device=device)
    return as_window(rng, frames, field, rate_hz)


def as_window(rng: np.random.Generator, frames: Tensor, field: Tensor, rate_hz: float) -> Window:
    """A grey picture [shape=(T, H, W)] and its field at `SAMPLERATE`, perhaps through coders."""
    device, refreshed = frames.device, np.zeros(len(frames), bool)
    if rng.random() < _CODED_PICTURES:
        coded, refreshed = _picture_coded(rng, frames.cpu().numpy(), rate_hz)
        frames = torch.from_numpy(coded).to(device)
    if rng.random() < _CODED_SOUNDS:
        heard = field.cpu().numpy()
        heard = through_vorbis(heard, features.SAMPLERATE, quality=rng.uniform(0.2, 0.9))
        field = torch.from_numpy(heard).to(device)
    times_s = torch.arange(len(frames), dtype=torch.float64, device=device) / rate_hz
    motion = features.motion(frames, times_s, torch.from_numpy(refreshed).to(device))
    covariance = precedence.covariance(field, times_s)
    return Window(0.0, field.shape[1] / features.SAMPLERATE, covariance, motion)


def _picture_coded(
    rng: np.random.Generator, frames: NDArray[np.uint8], rate_hz: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Frames after H.264, and where it began afresh."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.mp4"
        write_video(
            path, frames[..., None], rate_hz=rate_hz, crf=int(rng.integers(18, 31)),
            keyframe_s=float(rng.choice([1.0, 2.0, 5.0, 10.0])), preset="ultrafast",
        )  # fmt: skip
        with VideoReader(path) as reader:
            seen = reader.read(
                0.0, len(frames) / rate_hz, size=features.PICTURE_SIZE, max_rate_hz=2 * rate_hz
            )
    return seen.frames, seen.refreshed


def save_window(path: Path, window: Window, asked: Mapping[str, Any] | None = None) -> None:
    """Keep what scoring needs of a window, and what was asked for (`check_asked`).

    Raises
    ------
    OutputError, DiskFull : it cannot be written; nothing is left behind.
    """
    motion = window.motion
    tensors = {
        "covariance": window.covariance.float(),
        "energy": motion.energy.float(),
        "maps": motion.maps.half(),
        "edges_s": motion.edges_s.float(),
        "cuts": motion.cuts,
        "pan_rad": motion.pan_rad.float(),
        "place_s": torch.tensor([window.start_s, window.duration_s]),
    }
    kept = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as part:
        part.write_bytes(save(kept, {_ASKED: json.dumps(asked)} if asked else None))


def asked_for(conditions: Conditions, materials: Materials) -> dict[str, Any]:
    """What scenes of a seed follow from."""
    return asdict(conditions) | {
        "engine": _ENGINE,
        "panoramas": len(materials.panoramas),
        "recordings": sum(map(len, materials.recordings.values())),
        "rooms": len(materials.rooms),
    }


def check_asked(path: Path, asked: Mapping[str, Any]) -> None:
    """Refuse a window that is there already as what is asked for, where it is of something else.

    Raises
    ------
    OptionError : it is. MediaError : as `load_window`.
    """
    with _named(path), safe_open(path, "pt") as file:
        kept = json.loads((file.metadata() or {}).get(_ASKED, "{}"))
    if kept:  # a window that does not say what it was made of counts as what it is called
        kept = {"engine": 1} | kept
    for name in kept.keys() & asked.keys():
        if kept[name] != asked[name]:
            raise OptionError(
                f"{path} is there already and of other scenes ({name} {kept[name]}, not "
                f"{asked[name]}): name another folder."
            )


def load_window(path: Path) -> Window:
    """Read what `save_window` wrote.

    Raises
    ------
    MediaError : it is no such file, or a damaged one.
    """
    with _named(path):
        kept = load_file(path)
        motion = features.Motion(
            kept["energy"], kept["maps"].float(), kept["edges_s"].double(), kept["cuts"],
            kept["pan_rad"],
        )  # fmt: skip
        start_s, duration_s = kept["place_s"].tolist()
        return Window(start_s, duration_s, kept["covariance"].double(), motion)


def n_intervals(path: Path) -> int:
    """Intervals of a kept window, without reading it.

    Raises
    ------
    MediaError : as `load_window`.
    """
    with _named(path), safe_open(path, "pt") as file:
        return int(file.get_slice("covariance").get_shape()[0])


def told_apart(paths: Sequence[Path]) -> str:
    """How many windows, and by what these are told from others, wherever they lie.

    Raises
    ------
    MediaError : as `load_window`.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} ".encode() + _size_and_tail(path))
    return f"{len(paths)} ({digest.hexdigest()[:8]})"


def held_by_both(some: Sequence[Path], others: Sequence[Path]) -> list[Path]:
    """Those of some windows that are among others, whatever these are called there.

    Raises
    ------
    MediaError : as `load_window`.
    """
    alike = {_size_and_tail(path): path for path in others}
    pairs = [(path, alike.get(_size_and_tail(path))) for path in some]
    return [
        path
        for path, other in pairs
        if other is not None and filecmp.cmp(path, other, shallow=False)
    ]


def _size_and_tail(path: Path) -> bytes:
    with _named(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        return f"{size} ".encode() + file.read()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Faults of a kept window as one sentence that names it."""
    try:
        yield
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise MediaError(
            f"{path} is no kept window, or a damaged one: delete it, and make it again."
        ) from error


def kept_windows(folder: Path) -> list[Path]:
    """The windows of a folder, by name.

    Raises
    ------
    MediaError : there are none, or there is no such folder.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise MediaError(f"{folder} holds no windows (python -m training.data.windows makes them).")
    return paths


def mixed_windows(folders: Sequence[Path]) -> list[Path]:
    """The windows of folders in an order of chance, always the same.

    Names tell kinds of scenes: in their order, halves would not be alike.
    """
    paths = [path for folder in folders for path in kept_windows(folder)]
    return [paths[index] for index in np.random.default_rng(0).permutation(len(paths))]


def _render_and_keep(
    seed: int, conditions: Conditions, materials: Materials, device: str, path: Path
) -> Path:
    torch.set_num_threads(1)
    asked = asked_for(conditions, materials)
    if path.exists():
        check_asked(path, asked)
    else:
        scene = draw_scene(seed, conditions, materials)
        save_window(path, render_window(scene, materials, device), asked)
    return path


def render_all(
    folder: Path,
    name: str,
    conditions: Conditions,
    seeds: Sequence[int],
    materials: Materials = NOTHING,
    *,
    workers: int = 1,
    device: str = "cpu",
) -> Iterator[Path]:
    """Windows of many seeds as `folder/NAME-SEED.safetensors`, by processes, in order.

    Raises
    ------
    OptionError : one is there already, of other conditions or materials.
    """
    make_folder(folder)
    with Processes(workers) as pool:
        futures = [
            pool.submit(
                _render_and_keep, seed, conditions, materials, device,
                folder / f"{name}-{seed:07d}.safetensors",
            )
            for seed in seeds
        ]  # fmt: skip
        for future in futures:
            yield future.result()


def main(argv: Sequence[str] | None = None) -> int:
    """Render windows for training."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.windows", description="Render windows of synthetic scenes."
    )
    parser.add_argument("folder", type=Path, help="where they are kept; made if it is not there")
    parser.add_argument("--count", type=one_or_more, default=4000, help="scenes (default 4000)")
    parser.add_argument("--seed", type=none_or_more, default=0, help="of the first (default 0)")
    parser.add_argument("--duration-s", type=a_duration, default=10.0, help="of each (default 10)")
    parser.add_argument("--body", choices=BODY_KINDS, help="of every source (default: any)")
    parser.add_argument("--plain", action="store_true", help="large, clear bodies only")
    parser.add_argument(
        "--ensemble", action="store_true", help="4 to 8 sources side by side, as in an orchestra"
    )
    parser.add_argument(
        "--sources", type=one_or_more, metavar="N", help="in the picture (default: 1 to 3)"
    )
    parser.add_argument(
        "--silent-bodies", type=none_or_more, metavar="N", help="in each (default: 0 to 5)"
    )
    parser.add_argument(
        "--envelope", choices=DRAWN_ENVELOPES, help="of every source (default: any)"
    )
    parser.add_argument("--workers", type=one_or_more, default=1, help="processes (default 1)")
    parser.add_argument(
        "--device", default="cpu", help="draws pictures and computes features (default cpu)"
    )
    add_materials_arguments(parser)
    options = parser.parse_args(argv)
    seeds = range(options.seed, options.seed + options.count)
    conditions = Conditions(
        duration_s=options.duration_s, body=options.body, plain=options.plain,
        n_sources=options.sources, n_distractors=options.silent_bodies, envelope=options.envelope,
        ensemble=options.ensemble,
    )  # fmt: skip
    kinds = {"plain": options.plain, "ensemble": options.ensemble}
    name = options.body or next((kind for kind, asked in kinds.items() if asked), "scene")
    try:
        check_device(options.device)
        materials = read_materials(options.panoramas, options.sounds, options.rooms)
        rendered = render_all(
            options.folder, name, conditions, seeds, materials, workers=options.workers,
            device=options.device,
        )  # fmt: skip
        for _ in tqdm(rendered, total=len(seeds), unit="scene", desc="rendering"):
            pass
    except AvsaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
