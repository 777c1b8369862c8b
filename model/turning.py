"""Rotations about the vertical that vary along a track."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from model.ambisonics import ChannelLayout, Fix, YawRotation, yaw_pairs

FloatArray = NDArray[np.floating]
Varying = Callable[[int, int], FloatArray]  # of a block's first sample and its size
Weight = float | Varying


class YawAlong:
    """Rotation of a track about the vertical by an angle that varies along it.

    angle_rad : the angle, counter-clockwise, at an array of sample numbers.
    fix : done first; it changes signs only.
    """

    def __init__(
        self,
        layout: ChannelLayout,
        angle_rad: Callable[[FloatArray], FloatArray],
        *,
        fix: Fix | None = None,
    ) -> None:
        self.layout = layout
        self.fix = fix
        self._angle_rad = angle_rad
        # One block's waves at a time: every pair of one m needs them again.
        self._wave = lru_cache(maxsize=2 * layout.order)(self._computed)

    def _computed(self, m: int, first: int, n: int, *, sine: bool) -> FloatArray:
        angle = m * self._angle_rad(np.arange(first, first + n, dtype=np.float64))
        return np.sin(angle) if sine else np.cos(angle)

    @property
    def channel_mix(self) -> dict[int, tuple[tuple[int, Weight], ...]]:
        """As `YawRotation.channel_mix`; a weight that varies is a function of a block's place."""
        mix: dict[int, tuple[tuple[int, Weight], ...]] = {}
        mix.update(YawRotation(self.layout, 0.0, fix=self.fix).channel_mix)
        channels, order = self.layout.components, self.layout.order
        signs = self.fix.signs(order) if self.fix else (1,) * len(channels)
        for plus, minus, m in yaw_pairs(order):
            cos, sin = partial(self._wave, m, sine=False), partial(self._wave, m, sine=True)
            of_plus, of_minus = channels[plus], channels[minus]
            mix[of_plus] = (
                (of_plus, partial(_scaled, cos, signs[plus])),
                (of_minus, partial(_scaled, sin, -signs[minus])),
            )
            mix[of_minus] = (
                (of_plus, partial(_scaled, sin, signs[plus])),
                (of_minus, partial(_scaled, cos, signs[minus])),
            )
        return mix


def _scaled(wave: Varying, factor: int, first: int, n: int) -> FloatArray:
    return factor * wave(first, n)


def turned_along(field: FloatArray, angles_rad: FloatArray) -> FloatArray:
    """Rotate an ACN field [shape=(C, N)] about the vertical by an angle for each sample (N,)."""
    turned = np.array(field)
    for plus, minus, m in yaw_pairs(math.isqrt(len(field)) - 1):
        cos, sin = np.cos(m * angles_rad), np.sin(m * angles_rad)
        turned[plus] = cos * field[plus] - sin * field[minus]
        turned[minus] = sin * field[plus] + cos * field[minus]
    return turned
