"""What was learned or chosen on data, in a file that describes itself.

A calibration is a JSON file: how much each cue counts, how windows are pooled, when the evidence
suffices, and from what data all this was found (`provenance`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model.errors import MediaError
from model.networks.equivariant import EquivariantConfig, EquivariantScorer


class Method(StrEnum):
    """What a take is judged by."""

    FUSED = "fused"  # the learned scorer and the training-free evidence together
    EVIDENCE = "evidence"  # the training-free evidence alone


SCORER = "scorer.safetensors"
LEARNED = "learned"  # the cue of the learned scorer


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
    gates : how far cues are trusted in a window, by its statistics: of the cue `LEARNED`, and of
        all others ("evidence"), a logistic function's coefficients by statistic, and its "bias".
    scorer : SHA-256 of the learned scorer that it was found with; empty without one.
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
    gates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scorer: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def weight(self, cue: str, statistics: Mapping[str, float]) -> float:
        """How much a cue counts in a window with these statistics; 0 without a weight."""
        gate = self.gates.get(cue if cue == LEARNED else "evidence", {})
        trust = sum(c * (1.0 if name == "bias" else statistics[name]) for name, c in gate.items())
        share = 1 / (1 + math.exp(-trust)) if gate else 1.0
        return self.weights.get(cue, 0.0) * share

    def save(self, path: Path) -> None:
        """Write the file that `load_calibration` reads."""
        fields = asdict(self)
        del fields["sha256"]
        path.write_text(json.dumps(fields, indent=2) + "\n")


def load_calibration(path: Path | None = None, method: Method = Method.EVIDENCE) -> Calibration:
    """Read a calibration; that which is shipped for a method if no path is given.

    Raises
    ------
    MediaError : missing, or not a calibration.
    """
    try:
        data = (
            resources.files("model.weights").joinpath(f"{method}.json").read_bytes()
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


def save_scorer(path: Path, network: EquivariantScorer, provenance: Mapping[str, Any]) -> None:
    """Write a network's weights with its sizes and origin, whole or not at all."""
    tensors = {
        name: value.float().cpu().contiguous() for name, value in network.state_dict().items()
    }
    about = {
        "network": "equivariant",
        "config": json.dumps(asdict(network.config)),
        "provenance": json.dumps(provenance),
    }
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata=about)
    part.replace(path)


def scorer_path() -> Path:
    """Where the shipped scorer is."""
    return Path(str(resources.files("model.weights").joinpath(SCORER)))


def load_scorer(path: Path | None = None) -> EquivariantScorer:
    """Read a network, ready to score; the shipped one if no path is given.

    Raises
    ------
    MediaError : missing, or not a network of this version.
    """
    source = path or scorer_path()
    try:
        with safe_open(source, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config: dict[str, Any] = json.loads(about["config"])
        config["widths"], config["lags"] = tuple(config["widths"]), tuple(config["lags"])
        network = EquivariantScorer(EquivariantConfig(**config))
        network.load_state_dict(tensors)
    except OSError as error:
        raise MediaError(f"The weights {source} cannot be read: {error.strerror}.") from error
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise MediaError(f"{source} is not a scorer of this version: {error}.") from error
    return network.eval().requires_grad_(False)
