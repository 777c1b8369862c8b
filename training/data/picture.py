"""Bodies that move on a 360 picture.

A body is drawn on a small grid around its place, in radians on the sphere: `x` to the left
(the sense of azimuth), `y` up. Curves are given per frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from training.data.canvas import Canvas
from training.data.signals import CURVE_RATE, Envelope

FloatArray = NDArray[np.float64]
Colour = FloatArray  # [shape=(3,)], 0 to 1
AtFrames = Callable[[FloatArray], Tensor]


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
    def paint(self, x: Tensor, y: Tensor, at: AtFrames) -> tuple[Tensor, Tensor]:
        """Opacity and brightness factor [shape=(T, h, w)] at local radians, or of a shape that is
        broadcast to it.

        at : gives a curve's values at the frames, [shape=(T, 1, 1)].
        """

    @property
    def aside(self) -> tuple[FloatArray, FloatArray]:
        """Where what sounds is beside the path, to the left and up, curves in radians."""
        return np.zeros_like(self.drive), np.zeros_like(self.drive)

    @property
    def heard_from(self) -> tuple[FloatArray, FloatArray]:
        """Azimuth and elevation of what sounds, curves as the path."""
        left, up = self.aside
        azimuth = np.unwrap(self.azimuth) + left / np.cos(self.elevation)
        return azimuth, np.clip(self.elevation + up, -np.pi / 2, np.pi / 2)

    @property
    def reach(self) -> tuple[float, float]:
        """Half the width and height of what holds the body in all its positions, radians."""
        side = self.radius * (1.2 + self.amount)
        return side, side

    def still(self, factor: float) -> None:
        """Make it move less, by a factor."""
        self.amount *= factor

    def draw(self, canvas: Canvas) -> None:
        """Draw the body over the canvas."""
        stamp = self._stamp(canvas)
        colour = self.colour if canvas.frames.shape[3] == 3 else self.colour.mean(keepdims=True)
        tint = torch.from_numpy(colour).to(canvas.device, torch.float32)
        paint = (stamp.brightness[:, None] * tint).clamp(0, 1) * 255
        behind = canvas.frames.view(-1, canvas.frames.shape[3])[stamp.at]
        mixed = behind + stamp.opacity[:, None] * (paint - behind)
        self._write(canvas, stamp.at, (mixed + 0.5).clamp(0, 255).to(torch.uint8))

    def cover(self, canvas: Canvas, value: int) -> None:
        """Write a value wherever the body hides more than half of what is behind it."""
        stamp = self._stamp(canvas)
        hidden = stamp.at[stamp.opacity > 0.5]
        self._write(canvas, hidden, torch.tensor(value, dtype=torch.uint8, device=canvas.device))

    @staticmethod
    def _write(canvas: Canvas, at: Tensor, values: Tensor) -> None:
        canvas.frames.view(-1, canvas.frames.shape[3])[at] = values

    def _stamp(self, canvas: Canvas) -> _Stamp:
        n_frames, height, width, _ = canvas.frames.shape
        device, pixel = canvas.device, np.pi / height
        azimuth = canvas.curve(np.unwrap(self.azimuth))
        elevation = canvas.curve(self.elevation)
        row = (0.5 - elevation / np.pi) * height - 0.5
        column = (0.5 - azimuth / (2 * np.pi)) * width - 0.5
        narrowing = max(0.3, float(elevation.abs().max().cos()))
        across, up = (int(np.ceil(reach / pixel)) + 1 for reach in self.reach)
        half_wide = min(width // 2 - 1, int(np.ceil(across * width / (2 * height) / narrowing)))
        rows = row.round().long()[:, None] + torch.arange(-up, up + 1, device=device)
        columns = column.round().long()[:, None] + torch.arange(
            -half_wide, half_wide + 1, device=device
        )
        y = (row[:, None] - rows) * pixel
        x = (column[:, None] - columns) * (2 * np.pi / width) * elevation.cos()[:, None]
        opacity, brightness = self.paint(
            x[:, None, :].float(), y[:, :, None].float(),
            lambda values: canvas.curve(values)[:, None, None].float(),
        )  # fmt: skip
        frame = torch.arange(n_frames, device=device)[:, None, None]
        place = (frame * height + rows[:, :, None]) * width + (columns % width)[:, None, :]
        inside = ((rows >= 0) & (rows < height))[:, :, None].expand_as(place)
        return _Stamp(
            place[inside], opacity.expand_as(place)[inside], brightness.expand_as(place)[inside]
        )


@dataclass(frozen=True)
class _Stamp:
    """A body on a canvas.

    Attributes
    ----------
    at : the pixels it may cover, as places in all frames in a row, each once, [shape=(n,)].
    opacity, brightness : there, [shape=(n,)].
    """

    at: Tensor
    opacity: Tensor
    brightness: Tensor


def _bell(deviations: Tensor) -> Tensor:
    """1 in the middle, as a normal distribution falls."""
    return (-0.5 * deviations.square()).exp()


_EDGE = 0.25  # of a wide stretch, in heights
_MOUTH = 0.37  # above a figure's middle, in radii


def _soft(distance: Tensor, edge: float) -> Tensor:
    """1 inside (positive distance), 0 outside, over an edge of the given width."""
    return (distance / edge + 0.5).clamp(0, 1)


def _largest(*parts: Tensor) -> Tensor:
    return reduce(torch.maximum, parts)


@dataclass
class Blob(Body):
    """A textured ellipse that grows, brightens, bobs, walks about, or ripples with its drive."""

    ways: frozenset[str] = frozenset({"grow"})
    aspect: float = 1.0
    ripple: tuple[float, float, float] = (0.2, 10.0, 10.0)  # depth, frequencies
    heading: tuple[float, float] = (1.0, 0.0)

    @property
    def aside(self) -> tuple[FloatArray, FloatArray]:
        left, up = super().aside
        way = self.amount * self.radius
        if "bob" in self.ways:
            left, up = (way * part * self.drive for part in self.heading)
        if "walk" in self.ways:
            left = left + way * np.sin(6 * self._travelled)
        return left, up

    @property
    def _travelled(self) -> FloatArray:
        return np.cumsum(self.drive) / CURVE_RATE

    def paint(self, x: Tensor, y: Tensor, at: AtFrames) -> tuple[Tensor, Tensor]:
        r, g, drive = self.radius, self.amount, at(self.drive)
        left, up = self.aside
        x, y = x - at(left), y - at(up)
        size = r * (1 + 0.6 * g * drive) if "grow" in self.ways else r
        distance = size - torch.hypot(x / self.aspect, y * self.aspect)
        opacity = _soft(distance, 0.15 * r)
        if "appear" in self.ways:
            opacity = opacity * (0.25 + 1.5 * drive).clamp(0, 1)
        depth, across, along = self.ripple
        phase = 15 * g * at(self._travelled) if "ripple" in self.ways else 0.0
        brightness = 1 + depth * (x / r * across + phase).sin() * (y / r * along).cos()
        if "brighten" in self.ways:
            brightness = brightness + 0.9 * g * drive
        return opacity, brightness


@dataclass
class Figure(Body):
    """A person: trunk, head, a mouth that opens and arms that move; `radius` is half the height."""

    speaks: bool = True
    arm: FloatArray = field(default_factory=lambda: np.zeros(2))  # arms' own movement, a curve
    shade: float = 0.5

    @property
    def aside(self) -> tuple[FloatArray, FloatArray]:
        left, up = super().aside
        return left, up + (_MOUTH * self.radius if self.speaks else 0.0)

    def still(self, factor: float) -> None:
        super().still(factor)
        self.arm = factor * self.arm

    def paint(self, x: Tensor, y: Tensor, at: AtFrames) -> tuple[Tensor, Tensor]:
        r, drive = self.radius, at(self.drive)
        edge = 0.06 * r
        trunk = 0.34 * r - torch.hypot(x, (y + 0.45 * r) / 1.7)
        head = 0.2 * r - torch.hypot(x, y - 0.45 * r)
        opening = self.amount * drive * (0.09 if self.speaks else 0.0) * r
        mouth = 1 - torch.hypot(x / (0.08 * r), (y - _MOUTH * r) / (opening + 0.012 * r))
        # Arms from the shoulders, turned by the drive (playing, gesturing) and by themselves.
        sway = at(self.arm)
        moved = 0.0 if self.speaks else self.amount * drive
        arms = []
        for side in (-1.0, 1.0):
            angle = -0.9 + 0.9 * moved + 0.5 * sway * side
            hand_x, hand_y = side * angle.cos() * 0.6 * r, angle.sin() * 0.6 * r
            arms.append(0.07 * r - _to_segment(x - side * 0.25 * r, y, hand_x, hand_y))
        opacity = _largest(*(_soft(part, edge) for part in (trunk, head, *arms)))
        brightness = 1 - self.shade * _soft(trunk, edge) * (1 - _soft(head, edge))
        return opacity, brightness * (1 - 0.8 * _soft(mouth, 0.3) * _soft(head, edge))


def _to_segment(x: Tensor, y: Tensor, end_x: Tensor, end_y: Tensor) -> Tensor:
    """Distance to the segment from the origin to (end_x, end_y)."""
    length = end_x**2 + end_y**2 + 1e-12
    along = ((x * end_x + y * end_y) / length).clamp(0, 1)
    return torch.hypot(x - along * end_x, y - along * end_y)


@dataclass
class Hammer(Body):
    """A body that strikes: it rises, falls, and stops at the moment of the sound."""

    def paint(self, x: Tensor, y: Tensor, at: AtFrames) -> tuple[Tensor, Tensor]:
        r = self.radius
        height = 0.9 * self.amount * r * (1 - at(self.drive).clamp(0, 1))
        ball = 0.3 * r - torch.hypot(x, y - height + 0.3 * r)
        anvil = torch.minimum(0.5 * r - x.abs(), 0.15 * r - (y + 0.75 * r).abs())
        brightness = 1.0 - 0.6 * _soft(anvil, 0.06 * r)
        return _largest(_soft(ball, 0.06 * r), _soft(anvil, 0.06 * r)), brightness


@dataclass
class Vehicle(Body):
    """A box on wheels whose body trembles with its drive; its path does the moving."""

    def paint(self, x: Tensor, y: Tensor, at: AtFrames) -> tuple[Tensor, Tensor]:
        r = self.radius
        shaken = y - 0.06 * r * self.amount * at(self.drive)
        box = torch.minimum(r - x.abs(), 0.35 * r - (shaken - 0.05 * r).abs())
        cabin = torch.minimum(0.4 * r - (x + 0.3 * r).abs(), 0.3 * r - (shaken - 0.5 * r).abs())
        wheels = 0.22 * r - torch.hypot(x.abs() - 0.6 * r, y + 0.35 * r)
        opacity = _largest(*(_soft(part, 0.08 * r) for part in (box, cabin, wheels)))
        brightness = 1 - 0.6 * _soft(wheels, 0.08 * r) - 0.3 * _soft(cabin, 0.08 * r)
        return opacity, brightness


@dataclass(frozen=True)
class Nearness:
    """How near each part of a wide stretch is: what is near looks taller and sounds louder.

    Attributes
    ----------
    peak, width : of the nearest part, radians from the middle of the stretch, to the left.
    floor : of the parts far away, 0 to 1; the nearest has 1.
    """

    peak: float = 0.0
    width: float = 1.0
    floor: float = 1.0

    def at(self, x: Tensor) -> Tensor:
        """Nearness at offsets in radians, `floor` to 1."""
        return (
            self.floor + (1 - self.floor) * (-0.5 * ((x - self.peak) / self.width).square()).exp()
        )


@dataclass(frozen=True)
class Breaker:
    """A part of a wide stretch that is seen and heard by itself, as a wave that breaks.

    Attributes
    ----------
    offset, width : radians from the middle of the stretch, to the left.
    drive : how bright it is, 0 to 1, a curve.
    gain, envelope : of its sound, against that of a part of the rest.
    """

    offset: float
    width: float
    drive: FloatArray
    gain: float
    envelope: Envelope


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
    nearness: Nearness = Nearness()
    breakers: tuple[Breaker, ...] = ()

    @property
    def reach(self) -> tuple[float, float]:
        edge = _EDGE * self.height
        return self.radius + edge, self.height + edge

    def paint(self, x: Tensor, y: Tensor, at: AtFrames) -> tuple[Tensor, Tensor]:
        cells = self.pattern.shape[0] / max(self.radius, 0.3)
        drive = at(self.drive)
        travelled = at(np.cumsum(0.4 + self.amount * self.drive) / CURVE_RATE)
        pattern = self._moved(x, y, travelled, cells)
        if self.boil:
            back = self._moved(x + 1.0, y + 0.7, -travelled, 1.3 * cells)
            pattern = (pattern + self.boil * back) / np.hypot(1, self.boil)
        near = self.nearness.at(x)
        edge = _EDGE * self.height
        opacity = _soft(self.radius - x.abs(), edge) * _soft(self.height * near - y.abs(), edge)
        contrast = self.contrast * near
        for breaker in self.breakers:
            foam = _bell((x - breaker.offset) / breaker.width)
            contrast = contrast + 2 * self.contrast * at(breaker.drive) * foam
        return opacity * 0.9, 1 + contrast * pattern * (0.7 + 0.6 * self.amount * drive)

    def _moved(self, x: Tensor, y: Tensor, travelled: Tensor, cells: float) -> Tensor:
        up = (y + travelled * self.speed[1]) * cells
        across = (x + travelled * self.speed[0]) * cells
        return sampled(self.pattern, up, across)


@dataclass
class Patch(Body):
    """A piece of other footage: a textured frame that trembles, with things that move within it.

    Attributes
    ----------
    pattern : what covers it, a periodic texture.
    shows : how much its contrast follows its drive (0 to 1).
    tremble : its own movement across and up, radians, curves.
    movers : blobs within it, each with its own drive, at an offset (x, y) in radii.
    sounding : which of them sounds (None: its middle does).
    """

    pattern: FloatArray = field(default_factory=lambda: np.zeros((8, 8)))
    aspect: float = 1.0
    contrast: float = 0.15
    shows: float = 0.0
    tremble: tuple[FloatArray, FloatArray] = field(
        default_factory=lambda: (np.zeros(2), np.zeros(2))
    )
    movers: tuple[tuple[float, float, Blob], ...] = ()
    sounding: int | None = None

    @property
    def aside(self) -> tuple[FloatArray, FloatArray]:
        if self.sounding is None:
            return super().aside
        left, above, mover = self.movers[self.sounding]
        further, up = mover.aside
        return further + left * self.radius, up + above * self.radius * self.aspect

    @property
    def reach(self) -> tuple[float, float]:
        side = self.radius * max(1.0, self.aspect) * 1.05
        return side, side

    def still(self, factor: float) -> None:
        super().still(factor)
        self.tremble = (factor * self.tremble[0], factor * self.tremble[1])
        for _, _, mover in self.movers:
            mover.still(factor)

    def paint(self, x: Tensor, y: Tensor, at: AtFrames) -> tuple[Tensor, Tensor]:
        r = self.radius
        edge = 0.05 * r
        opacity = _soft(r - x.abs(), edge) * _soft(r * self.aspect - y.abs(), edge)
        cells = self.pattern.shape[0] / max(3 * r, 0.1)
        up, across = (y + at(self.tremble[1])) * cells, (x + at(self.tremble[0])) * cells
        contrast = self.contrast * (1 - self.shows + self.shows * at(self.drive))
        brightness = 1 + contrast * sampled(self.pattern, up, across)
        for left, above, mover in self.movers:
            part, shade = mover.paint(x - left * r, y - above * r * self.aspect, at)
            tone = float(mover.colour.mean() / (self.colour.mean() + 0.05))
            brightness = brightness + part * (shade * tone - brightness)
        return opacity, brightness


@dataclass
class Particles(Body):
    """Many small things that burst forth with each onset and fall: sparks, spray, leaves."""

    starts: FloatArray = field(default_factory=lambda: np.zeros((4, 3)))  # x, y (radii), phase
    speed: float = 1.0

    def paint(self, x: Tensor, y: Tensor, at: AtFrames) -> tuple[Tensor, Tensor]:
        r, drive = self.radius, at(self.drive)
        clock = at(np.arange(len(self.drive)) / CURVE_RATE)
        parts = []
        for start_x, start_y, phase in self.starts:
            age = (clock * self.speed + phase) % 1.0
            fall = start_y - 1.2 * age**2 + 0.6 * age
            parts.append(torch.hypot(x - r * start_x * (0.3 + age), y - r * fall))
        opacity = _soft(0.07 * r - reduce(torch.minimum, parts), 0.04 * r)
        return opacity * (1.6 * self.amount * drive).clamp(0, 1), 1 + 0.2 * drive


def sampled(pattern: FloatArray, up: Tensor, across: Tensor) -> Tensor:
    """A periodic pattern [shape=(n, m)] between its points, by lines, in the dtype of `up`.

    up, across : places in points; they are broadcast together.
    """
    n, m = pattern.shape
    points = torch.from_numpy(pattern).to(up).flatten()
    below, left = up.floor(), across.floor()
    above_share, right_share = up - below, across - left
    row, column = below.long() % n, left.long() % m
    next_row, next_column = (row + 1) % n, (column + 1) % m

    def between(row: Tensor) -> Tensor:
        return torch.lerp(points[row * m + column], points[row * m + next_column], right_share)

    return torch.lerp(between(row), between(next_row), above_share)


def random_pattern(rng: np.random.Generator, size: int = 64) -> FloatArray:
    """A periodic texture of unit deviation, [shape=(size, size)]."""
    pattern = gaussian_filter(rng.standard_normal((size, size)), rng.uniform(0.7, 2.5), mode="wrap")
    return np.asarray(pattern / pattern.std())
