"""Where a track lies in the picture's time: as told, by a container's clock, or by camera sound.

Cameras record sound of their own beside the picture. It need not be ambisonic or good: it tells
where an external track begins and how its clock drifts (`model.sync`), before any angle is asked
for, and that a track does not belong to the footage at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from model.errors import InputError
from model.media import AudioReader, Clock, VideoInfo, open_audio
from model.sync import WORTH_TELLING_S, Belonging, Synchronisation, synchronise


@dataclass(frozen=True)
class Placement(Clock):
    """A track's clock against the camera's picture, which begins at 0.

    Attributes
    ----------
    sync : what the camera's own sound says; None if it was not asked or has none.
    note : what is to be told of it, if anything.
    """

    sync: Synchronisation | None = None
    note: str | None = None

    @property
    def foreign(self) -> bool:
        """Whether the track does not belong to the footage."""
        return self.sync is not None and self.sync.belonging is Belonging.FOREIGN


def placed(
    video: VideoInfo,
    track: AudioReader,
    *,
    w_channel: int,
    shared: bool,
    offset_s: float | None,
) -> Placement:
    """Place a track.

    w_channel : the track's file channel that is W.
    shared : the track is the sound inside the video's own file.
    offset_s : where the user says that it begins.
    """
    if offset_s is not None:
        return Placement(offset_s)
    if shared:
        return Placement(track.info.start_s - video.start_s)
    if not video.has_sound:
        return Placement()
    try:
        with open_audio(video.path) as camera:
            sync = synchronise(camera, track, w_channel=w_channel)
            camera_start_s = camera.info.start_s - video.start_s
    except InputError as error:
        return Placement(note=f"The camera's own sound does not help to place the track: {error}")
    if sync.belonging is not Belonging.SYNCHRONISED:
        taken = "" if sync.belonging is Belonging.FOREIGN else " It is taken to begin at 0."
        return Placement(sync=sync, note=f"By the camera's own sound: {sync.reason}{taken}")
    placement = Placement(sync.offset_s + camera_start_s, sync.drift_ppm, sync)
    end_s = placement.camera_s(track.info.duration_s) - track.info.duration_s
    if max(abs(placement.offset_s), abs(end_s)) < WORTH_TELLING_S:
        return placement
    note = (
        f"By the camera's own sound the track begins at {placement.offset_s:+z.3f} s of the "
        f"picture and its clock drifts by {sync.drift_ppm:+z.1f} ppm."
    )
    return replace(placement, note=note)
