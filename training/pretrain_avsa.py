"""Training of the AVSA network on clips, by any of its objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.checkpoint import load_avsa, save_avsa
from model.detections import Detection
from model.networks.avsa import NARROW, PUBLISHED, AvsaConfig, AvsaNetwork
from training import loop
from training.data.clips import Clip, ClipCrops, ClipMedia, Cropping, Crops, told_apart
from training.data.crop_batches import CropBatches, Stretch
from training.data.shards import Shard, ShardBatches, ShardMedia
from training.distributed import Ranks
from training.objectives.curriculum import steps_for, steps_of
from training.objectives.named import Task, phases
from training.objectives.pretext import Pretext
from training.objectives.samples import Objective

NAME = "avsa.safetensors"
_EXAMPLES = 32  # that the statistics of sound are taken from


@dataclass(frozen=True, kw_only=True)
class AvsaPretrainConfig(loop.Schedule):
    """A run, entirely; a batch is of crops, as many in every phase.

    Attributes
    ----------
    curriculum : whether a first phase of AVC comes before, as published.
    cropping : its viewpoints and moments are the objective's.
    draws : of each recording an epoch.
    trained_rate : learning rate of encoders that were trained before, in a phase before or another
        run, as a share of that of what begins afresh.
    validation_batches : of clips that are held out, each time.
    """

    network: AvsaConfig = NARROW
    task: Task = Task.AVSA
    curriculum: bool = True
    cropping: Cropping = field(default_factory=Cropping)
    draws: int = 1
    trained_rate: float = 1.0
    validation_batches: int = 4
    steps: int = 6000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5


def lasting(config: AvsaPretrainConfig, samples: int) -> AvsaPretrainConfig:
    """The same run, as long as takes so many samples in the steps of its phases."""
    of = phases(config.task, config.network, n_crops=config.batch, curriculum=config.curriculum)
    return replace(config, steps=steps_for(of, samples))


# Samples of a whole run, by presets that are as long whatever is learned: 100 epochs of 32 draws of
# 4506 recordings. With the curriculum, 64 372 steps of 112, then 257 486 of 28.
AVSA_SAMPLES = {"published": 100 * 32 * 4506}
AVSA_PRESETS = {
    "narrow": AvsaPretrainConfig(),
    "published": lasting(
        AvsaPretrainConfig(
            network=PUBLISHED, draws=32, batch=112, learning_rate=1e-4, warmup_steps=1,
            last_rate=1.0, clip_norm=float("inf"), workers=16, report_every=100,
            validate_every=5000, save_every=1000,
        ),
        AVSA_SAMPLES["published"],
    ),
}  # fmt: skip


class AvsaCourse(loop.Course):
    """Network and objective of the phase that a run is in."""

    def __init__(
        self, config: AvsaPretrainConfig, at: Ranks, held_out: CropBatches | None = None
    ) -> None:
        super().__init__(config, at)
        self.config, self._held_out = config, held_out
        self._phases = phases(
            config.task, config.network, n_crops=config.batch, curriculum=config.curriculum
        )
        steps = steps_of(self._phases, config.steps)
        self._starts = [0, *accumulate(steps)][:-1]
        self.network = self._network()
        self._enter(0)
        self.at_step(0)  # a run of few steps may have none for its first phase

    @property
    def precision(self) -> str:
        """f32 on a CPU: oneDNN's bf16 gradients of convolutions over two frames are not finite."""
        return "f32" if self.at.device.type == "cpu" else super().precision

    @property
    def objective(self) -> Objective:
        """What is learned now."""
        return self.pretext.objective

    def at_step(self, step: int) -> None:
        """Enter the phase of a step: encoders are kept, all else begins afresh."""
        while self._phase + 1 < len(self._starts) and step >= self._starts[self._phase + 1]:
            before = self.network
            self.network = self._network()
            self.network.take_encoders(before)
            self._enter(self._phase + 1)
        super().at_step(step)

    def _network(self) -> AvsaNetwork:
        return AvsaNetwork(self.config.network).to(self.at.device)

    def _enter(self, phase: int) -> None:
        self._phase, network = phase, self.network
        if self.at.world > 1 and self.at.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        if self.config.compile:
            network.video_encoder.compile()
            network.audio_encoder.compile()
        objective = self._phases[phase].objective().to(self.at.device)
        self.trained = self.pretext = Pretext(network, objective)
        self._wrapped = self.at.wrap(self.pretext, some_unused=True)
        encoders = [*network.video_encoder.parameters(), *network.audio_encoder.parameters()]
        held = {id(parameter) for parameter in encoders}
        fresh = [p for p in self.pretext.parameters() if id(p) not in held]
        self.optimizer = torch.optim.Adam(
            [
                {"params": encoders, "share": self.config.trained_rate if phase else 1.0},
                {"params": fresh, "share": 1.0},
            ],
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )

    def begin_with(self, network: AvsaNetwork) -> None:
        """Take over encoders that were trained before."""
        self.network.take_encoders(network)
        self.optimizer.param_groups[0]["share"] = self.config.trained_rate

    def rate(self) -> float:
        """Warmed up at the beginning of each phase."""
        return loop.learning_rate(self.config, self.step, begun=self._starts[self._phase])

    def modules(self) -> Mapping[str, nn.Module]:
        """See `loop.Course`."""
        return {"pretext": self.pretext}

    def loss(self, batch: Crops) -> tuple[Tensor, dict[str, Tensor]]:
        """See `loop.Course`."""
        loss, figures = self._wrapped(batch)
        return loss, {"loss": loss.detach(), **figures}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Means of what training logs, on clips that are held out; of every rank's own part."""
        if self._held_out is None or self._phase + 1 < len(self._starts):
            return {}
        sums: dict[str, float] = {}
        training = [module for module in self.pretext.modules() if module.training]
        self.pretext.eval()
        torch.manual_seed(self.config.seed)  # as every step, it draws what it always draws
        count = self.config.validation_batches
        for index in range(count):
            loss, figures = self.pretext(self._held_out[index].to(self.at.device))
            for name, value in {"loss": loss, **figures}.items():
                sums[name] = sums.get(name, 0.0) + float(value) / count
        for module in training:
            module.training = True
        return {f"held-out {name}": value for name, value in self.at.mean(sums).items()}


