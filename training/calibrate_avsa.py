"""Synthetic takes as an AVSA checkpoint judges them, for `python -m training.calibrate`.

    python -m training.calibrate --method avsa --checkpoint avsa.safetensors --scenes 200

Scenes are rendered in colour at the size that the product reads pictures at, and judged at the same
moments: 10 s as one window, 30 s as three. The picture of one scene with the sound of the scene
before, and with diffuse noise, is what nothing fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model import features
from model.judges import AvsaScorer
from model.moments import FRAME_SIZE, Moment, crops_around, moment_starts, picture_span
from model.networks.avsa import AvsaConfig
from model.selection import WINDOW_S
from training.data.scenes import Conditions, draw_scene, render_picture, render_sound
from training.data.soundfield import diffuse_noise

LONG_WINDOWS = 3
# What a take hears that fits nothing, by the number of its scene.
_FOREIGN_EVERY, _NOISE_EVERY = 3, 8


def rendered_moments(seed: int, n_windows: int, config: AvsaConfig) -> list[list[Moment]]:
    """The moments of each window of a scene that fits at a rotation of 0."""
    scene = draw_scene(seed, Conditions(duration_s=n_windows * WINDOW_S))
    rate_hz = config.frame_rate_hz
    frames = render_picture(scene, height=FRAME_SIZE[0], rate_hz=rate_hz, colour=True).numpy()
    field = render_sound(scene, samplerate=features.SAMPLERATE).numpy()
    times_s = np.arange(len(frames)) / rate_hz
    n_samples = round(config.sound_s * features.SAMPLERATE)
    windows = []
    for window in range(n_windows):
        moments = []
        for at_s in moment_starts(window * WINDOW_S, WINDOW_S, config):
            seen_s, length_s = picture_span(at_s, config)
            near = (times_s >= seen_s - 0.5 / rate_hz) & (times_s < seen_s + length_s)
            crops = crops_around(frames[near], times_s[near], seen_s, config)
            if crops is None:
                raise ValueError(f"scene {seed} has too few frames at {seen_s} s")
            first = round(at_s * features.SAMPLERATE)
            stretch = torch.from_numpy(field[:, first : first + n_samples])
            moments.append(Moment(crops, config.sound.covariance(stretch)))
        windows.append(moments)
    return windows


def with_sound(moments: Sequence[Moment], others: Sequence[Moment]) -> list[Moment]:
    """The picture of moments with the sound of others."""
    return [
        replace(moment, covariance=other.covariance)
        for moment, other in zip(moments, others, strict=True)
    ]


def with_noise(moments: Sequence[Moment], seed: int, config: AvsaConfig) -> list[Moment]:
    """The picture of moments with diffuse noise."""
    rng = np.random.default_rng([seed, 8])
    n_samples = round(config.sound_s * features.SAMPLERATE)
    return [
        replace(
            moment,
            covariance=config.sound.covariance(diffuse_noise(rng, n_samples, 1)),
        )
        for moment in moments
    ]


def judged_takes(
    scorer: AvsaScorer, *, seed: int, n_scenes: int, n_long: int
) -> Iterator[tuple[str, Tensor]]:
    """Kind of each take, and the cue `AVSA` of its windows, [shape=(W, 1, R)]."""
    config = scorer.config

    def cues(windows: Sequence[Sequence[Moment]]) -> Tensor:
        return torch.stack([scorer.log_evidence(moments) for moments in windows])[:, None]

    before: list[Moment] | None = None
    for index in range(n_scenes):
        (moments,) = rendered_moments(seed + index, 1, config)
        yield "matched", cues([moments])
        if before is not None and index % _FOREIGN_EVERY == 0:
            yield "foreign", cues([with_sound(moments, before)])
        if index % _NOISE_EVERY == 0:
            yield "noise", cues([with_noise(moments, index, config)])
        before = moments
    for index in range(n_long):
        yield "long", cues(rendered_moments(seed + n_scenes + index, LONG_WINDOWS, config))
