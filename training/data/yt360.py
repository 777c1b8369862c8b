"""YT-360 in the layout its users have, checked once.

    ROOT/video/ID-START.mp4     the picture; ID has 11 characters, START whole seconds
    ROOT/audio/ID-START.m4a     first-order sound (or .flac, .wav, .opus, .ogg)
    train.txt, test.txt         one ID a line (the published lists)

    python -m training.data.yt360 ROOT [--workers 2]

examines every pair and writes `ROOT/index.jsonl`; a run that was stopped goes on where it was.
Distributed-style files hold YouTube's 5.1 AAC, whose channels are X, Y, W, -, Z, -; a decoder that
is asked for four channels mixes them. Here channels are read as they are, and a clip counts unless
its own sound says that another reading is likelier. Clips that cannot be used are counted by
reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from model.channels.faults import Finding
from model.conventions import LIKELY, READING_CODES, Diagnosis, diagnose
from model.errors import AvsaError, InputError, MediaError, OptionError, UnsupportedMedia
from model.interruption import command
from model.media import AudioReader, VideoReader, open_audio
from model.output import whole_file, writing
from training.data.clips import Clip
from training.options import one_or_more
from training.processes import Processes

INDEX = "index.jsonl"
SOUND_SUFFIXES = (".m4a", ".mp4", ".flac", ".wav", ".opus", ".ogg", ".webm", ".mka")
ID_LENGTH = 11
_LEAST_S = 1.5
_SILENT_Z_DB = -50.0
_MISREAD = READING_CODES | {"capsules", "w_elsewhere"}  # W, Y, Z, X are not where they should be
_FORMAT = 1


def read_list(path: Path) -> list[str]:
    """The IDs of a published list.

    Raises
    ------
    MediaError : the list cannot be read, or a line is no ID.
    """
    ids = [line.strip() for line in _text(path).splitlines() if line.strip()]
    wrong = [identity for identity in ids if len(identity) != ID_LENGTH]
    if wrong:
        raise MediaError(f"{path} holds {wrong[0]!r}, which is no ID of {ID_LENGTH} characters.")
    return ids


def read_segments(path: Path) -> dict[str, list[int]]:
    """Starts of clips in seconds, by ID: lines `ID 0,10,40`.

    Raises
    ------
    MediaError : the file cannot be read, or a line is not such; it is named.
    """
    segments = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            identity, _, starts = line.strip().partition(" ")
            try:
                segments[identity] = [int(start) for start in starts.split(",")]
            except ValueError as error:
                raise MediaError(f"Line {number} of {path} is not `ID start,start`.") from error
    return segments


def read_index(root: Path, ids: Iterable[str] | None = None) -> list[Clip]:
    """The usable clips, of some recordings only if `ids` are given.

    Raises
    ------
    MediaError : there is no index, the folders have changed since, or no clip is left.
    """
    again = f"run python -m training.data.yt360 {root}"
    path = root / INDEX
    if not path.exists():
        raise MediaError(f"{root} has no index: {again}.")
    try:
        header, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise MediaError(f"{path} cannot be read, or is damaged: {again}.") from error
    if header.get("format") != _FORMAT or header["state"] != _state(_pairs(root)):
        raise MediaError(f"{path} is not of what now lies in {root}: {again}.")
    wanted = None if ids is None else set(ids)
    clips = [
        _clip(root, line)
        for line in lines
        if "skipped" not in line and (wanted is None or line["recording"] in wanted)
    ]
    if not clips:
        raise MediaError(f"{path} has no usable clip of the recordings asked for.")
    return clips


def check_apart(train: Sequence[Clip], test: Sequence[Clip]) -> None:
    """Refuse to measure on recordings that are learned from, of which other clips tell.

    Raises
    ------
    OptionError : some are in both.
    """
    if both := {clip.recording for clip in train} & {clip.recording for clip in test}:
        raise OptionError(
            f"{len(both)} recordings are both learned from and measured on, as {min(both)}: take "
            "lists that share none."
        )


def skipped(root: Path) -> dict[str, int]:
    """How many clips the index leaves out, by reason."""
    lines = [json.loads(line) for line in (root / INDEX).read_text().splitlines()[1:]]
    return dict(Counter(line["skipped"] for line in lines if "skipped" in line))


def build_index(root: Path, *, workers: int = 1) -> None:
    """Examine all clips and write `ROOT/index.jsonl`; what an earlier run examined is kept.

    Raises
    ------
    MediaError : there are no clips.
    """
    pairs = _pairs(root)
    if not pairs:
        raise MediaError(f"{root} has neither video/ID-START.mp4 nor audio/ID-START.m4a files.")
    state = {"format": _FORMAT, "state": _state(pairs)}
    part = root / f".{INDEX}.part"
    with writing(root):
        done = _examined(part, state)
        file = part.open("a")
    with file:
        if not done:
            file.write(json.dumps(state) + "\n")
        left = [(name, *pair) for name, pair in pairs.items() if name not in done]
        for line in tqdm(_examine_all(left, workers), total=len(left), unit="clip", disable=None):
            file.write(json.dumps(line) + "\n")
            file.flush()
            done[line["name"]] = line
    with whole_file(root / INDEX) as path:
        lines = [state, *(done[name] for name in pairs)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    part.unlink()


def _examined(part: Path, state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What an interrupted run has left, if the folders are still the same."""
    if not part.exists():
        return {}
    lines = []
    for text in part.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break  # the line at which the run was stopped
    if not lines or lines[0] != state:
        part.unlink()
        return {}
    part.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {line["name"]: line for line in lines[1:]}


