"""Crops of real footage: short clips of 360 pictures and their ambisonic sound, as a data set.

An item is a recording: of one of its clips a moment (or several), of that K viewpoints, each as a
crop of the picture and as the field steered to it. It is a pure function of seed, epoch and index.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from model import features
from model.detections import Detection
from model.errors import AvsaError, MediaError, UnusableContent
from model.media import VideoReader, open_audio
from model.networks.avsa import AvsaConfig
from model.viewpoints import mirrored, steering
from training.data.crops import (
    FIELDS_OF_VIEW_RAD,
    MAX_ELEVATION_RAD,
    FloatArray,
    Views,
    coloured_otherwise,
    cut_crops,
    draw_views,
    motion_interest,
    object_interest,
    sound_interest,
    unit_vectors,
)
from training.data.tensors import Tensors

_ATTEMPTS = 10  # clips of an item that may fail one after the other
_LEAST_GAP_S = 0.5  # between moments of one clip
_log = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Clip:
    """A picture and its sound, checked.

    Attributes
    ----------
    recording : what it was cut from; clips of one recording may show the same.
    components : the file channel of W, Y, Z and X.
    planar : whether Z is silent.
    """

    name: str
    recording: str
    video: Path
    audio: Path
    duration_s: float
    components: tuple[int, int, int, int]
    planar: bool = False


class ClipMedia(Protocol):
    """Where picture and sound of clips come from: files, or memory (`training.data.kept_clips`)."""

    def picture(
        self, clip: Clip, start_s: float, length_s: float, size: tuple[int, int], *, colour: bool
    ) -> tuple[NDArray[np.uint8], FloatArray]:
        """Frames of a stretch, [shape=(T, H, W)] or RGB [shape=(T, H, W, 3)], and their times.

        size : (height, width).

        Raises
        ------
        MediaError, UnusableContent : the stretch cannot be read.
        """
        ...

    def sound(self, clip: Clip, starts_s: FloatArray, network: AvsaConfig) -> Tensor:
        """What `SoundInput.covariance` makes of stretches as the network hears them, (M, T, F, 10).

        Raises
        ------
        MediaError, UnusableContent : a stretch cannot be read.
        """
        ...


class ClipFiles:
    """Clips decoded from their files, each stretch anew."""

    def picture(
        self, clip: Clip, start_s: float, length_s: float, size: tuple[int, int], *, colour: bool
    ) -> tuple[NDArray[np.uint8], FloatArray]:
        """See `ClipMedia`."""
        with VideoReader(clip.video) as reader:
            window = reader.read(start_s, length_s, size=size, colour=colour)
        return window.frames, window.times_s

    def sound(self, clip: Clip, starts_s: FloatArray, network: AvsaConfig) -> Tensor:
        """See `ClipMedia`."""
        with open_audio(clip.audio) as reader:
            rate = reader.info.samplerate
            count = round(network.sound_s * rate)
            blocks = [reader.read(round(start_s * rate), count) for start_s in starts_s]
        if any(block.shape[1] < count for block in blocks):
            raise UnusableContent(f"The sound {clip.audio} is shorter than it says.")
        fields = [features.to_analysis_rate(block[list(clip.components)], rate) for block in blocks]
        return network.sound.covariance(torch.from_numpy(np.stack(fields)))


class Guide(StrEnum):
    """What decides where crops look."""

    RANDOM = "random"
    MOTION = "motion"
    SOUND = "sound"
    OBJECTS = "objects"


@dataclass(frozen=True)
class Cropping:
    """How crops are taken.

    Attributes
    ----------
    n_viewpoints, n_moments : their product K is the crops of an item; all viewpoints are taken at
        all moments, crop m n_viewpoints + v is viewpoint v at moment m.
    frame_height : at which the picture is decoded; it is twice as wide.
    augment : whether items are mirrored at random, and colours and levels changed.
    rotate : whether fields are rotated by a random yaw before they are heard.
    """

    n_viewpoints: int = 4
    n_moments: int = 1
    guide: Guide = Guide.RANDOM
    fields_of_view_rad: tuple[float, float] = FIELDS_OF_VIEW_RAD
    max_elevation_rad: float = MAX_ELEVATION_RAD
    frame_height: int = 320
    augment: bool = True
    rotate: bool = False


@dataclass(frozen=True)
class Crops(Tensors):
    """Items as a network takes them, [shape=(B, ...)]; a single one has no B.

    Attributes
    ----------
    pictures : RGB from 0 to 1, [shape=(B, K, 3, T, H, W)].
    sounds : of `SoundInput.at`, [shape=(B, K, C, T, F)].
    directions, viewpoints, moments, recordings, rotations_rad : as in
        `training.objectives.samples.Samples`.
    """

    pictures: Tensor
    sounds: Tensor
    directions: Tensor
    viewpoints: Tensor
    moments: Tensor
    recordings: Tensor
    rotations_rad: Tensor


class ClipDraws:
    """Clips drawn by recording, `draws` of each an epoch; the same ones in every run.

    Clips that turn out broken are logged, counted in `n_broken` (over all workers), and others are
    taken in their place.

    groups : the clips of each recording.
    """

    def __init__(self, groups: Sequence[Sequence[Clip]], *, draws: int, seed: int) -> None:
        self._groups = groups
        self._draws, self._seed = draws, seed
        # In shared memory, so that workers follow the one and all add to the other.
        self._epoch, self._broken = torch.zeros(2, 1, dtype=torch.int64).unbind()
        for number in (self._epoch, self._broken):
            number.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._groups) * self._draws

    @property
    def n_broken(self) -> int:
        """Draws that met something broken."""
        return int(self._broken)

    def set_epoch(self, epoch: int) -> None:
        """Other clips, moments and viewpoints from now on, in workers that run too."""
        self._epoch.fill_(epoch)

    def _drawn(
        self, epoch: int, index: int, make: Callable[[np.random.Generator, Clip, int], Item]
    ) -> Item:
        """What is made of a draw: of its generator, its clip, and the number of its recording.

        Raises
        ------
        MediaError : one clip after the other is broken.
        """
        rng = np.random.default_rng([self._seed, epoch, index])
        recording = index // self._draws
        for _ in range(_ATTEMPTS):
            clips = self._groups[recording]
            clip = clips[int(rng.integers(len(clips)))]
            try:
                return make(rng, clip, recording)
            except (MediaError, UnusableContent) as error:
                self._leave_out(clip, error)
                recording = int(rng.integers(len(self._groups)))
        raise MediaError(f"{_ATTEMPTS} clips one after the other cannot be read, {clip.name} last.")

    def _leave_out(self, clip: Clip, error: AvsaError) -> None:
        _log.warning("%s is left out: %s", clip.name, error)
        self._broken += 1


class ClipCrops(ClipDraws, Dataset[Crops]):
    """Items by recording, `draws` of each an epoch (32 as published).

    network : says what a crop and a sound are. detections : by clip, for `Guide.OBJECTS`.
    media : where picture and sound are; the clips' files unless said.

    Raises
    ------
    ValueError : no clips; or some are too short for the moments asked for.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        network: AvsaConfig,
        cropping: Cropping,
        *,
        seed: int = 0,
        draws: int = 1,
        detections: Mapping[str, Sequence[Detection]] | None = None,
        media: ClipMedia | None = None,
    ) -> None:
        needed_s = cropping.n_moments * (network.sound_s + _LEAST_GAP_S) - _LEAST_GAP_S
        short = [clip.name for clip in clips if clip.duration_s < needed_s]
        if short or not clips:
            raise ValueError(
                f"{len(short)} of {len(clips)} clips are shorter than {needed_s:.1f} s"
                f" ({', '.join(short[:3])}): leave them out"
            )
        grouped = by_recording(clips)
        super().__init__([*grouped.values()], draws=draws, seed=seed)
        self.recordings = [*grouped]
        self._numbers = {recording: n for n, recording in enumerate(self.recordings)}
        self._network, self._cropping = network, cropping
        self._detections = detections or {}
        self._media: ClipMedia = media or ClipFiles()

    def __getitem__(self, index: int) -> Crops:
        return self.of_epoch(int(self._epoch), index)

    def of_epoch(self, epoch: int, index: int, *, rotation_rad: float | None = None) -> Crops:
        """An item of any epoch.

        rotation_rad : by which the field is rotated before it is heard; drawn as `Cropping.rotate`
            says unless given.
        """

        def make(rng: np.random.Generator, clip: Clip, recording: int) -> Crops:
            return self._crops(rng, clip, recording, rotation_rad)

        return self._drawn(epoch, index, make)

    def of_clip(self, clip: Clip, key: Sequence[int]) -> Crops | None:
        """Crops of a clip, drawn by a key; None if it turns out broken."""
        rng = np.random.default_rng([self._seed, *key])
        try:
            return self._crops(rng, clip, self._numbers[clip.recording], None)
        except (MediaError, UnusableContent) as error:
            self._leave_out(clip, error)
            return None

    def _crops(
        self, rng: np.random.Generator, clip: Clip, recording: int, rotation_rad: float | None
    ) -> Crops:
        cropping, network = self._cropping, self._network
        starts_s = draw_moments(rng, clip.duration_s, cropping.n_moments, network.sound_s)
        covariances = self._heard(rng, clip, starts_s)
        views = draw_views(
            rng,
            cropping.n_viewpoints,
            interest=self._interest(clip, starts_s, covariances),
            fields_of_view_rad=cropping.fields_of_view_rad,
            max_elevation_rad=cropping.max_elevation_rad,
            mirror=cropping.augment,
        )
        rotation = rng.uniform(-math.pi, math.pi) if cropping.rotate else 0.0
        rotation = rotation if rotation_rad is None else rotation_rad
        if views.mirrored:
            covariances = mirrored(covariances)
        steered = steering(views.heard_rad[:, 0] - rotation, views.heard_rad[:, 1])
        sounds = network.sound.at(covariances, steered.expand(len(starts_s), -1, -1, -1))
        n_views, n_moments = cropping.n_viewpoints, cropping.n_moments
        directions = torch.from_numpy(unit_vectors(views.heard_rad)).float()
        return Crops(
            pictures=self._seen(rng, clip, starts_s, views),
            sounds=sounds.flatten(0, 1),
            directions=directions.repeat(n_moments, 1),
            viewpoints=torch.arange(n_views).repeat(n_moments),
            moments=torch.arange(n_moments).repeat_interleave(n_views),
            recordings=torch.tensor(recording),
            rotations_rad=torch.tensor(rotation, dtype=torch.float32),
        )

    def _heard(self, rng: np.random.Generator, clip: Clip, starts_s: FloatArray) -> Tensor:
        """Covariances of the sound of each moment, [shape=(M, T, F, 10)]."""
        gain = rng.uniform(0.9, 1.1) if self._cropping.augment else 1.0
        return self._media.sound(clip, starts_s, self._network) * gain**2

    def _interest(self, clip: Clip, starts_s: FloatArray, cov: Tensor) -> FloatArray | None:
        """Where to look, for all moments together."""
        guide, length_s = self._cropping.guide, self._network.sound_s
        if guide is Guide.RANDOM:
            return None
        if guide is Guide.SOUND:
            return sound_interest(cov.flatten(0, 1))
        if guide is Guide.OBJECTS:
            found = self._detections.get(clip.name, [])
            by_moment = [object_interest(found, at, length_s) for at in starts_s.tolist()]
            return np.asarray(np.sum(by_moment, axis=0))
        windows = [
            self._media.picture(clip, start_s, length_s, features.PICTURE_SIZE, colour=False)
            for start_s in starts_s
        ]
        if any(len(frames) < 3 for frames, _ in windows):
            raise UnusableContent(f"The picture {clip.video} is shorter than it says.")
        moves = [
            features.motion(torch.from_numpy(frames), torch.from_numpy(times_s)).maps
            for frames, times_s in windows
        ]
        return motion_interest(torch.cat(moves))

    def _seen(
        self, rng: np.random.Generator, clip: Clip, starts_s: FloatArray, views: Views
    ) -> Tensor:
        """Crops of the picture, [shape=(K, 3, T, H, W)]: a clip within each moment's sound."""
        network, height = self._network, self._cropping.frame_height
        length_s = network.n_frames / network.frame_rate_hz
        starts_s = starts_s + rng.uniform(0, network.sound_s - length_s, len(starts_s))
        size = height, 2 * height
        crops = [
            crops_at(self._media, clip, float(start_s), network, views, size)
            for start_s in starts_s
        ]
        cut = torch.cat(crops)
        return coloured_otherwise(rng, cut) if self._cropping.augment else cut


