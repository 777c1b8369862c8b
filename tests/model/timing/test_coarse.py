"""Where a track may begin, looked for all over a search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.media import open_audio
from model.timing import coarse
from model.timing.coarse import BIN_S, _reach, coarse_lines, lines_like
from model.timing.consensus import Line
from model.timing.listening import Ear

RATE = 8_000


@contextmanager
def ears(folder: Path, camera: np.ndarray, track: np.ndarray) -> Iterator[tuple[Ear, Ear]]:
    for name, sound in (("camera", camera), ("track", track)):
        soundfile.write(folder / f"{name}.wav", 0.1 * sound, RATE, "FLOAT")
    with open_audio(folder / "camera.wav") as a, open_audio(folder / "track.wav") as b:
        yield Ear(a, [0]), Ear(b, [0])


@pytest.mark.parametrize(
    ("camera_s", "track_s", "expected_s", "search_s", "span_s"),
    [
        (30, 30, 0.0, 6.0, (0, 30)),
        (3, 300, 0.0, 30.0, (0, 3)),
        (300, 5, 0.0, 30.0, (0, 35)),
        (60, 300, 50.0, 5.0, (45, 60)),
        (100, 20, -12.0, 5.0, (0, 13)),
    ],
)
def test_frames_are_spread_over_all_that_could_be_shared(
    tmp_path: Path,
    camera_s: int,
    track_s: int,
    expected_s: float,
    search_s: float,
    span_s: tuple[float, float],
) -> None:
    with ears(tmp_path, np.zeros(camera_s * RATE), np.zeros(track_s * RATE)) as pair:
        reach = _reach(*pair, expected_s, search_s)

    half_s = reach.frame_s / 2
    begins_s, ends_s = reach.times_s.min() - half_s, reach.times_s.max() + half_s
    assert (begins_s, ends_s) == pytest.approx(span_s)
    assert 4 * reach.frame_s <= min(camera_s, track_s)
    assert np.diff(np.sort(reach.times_s)).max() <= reach.frame_s + 1e-9
    assert reach.least_s == expected_s - search_s
    assert reach.n_bins * BIN_S == pytest.approx(2 * search_s)


@pytest.mark.parametrize("delay_s", [-1.9, -0.31, 0.9, 1.9])
def test_a_search_in_parts_is_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, delay_s: float
) -> None:
    """The delays of a long search are looked at a minute at a time; here in thirds."""
    monkeypatch.setattr(coarse, "_PART_BINS", 700)
    sound, lead = rng.standard_normal(12 * RATE), 2 * RATE
    first = lead + round(delay_s * RATE)

    with ears(tmp_path, sound[lead : lead + 8 * RATE], sound[first : first + 8 * RATE]) as pair:
        line = coarse_lines(*pair, 0.0, 2.0)[0]
        (again,) = lines_like(line, *pair, 0.0, 2.0, n_lines=1)

    assert line.delay(4.0) == pytest.approx(delay_s, abs=2 * BIN_S)
    assert again.delay(4.0) == pytest.approx(delay_s, abs=2 * BIN_S)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("slope", [4e-3, -4e-3])
def test_sums_follow_the_slope(
    tmp_path: Path, rng: np.random.Generator, slope: float, sign: float
) -> None:
    """A drift in leaps between four frames, whatever the polarity."""
    sound = rng.standard_normal(9 * RATE)
    starts = np.arange(0, 8 * RATE, 2 * RATE)
    delays = np.round((0.2 + slope * ((starts / RATE + 1) - 4)) * RATE).astype(int)
    track = np.zeros(9 * RATE)
    for start, delay in zip(starts, delays, strict=True):
        begin = max(start - delay, 0)
        track[begin : start - delay + 2 * RATE] = sound[begin + delay : start + 2 * RATE]

    with ears(tmp_path, sound[: 8 * RATE], sign * track) as pair:
        (line,) = lines_like(Line(0.0, slope), *pair, 0.0, 1.0, n_lines=1)

    assert line.slope == slope
    assert line.delay(4.0) == pytest.approx(0.2, abs=1e-3)
