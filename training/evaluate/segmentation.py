"""Semantic segmentation of YT-360's crops from what an AVSA network has learned, left as it is.

A feature pyramid's head learns the classes of pixels from the frozen video encoder: alone, with
what is heard at the crop, and with what the translators make of all viewpoints of the moment
besides. The three heads see the same crops in the same order, so that their gains compare.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from model.errors import UnusableContent
from model.networks.avsa import AvsaNetwork
from model.output import check_output
from training.data.clips import Cropping
from training.data.labelled_crops import Labelled, LabelledCrops
from training.data.segmentation import CLASSES, IGNORED
from training.data.yt360 import INDEX, build_index, read_index, read_list, skipped
from training.evaluate.network_options import add_network_options, network_of, preset_overrides
from training.evaluate.pixel_scores import PixelScores
from training.evaluate.pyramid import PyramidHead
from training.figures import write_report


class Inputs(StrEnum):
    """What a head is given; each has all that the ones before it have."""

    VIDEO = "video"
    AUDIO = "video + audio"
    CONTEXT = "video + audio + context"

    @property
    def n_tokens(self) -> int:
        """Tokens beside the feature maps: of the sound, and both translators' predictions."""
        return {"video": 0, "video + audio": 1}.get(self.value, 3)


@dataclass(frozen=True)
class SegmentationConfig:
    """How heads learn and are tested.

    Attributes
    ----------
    epochs, draws : of each epoch, so many items of each recording; `test_draws` are tested.
    batch : items, each of `viewpoints` crops.
    learning_rate, milestones, weight_decay : Adam's, the rate a tenth from each epoch named.
    width, branch_width : of the head.
    fields_of_view_deg, test_field_of_view_deg : of the crops, full angles.
    frame_height : at which pictures are decoded.
    """

    epochs: int = 10
    draws: int = 16
    test_draws: int = 15
    batch: int = 20
    viewpoints: int = 4
    learning_rate: float = 1e-4
    milestones: tuple[int, ...] = (5, 8)
    weight_decay: float = 5e-4
    width: int = 256
    branch_width: int = 128
    fields_of_view_deg: tuple[float, float] = (45.0, 90.0)
    test_field_of_view_deg: float = 76.3  # the true angle of what the released code calls 90
    frame_height: int = 320
    workers: int = 4


