"""What the channels of a track are like, measured without knowing what they carry.

A bounded number of stretches is read, evenly spread over the track, so an hour costs what a minute
does. Everything is taken from raw file channels: no order, weight or direction is assumed, which is
what `model.conventions` needs to weigh one reading of them against another.

Between 100 Hz and 3 kHz, where capsules are close to what they should be, the transform is cut into
cells of a few frames and bins. A cell in which one plane wave dominates has a covariance of rank 1,
whose eigenvector is the gain of that wave in every channel: real, up to one common phase.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from model.errors import UnusableContent
from model.media import AudioReader

FloatArray = NDArray[np.floating]

N_BANDS = 6
MAX_CHANNELS = 18  # third order with a head-locked pair; more is not looked at
_LOWEST_HZ, _HIGHEST_HZ = 100.0, 3000.0
_STRETCH_S = 4.0
_MAX_STRETCHES = 12
_FRAME_S = 0.04
_CELL_FRAMES, _CELL_BINS = 4, 3
# Share of a cell's energy in its first eigenvector, for one plane wave: many channels resolve (and
# add noise of their own to) what four take for one.
_DOMINANT, _DOMINANT_OF_MANY, _MANY = 0.9, 0.7, 6
_REACTIVE = 0.1  # share of a gain's energy that no common phase makes real
_DEAD_DB = -60.0  # against the loudest: what dither and lossy coders leave of silence is below
_ONE_WAVE = 0.999  # share of all channels' energy, each made alike
_EPS = 1e-30


@dataclass(frozen=True)
class ChannelStatistics:
    """Measurements of C channels (`MAX_CHANNELS` at most).

    Attributes
    ----------
    mean, rms, peak : of the samples as they are, full scale 1.0, [shape=(C,)].
    covariance : real part, by band, [shape=(N_BANDS, C, C)].
    energies : of single cells, [shape=(M, C)], and the `energy_bands` they lie in, [shape=(M,)].
    numbers : what the file's user calls each channel, from 1.
    waves : gains of single plane waves, of unit length, up to a sign, [shape=(K, C)], with their
        `wave_bands` [shape=(K,)].
    """

    mean: FloatArray
    rms: FloatArray
    peak: FloatArray
    covariance: FloatArray
    energies: FloatArray
    energy_bands: NDArray[np.intp]
    waves: FloatArray
    wave_bands: NDArray[np.intp]
    numbers: tuple[int, ...]

    @property
    def levels_db(self) -> FloatArray:
        """Level of each channel against the loudest, without its mean, [shape=(C,)]."""
        power = np.clip(self.rms**2 - self.mean**2, 0, None)
        # What a converter's offset leaves through rounding is no sound.
        power[power < 1e-9 * self.mean**2] = 0.0
        return np.asarray(10 * np.log10((power + _EPS) / (power.max() + _EPS)))

    @property
    def correlation(self) -> FloatArray:
        """Normalised correlation of every pair over all bands, [shape=(C, C)]; 0 if one is dead."""
        total = self.whitened_covariance.sum(0)
        scale = np.where(self.alive, np.sqrt(np.diag(total)), np.inf)
        scale[scale == 0] = np.inf
        return np.asarray(total / np.outer(scale, scale))

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which channels carry sound, [shape=(C,)]."""
        return np.asarray(self.levels_db > _DEAD_DB)

    @property
    def one_wave(self) -> bool:
        """Whether all that sounds is one signal: a single dry source, or copies of one channel."""
        values = np.linalg.eigvalsh(self.correlation)
        return bool(values[-1] > _ONE_WAVE * values.sum())

    @property
    def whitened_covariance(self) -> FloatArray:
        """The covariance with every band's energy made alike, [shape=(N_BANDS, C, C)]."""
        trace = np.trace(self.covariance, axis1=1, axis2=2)
        return np.asarray(self.covariance / (trace[:, None, None] + _EPS))


def measure_track(reader: AudioReader, channels: Sequence[int] | None = None) -> ChannelStatistics:
    """Measure an open track.

    channels : which ones, in which order (default: all as they are, `MAX_CHANNELS` at most).

    Raises
    ------
    UnusableContent : no sound at all in the stretches that are read.
    MediaError : the track cannot be decoded.
    """
    chosen = list(range(reader.info.n_channels) if channels is None else channels)[:MAX_CHANNELS]
    stats = measure(_stretches(reader, chosen), reader.info.samplerate)
    return replace(stats, numbers=tuple(channel + 1 for channel in chosen))


def measure(blocks: Iterable[FloatArray], samplerate: int) -> ChannelStatistics:
    """Measure stretches of a track, each [shape=(C, N)] with the same C; N of a second or more.

    Raises
    ------
    UnusableContent : no stretch, or silence only.
    """
    count = 0
    sums, covariance = np.zeros((3, 0)), np.zeros((N_BANDS, 0, 0))
    energies, energy_bands, waves, wave_bands = [], [], [], []
    for block in blocks:
        if count == 0:
            sums, covariance = np.zeros((3, len(block))), np.zeros((N_BANDS, *2 * [len(block)]))
        sums[0] += block.sum(axis=1)
        sums[1] += (block**2).sum(axis=1)
        sums[2] = np.maximum(sums[2], np.abs(block).max(axis=1, initial=0.0))
        count += block.shape[1]
        cells, bands = _cells(block, samplerate)
        trace = np.trace(cells, axis1=1, axis2=2).real
        np.add.at(covariance, bands, cells.real)
        loud = _loud(trace, bands)
        gains = _plane_waves(cells[loud])
        single = ~np.isnan(gains[:, 0])
        energies.append(np.diagonal(cells[loud], axis1=1, axis2=2).real)
        energy_bands.append(bands[loud])
        waves.append(gains[single])
        wave_bands.append(bands[loud][single])
    if count == 0 or sums[2].max(initial=0.0) == 0:
        raise UnusableContent("The track is silent: nothing can be told of its channels.")
    return ChannelStatistics(
        mean=sums[0] / count,
        rms=np.sqrt(sums[1] / count),
        peak=sums[2],
        covariance=covariance,
        energies=np.concatenate(energies),
        energy_bands=np.concatenate(energy_bands),
        waves=np.concatenate(waves),
        wave_bands=np.concatenate(wave_bands),
        numbers=tuple(range(1, len(covariance[0]) + 1)),
    )


