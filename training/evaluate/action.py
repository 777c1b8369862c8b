"""Action recognition: the video encoder learns UCF101 or HMDB51, all of it.

Max-pooled features, dropout 0.5, one linear layer. clip@1 scores clips drawn at random one by one;
video@1 averages the softmax over clips spread evenly over each video. 25 of either, as published.
A video that cannot be read is left out, and told.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from model.errors import UnusableContent
from model.networks.avsa import AvsaNetwork
from model.output import check_output
from training.data.action_clips import DrawnClips, WholeVideo, WholeVideos
from training.data.actions import READERS, SPLITS, ActionSplit
from training.evaluate.network_options import add_network_options, network_of, preset_overrides
from training.figures import write_report

_PUBLISHED_DRAWS = {"ucf101": 5, "hmdb51": 10}


@dataclass(frozen=True)
class ActionConfig:
    """How an encoder is tuned and tested.

    Attributes
    ----------
    epochs, draws : of each epoch, so many clips of each video; None: the data set's published one.
    learning_rate, milestones, decay : Adam's rate, times `decay` at the end of each of the epochs.
    least_area : of a picture that a clip to learn from is cut from, a share.
    n_clips : tested of each video, of either kind.
    """

    epochs: int = 20
    draws: int | None = None
    batch: int = 28
    learning_rate: float = 1e-4
    milestones: tuple[int, ...] = (8, 12, 16)
    decay: float = 0.3
    dropout: float = 0.5
    least_area: float = 0.08
    n_clips: int = 25
    workers: int = 4


# The released code's; the supplement says the same number of draws as 100 epochs of one.
PRESETS = {
    "published": ActionConfig(),
    "tiny": ActionConfig(
        epochs=8, draws=8, batch=8, learning_rate=3e-3, milestones=(5, 7), dropout=0.2,
        least_area=0.5, n_clips=5, workers=0,
    ),
}  # fmt: skip


class ActionClassifier(nn.Module):
    """A video encoder of its own, begun as a network's is, with a linear layer behind it."""

    def __init__(self, network: AvsaNetwork, n_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.standard = copy.deepcopy(network.video_standard)
        self.encoder = copy.deepcopy(network.video_encoder).requires_grad_(True)
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(network.config.widths[-1], n_classes)
        )

    def forward(self, clips: Tensor) -> Tensor:
        """Clips, RGB from 0 to 1 [shape=(B, 3, T, H, W)], to logits [shape=(B, classes)]."""
        logits: Tensor = self.head(self.encoder(self.standard(clips)))
        return logits


def tune(
    classifier: ActionClassifier, clips: DrawnClips, config: ActionConfig, device: str
) -> list[float]:
    """Learn from clips; the mean loss of each epoch."""
    optimizer = torch.optim.Adam(classifier.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, config.milestones, config.decay)
    order = torch.Generator().manual_seed(torch.initial_seed() % 2**31)
    loader = DataLoader(
        clips, config.batch, shuffle=True, generator=order, num_workers=config.workers,
        drop_last=len(clips) >= config.batch, persistent_workers=config.workers > 0,
    )  # fmt: skip
    classifier.train()
    losses = []
    for epoch in tqdm(range(config.epochs), unit="epoch", disable=None):
        clips.set_epoch(epoch)
        total = 0.0
        for pictures, labels in loader:
            loss = functional.cross_entropy(classifier(pictures.to(device)), labels.to(device))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            total += float(loss.detach())
        schedule.step()
        losses.append(total / len(loader))
    return losses


@dataclass(frozen=True)
class ActionFigures:
    """Shares of right answers, 0 to 1.

    Attributes
    ----------
    clip_at_1, video_at_1 : see the module.
    by_class : video@1 of each class that was tested.
    """

    clip_at_1: float
    video_at_1: float
    by_class: dict[str, float]