@dataclass(frozen=True)
class ClipData:
    """Clips to train on or to measure on.

    Attributes
    ----------
    detections : by clip, for `Guide.OBJECTS`. media : where clips are, if not in their files.
    """

    clips: Sequence[Clip]
    detections: Mapping[str, Sequence[Detection]] | None = None
    media: ClipMedia | None = None

    def batches(self, config: AvsaPretrainConfig, at: Ranks) -> CropBatches:
        """What every step of a run takes of them."""
        return CropBatches(self.stretches(config), seed=config.seed, rank=at.rank, world=at.world)

    def stretches(self, config: AvsaPretrainConfig) -> list[Stretch]:
        """Crops as each phase of a run takes them."""
        of = phases(config.task, config.network, n_crops=config.batch, curriculum=config.curriculum)
        stretches = []
        for number, (phase, steps) in enumerate(zip(of, steps_of(of, config.steps), strict=True)):
            cropping = replace(
                config.cropping, n_viewpoints=phase.n_viewpoints, n_moments=phase.n_moments,
                rotate=config.task.rotated and number == len(of) - 1,
            )  # fmt: skip
            items = ClipCrops(
                self.clips, config.network, cropping, seed=config.seed + number,
                draws=config.draws, detections=self.detections, media=self.media,
            )  # fmt: skip
            stretches.append(Stretch(steps, phase.n_samples, items))
        return stretches

    def examples(self, config: AvsaPretrainConfig) -> Tensor:
        """What is heard at a viewpoint, [shape=(N, C, T, F)], the same on all ranks."""
        items = ClipCrops(
            self.clips, config.network, replace(config.cropping, n_viewpoints=1, n_moments=1),
            seed=config.seed, draws=_EXAMPLES, detections=self.detections, media=self.media,
        )  # fmt: skip
        step = max(1, len(items) // _EXAMPLES)
        return torch.cat([items[index].sounds for index in range(0, step * _EXAMPLES, step)])


@dataclass(frozen=True)
class ShardData:
    """Clips in shards (`training.data.shards`) to train on."""

    shards: Sequence[Shard]
    detections: Mapping[str, Sequence[Detection]] | None = None
    media: ShardMedia = field(default_factory=ShardMedia)

    @property
    def clips(self) -> list[Clip]:
        """All of them."""
        return [clip for shard in self.shards for clip in shard.clips]

    def batches(self, config: AvsaPretrainConfig, at: Ranks) -> ShardBatches:
        """What every step of a run takes of them."""
        stretches = ClipData(self.clips, self.detections, self.media).stretches(config)
        return ShardBatches(
            self.shards, stretches, self.media, seed=config.seed, rank=at.rank, world=at.world,
            lanes=max(1, config.workers),
        )  # fmt: skip

    def examples(self, config: AvsaPretrainConfig) -> Tensor:
        """As those of `ClipData`, of the first steps that one rank alone would take."""
        alone = Ranks(0, 1, torch.device("cpu"))
        batches = self.batches(replace(config, workers=0), alone)
        sounds: list[Tensor] = []
        for step in range(len(batches)):
            sounds += batches[step].sounds[:, 0]
            if len(sounds) >= _EXAMPLES:
                break
        return torch.stack(sounds[:_EXAMPLES])


def train_avsa(
    config: AvsaPretrainConfig,
    clips: ClipData | ShardData,
    output: Path,
    at: Ranks,
    *,
    held_out: ClipData | None = None,
    start_from: Path | None = None,
) -> AvsaCourse:
    """Train to the end, or until told to stop; leaves a checkpoint and, at the end, the network.

    start_from : an AVSA network whose encoders the run begins with.
    """
    batches = clips.batches(config, at)
    course = AvsaCourse(config, at, _validation(config, held_out, at))
    course.conditions = {"clips": told_apart(clips.clips, clips.detections)}
    course.conditions |= loop.begun_with(start_from)
    if isinstance(clips, ShardData):
        # Each worker of each rank reads shards of its own, in sequence.
        course.conditions |= {"ranks": at.world, "workers": config.workers}
    checkpoint = output / "checkpoint.pt"
    if start_from is not None:
        course.begin_with(load_avsa(start_from))
    elif not checkpoint.exists():
        course.network.audio_standard.fit(clips.examples(config))
    loop.run(course, batches, output)
    if at.first and course.step == config.steps:
        save_avsa(output / NAME, course.network, _provenance(course, clips))
    return course


def _validation(
    config: AvsaPretrainConfig, held_out: ClipData | None, at: Ranks
) -> CropBatches | None:
    """Batches of the last phase, of other clips, not augmented."""
    if held_out is None:
        return None
    plain = replace(
        config, curriculum=False, steps=config.validation_batches,
        cropping=replace(config.cropping, augment=False),
    )  # fmt: skip
    return held_out.batches(plain, at)


def _provenance(course: AvsaCourse, clips: ClipData | ShardData) -> dict[str, Any]:
    return {
        "command": "python -m training.pretrain",
        "settings": asdict(course.config) | {"precision": course.precision},
        "translated": course.config.task.translated,
        "steps": course.step,
        "clips": len(clips.clips),
        "recordings": len({clip.recording for clip in clips.clips}),
    }
