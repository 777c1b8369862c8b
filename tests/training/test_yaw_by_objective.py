"""What objectives learned instead of cosines, as scores of rotations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.viewpoints import SoundInput
from training.evaluate.yaw_by_objective import yaw_scorer
from training.objectives.masked import MaskedChoice
from training.objectives.named import Task, maker
from training.objectives.regression import RotationRegression
from training.objectives.together import Together

TINY = AvsaConfig(widths=(4, 4, 8, 8), embedding=6, depth=1, sound=SoundInput(n_bands=8))
N_YAWS, N_VIEWS = 24, 4


@pytest.fixture
def tokens() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(N_VIEWS, 8, generator=generator),
        torch.randn(N_YAWS, 8, generator=generator),
    )


def heard_after(audio: Tensor, yaw: int) -> Tensor:
    """Tokens of what a field that was turned by so many bins is heard as at four viewpoints."""
    return torch.stack([audio[(6 * view - yaw) % N_YAWS] for view in range(N_VIEWS)])


def yaws() -> range:
    return range(1 - N_YAWS // 2, N_YAWS // 2 + 1)


def test_by_regression_a_yaw_is_as_likely_as_little_rotation_is_left(
    tokens: tuple[Tensor, Tensor],
) -> None:
    torch.manual_seed(0)
    network, objective = AvsaNetwork(TINY).eval(), maker(Task.REGRESSION, TINY, 16)()
    assert isinstance(objective, RotationRegression)
    video, audio = tokens

    scores = yaw_scorer(Task.REGRESSION, objective)(network, video, audio)

    around = [math.tau * view / N_VIEWS for view in range(N_VIEWS)]
    where = torch.tensor([[math.cos(a), math.sin(a), 0.0] for a in around])
    for score, yaw in zip(scores.tolist(), yaws(), strict=True):
        with torch.no_grad():
            left = objective.point(video[None], heard_after(audio, yaw)[None], where[None])[0]
        assert score == pytest.approx(float(left[0]), abs=1e-5)  # cosine of the angle


@pytest.mark.parametrize("task", [Task.AVC, Task.AVSA])
def test_embeddings_are_compared_as_they_were_in_training(
    tokens: tuple[Tensor, Tensor], task: Task
) -> None:
    """Directly, or each translation with what it was to be."""
    torch.manual_seed(2)
    network, objective = AvsaNetwork(TINY).eval(), maker(task, TINY, 16)()
    video, audio = tokens

    scores = yaw_scorer(task, objective)(network, video, audio)

    for score, yaw in zip(scores.tolist(), yaws(), strict=True):
        heard = heard_after(audio, yaw)
        seen_as, heard_as = network.embed_video(video), network.embed_audio(heard)
        pairs = [(seen_as, heard_as)]
        if task is Task.AVSA:
            pairs = [
                (network.predict_video(heard[None])[0], seen_as),
                (network.predict_audio(video[None])[0], heard_as),
            ]
        cosines = [functional.cosine_similarity(p, t, dim=-1).mean().item() for p, t in pairs]
        assert score == pytest.approx(np.mean(cosines), abs=1e-5)


@pytest.mark.parametrize("task", [Task.MASKED, Task.MASKED_AVC])
def test_by_masked_choice_a_yaw_is_as_likely_as_it_predicts_what_is_masked(
    tokens: tuple[Tensor, Tensor], task: Task
) -> None:
    torch.manual_seed(1)
    network, objective = AvsaNetwork(TINY).eval(), maker(task, TINY, 16)()
    main = objective.parts["masked"] if isinstance(objective, Together) else objective
    assert isinstance(main, MaskedChoice)
    video, audio = tokens

    scores = yaw_scorer(task, objective)(network, video, audio)

    for score, yaw in zip(scores.tolist(), yaws(), strict=True):
        heard = heard_after(audio, yaw)
        predicted = (
            network.predict_video((heard + main.masked_video)[None])[0],
            network.predict_audio((video + main.masked_audio)[None])[0],
        )
        targets = network.embed_video(video), network.embed_audio(heard)
        cosines = [
            functional.cosine_similarity(p, t, dim=-1).mean().item()
            for p, t in zip(predicted, targets, strict=True)
        ]
        assert score == pytest.approx(np.mean(cosines), abs=1e-5)
