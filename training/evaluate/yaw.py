"""How far the found rotation is off, over takes with known answers.

Every take is judged as the product judges it. Its field is turned by each rotation of the manifest
in turn (on the covariances, exactly), and the answer is compared with what would undo it. A take
counts once, its rotations averaged; "group-averaged" counts each group once.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from model import features
from model.arcs import cover
from model.checkpoint import Calibration
from model.decision import moving_windows
from model.detections import ObjectScorer, own_of, read_detections
from model.errors import OptionError
from model.evidence import best_yaw_deg
from model.learned import scorers_for
from model.output import whole_file
from model.scoring import Scorer, Verdict, Window, judge, score
from model.take import Take, Track
from training.data.manifest import WEAK, KnownTake, read_manifest
from training.figures import write_report

WRONG_DEG = 30.0
BACK_DEG = 150.0


@dataclass(frozen=True)
class Answer:
    """One take under one rotation.

    Attributes
    ----------
    error_deg : distance of the answer from the right rotation, 0 to 180.
    covered : whether the reported arcs hold the right rotation.
    cue_errors_deg : the same distance for each cue's own best.
    """

    take: str
    group: str
    tier: str
    rotation_deg: float
    found_deg: float
    error_deg: float
    confidence: float
    verdict: str
    covered: bool
    cue_errors_deg: dict[str, float]

    @property
    def wrong_and_confident(self) -> bool:
        """A verdict was given and it is more than `WRONG_DEG` off."""
        return self.verdict != Verdict.UNDECIDABLE and self.error_deg > WRONG_DEG


def read_windows(known: KnownTake, *, n_windows: int, device: str) -> list[Window]:
    """The windows of a take that the product would judge.

    Raises
    ------
    AvsaError : the take cannot be read, or nothing of its picture where the sound is.
    """
    with Take(known.video, Track((known.audio,)), device=device) as take:
        return moving_windows(take, take.choose_windows(n_windows))


def answer(
    known: KnownTake,
    windows: Sequence[Window],
    rotation_deg: float,
    calibration: Calibration,
    scorers: Sequence[Scorer],
) -> Answer:
    """Judge a take whose field is first turned by a rotation."""
    turned = [
        replace(w, covariance=features.rotated(w.covariance, math.radians(rotation_deg)))
        for w in windows
    ]
    scored = [score(window, scorers, calibration) for window in turned]
    judgement = judge(scored, calibration, tolerance_deg=10.0)
    right_deg = -(known.rotated_deg + rotation_deg)

    def off(found_deg: float) -> float:
        return abs(math.remainder(found_deg - right_deg, 360))

    cues = {name: sum(w.cues[name] for w in scored[1:]) + scored[0].cues[name]
            for name in scored[0].cues}  # fmt: skip
    return Answer(
        take=known.name,
        group=known.group,
        tier=known.tier,
        rotation_deg=rotation_deg,
        found_deg=judgement.rotate_field_ccw_deg,
        error_deg=off(judgement.rotate_field_ccw_deg),
        confidence=judgement.confidence,
        verdict=judgement.verdict.value,
        covered=cover(judgement.arcs_deg, right_deg),
        cue_errors_deg={name: off(best_yaw_deg(cue)) for name, cue in cues.items()},
    )  # fmt: skip


def by_take(answers: Iterable[Answer], value: Callable[[Answer], float]) -> dict[str, float]:
    """Mean of a value over each take's rotations."""
    values: dict[str, list[float]] = defaultdict(list)
    for given in answers:
        values[given.take].append(value(given))
    return {take: float(np.mean(v)) for take, v in values.items()}


def by_group(answers: Sequence[Answer], value: Callable[[Answer], float]) -> dict[str, float]:
    """Mean of a value over each group's takes."""
    groups = {given.take: given.group for given in answers}
    values: dict[str, list[float]] = defaultdict(list)
    for take, mean in by_take(answers, value).items():
        values[groups[take]].append(mean)
    return {group: float(np.mean(v)) for group, v in values.items()}


