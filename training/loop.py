"""The loop that every training goes through: batches in; checkpoints, figures and curves out.

A `Course` is what is trained and all of its state. `run` takes it to its last step: it is resumed
from OUTPUT/checkpoint.pt to the step, and SIGTERM, SIGHUP and Ctrl-C write one first.
OUTPUT/log.jsonl has a line for each report, OUTPUT/tensorboard the same as curves.
"""

from __future__ import annotations

import io
import json
import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model.errors import AvsaError, MediaError, OptionError
from model.media import file_sha256
from model.output import make_folder, whole_file, writing
from training.distributed import Ranks
from training.figures import as_json

# What may change between a run and the one that takes it up: nothing that is learned.
_FREE = {"workers", "report_every", "validate_every", "save_every"}
_KEPT = {"settings", "step", "modules", "optimizer"}
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, how fast, and how often to report.

    Attributes
    ----------
    steps : optimizer steps of the whole run; the learning rate follows half a cosine over them.
    batch : what a step takes, over all ranks: scenes, or crops of clips.
    learning_rate, weight_decay, warmup_steps, clip_norm : of the optimizer.
    last_rate : what the cosine ends at, as a share of the learning rate; 1: it stays.
    precision : `bf16` (autocast) or `f32`.
    compile : whether the network is compiled (pays on a GPU).
    report_every, validate_every, save_every : in steps.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int = 100
    last_rate: float = 0.01
    clip_norm: float = 1.0
    seed: int = 0
    precision: str = "bf16"
    compile: bool = False
    workers: int = 2
    report_every: int = 20
    validate_every: int = 500
    save_every: int = 100


def _has_bf16(device: torch.device) -> bool:
    """Whether bf16 is worth while: a processor that has to emulate it takes ten times as long."""
    if device.type != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def learning_rate(schedule: Schedule, step: int, *, begun: int = 0) -> float:
    """Linear warm-up from step `begun` on; half a cosine over the whole run to the last rate."""
    warm = min(1.0, (step + 1 - begun) / max(1, schedule.warmup_steps))
    fallen = 0.5 * (1 + math.cos(math.pi * min(1.0, step / schedule.steps)))
    share = schedule.last_rate + (1 - schedule.last_rate) * fallen
    return schedule.learning_rate * warm * share


