"""Covariance features against transforming every rotated waveform; motion against known moves."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from model import features
from model.ambisonics import encode, plane_wave_gains, rotate_yaw
from model.features import (
    HOP,
    N_FFT,
    SAMPLERATE,
    WW,
    WX,
    WY,
    XX,
    azimuths,
    cardioid_power,
    covariance,
    directional,
    intensity,
    mel_filterbank,
    motion,
    mvdr_power,
    rotated,
    to_analysis_rate,
    without_clicks,
)

HEIGHT, WIDTH = features.PICTURE_SIZE
POWERS = [features.WW, features.YY, features.ZZ, features.XX]  # of W, Y, Z, X
YAWS = torch.tensor(np.deg2rad(np.arange(-175, 181, 5)))


def field(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    """Three moving sources and diffuse noise, first order."""
    rng = np.random.default_rng(seed)
    n = round(seconds * SAMPLERATE)
    total = 0.1 * rng.standard_normal((4, n))
    for _ in range(3):
        level = np.abs(np.sin(2 * np.pi * rng.uniform(0.3, 3) * np.arange(n) / SAMPLERATE))
        azimuth = rng.uniform(-np.pi, np.pi) + 0.3 * np.arange(n) / n
        total += encode(rng.standard_normal(n) * level, azimuth, np.full(n, 0.2), 1)
    return 0.05 * total


def plain_power(signal: np.ndarray) -> Tensor:
    """Mel power of one signal by NumPy's transform, [shape=(T, F)]."""
    window = torch.hann_window(N_FFT, dtype=torch.float64).numpy()
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(signal, N_FFT // 2), N_FFT)[::HOP]
    energy = np.abs(np.fft.rfft(frames * window)) ** 2
    return torch.tensor(energy) @ mel_filterbank().T


@pytest.fixture(scope="module")
def cov() -> Tensor:
    return covariance(torch.tensor(field()))


def test_power_of_rotated_terms_equals_that_of_the_rotated_waveform(cov: Tensor) -> None:
    for yaw in YAWS[::6].tolist():
        fast = rotated(cov, yaw)[..., POWERS]
        turned = rotate_yaw(field(), yaw)
        slow = torch.stack([plain_power(channel) for channel in turned], dim=-1)
        floor = 1e-12 * slow.max()
        difference = (fast + floor).log() - (slow + floor).log()
        assert difference.abs().max() < 1e-9


def test_cardioids_equal_beams_of_the_waveform(cov: Tensor) -> None:
    w, y, _, x = field()

    fast = cardioid_power(cov, azimuths(8))

    for index, azimuth in enumerate(azimuths(8).tolist()):
        slow = plain_power(0.5 * (w + x * math.cos(azimuth) + y * math.sin(azimuth)))
        floor = 1e-9 * slow.max()
        assert ((fast[..., index] + floor).log() - (slow + floor).log()).abs().max() < 1e-6


def test_what_a_beam_hears_is_that_of_the_turned_field(cov: Tensor) -> None:
    """Azimuth by azimuth: the field with it at the front, by its waveforms."""
    heard = directional(cov, 8)

    usual = plain_power(field()[0]).mean(0)
    for index, azimuth in enumerate(azimuths(8).tolist()):
        w, y, z, x = rotate_yaw(field(), -azimuth)
        powers = [plain_power(channel) for channel in (w, (w + x) / 2, w + x, w - x, w + y, w - y)]
        density = sum(plain_power(channel) for channel in (w, x, y, z)) / 2
        along = (powers[2] - powers[3]) / 4 / density
        across = (powers[4] - powers[5]) / 4 / density
        levels = [0.4 * (power / usual + 1e-3).log() + 0.6 for power in powers[:2]]
        expected = torch.cat([*levels, along, 1 - across.abs()], dim=1).T
        torch.testing.assert_close(heard[index], expected, rtol=0, atol=1e-6)


def test_the_papers_features_cannot_tell_front_from_back_and_ours_can(cov: Tensor) -> None:
    there, back = rotated(cov, 0.4), rotated(cov, 0.4 + math.pi)

    torch.testing.assert_close(there[..., POWERS], back[..., POWERS])
    torch.testing.assert_close(intensity(there)[..., :2], -intensity(back)[..., :2])


def test_a_click_is_brought_down_to_the_rest_and_keeps_its_direction(cov: Tensor) -> None:
    loud = field()
    loud[:, 12_000:12_480] += encode(np.full(480, 30.0), np.full(480, 2.0), np.zeros(480), 1)
    clicked = covariance(torch.tensor(loud))

    heard = without_clicks(clicked)

    power, usual = heard[..., features.WW], cov[..., features.WW]
    assert clicked[..., features.WW].amax() > 1000 * usual.amax()
    assert (power.amax(0) < 10 * usual.amax(0)).all()
    at = int(clicked[..., features.WW].sum(1).argmax())
    x, y, _ = intensity(heard)[at].sum(0)
    assert math.atan2(y, x) == pytest.approx(2.0, abs=1e-3)
    torch.testing.assert_close(without_clicks(cov), cov, rtol=0.05, atol=0)


def test_what_is_faint_after_what_is_loud_has_the_terms_of_a_field() -> None:
    """As a reverberation's end has in a float file, or a coder's silence: 200 dB below."""
    loud, faint = field(), 1e-10 * field(seed=1)
    edges = torch.arange(0, 3, 1 / 14.985)

    terms = covariance(torch.tensor(np.hstack([loud, 0 * loud, faint])), edges)

    alone = covariance(torch.tensor(np.hstack([0 * loud, 0 * loud, faint])), edges)
    torch.testing.assert_close(terms[edges[:-1] > 2], alone[edges[:-1] > 2], rtol=1e-9, atol=0)
    beams = mvdr_power(terms, YAWS)
    assert (beams <= 4 * features.energy(terms)[..., None] + 1e-30).all()


def test_sound_that_is_mostly_silence_is_left_alone() -> None:
    quiet = torch.zeros(50, 32, 10, dtype=torch.float64)
    quiet[20] = 1.0

    assert torch.equal(without_clicks(quiet), quiet)


def test_rotating_the_terms_equals_rotating_the_field(cov: Tensor) -> None:
    turned = covariance(torch.tensor(rotate_yaw(field(), 0.7)))

    torch.testing.assert_close(rotated(cov, 0.7), turned, rtol=1e-9, atol=1e-12)


def test_mvdr_equals_inverting_each_matrix(cov: Tensor) -> None:
    azimuth = azimuths(12)
    power = mvdr_power(cov[:2, :4], azimuth, loading=0.05)

    for t in range(2):
        for band in range(4):
            c = cov[t, band].numpy()
            matrix = np.array([[c[0], c[4], c[5]], [c[4], c[1], c[7]], [c[5], c[7], c[2]]])
            matrix = matrix + 0.05 * np.trace(matrix) * np.eye(3)
            for a, angle in enumerate(azimuth.tolist()):
                look = np.array([1, math.cos(angle), math.sin(angle)])
                expected = 1 / (look @ np.linalg.inv(matrix) @ look)
                assert power[t, band, a].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("azimuth_deg", [-150, -10, 60, 179])
def test_beams_and_intensity_point_at_a_plane_wave(azimuth_deg: float) -> None:
    source = np.random.default_rng(0).standard_normal(SAMPLERATE)
    terms = covariance(torch.tensor(encode(source, math.radians(azimuth_deg), 0.0, 1))).sum((0, 1))

    heard = math.degrees(math.atan2(terms[WY], terms[WX]))
    assert math.remainder(heard - azimuth_deg, 360) == pytest.approx(0, abs=1e-6)
    for power in (cardioid_power(terms[None], azimuths(72)), mvdr_power(terms[None], azimuths(72))):
        best = math.degrees(azimuths(72)[int(power.argmax())])
        assert abs(math.remainder(best - azimuth_deg, 360)) <= 2.5 + 1e-6


def test_pooling_keeps_the_sums(cov: Tensor) -> None:
    """Any partition of the time axis holds the same energy, whatever its intervals."""
    whole = covariance(torch.tensor(field()), torch.tensor([-0.005, 1.005], dtype=torch.float64))
    edges = torch.tensor([-0.005, 0.1, 0.1333, 0.5, 0.77, 1.005], dtype=torch.float64)

    parts = covariance(torch.tensor(field()), edges)

    torch.testing.assert_close((parts * edges.diff()[:, None, None]).sum(0) / 1.01, whole[0])
    torch.testing.assert_close(whole[0], cov.mean(0))


def test_batches_are_taken_as_they_come() -> None:
    batch = torch.tensor(np.stack([field(0.3, seed) for seed in (0, 1)]))

    both = covariance(batch)

    torch.testing.assert_close(both[1], covariance(batch[1]))


@pytest.mark.parametrize("samplerate", [8000, 24000, 44100, 48000, 96000, 44099])
def test_any_sample_rate_gives_the_same_features(samplerate: int) -> None:
    t = np.arange(2 * samplerate) / samplerate
    tone = np.sin(2 * np.pi * 440 * t) * (1 + np.sin(2 * np.pi * 2 * t))
    resampled = to_analysis_rate(tone * plane_wave_gains(0.5, 0.0, 1)[:, None], samplerate)
    expected = np.arange(2 * SAMPLERATE) / SAMPLERATE
    expected = np.sin(2 * np.pi * 440 * expected) * (1 + np.sin(2 * np.pi * 2 * expected))

    assert resampled.shape == (4, 2 * SAMPLERATE)
    inner = slice(2000, -2000)
    np.testing.assert_allclose(resampled[0, inner], expected[inner], atol=5e-3)


# --- picture -------------------------------------------------------------------------------------


def still(seed: int = 0, n: int = 60, noise: float = 1.5) -> np.ndarray:
    """A still, textured scene with sensor noise, [shape=(n, H, W)], float."""
    rng = np.random.default_rng(seed)
    scene = rng.uniform(60, 180, (HEIGHT // 4, WIDTH // 4)).repeat(4, 0).repeat(4, 1)
    return scene + rng.normal(0, noise, (n, HEIGHT, WIDTH))


def as_frames(frames: np.ndarray) -> Tensor:
    return torch.tensor(np.clip(frames, 0, 255).astype(np.uint8))


def times(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64) / 15


def put_ball(frames: np.ndarray, frame: int, azimuth_deg: float, elevation_deg: float = 0) -> None:
    column = round((180 - azimuth_deg) / 360 * WIDTH)
    row = round((90 - elevation_deg) / 180 * HEIGHT)
    frames[frame, row - 4 : row + 5, column - 4 : column + 5] = 240


def strongest_deg(energy: Tensor) -> float:
    return math.degrees(azimuths(72)[int(energy.argmax())])


def test_maps_are_what_a_plain_reading_gives() -> None:
    frames = still(n=17, noise=3.0)
    for t in range(17):
        put_ball(frames, t, 60, 5 * math.sin(t))

    result = motion(as_frames(frames), times(17))

    rows = np.abs(90 - (np.arange(HEIGHT) + 0.5) * 180 / HEIGHT) < 60
    picture = as_frames(frames)[:, torch.tensor(rows)].double().numpy()
    level = picture.mean((1, 2))
    picture *= ((level.mean() + 1) / (level + 1))[:, None, None]
    cells = picture[1:].reshape(16, 12, -1, 72, 7)
    change = np.diff(picture, axis=0).reshape(cells.shape)
    usual = np.quantile(np.abs(change), 0.5, axis=0, method="lower")
    middle = np.quantile(usual, 0.5, method="lower")
    units = (np.abs(change) / (usual + 0.5 * middle + 1) - 4).clip(0, 20)
    plain = {
        "change": 4 * np.log1p(units).mean((2, 4)),
        "peak": np.log1p(units).max((2, 4)),
        "raw change": np.log1p(np.abs(change).mean((2, 4)) / (middle + 1)),
        "brightening": np.arcsinh(change.mean((2, 4)) / (middle + 1)),
        "brightness": standardised(cells.mean((2, 4))),
        "contrast": standardised(np.log1p(cells.std((2, 4)))),
        "usual change": np.log1p(usual.mean((1, 3)) / (middle + 1)),
    }
    for index, name in enumerate(features.MAPS):
        expected = np.broadcast_to(plain[name], (16, 12, 72))
        np.testing.assert_allclose(result.maps[:, index], expected, atol=2e-3, err_msg=name)


def standardised(values: np.ndarray) -> np.ndarray:
    return np.asarray((values - values.mean()) / values.std())


def test_motion_is_where_a_thing_moves_and_when() -> None:
    frames = still()
    for t in range(60):
        put_ball(frames, t, 60, 5 * math.sin(t) if 20 <= t < 40 else 0)

    energy = motion(as_frames(frames), times(60)).energy

    assert energy.shape == (59, 72)
    assert abs(strongest_deg(energy.sum(0)) - 60) <= 5
    assert energy[21:38].sum() > 20 * energy[42:].sum()


def test_a_still_noisy_picture_does_not_move() -> None:
    moving = still()
    for t in range(60):
        put_ball(moving, t, -90, 5 * math.sin(t))

    quiet = motion(as_frames(still()), times(60)).energy.sum()

    assert quiet < 0.02 * motion(as_frames(moving), times(60)).energy.sum()


def test_flicker_is_no_motion() -> None:
    gain = 1 + 0.05 * np.sin(np.arange(60))[:, None, None]
    moving = still()
    for t in range(60):
        put_ball(moving, t, -90, 5 * math.sin(t))

    flickering = motion(as_frames(still(noise=0.5) * gain), times(60)).energy.sum()

    assert flickering < 0.1 * motion(as_frames(moving), times(60)).energy.sum()


def test_the_rig_at_the_bottom_does_not_count() -> None:
    frames = still()
    for t in range(60):
        put_ball(frames, t, 20, -75 + 5 * math.sin(t))

    horizon = still()
    for t in range(60):
        put_ball(horizon, t, 20, 5 * math.sin(t))

    assert motion(as_frames(frames), times(60)).energy.sum() < 0.05 * (
        motion(as_frames(horizon), times(60)).energy.sum()
    )


@pytest.mark.parametrize("columns", [3, -3])
def test_a_turning_camera_is_told_and_taken_out(columns: int) -> None:
    frames = still(noise=0.5)
    for t in range(60):
        put_ball(frames, t, 60, 5 * math.sin(t))
    turned = np.stack([np.roll(frame, columns * t, axis=1) for t, frame in enumerate(frames)])

    result = motion(as_frames(turned), times(60))

    # The picture runs to the right, so the camera turns to the left.
    np.testing.assert_allclose(result.pan_rad, columns * math.tau / WIDTH, rtol=0.02)
    standing = motion(as_frames(frames), times(60)).energy.sum()
    assert result.energy.sum() < 2 * standing


def test_what_changes_all_over_is_no_turn_of_the_camera() -> None:
    """Noise before a wall has a largest correlation somewhere, and a still camera."""
    wall = np.random.default_rng(4).normal(120, 8, (60, *still().shape[1:]))

    assert not motion(as_frames(wall), times(60)).pan_rad.any()


def test_a_cut_is_told_and_bridged() -> None:
    frames = np.concatenate([still(0, 30), still(1, 30)])

    result = motion(as_frames(frames), times(60))

    assert torch.nonzero(result.cuts).flatten().tolist() == [29]
    assert result.energy[29].max() <= result.energy[[28, 30]].max()


def test_a_cut_is_no_turn_of_the_camera() -> None:
    """Though some scenes look like others turned: two of these, by 166 and 25 degrees."""
    for seed in range(2, 10):
        first, second = (
            gaussian_filter(np.random.default_rng(s).standard_normal((HEIGHT, WIDTH)), 30,
                            mode=("nearest", "wrap"))
            for s in (seed, seed + 1)
        )  # fmt: skip
        scenes = np.stack([scene / scene.std() for scene in (first, second)])
        noise = np.random.default_rng(seed).normal(0, 1.5, (6, HEIGHT, WIDTH))

        result = motion(as_frames(120 + 60 * scenes.repeat(3, 0) + noise), times(6))

        assert torch.nonzero(result.cuts).flatten().tolist() == [2]
        assert not result.pan_rad.any()


def test_a_thing_that_fills_a_quarter_of_the_view_is_no_cut() -> None:
    frames = still()
    frames[30:, :, : WIDTH // 4] = 255 - frames[30:, :, : WIDTH // 4]

    assert not motion(as_frames(frames), times(60)).cuts.any()


def test_coder_refreshes_are_bridged() -> None:
    frames = still(noise=0.5)
    frames[30:] += np.random.default_rng(5).normal(0, 8, (HEIGHT, WIDTH))
    refreshed = torch.zeros(60, dtype=torch.bool)
    refreshed[30] = True

    seen = motion(as_frames(frames), times(60)).energy
    bridged = motion(as_frames(frames), times(60), refreshed).energy

    assert seen[29].sum() > 5 * seen[10].sum()
    assert bridged[29].sum() <= bridged[[28, 30]].sum()


@pytest.mark.parametrize("lost", [[8, 9, 10, 11], [0, 1], [58, 59], [0, 20, 21, 59]])
def test_what_is_bridged_lies_on_lines(lost: list[int]) -> None:
    frames = still(n=61, noise=12.0)
    refreshed = torch.zeros(61, dtype=torch.bool)
    refreshed[torch.tensor(lost) + 1] = True
    kept = np.setdiff1d(np.arange(60), lost)

    result = motion(as_frames(frames), times(61), refreshed)

    for series in (result.energy, result.maps.flatten(1)):
        assert float(series[kept].abs().mean()) > 0
        expected = [np.interp(lost, kept, column[kept]) for column in series.double().T.numpy()]
        np.testing.assert_allclose(series[lost].T, expected, atol=1e-5)


def test_rolling_the_picture_rolls_the_motion() -> None:
    frames = still()
    for t in range(60):
        put_ball(frames, t, 60, 5 * math.sin(t))
    bins = 10

    rolled = np.roll(frames, -7 * bins, axis=2)

    torch.testing.assert_close(
        motion(as_frames(rolled), times(60)).energy,
        motion(as_frames(frames), times(60)).energy.roll(-bins, dims=1),
    )


def test_wide_terms_are_named_right(cov: Tensor) -> None:
    w, _, _, x = field()
    torch.testing.assert_close(cov[..., WW], plain_power(w))
    torch.testing.assert_close(cov[..., XX], plain_power(x))
