"""The loop on a network of one weight: what ends a run, and what it then leaves behind."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from model.errors import AvsaError, DiskFull, MediaError, OptionError, OutputError
from tests.training.ranks import N_RANKS, on_two_ranks
from training.distributed import Ranks
from training.loop import Course, Schedule, _Meter, run

ALONE = Ranks(0, 1, torch.device("cpu"))
SCHEDULE = Schedule(
    steps=6, batch=1, learning_rate=0.1, weight_decay=0.0, warmup_steps=1, precision="f32",
    workers=0, report_every=100, validate_every=100, save_every=2,
)  # fmt: skip


class Slope(Course):
    """A weight that falls with whatever it is given."""

    def __init__(self, schedule: Schedule, at: Ranks = ALONE) -> None:
        super().__init__(schedule, at)
        self.slope = self.trained = nn.Linear(1, 1, bias=False)
        self.optimizer = torch.optim.SGD(self.trained.parameters(), lr=1.0)

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss: Tensor = self.slope(batch).sum()
        return loss, {"loss": loss.detach()}

    def modules(self) -> Mapping[str, nn.Module]:
        return {"slope": self.slope}

    def validate(self) -> dict[str, float]:
        return {}


class Ones(Dataset[Tensor]):
    """Batches of ones, but for one step (counted from 0)."""

    def __init__(self, strange: float, at_step: int) -> None:
        self._strange, self._at_step = strange, at_step

    def __getitem__(self, step: int) -> Tensor:
        return torch.full((1,), self._strange if step == self._at_step else 1.0)


@pytest.mark.parametrize("damaged", [b"", b"PK\3\4 broken off", bytes(1000)])
def test_a_damaged_checkpoint_is_named_and_kept(tmp_path: Path, damaged: bytes) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(damaged)

    with pytest.raises(MediaError, match=r"checkpoint.pt is no checkpoint.*delete it"):
        run(Slope(SCHEDULE), Ones(1.0, at_step=0), tmp_path)

    assert checkpoint.read_bytes() == damaged


def test_what_breaks_off_or_is_another_s_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    run(Slope(SCHEDULE), Ones(1.0, at_step=0), tmp_path)
    whole = checkpoint.read_bytes()
    for share in (0.3, 0.9):
        checkpoint.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(MediaError, match="is no checkpoint"):
            Slope(SCHEDULE).load(checkpoint)

    torch.save({"weight": torch.ones(1)}, checkpoint)
    with pytest.raises(MediaError, match="is no checkpoint"):
        Slope(SCHEDULE).load(checkpoint)


def test_a_run_is_taken_up_with_other_workers_and_told_what_else_differs(tmp_path: Path) -> None:
    """Batches are functions of seed and step, so who makes them may change, as the machine does."""
    run(Slope(SCHEDULE), Ones(1.0, at_step=0), tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    moved = Slope(replace(SCHEDULE, workers=3, save_every=1, report_every=2, validate_every=3))
    moved.load(checkpoint)
    assert moved.step == SCHEDULE.steps

    with pytest.raises(OptionError) as refused:
        Slope(replace(SCHEDULE, seed=1, batch=2)).load(checkpoint)
    assert "other settings (batch 1, not 2, seed 0, not 1): use another" in str(refused.value)

    in_sequence = Slope(replace(SCHEDULE, workers=3))
    in_sequence.conditions = {"workers": 3}
    with pytest.raises(OptionError, match=r"\(workers 0, not 3\)"):
        in_sequence.load(checkpoint)


def test_steps_that_come_again_are_reported_once(tmp_path: Path) -> None:
    """As after a kill: the checkpoint is of step 4, the log says more, its last line in part."""
    often = replace(SCHEDULE, report_every=1)
    with pytest.raises(AvsaError, match="step 6"):
        run(Slope(often), Ones(math.nan, at_step=5), tmp_path)
    log = tmp_path / "log.jsonl"
    reported = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert reported == [1, 2, 3, 4, 5]
    with log.open("a") as file:
        file.write('{"step": 6, "lo')

    assert _resumed_at(tmp_path) == 4
    run(Slope(often), Ones(1.0, at_step=0), tmp_path)

    reported = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert reported == [1, 2, 3, 4, 5, 6]


def _resumed_at(folder: Path) -> int:
    step: int = torch.load(folder / "checkpoint.pt", weights_only=True)["step"]
    return step


def test_a_report_is_of_the_steps_since_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that only some steps have are means over those."""
    clock = [100.0]
    monkeypatch.setattr("training.loop.time.monotonic", lambda: clock[0])
    meter = _Meter(replace(SCHEDULE, batch=4))
    meter.add({"loss": torch.tensor(1.0)}, 0.5)
    meter.add({"loss": torch.tensor(3.0), "place accuracy": torch.tensor(0.5)}, 0.5)
    clock[0] += 2.0

    assert meter.means(60) == {
        "loss": 2.0, "place accuracy": 0.5, "clips/s": 4.0, "waiting for data": 0.5,
        "minutes left": 1.0,
    }  # fmt: skip
    meter.add({"loss": torch.tensor(7.0)}, 0.0)
    clock[0] += 0.5
    assert meter.means(12) == {
        "loss": 7.0, "clips/s": 8.0, "waiting for data": 0.0, "minutes left": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["log.jsonl", "tensorboard"])
