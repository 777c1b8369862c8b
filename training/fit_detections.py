"""How much a detector's boxes count beside the other evidence, found on synthetic scenes.

    python -m training.fit_detections WINDOWS [--panoramas DIR] [--sounds DIR] [--rooms DIR]

The windows are those of `python -m training.data.windows`, with the folders that they were rendered
with: their scenes are drawn once more, and looked at by a detector that misses bodies, places boxes
badly and sees things that are none. Half of the windows choose the weight of the cue `OBJECTS`, the
other half says what it was worth. `--write` keeps it in the shipped calibrations; do so after
`python -m training.calibrate`, which makes them anew.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from tqdm import tqdm

from model.checkpoint import OBJECTS, Calibration, Method, load_calibration, weights_path
from model.detections import Detection, ObjectScorer
from model.errors import AvsaError, MediaError, OptionError
from model.evidence import N_YAWS, yaws_deg
from model.interruption import command
from model.learned import scorers_for
from model.posterior import answer_deg
from model.scoring import Scorer, Window, score
from training.data.excerpts import with_sound
from training.data.materials import Materials, add_materials_arguments, read_materials
from training.data.picture import Texture
from training.data.scenes import Conditions, Scene, draw_scene
from training.data.signals import CURVE_RATE
from training.data.windows import asked_for, check_asked, kept_windows, load_window

_EVERY_S = 1.0
_FALSE_BOXES = 1.0  # things that are seen all along and are none, on average
_UNFIT_WEIGHT = 0.37  # of windows with foreign sound: `training.calibrate` has as many of them
_TARGET_DEG = 7.5  # deviation of what is aimed at


@dataclass(frozen=True)
class _Scored:
    """A window: log-evidence of all other cues, the objects' cue as it counts, (R,) each."""

    number: int
    others: Tensor
    objects: Tensor
    fits: bool


def seen_by_a_detector(scene: Scene, rng: np.random.Generator) -> list[Detection]:
    """What a mediocre detector makes of a scene: bodies in part, false things, no wide stuff."""
    duration_s = scene.conditions.duration_s
    found = []
    bodies = [body for body in scene.bodies if not isinstance(body, Texture)]
    for body in bodies:
        found += _followed(rng, body.azimuth, body.elevation, body.radius, duration_s)
    for _ in range(rng.poisson(_FALSE_BOXES)):
        place = rng.uniform(-math.pi, math.pi, 1), rng.normal(-0.1, 0.3, 1)
        found += _followed(rng, *place, float(np.exp(rng.uniform(-3, -1))), duration_s)
    return found


def _followed(
    rng: np.random.Generator, azimuth: NDArray[np.float64], elevation: NDArray[np.float64],
    radius: float, duration_s: float,
) -> list[Detection]:  # fmt: skip
    """A thing as it is found now and then, with boxes that are about right."""
    chance, found = rng.uniform(0.2, 0.95), []
    for time_s in np.arange(0.5 * _EVERY_S, duration_s, _EVERY_S):
        at = min(int(time_s * CURVE_RATE), len(azimuth) - 1)
        if rng.random() < chance:
            off = radius * rng.normal(0, 0.15, 2)
            size = 2 * radius * rng.uniform(0.7, 1.4, 2)
            found.append(
                Detection(
                    float(time_s), float(azimuth[at] + off[0]), float(elevation[at] + off[1]),
                    float(size[0]), float(size[1]), float(rng.uniform(0.4, 1)),
                )
            )  # fmt: skip
    return found


def scored(paths: Sequence[Path], calibration: Calibration, materials: Materials) -> list[_Scored]:
    """Windows, each third also with the sound of the one before, which does not fit.

    Raises
    ------
    InputError : one is of no scene that could be drawn again.
    """
    scorers: list[Scorer] = [*scorers_for(calibration)]
    rows: list[_Scored] = []
    before: Window | None = None
    for index, path in enumerate(tqdm(paths, unit="window", desc=calibration.name)):
        window = load_window(path)
        scene = _scene_of(path, Conditions(duration_s=round(window.duration_s, 3)), materials)
        boxes = seen_by_a_detector(scene, np.random.default_rng([scene.seed, 12]))
        sounds = [window]
        if before is not None and index % 3 == 0:
            sounds.append(with_sound(window, before.covariance))
        for heard in sounds:
            given = score(heard, scorers, calibration)
            cue = ObjectScorer(boxes)(heard).cues[OBJECTS]
            counted = replace(calibration, weights={OBJECTS: 1.0})
            share = counted.weight(OBJECTS, given.statistics)
            rows.append(_Scored(index, given.log_posterior, share * cue, heard is window))
        before = window
    return rows


