"""The segmentation probe from real files: class maps, crops, the head, figures, and the command."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from torch.nn import functional

from model.checkpoint import save_avsa
from model.errors import MediaError, UnusableContent
from model.media import VideoReader
from model.networks.avsa import NARROW, AvsaNetwork
from model.viewpoints import Sound, SoundInput
from tests.training.steps import rates_of_steps
from training.data import yt360_synthetic
from training.data.clips import Cropping
from training.data.crops import Views, cut_crops, draw_views
from training.data.labelled_crops import Labelled, LabelledCrops, cut_labels
from training.data.scene_labels import UNSURE, class_of, render_classes
from training.data.scenes import Conditions, draw_scene, render_picture
from training.data.segmentation import CLASSES, IGNORED, map_paths, read_labels, write_maps
from training.data.yt360 import build_index, read_index
from training.evaluate.__main__ import main
from training.evaluate.pyramid import PyramidHead
from training.evaluate.segmentation import (
    PRESETS,
    Inputs,
    Probe,
    frozen_features,
    learn,
    pixel_loss,
)

CONDITIONS = Conditions(
    duration_s=2.5, n_sources=1, n_distractors=2, snr_db=25.0, offscreen=False, shaken=False
)
NETWORK = replace(
    NARROW, widths=(8, 8, 16, 16), embedding=8, crop_px=32,
    sound=SoundInput(Sound.INTENSITY, n_bands=24),
)  # fmt: skip
TINY = replace(
    PRESETS["tiny"], epochs=1, draws=2, test_draws=2, batch=2, viewpoints=2, frame_height=96,
    width=16, branch_width=16,
)  # fmt: skip
CROPPING = Cropping(n_viewpoints=2, frame_height=96, augment=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five recordings of a clip, with class maps."""
    root = tmp_path_factory.mktemp("yt360")
    yt360_synthetic.write_layout(
        root, recordings=5, clips=1, conditions=CONDITIONS, height=90, maps=True
    )
    build_index(root)
    return root


# --- class maps -----------------------------------------------------------------------------------


def test_the_published_classes() -> None:
    assert len(CLASSES) == 32
    assert list(CLASSES)[:2] + list(CLASSES)[-2:] == ["person", "car", "sand", "window"]
    # COCO's places: 80 things, then stuff that begins with "things" and ends with "rug".
    assert (CLASSES["person"], CLASSES["keyboard"], CLASSES["road"]) == (0, 66, 80 + 21)
    assert (CLASSES["window"], CLASSES["wall"]) == (80 + 36, 80 + 52)


def test_things_hide_stuff_and_what_is_not_kept_is_ignored(tmp_path: Path) -> None:
    things = np.array([[0, 66, 79], [80, 80, 80]], np.uint8)  # 79, a toothbrush, is not kept
    stuff = np.array([[0, 21, 0], [40, 54, 1]], np.uint8)  # 40 sky, 54 unsure, 1 banner
    things_path, stuff_path = map_paths(tmp_path, 3)
    coloured = np.stack([things, things * 0 + 7, things * 0 + 9], axis=-1)
    Image.fromarray(coloured).save(things_path)  # in the first channel of several
    Image.fromarray(stuff).save(stuff_path)

    labels = read_labels(tmp_path, 0.9)

    names = list(CLASSES)
    assert labels.tolist() == [
        [names.index("person"), names.index("keyboard"), IGNORED],
        [names.index("sky"), IGNORED, IGNORED],
    ]


def test_the_last_map_before_the_end_is_taken(tmp_path: Path) -> None:
    for number, name in ((0, "sky"), (2, "road"), (3, "car")):
        write_maps(tmp_path, number, np.full((2, 4), CLASSES[name], np.uint8))
    map_paths(tmp_path, 5)[0].write_bytes(b"without its stuff, it is none")

    taken = [list(CLASSES)[read_labels(tmp_path, end_s)[0, 0]] for end_s in (0.2, 0.7, 0.75, 9.0)]

    assert taken == ["sky", "road", "car", "car"]


def test_maps_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableContent, match=r"has no class maps up to 1\.00 s"):
        read_labels(tmp_path, 1.0)
    things, stuff = map_paths(tmp_path, 0)
    Image.fromarray(np.full((2, 4), 80, np.uint8)).save(things)
    stuff.write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"stuff-0000\.png cannot be read as a PNG"):
        read_labels(tmp_path, 1.0)
    Image.fromarray(np.full((2, 4), 55, np.uint8)).save(stuff)
    with pytest.raises(MediaError, match="no map of classes 0 to 54: it has 55"):
        read_labels(tmp_path, 1.0)
    Image.fromarray(np.full((4, 4), 3, np.uint8)).save(stuff)
    with pytest.raises(MediaError, match="of another size"):
        read_labels(tmp_path, 1.0)


