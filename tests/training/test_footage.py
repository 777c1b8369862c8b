"""Own footage: windows equal what a take reads, set right, and a run goes on where it was."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from model.errors import MediaError, UnusableContent
from model.media.encode import write_audio
from model.scoring import Window
from model.take import Take, Track
from tests.training.test_evaluate_lag import flickering
from training.data import footage
from training.data.footage import Footage, find_footage, main, read_state
from training.data.scenes import Conditions, draw_scene, render_sound
from training.data.takes import TakeFiles, write_take
from training.data.windows import kept_windows, load_window

ROTATED_DEG = 100.0
SCENE = draw_scene(2, Conditions(duration_s=5.0, n_sources=1, snr_db=20.0, flawless=True))


@pytest.fixture(scope="session")
def turned(tmp_path_factory: pytest.TempPathFactory) -> TakeFiles:
    """A short take whose field is turned."""
    return write_take(
        SCENE, tmp_path_factory.mktemp("footage"), "turned", rotate_deg=ROTATED_DEG, height=128,
        rate_hz=10.0, colour=False,
    )  # fmt: skip


@pytest.fixture
def takes(turned: TakeFiles, tmp_path: Path) -> Path:
    """A folder with that take and its manifest."""
    folder = tmp_path / "takes"
    folder.mkdir()
    for path in (turned.video, turned.audio):
        (folder / path.name).symlink_to(path)
    line = {"video": "turned.mp4", "audio": "turned.wav", "rotated_deg": ROTATED_DEG}
    (folder / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def read(video: Path, audio: Path) -> torch.Tensor:
    with Take(video, Track((audio,))) as take:
        ((start_s, duration_s),) = take.choose_windows(8)
        window = take.window(start_s, duration_s)
    assert window is not None
    return window.covariance


def test_windows_equal_what_a_take_reads(takes: Path, tmp_path: Path) -> None:
    assert main([str(takes), str(tmp_path / "out")]) == 0

    (path,) = kept_windows(tmp_path / "out")
    window = load_window(path)
    with Take(takes / "turned.mp4", Track((takes / "turned.wav",))) as take:
        ((start_s, duration_s),) = take.choose_windows(8)
        expected = take.window(start_s, duration_s)
    assert expected is not None
    assert (window.start_s, window.duration_s) == pytest.approx((start_s, duration_s))
    torch.testing.assert_close(window.covariance, expected.covariance.float().double())
    torch.testing.assert_close(window.motion.maps, expected.motion.maps.half().float())
    torch.testing.assert_close(window.motion.energy, expected.motion.energy)


def test_a_known_rotation_is_taken_back(takes: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "right.wav", render_sound(SCENE, samplerate=48_000).numpy(), 48_000)

    assert main([str(takes / "manifest.jsonl"), str(tmp_path / "out")]) == 0

    (path,) = kept_windows(tmp_path / "out")
    right = read(takes / "turned.mp4", tmp_path / "right.wav")
    turned = read(takes / "turned.mp4", takes / "turned.wav")
    covariance = load_window(path).covariance
    assert float((covariance - right).norm() / right.norm()) < 1e-3
    assert float((turned - right).norm() / right.norm()) > 0.1


def test_a_run_goes_on_where_it_was(takes: Path, tmp_path: Path) -> None:
    command = [str(takes), str(tmp_path / "out")]
    assert main(command) == 0
    (path,) = kept_windows(tmp_path / "out")
    first = path.stat().st_mtime_ns

    assert main(command) == 0
    assert path.stat().st_mtime_ns == first

    track = takes / "turned.wav"
    content = track.read_bytes()
    track.unlink()
    track.write_bytes(content)
    os.utime(track, ns=(1, 1))
    assert main([*command, "--workers", "2"]) == 0
    (again,) = kept_windows(tmp_path / "out")
    assert again.name == path.name
    second = again.stat().st_mtime_ns
    assert second != first

    assert main([*command, "--per-take", "1"]) == 0  # perhaps of another place in it
    assert again.stat().st_mtime_ns != second


def test_of_a_take_that_is_cut_anew_nothing_older_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (Footage(Path(f"{name}.mp4"), Path(f"{name}.wav")) for name in "ab")
    monkeypatch.setattr(footage, "windows_of", lambda _take, most: [flickering(50)] * most)

    counts = [footage.cut(*each).windows for each in ((one, tmp_path, 3), (other, tmp_path, 2))]
    assert counts == [3, 2]
    footage.cut(one, tmp_path, 1)

    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(
        [f"{one.key}-0000", f"{other.key}-0000", f"{other.key}-0001"]
    )


def test_what_cannot_be_used_is_left_out_and_named(
    takes: Path, turned: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (takes / "alone.mp4").symlink_to(turned.video)  # no track
    (takes / "twice.mp4").symlink_to(turned.video)
    for suffix in (".wav", ".flac"):
        (takes / f"twice{suffix}").symlink_to(turned.audio)
    (takes / "damaged.mp4").write_bytes(b"no video")
    (takes / "damaged.wav").symlink_to(turned.audio)
    write_audio(takes / "silent.wav", 0 * render_sound(SCENE, samplerate=48_000).numpy(), 48_000)
    (takes / "silent.mp4").symlink_to(turned.video)

    assert main([str(takes), str(tmp_path / "out")]) == 0

    told = capsys.readouterr().err
    assert "1 windows of 1 takes" in told
    assert "4 times" in told
    for name in ("alone", "twice", "damaged", "silent"):
        assert any(name in line for line in told.splitlines() if line.startswith("  "))
    assert len(read_state(tmp_path / "out")) == 4


class Spans:
    """A take of four windows: one cannot be read, one is short, one silent, and one can be used."""

    def __init__(self, *, foreign: bool = False) -> None:
        self.placement = SimpleNamespace(foreign=foreign)
        self.warnings = ["what was said before"]

    def __enter__(self) -> Spans:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def choose_windows(self, _most: int) -> list[tuple[float, float]]:
        return [(0.0, 10.0), (10.0, 3.9), (20.0, 10.0), (30.0, 10.0)]

    def window(self, start_s: float, duration_s: float) -> Window | None:
        if start_s == 0:
            self.warnings.append("the picture is damaged")
            return None
        window = flickering(round(10 * duration_s))
        silent = window.covariance * (start_s != 20)
        return replace(window, start_s=start_s, covariance=silent)


def test_windows_that_teach_nothing_are_told_in_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take = Footage(Path("a.mp4"), Path("a.wav"))
    monkeypatch.setattr(footage, "Take", lambda *_: Spans())

    damaged, short, silent, window = footage.windows_of(take, 4)

    assert damaged == "the picture is damaged"
    assert short == "a.mp4 has a window of 3.9 s only at 10.0 s; training needs 4 s."
    assert silent == "a.wav is silent for 10 s at 20.0 s."
    assert isinstance(window, Window)
    assert window.start_s == 30
    monkeypatch.setattr(footage, "Take", lambda *_: Spans(foreign=True))
    with pytest.raises(UnusableContent, match=r"a\.wav does not belong to a\.mp4"):
        list(footage.windows_of(take, 4))


def test_a_take_is_another_one_by_its_files_or_its_rotation() -> None:
    takes = [
        Footage(Path(f"{day}/{video}.mp4"), Path(f"{day}/a.wav"), rotated_deg)
        for day in ("one", "two") for video in "ab" for rotated_deg in (0.0, 90.0)
    ]  # fmt: skip

    assert len({take.key for take in takes}) == len(takes)


def test_a_take_of_several_lines_is_cut_once(
    takes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = takes / "manifest.jsonl"
    manifest.write_text(3 * manifest.read_text())

    assert main([str(manifest), str(tmp_path / "out"), "--workers", "2"]) == 0

    assert "1 windows of 1 takes." in capsys.readouterr().err
    assert len(kept_windows(tmp_path / "out")) == 1


def test_weak_takes_teach_nothing(takes: Path) -> None:
    lines = [
        {"video": "turned.mp4", "audio": "turned.wav", "tier": tier} for tier in ("weak", "strong")
    ]
    (takes / "two.jsonl").write_text("\n".join(map(json.dumps, lines)))

    found, reasons = find_footage(takes / "two.jsonl")

    assert found == [Footage(takes / "turned.mp4", takes / "turned.wav")]
    assert len(reasons) == 1


def test_nothing_to_use_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")

    assert main([str(tmp_path), str(tmp_path / "out")]) == 2

    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training")]
    assert len(lines) == 1
    assert "a.mp4" in lines[0]
    with pytest.raises(MediaError, match="missing"):
        find_footage(tmp_path / "missing.jsonl")
