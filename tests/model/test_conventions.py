"""The convention doctor: encoded fields in every convention, and what it says of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.ambisonics import ChannelLayout, Convention, encode
from model.channels.faults import other_reading
from model.channels.measures import ChannelStatistics, measure
from model.channels.readings import (
    Reading,
    capsule_probability,
    higher_order_error,
    omni_probabilities,
    ratio_readings,
    reading_probabilities,
)
from model.conventions import Diagnosis, diagnose, judge_channels, main
from model.errors import OptionError, UnusableContent
from model.media import open_audio, open_split_audio
from model.media.encode import write_audio
from training.data.soundfield import diffuse_noise
from training.evaluate.conventions import TURNS, examine_formats, measured, said

FloatArray = NDArray[np.floating]

RATE = 24_000
SECONDS = 6


def scene(
    seed: int, *, order: int = 1, diffuse_db: float = -20.0, rise: float = 0.15
) -> FloatArray:
    """Talkers in turn around the horizon, in weak isotropic noise: W Y Z X ..., [shape=(C, N)]."""
    rng = np.random.default_rng(seed)
    n = SECONDS * RATE
    field = np.zeros(((order + 1) ** 2, n))
    for index in range(12):
        span = slice(index * n // 12, (index + 1) * n // 12)
        sound = np.zeros(n)
        sound[span] = rng.standard_normal(n // 12)
        field += encode(sound, 0.4 + index * 2.4, rng.normal(0, rise), order)
    return np.asarray(
        0.1 * (field + 10 ** (diffuse_db / 20) * diffuse_noise(rng, n, order).numpy())
    )


def judged(field: FloatArray, **options: object) -> Diagnosis:
    """What the channels say; whatever it is, a report can hold it."""
    diagnosis = judge_channels(measured(field, RATE), **options)  # type: ignore[arg-type]
    json.dumps(diagnosis.as_json(), allow_nan=False)
    assert all(0 <= finding.probability <= 1 for finding in diagnosis.findings)
    return diagnosis


def best(diagnosis: Diagnosis) -> Reading:
    return max(diagnosis.readings, key=lambda reading: diagnosis.readings[reading])


# --- measurements --------------------------------------------------------------------------------


@given(
    azimuth=st.floats(-math.pi, math.pi),
    elevation=st.floats(-1.4, 1.4),
    convention=st.sampled_from(Convention),
)
@settings(max_examples=15, deadline=None)
def test_the_energy_ratio_of_a_plane_wave_names_its_weights(
    azimuth: float, elevation: float, convention: Convention
) -> None:
    sound = np.random.default_rng(0).standard_normal(RATE)
    wave = ChannelLayout.of(4, convention).from_sn3d(encode(sound, azimuth, elevation, 1))

    # By its channels, whichever they are: no channel is silent in these directions but by chance.
    stats = measure([wave], RATE)
    power = np.diag(stats.covariance.sum(0))

    ratio = {Convention.AMBIX: 1.0, Convention.FUMA: 2.0, Convention.N3D: 3.0}[convention]
    assert power[1:].sum() / power[0] == pytest.approx(ratio, rel=1e-6)


def test_the_ratio_holds_for_diffuse_sound_too() -> None:
    noise = diffuse_noise(np.random.default_rng(1), 10 * RATE, 1).numpy()
    stats = measured(noise, RATE)

    assert np.median(ratio_readings(stats)) == pytest.approx(0, abs=0.1)
    assert len(stats.waves) < 0.1 * len(stats.energies)  # and none of it is taken for plane waves


def test_single_waves_have_the_gains_that_they_were_encoded_with() -> None:
    directions = (0.7, 0.2), (-2.0, -0.4)
    sound = np.random.default_rng(2).standard_normal((2, RATE))
    waves = [encode(s, *d, 1) for s, d in zip(sound, directions, strict=True)]
    stats = measure([np.concatenate(waves, axis=1)], RATE)
    gains = np.array([encode(np.ones(1), *d, 1)[:, 0] for d in directions]) / math.sqrt(2)

    closeness = np.abs(stats.waves @ gains.T).max(axis=1)

    assert len(stats.waves) > 100
    assert np.quantile(closeness, 0.1) > 0.99


def test_a_reactive_field_is_no_plane_wave() -> None:
    """Two channels a quarter of a period apart: no direction has such gains."""
    sound = np.random.default_rng(3).standard_normal(4 * RATE)
    spectrum = np.fft.rfft(sound)
    shifted = np.fft.irfft(1j * spectrum, len(sound))
    stats = measure([np.stack([sound, shifted, 0 * sound, 0 * sound])], RATE)

    assert len(stats.waves) == 0


def test_a_long_track_is_read_in_a_few_stretches(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    write_audio(path, np.tile(scene(0), 60), RATE)
    with open_audio(path) as reader:
        inner, read = reader.read, []

        def counting(first: int, count: int) -> FloatArray:
            read.append(count)
            return np.asarray(inner(first, count), dtype=np.float64)

        reader.read = counting  # type: ignore[method-assign]
        diagnose(reader)

        assert sum(read) <= 48 * RATE < reader.info.n_samples / 6


# --- order and weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("convention", Convention)
def test_order_and_weights_are_read_from_the_sound(convention: Convention, seed: int) -> None:
    field = ChannelLayout.of(4, convention).from_sn3d(scene(seed))

    diagnosis = judged(field)

    assert best(diagnosis).value == convention.value
    expected = set() if convention is Convention.AMBIX else {convention.value}
    assert {finding.code for finding in diagnosis.problems} == expected
    assert sum(diagnosis.readings.values()) == pytest.approx(1)


@pytest.mark.parametrize("convention", Convention)
@pytest.mark.parametrize("order", [2, 3])
def test_higher_orders_leave_no_doubt(order: int, convention: Convention) -> None:
    n_channels = (order + 1) ** 2
    field = ChannelLayout.of(n_channels, convention).from_sn3d(scene(1, order=order))

    diagnosis = judged(field, n_components=n_channels)

    assert diagnosis.readings[Reading(convention.value)] > 0.99
    # The first order foretells the rest, in the right order and weights best of all.
    stats = measured(field, RATE)
    error = {c: higher_order_error(stats, Reading(c.value), n_channels) or 0.0 for c in Convention}
    assert min(error.values()) == error[convention]
    in_order = {c for c in Convention if error[c] < 0.1}
    assert in_order == ({convention} if convention is Convention.FUMA else {"ambix", "n3d"})


def test_fuma_is_no_reading_above_its_last_order() -> None:
    """Channels in the order of FuMa files, fourth order: read as what can be read."""
    field = scene(1, order=4)
    field[1:4] = field[[3, 1, 2]]

    diagnosis = judged(field, n_components=25)

    assert diagnosis.readings[Reading.FUMA] == 0
    assert diagnosis.selection is None


def test_only_a_sure_reading_is_taken_over_and_never_against_a_declaration() -> None:
    fuma = ChannelLayout.of(4, Convention.FUMA).from_sn3d(scene(0))
    doubtful = ChannelLayout.of(4, Convention.FUMA).from_sn3d(scene(0, diffuse_db=6.0))

    taken = judged(fuma)
    assert taken.selection is not None
    assert taken.selection.convention is Convention.FUMA
    assert "--convention ambix" in taken.warnings[0]
    assert judged(fuma, declared=Convention.AMBIX).selection is None
    assert judged(doubtful).readings[Reading.FUMA] < 0.95
    assert judged(doubtful).selection is None


def test_the_order_w_x_y_z_with_ambix_weights_is_taken_over_as_such() -> None:
    planar = TURNS["dead Z"][0](scene(0))
    selection = judged(TURNS["w x y z"][0](planar)).selection

    assert selection is not None
    assert selection.components == (0, 2, 3, 1)
    assert selection.option == "--channels 0,2,3,1"


def test_the_order_w_x_y_z_is_surer_than_its_weights() -> None:
    """What both readings have together is told of one, unless one of them is what is assumed."""
    readings = dict.fromkeys(Reading, 0.0)
    readings |= {Reading.AMBIX: 0.1, Reading.FUMA: 0.4, Reading.WXYZ: 0.5}

    by_ambix, by_fuma = (
        {f.code: f.probability for f in other_reading(readings, assumed, 4) if f.probability}
        for assumed in (None, Convention.FUMA)
    )

    assert by_ambix == pytest.approx({"wxyz": 0.9})
    assert by_fuma == pytest.approx({"ambix": 0.1, "wxyz": 0.5})


def test_an_order_with_z_second_is_told_and_not_taken_over() -> None:
    odd = scene(0)[[0, 2, 1, 3]]
    dead = scene(0)
    dead[1] = 0.0

    assert [f.code for f in judged(odd).problems] == ["wzyx"]
    assert judged(odd).selection is None
    assert [f.code for f in judged(dead).problems] == ["dead_channel"]  # Y, not a planar W Z Y X


def test_what_sound_alone_cannot_tell_changes_nothing() -> None:
    """A mirrored and an inverted first-order field are valid fields: the same is said of them."""
    field = scene(2)
    plain = judged(field).readings

    for name in ("mirrored", "inverted"):
        turned = judged(TURNS[name][0](field))
        assert turned.problems == ()
        for reading, probability in plain.items():
            assert turned.readings[reading] == pytest.approx(probability, abs=1e-6)


def test_a_microphone_whose_bands_disagree_is_not_sure_of_its_weights() -> None:
    """N3D by a microphone whose W falls 9 dB over the range: only the uncertainty may grow."""
    field = ChannelLayout.of(4, Convention.N3D).from_sn3d(scene(3))
    spectrum = np.fft.rfft(field[0])
    tilt_db = np.interp(np.linspace(0, RATE / 2, len(spectrum)), [100, 3000], [4.5, -4.5])
    uneven = field.copy()
    uneven[0] = np.fft.irfft(spectrum * 10 ** (tilt_db / 20), field.shape[1])

    assert judged(field).readings[Reading.N3D] > 0.9
    assert judged(uneven).readings[Reading.N3D] < 0.8


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in TURNS if n not in ("mirrored", "inverted")])
def test_a_fault_is_called_by_its_name(name: str) -> None:
    turn, right = TURNS[name]
    assert said(judged(turn(scene(4))))[0] in right


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_a_right_field_is_left_alone(seed: int) -> None:
    assert judged(scene(seed)).problems == ()


def test_a_dry_source_straight_ahead_is_no_fault() -> None:
    """Its X is its W, and Y and Z are silent: so it should be."""
    sound = np.random.default_rng(5).standard_normal(4 * RATE)

    assert judged(encode(sound, 0.0, 0.0, 1)).problems == ()
    assert judged(encode(sound, 0.0, 0.0, 3), n_components=16).problems == ()
    assert judged(encode(sound, 0.6, 0.6, 1)).problems == ()  # one sign, like a capsule's


def test_one_signal_at_impossible_levels() -> None:
    sound = np.random.default_rng(5).standard_normal(4 * RATE)
    field = np.outer([0.25, 0.5, 0.75, 1.0], sound)

    assert {f.code for f in judged(field).problems} >= {"one_signal"}


def test_offset_gain_and_leak() -> None:
    field = scene(6)
    offset, leaking = field.copy(), field.copy()
    offset[1] += 0.05
    loud = scene(6, rise=0.8)  # every channel has to lead somewhere
    loud[3] *= 10 ** (6 / 20)
    leaking[2] = 0.5 * leaking[0]

    assert {f.code for f in judged(offset).problems} == {"dc_offset"}
    assert "The 2nd channel " in judged(offset).problems[0].sentence
    gain = [f for f in judged(loud).problems if f.code == "gain_error"]
    assert len(gain) == 1
    assert re.match(r"The 4th channel is [56]\.", gain[0].sentence)
    assert "w_z_correlated" in {f.code for f in judged(leaking).problems}


def test_the_omni_is_found_wherever_it_is() -> None:
    field = scene(7)
    for place in range(4):
        order = [1, 2, 3]
        order.insert(place, 0)
        probabilities = omni_probabilities(measured(field[order], RATE))
        assert probabilities.argmax() == place
        assert probabilities.sum() == pytest.approx(1)


def test_speaker_feeds_close_and_capsules_do_not() -> None:
    field = scene(8)
    quad = measured(TURNS["quad"][0](field), RATE)
    capsules = measured(TURNS["A-format"][0](field), RATE)

    assert capsule_probability(quad)[1]
    assert not capsule_probability(capsules)[1]
    assert capsule_probability(capsules)[0] > 0.9
    assert capsule_probability(measured(field, RATE))[0] < 0.1


@pytest.mark.parametrize("component", [4, 8, 11])
def test_a_flipped_higher_channel_is_named(component: int) -> None:
    field = scene(9, order=3)
    field[component] *= -1

    problems = judged(field, n_components=16).problems

    assert [f.code for f in problems] == ["flipped_channel"]
    assert f"ACN {component} " in problems[0].sentence


def test_a_flipped_first_order_channel_shows_against_the_second_order() -> None:
    field = scene(9, order=2)
    field[1] *= -1

    problems = judged(field, n_components=9).problems

    assert [(f.code, "ACN 1 " in f.sentence) for f in problems] == [("flipped_channel", True)]


def test_swapped_higher_channels_are_named() -> None:
    field = scene(9, order=2)
    field[[4, 8]] = field[[8, 4]]

    problems = judged(field, n_components=9).problems

    assert [f.code for f in problems] == ["swapped_channels"]
    assert "ACN 4 and 8" in problems[0].sentence


def test_a_head_locked_pair_is_a_note() -> None:
    field = scene(0)
    six = np.concatenate([field, np.random.default_rng(0).standard_normal((2, field.shape[1]))])

    diagnosis = judged(six)

    assert diagnosis.problems == ()
    assert [f.code for f in diagnosis.findings if not f.problem] == ["head_locked"]


# --- files and the command line ------------------------------------------------------------------


def test_channels_named_by_the_user_are_examined_in_that_order(tmp_path: Path) -> None:
    path = tmp_path / "odd.wav"
    write_audio(path, scene(0)[[3, 1, 2, 0]], RATE)  # X Y Z W
    with open_audio(path) as reader:
        assert "w_elsewhere" in {f.code for f in diagnose(reader).problems}
        assert diagnose(reader, components=(3, 1, 2, 0)).problems == ()
        with pytest.raises(OptionError, match="between 0 and 3"):
            diagnose(reader, components=(3, 1, 2, 9))


def test_the_command_line_tells_of_every_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fuma, good = tmp_path / "fuma.wav", tmp_path / "good.wav"
    write_audio(fuma, ChannelLayout.of(4, Convention.FUMA).from_sn3d(scene(0)), RATE)
    write_audio(good, scene(0), RATE)

    assert main([str(fuma), str(good)]) == 0
    told = capsys.readouterr().out
    assert "fuma.wav: problems found" in told
    assert "fix: --convention fuma" in told
    assert "good.wav: no problem found" in told

    assert main(["--json", str(fuma), str(tmp_path / "missing.wav")]) == 2
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["selected"] == {"convention": "fuma", "components": None}
    assert report["findings"][0]["code"] == "fuma"
    assert captured.err.count("\n") == 1
    assert "missing.wav" in captured.err


def test_stereo_and_silence_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stereo, silent = tmp_path / "stereo.wav", tmp_path / "silent.wav"
    write_audio(stereo, scene(0)[:2], RATE)
    write_audio(silent, np.zeros((4, RATE)), RATE)

    assert main([str(stereo), str(silent)]) == 0
    told = capsys.readouterr().out
    assert "not_ambisonic" in told
    assert "Nothing sounds" in told
    with pytest.raises(UnusableContent):
        measure([np.zeros((4, RATE))], RATE)


@pytest.mark.parametrize("duration_s", [1 / RATE, 0.02, 0.1])
@pytest.mark.filterwarnings("error")
def test_too_little_sound_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], duration_s: float
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (9, round(duration_s * RATE)))
    write_audio(tmp_path / "short.wav", noise, RATE)

    assert main([str(tmp_path / "short.wav")]) == 0

    told = capsys.readouterr().out
    assert "short.wav: problems found; no reading" in told
    assert "too short to tell anything of its channels" in told


@pytest.mark.needs("shared-data")
def test_every_format_file_is_diagnosed(shared_data: Path) -> None:
    answers = list(examine_formats(shared_data / "formats"))

    assert [a.take for a in answers if not a.right] == []


@pytest.mark.needs("shared-data")
def test_untouched_recordings_raise_no_false_alarm(shared_data: Path) -> None:
    wrong = []
    for path in sorted((shared_data / "real-dev").glob("*.flac")):
        with open_split_audio([path]) as reader:
            codes = {finding.code for finding in diagnose(reader).problems}
        wrong += [(path.stem, codes - {"w_z_correlated"})] if codes - {"w_z_correlated"} else []

    assert wrong == []


@pytest.mark.parametrize(
    "measure_it", [reading_probabilities, omni_probabilities, capsule_probability, judge_channels]
)
def test_a_click_is_enough_to_answer_without_an_error(
    measure_it: Callable[[ChannelStatistics], object],
) -> None:
    """Too little sound for any statistics: an answer, unsure, not an exception."""
    click = np.zeros((4, RATE))
    click[:, 100] = [0.5, 0.1, 0.2, 0.3]

    measure_it(measure([click], RATE))
