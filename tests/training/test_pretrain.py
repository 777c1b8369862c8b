"""Training: resumed is the same as uninterrupted, two ranks as one, and it learns."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model.checkpoint import load_scorer, save_scorer
from model.errors import DiskFull, OptionError
from model.interruption import Interrupted
from model.networks.equivariant import EquivariantConfig, EquivariantScorer, Scores
from training import pretrain, pretrain_scorer
from training.data.batches import WindowBatches
from training.data.scenes import Conditions
from training.data.windows import kept_windows, load_window, render_all, save_window
from training.distributed import Ranks
from training.loop import learning_rate
from training.pretrain import main
from training.pretrain_scorer import PRESETS, ScorerCourse, train, validate

TINY = replace(
    PRESETS["cpu-smoke"], precision="f32", steps=6, batch=4, shortest=12, longest=16,
    report_every=1, save_every=2, validate_every=6,
    network=EquivariantConfig(widths=(8, 12, 24), hidden=32, size=24, heads=3, coherence=True),
)  # fmt: skip
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("windows")
    conditions = Conditions(duration_s=2.5, n_sources=1, n_distractors=1, snr_db=20.0)
    return list(render_all(folder, "scene", conditions, range(8), workers=2))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_scorer(path).state_dict())


def test_windows_are_kept_as_they_are(windows: list[Path], tmp_path: Path) -> None:
    window = load_window(windows[0])
    save_window(tmp_path / "again.safetensors", window)
    again = load_window(tmp_path / "again.safetensors")

    assert kept_windows(windows[0].parent) == windows
    assert len(window.covariance) == len(window.motion.maps) == len(window.motion.edges_s) - 1
    torch.testing.assert_close(again.motion.maps, window.motion.maps)
    torch.testing.assert_close(again.covariance, window.covariance)


def test_a_full_disk_is_told_and_leaves_nothing(
    windows: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)

    for keep in (
        lambda path: save_window(path, load_window(windows[0])),
        lambda path: save_scorer(path, EquivariantScorer(), {}),
        ScorerCourse(TINY, ALONE).save,
    ):
        with pytest.raises(DiskFull, match=r"No space is left to write .*kept"):
            keep(tmp_path / "kept")
    assert not list(tmp_path.iterdir())


def test_batches_are_functions_of_seed_and_step(windows: list[Path]) -> None:
    def batches(**options: int) -> WindowBatches:
        return WindowBatches(
            windows, batch=8, shortest=12, longest=16, overlaid=0.5, microphones=0.5, **options
        )

    whole, again, other = batches()[5], batches()[5], batches(seed=1)[5]
    torch.testing.assert_close(whole.maps, again.maps)
    assert whole.maps.shape != other.maps.shape or not torch.equal(whole.maps, other.maps)
    halves = [batches(rank=rank, world=2)[5] for rank in range(2)]
    torch.testing.assert_close(torch.cat([half.sound for half in halves]), whole.sound)
    with pytest.raises(ValueError, match="no multiple of 12"):
        batches(world=3)


def test_long_batches_are_of_windows_that_have_their_length(
    windows: list[Path], tmp_path: Path
) -> None:
    paths = [tmp_path / f"{index}.safetensors" for index in range(8)]
    for index, (path, whole) in enumerate(zip(paths, windows, strict=True)):
        window, n = load_window(whole), 14 if index % 2 else 20
        maps = torch.full_like(window.motion.maps[:n], index)
        motion = replace(window.motion, maps=maps)
        save_window(path, replace(window, covariance=window.covariance[:n], motion=motion))

    batches = WindowBatches(paths, batch=4, shortest=10, longest=30)
    lengths: set[int] = set()
    shown: dict[bool, set[float]] = {False: set(), True: set()}
    for step in range(80):
        maps = batches[step].maps
        lengths.add(maps.shape[1])
        shown[maps.shape[1] > 14] |= set(maps[:, 0, 0, 0, 0].tolist())

    assert lengths == set(range(10, 21))
    assert shown == {False: set(range(8)), True: {0, 2, 4, 6}}


def test_a_share_of_scenes_is_heard_by_other_microphones(windows: list[Path]) -> None:
    good, some, all_ = (
        WindowBatches(windows, batch=8, shortest=12, longest=16, microphones=share)[3]
        for share in (0.0, 0.5, 1.0)
    )

    torch.testing.assert_close(good.maps, all_.maps)
    changed = [(good.sound != b.sound).flatten(1).any(1).sum() for b in (some, all_)]
    assert 0 < changed[0] < changed[1] == 8


def test_a_resumed_run_equals_an_uninterrupted_one(windows: list[Path], tmp_path: Path) -> None:
    train(TINY, windows, [], tmp_path / "whole", ALONE)

    def stop_at_first_report() -> None:
        log = tmp_path / "parts" / "log.jsonl"
        while not (log.exists() and log.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_at_first_report).start()
    stopped = train(TINY, windows, [], tmp_path / "parts", ALONE)
    assert 0 < stopped.step < TINY.steps
    resumed = train(TINY, windows, [], tmp_path / "parts", ALONE)
    assert resumed.step == TINY.steps

    whole = weights(tmp_path / "whole" / "scorer.safetensors")
    parts = weights(tmp_path / "parts" / "scorer.safetensors")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=0, rtol=0)
    other = replace(TINY, learning_rate=1e-4)
    with pytest.raises(OptionError, match="other settings"):
        train(other, windows, [], tmp_path / "parts", ALONE)


def test_who_is_told_to_stop_says_so_and_keeps_what_there_is(
    windows: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after it in a script is not for half a training."""
    monkeypatch.setitem(PRESETS, "default", TINY)
    arguments = ["--windows", str(windows[0].parent), "--output", str(tmp_path)]
    step = ScorerCourse.train_step

    def stopped(course: ScorerCourse, batch: Any) -> Any:
        if course.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(course, batch)

    monkeypatch.setattr(ScorerCourse, "train_step", stopped)
    with pytest.raises(Interrupted) as told:
        main(arguments)
    monkeypatch.setattr(ScorerCourse, "train_step", step)

    assert told.value.number == signal.SIGTERM
    assert load_scorer(tmp_path / "scorer.safetensors").config == TINY.network
    assert main(arguments) == 0


