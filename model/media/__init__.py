"""Files in and out: the only part of the project that touches FFmpeg and libsndfile."""

from model.media.audio import AudioInfo, AudioReader, open_audio
from model.media.clock import Clock, ClockResampler, on_camera_clock
from model.media.container import check_readable, picture_begins_s, reading
from model.media.correct import FLOAT32, Correction, Laying, file_sha256, write_corrected
from model.media.declared import Carrier
from model.media.embedded import is_embedded
from model.media.mixing import not_finite
from model.media.spherical import Spherical
from model.media.split import open_split_audio
from model.media.suffixes import FUMA_SUFFIX, Rewriting, check_suffix, output_suffix
from model.media.video import Stereo, VideoInfo, VideoReader, VideoWindow

__all__ = [
    "FLOAT32",
    "FUMA_SUFFIX",
    "AudioInfo",
    "AudioReader",
    "Carrier",
    "Clock",
    "ClockResampler",
    "Correction",
    "Laying",
    "Rewriting",
    "Spherical",
    "Stereo",
    "VideoInfo",
    "VideoReader",
    "VideoWindow",
    "check_readable",
    "check_suffix",
    "file_sha256",
    "is_embedded",
    "not_finite",
    "on_camera_clock",
    "open_audio",
    "open_split_audio",
    "output_suffix",
    "picture_begins_s",
    "reading",
    "write_corrected",
]
