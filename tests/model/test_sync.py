"""Offset and drift against takes whose clocks are known, and refusals."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import fftconvolve, lfilter, resample_poly

from model.errors import OptionError, UnusableContent
from model.media import open_audio
from model.media.encode import write_video
from model.sync import (
    Belonging,
    Synchronisation,
    _judged,
    _rivals_s,
    _within,
    as_json,
    draw,
    main,
    synchronise,
)
from model.timing.coarse import lines_like
from model.timing.consensus import Line
from model.timing.fine import Chunk, Place, chunks_near
from model.timing.listening import Ear
from training.data.signals import draw_envelope, draw_sound

RATE = 24_000
DURATION_S = 30.0
SEARCH_S = 6.0


def world(seed: int, duration_s: float) -> np.ndarray:
    """Three sounds at once, of random kinds."""
    rng = np.random.default_rng(seed)
    sounds = [
        draw_sound(rng, draw_envelope(rng, duration_s), RATE).numpy() * rng.uniform(0.3, 1)
        for _ in range(2)
    ]
    return np.asarray(np.sum(sounds, axis=0))


def microphone(seed: int, sound: np.ndarray, noise_db: float) -> np.ndarray:
    """A recording in a room, by a microphone of some colour, with noise of its own."""
    rng = np.random.default_rng(seed)
    tail = rng.standard_normal(RATE // 4) * np.exp(-np.arange(RATE // 4) / (0.08 * RATE))
    tail[: RATE // 500] = 0
    response = tail * 0.7 / np.linalg.norm(tail)
    response[0] = 1.0
    heard = lfilter([1.0], [1.0, -rng.uniform(-0.5, 0.9)], fftconvolve(sound, response))
    noise = lfilter([1.0], [1.0, -rng.uniform(0, 0.95)], rng.standard_normal(len(heard)))
    return np.asarray(heard / heard.std() + noise / noise.std() * 10 ** (noise_db / 20))


def write(path: Path, channels: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, (0.1 * np.atleast_2d(channels)).T.clip(-1, 1), rate, "PCM_16")
    return path


def recorded(
    folder: Path,
    seed: int,
    offset_s: float,
    clock: Fraction,
    *,
    noise_db: float = 0.0,
    sound: np.ndarray | None = None,
) -> tuple[Path, Path]:
    """A camera's file and a track's whose second lasts `clock` seconds of the camera's."""
    lead = int(8 * RATE)
    if sound is None:
        sound = world(seed, DURATION_S + 16)
    n = int(DURATION_S * RATE)
    first = lead + round(offset_s * RATE)
    camera = microphone(seed + 1, sound, noise_db)[lead : lead + n]
    heard = microphone(seed + 2, sound, noise_db)[first : first + n]
    track = resample_poly(heard, clock.denominator, clock.numerator)
    silent = np.zeros_like(track)
    return (
        write(folder / "camera.wav", camera),
        write(folder / "track.wav", np.stack([track, silent, silent, silent])),
    )


def synchronised(camera: Path, track: Path, search_s: float = SEARCH_S) -> Synchronisation:
    with open_audio(camera) as a, open_audio(track) as b:
        return synchronise(a, b, search_s=search_s)


@pytest.mark.parametrize(
    ("offset_s", "clock"),
    [
        (5.25, Fraction(5001, 5000)),
        (-5.5, Fraction(4999, 5000)),
    ],
)
def test_offset_and_drift_are_recovered_in_noise_and_rooms(
    tmp_path: Path, offset_s: float, clock: Fraction
) -> None:
    sync = synchronised(*recorded(tmp_path, 10, offset_s, clock))

    assert sync.belonging is Belonging.SYNCHRONISED
    assert sync.confidence > 0.99
    middle_s = DURATION_S / 2
    truth = offset_s + float(clock) * middle_s
    assert sync.camera_s(middle_s) == pytest.approx(truth, abs=2e-4)
    assert sync.track_s(sync.camera_s(12.3)) == pytest.approx(12.3)
    drift = (float(clock) - 1) * 1e6
    assert abs(sync.drift_ppm - drift) < max(4 * sync.drift_std_ppm, 4.0) < 20
    assert not sync.inverted