PRESETS = {
    "published": SegmentationConfig(),
    "tiny": SegmentationConfig(
        epochs=4, draws=8, test_draws=4, batch=4, learning_rate=2e-3, milestones=(3,), width=32,
        branch_width=32, frame_height=160, workers=0,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Features:
    """What a frozen network says of N crops.

    Attributes
    ----------
    maps : of the video encoder's stages, the finest first, [shape=(N, C, T, H, W)] each.
    tokens : of the sound, predicted of the sound, predicted of the picture, [shape=(3, N, D)].
    """

    maps: list[Tensor]
    tokens: Tensor

    def beside(self, inputs: Inputs) -> Tensor | None:
        """What stands beside the last stage, [shape=(N, tokens D)]."""
        if not inputs.n_tokens:
            return None
        return self.tokens[: inputs.n_tokens].transpose(0, 1).flatten(1)


@torch.no_grad()
def frozen_features(network: AvsaNetwork, pictures: Tensor, sounds: Tensor) -> Features:
    """Features of crops [shape=(B, K, ...)], N = B K; the network is used as it would be in use."""
    network.eval()
    _, *maps = network.video_encoder.trace(network.video_standard(pictures.flatten(0, 1)))
    video = maps[-1].amax(dim=(2, 3, 4)).view(*pictures.shape[:2], -1)
    audio = network.encode_audio(sounds)
    tokens = torch.stack([audio, network.to_audio(video), network.to_video(audio)])
    return Features(maps, tokens.flatten(1, 2))


class Probe(nn.Module):
    """A head for each input, over one network that none of them changes."""

    def __init__(self, network: AvsaNetwork, config: SegmentationConfig) -> None:
        super().__init__()
        self._network = [network]  # in a list: no part of what learns and is put into training mode
        self.heads = nn.ModuleDict(
            {inputs.name: _head(network, config, inputs) for inputs in Inputs}
        )

    def forward(self, crops: Labelled) -> dict[Inputs, Tensor]:
        """Logits of all heads, [shape=(B K, classes, H, W)]."""
        features = frozen_features(self._network[0], crops.pictures, crops.sounds)
        size = (crops.labels.shape[-2], crops.labels.shape[-1])
        return {
            inputs: self.heads[inputs.name](features.maps, features.beside(inputs), size)
            for inputs in Inputs
        }


def _head(network: AvsaNetwork, config: SegmentationConfig, inputs: Inputs) -> PyramidHead:
    widths, n_frames = network.config.widths, network.config.n_frames
    return PyramidHead(
        widths,
        [math.ceil(n_frames / 2**stage) for stage in range(len(widths))],
        len(CLASSES),
        extra=inputs.n_tokens * widths[-1],
        width=config.width,
        branch_width=config.branch_width,
    )


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled pixels; 0 where there are none."""
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


def learn(
    probe: Probe, crops: LabelledCrops, config: SegmentationConfig, *, seed: int, device: str
) -> dict[Inputs, list[float]]:
    """Train all heads, each by its own loss; the mean loss of each epoch."""
    optimizer = torch.optim.Adam(
        probe.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, config.milestones, 0.1)
    loader = DataLoader(
        crops, config.batch, shuffle=True, generator=torch.Generator().manual_seed(seed),
        num_workers=config.workers, collate_fn=Labelled.stack,
        drop_last=len(crops) >= config.batch, persistent_workers=config.workers > 0,
    )  # fmt: skip
    probe.train()
    by_epoch: dict[Inputs, list[float]] = {inputs: [] for inputs in Inputs}
    for epoch in tqdm(range(config.epochs), unit="epoch", disable=None):
        crops.set_epoch(epoch)
        totals = dict.fromkeys(Inputs, 0.0)
        for batch in loader:
            here = batch.to(device)
            losses = {
                inputs: pixel_loss(logits, here.labels.flatten(0, 1))
                for inputs, logits in probe(here).items()
            }
            optimizer.zero_grad(set_to_none=True)
            # Heads share no parameter, so each gets the gradient of its own loss.
            torch.autograd.backward(list(losses.values()))
            optimizer.step()
            for inputs, loss in losses.items():
                totals[inputs] += float(loss.detach()) / len(loader)
        schedule.step()
        for inputs, total in totals.items():
            by_epoch[inputs].append(total)
    return by_epoch


@torch.no_grad()
def score(probe: Probe, batches: Iterable[Labelled], device: str) -> dict[Inputs, PixelScores]:
    """Test all heads.

    Raises
    ------
    UnusableContent : no pixel has a label.
    """
    probe.eval()
    scores = {inputs: PixelScores(len(CLASSES), IGNORED) for inputs in Inputs}
    for batch in batches:
        here = batch.to(device)
        for inputs, logits in probe(here).items():
            scores[inputs].add(logits.argmax(1), here.labels.flatten(0, 1))
    if not scores[Inputs.VIDEO].confusion.any():
        raise UnusableContent("No pixel of the test crops has a label: see its class maps.")
    return scores


_TOTALS = ("pixel_accuracy", "image_accuracy", "image_iou", "mean_iou")


def figures(scores: PixelScores) -> dict[str, Any]:
    """What a report says of a head; classes that were not there are left out."""

    def by_class(values: Tensor) -> dict[str, float]:
        named = zip(CLASSES, values.tolist(), strict=True)
        return {name: value for name, value in named if not math.isnan(value)}

    return {
        **{name: getattr(scores, name) for name in _TOTALS},
        "class_accuracy": by_class(scores.class_accuracies),
        "class_iou": by_class(scores.class_ious),
    }


def gains(more: dict[str, Any], less: dict[str, Any]) -> dict[str, Any]:
    """How much better one head is than another, in all figures that both have."""
    return {
        name: gains(more[name], less[name]) if isinstance(more[name], dict) else
        more[name] - less[name]
        for name in more.keys() & less.keys()
    }  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Index the data where that was not done, train and test the heads, print and keep figures."""
    config = replace(PRESETS[arguments.preset], **preset_overrides(arguments))
    root, device = arguments.root, arguments.device
    if arguments.report is not None:
        check_output(arguments.report, [])
    network = network_of(arguments)
    if not (root / INDEX).exists():
        build_index(root, workers=max(1, config.workers))
    train, test = (_crops(arguments, network, config, part) for part in ("train", "test"))
    torch.manual_seed(arguments.seed)
    probe = Probe(network, config).to(device)
    losses = learn(probe, train, config, seed=arguments.seed, device=device)
    loader = DataLoader(test, config.batch, num_workers=config.workers, collate_fn=Labelled.stack)
    scores = score(probe, tqdm(loader, unit="batch", disable=None), device)
    found = {inputs: figures(scores[inputs]) for inputs in Inputs}
    for inputs in Inputs:
        print(f"{inputs}: " + ", ".join(f"{name} {found[inputs][name]:.2%}" for name in _TOTALS))
    print(f"always the commonest class: pixel_accuracy {scores[Inputs.VIDEO].commonest:.2%}")
    report = {
        "evaluation": "segmentation",
        "checkpoint": None if arguments.checkpoint is None else arguments.checkpoint.name,
        "preset": arguments.preset,
        "settings": asdict(config),
        "data": {name: _counts(part) for name, part in (("train", train), ("test", test))}
        | {"left_out_by_the_index": skipped(root)},
        "figures": {i: found[i] | {"loss_by_epoch": losses[i]} for i in Inputs},
        "gains": {
            f"{more} over {less}": gains(found[more], found[less])
            for more, less in zip(list(Inputs)[1:], Inputs, strict=False)
        },
        "commonest_class": scores[Inputs.VIDEO].commonest,
    }
    if arguments.report is not None:
        write_report(arguments.report, report)


def _crops(
    arguments: argparse.Namespace, network: AvsaNetwork, config: SegmentationConfig, part: str
) -> LabelledCrops:
    """What to learn from (`train`) or, without augmentation, what to test on (`test`)."""
    train = part == "train"
    listed = (arguments.train_list if train else arguments.test_list) or f"{part}.txt"
    angles = config.fields_of_view_deg if train else (config.test_field_of_view_deg,) * 2
    return LabelledCrops(
        arguments.root,
        read_index(arguments.root, read_list(arguments.root / listed)),
        network.config,
        Cropping(
            n_viewpoints=config.viewpoints,
            fields_of_view_rad=(math.radians(angles[0]), math.radians(angles[1])),
            frame_height=config.frame_height,
            augment=train,
        ),
        draws=config.draws if train else config.test_draws,
        seed=arguments.seed,
    )


def _counts(crops: LabelledCrops) -> dict[str, int]:
    return {
        "clips": crops.n_clips,
        "clips_without_maps": crops.n_without_maps,
        "broken_draws": crops.n_broken,
    }


def add_command(commands: Any) -> Any:
    """The command line of this evaluation."""
    command = commands.add_parser("segmentation", help="classes of pixels by the frozen network")
    command.add_argument("--root", type=Path, required=True, help="YT-360 with class maps")
    command.add_argument("--train-list", type=Path, help="IDs to learn from (ROOT/train.txt)")
    command.add_argument("--test-list", type=Path, help="IDs to test on (ROOT/test.txt)")
    command.add_argument("--preset", choices=sorted(PRESETS), default="published")
    add_network_options(command)
    command.set_defaults(run=run)
    return command
