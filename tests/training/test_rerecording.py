"""The simulated second recorder does what it says, and the measuring commands measure."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.ambisonics import ChannelLayout, Convention, encode
from model.errors import MediaError
from training.data import rerecording
from training.data.rerecording import (
    ROOMS,
    coloured,
    montage,
    noisy,
    on_clock,
    read_mono,
    read_recordings,
    read_room,
    second_microphone,
)
from training.evaluate.__main__ import main
from training.evaluate.sync import Answer, summarise

RATE = 48_000


def test_another_clock_is_exact_on_a_sine() -> None:
    clock = Fraction(5001, 5000)
    times = np.arange(RATE) / RATE

    track = on_clock(np.sin(2 * np.pi * 1000 * times), clock)

    # Second t of the track is second t * clock of the camera.
    expected = np.sin(2 * np.pi * 1000 * float(clock) * np.arange(len(track)) / RATE)
    np.testing.assert_allclose(track[500:-500], expected[500:-500], atol=2e-3)


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_colour_and_noise_keep_length_and_level(rng: np.random.Generator, rate: int) -> None:
    field = rng.standard_normal((4, rate))

    heard = coloured(rng, field, rate)
    noise = noisy(rng, heard, 10.0) - heard

    assert heard.shape == field.shape
    levels = 20 * np.log10(noise.std(axis=1) / heard[0].std())
    assert levels[0] == pytest.approx(-10, abs=0.5)
    np.testing.assert_allclose(levels[1:] - levels[0], 10 * math.log10(1 / 3), atol=0.6)


def test_folders_without_sound_and_unknown_rooms_are_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="holds no sound files"):
        read_recordings(tmp_path)
    soundfile.write(tmp_path / "hall.wav", np.zeros((100, 4)), RATE)
    with pytest.raises(MediaError, match=r"hall\.wav is not one of the known rooms"):
        read_room(tmp_path / "hall.wav", RATE, direct_to_reverberant_db=0.0)


def test_recordings_follow_each_other_at_levels_of_their_own(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for index, level in enumerate((0.001, 0.3)):
        sine = level * np.sin(2 * np.pi * 500 * np.arange(24_000) / 24_000)
        soundfile.write(tmp_path / f"{index}.wav", np.stack([sine, 0 * sine], 1), 24_000, "FLOAT")

    paths = read_recordings(tmp_path)
    once, sound = read_mono(paths[0], RATE), montage(rng, paths, 20.5, RATE)

    expected = math.sqrt(2) * np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(once[500:-500], expected[500:-500], atol=0.01)
    assert len(sound) == round(20.5 * RATE)
    parts = sound[: 20 * RATE].reshape(20, RATE)[:, 500:-500]
    levels = 10 * np.log10((parts**2).mean(1))
    assert (np.abs(levels) <= 10.1).all()
    assert levels.std() == pytest.approx(20 / math.sqrt(12), abs=2)  # evenly, by the decibel


@pytest.fixture
def hall(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A response in N3D: silence, a wave from 70 degrees to the left, and what comes after."""
    late = rng.standard_normal((4, RATE // 5)) * np.exp(-np.arange(RATE // 5) / 1500)
    late[:, : RATE // 250] = 0
    response = np.concatenate([np.zeros((4, 500)), 0.05 * late], axis=1)
    response[:, 500:501] = encode(np.ones(1), math.radians(70), 0.1, 1)
    layout = ChannelLayout.of(4, Convention.N3D)
    soundfile.write(tmp_path / "room_2_01-08ch.wav", layout.from_sn3d(response).T, RATE, "FLOAT")
    return tmp_path / "room_2_01-08ch.wav"


@pytest.mark.parametrize("ratio_db", [-3.0, 6.0])
def test_a_room_begins_in_front_and_goes_on_at_the_ratio_that_is_asked_for(
    hall: Path, ratio_db: float
) -> None:
    w, y, z, x = read_room(hall, RATE, direct_to_reverberant_db=ratio_db)

    n = RATE // 500
    assert 10 * math.log10((w[:n] ** 2).sum() / (w[n:] ** 2).sum()) == pytest.approx(ratio_db)
    assert (w**2).sum() == pytest.approx(1)
    assert int(np.abs(w).argmax()) == 0
    assert (y[0] / w[0], z[0] / w[0], x[0] / w[0]) == pytest.approx(
        (0, math.sin(0.1), math.cos(0.1)), abs=1e-3
    )


def test_another_microphone_is_so_far_away_in_a_room_that_answers_so_loud(
    hall: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without colour: what it hears besides is the sound, a while after itself."""
    places = []

    def here(field: np.ndarray, by_m: np.ndarray, _rate: int) -> np.ndarray:
        places.append(by_m)
        return field

    monkeypatch.setattr(rerecording, "moved", here)
    monkeypatch.setattr(rerecording, "coloured", lambda _rng, sound, _rate: sound)
    field = encode(rng.standard_normal(RATE), 1.0, 0.2, 1)
    room = read_room(hall, RATE, direct_to_reverberant_db=6.0)

    for _ in range(4):
        again = second_microphone(rng, field, room, RATE, spacing_m=0.3, snr_db=300.0)

    assert np.linalg.norm(places, axis=1) == pytest.approx(0.3)
    assert len(np.unique(np.sign(places), axis=0)) > 1
    answer = again - field
    assert np.abs(answer[:, : RATE // 500]).max() < 1e-9
    assert 10 * np.log10((field[0] ** 2).sum() / (answer[0] ** 2).sum()) == pytest.approx(
        6, abs=0.3
    )


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_of_a_recorder_is_pink(rng: np.random.Generator, snr_db: float) -> None:
    """Of octaves each has as much; of channels each its own."""
    silent = np.zeros((2, 2 * RATE))
    silent[0] = rng.standard_normal(2 * RATE)

    noise = noisy(rng, silent, snr_db) - silent

    assert 20 * np.log10(silent[0].std() / noise[0].std()) == pytest.approx(snr_db, abs=0.3)
    power = np.abs(np.fft.rfft(noise[0])) ** 2
    octaves = [power[200 * 2**k : 400 * 2**k].sum() for k in range(7)]
    np.testing.assert_allclose(octaves / np.mean(octaves), 1, atol=0.25)
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.1


def test_colour_is_of_a_few_decibels_up_or_down(rng: np.random.Generator) -> None:
    impulse = np.zeros((1, RATE))
    impulse[0, 0] = 1

    gains_db = np.concatenate(
        [20 * np.log10(np.abs(np.fft.rfft(coloured(rng, impulse, RATE)[0]))[60:20_000])
         for _ in range(6)]
    )  # fmt: skip

    assert np.abs(gains_db).max() < 6.5
    assert 2.5 < gains_db.std() < 4.5  # evenly from -6 to 6: 3.5


@pytest.mark.needs("shared-data")
def test_rooms_have_the_ratio_that_is_asked_for(
    shared_data: Path, rng: np.random.Generator
) -> None:
    path = shared_data / "training/rooms/room_2_01-08ch.wav"

    room = read_room(path, RATE, direct_to_reverberant_db=6.0)

    n = RATE // 500
    ratio = np.sum(room[0, :n] ** 2) / np.sum(room[0, n:] ** 2)
    assert 10 * math.log10(ratio) == pytest.approx(6.0, abs=0.1)
    field = encode(rng.standard_normal(RATE), 1.0, 0.2, 1)
    again = second_microphone(rng, field, room, RATE, spacing_m=0.3, snr_db=10.0)
    assert again.shape == field.shape


@pytest.mark.needs("shared-data")
@pytest.mark.parametrize("name", ROOMS)
def test_direct_sound_is_a_plane_wave_from_the_front(shared_data: Path, name: str) -> None:
    room = read_room(shared_data / "training/rooms" / name, RATE, direct_to_reverberant_db=6.0)

    w, y, z, x = room[:, : RATE // 500]
    assert np.degrees(np.arctan2(np.sum(w * y), np.sum(w * x))) == pytest.approx(0, abs=0.1)
    assert np.sum(x**2 + y**2 + z**2) / np.sum(w**2) == pytest.approx(1, abs=0.2)


@pytest.mark.needs("shared-data")
def test_the_commands_measure(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rooms = str(shared_data / "training/rooms")
    sounds = str(shared_data / "training/sounds/esc10")
    manifest = tmp_path / "manifest.jsonl"
    line = (shared_data / "real-dev/manifest.jsonl").read_text().splitlines()[0]
    fields = json.loads(line)
    sound, rate = soundfile.read(shared_data / "real-dev" / fields["audio"])
    fields["audio"] = str(tmp_path / "first.wav")
    soundfile.write(fields["audio"], sound[: 6 * rate], rate)
    manifest.write_text(json.dumps(fields) + "\n")

    report = tmp_path / "sync.json"
    command = ["sync", "--sounds", sounds, "--rooms", rooms, "--takes", "1"]
    assert (
        main([*command, "--duration-s", "15", "--max-offset-s", "3", "--report", str(report)]) == 0
    )
    summary = json.loads(report.read_text())["summary"]
    assert summary["takes"] == summary["synchronised"] == 1
    assert summary["largest_offset_error_ms"] < 2
    report = tmp_path / "reference.json"
    assert main(["reference", "--manifest", str(manifest), "--rooms", rooms,
                 "--repeats", "2", "--report", str(report)]) == 0  # fmt: skip
    figures = json.loads(report.read_text())
    first, second = (a for a in figures["answers"] if a["variant"] == "as is")
    assert first["take"] == second["take"]
    assert first["rotation_deg"] != second["rotation_deg"]
    told = [a["error_deg"] for a in (first, second) if a["verdict"] == "rotated"]
    assert 0 < len(told) == figures["variants"]["as is"]["told"]
    assert max(told) < 5
    assert figures["variants"]["as is"]["takes"] == figures["repeats"] == 2
    assert "strangers refused 0 of 0" in capsys.readouterr().out


def test_a_summary_counts_what_missed_and_what_was_taken_in() -> None:
    good = Answer(0, 1.0, 10.0, 5e-4, -1.0, 1e-4, 0.1, "synchronised", 1.0, 0.01, (0.0,),
                  ("foreign",))  # fmt: skip
    late = replace(good, offset_error_s=-2e-3, foreign_verdicts=("synchronised",))
    refused = replace(good, offset_error_s=9.0, verdict="foreign", cost=0.02)

    summary = summarise([good, late, refused])

    assert summary["within_1_ms_and_2_ppm"] == 1
    assert summary["wrong_and_synchronised"] == 1
    assert summary["largest_offset_error_ms"] == pytest.approx(2.0)
    assert (summary["foreign"], summary["foreign_refused"]) == (3, 2)
    assert summary["largest_cost"] == 0.02
