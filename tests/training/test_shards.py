"""Shards of clips: each once, as in the folder, resumed, damaged, and over two nodes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import webdataset

from model.errors import MediaError, OptionError
from model.networks.avsa import AvsaConfig
from model.viewpoints import Sound, SoundInput
from tests.service.ports import free_port
from tests.training.ranks import on_two_nodes
from training import pretrain
from training.data import shards, yt360_synthetic
from training.data.clips import Clip, ClipCrops, Cropping, Crops
from training.data.crop_batches import Stretch
from training.data.scenes import Conditions
from training.data.shards import ShardBatches, ShardMedia, read_shards, write_shards
from training.data.yt360 import build_index, read_index

NETWORK = AvsaConfig(
    widths=(4, 4, 8, 8), embedding=6, crop_px=16, n_frames=4, frame_rate_hz=8.0, depth=1,
    sound=SoundInput(Sound.INTENSITY, n_bands=8), sound_s=0.5,
)  # fmt: skip
CROPPING = Cropping(frame_height=48, n_viewpoints=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of YT-360, indexed."""
    folder = tmp_path_factory.mktemp("yt360")
    easy = Conditions(duration_s=2.5, n_sources=1, n_distractors=0, snr_db=25.0)
    yt360_synthetic.write_layout(folder, recordings=6, clips=2, conditions=easy, height=48)
    build_index(folder)
    return folder


@pytest.fixture(scope="module")
def written(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(read_index(root), folder, clips_per_shard=2)
    return folder


class Noting:
    """Takes clips, and says which in the place of crops."""

    def __init__(self, media: ShardMedia) -> None:
        self.taken: list[tuple[str, Sequence[int]]] = []
        self._media = media

    def of_clip(self, clip: Clip, key: Sequence[int]) -> Crops:
        self.taken.append((clip.name, key))
        return Crops(*(torch.tensor(0) for _ in fields(Crops)))


def test_every_clip_is_taken_once_in_a_pass(root: Path, written: Path) -> None:
    """Over two ranks of two lanes each."""
    found, all_shards = Counter[str](), read_shards(written)
    for rank in range(2):
        media = ShardMedia()
        noting: Any = Noting(media)
        batches = ShardBatches(
            all_shards, [Stretch(16, 2, noting)], media, rank=rank, world=2, lanes=2
        )
        for step in range(16):
            batches[step]
        found.update(name for name, key in noting.taken if key[0] == 0)
        assert len(noting.taken) == 16

    assert found == Counter(clip.name for clip in read_index(root))


def drawn(batches: ShardBatches, steps: Sequence[int]) -> list[Crops]:
    return [batches[step] for step in steps]


def assert_equal(one: Crops, other: Crops) -> None:
    for field in fields(Crops):
        torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name))


def made(written: Path, seed: int = 0, lanes: int = 1) -> ShardBatches:
    media, all_shards = ShardMedia(), read_shards(written)
    clips = [clip for shard in all_shards for clip in shard.clips]
    items = ClipCrops(clips, NETWORK, CROPPING, seed=seed, media=media)
    return ShardBatches(all_shards, [Stretch(8, 3, items)], media, seed=seed, lanes=lanes)


def test_crops_are_those_of_the_folder(root: Path, written: Path) -> None:
    clips = {clip.name: clip for clip in read_index(root)}
    from_folder = ClipCrops(list(clips.values()), NETWORK, CROPPING)
    media, all_shards = ShardMedia(), read_shards(written)
    from_shards = ClipCrops(
        [clip for shard in all_shards for clip in shard.clips], NETWORK, CROPPING, media=media
    )
    for sample, clip in shards._read(all_shards[0]):
        media.lay_out(sample, clip)
        for key in ([0, 1], [3, 2]):
            one = from_shards.of_clip(clip, key)
            other = from_folder.of_clip(clips[clip.name], key)
            assert one is not None
            assert other is not None
            assert_equal(one, other)


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_resumed_run_takes_what_it_would_have_taken(written: Path, lanes: int) -> None:
    whole = drawn(made(written, lanes=lanes), range(8))
    resumed = drawn(made(written, lanes=lanes), range(3, 8))
    for one, other in zip(whole[3:], resumed, strict=True):
        assert_equal(one, other)
    again = drawn(made(written, seed=1, lanes=lanes), range(1))[0]
    assert not torch.equal(again.pictures, whole[0].pictures)


