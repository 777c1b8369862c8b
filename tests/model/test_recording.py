"""Recordings that are compared: heard as their files say, and laid on each other in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.ambisonics import ChannelLayout, Convention, Fix
from model.media import Clock, open_audio
from model.recordings.echoes import LONGEST_S
from model.recordings.intensity import RATE
from model.reference import Recording, _heard


@pytest.mark.parametrize("rate", [32_000, 44_100, 48_000])
def test_fields_are_as_long_whatever_the_rate_of_their_files(rate: int, tmp_path: Path) -> None:
    """Else two of them could not be laid on each other."""
    soundfile.write(tmp_path / "here.wav", np.zeros((rate // 2, 4)), rate)

    with open_audio(tmp_path / "here.wav") as here:
        recording = Recording(here)
        for duration_s in (0.15, 1.9, 2.123, 3.00004, 4.15):
            at_16_khz = recording.field(-1.0, duration_s)
            assert at_16_khz.shape == (4, round(duration_s * RATE))


@pytest.mark.parametrize("fix", [None, Fix.INVERT])
@pytest.mark.parametrize(
    "layout",
    [
        ChannelLayout.of(4, Convention.FUMA), ChannelLayout.of(9, Convention.N3D),
        ChannelLayout.of(4, components=(2, 0, 3, 1)),
    ],
    ids=["FuMa", "N3D", "an order of its own"],
)  # fmt: skip
def test_a_recording_is_heard_as_its_channels_are(
    layout: ChannelLayout, fix: Fix | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    field = rng.uniform(-0.3, 0.3, (layout.n_channels, 800))
    soundfile.write(tmp_path / "here.wav", layout.from_sn3d(field).T, RATE, subtype="DOUBLE")

    with open_audio(tmp_path / "here.wav") as here:
        heard = Recording(here, layout, fix).field(0.01, 0.03)

    signs = np.array(fix.signs(1) if fix else (1,) * 4)[:, None]
    np.testing.assert_allclose(heard, signs * field[:4, 160:640], atol=1e-12)


def test_a_recording_is_of_the_convention_that_its_file_declares(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "here.amb", np.zeros((RATE, 4)), RATE, "PCM_16", format="WAV")

    with open_audio(tmp_path / "here.amb") as here:
        assert Recording(here).layout.convention is Convention.FUMA


def test_a_drifting_track_is_read_by_its_own_clock() -> None:
    """Ten minutes on, 300 ppm are 0.18 s."""
    read: dict[str, list[float]] = {"reference": [], "track": []}

    class Silent:
        def __init__(self, name: str) -> None:
            self.name = name

        def field(self, start_s: float, duration_s: float) -> np.ndarray:
            read[self.name].append(start_s)
            return np.zeros((4, round(duration_s * RATE)))

    drifting = Clock(2.5, 300.0)
    starts = np.array([10.0, 600.0])
    _heard(Silent("reference"), Silent("track"), drifting, starts, 1.0)  # type: ignore[arg-type]

    assert read["reference"][:2] == pytest.approx(starts - LONGEST_S)
    at_s = [drifting.track_s(at) for at in read["reference"]]
    assert read["track"] == pytest.approx(at_s, abs=0.006)