def _scene_of(path: Path, conditions: Conditions, materials: Materials) -> Scene:
    """What a kept window shows: that of another scene, or of footage, would have other boxes."""
    kind, _, seed = path.stem.rpartition("-")
    if kind != "scene" or not seed.isdecimal():
        raise MediaError(
            f"{path} is of no scene that can be drawn again: give a folder of those alone that "
            "python -m training.data.windows calls scene-SEED."
        )
    check_asked(path, asked_for(conditions, materials))
    return draw_scene(int(seed), conditions, materials)


def log_loss(rows: Sequence[_Scored], weight: float) -> float:
    """Mean cross-entropy with what is right: near 0, or all alike where nothing fits.

    Those count as they do where the other cues' weights are found.
    """
    near = torch.tensor([math.exp(-0.5 * (yaw / _TARGET_DEG) ** 2) for yaw in yaws_deg()])
    target = {True: (near / near.sum()).double(), False: torch.full((N_YAWS,), 1 / N_YAWS).double()}
    losses = torch.stack([-(target[row.fits] * _posterior(row, weight)).sum() for row in rows])
    shares = torch.tensor([1.0 if row.fits else _UNFIT_WEIGHT for row in rows])
    return float((shares * losses).sum() / shares.sum())


def _posterior(row: _Scored, weight: float) -> Tensor:
    return (row.others + weight * row.objects).log_softmax(0)


def best_weight(rows: Sequence[_Scored]) -> float:
    """The weight of least loss."""
    found = minimize_scalar(lambda w: log_loss(rows, float(w)), bounds=(0.0, 4.0), method="bounded")
    return round(float(found.x), 4)


def within(rows: Sequence[_Scored], weight: float, degrees: float) -> float:
    """Share of the windows that fit whose best rotation is as near as that."""
    errors = [abs(answer_deg(_posterior(row, weight).exp())) for row in rows if row.fits]
    return float(np.mean([error <= degrees for error in errors]))


def main(argv: Sequence[str] | None = None) -> int:
    """Fit and tell."""
    parser = argparse.ArgumentParser(
        prog="python -m training.fit_detections", description="Weigh a detector's boxes."
    )
    parser.add_argument("windows", type=Path, help="folder of kept windows")
    parser.add_argument("--write", action="store_true", help="keep it in the shipped calibrations")
    add_materials_arguments(parser)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        _fit(options)
    except AvsaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _fit(options: argparse.Namespace) -> None:
    """Find the weight on half of the windows, tell what it does on the others, perhaps keep it."""
    materials = read_materials(options.panoramas, options.sounds, options.rooms)
    paths = kept_windows(options.windows)
    if len(paths) < 2:
        raise OptionError(f"{options.windows} holds one window: half of them tell of the others.")
    for method in (Method.FUSED, Method.EVIDENCE):
        calibration = load_calibration(method=method)
        without = {name: w for name, w in calibration.weights.items() if name != OBJECTS}
        rows = scored(paths, replace(calibration, weights=without), materials)
        chosen, held_out = ([row for row in rows if row.number % 2 == half] for half in (0, 1))
        weight = best_weight(chosen)
        for told, value in (("without", 0.0), ("with", weight)):
            print(
                f"{method}: {told} boxes (weight {value}) log loss {log_loss(held_out, value):.3f},"
                f" within 10 / 20 deg {within(held_out, value, 10):.0%} /"
                f" {within(held_out, value, 20):.0%} of {sum(row.fits for row in held_out)}",
                flush=True,
            )
        if options.write:
            kept = replace(calibration, weights=without | {OBJECTS: weight})
            kept.save(weights_path(method))


if __name__ == "__main__":
    sys.exit(command(main))
