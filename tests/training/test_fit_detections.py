"""What boxes are worth is found on scenes that are drawn again: on no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.test_evaluate_lag import flickering
from training import fit_detections
from training.data.materials import NOTHING
from training.data.scenes import Conditions
from training.data.windows import asked_for, save_window


@pytest.mark.parametrize(
    ("names", "asked", "told"),
    [
        (["scene-0000001"], {}, "holds one window"),
        (["plain-0000001", "plain-0000002"], {}, "plain-0000001.safetensors is of no scene that"),
        (["take_2-1a2b3c4d-0000", "take_2-1a2b3c4d-0001"], {}, "is of no scene that can be drawn"),
        (["scene-0000001", "scene-0000002"], {"n_sources": 1}, "(n_sources 1, not None)"),
        (["scene-0000001", "scene-0000002"], {"panoramas": 21}, "(panoramas 21, not 0)"),
    ],
)
def test_windows_of_other_scenes_are_refused(
    tmp_path: Path,
    names: list[str],
    asked: dict[str, Any],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in names:
        path = tmp_path / f"{name}.safetensors"
        usual = asked_for(Conditions(duration_s=2.0), NOTHING)
        save_window(path, flickering(20), usual | asked)

    assert fit_detections.main([str(tmp_path)]) == 2

    assert told in capsys.readouterr().err.splitlines()[-1]
