"""What the evidence is made of: covariances of the sound, motion of the picture.

Sound: one short-time Fourier transform, reduced at once to the ten real covariance terms of
(W, X, Y, Z) per mel band. A beam with real weights, the intensity vector and the power of every
rotated channel are linear in these terms, so the features of all yaws follow without another
transform (|X'|² = P + Q cos 2d - R sin 2d with P, Q = (|X|² ± |Y|²)/2, R = Re XY*).

Picture: where it moves, per azimuth and frame.

Axes, signs and channel order are those of `model.ambisonics`; shape letters those of `model`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly
from torch import Tensor
from torch.nn import functional

SAMPLERATE = 24_000
N_FFT = 512
HOP = 240  # 10 ms
N_BANDS = 32
LOWEST_HZ, HIGHEST_HZ = 80.0, 10_000.0

# The covariance terms, by position in the last axis.
WW, XX, YY, ZZ, WX, WY, WZ, XY, XZ, YZ = range(10)
# An interval of a band is a click as far as it is above this many times the power that so many of
# the band's intervals stay below.
_CLICK, _USUAL = 4.0, 0.97
# What they are of, by axis: 0 W, 1 X, 2 Y, 3 Z.
TERM_AXES = (
    (0, 0), (1, 1), (2, 2), (3, 3), (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3),
)  # fmt: skip
_CHANNELS = (0, 3, 1, 2)  # of the axes, in a first-order ACN field: W, Y, Z, X


def to_analysis_rate(field: NDArray[np.floating], samplerate: int) -> NDArray[np.float64]:
    """Resample a field [shape=(C, N)] to `SAMPLERATE` (polyphase, Kaiser window)."""
    divisor = math.gcd(SAMPLERATE, samplerate)
    if samplerate == SAMPLERATE:
        return field.astype(np.float64)
    resampled = resample_poly(field, SAMPLERATE // divisor, samplerate // divisor, axis=1)
    return np.asarray(resampled, dtype=np.float64)


def band_edges_hz(n_bands: int = N_BANDS) -> NDArray[np.float64]:
    """Where mel bands begin, peak (one further) and end (two further), [shape=(F + 2,)]."""
    lowest, highest = (2595 * math.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    return np.asarray(700 * (10 ** (np.linspace(lowest, highest, n_bands + 2) / 2595) - 1))


@lru_cache(maxsize=8)
def mel_filterbank(n_bands: int = N_BANDS) -> Tensor:
    """Triangular filters of equal height on the HTK mel scale, [shape=(F, N_FFT / 2 + 1)]."""
    edges = band_edges_hz(n_bands)
    bins = np.fft.rfftfreq(N_FFT, 1 / SAMPLERATE)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return torch.tensor(np.clip(np.minimum(rising, falling), 0, None))


def covariance(
    field: Tensor,
    edges_s: Tensor | None = None,
    *,
    n_bands: int = N_BANDS,
    filterbank: Tensor | None = None,
) -> Tensor:
    """The ten covariance terms of a first-order field, averaged over each interval.

    Parameters
    ----------
    field : W, Y, Z, X at `SAMPLERATE`, [shape=(..., 4, N)].
    edges_s : T + 1 rising times that bound the intervals, those of the picture's frames
        (default: every 10 ms, one transform each).
    n_bands : mel bands between `LOWEST_HZ` and `HIGHEST_HZ`.
    filterbank : other bands in their place, float64 [shape=(F, N_FFT / 2 + 1)].

    Returns
    -------
    [shape=(..., T, F, 10)], float64: the sums stay exact where a beam's null cancels.
    """
    field = field.double()
    window = torch.hann_window(N_FFT, dtype=torch.float64, device=field.device)
    spectra = torch.stft(
        field.flatten(0, -2), N_FFT, HOP, window=window, return_complex=True, pad_mode="constant"
    )
    spectra = spectra.view(*field.shape[:-1], *spectra.shape[-2:]).movedim(-3, 0)
    real, imag = spectra.real.contiguous(), spectra.imag.contiguous()  # (4, ..., bins, hops)
    pairs = [(_CHANNELS[a], _CHANNELS[b]) for a, b in TERM_AXES]
    terms = torch.stack([real[a] * real[b] + imag[a] * imag[b] for a, b in pairs], dim=-3)
    bands = mel_filterbank(n_bands) if filterbank is None else filterbank
    banded: Tensor = bands.to(terms.device) @ terms  # (..., 10, F, T)
    if edges_s is not None:
        banded = averaged(banded, edges_s.to(terms.device) * (SAMPLERATE / HOP) + 0.5)
    return banded.transpose(-3, -1)


def averaged(series: Tensor, edges: Tensor) -> Tensor:
    """Means of a piecewise constant series [shape=(..., n)] between fractional positions.

    Sums of their own pieces: in differences of running sums, faint after loud is rounding.
    """
    n = series.shape[-1]
    edges = edges.clamp(0, n)
    bounds = torch.cat([edges, torch.arange(n + 1).to(edges)]).sort().values
    middles, lengths = (bounds[:-1] + bounds[1:]) / 2, bounds.diff()
    into = torch.bucketize(middles, edges, right=True)  # 0 and len(edges): before and after all
    pieces = series[..., middles.long().clamp(max=n - 1)] * lengths
    sums = series.new_zeros(*series.shape[:-1], len(edges) + 1).index_add(-1, into, pieces)
    return sums[..., 1:-1] / edges.diff().clamp(min=1e-9)


def azimuths(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Centres of `count` azimuth bins in picture order: falling from just under pi."""
    bins = torch.arange(count, dtype=torch.float64, device=device)
    return math.pi - (bins + 0.5) * (math.tau / count)


