"""Clips in shards: tar files of WebDataset, for data that no disk of a training machine holds.

    python -m training.data.shards ROOT SHARDS [--ids train.txt] [--clips-per-shard 200]
    python -m training.pretrain --shards SHARDS --output RUN

writes what `python -m training.data.yt360 ROOT` found usable: of each clip the files as they are
(KEY.picture.mp4, KEY.sound.m4a), and `shards.json` with what the index knows. A shard appears whole
or not at all, and those that are there are kept, so a run that was stopped goes on. Clips are
spread by a hash of their names: a shard holds many recordings, and negatives are others' sounds.

Shards are read in sequence, each by one worker of one rank, in an order drawn anew for each pass.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm
from webdataset import tariterators

from model.errors import AvsaError, MediaError, OptionError
from model.interruption import command
from model.networks.avsa import AvsaConfig
from model.output import make_folder, whole_file
from training.data.clips import Clip, ClipFiles, Crops
from training.data.crop_batches import Stretch, check_parts
from training.data.crops import FloatArray
from training.data.yt360 import read_index, read_list

MANIFEST = "shards.json"
_FORMAT = 1
_ATTEMPTS = 10  # clips that may fail one after the other
_SHUFFLED = 200  # clips held in memory by each worker, from which the next is drawn
_PICTURE, _SOUND = "picture", "sound"


# --- writing -------------------------------------------------------------------------------------


def write_shards(clips: Sequence[Clip], folder: Path, *, clips_per_shard: int) -> None:
    """Write shards of clips, and the manifest when all are there.

    Raises
    ------
    OptionError : less than one clip a shard. OutputError : the folder cannot be written.
    """
    if clips_per_shard < 1:
        raise OptionError(f"--clips-per-shard is {clips_per_shard}; it takes at least 1.")
    make_folder(folder)
    spread = sorted(clips, key=lambda clip: hashlib.sha256(clip.name.encode()).digest())
    parts = [spread[i : i + clips_per_shard] for i in range(0, len(spread), clips_per_shard)]
    listed = []
    for number, part in enumerate(tqdm(parts, unit="shard", disable=None)):
        digest = hashlib.sha256("\n".join(map(_identity, part)).encode()).hexdigest()[:12]
        path = folder / f"clips-{number:06d}-{digest}.tar"
        if not path.exists():
            with whole_file(path) as building:
                _write_shard(building, part)
        listed.append({"shard": path.name, "clips": [_facts(clip) for clip in part]})
    with whole_file(folder / MANIFEST) as building:
        building.write_text(json.dumps({"format": _FORMAT, "shards": listed}) + "\n")


def _identity(clip: Clip) -> str:
    """What a shard's name says of a clip: other files under its name make another shard."""
    if "." in clip.name:
        raise OptionError(f"The clip {clip.name} has a dot in its name, which shards cannot hold.")
    return f"{clip.name} {clip.video.stat().st_size} {clip.audio.stat().st_size}"


def _write_shard(path: Path, clips: Sequence[Clip]) -> None:
    with path.open("wb") as stream, webdataset.TarWriter(stream, encoder=False) as writer:
        for clip in clips:
            writer.write(
                {
                    "__key__": clip.name,
                    f"{_PICTURE}{clip.video.suffix.lower()}": clip.video.read_bytes(),
                    f"{_SOUND}{clip.audio.suffix.lower()}": clip.audio.read_bytes(),
                }
            )


def _facts(clip: Clip) -> dict[str, Any]:
    return {
        "name": clip.name,
        "recording": clip.recording,
        "suffixes": [clip.video.suffix.lower(), clip.audio.suffix.lower()],
        "duration_s": clip.duration_s,
        "components": clip.components,
        "planar": clip.planar,
    }


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """A tar file, and the clips that lie in it (their paths are names in it)."""

    path: Path
    clips: tuple[Clip, ...]


def read_shards(folder: Path) -> list[Shard]:
    """The shards of a folder, as their manifest lists them.

    Raises
    ------
    MediaError : there is no manifest, or a shard that it lists is missing.
    """
    again = "run python -m training.data.shards again"
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise MediaError(f"{folder / MANIFEST} cannot be read: {again}.") from error
    if manifest.get("format") != _FORMAT:
        raise MediaError(f"{folder / MANIFEST} is of another version: {again}.")
    shards = [
        Shard(folder / line["shard"], tuple(_clip(facts) for facts in line["clips"]))
        for line in manifest["shards"]
    ]
    missing = [shard.path for shard in shards if not shard.path.exists()]
    if missing:
        raise MediaError(f"{missing[0]} is missing, as {len(missing)} shards in all: {again}.")
    return shards