def test_a_run_is_taken_up_with_what_it_has_learned_from(
    windows: list[Path], tmp_path: Path
) -> None:
    """Wherever that lies now: by contents, since windows of one seed are called alike."""
    config, run = replace(TINY, steps=1, batch=4), tmp_path / "run"
    first = tmp_path / "first.safetensors"
    save_scorer(first, EquivariantScorer(config.network), {})
    train(config, windows, [], run, ALONE, start_from=first)
    moved = [path.replace(tmp_path / path.name) for path in copied(windows, tmp_path / "copy")]

    assert train(config, moved, [], run, ALONE, start_from=first).step == 1

    second = tmp_path / "second.safetensors"
    save_scorer(second, EquivariantScorer(config.network), {})
    window = load_window(moved[0])
    save_window(moved[0], replace(window, covariance=2 * window.covariance))
    for paths, begun_with, told in (
        (moved, first, r"windows 8 \(.*\), not 8 \("),
        (windows[:-1], first, r"windows 8 \(.*\), not 7 \("),
        (windows, second, "start_from .*, not "),
        (windows, None, "start_from .*, not None"),
    ):
        with pytest.raises(OptionError, match=told):
            train(config, paths, [], run, ALONE, start_from=begun_with)


def copied(paths: list[Path], folder: Path) -> list[Path]:
    folder.mkdir()
    return [Path(shutil.copy(path, folder)) for path in paths]


def arguments(windows: list[Path], output: Path) -> list[str]:
    return [
        "--preset", "cpu-smoke", "--precision", "f32", "--steps", "1", "--batch", "8",
        "--windows", str(windows[0].parent), "--output", str(output),
    ]  # fmt: skip


