"""A service whose operator has an AVSA checkpoint, and one whose operator has none."""

from __future__ import annotations

from pathlib import Path

import torch

from model.checkpoint import save_avsa
from model.judges import calibration_beside
from model.media import file_sha256
from model.networks.avsa import AvsaNetwork
from tests.model.test_judges import TINY, calibration
from tests.service.conftest import Server
from tests.service.test_service import assert_problem, post
from training.data.takes import TakeFiles

ASKED = {"method": "avsa", "windows": 1}


def test_a_job_is_judged_by_the_operators_checkpoint(
    own_server: Server, take: TakeFiles, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    checkpoint = tmp_path / "avsa.safetensors"
    save_avsa(checkpoint, AvsaNetwork(TINY), {"translated": False})
    own_server.settings["AVSA_CHECKPOINT"] = str(checkpoint)
    own_server.start()

    without = post(own_server, take.video, take.audio, wait_s=60, options=ASKED).json()
    calibration(file_sha256(checkpoint)).save(calibration_beside(checkpoint))
    report = post(own_server, take.video, take.audio, wait_s=60, options=ASKED).json()

    assert "has no calibration" in str(without)
    assert report["model"]["scorer_sha256"] == file_sha256(checkpoint)
    assert [cue["name"] for cue in report["cues"]] == ["avsa"]


def test_without_a_checkpoint_the_method_is_refused(own_server: Server, take: TakeFiles) -> None:
    own_server.start()

    refused = post(own_server, take.video, take.audio, options=ASKED)

    assert_problem(refused, refused.status_code, "invalid_option", "AVSA_CHECKPOINT")
    assert 400 <= refused.status_code < 500
