"""Costs as ratios, measured in one run: `make bench` shows each group relative to its fastest.

Nothing here asserts a time. In `make test` every function runs once, on little data, so that none
of them rots.
"""

from __future__ import annotations

import math
import os
import re
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from model import features
from model.ambisonics import ChannelLayout, YawRotation, rotate_yaw
from model.checkpoint import load_calibration
from model.decision import judge_take
from model.learned import LearnedScorer, scorers_for
from model.media import write_corrected
from model.media.encode import write_audio, write_video
from model.scoring import Evidence, Window, score
from model.sphere import tangent_crops, tangent_map
from model.take import Take, Track
from tests.benchmarks.scoring import scored, seen_and_heard
from tests.conftest import EXAMPLE
from tests.model.test_sphere import plain_crop
from training.data.scenes import draw_scene, render_picture, render_sound

YAWS = np.deg2rad(np.arange(0, 360, 5))
POWERS = [features.WW, features.YY, features.ZZ, features.XX]  # of W, Y, Z, X


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def field(request: pytest.FixtureRequest) -> torch.Tensor:
    seconds = 1 if request.config.getoption("benchmark_disable") else 10
    return torch.tensor(np.random.default_rng(0).uniform(-0.1, 0.1, (4, 24_000 * seconds)))


# --- all yaws at once against one after the other -------------------------------------------------


def rotate_and_transform(field: torch.Tensor) -> torch.Tensor:
    """The slow way: turn the waveform, transform, take the mel powers, for every yaw."""
    window = torch.hann_window(features.N_FFT, dtype=torch.float64)
    bank = features.mel_filterbank()
    powers = []
    for yaw in YAWS:
        turned = torch.tensor(rotate_yaw(field.numpy(), float(yaw)))
        spectra = torch.stft(
            turned, features.N_FFT, features.HOP, window=window, return_complex=True,
            pad_mode="constant",
        )  # fmt: skip
        powers.append(bank @ spectra.abs().square())
    return torch.stack(powers)


def from_covariance(field: torch.Tensor) -> torch.Tensor:
    cov = features.covariance(field)
    return torch.stack([features.rotated(cov, yaw)[..., POWERS] for yaw in YAWS.tolist()])


@pytest.mark.benchmark(group="powers of W, Y, Z, X for 72 yaws")
def test_yaws_by_rotating_each(benchmark: BenchmarkFixture, field: torch.Tensor) -> None:
    benchmark(rotate_and_transform, field)


@pytest.mark.benchmark(group="powers of W, Y, Z, X for 72 yaws")
def test_yaws_from_one_transform(benchmark: BenchmarkFixture, field: torch.Tensor) -> None:
    fast = benchmark(from_covariance, field)
    slow = rotate_and_transform(field[:, :24_000])

    fast = from_covariance(field[:, :24_000])
    torch.testing.assert_close(fast, slow.permute(0, 3, 2, 1), rtol=1e-9, atol=1e-12)


# --- a window, without decoding -------------------------------------------------------------------


