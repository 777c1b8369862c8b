"""Whether the sound comes late against the picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import correlate

from model.align import Outputs, align
from model.checkpoint import load_scorer
from model.evidence import N_YAWS
from model.features import Motion
from model.lag import IN_TIME_S, REACH_S, SURE, Lag, LagTest
from model.learned import LearnedScorer
from model.media import open_audio
from model.options import Options
from model.scoring import Window
from model.take import Track
from training.data.scenes import Conditions, draw_scene
from training.data.takes import TakeFiles
from training.data.windows import render_window
from training.evaluate.lag import late

RATE_HZ = 10.0
REACH = round(REACH_S * RATE_HZ)
LAGS_S = np.linspace(-REACH_S, REACH_S, 2 * REACH + 1)
RATE = 48_000
STRIKING = Conditions(
    duration_s=10.0, n_sources=1, n_distractors=0, snr_db=20.0, body="particles",
    envelope="strikes", offscreen=False, shaken=False,
)  # fmt: skip


class Known(LearnedScorer):
    """Gives evidence that is known, window after window, [shape=(lags, R)] each."""

    def __init__(self, evidence: list[np.ndarray]) -> None:
        self._given = iter(evidence)

    def over_lags(self, _window: Window, reach: int) -> torch.Tensor:
        assert reach == REACH
        return torch.from_numpy(next(self._given))


def empty(n: int) -> Window:
    """A window of n intervals in which nothing happens."""
    edges = torch.arange(n + 1, dtype=torch.float64) / RATE_HZ
    nothing = torch.zeros(n)
    motion = Motion(torch.zeros(n, 72), torch.zeros(n, 1), edges, nothing.bool(), nothing)
    return Window(0.0, n / RATE_HZ, torch.zeros(n, 32, 10), motion)


def told(*evidence: np.ndarray) -> Lag:
    test = LagTest(Known(list(evidence)))
    for _ in evidence:
        test.add(empty(100))
    return test.result()


def peaked(lag_s: float, yaw: int, height: float) -> np.ndarray:
    """Evidence for one lag and yaw."""
    evidence = np.zeros((len(LAGS_S), N_YAWS))
    evidence[np.abs(LAGS_S - lag_s).argmin(), yaw] = height
    return evidence


def test_nothing_is_said_of_nothing() -> None:
    flat = told(np.zeros((len(LAGS_S), N_YAWS)))
    none = LagTest(Known([])).result()

    for lag in (flat, none):
        assert lag.late_s == pytest.approx(0, abs=1e-9)
        # Anywhere in the five steps of 50 ms that are in time.
        assert lag.std_s == pytest.approx(0.25 / math.sqrt(12))
        assert not lag.sure
        assert not lag.out_of_time


@pytest.mark.parametrize("lag_s", [-0.4, -0.2, 0.0, 0.3])
def test_the_lag_of_the_evidence_is_told(lag_s: float) -> None:
    lag = told(*[peaked(lag_s, 20, 30.0)] * 3)

    assert lag.late_s == pytest.approx(lag_s, abs=0.03)
    assert lag.std_s == pytest.approx(0.05 / math.sqrt(12), rel=0.01)  # anywhere in one step
    assert lag.sure
    assert lag.out_of_time == (abs(lag_s) > IN_TIME_S)


def test_windows_have_to_agree_on_the_rotation_too() -> None:
    together = told(peaked(0.3, 20, 12.0), peaked(0.3, 20, 12.0))
    apart = told(peaked(0.3, 20, 12.0), peaked(0.3, 56, 12.0))

    assert together.probability > apart.probability


def test_in_doubt_the_sound_is_in_time() -> None:
    doubtful = peaked(0.3, 20, 6.0) + peaked(0.0, 20, 6.0)

    lag = told(doubtful)

    assert abs(lag.late_s) <= IN_TIME_S
    assert not lag.out_of_time


def test_what_is_near_counts_together() -> None:
    """One step is likelier than either of two neighbours, and less likely than both."""
    lag = told(peaked(0.4, 20, 11.0) + peaked(-0.4, 20, 10.5) + peaked(-0.3, 20, 10.5))

    assert lag.late_s == pytest.approx(-0.35, abs=0.05)
    assert not lag.sure
    assert not lag.out_of_time


@pytest.mark.parametrize("rate_hz", [8.0, 12.5])
def test_lags_are_told_in_seconds_at_any_rate(rate_hz: float) -> None:
    class AtRate(Known):
        def over_lags(self, _window: Window, reach: int) -> torch.Tensor:
            evidence = torch.zeros(2 * reach + 1, N_YAWS, dtype=torch.float64)
            evidence[reach - 2, 20] = 60.0
            return evidence

    test, window = LagTest(AtRate([])), empty(100)
    window.motion.edges_s.mul_(RATE_HZ / rate_hz)
    test.add(window)

    assert test.result().late_s == pytest.approx(-2 / rate_hz, abs=0.03)


def test_what_is_in_time_needs_no_making_up_for() -> None:
    in_time = told(*[peaked(0.05, 20, 30.0)] * 3)

    assert in_time.sure
    assert not in_time.as_json()["made_up_for"]


def test_what_all_yaws_share_says_nothing() -> None:
    evidence = peaked(0.3, 20, 12.0)
    raised = evidence + np.linspace(0, 50, len(LAGS_S))[:, None]

    assert told(raised).probability == pytest.approx(told(evidence).probability)


def test_a_short_window_is_left_out() -> None:
    test = LagTest(Known([]))

    test.add(empty(2 * REACH + 10))

    assert not test.result().sure


# --- the shipped scorer --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorer() -> LearnedScorer:
    return LearnedScorer(load_scorer())


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    """Scenes in which one thing moves as it sounds."""
    return [render_window(draw_scene(seed, STRIKING)) for seed in range(930_000, 930_004)]


def test_later_sound_fits_later(scorer: LearnedScorer, windows: list[Window]) -> None:
    """Sound moved by some intervals moves the evidence by as many, but for the window's ends."""
    window, by, reach = windows[0], 3, 5

    before = scorer.over_lags(window, reach + by)
    after = scorer.over_lags(late(window, by), reach)

    # Entry k of the later sound is entry k - by of the sound as it was.
    was, now = before[: 2 * reach + 1].flatten(), after.flatten()
    assert float(torch.corrcoef(torch.stack([was, now]))[0, 1]) > 0.9


