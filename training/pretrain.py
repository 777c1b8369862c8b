"""Train the scorer.

    python -m training.pretrain --windows WINDOWS --validation HELD_OUT --output RUN

Windows come from `python -m training.data.windows`. A run is resumed from RUN/checkpoint.pt, to the
step; SIGTERM and Ctrl-C write one first. On several GPUs:

    torchrun --nproc-per-node 8 -m training.pretrain --device cuda ...

RUN/log.jsonl has a line for each report (loss, clips a second, share of time spent waiting for
data, time left), RUN/tensorboard the same as curves, RUN/scorer.safetensors the averaged weights.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model.checkpoint import load_scorer, save_scorer
from model.errors import AvsaError, OptionError
from model.networks.equivariant import EquivariantConfig, EquivariantScorer
from training.data.batches import Batch, WindowBatches, inputs
from training.data.windows import kept_windows, load_window
from training.distributed import Ranks, ranks
from training.objectives.rotation import errors_deg, rotation_loss


@dataclass(frozen=True)
class PretrainConfig:
    """A run, entirely.

    Attributes
    ----------
    steps : optimizer steps of the whole run; the learning rate follows half a cosine over them.
    batch : scenes a step, over all ranks.
    shortest, longest : of the stretches cut from windows, in frames.
    learning_rate, weight_decay, warmup_steps, clip_norm : of AdamW.
    average : decay of the weights' running mean, which is what is kept and validated.
    precision : `bf16` (autocast) or `f32`.
    compile : whether the network is compiled (pays on a GPU).
    report_every, validate_every, save_every : in steps.
    """

    steps: int = 6000
    batch: int = 16
    shortest: int = 22
    longest: int = 58
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    warmup_steps: int = 100
    clip_norm: float = 1.0
    average: float = 0.998
    seed: int = 0
    precision: str = "bf16"
    compile: bool = False
    workers: int = 2
    report_every: int = 20
    validate_every: int = 500
    save_every: int = 100


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


def learning_rate(config: PretrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine to a hundredth."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    fallen = 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))
    return config.learning_rate * warm * (0.01 + 0.99 * fallen)


class _Objective(nn.Module):
    """Network and loss as one module, so that DDP sees every use of the weights."""

    def __init__(self, network: EquivariantScorer) -> None:
        super().__init__()
        self.network = network

    def forward(self, maps: Tensor, sound: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return rotation_loss(self.network, maps, sound)


class Run:
    """The state of a run: what a checkpoint holds."""

    def __init__(self, config: PretrainConfig, at: Ranks) -> None:
        torch.manual_seed(config.seed)
        self.config, self.at = config, at
        self.network = EquivariantScorer(EquivariantConfig()).to(at.device)
        self.averaged = EquivariantScorer(self.network.config).to(at.device)
        self.averaged.load_state_dict(self.network.state_dict())
        self.averaged.requires_grad_(False).eval()
        objective: Any = at.wrap(_Objective(self.network))
        self.objective = torch.compile(objective) if config.compile else objective
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the optimizer; what to log."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        with torch.autocast(
            self.at.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        ):
            loss, log = self.objective(batch.maps, batch.sound)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        # A running mean over few steps is a plain one.
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(now.detach(), 1 - decay)
        self.step += 1
        return dict(log)

    def begin_with(self, network: EquivariantScorer) -> None:
        """Take over weights that were trained before."""
        for own in (self.network, self.averaged):
            own.load_state_dict(network.state_dict())

    def save(self, path: Path) -> None:
        """Write everything a resumed run needs, whole or not at all."""
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Take up where a checkpoint was written.

        Raises
        ------
        OptionError : it is of a run with another configuration.
        """
        state = torch.load(path, map_location=self.at.device, weights_only=True)
        if state["config"] != asdict(self.config):
            raise OptionError(
                f"{path} is of a run with other settings ({state['config']}): use another --output."
            )
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        self.step = state["step"]


@torch.no_grad()
def validate(
    network: EquivariantScorer, paths: Sequence[Path], device: torch.device
) -> dict[str, float]:
    """How a network does on whole windows, and how well it tells foreign sound."""
    errors, fitting, foreign = [], [], []
    before: Tensor | None = None
    for path in paths:
        example = inputs(load_window(path)).to(device)
        seen, heard = network.picture(example.maps), network.sound(example.sound)
        scores = network.scores(seen, heard)
        errors.append(float(errors_deg(scores.yaw)))
        fitting.append(float(scores.belongs))
        if before is not None:
            n = min(seen.shape[-1], before.shape[-1])
            foreign.append(float(network.scores(seen[..., :n], before[..., :n]).belongs))
        before = heard
    told = torch.tensor(fitting)[:, None] > torch.tensor(foreign)[None]
    error = torch.tensor(errors)
    return {
        "median error": float(error.median()),
        **{f"within {n}": float((error <= n).float().mean()) for n in (10, 20, 30)},
        "beyond 150": float((error > 150).float().mean()),
        "foreign told": float(told.float().mean()),
    }


