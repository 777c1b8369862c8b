"""Whether steps and curves of the rotation are found, on synthetic takes of a minute.

    python -m training.evaluate trajectory --takes 60

Each scene is taken four times: as it is; with the field turned from a random time on (the rig was
knocked); with the picture turned from a random time on (the shot was re-oriented); and with the
field turning all the time (a stabilised picture over sound that is not).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model import features, precedence
from model.checkpoint import Method, load_calibration, load_scorer
from model.learned import LearnedScorer
from model.scoring import Window
from model.trajectory.course import BLOCK_S, Course, Reader
from model.trajectory.kinds import Kind, Trajectory, curve_at, trace
from model.turning import turned_along
from training.data.scenes import Conditions, draw_scene, render_picture, render_sound
from training.figures import as_json, write_report
from training.processes import Processes

FloatArray = NDArray[np.floating]

RATE_HZ = 12.5
_ANALYSIS_HZ = 24_000
_NEAR_S = 2.0


@dataclass(frozen=True)
class Variant:
    """A take whose rotation over time is known.

    Attributes
    ----------
    truth_deg : the right rotation of each interval, [shape=(T,)].
    at_s, by_deg : its step, if it has one.
    sounded : share of the 2 s around the step in which the take is not quieter than -20 dB.
    """

    name: str
    course: Course
    truth_deg: FloatArray
    at_s: float = 0.0
    by_deg: float = 0.0
    sounded: float = 1.0


@dataclass(frozen=True)
class Trial:
    """One take and what was found.

    Attributes
    ----------
    gain : nats for the surest step, 0 if none was found.
    error_s, error_deg : of the step nearest in time to the true one; None if none was found.
    path_error_deg : median distance of the curve from the true one.
    """

    seed: int
    truth: str
    found: str
    n_steps: int
    gain: float
    error_s: float | None
    error_deg: float | None
    path_error_deg: float
    sounded: float


def course_of(
    frames: NDArray[np.uint8], field: FloatArray, learned: LearnedScorer | None = None
) -> Course:
    """The maps of frames [shape=(T, H, W)] at `RATE_HZ` and a field at 24 kHz, as the product reads
    them: block by block.
    """
    size = round(BLOCK_S * RATE_HZ)
    times = torch.arange(len(frames), dtype=torch.float64) / RATE_HZ
    cov = precedence.covariance(torch.from_numpy(field), times)
    reader = Reader(learned)
    for first in range(0, len(frames) - 1, size):
        block = slice(first, min(first + size + 1, len(frames)))
        seen = features.motion(torch.from_numpy(frames[block]), times[block])
        n = len(seen.energy)
        reader.add(Window(float(times[first]), n / RATE_HZ, cov[first : first + n], seen))
    return reader.course()


def variants(
    seed: int, conditions: Conditions, learned: LearnedScorer | None = None
) -> list[Variant]:
    """A scene as it is, with its sound turned, with its picture turned, and moving."""
    rng = np.random.default_rng([seed, 7])
    scene = draw_scene(seed, conditions)
    frames = render_picture(scene, height=features.PICTURE_SIZE[0], rate_hz=RATE_HZ).numpy()[..., 0]
    field = render_sound(scene, samplerate=_ANALYSIS_HZ).numpy()
    plain = course_of(frames, field, learned)
    duration_s = conditions.duration_s
    at_s = float(rng.uniform(8, duration_s - 8))
    by_deg = float(rng.choice([-1, 1]) * rng.uniform(25, 180))
    samples_s = np.arange(field.shape[1]) / _ANALYSIS_HZ
    after = plain.times_s >= at_s
    level = np.convolve(field[0] ** 2, np.ones(1200) / 1200, "same")
    around = np.abs(samples_s - at_s) <= _NEAR_S
    sounded = float(np.mean(level[around] > 0.01 * np.quantile(level, 0.95)))

    knocked = turned_along(field, np.where(samples_s >= at_s, math.radians(-by_deg), 0.0))
    columns = round(by_deg / 360 * frames.shape[2])
    turned_deg = columns * 360 / frames.shape[2]  # a picture turns by whole columns
    oriented = frames.copy()
    first = math.ceil(at_s * RATE_HZ)
    # Turned to the left by `turned_deg`: what is seen has a greater azimuth, and so must the sound.
    oriented[first:] = np.roll(oriented[first:], -columns, axis=2)
    swing = rng.uniform(20, 70) * np.sin(
        2 * np.pi * samples_s / rng.uniform(30, 90) + rng.uniform(0, 6.28)
    )
    moving = turned_along(field, np.deg2rad(-swing))
    swing_deg = np.interp(plain.times_s, samples_s, swing)
    return [
        Variant("constant", plain, np.zeros(len(after))),
        Variant(
            "sound steps", course_of(frames, knocked, learned), after * by_deg, at_s, by_deg,
            sounded,
        ),
        Variant(
            "picture steps", course_of(oriented, field, learned), after * turned_deg, at_s,
            turned_deg, sounded,
        ),
        Variant("moving", course_of(frames, moving, learned), swing_deg),
    ]  # fmt: skip


def trials(seed: int, conditions: Conditions, weights: Path | None) -> list[Trial]:
    """All variants of one scene, traced."""
    torch.set_num_threads(1)
    calibration = load_calibration(weights, Method.EVIDENCE)
    learned = LearnedScorer(load_scorer()) if weights is None else None
    results = []
    for variant in variants(seed, conditions, learned):
        found = trace(variant.course, calibration)
        off = curve_at(found)(variant.course.times_s) - variant.truth_deg
        results.append(
            Trial(
                seed, variant.name, found.kind.value, len(found.steps),
                max((step.gain for step in found.steps), default=0.0), *_nearest(found, variant),
                float(np.median(np.abs((off + 180) % 360 - 180))), variant.sounded,
            )
        )  # fmt: skip
    return results


def _nearest(found: Trajectory, truth: Variant) -> tuple[float | None, float | None]:
    if not found.steps or not truth.by_deg:
        return None, None
    step = min(found.steps, key=lambda step: abs(step.at_s - truth.at_s))
    return step.at_s - truth.at_s, abs(math.remainder(step.by_deg - truth.by_deg, 360))


def summarise(results: Sequence[Trial]) -> dict[str, Any]:
    """Shares by kind of take."""
    constant = [t for t in results if t.truth == "constant"]
    moving = [t for t in results if t.truth == "moving"]
    figures: dict[str, Any] = {
        "takes": len(constant),
        "constant": {
            "called_stepped": _share(t.n_steps > 0 for t in constant),
            "called_moving": _share(t.found == Kind.MOVING for t in constant),
        },
        "moving": {
            "called_moving": _share(t.found == Kind.MOVING for t in moving),
            "median_error_deg": float(np.median([t.path_error_deg for t in moving])),
        },
    }
    for name in ("sound steps", "picture steps"):
        of_name = [t for t in results if t.truth == name]
        audible = [t for t in of_name if t.sounded > 0.25]
        figures[name] = {
            "called_stepped": _share(t.n_steps > 0 for t in of_name),
            "within_2_s": _share(_is_near(t) for t in of_name),
            "within_2_s_where_it_sounds": _share(_is_near(t) for t in audible),
            "within_15_deg": _share(t.error_deg is not None and t.error_deg <= 15 for t in of_name),
        }
    return figures


def _is_near(trial: Trial) -> bool:
    return trial.error_s is not None and abs(trial.error_s) <= _NEAR_S


def _share(conditions: Iterable[bool]) -> float:
    """Of those that hold; NaN of none."""
    held = [bool(condition) for condition in conditions]
    return round(float(np.mean(held)), 4) if held else math.nan


def run(
    n_takes: int, *, seed: int, report: Path | None, weights: Path | None, workers: int
) -> dict[str, Any]:
    """Render, trace, print, and return the figures."""
    one = partial(trials, conditions=Conditions(duration_s=60.0), weights=weights)
    with Processes(workers) as pool:
        seeds = range(seed, seed + n_takes)
        results = [
            trial
            for of_scene in tqdm(pool.map(one, seeds), total=n_takes, unit="scene")
            for trial in of_scene
        ]
    figures = summarise(results)
    print(as_json(figures, indent=1))
    if report is not None:
        write_report(report, {**figures, "answers": [asdict(trial) for trial in results]})
    return figures
