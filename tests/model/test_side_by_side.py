"""A reference's answer beside the picture's: Bayes' rule by counting, and whole jobs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from model.align import Outputs, align
from model.ambisonics import Fix, rotate_yaw
from model.checkpoint import load_calibration
from model.commandline import main
from model.errors import OptionError
from model.evidence import yaws_deg
from model.options import Options
from model.orientation import Orientation
from model.posterior import NEAR_DEG, credible_arcs
from model.recordings.comparison import Comparison, Outcome
from model.scoring import Judgement, Verdict
from model.side_by_side import (
    Reference,
    belief_in_reference,
    check_reference,
    find_reference,
    side_by_side,
)
from model.take import Take, Track
from model.trajectory.kinds import Kind, Trajectory
from tests.model.fields import RATE, field_of, with_ambisonic_track, with_plain_track
from training.data.takes import TakeFiles

LEFT_RIGHT = {"outcome": Outcome.MIRRORED, "flip": "Y"}
UP_DOWN = {"outcome": Outcome.MIRRORED, "flip": "Z"}
UPSIDE_DOWN = {"tilt_deg": 178.0, "tilt_interval_deg": (170.0, 180.0)}
FRONT_DEG = 30.0  # by how much the example's field is rotated against the camera's


@pytest.fixture(scope="module")
def fitting(upright: Path) -> np.ndarray:
    """The example's field as it fits the picture."""
    return field_of(upright)


