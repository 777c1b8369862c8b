"""How what sounds is seen to move: when, against the sound."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.bodies import swing
from training.data.signals import DriveKind, Envelope, draw_drive, draw_envelope


def test_what_is_seen_comes_as_much_later_as_is_asked() -> None:
    envelope = draw_envelope(np.random.default_rng(0), 10.0, "speech")

    def drive(lag_s: float) -> np.ndarray:
        return draw_drive(np.random.default_rng(1), envelope, strength=0.7, lag_s=lag_s)

    np.testing.assert_allclose(drive(0.3)[30:], drive(0.0)[:-30], atol=1e-9)
    np.testing.assert_allclose(drive(-0.3)[:-30], drive(0.0)[30:], atol=1e-9)


@pytest.mark.parametrize(("kind", "before"), [("anticipation", True), ("onset", False)])
def test_a_strike_is_seen_before_or_after_it_is_heard(kind: DriveKind, before: bool) -> None:
    level = np.r_[np.zeros(500), np.exp(-np.arange(500) / 10)]
    onsets = (np.arange(1000) == 500).astype(float)
    envelope = Envelope("strikes", level, onsets)

    drive = draw_drive(np.random.default_rng(0), envelope, strength=1.0, lag_s=0.0, kind=kind)

    assert (drive[490] > 0.1, drive[510] > 0.1) == (before, not before)


def test_a_hammer_falls_fast_before_its_blow_and_rises_slowly_after_it() -> None:
    onsets = (np.arange(1000) == 500).astype(float)

    height = swing(Envelope("strikes", onsets, onsets))

    assert height[500] == height.max() == 1
    assert 0.1 < height[496] < height[499]
    assert height[480] < 0.1 < height[520] < height[501]