def _examine_all(
    pairs: Sequence[tuple[str, Path | None, Path | None]], workers: int
) -> Iterator[dict[str, Any]]:
    if workers == 1:
        yield from (examine(*pair) for pair in pairs)
        return
    with Processes(workers) as pool:
        yield from pool.map(examine, *zip(*pairs, strict=True), chunksize=4)


def examine(name: str, video: Path | None, audio: Path | None) -> dict[str, Any]:
    """A line of the index: the clip's facts, or why it is left out (`skipped`)."""
    line: dict[str, Any] = {"name": name, "recording": name[:ID_LENGTH]}
    if video is None or audio is None:
        return line | {"skipped": "no picture" if video is None else "no sound"}
    try:
        seen_s = _examine_picture(video)
        with open_audio(audio) as reader:
            components, planar = _examine_sound(reader)
            heard_s = reader.info.duration_s
    except UnsupportedMedia as error:
        return line | {"skipped": "unsupported", "detail": str(error)}
    except _Unusable as error:
        return line | {"skipped": error.reason, "detail": str(error)}
    except AvsaError as error:
        return line | {"skipped": "broken", "detail": str(error)}
    if min(seen_s, heard_s) < _LEAST_S:
        return line | {"skipped": "too short"}
    return line | {
        "video": video.name,
        "audio": audio.name,
        "duration_s": round(min(seen_s, heard_s), 3),
        "components": components,
        "planar": planar,
    }


class _Unusable(InputError):
    """A clip that can be read and is of no use."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _examine_picture(path: Path) -> float:
    """Decode a little in the middle; the duration."""
    with VideoReader(path) as reader:
        middle = reader.info.duration_s / 2
        if not len(reader.read(middle, 0.5, size=(36, 72)).frames):
            raise _Unusable("broken", f"{path} has no frames at {middle:.1f} s.")
        return reader.info.duration_s


def _examine_sound(reader: AudioReader) -> tuple[list[int], bool]:
    """The file channels of W, Y, Z and X, and whether Z is silent."""
    info = reader.info
    if info.components is None and info.n_channels != 4:
        raise _Unusable("not_ambisonic", f"{info.path} has {info.n_channels} channels.")
    components = list(info.components or range(4))[:4]
    why = _misread(diagnose(reader, components=components))
    if why is not None:
        raise _Unusable(why.code, why.sentence)
    count = min(info.n_samples, 10 * info.samplerate)
    power = (reader.read(0, count)[components] ** 2).mean(axis=1)
    level_db = 10 * math.log10((power[2] + 1e-30) / (power[0] + 1e-30))
    return components, bool(level_db < _SILENT_Z_DB)


def _misread(diagnosis: Diagnosis) -> Finding | None:
    """Why the channels are likelier no field in AmbiX than one; None if they are one.

    Few sources leave open which wrong order it is, so the wrong ones, which exclude one another,
    count together. A good clip that is left out costs less than one learned wrongly.
    """
    against = [f for f in diagnosis.findings if f.spoils_reading or f.code in _MISREAD]
    if sum(finding.probability for finding in against) < LIKELY:
        return None
    return max(against, key=lambda finding: finding.probability)


def _pairs(root: Path) -> dict[str, tuple[Path | None, Path | None]]:
    """Picture and sound by clip name, sorted."""
    videos = {path.stem: path for path in _files(root / "video", (".mp4",))}
    audios = {path.stem: path for path in _files(root / "audio", SOUND_SUFFIXES)}
    return {name: (videos.get(name), audios.get(name)) for name in sorted(videos | audios)}


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    paths = sorted(folder.iterdir())  # of two sounds of a clip the last counts, on every disk
    return [p for p in paths if p.suffix in suffixes and not p.name.startswith(".")]


def _state(pairs: dict[str, tuple[Path | None, Path | None]]) -> str:
    """What the folders hold, in short: names, not contents."""
    names = "\n".join(str(path.name) for pair in pairs.values() for path in pair if path)
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def _clip(root: Path, line: dict[str, Any]) -> Clip:
    return Clip(
        line["name"],
        line["recording"],
        root / "video" / line["video"],
        root / "audio" / line["audio"],
        line["duration_s"],
        cast(tuple[int, int, int, int], tuple(line["components"])),
        line["planar"],
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise MediaError(f"{path} is no text.") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Build the index and say what is in it."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.yt360", description="Examine a YT-360 folder and index it."
    )
    parser.add_argument("root", type=Path, help="folder with video/ and audio/")
    parser.add_argument("--workers", type=one_or_more, default=1, help="processes (default 1)")
    options = parser.parse_args(argv)
    try:
        build_index(options.root, workers=options.workers)
    except AvsaError as error:
        print(error, file=sys.stderr)
        return 2
    left_out = skipped(options.root)
    try:
        clips = read_index(options.root)
    except MediaError as error:
        clips = []
        print(error, file=sys.stderr)
    print(
        f"{len(clips)} clips of {len({clip.recording for clip in clips})} recordings, "
        f"{sum(clip.duration_s for clip in clips) / 3600:.2f} h, "
        f"{sum(clip.planar for clip in clips)} without height"
    )
    for reason, count in sorted(left_out.items()):
        print(f"left out, {reason}: {count}")
    return 0 if clips else 2


if __name__ == "__main__":
    sys.exit(command(main))