@pytest.mark.parametrize("seed", [1, 4, 7])
def test_synthetic_maps_lie_where_things_are_drawn(seed: int) -> None:
    """Repainting every body changes the picture where the maps say, and nowhere else."""
    conditions = replace(CONDITIONS, duration_s=1.0, n_distractors=4, shaken=seed == 4)
    scene = draw_scene(seed, conditions)
    classes = render_classes(scene, height=90, rate_hz=24.0, every=6)
    before = render_picture(scene, height=90, rate_hz=24.0, colour=True).numpy()[::6].astype(int)
    for body in scene.bodies:
        body.colour = np.where(body.colour > 0.5, 0.0, 1.0)
    after = render_picture(scene, height=90, rate_hz=24.0, colour=True).numpy()[::6].astype(int)
    change = np.abs(after - before).max(-1)
    named = {class_of(body) for body in scene.bodies} - {UNSURE}

    drawn = np.isin(classes, list(named))

    assert classes.shape == (4, 90, 180)
    assert drawn.any()
    assert (change[drawn] > 25).mean() > 0.95  # what is dark in either colour changes by little
    rims = np.stack([binary_dilation(frame, iterations=2) for frame in drawn])
    assert (change[~rims] > 80).sum() < 0.01 * drawn.sum()
    above, below = classes[:, :40], classes[:, 50:]
    assert set(np.unique(above[~drawn[:, :40]])) - {UNSURE} == {CLASSES["sky"]}
    assert set(np.unique(below[~drawn[:, 50:]])) - {UNSURE} == {CLASSES["grass"]}