def cardioid_power(
    cov: Tensor, azimuths_rad: Tensor, elevations_rad: Tensor | None = None
) -> Tensor:
    """Power of the cardioid (W + x X + y Y + z Z) / 2 towards each direction (x, y, z).

    cov : [shape=(..., F, 10)]; azimuths_rad, elevations_rad (default: the horizon) : [shape=(A,)].
    Returns [shape=(..., F, A)], not negative.
    """
    if elevations_rad is None:
        elevations_rad = torch.zeros_like(azimuths_rad)
    flat, up = elevations_rad.cos(), elevations_rad.sin()
    beam = torch.stack(
        [torch.ones_like(up), flat * azimuths_rad.cos(), flat * azimuths_rad.sin(), up]
    ).to(cov)
    weights = torch.stack([(1 if a == b else 2) * beam[a] * beam[b] for a, b in TERM_AXES])
    return (cov @ weights / 4).clamp(min=0)


def intensity(cov: Tensor) -> Tensor:
    """Active intensity Re W* (X, Y, Z), [shape=(..., F, 10)] to [shape=(..., F, 3)]."""
    return cov[..., [WX, WY, WZ]]


def energy(cov: Tensor) -> Tensor:
    """Energy density (W² + X² + Y² + Z²) / 2, [shape=(..., F, 10)] to [shape=(..., F)]."""
    return cov[..., [WW, XX, YY, ZZ]].sum(-1) / 2


def mvdr_power(cov: Tensor, azimuths_rad: Tensor, *, loading: float = 0.05) -> Tensor:
    """Power of the minimum-variance beam towards each azimuth, from W, X, Y.

    P(A) = 1 / (d^T R^-1 d) with d = (1, cos A, sin A) and R loaded by a share of its trace.
    cov : [shape=(..., F, 10)]; returns [shape=(..., F, A)].
    """
    matrix = cov[..., [WW, WX, WY, WX, XX, XY, WY, XY, YY]].reshape(*cov.shape[:-1], 3, 3)
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    unit = torch.eye(3, dtype=cov.dtype, device=cov.device)
    inverse = torch.linalg.inv(matrix + (loading * trace + 1e-30)[..., None, None] * unit)
    cos, sin = azimuths_rad.cos().to(cov.dtype), azimuths_rad.sin().to(cov.dtype)
    one = torch.ones_like(cos)
    # d^T M d for a symmetric M, as one product with the six distinct entries.
    entries = inverse.flatten(-2)[..., [0, 4, 8, 1, 2, 5]]
    quadratic = torch.stack([one, cos**2, sin**2, 2 * cos, 2 * sin, 2 * cos * sin])
    power: Tensor = 1.0 / (entries @ quadratic).clamp(min=1e-30)
    return power


def rotated(cov: Tensor, yaw_rad: float) -> Tensor:
    """The covariance terms of the field rotated by a yaw, exactly, [shape=(..., 10)]."""
    c, s = math.cos(yaw_rad), math.sin(yaw_rad)
    ww, xx, yy, zz, wx, wy, wz, xy, xz, yz = cov.unbind(-1)
    terms = [
        ww,
        c * c * xx - 2 * c * s * xy + s * s * yy,
        s * s * xx + 2 * c * s * xy + c * c * yy,
        zz,
        c * wx - s * wy,
        s * wx + c * wy,
        wz,
        c * s * (xx - yy) + (c * c - s * s) * xy,
        c * xz - s * yz,
        s * xz + c * yz,
    ]
    return torch.stack(terms, dim=-1)


