"""Rotations between two recordings against fields turned by `model.ambisonics` and by spharpy."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import spharpy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from model.ambisonics import (
    ChannelLayout,
    Fix,
    encode,
    pitch_matrix,
    rotate,
    rotate_yaw,
    yaw_matrix,
)
from model.arcs import cover
from model.errors import OptionError, UnsupportedMedia
from model.media import open_audio
from model.recordings.coherence import CrossSpectra, cross_spectra
from model.recordings.comparison import Comparison, Outcome, rotation_of, solve, yaw_of
from model.recordings.displacement import moved
from model.recordings.echoes import Pair
from model.recordings.intensity import RATE, Moments, _past, moments
from model.reference import Recording, as_json, compare, main, sentence

N = 6 * RATE
WINDOW = N // 12
FLIPS = {"Y": [1, -1, 1, 1], "Z": [1, 1, -1, 1]}


def scene(seed: int, *, flat: bool = False, n_sources: int = 4) -> np.ndarray:
    """Sources of noise bursts around the listener, W, Y, Z, X."""
    rng = np.random.default_rng(seed)
    field = np.zeros((4, N))
    for _ in range(n_sources):
        bursts = np.repeat(rng.random(N // 2000) < 0.3, 2000) * rng.standard_normal(N)
        elevation = 0.0 if flat else rng.uniform(-1, 1)
        field += encode(bursts, rng.uniform(-math.pi, math.pi), elevation, 1)
    return field


def noisy(field: np.ndarray, seed: int, snr_db: float = 10.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scale = field[0].std() * 10 ** (-snr_db / 20) * np.array([1, 3**-0.5, 3**-0.5, 3**-0.5])
    return np.asarray(field + rng.standard_normal(field.shape) * scale[:, None])


def compared(reference: np.ndarray, track: np.ndarray) -> Comparison:
    starts = np.arange(0, N, WINDOW)
    pairs = [(reference[:, s : s + WINDOW], track[:, s : s + WINDOW]) for s in starts]
    return solve(moments(pairs), cross_spectra(pairs), starts / RATE, WINDOW / RATE)


def off_deg(found: float, right: float) -> float:
    return abs(math.remainder(found - right, 360))


@given(yaw_deg=st.floats(-180, 180), seed=st.integers(0, 1000))
@example(yaw_deg=180.0, seed=0)
@settings(max_examples=5, deadline=None)
def test_a_track_turned_turns_the_answer_back(yaw_deg: float, seed: int) -> None:
    """Exactly, whatever the noise, with its interval, over the back too."""
    reference, track = noisy(scene(seed), seed + 1), noisy(scene(seed), seed)

    plain = compared(reference, track)
    turned = compared(reference, rotate_yaw(track, -math.radians(yaw_deg)))

    assert plain.outcome is turned.outcome is Outcome.ROTATED
    assert off_deg(turned.rotate_field_ccw_deg, plain.rotate_field_ccw_deg + yaw_deg) < 0.05
    assert np.ptp(turned.interval_deg) == pytest.approx(np.ptp(plain.interval_deg), abs=0.1)
    ends_deg = as_json(turned)["interval_deg"]
    assert all(-180 < end <= 180 for end in ends_deg)
    assert cover([tuple(ends_deg)], turned.rotate_field_ccw_deg)
    assert sum(w.weight for w in turned.windows) == pytest.approx(1)


def test_the_rotation_given_makes_the_track_fit() -> None:
    """Within a degree or so, and the interval says how far it may be off, for 9 of 10."""
    found = [compared(noisy(scene(seed), seed + 1), noisy(scene(seed), seed)) for seed in range(10)]
    errors = [off_deg(comparison.rotate_field_ccw_deg, 0.0) for comparison in found]

    assert np.median(errors) < 0.7
    assert max(errors) < 3.0
    assert sum(low <= 0 <= high for low, high in (c.interval_deg for c in found)) >= 7


def apart(field: np.ndarray, seed: int, spacing_m: float) -> np.ndarray:
    """A field as a microphone hears it that stands some way off in a random direction."""
    rng = np.random.default_rng(seed)
    return moved(field, spacing_m * unit(rng.standard_normal(3)), RATE)


def unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))


def test_sound_from_everywhere_is_told_by_its_waveforms() -> None:
    """Intensities say little of it, and microphones far apart hear other waveforms."""
    errors, halves = [], []
    for seed in range(8):
        field = scene(seed, n_sources=40)
        for spacing_m in (0.3, 3.0):
            near = noisy(apart(field, seed, spacing_m), seed + 1)
            found = compared(field, near)
            errors.append(off_deg(found.rotate_field_ccw_deg, 0.0))
            halves.append((found.interval_deg[1] - found.interval_deg[0]) / 2)
    by_intensity = [
        math.degrees(abs(float(yaw_of(intensity_of(seed).by_window.sum(0))))) for seed in range(8)
    ]

    assert np.median(errors[::2]) < 0.5 * np.median(by_intensity)
    assert np.median(errors[::2]) < 1.0
    assert np.median(halves[1::2]) > 2 * np.median(halves[::2])


def intensity_of(seed: int) -> Moments:
    field = scene(seed, n_sources=40)
    near = noisy(apart(field, seed, 0.3), seed + 1)
    return moments(
        [(field[:, s : s + WINDOW], near[:, s : s + WINDOW]) for s in range(0, N, WINDOW)]
    )


def test_echoes_of_a_second_place_do_not_turn_the_answer(tmp_path: Path) -> None:
    """One source that never pauses, an echo of it from the side, and a track begun a little off."""
    errors, begins = [], None  # at the same time in all of them
    for seed in range(4):
        rng = np.random.default_rng(seed)
        source = rng.standard_normal(N)
        field = encode(source, rng.uniform(-math.pi, math.pi), 0.1, 1)
        side = encode(np.roll(source, round(0.007 * RATE)), rng.uniform(-math.pi, math.pi), 0.0, 1)
        for name, heard in (("here", field), ("there", np.roll(field + 0.7 * side, 60, axis=1))):
            soundfile.write(tmp_path / f"{name}.wav", 0.1 * heard.T, RATE, subtype="FLOAT")
        with open_audio(tmp_path / "here.wav") as here, open_audio(tmp_path / "there.wav") as there:
            pair = Recording(here), Recording(there)
            found = compare(*pair, spacing_m=0.3, synchronisation=begins)
            begins = begins or found.synchronisation
            assert begins
            late = replace(begins, offset_s=begins.offset_s + 0.0035)
            again = compare(*pair, spacing_m=0.3, synchronisation=late)
        errors += [off_deg(each.rotate_field_ccw_deg, 0.0) for each in (found, again)]

    assert max(errors) < 2.0


@pytest.mark.parametrize(
    ("spacing_m", "direct_m", "lowest_hz"),
    [(0.3, 0.3, 343 / 1.2), (None, 1.0, 200.0), (4.0, None, 200.0)],
)
def test_what_is_taken_for_direct_sound_is_what_the_spacing_delays(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spacing_m: float | None,
    direct_m: float | None,
    lowest_hz: float,
) -> None:
    """And intensities are compared where waveforms have nothing in common any more."""
    asked, from_hz = [], []

    def without_echoes(pairs: list[Pair], *, direct_s: float) -> list[Pair]:
        asked.append(direct_s * 343)
        return pairs

    def of_intensities(pairs: list[Pair], *, lowest_hz: float) -> Moments:
        from_hz.append(lowest_hz)
        return moments(pairs, lowest_hz=lowest_hz)

    monkeypatch.setattr("model.reference.without_echoes", without_echoes)
    monkeypatch.setattr("model.reference.moments", of_intensities)
    soundfile.write(tmp_path / "here.wav", 0.1 * scene(1).T, RATE, subtype="FLOAT")
    with open_audio(tmp_path / "here.wav") as here:
        compare(Recording(here), Recording(here), spacing_m=spacing_m)

    assert len(asked) == (direct_m is not None)
    assert all(direct_m < metres < direct_m + 0.3 for metres in asked if direct_m)
    assert from_hz == [pytest.approx(lowest_hz)]


@pytest.mark.parametrize("flip", [None, "Y"])
def test_waveforms_are_compared_in_one_place(tmp_path: Path, flip: str | None) -> None:
    """The reference is moved to where the track was, unless that is said to be far away; with
    mirrored channels too."""
    field = scene(2, n_sources=3)
    track = noisy(apart(field, 2, 0.3), 3) * np.array(FLIPS.get(flip or "", [1] * 4))[:, None]
    for name, heard in (("here", field), ("there", track)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * heard.T, RATE, subtype="FLOAT")

    with open_audio(tmp_path / "here.wav") as here, open_audio(tmp_path / "there.wav") as there:
        pair = Recording(here), Recording(there)
        near, unknown, far = (compare(*pair, spacing_m=at_m) for at_m in (0.3, None, 4.0))

    assert near.coherence > far.coherence + 0.1
    assert unknown.coherence > far.coherence + 0.1
    assert near.flip == unknown.flip == flip
    assert off_deg(near.rotate_field_ccw_deg, 0.0) < 0.5


@pytest.mark.parametrize(
    ("second", "third", "told", "said"),
    [
        (0.1, 0.01, (True, "Y"), "mirror image of the reference, left and right"),
        (0.02, 0.01, (None, None), "Whether channels are mirrored cannot be told"),
        (0.1, 0.0, (True, "Y"), "mirror image of the reference, left and right"),
        (0.02, 0.0, (None, None), "All sound comes from one side"),
    ],
)
def test_a_mirror_image_takes_two_directions(
    second: float, third: float, told: tuple[bool | None, str | None], said: str
) -> None:
    """Of one direction alone it is a rotation, whatever the vertical says."""
    cross = np.tile(np.diag([1.0, -second, third]), (12, 1, 1))
    power = np.ones(12)
    nothing = CrossSpectra(np.zeros((12, 4, 3, 3), complex), np.zeros(4), np.zeros(4))

    found = solve(Moments(cross, cross, power, power, 0.5), nothing, np.arange(12.0), 1.0)

    assert (found.mirrored, found.flip) == told
    assert said in sentence(found)


def test_waveforms_of_a_displaced_microphone_favour_no_rotation() -> None:
    """Their moments are symmetric: plane waves v v^T, each with a cosine of its delay."""
    field = scene(3, n_sources=60)
    pairs = [(field, apart(field, 4, 0.2))]

    (total,) = cross_spectra(pairs).moments(np.eye(3)).by_window

    skew = np.linalg.norm(total - total.T) / np.linalg.norm(total + total.T)
    assert skew < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_a_full_rotation_is_that_of_spharpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-0.6, 0.6, 3)
    euler = spharpy.transforms.wigner_d_rotation_real(1, *angles)
    axes = [3, 1, 2]  # x, y, z of ACN 3, 1, 2
    truth = np.asarray(euler)[np.ix_(axes, axes)]
    reference = scene(seed, n_sources=6)
    track = np.linalg.inv(np.asarray(euler)) @ reference

    found = compared(reference, noisy(track, seed, 20.0))

    assert found.rotation is not None
    assert found.tilt_deg is not None
    cosine = (np.trace(found.rotation @ truth.T) - 1) / 2
    assert math.degrees(math.acos(min(1.0, cosine))) < 2.0
    assert found.tilt_deg == pytest.approx(math.degrees(math.acos(truth[2, 2])), abs=2.0)
    assert found.mirrored is False


@pytest.mark.parametrize("flip", ["Y", "Z"])
@pytest.mark.parametrize("seed", range(3))
def test_mirrored_channels_are_told_with_their_yaw(flip: str, seed: int) -> None:
    reference = scene(seed, n_sources=6)
    mirror = np.array(FLIPS[flip])[:, None]
    track = mirror * rotate_yaw(reference, -math.radians(70))

    found = compared(noisy(reference, 1), noisy(track, 2))

    assert found.outcome is Outcome.MIRRORED
    assert found.mirrored is True
    assert found.flip == flip
    assert found.rotation is None
    assert off_deg(found.rotate_field_ccw_deg, 70) < 1.5
    assert "mirror image" in sentence(found)


@pytest.mark.parametrize(("yaw_deg", "seed"), [(0, 5), (70, 5), (-150, 6)])
def test_the_yaw_of_an_upside_down_microphone_is_right_after_the_fix(
    yaw_deg: float, seed: int
) -> None:
    reference = scene(seed, n_sources=6)
    upright = rotate_yaw(reference, -math.radians(yaw_deg))
    track = noisy(upright * np.array(Fix.INVERT.signs(1))[:, None], 1)

    found = compared(reference, track)
    fixed = compared(reference, track * np.array(Fix.INVERT.signs(1))[:, None])

    assert found.mirrored is False
    assert found.tilt_deg == pytest.approx(180, abs=3)
    assert found.upside_down
    assert not fixed.upside_down
    assert off_deg(found.rotate_field_ccw_deg, yaw_deg) < 1.5
    assert off_deg(found.rotate_field_ccw_deg, fixed.rotate_field_ccw_deg) < 0.1
    assert found.agreement == pytest.approx(fixed.agreement, abs=1e-6)
    assert "--fix invert first" in sentence(found)


def test_a_tilt_is_told_where_it_matters_and_is_sure() -> None:
    """Of one that may be none, or of a comparison that decides nothing, no word."""
    field = scene(5, n_sources=6)
    leaning, hardly = (
        compared(field, noisy(rotate(field, pitch_matrix(math.radians(deg))), 1)) for deg in (12, 3)
    )
    drowned = [
        compared(*(noisy(scene(seed, n_sources=6), noise, snr_db) for noise in (1, 2)))
        for seed in range(2) for snr_db in (-6, -10)
    ]  # fmt: skip

    assert leaning.tilt_interval_deg is not None
    low, high = leaning.tilt_interval_deg
    assert 10 < low <= 12 <= high < 14
    assert "leans: tilt 12°" in sentence(leaning)
    assert "tilt" not in sentence(hardly)
    assert max(found.tilt_deg or 0 for found in drowned) > 30
    assert not any(word in sentence(found) for found in drowned for word in ("leans", "upside"))


@pytest.mark.parametrize("dead", [True, False], ids=["no Z", "all at the horizon"])
def test_what_is_planar_gives_yaw_and_says_that_tilt_cannot_be_had(dead: bool) -> None:
    reference = noisy(scene(7, flat=not dead), 1, 25.0)
    track = noisy(rotate_yaw(scene(7, flat=not dead), math.radians(35)), 2, 25.0)
    if dead:
        track[2] = 0

    found = compared(reference, track)

    assert found.outcome is Outcome.ROTATED
    assert off_deg(found.rotate_field_ccw_deg, -35) < 1.0
    assert found.rotation is None
    assert found.tilt_deg is None
    assert found.mirrored is None
    assert "tilt cannot be had" in sentence(found)


def test_the_past_fades_within_50_ms_and_knows_nothing_of_the_present() -> None:
    """What began at first was there before; 8 ms are from frame to frame."""
    series = np.zeros((2, 20))
    series[0, 0] = series[1, 7] = 1.0

    first, later = _past(series)

    keep = math.exp(-0.008 / 0.05)
    assert first[0] == 1.0
    np.testing.assert_allclose(first[1:], keep ** np.arange(19))
    assert not later[:8].any()
    np.testing.assert_allclose(later[8:], (1 - keep) * keep ** np.arange(12))


def test_strangers_are_undecidable() -> None:
    found = compared(scene(8), scene(9))

    assert found.outcome is Outcome.UNDECIDABLE
    json.dumps(as_json(found), allow_nan=False)


def test_waveforms_with_nothing_in_common_say_nothing() -> None:
    """Else strangers' waveforms, whose moments scatter little, would make the interval narrow."""
    told = [compared(scene(20 + i), scene(60 + i)).outcome for i in range(12)]

    assert sum(outcome is not Outcome.UNDECIDABLE for outcome in told) <= 2


