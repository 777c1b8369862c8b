"""Takes with known clocks: two files of one sound, their strangers, and what is off."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from model.sync import Belonging, Synchronisation
from training.evaluate import sync
from training.evaluate.sync import RATE, KnownPair, Setting, answers, record


@pytest.mark.parametrize("seed", range(3))
def test_second_t_of_a_track_is_heard_by_the_camera_when_it_is_said_to_be(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without rooms, colour and noise both have one sound, on two clocks."""
    times_s = np.arange(5 * RATE) / RATE
    tones_hz = np.array([[211.0], [397.0], [613.0]])
    world = np.sin(2 * np.pi * tones_hz * times_s + tones_hz).sum(0)
    impulse = np.array([[1.0], [0.5], [0.0], [0.0]])
    for name, fake in {
        "montage": lambda _rng, _paths, duration_s, _rate: world[: round(duration_s * RATE)],
        "read_room": lambda *_args, **_more: impulse,
        "coloured": lambda _rng, sound, _rate: sound,
        "noisy": lambda _rng, sound, _snr_db: sound,
        "Fraction": lambda n, parts: Fraction(n - parts, abs(n - parts) * 200) + 1,  # 5000 ppm
    }.items():
        monkeypatch.setattr(sync, name, fake)
    setting = Setting(duration_s=1.5, max_offset_s=0.5)

    pair = record(seed, tmp_path, [], [Path("near"), Path("far")], setting)

    camera, track = (
        soundfile.read(path, always_2d=True)[0].T for path in (pair.camera, pair.track)
    )
    assert abs(pair.offset_s) <= 0.5
    assert abs(pair.drift_ppm) == pytest.approx(5000)
    assert len(track) == 4
    if len(camera) == 2:  # left and right of a source on the left
        np.testing.assert_allclose(camera[0], 3 * camera[1], atol=1e-3)
    clock = 1 + pair.drift_ppm * 1e-6
    heard_s = pair.offset_s + np.arange(track.shape[1]) / RATE * clock
    inside = (heard_s > 0.01) & (heard_s < 1.49)
    expected = np.interp(heard_s[inside], np.arange(camera.shape[1]) / RATE, camera[0])
    assert inside.mean() > 0.5
    assert np.corrcoef(track[0, inside], expected)[0, 1] > 0.999


@pytest.mark.parametrize(("duration_s", "n_elsewhere"), [(600.0, 2), (150.0, 0)])
def test_strangers_are_files_of_other_recordings_or_expected_elsewhere(
    duration_s: float, n_elsewhere: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(4):
        (tmp_path / f"{index}.wav").touch()
    made: list[tuple[KnownPair, set[str]]] = []
    asked: list[tuple[str, str, float]] = []

    def recorded(seed: int, folder: Path, recordings: list[Path], *_: Any) -> KnownPair:
        pair = KnownPair(folder / f"camera-{seed}", folder / f"track-{seed}", 3.0 * seed, -20.0)
        pair.camera.touch()
        pair.track.touch()
        made.append((pair, {path.name for path in recordings}))
        assert len(list(folder.iterdir())) <= 4
        return pair

    def judged(camera: Path, track: Path, expected_s: float = 0.0) -> Synchronisation:
        assert camera.exists()
        assert track.exists()
        asked.append((camera.name[-1], track.name[-1], expected_s))
        own = camera.name[-1] == track.name[-1] and expected_s == 0.0
        found: Any = SimpleNamespace(
            offset_s=3.0 * int(track.name[-1]) + 0.5, drift_ppm=-21.5, offset_std_s=0.1,
            drift_std_ppm=1.0, confidence=0.9 if own else 0.2,
            belonging=Belonging.SYNCHRONISED if own else Belonging.FOREIGN,
        )  # fmt: skip
        return found  # type: ignore[no-any-return]

    monkeypatch.setattr(sync, "record", recorded)
    monkeypatch.setattr(sync, "judged", judged)

    found = list(answers(tmp_path, tmp_path, Setting(duration_s=duration_s), 3))

    for (_, one), (_, other) in itertools.pairwise(made):
        assert not one & other
        assert len(one | other) == 4
    own = [(str(n), str(n), 0.0) for n in range(3)]
    crossed = [(a, b, 0.0) for a, b in ("10", "01", "21", "12")]
    away = [(str(n), str(n), 3.0 * n + by) for n in range(3) for by in (-100.0, 100.0)]
    assert sorted(asked) == sorted([*own, *crossed, *away[: 3 * n_elsewhere]])
    for answer, n_strangers in zip(found, (0, 2, 2), strict=True):
        assert (answer.offset_error_s, answer.drift_error_ppm) == (0.5, -1.5)
        assert (answer.verdict, answer.confidence) == ("synchronised", 0.9)
        assert answer.foreign_verdicts == ("foreign",) * (n_strangers + n_elsewhere)
        assert answer.foreign_confidences == (0.2,) * (n_strangers + n_elsewhere)


def test_only_what_is_given_within_both_bars_is_right() -> None:
    good = sync.Answer(
        0, 1.0, 10.0, -1e-3, -2.0, 1e-4, 0.1, "synchronised", 1.0, 0.01, (), ()
    )  # fmt: skip

    assert good.within_bars
    for fault in (
        {"offset_error_s": -1.1e-3}, {"offset_error_s": 1.1e-3}, {"drift_error_ppm": 2.1},
        {"drift_error_ppm": -2.1}, {"verdict": "undecidable"},
    ):  # fmt: skip
        assert not replace(good, **fault).within_bars
    worse = replace(good, drift_error_ppm=-9.0)
    assert sync.summarise([good, worse])["largest_drift_error_ppm"] == 9
