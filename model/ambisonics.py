"""Ambisonic sound fields: conventions, encoding, rotation and conversion.

Conventions of the whole project (every other module refers to this place):

- Axes: x front, y left, z up. Azimuth A is counter-clockwise seen from above (0 front, +90 left,
  180 back), elevation E is positive upwards. Radians here; degrees only at the edges.
- Inside, a field is an array ``(C, N)`` of C = (order + 1)² components by N samples in ACN order
  (component ``l² + l + m`` for degree l and index m) with SN3D normalisation, no Condon-Shortley
  phase: AmbiX (Nachbar, Zotter, Deleflie, Sontacchi 2011). First order is W, Y, Z, X.
- Rotating a field by d (counter-clockwise) moves a source from A to A + d.

A file may order and scale its components differently and carry further channels; `ChannelLayout`
says how, and a yaw rotation acts on the file's own channels without converting them, because
the two components of each pair (+m, -m) share one weight in all three conventions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import lpmv

from model.errors import OptionError, UnsupportedMedia

FloatArray = NDArray[np.floating]

MAX_ORDER = 7
MAX_FUMA_ORDER = 3

# ACN component -> channel of a FuMa file (W X Y Z R S T U V K L M N O P Q).
FUMA_CHANNEL = (0, 2, 3, 1, 8, 6, 4, 5, 7, 15, 13, 11, 9, 10, 12, 14)
# Factor from a FuMa (maxN, W at -3 dB) channel to its SN3D component, by ACN.
FUMA_TO_SN3D = (
    math.sqrt(2),
    1.0,
    1.0,
    1.0,
    math.sqrt(3) / 2,
    math.sqrt(3) / 2,
    1.0,
    math.sqrt(3) / 2,
    math.sqrt(3) / 2,
    math.sqrt(5 / 8),
    math.sqrt(5) / 3,
    math.sqrt(32 / 45),
    1.0,
    math.sqrt(32 / 45),
    math.sqrt(5) / 3,
    math.sqrt(5 / 8),
)


class Convention(StrEnum):
    """Component order and normalisation of a file."""

    AMBIX = "ambix"  # ACN, SN3D
    N3D = "n3d"  # ACN, N3D
    FUMA = "fuma"  # Furse-Malham order and weights, to third order


class Fix(StrEnum):
    """What is done to a field before it is rotated, because its microphone or export was wrong."""

    INVERT = "invert"  # half a turn about the front axis: the microphone hung upside down
    MIRROR = "mirror"  # left and right exchanged

    def signs(self, order: int) -> tuple[int, ...]:
        """Factor of every component in ACN order, 1 or -1; the same in all conventions.

        Mirroring negates y, which is in the components with m < 0; inverting also negates z, under
        which Y_lm is odd where l + m is.
        """
        signs = []
        for degree, m in degrees_and_indices(order):
            sign = -1 if m < 0 else 1
            signs.append(sign * (-1) ** (degree + m) if self is Fix.INVERT else sign)
        return tuple(signs)


def n_components(order: int) -> int:
    """Number of components of a full-sphere field of the given order: (order + 1)²."""
    return (order + 1) ** 2


def degrees_and_indices(order: int) -> list[tuple[int, int]]:
    """Degree l and index m of every component in ACN order."""
    return [(degree, m) for degree in range(order + 1) for m in range(-degree, degree + 1)]


def yaw_pairs(order: int) -> list[tuple[int, int, int]]:
    """The pairs a yaw rotation mixes: (ACN of +m, ACN of -m, m) for every degree and m >= 1."""
    return [
        (degree**2 + degree + m, degree**2 + degree - m, m)
        for degree in range(1, order + 1)
        for m in range(1, degree + 1)
    ]


@dataclass(frozen=True)
class ChannelLayout:
    """What each channel of a track carries.

    Attributes
    ----------
    n_channels : channels of the file.
    convention : order and normalisation of the components.
    components : the file channel that holds each ACN component; its length gives the order.

    Channels that hold no component (a head-locked stereo pair, the silent ones of a 5.1 carrier)
    are never rotated.
    """

    n_channels: int
    convention: Convention
    components: tuple[int, ...]

    @classmethod
    def of(
        cls,
        n_channels: int,
        convention: Convention = Convention.AMBIX,
        *,
        components: Sequence[int] | None = None,
    ) -> ChannelLayout:
        """Layout of a file with `n_channels` channels: (N+1)² of them, or two more (head-locked).

        `components` names the file channel of each ACN component where it is neither the
        convention's own order nor followed by a head-locked pair.

        Raises
        ------
        UnsupportedMedia : the channel count is no ambisonic one, or too high for the convention.
        OptionError : `components` does not name each file channel at most once.
        """
        if components is not None:
            return cls._with_components(n_channels, convention, tuple(components))
        for head_locked in (0, 2):
            order = math.isqrt(n_channels - head_locked) - 1 if n_channels > head_locked else -1
            if 1 <= order <= MAX_ORDER and n_components(order) + head_locked == n_channels:
                break
        else:
            raise UnsupportedMedia(
                f"The track has {n_channels} channels, which is not ambisonic: it takes 4, 9, 16, "
                "25, 36, 49 or 64 channels, or two more with a head-locked stereo pair."
            )
        if convention is Convention.FUMA:
            if order > MAX_FUMA_ORDER:
                raise UnsupportedMedia(
                    f"FuMa ends at order 3 but the track has {n_channels} channels (order "
                    f"{order}): choose --convention ambix or n3d."
                )
            # FuMa's order is nested: each order's file is the beginning of the next one's.
            return cls(n_channels, convention, FUMA_CHANNEL[: n_components(order)])
        return cls(n_channels, convention, tuple(range(n_components(order))))

    @classmethod
    def _with_components(
        cls, n_channels: int, convention: Convention, components: tuple[int, ...]
    ) -> ChannelLayout:
        order = math.isqrt(len(components)) - 1
        if not 1 <= order <= MAX_ORDER or n_components(order) != len(components):
            raise OptionError(
                f"{len(components)} component channels were named; an ambisonic track has "
                "4, 9, 16, 25, 36, 49 or 64."
            )
        if convention is Convention.FUMA and order > MAX_FUMA_ORDER:
            raise OptionError(f"FuMa ends at order 3; {len(components)} channels were named.")
        if len(set(components)) != len(components) or not all(
            0 <= channel < n_channels for channel in components
        ):
            raise OptionError(
                f"The component channels {','.join(map(str, components))}, counted from 0, must be "
                f"different and lie between 0 and {n_channels - 1}."
            )
        return cls(n_channels, convention, components)

    @property
    def order(self) -> int:
        """Ambisonic order."""
        return math.isqrt(len(self.components)) - 1

    @property
    def other_channels(self) -> tuple[int, ...]:
        """File channels that hold no component and are never rotated."""
        return tuple(sorted(set(range(self.n_channels)) - set(self.components)))

    @property
    def gains(self) -> FloatArray:
        """Factor from each file component to SN3D, by ACN, shape (C,)."""
        return gains_to_sn3d(self.order, self.convention)

    def to_sn3d(self, block: FloatArray, *, order: int | None = None) -> FloatArray:
        """The file's components as ACN/SN3D.

        block : [shape=(n_channels, N)], returns [shape=(C, N)], up to `order` (default: all).
        """
        count = n_components(self.order if order is None else min(order, self.order))
        chosen = block[list(self.components[:count])]
        return np.asarray(chosen * self.gains[:count, None].astype(block.dtype))

    def from_sn3d(self, field: FloatArray) -> FloatArray:
        """Inverse of `to_sn3d` for all components: [shape=(C, N)] to [shape=(n_channels, N)].

        Channels that hold no component are silent.
        """
        block = np.zeros((self.n_channels, field.shape[1]), dtype=field.dtype)
        block[list(self.components)] = field / self.gains[:, None].astype(field.dtype)
        return block


def gains_to_sn3d(order: int, convention: Convention) -> FloatArray:
    """Factor from each component of `convention` to SN3D, by ACN, shape (C,), float64."""
    if convention is Convention.FUMA:
        return np.array(FUMA_TO_SN3D[: n_components(order)])
    if convention is Convention.N3D:
        return np.array([1 / math.sqrt(2 * degree + 1) for degree, _ in degrees_and_indices(order)])
    return np.ones(n_components(order))


def plane_wave_gains(azimuth_rad: ArrayLike, elevation_rad: ArrayLike, order: int) -> FloatArray:
    """Gains of a plane wave from each direction: real SN3D spherical harmonics in ACN order.

    Y_lm(A, E) = N_lm P_l|m|(sin E) {cos mA for m >= 0, sin |m|A for m < 0},
    N_lm = sqrt((2 - [m = 0]) (l - |m|)! / (l + |m|)!), without Condon-Shortley phase.

    azimuth_rad, elevation_rad : broadcast against each other to shape S.
    Returns float64 [shape=(C, *S)].
    """
    azimuth, elevation = np.broadcast_arrays(
        np.asarray(azimuth_rad, dtype=np.float64), np.asarray(elevation_rad, dtype=np.float64)
    )
    gains = np.empty((n_components(order), *azimuth.shape))
    for acn, (degree, m) in enumerate(degrees_and_indices(order)):
        k = abs(m)
        norm = math.sqrt((2 - (k == 0)) * math.factorial(degree - k) / math.factorial(degree + k))
        # lpmv carries the Condon-Shortley phase (-1)^m, which ambisonics leaves out.
        legendre = (-1) ** k * lpmv(k, degree, np.sin(elevation))
        gains[acn] = norm * legendre * (np.cos(k * azimuth) if m >= 0 else np.sin(k * azimuth))
    return gains


def encode(
    signal: FloatArray, azimuth_rad: ArrayLike, elevation_rad: ArrayLike, order: int
) -> FloatArray:
    """Encode a mono signal as a plane wave.

    signal : [shape=(N,)]; directions are scalars, or [shape=(N,)] for a moving source.
    Returns [shape=(C, N)] in the signal's dtype.
    """
    gains = plane_wave_gains(azimuth_rad, elevation_rad, order)
    if gains.ndim == 1:
        gains = gains[:, None]
    return np.asarray(gains.astype(signal.dtype) * signal)


class YawRotation:
    """Rotation of a track about the vertical by `angle_rad`, counter-clockwise, in closed form.

    For each pair (+m, -m): new(+m) = cos(m d) old(+m) - sin(m d) old(-m) and
    new(-m) = sin(m d) old(+m) + cos(m d) old(-m); components with m = 0 and other channels are
    untouched. It has no memory, so a stream may be cut into blocks anywhere.

    fix : done first; it changes signs only.
    """

    def __init__(self, layout: ChannelLayout, angle_rad: float, *, fix: Fix | None = None) -> None:
        self.layout = layout
        self.angle_rad = math.remainder(angle_rad, math.tau)
        self.fix = fix
        channels = layout.components
        signs = fix.signs(layout.order) if fix else (1,) * len(channels)
        mixes = {
            channel: [(channel, float(sign))] for channel, sign in zip(channels, signs, strict=True)
        }
        for plus, minus, m in yaw_pairs(layout.order):
            cos, sin = _cos_sin(m * self.angle_rad)
            of_plus, of_minus = (channels[plus], signs[plus]), (channels[minus], signs[minus])
            mixes[channels[plus]] = _weighted((*of_plus, cos), (*of_minus, -sin))
            mixes[channels[minus]] = _weighted((*of_plus, sin), (*of_minus, cos))
        self._mix = {
            channel: tuple(weights)
            for channel, weights in mixes.items()
            if weights != [(channel, 1.0)]
        }

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes at all (0 and whole turns, without a fix)."""
        return self.angle_rad == 0.0 and self.fix is None

    @property
    def channel_mix(self) -> dict[int, tuple[tuple[int, float], ...]]:
        """Each changed channel as a weighted sum of old ones; empty for the identity."""
        return dict(self._mix)

    def __call__(self, block: FloatArray) -> FloatArray:
        """Rotate a block of the file's channels, [shape=(n_channels, N)], into a new array."""
        rotated = block.copy()
        for channel, weights in self.channel_mix.items():
            rotated[channel] = sum(weight * block[old] for old, weight in weights)
        return rotated


