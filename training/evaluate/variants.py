"""One table, one row a variant: every objective and option of the paper and its rebuttal.

All are trained for the same number of steps of as many crops, on the same synthetic scenes, and
measured on the same others. As the paper's curriculum has it, a first phase of AVC comes before; it
is the same for all rows with the same ears, so it is trained once. The network is narrow and scenes
are easy (one large patch that moves and sounds), so that a few minutes on one core tell variants
apart; the order of rows on real footage may be another.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from model.errors import OptionError
from model.networks.avsa import AvsaConfig
from model.output import Together, whole_file
from model.viewpoints import Sound, SoundInput
from training.data.clips import ClipCrops, Cropping, Guide
from training.data.kept_clips import KeptClips, Stage, keep_clips
from training.data.scenes import Conditions
from training.distributed import Ranks
from training.evaluate.alignment import Looking, summary, yaw_errors_deg
from training.evaluate.bins import Probe, bins
from training.evaluate.yaw_by_objective import yaw_scorer
from training.objectives.named import Task, phases
from training.pretrain_avsa import NAME, AvsaCourse, AvsaPretrainConfig, ClipData, train_avsa
from training.processes import Processes

STAGE = Stage(
    Conditions(
        duration_s=4.0, n_sources=1, n_distractors=0, snr_db=30.0, body="patch", offscreen=False,
        shaken=False, flawless=True, planar=False,
    ),
    least_radius_rad=math.radians(18),
    plain=True,
    height=64,
)  # fmt: skip
NETWORK = AvsaConfig(
    widths=(8, 16, 32, 64), embedding=64, crop_px=24, n_frames=4, frame_rate_hz=8.0,
    sound=SoundInput(Sound.INTENSITY, n_bands=8), sound_s=0.5, depth=1, whitened=True,
)  # fmt: skip
CROPPING = Cropping(
    fields_of_view_rad=(math.radians(70), math.radians(90)), max_elevation_rad=math.radians(30),
    frame_height=STAGE.height, augment=False,
)  # fmt: skip
CONFIG = AvsaPretrainConfig(
    network=NETWORK, cropping=CROPPING, curriculum=False, batch=64,
    learning_rate=1.5e-3, warmup_steps=50, precision="f32", workers=0,
    report_every=50, validate_every=10**9, validation_batches=24, save_every=250,
)  # fmt: skip
N_TRAIN, N_TEST, N_PROBED = 320, 96, 128
LOOKING = Looking(frame_height=STAGE.height)


@dataclass(frozen=True)
class Variant:
    """A row: how it differs from AVSA as it is by default here.

    Attributes
    ----------
    fresh : trained from nothing for as many steps as others with their first phase.
    network, sound, cropping : changed fields of `AvsaConfig`, `SoundInput` and `Cropping`.
    """

    group: str
    name: str
    task: Task = Task.AVSA
    fresh: bool = False
    network: dict[str, Any] = field(default_factory=dict)
    sound: dict[str, Any] = field(default_factory=dict)
    cropping: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its folder."""
        return "-".join(re.findall("[a-z0-9]+", f"{self.group} {self.name}".lower()))

    @property
    def first_phase(self) -> Variant | None:
        """The training of AVC that this one begins with."""
        if self.fresh:
            return None
        ears = str(self.sound.get("sound", NETWORK.sound.sound))
        return Variant("first phase", ears, Task.AVC, fresh=True, sound=self.sound)

    def config(self, steps: int, seed: int = 0) -> AvsaPretrainConfig:
        """Its training."""
        network = replace(NETWORK, sound=replace(NETWORK.sound, **self.sound), **self.network)
        cropping = replace(CROPPING, **self.cropping)
        return replace(
            CONFIG, network=network, cropping=cropping, task=self.task, steps=steps, seed=seed
        )


_SOUNDS: dict[str, dict[str, Any]] = {
    "mono log-mel (paper)": {"sound": Sound.MONO, "magnitude": True},
    "stereo log-mel (paper)": {"sound": Sound.STEREO, "magnitude": True},
    "ambisonic log-mel (paper)": {"sound": Sound.AMBISONIC, "magnitude": True},
    "cardioids": {"sound": Sound.CARDIOID},
    "intensity": {"sound": Sound.INTENSITY},
    "intensity and cardioids": {"sound": Sound.DIRECTIONAL},
}


def _heard(name: str, sound: dict[str, Any]) -> Variant:
    """Ears compared by what only directions tell: after AVC, levels alone know recordings apart."""
    name = f"{name}, hard only, from nothing"
    return Variant("sound", name, Task.AVSA_HARD, fresh=True, sound=sound)


# Where nothing moves no moment is seen, and few crops drawn at random hold the one body.
_TOWARDS_SOUND = {"guide": Guide.SOUND}

