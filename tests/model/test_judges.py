"""An AVSA checkpoint as the judge of a take: known scores answer the right rotation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.align import Outputs, align
from model.ambisonics import encode, rotate_yaw
from model.checkpoint import AVSA, Calibration, Method, save_avsa
from model.errors import MediaError, OptionError
from model.judges import AvsaScorer, calibration_beside, judge_for
from model.media import file_sha256
from model.media.encode import write_audio, write_video
from model.moments import Moment
from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.options import Options
from model.take import Take, Track
from model.viewpoints import Sound, SoundInput
from training.data.takes import TakeFiles

K = 4
TINY = AvsaConfig(
    widths=(4, 4, 4, 4), embedding=4, translator="none", viewpoints=K, crop_px=32, n_frames=4,
    sound=SoundInput(Sound.CARDIOID, n_bands=24), sound_s=0.5,
)  # fmt: skip


class Constructed(AvsaNetwork):
    """Embeddings that are the level in front: bright crops fit loud directions, exactly."""

    def encode_video(self, crops: torch.Tensor) -> torch.Tensor:
        bright = crops.mean(dim=(2, 3, 4, 5))[..., None]
        return torch.cat([bright, 1 - bright, bright * 0, bright * 0], -1)

    def encode_audio(self, sound: torch.Tensor) -> torch.Tensor:
        front, *_, back = (sound[:, :, i].mean(dim=(-1, -2)) for i in (0, 1, 2))
        loud = torch.sigmoid((front - back) / 3)[..., None]
        return torch.cat([loud, 1 - loud, loud * 0, loud * 0], -1)

    def embed_video(self, video: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(video, dim=-1)

    def embed_audio(self, audio: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(audio, dim=-1)


def bright_at(folder: Path, azimuth_deg: float, rotate_deg: float) -> tuple[Path, Path]:
    """A picture that is white around an azimuth, and noise from there, turned."""
    height, rate = 64, 16
    azimuths = 180 - 360 * (np.arange(2 * height) + 0.5) / (2 * height)
    lit = np.abs((azimuths - azimuth_deg + 180) % 360 - 180) < 45
    frames = np.zeros((4 * rate, height, 2 * height, 3), np.uint8)
    frames[:, :, lit] = 255
    write_video(folder / "v.mp4", frames, rate_hz=rate)
    noise = np.random.default_rng(0).normal(size=4 * 24_000) * 0.1
    noise *= np.sin(np.arange(len(noise)) / 24_000 * 9) ** 2
    field = encode(noise, np.radians(azimuth_deg), 0.0, order=1)
    write_audio(folder / "a.wav", rotate_yaw(field, np.radians(rotate_deg)), 24_000)
    return folder / "v.mp4", folder / "a.wav"


@pytest.mark.parametrize(("at_deg", "rotate_deg"), [(0, 0), (90, -60), (-90, 135), (180, 90)])
def test_known_scores_answer_the_right_rotation(
    tmp_path: Path, at_deg: float, rotate_deg: float
) -> None:
    video, audio = bright_at(tmp_path, at_deg, rotate_deg)
    scorer = AvsaScorer(Constructed(TINY), translated=False)
    with Take(video, Track((audio,)), looks=TINY) as take:
        window = take.window(0.0, 4.0)

    assert window is not None
    assert len(window.moments) == 4
    best = int(scorer(window).cues[AVSA].argmax())
    assert (best + 1) * 5 - 180 == pytest.approx(-rotate_deg, abs=5)


def test_a_window_counts_alike_however_many_moments_it_has() -> None:
    torch.manual_seed(0)
    scorer = AvsaScorer(Constructed(TINY), translated=False)
    moments = [
        Moment(torch.rand(K, 3, 4, 32, 32), torch.rand(20, 24, 10).double()) for _ in range(2)
    ]

    each = [scorer.log_evidence([moment]) for moment in moments]

    torch.testing.assert_close(scorer.log_evidence(moments), (each[0] + each[1]) / 2)
    assert not scorer.log_evidence([]).any()


@pytest.mark.parametrize("beside", [True, False])
def test_another_calibration_of_a_checkpoint_comes_first(tmp_path: Path, beside: bool) -> None:
    checkpoint = kept(tmp_path)
    calibration(file_sha256(checkpoint), 0.25).save(tmp_path / "other.json")
    if not beside:
        calibration_beside(checkpoint).unlink()

    judge = judge_for(Method.AVSA, checkpoint=checkpoint, weights=tmp_path / "other.json")

    assert judge.calibration.least_confidence == 0.25


def test_viewpoints_that_do_not_divide_the_rotations_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "avsa.safetensors"
    save_avsa(path, AvsaNetwork(replace(TINY, viewpoints=5)), {})

    with pytest.raises(MediaError, match="5 viewpoints, which do not divide 72"):
        judge_for(Method.AVSA, checkpoint=path)


def kept(folder: Path, *, least_confidence: float = 0.0) -> Path:
    torch.manual_seed(0)
    path = folder / "avsa.safetensors"
    save_avsa(path, AvsaNetwork(TINY), {"translated": False})
    calibration(file_sha256(path), least_confidence).save(calibration_beside(path))
    return path


def calibration(scorer: str, least_confidence: float = 0.0) -> Calibration:
    return Calibration(
        "test", {AVSA: 1.0}, 0.5, 6.0, 1.0, 0.0, 0.9, least_confidence, scorer=scorer
    )


def test_align_judges_by_the_checkpoint(tmp_path: Path, take: TakeFiles) -> None:
    checkpoint = kept(tmp_path)
    report = align(
        take.video, Track((take.audio,)), Outputs(audio=tmp_path / "out.wav"),
        Options(method=Method.AVSA, checkpoint=checkpoint, n_windows=1),
    )  # fmt: skip

    judge = judge_for(Method.AVSA, checkpoint=checkpoint)
    with Take(take.video, Track((take.audio,)), looks=judge.looks) as opened:
        window = opened.window(*opened.choose_windows(1)[0])
    assert window is not None
    expected = (int(judge.scorers[0](window).cues[AVSA].argmax()) + 1) * 5 - 180
    assert report["rotate_field_ccw_deg"] == pytest.approx(expected, abs=2.5)
    assert report["model"]["scorer_sha256"] == file_sha256(checkpoint)
    assert [cue["name"] for cue in report["cues"]] == [AVSA]
    assert (tmp_path / "out.wav").exists()


def test_a_checkpoint_without_its_own_calibration_is_refused(tmp_path: Path) -> None:
    checkpoint = kept(tmp_path)
    calibration("0" * 64).save(calibration_beside(checkpoint))
    with pytest.raises(MediaError, match=r"SHA-256 000.*avsa\.safetensors"):
        judge_for(Method.AVSA, checkpoint=checkpoint)

    calibration_beside(checkpoint).unlink()
    with pytest.raises(MediaError, match=r"no calibration .*--method avsa --checkpoint"):
        judge_for(Method.AVSA, checkpoint=checkpoint)
    with pytest.raises(OptionError, match=r"checkpoint None .* method avsa"):
        judge_for(Method.AVSA)
    with pytest.raises(OptionError, match="method fused"):
        judge_for(Method.FUSED, checkpoint=checkpoint)
