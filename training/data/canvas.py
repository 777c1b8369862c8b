"""What bodies are drawn on: frames, the surroundings behind everything, and what befalls the whole.

What is drawn by lot is drawn by NumPy on the processor, so that a seed is one scene everywhere; all
else is done where the frames are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.data.materials import NOTHING, Materials
from training.data.signals import CURVE_RATE, smooth_noise

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Canvas:
    """Frames to draw on, and their times.

    Attributes
    ----------
    frames : [shape=(T, H, W, channels)], uint8; one channel (grey) or three (RGB).
    times_s : [shape=(T,)].
    """

    frames: Tensor
    times_s: FloatArray

    @property
    def device(self) -> torch.device:
        """Where it is drawn."""
        return self.frames.device

    def curve(self, values: FloatArray) -> Tensor:
        """A curve at `CURVE_RATE`, at the frames' times, float64."""
        at_frames = np.interp(self.times_s, np.arange(len(values)) / CURVE_RATE, values)
        return torch.from_numpy(at_frames).to(self.device)


def draw_surroundings(
    rng: np.random.Generator,
    height: int,
    materials: Materials = NOTHING,
    device: torch.device | str = "cpu",
) -> Tensor:
    """What stands behind everything, [shape=(H, 2 H, 3)], 0 to 1."""
    real = materials.panoramas and rng.random() < 0.7
    panorama = materials.panorama(rng, height) if real else None
    background = draw_background(rng, height, 2 * height, panorama, device)
    return stitch(rng, background) if rng.random() < 0.3 else background


def blank(background: Tensor, times_s: FloatArray) -> Canvas:
    """A background [shape=(H, W, channels)], 0 to 1, on every frame."""
    still = (background * 255 + 0.5).to(torch.uint8)
    return Canvas(still.repeat(len(times_s), 1, 1, 1), times_s)


def draw_background(
    rng: np.random.Generator,
    height: int,
    width: int,
    panorama: NDArray[np.uint8] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A still scene, [shape=(H, W, 3)], 0 to 1: sky, ground, and texture at several scales.

    panorama : a real one to use in its place, [shape=(H, W, 3)]; turned by a random angle.
    """

    def lot(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(device, torch.float32)

    if panorama is not None:
        turned = np.roll(panorama, rng.integers(width), axis=1)
        return (lot(turned) / 255.0 * rng.uniform(0.5, 1.2)).clamp(0, 1)
    down = torch.linspace(1, -1, height, device=device)[:, None, None]
    sky, ground = lot(rng.uniform(0.25, 0.95, 3)), lot(rng.uniform(0.1, 0.6, 3))
    horizon = torch.sigmoid(down * rng.uniform(5, 40))
    scene = horizon * sky + (1 - horizon) * ground
    texture = torch.zeros(height, width, device=device)
    for scale in (0.003, 0.01, 0.03, 0.1):
        layer = blurred(lot(rng.standard_normal((height, width))), scale * width)
        texture += rng.uniform(0.1, 1) * layer / layer.std(correction=0)
    texture *= rng.uniform(0.02, 0.16) / texture.std(correction=0)
    return (scene + texture[..., None] * lot(rng.uniform(0.6, 1.0, 3))).clamp(0, 1)


def blurred(picture: Tensor, sigma: float) -> Tensor:
    """A picture [shape=(H, W)] after a Gaussian filter, around in azimuth, in pixels.

    As `scipy.ndimage.gaussian_filter(..., mode=("nearest", "wrap"))`.
    """
    radius = int(4 * sigma + 0.5)
    at = torch.arange(-radius, radius + 1, device=picture.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(picture.dtype)
    rows = functional.pad(picture[None, None], (0, 0, radius, radius), mode="replicate")
    across = functional.conv2d(rows, kernel[None, None, :, None])
    around = functional.pad(across, (radius, radius, 0, 0), mode="circular")
    return functional.conv2d(around, kernel[None, None, None])[0, 0]


def stitch(rng: np.random.Generator, background: Tensor) -> Tensor:
    """A background as several lenses see it: steps of brightness where their pictures meet."""
    width = background.shape[1]
    seams = np.sort(rng.integers(0, width, int(rng.integers(2, 7))))
    lens = np.searchsorted(seams, np.arange(width), side="right") % len(seams)
    gains = 1 + rng.uniform(0, 0.08) * rng.standard_normal(len(seams))
    return (background * torch.from_numpy(gains[lens]).to(background)[None, :, None]).clamp(0, 1)


def disturb(rng: np.random.Generator, canvas: Canvas, *, flicker: float, noise: float) -> None:
    """Exposure flicker and sensor noise, in place; `noise` in grey levels."""
    frames = canvas.frames
    _, height, width, _ = frames.shape
    gain = 1 + flicker * smooth_noise(rng, len(frames), 3 / CURVE_RATE)
    # Each frame's grain is a stretch of one long strip: drawing it takes longer than all else.
    strip = rng.standard_normal((4 * height, width), dtype=np.float32)[..., None] * noise + 0.5
    strips = torch.from_numpy(strip).to(canvas.device)
    for frame, factor in zip(frames, gain.tolist(), strict=True):
        first = int(rng.integers(3 * height))
        grain = strips[first : first + height].roll(int(rng.integers(width)), 1)
        frame.copy_(grain.add(frame, alpha=factor).clamp_(0, 255))


def shake(rng: np.random.Generator, canvas: Canvas, amount_rad: float) -> None:
    """Small turns of the camera about the vertical, in place, by fractions of a column."""
    frames = canvas.frames
    width = frames.shape[2]
    turns = shake_turns(rng, len(frames), amount_rad)
    for frame, turn in zip(frames, (turns * width / (2 * np.pi)).tolist(), strict=True):
        whole = int(np.floor(turn))
        before, after = frame.roll(whole, 1).float(), frame.roll(whole + 1, 1).float()
        frame.copy_(torch.lerp(before, after, turn - whole) + 0.5)


def shake_turns(rng: np.random.Generator, n_frames: int, amount_rad: float) -> FloatArray:
    """How far the camera's trembling turns each frame to the right, radians."""
    return amount_rad * smooth_noise(rng, n_frames, 4 / CURVE_RATE)