@torch.no_grad()
def score_videos(
    classifier: ActionClassifier,
    videos: Iterable[WholeVideo | None],
    classes: Sequence[str],
    *,
    batch: int,
    device: str,
) -> ActionFigures:
    """Score all videos that could be read.

    Raises
    ------
    UnusableContent : there are none.
    """
    classifier.eval()
    single, whole, labels = [], [], []
    for video in videos:
        if video is None:
            continue
        random, uniform = (
            torch.cat(
                [
                    classifier(video.clips(part).to(device)).cpu()
                    for part in torch.split(which, batch)
                ]
            )
            for which in (video.random, video.uniform)
        )
        single.append(random)
        whole.append(uniform)
        labels.append(video.label)
    if not labels:
        raise UnusableContent("No video of the test list can be read: see what is named above.")
    right = video_right(torch.stack(whole), torch.tensor(labels))
    return ActionFigures(
        clip_at_1=float(clip_right(torch.stack(single), torch.tensor(labels)).double().mean()),
        video_at_1=float(right.double().mean()),
        by_class={
            classes[label]: float(right[torch.tensor(labels) == label].double().mean())
            for label in sorted(set(labels))
        },
    )


def clip_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each clip alone is recognised: logits [shape=(N, clips, classes)], (N, clips)."""
    return logits.argmax(-1) == labels[:, None]


def video_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each video is, by the mean of its clips' softmax: [shape=(N,)]."""
    return logits.softmax(-1).mean(1).argmax(-1) == labels


def evaluate_split(
    network: AvsaNetwork, split: ActionSplit, config: ActionConfig, *, draws: int, seed: int,
    device: str,
) -> dict[str, Any]:  # fmt: skip
    """Tune on a split and test on it: figures, losses, and what was left out."""
    torch.manual_seed(seed)
    classifier = ActionClassifier(network, len(split.classes), config.dropout).to(device)
    drawn = DrawnClips(
        split.train, network.config, draws=draws, least_area=config.least_area, seed=seed
    )
    losses = tune(classifier, drawn, config, device)
    whole = WholeVideos(split.test, network.config, n_clips=config.n_clips, seed=seed)
    # Videos arrive as they are, without a batch: each has its own length.
    loader = DataLoader(whole, batch_size=None, num_workers=config.workers)
    figures = score_videos(
        classifier, tqdm(loader, unit="video", disable=None), split.classes,
        batch=config.batch, device=device,
    )  # fmt: skip
    return {
        **asdict(figures),
        "loss_by_epoch": losses,
        "train_videos": len(split.train) - len(drawn.broken),
        "test_videos": len(split.test) - len(whole.broken),
        "broken": sorted(path.name for path in drawn.broken + whole.broken),
    }


def run(arguments: argparse.Namespace) -> None:
    """Tune and test on each split that is asked for, print the figures, and keep them."""
    config = replace(PRESETS[arguments.preset], **preset_overrides(arguments))
    if arguments.report is not None:
        check_output(arguments.report, [])
    network = network_of(arguments)
    report: dict[str, Any] = {
        "evaluation": "action",
        "data_set": arguments.data_set,
        "checkpoint": None if arguments.checkpoint is None else arguments.checkpoint.name,
        "preset": arguments.preset,
        "settings": asdict(config),
        "splits": {},
    }
    draws = config.draws or _PUBLISHED_DRAWS[arguments.data_set]
    for number in SPLITS if arguments.split == "all" else (int(arguments.split),):
        split = READERS[arguments.data_set](arguments.root, number)
        found = evaluate_split(
            network, split, config, draws=draws, seed=arguments.seed, device=arguments.device
        )
        report["splits"][str(number)] = found
        report["mean"] = _mean(report["splits"].values())
        print(_line(f"split {number}", found) + f", {len(found['broken'])} files broken")
        if arguments.report is not None:  # after each split: the next takes hours
            write_report(arguments.report, report)
    print(_line(f"mean of {len(report['splits'])}", report["mean"]))


def _mean(splits: Iterable[dict[str, Any]]) -> dict[str, float]:
    return {
        name: float(np.mean([found[name] for found in splits]))
        for name in ("clip_at_1", "video_at_1")
    }


def _line(name: str, found: dict[str, Any]) -> str:
    return f"{name}: clip@1 {found['clip_at_1']:.2%}, video@1 {found['video_at_1']:.2%}"


def add_command(commands: Any) -> Any:
    """The command line of this evaluation."""
    command = commands.add_parser("action", help="UCF101 or HMDB51 by the tuned video encoder")
    command.add_argument("--data-set", choices=sorted(READERS), required=True)
    command.add_argument("--root", type=Path, required=True, help="folder of videos and lists")
    command.add_argument(
        "--split", choices=[*map(str, SPLITS), "all"], default="all", help="which (all three)"
    )
    command.add_argument("--preset", choices=sorted(PRESETS), default="published")
    add_network_options(command)
    command.set_defaults(run=run)
    return command