def _stretches(reader: AudioReader, channels: Sequence[int]) -> Iterator[FloatArray]:
    """Blocks [shape=(C, N)] of these channels, a few seconds each, evenly spread over the track.

    Those with NaN or infinite samples are left out.
    """
    rate, n_samples = reader.info.samplerate, reader.info.n_samples
    size = max(1, round(_STRETCH_S * rate))
    n_stretches = max(1, min(_MAX_STRETCHES, n_samples // size))
    for start in np.linspace(0, max(0, n_samples - size), n_stretches):
        block = np.asarray(reader.read(int(start), size)[channels], dtype=np.float64)
        if block.shape[1] and np.isfinite(block).all():
            yield block


def too_short(n_samples: int, rate: int) -> bool:
    """Whether so little sound has not one cell to be measured in: about a tenth of a second."""
    return _n_frames(n_samples, rate) == 0


def _n_fft(rate: int) -> int:
    """Samples of a frame."""
    return 1 << round(math.log2(rate * _FRAME_S))


def _n_frames(n_samples: int, rate: int) -> int:
    """Half-overlapping frames, as many as make whole cells."""
    n_fft = _n_fft(rate)
    n_frames = 1 + (n_samples - n_fft) // (n_fft // 2) if n_samples >= n_fft else 0
    return n_frames - n_frames % _CELL_FRAMES


def _cells(block: FloatArray, rate: int) -> tuple[NDArray[np.complex128], NDArray[np.intp]]:
    """Covariances of all cells [shape=(M, C, C)] and their bands [shape=(M,)]."""
    n_channels = len(block)
    n_fft = _n_fft(rate)
    hz = np.fft.rfftfreq(n_fft, 1 / rate)
    bins = np.flatnonzero((hz >= _LOWEST_HZ) & (hz <= min(_HIGHEST_HZ, 0.45 * rate)))
    bins = bins[: len(bins) - len(bins) % _CELL_BINS]
    n_frames = _n_frames(block.shape[1], rate)
    if n_frames == 0 or len(bins) == 0:
        nothing = np.empty((0, n_channels, n_channels), dtype=np.complex128)
        return nothing, np.empty(0, dtype=np.intp)
    # Without its mean, or an offset leaks into the lowest bins.
    centred = block - block.mean(axis=1, keepdims=True)
    frames = sliding_window_view(centred, n_fft, axis=1)[:, :: n_fft // 2][:, :n_frames]
    spectra = np.fft.rfft(frames * np.hanning(n_fft), axis=2)[:, :, bins]
    shape = (n_channels, n_frames // _CELL_FRAMES, _CELL_FRAMES, len(bins) // _CELL_BINS, -1)
    by_cell = spectra.reshape(shape).transpose(1, 3, 2, 4, 0)
    snapshots = by_cell.reshape(-1, _CELL_FRAMES * _CELL_BINS, n_channels)
    centres = hz[bins].reshape(-1, _CELL_BINS).mean(axis=1)
    edges = np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, N_BANDS + 1)[1:-1]
    bands = np.tile(np.searchsorted(edges, centres), n_frames // _CELL_FRAMES)
    return np.einsum("msc,msd->mcd", snapshots, snapshots.conj(), optimize=True), bands


def _loud(trace: FloatArray, bands: NDArray[np.intp]) -> NDArray[np.bool_]:
    """The louder half of each band's cells, if they sound at all."""
    loud = np.zeros(len(trace), dtype=bool)
    for band in np.unique(bands):
        within = bands == band
        loud |= within & (trace > max(np.median(trace[within]), _EPS))
    return loud


def _plane_waves(cells: NDArray[np.complex128]) -> FloatArray:
    """Gains [shape=(M, C)], of unit length, of the wave that dominates each cell; else NaN.

    A cell does not hold one plane wave if its first eigenvector has less than `_DOMINANT` of the
    energy, or is not real up to a common phase (reactive sound, or spaced capsules).
    """
    dominant = _DOMINANT if cells.shape[-1] <= _MANY else _DOMINANT_OF_MANY
    values, vectors = np.linalg.eigh(cells)
    gains = vectors[..., -1]
    # The phase that makes the sum of squares real makes a real vector real.
    phase = np.angle((gains**2).sum(axis=1)) / 2
    gains = gains * np.exp(-1j * phase)[:, None]
    single = values[:, -1] > dominant * np.clip(values, 0, None).sum(axis=1)
    single &= (gains.imag**2).sum(axis=1) < _REACTIVE
    return np.where(single[:, None], gains.real, np.nan)
