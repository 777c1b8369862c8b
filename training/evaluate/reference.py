"""How well the rotation between two recordings is found, on fields recorded once more.

Every track of the manifest is its own reference. Its second recording is simulated: a microphone
some way off, with colour, noise and another room's response, turned by a known angle and begun
later. It is compared as it is, with channels mirrored, and without its vertical channel. The
microphone is moved by the plane waves that the comparison takes for granted (`displacement.moved`),
which flatters it where sources overlap.
"""

from __future__ import annotations

import math
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.ambisonics import rotate_yaw
from model.errors import UnusableContent
from model.media import open_audio
from model.recordings.comparison import Comparison, Outcome
from model.reference import Recording, compare
from model.sync import Synchronisation
from training.data.manifest import KnownTake, read_manifest
from training.data.rerecording import ROOMS, read_room, second_microphone
from training.figures import write_report

FloatArray = NDArray[np.floating]

BAR_DEG = 1.0
_LATEST_S = 1.5  # by which the second recording begins later
_LEAST_S = 2 * _LATEST_S  # of a take, so that half of it is in both recordings
# Signs of W, Y, Z, X: as recorded, mirrored left and right, up and down, and planar.
VARIANTS = {"as is": (1, 1, 1, 1), "Y mirrored": (1, -1, 1, 1), "Z mirrored": (1, 1, -1, 1),
            "planar": (1, 1, 0, 1)}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """How the second recording is made."""

    spacing_m: float = 0.3
    snr_db: float = 10.0
    direct_to_reverberant_db: float = 12.0


@dataclass(frozen=True)
class Answer:
    """One take in one variant."""

    take: str
    group: str
    tier: str
    variant: str
    rotation_deg: float
    found_deg: float
    error_deg: float
    half_interval_deg: float
    covered: bool
    verdict: str
    mirrored: bool | None
    tilt_deg: float | None
    agreement: float
    offset_error_s: float | None


def answers(
    known: KnownTake, room: Path, setting: Setting, seed: int, folder: Path
) -> list[Answer]:
    """Simulate a second recording of a take and compare it in all variants."""
    rng = np.random.default_rng(seed)
    with open_audio(known.audio) as reader:
        reference = Recording(reader)
        rate = reader.info.samplerate
        field = reference.layout.to_sn3d(reader.read(0, reader.info.n_samples), order=1)
        if field.shape[1] < _LEAST_S * rate or not field.any():
            raise UnusableContent(
                f"{known.audio} is silent or shorter than {_LEAST_S:g} s: nothing can be recorded "
                "once more of it."
            )
        response = read_room(room, rate, direct_to_reverberant_db=setting.direct_to_reverberant_db)
        again = second_microphone(
            rng, field, response, rate, spacing_m=setting.spacing_m, snr_db=setting.snr_db
        )
        rotation_deg = float(rng.uniform(-180, 180))
        late_s = round(rng.uniform(0, _LATEST_S) * rate) / rate
        turned = rotate_yaw(again, -math.radians(rotation_deg))[:, round(late_s * rate) :]
        given, aligned = [], None
        for variant, signs in VARIANTS.items():
            path = folder / "second.wav"
            _write(path, turned * np.array(signs)[:, None], rate)
            found = _compared(reference, path, setting, aligned)
            aligned = found.synchronisation
            given.append(_answer(known, variant, rotation_deg, late_s, found))
    return given


def _compared(
    reference: Recording, path: Path, setting: Setting, aligned: Synchronisation | None
) -> Comparison:
    with open_audio(path) as reader:
        return compare(
            reference, Recording(reader), spacing_m=setting.spacing_m, synchronisation=aligned
        )