def _clip(facts: dict[str, Any]) -> Clip:
    video, audio = (
        Path(f"{kind}{suffix}")
        for kind, suffix in zip((_PICTURE, _SOUND), facts["suffixes"], strict=True)
    )
    w, y, z, x = facts["components"]
    return Clip(
        facts["name"], facts["recording"], video, audio, facts["duration_s"], (w, y, z, x),
        facts["planar"],
    )  # fmt: skip


class ShardMedia:
    """The clip that was taken out of a shard last, as files; a `training.data.clips.ClipMedia`.

    Decoders want files, so its bytes lie in a temporary folder for the while; every process has its
    own in it, and all go with this object in the process that made it.
    """

    def __init__(self) -> None:
        self._files = ClipFiles()
        self._root = Path(tempfile.mkdtemp(prefix="avsa-clips-"))
        weakref.finalize(self, _remove, self._root, os.getpid())

    def lay_out(self, sample: dict[str, Any], clip: Clip) -> None:
        """Have a clip's files at hand, in the place of those before."""
        folder = self._own_folder()
        for path in (clip.video, clip.audio):
            (folder / path).write_bytes(sample[path.name])

    def picture(
        self, clip: Clip, start_s: float, length_s: float, size: tuple[int, int], *, colour: bool
    ) -> tuple[Any, FloatArray]:
        """See `ClipMedia`."""
        return self._files.picture(self._here(clip), start_s, length_s, size, colour=colour)

    def sound(self, clip: Clip, starts_s: FloatArray, network: AvsaConfig) -> Tensor:
        """See `ClipMedia`."""
        return self._files.sound(self._here(clip), starts_s, network)

    def _here(self, clip: Clip) -> Clip:
        folder = self._own_folder()
        return replace(clip, video=folder / clip.video, audio=folder / clip.audio)

    def _own_folder(self) -> Path:
        folder = self._root / str(os.getpid())
        folder.mkdir(exist_ok=True)
        return folder


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


