"""Objects found by one of torchvision's detectors, where its weights are at hand.

The weights are a file as torchvision names and publishes it
(fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth and the like): the name says what network they are of.
It looks at flat views around the horizon, for detectors know no equirectangular picture; what two
views see counts once, as the one sees it that has it nearer its middle.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.detections import Detection, ObjectScorer
from model.errors import OptionError
from model.scoring import Evidence, Window
from model.sphere import tangent_crops, tangent_map, wrap_angle

if TYPE_CHECKING:
    from model.take import Take

# What may sound, of the categories of COCO.
SOUNDING = frozenset({
    "person", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "bird", "cat",
    "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe",
})  # fmt: skip
_EVERY_S = 2.0
_LEAST_SCORE = 0.4
_SAME_RAD = math.radians(3)  # boxes of smaller things agree less well than they are wide
_N_VIEWS, _FIELD_OF_VIEW_RAD, _VIEW_PX = 6, math.radians(90), 640
_FRAME_SIZE = (1024, 2048)


@dataclass(frozen=True)
class Detector:
    """A network of torchvision's, and the names of what it tells apart."""

    network: torch.nn.Module
    categories: Sequence[str]

    @torch.no_grad()
    def look(self, frame: NDArray[np.uint8], time_s: float) -> list[Detection]:
        """What may sound in an equirectangular frame, [shape=(H, W, 3)]."""
        device = next(self.network.parameters()).device
        picture = torch.tensor(frame, device=device).permute(2, 0, 1)[None].float() / 255
        size = (_VIEW_PX, _VIEW_PX)
        view = tangent_map(0.0, _FIELD_OF_VIEW_RAD, size, picture.shape[2:], device)
        azimuths = [math.tau * k / _N_VIEWS for k in range(_N_VIEWS)]
        seen: list[_Seen] = []
        for azimuth, crop in zip(azimuths, tangent_crops(picture, azimuths, view), strict=True):
            (told,) = self.network([crop[0]])
            boxes, labels, scores = (told[key].tolist() for key in ("boxes", "labels", "scores"))
            for box, label, score in zip(boxes, labels, scores, strict=True):
                if score >= _LEAST_SCORE and self.categories[label] in SOUNDING:
                    seen.append(_on_the_sphere(box, label, azimuth, time_s, score))
        return _once(seen)


@dataclass(frozen=True)
class _Seen:
    """A detection in a view, and how far from the view's middle it is."""

    detection: Detection
    label: int
    view_rad: float
    off_rad: float

    def is_also(self, other: _Seen) -> bool:
        """Whether two views seem to see the same object."""
        one, two = self.detection, other.detection
        away = abs(math.remainder(one.azimuth_rad - two.azimuth_rad, math.tau))
        near = max(one.width_rad, two.width_rad, _SAME_RAD) / 2
        return self.view_rad != other.view_rad and self.label == other.label and away < near


def _on_the_sphere(
    box: Sequence[float], label: int, azimuth_rad: float, time_s: float, score: float
) -> _Seen:
    """A box (left, top, right, bottom, pixels) of the view at an azimuth."""
    scale = _VIEW_PX / 2 / math.tan(_FIELD_OF_VIEW_RAD / 2)
    left, top, right, bottom = ((edge - _VIEW_PX / 2) / scale for edge in box)
    off, away = -math.atan((left + right) / 2), math.hypot(1, (left + right) / 2)
    high, low = -math.atan2(top, away), -math.atan2(bottom, away)
    elevation = (high + low) / 2
    detection = Detection(
        time_s=time_s,
        azimuth_rad=float(wrap_angle(azimuth_rad + off)),
        elevation_rad=elevation,
        width_rad=(math.atan(right) - math.atan(left)) * math.cos(elevation),
        height_rad=high - low,
        score=score,
    )
    return _Seen(detection, label, azimuth_rad, abs(off))


def _once(seen: Sequence[_Seen]) -> list[Detection]:
    """What two views see, as the one that has it nearer its middle sees it."""
    kept: list[_Seen] = []
    for one in sorted(seen, key=lambda one: one.off_rad):
        if not any(one.is_also(other) for other in kept):
            kept.append(one)
    return [one.detection for one in kept]


def load_detector(weights: Path, device: str = "cpu") -> Detector:
    """A detector from a file of weights.

    Raises
    ------
    OptionError : torchvision is not installed, or the file is not one of its detectors' weights.
    """
    try:
        from torchvision.models import detection, get_model, get_model_weights, list_models
    except ImportError as error:
        raise OptionError(
            "A detector needs torchvision: pip install 'avsa-align[detector]'."
        ) from error
    names = [name for name in list_models(module=detection) if weights.name.startswith(name)]
    if not names:
        raise OptionError(
            f"{weights.name} does not begin with the name of a detector of torchvision's "
            f"({', '.join(list_models(module=detection))}); leave published files their names."
        )
    name = max(names, key=len)
    categories = get_model_weights(name).DEFAULT.meta["categories"]
    network = get_model(name, weights=None, weights_backbone=None, num_classes=len(categories))
    try:
        known: dict[str, Any] = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict(known)
    except OSError as error:
        raise OptionError(f"The detector {weights} cannot be read: {error.strerror}.") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError, AttributeError) as error:
        raise OptionError(f"{weights} does not hold weights of {name}.") from error
    return Detector(network.to(device).eval(), categories)


class DetectorScorer:
    """A take's objects as a scorer: the detector looks at the frames of each window."""

    def __init__(self, detector: Detector, take: Take) -> None:
        self._detector, self._take = detector, take

    def __call__(self, window: Window) -> Evidence:
        """The cue of `ObjectScorer`."""
        return ObjectScorer(self.seen(window))(window)

    def seen(self, window: Window) -> list[Detection]:
        """What the detector finds in frames of a window, evenly spread."""
        count = max(1, round(window.duration_s / _EVERY_S))
        times = window.start_s + window.duration_s * (np.arange(count) + 0.5) / count
        return [
            found
            for time_s in times.tolist()
            for found in self._detector.look(
                self._take.picture.read_frame(time_s, size=_FRAME_SIZE), time_s
            )
        ]