# --- crops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirror", [False, True])
def test_labels_are_cut_as_the_picture_is(mirror: bool) -> None:
    """Labels that are painted on the picture come back at the same pixels."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 32, (12, 24)).astype(np.uint8)
    classes = coarse.repeat(32, axis=0).repeat(32, axis=1)  # as large as the picture
    painted = torch.from_numpy(classes)[None, None].expand(1, 3, -1, -1) / 31.0
    views = replace(draw_views(rng, 4, mirror=False), mirrored=mirror)

    labels = cut_labels(classes, views, 64, (384, 768))
    pictures = cut_crops(painted, views, 64)[:, 0, 0]

    exact = (pictures * 31 - labels).abs() < 0.02
    assert len(set(labels.flatten().tolist())) > 8
    assert exact.float().mean() > 0.7  # elsewhere the picture blends two labels
    # Within a label's inside there is no blend, so all of it must agree.
    inside = functional.max_pool2d(labels.float()[:, None], 5, 1, 2) == -functional.max_pool2d(
        -labels.float()[:, None], 5, 1, 2
    )
    assert inside.float().mean() > 0.3
    assert exact[inside[:, 0]].all()


def test_labels_of_another_size_lie_at_the_same_place() -> None:
    classes = np.full((90, 160), 20, np.uint8)  # 16:9, as published
    azimuth, elevation = math.radians(70), math.radians(25)
    row, column = round((0.5 - elevation / math.pi) * 90), round((0.5 - azimuth / math.tau) * 160)
    classes[row - 3 : row + 3, column - 3 : column + 3] = 5
    views = Views(np.array([[azimuth, elevation]]), np.array([math.radians(60)]))

    found = (cut_labels(classes, views, 64, (160, 320))[0] == 5).nonzero().double().mean(0)

    np.testing.assert_allclose(found.numpy(), [31.5, 31.5], atol=2)


def test_items_are_functions_of_seed_epoch_and_index(root: Path) -> None:
    clips = read_index(root)
    items = LabelledCrops(
        root, clips, NETWORK, replace(CROPPING, augment=True), draws=8, seed=0
    )  # fmt: skip
    drawn = [items[index] for index in range(8)]
    for item in drawn:
        assert item.pictures.shape == (2, 3, 8, 32, 32)
        assert item.sounds.shape == (2, 4, 100, 24)
        assert item.labels.shape == (2, 32, 32)
        assert item.labels.dtype == torch.int64
        assert set(item.labels.flatten().tolist()) <= {*range(32), IGNORED}

    assert len(items) == 40
    assert items.n_broken == 0
    again = LabelledCrops(root, clips, NETWORK, replace(CROPPING, augment=True), draws=8, seed=0)
    assert again[3].labels.equal(drawn[3].labels)
    again.set_epoch(1)
    assert not again[3].pictures.equal(drawn[3].pictures)


def test_what_is_seen_and_labelled_is_heard_there(tmp_path: Path) -> None:
    """A figure that sounds: where its label lies in a crop, and where the intensity points.

    Over many crops, mirrored as often as not, left and right of the two have the same sign.
    """
    conditions = replace(
        CONDITIONS,
        n_distractors=0,
        snr_db=40.0,
        body="speaker",
        flawless=True,
        envelope="sustained",
    )
    yt360_synthetic.write_layout(
        tmp_path, recordings=3, clips=2, conditions=conditions, height=120, maps=True
    )
    build_index(tmp_path)
    cropping = Cropping(
        n_viewpoints=3, frame_height=128, fields_of_view_rad=(math.radians(89), math.radians(90))
    )
    items = LabelledCrops(
        tmp_path, read_index(tmp_path), NETWORK, cropping, draws=20, seed=0
    )  # fmt: skip
    grid = torch.linspace(-1, 1, 32)
    sides = []
    for index in range(len(items)):
        item = items[index]
        for labels, sound in zip(item.labels, item.sounds, strict=True):
            figure = (labels == 0).float()
            left = -float((figure.sum(0) * grid).sum() / figure.sum().clamp(min=1))
            level = 10 ** (sound[0] / 10)
            heard = float((sound[2] * level).sum() / level.sum())  # y of the intensity
            if figure.sum() > 8 and abs(left) > 0.25:
                sides.append(left * heard > 0)

    assert len(sides) >= 8  # mirrored as often as not
    assert np.mean(sides) > 0.9


def test_broken_maps_are_replaced_and_counted(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    clips = read_index(copy)
    shutil.rmtree(copy / "segmentation" / clips[0].name)
    for path in (copy / "segmentation" / clips[1].name).glob("stuff-*.png"):
        path.write_bytes(b"broken")

    items = LabelledCrops(copy, clips, NETWORK, CROPPING, draws=1)

    assert (items.n_clips, items.n_without_maps) == (4, 1)
    assert items.n_broken == 0
    items[0]
    assert items.n_broken >= 1
    with pytest.raises(UnusableContent, match="None of the 1 clips has class maps"):
        LabelledCrops(copy, clips[:1], NETWORK, CROPPING)


# --- the head and the probe -----------------------------------------------------------------------


def test_the_published_head_on_the_published_network() -> None:
    network = AvsaNetwork()
    pictures, sounds = torch.rand(1, 2, 3, 8, 112, 112), torch.rand(1, 2, 4, 100, 128)

    features = frozen_features(network, pictures, sounds)

    assert not features.tokens.requires_grad
    assert [tuple(stage.shape[1:]) for stage in features.maps] == [
        (64, 8, 56, 56), (128, 4, 28, 28), (256, 2, 14, 14), (512, 1, 7, 7),
    ]  # fmt: skip
    probe = Probe(network, PRESETS["published"])
    for inputs, tokens in ((Inputs.VIDEO, 0), (Inputs.AUDIO, 1), (Inputs.CONTEXT, 3)):
        head = probe.heads[inputs.name]
        assert isinstance(head, PyramidHead)
        lateral = head.lateral[-1]
        assert isinstance(lateral, torch.nn.Conv2d)
        assert lateral.weight.shape == (256, 512 * (1 + tokens), 1, 1)
        extra = features.beside(inputs)
        logits = head(features.maps, extra, (112, 112))
        assert logits.shape == (2, 32, 112, 112)
        torch.autograd.backward(pixel_loss(logits, torch.zeros(2, 112, 112, dtype=torch.int64)))
        assert all(parameter.grad is not None for parameter in head.parameters())
    torch.testing.assert_close(features.tokens[0], network.encode_audio(sounds)[0])
    video = network.encode_video(pictures)
    torch.testing.assert_close(features.tokens[1], network.to_audio(video)[0])
    torch.testing.assert_close(
        features.tokens[2], network.to_video(network.encode_audio(sounds))[0]
    )


def test_frozen_is_frozen(root: Path) -> None:
    """Weights and running statistics of the network are the same to the bit; heads have learned."""
    torch.manual_seed(0)
    network = AvsaNetwork(NETWORK).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    probe = Probe(network, TINY)
    heads = {name: value.clone() for name, value in probe.state_dict().items()}
    items = LabelledCrops(root, read_index(root), NETWORK, CROPPING, draws=1)

    losses = learn(probe, items, TINY, seed=0, device="cpu")

    assert set(losses) == set(Inputs)
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(name.startswith("_network") for name in heads)
    unmoved = [name for name, value in probe.state_dict().items() if value.equal(heads[name])]
    assert unmoved == []


class Noise:
    """Items of noise in the place of crops."""

    def __init__(self, count: int) -> None:
        self.epochs: list[int] = []
        generator = torch.Generator().manual_seed(0)
        self.items = [
            Labelled(
                torch.rand(1, 3, 8, 32, 32, generator=generator),
                torch.rand(1, 4, 100, 24, generator=generator),
                torch.randint(0, 32, (1, 4, 4), generator=generator),
            )
            for _ in range(count)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Labelled:
        return self.items[index]

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def test_rates_fall_at_milestones_and_losses_are_means_of_an_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No step is taken, so that every epoch's loss is that of heads as they were."""
    rates = rates_of_steps(monkeypatch)
    config = replace(
        PRESETS["tiny"], epochs=3, batch=1, milestones=(1, 2), width=8, branch_width=8
    )  # fmt: skip
    probe, crops = Probe(AvsaNetwork(NETWORK), config), Noise(2)
    given: Any = crops

    losses = learn(probe, given, config, seed=0, device="cpu")

    rate = config.learning_rate
    assert rates == pytest.approx([rate] * 2 + [rate / 10] * 2 + [rate / 100] * 2)
    assert crops.epochs == [0, 1, 2]
    with torch.no_grad():
        told = [(probe(Labelled.stack([item])), item.labels) for item in crops.items]
        for inputs in Inputs:
            expected = np.mean([float(pixel_loss(said[inputs], labels)) for said, labels in told])
            assert losses[inputs] == pytest.approx([expected] * 3, rel=1e-4)


