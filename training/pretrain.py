"""Train: one entry for both models and every objective.

    python -m training.pretrain --windows WINDOWS --validation HELD_OUT --output RUN
    python -m training.pretrain --clips ROOT --ids train.txt --objective avsa --output RUN

The first trains the equivariant scorer on windows of `python -m training.data.windows` and leaves
RUN/scorer.safetensors. The second trains the AVSA network on clips in the layout of YT-360, indexed
by `python -m training.data.yt360`, by any objective of the paper and its rebuttal, and leaves
RUN/avsa.safetensors; `--preset published` is the paper's run.

A run is resumed from RUN/checkpoint.pt, to the step; SIGTERM, SIGHUP and Ctrl-C write one first
(exit status 128 and the signal's number). On several GPUs, or machines (torchrun's --nnodes):

    torchrun --nproc-per-node 8 -m training.pretrain --device cuda ...
    torchrun --nnodes 2 --node-rank N --rdzv-backend c10d --rdzv-endpoint FIRST:29500 \
        --nproc-per-node 8 -m training.pretrain --device cuda --shards SHARDS ...

RUN/log.jsonl has a line for each report (loss, clips a second, share of time spent waiting for
data, time left), RUN/tensorboard the same as curves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from model.detections import read_detections
from model.errors import AvsaError, OptionError
from model.interruption import Interrupted, command
from model.networks.avsa_translators import TranslatorKind
from model.viewpoints import Sound, SoundInput
from training import pretrain_avsa, pretrain_scorer
from training.data.clips import Guide
from training.data.shards import read_shards
from training.data.windows import held_by_both, kept_windows
from training.data.yt360 import check_apart, read_index, read_list
from training.distributed import ranks
from training.loop import Course
from training.objectives.named import Task
from training.options import at_least, one_or_more, positive
from training.pretrain_avsa import AvsaPretrainConfig, ClipData, ShardData

C = TypeVar("C")

_OF_AVSA = (
    "compile", "ids", "validation_ids", "objective", "curriculum", "viewpoints", "translator",
    "depth", "sound", "whitened", "guide", "detections",
)  # fmt: skip
_SCHEDULE = ("steps", "batch", "seed", "workers", "precision", "learning_rate")


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or go on training."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        course = _train_scorer(options) if options.windows else _train_avsa(options)
    except (AvsaError, ValueError) as error:
        # Out of a loader's worker an error comes wrapped in its trace, the sentence last.
        sentence = (str(error).strip().splitlines() or [repr(error)])[-1]
        sentence = sentence.removeprefix("model.errors.MediaError: ")
        print(f"training.pretrain: {sentence}", file=sys.stderr)
        return 2
    if course.stopped_by:  # what comes after in a script is not for half a training
        raise Interrupted(course.stopped_by)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.pretrain", description="Train the scorer, or the AVSA network."
    )
    material = parser.add_mutually_exclusive_group(required=True)
    material.add_argument(
        "--windows", type=Path, nargs="+", help="folders of kept windows: train the scorer"
    )
    material.add_argument(
        "--clips", type=Path, help="indexed folder in the layout of YT-360: train AVSA"
    )
    material.add_argument(
        "--shards", type=Path, help="clips in shards (training.data.shards): train AVSA"
    )
    parser.add_argument("--validation", type=Path, help="folder of others, to measure on")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    presets = [*pretrain_scorer.PRESETS, *pretrain_avsa.AVSA_PRESETS]
    parser.add_argument("--preset", choices=presets, help="of the scorer: default; of AVSA: narrow")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    for name, least in {"steps": 1, "batch": 1, "seed": 0, "workers": 0}.items():
        parser.add_argument(
            f"--{name}", type=partial(at_least, least), help=f"instead of the preset's {name}"
        )
    parser.add_argument(
        "--precision", choices=("bf16", "f32"),
        help="instead of the preset's (AVSA on a CPU: always f32)",
    )  # fmt: skip
    parser.add_argument("--learning-rate", type=positive, help="instead of the preset's")
    parser.add_argument(
        "--start-from", type=Path, help="scorer, or AVSA network (its encoders), to begin with"
    )
    avsa = parser.add_argument_group("AVSA alone")
    avsa.add_argument("--compile", action="store_true", default=None, help="compile the network")
    avsa.add_argument("--ids", type=Path, help="list of recordings to train on (default: all)")
    avsa.add_argument("--validation-ids", type=Path, help="list of those in --clips to measure on")
    avsa.add_argument("--objective", type=Task, choices=list(Task), help="default avsa")
    avsa.add_argument(
        "--curriculum", action=argparse.BooleanOptionalAction, default=None,
        help="AVC first, as published (default, but for avc and easy)",
    )  # fmt: skip
    avsa.add_argument("--viewpoints", type=one_or_more, help="K, crops of a sample")
    avsa.add_argument("--translator", choices=get_args(TranslatorKind))
    avsa.add_argument("--depth", type=one_or_more, help="layers of the translators")
    avsa.add_argument("--sound", type=Sound, choices=list(Sound), help="what a viewpoint hears")
    avsa.add_argument(
        "--whitened", action=argparse.BooleanOptionalAction, default=None,
        help="decorrelate the sound's channels (default, but for --preset published)",
    )  # fmt: skip
    avsa.add_argument("--guide", type=Guide, choices=list(Guide), help="where crops look")
    avsa.add_argument("--detections", type=Path, help="a detector's boxes, for --guide objects")
    return parser


def _given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _preset(presets: Mapping[str, C], name: str) -> C:
    if name not in presets:
        raise OptionError(f"The preset {name} is the other model's: take {', '.join(presets)}.")
    return presets[name]


def _train_scorer(options: argparse.Namespace) -> Course:
    if foreign := _given(options, _OF_AVSA):
        flag = next(iter(foreign)).replace("_", "-")
        raise OptionError(
            f"--{flag} is of AVSA, which learns from --clips or --shards: leave it away."
        )
    preset = _preset(pretrain_scorer.PRESETS, options.preset or "default")
    config = replace(preset, **_given(options, _SCHEDULE))
    held_out = kept_windows(options.validation) if options.validation else []
    windows = [path for folder in options.windows for path in kept_windows(folder)]
    if seen := held_by_both(held_out, windows):
        raise OptionError(
            f"{len(seen)} windows of --validation are trained on as well, as {seen[0]}: hold out "
            "others, of another --seed."
        )
    with ranks(options.device) as at:
        return pretrain_scorer.train(
            config, windows, held_out, options.output, at, start_from=options.start_from
        )


def _train_avsa(options: argparse.Namespace) -> Course:
    config = _avsa_config(options)
    detections = read_detections(options.detections) if options.detections else None
    clips: ClipData | ShardData
    if options.shards:
        if options.ids or (options.validation_ids and not options.validation):
            raise OptionError("Shards are taken whole: choose --ids as they are written.")
        clips = ShardData(read_shards(options.shards), detections)
    else:
        ids = read_list(options.ids) if options.ids else None
        clips = ClipData(read_index(options.clips, ids), detections)
    held_out = None
    if options.validation_ids or options.validation:
        ids = read_list(options.validation_ids) if options.validation_ids else None
        held_out = ClipData(read_index(options.validation or options.clips, ids), detections)
        check_apart(clips.clips, held_out.clips)
    with ranks(options.device) as at:
        return pretrain_avsa.train_avsa(
            config, clips, options.output, at, held_out=held_out, start_from=options.start_from
        )


def _avsa_config(options: argparse.Namespace) -> AvsaPretrainConfig:
    name = options.preset or "narrow"
    preset = _preset(pretrain_avsa.AVSA_PRESETS, name)
    chosen = ("viewpoints", "translator", "depth", "whitened")
    network = replace(preset.network, **_given(options, chosen))
    if options.sound is not None:
        sound = preset.network.sound
        network = replace(
            network,
            sound=SoundInput(
                options.sound,
                n_bands=sound.n_bands,
                magnitude=sound.magnitude and not options.sound.has_intensity,
            ),
        )
    task = options.objective or preset.task
    curriculum = task.follows_avc if options.curriculum is None else options.curriculum
    guide = options.guide or preset.cropping.guide
    if guide is Guide.OBJECTS and options.detections is None:
        raise OptionError("--guide objects needs --detections, a file of boxes.")
    config = replace(
        preset, network=network, task=task, curriculum=curriculum and task is not Task.AVC,
        cropping=replace(preset.cropping, guide=guide), compile=options.compile or preset.compile,
        **_given(options, _SCHEDULE),
    )  # fmt: skip
    if options.steps is None and name in pretrain_avsa.AVSA_SAMPLES:
        return pretrain_avsa.lasting(config, pretrain_avsa.AVSA_SAMPLES[name])
    return config


if __name__ == "__main__":
    sys.exit(command(main))