def summarise(answers: Sequence[Answer]) -> dict[str, Any]:
    """Figures of a set of answers."""

    def share(condition: Callable[[Answer], bool]) -> dict[str, float]:
        takes = by_take(answers, lambda a: float(condition(a)))
        groups = by_group(answers, lambda a: float(condition(a)))
        return {
            "takes": round(float(np.mean(list(takes.values()))), 4),
            "group_averaged": round(float(np.mean(list(groups.values()))), 4),
        }

    errors = by_take(answers, lambda a: a.error_deg)
    group_errors = by_group(answers, lambda a: a.error_deg)
    verdicts = {v.value: share(lambda a, v=v: a.verdict == v)["takes"] for v in Verdict}  # type: ignore[misc]
    return {
        "takes": len(errors),
        "groups": len(group_errors),
        "median_error_deg": round(float(np.median(list(errors.values()))), 2),
        "group_median_error_deg": round(float(np.median(list(group_errors.values()))), 2),
        "within_10_deg": share(lambda a: a.error_deg <= 10),
        "within_20_deg": share(lambda a: a.error_deg <= 20),
        "within_30_deg": share(lambda a: a.error_deg <= 30),
        "beyond_150_deg": share(lambda a: a.error_deg > BACK_DEG),
        "verdicts": verdicts,
        "wrong_and_confident": share(lambda a: a.wrong_and_confident),
        "arcs_cover": share(lambda a: a.covered),
    }


def risk_coverage(answers: Sequence[Answer]) -> list[tuple[float, float]]:
    """(coverage, risk): share of answers kept by confidence, and of these, wrong by `WRONG_DEG`."""
    ranked = sorted(answers, key=lambda a: -a.confidence)
    wrong = np.cumsum([a.error_deg > WRONG_DEG for a in ranked])
    return [
        (round((i + 1) / len(ranked), 4), round(float(wrong[i]) / (i + 1), 4))
        for i in range(len(ranked))
    ]


def build(answers: Sequence[Answer], calibration: Calibration) -> dict[str, Any]:
    """The report: figures overall and by tier, cue by cue, and every answer."""
    tiers = sorted({a.tier for a in answers})
    decidable = [a for a in answers if a.tier != WEAK] or list(answers)

    def share_of(cue: str) -> float:
        takes = by_take(decidable, lambda a: float(a.cue_errors_deg[cue] <= 20))
        return round(float(np.mean(list(takes.values()))), 4)

    return {
        "weights": {"name": calibration.name, "sha256": calibration.sha256},
        "overall": summarise(answers),
        "tiers": {tier: summarise([a for a in answers if a.tier == tier]) for tier in tiers},
        "cues_within_20_deg": {name: share_of(name) for name in decidable[0].cue_errors_deg},
        "risk_coverage": risk_coverage(decidable),
        "answers": [asdict(a) for a in answers],
    }


