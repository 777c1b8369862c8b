"""Action recognition from real files: layouts, clips, figures, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from model.checkpoint import save_avsa
from model.errors import MediaError, UnusableContent
from model.media import VideoReader
from model.media.encode import write_avi
from model.networks.avsa import NARROW, AvsaNetwork
from tests.training.steps import rates_of_steps
from training.data import action_clips, actions_synthetic
from training.data.action_clips import DrawnClips, WholeVideo, WholeVideos, clip_frames, draw_region
from training.data.actions import ActionVideo, read_hmdb51, read_ucf101
from training.evaluate.__main__ import main
from training.evaluate.action import (
    PRESETS,
    ActionClassifier,
    ActionConfig,
    evaluate_split,
    score_videos,
    tune,
)

NETWORK = replace(NARROW, widths=(8, 8, 16, 16), embedding=8, crop_px=32)
SIZE = (60, 80)


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ucf101")
    actions_synthetic.write_ucf101(root, videos=6, size=SIZE)
    return root


@pytest.fixture(scope="module")
def hmdb51(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hmdb51")
    actions_synthetic.write_hmdb51(root, videos=6, size=SIZE)
    return root


# --- layouts --------------------------------------------------------------------------------------


def test_the_lists_of_ucf101(ucf101: Path) -> None:
    splits = [read_ucf101(ucf101, number) for number in (1, 2, 3)]

    for split in splits:
        assert split.classes == ("Across", "Blink", "Grow", "UpAndDown")
        assert (len(split.train), len(split.test)) == (16, 8)
        for video in (*split.train, *split.test):
            assert video.path.exists()
            assert video.path.parent.name == split.classes[video.label]
    tested = [video.path for split in splits for video in split.test]
    assert len(set(tested)) == len(tested) == 24  # each video tests one split
    with VideoReader(tested[0], flat=True) as reader:
        assert (reader.info.codec, reader.info.width, reader.info.height) == ("mpeg4", 80, 60)


def test_the_lists_of_hmdb51(hmdb51: Path) -> None:
    split = read_hmdb51(hmdb51, 2)

    assert split.classes == ("across", "blink", "grow", "upanddown")
    assert (len(split.train), len(split.test)) == (16, 8)
    listed = {video.path for video in (*split.train, *split.test)}
    assert all(path.exists() and "_(up)_" in path.name for path in listed)
    there = set((hmdb51 / "hmdb51_org").rglob("*.avi"))
    assert len(there - listed) == 4  # those flagged 0


def test_videos_lie_flat_or_by_class(ucf101: Path, tmp_path: Path) -> None:
    (tmp_path / "ucfTrainTestlist").symlink_to(ucf101 / "ucfTrainTestlist")
    (tmp_path / "videos").mkdir()
    for path in (ucf101 / "UCF-101").rglob("*.avi"):
        (tmp_path / "videos" / path.name).symlink_to(path)

    split = read_ucf101(tmp_path, 1)

    assert all(video.path.parent == tmp_path / "videos" for video in split.train)
    assert all(video.path.exists() for video in split.train)


def test_lists_that_are_not_as_published_are_refused(ucf101: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"classInd\.txt cannot be read"):
        read_ucf101(tmp_path, 1)
    with pytest.raises(MediaError, match=r"has no CLASS_test_split1\.txt files"):
        read_hmdb51(tmp_path, 1)
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (tmp_path / "UCF-101").symlink_to(ucf101 / "UCF-101")
    for path in (ucf101 / "ucfTrainTestlist").iterdir():
        (lists / path.name).write_text(path.read_text())
    (lists / "trainlist01.txt").write_text("Blink/v_Blink_g01_c01.avi 1\n")
    with pytest.raises(MediaError, match=r"'Blink/v_Blink_g01_c01\.avi 1', which is not"):
        read_ucf101(tmp_path, 1)
    (lists / "trainlist02.txt").write_text("Blink/gone.avi 2\n")
    with pytest.raises(MediaError, match=r"None of the 1 listed videos \(Blink/gone\.avi\)"):
        read_ucf101(tmp_path, 2)


# --- clips ----------------------------------------------------------------------------------------


def test_clips_of_short_videos_begin_again() -> None:
    times_s = np.arange(5) / 25  # 0.2 s

    chosen = clip_frames(times_s, 0.0, NETWORK)

    slow = [min(range(5), key=lambda frame: abs(times_s[frame] - (n / 16) % 0.2)) for n in range(8)]
    assert chosen.tolist() == slow
    assert clip_frames(np.arange(100) / 16, 2.0, NETWORK).tolist() == list(range(32, 40))
    assert clip_frames(np.array([0.04]), 0.0, NETWORK).tolist() == [0] * 8


def test_regions_lie_within_the_picture() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_region(rng, 60, 80, 0.08) for _ in range(300)]

    for top, left, height, width in drawn:
        assert 0 <= top <= top + height <= 60
        assert 0 <= left <= left + width <= 80
        assert 0.7 < width / height < 1.43
    areas = np.array([height * width / 4800 for _, _, height, width in drawn])
    assert areas.min() < 0.15
    assert areas.max() > 0.8


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> ActionVideo:
    """A video of 3 s whose brightness tells the time: 4 levels a frame."""
    path = tmp_path_factory.mktemp("counting") / "counting.avi"
    levels = np.arange(60) * 4
    frames = np.broadcast_to(levels[:, None, None, None], (60, 60, 80, 1)).astype(np.uint8)
    write_avi(path, frames, rate_hz=20)
    return ActionVideo(path, 3)


def test_whole_videos_are_tested_at_drawn_and_at_even_moments(counting: ActionVideo) -> None:
    video = WholeVideos([counting], NETWORK, n_clips=5, seed=0)[0]

    assert video is not None
    assert video.label == 3
    assert video.frames.shape == (60, 3, 32, 32)
    even = video.clips(video.uniform)
    assert even.shape == (5, 3, 8, 32, 32)
    frame = even.mean(dim=(1, 3, 4)) * 255 / 4  # which is shown, by its brightness
    starts = np.linspace(0, 3.0 - 0.5, 5)
    wanted = (starts[:, None] + np.arange(8) / 16) * 20
    np.testing.assert_allclose(frame.numpy(), wanted, atol=1.3)
    random = video.clips(video.random).mean(dim=(1, 3, 4)) * 255 / 4 / 20
    assert 0 <= random.min() < random.max() <= 3.0
    lengths = (random[:, -1] - random[:, 0]).numpy()
    np.testing.assert_allclose(lengths, 7 / 16, atol=0.09)


def test_drawn_clips_are_functions_of_seed_epoch_and_index(ucf101: Path) -> None:
    split = read_ucf101(ucf101, 1)
    clips = DrawnClips(split.train, NETWORK, draws=2, seed=0)
    assert len(clips) == 32
    first, label = clips[5]

    assert label == split.train[2].label
    assert first.shape == (3, 8, 32, 32)
    assert 0 <= first.min() < first.max() <= 1
    assert first.equal(DrawnClips(split.train, NETWORK, draws=2, seed=0)[5][0])
    assert not first.equal(clips[4][0])
    clips.set_epoch(1)
    assert not first.equal(clips[5][0])


def test_what_takes_a_broken_videos_place_is_the_same_whoever_finds_it(
    ucf101: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several workers one may have found it broken before: some of it was drawn, or nothing."""
    split = read_ucf101(ucf101, 1)
    read = action_clips._read

    def reading(reader: VideoReader, *place: Any) -> Any:
        if reader.info.path == split.train[2].path:
            raise MediaError("It breaks off.")
        return read(reader, *place)

    monkeypatch.setattr(action_clips, "_read", reading)
    finding, knowing = (DrawnClips(split.train, NETWORK, draws=2, seed=0) for _ in range(2))
    assert knowing[4][0].isfinite().all()
    assert [path.name for path in knowing.broken] == [split.train[2].path.name]

    for one, other in zip(finding[5], knowing[5], strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_broken_videos_are_left_out_and_counted_once(ucf101: Path, tmp_path: Path) -> None:
    split = read_ucf101(ucf101, 1)
    bad = tmp_path / "bad.avi"
    bad.write_bytes(b"no video")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(split.train[0].path.read_bytes()[:3000])
    listed = [*split.train[:3], *(ActionVideo(p, 0) for p in (bad, cut, tmp_path / "gone.avi"))]
    drawn = DrawnClips(listed, NETWORK, draws=2, seed=0)
    whole = WholeVideos(listed, NETWORK, n_clips=2, seed=0)

    labels = [drawn[index][1] for index in range(len(drawn))]
    tested = [whole[index] for index in range(len(whole))]

    assert len(labels) == 12
    assert {path.name for path in drawn.broken} == {"bad.avi", "cut.avi", "gone.avi"}
    assert [video is None for video in tested] == [False] * 3 + [True] * 3
    assert whole.broken == drawn.broken
    with pytest.raises(MediaError, match="10 videos one after the other cannot be read"):
        DrawnClips(listed[3:], NETWORK, draws=1, seed=0)[0]
    classifier = ActionClassifier(AvsaNetwork(NETWORK), 4)
    with pytest.raises(UnusableContent, match="No video of the test list can be read"):
        score_videos(classifier, tested[3:], split.classes, batch=4, device="cpu")


# --- figures --------------------------------------------------------------------------------------


def test_clips_of_a_video_are_scored_in_any_parts(counting: ActionVideo) -> None:
    torch.manual_seed(0)
    classifier = ActionClassifier(AvsaNetwork(NETWORK), 4)
    video = WholeVideos([counting], NETWORK, n_clips=5, seed=0)[0]
    assert isinstance(video, WholeVideo)
    classifier.eval()
    with torch.no_grad():
        at_once = classifier(video.clips(video.random))
    right = float((at_once.argmax(1) == 3).double().mean())

    figures = score_videos(classifier, [None, video], list("abcd"), batch=2, device="cpu")

    assert figures.clip_at_1 == pytest.approx(right)
    assert list(figures.by_class) == ["d"]


# --- tuning ---------------------------------------------------------------------------------------


def test_all_of_the_encoder_is_tuned_and_the_network_is_left_alone(ucf101: Path) -> None:
    torch.manual_seed(0)
    network = AvsaNetwork(NETWORK).requires_grad_(False)  # as a checkpoint is read
    before = {name: value.clone() for name, value in network.state_dict().items()}
    classifier = ActionClassifier(network, 4, dropout=0.5)
    split = read_ucf101(ucf101, 1)
    clips = DrawnClips(split.train, NETWORK, draws=1, seed=0)

    tune(classifier, clips, replace(PRESETS["tiny"], epochs=1), "cpu")

    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    moved = {
        name: not value.equal(network.video_encoder.state_dict()[name])
        for name, value in classifier.encoder.state_dict().items()
    }
    assert all(moved.values()), [name for name, has in moved.items() if not has]


def test_rates_fall_at_milestones_and_losses_are_means_of_an_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No step is taken, and nothing dropped, so that all epochs' losses are alike."""
    rates = rates_of_steps(monkeypatch)

    class Noise(list[tuple[torch.Tensor, int]]):
        def set_epoch(self, epoch: int) -> None: ...

    clips: Any = Noise((torch.rand(3, 4, 16, 16), label) for label in (0, 1, 2, 3))
    config = replace(PRESETS["tiny"], epochs=3, batch=2, milestones=(1, 2), decay=0.3)
    classifier = ActionClassifier(AvsaNetwork(NETWORK), 4, dropout=0.0)
    given: list[float] = []
    forward = functional.cross_entropy

    def noted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = forward(logits, labels)
        given.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(functional, "cross_entropy", noted)

    losses = tune(classifier, clips, config, "cpu")

    rate = config.learning_rate
    assert rates == pytest.approx([rate] * 2 + [0.3 * rate] * 2 + [0.09 * rate] * 2)
    assert losses == pytest.approx([np.mean(given[2 * n : 2 * n + 2]) for n in range(3)])


def test_the_published_settings() -> None:
    config = ActionConfig()

    assert (config.epochs, config.batch, config.learning_rate) == (20, 28, 1e-4)
    assert (config.milestones, config.decay, config.dropout) == ((8, 12, 16), 0.3, 0.5)
    assert (config.least_area, config.n_clips) == (0.08, 25)
    assert PRESETS["published"] == config
    classifier = ActionClassifier(AvsaNetwork(), 101)
    assert sum(p.numel() for p in classifier.parameters()) == 15_379_136 + 512 * 101 + 101


def test_a_step_of_the_published_network() -> None:
    torch.manual_seed(0)
    classifier = ActionClassifier(AvsaNetwork(), 101)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-4)
    clips, labels = torch.rand(2, 3, 8, 112, 112), torch.tensor([3, 100])
    classifier.eval()  # of two clips, batch statistics and dropout are a lottery

    losses = []
    for _ in range(2):
        loss = functional.cross_entropy(classifier(clips), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())

    assert losses[1] < losses[0]
    assert all(parameter.grad is not None for parameter in classifier.parameters())


