"""A job's picture: sound over the frame before and after, the posterior, the verdict in words."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from model import features
from model.output import WholeFile, whole_file
from model.recordings.comparison import Outcome
from model.report import arcs
from model.scoring import Verdict
from model.wording import INTERVAL_LEVEL, angle, percent, span

FloatArray = NDArray[np.float64]

FRAME_SIZE = (360, 720)
AS_IT_IS = "Sound as it is"
_MAP_SIZE = (36, 72)
_OPACITY = 0.45
_COLOURS = {
    Verdict.ALIGNED: "#2e8b57",
    Verdict.MISALIGNED: "#c8501e",
    Verdict.UNDECIDABLE: "#666666",
}


@dataclass(frozen=True)
class Snapshot:
    """A moment for the picture: a frame and the sound around it, in world azimuths.

    Attributes
    ----------
    frame : [shape=(H, W, 3)], uint8.
    covariance : of the sound before correction, [shape=(T, F, 10)].
    turned_deg : by how much the microphone's orientation turns it at that moment.
    """

    at_s: float
    frame: NDArray[np.uint8]
    covariance: Tensor
    turned_deg: float = 0.0


def energy_map(cov: Tensor, height: int = _MAP_SIZE[0], width: int = _MAP_SIZE[1]) -> Tensor:
    """Where the sound comes from over the whole sphere, [shape=(height, width)], peak 1.

    Directions of arrival of all intervals and bands, weighted by level and directness and spread
    by a von Mises-Fisher kernel; azimuth in picture order.
    """
    vectors = features.intensity(cov).flatten(0, 1)
    levels = cov[..., features.WW].flatten().clamp(min=0).sqrt()
    length = vectors.norm(dim=1)
    directness = (length / (features.energy(cov).flatten() + 1e-20)).clamp(0, 1)
    directions = vectors / (length[:, None] + 1e-20)
    loudness = levels * directness
    loudness = loudness / loudness.max().clamp(min=1e-20)
    azimuth = features.azimuths(width, cov.device)
    elevation = math.pi * (
        0.5 - (torch.arange(height, dtype=cov.dtype, device=cov.device) + 0.5) / height
    )
    up, around = torch.meshgrid(elevation, azimuth, indexing="ij")
    grid = torch.stack([up.cos() * around.cos(), up.cos() * around.sin(), up.sin()], dim=-1)
    # Thousands of places hear thousands of directions: in single precision, and in place.
    closeness: Tensor = (20 * grid.view(-1, 3)).float() @ directions.T.float() - 20
    energy = closeness.exp_() @ loudness.float()
    relative: Tensor = energy / energy.max().clamp(min=1e-20)
    return relative.view(height, width)


def shade(energy: NDArray[np.floating]) -> FloatArray:
    """Energy as colours with opacity, to be painted over a frame: [shape=(H, W, 4)], 0 to 1."""
    shading = np.zeros((*energy.shape, 4))
    shading[..., 0], shading[..., 1] = 1.0, 0.25 + 0.6 * energy
    shading[..., 3] = np.clip((energy - 0.25) / 0.75, 0, 1)
    return shading


def _corrected(report: dict[str, Any]) -> bool:
    """Whether the output is turned; without one, whether it would be."""
    output = report["output"]
    if (report.get("trajectory") or {}).get("followed"):
        return True
    return bool(output["applied_deg"]) if output else report["verdict"] == Verdict.MISALIGNED


def turned_deg(
    report: dict[str, Any], at_s: float | FloatArray, microphone_deg: float | FloatArray
) -> FloatArray:
    """By how much the output turns the sound at times; of one that does not, the best rotation.

    microphone_deg : by how much the microphone's orientation turns it there.
    """
    output, trajectory = report["output"], report.get("trajectory")
    degrees = report["rotate_field_ccw_deg"]
    if output and _corrected(report):
        degrees = output["applied_deg"]
    if trajectory and trajectory["followed"]:
        curve = np.array(trajectory["rotate_field_ccw_deg"])
        changed = np.interp(at_s, trajectory["times_s"], curve) - curve[0]
    else:
        changed = np.asarray(microphone_deg, dtype=np.float64)
    return np.asarray(degrees + changed)


def title_turned(report: dict[str, Any], degrees: float) -> str:
    """What the sound is called that is turned so."""
    after = "Corrected" if _corrected(report) else "Turned by the best rotation (not applied)"
    return f"{after}: {angle(degrees)}"


def draw(
    report: dict[str, Any],
    snapshot: Snapshot,
    path: Path,
    *,
    whole: WholeFile = whole_file,
) -> None:
    """Draw a job's picture as PNG: the sound over the frame before and after, the ring, the votes.

    For an undecidable verdict the second panorama shows what the best rotation would do.
    """
    figure = Figure(figsize=(12, 8.4))
    figure.patch.set_facecolor("white")
    # Margins by hand: a layout that finds them draws everything twice.
    grid = figure.add_gridspec(
        2, 2, height_ratios=[1, 1.15], left=0.025, right=0.975, bottom=0.055, top=0.925,
        wspace=0.085, hspace=0.33,
    )  # fmt: skip
    colour = _COLOURS[Verdict(report["verdict"])]
    degrees = float(turned_deg(report, snapshot.at_s, snapshot.turned_deg))
    turned = features.rotated(snapshot.covariance, math.radians(degrees))
    _panorama(figure.add_subplot(grid[0, 0]), snapshot, snapshot.covariance, AS_IT_IS)
    _panorama(figure.add_subplot(grid[0, 1]), snapshot, turned, title_turned(report, degrees))
    _ring(figure.add_subplot(grid[1, 0], projection="polar"), report, colour)
    _summary(figure.add_subplot(grid[1, 1]), report, colour)
    title = _shortened(Path(report["input"]["audio"]["paths"][0]).name, 90)
    figure.suptitle(_drawable(title), fontsize=13, parse_math=False)
    with whole(path) as part, warnings.catch_warnings():
        # Names in scripts that the font has not are drawn as boxes; nobody needs to be told twice.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(part, dpi=110, format="png")


def _panorama(axes: Axes, snapshot: Snapshot, cov: Tensor, title: str) -> None:
    """A frame with the sound's energy over it."""
    axes.imshow(snapshot.frame, extent=(180, -180, -90, 90), aspect="auto")
    energy = energy_map(cov).cpu().numpy()
    painted = shade(energy) * [1, 1, 1, _OPACITY]
    axes.imshow(painted, extent=(180, -180, -90, 90), aspect="auto", interpolation="bicubic")
    axes.contour(
        energy, levels=[0.5, 0.8], colors="white", linewidths=[0.8, 1.4],
        extent=(180, -180, 90, -90),
    )  # fmt: skip
    axes.set_xlim(180, -180)
    axes.set_ylim(-90, 90)
    axes.set_xticks([180, 90, 0, -90, -180], ["back", "left 90°", "front", "right 90°", "back"])
    axes.set_yticks([])
    axes.set_title(title, fontsize=11)


