"""What was learned or chosen on data, in a file that describes itself.

A calibration is a JSON file: how much each cue counts, how windows are pooled, when the evidence
suffices, and from what data all this was found (`provenance`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from model.errors import MediaError

DEFAULT = "evidence.json"


@dataclass(frozen=True)
class Calibration:
    """Everything that turns cues into a verdict.

    Attributes
    ----------
    weights : of each cue in a window's log-evidence.
    pooling_exponent : W windows count as W^(1 - exponent): takes repeat their own errors.
    pooling_cap : no window speaks louder than this much log-probability against a rotation.
    confidence_slope, confidence_intercept : logistic map from the logit of the posterior's mass
        within 15 degrees of its peak to the probability that the peak is within 15 degrees.
    arc_mass : posterior mass that the reported arcs hold, so that they cover the truth in 90 %.
    least_confidence : below it the verdict is "undecidable".
    provenance : how the numbers were found.
    sha256 : of the file, as a report names it.
    """

    name: str
    weights: Mapping[str, float]
    pooling_exponent: float
    pooling_cap: float
    confidence_slope: float
    confidence_intercept: float
    arc_mass: float
    least_confidence: float
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def save(self, path: Path) -> None:
        """Write the file that `load_calibration` reads."""
        fields = asdict(self)
        del fields["sha256"]
        path.write_text(json.dumps(fields, indent=2) + "\n")


def load_calibration(path: Path | None = None) -> Calibration:
    """Read a calibration; the shipped one if no path is given.

    Raises
    ------
    MediaError : missing, or not a calibration.
    """
    try:
        data = (
            resources.files("model.weights").joinpath(DEFAULT).read_bytes()
            if path is None
            else path.read_bytes()
        )
    except OSError as error:
        raise MediaError(f"The weights {path} cannot be read: {error.strerror}.") from error
    try:
        fields = json.loads(data)
        return Calibration(**fields, sha256=hashlib.sha256(data).hexdigest())
    except (ValueError, TypeError) as error:
        raise MediaError(f"{path} is not a calibration of this version: {error}.") from error
