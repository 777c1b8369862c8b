"""The learned scorer: what it is asked, and what it makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model import viewpoints
from model.checkpoint import LEARNED, load_scorer
from model.evidence import yaws_deg
from model.features import Motion
from model.learned import LearnedScorer
from model.scoring import Window
from training.data.batches import inputs
from training.data.scenes import Conditions, draw_scene
from training.data.windows import render_window


@pytest.fixture(scope="module")
def window() -> Window:
    return render_window(draw_scene(940_000, Conditions(duration_s=4.0, n_distractors=1)))


def mirrored(window: Window) -> Window:
    """Left and right exchanged, in picture and sound."""
    motion = window.motion
    return replace(
        window,
        covariance=viewpoints.mirrored(window.covariance),
        motion=Motion(
            motion.energy.flip(-1), motion.maps.flip(-1), motion.edges_s, motion.cuts,
            -motion.pan_rad,
        ),
    )  # fmt: skip


def test_a_mirrored_scene_gets_the_mirrored_answer(window: Window) -> None:
    scorer = LearnedScorer(load_scorer())

    as_is, other = scorer(window), scorer(mirrored(window))

    by_yaw = dict(zip(yaws_deg(), as_is.cues[LEARNED].tolist(), strict=True))
    of_other = dict(zip(yaws_deg(), other.cues[LEARNED].tolist(), strict=True))
    for yaw_deg, evidence in by_yaw.items():
        opposite = yaw_deg if yaw_deg == 180 else -yaw_deg
        assert of_other[opposite] == pytest.approx(evidence, abs=1e-4)
    assert as_is.statistics == pytest.approx(dict(other.statistics), abs=1e-4)


def test_a_mirrored_field_has_the_opposite_odds(window: Window) -> None:
    scorer = LearnedScorer(load_scorer())
    covariance = viewpoints.mirrored(window.covariance)

    as_is, other = scorer(window), scorer(replace(window, covariance=covariance))

    assert other.statistics["upright"] == pytest.approx(-as_is.statistics["upright"], abs=1e-3)
    assert abs(as_is.statistics["upright"]) > 1e-2


def test_over_lags_it_is_the_networks_evidence(window: Window) -> None:
    """Without a lag, that of the whole window."""
    network = load_scorer()

    (at_once,) = LearnedScorer(network).over_lags(window, 0)

    batch = inputs(window)
    torch.testing.assert_close(at_once, network(batch.maps, batch.sound).yaw[0].double())


def test_along_a_window_it_is_the_networks_evidence_of_each_stretch(window: Window) -> None:
    network = load_scorer()
    n = len(window.covariance)

    whole, half = LearnedScorer(network).along(window, [slice(0, n), slice(0, n // 2)])
    (nothing,) = LearnedScorer(network).along(window, [slice(5, 5)])

    batch = inputs(window)
    scores = network(batch.maps, batch.sound)
    torch.testing.assert_close(whole, scores.yaw[0].double())
    with torch.no_grad():
        seen, heard = network.picture(batch.maps), network.sound(batch.sound)
        first = network.scores(seen[..., : n // 2], heard[..., : n // 2])
    torch.testing.assert_close(half, first.yaw[0].double())
    assert not nothing.any()


def test_a_picture_that_is_scored_again_is_not_looked_at_again(window: Window) -> None:
    """With other sound, at other times of the sound; the answers are those of a fresh look."""
    network = load_scorer()
    looks = []
    network.picture.register_forward_hook(lambda *_: looks.append(1))
    scorer = LearnedScorer(network)
    other_sound = replace(window, covariance=viewpoints.mirrored(window.covariance))
    windows = [window, other_sound, mirrored(window), window]

    answers = [scorer(each).cues[LEARNED] for each in windows[:2]]
    lags = scorer.over_lags(window, 2)
    n_looks = len(looks)
    answers += [scorer(each).cues[LEARNED] for each in windows[2:]]

    assert n_looks == 2  # at the picture and its mirror image
    assert len(looks) == 6
    for each, answer in zip(windows, answers, strict=True):
        assert torch.equal(answer, LearnedScorer(network)(each).cues[LEARNED])
    assert torch.equal(lags, LearnedScorer(network).over_lags(window, 2))
