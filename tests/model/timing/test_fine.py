"""Chunks of a camera's sound, each found in the track to a fraction of a sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from model.media import open_audio
from model.timing.coarse import MAX_SLOPE
from model.timing.consensus import Line
from model.timing.fine import RATE, REACH_S, chunks_near, places_of
from model.timing.listening import Ear


@contextmanager
def ears(folder: Path, camera: np.ndarray, track: np.ndarray) -> Iterator[tuple[Ear, Ear]]:
    """Both recordings at 16 kHz, all channels of each."""
    with ExitStack() as stack:
        heard = []
        for name, sound in (("camera", camera), ("track", track)):
            channels = np.atleast_2d(0.1 * sound)
            soundfile.write(folder / f"{name}.wav", channels.T, RATE, "FLOAT")
            reader = stack.enter_context(open_audio(folder / f"{name}.wav"))
            heard.append(Ear(reader, list(range(len(channels)))))
        yield heard[0], heard[1]


@pytest.mark.parametrize(("first_s", "last_s"), [(-2.0, 9.0), (1.5, 5.5), (2.0, 9.0)])
def test_chunks_span_all_that_both_hold(
    tmp_path: Path, rng: np.random.Generator, first_s: float, last_s: float
) -> None:
    """A track may begin before the camera, and end before or after it."""
    sound = rng.standard_normal(11 * RATE)
    camera, track = sound[2 * RATE : 8 * RATE], sound[round((first_s + 2) * RATE) :]
    track = track[: round((last_s - first_s) * RATE)]

    with ears(tmp_path, camera, track) as pair:
        heard = chunks_near(*pair, Line(first_s, 0.0), 8)
        beside = chunks_near(*pair, Line(100.0, 0.0), 8)

    middles_s = [each.chunk.camera_s for each in heard]
    assert len(heard) == int(min(last_s, 6) - max(first_s, 0))
    assert min(middles_s) == pytest.approx(max(first_s, 0) + 0.5, abs=1e-3)
    assert max(middles_s) == pytest.approx(min(last_s, 6) - 0.5, abs=1e-3)
    assert [each.chunk.delay_s for each in heard] == pytest.approx([first_s] * len(heard), abs=1e-5)
    assert beside == []


def test_all_of_a_chunk_is_heard_however_long_it_is(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Only the last third of each eighth of the take is shared: 13333⅔ samples."""
    chunk = 40_001
    sound, other = rng.standard_normal((2, 8 * chunk))
    shared = np.arange(8 * chunk) % chunk > 2 * chunk / 3

    with ears(tmp_path, sound, np.where(shared, sound, other)) as pair:
        heard = chunks_near(*pair, Line(0.0, 0.0), 8)

    assert [each.chunk.delay_s for each in heard] == pytest.approx([0.0] * 8, abs=1e-5)


@pytest.mark.parametrize("clock", [Fraction(5001, 5000), Fraction(3333, 3334)])
def test_a_drift_within_a_chunk_is_followed(
    tmp_path: Path, rng: np.random.Generator, clock: Fraction
) -> None:
    """Half a frame's drift is 0.1 ms."""
    sound = resample_poly(rng.standard_normal(32 * RATE // 8), 8, 1)  # its waves are longer
    line = Line(0.0, 1 - 1 / float(clock))

    track = resample_poly(sound, clock.denominator, clock.numerator)
    with ears(tmp_path, sound, track) as pair:
        heard = chunks_near(*pair, line, 4)
        place = places_of(heard, line, 6.0)[0]

    times_s = np.array([each.chunk.camera_s for each in heard])
    delays_s = np.array([each.chunk.delay_s for each in heard])
    np.testing.assert_allclose(delays_s, line.delay(times_s), atol=3e-5)
    np.testing.assert_allclose(place.line.delay(times_s), line.delay(times_s), atol=1.5 / RATE)


@pytest.mark.parametrize("off_s", [REACH_S, -REACH_S])
def test_a_peak_may_lie_at_the_edge_of_what_is_looked_at(
    tmp_path: Path, rng: np.random.Generator, off_s: float
) -> None:
    sound = rng.standard_normal(4 * RATE)

    with ears(tmp_path, sound, sound) as pair:
        heard = chunks_near(*pair, Line(off_s, 0.0), 4)

    assert [each.chunk.delay_s for each in heard] == pytest.approx([0.0] * 3, abs=1 / RATE)


def test_of_a_pair_the_channel_that_hears_says_where(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """The other is dead; and where both are, there is no chunk."""
    sound = rng.standard_normal(8 * RATE)
    sound[3 * RATE : 5 * RATE] = 0.0

    with ears(tmp_path, np.stack([0 * sound, sound]), -sound) as pair:
        heard = chunks_near(*pair, Line(0.0002, 0.0), 8)

    assert len(heard) == 6
    assert [each.chunk.delay_s for each in heard] == pytest.approx([0.0] * 6, abs=1e-5)
    assert max(each.chunk.strength for each in heard) < -20


def test_places_are_those_of_clocks(tmp_path: Path, rng: np.random.Generator) -> None:
    """However few chunks there are; without any there are none."""
    sound = rng.standard_normal(4 * RATE)
    line = Line(0.05, 0.0)

    with ears(tmp_path, sound, sound) as pair:
        heard = chunks_near(*pair, line, 4)

    for some in (heard, heard[:1]):
        places = places_of(some, line, 6.0)
        assert places[0].line.delay(2.0) == pytest.approx(0.0, abs=1.5 / RATE)
        assert max(abs(place.line.slope) for place in places) < 1.1 * MAX_SLOPE
    assert places_of([], line, 6.0) == []
