"""How what an objective has learned scores rotations of the field.

Objectives that compare embeddings score by cosine, as the product does. The others have learned
something else that tells rotations apart: the puzzle's table says whether every sound is where it
belongs, the regression says by how much the field was rotated, and masked choice predicts what is
masked from what is not.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from model.networks.avsa import AvsaNetwork
from model.yaw_scores import facing, viewpoint_azimuths, yaw_scores
from training.data.crops import unit_vectors
from training.evaluate.alignment import YawScorer
from training.objectives.masked import MaskedChoice
from training.objectives.named import Task
from training.objectives.puzzle import Puzzle
from training.objectives.regression import RotationRegression
from training.objectives.samples import Objective
from training.objectives.together import Together


def yaw_scorer(task: Task, objective: Objective) -> YawScorer:
    """What scores yaws for a network that was trained so."""
    main = next(iter(objective.parts.values())) if isinstance(objective, Together) else objective
    if isinstance(main, Puzzle):
        return partial(_by_puzzle, main)
    if isinstance(main, RotationRegression):
        return partial(_by_regression, main)
    if isinstance(main, MaskedChoice):
        return partial(_by_masked_choice, main)
    return partial(yaw_scores, translated=task.translated)


@torch.inference_mode()
def _by_puzzle(puzzle: Puzzle, network: AvsaNetwork, video: Tensor, audio: Tensor) -> Tensor:  # noqa: ARG001
    """Mean log-probability that each sound is the one of its own crop, [shape=(N,)]."""
    heard = audio[facing(len(video), len(audio), audio.device)]
    table = puzzle.table(video.expand(len(heard), -1, -1), heard)
    return table.log_softmax(-1).diagonal(dim1=1, dim2=2).mean(-1)


@torch.inference_mode()
def _by_regression(
    regression: RotationRegression,
    network: AvsaNetwork,  # noqa: ARG001
    video: Tensor,
    audio: Tensor,
) -> Tensor:
    """Cosine of the rotation that is still found after each, [shape=(N,)]."""
    heard = audio[facing(len(video), len(audio), audio.device)]
    places = np.array([(azimuth, 0.0) for azimuth in viewpoint_azimuths(len(video))])
    directions = torch.from_numpy(unit_vectors(places)).to(heard)
    seen, where = (given.expand(len(heard), -1, -1) for given in (video, directions))
    return regression.point(seen, heard, where)[:, 0]


@torch.inference_mode()
def _by_masked_choice(
    choice: MaskedChoice, network: AvsaNetwork, video: Tensor, audio: Tensor
) -> Tensor:
    """Mean cosine of what is predicted where one whole modality is masked, [shape=(N,)]."""
    faced = facing(len(video), len(audio), audio.device)
    seen = network.predict_video(audio[faced] + choice.masked_video)
    heard = network.predict_audio(video[None] + choice.masked_audio)
    fits_video = (seen * network.embed_video(video)).sum(-1)
    fits_audio = (network.embed_audio(audio)[faced] * heard).sum(-1)
    return (fits_video + fits_audio).mean(-1) / 2
