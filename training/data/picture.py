"""A procedural 360 picture: a background, and bodies that move on it.

A body is drawn on a small grid around its place, in radians on the sphere: `x` to the left
(the sense of azimuth), `y` up. Curves are given per frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from training.data.signals import CURVE_RATE, smooth_noise

FloatArray = NDArray[np.float64]
Colour = FloatArray  # [shape=(3,)], 0 to 1
Pixels = NDArray[np.int64]
AtFrames = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Canvas:
    """Frames to draw on, and their times.

    Attributes
    ----------
    frames : [shape=(T, H, W, channels)], uint8; one channel (grey) or three (RGB).
    times_s : [shape=(T,)].
    """

    frames: NDArray[np.uint8]
    times_s: FloatArray

    def curve(self, values: FloatArray) -> FloatArray:
        """A curve at `CURVE_RATE`, at the frames' times."""
        return np.interp(self.times_s, np.arange(len(values)) / CURVE_RATE, values)


def draw_background(
    rng: np.random.Generator, height: int, width: int, panorama: NDArray[np.uint8] | None = None
) -> FloatArray:
    """A still scene, [shape=(H, W, 3)], 0 to 1: sky, ground, and texture at several scales.

    panorama : a real one to use in its place, [shape=(H, W, 3)]; turned by a random angle.
    """
    if panorama is not None:
        picture = np.roll(panorama, rng.integers(width), axis=1) / 255.0
        return np.clip(picture * rng.uniform(0.5, 1.2), 0, 1)
    down = np.linspace(1, -1, height)[:, None, None]
    sky, ground = rng.uniform(0.25, 0.95, 3), rng.uniform(0.1, 0.6, 3)
    horizon = 1 / (1 + np.exp(-down * rng.uniform(5, 40)))
    scene = horizon * sky + (1 - horizon) * ground
    texture = np.zeros((height, width))
    for scale in (0.003, 0.01, 0.03, 0.1):
        layer = gaussian_filter(
            rng.standard_normal((height, width)), scale * width, mode=("nearest", "wrap")
        )
        texture += rng.uniform(0.1, 1) * layer / layer.std()
    texture *= rng.uniform(0.02, 0.16) / texture.std()
    return np.clip(scene + texture[..., None] * rng.uniform(0.6, 1.0, 3), 0, 1)


