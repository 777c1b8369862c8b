"""Moments of a window: where they lie, and which frames of the picture are theirs."""

from __future__ import annotations

import numpy as np
import pytest

from model.moments import MOMENTS, crops_around, moment_starts, picture_span
from model.networks.avsa import AvsaConfig

CONFIG = AvsaConfig(crop_px=8, n_frames=4, frame_rate_hz=8.0, sound_s=1.0, viewpoints=4)
# Every frame is grey all over, each of its own level.
TIMES_S = np.arange(40) / 15
FRAMES = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 16, 32, 3))


@pytest.mark.parametrize("duration_s", [0.5, 1.0, 2.5, 4.0, 10.0])
def test_moments_lie_apart_within_their_window(duration_s: float) -> None:
    starts = np.array(moment_starts(20.0, duration_s, CONFIG))

    assert len(starts) == max(1, min(MOMENTS, int(duration_s)))
    assert starts[0] >= 20
    assert starts[-1] + 1 <= 20 + max(1.0, duration_s)
    assert starts[0] - 20 == pytest.approx(20 + duration_s - 1 - starts[-1], abs=0.5)
    assert len(starts) == 1 or np.diff(starts).min() > 0.5


def test_the_picture_is_in_the_middle_of_the_sound() -> None:
    start_s, length_s = picture_span(3.0, CONFIG)

    assert (start_s + length_s / 2, length_s) == (3.5, 0.5)


def test_the_nearest_frames_are_taken() -> None:
    crops = crops_around(FRAMES, TIMES_S, 1.0, CONFIG)

    assert crops is not None
    assert crops.shape == (4, 3, 4, 8, 8)
    wanted_s = 1.0 + np.arange(4) / 8
    frames = (255 * crops[0, 0, :, 4, 4]).round().int().numpy()
    assert np.abs(TIMES_S[frames] - wanted_s).max() <= 0.5 / 15


@pytest.mark.parametrize(("n_frames", "enough"), [(0, False), (1, False), (3, False), (4, True)])
def test_a_picture_that_breaks_off_has_no_moment(n_frames: int, enough: bool) -> None:
    """At 15 frames a second half of a moment's 3 / 8 s are three frames' time."""
    crops = crops_around(FRAMES[:n_frames], TIMES_S[:n_frames], 0.0, CONFIG)

    assert (crops is not None) is enough
