"""A picture and a track, opened together: checked, and cut into windows worth scoring.

The sound is scanned first, for it is cheap: windows are taken where it is active and has a
direction. Only those windows of the picture are decoded, so the cost does not grow with the take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from model import features, precedence
from model.ambisonics import ChannelLayout, Convention, Fix
from model.channels.faults import ordinal
from model.conventions import Diagnosis, diagnose
from model.errors import MediaError, OptionError, UnsupportedMedia, UnusableContent
from model.media import (
    AudioInfo,
    AudioReader,
    Carrier,
    Stereo,
    VideoInfo,
    VideoReader,
    not_finite,
    open_split_audio,
)
from model.moments import FRAME_SIZE, Moment, crops_around, moment_starts, picture_span
from model.networks.avsa import AvsaConfig
from model.orientation import Orientation
from model.placement import placed
from model.scoring import Window
from model.selection import best_apart, candidates
from model.turning import turned_along
from model.wording import angle

Progress = Callable[[float], None]
FloatArray = NDArray[np.floating]

LEAST_DURATION_S = 2.0
_MAX_RATE_HZ = 16.0
_LEAST_FRAMES = 12
_LEAST_GAP_S = 0.5  # missing at a window's end: more is a picture that breaks off
_STEADY_INTEREST = 0.1  # of sound that does not change, against sound that does
_MARGIN_S = 0.05  # the transform reaches this far over a window's edges
_SILENT = 1e-5  # a peak below -100 dB full scale
_DEAD_DB = -80.0  # a component this far below the loudest carries nothing
_FULL_SCALE = 0.9999
_CLIPPED_SHARE = 0.02  # more samples at full scale than this: no direction can be trusted
_NAMES = ("W", "Y", "Z", "X")
_APART = "write each to a file (ffmpeg -i {} -map 0:a:0 -c:a pcm_f32le 0.wav, and so on), and name"


@dataclass(frozen=True)
class Track:
    """Where a track's sound comes from and how to read it.

    Attributes
    ----------
    paths : one file, or the parts of a split track.
    convention : overrides what the file declares (None: as declared, else AmbiX).
    components : file channel of each ACN component, where it is none of the known orders.
    offset_s : time in the picture at which the track begins (None: as the camera's own sound says,
        or the clock of a shared container, else at the beginning).
    fix : done to the field before anything else.
    """

    paths: tuple[Path, ...]
    convention: Convention | None = None
    components: tuple[int, ...] | None = None
    offset_s: float | None = None
    fix: Fix | None = None

    def __post_init__(self) -> None:
        if self.offset_s is not None and not math.isfinite(self.offset_s):
            raise OptionError(f"The offset is {self.offset_s} s; it must be a finite number.")


@dataclass(frozen=True)
class _Scan:
    """What a stretch of sound is like."""

    start_s: float
    interest: float
    power: FloatArray  # of W, Y, Z, X
    peak: float
    clipped_share: float


class Take:
    """An open picture with an open track.

    looks : what windows hold of moments (`Window.moments`); nothing without it.
    orientation : how the microphone turned; the field is turned along it first.

    Raises
    ------
    MediaError, UnsupportedMedia : a file cannot be read, or is of a kind that is refused.
    UnusableContent : too short, or picture and track do not overlap.
    """

    def __init__(
        self,
        video: Path,
        track: Track,
        *,
        stereo: Stereo | None = None,
        device: torch.device | str = "cpu",
        looks: AvsaConfig | None = None,
        orientation: Orientation | None = None,
    ) -> None:
        self.orientation = orientation
        self.warnings: list[str] = []
        self.track = track
        self._looks = looks
        self._device = torch.device(device)
        with ExitStack() as stack:
            self._video = stack.enter_context(VideoReader(video, stereo=stereo))
            self._audio: AudioReader = stack.enter_context(open_split_audio(track.paths))
            # Whether the track is the sound inside the picture's file, by whatever name.
            self.shared = track.paths[0].samefile(video)
            _check_kind(self._audio.info, track)
            self.diagnosis = diagnose(
                self._audio, convention=track.convention, components=track.components
            )
            self.layout = _layout(self._audio.info, track, self.diagnosis)
            self._signs = np.array(track.fix.signs(1) if track.fix else (1,) * 4)
            self.placement = placed(
                self._video.info,
                self._audio,
                w_channel=self.layout.components[0],
                shared=self.shared,
                offset_s=track.offset_s,
            )
            self.start_s, self.end_s = self._overlap()
            if orientation:
                orientation.check_tells_of(self._video.info.duration_s)
            self._stack = stack.pop_all()
        self._note_metadata()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def video(self) -> VideoInfo:
        """Facts of the picture."""
        return self._video.info

    @property
    def audio(self) -> AudioInfo:
        """Facts of the track."""
        return self._audio.info

    @property
    def carrier(self) -> Carrier | None:
        """The order that the track's container gives its channels, where the field is read in it.

        Out of that container nothing tells of it.
        """
        own, carrier = self.track.components, self._audio.info.carrier
        kept = own is None and carrier and self.layout.components == carrier.components
        return carrier if kept else None

    @property
    def reader(self) -> AudioReader:
        """The open track itself."""
        return self._audio

    @property
    def picture(self) -> VideoReader:
        """The open picture itself, its frames as they are stored."""
        return self._video

    def move(self, by_s: float) -> None:
        """Place the track later by so much than it was."""
        self.placement = replace(self.placement, offset_s=self.placement.offset_s + by_s)
        self.start_s, self.end_s = self._overlap()

    def _overlap(self) -> tuple[float, float]:
        video, audio = self._video.info, self._audio.info
        begins, ends = self.placement.offset_s, self.placement.camera_s(audio.duration_s)
        start, end = max(0.0, begins), min(video.duration_s, ends)
        for path, duration in ((video.path, video.duration_s), (audio.path, audio.duration_s)):
            if duration < LEAST_DURATION_S:
                raise UnusableContent(
                    f"{path} is {duration:.2f} s long; alignment needs at least "
                    f"{LEAST_DURATION_S:.0f} s of picture and sound."
                )
        if end - start < LEAST_DURATION_S:
            raise UnusableContent(
                f"{video.path} (0 to {video.duration_s:.2f} s) and {audio.path} (from "
                f"{begins:.2f} to {ends:.2f} s of the picture) "
                f"overlap by less than {LEAST_DURATION_S:.0f} s: check --offset-s."
            )
        return start, end

    def _note_metadata(self) -> None:
        self.warnings += [note for note in (self._audio.note, self.placement.note) if note]
        yaw, pitch, roll = self.video.spherical.pose_deg
        if yaw:
            self.warnings.append(
                f"The picture declares a pose yaw of {angle(yaw)}; players apply it, so the "
                "rotation given fits the picture as it is played."
            )
        if abs(pitch) > 1 or abs(roll) > 1:
            self.warnings.append(
                f"The picture declares a pose pitch of {angle(pitch)} and roll of {angle(roll)}, "
                "which a rotation about the vertical cannot follow."
            )

    # --- sound -----------------------------------------------------------------------------------

    def field(self, start_s: float, duration_s: float) -> FloatArray:
        """First-order field of a stretch of the picture's time, [shape=(4, N)] at the track's rate.

        Turned along the microphone's orientation, if it is known, and into the frame's own axes (a
        declared pose yaw taken back), so that it compares with the frames as they are stored.
        Silence where the track has none.

        Raises
        ------
        MediaError : NaN or infinite samples.
        """
        return self._heard(start_s, duration_s)[0]

    def _heard(self, start_s: float, duration_s: float) -> tuple[FloatArray, FloatArray]:
        """A stretch's `field`, and the file's samples of it, [shape=(n_channels, N)]."""
        rate = self.audio.samplerate
        first = round(self.placement.track_s(start_s) * rate)
        count = round(duration_s * rate)
        block = self._audio.read(max(0, first), count + min(0, first))
        if not np.isfinite(block).all():
            raise not_finite(self.audio.path, start_s)
        field = self.layout.to_sn3d(block, order=1) * self._signs[:, None]
        if self.orientation:
            read = max(0, first)
            begins, ends = map(
                self.placement.camera_s, (read / rate, (read + field.shape[1]) / rate)
            )
            at_s = np.linspace(begins, ends, field.shape[1], endpoint=False)
            field = turned_along(field, np.deg2rad(self.orientation.at(at_s)))
        before = max(0, -first)
        after = max(0, count - before - field.shape[1])
        return np.pad(field, ((0, 0), (before, after))), block

    def covariance(self, start_s: float, edges_s: NDArray[np.float64]) -> torch.Tensor:
        """Covariance of what is heard first in `field` from `start_s` on, between picture times."""
        duration = float(edges_s[-1]) - start_s + _MARGIN_S
        field = features.to_analysis_rate(self.field(start_s, duration), self.audio.samplerate)
        cov = precedence.covariance(
            torch.from_numpy(field).to(self._device),
            torch.from_numpy(edges_s - start_s).to(self._device),
        )
        cov = features.without_clicks(cov)
        pose = math.radians(self.video.pose_yaw_deg)
        return features.rotated(cov, -pose) if pose else cov

    def choose_windows(
        self, n_windows: int, progress: Progress = lambda _: None
    ) -> list[tuple[float, float]]:
        """Start and duration of up to `n_windows` windows, where the sound is worth most.

        Raises
        ------
        UnusableContent : silent, without direction (a dead W, X or Y), or clipped throughout.
        """
        starts, duration, wanted = candidates(self.start_s, self.end_s, n_windows)
        scans = []
        for index, start_s in enumerate(starts):
            scans.append(self._scan(start_s, duration))
            progress((index + 1) / len(starts))
        self._check_content(scans)
        chosen = best_apart(starts, [scan.interest for scan in scans], duration, wanted)
        return [(starts[index], duration) for index in chosen]

    def _scan(self, start_s: float, duration_s: float) -> _Scan:
        field, samples = self._heard(start_s, duration_s)
        edges = np.linspace(start_s, start_s + duration_s, max(2, round(duration_s * 10)))
        cov = self.covariance(start_s, edges)
        loudness = cov[..., features.WW].sum(-1).sqrt()
        flow = features.intensity(cov).sum(-2)[..., :2].norm(dim=-1)
        directness = flow / (features.energy(cov).sum(-1) + 1e-20)
        # Loudness that changes and has a direction: steady noise tells least, silence nothing.
        activity = (loudness.sqrt() * directness.clamp(0, 1)).mean()
        change = (loudness.sqrt().diff(dim=0).abs() * directness[1:].clamp(0, 1)).mean()
        interest = float(change + _STEADY_INTEREST * activity)
        return _Scan(
            start_s=start_s,
            interest=interest,
            power=np.mean(field**2, axis=1),
            peak=float(np.abs(field).max(initial=0.0)),
            clipped_share=self._clipped(samples) / field.shape[1],
        )

    def _clipped(self, samples: FloatArray) -> int:
        """How many samples are at full scale in one of W, Y, Z, X, as the file has them.

        Conversion would lower or raise them. In floats that go beyond full scale, nothing is cut.
        """
        magnitudes = np.abs(samples[list(self.layout.components[:4])]).max(axis=0, initial=0.0)
        stored = self.audio.format
        if stored and stored.highest > 1 and magnitudes.max(initial=0.0) > 1:
            return 0
        return int((magnitudes >= _FULL_SCALE).sum())

    def _check_content(self, scans: Sequence[_Scan]) -> None:
        path = self.audio.path
        if max(scan.peak for scan in scans) < _SILENT:
            read = f", the first of its {self.audio.n_alike} tracks alike: {_APART} the right one"
            others = read.format(path.name) if self.audio.n_alike > 1 else ""
            raise UnusableContent(
                f"{path} is silent wherever the picture has sound to fit{others}."
            )
        power = np.max([scan.power for scan in scans], axis=0)
        with np.errstate(divide="ignore"):
            levels = 10 * np.log10(power / power.max())
        dead = [index for index, level in enumerate(levels) if level < _DEAD_DB]
        for index in dead:
            channel = ordinal(self.layout.components[index] + 1)
            if _NAMES[index] != "Z":
                raise UnusableContent(
                    f"The {channel} channel ({_NAMES[index]}) of {path} is dead: without it a "
                    "direction cannot be told; check the recorder's channels or --convention."
                )
            self.warnings.append(
                f"The {channel} channel (Z) is silent: the track is planar, which does no harm."
            )
        clipped = float(np.mean([scan.clipped_share for scan in scans]))
        if clipped > _CLIPPED_SHARE:
            raise UnusableContent(
                f"{path} is clipped: {100 * clipped:.0f} % of its samples are at full scale, so "
                "its directions are wrong; use the take before it was overloaded."
            )
        if clipped > 0:
            told = f"{100 * clipped:.2f} %" if clipped >= 5e-5 else "Less than 0.01 %"
            self.warnings.append(f"{told} of the samples are at full scale (clipped).")

    # --- picture ---------------------------------------------------------------------------------

    def window(self, start_s: float, duration_s: float) -> Window | None:
        """Read a window for scoring; shorter, or None, where the picture breaks off early.

        A warning tells of either.
        """
        try:
            seen = self._video.read(
                start_s, duration_s, size=features.PICTURE_SIZE, max_rate_hz=_MAX_RATE_HZ
            )
        except MediaError as error:
            self.warnings.append(f"A window was left out: {error}")
            return None
        if len(seen.times_s) < _LEAST_FRAMES:
            self.warnings.append(
                f"A window was left out: the picture has only {len(seen.times_s)} frames between "
                f"{start_s:.1f} and {start_s + duration_s:.1f} s."
            )
            return None
        seen_s = float(seen.times_s[-1]) - start_s + float(np.median(np.diff(seen.times_s)))
        if seen_s < duration_s - _LEAST_GAP_S:
            self.warnings.append(
                f"The picture breaks off at {start_s + seen_s:.1f} s, though {self.video.path} "
                f"claims {self.video.duration_s:.1f} s."
            )
            duration_s = seen_s
        frames, times_s, refreshed = (
            torch.from_numpy(array).to(self._device)
            for array in (seen.frames, seen.times_s, seen.refreshed)
        )
        motion = features.motion(frames, times_s, refreshed)
        covariance = self.covariance(float(seen.times_s[0]) - _MARGIN_S, seen.times_s)
        moments = self._moments(start_s, duration_s) if self._looks else []
        return Window(start_s, duration_s, covariance, motion, moments)

    def _moments(self, start_s: float, duration_s: float) -> list[Moment]:
        """Colour is decoded once more, for the moments alone; those that cannot be are left out."""
        config, pose = self._looks or AvsaConfig(), math.radians(self.video.pose_yaw_deg)
        found = []
        for at_s in moment_starts(start_s, duration_s, config):
            seen_s, length_s = picture_span(at_s, config)
            try:
                seen = self._video.read(seen_s, length_s, size=FRAME_SIZE, colour=True)
            except MediaError as error:
                self.warnings.append(f"A moment was left out: {error}")
                continue
            crops = crops_around(seen.frames, seen.times_s, seen_s, config)
            if crops is not None:
                field = features.to_analysis_rate(
                    self.field(at_s, config.sound_s), self.audio.samplerate
                )
                cov = config.sound.covariance(torch.from_numpy(field))
                found.append(Moment(crops, features.rotated(cov, -pose) if pose else cov))
        return found

    def as_played(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Colour frames [shape=(..., H, W, 3)] turned as players turn them (pose yaw)."""
        columns = round(self.video.pose_yaw_deg / 360 * frames.shape[-2])
        return np.roll(frames, -columns, axis=-2)