@pytest.mark.parametrize("seed", [3, 4])
def test_noise_hides_chunks_and_not_all_of_them_together(tmp_path: Path, seed: int) -> None:
    """Ten seconds, noise above the sound in both."""
    sound = world(seed, 12.0)
    first, n = round(0.4 * RATE), 10 * RATE
    camera = microphone(seed + 1, sound, 3.0)[:n]
    heard = -microphone(seed + 2, sound, 3.0)[first : first + n]
    silent = np.zeros_like(heard)

    sync = synchronised(
        write(tmp_path / "camera.wav", camera),
        write(tmp_path / "track.wav", np.stack([heard, silent, silent, silent])),
    )

    assert sync.belonging is Belonging.SYNCHRONISED
    assert sync.inverted
    assert sync.camera_s(5.0) == pytest.approx(5.4, abs=1e-3)
    assert 0 < sync.offset_std_s < 1e-3
    assert ("all of them laid over each other" in sync.reason) is (seed == 4)


def test_chunks_of_other_sound_are_rejected(tmp_path: Path) -> None:
    camera, track = recorded(tmp_path, 20, 2.0, Fraction(1), noise_db=-20)
    samples, _ = soundfile.read(track)
    samples[8 * RATE : 18 * RATE, 0] = 0.1 * world(99, 10.0)[: 10 * RATE]
    write(track, samples.T / 0.1)

    sync = synchronised(camera, track)

    assert sync.offset_s == pytest.approx(2.0, abs=1e-3)
    other = [c for c in sync.chunks if 10 < c.camera_s - 2.0 < 16]
    own = [c for c in sync.chunks if not 6 < c.camera_s - 2.0 < 20]
    assert other
    assert not any(chunk.agrees for chunk in other)
    assert np.mean([chunk.agrees for chunk in own]) > 0.7


def test_a_pair_in_antiphase_and_an_inverted_track(tmp_path: Path) -> None:
    camera, track = recorded(tmp_path, 30, -1.5, Fraction(1), noise_db=-10)
    sound, _ = soundfile.read(camera)
    pair = write(tmp_path / "pair.wav", np.stack([sound, -sound]) / 0.1)
    inverted = write(tmp_path / "inverted.wav", -soundfile.read(track)[0].T / 0.1)

    assert synchronised(pair, track).offset_s == pytest.approx(-1.5, abs=5e-4)
    assert synchronised(camera, inverted).inverted
    assert not synchronised(camera, track).inverted


def test_rates_may_differ(tmp_path: Path) -> None:
    camera, track = recorded(tmp_path, 40, 3.0, Fraction(1), noise_db=-10)
    samples, _ = soundfile.read(track)
    other = write(tmp_path / "other.wav", resample_poly(samples.T, 147, 80, axis=1) / 0.1, 44_100)

    assert synchronised(camera, other).offset_s == pytest.approx(3.0, abs=5e-4)


@pytest.mark.parametrize("n_samples", [144_015, 144_017, 80_001])
def test_a_short_take_may_have_any_length(tmp_path: Path, n_samples: int) -> None:
    camera, track = recorded(tmp_path, 45, 1.0, Fraction(1), noise_db=-10)
    samples, _ = soundfile.read(track)
    short = write(tmp_path / "short.wav", samples[:n_samples].T / 0.1)

    assert synchronised(camera, short).offset_s == pytest.approx(1.0, abs=5e-4)


@pytest.mark.parametrize("seed", range(2))
def test_foreign_tracks_are_said_to_be_foreign(tmp_path: Path, seed: int) -> None:
    camera, _ = recorded(tmp_path, 100 + 10 * seed, 0.0, Fraction(1))
    camera = camera.rename(tmp_path / "kept.wav")
    _, track = recorded(tmp_path, 105 + 10 * seed, 0.0, Fraction(1))

    sync = synchronised(camera, track)

    assert sync.belonging is Belonging.FOREIGN
    assert sync.confidence < 0.5
    assert "does not belong" in sync.reason
    json.dumps(as_json(sync), allow_nan=False)