class ShardBatches(Dataset[Crops]):
    """Item i is this rank's part of the batch of step i, out of shards.

    Lane l of a rank (as many as its loader has workers, 1 at least) serves steps l, l + lanes, ...
    and reads every (world x lanes)th shard, pass after pass of its own; in a pass each clip is
    taken once, and by one lane of one rank. Steps of a lane have to be asked for in order, from any
    one on: what is left of its pass is read, so that a resumed run sees what it would have seen, as
    long as ranks and workers are as many. In the place of a clip that cannot be decoded, which is
    logged, the one after it is taken twice.

    stretches : as of `CropBatches`; `items` have `media` for theirs.

    Raises
    ------
    OptionError : fewer shards than lanes, or ranks cannot have equal parts.
    """

    def __init__(
        self, shards: Sequence[Shard], stretches: Sequence[Stretch], media: ShardMedia, *,
        seed: int = 0, rank: int = 0, world: int = 1, lanes: int = 1,
    ) -> None:  # fmt: skip
        if len(shards) < world * lanes:
            raise OptionError(
                f"{len(shards)} shards are too few for {world} ranks of {lanes} workers: give "
                f"fewer --workers, or write more shards (--clips-per-shard)."
            )
        check_parts(stretches, world)
        self._shards, self._stretches, self._media = shards, stretches, media
        self._seed, self._rank, self._world, self._lanes = seed, rank, world, lanes
        self._streams: dict[int, tuple[int, _Ahead]] = {}

    def __len__(self) -> int:
        return sum(stretch.steps for stretch in self._stretches)

    def __getitem__(self, step: int) -> Crops:
        stretch = self._stretch(step)
        lane = step % self._lanes
        due, stream = self._streams.pop(lane, (-1, _Ahead(iter(()))))
        if due != step:
            stream = self._as_before(step)
        made: list[Crops] = []
        for _ in range(self._share(step)):
            made.append(self._drawn(stream, stretch))
            stream.advance()
        self._streams[lane] = (step + self._lanes, stream)
        return Crops.stack(made)

    def _as_before(self, step: int) -> _Ahead:
        """The stream of a step's lane after all steps before: of its passes only the one that the
        step is in is read.
        """
        lane = step % self._lanes
        n_taken = sum(self._share(s) for s in range(lane, step, self._lanes))
        turn, n_of_turn = divmod(n_taken, sum(len(shard.clips) for shard in self._own(lane)))
        stream = _Ahead(self._stream(lane, turn))
        for _ in range(n_of_turn):
            stream.advance()
        return stream

    def _drawn(self, stream: _Ahead, stretch: Stretch) -> Crops:
        """Crops of the next clip, or of the first after it that can be decoded."""
        for distance in range(_ATTEMPTS):
            taken = stream.peek(distance)
            self._media.lay_out(taken.sample, taken.clip)
            crops = stretch.items.of_clip(taken.clip, stream.peek(0).key)
            if crops is not None:
                return crops
        raise MediaError(
            f"{_ATTEMPTS} clips one after the other cannot be read, {taken.clip.name} last."
        )

    def _share(self, step: int) -> int:
        return self._stretch(step).n_samples // self._world

    def _stretch(self, step: int) -> Stretch:
        for stretch in self._stretches:
            if step < stretch.steps:
                return stretch
            step -= stretch.steps
        raise IndexError(step)

    def _number(self, lane: int) -> int:
        """Of a lane of this rank among those of all ranks."""
        return self._rank * self._lanes + lane

    def _own(self, lane: int) -> Sequence[Shard]:
        """The shards that a lane reads."""
        return self._shards[self._number(lane) :: self._world * self._lanes]

    def _stream(self, lane: int, first: int) -> Iterator[Taken]:
        """Clips of a lane, pass after pass from one on, without end."""
        number, own = self._number(lane), self._own(lane)
        for turn in range(first, sys.maxsize):
            order = np.random.default_rng([self._seed, number, turn]).permutation(len(own))
            shuffled = webdataset.shuffle(
                _SHUFFLED, initial=_SHUFFLED, rng=random.Random(f"{self._seed} {number} {turn}")
            )
            read = (pair for index in order for pair in _read(own[index]))
            for place, (sample, clip) in enumerate(shuffled(read)):
                yield Taken(sample, clip, (turn, number, place))


@dataclass(frozen=True)
class Taken:
    """A clip out of a shard: its files' bytes by name, and what its crops are drawn by."""

    sample: dict[str, Any]
    clip: Clip
    key: tuple[int, int, int]


class _Ahead:
    """A stream that one can look into before taking."""

    def __init__(self, stream: Iterator[Taken]) -> None:
        self._stream = stream
        self._seen: deque[Taken] = deque()

    def peek(self, distance: int) -> Taken:
        """What comes after `distance` others."""
        while len(self._seen) <= distance:
            self._seen.append(next(self._stream))
        return self._seen[distance]

    def advance(self) -> None:
        """Take the next one."""
        self.peek(0)
        self._seen.popleft()


def _read(shard: Shard) -> Iterator[tuple[dict[str, Any], Clip]]:
    """Samples of a shard.

    Raises
    ------
    MediaError : it is damaged.
    """
    clips = {clip.name: clip for clip in shard.clips}
    count = 0
    try:
        with shard.path.open("rb") as stream:
            files = tariterators.tar_file_expander([{"url": str(shard.path), "stream": stream}])
            for sample in tariterators.group_by_keys(files):
                yield sample, clips[sample["__key__"]]
                count += 1
    except (tarfile.TarError, ValueError, KeyError, EOFError, OSError) as error:
        raise MediaError(f"The shard {shard.path} is damaged: write it again.") from error
    if count != len(clips):
        raise MediaError(
            f"The shard {shard.path} holds {count} of {len(clips)} clips: write it again."
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Write shards."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.shards",
        description="Write clips in the layout of YT-360 as shards.",
    )
    parser.add_argument("root", type=Path, help="folder with an index (training.data.yt360)")
    parser.add_argument("shards", type=Path, help="folder to write them to")
    parser.add_argument("--ids", type=Path, help="list of the recordings to take (all)")
    parser.add_argument("--clips-per-shard", type=int, default=200, help="(200)")
    options = parser.parse_args(argv)
    try:
        clips = read_index(options.root, read_list(options.ids) if options.ids else None)
        write_shards(clips, options.shards, clips_per_shard=options.clips_per_shard)
    except AvsaError as error:
        print(f"training.data.shards: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