@pytest.fixture(scope="module")
def camera(take: TakeFiles, fitting: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's video with a noisy ambisonic track of the camera's own, which fits it."""
    noise = np.random.default_rng(0).standard_normal(fitting.shape) * 0.1 * fitting[0].std()
    return with_ambisonic_track(
        take.video, fitting + noise, tmp_path_factory.mktemp("camera") / "camera.mp4"
    )


# --- belief --------------------------------------------------------------------------------------


def test_belief_is_how_often_the_reference_is_right() -> None:
    """Bayes by counting: pictures are right in `confidence` of takes, references in 95 %."""
    rng, n, confidence = np.random.default_rng(0), 400_000, 0.8
    near_deg = NEAR_DEG + 2.5  # of whole bins
    truth = rng.uniform(-180, 180, n)
    right = rng.random(n) < 0.95
    told = np.where(right, truth, rng.uniform(-180, 180, n))
    seen = np.where(rng.random(n) < confidence, truth, rng.uniform(-180, 180, n))
    agree = np.abs(np.angle(np.exp(1j * np.radians(told - seen)), deg=True)) <= near_deg

    assert belief_in_reference(1.0, confidence) == pytest.approx(right[agree].mean(), abs=0.005)
    assert belief_in_reference(0.0, confidence) == pytest.approx(right[~agree].mean(), abs=0.005)


def test_a_picture_that_says_nothing_leaves_the_prior() -> None:
    assert belief_in_reference(7 / 72, 0.9) == pytest.approx(0.95)


def answer(yaw_deg: float, **changed: object) -> Comparison:
    known = Comparison(
        Outcome.ROTATED, yaw_deg, (yaw_deg - 1.5, yaw_deg + 1.5), np.eye(3), 0.0, (0.0, 2.0), None,
        False, 0.9, 0.7, (1.0, 1.0, 1.0), (), (), None,
    )  # fmt: skip
    return replace(known, **changed)  # type: ignore[arg-type]


def seen(yaw_deg: float, *, deviation_deg: float = 6.0, confidence: float = 0.95) -> Judgement:
    off = torch.tensor([math.remainder(yaw - yaw_deg, 360) for yaw in yaws_deg()]).double()
    posterior = (-0.5 * (off / deviation_deg) ** 2).softmax(0)
    verdict = Verdict.ALIGNED if abs(yaw_deg) <= 10 else Verdict.MISALIGNED
    return Judgement(verdict, yaw_deg, credible_arcs(posterior, 0.9), confidence, posterior, [])


def together(comparison: Comparison, picture: Judgement) -> Judgement:
    found = Reference(Path("camera.mp4"), True, comparison)
    return side_by_side(found, picture, load_calibration(), tolerance_deg=10).together


def test_where_both_agree_the_reference_gives_the_angle() -> None:
    both = together(answer(31.0), seen(36.0, confidence=0.9))

    assert both.verdict is Verdict.MISALIGNED
    assert both.rotate_field_ccw_deg == 31.0
    assert both.arcs_deg == [(29.5, 32.5)]
    assert both.confidence > 0.99
    assert float(both.posterior.sum()) == pytest.approx(1)
    assert yaws_deg()[int(both.posterior.argmax())] == 30


@pytest.mark.parametrize("half_deg", [1.5, 10.0, 25.0])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_confidence_is_how_often_the_answer_is_within_15_degrees(
    half_deg: float, confidence: float
) -> None:
    """By counting, with references as wide as they say; each right as often as it should be."""
    rng, told, hits = np.random.default_rng(0), [], []
    for _ in range(400):
        truth, anywhere, elsewhere = rng.uniform(-180, 180, 3)
        wanders = truth + rng.normal() * half_deg / 1.645
        reference_deg = wanders if rng.random() < 0.95 else anywhere
        picture_deg = truth + 6 * rng.normal() if rng.random() < confidence else elsewhere
        interval = (reference_deg - half_deg, reference_deg + half_deg)
        both = together(
            answer(math.remainder(reference_deg, 360), interval_deg=interval),
            seen(math.remainder(picture_deg, 360), confidence=confidence),
        )
        told.append(both.confidence)
        hits.append(abs(math.remainder(both.rotate_field_ccw_deg - truth, 360)) <= NEAR_DEG)

    assert np.mean(told) == pytest.approx(np.mean(hits), abs=0.05)


def test_the_picture_keeps_its_angle_where_it_knows_better() -> None:
    wide = {"interval_deg": (6.0, 56.0)}
    both, alone = together(answer(31.0, **wide), seen(36.0)), together(answer(31.0), seen(36.0))

    assert both.rotate_field_ccw_deg == 36.0
    assert both.arcs_deg == seen(36.0).arcs_deg[:1]
    assert 0.95 < both.confidence < alone.confidence


def test_a_wide_reference_alone_is_no_verdict() -> None:
    nothing = replace(
        seen(36.0, confidence=0.2), posterior=torch.full((72,), 1 / 72, dtype=torch.float64),
        arcs_deg=[(-180.0, 180.0)],
    )  # fmt: skip
    wide, narrow = (
        together(answer(31.0, interval_deg=(31.0 - half, 31.0 + half)), nothing)
        for half in (29.0, 2.0)
    )

    assert narrow.verdict is Verdict.MISALIGNED
    assert wide.verdict is Verdict.UNDECIDABLE
    assert "only to ±29°" in wide.reasons[0]
    assert wide.confidence == pytest.approx(0.95 * math.erf(15 * 1.645 / 29 / 2**0.5), abs=0.01)


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.925, 0.95, 0.97])
def test_where_they_disagree_neither_is_sure_and_both_are_told(confidence: float) -> None:
    picture = seen(120.0, confidence=confidence)
    found = Reference(Path("camera.mp4"), True, answer(31.0))
    calibration = replace(load_calibration(), least_confidence=0.6)
    beside = side_by_side(found, picture, calibration, tolerance_deg=10)

    assert beside.together.confidence < max(confidence, 0.95) - 0.1
    assert len(beside.together.arcs_deg) == 2
    undecided = beside.together.verdict is Verdict.UNDECIDABLE
    assert undecided is (0.92 < confidence < 0.96)  # belief in the reference is 0.59 and 0.49
    assert not undecided or "disagree" in beside.together.reasons[0]
    assert "+31.0" in beside.note
    assert "+120.0" in beside.note


def test_two_answers_that_are_as_likely_get_no_verdict() -> None:
    both = together(answer(31.0), seen(120.0, confidence=0.95))

    assert both.verdict is Verdict.UNDECIDABLE
    assert "disagree" in both.reasons[0]


def test_an_arc_over_the_back_is_told_within_a_turn() -> None:
    (low, high), *_ = together(answer(179.5), seen(-178.0)).arcs_deg

    assert (low, high) == (178.0, -179.0)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (LEFT_RIGHT, "try --fix mirror"),
        (UP_DOWN, "Z negated"),
        (UPSIDE_DOWN, "try --fix invert"),
        ({"tilt_deg": 60.0, "tilt_interval_deg": (55.0, 65.0)}, "leans by 60"),
        ({"tilt_deg": 110.0, "tilt_interval_deg": (105.0, 115.0)}, "leans by 110"),
    ],
)
def test_what_no_yaw_mends_withholds_the_verdict(changed: dict[str, object], told: str) -> None:
    both = together(answer(31.0, **changed), seen(31.0))

    assert both.verdict is Verdict.UNDECIDABLE
    assert told in both.reasons[0]


@pytest.mark.parametrize(
    ("changed", "fix", "told"),
    [
        (LEFT_RIGHT, Fix.MIRROR, "leave --fix mirror away"),
        (UPSIDE_DOWN, Fix.INVERT, "leave --fix invert away"),
        (UP_DOWN, Fix.INVERT, "try --fix mirror instead of invert"),
        (UP_DOWN, Fix.MIRROR, "try --fix invert instead of mirror"),
        (LEFT_RIGHT, Fix.INVERT, "Z negated; leave --fix invert away"),
        (UPSIDE_DOWN, Fix.MIRROR, "Z negated; leave --fix mirror away"),
    ],
)
def test_what_mends_it_counts_from_what_was_done(
    changed: dict[str, object], fix: Fix, told: str
) -> None:
    """The reference's own reasons, which know of no fix, are not told then."""
    comparison = answer(31.0, reasons=("try --fix something",), **changed)
    found = Reference(Path("camera.mp4"), True, comparison, fix)
    beside = side_by_side(found, seen(31.0), load_calibration(), tolerance_deg=10)

    assert told in beside.together.reasons[0]
    assert "--fix" not in beside.note


@pytest.mark.parametrize("tilt_deg", [58.0, 120.0, 178.0])
def test_a_tilt_that_may_be_none_withholds_nothing(tilt_deg: float) -> None:
    comparison = answer(31.0, tilt_deg=tilt_deg, tilt_interval_deg=(10.0, 180.0))

    assert together(comparison, seen(31.0)).verdict is Verdict.MISALIGNED


def test_a_reference_that_tells_nothing_changes_nothing() -> None:
    picture = seen(31.0)

    assert together(answer(0.0, outcome=Outcome.UNDECIDABLE), picture) is picture


# --- whole jobs ----------------------------------------------------------------------------------


def test_the_cameras_own_track_is_used(camera: Path, fitting: np.ndarray, tmp_path: Path) -> None:
    """Late, and turned by an angle between the picture's bins."""
    turned = rotate_yaw(fitting, math.radians(FRONT_DEG + 2.3))[:, 2 * RATE :]
    soundfile.write(tmp_path / "track.wav", turned.T, RATE)

    report = align(
        camera, Track((tmp_path / "track.wav",)),
        Outputs(tmp_path / "out.wav", plot=tmp_path / "out.png"),
    )  # fmt: skip

    beside = report["reference"]
    assert report["verdict"] == "misaligned"
    assert report["rotate_field_ccw_deg"] == pytest.approx(-FRONT_DEG - 2.3, abs=0.5)
    assert beside["own"]
    assert beside["belief"] > 0.95
    assert beside["rotate_field_ccw_deg"] == report["rotate_field_ccw_deg"]
    assert abs(beside["picture"]["rotate_field_ccw_deg"] + FRONT_DEG + 2.3) <= 10
    assert beside["synchronisation"]["offset_s"] == pytest.approx(2.0, abs=0.002)
    assert any("camera's own ambisonic track" in warning for warning in report["warnings"])
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_a_mirrored_track_is_told_and_mended(
    camera: Path, fitting: np.ndarray, tmp_path: Path
) -> None:
    mirrored = fitting * np.array([[1], [-1], [1], [1]])
    soundfile.write(tmp_path / "track.wav", mirrored.T, RATE)

    report = align(camera, Track((tmp_path / "track.wav",)), Outputs())
    mended = align(camera, Track((tmp_path / "track.wav",), fix=Fix.MIRROR), Outputs())

    assert report["verdict"] == "undecidable"
    assert "--fix mirror" in report["reasons"][0]
    assert mended["verdict"] == "aligned"
    assert abs(mended["rotate_field_ccw_deg"]) < 0.5


@pytest.mark.parametrize("mirrored", [True, False])
def test_a_fault_is_told_also_where_the_rotation_is_followed(
    take: TakeFiles, upright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirrored: bool
) -> None:
    """The picture's angle stays, for the reference knows of one only."""
    field = field_of(take.audio) * np.array(Fix.MIRROR.signs(1) if mirrored else (1,) * 4)[:, None]
    soundfile.write(tmp_path / "track.wav", field.T, RATE)
    moving = Trajectory(Kind.MOVING, [], np.array([0.0, 6.0]), np.array([0.0, 40.0]))
    monkeypatch.setattr("model.trajectory.following.traced", lambda *_: moving)

    report = align(
        take.video, Track((tmp_path / "track.wav",)), Outputs(tmp_path / "out.wav"),
        Options(follow=True, reference=upright),
    )  # fmt: skip

    copied = (tmp_path / "out.wav").read_bytes() == (tmp_path / "track.wav").read_bytes()
    alone = report["reference"]["picture"]
    assert report["rotate_field_ccw_deg"] == alone["rotate_field_ccw_deg"]
    assert copied is mirrored
    assert report["trajectory"]["followed"] is not mirrored
    assert mirrored is (report["verdict"] == "undecidable")
    assert mirrored is ("try --fix mirror" in " ".join(report["reasons"]))


def test_another_recording_is_named(
    take: TakeFiles, upright: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(take.video), str(take.audio), "-o", str(tmp_path / "out.wav")]

    assert main([*command, "--reference", str(upright)]) == 0

    told = capsys.readouterr().out
    assert f"rotate_field_ccw_deg {-take.rotated_deg:+.1f}" in told
    assert f"By the reference {upright}: rotated" in told


def test_a_reference_that_cannot_serve_is_told_before_anything_is_judged(
    take: TakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "stereo.wav", np.zeros((RATE * 4, 2)), RATE)
    monkeypatch.delattr("model.align.decide")

    for path in (tmp_path / "stereo.wav", tmp_path / "no.wav", take.video):
        with pytest.raises(OptionError, match=f"reference {path} cannot serve"):
            align(take.video, Track((take.audio,)), Outputs(), Options(reference=path))
    with pytest.raises(OptionError, match="is the track itself"):
        align(take.video, Track((take.audio,)), Outputs(), Options(reference=take.audio))


def test_a_reference_that_cannot_serve_is_told(take: TakeFiles, tmp_path: Path) -> None:
    """The picture's own file too, where it is named: this one has no sound."""
    soundfile.write(tmp_path / "stereo.wav", np.zeros((RATE * 4, 2)), RATE)

    with Take(take.video, Track((take.audio,))) as opened:
        assert find_reference(opened, None) is None
        for path in (tmp_path / "stereo.wav", tmp_path / "no.wav", take.video):
            with pytest.raises(OptionError, match=f"reference {path} cannot serve"):
                find_reference(opened, path)


def test_a_track_is_no_reference_to_itself(take: TakeFiles, tmp_path: Path) -> None:
    """It would fit as it is, whatever the picture says."""
    link = tmp_path / "link.wav"
    link.symlink_to(take.audio)
    for reference in (take.audio, link):
        with pytest.raises(OptionError, match=f"{reference} is the track itself"):
            check_reference(reference, [take.audio])


@pytest.mark.parametrize("name", ["camera.mp4", "link.mp4"])
def test_the_pictures_own_sound_serves_undeclared_if_it_is_named(
    take: TakeFiles, fitting: np.ndarray, tmp_path: Path, name: str
) -> None:
    """By whatever name; where it is not, it may be anything."""
    camera = with_plain_track(take.video, fitting, tmp_path / "camera.mp4")
    (tmp_path / "link.mp4").symlink_to(camera)

    with Take(camera, Track((take.audio,))) as opened:
        assert find_reference(opened, None) is None
        found = find_reference(opened, tmp_path / name)

    assert found is not None
    assert found.own
    assert found.comparison.rotate_field_ccw_deg == pytest.approx(-take.rotated_deg, abs=1)


def test_a_named_reference_of_other_sound_says_so(
    camera: Path, fitting: np.ndarray, tmp_path: Path
) -> None:
    noise = np.random.default_rng(1).standard_normal(fitting.shape) * 0.1
    soundfile.write(tmp_path / "other.wav", noise.T, RATE)

    with Take(camera, Track((tmp_path / "other.wav",))) as opened:
        assert find_reference(opened, None) is None
        found = find_reference(opened, camera)

    assert found is not None
    assert found.comparison.outcome is Outcome.UNDECIDABLE
    assert "could not be laid" in found.comparison.reasons[0]


def test_another_recording_is_laid_by_its_own_sound(
    take: TakeFiles, camera: Path, fitting: np.ndarray, tmp_path: Path
) -> None:
    """Not as the camera's sound lies."""
    soundfile.write(tmp_path / "later.wav", fitting[:, RATE:].T, RATE)

    with Take(camera, Track((take.audio,))) as opened:
        found = find_reference(opened, tmp_path / "later.wav")

    assert found is not None
    laid = found.comparison.synchronisation
    assert laid is not None
    assert laid.offset_s == pytest.approx(-1.0, abs=0.002)


def test_a_reference_is_never_overwritten(take: TakeFiles, tmp_path: Path) -> None:
    second = tmp_path / "second.wav"
    soundfile.write(second, field_of(take.audio).T, RATE)

    with pytest.raises(OptionError, match=r"second\.wav"):
        align(take.video, Track((take.audio,)), Outputs(second), Options(reference=second))


def test_a_microphone_that_turned_is_not_compared_unasked(take: TakeFiles, camera: Path) -> None:
    turning = Orientation(Path("gyro.csv"), np.array([0.0, 6.0]), np.array([0.0, 90.0]))
    with Take(camera, Track((take.audio,)), orientation=turning) as opened:
        assert find_reference(opened, None) is None


def test_the_track_inside_the_picture_has_no_reference(camera: Path) -> None:
    assert align(camera, Track((camera,)), Outputs())["reference"] is None