VARIANTS = (
    Variant("objective", "AVC", Task.AVC),
    Variant("objective", "AVTS", Task.AVTS),
    Variant("objective", "AVTS, crops towards the sound", Task.AVTS, cropping=_TOWARDS_SOUND),
    Variant("objective", "AVTS with translators", Task.AVTS_TRANSLATED),
    Variant("objective", "AVSA (all N K candidates)"),
    Variant("objective", "AVSA, paired candidates", Task.AVSA_PAIRED),
    Variant("objective", "AVSA with memory", Task.AVSA_MEMORY),
    Variant("objective", "puzzle", Task.PUZZLE),
    Variant("objective", "puzzle + AVC", Task.PUZZLE_AVC),
    Variant("objective", "masked choice", Task.MASKED),
    Variant("objective", "masked choice + AVC", Task.MASKED_AVC),
    Variant("objective", "regression", Task.REGRESSION),
    Variant("negatives", "easy only: instance (AVC with translators)", Task.EASY),
    Variant("negatives", "hard only: spatial", Task.AVSA_HARD),
    Variant("negatives", "instance + spatial + temporal (AVSA + AVTS)", Task.AVSA_AVTS),
    Variant("curriculum", "none: AVSA from nothing", fresh=True),
    *(_heard(name, sound) for name, sound in _SOUNDS.items()),
    Variant(
        "sound",
        "ambisonic log-mel (paper), hard only, from nothing, no translators",
        Task.AVSA_HARD,
        fresh=True,
        sound=_SOUNDS["ambisonic log-mel (paper)"],
        network={"translator": "none"},
    ),
    Variant("viewpoints", "1", network={"viewpoints": 1}),
    Variant("viewpoints", "2", network={"viewpoints": 2}),
    Variant("viewpoints", "8", network={"viewpoints": 8}),
    Variant("context", "none (direct prediction)", network={"translator": "none"}),
    Variant("context", "MLP", network={"translator": "mlp"}),
    Variant("context", "depth 2", network={"depth": 2}),
    Variant("context", "depth 4", network={"depth": 4}),
)


@dataclass(frozen=True)
class Budget:
    """How much work a row is.

    Attributes
    ----------
    steps : of training, after `first_steps` of AVC.
    n_train, n_test, n_probed : scenes that are trained on, measured on, and that heads learn from
        (of the first).
    n_validated : batches of the scenes measured on that the row's own task is asked of.
    seed : of the training.
    """

    steps: int = 650
    first_steps: int = 600
    n_train: int = N_TRAIN
    n_test: int = N_TEST
    n_probed: int = N_PROBED
    n_validated: int = CONFIG.validation_batches
    seed: int = 0
    probe: Probe = field(default_factory=Probe)


def run(
    output: Path,
    *,
    budget: Budget,
    device: str = "cpu",
    workers: int = 2,
    variants: Sequence[Variant] = VARIANTS,
) -> list[dict[str, Any]]:
    """Train and measure what is not done; returns the rows, and writes them as they come.

    output : holds the scenes, a folder for each row, `variants.json` and `variants.md`.
    """
    data = output / "scenes"
    keep_clips(data / f"train-{budget.n_train}", STAGE, budget.n_train, seed=0, workers=workers)
    keep_clips(data / f"test-{budget.n_test}", STAGE, budget.n_test, seed=10**6, workers=workers)
    left = [v for v in variants if _done(output, v, budget) is None]
    phases = list({v.first_phase.key: v.first_phase for v in left if v.first_phase}.values())
    first = partial(_first_phase, output, budget, device)
    work = partial(_row, output, budget, device)
    with _processes(workers) as worked:
        for _ in tqdm(worked(first, phases), total=len(phases), unit="first phase"):
            pass
        for _ in tqdm(worked(work, left), total=len(left), unit="row"):
            _write(output, variants, budget)
    return _write(output, variants, budget)


_Work = Callable[[Variant], None]


@contextmanager
def _processes(workers: int) -> Iterator[Callable[[_Work, Sequence[Variant]], Iterable[None]]]:
    """What does a work for each of some rows, in whatever order, and tells of each that is done."""
    if workers == 1:
        yield map
        return
    with Processes(workers, start="spawn") as pool:
        yield lambda work, rows: (
            row.result() for row in as_completed([pool.submit(work, row) for row in rows])
        )


def _done(output: Path, variant: Variant, budget: Budget) -> dict[str, Any] | None:
    """The row, if it was made with this budget."""
    path = output / variant.key / "row.json"
    if not path.exists():
        return None
    row: dict[str, Any] = json.loads(path.read_text())
    return row if row["budget"] == asdict(budget) else None


def _first_phase(output: Path, budget: Budget, device: str, variant: Variant) -> None:
    """Train what several rows begin with, unless it is there."""
    _trained(output, budget, device, variant, budget.first_steps)


def _trained(
    output: Path, budget: Budget, device: str, variant: Variant, steps: int
) -> tuple[AvsaCourse, KeptClips]:
    """Train a variant to its end; returns it and the scenes it has learned from."""
    if device == "cpu":
        torch.set_num_threads(1)
    config, train = variant.config(steps, budget.seed), _scenes(output, "train", budget.n_train)
    config = replace(config, validation_batches=budget.n_validated)
    phase = variant.first_phase
    first = None if phase is None else output / phase.key / NAME
    at = Ranks(0, 1, torch.device(device))
    test = _scenes(output, "test", budget.n_test)
    course = train_avsa(
        config, ClipData(train.clips, media=train), output / variant.key, at, start_from=first,
        held_out=ClipData(test.clips, media=test),
    )  # fmt: skip
    if course.step < steps:
        raise OptionError(
            f"{variant.name} was stopped at step {course.step}: run the command again."
        )
    return course, train


