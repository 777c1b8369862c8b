"""What is told of a job: a JSON object (schema version 1), and a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model import rotators
from model.ambisonics import ChannelLayout
from model.arcs import told_deg
from model.checkpoint import Calibration
from model.evidence import best_yaw_deg, yaws_deg
from model.media import AudioInfo, Correction, VideoInfo
from model.output import WholeFile, whole_file
from model.placement import Placement
from model.scoring import Judgement, ScoredWindow, Verdict
from model.sync import as_json as sync_as_json
from model.wording import INTERVAL_LEVEL, angle, percent, span

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Inputs:
    """Facts of both files of a job."""

    video: VideoInfo
    video_sha256: str
    audio: AudioInfo
    audio_paths: tuple[Path, ...]
    audio_sha256: tuple[str, ...]
    layout: ChannelLayout
    placement: Placement


def build_report(
    *,
    judgement: Judgement,
    windows: Sequence[ScoredWindow],
    inputs: Inputs,
    correction: Correction | None,
    applied_deg: float,
    calibration: Calibration,
    device: str,
    timings_s: dict[str, float],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The report of one job, ready for JSON."""
    total = sum(window.information for window in windows) or 1.0
    return {
        "schema_version": SCHEMA_VERSION,
        **judgement.as_json(),
        "interval_level": INTERVAL_LEVEL,
        "rotators": rotators.settings(judgement.rotate_field_ccw_deg),
        "posterior": {
            "yaw_deg": yaws_deg(),
            "p": [round(float(p), 6) for p in judgement.posterior],
        },
        "windows": [
            {
                "start_s": round(window.start_s, 3),
                "duration_s": round(window.duration_s, 3),
                "best_deg": told_deg(window.best_deg),
                "weight": round(window.information / total, 4),
            }
            for window in windows
        ],
        "cues": _cues(windows, calibration),
        "input": {"video": _video_facts(inputs), "audio": _audio_facts(inputs)},
        "sync": sync_as_json(inputs.placement.sync) if inputs.placement.sync else None,
        "output": _output_facts(correction, applied_deg),
        "model": {
            "name": calibration.name,
            "weights_sha256": calibration.sha256,
            "scorer_sha256": calibration.scorer or None,
            "device": device,
        },
        "timings_s": {stage: round(seconds, 3) for stage, seconds in timings_s.items()},
        "warnings": list(warnings),
    }


def _cues(windows: Sequence[ScoredWindow], calibration: Calibration) -> list[dict[str, Any]]:
    """Each cue's own best rotation over all windows, and how much it counts."""
    return [
        {
            "name": name,
            "best_deg": told_deg(best_yaw_deg(torch.stack([w.cues[name] for w in windows]).sum(0))),
            "weight": calibration.weights.get(name, 0.0),
        }
        for name in windows[0].cues
    ]


def _video_facts(inputs: Inputs) -> dict[str, Any]:
    video = inputs.video
    return {
        "path": str(video.path),
        "sha256": inputs.video_sha256,
        "codec": video.codec,
        "width": video.width,
        "height": video.height,
        "rate_hz": round(video.rate_hz, 4),
        "duration_s": round(video.duration_s, 3),
        "projection": video.spherical.projection,
        "projection_source": video.spherical.source,
        "stereo": video.stereo,
        "pose_yaw_deg": video.pose_yaw_deg,
    }


def _audio_facts(inputs: Inputs) -> dict[str, Any]:
    audio, layout = inputs.audio, inputs.layout
    return {
        "paths": [str(path) for path in inputs.audio_paths],
        "sha256": list(inputs.audio_sha256),
        "container": audio.container,
        "codec": audio.codec,
        "sample_format": audio.format.name if audio.format else None,
        "samplerate_hz": audio.samplerate,
        "channels": audio.n_channels,
        "duration_s": round(audio.duration_s, 3),
        "offset_s": round(inputs.placement.offset_s, 4),
        "drift_ppm": round(inputs.placement.drift_ppm, 2),
        "order": layout.order,
        "convention": layout.convention.value,
        "convention_declared": audio.convention is not None,
        "component_channels": list(layout.components),
        "unrotated_channels": list(layout.other_channels),
    }


def _output_facts(correction: Correction | None, applied_deg: float) -> dict[str, Any] | None:
    if correction is None:
        return None
    return {
        "path": str(correction.path),
        "sha256": correction.sha256,
        "applied_deg": told_deg(applied_deg),
        "untouched_copy": correction.copied,
        "sample_format": correction.format,
        "peak": None if correction.peak is None else round(correction.peak, 6),
        "trim_db": round(correction.trim_db, 4),
        "clipped_samples": correction.clipped_samples,
    }


def reworded(report: dict[str, Any], wording: Callable[[str], str]) -> dict[str, Any]:
    """A report with all of its texts put into other words."""

    def told(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: told(item) for key, item in value.items()}
        if isinstance(value, list):
            return [told(item) for item in value]
        return wording(value) if isinstance(value, str) else value

    return {key: told(value) for key, value in report.items()}


def write_json(report: dict[str, Any], path: Path, *, whole: WholeFile = whole_file) -> None:
    """Write a report whole or not at all."""
    with whole(path) as part:
        part.write_text(json.dumps(report, indent=2) + "\n")


def sentence(report: dict[str, Any]) -> str:
    """A report in one or two sentences."""
    degrees = report["rotate_field_ccw_deg"]
    interval = f"{percent(INTERVAL_LEVEL)} interval " + " or ".join(map(span, arcs(report)))
    digits = 2 if 0 < abs(degrees) < 0.05 else 1  # never "turn it 0.0°"
    fit = f"best rotation {angle(degrees)}, {interval}"
    confidence = f"confidence {percent(report['confidence'])}"
    if report["verdict"] == Verdict.UNDECIDABLE:
        return f"Undecidable ({fit}). " + " ".join(report["reasons"])
    if report["verdict"] == Verdict.ALIGNED:
        state = f"with --fix {report['fix']}" if report.get("fix") else "as it is"
        return f"Aligned: the sound fits the picture {state} ({fit}; {confidence})."
    side = "left (counter-clockwise)" if degrees > 0 else "right (clockwise)"
    followed = (report.get("trajectory") or {}).get("followed")
    when = " at the beginning, and on as it changes" if followed else ""
    return (
        f"Misaligned: turn the sound field {abs(degrees):.{digits}f}° to the {side} seen from "
        f"above{when} (rotate_field_ccw_deg {angle(degrees, digits)}; {interval}; {confidence})."
    )


def one_turn_corrects(report: dict[str, Any]) -> bool:
    """Whether a rotator by itself does what the output has: the rotation found, and no more."""
    output, followed = report["output"], (report.get("trajectory") or {}).get("followed")
    if report["verdict"] != Verdict.MISALIGNED or followed or report.get("fix"):
        return False
    return output is None or bool(output["applied_deg"] == report["rotate_field_ccw_deg"])


def arcs(report: dict[str, Any]) -> list[list[float]]:
    """The one or two intervals of a report."""
    return [arc for arc in (report["interval_deg"], report["second_interval_deg"]) if arc]
