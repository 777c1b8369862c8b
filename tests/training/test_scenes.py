"""Scenes: picture and sound are where the scene says, and the same seed is the same scene."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.signal import butter, fftconvolve, lfilter, sosfilt
from scipy.stats import mannwhitneyu

from model import features
from model.ambisonics import plane_wave_gains
from training.data.bodies import BODY_KINDS, PERFORMERS
from training.data.canvas import Canvas, blurred, shake
from training.data.picture import Blob, Body, Breaker, Figure, Nearness, Patch, Texture, sampled
from training.data.scenes import Conditions, Scene, draw_scene, render_picture, render_sound
from training.data.signals import (
    CURVE_RATE,
    EnvelopeKind,
    at_samples,
    coloured,
    draw_drive,
    draw_envelope,
    draw_sound,
    filtered,
    smooth_noise,
)
from training.data.soundfield import Room, diffuse_noise, microphone, place

EVEN = Nearness()
CLEAR = Conditions(
    duration_s=6.0, n_sources=1, n_distractors=0, snr_db=40.0, envelope="speech", offscreen=False,
    shaken=False,
)  # fmt: skip


def heard_deg(field: np.ndarray) -> float:
    w, y, _, x = field[:4]
    return math.degrees(math.atan2((w * y).mean(), (w * x).mean()))


def seen_deg(frames: np.ndarray, rate_hz: float) -> float:
    times = torch.arange(len(frames), dtype=torch.float64) / rate_hz
    energy = features.motion(torch.from_numpy(frames[..., 0]), times).energy.sum(0)
    return math.degrees(features.azimuths(72)[int(energy.argmax())])


@pytest.mark.parametrize("seed", range(12))
def test_sound_and_picture_are_where_the_scene_says(seed: int) -> None:
    scene = draw_scene(seed, CLEAR)
    still = replace(scene, flicker=0.0, noise=0.3)
    (truth,) = np.rad2deg(scene.source_azimuths_rad)
    body = scene.sources[0].body
    assert body is not None
    extent = math.degrees(np.ptp(body.azimuth) + body.radius)

    heard = heard_deg(render_sound(scene, samplerate=24_000).numpy())
    frames = render_picture(still, height=252, rate_hz=12.5).numpy()

    # Reflections bend the mean intensity by up to some tens of degrees.
    assert abs(math.remainder(heard - truth, 360)) <= max(30, extent)
    if body.amount > 0.3 and body.radius > math.radians(3):
        assert abs(math.remainder(seen_deg(frames, 12.5) - truth, 360)) <= extent + 7.5


def test_the_same_seed_is_the_same_scene() -> None:
    for seed in (0, 7):
        first, again = (draw_scene(seed, CLEAR) for _ in range(2))

        assert np.array_equal(
            render_picture(first, height=64, rate_hz=10).numpy(),
            render_picture(again, height=64, rate_hz=10).numpy(),
        )
        assert np.array_equal(
            render_sound(first, samplerate=8000).numpy(),
            render_sound(again, samplerate=8000).numpy(),
        )
    assert draw_scene(0, CLEAR).source_azimuths_rad != draw_scene(7, CLEAR).source_azimuths_rad


def test_plain_scenes_hold_large_bodies_that_follow_their_sound() -> None:
    closeness = []
    for seed in range(12):
        scene = draw_scene(seed, Conditions(n_sources=2, n_distractors=3, calm=False, plain=True))
        assert all(isinstance(body, Blob) for body in scene.bodies)
        assert all(5 <= math.degrees(body.radius) <= 20 for body in scene.bodies)
        assert all(body.amount >= 0.25 for body in scene.bodies)
        for source in scene.sources:
            if source.body is not None and source.envelope.kind != "sustained":
                level = source.envelope.level
                closeness.append(np.corrcoef(source.body.drive[: len(level)], level)[0, 1])
    assert np.median(closeness) > 0.7


@pytest.mark.parametrize("plain", [True, False])
def test_how_a_body_moves_does_not_tell_whether_it_is_heard(plain: bool) -> None:
    conditions = Conditions(
        n_sources=2, n_distractors=2, calm=False, offscreen=False, plain=plain, duration_s=6.0
    )
    heard: list[Body] = []
    silent: list[Body] = []
    for seed in range(150):
        scene = draw_scene(seed, conditions)
        heard += [source.body for source in scene.sources if source.body is not None]
        silent += scene.distractors

    for measure in (np.std, np.mean, lambda drive: np.mean(np.abs(np.diff(drive)) < 1e-3)):
        ours, theirs = (
            [float(measure(body.drive)) for body in bodies] for bodies in (heard, silent)
        )
        # The standard error of 300 against 300 is 0.024 (by envelopes as they are 0.31 and less).
        above = mannwhitneyu(ours, theirs).statistic / len(heard) / len(silent)
        assert above == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("seed", range(30))
def test_a_microphone_turns_no_direction_round(seed: int) -> None:
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(24_000))
    wave = torch.from_numpy(plane_wave_gains(0.7, 0.2, 1))[:, None] * noise

    heard = torch.fft.rfft(microphone(np.random.default_rng(seed), wave, 24_000))

    intensity = (heard[1:] * heard[0].conj()).real * torch.sign(wave[1:, :1] * wave[0, 0])
    bands = intensity.unfold(1, 300, 300).sum(-1)
    assert bool((bands > 0).all())


def shore(nearness: Nearness = EVEN, breakers: tuple[Breaker, ...] = ()) -> Scene:
    """A wide texture in the middle of the picture, before nothing else that moves."""
    shown = Conditions(**{**vars(CLEAR), "body": "surf", "flawless": True})
    scene = replace(draw_scene(5, shown), flicker=0.0, noise=0.3)
    surf = scene.sources[0].body
    assert isinstance(surf, Texture)
    surf.azimuth, surf.radius, surf.height, surf.contrast = 0 * surf.azimuth, 1.2, 0.3, 0.3
    surf.nearness, surf.breakers = nearness, breakers
    turned = replace(scene.sources[0], azimuth=surf.azimuth, extent_rad=1.2)
    return replace(scene, sources=(turned,))


@pytest.mark.parametrize("peak", [-0.8, 0.8])
def test_the_near_part_of_a_shore_is_tall_and_loud(peak: float) -> None:
    scene = shore(Nearness(peak, width=0.2, floor=0.1))

    heard = heard_deg(render_sound(scene, samplerate=24_000).numpy())
    frames = render_picture(scene, height=252, rate_hz=12.5).numpy()

    assert heard == pytest.approx(math.degrees(peak), abs=20)
    assert seen_deg(frames, 12.5) == pytest.approx(math.degrees(peak), abs=20)
    moving = np.ptp(frames[..., 0].astype(float), axis=0) > 12
    rows = {side: moving[:, 252 - round(side * 252 / math.pi)].sum() for side in (peak, -peak)}
    assert rows[peak] > 2 * rows[-peak]


def test_a_wide_stretch_is_heard_about_its_middle_and_in_time() -> None:
    off_deg, late_s = [], []
    for seed in range(12):
        scene = replace(shore(), seed=seed, snr_db=60.0)
        field = render_sound(scene, samplerate=8000).numpy()
        off_deg.append(heard_deg(field))
        loudness = np.sqrt(np.square(field[0]).reshape(-1, 80).mean(1))  # a point every 10 ms
        level = scene.sources[0].envelope.level[: len(loudness)] ** 1.3
        lags = np.arange(-30, 31)
        fit = [
            np.corrcoef(loudness[50:-50], level[50 - k : len(level) - 50 - k])[0, 1] for k in lags
        ]
        late_s.append(lags[int(np.argmax(fit))] / 100)

    assert np.median(np.abs(off_deg)) < 5
    assert abs(np.mean(late_s)) <= 0.02


@pytest.mark.parametrize("kind", ["sustained", "swell", "speech"])
def test_what_sounds_from_the_first_moment_has_begun_before(kind: EnvelopeKind) -> None:
    for seed in range(10):
        onsets = draw_envelope(np.random.default_rng(seed), 6.0, kind).onsets
        assert onsets[0] == 0
        assert onsets.max() == pytest.approx(1)


def test_a_breaker_is_seen_and_heard_where_and_when_it_breaks() -> None:
    rng = np.random.default_rng(0)
    envelope = draw_envelope(rng, 6.0, "on-off")
    drive = draw_drive(rng, envelope, strength=1.0, lag_s=0.0, kind="level")
    scene = shore(breakers=(Breaker(0.9, 0.2, drive, gain=30.0, envelope=envelope),))

    field = render_sound(scene, samplerate=24_000).numpy()
    frames = render_picture(scene, height=252, rate_hz=10.0).numpy()[..., 0].astype(float)

    loud = np.repeat(envelope.level[:-1] > 0.3, 240)[: field.shape[1]]
    assert heard_deg(field[:, : len(loud)][:, loud]) == pytest.approx(math.degrees(0.9), abs=10)
    there, elsewhere = (
        np.ptp(frames[:, 100:150, 252 - column : 262 - column], axis=(1, 2))
        for column in (round(0.9 * 252 / math.pi), round(-0.9 * 252 / math.pi))
    )
    of_frames = np.interp(np.arange(len(frames)) / 10, np.arange(len(drive)) / CURVE_RATE, drive)
    assert np.corrcoef(there, of_frames)[0, 1] > 0.7
    assert abs(np.corrcoef(elsewhere, of_frames)[0, 1]) < 0.5


def test_performers_are_side_by_side_and_some_have_one_voice() -> None:
    shared = []
    for seed in range(20):
        scene = draw_scene(seed, Conditions(ensemble=True, offscreen=False))
        assert 4 <= len(scene.sources) <= 8
        starts = np.exp([1j * source.azimuth[0] for source in scene.sources])
        off_deg = np.rad2deg(np.angle(starts / starts.mean()))
        assert np.abs(off_deg).max() <= 160
        assert all(isinstance(source.body, Figure | Patch) for source in scene.sources)
        first = scene.sources[0].envelope.level
        shared.append(all(np.array_equal(s.envelope.level, first) for s in scene.sources))
    assert 3 <= sum(shared) <= 14
    assert set(PERFORMERS) <= set(BODY_KINDS)


def test_a_scene_looks_the_same_at_any_size_and_rate() -> None:
    scene = replace(draw_scene(1, CLEAR), flicker=0.0, noise=0.0)
    small = render_picture(scene, height=64, rate_hz=5).numpy().astype(float)
    large = render_picture(scene, height=128, rate_hz=10).numpy().astype(float)

    # The background is drawn anew, so compare where bodies move: change from the first frame.
    def moved(frames: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(frames - frames[:1])[..., 0].mean(axis=0))

    coarse = moved(large[::2]).reshape(64, 2, 128, 2).mean(axis=(1, 3))
    assert np.corrcoef(coarse.ravel(), moved(small).ravel())[0, 1] > 0.8


def test_conditions_are_kept() -> None:
    scene = draw_scene(3, Conditions(n_sources=2, n_distractors=4, snr_db=5, offscreen=True))
    assert len(scene.sources) == 3
    assert sum(source.body is None for source in scene.sources) == 1
    assert (len(scene.distractors), scene.snr_db) == (4, 5)

    silent = draw_scene(3, Conditions(silent=True))
    assert silent.sources == ()
    field = render_sound(silent, samplerate=8000).numpy()
    # Diffuse: W twice... each first-order component has a third of W's power.
    assert np.mean(field[0] ** 2) / np.mean(field[[1, 3]] ** 2) == pytest.approx(3, rel=0.3)


def test_foreign_sound_is_another_scenes() -> None:
    own, foreign = draw_scene(4, CLEAR), draw_scene(4, replace(CLEAR, foreign=True))

    assert np.array_equal(
        render_picture(own, height=64, rate_hz=10).numpy(),
        render_picture(foreign, height=64, rate_hz=10).numpy(),
    )
    difference = heard_deg(render_sound(own, samplerate=8000).numpy()) - heard_deg(
        render_sound(foreign, samplerate=8000).numpy()
    )
    assert abs(math.remainder(difference, 360)) > 1


def test_colour_and_grey_agree() -> None:
    scene = replace(draw_scene(2, CLEAR), flicker=0.0, noise=0.0)
    colour = render_picture(scene, height=64, rate_hz=5, colour=True).numpy()
    grey = render_picture(scene, height=64, rate_hz=5).numpy()

    assert colour.shape[3] == 3
    assert np.abs(colour.mean(axis=3) - grey[..., 0]).mean() < 3


def test_higher_orders_point_the_same_way() -> None:
    """The second-order pair (+2, -2) turns twice as fast as the first-order one."""
    scene = replace(draw_scene(0, CLEAR), snr_db=200.0)

    field = render_sound(scene, samplerate=8000, order=2).numpy()

    first = np.angle(np.mean(field[0] * (field[3] + 1j * field[1])))
    second = np.angle(np.mean(field[0] * (field[8] + 1j * field[4])))
    assert field.shape[0] == 9
    assert abs(math.degrees(math.remainder(second - 2 * first, math.tau))) <= 40


def test_a_dry_source_is_a_plane_wave() -> None:
    sound = np.random.default_rng(0).standard_normal(8000)
    n = CURVE_RATE + 1

    field = place(torch.from_numpy(sound), np.full(n, 2.0), np.full(n, 0.3), 8000, 2)

    np.testing.assert_allclose(field, plane_wave_gains(2.0, 0.3, 2)[:, None] * sound, atol=1e-12)


def test_rooms_add_what_comes_back() -> None:
    rng = np.random.default_rng(0)
    room = Room(rng, 8000)
    click = np.zeros(8000)
    click[100] = 1.0

    wet = room.respond(torch.from_numpy(click), 0.5, 1).numpy()

    assert np.abs(wet[:, :100]).max() < 1e-12
    first, second = (np.sum(wet[0, part] ** 2) for part in (slice(100, 2000), slice(2000, 6000)))
    assert first > 3 * second > 0


def test_diffuse_noise_has_no_direction() -> None:
    noise = diffuse_noise(np.random.default_rng(0), 200_000, 2).numpy()
    covariance = noise @ noise.T / noise.shape[1]

    np.testing.assert_allclose(np.diag(covariance), [1, *[1 / 3] * 3, *[1 / 5] * 5], rtol=0.05)
    off_diagonal = covariance - np.diag(np.diag(covariance))
    assert np.abs(off_diagonal).max() < 0.03


@pytest.mark.parametrize("kind", ["strikes", "speech", "swell", "on-off", "sustained"])
def test_envelopes_are_levels(kind: str) -> None:
    rng = np.random.default_rng(0)
    envelope = draw_envelope(rng, 8.0, kind)  # type: ignore[arg-type]
    sound = draw_sound(rng, envelope, 8000).numpy()

    assert envelope.level.min() >= 0
    assert envelope.level.max() == pytest.approx(1)
    assert np.mean(sound**2) == pytest.approx(1)
    loudness = np.sqrt((sound.reshape(-1, 80) ** 2).mean(axis=1))
    if kind != "sustained":
        assert np.corrcoef(loudness, envelope.level[: len(loudness)])[0, 1] > 0.6


def test_a_drive_of_full_strength_follows_its_sound() -> None:
    correlations = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        envelope = draw_envelope(rng, 10.0, "speech")
        for strength in (0.0, 1.0):
            drive = draw_drive(rng, envelope, strength=strength, lag_s=0.0)
            correlations.append(np.corrcoef(drive, envelope.level)[0, 1])

    assert np.mean(correlations[1::2]) > 0.4
    assert abs(np.mean(correlations[::2])) < 0.15


def test_smooth_noise_has_its_scale() -> None:
    noise = smooth_noise(np.random.default_rng(0), 100_000, 0.5)
    lag = CURVE_RATE // 2
    correlation = np.mean(noise[:-lag] * noise[lag:])

    assert noise.std() == pytest.approx(1)
    assert 0.6 < correlation < 0.95  # exp(-1/4) = 0.78 at one scale


@pytest.mark.parametrize("sigma", [0.3, 1.5, 12.0])
def test_blurring_goes_around_and_stops_at_the_poles(sigma: float) -> None:
    picture = np.random.default_rng(0).standard_normal((60, 120))

    expected = gaussian_filter(picture, sigma, mode=("nearest", "wrap"))

    np.testing.assert_allclose(blurred(torch.from_numpy(picture), sigma), expected, atol=1e-6)


def test_patterns_are_sampled_by_lines_and_repeat() -> None:
    rng = np.random.default_rng(0)
    pattern, up = rng.standard_normal((8, 6)), rng.uniform(-20, 20, (5, 4))
    across = rng.uniform(-20, 20, (5, 4))

    expected = map_coordinates(pattern, [up, across], order=1, mode="grid-wrap")

    found = sampled(pattern, torch.from_numpy(up), torch.from_numpy(across))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_body_at_the_pole_is_drawn_inside_the_picture_only() -> None:
    still = np.zeros(2)
    body = Blob(
        azimuth=still, elevation=still + 1.5, drive=still, radius=0.5, colour=np.ones(3), amount=0.5
    )
    canvas = Canvas(torch.zeros(3, 36, 72, 1, dtype=torch.uint8), np.arange(3) / 10)

    body.draw(canvas)

    rows = canvas.frames[..., 0].amax(dim=2)  # of the brightest column
    assert (rows[:, 0] > 200).all()
    assert (rows[:, 12:] == 0).all()
    assert torch.equal(canvas.frames[0], canvas.frames[2])


def white_deg(body: Body, n_frames: int = 40) -> np.ndarray:
    """Where white is before black in each frame, azimuth and elevation, [shape=(n_frames, 2)]."""
    frames = torch.zeros(n_frames, 360, 720, 1, dtype=torch.uint8)
    body.draw(Canvas(frames, np.arange(n_frames) / 10))
    places = [np.argwhere(frame[..., 0].numpy() > 128).mean(axis=0) for frame in frames]
    rows, columns = np.transpose(places)
    return np.stack([180 - (columns + 0.5) / 2, 90 - (rows + 0.5) / 2], axis=1)


def moving_blob(way: str, radius: float = 0.15, **more: Any) -> Blob:
    t = np.arange(401) / CURVE_RATE
    drive = 0.5 + 0.5 * np.sin(3 * t)
    return Blob(
        **{"azimuth": 0.4 + 0.1 * t, "elevation": 0 * t + 0.2, **more}, drive=drive, radius=radius,
        colour=np.ones(3), amount=0.8, ways=frozenset({way}), heading=(0.6, 0.8),
        ripple=(0.0, 1.0, 1.0),
    )  # fmt: skip


def heard_from_deg(body: Body, n_frames: int = 40) -> np.ndarray:
    return np.rad2deg(np.stack(body.heard_from, axis=1)[: 10 * n_frames : 10])


@pytest.mark.parametrize("way", ["bob", "walk", "grow"])
def test_a_body_that_moves_with_its_sound_is_heard_where_it_is_seen(way: str) -> None:
    body = moving_blob(way)

    np.testing.assert_allclose(white_deg(body), heard_from_deg(body), atol=0.7)
    if way != "grow":
        assert np.abs(heard_from_deg(body)[:, 0] - np.rad2deg(body.azimuth[:400:10])).max() > 4


def test_a_patch_is_heard_from_what_sounds_in_it() -> None:
    loud, still = moving_blob("bob", 0.08), moving_blob("grow", 0.02)
    dark = replace(still, colour=np.zeros(3))
    patch = Patch(
        azimuth=loud.azimuth, elevation=loud.elevation, drive=loud.drive, radius=0.5,
        colour=np.full(3, 0.2), amount=1.0, contrast=0.0,
        movers=((-0.5, 0.1, dark), (0.4, -0.2, loud)), sounding=1,
    )  # fmt: skip

    np.testing.assert_allclose(white_deg(patch), heard_from_deg(patch), atol=0.7)


def test_what_a_scene_lets_sound_is_heard_from_where_it_shows() -> None:
    for seed in range(40):
        scene = draw_scene(seed, Conditions(duration_s=2.0, offscreen=False))
        for source in scene.sources:
            assert source.body is not None
            np.testing.assert_array_equal(source.azimuth, source.body.heard_from[0])
            np.testing.assert_array_equal(source.elevation, source.body.heard_from[1])
            if isinstance(source.body, Patch):
                assert source.body.sounding is not None
                mover = source.body.movers[source.body.sounding][2]
                np.testing.assert_array_equal(mover.drive, source.body.drive)


def test_shaking_moves_the_whole_picture() -> None:
    frames = torch.zeros(50, 32, 64, 1, dtype=torch.uint8)
    frames[:, :, 20:24] = 200
    canvas = Canvas(frames, np.arange(50) / 25)

    shake(np.random.default_rng(0), canvas, math.radians(8))

    columns = canvas.frames[:, 16, :, 0].int().argmax(dim=1)
    assert len(set(columns.tolist())) > 2
    assert int(canvas.frames.sum()) == pytest.approx(50 * 32 * 4 * 200, rel=0.01)


@pytest.mark.parametrize("pole", [0.3, 0.97])
def test_filters_are_those_of_scipy(pole: float) -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((3, 4000))
    sections = butter(2, [300, 1200], "band", fs=8000, output="sos")

    found = coloured(torch.from_numpy(noise), pole), filtered(torch.from_numpy(noise), sections)

    np.testing.assert_allclose(found[0], lfilter([1.0], [1.0, -pole], noise), atol=1e-9)
    np.testing.assert_allclose(found[1], sosfilt(sections, noise), atol=1e-9)


def test_curves_lie_on_lines_and_hold_their_ends() -> None:
    curve = np.random.default_rng(0).standard_normal((2, CURVE_RATE + 1))

    found = at_samples(curve, 12_000, 8000)  # half a second more than the curve

    times = np.arange(12_000) / 8000 * CURVE_RATE
    expected = [np.interp(times, np.arange(CURVE_RATE + 1), row) for row in curve]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_measured_room_is_convolved_whole_and_turned() -> None:
    """Against SciPy's convolution; turned by the source's azimuth and a chance that is drawn."""
    rng = np.random.default_rng(0)
    response, sound = rng.standard_normal((4, 700)), rng.standard_normal(3000)

    wet = Room(np.random.default_rng(1), 8000, measured=response).respond(
        torch.from_numpy(sound), 0.4, 2
    )

    expected = fftconvolve(sound[None], response[:1], axes=1)[:, :3000]
    np.testing.assert_allclose(wet[0], expected[0], atol=1e-8)
    both = fftconvolve(sound[None], response[[1, 3]], axes=1)[:, :3000]
    np.testing.assert_allclose((wet[[1, 3]] ** 2).sum(0), (both**2).sum(0), atol=1e-6)
    assert not wet[4:].any()


@pytest.mark.parametrize("duration_s", [0.29, 2.2, 3.337])
def test_a_scene_may_have_any_duration(duration_s: float) -> None:
    scene = draw_scene(11, Conditions(duration_s=duration_s, n_sources=2, n_distractors=1))

    frames = render_picture(scene, height=16, rate_hz=20.0)
    field = render_sound(scene, samplerate=22_050)

    assert len(frames) == round(20 * duration_s)
    assert field.shape == (4, round(22_050 * duration_s))
    assert field.isfinite().all()
