"""What is where in a synthetic scene: class maps that fit its rendered picture.

Bodies and surroundings stand in for classes of the published list, each kind for one of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.canvas import Canvas, draw_surroundings, shake_turns
from training.data.picture import Blob, Body, Figure, Hammer, Patch, Texture, Vehicle
from training.data.scenes import Scene
from training.data.segmentation import CLASSES, NO_STUFF, NO_THING

UNSURE = NO_THING + NO_STUFF
_STANDS_FOR: dict[type[Body], str] = {
    Figure: "person", Vehicle: "car", Texture: "sea", Blob: "potted plant", Patch: "tv",
    Hammer: "chair",
}  # fmt: skip
_HORIZON_RAD = np.deg2rad(4)  # to either side of it, sky and ground blend


def class_of(body: Body) -> int:
    """Class index of a body (things, then 80 + stuff); sparks and spray are of none."""
    return CLASSES[_STANDS_FOR[type(body)]] if type(body) in _STANDS_FOR else UNSURE


def render_classes(scene: Scene, *, height: int, rate_hz: float, every: int) -> NDArray[np.uint8]:
    """Class maps of every so many frames of `render_picture` at that height and rate.

    The scene's surroundings are drawn ones (sky over grass), not a panorama.

    Returns [shape=(T, height, 2 height)]: things, then 80 + stuff, or `UNSURE`.
    """
    rng = np.random.default_rng([scene.seed, 2])
    draw_surroundings(rng, height)  # what is drawn after it follows from the same numbers
    n_frames = round(scene.conditions.duration_s * rate_hz)
    times_s = np.arange(0, n_frames, every) / rate_hz
    elevation = np.pi * (0.5 - (np.arange(height) + 0.5) / height)
    behind = np.where(elevation > 0, CLASSES["sky"], CLASSES["grass"])
    behind[np.abs(elevation) < _HORIZON_RAD] = UNSURE
    frames = np.broadcast_to(
        behind.astype(np.uint8)[:, None, None], (len(times_s), height, 2 * height, 1)
    )
    canvas = Canvas(torch.from_numpy(frames.copy()), times_s)
    for body in scene.bodies:
        body.cover(canvas, class_of(body))
    if scene.shake_rad:
        turns = shake_turns(rng, n_frames, scene.shake_rad)[::every]
        for frame, turn in zip(canvas.frames, turns * 2 * height / (2 * np.pi), strict=True):
            frame.copy_(frame.roll(round(float(turn)), 1))
    return canvas.frames[..., 0].numpy()
