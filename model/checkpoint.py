"""What was learned or chosen on data, in a file that describes itself.

A calibration is a JSON file: how much each cue counts, how windows are pooled, when the evidence
suffices, and from what data all this was found (`provenance`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy.special import expit
from torch import Tensor, nn

from model.errors import MediaError
from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.networks.equivariant import EquivariantConfig, EquivariantScorer
from model.output import whole_file
from model.viewpoints import Sound, SoundInput


class Method(StrEnum):
    """What a take is judged by."""

    FUSED = "fused"  # the learned scorer, and how places look
    EVIDENCE = "evidence"  # the training-free evidence, of which how places look is a part
    AVSA = "avsa"  # an AVSA checkpoint alone; none is shipped


SCORER = "scorer.safetensors"
LEARNED = "learned"  # the cue of the learned scorer
AVSA = "avsa"  # the cue of an AVSA network
OBJECTS = "objects"  # the cue of a detector's boxes
STATISTICS = ("bias", "belongs", "synchronous", "upright")  # of a window, which gates weigh
_LONGEST_REASON = 200  # characters of another library's words in an error


@dataclass(frozen=True)
class Calibration:
    """Everything that turns cues into a verdict.

    Attributes
    ----------
    weights : of each cue in a window's log-evidence.
    pooling_exponent : W windows count as W^(1 - exponent): takes repeat their own errors.
    pooling_cap : no window speaks louder than this much log-probability against a rotation.
    confidence_slope, confidence_intercept : logistic map from the logit of the posterior's mass
        within 15 degrees of the answer to the probability that the answer is within 15 degrees.
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
        share = float(expit(trust)) if gate else 1.0
        return self.weights.get(cue, 0.0) * share

    def save(self, path: Path) -> None:
        """Write the file that `load_calibration` reads, whole or not at all.

        Raises
        ------
        OutputError, DiskFull : it cannot be written.
        """
        fields = asdict(self)
        del fields["sha256"]
        with whole_file(path) as part:
            part.write_text(json.dumps(fields, indent=2) + "\n")


def load_calibration(path: Path | None = None, method: Method = Method.FUSED) -> Calibration:
    """Read a calibration; that which is shipped for a method if no path is given.

    Raises
    ------
    MediaError : missing, or not a calibration.
    """
    source = path or weights_path(method)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise MediaError(f"The weights {source} cannot be read: {error.strerror}.") from error
    try:
        calibration = Calibration(**json.loads(data), sha256=hashlib.sha256(data).hexdigest())
        _check(calibration)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise MediaError(f"{source} is not a calibration of this version: {error}.") from error
    return calibration


def _check(calibration: Calibration) -> None:
    """Raise a ValueError, TypeError or AttributeError where fields are not what they should be."""
    c = calibration
    tables = [c.weights, *c.gates.values()]
    numbers = [
        c.pooling_exponent, c.pooling_cap, c.confidence_slope, c.confidence_intercept,
        c.arc_mass, c.least_confidence, *(value for table in tables for value in table.values()),
    ]  # fmt: skip
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("not all of its numbers are finite")
    for name, number, holds, among in (
        ("pooling_exponent", c.pooling_exponent, 0 <= c.pooling_exponent <= 1, "from 0 to 1"),
        ("pooling_cap", c.pooling_cap, c.pooling_cap > 0, "above 0"),
        ("arc_mass", c.arc_mass, 0 < c.arc_mass <= 1, "above 0, to 1"),
        ("least_confidence", c.least_confidence, 0 <= c.least_confidence <= 1, "from 0 to 1"),
    ):
        if not holds:
            raise ValueError(f"its {name} is {number:g}, and has to be {among}")
    unknown = {name for gate in c.gates.values() for name in gate} - set(STATISTICS)
    if unknown:
        raise ValueError(f"its gates weigh {min(unknown)}, which no window has")
    if c.gates and LEARNED not in c.weights:
        raise ValueError(f"its gates weigh what only the cue {LEARNED} tells, which has no weight")
    if not isinstance(c.scorer, str):
        raise TypeError(f"its scorer is {c.scorer}, no SHA-256")


def save_scorer(path: Path, network: EquivariantScorer, provenance: Mapping[str, Any]) -> None:
    """Write a network's weights with its sizes and origin, whole or not at all."""
    _save_network(path, network, "equivariant", asdict(network.config), provenance)


def weights_path(method: Method) -> Path:
    """Where the shipped calibration of a method is."""
    return Path(str(resources.files("model.weights").joinpath(f"{method}.json")))


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
    with _reading(source, "a scorer"):
        about, tensors = _read_network(source, "equivariant")
        config = about["config"]
        config["widths"], config["lags"] = tuple(config["widths"]), tuple(config["lags"])
        network = EquivariantScorer(EquivariantConfig(**config))
        network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def save_avsa(path: Path, network: AvsaNetwork, provenance: Mapping[str, Any]) -> None:
    """Write an AVSA network's weights with its sizes and origin, whole or not at all.

    provenance : `translated` says whether its objective trained the translators, so that
        alignment is scored through them (`yaw_scores.yaw_scores`).
    """
    _save_network(path, network, "avsa", asdict(network.config), provenance)


def load_avsa(path: Path) -> AvsaNetwork:
    """Read an AVSA network, in evaluation mode.

    Raises
    ------
    MediaError : missing, or not an AVSA network of this version.
    """
    return load_avsa_with_provenance(path)[0]


def load_avsa_with_provenance(path: Path) -> tuple[AvsaNetwork, dict[str, Any]]:
    """An AVSA network as `load_avsa` reads it, and how it was made.

    Raises
    ------
    MediaError : missing, or not an AVSA network of this version.
    """
    with _reading(path, "an AVSA network"):
        about, tensors = _read_network(path, "avsa")
        config = about["config"]
        sound = config["sound"]
        config["sound"] = SoundInput(**{**sound, "sound": Sound(sound["sound"])})
        config["widths"] = tuple(config["widths"])
        network = AvsaNetwork(AvsaConfig(**config))
        known = network.state_dict()
        # Counters of batches are kept as floats, as all tensors are.
        network.load_state_dict(
            {
                name: value.to(known[name].dtype) if name in known else value
                for name, value in tensors.items()
            }
        )
        provenance: dict[str, Any] = about["provenance"]
    return network.eval(), provenance


def _save_network(
    path: Path,
    network: nn.Module,
    kind: str,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    tensors = {
        name: value.float().cpu().contiguous() for name, value in network.state_dict().items()
    }
    about = {
        "network": kind,
        "config": json.dumps(config),
        "provenance": json.dumps(provenance),
    }
    with whole_file(path) as part:
        part.write_bytes(save(tensors, metadata=about))


def _read_network(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the file says of itself, and its tensors."""
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
        if about.get("network") != kind:
            raise ValueError(f"it holds {about.get('network', 'no network')}, not {kind}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"not all numbers of its {name} are finite")
    told = {name: json.loads(about[name]) for name in ("config", "provenance")}
    if not all(isinstance(table, dict) for table in told.values()):
        raise TypeError("its config and provenance are not both tables")
    return told, tensors


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Whatever fails in reading a network, as one sentence."""
    try:
        yield
    except OSError as error:
        raise MediaError(
            f"The weights {path} cannot be read: {error.strerror or error}."
        ) from error
    except (
        SafetensorError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
    ) as error:
        told = " ".join(str(error).split()).rstrip(".")
        told = told if len(told) <= _LONGEST_REASON else told[:_LONGEST_REASON] + "..."
        raise MediaError(f"{path} is not {what} of this version: {told}.") from error