@dataclass
class Body(ABC):
    """Something drawn at a place that moves.

    Attributes
    ----------
    azimuth, elevation : path at `CURVE_RATE`, radians.
    drive : how far it moves at each moment, about 0 to 1, at `CURVE_RATE`.
    radius : half its size, radians.
    """

    azimuth: FloatArray
    elevation: FloatArray
    drive: FloatArray
    radius: float
    colour: Colour
    amount: float  # how strongly the drive shows

    @abstractmethod
    def paint(self, x: FloatArray, y: FloatArray, at: AtFrames) -> tuple[FloatArray, FloatArray]:
        """Opacity and brightness factor [shape=(T, h, w)] at local radians.

        at : gives a curve's values at the frames, [shape=(T, 1, 1)].
        """

    @property
    def reach(self) -> float:
        """Half the size of the square that holds the body in all its positions."""
        return self.radius * (1.2 + self.amount)

    def still(self, factor: float) -> None:
        """Make it move less, by a factor."""
        self.amount *= factor

    def draw(self, canvas: Canvas) -> None:
        """Draw the body over the canvas."""
        at, opacity, brightness = self._stamp(canvas)
        colour = self.colour if canvas.frames.shape[3] == 3 else self.colour.mean(keepdims=True)
        paint = np.clip(brightness[..., None] * colour, 0, 1) * 255
        region = canvas.frames[at]
        mixed = region + opacity[..., None] * (paint - region)
        canvas.frames[at] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)

    def cover(self, canvas: Canvas, value: int) -> None:
        """Write a value wherever the body hides more than half of what is behind it."""
        at, opacity, _ = self._stamp(canvas)
        region = canvas.frames[at]
        canvas.frames[at] = np.where(opacity[..., None] > 0.5, np.uint8(value), region)

    def _stamp(self, canvas: Canvas) -> tuple[tuple[Pixels, ...], FloatArray, FloatArray]:
        """Where the body is on each frame, and its opacity and brightness there [shape=(T, h, w)].

        The first is an index of that shape: frame, row and column.
        """
        n_frames, height, width, _ = canvas.frames.shape
        pixel = np.pi / height
        azimuth = canvas.curve(np.unwrap(self.azimuth))
        elevation = canvas.curve(self.elevation)
        row = (0.5 - elevation / np.pi) * height - 0.5
        column = (0.5 - azimuth / (2 * np.pi)) * width - 0.5
        narrowing = max(0.3, float(np.cos(np.abs(elevation).max())))
        half = int(np.ceil(self.reach / pixel)) + 1
        half_wide = min(width // 2 - 1, int(np.ceil(half * width / (2 * height) / narrowing)))
        rows = np.round(row).astype(int)[:, None] + np.arange(-half, half + 1)
        columns = np.round(column).astype(int)[:, None] + np.arange(-half_wide, half_wide + 1)
        y = (row[:, None] - rows) * pixel
        x = (column[:, None] - columns) * (2 * np.pi / width) * np.cos(elevation)[:, None]
        opacity, brightness = self.paint(
            x[:, None, :], y[:, :, None], lambda values: canvas.curve(values)[:, None, None]
        )
        inside = (rows >= 0) & (rows < height)
        at = (
            np.arange(n_frames)[:, None, None],
            np.clip(rows, 0, height - 1)[:, :, None],
            (columns % width)[:, None, :],
        )
        return at, opacity * inside[:, :, None], brightness


def _soft(distance: FloatArray, edge: float) -> FloatArray:
    """1 inside (positive distance), 0 outside, over an edge of the given width."""
    return np.clip(distance / edge + 0.5, 0, 1)


@dataclass
class Blob(Body):
    """A textured ellipse that grows, brightens, bobs, walks about, or ripples with its drive."""

    ways: frozenset[str] = frozenset({"grow"})
    aspect: float = 1.0
    ripple: tuple[float, float, float] = (0.2, 10.0, 10.0)  # depth, frequencies
    heading: tuple[float, float] = (1.0, 0.0)

    def paint(self, x: FloatArray, y: FloatArray, at: AtFrames) -> tuple[FloatArray, FloatArray]:
        r, g, drive = self.radius, self.amount, at(self.drive)
        travelled = at(np.cumsum(self.drive) / CURVE_RATE)
        if "bob" in self.ways:
            x, y = x - g * r * drive * self.heading[0], y - g * r * drive * self.heading[1]
        if "walk" in self.ways:
            x = x - g * r * np.sin(6 * travelled)
        size = r * (1 + 0.6 * g * drive) if "grow" in self.ways else r
        distance = size - np.hypot(x / self.aspect, y * self.aspect)
        opacity = _soft(distance, 0.15 * r)
        if "appear" in self.ways:
            opacity = opacity * np.clip(0.25 + 1.5 * drive, 0, 1)
        depth, across, along = self.ripple
        phase = 15 * g * travelled if "ripple" in self.ways else 0.0
        brightness = 1 + depth * np.sin(x / r * across + phase) * np.cos(y / r * along)
        if "brighten" in self.ways:
            brightness = brightness + 0.9 * g * drive
        return opacity, brightness


@dataclass
class Figure(Body):
    """A person: trunk, head, a mouth that opens and arms that move; `radius` is half the height."""

    speaks: bool = True
    arm: FloatArray = field(default_factory=lambda: np.zeros(2))  # arms' own movement, a curve
    shade: float = 0.5

    def still(self, factor: float) -> None:
        super().still(factor)
        self.arm = factor * self.arm

    def paint(self, x: FloatArray, y: FloatArray, at: AtFrames) -> tuple[FloatArray, FloatArray]:
        r, drive = self.radius, at(self.drive)
        edge = 0.06 * r
        trunk = 0.34 * r - np.hypot(x, (y + 0.45 * r) / 1.7)
        head = 0.2 * r - np.hypot(x, y - 0.45 * r)
        opening = self.amount * drive * (0.09 if self.speaks else 0.0) * r
        mouth = 1 - np.hypot(x / (0.08 * r), (y - 0.37 * r) / (opening + 0.012 * r))
        # Arms from the shoulders, turned by the drive (playing, gesturing) and by themselves.
        sway = at(self.arm)
        moved = 0.0 if self.speaks else self.amount * drive
        arms = np.full(np.broadcast_shapes(x.shape, y.shape), -1.0)
        for side in (-1.0, 1.0):
            angle = -0.9 + 0.9 * moved + 0.5 * sway * side
            hand_x, hand_y = side * np.cos(angle) * 0.6 * r, np.sin(angle) * 0.6 * r
            arms = np.maximum(arms, 0.07 * r - _to_segment(x - side * 0.25 * r, y, hand_x, hand_y))
        opacity = np.maximum.reduce([_soft(part, edge) for part in (trunk, head, arms)])
        brightness = 1 - self.shade * _soft(trunk, edge) * (1 - _soft(head, edge))
        return opacity, brightness * (1 - 0.8 * _soft(mouth, 0.3) * _soft(head, edge))


def _to_segment(x: FloatArray, y: FloatArray, end_x: FloatArray, end_y: FloatArray) -> FloatArray:
    """Distance to the segment from the origin to (end_x, end_y)."""
    length = end_x**2 + end_y**2 + 1e-12
    along = np.clip((x * end_x + y * end_y) / length, 0, 1)
    return np.hypot(x - along * end_x, y - along * end_y)


@dataclass
class Hammer(Body):
    """A body that strikes: it rises, falls, and stops at the moment of the sound."""

    def paint(self, x: FloatArray, y: FloatArray, at: AtFrames) -> tuple[FloatArray, FloatArray]:
        r = self.radius
        height = 0.9 * self.amount * r * (1 - np.clip(at(self.drive), 0, 1))
        ball = 0.3 * r - np.hypot(x, y - height + 0.3 * r)
        anvil = np.minimum(0.5 * r - np.abs(x), 0.15 * r - np.abs(y + 0.75 * r))
        brightness = 1.0 - 0.6 * _soft(anvil, 0.06 * r)
        return np.maximum(_soft(ball, 0.06 * r), _soft(anvil, 0.06 * r)), brightness


@dataclass
class Vehicle(Body):
    """A box on wheels whose body trembles with its drive; its path does the moving."""

    def paint(self, x: FloatArray, y: FloatArray, at: AtFrames) -> tuple[FloatArray, FloatArray]:
        r = self.radius
        shaken = y - 0.06 * r * self.amount * at(self.drive)
        box = np.minimum(r - np.abs(x), 0.35 * r - np.abs(shaken - 0.05 * r))
        cabin = np.minimum(0.4 * r - np.abs(x + 0.3 * r), 0.3 * r - np.abs(shaken - 0.5 * r))
        wheels = 0.22 * r - np.minimum(
            np.hypot(x - 0.6 * r, y + 0.35 * r), np.hypot(x + 0.6 * r, y + 0.35 * r)
        )
        opacity = np.maximum.reduce([_soft(part, 0.08 * r) for part in (box, cabin, wheels)])
        brightness = 1 - 0.6 * _soft(wheels, 0.08 * r) - 0.3 * _soft(cabin, 0.08 * r)
        return opacity, brightness


@dataclass
class Texture(Body):
    """Moving stuff over a wide stretch: surf, river, leaves; brighter and faster with its drive.

    boil : how much of it is a second pattern that goes the other way, so that the sum changes
        in place rather than drifts.
    """

    pattern: FloatArray = field(default_factory=lambda: np.zeros((8, 8)))
    height: float = 0.2
    speed: tuple[float, float] = (0.3, 0.1)
    contrast: float = 0.2
    boil: float = 0.0

    def paint(self, x: FloatArray, y: FloatArray, at: AtFrames) -> tuple[FloatArray, FloatArray]:
        cells = self.pattern.shape[0] / max(self.radius, 0.3)
        drive = at(self.drive)
        travelled = at(np.cumsum(0.4 + self.amount * self.drive) / CURVE_RATE)
        pattern = self._moved(x, y, travelled, cells)
        if self.boil:
            back = self._moved(x + 1.0, y + 0.7, -travelled, 1.3 * cells)
            pattern = (pattern + self.boil * back) / np.hypot(1, self.boil)
        edge = 0.25 * self.height
        opacity = _soft(self.radius - np.abs(x), edge) * _soft(self.height - np.abs(y), edge)
        return opacity * 0.9, 1 + self.contrast * pattern * (0.7 + 0.6 * self.amount * drive)

    def _moved(
        self, x: FloatArray, y: FloatArray, travelled: FloatArray, cells: float
    ) -> FloatArray:
        up = (y + travelled * self.speed[1]) * cells
        across = (x + travelled * self.speed[0] + 0 * y) * cells
        up, across = np.broadcast_arrays(up, across)
        return np.asarray(map_coordinates(self.pattern, [up, across], order=1, mode="grid-wrap"))


@dataclass
class Patch(Body):
    """A piece of other footage: a textured frame that trembles, with things that move within it.

    Attributes
    ----------
    pattern : what covers it, a periodic texture.
    shows : how much its contrast follows its drive (0 to 1).
    tremble : its own movement across and up, radians, curves.
    movers : blobs within it, each with its own drive, at an offset (x, y) in radii.
    """

    pattern: FloatArray = field(default_factory=lambda: np.zeros((8, 8)))
    aspect: float = 1.0
    contrast: float = 0.15
    shows: float = 0.0
    tremble: tuple[FloatArray, FloatArray] = field(
        default_factory=lambda: (np.zeros(2), np.zeros(2))
    )
    movers: tuple[tuple[float, float, Blob], ...] = ()

    @property
    def reach(self) -> float:
        return self.radius * max(1.0, self.aspect) * 1.05

    def still(self, factor: float) -> None:
        super().still(factor)
        self.tremble = (factor * self.tremble[0], factor * self.tremble[1])
        for _, _, mover in self.movers:
            mover.still(factor)

    def paint(self, x: FloatArray, y: FloatArray, at: AtFrames) -> tuple[FloatArray, FloatArray]:
        r = self.radius
        edge = 0.05 * r
        opacity = _soft(r - np.abs(x), edge) * _soft(r * self.aspect - np.abs(y), edge)
        cells = self.pattern.shape[0] / max(3 * r, 0.1)
        up, across = np.broadcast_arrays(
            (y + at(self.tremble[1])) * cells, (x + at(self.tremble[0])) * cells
        )
        contrast = self.contrast * (1 - self.shows + self.shows * at(self.drive))
        brightness = 1 + contrast * map_coordinates(
            self.pattern, [up, across], order=1, mode="grid-wrap"
        )
        for right, above, mover in self.movers:
            part, shade = mover.paint(x - right * r, y - above * r * self.aspect, at)
            tone = float(mover.colour.mean() / (self.colour.mean() + 0.05))
            brightness = brightness + part * (shade * tone - brightness)
        return opacity, brightness


@dataclass
class Particles(Body):
    """Many small things that burst forth with each onset and fall: sparks, spray, leaves."""

    starts: FloatArray = field(default_factory=lambda: np.zeros((4, 3)))  # x, y (radii), phase
    speed: float = 1.0

    def paint(self, x: FloatArray, y: FloatArray, at: AtFrames) -> tuple[FloatArray, FloatArray]:
        r, drive = self.radius, at(self.drive)
        clock = at(np.arange(len(self.drive)) / CURVE_RATE)
        opacity = np.zeros(np.broadcast_shapes(x.shape, y.shape))
        for start_x, start_y, phase in self.starts:
            age = (clock * self.speed + phase) % 1.0
            fall = start_y - 1.2 * age**2 + 0.6 * age
            distance = np.hypot(x - r * start_x * (0.3 + age), y - r * fall)
            opacity = np.maximum(opacity, _soft(0.07 * r - distance, 0.04 * r))
        return opacity * np.clip(1.6 * self.amount * drive, 0, 1), 1 + 0.2 * drive + 0 * opacity


def random_pattern(rng: np.random.Generator, size: int = 64) -> FloatArray:
    """A periodic texture of unit deviation, [shape=(size, size)]."""
    pattern = gaussian_filter(rng.standard_normal((size, size)), rng.uniform(0.7, 2.5), mode="wrap")
    return np.asarray(pattern / pattern.std())


def stitch(rng: np.random.Generator, background: FloatArray) -> FloatArray:
    """A background as several lenses see it: steps of brightness where their pictures meet."""
    seams = np.sort(rng.integers(0, background.shape[1], int(rng.integers(2, 7))))
    lens = np.searchsorted(seams, np.arange(background.shape[1]), side="right") % len(seams)
    gains = 1 + rng.uniform(0, 0.08) * rng.standard_normal(len(seams))
    return np.clip(background * gains[lens][None, :, None], 0, 1)


def disturb(rng: np.random.Generator, canvas: Canvas, *, flicker: float, noise: float) -> None:
    """Exposure flicker and sensor noise, in place; `noise` in grey levels."""
    frames = canvas.frames
    _, height, width, _ = frames.shape
    gain = 1 + flicker * smooth_noise(rng, len(frames), 3 / CURVE_RATE)
    # Each frame's grain is a stretch of one long strip: drawing it takes longer than all else.
    strip = rng.standard_normal((4 * height, width), dtype=np.float32)[..., None] * noise + 0.5
    for index, factor in enumerate(gain.astype(np.float32)):
        first = rng.integers(3 * height)
        grain = np.roll(strip[first : first + height], rng.integers(width), axis=1)
        frames[index] = np.clip(frames[index] * factor + grain, 0, 255).astype(np.uint8)


def shake(rng: np.random.Generator, canvas: Canvas, amount_rad: float) -> None:
    """Small turns of the camera about the vertical, in place, by fractions of a column."""
    frames = canvas.frames
    width = frames.shape[2]
    turns = shake_turns(rng, len(frames), amount_rad)
    for index, turn in enumerate(turns * width / (2 * np.pi)):
        whole = int(np.floor(turn))
        part = turn - whole
        mixed = (1 - part) * np.roll(frames[index], whole, 1) + part * np.roll(
            frames[index], whole + 1, 1
        )
        frames[index] = (mixed + 0.5).astype(np.uint8)


def shake_turns(rng: np.random.Generator, n_frames: int, amount_rad: float) -> FloatArray:
    """How far the camera's trembling turns each frame to the right, radians."""
    return amount_rad * smooth_noise(rng, n_frames, 4 / CURVE_RATE)
