"""AVC-Bin and AVSA-Bin: does the sound belong to the picture, and is the field turned right?

The paper's protocol: features of the frozen network, of which an MLP learns on one set of clips to
tell pairs that fit from pairs that do not, by accuracy on another. Half of the pairs fit. The sound
of the others is of another recording (AVC-Bin), or the field was rotated by a yaw drawn from all
angles (AVSA-Bin), among which one in ten is hard to call wrong (within 18 degrees). The logits of
several viewpoints are averaged.

Ours, beside it: the same with angles in equal shares from `LEAST_DEG` to 180 degrees, and accuracy
by angle; a network that is blind to half turns shows itself there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from model.errors import OptionError, UnusableContent
from model.networks.avsa import AvsaNetwork
from training.data.clips import Clip, ClipCrops

LEAST_DEG = 20.0
STRATA_DEG = ((20, 60), (60, 100), (100, 140), (140, 180))


@dataclass(frozen=True)
class Probe:
    """How the MLP learns; the defaults suit few clips.

    Attributes
    ----------
    draws : pairs taken of each recording, of either set, for each kind of pair.
    """

    draws: int = 2
    epochs: int = 40
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    hidden: int = 512
    seed: int = 0


# Adam falls by ten at epoch 8 of 10. AVC-Bin took a tenth of this rate, falling at 5 and 8.
PUBLISHED_PROBE = Probe(draws=8, epochs=10, learning_rate=1e-4)


@dataclass(frozen=True)
class Pairs:
    """Tokens of a set of clips; R rows in one order.

    Attributes
    ----------
    video : tokens that the head sees of the picture, [shape=(R, K, D)].
    audio : of the sound as it is.
    turned, stratified : rows of other draws whose field was rotated, as (video, audio).
    angles_deg : by how much the fields of `stratified` were rotated, 0 to 180, [shape=(R,)].
    recordings : [shape=(R,)].
    """

    video: Tensor
    audio: Tensor
    turned: tuple[Tensor, Tensor]
    stratified: tuple[Tensor, Tensor]
    angles_deg: Tensor
    recordings: Tensor

    def of_views(self, network: AvsaNetwork, count: int, *, translated: bool) -> Pairs:
        """The first viewpoints alone; the head sees translations in the place of the picture."""

        def seen(video: Tensor) -> Tensor:
            with torch.inference_mode():
                return network.to_audio(video[:, :count]) if translated else video[:, :count]

        turned, stratified = (
            (seen(video), audio[:, :count]) for video, audio in (self.turned, self.stratified)
        )
        return Pairs(
            seen(self.video), self.audio[:, :count], turned, stratified, self.angles_deg,
            self.recordings,
        )  # fmt: skip


@torch.inference_mode()
def encode_pairs(network: AvsaNetwork, items: ClipCrops, probe: Probe, *, epoch: int = 0) -> Pairs:
    """Encode draws of all clips: as they are, at any yaw, and at stratified ones.

    items : not rotated by themselves.
    """
    rng = np.random.default_rng([probe.seed, epoch, 7])
    count = probe.draws * len(items)
    anything = rng.uniform(-math.pi, math.pi, count)
    angles_deg = LEAST_DEG + (180 - LEAST_DEG) * (rng.permutation(count) + 0.5) / count
    signed = np.deg2rad(angles_deg) * rng.choice([-1, 1], count)
    kinds = [np.zeros(count), anything, signed]
    encoded, recordings = [], []
    for kind, rotations in enumerate(kinds):
        rows = []
        for row, rotation in enumerate(tqdm(rotations, desc="encoding", disable=None)):
            turn, index = divmod(row, len(items))
            number = epoch + kind * probe.draws + turn
            crops = items.of_epoch(number, index, rotation_rad=float(rotation))
            rows.append(_tokens(network, crops.pictures, crops.sounds))
            if kind == 0:
                recordings.append(int(crops.recordings))
        encoded.append((torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])))
    fitting, turned, stratified = encoded
    return Pairs(*fitting, turned, stratified, torch.tensor(angles_deg), torch.tensor(recordings))


def _tokens(network: AvsaNetwork, pictures: Tensor, sounds: Tensor) -> tuple[Tensor, Tensor]:
    device = next(network.parameters()).device
    video, audio = network(pictures[None].to(device), sounds[None].to(device))
    return video[0].float(), audio[0].float()


class Head(nn.Module):
    """The published classifier of pairs of tokens; its logits are averaged over viewpoints."""

    def __init__(self, width: int, hidden: int = 512) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, 2)
        )

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        """[shape=(B, K, D)] of each, to logits of fitting and not, [shape=(B, 2)]."""
        logits: Tensor = self.layers(torch.cat([video, audio], dim=-1))
        return logits.mean(1)


def avc_bin(train: Pairs, test: Pairs, probe: Probe) -> float:
    """Accuracy of telling one's own sound from that of other recordings."""
    parts = [(pairs.video, pairs.audio, *_foreign(pairs)) for pairs in (train, test)]
    head = _fit(*parts[0], probe)
    return float(_right(head, *parts[1]).mean())