@pytest.mark.parametrize(
    ("n_agreeing", "belonging"),
    [
        (1, Belonging.FOREIGN),
        (2, Belonging.FOREIGN),
        (3, Belonging.UNDECIDABLE),
        (4, Belonging.SYNCHRONISED),
    ],
)
def test_few_chunks_that_agree_closely_say_neither_foreign_nor_sure(
    n_agreeing: int, belonging: Belonging
) -> None:
    rng = np.random.default_rng(3)
    off_s = rng.uniform(0.01, 0.24, 8) * rng.choice([-1, 1], 8)
    off_s[:n_agreeing] = rng.normal(0, 4e-5, n_agreeing)
    chunks = [Chunk(1.2 * i, 2.0 + float(off), 6.0, False) for i, off in enumerate(off_s)]

    judged = _judged(chunks, Line(2.0, 0.0), 30.0)

    assert judged.belonging is belonging
    assert f"{n_agreeing} of 8 chunks agree" in judged.reason


@pytest.mark.parametrize(
    ("odds", "belonging"),
    [(6.0, Belonging.SYNCHRONISED), (-1.0, Belonging.UNDECIDABLE), (-6.0, Belonging.FOREIGN)],
)
def test_all_chunks_together_tell_where_none_does(odds: float, belonging: Belonging) -> None:
    rng = np.random.default_rng(5)
    off_s = rng.uniform(0.01, 0.24, 8) * rng.choice([-1, 1], 8)
    chunks = [Chunk(1.2 * i, 2.0 + float(off), 4.0, False) for i, off in enumerate(off_s)]

    judged = _judged(chunks, Line(2.0, 0.0), 30.0, Place(Line(2.003, 0.0), -9.0, odds))

    assert judged.belonging is belonging
    assert judged.confidence == pytest.approx(1 / (1 + np.exp(-odds)))
    told = belonging is Belonging.SYNCHRONISED
    assert judged.inverted is told
    assert judged.offset_s == pytest.approx(2.003 if told else 2.0)
    assert np.isfinite(judged.offset_std_s) == told


def test_chunks_that_are_sure_need_no_others() -> None:
    """Seven agree; what all of them laid over each other say does not come in."""
    off_s = [2e-5, -3e-5, 1e-5, 0.0, -1e-5, 4e-5, 3e-5, 0.004]
    chunks = [Chunk(4.0 * i, 2.0 + off, 9.0, False) for i, off in enumerate(off_s)]

    for odds in (-6.0, 30.0):
        judged = _judged(chunks, Line(2.001, 0.0), 30.0, Place(Line(2.003, 0.0), -9.0, odds))

        assert judged.belonging is Belonging.SYNCHRONISED
        assert judged.offset_s == pytest.approx(2.0, abs=1e-4)
        assert judged.reason == "7 of 8 chunks agree on one delay."
        assert [chunk.agrees for chunk in judged.chunks] == [True] * 7 + [False]
        assert not judged.inverted


@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_chunks_cannot_say_that_a_track_is_foreign(tmp_path: Path, n: int) -> None:
    chunks = [Chunk(2.0 * i, 2.0 + off, 4.0, False) for i, off in enumerate((0.1, -0.2, 0.05)[:n])]

    judged = _judged(chunks, Line(2.0, 0.0), 30.0)
    draw(judged, tmp_path / "p.png")

    assert judged.belonging is Belonging.UNDECIDABLE
    json.dumps(as_json(judged), allow_nan=False)


def test_rivals_are_as_high_and_elsewhere() -> None:
    heights_s = [(10.0, 5.0), (9.5, 5.01), (-9.0, 6.0), (8.5, 6.01), (8.2, 3.0), (7.9, 1.0)]
    places = [Place(Line(at_s, 0.0), height, 3.0) for height, at_s in heights_s]

    assert _rivals_s(places, 10.0) == pytest.approx([1.0, -2.0])
    assert _rivals_s([], 10.0) == []
    assert _within(places, 5.5, 0.6) == places[:4]


def test_what_begins_out_of_reach_is_not_found_and_what_is_expected_is(tmp_path: Path) -> None:
    camera, track = recorded(tmp_path, 52, 5.0, Fraction(1), noise_db=-10)

    with open_audio(camera) as a, open_audio(track) as b:
        near = synchronise(a, b, search_s=1.0)
        found = synchronise(a, b, search_s=1.0, expected_s=5.5)
        known = synchronise(a, b, search_s=0.0005, expected_s=5.0)

    assert near.belonging is Belonging.FOREIGN
    assert found.offset_s == pytest.approx(5.0, abs=5e-4)
    assert known.offset_s == pytest.approx(found.offset_s, abs=5e-5)