class Course(ABC):
    """Something that is trained step by step. Batches have `.to(device)`.

    optimizer : set by the subclass; `trained`: the module whose parameters it moves.
    conditions : what else than its settings a resumed run has to share with the one that stopped,
        and those of `_FREE` that matter to it.
    stopped_by : the signal that ended a run before its last step.
    """

    optimizer: torch.optim.Optimizer
    trained: nn.Module
    stopped_by: int | None = None

    def __init__(self, schedule: Schedule, at: Ranks) -> None:
        torch.manual_seed(schedule.seed)
        self.schedule, self.at, self.step = schedule, at, 0
        self.conditions: dict[str, Any] = {}
        self._first_bad = torch.full((), math.inf, device=at.device)  # step, of its gradients

    @property
    def precision(self) -> str:
        """What steps are computed in: the schedule's, where device and network bear it."""
        return self.schedule.precision if _has_bf16(self.at.device) else "f32"

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """What to minimise, and means to log (one is `loss`)."""

    @abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """All that has a state besides the optimizer, by the name it is kept under."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Figures on data that is held out; none without such data. All ranks are asked."""

    def rate(self) -> float:
        """The learning rate of the step to come."""
        return learning_rate(self.schedule, self.step)

    def stepped(self) -> None:  # noqa: B027
        """What is due after a step of the optimizer."""

    def at_step(self, step: int) -> None:
        """Become what the run is at a step, before a state is taken over."""
        self.step = step

    def train_step(self, batch: Any) -> dict[str, Tensor]:
        """One step of the optimizer; what to log.

        Raises
        ------
        AvsaError : on a CPU, its gradients are not finite (`check`); no weight has moved.
        """
        self._seed_step()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate() * group.get("share", 1.0)
        with torch.autocast(self.at.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss, log = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(), self.schedule.clip_norm)
        bad = torch.where(norm.isfinite(), math.inf, float(self.step + 1))
        self._first_bad = torch.minimum(self._first_bad, bad)
        if self.at.device.type == "cpu":  # elsewhere asking waits for the device
            self.check()
        self.optimizer.step()
        self.stepped()
        self.at_step(self.step + 1)
        return dict(log)

    def _seed_step(self) -> None:
        """What a step draws (dropout, masks) is a function of seed, step and rank, as batches are:
        ranks draw apart, and a resumed run draws what an uninterrupted one would.
        """
        drawn = np.random.SeedSequence([self.schedule.seed, self.step, self.at.rank, 11])
        torch.manual_seed(int(drawn.generate_state(1, np.uint64)[0]))

    def check(self) -> None:
        """Refuse to go on where a step's gradients were not finite: no such weights are kept.

        Raises
        ------
        AvsaError : they were not.
        """
        step = float(self._first_bad)
        if step < math.inf:
            raise AvsaError(
                f"The gradients of step {step:.0f} are not finite: begin anew with a lower "
                "--learning-rate, or with --precision f32."
            )

    def save(self, path: Path) -> None:
        """Write everything a resumed run needs, whole or not at all.

        Raises
        ------
        OutputError, DiskFull : it cannot be written. AvsaError : as `check`.
        """
        self.check()
        state = {
            "settings": self._settings(),
            "step": self.step,
            "modules": {name: module.state_dict() for name, module in self.modules().items()},
            "optimizer": self.optimizer.state_dict(),
        }
        written = io.BytesIO()
        torch.save(state, written)
        with whole_file(path) as part:
            part.write_bytes(written.getbuffer())

    def load(self, path: Path) -> None:
        """Take up where a checkpoint was written, if there is one; all ranks are asked.

        Raises
        ------
        OptionError : it is of a run with other settings, or not all ranks see it.
        MediaError : it is damaged.
        """
        state = _read_state(path, self.at.device) if path.exists() else None
        if not self.at.agree(state["step"] if state else 0):
            raise OptionError(
                f"Not all ranks find the same {path}: --output must be one folder that all nodes "
                "see."
            )
        if state is None:
            return
        kept, own = json.loads(state["settings"]), json.loads(self._settings())
        names = (kept.keys() | own.keys()) - (_FREE - self.conditions.keys())
        if other := [name for name in sorted(names) if kept.get(name) != own.get(name)]:
            told = ", ".join(f"{name} {kept.get(name)}, not {own.get(name)}" for name in other)
            raise OptionError(
                f"{path} is of a run with other settings ({told}): use another --output."
            )
        self.at_step(state["step"])
        for name, module in self.modules().items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])

    def _settings(self) -> str:
        return json.dumps(asdict(self.schedule) | self.conditions)


def begun_with(network: Path | None) -> dict[str, str | None]:
    """The condition that a run begins with a network, by its contents."""
    return {"start_from": file_sha256(network)[:8] if network else None}