def avsa_bin(train: Pairs, test: Pairs, probe: Probe) -> dict[str, float]:
    """Accuracies of telling the field as it is from a rotated one.

    `published`: all angles; `stratified`: those from `LEAST_DEG` on, in equal shares; and of the
    latter's rotated fields by angle, with the share of fitting ones that is told (`fitting`).
    """
    head = _fit(train.video, train.audio, *train.turned, probe)
    figures = {"published": float(_right(head, test.video, test.audio, *test.turned).mean())}
    head = _fit(train.video, train.audio, *train.stratified, probe)
    right = _right(head, test.video, test.audio, *test.stratified)
    figures["stratified"] = float(right.mean())
    fitting, rotated = right.chunk(2)
    figures["fitting"] = float(fitting.mean())
    for low, high in STRATA_DEG:
        inside = (test.angles_deg >= low) & (test.angles_deg < high)
        if inside.any():
            figures[f"{low} to {high} deg"] = float(rotated[inside.to(rotated.device)].mean())
    return figures


def check_foreign(clips: Sequence[Clip]) -> None:
    """Refuse, before any is encoded, clips of which none has the sound of another recording.

    Raises
    ------
    OptionError : all are of one recording.
    """
    recordings = {clip.recording for clip in clips}
    if len(recordings) < 2:
        raise OptionError(
            f"All clips ({len(clips)}) are of the recording {min(recordings)}: foreign sound is of "
            "another one, so each list has to name two."
        )


def _foreign(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Each picture with the sound of the row before it that is of another recording.

    Raises
    ------
    UnusableContent : there is only one, others of which were broken.
    """
    recordings = pairs.recordings
    begins = torch.nonzero(recordings != recordings.roll(1))[:, 0]  # of rows of one recording
    if not len(begins):
        raise UnusableContent(
            f"All clips that can be read are of one recording ({len(recordings)} draws): foreign "
            "sound is of another one."
        )
    own = begins[torch.searchsorted(begins, torch.arange(len(recordings)), right=True) - 1]
    return pairs.video, pairs.audio[((own - 1) % len(recordings)).to(pairs.audio.device)]


def _fit(
    video: Tensor, audio: Tensor, wrong_video: Tensor, wrong_audio: Tensor, probe: Probe
) -> Head:
    """A head that has learned to tell right pairs from wrong ones."""
    video, audio, labels = _labelled(video, audio, wrong_video, wrong_audio)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(probe.seed)
        head = Head(video.shape[-1], probe.hidden).to(video.device)
        optimizer = torch.optim.Adam(
            head.parameters(), lr=probe.learning_rate, weight_decay=probe.weight_decay
        )
        for epoch in range(probe.epochs):
            for group in optimizer.param_groups:
                group["lr"] = probe.learning_rate * (0.1 if epoch >= 0.8 * probe.epochs else 1.0)
            order = torch.randperm(len(labels)).to(video.device)
            for rows in torch.split(order, probe.batch):
                loss = functional.cross_entropy(head(video[rows], audio[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return head.eval()


def _right(
    head: Head, video: Tensor, audio: Tensor, wrong_video: Tensor, wrong_audio: Tensor
) -> Tensor:
    """Whether each pair is told rightly, the fitting ones first, [shape=(2 R,)]."""
    video, audio, labels = _labelled(video, audio, wrong_video, wrong_audio)
    with torch.inference_mode():
        right: Tensor = head(video, audio).argmax(-1) == labels
        return right.double().cpu()


def _labelled(
    video: Tensor, audio: Tensor, wrong_video: Tensor, wrong_audio: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    labels = torch.arange(2, device=video.device).repeat_interleave(len(video))
    both = torch.cat([video, wrong_video]), torch.cat([audio, wrong_audio])
    return both[0].clone(), both[1].clone(), labels


def bins(
    network: AvsaNetwork,
    train: ClipCrops,
    test: ClipCrops,
    *,
    probe: Probe,
    translated: Sequence[bool] = (False, True),
    views: Sequence[int] = (1, 4),
) -> dict[str, dict[str, float]]:
    """All figures by the head's view, such as `encoders, 4 viewpoints`."""
    network = network.eval().requires_grad_(False)
    sets = encode_pairs(network, train, probe), encode_pairs(network, test, probe, epoch=10_000)
    found = {}
    for through in translated:
        for count in views:
            ours = [pairs.of_views(network, count, translated=through) for pairs in sets]
            found[f"{'translated' if through else 'encoders'}, {count} viewpoints"] = {
                "AVC-Bin": avc_bin(ours[0], ours[1], probe),
                **{f"AVSA-Bin {name}": v for name, v in avsa_bin(ours[0], ours[1], probe).items()},
            }
    return found