@given(st.floats(-3, 3), st.floats(-0.7, 0.7), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_closed_forms_undo_what_was_done(yaw: float, pitch: float, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((3, 50))
    rotation = pitch_matrix(pitch) @ yaw_matrix(yaw)

    np.testing.assert_allclose(rotation_of((rotation @ vectors) @ vectors.T), rotation, atol=1e-9)
    turned = yaw_matrix(yaw) @ vectors
    assert float(yaw_of(turned @ vectors.T)) == pytest.approx(yaw, abs=1e-9)


def write(path: Path, field: np.ndarray) -> Path:
    soundfile.write(path, (0.05 * field).T.clip(-1, 1), RATE, "PCM_24")
    return path


def test_files_are_laid_on_each_other_in_time_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field = scene(11)
    echo = np.zeros(RATE // 10)
    echo[[0, 300, 900]] = 1.0, 0.3, -0.2
    late = int(1.37 * RATE)
    other = fftconvolve(rotate_yaw(field, -math.radians(-120)), echo[None], axes=1)
    other = other[:, late : N - RATE // 2]
    reference = write(tmp_path / "reference.wav", noisy(field, 1))
    track = write(tmp_path / "track.wav", noisy(other, 2))

    with open_audio(reference) as a, open_audio(track) as b:
        found = compare(Recording(a), Recording(b), spacing_m=0.3)
        for spacing in (0.0, 0.04, -1.0, math.nan):
            with pytest.raises(OptionError, match=r"spacing .* at least 0\.05 m"):
                compare(Recording(a), Recording(b), spacing_m=spacing)
        known = found.synchronisation
        near = compare(Recording(a), Recording(b), spacing_m=0.05, synchronisation=known)

    assert near.outcome is Outcome.ROTATED
    assert found.synchronisation is not None
    assert found.synchronisation.offset_s == pytest.approx(1.37, abs=1e-3)
    first, last = found.windows[0], found.windows[-1]
    shared_s = (first.start_s, last.start_s + last.duration_s)
    assert shared_s == pytest.approx((1.37, 5.5), abs=1e-2)
    assert off_deg(found.rotate_field_ccw_deg, -120) < 1.0
    assert main([str(reference), str(track), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rotate_field_ccw_deg"] == pytest.approx(found.rotate_field_ccw_deg, abs=0.5)
    assert main([str(reference), str(track)]) == 0
    assert "rotated: rotate_field_ccw_deg -1" in capsys.readouterr().out


def test_files_are_laid_on_each_other_by_w_wherever_that_is(tmp_path: Path) -> None:
    field, pair = scene(15), 0.1 * np.random.default_rng(1).standard_normal((2, N - RATE))
    reference = write(tmp_path / "reference.wav", field)
    track = write(tmp_path / "track.wav", np.concatenate([pair, field[:, RATE:]]))

    with open_audio(reference) as a, open_audio(track) as b:
        found = compare(Recording(a), Recording(b, ChannelLayout.of(6, components=(2, 3, 4, 5))))

    assert found.synchronisation is not None
    assert found.synchronisation.offset_s == pytest.approx(1.0, abs=1e-3)
    assert off_deg(found.rotate_field_ccw_deg, 0) < 1.0


def test_foreign_and_unsuitable_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = write(tmp_path / "reference.wav", scene(12))
    stranger = write(tmp_path / "stranger.wav", scene(13))
    mono = write(tmp_path / "mono.wav", scene(14)[:1])

    assert main([str(reference), str(stranger)]) == 0
    assert "could not be laid" in capsys.readouterr().out
    assert main([str(reference), str(mono)]) == 2
    assert "mono.wav" in capsys.readouterr().err
    with open_audio(mono) as reader, pytest.raises(UnsupportedMedia, match="not ambisonic"):
        Recording(reader)