def _answer(
    known: KnownTake, variant: str, rotation_deg: float, late_s: float, found: Comparison
) -> Answer:
    low, high = found.interval_deg
    aligned = found.synchronisation
    return Answer(
        take=known.name,
        group=known.group,
        tier=known.tier,
        variant=variant,
        rotation_deg=rotation_deg,
        found_deg=found.rotate_field_ccw_deg,
        error_deg=abs(math.remainder(found.rotate_field_ccw_deg - rotation_deg, 360)),
        half_interval_deg=(high - low) / 2,
        covered=(rotation_deg - low) % 360 <= high - low,
        verdict=found.outcome.value,
        mirrored=found.mirrored,
        tilt_deg=found.tilt_deg,
        agreement=found.agreement,
        offset_error_s=aligned.offset_s - late_s if aligned else None,
    )


def _write(path: Path, field: FloatArray, rate: int) -> None:
    samples = np.round(field * (0.9 * 32767 / np.abs(field).max())).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((len(field), 2, rate, 0, "NONE", ""))
        file.writeframes(np.ascontiguousarray(samples.T).tobytes())


def summarise(given: Sequence[Answer]) -> dict[str, Any]:
    """Figures of one variant."""
    told = [a for a in given if a.verdict != Outcome.UNDECIDABLE]
    errors = [a.error_deg for a in told] or [math.nan]
    return {
        "takes": len(given),
        "told": len(told),
        "within_1_deg": sum(a.error_deg <= BAR_DEG for a in told),
        "median_error_deg": round(float(np.median(errors)), 3),
        "largest_error_deg": round(float(np.max(errors)), 3),
        "covered": sum(a.covered for a in told),
        "said_mirrored": sum(a.mirrored is True for a in told),
        "said_not_mirrored": sum(a.mirrored is False for a in told),
        "with_tilt": sum(a.tilt_deg is not None for a in told),
    }


def run(
    manifest: Path,
    rooms: Path,
    *,
    setting: Setting | None = None,
    repeats: int = 1,
    report: Path | None = None,
) -> dict[str, Any]:
    """Compare every take, print the tables, write what is asked for, return the report.

    repeats : how many second recordings are made of each take, each elsewhere and of other noise.

    Raises
    ------
    AvsaError : the manifest or one of its files cannot be read; the file is named.
    """
    setting = setting or Setting()
    names = list(ROOMS)
    given: list[Answer] = []
    with tempfile.TemporaryDirectory() as folder:
        takes = enumerate(repeats * read_manifest(manifest))
        for seed, known in tqdm(list(takes), unit="take", desc="comparing"):
            room = rooms / names[seed % len(names)]
            given += answers(known, room, setting, seed, Path(folder))
    variants = {v: summarise([a for a in given if a.variant == v]) for v in VARIANTS}
    figures = {
        "setting": asdict(setting),
        "repeats": repeats,
        "variants": variants,
        "answers": [asdict(a) for a in given],
    }
    print(table(given, variants))
    if report is not None:
        write_report(report, figures)
    return figures


def table(given: Sequence[Answer], variants: dict[str, dict[str, Any]]) -> str:
    """The figures for a terminal: a line for each take as it is, then for each variant."""
    lines = [f"{'take':28} {'tier':8} {'error':>7} {'90 %':>8} {'agree':>6} {'time':>9}  verdict"]
    for a in given:
        if a.variant == "as is":
            offset = "" if a.offset_error_s is None else f"{1e3 * a.offset_error_s:+.2f} ms"
            lines.append(
                f"{a.take[:28]:28} {a.tier:8} {a.error_deg:6.2f}° ±{a.half_interval_deg:6.2f}° "
                f"{a.agreement:6.2f} {offset:>9}  {a.verdict}"
                + (f", tilt {a.tilt_deg:.1f}°" if a.tilt_deg is not None else "")
            )
    header = ("takes", "told", "<=1°", "median", "largest", "covered", "mirror", "not", "tilt")
    lines += ["", f"{'':12}" + "".join(f"{name:>9}" for name in header)]
    for name, s in variants.items():
        values = [*list(s.values())[:3], f"{s['median_error_deg']:.2f}°",
                  f"{s['largest_error_deg']:.2f}°", *list(s.values())[5:]]  # fmt: skip
        lines.append(f"{name:12}" + "".join(f"{value:>9}" for value in values))
    return "\n".join(lines)
