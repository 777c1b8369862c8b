"""The 360 picture: what a file holds, and chosen windows of it, scaled while decoding."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, Self, cast, get_args

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from model.errors import MediaError, UnsupportedMedia
from model.media.container import (
    allow_decoding,
    length_s,
    open_container,
    picture_of,
    pictures_of,
    reading,
    reason,
)
from model.media.spherical import UNDECLARED, Spherical, read_spherical

Stereo = Literal["mono", "top-bottom", "left-right"]

# A full sphere is 2:1; 16:9 frames that hold one (YouTube's) are squeezed.
_MONO_ASPECTS = (1.6, 2.1)
# Cameras' own files: what each lens saw, or faces of a cube, to be stitched by the maker's program.
_UNSTITCHED = (".insv", ".360")
_CLOCK_S = 1e-3  # what clocks of containers round to
# How much earlier to seek, where that leads to a keyframe after the time that was asked for.
_LEADS_S = (0.0, 1.0, 4.0, 16.0)
# ffmpeg's v360 filter names for the projections that can be declared but are not read.
_CONVERSIONS = {
    "cubemap": "v360=c3x2:equirect",
    "eac": "v360=eac:equirect",
    "mesh": "v360=eac:equirect",
    "half-equirectangular": "v360=hequirect:equirect",
    "fisheye": "v360=dfisheye:equirect:ih_fov=190:iv_fov=190",
}


@dataclass(frozen=True)
class VideoInfo:
    """Facts of a file's picture: of several video streams the first of most pixels.

    Attributes
    ----------
    width, height : decoded frame, before any rotation by metadata.
    rate_hz : average frames per second.
    duration_s : length of the picture; its first frame is at 0.
    start_s : time of the first frame in the container's own clock.
    spherical : what the container declares.
    stereo : packing that is used (declared, or told by the frame's shape); one eye is read.
    has_sound : whether the file carries sound as well.
    """

    path: Path
    codec: str
    width: int
    height: int
    rate_hz: float
    duration_s: float
    start_s: float
    spherical: Spherical
    stereo: Stereo
    has_sound: bool = False

    @property
    def pose_yaw_deg(self) -> float:
        """Yaw that players apply to the picture: azimuth in the world = in the frame + this."""
        return self.spherical.pose_deg[0]


@dataclass(frozen=True)
class VideoWindow:
    """Frames of a stretch of the picture.

    Attributes
    ----------
    frames : grey [shape=(T, H, W)], or RGB [shape=(T, H, W, 3)]; uint8.
    times_s : time of each frame from the start of the picture, [shape=(T,)].
    refreshed : whether the coder began afresh (a keyframe) after the frame before, [shape=(T,)]:
        noise changes there all over the picture without anything moving.
    """

    frames: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    refreshed: NDArray[np.bool_]


class VideoReader:
    """Reads windows of a file by seeking; never the whole file.

    path : a full-sphere equirectangular video.
    stereo : overrides the declared packing.
    threads : that decode; 0: one per core.
    flat : it is an ordinary video instead, of any shape.

    Raises
    ------
    MediaError : not a readable video.
    UnsupportedMedia : a declared projection or a frame shape that is not a full equirectangular
        sphere (the sentence says how to convert it), lenses' pictures that are not stitched, or,
        if `flat`, a declared sphere. When it is read: one that players are told to set on its side.
    """

    def __init__(
        self, path: Path, *, stereo: Stereo | None = None, threads: int = 0, flat: bool = False
    ) -> None:
        with ExitStack() as stack:
            self._container = stack.enter_context(open_container(path))
            videos = pictures_of(self._container)
            # Cameras store previews and thumbnails as further videos, perhaps before the picture.
            largest = picture_of(self._container)
            if largest is None or largest.width == 0:
                raise MediaError(f"{path} has no picture: VIDEO must be a 360 video.")
            self._stream = largest
            allow_decoding(path, self._stream, threads=threads)
            with reading(path):
                spherical = read_spherical(path, videos.index(largest))
            if flat:
                _refuse_sphere(path, spherical)
            else:
                _refuse_projection(path, spherical)
                if spherical.projection == "undeclared":
                    _refuse_unstitched(path, largest, videos)
                stereo = stereo or _stereo(path, spherical, self._stream.width, self._stream.height)
            self.info = _video_info(
                path, self._container, self._stream, spherical, stereo or "mono"
            )
            self._sphere = not flat
            self._reformatter = VideoReformatter()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def read(
        self,
        start_s: float,
        duration_s: float,
        *,
        size: tuple[int, int],
        max_rate_hz: float = 31.0,
        colour: bool = False,
    ) -> VideoWindow:
        """Frames in [start_s, start_s + duration_s), scaled to `size` = (height, width).

        They are grey, or RGB if `colour` is asked for. Faster pictures are thinned to at most
        `max_rate_hz` by a whole factor. A window that lies past the end is empty.

        Raises
        ------
        MediaError : the data of this stretch cannot be decoded.
        """
        every = max(1, math.ceil(self.info.rate_hz / max_rate_hz))
        frames, times, refreshed = [], [], []
        has_keyframe = False
        with closing(self._decode_from(start_s)) as decoded:
            for index, (time_s, frame) in enumerate(decoded):
                if time_s >= start_s + duration_s:
                    break
                has_keyframe |= bool(frame.key_frame)
                if index % every == 0:
                    frames.append(self._scaled(frame, size, "rgb24" if colour else "gray"))
                    times.append(time_s)
                    refreshed.append(has_keyframe)
                    has_keyframe = False
        empty = np.empty((0, *size, 3) if colour else (0, *size), dtype=np.uint8)
        return VideoWindow(
            np.stack(frames) if frames else empty, np.array(times), np.array(refreshed, dtype=bool)
        )

    def read_frame(self, at_s: float, *, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The colour frame at a time, [shape=(H, W, 3)]; the last one before it if it is late.

        Raises
        ------
        MediaError : nothing can be decoded there.
        """
        shown = None
        with closing(self._decode_around(at_s)) as decoded:
            for time_s, frame in decoded:
                if shown is None or time_s < at_s + _CLOCK_S:
                    shown = frame
                if time_s > at_s - _CLOCK_S:
                    break
        if shown is None:
            raise MediaError(f"{self.info.path} has no readable frame at {at_s:.1f} s.")
        return self._scaled(shown, size, "rgb24")

    def displayed_aspect(self) -> float:
        """Width by height as players show the picture: upright, with its pixels' own shape.

        Raises
        ------
        MediaError : its first frame cannot be decoded.
        """
        with closing(self._decode_from(0.0)) as decoded:
            for _, frame in decoded:
                aspect = frame.width / frame.height * float(self._stream.sample_aspect_ratio or 1)
                return 1 / aspect if round(frame.rotation / 90) % 2 else aspect
        raise MediaError(f"{self.info.path} has no readable frame.")

    def _decode_from(self, start_s: float) -> Generator[tuple[float, av.VideoFrame]]:
        """Frames from `start_s` on with their times; earlier ones of the group are dropped."""
        earliest = start_s - 0.5 / self.info.rate_hz
        with closing(self._decode_around(start_s)) as decoded:
            yield from ((time_s, frame) for time_s, frame in decoded if time_s >= earliest)

    def _decode_around(self, start_s: float) -> Generator[tuple[float, av.VideoFrame]]:
        """Frames with their times, from one before `start_s` on if there is any."""
        try:
            for lead_s in _LEADS_S:
                try:
                    frames = self._decode_about(start_s - lead_s)
                    first = next(frames, None)
                except av.FFmpegError:
                    if lead_s == 0.0:
                        raise
                    # AVI refuses to seek before its beginning: as without a lead, then.
                    frames, first = self._decode_about(start_s), None
                    break
                # Before the beginning there is nothing to be found.
                if (first and first[0] < start_s + _CLOCK_S) or start_s - lead_s < -_LEADS_S[1]:
                    break
            yield from chain([first] if first else [], frames)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(
                f"{self.info.path} cannot be decoded at {start_s:.1f} s ({reason(error)})."
            ) from error

    def _decode_about(self, at_s: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """Frames from where seeking a time leads, with their times.

        That is the keyframe before it; in transport streams, which have no index, the one after it.
        """
        target = (at_s + self.info.start_s) / float(self._stream.time_base or 1)
        self._container.seek(math.floor(target), stream=self._stream, backward=True)
        for frame in self._container.decode(self._stream):
            if frame.pts is not None:
                yield frame.time - self.info.start_s, frame

    def _scaled(
        self, frame: av.VideoFrame, size: tuple[int, int], pixels: str
    ) -> NDArray[np.uint8]:
        """One eye of a frame, upright, as an array of the given size."""
        height, width = size
        stack_h, stack_w = _eyes(self.info.stereo)
        height, width = height * stack_h, width * stack_w
        quarter_turns = round(frame.rotation / 90) % 4
        if quarter_turns % 2:
            if self._sphere and frame.height * stack_h < frame.width * stack_w:
                self._refuse_on_its_side(frame)
            height, width = width, height
        scaled = self._reformatter.reformat(
            frame, width, height, pixels, interpolation=Interpolation.AREA
        )
        upright = np.rot90(scaled.to_ndarray(), quarter_turns)
        return np.ascontiguousarray(upright[: size[0], : size[1]], dtype=np.uint8)

    def _refuse_on_its_side(self, frame: av.VideoFrame) -> None:
        raise UnsupportedMedia(
            f"{self.info.path} says that its picture of {frame.width}x{frame.height} is shown "
            f"turned by {round(frame.rotation)}°, which sets the sphere on its side: take that "
            f"away with ffmpeg -display_rotation 0 -i {self.info.path.name} -c copy upright.mp4."
        )


def _eyes(stereo: Stereo) -> tuple[int, int]:
    """How many eyes stand below and beside each other."""
    return {"mono": (1, 1), "top-bottom": (2, 1), "left-right": (1, 2)}[stereo]


def _video_info(
    path: Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    spherical: Spherical,
    stereo: Stereo,
) -> VideoInfo:
    rate = stream.average_rate or stream.guessed_rate
    seconds_per_tick = float(stream.time_base or 0)
    duration_s = length_s(container, stream)
    if not rate or duration_s <= 0:
        raise MediaError(
            f"{path} does not say how long its picture is or how fast it runs: it is incomplete; "
            f"rewrite it with ffmpeg -i {path.name} -c copy rewritten.mp4."
        )
    return VideoInfo(
        path=path,
        codec=stream.codec_context.name,
        width=stream.width,
        height=stream.height,
        rate_hz=float(rate),
        duration_s=duration_s,
        start_s=(stream.start_time or 0) * seconds_per_tick,
        spherical=spherical,
        stereo=stereo,
        has_sound=bool(container.streams.audio),
    )


def _refuse_projection(path: Path, spherical: Spherical) -> None:
    """Raise for anything declared that is not the full sphere as an equirectangular picture."""
    name = spherical.projection
    if name not in ("equirectangular", "undeclared"):
        convert = _CONVERSIONS.get(name, "v360=INPUT_PROJECTION:equirect")
        raise UnsupportedMedia(
            f"{path} declares a {name} projection, and only equirectangular pictures are read: "
            f'convert it with ffmpeg -i {path.name} -vf "{convert}" -c:a copy converted.mp4.'
        )
    if spherical.partial:
        raise UnsupportedMedia(
            f"{path} declares that its picture covers only a part of the sphere (VR180 or "
            f"cropped): convert it with ffmpeg -i {path.name} -vf "
            f'"{_CONVERSIONS["half-equirectangular"]}" -c:a copy converted.mp4.'
        )


def _refuse_unstitched(
    path: Path, largest: av.VideoStream, videos: Sequence[av.VideoStream]
) -> None:
    """Raise for a picture that is in pieces: two of the same size, or by the name of its kind."""
    width, height = largest.width, largest.height
    n_alike = sum((video.width, video.height) == (width, height) for video in videos)
    if n_alike > 1 or path.suffix.lower() in _UNSTITCHED:
        pictures = f"{n_alike} pictures of {width}x{height}" if n_alike > 1 else "a picture"
        raise UnsupportedMedia(
            f"{path} holds {pictures}, not stitched into one sphere: export it as an "
            "equirectangular video with the camera maker's program, and name that."
        )


def _refuse_sphere(path: Path, spherical: Spherical) -> None:
    """Raise for anything that declares itself other than an ordinary, flat picture."""
    if spherical.projection not in ("undeclared", "rectilinear"):
        raise UnsupportedMedia(
            f"{path} declares a 360 picture ({spherical.projection}), and an ordinary video is "
            "asked for: leave it out here."
        )


def _stereo(path: Path, spherical: Spherical, width: int, height: int) -> Stereo:
    """Packing of the two eyes: as declared, or as the frame's shape tells."""
    declared = {"bottom-top": "top-bottom", "right-left": "left-right"}.get(
        spherical.stereo, spherical.stereo
    )
    if spherical is not UNDECLARED:
        if declared in get_args(Stereo):
            return cast(Stereo, declared)
        raise UnsupportedMedia(
            f"{path} declares {spherical.stereo} stereo, which is not read: convert it to "
            "top-bottom, or cut out one eye."
        )
    aspect = width / height
    lowest, highest = _MONO_ASPECTS
    if lowest <= aspect <= highest:
        return "mono"
    if lowest <= 2 * aspect <= highest:
        return "top-bottom"
    if lowest <= aspect / 2 <= highest:
        return "left-right"
    raise UnsupportedMedia(
        f"{path} is {width}x{height}, which is no equirectangular sphere (2:1, or 16:9 squeezed; "
        "1:1 and 4:1 are read as stereo): convert it with ffmpeg's v360 filter."
    )
