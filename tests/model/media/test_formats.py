"""Real and synthetic ambisonic files of many conventions: all open, all turn the right way."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from model.ambisonics import ChannelLayout, Convention, YawRotation
from model.errors import UnsupportedMedia
from model.media import open_split_audio, output_suffix, write_corrected

pytestmark = pytest.mark.needs("shared-data")

# Files (several: one split track), their convention and their order.
FILES = [
    (["BF_rec1.ogg"], Convention.FUMA, 1),
    (["BF_rec3.ogg"], Convention.FUMA, 1),
    (["floorball_wxyz.ogg"], Convention.FUMA, 1),
    (["HOA3_rec1_01-08ch.ogg", "HOA3_rec1_09-16ch.ogg"], Convention.N3D, 3),
    (["3oa_example_ch0-ch7.wav", "3oa_example_ch8-ch15.wav"], Convention.AMBIX, 3),
    (
        ["castanetsorgRev_dynamic_A-90_A90_E60_60_glockshortRev_fixed_A60_E15_FOA_REF.wav"],
        Convention.AMBIX, 1,
    ),
    (["rnc_crowdAmbiOut.caf"], Convention.AMBIX, 1),
    (["sawtooth_10000_foa_48khz.wav"], Convention.AMBIX, 1),
    (["sawtooth_8000_toa_48khz.wav"], Convention.AMBIX, 3),
]  # fmt: skip


def read_field(paths: list[Path], convention: Convention) -> tuple[ChannelLayout, np.ndarray]:
    with open_split_audio(paths) as reader:
        layout = ChannelLayout.of(reader.info.n_channels, convention)
        block = np.concatenate(list(reader.blocks(1 << 16)), axis=1)
    return layout, layout.to_sn3d(block)


def azimuth_deg(field: np.ndarray) -> float:
    w, y, _, x = field[:4]
    return math.degrees(math.atan2(np.mean(w * y), np.mean(w * x)))


@pytest.mark.parametrize(("names", "convention", "order"), FILES, ids=lambda value: str(value)[:40])
def test_a_right_angle_moves_the_sound_by_a_right_angle(
    shared_data: Path, tmp_path: Path, names: list[str], convention: Convention, order: int
) -> None:
    paths = [shared_data / "formats" / name for name in names]
    layout, before = read_field(paths, convention)
    with open_split_audio(paths) as reader:
        suffix = output_suffix(reader.info) if len(paths) == 1 else ".wav"
    output = tmp_path / f"out{suffix}"

    write_corrected(paths, output, YawRotation(layout, math.pi / 2).channel_mix)
    _, after = read_field([output], convention)

    assert layout.order == order
    turned = azimuth_deg(after) - azimuth_deg(before)
    assert math.remainder(turned - 90, 360) == pytest.approx(0, abs=0.2)
    assert after.shape == before.shape


def test_every_file_is_in_the_list_or_refused_by_name(shared_data: Path) -> None:
    listed = {name for names, _, _ in FILES for name in names}
    others = {path.name for path in (shared_data / "formats").iterdir()} - listed

    # Loudspeaker signals (7.1.4), not ambisonics.
    assert others == {"audiolab-acoustic-guitar_2OA_470_ALLRAD_0.5s.wav"}
    with open_split_audio([shared_data / "formats" / others.pop()]) as reader:
        n_channels = reader.info.n_channels
    with pytest.raises(UnsupportedMedia, match="12 channels"):
        ChannelLayout.of(n_channels)


@pytest.mark.parametrize(
    ("names", "convention"),
    [(names, convention) for names, convention, _ in FILES[:6]],
    ids=lambda value: str(value)[:40],
)
def test_the_convention_is_the_right_one(
    shared_data: Path, names: list[str], convention: Convention
) -> None:
    """(X² + Y² + Z²) / W² is 1 for plane waves and diffuse sound alike, if read rightly (SN3D)."""
    _, field = read_field([shared_data / "formats" / name for name in names], convention)
    ratio = np.sum(field[1:4] ** 2) / np.sum(field[0] ** 2)

    # BF_rec1 has no Z; real capsules are off by some decibels.
    assert 0.35 < ratio < 2.0
