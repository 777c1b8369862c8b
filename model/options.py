"""How a job is done."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint import Method
from model.errors import OptionError
from model.judges import calibration_beside
from model.media import Stereo


def check_tolerance(tolerance_deg: float) -> None:
    """Refuse with an OptionError a tolerance that is no angle from 0 to below 180 degrees."""
    if not 0 <= tolerance_deg < 180:
        raise OptionError(f"The tolerance is {tolerance_deg}°; it must be in [0, 180).")


def check_device(device: str) -> None:
    """See that a device can be computed on.

    Raises
    ------
    OptionError : it is not known, or not here.
    """
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", device):
        raise OptionError(f"The device {device} is not known: say cpu, cuda or cuda:N.")
    number, seen = int(device.partition(":")[2] or 0), torch.cuda.device_count()
    if device != "cpu" and number >= seen:
        none = "no CUDA GPU of that number" if seen else "no CUDA GPU"
        raise OptionError(f"The device {device} is not here: PyTorch sees {none}; use cpu.")


@dataclass(frozen=True)
class Options:
    """How a job is done.

    Attributes
    ----------
    n_windows : windows of the take that are judged, at most.
    tolerance_deg : a best rotation within this of 0 is called aligned.
    stereo : packing of the picture, if not as declared.
    device : where features and evidence are computed.
    method : what the take is judged by.
    weights : a calibration file of that method (default: the shipped one).
    checkpoint : the network of the method "avsa"; its calibration lies beside it (FILE.json).
    reference : an ambisonic recording whose front is the picture's (default: the picture's own
        ambisonic track, where it declares one and the track is another).
    float_output : write 32-bit float instead of the input's sample format.
    apply_undecided : write the best rotation even where the verdict is undecidable.
    apply_deg : write this rotation, counter-clockwise in (-360, 360), whatever is found.
    over_time : look whether the rotation changes along the take (decodes the whole picture).
    follow : write it changing, if it does; implies `over_time`.
    orientation : a CSV file that says how the microphone turned (`model.orientation`); the output
        follows it.
    lay_on_picture : write the track shifted and resampled to the picture's clock, and as long.
    detections : objects that a detector found in the picture (`model.detections`), as evidence.
    clip : what they call the video (default: its file's name without the suffix).
    detector : weights of a detector that finds them (`model.detector`).
    """

    n_windows: int = 8
    tolerance_deg: float = 10.0
    stereo: Stereo | None = None
    device: str = "cpu"
    method: Method = Method.FUSED
    weights: Path | None = None
    checkpoint: Path | None = None
    reference: Path | None = None
    float_output: bool = False
    apply_undecided: bool = False
    apply_deg: float | None = None
    over_time: bool = False
    follow: bool = False
    orientation: Path | None = None
    lay_on_picture: bool = False
    detections: Path | None = None
    clip: str | None = None
    detector: Path | None = None

    def __post_init__(self) -> None:
        if self.n_windows < 1:
            raise OptionError(f"The number of windows is {self.n_windows}; it takes at least 1.")
        check_tolerance(self.tolerance_deg)
        if self.apply_deg is not None and not -360 < self.apply_deg < 360:
            raise OptionError(
                f"The rotation to apply is {self.apply_deg}°; it must be within a turn, in "
                "(-360, 360)."
            )
        if self.orientation and (self.over_time or self.follow):
            raise OptionError(
                f"The orientation {self.orientation} says already how the rotation changes: leave "
                "--over-time and --follow away."
            )
        if self.orientation and self.reference:
            raise OptionError(
                f"A track that turned as {self.orientation} says is not compared with the "
                f"reference {self.reference}: leave --reference or --orientation away."
            )
        if self.detections and self.detector:
            raise OptionError(
                f"The detections {self.detections} are what a detector has found already: leave "
                "--detections or --detector away."
            )
        objects = self.detections or self.detector
        if objects and self.method is Method.AVSA:
            option = "--detections" if self.detections else "--detector"
            raise OptionError(
                f"The objects of {objects} do not go with the method avsa, which weighs no other "
                f"evidence: leave {option} or --method away."
            )
        check_device(self.device)

    @property
    def named(self) -> dict[str, Path]:
        """Files that it names besides the picture and the track, by option."""
        named = {
            "--reference": self.reference, "--orientation": self.orientation,
            "--detections": self.detections, "--detector": self.detector,
            "--weights": self.weights, "--checkpoint": self.checkpoint,
        }  # fmt: skip
        return {option: path for option, path in named.items() if path}

    @property
    def files(self) -> list[Path]:
        """Those, and the calibration of one."""
        beside = [calibration_beside(self.checkpoint)] if self.checkpoint else []
        return [*self.named.values(), *beside]