class _Meter:
    """Means over steps, and how fast they were, since the last report."""

    def __init__(self, config: PretrainConfig) -> None:
        self._config = config
        self._begin()

    def _begin(self) -> None:
        self._since, self._waited, self._steps = time.monotonic(), 0.0, 0
        self._sums: dict[str, Tensor] = {}

    def add(self, values: dict[str, Tensor], waited_s: float) -> None:
        """Count a step."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value
        self._waited += waited_s
        self._steps += 1

    def means(self, steps_left: int) -> dict[str, float]:
        """What there is to report, beginning anew."""
        elapsed = time.monotonic() - self._since
        means = {name: float(total) / self._steps for name, total in self._sums.items()}
        means["clips/s"] = self._config.batch * self._steps / elapsed
        means["waiting for data"] = self._waited / elapsed
        means["minutes left"] = steps_left * elapsed / self._steps / 60
        self._begin()
        return means


class _Log:
    """Where a run reports: a line of JSON, curves, a progress bar."""

    def __init__(self, folder: Path, run: Run) -> None:
        self._lines = (folder / "log.jsonl").open("a")
        self._curves = SummaryWriter(str(folder / "tensorboard"))
        self._bar = tqdm(total=run.config.steps, initial=run.step, unit="step")

    def write(self, step: int, values: dict[str, float]) -> None:
        """A line and a point on each curve."""
        rounded = {name: round(value, 5) for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **rounded}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._curves.add_scalar(name, value, step)
        self._bar.update(step - self._bar.n)
        if "loss" in values:
            self._bar.set_postfix_str(
                f"loss {values['loss']:.3f}, within 20 {values['within 20']:.0%}"
            )

    def close(self) -> None:
        """Close all of them."""
        self._bar.close()
        self._lines.close()
        self._curves.close()


def _leave_signals_to_parent(_worker: int) -> None:
    """In a worker: a signal to the whole group must not take the data away before the last step."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Signals to stop, noted instead of obeyed at once."""
    requests: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        requests.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(
    config: PretrainConfig,
    windows: Sequence[Path],
    held_out: Sequence[Path],
    output: Path,
    at: Ranks,
    *,
    start_from: Path | None = None,
) -> Run:
    """Train to the end, or until told to stop; leaves a checkpoint and the averaged weights.

    start_from : a scorer whose weights the run begins with.
    """
    output.mkdir(parents=True, exist_ok=True)
    run, checkpoint = Run(config, at), output / "checkpoint.pt"
    if checkpoint.exists():
        run.load(checkpoint)
    elif start_from is not None:
        run.begin_with(load_scorer(start_from))
    batches = WindowBatches(
        windows, batch=config.batch, shortest=config.shortest, longest=config.longest,
        seed=config.seed, rank=at.rank, world=at.world,
    )  # fmt: skip
    loader = DataLoader(
        batches, batch_size=None, sampler=range(run.step, config.steps),
        num_workers=config.workers, pin_memory=at.device.type == "cuda",
        worker_init_fn=_leave_signals_to_parent,
    )  # fmt: skip
    log = _Log(output, run) if at.first else None
    meter = _Meter(config)
    with _stop_requests() as requests:
        asked = time.monotonic()
        for batch in loader:
            waited_s = time.monotonic() - asked
            meter.add(run.train_step(batch.to(at.device)), waited_s)
            stop = False
            if run.step % config.report_every == 0 or run.step == config.steps:
                means = at.mean(meter.means(config.steps - run.step))
                stop = at.any(bool(requests))
                if log:
                    log.write(run.step, means)
            if log:
                _keep(run, log, held_out, checkpoint)
            if stop:
                break
            asked = time.monotonic()
    if log:
        run.save(checkpoint)
        log.close()
        save_scorer(output / "scorer.safetensors", run.averaged, _provenance(run, windows))
    return run


def _keep(run: Run, log: _Log, held_out: Sequence[Path], checkpoint: Path) -> None:
    """Checkpoint and validation, where they are due."""
    config = run.config
    if run.step % config.save_every == 0:
        run.save(checkpoint)
    if held_out and (run.step % config.validate_every == 0 or run.step == config.steps):
        log.write(run.step, validate(run.averaged, held_out, run.at.device))


def _provenance(run: Run, windows: Sequence[Path]) -> dict[str, Any]:
    return {
        "command": "python -m training.pretrain",
        "settings": asdict(run.config),
        "steps": run.step,
        "windows": len(windows),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(
        prog="python -m training.pretrain", description="Train the scorer on kept windows."
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="default")
    parser.add_argument(
        "--windows", type=Path, required=True, nargs="+", help="folders of kept windows"
    )
    parser.add_argument("--validation", type=Path, help="folder of others, to measure on")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    for name in ("steps", "batch", "seed", "workers"):
        parser.add_argument(f"--{name}", type=int, help=f"instead of the preset's {name}")
    parser.add_argument("--precision", choices=("bf16", "f32"), help="instead of the preset's")
    parser.add_argument("--learning-rate", type=float, help="instead of the preset's")
    parser.add_argument("--start-from", type=Path, help="scorer to begin with (to adapt it)")
    options = parser.parse_args(argv)
    names = ("steps", "batch", "seed", "workers", "precision", "learning_rate")
    given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    config = replace(PRESETS[options.preset], **given)
    held_out = kept_windows(options.validation) if options.validation else []
    windows = [path for folder in options.windows for path in kept_windows(folder)]
    try:
        with ranks(options.device) as at:
            train(config, windows, held_out, options.output, at, start_from=options.start_from)
    except (AvsaError, ValueError) as error:
        print(f"training.pretrain: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