def remapped(
    cov: Tensor,
    *,
    axes: tuple[int, int, int] = (0, 1, 2),
    signs: tuple[int, int, int] = (1, 1, 1),
    omni_gain: float = 1.0,
) -> Tensor:
    """The covariance terms of a field whose channels change places and signs, [shape=(..., 10)].

    New (X, Y, Z) are signs times the old ones numbered by `axes` (0 X, 1 Y, 2 Z); W gets a gain.
    """
    old = [0, *(1 + axis for axis in axes)]
    gains = [omni_gain, *signs]
    place = {frozenset(pair): index for index, pair in enumerate(TERM_AXES)}
    index = [place[frozenset((old[a], old[b]))] for a, b in TERM_AXES]
    factors = torch.tensor([gains[a] * gains[b] for a, b in TERM_AXES], dtype=cov.dtype)
    return cov[..., index] * factors.to(cov.device)


def without_clicks(cov: Tensor) -> Tensor:
    """Covariance terms without what a few intervals have above all others, [shape=(T, F, 10)].

    A slate or a bump may hold more energy than all that is seen, and sound is measured against its
    mean over time. Levels are taken down, directions stay; bands that are mostly empty are left.
    """
    power = cov[..., WW]
    most = _CLICK * power.quantile(_USUAL, dim=0)
    share = (most / (power + 1e-30)).clamp(max=1)
    return cov * torch.where(most > 0, share, torch.ones_like(share))[..., None]


def directional(cov: Tensor, n_azimuths: int = 72) -> Tensor:
    """What a beam towards each azimuth hears, for networks, [shape=(T, F, 10)] to (A, 4 F, T).

    Per band: the level of W and of a cardioid as logarithms against the band's mean, and the
    intensity along and across the beam against the energy. All of about unit size, deaf to a
    microphone's colour, and with the signs that tell front from back.
    """
    directions = azimuths(n_azimuths, cov.device).to(cov.dtype)
    usual = cov[..., WW].mean(0) + 1e-12
    cardioid = cardioid_power(cov, directions)  # (T, F, A)
    x, y, _ = intensity(cov).unbind(-1)
    dense = energy(cov) + 1e-12
    cos, sin = directions.cos(), directions.sin()
    along = (x / dense)[..., None] * cos + (y / dense)[..., None] * sin
    across = (y / dense)[..., None] * cos - (x / dense)[..., None] * sin
    beam = _level(cardioid / usual[:, None])
    omni = _level(cov[..., WW] / usual)[..., None].expand_as(beam)
    return torch.cat([omni, beam, along, 1 - across.abs()], dim=1).permute(2, 1, 0)


def _level(power: Tensor) -> Tensor:
    return 0.4 * (power + 1e-3).log() + 0.6


# --- picture -------------------------------------------------------------------------------------

# Size of the frames that motion is measured on: 7 columns per azimuth bin of 72.
PICTURE_SIZE = (252, 504)
# Rows further than this from the horizon hold the rig, the sky and the stitching of the poles.
_MAX_ELEVATION_RAD = math.radians(60)
# Of a pixel's change: least usual change in grey levels, and the floor and ceiling in its units.
_NOISE, _FLOOR, _CEILING = 1.0, 4.0, 20.0
# A coder that begins afresh at more of the frames than this (ProRes, Motion JPEG) leaves no pulse
# there that tells them from the others.
_MOST_REFRESHED = 0.4
_STILL = 0.95  # of the change: a turn of the camera, taken back, leaves less than that
_CHANGE_SCALE = 4.0  # brings the first of the maps to unit size
# Rows of the picture maps, top to bottom, each of 10 degrees.
N_ELEVATIONS = 12
MAPS = ("change", "peak", "raw change", "brightening", "brightness", "contrast", "usual change")


@dataclass(frozen=True)
class Motion:
    """Where the picture moves.

    Attributes
    ----------
    energy : how much each azimuth bin (in picture order) moves, [shape=(T, A)], not negative.
    maps : what a learned scorer sees, by `MAPS`, elevation and azimuth bin,
        [shape=(T, len(MAPS), N_ELEVATIONS, A)], each of about unit size.
    edges_s : times of the T + 1 frames that bound the T intervals.
    cuts : whether the picture was cut within an interval, [shape=(T,)].
    pan_rad : how far the camera turned in each interval, counter-clockwise, [shape=(T,)]; across
        a cut not at all.
    """

    energy: Tensor
    maps: Tensor
    edges_s: Tensor
    cuts: Tensor
    pan_rad: Tensor


