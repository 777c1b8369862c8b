"""The learned scorer: a window in, the network's log-evidence for every rotation out."""

from __future__ import annotations

import torch
from torch import Tensor

from model import features
from model.evidence import acoustic_maps

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