@pytest.fixture(scope="module")
def stretch(
    request: pytest.FixtureRequest,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ten seconds of picture and sound, and the frames' times."""
    duration_s = 2.0 if request.config.getoption("benchmark_disable") else 10.0
    scene = draw_scene(5, replace(EXAMPLE, duration_s=duration_s))
    frames = render_picture(scene, height=features.PICTURE_SIZE[0], rate_hz=12.5).numpy()[..., 0]
    field = render_sound(scene, samplerate=features.SAMPLERATE).numpy()
    times_s = torch.arange(len(frames), dtype=torch.float64) / 12.5
    return torch.from_numpy(frames), torch.from_numpy(field), times_s


@pytest.mark.benchmark(group="a window of 10 s, one thread", timer=time.process_time)
def test_features_of_a_window(
    benchmark: BenchmarkFixture, stretch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    benchmark(seen_and_heard, *stretch)


@pytest.mark.benchmark(group="a window of 10 s, one thread", timer=time.process_time)
def test_features_and_scores_of_a_window(
    benchmark: BenchmarkFixture, stretch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    calibration = load_calibration()
    scorers = scorers_for(calibration)
    found = benchmark(lambda: score(seen_and_heard(*stretch), scorers, calibration))

    assert found.log_posterior.exp().sum() == pytest.approx(1)


# --- tangent crops --------------------------------------------------------------------------------

AZIMUTHS = [math.tau * k / 24 for k in range(24)]


@pytest.mark.benchmark(group="24 tangent crops of 112 x 112")
def test_crops_with_a_map_for_each(benchmark: BenchmarkFixture) -> None:
    frame = np.random.default_rng(0).random((360, 720, 3), dtype=np.float32)
    benchmark(lambda: [plain_crop(frame, a, 0.0, math.pi / 2, 112) for a in AZIMUTHS])


@pytest.mark.benchmark(group="24 tangent crops of 112 x 112")
def test_crops_with_one_map(benchmark: BenchmarkFixture) -> None:
    frame = torch.rand(1, 3, 360, 720)
    crop_map = tangent_map(0.0, math.pi / 2, (112, 112), (360, 720))
    benchmark(tangent_crops, frame, AZIMUTHS, crop_map)


# --- the corrected file ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wav(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    seconds = 1 if request.config.getoption("benchmark_disable") else 120
    path = tmp_path_factory.mktemp("wav") / "in.wav"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (48_000 * seconds, 4))
    soundfile.write(path, samples, 48_000, subtype="PCM_24")
    return path


def copy_through_soundfile(source: Path, target: Path) -> None:
    with (
        soundfile.SoundFile(source) as reader,
        soundfile.SoundFile(target, "w", 48_000, 4, "PCM_24") as writer,
    ):
        for block in reader.blocks(65_536, dtype="int32"):
            writer.write(block)


@pytest.mark.benchmark(group="a 24-bit track of two minutes")
def test_copy_through_soundfile(benchmark: BenchmarkFixture, wav: Path) -> None:
    benchmark(copy_through_soundfile, wav, wav.with_name("copy.wav"))


@pytest.mark.benchmark(group="a 24-bit track of two minutes")
def test_correct(benchmark: BenchmarkFixture, wav: Path) -> None:
    mix = YawRotation(ChannelLayout.of(4), 0.7).channel_mix
    benchmark(write_corrected, [wav], wav.with_name("out.wav"), mix)


# --- long takes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def takes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, tuple[Path, Path]]:
    """Takes of 2 and 10 minutes (in a test run: 4 and 8 seconds), by repeating a scene."""
    folder = tmp_path_factory.mktemp("takes")
    small = request.config.getoption("benchmark_disable")
    scene = draw_scene(3, EXAMPLE)
    frames = render_picture(scene, height=160 if small else 480, rate_hz=15.0).numpy()
    sound = render_sound(scene, samplerate=48_000).numpy()
    made = {}
    for minutes in (2, 10):
        seconds = 2 * minutes if small else 60 * minutes
        video, audio = folder / f"{minutes}.mp4", folder / f"{minutes}.wav"
        n = seconds * 15
        shown = (frames[i % len(frames)] for i in range(n))
        write_video(video, shown, rate_hz=15.0, preset="ultrafast")
        write_audio(audio, np.resize(sound.T, (seconds * 48_000, 4)).T, 48_000)
        made[minutes] = (video, audio)
    return made


@pytest.mark.benchmark(group="judging a take")
@pytest.mark.parametrize("minutes", [2, 10])
def test_judge(
    benchmark: BenchmarkFixture, takes: dict[int, tuple[Path, Path]], minutes: int
) -> None:
    video, audio = takes[minutes]
    calibration = load_calibration()
    scorers = scorers_for(calibration)

    def judge() -> None:
        with Take(video, Track((audio,))) as take:
            judge_take(take, calibration, n_windows=8, tolerance_deg=10, scorers=scorers)

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        judge, rounds=1 if benchmark.disabled else 3, warmup_rounds=1
    )


def test_what_jobs_could_share(
    takes: dict[int, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network's share of judging: all that jobs in one pass of it could save."""
    spent, network = [0.0], LearnedScorer.__call__

    def timed(scorer: LearnedScorer, window: Window) -> Evidence:
        began = time.perf_counter()
        evidence = network(scorer, window)
        spent[0] += time.perf_counter() - began
        return evidence

    monkeypatch.setattr(LearnedScorer, "__call__", timed)
    video, audio = takes[2]
    fused = load_calibration()
    scorers = scorers_for(fused)
    began = time.perf_counter()
    with Take(video, Track((audio,))) as take:
        judge_take(take, fused, n_windows=8, tolerance_deg=10, scorers=scorers)
    total = time.perf_counter() - began
    assert spent[0] > 0
    print(f"\nthe network's share of judging: {spent[0] / total:.0%} of {total:.1f} s")


# --- beside other processes -----------------------------------------------------------------------

SPINNING = {"GOMP_SPINCOUNT": "300000"}  # what libgomp does if nobody asks for anything
BUSY = "import time; end = time.time() + 120\nwhile time.time() < end: pass"


def test_how_threads_wait(request: pytest.FixtureRequest) -> None:
    """Scores of a window where they give up their core (as in the product) or spin."""
    if request.config.getoption("benchmark_disable"):
        (_, *answers), (_, *same) = scoring(1, 2, {}), scored(1, 2)
        assert answers == pytest.approx(same, abs=0.1)
        return
    for n_busy in (0, 1):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n_busy)]
        try:
            (waiting_s, *answers), (spinning_s, *same) = (
                scoring(10, 10, asked) for asked in ({}, SPINNING)
            )
        finally:
            for other in others:
                other.kill()
                other.wait()
        print(f"\nbeside {n_busy} busy processes: waiting / spinning {waiting_s / spinning_s:.2f}")
        assert answers == pytest.approx(same, abs=0.1)


def scoring(n_windows: int, seconds: int, asked: dict[str, str]) -> list[float]:
    """Seconds that a window of so many takes, and answers, in a process of its own."""
    without = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.scoring", str(n_windows), str(seconds)],
        check=True, capture_output=True, text=True, env={**without, **asked},
    )  # fmt: skip
    return [float(word) for word in done.stdout.split()]


