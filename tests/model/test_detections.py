"""A detector's boxes as evidence: where they are, what they say, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import features
from model.align import Outputs, align
from model.ambisonics import encode
from model.checkpoint import OBJECTS, Method, load_calibration
from model.commandline import main
from model.detections import (
    ANY,
    Detection,
    ObjectScorer,
    detections_of,
    object_map,
    read_detections,
)
from model.errors import MediaError, OptionError
from model.evidence import best_yaw_deg
from model.options import Options
from model.scoring import Window, score, training_free
from model.take import Track
from training.data.takes import TakeFiles


def box_at(azimuth_deg: float, *, time_s: float = 1.0, **more: Any) -> dict[str, Any]:
    """A line of a file: 18 by 18 degrees on the horizon."""
    left = (0.5 - azimuth_deg / 360 - 0.025) % 1
    return {"time_s": time_s, "box": [left, 0.45, left + 0.05, 0.55], **more}


def written(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def sounding_from(azimuth_deg: float, duration_s: float = 4.0) -> Window:
    """Bursts of noise from a direction in a picture where nothing moves."""
    rng = np.random.default_rng(0)
    n = round(duration_s * features.SAMPLERATE)
    bursts = rng.standard_normal(n) * (np.arange(n) % 12_000 < 6000)
    field = encode(bursts, math.radians(azimuth_deg), 0.0, 1)
    field += 0.02 * rng.standard_normal(field.shape)
    edges = torch.linspace(0, duration_s, 61, dtype=torch.float64)
    still = torch.full((60, 72), 1e-3, dtype=torch.float64)
    motion = features.Motion(
        still, torch.zeros(60, 7, features.N_ELEVATIONS, 72), edges,
        torch.zeros(60, dtype=torch.bool), torch.zeros(60),
    )  # fmt: skip
    return Window(0.0, duration_s, features.covariance(torch.from_numpy(field), edges), motion)


@pytest.mark.parametrize("azimuth_deg", [0, 60, -90, 179])
def test_a_box_stands_where_it_is_seen(tmp_path: Path, azimuth_deg: float) -> None:
    (found,) = read_detections(written(tmp_path / "b.jsonl", box_at(azimuth_deg)))[ANY]

    away = math.remainder(found.azimuth_rad - math.radians(azimuth_deg), math.tau)
    assert away == pytest.approx(0, abs=1e-9)
    peak = features.azimuths(72)[int(object_map([found]).argmax())]
    assert abs(math.remainder(float(peak) - math.radians(azimuth_deg), math.tau)) < math.radians(3)


def test_a_file_as_other_systems_write_it(tmp_path: Path) -> None:
    """UTF-8 with its mark, other line ends, and a name with what only texts take for one."""
    clip = "T\u00fcr\u2028\u6771"
    text = "".join(json.dumps(box_at(a, clip=clip), ensure_ascii=False) + "\r\n" for a in (0, 60))
    (tmp_path / "b.jsonl").write_bytes(("\ufeff" + text).encode())

    assert len(detections_of(tmp_path / "b.jsonl", clip)) == 2


@pytest.mark.parametrize(("seen_deg", "heard_deg"), [(30, 30), (100, -40), (-170, 90)])
def test_sound_is_turned_to_where_objects_are(seen_deg: float, heard_deg: float) -> None:
    window = sounding_from(heard_deg)
    boxes = [Detection(time_s, math.radians(seen_deg), 0.0, 0.3, 0.3, 1.0) for time_s in (0.5, 2.5)]
    elsewhen = [replace(box, time_s=box.time_s + 4.0, azimuth_rad=0.0) for box in boxes]

    cue = ObjectScorer([*boxes, *elsewhen])(window).cues[OBJECTS]

    right = math.remainder(seen_deg - heard_deg, 360)
    assert abs(math.remainder(best_yaw_deg(cue) - right, 360)) < 5
    assert not ObjectScorer(elsewhen)(window).cues[OBJECTS].any()


def test_turning_the_field_turns_what_is_found() -> None:
    window = sounding_from(20)
    turned = replace(window, covariance=features.rotated(window.covariance, math.radians(35)))
    scorer = ObjectScorer([Detection(1.0, 0.4, 0.0, 0.3, 0.3, 1.0)])

    cue, after = (scorer(w).cues[OBJECTS] for w in (window, turned))

    torch.testing.assert_close(after, cue.roll(-7), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", [Method.FUSED, Method.EVIDENCE])
def test_shipped_calibrations_count_objects_and_more_of_them_decide(method: Method) -> None:
    calibration = load_calibration(method=method)
    assert calibration.weights[OBJECTS] > 0
    if method is Method.FUSED:
        return
    window = sounding_from(-60)
    boxes = ObjectScorer([Detection(1.0, math.radians(50), 0.0, 0.3, 0.3, 1.0)])

    alone = score(window, [training_free], calibration)
    together = score(window, [training_free, boxes], calibration)

    assert together.information > alone.information
    assert abs(math.remainder(together.best_deg - 110, 360)) < 6


def test_boxes_go_into_a_job(take: TakeFiles, tmp_path: Path) -> None:
    """The truth of the take is a rotation of 0 after what was turned; boxes elsewhere pull."""
    plain = align(take.video, Track((take.audio,)), Outputs())
    boxes = [box_at(float(deg), time_s=t / 2, clip=take.video.stem)
             for t in range(20) for deg in [0.0]]  # fmt: skip
    path = written(tmp_path / "boxes.jsonl", *boxes)
    report = align(take.video, Track((take.audio,)), Outputs(), Options(detections=path))

    assert any(cue["name"] == OBJECTS for cue in report["cues"])
    assert not any(cue["name"] == OBJECTS for cue in plain["cues"])
    assert report["posterior"] != plain["posterior"]


def test_what_cannot_be_used_is_said(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = written(tmp_path / "other.jsonl", box_at(0.0, clip="another-take"))
    with pytest.raises(OptionError, match=f"no box of the clip {take.video.stem}"):
        detections_of(other, take.video.stem)
    with pytest.raises(OptionError, match="do not go with the method avsa"):
        Options(detections=other, method=Method.AVSA, checkpoint=Path("x"))
    broken = written(
        tmp_path / "broken.jsonl", box_at(0.0), {"time_s": 1.0, "box": [0.5, 0, 0.2, 1]}
    )
    with pytest.raises(MediaError, match="Line 2"):
        detections_of(broken, take.video.stem)
    for line in (json.dumps({"time_s": 1.0, "box": [10**400, 0, 1, 1]}), "[" * 100_000):
        broken.write_text(line)
        with pytest.raises(MediaError, match="Line 1"):
            detections_of(broken, take.video.stem)

    status = main(
        [str(take.video), str(take.audio), "--detections", str(tmp_path / "none.jsonl"),
         "--output-dir", str(tmp_path)]
    )  # fmt: skip
    assert status == 2
    assert "none.jsonl does not exist" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.wav"))
