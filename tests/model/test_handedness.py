"""Which way round a field is, by the picture."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from model import features
from model.ambisonics import ChannelLayout, Convention, Fix, encode
from model.channels.readings import Reading
from model.checkpoint import LEARNED, Calibration
from model.conventions import Diagnosis
from model.evidence import following
from model.features import Motion
from model.handedness import (
    PRIOR,
    Handedness,
    HandednessTest,
    Hypothesis,
    parts,
    prior_given,
    undone,
)
from model.scoring import TRAINING_FREE, Window, score, training_free

RATE_HZ = 12.5
SECONDS = 10
CALIBRATION = Calibration(
    name="even", weights=dict.fromkeys(TRAINING_FREE, 0.3), pooling_exponent=1.0, pooling_cap=10.0,
    confidence_slope=1.0, confidence_intercept=0.0, arc_mass=0.9, least_confidence=0.5,
)  # fmt: skip


def window(field: np.ndarray, seen_rad: np.ndarray) -> Window:
    """A field at 24 kHz, and motion that is at one azimuth in each interval."""
    times = torch.arange(len(seen_rad) + 1, dtype=torch.float64) / RATE_HZ
    there = torch.from_numpy(seen_rad)[:, None] - features.azimuths(72)
    energy = ((there.cos() - 1) * 30).exp() + 0.01
    nothing = torch.zeros(len(seen_rad))
    maps = energy.new_zeros(len(seen_rad), len(features.MAPS), features.N_ELEVATIONS, 72)
    covariance = features.covariance(torch.from_numpy(field), times)
    return Window(
        0.0,
        SECONDS,
        covariance,
        Motion(energy, maps, times, nothing.bool(), nothing),
    )


def moving(turns: float, offset_rad: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A voice that goes around by `turns`, and where it is seen: `offset_rad` further left."""
    rng = np.random.default_rng(0)
    n = SECONDS * features.SAMPLERATE
    azimuth = np.linspace(0, turns * math.tau, n)
    field = encode(rng.standard_normal(n), azimuth, np.full(n, 0.2), 1)
    n_frames = int(SECONDS * RATE_HZ)
    return field, np.interp(np.arange(n_frames) + 0.5, np.linspace(0, n_frames, n), azimuth) + (
        offset_rad
    )


def judged(*windows: Window) -> dict[Hypothesis, float]:
    test = HandednessTest(CALIBRATION, (training_free,))
    for one in windows:
        test.add(one, score(one, (training_free,), CALIBRATION))
    return dict(test.result().probabilities)


@pytest.mark.parametrize("hypothesis", Hypothesis)
def test_undoing_a_hypothesis_gives_the_covariances_of_the_right_field(
    hypothesis: Hypothesis,
) -> None:
    """Against the covariances of the channels themselves, with the fault made and not made."""
    field = np.random.default_rng(1).standard_normal((4, features.SAMPLERATE))
    layout = ChannelLayout.of(4, Convention.FUMA)
    spoilt = {
        Hypothesis.UPRIGHT: field,
        Hypothesis.INVERTED: field * np.array(Fix.INVERT.signs(1))[:, None],
        Hypothesis.MIRRORED: field * np.array(Fix.MIRROR.signs(1))[:, None],
        Hypothesis.FUMA_READ: layout.from_sn3d(field),
    }[hypothesis]

    right = features.covariance(torch.from_numpy(field))
    read = features.covariance(torch.from_numpy(spoilt))

    torch.testing.assert_close(undone(read, hypothesis), right)


