"""Takes to calibrate on: made of kept windows, and scored as the product scores them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint import STATISTICS, Calibration
from model.posterior import pool
from model.scoring import Scorer, Window
from training.data.excerpts import beginning, diffuse, thirds, with_microphone, with_sound
from training.data.windows import load_window

_SHORT_S = (2.0, 5.0)  # of every third window, in turns: a take may be as short


@dataclass(frozen=True)
class ScoredTake:
    """Cues and statistics of a take's windows; the truth is 0.

    Attributes
    ----------
    kind : "matched", "short", "long", "foreign" or "noise".
    names : of the K cues.
    cues : [shape=(W, K, R)].
    statistics : by `STATISTICS`, [shape=(W, 4)].
    scenes : what kind of scenes it is of, by where its windows are kept.
    """

    kind: str
    names: tuple[str, ...]
    cues: Tensor
    statistics: Tensor
    scenes: str = ""

    @property
    def matched(self) -> bool:
        """Whether there is a right rotation at all."""
        return self.kind in ("matched", "short", "long")

    def posterior(self, calibration: Calibration) -> Tensor:
        """Pooled over the windows as the product does, [shape=(R,)]."""
        log_posteriors = []
        for cues, values in zip(self.cues, self.statistics.tolist(), strict=True):
            statistics = dict(zip(STATISTICS, values, strict=True))
            weights = [calibration.weight(name, statistics) for name in self.names]
            log_posteriors.append((cues.new_tensor(weights) @ cues).log_softmax(0))
        return pool(torch.stack(log_posteriors), calibration)


def scored(kind: str, windows: Sequence[Window], scorers: Sequence[Scorer]) -> ScoredTake:
    """Score the windows of a take."""
    names: tuple[str, ...] = ()
    cues, statistics = [], []
    for window in windows:
        found = [scorer(window) for scorer in scorers]
        named = {name: cue for evidence in found for name, cue in evidence.cues.items()}
        values = {name: value for evidence in found for name, value in evidence.statistics.items()}
        names = tuple(named)
        cues.append(torch.stack([cue.double().cpu() for cue in named.values()]))
        statistics.append([1.0, *(values.get(name, 0.0) for name in STATISTICS[1:])])
    return ScoredTake(kind, names, torch.stack(cues), torch.tensor(statistics, dtype=torch.float64))


def takes_of(
    windows: Sequence[Path], long: Sequence[Path]
) -> Iterator[tuple[str, str, list[Window]]]:
    """The takes that calibration is made on, one after the other: kind, scenes and windows.

    Every other pair of windows is heard by a microphone with faults.
    """
    before: Window | None = None
    for index, path in enumerate(windows):
        window, scenes = _recorded(path, index), _scenes_of(path)
        yield "matched", scenes, [window]
        if index % 3:
            yield "short", scenes, [beginning(window, _SHORT_S[index % 3 - 1])]
        if before is not None and index % 2 == 0:
            yield "foreign", scenes, [with_sound(window, before.covariance)]
        if index % 8 == 0:
            yield "noise", scenes, [with_sound(window, diffuse(index, window.motion.edges_s))]
        before = window
    for index, path in enumerate(long):
        yield "long", _scenes_of(path), thirds(_recorded(path, index))


def _recorded(path: Path, index: int) -> Window:
    window = load_window(path)
    return with_microphone(window, index) if index // 2 % 2 else window


def _scenes_of(path: Path) -> str:
    """Folder and kind of a window that `training.data.windows` keeps as KIND-SEED."""
    return f"{path.parent.name}: {path.stem.rsplit('-', 1)[0]}"
