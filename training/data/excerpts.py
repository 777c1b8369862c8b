"""Other windows made of kept ones: parts of them, and pictures with another sound or microphone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from model import features, precedence
from model.scoring import Window
from training.data.microphones import draw_microphone, heard_by
from training.data.soundfield import diffuse_noise


def with_sound(window: Window, covariance: Tensor) -> Window:
    """A window's picture with another sound, as long as the shorter of both."""
    return cut(
        replace(window, covariance=covariance), 0, min(len(covariance), len(window.covariance))
    )


def with_microphone(window: Window, seed: int) -> Window:
    """A window whose sound is heard by a microphone with faults."""
    microphone = draw_microphone(np.random.default_rng([seed, 13]))
    return replace(window, covariance=heard_by(microphone, window.covariance))


def cut(window: Window, first: int, last: int) -> Window:
    """A stretch of a window, in intervals."""
    part = window.part(first, last)
    start_s, end_s = part.motion.edges_s[0], part.motion.edges_s[-1]
    return replace(part, start_s=float(start_s), duration_s=float(end_s - start_s))


def beginning(window: Window, duration_s: float) -> Window:
    """A window's first seconds."""
    n = int((window.motion.edges_s <= duration_s + 1e-6).sum()) - 1
    return cut(window, 0, n)


def thirds(window: Window) -> list[Window]:
    """A window as three in a row."""
    third = len(window.covariance) // 3
    return [cut(window, i * third, (i + 1) * third) for i in range(3)]


def diffuse(seed: int, edges_s: Tensor) -> Tensor:
    """Covariances of diffuse noise between the edges."""
    n = int(float(edges_s[-1]) * features.SAMPLERATE) + 1
    field = diffuse_noise(np.random.default_rng([seed, 8]), n, 1)
    return precedence.covariance(field, edges_s)