def test_a_log_that_cannot_be_written_is_told(tmp_path: Path, name: str) -> None:
    taken = tmp_path / name
    taken.touch() if name == "tensorboard" else taken.mkdir()

    with pytest.raises(OutputError, match=f"{tmp_path} cannot be written: "):
        run(Slope(SCHEDULE), Ones(1.0, at_step=0), tmp_path)


def test_a_full_disk_is_told_by_the_log(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "log.jsonl").symlink_to("/dev/full")

    with pytest.raises(DiskFull, match=f"No space is left to write {tmp_path}"):
        run(Slope(replace(SCHEDULE, report_every=1)), Ones(1.0, at_step=0), tmp_path)


@pytest.mark.parametrize("strange", [math.nan, math.inf])
def test_gradients_that_are_not_finite_end_a_run_before_they_are_kept(
    tmp_path: Path, strange: float
) -> None:
    course = Slope(SCHEDULE)

    with pytest.raises(AvsaError, match=r"gradients of step 4 are not finite.*--learning-rate"):
        run(course, Ones(strange, at_step=3), tmp_path)

    assert bool(course.slope.weight.isfinite().all())
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 2
    assert bool(kept["modules"]["slope"]["weight"].isfinite().all())


def test_where_steps_do_not_ask_nothing_is_kept_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where the question is put with a report and before a checkpoint."""
    course = Slope(SCHEDULE)
    check = course.check
    monkeypatch.setattr(course, "check", lambda: None)
    course.train_step(torch.ones(1))
    course.train_step(torch.full((1,), math.nan))
    course.train_step(torch.ones(1))
    monkeypatch.setattr(course, "check", check)

    with pytest.raises(AvsaError, match="gradients of step 2 are not finite"):
        course.save(tmp_path / "checkpoint.pt")
    assert not list(tmp_path.iterdir())


# --- what steps draw ------------------------------------------------------------------------------


class Drawing(Slope):
    """Keeps what dropout and masks would draw at each step."""

    def __init__(self, schedule: Schedule, at: Ranks = ALONE) -> None:
        super().__init__(schedule, at)
        self.drawn: list[float] = []

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.drawn.append(float(torch.rand(())))
        return super().loss(batch)


def test_what_a_step_draws_depends_on_seed_step_and_rank_alone() -> None:
    def drawn(seed: int, rank: int, begin: int, *, disturbed: bool = False) -> list[float]:
        at = Ranks(rank, 2, torch.device("cpu"))
        course = Drawing(replace(SCHEDULE, seed=seed), at)
        course.at_step(begin)
        for _ in range(begin, 4):
            course.train_step(torch.ones(1))
            if disturbed:  # as by a validation
                torch.rand(7)
        return course.drawn

    whole = drawn(0, rank=0, begin=0)
    assert drawn(0, rank=0, begin=2) == whole[2:]
    assert drawn(0, rank=0, begin=0, disturbed=True) == whole
    apart = [*whole, *drawn(0, rank=1, begin=0), *drawn(1, rank=0, begin=0)]
    assert len(set(apart)) == len(apart)


# --- what steps are computed in -------------------------------------------------------------------


class Told(Slope):
    """Keeps whether its loss was computed in bf16."""

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.in_bf16 = torch.is_autocast_enabled("cpu")
        return super().loss(batch)


@pytest.mark.parametrize(
    ("able", "asked", "in_bf16"),
    [
        ({"amx_bf16": True}, "bf16", True), ({"avx512_bf16": True}, "bf16", True),
        ({"bf16": True}, "bf16", True), ({"amx_bf16": True}, "f32", False),
        ({"amx_bf16": False, "avx512_f": True}, "bf16", False),
    ],
)  # fmt: skip
def test_a_processor_without_bf16_does_not_emulate_it(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], asked: str, in_bf16: bool
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: able)
    course = Told(replace(SCHEDULE, precision=asked))
    course.train_step(torch.ones(1))
    assert course.in_bf16 is in_bf16


# --- told to stop ---------------------------------------------------------------------------------


class Stopped(Dataset[Tensor]):
    """Batches of ones; while that of a step (counted from 0) is made, a signal comes."""

    def __init__(self, number: signal.Signals = signal.SIGTERM, at_step: int = 1) -> None:
        self._number, self._at_step = number, at_step

    def __getitem__(self, step: int) -> Tensor:
        if step == self._at_step:
            os.kill(os.getpid(), self._number)
        return torch.ones(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_heeded_by_the_next_step_whenever_reports_are_due(
    tmp_path: Path, number: signal.Signals
) -> None:
    course, before = Slope(SCHEDULE), signal.getsignal(number)
    if before is signal.SIG_IGN:  # as whoever started the tests may have it
        signal.signal(number, signal.SIG_DFL)

    run(course, Stopped(number), tmp_path)

    signal.signal(number, before)
    assert (course.step, course.stopped_by) == (2, number)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    resumed = Slope(SCHEDULE)
    run(resumed, Ones(1.0, 0), tmp_path)
    assert (resumed.step, resumed.stopped_by) == (SCHEDULE.steps, None)


def test_a_run_that_is_told_to_stop_at_its_last_step_is_whole(tmp_path: Path) -> None:
    course = Slope(SCHEDULE)

    run(course, Stopped(at_step=SCHEDULE.steps - 1), tmp_path)

    assert (course.step, course.stopped_by) == (SCHEDULE.steps, None)


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As nohup has it."""
    course, before = Slope(SCHEDULE), signal.signal(signal.SIGHUP, signal.SIG_IGN)

    run(course, Stopped(signal.SIGHUP), tmp_path)

    assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN
    assert (course.step, course.stopped_by) == (SCHEDULE.steps, None)


def stopped_and_resumed(rank: int, folder: str) -> None:
    """One of two ranks is told to stop; both go on, first in folders of their own."""
    at, ones = Ranks(rank, N_RANKS, torch.device("cpu")), Ones(1.0, 0)
    shared, told = Path(folder) / "run", []
    course = Slope(SCHEDULE, at)
    run(course, Stopped() if rank else ones, shared)
    told.append(f"stopped at {course.step}")
    try:
        run(Slope(SCHEDULE, at), ones, Path(folder) / "elsewhere" if rank else shared)
    except OptionError as error:
        told.append(str(error).partition(": ")[2])
    course = Slope(SCHEDULE, at)
    run(course, ones, shared)
    told.append(f"ended at {course.step}")
    (Path(folder) / f"{rank}.txt").write_text("\n".join(told))


def test_ranks_stop_together_and_go_on_from_one_folder(tmp_path: Path) -> None:
    on_two_ranks(stopped_and_resumed, tmp_path)

    for rank in range(N_RANKS):
        assert (tmp_path / f"{rank}.txt").read_text().splitlines() == [
            "stopped at 2", "--output must be one folder that all nodes see.", "ended at 6",
        ]  # fmt: skip
