"""Shares of recognised clips and videos, by their definitions, and of how many draws they are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from training.data.action_clips import WholeVideo
from training.data.actions import READERS
from training.evaluate import action
from training.evaluate.__main__ import main
from training.evaluate.action import clip_right, score_videos, video_right


def test_figures_equal_their_definitions() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (30, 25, 5))
    labels = rng.integers(0, 5, 30)
    clips, videos = [], []
    for video, label in zip(logits, labels, strict=True):
        mean = [0.0] * 5
        for clip in video:
            powers = [math.exp(value) for value in clip]
            clips.append(list(clip).index(max(clip)) == label)
            mean = [m + power / sum(powers) / 25 for m, power in zip(mean, powers, strict=True)]
        videos.append(mean.index(max(mean)) == label)

    given = torch.from_numpy(logits), torch.from_numpy(labels)

    assert clip_right(*given).flatten().tolist() == clips
    assert video_right(*given).tolist() == videos
    # Not the same as the mean of the logits: one sure clip outweighs several unsure ones there.
    sure = torch.tensor([[[30.0, 0.0], [0.0, 2.0], [0.0, 2.0], [0.0, 2.0]]])
    assert video_right(sure, torch.tensor([1])).tolist() == [True]
    assert clip_right(sure, torch.tensor([1])).tolist() == [[False, True, True, True]]


def test_shares_by_class_are_of_its_videos() -> None:
    """Of a classifier that says what the first pixel says, of drawn and of even clips apart."""

    class Said(torch.nn.Module):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return functional.one_hot((255 * clips[:, 0, 0, 0, 0]).round().long(), 4).float()

    def video(label: int, drawn: list[int], even: list[int]) -> WholeVideo:
        frames = torch.tensor([*drawn, *even], dtype=torch.uint8)[:, None, None, None]
        which = torch.arange(4)[:, None]
        return WholeVideo(frames.expand(-1, 3, 2, 2), which[:2], which[2:], label)

    videos = [video(0, [0, 1], [0, 0]), video(0, [2, 2], [2, 2]), video(2, [2, 1], [2, 2]), None,
              video(3, [0, 3], [1, 1])]  # fmt: skip
    classifier: Any = Said()

    figures = score_videos(classifier, videos, list("abcd"), batch=1, device="cpu")

    assert figures.clip_at_1 == 3 / 8
    assert figures.video_at_1 == 0.5
    assert figures.by_class == {"a": 0.5, "c": 1.0, "d": 0.0}


@pytest.mark.parametrize(("data_set", "draws"), [("ucf101", 5), ("hmdb51", 10)])
def test_as_many_clips_are_drawn_as_were_published(
    data_set: str, draws: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def evaluated(*_: Any, draws: int, **__: Any) -> dict[str, Any]:
        asked.append(draws)
        return {"clip_at_1": 0.1 * len(asked), "video_at_1": 0.2 * len(asked), "broken": []}

    monkeypatch.setattr(action, "evaluate_split", evaluated)
    monkeypatch.setitem(READERS, data_set, lambda *_: None)
    command = ["action", "--data-set", data_set, "--root", str(tmp_path), "--untrained", "narrow"]

    assert main([*command, "--report", str(tmp_path / "r.json")]) == 0

    assert asked == [draws] * 3
    mean = json.loads((tmp_path / "r.json").read_text())["mean"]
    assert mean == pytest.approx({"clip_at_1": 0.2, "video_at_1": 0.4})
