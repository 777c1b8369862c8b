"""Rows of the variants' table: what they are trained for, probed and measured on, and by chance."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from training.evaluate import variants
from training.evaluate.variants import VARIANTS, Budget, Variant
from training.objectives.named import Task

BUDGET = Budget(steps=30, first_steps=20, n_train=8, n_test=4, n_probed=3)


def row_of(
    variant: Variant, output: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row, and what it was made of, of networks that are none."""
    seen: dict[str, Any] = {}
    scenes = {
        name: SimpleNamespace(clips=[f"{name} {index}" for index in range(count)])
        for name, count in (("train", 8), ("test", 4))
    }

    def trained(_output: Path, _budget: Budget, _device: str, _v: Variant, steps: int) -> Any:
        seen["steps"] = steps
        course = SimpleNamespace(
            config=variant.config(steps), network=None, step=steps, objective=SimpleNamespace(
                eval=lambda: None
            ),
            validate=lambda: {
                "held-out crop accuracy": 0.4, "held-out place accuracy": 0.3,
                "held-out instance accuracy": 0.9,
            },
        )  # fmt: skip
        return course, scenes["train"]

    def errors(_network: Any, clips: list[str], *_: Any, media: Any, **__: Any) -> Any:
        seen["scored"] = clips, media
        return np.array([0.0, 90.0, 180.0])

    def binned(_network: Any, probed: Any, measured: Any, **options: Any) -> Any:
        seen.update(probed=probed, measured=measured, **options)
        return {"any": {"AVC-Bin": 0.7}}

    for name, fake in {
        "_trained": trained, "yaw_errors_deg": errors, "bins": binned,
        "_scenes": lambda _output, name, _count: scenes[name], "yaw_scorer": lambda *_: None,
        "ClipCrops": lambda clips, _network, cropping, media: (clips, cropping, media),
    }.items():  # fmt: skip
        monkeypatch.setattr(variants, name, fake)
    (output / variant.key).mkdir()

    variants._row(output, BUDGET, "cpu", variant)

    row: dict[str, Any] = json.loads((output / variant.key / "row.json").read_text())
    assert seen.pop("scored") == (scenes["test"].clips, scenes["test"])
    assert seen["probed"][0] == scenes["train"].clips[:3]
    assert seen["probed"][2] is scenes["train"]
    assert seen["measured"][0] == scenes["test"].clips
    assert seen["measured"][2] is scenes["test"]
    return row, seen


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_heads_learn_from_scenes_trained_on_and_are_measured_on_others(
    views: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = Variant("viewpoints", str(views), network={"viewpoints": views})

    row, seen = row_of(variant, tmp_path, monkeypatch)

    assert seen["views"] == [views]
    assert seen["translated"] == [True]
    assert seen["probed"][1] == seen["measured"][1]
    assert seen["probed"][1].n_viewpoints == views
    assert not seen["probed"][1].augment
    assert (row["own"], row["own accuracy"], row["own chance"]) == ("crop", 0.4, 1 / views)
    assert (row["median error"], row["beyond 150"]) == (90, pytest.approx(1 / 3))
    assert (row["AVC-Bin"], row["budget"]) == (0.7, asdict(BUDGET))


@pytest.mark.parametrize("fresh", [True, False])
def test_rows_from_nothing_take_as_many_steps_as_others_with_their_first_phase(
    fresh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, seen = row_of(Variant("any", "row", fresh=fresh), tmp_path, monkeypatch)

    assert row["steps"] == seen["steps"] == (50 if fresh else 30)


@pytest.mark.parametrize(
    ("own", "viewpoints", "chance"),
    [
        ("crop", 4, 1 / 4), ("place", 8, 1 / 8), ("puzzle crop", 2, 1 / 2), ("choice", 8, 1 / 4),
        ("masked choice", 4, 1 / 2), ("choice", 1, 1 / 2), ("within 20 deg", 4, 40 / 360),
    ],
)  # fmt: skip
def test_chance_is_one_among_those_that_are_asked_about(
    own: str, viewpoints: int, chance: float
) -> None:
    config = Variant("any", "row", network={"viewpoints": viewpoints}).config(10)

    assert variants._chance(own, config) == pytest.approx(chance)


def test_of_instances_chance_is_one_of_the_recordings_of_a_batch() -> None:
    avc = Variant("objective", "AVC", Task.AVC).config(10)

    assert variants._chance("instance", avc) == pytest.approx(1 / 64)
    larger = replace(avc, batch=128)
    assert variants._chance("instance", larger) == pytest.approx(1 / 128)


def test_the_hardest_question_is_a_rows_own() -> None:
    held_out = {"held-out instance accuracy": 0.9, "held-out place accuracy": 0.3, "loss": 1.0}

    assert variants._own_accuracy(held_out) == ("place", 0.3)
    assert variants._own_accuracy(held_out | {"held-out crop accuracy": 0.2}) == ("crop", 0.2)


def test_rows_of_another_budget_are_not_done(tmp_path: Path) -> None:
    variant = VARIANTS[0]
    path = tmp_path / variant.key / "row.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"budget": asdict(BUDGET)}))

    assert variants._done(tmp_path, variant, BUDGET) == {"budget": asdict(BUDGET)}
    assert variants._done(tmp_path, variant, replace(BUDGET, seed=1)) is None
    assert variants._done(tmp_path, VARIANTS[1], BUDGET) is None


def test_cells_are_percents_and_degrees_under_their_titles() -> None:
    row = {
        "group": "objective", "name": "AVC", "own": "instance", "own accuracy": 0.5,
        "own chance": 1 / 64, "AVC-Bin": 0.75, "AVSA-Bin published": 0.61,
        "AVSA-Bin stratified": 0.62, "AVSA-Bin 140 to 180 deg": 0.63, "median error": 41.4,
        "within 20": 0.11, "within 30": 0.22, "beyond 150": 0.33,
    }  # fmt: skip
    without = {key: value for key, value in row.items() if key != "AVSA-Bin 140 to 180 deg"}

    titles, _, first, second, *_ = variants.markdown([row, without | {"name": "b"}], BUDGET).split(
        "\n"
    )

    cells = dict(zip(titles.split(" | "), first.split(" | "), strict=True))
    assert cells["own task (chance)"] == "instance 50.0 (1.6)"
    assert (cells["AVC-Bin"], cells["AVSA-Bin"], cells["from 20°"]) == ("75.0", "61.0", "62.0")
    assert (cells["140 to 180° told"], cells["yaw error"]) == ("63.0", "41°")
    assert (cells["within 20°"], cells["within 30°"]) == ("11.0", "22.0")
    assert second.split(" | ")[1] == "b"
    assert second.split(" | ")[6] == ""