def _read_state(path: Path, device: torch.device) -> dict[str, Any]:
    """What `Course.save` wrote, or a sentence that names it."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        if state.keys() >= _KEPT:
            return state
    except PermissionError as error:
        raise MediaError(f"The checkpoint {path} cannot be read: {error.strerror}.") from error
    except (RuntimeError, OSError, EOFError, UnpicklingError, ValueError, AttributeError):
        pass  # what a file that is cut short raises depends on where
    raise MediaError(
        f"{path} is no checkpoint of a run, or a damaged one: delete it to begin anew."
    )


def run(course: Course, batches: Dataset[Any], output: Path) -> None:
    """Train to the end, or until told to stop; leaves a checkpoint.

    batches : item i is the batch of step i; a function of the run's seed and i.
    """
    make_folder(output)
    schedule, at, checkpoint = course.schedule, course.at, output / "checkpoint.pt"
    course.load(checkpoint)
    loader = DataLoader(
        batches, batch_size=None, sampler=range(course.step, schedule.steps),
        num_workers=schedule.workers, pin_memory=at.device.type == "cuda",
        worker_init_fn=_leave_signals_to_parent,
    )  # fmt: skip
    log = _Log(output, course) if at.first else None
    try:
        _train(course, loader, log, checkpoint)
    finally:
        if log:
            log.close()


def _train(course: Course, loader: DataLoader[Any], log: _Log | None, checkpoint: Path) -> None:
    """Every step that is left, or until told to stop: whoever says so kills within seconds, so
    each step asks, and a validation that is due then is left out.
    """
    schedule, at, meter = course.schedule, course.at, _Meter(course.schedule)
    with _stop_requests() as requests:
        asked = time.monotonic()
        for batch in loader:
            waited_s = time.monotonic() - asked
            meter.add(course.train_step(batch.to(at.device)), waited_s)
            left = schedule.steps - course.step
            if course.step % schedule.report_every == 0 or not left:
                course.check()
                means = at.mean(meter.means(left))
                if log:
                    log.write(course.step, means)
            if at.any(bool(requests)) and left:
                course.stopped_by = requests[0] if requests else signal.SIGTERM  # another rank's
                break
            _keep(course, log, checkpoint)
            asked = time.monotonic()
        if log:
            course.save(checkpoint)


def _keep(course: Course, log: _Log | None, checkpoint: Path) -> None:
    """Checkpoint and validation, where they are due."""
    schedule, step = course.schedule, course.step
    if step % schedule.save_every == 0:
        course.check()  # all ranks: one that alone gave up would leave the others waiting
        if log:
            course.save(checkpoint)
    if step % schedule.validate_every == 0 or step == schedule.steps:
        figures = course.validate()
        if log and figures:
            log.write(step, figures)


class _Meter:
    """Means over steps, and how fast they were, since the last report."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._begin()

    def _begin(self) -> None:
        self._since, self._waited, self._steps = time.monotonic(), 0.0, 0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor], waited_s: float) -> None:
        """Count a step; phases of a run may log different things."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._waited += waited_s
        self._steps += 1

    def means(self, steps_left: int) -> dict[str, float]:
        """What there is to report, beginning anew."""
        elapsed = time.monotonic() - self._since
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        means["clips/s"] = self._schedule.batch * self._steps / elapsed
        means["waiting for data"] = self._waited / elapsed
        means["minutes left"] = steps_left * elapsed / self._steps / 60
        self._begin()
        return means


class _Log:
    """Where a run reports: a line of JSON, curves, a progress bar."""

    def __init__(self, folder: Path, course: Course) -> None:
        self._folder = folder
        with writing(folder):
            _take_back(folder / "log.jsonl", course.step)
            again = course.step + 1 if course.step else None
            self._curves = SummaryWriter(str(folder / "tensorboard"), purge_step=again)
            self._lines = (folder / "log.jsonl").open("a")
        self._bar = tqdm(
            total=course.schedule.steps, initial=course.step, unit="step", disable=None
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A line and a point on each curve."""
        rounded = {name: round(value, 5) for name, value in values.items()}
        with writing(self._folder):
            self._lines.write(as_json({"step": step, **rounded}) + "\n")
            self._lines.flush()
            for name, value in values.items():
                self._curves.add_scalar(name, value, step)
        self._bar.update(step - self._bar.n)
        if "loss" in values:
            shown = [f"loss {values['loss']:.3f}"]
            shown += [
                f"{name} {value:.0%}"
                for name, value in values.items()
                if name.startswith("within") or name.endswith("accuracy")
            ]
            self._bar.set_postfix_str(", ".join(shown[:3]))

    def close(self) -> None:
        """Close all of them: what a full disk has not taken of a log is told, and no loss."""
        self._bar.close()
        for one in (self._lines, self._curves):
            with suppress(OSError):
                one.close()


def _take_back(log: Path, step: int) -> None:
    """Drop what a killed run reported after the checkpoint it left: those steps come again."""
    if not log.is_file():
        return
    lines = log.read_text().splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    if kept != lines:
        with whole_file(log) as part:
            part.write_text("".join(f"{line}\n" for line in kept))


def _leave_signals_to_parent(_worker: int) -> None:
    """In a worker: a signal to the whole group must not take the data away before the last step."""
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Signals to stop, noted instead of obeyed at once."""
    requests: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        requests.append(number)

    heeded = [n for n in _STOPS if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