def _weighted(*terms: tuple[int, int, float]) -> list[tuple[int, float]]:
    """Channels with their weights, sign times factor, without those that do not count."""
    return [(channel, sign * factor) for channel, sign, factor in terms if factor]


def _cos_sin(angle_rad: float) -> tuple[float, float]:
    """Cosine and sine, exact (0, 1, -1) at multiples of a right angle."""
    quarter_turns = angle_rad / (math.pi / 2)
    nearest = round(quarter_turns)
    if abs(quarter_turns - nearest) < 1e-12:
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[nearest % 4]
    return math.cos(angle_rad), math.sin(angle_rad)


def rotate_yaw(field: FloatArray, angle_rad: float) -> FloatArray:
    """Rotate an ACN field [shape=(C, N)] about the vertical, counter-clockwise. See `YawRotation`.

    Holds for SN3D and N3D alike. Inverse: the negative angle.
    """
    return YawRotation(ChannelLayout.of(field.shape[0]), angle_rad)(field)


def yaw_matrix(angle_rad: float) -> FloatArray:
    """3x3 rotation of (x, y, z) about z: azimuth A goes to A + angle."""
    cos, sin = _cos_sin(angle_rad)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def pitch_matrix(angle_rad: float) -> FloatArray:
    """3x3 rotation of (x, y, z) about y that lowers the elevation of the front by the angle."""
    cos, sin = _cos_sin(angle_rad)
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def steering_matrix(azimuth_rad: float, elevation_rad: float) -> FloatArray:
    """3x3 rotation that brings a direction to the front: yaw first, then pitch."""
    return pitch_matrix(elevation_rad) @ yaw_matrix(-azimuth_rad)