def _ring(axes: Axes, report: dict[str, Any], colour: str) -> None:
    """The posterior as a ring, 0 at the top and + to the left, with the windows' votes."""
    yaw = np.radians(report["posterior"]["yaw_deg"])
    p = np.array(report["posterior"]["p"])
    inner = 1.0
    axes.set_theta_zero_location("N")  # type: ignore[attr-defined]
    heights = 0.9 * p / p.max()
    axes.bar(yaw, heights, width=2 * np.pi / len(yaw), bottom=inner, color=colour, alpha=0.8)
    for arc in arcs(report):
        low, high = np.radians(arc)
        span = (high - low) % (2 * np.pi) or 2 * np.pi
        axes.bar(low + span / 2, 1.0, width=span, bottom=inner, color="black", alpha=0.13, zorder=0)
    for window in report["windows"]:
        axes.scatter(
            math.radians(window["best_deg"]), 0.8, s=20 + 260 * window["weight"],
            color="#1f5fa8", alpha=0.7, zorder=3,
        )  # fmt: skip
    best = math.radians(report["rotate_field_ccw_deg"])
    axes.plot([best, best], [0, inner + 0.95], color=colour, linewidth=2)
    beside = report.get("reference")
    if pointed := beside is not None and beside["verdict"] != Outcome.UNDECIDABLE:
        axes.scatter(
            math.radians(beside["rotate_field_ccw_deg"]), 0.45, s=90, marker="D", color="#7a3fa0",
            zorder=4,
        )  # fmt: skip
    axes.set_ylim(0, 2.0)
    axes.set_yticks([])
    axes.set_xticks(
        np.radians([0, 45, 90, 135, 180, 225, 270, 315]),
        ["0°", "+45°", "+90°\nleft", "+135°", "180°", "-135°", "-90°\nright", "-45°"],
    )
    axes.tick_params(axis="x", pad=8)
    marks = "dots: the windows' votes" + ("; diamond: the reference" if pointed else "")
    axes.set_title(f"How well each rotation fits; {marks}", fontsize=11)