@pytest.mark.parametrize("lanes", [1, 2])
def test_passes_before_are_not_read_again(
    written: Path, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve clips in six shards, three a step: a pass takes four steps, or a lane's two."""
    media, all_shards = ShardMedia(), read_shards(written)
    noting: Any = Noting(media)
    read: list[Path] = []
    reading = shards._read

    def noted(shard: shards.Shard) -> Any:
        read.append(shard.path)
        return reading(shard)

    def taken(steps: Sequence[int]) -> list[tuple[str, Sequence[int]]]:
        noting.taken.clear()
        drawn(ShardBatches(all_shards, [Stretch(40, 3, noting)], media, lanes=lanes), steps)
        return list(noting.taken)

    whole = taken(range(20))
    monkeypatch.setattr(shards, "_read", noted)

    for step in (10, 16):  # within the third or fourth pass, and where one begins
        read.clear()
        resumed = taken(range(step, step + 2))

        assert resumed == whole[3 * step : 3 * step + 6]
        assert len(read) <= 2 * len(all_shards)  # of this pass and, at most, the next


@pytest.mark.parametrize("broken", [{0}, {3, 4}, {8}])
def test_a_clip_that_cannot_be_decoded_shifts_nothing(
    written: Path, broken: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its place in the first pass."""
    decode = ClipCrops.of_clip
    order: list[str] = []

    def noting(self: ClipCrops, clip: Clip, key: Sequence[int]) -> Crops | None:
        if key[0] == 0 and clip.name not in order:
            order.append(clip.name)
        return decode(self, clip, key)

    monkeypatch.setattr(ClipCrops, "of_clip", noting)
    before = drawn(made(written), range(4))
    bad = {order[place] for place in broken}

    def failing(self: ClipCrops, clip: Clip, key: Sequence[int]) -> Crops | None:
        return None if clip.name in bad else decode(self, clip, key)

    monkeypatch.setattr(ClipCrops, "of_clip", failing)
    whole, resumed = drawn(made(written), range(4)), drawn(made(written), range(2, 4))
    for one, other in zip(whole[2:], resumed, strict=True):
        assert_equal(one, other)
    for step, (one, other) in enumerate(zip(before, whole, strict=True)):
        same = [torch.equal(a, b) for a, b in zip(one.pictures, other.pictures, strict=True)]
        expected = [
            order[place] not in bad if (place := 3 * step + i) < len(order) else None
            for i in range(3)
        ]
        assert all(e is None or s is e for s, e in zip(same, expected, strict=True))


def test_a_stopped_writer_goes_on_and_leaves_no_part(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, count = read_index(root), 0
    write = webdataset.TarWriter.write

    def stopped(self: Any, sample: Any) -> Any:
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return write(self, sample)

    monkeypatch.setattr(webdataset.TarWriter, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_shards(clips, tmp_path, clips_per_shard=2)
    first = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(first) == 2
    assert all(path.suffix == ".tar" for path in first)
    with pytest.raises(MediaError, match=r"shards\.json"):
        read_shards(tmp_path)

    monkeypatch.undo()
    write_shards(clips, tmp_path, clips_per_shard=2)
    assert all(path.stat().st_mtime_ns == then for path, then in first.items())
    assert sum(len(shard.clips) for shard in read_shards(tmp_path)) == len(clips)


@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_a_damaged_shard_is_named(written: Path, tmp_path: Path, keep: float) -> None:
    whole = read_shards(written)[0]
    broken = tmp_path / whole.path.name
    data = whole.path.read_bytes()
    last = data.rstrip(b"\0")  # a tar ends in zeros
    broken.write_bytes(data[: int(len(last) * keep)])
    with pytest.raises(MediaError, match=broken.name):
        list(shards._read(shards.Shard(broken, whole.clips)))


def test_what_cannot_be_read_is_said(written: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="too few"):
        made(written, lanes=100)
    (tmp_path / "shards.json").write_text((written / "shards.json").read_text())
    with pytest.raises(MediaError, match="missing"):
        read_shards(tmp_path)


def two_steps(folder: str) -> list[str]:
    """Arguments of a training on the shards of a folder."""
    return [
        "--shards", f"{folder}/shards", "--objective", "avsa", "--no-curriculum",
        "--viewpoints", "2", "--steps", "2", "--batch", "8", "--workers", "1",
        "--output", f"{folder}/run",
    ]  # fmt: skip


def trained(folder: str) -> None:
    assert pretrain.main(two_steps(folder)) == 0


def test_two_nodes_train_on_shards(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What torchrun tells them is told here; test_pretrain has torchrun itself."""
    run = tmp_path / "run"
    assert shards.main([str(root), str(tmp_path / "shards"), "--clips-per-shard", "3"]) == 0
    on_two_nodes(trained, tmp_path, free_port())

    assert (run / "avsa.safetensors").exists()
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all(line["step"] <= 2 for line in logged)
    # Gone on with by one rank it would take other clips than it would have taken.
    assert pretrain.main(two_steps(str(tmp_path))) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "other settings" in line]
    assert "other settings (ranks 2, not 1)" in line


def test_a_damaged_shard_ends_a_training_with_one_sentence(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards(read_index(root), tmp_path, clips_per_shard=4)
    for path in tmp_path.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:2000])
    arguments = ["--shards", str(tmp_path), "--steps", "2", "--batch", "8", "--workers", "1"]

    assert pretrain.main([*arguments, "--output", str(tmp_path / "run")]) == 2

    told = capsys.readouterr().err.splitlines()
    (line,) = [line for line in told if line.startswith("training.pretrain")]
    assert "is damaged: write it again." in line