def rotate(field: FloatArray, rotation: FloatArray) -> FloatArray:
    """Rotate an ACN field (SN3D or N3D) [shape=(C, N)] by a 3x3 rotation of (x, y, z)."""
    order = ChannelLayout.of(field.shape[0]).order
    return np.asarray(sh_rotation_matrix(rotation, order).astype(field.dtype) @ field)


def sh_rotation_matrix(rotation: FloatArray, order: int) -> FloatArray:
    """Rotation of real spherical harmonics, block-diagonal, [shape=(C, C)], float64.

    Recursion of Ivanic and Ruedenberg, J. Phys. Chem. 100, 6342 (1996), with the additions and
    corrections of J. Phys. Chem. A 102, 9099 (1998). One scale per degree leaves it unchanged,
    so it serves SN3D and N3D; FuMa has to be converted first.

    rotation : 3x3, orthogonal with determinant 1, acting on (x, y, z).
    """
    matrix = np.zeros((n_components(order), n_components(order)))
    matrix[0, 0] = 1.0
    if order == 0:
        return matrix
    # Degree 1 is (y, z, x): the rotation itself with its axes reordered.
    axes = [1, 2, 0]
    first = rotation[np.ix_(axes, axes)]
    matrix[1:4, 1:4] = block = first
    for degree in range(2, order + 1):
        block = _next_degree(first, block, degree)
        span = slice(degree**2, (degree + 1) ** 2)
        matrix[span, span] = block
    return matrix


