"""A detector in flat views: what it sees stands where it is on the sphere, and counts once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.align import Outputs, align
from model.checkpoint import OBJECTS
from model.detections import Detection
from model.detector import Detector, load_detector
from model.errors import OptionError
from model.options import Options
from model.sphere import column_azimuths, row_elevations
from model.take import Track
from training.data.takes import TakeFiles

CATEGORIES = ["background", "dog", "chair"]


class FindsRed(nn.Module):
    """A detector of what is red (a dog) and blue (a chair): the box around all such pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))

    def forward(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        (picture,) = pictures
        boxes, labels = [], []
        for label, channel in ((1, 0), (2, 2)):
            rows, columns = torch.nonzero(picture[channel] > 0.5, as_tuple=True)
            if len(rows):
                edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                boxes.append([float(edge) for edge in edges])
                labels.append(label)
        return [
            {
                "boxes": torch.tensor(boxes).reshape(-1, 4),
                "labels": torch.tensor(labels, dtype=torch.long),
                "scores": torch.full((len(boxes),), 0.9),
            }
        ]


def seen(azimuth_deg: float, elevation_deg: float, channel: int = 0) -> list[Detection]:
    """What is found of a spot of 8 degrees of one colour in a black picture."""
    azimuths, elevations = np.degrees(column_azimuths(2048)), np.degrees(row_elevations(1024))
    off = (azimuths - azimuth_deg + 180) % 360 - 180
    across = np.abs(off)[None] * math.cos(math.radians(elevation_deg)) < 4
    spot = across & (np.abs(elevations - elevation_deg) < 4)[:, None]
    frame = np.zeros((1024, 2048, 3), dtype=np.uint8)
    frame[spot, channel] = 255
    return Detector(FindsRed(), CATEGORIES).look(frame, 1.5)


@pytest.mark.parametrize("elevation_deg", [0, 30, -25])
@pytest.mark.parametrize("azimuth_deg", [0, 29, 45, 90, -121, 150, 180, -179])
def test_what_is_seen_stands_where_it_is_and_counts_once(
    azimuth_deg: float, elevation_deg: float
) -> None:
    (found,) = seen(azimuth_deg, elevation_deg)

    off = math.remainder(math.degrees(found.azimuth_rad) - azimuth_deg, 360)
    assert abs(off) < 1.5
    assert math.degrees(found.elevation_rad) == pytest.approx(elevation_deg, abs=1.5)
    assert math.degrees(found.width_rad) == pytest.approx(8, abs=2.5)
    assert math.degrees(found.height_rad) == pytest.approx(8, abs=2.5)
    assert found.time_s == 1.5
    assert found.score == pytest.approx(0.9)


def test_what_cannot_sound_does_not_count() -> None:
    assert not seen(10, 0, channel=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a real network as torchvision names them, untrained: none are at hand."""
    from torchvision.models import get_model  # seconds that only this needs

    torch.manual_seed(0)
    name = "ssdlite320_mobilenet_v3_large"
    path = tmp_path_factory.mktemp("weights") / f"{name}_coco-00000000.pth"
    torch.save(get_model(name, weights=None, weights_backbone=None).state_dict(), path)
    return path


def test_a_detector_goes_into_a_job(take: TakeFiles, weights: Path) -> None:
    report = align(
        take.video, Track((take.audio,)), Outputs(), Options(n_windows=1, detector=weights)
    )

    assert any(cue["name"] == OBJECTS for cue in report["cues"])


def test_weights_are_of_the_network_that_their_name_says(weights: Path, tmp_path: Path) -> None:
    assert "person" in load_detector(weights).categories
    unknown = tmp_path / "yolo.pth"
    unknown.write_bytes(weights.read_bytes())
    with pytest.raises(OptionError, match=r"yolo\.pth does not begin with the name"):
        load_detector(unknown)
    other = tmp_path / "retinanet_resnet50_fpn_coco-eeacb38b.pth"
    other.write_bytes(weights.read_bytes())
    with pytest.raises(OptionError, match="does not hold weights of retinanet_resnet50_fpn"):
        load_detector(other)
    broken = tmp_path / "ssd300_vgg16_coco-b556d3b4.pth"
    broken.write_bytes(b"no weights")
    with pytest.raises(OptionError, match="does not hold weights of ssd300_vgg16"):
        load_detector(broken)
    with pytest.raises(OptionError, match="cannot be read"):
        load_detector(tmp_path / "ssd300_vgg16-none.pth")
    with pytest.raises(OptionError, match="leave --detections or --detector away"):
        Options(detector=weights, detections=tmp_path / "boxes.jsonl")