def _scenes(output: Path, name: str, count: int) -> KeptClips:
    return KeptClips(output / "scenes" / f"{name}-{count}", STAGE)


def _row(output: Path, budget: Budget, device: str, variant: Variant) -> None:
    """Train one variant and measure it."""
    began = time.monotonic()
    steps = budget.steps + (budget.first_steps if variant.fresh else 0)
    course, train = _trained(output, budget, device, variant, steps)
    config, test = course.config, _scenes(output, "test", budget.n_test)
    trained_s = time.monotonic() - began
    task, network = config.task, course.network
    own, value = _own_accuracy(course.validate())
    scorer = yaw_scorer(task, course.objective.eval())
    errors = yaw_errors_deg(network, test.clips, scorer, looking=LOOKING, media=test)
    cropping = replace(CROPPING, n_viewpoints=config.network.viewpoints)
    probed, measured = (
        ClipCrops(media.clips[:count], config.network, cropping, media=media)
        for media, count in ((train, budget.n_probed), (test, budget.n_test))
    )
    (figures,) = bins(
        network, probed, measured, probe=budget.probe, translated=[task.translated],
        views=[config.network.viewpoints],
    ).values()  # fmt: skip
    row = {
        "budget": asdict(budget),
        "group": variant.group,
        "name": variant.name,
        "steps": course.step,
        "own": own,
        "own accuracy": value,
        "own chance": _chance(own, config),
        "training s": trained_s,
        "evaluation s": time.monotonic() - began - trained_s,
        **figures,
        **summary(errors),
    }
    with whole_file(output / variant.key / "row.json") as path:
        path.write_text(json.dumps(row, indent=2) + "\n")


# What an objective's own accuracy is called, the hardest first.
_OWN = ("puzzle crop", "crop", "masked choice", "choice", "within 20 deg", "place", "instance")


def _own_accuracy(held_out: Mapping[str, float]) -> tuple[str, float]:
    """What the row's objective asks, and how often it is answered right on other scenes."""
    name = next(name for name in _OWN if f"held-out {name} accuracy" in held_out)
    return name, held_out[f"held-out {name} accuracy"]


def _chance(own: str, config: AvsaPretrainConfig) -> float:
    """How often it is right by chance."""
    k = config.network.viewpoints
    if own == "instance":
        return 1 / phases(config.task, config.network, n_crops=config.batch)[0].n_samples
    if own == "within 20 deg":
        return 40 / 360
    return 1 / (max(2, k // 2) if "choice" in own else k)


def _write(output: Path, variants: Sequence[Variant], budget: Budget) -> list[dict[str, Any]]:
    """The rows that are done, as JSON and as a table."""
    rows = [row for v in variants if (row := _done(output, v, budget)) is not None]
    with Together() as both:
        with both.file(output / "variants.json") as path:
            path.write_text(json.dumps(rows, indent=2) + "\n")
        with both.file(output / "variants.md") as path:
            path.write_text(markdown(rows, budget))
    return rows


_COLUMNS = (
    ("own accuracy", "own task (chance)"),
    ("AVC-Bin", "AVC-Bin"),
    ("AVSA-Bin published", "AVSA-Bin"),
    ("AVSA-Bin stratified", "from 20°"),
    ("AVSA-Bin 140 to 180 deg", "140 to 180° told"),
    ("median error", "yaw error"),
    ("within 20", "within 20°"),
    ("within 30", "within 30°"),
    ("beyond 150", "beyond 150°"),
)


def markdown(rows: Sequence[dict[str, Any]], budget: Budget) -> str:
    """The table, in the order of `VARIANTS`."""
    titles = ["", "variant", *(title for _, title in _COLUMNS)]
    lines = [" | ".join(titles), " | ".join(["---"] * len(titles))]
    group = ""
    for row in rows:
        cells = [_cell(name, row) for name, _ in _COLUMNS]
        lines.append(" | ".join([row["group"] * (row["group"] != group), row["name"], *cells]))
        group = row["group"]
    note = (
        f"{budget.first_steps} steps of AVC, then {budget.steps} of the row's own, of "
        f"{CONFIG.batch} crops on {budget.n_train} scenes, measured on "
        f"{budget.n_test} others ({budget.n_test * budget.probe.draws * 2} pairs for the "
        "accuracies). Chance: 50 %, 90°, 11 / 17 %, 17 %."
    )
    return "".join(f"| {line} |\n" for line in lines) + f"\n{note}\n"


def _cell(name: str, row: Mapping[str, Any]) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if name == "own accuracy":
        return f"{row['own']} {100 * value:.1f} ({100 * row['own chance']:.1f})"
    return f"{value:.0f}°" if name == "median error" else f"{100 * value:.1f}"