# --- memory ---------------------------------------------------------------------------------------


def test_the_memory_of_a_correction_does_not_grow_with_the_file(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A 5-GB RF64 (in a test run: 300 MB) corrected in a process of its own."""
    gigabytes = 0.3 if request.config.getoption("benchmark_disable") else 5.0
    path = tmp_path / "long.wav"
    n_samples = int(gigabytes * 1e9) // 12
    sparse_rf64(path, n_samples)
    code = (
        "import sys; from pathlib import Path; from model.ambisonics import *; "
        "from model.media import write_corrected; "
        "mix = YawRotation(ChannelLayout.of(4), 0.7).channel_mix; "
        "write_corrected([Path(sys.argv[1])], Path(sys.argv[2]), mix); "
        "print(Path('/proc/self/status').read_text())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "out.wav"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip

    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert peak is not None
    peak_mb = int(peak[1]) / 1024
    print(f"\ncorrected {gigabytes} GB with {peak_mb:.0f} MB resident")
    assert (tmp_path / "out.wav").stat().st_size == path.stat().st_size
    assert soundfile.info(tmp_path / "out.wav").frames == n_samples
    assert peak_mb < 600


def sparse_rf64(path: Path, n_samples: int) -> None:
    """A 24-bit, 4-channel RF64 file of silence with a little sound, that takes no space."""
    data_size = 12 * n_samples
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 4, 48_000, 576_000, 12, 24)
    ds64 = struct.pack("<4sI3QI", b"ds64", 28, 4 + 36 + 24 + 8 + data_size, data_size, n_samples, 0)
    head = struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE") + ds64 + fmt
    head += struct.pack("<4sI", b"data", 0xFFFFFFFF)
    with path.open("wb") as file:
        file.write(head)
        file.write(np.random.default_rng(0).bytes(12 * 1000))
        file.truncate(len(head) + data_size)