def motion(
    frames: Tensor, times_s: Tensor, refreshed: Tensor | None = None, *, n_azimuths: int = 72
) -> Motion:
    """Motion per azimuth between successive frames, and maps of it.

    The change of each pixel after evening out brightness (flicker) and turning back what the
    camera turned, in units of the pixel's own usual change (its median over time), above an
    adaptive floor of four such units; as a logarithm, weighted by the cosine of elevation. So a
    faint mover counts before a still wall, and noise and what shimmers all the time do not.

    frames : grey uint8, [shape=(T + 1, H, W)], W a multiple of n_azimuths.
    times_s : [shape=(T + 1,)].
    refreshed : whether the coder began afresh at a frame; such an interval, and one with a cut,
        lies on a line between its neighbours. Where most frames are such, they count as any others.
    """
    height, width = frames.shape[1:]
    elevation = math.pi * (0.5 - (torch.arange(height, device=frames.device) + 0.5) / height)
    seen = elevation.abs() < _MAX_ELEVATION_RAD
    first, n_seen = int(seen.int().argmax()), int(seen.sum())
    picture = frames[:, first : first + n_seen].float()
    # Evened out against the exposure: the scene's mean brightness stays.
    level = picture.mean(dim=(1, 2))
    picture *= ((level.mean() + 1.0) / (level + 1.0))[:, None, None]
    # By fours of rows: the sum of neighbours in memory is the quickest.
    coarse = picture.view(len(picture), -1, 4, width).mean(2)
    pan = _pan_columns(coarse)
    signed = torch.empty_like(picture[1:])
    for index, columns in enumerate(pan.tolist()):
        torch.sub(_turned_back(picture[index + 1], columns), picture[index], out=signed[index])
    cuts = _cuts(coarse, signed)
    pan, valid = pan.masked_fill(cuts, 0.0), ~cuts  # another scene may look turned by chance
    if refreshed is not None and refreshed[1:].double().mean() <= _MOST_REFRESHED:
        valid &= ~refreshed[1:]
    usual = _usual_change(signed, valid)
    cells = _Cells(N_ELEVATIONS, n_azimuths)
    maps = _picture_maps(picture, signed, usual, cells)
    # The rows' weights within one cell differ by little.
    weight = elevation[seen].cos().view(N_ELEVATIONS, -1).mean(-1)
    energy = torch.einsum("tea,e->ta", maps[:, 0], weight / weight.sum())
    maps[:, 0] *= _CHANGE_SCALE
    return Motion(
        _bridged(energy, valid), _bridged(maps, valid), times_s, cuts, pan * (math.tau / width)
    )


def _picture_maps(picture: Tensor, signed: Tensor, usual: Tensor, cells: _Cells) -> Tensor:
    """What `MAPS` names, [shape=(T, len(MAPS), E, A)], frame by frame: that stays in the cache."""
    noise = float(usual.median()) + _NOISE
    scale = 1 / (usual + 0.5 * usual.median() + _NOISE)
    maps = picture.new_empty(len(signed), len(MAPS), cells.n_rows, cells.n_columns)
    scratch = torch.empty_like(usual)  # fresh memory for every step would cost more than the steps
    for seen, change, out in zip(picture[1:], signed, maps, strict=True):
        magnitude = torch.abs(change, out=scratch)
        out[2], out[3] = (cells.mean(magnitude) / noise).log1p_(), cells.mean(change) / noise
        relative = magnitude.mul_(scale).sub_(_FLOOR).clamp_(0, _CEILING).log1p_()
        out[0], out[1] = cells.mean(relative), cells.peak(relative)
        out[4], out[5] = cells.mean(seen), cells.mean(torch.square(seen, out=scratch))
    maps[:, 5] = (maps[:, 5] - maps[:, 4] ** 2).clamp(min=0).sqrt().log1p()
    maps[:, 3].asinh_()
    for static in (4, 5):
        maps[:, static] = _standardised(maps[:, static])
    maps[:, 6] = (cells.mean(usual) / noise).log1p()
    return maps


def _standardised(series: Tensor) -> Tensor:
    return (series - series.mean()) / (series.std() + 1e-6)


