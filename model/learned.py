"""The learned scorer: a window in, the network's log-evidence for every rotation out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model import features
from model.checkpoint import LEARNED, Calibration, load_scorer
from model.evidence import acoustic_maps
from model.networks.equivariant import EquivariantScorer
from model.scoring import Evidence, Scorer, Window, training_free

ACOUSTIC = ("doa", "mvdr", "flux")


def sound_input(cov: Tensor) -> Tensor:
    """The network's view of a window's sound, [shape=(T, F, 10)] to (A, 4 F + 3, T), float32.

    The directional features of every band, and the acoustic maps of the training-free evidence.
    """
    maps = acoustic_maps(cov)
    acoustic = torch.stack([_unit(maps[name]) for name in ACOUSTIC])  # (3, T, A)
    bands = features.directional(cov.float())
    return torch.cat([bands, acoustic.permute(2, 0, 1).float()], dim=1)


def _unit(series: Tensor) -> Tensor:
    return (series / (series.mean() + 1e-9)).sqrt()


class LearnedScorer:
    """The network as a scorer."""

    def __init__(self, network: EquivariantScorer, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = network.to(self._device).eval()

    @torch.no_grad()
    def __call__(self, window: Window) -> Evidence:
        """The cue `LEARNED`, and the statistics `belongs` and `synchronous`: logits that the sound
        is the picture's, and that they run on one time.
        """
        maps = window.motion.maps.to(self._device, torch.float32)[None]
        sound = sound_input(window.covariance.to(self._device))[None]
        scores = self._network(maps, sound)
        return Evidence(
            {LEARNED: scores.yaw[0]},
            {"belongs": float(scores.belongs), "synchronous": float(scores.synchronous)},
        )


def scorers_for(calibration: Calibration, device: torch.device | str = "cpu") -> Sequence[Scorer]:
    """All scorers that a calibration weighs; the learned one is the shipped one."""
    if LEARNED not in calibration.weights:
        return (training_free,)
    return training_free, LearnedScorer(load_scorer(), device)
