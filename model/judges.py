"""Who judges a take: scorers and the calibration that was made with them, by method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.checkpoint import AVSA, Calibration, Method, load_avsa_with_provenance, load_calibration
from model.errors import MediaError, OptionError
from model.evidence import N_YAWS
from model.learned import check_made_for, scorers_for
from model.media import check_readable
from model.moments import Moment
from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.scoring import Evidence, Scorer, Window
from model.yaw_scores import heard_of_covariance, yaw_scores

if TYPE_CHECKING:
    from model.take import Take

# Of training's softmax: mean cosines over it are log-evidence, up to the calibration's weight.
TEMPERATURE = 0.07


class AvsaScorer:
    """An AVSA network as a scorer: the cue `AVSA`, of a window's `moments`.

    translated : see `yaw_scores.yaw_scores`.
    """

    def __init__(
        self, network: AvsaNetwork, *, translated: bool, device: torch.device | str = "cpu"
    ) -> None:
        self._device = torch.device(device)
        self._network = network.to(self._device).eval()
        self.translated = translated

    @property
    def network(self) -> AvsaNetwork:
        """What judges."""
        return self._network

    @property
    def config(self) -> AvsaConfig:
        """What moments are to be."""
        return self._network.config

    def __call__(self, window: Window) -> Evidence:
        """What a window's moments say."""
        return Evidence({AVSA: self.log_evidence(window.moments)})

    @torch.inference_mode()
    def log_evidence(self, moments: Sequence[Moment]) -> Tensor:
        """Mean over moments, [shape=(R,)]; zeros, which say nothing, of none."""
        scores = torch.zeros(N_YAWS, dtype=torch.float64)
        for moment in moments:
            video = self._network.encode_video(moment.crops[None].to(self._device))[0]
            audio = heard_of_covariance(self._network, moment.covariance.to(self._device), N_YAWS)
            fits = yaw_scores(self._network, video, audio, translated=self.translated)
            scores += fits.double().cpu() / len(moments)
        return scores / TEMPERATURE


@dataclass(frozen=True)
class Judge:
    """What takes are judged by.

    Attributes
    ----------
    looks : what a window's moments must be; None where no scorer needs any.
    objects : a take's scorer of what a detector sees or has seen in it; None without one.
    """

    calibration: Calibration
    scorers: Sequence[Scorer]
    looks: AvsaConfig | None = None
    objects: Callable[[Take], Scorer] | None = None


def judge_for(
    method: Method,
    *,
    weights: Path | None = None,
    checkpoint: Path | None = None,
    device: torch.device | str = "cpu",
) -> Judge:
    """The judge of a method.

    weights : a calibration (default: the shipped one; of an AVSA checkpoint, that beside it).
    checkpoint : the network of `Method.AVSA`.

    Raises
    ------
    OptionError : a checkpoint is missing, or named for a method that has none.
    MediaError : a file is no such file, or the calibration was made with other weights.
    """
    if (checkpoint is not None) != (method is Method.AVSA):
        raise OptionError(
            f"The checkpoint {checkpoint} does not go with the method {method}: name one for the "
            "method avsa, and for no other."
        )
    if checkpoint is None:
        calibration = load_calibration(weights, method)
        return Judge(calibration, scorers_for(calibration, device))
    scorer = load_avsa_scorer(checkpoint, device)
    beside = weights or calibration_beside(checkpoint)
    if not beside.exists():
        raise MediaError(
            f"The checkpoint {checkpoint} has no calibration {beside}: make it by "
            f"python -m training.calibrate --method avsa --checkpoint {checkpoint}."
        )
    check_readable(beside)
    calibration = load_calibration(beside)
    check_made_for(calibration, checkpoint)
    return Judge(calibration, (scorer,), scorer.config)


def calibration_beside(checkpoint: Path) -> Path:
    """Where the calibration of a checkpoint is."""
    return checkpoint.with_name(checkpoint.name + ".json")


def load_avsa_scorer(checkpoint: Path, device: torch.device | str = "cpu") -> AvsaScorer:
    """A checkpoint as a scorer.

    Raises
    ------
    MediaError : no AVSA network, or one whose viewpoints do not divide the yaws.
    """
    network, provenance = load_avsa_with_provenance(checkpoint)
    if N_YAWS % network.config.viewpoints:
        raise MediaError(
            f"The checkpoint {checkpoint} has {network.config.viewpoints} viewpoints, which do not "
            f"divide {N_YAWS} rotations: train one with 1, 2, 4 or 8."
        )
    network.requires_grad_(False)
    translated = bool(provenance.get("translated", network.config.translator != "none"))
    return AvsaScorer(network, translated=translated, device=device)
