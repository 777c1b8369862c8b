"""Some seconds of a take to watch: the sound over the picture, as it is and turned.

Whoever doubts a rotation looks whether the sound stays with what makes it. What is heard is the
turned sound in stereo, the picture's left half on the left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import minimum_filter
from torch.nn.functional import interpolate

from model import features
from model.errors import MediaError, OptionError
from model.media import VideoWindow
from model.media.encode import comment_of, write_film
from model.output import WholeFile, whole_file
from model.picture import AS_IT_IS, FRAME_SIZE, energy_map, shade, title_turned, turned_deg
from model.take import Take
from model.turning import turned_along

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.uint8]

_COMMENT = "Preview by avsa-align"  # what tells one from a film that somebody cut
_RATES_HZ = 10.0, 12.5  # of frames: slower ones are shown more than once, faster ones left out
_CLOCK_S = 1e-3  # what clocks of containers round to
_TITLE_HEIGHT = 28
_FAINT_DB = 30.0  # so far below the loudest moment nothing is drawn
_OPACITY = 0.7
_PEAK = 0.7


def write_preview(
    take: Take,
    report: dict[str, Any],
    place: tuple[float, float],
    path: Path,
    *,
    whole: WholeFile = whole_file,
) -> None:
    """Write a stretch of a take as an MP4 to watch.

    report : of the take; its rotation is shown as the output has it.
    place : start and duration in seconds of the picture.

    Raises
    ------
    MediaError : the stretch cannot be decoded any more.
    OutputError, DiskFull : the file cannot be written; nothing is left behind.
    """
    least_hz, most_hz = _RATES_HZ
    seen = take.picture.read(*place, size=FRAME_SIZE, max_rate_hz=most_hz, colour=True)
    apart_s = float(np.median(np.diff(seen.times_s)))
    rate_hz = max(least_hz, 1 / apart_s)
    length_s = seen.times_s[-1] + apart_s - seen.times_s[0]
    times_s = seen.times_s[0] + np.arange(round(length_s * rate_hz)) / rate_hz
    sound = _stereo(take, report, times_s[0], len(times_s) / rate_hz)
    with whole(path) as part:
        frames = _frames(take, report, seen, times_s)
        write_film(part, frames, sound, take.audio.samplerate, rate_hz=rate_hz, comment=_COMMENT)


def check_replaced(path: Path) -> None:
    """Refuse to put a preview in the place of any film but an older preview.

    Raises
    ------
    OptionError : something else is there.
    """
    try:
        of_another_kind = path.exists() and path.stat().st_size and comment_of(path) != _COMMENT
    except MediaError:
        of_another_kind = True
    if of_another_kind:
        raise OptionError(
            f"The output {path} is there already, and is no preview that was made here: name "
            "another."
        )


def _microphone_deg(take: Take, times_s: FloatArray) -> FloatArray:
    """By how much the microphone's orientation, if it is known, turns the sound."""
    return take.orientation.at(times_s) if take.orientation else np.zeros_like(times_s)


# --- sound ---------------------------------------------------------------------------------------


def _stereo(take: Take, report: dict[str, Any], start_s: float, duration_s: float) -> FloatArray:
    """The turned sound by cardioids to the left and to the right, [shape=(2, N)]."""
    field = take.field(start_s, duration_s)
    times_s = start_s + np.arange(field.shape[1]) / take.audio.samplerate
    microphone_deg = _microphone_deg(take, times_s)
    turns_deg = (
        take.video.pose_yaw_deg - microphone_deg + turned_deg(report, times_s, microphone_deg)
    )
    w, y, _, _ = turned_along(field, np.deg2rad(turns_deg))
    heard = np.stack([w + y, w - y])
    return np.asarray(_PEAK * heard / max(float(np.abs(heard).max()), 1e-9))


# --- picture -------------------------------------------------------------------------------------


def _frames(
    take: Take, report: dict[str, Any], seen: VideoWindow, times_s: FloatArray
) -> Iterator[Pixels]:
    """Both panoramas at each time, one above the other, [shape=(H, W, 3)].

    What is heard at a time is the sound from the time before to the one after.
    """
    covariance = take.covariance(
        times_s[0], np.append(times_s, 2 * times_s[-1] - times_s[-2])
    ).cpu()
    levels = covariance[..., features.WW].mean(1)
    below_db = 10 * (levels / levels.max().clamp(min=1e-20) + 1e-20).log10()
    strengths = (1 + below_db / _FAINT_DB).clamp(0, 1).tolist()
    shown = np.searchsorted(seen.times_s, times_s + _CLOCK_S, side="right") - 1
    microphones_deg = _microphone_deg(take, times_s)
    turns_deg = turned_deg(report, times_s, microphones_deg)
    for index, turn_deg in enumerate(turns_deg.tolist()):
        back = math.radians(take.video.pose_yaw_deg - microphones_deg[index])
        around = features.rotated(covariance[max(0, index - 1) : index + 2], back)
        coarse = energy_map(around)[None, None]
        energy = interpolate(coarse, FRAME_SIZE, mode="bilinear")[0, 0].numpy()
        columns = round(-turn_deg / 360 * FRAME_SIZE[1])  # azimuth grows to the left
        heard = {AS_IT_IS: energy, title_turned(report, turn_deg): np.roll(energy, columns, axis=1)}
        frame = take.as_played(seen.frames[shown[index]])
        yield np.concatenate(
            [
                part
                for title, one in heard.items()
                for part in (_title(title), _heard_over(frame, one, strengths[index]))
            ]
        )


def _heard_over(frame: Pixels, energy: NDArray[np.float32], strength: float) -> Pixels:
    """A frame with the sound's energy [shape=(H, W)] over it, ringed at half of its peak."""
    painted = shade(energy)
    opacity = strength * _OPACITY * painted[..., 3:]
    shown = (1 - opacity) * frame + opacity * 255 * painted[..., :3]
    within = energy > 0.5
    ring = within & ~minimum_filter(within, size=5, mode=("nearest", "wrap"))
    shown[ring] += strength * (255 - shown[ring])
    return shown.astype(np.uint8)


@lru_cache(maxsize=8)
def _title(text: str) -> Pixels:
    """A line of text as wide as a panorama, [shape=(H, W, 3)]."""
    image = Image.new("RGB", (FRAME_SIZE[1], _TITLE_HEIGHT), "white")
    font = ImageFont.truetype(findfont("DejaVu Sans"), 16)
    ImageDraw.Draw(image).text((8, _TITLE_HEIGHT / 2), text, "black", font, anchor="lm")
    title: Pixels = np.asarray(image, dtype=np.uint8)
    return title
