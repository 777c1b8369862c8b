"""How well offset and drift are recovered, and strangers refused, on takes with known clocks.

Real recordings are put one after the other and recorded by two simulated recorders: each has its
own room response, colour and pink noise; the track's clock drifts and it begins elsewhere. A take's
strangers are the files of the take before it, and its own track expected where it is not.
"""

from __future__ import annotations

import tempfile
import time
import wave
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve
from tqdm import tqdm

from model.errors import OptionError
from model.media import open_audio
from model.sync import Belonging, Synchronisation, synchronise
from training.data.rerecording import (
    ROOMS,
    coloured,
    montage,
    noisy,
    on_clock,
    read_recordings,
    read_room,
)
from training.figures import write_report

FloatArray = NDArray[np.floating]

RATE = 48_000
_ELSEWHERE_S = (-100.0, 100.0)  # where a take's own track is not
OFFSET_BAR_S, DRIFT_BAR_PPM = 1e-3, 2.0


@dataclass(frozen=True)
class Setting:
    """How takes are made; ratios are drawn evenly between the two numbers, in dB."""

    duration_s: float = 600.0
    snr_db: float = 0.0
    direct_to_reverberant_db: tuple[float, float] = (-3.0, 9.0)
    max_offset_s: float = 30.0


@dataclass(frozen=True)
class KnownPair:
    """Two files of one take."""

    camera: Path
    track: Path
    offset_s: float
    drift_ppm: float


@dataclass(frozen=True)
class Answer:
    """One take: what is true and what was found."""

    take: int
    offset_s: float
    drift_ppm: float
    offset_error_s: float
    drift_error_ppm: float
    offset_std_s: float
    drift_std_ppm: float
    verdict: str
    confidence: float
    cost: float
    foreign_confidences: tuple[float, ...]
    foreign_verdicts: tuple[str, ...]

    @property
    def within_bars(self) -> bool:
        """Whether offset and drift were given, to 1 ms and 2 ppm."""
        return (
            self.verdict == Belonging.SYNCHRONISED
            and abs(self.offset_error_s) <= OFFSET_BAR_S
            and abs(self.drift_error_ppm) <= DRIFT_BAR_PPM
        )


def record(
    seed: int, folder: Path, recordings: list[Path], rooms: list[Path], setting: Setting
) -> KnownPair:
    """Simulate one take and write its two files: a stereo or mono camera, a first-order track."""
    rng = np.random.default_rng(seed)
    lead_s = setting.max_offset_s + 1.0
    world = montage(rng, recordings, setting.duration_s + 2 * lead_s, RATE).astype(np.float32)
    n_parts = round(1e6 / rng.uniform(1, 200))
    clock = Fraction(n_parts + int(rng.choice([-1, 1])), n_parts)
    first = round((lead_s + rng.uniform(-1, 1) * setting.max_offset_s) * RATE)
    n, lead = round(setting.duration_s * RATE), round(lead_s * RATE)
    near, far = (rooms[i] for i in rng.permutation(len(rooms))[:2])
    n_camera = int(rng.integers(1, 3))

    def heard(room: Path, channels: list[int], begin: int) -> FloatArray:
        ratio = rng.uniform(*setting.direct_to_reverberant_db)
        response = read_room(room, RATE, direct_to_reverberant_db=ratio)[channels]
        stretch = world[None, max(0, begin - 4 * RATE) : begin + n]
        wet = oaconvolve(stretch, response.astype(np.float32), axes=1)[:, : stretch.shape[1]]
        return coloured(rng, wet[:, -n:], RATE)

    # A pair of camera microphones: W with Y to either side, cardioids left and right.
    camera = heard(near, [0, 1], lead)
    camera = (
        camera[:1] if n_camera == 1 else np.stack([camera[0] + camera[1], camera[0] - camera[1]])
    )
    track = on_clock(heard(far, [0], first), clock)
    pair = KnownPair(
        folder / f"camera-{seed}.wav",
        folder / f"track-{seed}.wav",
        offset_s=(first - lead) / RATE,
        drift_ppm=(float(clock) - 1) * 1e6,
    )
    # Each of the camera's microphones has noise of its own, by its own level.
    each = [noisy(rng, channel[None], setting.snr_db) for channel in camera]
    write_wav(pair.camera, np.concatenate(each))
    # Only W is heard of a track: the other channels are there to be read, and hold the same.
    write_wav(pair.track, np.repeat(noisy(rng, track, setting.snr_db), 4, axis=0))
    return pair


def write_wav(path: Path, sound: FloatArray) -> None:
    """16-bit WAV, peak 0.9."""
    samples = np.round(sound * (0.9 * 32767 / np.abs(sound).max())).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((len(sound), 2, RATE, 0, "NONE", ""))
        file.writeframes(np.ascontiguousarray(samples.T).tobytes())