def test_the_command_from_files_to_figures(hmdb51: Path, tmp_path: Path) -> None:
    """All three splits of a tiny HMDB51 by an untrained checkpoint's encoder."""
    torch.manual_seed(0)
    save_avsa(tmp_path / "avsa.safetensors", AvsaNetwork(NETWORK), {})
    report = tmp_path / "report.json"

    code = main(
        ["action", "--data-set", "hmdb51", "--root", str(hmdb51), "--preset", "tiny",
         "--checkpoint", str(tmp_path / "avsa.safetensors"), "--epochs", "1", "--draws", "2",
         "--report", str(report)]
    )  # fmt: skip

    assert code == 0
    found = json.loads(report.read_text())
    assert sorted(found["splits"]) == ["1", "2", "3"]
    for split in found["splits"].values():
        assert (split["train_videos"], split["test_videos"], split["broken"]) == (16, 8, [])
        assert set(split["by_class"]) == {"across", "blink", "grow", "upanddown"}
    mean = np.mean([split["video_at_1"] for split in found["splits"].values()])
    assert found["mean"]["video_at_1"] == pytest.approx(mean)


def test_actions_are_learned(tmp_path: Path) -> None:
    """Two classes that only movement tells apart, from files; chance is a half."""
    actions_synthetic.write_ucf101(tmp_path, videos=12, actions=["Across", "Blink"], size=SIZE)
    torch.manual_seed(0)
    network = AvsaNetwork(replace(NETWORK, widths=(8, 16, 24, 32)))
    config = replace(PRESETS["tiny"], epochs=6, milestones=(5,), dropout=0.1)

    found = evaluate_split(network, read_ucf101(tmp_path, 1), config, draws=8, seed=0, device="cpu")

    assert found["loss_by_epoch"][-1] < 0.8 * found["loss_by_epoch"][0]
    assert found["clip_at_1"] > 0.65


def test_what_cannot_be_read_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--root", str(tmp_path), "--untrained", "narrow"]

    assert main(["action", "--data-set", "ucf101", *arguments]) == 2

    assert "classInd.txt cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "least"), [("--batch", 1), ("--epochs", 1), ("--workers", 0)])
def test_numbers_that_make_no_sense_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, least: int
) -> None:
    arguments = ["--data-set", "ucf101", "--root", str(tmp_path), "--untrained", "narrow"]

    with pytest.raises(SystemExit) as stopped:
        main(["action", *arguments, option, "-1"])

    assert stopped.value.code == 2
    assert f"-1 is not a whole number from {least} up" in capsys.readouterr().err