def test_a_moving_source_tells_which_way_round() -> None:
    field, seen = moving(0.4, offset_rad=1.0)
    right = judged(window(field, seen))
    mirrored = judged(window(field * np.array(Fix.MIRROR.signs(1))[:, None], seen))

    assert right[Hypothesis.UPRIGHT] > 0.8
    assert mirrored[Hypothesis.INVERTED] + mirrored[Hypothesis.MIRRORED] > 0.8
    for probabilities in (right, mirrored):
        assert sum(probabilities.values()) == pytest.approx(1)
        # Only the prior tells these two apart.
        ratio = probabilities[Hypothesis.INVERTED] / probabilities[Hypothesis.MIRRORED]
        assert ratio == pytest.approx(PRIOR[Hypothesis.INVERTED] / PRIOR[Hypothesis.MIRRORED])


def test_the_yaw_is_given_that_fits_once_the_fault_is_undone() -> None:
    field, seen = moving(0.4, offset_rad=math.radians(50))
    mirrored = window(field * np.array(Fix.MIRROR.signs(1))[:, None], seen)
    test = HandednessTest(CALIBRATION, (training_free,))
    test.add(mirrored, score(mirrored, (training_free,), CALIBRATION))

    assert test.result().yaws_deg[Hypothesis.MIRRORED] == pytest.approx(50, abs=15)
    for fix, told in (
        (None, "--fix invert"), (Fix.MIRROR, "leave --fix mirror away"),
        (Fix.INVERT, "leave --fix invert away"),
    ):  # fmt: skip
        found = next(f for f in test.result().findings(fix) if f.code == "reversed")
        assert found.probability > 0.8
        assert found.fix == told
        assert fix is None or found.sentence.count("--fix") == 1


def test_a_source_that_stays_cannot_tell() -> None:
    field, seen = moving(0.0)

    assert judged(window(field, seen)) == pytest.approx(dict(PRIOR), abs=0.05)


def test_following_is_blind_to_where_and_sees_which_way() -> None:
    field, seen = moving(0.4)
    one = window(field, seen)
    other = replace(one, covariance=undone(one.covariance, Hypothesis.MIRRORED))

    upright = following(one.covariance, one.motion.energy)
    reversed_ = following(other.covariance, other.motion.energy)
    turned = following(features.rotated(one.covariance, math.radians(30)), one.motion.energy)

    assert upright.max() > 1.3 * reversed_.max()
    torch.testing.assert_close(turned, upright.roll(-6), atol=0.05, rtol=0.05)


def test_evidence_is_kept_apart_by_what_gives_it() -> None:
    field, seen = moving(0.4)
    one = window(field, seen)
    scored = score(one, (training_free,), CALIBRATION)
    heard = torch.randn(72, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = replace(scored, cues={**scored.cues, LEARNED: heard, "unknown": heard})
    calibration = replace(CALIBRATION, weights={**CALIBRATION.weights, LEARNED: 0.7})

    learned, cues, follows = parts(one, both, calibration)

    torch.testing.assert_close(learned, 0.7 * heard)
    torch.testing.assert_close(cues, 0.3 * torch.stack([*scored.cues.values()]).sum(0))
    torch.testing.assert_close(follows, following(one.covariance, one.motion.energy).double())


def test_the_prior_heeds_what_the_sound_has_said() -> None:
    readings = dict.fromkeys(Reading, 0.2)
    open_case = prior_given(Diagnosis((), readings))
    declared = prior_given(Diagnosis((), readings, declared=True))
    sure = prior_given(Diagnosis((), {reading: float(reading == "fuma") for reading in Reading}))

    assert open_case[Hypothesis.FUMA_READ] == pytest.approx(0.4)
    assert sum(open_case.values()) == pytest.approx(1)
    assert 0.999 < sure[Hypothesis.FUMA_READ] < 1
    assert set(sure) == set(open_case)  # none is ruled out
    assert Hypothesis.FUMA_READ not in declared
    assert sum(declared.values()) == pytest.approx(1)


def test_rotations_are_told_in_the_range_of_all_others() -> None:
    nearly_behind = Handedness({Hypothesis.UPRIGHT: 1.0}, {Hypothesis.UPRIGHT: -179.997})

    assert nearly_behind.as_json()[0]["rotate_field_ccw_deg"] == 180.0
