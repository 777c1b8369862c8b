"""Ordinary little videos with sound, as phones and cameras write them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 48_000


def pulses(duration_s: float, per_s: float, rate_hz: float, phase_s: float = 0.0) -> np.ndarray:
    """A level from 0 to 1 that comes and goes, half the time each."""
    t = np.arange(round(duration_s * rate_hz)) / rate_hz - phase_s
    return (np.mod(t * per_s, 1) < 0.5).astype(float)


def write_clip(
    path: Path,
    *,
    duration_s: float = 3.0,
    tone_hz: float = 500.0,
    per_s: float = 1.5,
    phase_s: float = 0.0,
    rate_hz: int = 25,
    size: tuple[int, int] = (64, 96),
    loudness: float = 0.3,
    codec: str = "aac",
    sound_begins_s: float = 0.0,
) -> None:
    """A square that lights up in the middle while it hisses, as H.264 with stereo sound.

    tone_hz : middle of the band that it hisses in, a fifth of it to either side.
    sound_begins_s : in the picture's time; what hisses before is not recorded.
    """
    rows, columns = size
    frames = np.full((round(duration_s * rate_hz), rows, columns), 60, np.uint8)
    lit = 60 + 160 * pulses(duration_s, per_s, rate_hz, phase_s)
    middle = slice(rows // 4, 3 * rows // 4), slice(columns // 3, 2 * columns // 3)
    frames[:, *middle] = lit[:, None, None]
    level = pulses(duration_s, per_s, RATE, phase_s)
    rng = np.random.default_rng(0)
    phases = np.outer(np.linspace(0.8, 1.2, 40), 2 * np.pi * tone_hz * np.arange(len(level)) / RATE)
    hiss = np.sin(phases + rng.uniform(0, 2 * np.pi, (40, 1))).mean(axis=0) * np.sqrt(20)
    tone = loudness * level * hiss
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate_hz, options={"crf": "12"})
        video.width, video.height, video.pix_fmt = columns, rows, "yuv420p"
        sound = container.add_stream(codec, rate=RATE, layout="stereo")
        assert isinstance(sound, av.AudioStream)
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, "gray")))
        container.mux(video.encode(None))
        first = round(sound_begins_s * RATE)
        stereo = np.stack([tone[first:], tone[first:]]).astype(np.float32)
        block = av.AudioFrame.from_ndarray(stereo, "fltp", "stereo")
        block.sample_rate, block.pts, block.time_base = RATE, first, Fraction(1, RATE)
        resampler = av.AudioResampler(format=sound.format, frame_size=sound.frame_size or 1024)
        for packed in [*resampler.resample(block), *resampler.resample(None)]:
            container.mux(sound.encode(packed))
        container.mux(sound.encode(None))