def _usual_change(signed: Tensor, valid: Tensor, n_samples: int = 16) -> Tensor:
    """Median over time of each pixel's change, from evenly spaced frames: enough, and quick."""
    usable = torch.nonzero(valid).flatten()
    if not len(usable):
        usable = torch.arange(len(signed), device=signed.device)
    step = max(1, len(usable) // n_samples)
    return signed[usable[::step]].abs_().median(dim=0).values


@dataclass(frozen=True)
class _Cells:
    """A grid over the picture's rows and columns."""

    n_rows: int
    n_columns: int

    def mean(self, values: Tensor) -> Tensor:
        """Mean of each cell, [shape=(H, W)] to [shape=(n_rows, n_columns)]."""
        # Rows first: sums of whole rows are quick, and leave little.
        rows = values.view(self.n_rows, -1, values.shape[1]).mean(1)
        return rows.view(self.n_rows, self.n_columns, -1).mean(-1)

    def peak(self, values: Tensor) -> Tensor:
        """Largest value of each cell."""
        rows = values.view(self.n_rows, -1, values.shape[1]).amax(1)
        return rows.view(self.n_rows, self.n_columns, -1).amax(-1)


def _cuts(coarse: Tensor, signed: Tensor) -> Tensor:
    """Intervals across which the picture has changed suddenly and in kind, [shape=(T,)].

    coarse : the picture with its rows averaged by fours.
    """
    scratch = torch.empty_like(signed[0])
    mean_change = torch.stack([torch.abs(change, out=scratch).mean() for change in signed])
    sudden = mean_change > torch.clamp(6 * mean_change.median(), min=12.0)
    # Without each row's mean: sky above and ground below is what all scenes have in common.
    coarse = coarse.reshape(*coarse.shape[:2], -1, 4).mean(-1)
    flat = functional.normalize((coarse - coarse.mean(-1, keepdim=True)).flatten(1), dim=1)
    return sudden & ((flat[1:] * flat[:-1]).sum(1) < 0.4)


def _bridged(series: Tensor, valid: Tensor) -> Tensor:
    """A series with what is not valid on a line between what is, held at its ends; or all 0."""
    kept = torch.nonzero(valid).flatten()
    if len(kept) == 0:
        return torch.zeros_like(series)
    lost = torch.nonzero(~valid).flatten()
    following = torch.searchsorted(kept, lost)
    before, after = kept[(following - 1).clamp(min=0)], kept[following.clamp(max=len(kept) - 1)]
    share = ((lost - before) / (after - before).clamp(min=1)).clamp(0, 1).to(series.dtype)
    bridged = series.clone()
    weight = share.view(-1, *[1] * (series.ndim - 1))
    bridged[lost] = torch.lerp(series[before], series[after], weight)
    return bridged


def _pan_columns(coarse: Tensor) -> Tensor:
    """Columns by which each frame stands to the right of the one before, [shape=(T,)].

    By phase correlation along azimuth of all rows together; shifts below a quarter of a column are
    taken for none, for there a moving object may outweigh a standing scene, and so are shifts that
    leave as much change as there is without them.

    coarse : the picture with its rows averaged by fours.
    """
    spectra = torch.fft.rfft(coarse - coarse.mean(-1, keepdim=True), dim=-1)
    cross = (spectra[1:] * spectra[:-1].conj()).sum(dim=1)
    cross = cross / (cross.abs() + 1e-6)
    correlation = torch.fft.irfft(cross, n=coarse.shape[-1], dim=-1)
    peak = correlation.argmax(dim=-1)
    width = correlation.shape[-1]
    left, centre, right = (
        correlation.gather(1, ((peak + offset) % width)[:, None])[:, 0] for offset in (-1, 0, 1)
    )
    bend = (left - 2 * centre + right).clamp(max=-1e-9)
    columns = peak + 0.5 * (left - right) / bend
    columns = torch.where(columns > width / 2, columns - width, columns)
    columns = torch.where(columns.abs() < 0.25, torch.zeros_like(columns), columns)
    for index in torch.nonzero(columns.round()).flatten().tolist():
        before, after = coarse[index], coarse[index + 1]
        turned = after.roll(-round(float(columns[index])), -1)
        if (turned - before).abs().mean() > _STILL * (after - before).abs().mean():
            columns[index] = 0.0  # the peak was a body's, or chance
    return columns


def _turned_back(frame: Tensor, columns: float) -> Tensor:
    """A frame [shape=(H, W)] moved left by a fractional number of columns."""
    if columns == 0:
        return frame
    whole = math.floor(columns)
    part = columns - whole
    return (1 - part) * frame.roll(-whole, -1) + part * frame.roll(-whole - 1, -1)