def places_s(sync: Synchronisation) -> tuple[float, ...]:
    """The places that a reason names."""
    return tuple(float(word) for word in re.findall(r"at ([+-]\d+\.\d+) s", sync.reason))


def test_sound_that_repeats_itself_has_many_places(tmp_path: Path) -> None:
    length = int((DURATION_S + 16) * RATE)
    loop = np.resize(world(70, 4.0)[: int(1.7 * RATE)], length)
    voice = world(71, DURATION_S + 16)[:length]

    camera, track = recorded(tmp_path, 72, 2.0, Fraction(1), noise_db=-10, sound=loop)
    alone = synchronised(camera, track)
    with open_audio(camera) as a, open_audio(track) as b:
        about = synchronise(a, b, expected_s=2.3, search_s=0.5)
    camera, track = recorded(tmp_path, 72, 2.0, Fraction(1), noise_db=-10, sound=loop + voice)
    with_voice = synchronised(camera, track)

    assert alone.belonging is Belonging.UNDECIDABLE
    assert alone.confidence <= 0.5
    period_s = round(1.7 * RATE) / RATE
    first_s, other_s = places_s(alone)
    assert first_s == pytest.approx(alone.offset_s, abs=0.005)
    assert abs(math.remainder(other_s - first_s, period_s)) < 0.02 < abs(other_s - first_s)
    assert about.belonging is Belonging.SYNCHRONISED
    assert about.offset_s == pytest.approx(2.0, abs=1e-3)
    assert with_voice.belonging is Belonging.SYNCHRONISED
    assert with_voice.offset_s == pytest.approx(2.0, abs=1e-3)