def test_heads_learn_apart(root: Path) -> None:
    """A head's gradient is that of its own loss, as if it were alone."""
    torch.manual_seed(0)
    probe = Probe(AvsaNetwork(NETWORK), TINY)
    items = LabelledCrops(root, read_index(root), NETWORK, CROPPING)
    batch = Labelled.stack([items[0], items[1]])
    together = {i: pixel_loss(z, batch.labels.flatten(0, 1)) for i, z in probe(batch).items()}
    torch.autograd.backward(list(together.values()))
    got = {n: p.grad.clone() for n, p in probe.named_parameters() if p.grad is not None}
    probe.zero_grad()

    torch.autograd.backward(pixel_loss(probe(batch)[Inputs.AUDIO], batch.labels.flatten(0, 1)))

    for name, parameter in probe.named_parameters():
        if name.startswith("heads.AUDIO."):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, got[name])
        else:
            assert parameter.grad is None


def test_the_command_from_files_to_figures(tmp_path: Path) -> None:
    """Indexes, learns sky from grass, and says what sound and context add."""
    folder = tmp_path / "yt360"
    arguments = ["--recordings", "5", "--clips", "1", "--duration-s", "2", "--height", "72"]
    assert yt360_synthetic.main([str(folder), *arguments, "--maps"]) == 0
    torch.manual_seed(0)
    save_avsa(tmp_path / "avsa.safetensors", AvsaNetwork(NETWORK), {})
    report = tmp_path / "report.json"

    code = main(
        ["segmentation", "--root", str(folder), "--checkpoint", str(tmp_path / "avsa.safetensors"),
         "--preset", "tiny", "--epochs", "3", "--draws", "6", "--report", str(report)]
    )  # fmt: skip

    assert code == 0
    found = json.loads(report.read_text())
    assert set(found["figures"]) == {str(inputs) for inputs in Inputs}
    for figures in found["figures"].values():
        assert figures["pixel_accuracy"] > found["commonest_class"] + 0.05
        assert figures["loss_by_epoch"][-1] < figures["loss_by_epoch"][0]
        assert 0 < figures["mean_iou"] <= 1
        assert 0 < figures["image_iou"] <= 1
    assert found["data"]["train"] == {"clips": 4, "clips_without_maps": 0, "broken_draws": 0}
    assert found["data"]["test"]["clips"] == 1
    gain = found["gains"]["video + audio over video"]["class_accuracy"]
    of = [found["figures"][name]["class_accuracy"]["sky"] for name in ("video + audio", "video")]
    assert gain["sky"] == pytest.approx(of[0] - of[1])
    with VideoReader(folder / "video" / "synth000000-0.mp4") as reader:
        assert read_labels(folder / "segmentation" / "synth000000-0", 1.0).shape == (
            reader.info.height, reader.info.width,
        )  # fmt: skip


def test_a_folder_without_maps_is_refused_in_one_sentence(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root, tmp_path / "bare", ignore=shutil.ignore_patterns("segmentation"))

    code = main(["segmentation", "--root", str(tmp_path / "bare"), "--untrained", "narrow"])

    assert code == 2
    assert "clips has class maps in" in capsys.readouterr().err