@pytest.mark.parametrize("moved_s", [-0.4, 0.0, 0.4])
def test_late_sound_is_told(scorer: LearnedScorer, windows: list[Window], moved_s: float) -> None:
    test = LagTest(scorer)
    for window in windows:
        edges = window.motion.edges_s
        test.add(late(window, round(moved_s / float(edges[1] - edges[0]))))

    lag = test.result()

    assert lag.probability >= SURE
    assert lag.late_s == pytest.approx(moved_s, abs=0.15)
    assert lag.out_of_time == (moved_s != 0)


# --- a job ---------------------------------------------------------------------------------------


def moved(take: TakeFiles, by_s: float, path: Path) -> Path:
    """The example's track, planar, with silence before it, or its beginning cut off."""
    field, _ = soundfile.read(take.audio, always_2d=True)
    field[:, 2] = 0
    n = round(abs(by_s) * RATE)
    field = field[n:] if by_s < 0 else np.concatenate([np.zeros((n, field.shape[1])), field])
    soundfile.write(path, field, RATE, subtype="FLOAT")
    return path


def answer(take: TakeFiles, track: Track, **options: Any) -> dict[str, Any]:
    output, reached = track.paths[0].with_suffix(".out.wav"), [0.0]
    report = align(
        take.video, track, Outputs(audio=output), Options(**options),
        notify=lambda _stage, fraction: reached.append(fraction),
    )  # fmt: skip
    assert reached == sorted(reached)  # also where windows are read twice
    return report


def sees(monkeypatch: pytest.MonkeyPatch, late_s: float) -> None:
    """Makes the scorer sure of a lag, whatever it is shown."""

    def over_lags(_scorer: LearnedScorer, window: Window, reach: int) -> torch.Tensor:
        edges = window.motion.edges_s
        evidence = torch.zeros(2 * reach + 1, N_YAWS, dtype=torch.float64)
        evidence[reach + round(late_s / float(edges[1] - edges[0])), 10] = 50.0
        return evidence

    monkeypatch.setattr(LearnedScorer, "over_lags", over_lags)


def test_a_late_track_is_made_up_for(
    take: TakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_time = answer(take, Track((moved(take, 0.0, tmp_path / "in-time.wav"),)))
    track = Track((moved(take, 0.4, tmp_path / "late.wav"),))
    sees(monkeypatch, 0.4)

    report = answer(take, track, lay_on_picture=True)

    assert in_time["input"]["audio"]["offset_s"] == 0
    assert not (in_time["lag"] or {}).get("made_up_for")
    assert report["lag"]["late_s"] == pytest.approx(0.4, abs=0.05)
    assert report["lag"]["made_up_for"]
    assert report["input"]["audio"]["offset_s"] == pytest.approx(-report["lag"]["late_s"], abs=1e-3)
    assert any("after what is seen" in warning for warning in report["warnings"])
    assert sum("planar" in warning for warning in report["warnings"]) == 1
    assert report["rotate_field_ccw_deg"] == pytest.approx(in_time["rotate_field_ccw_deg"], abs=5)
    with (
        open_audio(track.paths[0]) as as_given,
        open_audio(Path(report["output"]["path"])) as laid,
    ):
        late_w, laid_w = (reader.read(0, reader.info.n_samples)[0] for reader in (as_given, laid))
    earlier = len(laid_w) - 1 - int(correlate(late_w, laid_w, method="fft").argmax())
    assert -earlier / RATE == pytest.approx(report["lag"]["late_s"], abs=0.002)


def test_what_is_as_late_as_in_life_stays_where_it_is(
    take: TakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sees(monkeypatch, 0.07)

    report = answer(take, Track((moved(take, 0.0, tmp_path / "t.wav"),)))

    assert report["lag"]["late_s"] > 0.01
    assert not report["lag"]["made_up_for"]
    assert report["input"]["audio"]["offset_s"] == 0


def test_who_says_when_the_track_begins_is_believed(
    take: TakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sees(monkeypatch, 0.4)
    track = Track((moved(take, 0.4, tmp_path / "late.wav"),), offset_s=0.0)

    report = answer(take, track)

    assert report["lag"] is None
    assert report["input"]["audio"]["offset_s"] == 0
