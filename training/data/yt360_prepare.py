"""Full videos or long-GOP clips into clips that are quick to read at any moment.

    python -m training.data.yt360_prepare SOURCES ROOT --segments segments.txt [--ids train.txt]
    python -m training.data.yt360_prepare OLD_ROOT ROOT

SOURCES holds `ID.mp4` (.mkv, .webm) with the sound inside or beside it (`ID.m4a`, ...), to be cut
into ten-second clips; OLD_ROOT is a folder in YT-360's layout, whose clips are coded anew. Pictures
become 2:1 H.264 with a key frame every half second; sound becomes FLAC with W, Y, Z, X at 24 kHz,
whichever way it was carried. Clips that are there are not made again, so a run that was stopped
goes on; what cannot be made is listed in `ROOT/failed.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model import features
from model.errors import AvsaError, MediaError, UnusableContent
from model.interruption import command
from model.media import VideoReader, open_audio
from model.media.encode import write_audio, write_video
from model.output import make_folder, whole_file
from training.data.crops import FloatArray
from training.data.yt360 import SOUND_SUFFIXES, read_list, read_segments
from training.options import even_height, one_or_more
from training.processes import Processes

CLIP_S = 10.0
_PICTURE_SUFFIXES = (".mp4", ".mkv", ".webm")
_KEYFRAME_S = 0.5
_LEAST_S = 1.5


@dataclass(frozen=True)
class Cut:
    """A clip to make: from where, what part, and its name."""

    name: str
    video: Path
    audio: Path
    start_s: float
    duration_s: float


def cuts_of(
    sources: Path, segments: dict[str, list[int]] | None, ids: Sequence[str] | None
) -> Iterator[Cut]:
    """What is to be made of a folder.

    Raises
    ------
    MediaError : the folder holds nothing to cut.
    """
    pictures, sounds = sources / "video", sources / "audio"
    if segments is not None:
        pictures = sounds = sources
    videos = {p.stem: p for p in _sorted(pictures) if p.suffix in _PICTURE_SUFFIXES}
    audios = {p.stem: p for p in _sorted(sounds) if p.suffix in SOUND_SUFFIXES}
    if not videos:
        raise MediaError(f"{pictures} holds no pictures ({', '.join(_PICTURE_SUFFIXES)}).")
    wanted = None if ids is None else set(ids)
    for stem, video in videos.items():
        recording = stem if segments is not None else stem[:11]
        if wanted is not None and recording not in wanted:
            continue
        # A sound file of its own before the sound within the picture's.
        beside = audios.get(stem, video)
        starts = [None] if segments is None else segments.get(stem, [])
        for start in starts:
            name = stem if start is None else f"{stem}-{start}"
            yield Cut(name, video, beside, float(start or 0), CLIP_S)


def _sorted(folder: Path) -> list[Path]:
    """Files by name; of one name plain sound comes after what may be the picture, and counts."""
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(files, key=lambda path: (path.suffix not in _PICTURE_SUFFIXES, path.name))


def make(cut: Cut, root: Path, *, height: int) -> str | None:
    """Write a clip's two files, both or none; why not, if it cannot be made."""
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=root) as folder:
            picture, sound = Path(folder) / "picture.mp4", Path(folder) / "sound.flac"
            begins_s = _write_picture(cut, picture, height)
            _write_sound(cut, sound, begins_s if cut.audio == cut.video else None)
            picture.replace(_video(root, cut.name))
            sound.replace(_audio(root, cut.name))
    except AvsaError as error:
        return str(error)
    return None