def answers(sounds: Path, rooms: Path, setting: Setting, n_takes: int) -> Iterator[Answer]:
    """Simulate and judge one take after the other; at most two takes' files are kept.

    Raises
    ------
    AvsaError : there are fewer than two recordings, or a file cannot be read.
    """
    # Neighbouring takes, each other's strangers, share no recording.
    found = read_recordings(sounds)
    if len(found) < 2:
        raise OptionError(f"{sounds} holds one recording alone; strangers are of others: give two.")
    halves = np.array_split(np.array(found), 2)
    responses = [rooms / name for name in ROOMS]
    before: KnownPair | None = None
    with tempfile.TemporaryDirectory() as folder:
        for seed in tqdm(range(n_takes), unit="take", desc="judging"):
            recordings = halves[seed % 2].tolist()
            pair = record(seed, Path(folder), recordings, responses, setting)
            began = time.process_time()
            told = judged(pair.camera, pair.track)
            cost = (time.process_time() - began) / setting.duration_s
            strangers = []
            if before is not None:
                strangers += [judged(pair.camera, before.track), judged(before.camera, pair.track)]
                before.camera.unlink()
                before.track.unlink()
            if setting.duration_s > 2 * _ELSEWHERE_S[1]:
                strangers += [
                    judged(pair.camera, pair.track, pair.offset_s + away) for away in _ELSEWHERE_S
                ]
            before = pair
            yield Answer(
                take=seed,
                offset_s=pair.offset_s,
                drift_ppm=pair.drift_ppm,
                offset_error_s=told.offset_s - pair.offset_s,
                drift_error_ppm=told.drift_ppm - pair.drift_ppm,
                offset_std_s=told.offset_std_s,
                drift_std_ppm=told.drift_std_ppm,
                verdict=told.belonging.value,
                confidence=told.confidence,
                cost=cost,
                foreign_confidences=tuple(s.confidence for s in strangers),
                foreign_verdicts=tuple(s.belonging.value for s in strangers),
            )


def judged(camera: Path, track: Path, expected_s: float = 0.0) -> Synchronisation:
    """As the product judges a pair of files."""
    with open_audio(camera) as a, open_audio(track) as b:
        return synchronise(a, b, expected_s=expected_s)


def summarise(found: list[Answer]) -> dict[str, Any]:
    """Figures over all takes."""
    strangers = [v for a in found for v in a.foreign_verdicts]
    given = [a for a in found if a.verdict == Belonging.SYNCHRONISED]
    return {
        "takes": len(found),
        "synchronised": len(given),
        "within_1_ms_and_2_ppm": sum(a.within_bars for a in found),
        "wrong_and_synchronised": sum(not a.within_bars for a in given),
        "largest_offset_error_ms": 1e3 * max((abs(a.offset_error_s) for a in given), default=0.0),
        "largest_drift_error_ppm": max((abs(a.drift_error_ppm) for a in given), default=0.0),
        "foreign": len(strangers),
        "foreign_refused": sum(v != Belonging.SYNCHRONISED for v in strangers),
        "largest_cost": max(a.cost for a in found),
    }


def run(
    sounds: Path,
    rooms: Path,
    *,
    n_takes: int,
    setting: Setting | None = None,
    report: Path | None = None,
) -> dict[str, Any]:
    """Simulate takes, print the table, write what is asked for, return the report.

    Raises
    ------
    AvsaError : a folder or a file cannot be read; it is named.
    """
    setting = setting or Setting()
    found = list(answers(sounds, rooms, setting, n_takes))
    summary = summarise(found)
    figures = {
        "setting": asdict(setting),
        "summary": summary,
        "answers": [asdict(a) for a in found],
    }
    print(table(found, summary))
    if report is not None:
        write_report(report, figures)
    return figures


def table(found: list[Answer], summary: dict[str, Any]) -> str:
    """The figures for a terminal."""
    lines = [
        f"{'take':>4} {'offset':>9} {'error':>9} {'drift':>9} {'error':>9} {'verdict':>13} "
        f"{'cost':>7}  strangers refused"
    ]
    for a in found:
        refused = sum(v != Belonging.SYNCHRONISED for v in a.foreign_verdicts)
        lines.append(
            f"{a.take:4d} {a.offset_s:+8.3f}s {1e3 * a.offset_error_s:+7.3f}ms "
            f"{a.drift_ppm:+6.1f}ppm {a.drift_error_ppm:+6.2f}ppm {a.verdict:>13} {a.cost:7.4f}  "
            f"{refused} of {len(a.foreign_verdicts)}"
        )
    s = summary
    lines += [
        "",
        f"synchronised {s['synchronised']} of {s['takes']}; within 1 ms and 2 ppm "
        f"{s['within_1_ms_and_2_ppm']} of {s['takes']} (of those given, wrong: "
        f"{s['wrong_and_synchronised']}); largest errors {s['largest_offset_error_ms']:.3f} ms, "
        f"{s['largest_drift_error_ppm']:.2f} ppm",
        f"strangers refused {s['foreign_refused']} of {s['foreign']}; "
        f"cost at most {s['largest_cost']:.4f} of real time",
    ]
    return "\n".join(lines)
