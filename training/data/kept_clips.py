"""Synthetic scenes rendered once, small, and kept in two files that are mapped, not read.

    NAME.frames.npy   RGB, uint8 [shape=(S, T, H, 2 H, 3)]
    NAME.fields.npy   W, Y, Z, X at `features.SAMPLERATE`, float32 [shape=(S, 4, N)]

Crops of such scenes cost no decoding, so that many short trainings can be compared on few cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from model.features import HOP, SAMPLERATE
from model.networks.avsa import AvsaConfig
from model.output import make_folder
from model.viewpoints import SoundInput
from training.data.clips import Clip
from training.data.crops import FloatArray
from training.data.picture import Patch
from training.data.scenes import (
    Conditions,
    Scene,
    Source,
    draw_scene,
    render_picture,
    render_sound,
)  # fmt: skip
from training.processes import Processes

# Of a plain patch's texture, in cells: a few degrees, so that it is not lost in small crops.
_PLAIN_CELLS = 4.0
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Stage:
    """What scenes are drawn and how they are kept.

    Attributes
    ----------
    least_radius_rad : scenes whose smallest sounding body is smaller are passed over.
    plain : whether the texture of patches that sound stands out as much as they are loud, at once.
    height, rate_hz : of the picture.
    """

    conditions: Conditions
    least_radius_rad: float = 0.0
    plain: bool = False
    height: int = 96
    rate_hz: float = 16.0

    def scenes(self, count: int, seed: int) -> list[Scene]:
        """The first scenes from a seed on that are large enough."""
        chosen: list[Scene] = []
        while len(chosen) < count:
            scene = draw_scene(seed, self.conditions)
            bodies = [source.body for source in scene.sources if source.body is not None]
            if all(body.radius >= self.least_radius_rad for body in bodies):
                chosen.append(_plain(scene) if self.plain else scene)
            seed += 1
        return chosen


def _plain(scene: Scene) -> Scene:
    """The scene with patches that show their sound."""
    return replace(scene, sources=tuple(map(_plain_source, scene.sources)))


def _plain_source(source: Source) -> Source:
    body = source.body
    if not isinstance(body, Patch):
        return source
    coarse = gaussian_filter(body.pattern, _PLAIN_CELLS, mode="wrap")
    body = replace(
        body, drive=source.envelope.level, contrast=0.5, shows=1.0, pattern=coarse / coarse.std()
    )
    return replace(source, body=body)


class KeptClips:
    """Clips in memory; a `training.data.clips.ClipMedia`.

    The number of a scene is its clip's name; every scene is a recording of its own.
    """

    def __init__(self, path: Path, stage: Stage) -> None:
        self._frames: NDArray[np.uint8] = np.load(_frames(path), mmap_mode="r")
        self._fields: NDArray[np.float32] = np.load(_fields(path), mmap_mode="r")
        self._covariance: dict[str, NDArray[np.float32]] = {}
        self._path, self._rate_hz = path, stage.rate_hz
        self.clips = [
            Clip(f"{index:05d}", f"{index:05d}", path, path, stage.conditions.duration_s,
                 (0, 1, 2, 3))
            for index in range(len(self._frames))
        ]  # fmt: skip

    def picture(
        self, clip: Clip, start_s: float, length_s: float, size: tuple[int, int], *, colour: bool
    ) -> tuple[NDArray[np.uint8], FloatArray]:
        """See `ClipMedia`; other sizes than that of the rendering are scaled."""
        kept = self._frames[int(clip.name)]
        times_s = np.arange(len(kept)) / self._rate_hz
        inside = (times_s >= start_s - 0.5 / self._rate_hz) & (times_s < start_s + length_s)
        frames = kept[inside]
        if not colour:
            frames = np.rint(frames @ _LUMA).astype(np.uint8)
        if frames.shape[1:3] != size:
            planes = torch.from_numpy(frames.reshape(*frames.shape[:3], -1)).movedim(-1, 1)
            scaled = functional.interpolate(planes.float(), size, mode="bilinear", antialias=True)
            frames = scaled.movedim(1, -1).round().to(torch.uint8).numpy()
            frames = frames if colour else frames[..., 0]
        return np.ascontiguousarray(frames), times_s[inside]

    def sound(self, clip: Clip, starts_s: FloatArray, network: AvsaConfig) -> Tensor:
        """See `ClipMedia`; to the nearest hop (10 ms) of one transform of the whole scene."""
        kept = self._covariances(network.sound)[int(clip.name)]
        count = round(network.sound_s * SAMPLERATE / HOP)
        firsts = [min(round(start_s * SAMPLERATE / HOP), len(kept) - count) for start_s in starts_s]
        return torch.from_numpy(
            np.stack([kept[first : first + count] for first in firsts])
        ).double()

    def field(self, clip: Clip, start_s: float, length_s: float) -> Tensor:
        """W, Y, Z, X of a stretch, [shape=(4, N)]."""
        first = round(start_s * SAMPLERATE)
        stretch = self._fields[int(clip.name), :, first : first + round(length_s * SAMPLERATE)]
        return torch.from_numpy(stretch.astype(np.float64))

    def _covariances(self, sound: SoundInput) -> NDArray[np.float32]:
        """Of all scenes, [shape=(S, T, F, 10)]; computed when they are first asked for."""
        bands = "bins" if sound.magnitude else f"{sound.n_bands}"
        if bands not in self._covariance:
            path = self._path.with_name(f"{self._path.name}.{bands}.npy")
            if not path.exists():
                fields = (torch.from_numpy(field.astype(np.float64)) for field in self._fields)
                _write(path, (sound.covariance(field).numpy() for field in fields), len(self.clips))
            self._covariance[bands] = np.load(path, mmap_mode="r")
        return self._covariance[bands]


def keep_clips(path: Path, stage: Stage, count: int, *, seed: int, workers: int = 1) -> KeptClips:
    """Render scenes unless they are there; `path` is without the files' endings."""
    if not _fields(path).exists():
        make_folder(path.parent)
        scenes = stage.scenes(count, seed)
        with Processes(workers) as pool:
            kept = tqdm(
                pool.map(partial(_render, stage), scenes, chunksize=4),
                total=count, desc=path.name, disable=None,
            )  # fmt: skip
            _write_both(path, kept, count)
    return KeptClips(path, stage)