def told_apart(clips: Sequence[Clip], detections: Mapping[str, Sequence[Detection]] | None) -> str:
    """How many clips, and by what these and what was found in them are told from others."""
    facts = [(c.name, c.recording, c.duration_s, c.components, c.planar) for c in clips]
    digest = hashlib.sha256(repr((facts, sorted((detections or {}).items()))).encode())
    return f"{len(clips)} ({digest.hexdigest()[:8]})"


def by_recording(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """Clips by what they were cut from, in the order of its names."""
    grouped: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        grouped[clip.recording].append(clip)
    return dict(sorted(grouped.items()))


def crops_at(
    media: ClipMedia, clip: Clip, start_s: float, network: AvsaConfig, views: Views,
    size: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Crops of the network's frames from a moment on, [shape=(K, 3, T, h, w)].

    size : (height, width) at which the picture is read.

    Raises
    ------
    MediaError, UnusableContent : the picture cannot be read there.
    """
    seen, seen_s = media.picture(
        clip, start_s, network.n_frames / network.frame_rate_hz, size, colour=True
    )
    if len(seen) < 2:
        raise UnusableContent(f"The picture {clip.video} is shorter than it says.")
    times_s = start_s + np.arange(network.n_frames) / network.frame_rate_hz
    nearest = np.abs(seen_s - times_s[:, None]).argmin(1)
    frames = torch.from_numpy(seen[nearest]).movedim(-1, 1) / 255
    return cut_crops(frames, views, network.crop_px)


def draw_moments(
    rng: np.random.Generator, duration_s: float, count: int, length_s: float
) -> FloatArray:
    """Starts of stretches of a clip, evenly drawn, `_LEAST_GAP_S` between them, [shape=(count,)].

    The clip has to be long enough.
    """
    room_s = duration_s - count * length_s - (count - 1) * _LEAST_GAP_S
    places = np.sort(rng.uniform(0, max(room_s, 0.0), count))
    return np.asarray(places + np.arange(count) * (length_s + _LEAST_GAP_S))
