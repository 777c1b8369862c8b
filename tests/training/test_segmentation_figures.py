"""The segmentation probe without footage: its figures, its head, how it learns and is tested."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.networks.avsa import NARROW, AvsaNetwork
from model.viewpoints import Sound, SoundInput
from training.data.clips import Cropping
from training.data.segmentation import IGNORED
from training.evaluate import segmentation
from training.evaluate.pixel_scores import PixelScores
from training.evaluate.pyramid import PyramidHead
from training.evaluate.segmentation import (
    PRESETS,
    Features,
    Inputs,
    gains,
    pixel_loss,
)

NETWORK = replace(
    NARROW, widths=(8, 8, 16, 16), embedding=8, crop_px=32,
    sound=SoundInput(Sound.INTENSITY, n_bands=24),
)  # fmt: skip


def test_figures_equal_their_definitions() -> None:
    rng = np.random.default_rng(0)
    n, labels = 7, rng.integers(0, 5, (7, 9, 11))  # class 5 is never there, only said; 6 neither
    labels[rng.random(labels.shape) < 0.2] = IGNORED
    labels[3] = IGNORED  # a picture without any label
    said = np.where(rng.random(labels.shape) < 0.5, labels % n, rng.integers(0, 6, labels.shape))
    labels[:2] = np.where(labels[:2] == IGNORED, IGNORED, 0)  # pictures of fewer classes
    said[:2] %= 2
    scores = PixelScores(n, IGNORED)
    for part in (slice(0, 2), slice(2, 7)):
        scores.add(torch.from_numpy(said[part]), torch.from_numpy(labels[part]))

    right, counted, images, pairs = 0, 0, [], []
    areas = np.zeros((n, 2))
    for one, truth in zip(said, labels, strict=True):
        here = [(s, t) for s, t in zip(one.flat, truth.flat, strict=True) if t != IGNORED]
        if not here:
            continue
        hits = sum(s == t for s, t in here)
        right, counted = right + hits, counted + len(here)
        images.append(hits / len(here))
        for k in range(n):
            both = sum(s == t == k for s, t in here)
            either = sum(k in (s, t) for s, t in here)
            areas[k] += both, either
            if either:
                pairs.append(both / either)

    assert scores.pixel_accuracy == pytest.approx(right / counted)
    assert scores.image_accuracy == pytest.approx(np.mean(images))
    assert scores.image_iou == pytest.approx(np.mean(pairs))
    assert scores.mean_iou == pytest.approx(np.mean(areas[:6, 0] / areas[:6, 1]))
    of_class = [(said[labels == k] == k).mean() for k in range(5)]
    np.testing.assert_allclose(scores.class_accuracies[:5].numpy(), of_class)
    assert math.isnan(scores.class_accuracies[5])
    assert float(scores.class_ious[5]) == 0
    assert math.isnan(scores.class_ious[6])
    shares = [(labels == k).sum() / counted for k in range(5)]
    assert scores.commonest == pytest.approx(max(shares))


def test_gains_are_differences_of_what_both_have() -> None:
    more = {"pixel_accuracy": 0.5, "class_accuracy": {"sky": 0.9, "road": 0.3}}
    less = {"pixel_accuracy": 0.4, "class_accuracy": {"sky": 0.7, "sand": 0.1}}

    found = gains(more, less)

    assert found["pixel_accuracy"] == pytest.approx(0.1)
    assert found["class_accuracy"] == {"sky": pytest.approx(0.2)}


# --- the head and what it is given ---------------------------------------------------------------


def test_every_input_reaches_its_head() -> None:
    torch.manual_seed(0)
    head = PyramidHead([4, 6, 8, 8], [8, 4, 2, 1], 5, extra=3, width=8, branch_width=8)
    sizes = [14, 14, 7, 4]  # not all doubles of the next
    maps = [
        torch.rand(2, c, t, s, s, requires_grad=True)
        for c, t, s in zip([4, 6, 8, 8], [8, 4, 2, 1], sizes, strict=True)
    ]
    extra = torch.rand(2, 3, requires_grad=True)

    torch.autograd.backward(head(maps, extra, (28, 28)).square().sum())

    for given in (*maps, extra):
        assert given.grad is not None
        assert given.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_pixels_without_a_label_teach_nothing() -> None:
    logits = torch.randn(2, 32, 6, 6, requires_grad=True)
    labels = torch.randint(0, 32, (2, 6, 6))
    labels[0, :3] = IGNORED

    loss = pixel_loss(logits, labels)
    torch.autograd.backward(loss)

    kept = labels != IGNORED
    plain = functional.cross_entropy(logits.movedim(1, -1)[kept], labels[kept])
    torch.testing.assert_close(loss, plain)
    assert logits.grad is not None
    assert logits.grad[0, :, :3].abs().sum() == 0
    nothing = torch.full_like(labels, IGNORED)
    assert pixel_loss(logits, nothing).item() == 0
    nothing[1, 2, 3] = 7
    alone = functional.cross_entropy(logits[1, :, 2, 3], torch.tensor(7))
    torch.testing.assert_close(pixel_loss(logits, nothing), alone)


def test_the_head_is_a_pyramid_whose_levels_are_brought_to_the_finest() -> None:
    """Written out for three stages."""
    torch.manual_seed(0)
    head = PyramidHead([4, 6, 8], [2, 2, 1], 5, width=8, branch_width=8)
    sizes = [(12, 12), (6, 6), (3, 3)]
    maps = [
        torch.rand(2, c, t, *size)
        for c, t, size in zip([4, 6, 8], [2, 2, 1], sizes, strict=True)
    ]  # fmt: skip

    def up(level: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
        return functional.interpolate(level, size, mode=mode)

    fine, middle, coarse = (
        lateral(stage.mean(2)) for lateral, stage in zip(head.lateral, maps, strict=True)
    )
    middle = middle + up(coarse, sizes[1], "nearest")
    fine = fine + up(middle, sizes[0], "nearest")
    fine, middle, coarse = (
        smooth(level) for smooth, level in zip(head.smoothing, (fine, middle, coarse), strict=True)
    )
    branches: Any = head.branches
    (of_fine,), (of_middle,), (first, second) = (list(branch.steps) for branch in branches)
    total = of_fine(fine) + up(of_middle(middle), sizes[0])
    total = total + up(second(up(first(coarse), sizes[1])), sizes[0])

    torch.testing.assert_close(
        head(maps, None, (24, 24)), up(head.classifier(total), (24, 24)), atol=1e-5, rtol=1e-4
    )


def test_of_a_picture_that_stands_still_all_times_are_one() -> None:
    """As it begins: what it weighs times by is learned."""
    torch.manual_seed(0)
    widths = [4, 6, 8, 8]
    moving, still = (
        PyramidHead(widths, t, 5, width=8, branch_width=8) for t in ([8, 4, 2, 1], [1] * 4)
    )
    still.load_state_dict(
        {n: v for n, v in moving.state_dict().items() if not n.startswith("pooling")}, strict=False
    )
    maps = [torch.rand(2, c, 1, s, s) for c, s in zip(widths, [16, 8, 4, 2], strict=True)]
    filmed = [m.expand(-1, -1, t, -1, -1) for m, t in zip(maps, [8, 4, 2, 1], strict=True)]

    torch.testing.assert_close(moving(filmed, None, (32, 32)), still(maps, None, (32, 32)))


def test_heads_are_given_the_tokens_that_they_are_called_by() -> None:
    heard, of_sound, of_picture = tokens = torch.rand(3, 5, 4)

    given = {inputs: Features([], tokens).beside(inputs) for inputs in Inputs}

    assert given[Inputs.VIDEO] is None
    torch.testing.assert_close(given[Inputs.AUDIO], heard)
    torch.testing.assert_close(
        given[Inputs.CONTEXT], torch.cat([heard, of_sound, of_picture], dim=1)
    )


def test_heads_are_tested_on_crops_of_one_angle_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And learn from those of many, which are mirrored and coloured at random."""
    listed: list[Path] = []

    def read_list(path: Path) -> list[str]:
        listed.append(path)
        return []

    monkeypatch.setattr(segmentation, "read_list", read_list)
    monkeypatch.setattr(segmentation, "read_index", lambda *_: [])
    made: list[tuple[Cropping, int]] = []
    monkeypatch.setattr(
        segmentation, "LabelledCrops", lambda *a, **more: made.append((a[3], more["draws"]))
    )
    arguments = Namespace(root=Path("root"), train_list=None, test_list=Path("some.txt"), seed=0)

    for part in ("train", "test"):
        segmentation._crops(arguments, AvsaNetwork(NETWORK), PRESETS["published"], part)

    (train, n_train), (test, n_test) = made
    assert listed == [Path("root/train.txt"), Path("root/some.txt")]
    assert np.degrees(train.fields_of_view_rad) == pytest.approx((45, 90))
    assert np.degrees(test.fields_of_view_rad) == pytest.approx((76.3, 76.3))
    assert (train.augment, test.augment) == (True, False)
    assert (n_train, n_test) == (16, 15)
