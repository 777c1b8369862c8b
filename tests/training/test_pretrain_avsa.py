"""AVSA by the one entry: resumed is uninterrupted, two ranks are one, phases pass on encoders."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.checkpoint import load_avsa
from model.errors import OptionError
from model.networks.avsa import PUBLISHED, AvsaConfig
from model.viewpoints import Sound, SoundInput
from tests.training.ranks import N_RANKS, on_two_ranks
from training import pretrain, pretrain_scorer
from training.data import yt360_synthetic
from training.data.clips import ClipCrops, Cropping
from training.data.crop_batches import CropBatches, Stretch, check_parts
from training.data.kept_clips import KeptClips, Stage, keep_clips
from training.data.scenes import Conditions
from training.data.yt360 import build_index, read_index
from training.distributed import Ranks
from training.objectives.avsa import SpatialAlignment
from training.objectives.curriculum import steps_of
from training.objectives.named import Task, layout, phases
from training.pretrain import main
from training.pretrain_avsa import (
    AVSA_PRESETS,
    AvsaCourse,
    AvsaPretrainConfig,
    ClipData,
    train_avsa,
)

README = Path(__file__).resolve().parents[2] / "README.md"
ALONE = Ranks(0, 1, torch.device("cpu"))
SCENE = Conditions(duration_s=4.0, n_sources=1, n_distractors=0, snr_db=25.0, body="patch")
STAGE = Stage(SCENE, height=48)
NETWORK = AvsaConfig(
    widths=(4, 4, 8, 8), embedding=6, crop_px=16, n_frames=4, frame_rate_hz=8.0, depth=1,
    sound=SoundInput(Sound.INTENSITY, n_bands=8), sound_s=0.5,
)  # fmt: skip
TINY = AvsaPretrainConfig(
    network=NETWORK, cropping=Cropping(frame_height=48), steps=6, batch=8, warmup_steps=2,
    precision="f32", workers=0, report_every=1, save_every=2, validate_every=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipData:
    kept = keep_clips(tmp_path_factory.mktemp("kept") / "few", STAGE, 8, seed=0)
    return ClipData(kept.clips, media=kept)


def state(path: Path) -> dict[str, Tensor]:
    return dict(load_avsa(path).state_dict())


# --- the run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [Task.AVSA, Task.AVSA_MEMORY])
def test_a_resumed_run_equals_an_uninterrupted_one(
    clips: ClipData, tmp_path: Path, task: Task
) -> None:
    """Through the change of phase, dropout, shuffles and memories; stopped by SIGTERM."""
    config = replace(TINY, task=task, steps=8, validate_every=3)
    train_avsa(config, clips, tmp_path / "whole", ALONE, held_out=clips)

    def stop_at_first_report() -> None:
        log = tmp_path / "parts" / "log.jsonl"
        while not (log.exists() and log.read_text()):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop_at_first_report)
    thread.start()
    stopped = train_avsa(config, clips, tmp_path / "parts", ALONE, held_out=clips)
    thread.join()
    assert 0 < stopped.step < config.steps
    assert not (tmp_path / "parts" / "avsa.safetensors").exists()
    resumed = train_avsa(config, clips, tmp_path / "parts", ALONE, held_out=clips)
    assert resumed.step == config.steps

    whole = state(tmp_path / "whole" / "avsa.safetensors")
    for name, value in state(tmp_path / "parts" / "avsa.safetensors").items():
        torch.testing.assert_close(value, whole[name], atol=0, rtol=0)
    with pytest.raises(OptionError, match="other settings"):
        train_avsa(replace(config, seed=1), clips, tmp_path / "parts", ALONE)
    with pytest.raises(OptionError, match=r"clips 8 \(.*\), not 7 \("):
        train_avsa(config, replace(clips, clips=clips.clips[1:]), tmp_path / "parts", ALONE)
    begun = tmp_path / "whole" / "avsa.safetensors"
    with pytest.raises(OptionError, match="start_from None, not"):
        train_avsa(config, clips, tmp_path / "parts", ALONE, start_from=begun)


def test_the_second_phase_begins_with_the_encoders_of_the_first(clips: ClipData) -> None:
    config = replace(TINY, steps=10)
    course, batches = AvsaCourse(config, ALONE), clips.batches(config, ALONE)
    assert [len(batches[step].recordings) for step in (0, 1, 2, 9)] == [8, 8, 2, 2]
    first = course.network
    for step in range(2):
        course.train_step(batches[step])

    assert course.network is not first
    before, after = first.state_dict(), course.network.state_dict()
    for name, value in before.items():
        kept = name.startswith(("video_encoder", "audio_encoder", "audio_standard"))
        if kept:
            torch.testing.assert_close(after[name], value, atol=0, rtol=0)
    for part in ("video_head", "to_video.layers.0.mixing.to_output"):
        assert not after[f"{part}.weight"].equal(before[f"{part}.weight"])


def test_each_phase_warms_up_linearly_under_one_fall_of_the_rate() -> None:
    config = replace(TINY, steps=80, warmup_steps=8, last_rate=0.2)
    course = AvsaCourse(config, ALONE)
    of = phases(config.task, config.network, n_crops=config.batch, curriculum=True)
    for begun in (0, steps_of(of, config.steps)[0]):
        for since in range(12):
            course.at_step(begun + since)
            warm = min(1.0, (since + 1) / config.warmup_steps)
            fallen = 0.6 + 0.4 * math.cos(math.pi * (begun + since) / config.steps)
            assert course.rate() == pytest.approx(config.learning_rate * warm * fallen, rel=1e-9)


def test_a_run_too_short_for_its_first_phase_begins_with_the_next(clips: ClipData) -> None:
    """Batches and objective are of one phase, whichever a step is in."""
    config = replace(TINY, steps=1)
    course, batches = AvsaCourse(config, ALONE), clips.batches(config, ALONE)

    assert batches[0].viewpoints.shape == (2, 4)
    assert isinstance(course.objective, SpatialAlignment)
    assert "place accuracy" in course.train_step(batches[0])


@pytest.mark.parametrize("task", list(Task))
def test_every_objective_is_trained_from_clips(clips: ClipData, tmp_path: Path, task: Task) -> None:
    config = replace(TINY, task=task, steps=2, curriculum=False)

    course = train_avsa(config, clips, tmp_path, ALONE, held_out=clips)

    assert course.step == 2
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(math.isfinite(line["loss"]) for line in lines if "loss" in line)
    assert math.isfinite(lines[-1]["held-out loss"])
    crops = layout(task, NETWORK.viewpoints)
    (phase,) = phases(task, NETWORK, n_crops=8)
    assert phase.n_samples * crops.n_viewpoints * crops.n_moments == 8
    rotations = clips.batches(config, ALONE)[0].rotations_rad
    assert bool(rotations.any()) is (task is Task.REGRESSION)


def test_a_cpu_trains_in_f32_whatever_the_preset_says(clips: ClipData) -> None:
    """Gradients of its bf16 convolutions over two frames, which the network has, are garbage."""
    weights = []
    for precision in ("bf16", "f32"):
        config = replace(TINY, precision=precision, curriculum=False)
        course, batches = AvsaCourse(config, ALONE), clips.batches(config, ALONE)
        for step in range(2):
            course.train_step(batches[step])
        weights.append(course.network.state_dict())

    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=0, rtol=0)


def test_batches_are_functions_of_seed_and_step_whatever_the_ranks(clips: ClipData) -> None:
    items = ClipCrops(clips.clips, NETWORK, TINY.cropping, media=clips.media)

    def batches(**options: int) -> CropBatches:
        return CropBatches([Stretch(3, 4, items), Stretch(5, 2, items)], **options)

    whole = batches()
    assert len(whole) == 8
    for step in (1, 6):
        halves = [batches(rank=rank, world=2)[step] for rank in range(2)]
        assert torch.cat([half.recordings for half in halves]).equal(whole[step].recordings)
        assert torch.cat([half.pictures for half in halves]).equal(whole[step].pictures)
    assert not batches(seed=1)[0].pictures.equal(whole[0].pictures)
    first = torch.cat([whole[step].recordings for step in (0, 1)])
    assert sorted(first.tolist()) == list(range(8))  # each recording once before any twice
    with pytest.raises(OptionError, match="4 samples a step are no equal parts for 3 ranks"):
        batches(world=3)


def torchruns() -> list[tuple[int, list[str]]]:
    """Trainings by several ranks that README names: how many ranks, and their arguments."""
    text = README.read_text().replace("\\\n", " ")
    found = []
    for line in re.findall(r"torchrun .*-m training\.pretrain .*", text):
        launch, _, arguments = line.partition("-m training.pretrain")
        counts = re.findall(r"--(?:nnodes|nproc-per-node) (\d+)", launch)
        found.append((math.prod(map(int, counts)), shlex.split(arguments, comments=True)))
    return found


@pytest.mark.parametrize(("world", "words"), torchruns())
def test_ranks_that_the_readme_names_have_equal_parts(
    clips: ClipData, world: int, words: list[str]
) -> None:
    options = pretrain._parser().parse_args(words)
    if options.windows:
        assert pretrain_scorer.PRESETS[options.preset or "default"].batch % (4 * world) == 0
        return
    stretches = clips.stretches(pretrain._avsa_config(options))
    check_parts(stretches, world)
    if options.preset == "published":
        with pytest.raises(
            OptionError, match=r"28 .* 8 ranks: take 1, 2, 4, 7, 14 or 28 ranks, or"
        ):
            check_parts(stretches, 8)
        options.batch = 224
        check_parts(clips.stretches(pretrain._avsa_config(options)), 8)


def test_four_commands_of_the_readme_are_of_several_ranks() -> None:
    assert [world for world, _ in torchruns()] == [8, 2, 4, 14]


# --- ranks ----------------------------------------------------------------------------------------


def some_steps(at: Ranks, folder: str) -> dict[str, Tensor]:
    """Weights after three steps; statistics and dropout are each rank's own, so they rest.

    With an epsilon as large as gradients are, Adam does not make rounding of small ones large.
    """
    kept = KeptClips(Path(folder) / "few", STAGE)
    config = replace(TINY, curriculum=False)
    course = AvsaCourse(config, at)
    batches = ClipData(kept.clips, media=kept).batches(config, at)
    course.network.eval()
    for group in course.optimizer.param_groups:
        group["eps"] = 1e-3
    for step in range(3):
        course.train_step(batches[step])
    return dict(course.network.state_dict())


def work(rank: int, folder: str) -> None:
    torch.save(some_steps(Ranks(rank, N_RANKS, torch.device("cpu")), folder), f"{folder}/{rank}.pt")


def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    """AVSA with all candidates: negatives of both ranks count."""
    keep_clips(tmp_path / "few", STAGE, 8, seed=0)
    alone = some_steps(ALONE, str(tmp_path))

    on_two_ranks(work, tmp_path)

    untrained = AvsaCourse(replace(TINY, curriculum=False), ALONE).network.state_dict()
    moved = distance(alone, untrained)
    assert moved > 0.01
    for rank in range(N_RANKS):
        together = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert distance(together, alone) < 0.005 * moved


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float((one[name] - other[name]).double().norm() ** 2) for name in one))


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layout")
    scenes = replace(SCENE, duration_s=2.5)
    yt360_synthetic.write_layout(root, recordings=5, clips=1, conditions=scenes, height=90)
    build_index(root)
    usable = [clip.recording for clip in read_index(root)]
    (root / "train.txt").write_text("\n".join(usable[1:]))
    (root / "test.txt").write_text(usable[0])
    return root


def arguments(root: Path, output: Path, *more: str) -> list[str]:
    return [
        "--clips", str(root), "--ids", str(root / "train.txt"), "--steps", "2", "--batch", "4",
        "--viewpoints", "2", "--workers", "0", "--precision", "f32", "--output", str(output), *more,
    ]  # fmt: skip


def test_the_command_trains_on_files_of_yt360s_layout(root: Path, tmp_path: Path) -> None:
    more = ["--sound", "intensity", "--validation-ids", str(root / "test.txt")]

    assert main(arguments(root, tmp_path, *more, "--batch", "2")) == 0

    network = load_avsa(tmp_path / "avsa.safetensors")
    assert (network.config.viewpoints, network.config.sound.sound) == (2, Sound.INTENSITY)
    assert (tmp_path / "checkpoint.pt").exists()
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--preset", "gpu"], "The preset gpu is the other model's: take narrow, published."),
        (["--guide", "objects"], "--guide objects needs --detections, a file of boxes."),
        (["--objective", "avsa-avts", "--viewpoints", "3"], "3 crops are no viewpoints at two"),
        *(
            (["--objective", task, "--viewpoints", "1"], f"{task} chooses among the crops of a")
            for task in ("avsa-hard", "puzzle", "puzzle-avc", "masked", "masked-avc")
        ),
    ],
)
def test_bad_use_is_one_line(
    root: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(root, tmp_path / "run", *more)) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    "more",
    [["--validation-ids", "train.txt"], ["--ids", "all.txt", "--validation-ids", "test.txt"]],
)
def test_what_is_learned_from_is_not_held_out(
    root: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "all.txt").write_text((root / "train.txt").read_text() + "\n" + read_first(root))
    more = [str(root / word) if word.endswith(".txt") else word for word in more]

    assert main(arguments(root, tmp_path / "run", *more)) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert "recordings are both learned from and measured on, as synth" in line


def read_first(root: Path) -> str:
    return (root / "test.txt").read_text()


def test_the_published_preset_is_the_papers_run() -> None:
    config = AVSA_PRESETS["published"]
    assert config.network == PUBLISHED
    first, second = phases(config.task, config.network, n_crops=config.batch, curriculum=True)
    assert (first.n_samples, second.n_samples, second.n_viewpoints) == (112, 28, 4)
    epoch = config.draws * 4506
    course_steps = 50 * epoch / 112 + 50 * epoch / 28
    assert config.steps == pytest.approx(course_steps, abs=1)
    assert (config.learning_rate, config.weight_decay, config.last_rate) == (1e-4, 1e-5, 1.0)


@pytest.mark.parametrize(
    ("words", "samples"),
    [
        ("--objective avsa", [112, 28]),
        ("--objective avsa --no-curriculum", [28]),
        ("--objective avsa --viewpoints 8 --batch 224", [224, 28]),
        ("--objective avc", [112]),
        ("--objective easy", [28]),
        ("--objective easy --curriculum", [112, 28]),
        ("--objective avts", [112, 28]),
    ],
)
def test_the_published_length_is_100_epochs_of_any_objective(
    words: str, samples: list[int]
) -> None:
    arguments = ["--clips", "ROOT", "--output", "RUN", "--preset", "published", *words.split()]
    options = pretrain._parser().parse_args(arguments)

    config = pretrain._avsa_config(options)

    of = phases(config.task, config.network, n_crops=config.batch, curriculum=config.curriculum)
    assert [phase.n_samples for phase in of] == samples
    for phase, steps in zip(of, steps_of(of, config.steps), strict=True):
        taken = steps * phase.n_samples
        assert taken == pytest.approx(100 * 32 * 4506 / len(of), abs=2 * phase.n_samples)
    options.steps = 10
    assert pretrain._avsa_config(options).steps == 10


def test_the_published_network_takes_a_step(tmp_path: Path) -> None:
    """Full size, 33 million parameters and 112 pixels, on as few crops as contrast takes."""
    kept = keep_clips(tmp_path / "few", STAGE, 2, seed=0)
    config = replace(
        AVSA_PRESETS["published"], network=replace(PUBLISHED, viewpoints=1), batch=2, draws=1,
        steps=1, curriculum=False, precision="f32", workers=0, cropping=TINY.cropping,
    )  # fmt: skip
    clips = ClipData(kept.clips, media=kept)
    course = AvsaCourse(config, ALONE)
    before = [parameter.detach().clone() for parameter in course.network.parameters()]

    log = course.train_step(clips.batches(config, ALONE)[0])

    assert sum(parameter.numel() for parameter in course.network.parameters()) == 32_986_432
    assert float(log["loss"]) == pytest.approx(math.log(2), abs=1.5)
    moved = [not a.equal(b) for a, b in zip(before, course.network.parameters(), strict=True)]
    assert all(moved)