def _summary(axes: Axes, report: dict[str, Any], colour: str) -> None:
    """Verdict, numbers and warnings in words."""
    axes.axis("off")
    audio = report["input"]["audio"]
    output = report["output"]
    lines = [
        f"rotate_field_ccw_deg  {angle(report['rotate_field_ccw_deg'])}",
        f"{percent(INTERVAL_LEVEL)} interval  " + "\n    or  ".join(map(span, arcs(report))),
        f"confidence  {percent(report['confidence'])}",
        f"windows  {len(report['windows'])}",
        f"track  order {audio['order']}, {audio['convention']}, {audio['samplerate_hz']} Hz",
    ]
    if beside := report.get("reference"):
        told = beside["verdict"]
        if told != Outcome.UNDECIDABLE:
            told = f"{angle(beside['rotate_field_ccw_deg'])} ({told})"
        picture = angle(beside["picture"]["rotate_field_ccw_deg"])
        lines.append(f"reference  {told}; picture  {picture}")
    if output:
        applied = "untouched" if output["untouched_copy"] else angle(output["applied_deg"])
        if (report.get("trajectory") or {}).get("followed"):
            applied = f"from {applied}"
        lines.append(f"written  {_shortened(Path(output['path']).name, 36)} ({applied})")
    axes.text(0.02, 0.97, report["verdict"].upper(), fontsize=22, color=colour, va="top",
              weight="bold")  # fmt: skip
    axes.text(0.02, 0.82, _drawable("\n".join(lines)), fontsize=11, va="top", linespacing=1.7,
              parse_math=False)  # fmt: skip
    notes = [*report["reasons"], *report["warnings"]]
    if trajectory := report.get("trajectory"):
        _curve(axes.inset_axes((0.64, 0.54, 0.36, 0.4)), trajectory, colour)
    axes.text(
        0.02, 0.2, _drawable("\n".join(_that_fit(notes))), fontsize=9, va="top",
        color="#444444", linespacing=1.4, parse_math=False,
    )  # fmt: skip


def _shortened(name: str, most: int) -> str:
    """A name of at most so many characters: of a long one the beginning and the end."""
    if len(name) <= most:
        return name
    end = most // 2
    return f"{name[: most - end - 1]}…{name[-end:]}"


def _drawable(text: str) -> str:
    """A text without the bytes of names that are no UTF-8, which no font draws."""
    return text.encode("utf-8", "replace").decode()


def _that_fit(notes: Sequence[str], n_lines: int = 5) -> list[str]:
    """The first notes in lines, whole ones only; at the end how many more the report has."""
    lines: list[str] = []
    for index, note in enumerate(notes):
        wrapped = textwrap.wrap(note, 82)
        if len(lines) + len(wrapped) > n_lines:
            return [*lines, f"... and {len(notes) - index} more in the report."]
        lines += wrapped
    return lines


def _curve(axes: Axes, trajectory: dict[str, Any], colour: str) -> None:
    """The rotation over the take."""
    axes.step(trajectory["times_s"], trajectory["rotate_field_ccw_deg"], where="mid", color=colour)
    for step in trajectory["steps"]:
        axes.axvline(step["at_s"], color="black", linewidth=0.8, linestyle=":")
    low, high = min(trajectory["rotate_field_ccw_deg"]), max(trajectory["rotate_field_ccw_deg"])
    axes.set_ylim(low - 15, high + 15)
    axes.set_title(f"Rotation over time: {trajectory['kind']}", fontsize=9)
    axes.set_xlabel("s", fontsize=8)
    axes.set_ylabel("degrees", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
