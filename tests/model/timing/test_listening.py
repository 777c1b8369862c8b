"""Stretches of a file's sound at any rate."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.media import open_audio
from model.timing import listening
from model.timing.listening import Ear

OWN_RATE = 8_000


def heard(
    path: Path, sound: np.ndarray, start_s: float, duration_s: float, rate: int = OWN_RATE
) -> tuple[float, np.ndarray]:
    """A stretch of the second and third of three channels."""
    soundfile.write(path, sound.T, OWN_RATE, "DOUBLE")
    with open_audio(path) as reader:
        return Ear(reader, [1, 2]).listen(start_s, duration_s, rate)


@pytest.mark.parametrize("start_s", [-0.3, 0.20004, 0.9, 5.0, -5.0])
@pytest.mark.parametrize("piece", [3, 4_000_000])
def test_what_is_heard_is_the_file_and_silence_beyond_its_ends(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
    start_s: float,
    piece: int,
) -> None:
    """In pieces of a second, or at once."""
    monkeypatch.setattr(listening, "_PIECE_VALUES", piece)
    sound = rng.standard_normal((3, OWN_RATE))

    at_s, stretch = heard(tmp_path / "a.wav", sound, start_s, 1.5001)

    first = round(at_s * OWN_RATE)
    whole = np.pad(sound, [(0, 0), (8 * OWN_RATE, 8 * OWN_RATE)])[1:, 8 * OWN_RATE + first :]
    assert at_s == pytest.approx(start_s, abs=0.5 / OWN_RATE)
    assert at_s * OWN_RATE == pytest.approx(first, abs=1e-6)
    assert stretch.shape[1] / OWN_RATE >= 1.5001
    np.testing.assert_allclose(stretch, whole[:, : stretch.shape[1]], atol=1e-12)


@pytest.mark.parametrize("rate", [3_000, 44_100])
def test_another_rate_keeps_the_time(tmp_path: Path, rate: int) -> None:
    """To the exact time of its first sample, which none of the file's falls together with."""
    times = np.arange(2 * OWN_RATE) / OWN_RATE
    sound = np.stack([0 * times, np.sin(440 * math.tau * times), np.cos(440 * math.tau * times)])

    at_s, stretch = heard(tmp_path / "a.wav", sound, 0.50007, 1.0, rate)

    angles = 440 * math.tau * (at_s + np.arange(stretch.shape[1]) / rate)
    middle = slice(rate // 10, -rate // 10)
    expected = np.stack([np.sin(angles), np.cos(angles)])[:, middle]
    np.testing.assert_allclose(stretch[:, middle], expected, atol=0.01)
    assert stretch.shape[1] >= rate


def test_what_is_not_finite_is_silence(tmp_path: Path) -> None:
    sound = np.ones((3, OWN_RATE))
    sound[1, 10], sound[2, 20], sound[2, 30] = math.nan, math.inf, -math.inf
    expected = np.ones((2, OWN_RATE))
    expected[0, 10] = expected[1, 20] = expected[1, 30] = 0

    _, stretch = heard(tmp_path / "a.wav", sound, 0.0, 1.0)

    np.testing.assert_array_equal(stretch, expected)
