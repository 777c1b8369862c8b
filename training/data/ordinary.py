"""Ordinary videos with sound: which of a folder's can be used, and excerpts of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import MediaError, UnusableContent
from model.features import SAMPLERATE, to_analysis_rate
from model.media import AudioReader, VideoReader, open_audio
from model.rig import VIDEO_SUFFIXES

FloatArray = NDArray[np.float64]

_BLOCK_S = 0.25
# A quarter of a second counts as sound above either of these; so much of an excerpt must.
_AUDIBLE, _AUDIBLE_DB = 1e-4, -50.0
_AUDIBLE_SHARE = 0.3
_MAX_RATE_HZ = 61.0
_LEAST_GAP_S = 0.5  # missing at an excerpt's end: more is a picture that breaks off


@dataclass(frozen=True)
class Clip:
    """An ordinary video.

    Attributes
    ----------
    aspect : width by height as players show it.
    sound_begins_s : time of the picture at which its sound begins.
    starts_s : where excerpts may begin, so that each is whole and can be heard.
    """

    path: Path
    aspect: float
    sound_begins_s: float
    starts_s: tuple[float, ...]


def list_videos(folder: Path) -> list[Path]:
    """All files below a folder that are videos by their suffix, sorted.

    Raises
    ------
    MediaError : there are none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        raise MediaError(f"{folder} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))}).")
    return paths


def examine_clip(path: Path, duration_s: float) -> Clip:
    """Open a video, listen through its sound, and find where excerpts of a length may begin.

    Raises
    ------
    MediaError, UnsupportedMedia : it cannot be read, has no sound, or is a 360 picture.
    UnusableContent : too short, or silent throughout.
    """
    with VideoReader(path, flat=True) as video, open_audio(path) as audio:
        aspect = video.displayed_aspect()
        begins_s = audio.info.start_s - video.info.start_s
        ends_s = min(video.info.duration_s, begins_s + audio.info.duration_s)
        if ends_s - max(0.0, begins_s) < duration_s:
            raise UnusableContent(
                f"{path} has {max(0.0, ends_s - max(0.0, begins_s)):.1f} s of picture with sound, "
                f"and excerpts of {duration_s:.1f} s are asked for: lower --duration-s."
            )
        levels = np.array(list(_levels(audio)))
    audible = levels > max(_AUDIBLE, levels.max(initial=0.0) * 10 ** (_AUDIBLE_DB / 20))
    n = round(duration_s / _BLOCK_S)
    padded = np.pad(audible, (0, max(0, n - len(audible))))
    shares = np.convolve(padded, np.ones(n), "valid") / n
    starts = begins_s + _BLOCK_S * np.flatnonzero(shares >= _AUDIBLE_SHARE)
    starts = starts[(starts >= 0) & (starts + duration_s <= ends_s + 1e-6)]
    if not len(starts):
        raise UnusableContent(f"{path} is silent: nothing in it can be heard for {duration_s} s.")
    return Clip(path, aspect, begins_s, tuple(starts.tolist()))


def _levels(audio: AudioReader) -> Iterator[float]:
    """Level of each `_BLOCK_S` of a sound, all channels mixed."""
    for block in audio.blocks(round(_BLOCK_S * audio.info.samplerate)):
        yield float(np.sqrt(np.mean(block.mean(axis=0) ** 2)))


def read_picture(
    clip: Clip, start_s: float, times_s: FloatArray, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Grey frames nearest to times after `start_s`, scaled to (height, width), [shape=(T, h, w)].

    Raises
    ------
    MediaError : this stretch cannot be decoded, or the picture breaks off within it.
    """
    duration_s = float(times_s[-1])
    with VideoReader(clip.path, flat=True) as reader:
        # The frame at the last time itself lies past a stretch of just this length.
        seen = reader.read(start_s, duration_s + 0.1, size=size, max_rate_hz=_MAX_RATE_HZ)
    reached_s = float(seen.times_s[-1]) - start_s if len(seen.times_s) else 0.0
    if not len(seen.times_s) or reached_s < duration_s - _LEAST_GAP_S:
        raise MediaError(f"{clip.path} breaks off at {start_s + reached_s:.1f} s.")
    middles = (seen.times_s[1:] + seen.times_s[:-1]) / 2
    return seen.frames[np.searchsorted(middles, start_s + times_s)]


def read_sound(clip: Clip, start_s: float, duration_s: float) -> FloatArray:
    """The sound of a stretch of the picture's time, mixed to one channel, of unit power.

    Returns [shape=(N,)] at `SAMPLERATE`.

    Raises
    ------
    MediaError : this stretch cannot be decoded, or is not there.
    """
    n = round(duration_s * SAMPLERATE)
    with open_audio(clip.path) as reader:
        rate = reader.info.samplerate
        first = round((start_s - clip.sound_begins_s) * rate)
        block = reader.read(max(0, first), round(duration_s * rate) + min(0, first))
    sound = to_analysis_rate(np.pad(block, ((0, 0), (max(0, -first), 0))), rate).mean(axis=0)
    power = float(np.mean(sound**2)) if len(sound) else 0.0
    if len(sound) < n - _LEAST_GAP_S * SAMPLERATE or not 0 < power < np.inf:
        raise MediaError(f"The sound of {clip.path} breaks off near {start_s:.1f} s.")
    return np.asarray(np.pad(sound[:n], (0, max(0, n - len(sound)))) / np.sqrt(power))