def clicks(folder: Path, period_s: float, noise_db: float) -> tuple[Path, Path]:
    """Ten seconds of an electronic metronome by a camera and a track that begins at 0.4 s."""
    n, decay = int(10 * RATE), np.arange(RATE * 3 // 100)
    click = np.random.default_rng(2).standard_normal(len(decay)) * np.exp(-decay / 144)
    beats = np.zeros(int(16 * RATE))
    beats[(np.arange(0.1, 15.9, period_s) * RATE).astype(int)] = 1.0
    sound, first = fftconvolve(beats, click), int(0.4 * RATE)
    track = microphone(4, sound, noise_db)[first : first + n]
    return (
        write(folder / "camera.wav", microphone(3, sound, noise_db)[:n]),
        write(folder / "track.wav", np.stack([track, 0 * track, 0 * track, 0 * track])),
    )


@pytest.mark.parametrize(("period_s", "noise_db"), [(0.12, 0.0), (0.5, 12.0), (2.0, 6.0)])
def test_a_click_is_not_taken_for_another(tmp_path: Path, period_s: float, noise_db: float) -> None:
    """Each is like the others, and what hides them is not."""
    sync = synchronised(*clicks(tmp_path, period_s, noise_db), search_s=30.0)

    assert sync.belonging is Belonging.UNDECIDABLE
    assert "repeats itself" in sync.reason
    first_s, other_s = places_s(sync)
    assert abs(math.remainder(other_s - first_s, period_s)) < 0.02 < abs(other_s - first_s)


def test_a_narrow_search_tells_one_click_from_the_next(tmp_path: Path) -> None:
    camera, track = clicks(tmp_path, 0.12, 0.0)

    with open_audio(camera) as a, open_audio(track) as b:
        sync = synchronise(a, b, expected_s=0.42, search_s=0.05)

    assert sync.belonging is Belonging.SYNCHRONISED
    assert sync.offset_s == pytest.approx(0.4, abs=5e-4)


def test_places_like_a_line_are_found_all_over_the_search(tmp_path: Path) -> None:
    camera, track = clicks(tmp_path, 1.0, 0.0)

    with open_audio(camera) as a, open_audio(track) as b:
        ears = Ear(a, [0]), Ear(b, [0])
        lines = lines_like(Line(0.4, 0.0), *ears, 0.0, 6.0, n_lines=5)

    delays_s = np.array([line.at_zero_s for line in lines])
    assert np.abs(delays_s - 0.4).min() < 4e-3
    assert np.abs(delays_s - 0.4 - np.round(delays_s - 0.4)).max() < 4e-3
    assert np.abs(np.diff(np.sort(delays_s)) - 1).max() < 8e-3


@pytest.mark.parametrize("off_s", [0.0, 0.00131, -0.02])
def test_chunks_are_placed_between_samples(tmp_path: Path, off_s: float) -> None:
    """To a sixth of one where nothing else sounds, however far the line they are heard near."""
    rate, first = 48_000, 61_117
    sound = np.random.default_rng(9).standard_normal(12 * rate)
    camera = write(tmp_path / "camera.wav", sound, rate)
    track = write(tmp_path / "track.wav", sound[first:], rate)

    with open_audio(camera) as a, open_audio(track) as b:
        heard = chunks_near(Ear(a, [0]), Ear(b, [0]), Line(first / rate + off_s, 0.0), 8)

    assert len(heard) > 4
    delays_s = [each.chunk.delay_s for each in heard]
    np.testing.assert_allclose(delays_s, first / rate, atol=1e-5)


def test_a_drift_may_lead_out_of_a_narrow_search(tmp_path: Path) -> None:
    camera, track = clicks(tmp_path, 1.0, 0.0)

    with open_audio(camera) as a, open_audio(track) as b:
        ears = Ear(a, [0]), Ear(b, [0])
        lines = lines_like(Line(0.4, 1.5e-3), *ears, 0.4, 0.002, n_lines=1)

    assert [line.delay(5.0) for line in lines] == pytest.approx([0.4], abs=4e-3)


def test_a_chunk_is_heard_to_its_end(tmp_path: Path) -> None:
    """Bursts in the last sixth of each eighth of the take, and noise between."""
    rng = np.random.default_rng(6)
    sound = rng.standard_normal(10 * RATE)
    sound[np.arange(10 * RATE) / RATE % 1.25 < 1.03] = 0.0
    heard = microphone(7, sound, 3.0)[: 10 * RATE]

    sync = synchronised(
        write(tmp_path / "camera.wav", microphone(8, sound, 3.0)[: 10 * RATE]),
        write(tmp_path / "track.wav", np.stack([heard, 0 * heard, 0 * heard, 0 * heard])),
    )

    assert sync.belonging is Belonging.SYNCHRONISED
    assert sum(chunk.agrees for chunk in sync.chunks) == len(sync.chunks) == 8


def test_silence_shortness_and_nonsense_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = write(tmp_path / "noise.wav", rng.standard_normal((1, 10 * RATE)))
    silence = write(tmp_path / "silence.wav", np.zeros((4, 10 * RATE)))
    short = write(tmp_path / "short.wav", rng.standard_normal((4, 2 * RATE)))

    with pytest.raises(UnusableContent, match="is silent"):
        synchronised(noise, silence)
    with pytest.raises(UnusableContent, match=r"share only 2\.0 s"):
        synchronised(noise, short)
    for search_s in (0.0, -1.0, 1e4, float("nan")):
        with pytest.raises(OptionError, match="makes no sense"):
            synchronised(noise, noise, search_s)
    with open_audio(noise) as a, pytest.raises(OptionError, match="makes no sense"):
        synchronise(a, a, expected_s=math.nan)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    camera, track = recorded(tmp_path, 60, 1.0, Fraction(1), noise_db=-10)
    plot = tmp_path / "plot.png"
    arguments = [str(camera), str(track), "--expected-s", "1.3", "--search-s", "0.5"]

    assert main([*arguments, "--json", "--plot", str(plot)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "synchronised"
    assert told["offset_s"] == pytest.approx(1.0, abs=5e-4)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert main(arguments) == 0
    assert "begins at +" in capsys.readouterr().out

    assert main([str(camera), str(tmp_path / "none.wav")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1

    write_video(tmp_path / "mute.mp4", 2 * [np.zeros((32, 64, 3), np.uint8)], rate_hz=25)
    assert main([str(tmp_path / "mute.mp4"), str(track)]) == 2
    assert "mute.mp4 has no sound of its own" in capsys.readouterr().err