def run(
    manifest: Path,
    *,
    report: Path | None = None,
    plot: Path | None = None,
    calibration: Calibration,
    n_windows: int = 8,
    device: str = "cpu",
    detections: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a manifest, print its tables, write what is asked for, return the report.

    `detections` are what a detector found in the takes (`model.detections`), one more cue.

    Raises
    ------
    AvsaError : the manifest or one of its files cannot be read; the file is named.
    """
    takes = read_manifest(manifest)
    objects = _objects(detections, takes) if detections is not None else {}
    shared = scorers_for(calibration, device)
    answers = []
    for known in tqdm(takes, unit="take", desc="judging"):
        windows = read_windows(known, n_windows=n_windows, device=device)
        scorers = [*shared, *objects.get(known.name, [])]
        answers += [answer(known, windows, r, calibration, scorers) for r in known.rotations_deg]
    figures = build(answers, calibration)
    print(table(figures))
    if report is not None:
        write_report(report, figures)
    if plot is not None:
        draw(figures, plot)
    return figures


def _objects(detections: Path, takes: Sequence[KnownTake]) -> dict[str, list[Scorer]]:
    """The detections of each take as a scorer: one without any is no mistake among many.

    Raises
    ------
    OptionError : none are of any take, or some may be of several videos.
    """
    found = read_detections(detections)
    stems = Counter(video.stem for video in {known.video for known in takes})
    for clip in found:
        if stems[clip] > 1:
            raise OptionError(
                f"The detections {detections} are of the clip {clip}, which {stems[clip]} videos "
                "of the manifest are called: rename these."
            )
    own = {known.name: own_of(found, known.video.stem) for known in takes}
    if not any(own.values()):
        raise OptionError(
            f'The detections {detections} hold no box of any take of the manifest: their "clip" '
            "should be a video's name without its suffix, or be left out."
        )
    return {name: [ObjectScorer(boxes)] for name, boxes in own.items()}


def table(figures: dict[str, Any]) -> str:
    """The figures for a terminal: a line for each take, then for each tier."""
    lines = [f"{'take':28} {'tier':10} {'error':>7} {'confidence':>10}  verdicts"]
    answers = [Answer(**fields) for fields in figures["answers"]]
    tiers = {a.take: a.tier for a in answers}
    confidence = by_take(answers, lambda a: a.confidence)
    for take, error in by_take(answers, lambda a: a.error_deg).items():
        given = [a.verdict for a in answers if a.take == take]
        counts = ", ".join(f"{given.count(v)} {v}" for v in sorted(set(given)))
        lines.append(
            f"{take[:28]:28} {tiers[take]:10} {error:6.1f}° {confidence[take]:10.0%}  {counts}"
        )
    header = ("takes", "median", "<=10°", "<=20°", "<=30°", ">150°", "verdict", "wrong")
    lines += ["", f"{'':22}" + "".join(f"{name:>9}" for name in header)]
    for name, s in [*figures["tiers"].items(), ("all", figures["overall"])]:
        for how in ("takes", "group_averaged"):
            median = s["median_error_deg" if how == "takes" else "group_median_error_deg"]
            decided = 1 - s["verdicts"]["undecidable"]
            lines.append(
                f"{name + (' by group' if how != 'takes' else ''):22}"
                f"{s['takes' if how == 'takes' else 'groups']:9d}{median:8.1f}°"
                + "".join(
                    f"{s[key][how]:9.0%}"
                    for key in ("within_10_deg", "within_20_deg", "within_30_deg", "beyond_150_deg")
                )
                + (f"{decided:9.0%}" if how == "takes" else f"{'':9}")
                + f"{s['wrong_and_confident'][how]:9.1%}"
            )
    lines += ["", "each cue alone, within 20° (weak takes apart):"]
    lines += [f"  {name:18} {share:5.0%}" for name, share in figures["cues_within_20_deg"].items()]
    return "\n".join(lines)


def draw(figures: dict[str, Any], path: Path) -> None:
    """Errors by tier and the risk-coverage curve, as PNG."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    errors, risk = figure.subplots(1, 2)
    answers = [Answer(**fields) for fields in figures["answers"]]
    for tier in figures["tiers"]:
        of_tier = sorted(
            by_take([a for a in answers if a.tier == tier], lambda a: a.error_deg).values()
        )
        shares = np.arange(1, len(of_tier) + 1) / len(of_tier)
        errors.step([0, *of_tier], [0, *shares], where="post", label=f"{tier} ({len(of_tier)})")
    errors.set(xlabel="error, degrees", ylabel="share of takes", xlim=(0, 180), ylim=(0, 1.02))
    errors.set_xticks([0, 10, 20, 30, 60, 90, 120, 150, 180])
    errors.grid(alpha=0.3)
    errors.legend(loc="lower right")
    coverage, wrong = np.array(figures["risk_coverage"]).T
    risk.plot(coverage, wrong, color="#c8501e")
    risk.set(xlabel="share of answers given, most confident first", xlim=(0, 1), ylim=(0, 1))
    risk.set(ylabel=f"of these, more than {WRONG_DEG:.0f}° wrong")
    risk.grid(alpha=0.3)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, format="png")