def _next_degree(first: FloatArray, previous: FloatArray, degree: int) -> FloatArray:
    """Block of `degree` from the blocks of degree 1 and of the degree before (1998, table 2)."""
    block = np.empty((2 * degree + 1, 2 * degree + 1))
    for m in range(-degree, degree + 1):
        for n in range(-degree, degree + 1):
            block[m + degree, n + degree] = _element(first, previous, degree, m, n)
    return block


def _element(first: FloatArray, previous: FloatArray, degree: int, m: int, n: int) -> float:
    """Element (m, n) of the block of `degree`: u U + v V + w W."""

    def p(i: int, a: int) -> float:
        """The function P of table 2."""
        row = previous[a + degree - 1]
        if n == degree:
            return float(first[i + 1, 2] * row[-1] - first[i + 1, 0] * row[0])
        if n == -degree:
            return float(first[i + 1, 2] * row[0] + first[i + 1, 0] * row[-1])
        return float(first[i + 1, 1] * row[n + degree - 1])

    d = 1 if m == 0 else 0
    k = abs(m)
    denominator = 2 * degree * (2 * degree - 1) if abs(n) == degree else degree**2 - n**2
    u = math.sqrt((degree + m) * (degree - m) / denominator)
    v = 0.5 * (1 - 2 * d) * math.sqrt((1 + d) * (degree + k - 1) * (degree + k) / denominator)
    w = -0.5 * (1 - d) * math.sqrt((degree - k - 1) * (degree - k) / denominator)

    value = 0.0
    if u:
        value += u * p(0, m)
    if v:
        if m == 0:
            v_term = p(1, 1) + p(-1, -1)
        elif m > 0:
            v_term = p(1, m - 1) * math.sqrt(1 + (m == 1)) - (p(-1, -m + 1) if m != 1 else 0.0)
        else:
            v_term = (p(1, m + 1) if m != -1 else 0.0) + p(-1, -m - 1) * math.sqrt(1 + (m == -1))
        value += v * v_term
    if w:
        w_term = p(1, m + 1) + p(-1, -m - 1) if m > 0 else p(1, m - 1) - p(-1, -m + 1)
        value += w * w_term
    return value