def _write_picture(cut: Cut, path: Path, height: int) -> float:
    """Frames of a cut, evenly in time; gives where its container's clock has the picture begin."""
    with VideoReader(cut.video) as reader:
        window = reader.read(cut.start_s, cut.duration_s, size=(height, 2 * height), colour=True)
        thinned = max(1, -(-reader.info.rate_hz // 31.0))
        rate_hz = reader.info.rate_hz / thinned
        begins_s = reader.info.start_s
    shown = shown_evenly(window.times_s - cut.start_s, rate_hz)
    if len(shown) < _LEAST_S * rate_hz:
        raise UnusableContent(f"{cut.video} has less than {_LEAST_S} s at {cut.start_s:.0f} s.")
    write_video(path, window.frames[shown], rate_hz=rate_hz, crf=22, keyframe_s=_KEYFRAME_S)
    return begins_s


def shown_evenly(times_s: FloatArray, rate_hz: float) -> NDArray[np.intp]:
    """Which frame is shown at each tick of an even clock from 0 on; each once, if they are even."""
    if not len(times_s):
        return np.array([], dtype=np.intp)
    since_s = times_s - min(times_s[0], 0.5 / rate_hz)  # the first is up to half a tick away
    ticks = np.arange(round(since_s[-1] * rate_hz) + 1)
    latest = np.searchsorted(since_s, (ticks + 0.5) / rate_hz, side="right") - 1
    return np.asarray(np.maximum(latest, 0))


def _write_sound(cut: Cut, path: Path, picture_begins_s: float | None) -> None:
    """Sound of a cut; silent where it begins after the picture, of one file, whose clock it has."""
    with open_audio(cut.audio) as reader:
        info = reader.info
        if info.components is None and info.n_channels != 4:
            raise UnusableContent(
                f"{cut.audio} has {info.n_channels} channels, which are neither W, Y, Z, X nor "
                "YouTube's 5.1 carrier."
            )
        components = list(info.components or range(4))[:4]
        late_s = 0.0 if picture_begins_s is None else info.start_s - picture_begins_s
        first = round((cut.start_s - late_s) * info.samplerate)
        missing = max(0, -first)
        count = max(0, round(cut.duration_s * info.samplerate) - missing)
        sound = reader.read(max(0, first), count)[components]
    if sound.shape[1] < _LEAST_S * info.samplerate:
        raise UnusableContent(f"{cut.audio} has less than {_LEAST_S} s at {cut.start_s:.0f} s.")
    sound = np.pad(sound, ((0, 0), (missing, 0)))
    field = features.to_analysis_rate(sound, info.samplerate)
    peak = float(np.abs(field).max())
    write_audio(path, field / max(peak, 1.0), features.SAMPLERATE, subtype="PCM_16")


def _video(root: Path, name: str) -> Path:
    return root / "video" / f"{name}.mp4"


def _audio(root: Path, name: str) -> Path:
    return root / "audio" / f"{name}.flac"


def prepare(cuts: Sequence[Cut], root: Path, *, height: int = 320, workers: int = 1) -> int:
    """Make what is not there yet, with a progress bar; the number of failures."""
    for folder in ("video", "audio"):
        make_folder(root / folder)
    left = [
        cut for cut in cuts
        if not (_video(root, cut.name).exists() and _audio(root, cut.name).exists())
    ]  # fmt: skip
    with whole_file(root / "failed.jsonl") as path, path.open("w") as failures:
        n_failed = 0
        outcomes = _all_made(left, partial(make, root=root, height=height), workers)
        for cut, why in zip(
            left, tqdm(outcomes, total=len(left), unit="clip", disable=None), strict=True
        ):
            if why is not None:
                n_failed += 1
                failures.write(json.dumps({"name": cut.name, "reason": why}) + "\n")
    return n_failed


def _all_made(cuts: Sequence[Cut], one: partial[str | None], workers: int) -> Iterator[str | None]:
    if workers == 1:
        yield from map(one, cuts)
        return
    with Processes(workers) as pool:
        yield from pool.map(one, cuts)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.yt360_prepare",
        description="Cut and re-encode 360 footage into YT-360's layout, quick to read.",
    )
    parser.add_argument("sources", type=Path, help="full videos, or a folder in YT-360's layout")
    parser.add_argument("root", type=Path, help="where video/ and audio/ go")
    parser.add_argument("--segments", type=Path, help="lines `ID start,start`: cut full videos")
    parser.add_argument("--ids", type=Path, help="only the recordings of this list")
    parser.add_argument(
        "--height", type=even_height, default=320, help="of the picture (default 320)"
    )
    parser.add_argument("--workers", type=one_or_more, default=1, help="processes (default 1)")
    options = parser.parse_args(argv)
    try:
        if options.root.resolve() == options.sources.resolve():
            raise MediaError(f"{options.root} is the source: originals are kept, name another.")
        segments = read_segments(options.segments) if options.segments else None
        ids = read_list(options.ids) if options.ids else None
        cuts = list(cuts_of(options.sources, segments, ids))
        n_failed = prepare(cuts, options.root, height=options.height, workers=options.workers)
    except AvsaError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(cuts) - n_failed} of {len(cuts)} clips are in {options.root}")
    if n_failed:
        print(f"{n_failed} failed: {options.root / 'failed.jsonl'} says why")
    return 0 if n_failed < len(cuts) else 2


if __name__ == "__main__":
    sys.exit(command(main))