def _render(stage: Stage, scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    seen = render_picture(scene, height=stage.height, rate_hz=stage.rate_hz, colour=True).numpy()
    return seen, render_sound(scene, samplerate=SAMPLERATE).numpy().astype(np.float32)


def _write_both(
    path: Path, kept: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32]]], count: int
) -> None:
    frames, fields = None, None
    for index, (seen, heard) in enumerate(kept):
        if frames is None or fields is None:
            frames = _array(_frames(path), (count, *seen.shape), "uint8")
            fields = _array(_fields(path), (count, *heard.shape), "float32")
        frames[index], fields[index] = seen, heard
    del frames, fields  # written
    for final in (_frames(path), _fields(path)):
        _part(final).replace(final)


def _write(path: Path, values: Iterable[NDArray[np.float64]], count: int) -> None:
    array = None
    for index, value in enumerate(values):
        if array is None:
            array = _array(path, (count, *value.shape), "float32")
        array[index] = value
    del array
    _part(path).replace(path)


def _array(path: Path, shape: tuple[int, ...], dtype: str) -> Any:
    return np.lib.format.open_memmap(_part(path), mode="w+", dtype=dtype, shape=shape)


def _frames(path: Path) -> Path:
    return path.with_name(f"{path.name}.frames.npy")


def _fields(path: Path) -> Path:
    return path.with_name(f"{path.name}.fields.npy")


def _part(path: Path) -> Path:
    """Of this process alone: two that render the same at once do not harm each other."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")