def _check_kind(info: AudioInfo, track: Track) -> None:
    if info.n_channels in (1, 2) and not (track.components or info.components):
        kind = "mono" if info.n_channels == 1 else "stereo"
        if info.n_alike > 1:
            raise UnsupportedMedia(
                f"{info.path} holds {info.n_alike} tracks that are {kind}, not an ambisonic one: "
                f"{_APART.format(info.path.name)} these with --join."
            )
        raise UnsupportedMedia(
            f"{info.path} is {kind}: a rotation needs an ambisonic track of 4 or more channels."
        )


def _layout(info: AudioInfo, track: Track, diagnosis: Diagnosis) -> ChannelLayout:
    """How the track is read: as named, else as declared, else as it surely sounds, else AmbiX."""
    convention = track.convention or Convention(info.convention or Convention.AMBIX)
    carried = info.components if track.convention in (None, info.convention) else None
    components = track.components or carried
    if diagnosis.selection is not None:
        convention = diagnosis.selection.convention
        components = diagnosis.selection.components or components
    if (
        info.convention == convention == Convention.FUMA
        and track.convention is None
        and components is None
        and math.isqrt(info.n_channels) ** 2 != info.n_channels
    ):
        raise UnsupportedMedia(
            f"{info.path} has {info.n_channels} channels, in FuMa a field of mixed order (like "
            "W X Y Z U V), which is not read: take the first 4 as a file of their own. If two are "
            "a head-locked pair, say --convention fuma."
        )
    try:
        return ChannelLayout.of(info.n_channels, convention, components=components)
    except UnsupportedMedia as error:
        raise UnsupportedMedia(f"{info.path}: {error}") from error
