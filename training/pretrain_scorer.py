"""Training of the equivariant scorer on kept windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.checkpoint import load_scorer, save_scorer
from model.networks.equivariant import EquivariantConfig, EquivariantScorer
from training import loop
from training.data.batches import Batch, WindowBatches, inputs
from training.data.excerpts import with_microphone
from training.data.windows import load_window, told_apart
from training.distributed import Ranks
from training.growth import grown
from training.objectives.rotation import errors_deg, rotation_loss, rotation_target

_NETWORK = EquivariantConfig(hidden=96, size=72, heads=9, coherence=True)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(loop.Schedule):
    """A run, entirely; a batch is of scenes.

    Attributes
    ----------
    shortest, longest : of the stretches cut from windows, in frames: 2 to 10 s.
    overlaid, microphones : shares of scenes that another is laid over, and that are heard by a
        microphone with faults, 0 to 1.
    average : decay of the weights' running mean, which is what is kept and validated.
    network : its sizes.
    """

    steps: int = 6000
    batch: int = 16
    shortest: int = 22
    longest: int = 118
    overlaid: float = 0.6
    microphones: float = 0.5
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    average: float = 0.998
    network: EquivariantConfig = _NETWORK


PRESETS = {
    "default": PretrainConfig(),
    "cpu-smoke": PretrainConfig(
        steps=60, batch=8, longest=30, warmup_steps=5, average=0.9, workers=0, report_every=5,
        validate_every=60, save_every=30,
    ),
    "gpu": PretrainConfig(
        steps=40_000, batch=128, learning_rate=3e-3, compile=True, workers=14, report_every=50,
        validate_every=2000, save_every=500,
    ),
}  # fmt: skip


class _Objective(nn.Module):
    """Network and loss as one module, so that DDP sees every use of the weights."""

    def __init__(self, network: EquivariantScorer) -> None:
        super().__init__()
        self.network = network

    def forward(self, maps: Tensor, sound: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return rotation_loss(self.network, maps, sound)


class ScorerCourse(loop.Course):
    """The network, and the running mean of its weights."""

    def __init__(self, config: PretrainConfig, at: Ranks, held_out: Sequence[Path] = ()) -> None:
        super().__init__(config, at)
        self.config, self._held_out = config, held_out
        self.network = self.trained = EquivariantScorer(config.network).to(at.device)
        self.averaged = EquivariantScorer(config.network).to(at.device)
        self.averaged.load_state_dict(self.network.state_dict())
        self.averaged.requires_grad_(False).eval()
        objective: Any = at.wrap(_Objective(self.network))
        self._objective = torch.compile(objective) if config.compile else objective
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def begin_with(self, network: EquivariantScorer) -> None:
        """Take over weights that were trained before, perhaps at smaller sizes."""
        weights = grown(network, self.config.network).state_dict()
        for own in (self.network, self.averaged):
            own.load_state_dict(weights)

    def modules(self) -> Mapping[str, nn.Module]:
        """See `loop.Course`."""
        return {"network": self.network, "averaged": self.averaged}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `loop.Course`."""
        outcome: tuple[Tensor, dict[str, Tensor]] = self._objective(batch.maps, batch.sound)
        return outcome

    def stepped(self) -> None:
        """Move the mean; over few steps it is a plain one."""
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(now.detach(), 1 - decay)

    def validate(self) -> dict[str, float]:
        """See `loop.Course`; the first rank alone has figures."""
        if not self._held_out or not self.at.first:
            return {}
        return validate(self.averaged, self._held_out, self.at.device)


@torch.no_grad()
def validate(
    network: EquivariantScorer,
    paths: Sequence[Path],
    device: torch.device,
    *,
    microphones: bool = False,
) -> dict[str, float]:
    """How a network does on whole windows, and how well it tells foreign sound.

    microphones : whether they are heard by microphones with faults, the same ones each time.
    """
    target = rotation_target(device)
    losses, errors, fitting, foreign, right_way = [], [], [], [], []
    before: Tensor | None = None
    for index, path in enumerate(paths):
        window = load_window(path)
        window = with_microphone(window, index) if microphones else window
        example = inputs(window).to(device)
        seen, heard = network.picture(example.maps), network.sound(example.sound)
        scores = network.scores(seen, heard)
        losses.append(-float(scores.yaw[0].log_softmax(0) @ target))
        errors.append(float(errors_deg(scores.yaw)))
        right_way.append(float(scores.upright > 0))
        fitting.append(float(scores.belongs))
        if before is not None:
            n = min(seen.shape[-1], before.shape[-1])
            foreign.append(float(network.scores(seen[..., :n], before[..., :n]).belongs))
        before = heard
    told = torch.tensor(fitting)[:, None] > torch.tensor(foreign)[None]
    error = torch.tensor(errors)
    return {
        "rotation": float(torch.tensor(losses).mean()),
        "median error": float(error.quantile(0.5)),
        **{f"within {n}": float((error <= n).float().mean()) for n in (10, 20, 30)},
        "beyond 150": float((error > 150).float().mean()),
        "foreign told": float(told.float().mean()),
        "right way round": float(torch.tensor(right_way).mean()),
    }


def train(
    config: PretrainConfig,
    windows: Sequence[Path],
    held_out: Sequence[Path],
    output: Path,
    at: Ranks,
    *,
    start_from: Path | None = None,
) -> ScorerCourse:
    """Train to the end, or until told to stop; leaves a checkpoint and the averaged weights.

    start_from : a scorer whose weights the run begins with.
    """
    course = ScorerCourse(config, at, held_out)
    if start_from is not None:
        course.begin_with(load_scorer(start_from))
    course.conditions = {"windows": told_apart(windows)} | loop.begun_with(start_from)
    batches = WindowBatches(
        windows, batch=config.batch, shortest=config.shortest, longest=config.longest,
        overlaid=config.overlaid, microphones=config.microphones, seed=config.seed, rank=at.rank,
        world=at.world,
    )  # fmt: skip
    loop.run(course, batches, output)
    if at.first:
        provenance = {
            "command": "python -m training.pretrain",
            "settings": asdict(config) | {"precision": course.precision},
            "steps": course.step,
            "windows": len(windows),
        }
        save_scorer(output / "scorer.safetensors", course.averaged, provenance)
    return course