def test_two_ranks_have_the_gradients_of_one(windows: list[Path], tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    ranks = ["--nproc-per-node", "2", "-m", "training.pretrain"]
    one, two = tmp_path / "one", tmp_path / "two"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert main(arguments(windows, one)) == 0
    subprocess.run([*torchrun, *ranks, *arguments(windows, two)], check=True, env=environment)

    lines = [json.loads((run / "log.jsonl").read_text().splitlines()[-1]) for run in (one, two)]
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"], abs=1e-5)
    # Adam's first step is the gradients' sign, so the gradients themselves are compared.
    one_grad, two_grad = (
        torch.load(run / "checkpoint.pt", weights_only=True)["optimizer"]["state"]
        for run in (one, two)
    )
    assert max(float(state["exp_avg"].abs().max()) for state in one_grad.values()) > 1e-3
    for index, state in one_grad.items():
        torch.testing.assert_close(
            two_grad[index]["exp_avg"], state["exp_avg"], atol=1e-6, rtol=1e-3
        )


NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--batch", "6"], "6 is no multiple of 4, and every rank (1 in all) takes whole fours"),
        (["--batch", "12"], "8 windows do not fill a batch of 12: give more --windows, or a"),
        (["--windows", "WINDOWS", "not-there"], "not-there holds no windows"),
        (["--validation", "not-there"], "not-there holds no windows"),
        (["--validation", "WINDOWS"], "8 windows of --validation are trained on as well"),
        (["--objective", "avc"], "--objective is of AVSA"),
        (["--validation-ids", "few.txt"], "--validation-ids is of AVSA"),
        (["--compile"], "--compile is of AVSA"),
        (["--device", "gpu"], "The device gpu is not known"),
        pytest.param(["--device", "cuda"], "PyTorch sees no CUDA GPU", marks=NO_GPU),
    ],
)
def test_bad_use_is_one_line(
    windows: list[Path],
    tmp_path: Path,
    more: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = [str(windows[0].parent) if word == "WINDOWS" else word for word in more]

    assert main([*arguments(windows, tmp_path / "run"), *more]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_scenes_that_are_trained_on_are_not_held_out_under_other_names(
    windows: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of two folders that were both rendered from the seed that is usual."""
    others = tmp_path / "others"
    others.mkdir()
    changed = load_window(windows[0])
    save_window(others / "0.safetensors", replace(changed, covariance=2 * changed.covariance))
    again = Path(shutil.copy(windows[3], others / "1.safetensors"))

    assert main([*arguments(windows, tmp_path / "run"), "--validation", str(others)]) == 2

    told = capsys.readouterr().err
    assert f"1 windows of --validation are trained on as well, as {again}: hold out" in told
    again.unlink()
    assert main([*arguments(windows, tmp_path / "run"), "--validation", str(others)]) == 0


def test_what_is_of_avsa_alone_is_refused_for_the_scorer() -> None:
    """All of it, as the help has it."""
    (group,) = (g for g in pretrain._parser()._action_groups if g.title == "AVSA alone")
    assert {action.dest for action in group._group_actions} == set(pretrain._OF_AVSA)


def test_it_learns(windows: list[Path], tmp_path: Path) -> None:
    """Scenes it was shown, which no network knows by chance: 1 in 8 is within 20 degrees then."""
    config = replace(
        TINY, steps=40, batch=8, report_every=5, save_every=40, validate_every=40,
        learning_rate=4e-3, average=0.5,
    )  # fmt: skip
    run = train(config, windows, windows, tmp_path, ALONE)

    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["rotation"] for line in lines if "rotation" in line]
    assert losses[-1] < losses[0] - 0.3
    assert validate(run.averaged, windows, ALONE.device)["within 20"] >= 0.5


def test_what_is_kept_and_measured_is_the_running_mean(
    windows: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, steps=3, average=0.3)
    course = ScorerCourse(config, ALONE)
    mean = {name: value.clone() for name, value in course.network.state_dict().items()}
    batches = WindowBatches(windows, batch=4, shortest=12, longest=16)
    for step in range(config.steps):
        course.train_step(batches[step])
        decay = min(config.average, (1 + step) / (10 + step))
        for name, now in course.network.state_dict().items():
            mean[name] = decay * mean[name] + (1 - decay) * now
    for name, own in course.averaged.state_dict().items():
        torch.testing.assert_close(own, mean[name])

    measured: list[EquivariantScorer] = []

    def measure(network: EquivariantScorer, *_: object) -> dict[str, float]:
        measured.append(network)
        return {}

    monkeypatch.setattr(pretrain_scorer, "validate", measure)
    run = train(replace(config, validate_every=3), windows[:4], windows[4:], tmp_path, ALONE)
    assert measured == [run.averaged]
    for name, own in weights(tmp_path / "scorer.safetensors").items():
        torch.testing.assert_close(own, run.averaged.state_dict()[name])
    assert not run.averaged.weigh.weight.equal(run.network.weigh.weight)


def test_a_run_begins_with_the_scorer_it_is_given(windows: list[Path], tmp_path: Path) -> None:
    """With steps that hardly lead away the mean is still there, whatever its decay."""
    config = replace(TINY, steps=1, learning_rate=1e-12, average=0.9)
    torch.manual_seed(config.seed + 1)  # not what the run itself would draw
    before = EquivariantScorer(config.network)
    save_scorer(tmp_path / "before.safetensors", before, {})

    run = train(config, windows, [], tmp_path, ALONE, start_from=tmp_path / "before.safetensors")

    for network in (run.network, run.averaged):
        for name, own in network.state_dict().items():
            torch.testing.assert_close(own, before.state_dict()[name], rtol=0, atol=1e-9)


def test_figures_tell_what_is_foreign_and_which_way_round(windows: list[Path]) -> None:
    """A scorer that knows its own sound again is right always, one that is fooled never."""
    for sign, share in ((1.0, 1.0), (-1.0, 0.0)):
        own: list[torch.Tensor] = []

        def heard(sound: torch.Tensor, own: list[torch.Tensor] = own) -> torch.Tensor:
            own.append(sound[..., :8])
            return own[-1]

        def judged(
            _seen: torch.Tensor, sound: torch.Tensor, sign: float = sign,
            own: list[torch.Tensor] = own,
        ) -> Scores:  # fmt: skip
            fits = sign if sound.equal(own[-1]) else -sign
            mirrored = torch.full((1, 72), -sign)
            return Scores(torch.zeros(1, 72), mirrored, torch.full((1,), fits), torch.zeros(1))

        network: Any = SimpleNamespace(
            picture=lambda maps: maps.transpose(1, -1)[..., :8], sound=heard, scores=judged
        )
        found = validate(network, windows[:3], ALONE.device)
        assert (found["foreign told"], found["right way round"]) == (share, share)


def test_the_median_of_two_windows_lies_between_them(
    windows: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter((10.0, 175.0))
    monkeypatch.setattr(pretrain_scorer, "errors_deg", lambda _yaw: torch.tensor([next(errors)]))

    found = validate(EquivariantScorer(TINY.network), windows[:2], ALONE.device)

    assert found["median error"] == 92.5


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(PRESETS["default"], step) for step in range(PRESETS["default"].steps)]

    assert rates[0] < rates[50] < max(rates) <= PRESETS["default"].learning_rate
    assert rates[-1] < 0.02 * max(rates)
