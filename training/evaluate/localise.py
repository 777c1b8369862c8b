"""Where a model sees what sounds: maps over the panorama, in degrees from the visible sources.

    python -m training.evaluate localise --checkpoint avc.safetensors --checkpoint avsa.safetensors
    python -m training.evaluate localise --checkpoint avsa.safetensors --manifest takes.jsonl

An AVSA network's map is GradCAM (Selvaraju et al., 2017) of its alignment score: the mean cosine of
each crop's picture and sound, differentiated by the last stage of the video encoder, for crops all
around, each with the sound from its direction. The error is that of the map's best azimuth to the
nearest visible source. Synthetic scenes know where their sources are; of real takes that are known
to fit their picture, the loudest direction of the sound stands for the source.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model import features, precedence
from model.ambisonics import rotate_yaw
from model.checkpoint import load_scorer
from model.errors import OptionError
from model.evidence import acoustic_maps
from model.judges import AvsaScorer, load_avsa_scorer
from model.learned import sound_input
from model.media import VideoReader
from model.moments import FRAME_SIZE, moment_starts, picture_span
from model.networks.avsa import AvsaNetwork
from model.networks.equivariant import EquivariantScorer
from model.output import whole_file
from model.sphere import (
    column_azimuths,
    pixel_to_direction,
    tangent_coordinates,
    tangent_crops,
    tangent_map,
)
from model.take import Take, Track
from model.viewpoints import steering
from training.data.manifest import WEAK, KnownTake, read_manifest
from training.data.scenes import Conditions, Scene, draw_scene, render_picture, render_sound
from training.figures import write_report
from training.options import none_or_more, one_or_more

MAP_SIZE = (36, 72)  # rows and columns of a map over the panorama
_FIELD_OF_VIEW_RAD = math.pi / 2
_N_CROPS = 8  # around the horizon, at least; neighbours overlap by half
_DURATION_S = 10.0
_RATE_HZ = 16.0
Map = NDArray[np.float64]


def grad_cam(network: AvsaNetwork, crops: Tensor, audio: Tensor, *, translated: bool) -> Tensor:
    """How much each place of each crop speaks for its sound, at least 0, [shape=(V, h, w)].

    crops : of one sample, [shape=(V, 3, T, H, W)]; audio : tokens of what is heard there, (V, D).
    translated : compare with predictions, as `yaw_scores.yaw_scores`.
    """
    with torch.enable_grad():
        maps = network.video_encoder.feature_maps(network.video_standard(crops)).detach()
        maps.requires_grad_(True)
        video = maps.amax(dim=(2, 3, 4))
        targets = network.embed_audio(audio), network.embed_video(video)
        if translated:
            seen = (network.predict_video(audio[None])[0] * targets[1]).sum(-1)
            heard = (targets[0] * network.predict_audio(video[None])[0]).sum(-1)
            score = (seen + heard) / 2
        else:
            score = (targets[0] * targets[1]).sum(-1)
        (gradient,) = torch.autograd.grad(score.sum(), maps)
    share = gradient.mean(dim=(2, 3, 4), keepdim=True)
    return (share * maps).sum(1).relu().mean(1).detach()


def panorama(maps: Tensor, azimuths_rad: Sequence[float], fov_rad: float) -> Map:
    """Maps of square crops on the horizon [shape=(V, h, w)], on one panorama of `MAP_SIZE`.

    Where crops overlap, their mean weighted by nearness to their middles; 0 where none looks.
    """
    rows, columns = np.indices(MAP_SIZE)
    azimuth, elevation = pixel_to_direction(rows, columns, *MAP_SIZE)
    total, weight = np.zeros(MAP_SIZE), np.full(MAP_SIZE, 1e-12)
    half = math.tan(fov_rad / 2)
    for values, centre in zip(maps.double().cpu(), azimuths_rad, strict=True):
        left, up = tangent_coordinates(
            azimuth, elevation, centre_azimuth_rad=centre, centre_elevation_rad=0.0
        )
        inside = (np.abs(left) <= half) & (np.abs(up) <= half)
        place = np.stack([-left, -up], -1) / half
        grid = torch.from_numpy(np.where(inside[..., None], place, 0.0))[None]
        sampled = functional.grid_sample(
            values[None, None], grid, padding_mode="border", align_corners=False
        )[0, 0].numpy()
        near = inside * (1 - 0.9 * np.abs(np.where(inside, left, 0.0)) / half)
        total += near * sampled
        weight += near
    return np.asarray(total / weight)


def by_azimuth(over_panorama: Map) -> Map:
    """A map's sum over elevations by the area of each row, [shape=(columns,)]."""
    rows = pixel_to_direction(np.arange(len(over_panorama)), 0, *over_panorama.shape)[1]
    return np.asarray((np.cos(rows)[:, None] * over_panorama).sum(0))


def error_deg(profile: Map, sources_rad: Sequence[float]) -> float:
    """Degrees from the azimuth of a profile's maximum to the nearest source.

    profile : over the columns of a panorama.
    """
    best = column_azimuths(len(profile))[int(profile.argmax())]
    return min(abs(math.degrees(math.remainder(best - s, math.tau))) for s in sources_rad)


def chance_deg(sources_rad: Sequence[float], n_columns: int = MAP_SIZE[1]) -> list[float]:
    """Errors of profiles that have their maximum at each column."""
    return [error_deg(row, sources_rad) for row in np.eye(n_columns)]


@dataclass(frozen=True)
class Stretch:
    """Picture and sound, ready to be looked at, and where what sounds is.

    Attributes
    ----------
    frames : RGB, [shape=(T, H, W, 3)], `_RATE_HZ` a second.
    field : at `features.SAMPLERATE`, [shape=(4, N)].
    sources_rad : azimuths.
    by_ear : whether those were found by the sound alone, which cannot be judged by them then.
    """

    frames: NDArray[np.uint8]
    field: NDArray[np.floating]
    sources_rad: list[float]
    by_ear: bool = False


def rendered(scene: Scene) -> Stretch:
    """Picture and sound of a scene."""
    return Stretch(
        render_picture(scene, height=FRAME_SIZE[0], rate_hz=_RATE_HZ, colour=True).numpy(),
        render_sound(scene, samplerate=features.SAMPLERATE).numpy(),
        scene.source_azimuths_rad,
    )


def filmed(known: KnownTake) -> Stretch:
    """The middle of a take, its field turned so that it fits the picture.

    Raises
    ------
    AvsaError : the take cannot be read.
    """
    with Take(known.video, Track((known.audio,))) as take, VideoReader(known.video) as reader:
        length_s = min(_DURATION_S, take.end_s - take.start_s)
        start_s = (take.start_s + take.end_s - length_s) / 2
        block = take.field(start_s, length_s)
        field = features.to_analysis_rate(block, take.audio.samplerate)
        seen = reader.read(start_s, length_s, size=FRAME_SIZE, colour=True)
    turned = rotate_yaw(field, -math.radians(known.rotated_deg))
    wanted = start_s + np.arange(int(length_s * _RATE_HZ)) / _RATE_HZ
    nearest = np.abs(seen.times_s[None] - wanted[:, None]).argmin(1)
    times_s = torch.arange(len(wanted), dtype=torch.float64) / _RATE_HZ
    heard = acoustic_maps(features.covariance(torch.from_numpy(turned), times_s))["doa"].mean(0)
    loudest = float(features.azimuths(len(heard))[int(heard.argmax())])
    return Stretch(seen.frames[nearest], turned, [loudest], by_ear=True)


@torch.inference_mode(False)
def avsa_map(scorer: AvsaScorer, scene: Stretch) -> Map:
    """GradCAM over the panorama, the mean of a scene's moments."""
    network, config = scorer.network, scorer.config
    k = config.viewpoints
    n_sets = math.ceil(_N_CROPS / k)
    times_s = np.arange(len(scene.frames)) / _RATE_HZ
    crop = tangent_map(0.0, _FIELD_OF_VIEW_RAD, (config.crop_px, config.crop_px), FRAME_SIZE)
    total = np.zeros(MAP_SIZE)
    for at_s in moment_starts(0.0, len(scene.frames) / _RATE_HZ, config):
        seen_s, _ = picture_span(at_s, config)
        wanted = seen_s + np.arange(config.n_frames) / config.frame_rate_hz
        nearest = np.abs(times_s[None] - wanted[:, None]).argmin(1)
        frames = torch.from_numpy(scene.frames[nearest]).permute(0, 3, 1, 2).float() / 255
        first = round(at_s * features.SAMPLERATE)
        stretch = scene.field[:, first : first + round(config.sound_s * features.SAMPLERATE)]
        cov = config.sound.covariance(torch.from_numpy(stretch))
        maps, places = [], []
        for index in range(n_sets):
            azimuths = [math.tau * (i + index / n_sets) / k for i in range(k)]
            crops = tangent_crops(frames, azimuths, crop).transpose(1, 2)
            heard = config.sound.at(cov, steering(np.array(azimuths)))
            with torch.no_grad():
                audio = network.encode_audio(heard[None])[0]
            maps.append(grad_cam(network, crops, audio, translated=scorer.translated))
            places += azimuths
        total += panorama(torch.cat(maps), places, _FIELD_OF_VIEW_RAD)
    return total


def _in_maps(scene: Stretch) -> tuple[features.Motion, Tensor]:
    """What moves, and the covariances between the frames."""
    grey = scene.frames.mean(-1).astype(np.uint8)
    whole = torch.from_numpy(grey)[:, None].float()
    small = functional.interpolate(whole, features.PICTURE_SIZE, mode="area")[:, 0]
    small = small.round().to(torch.uint8)
    times_s = torch.arange(len(small), dtype=torch.float64) / _RATE_HZ
    motion = features.motion(small, times_s, torch.zeros(len(small), dtype=torch.bool))
    return motion, precedence.covariance(torch.from_numpy(scene.field), times_s)


def baselines(scene: Stretch) -> dict[str, Map]:
    """Profiles over azimuth of what moves, and of the sound alone."""
    motion, cov = _in_maps(scene)
    heard = acoustic_maps(cov)["doa"].mean(0)
    found = {"motion": _on_columns(motion.energy.mean(0))}
    return found if scene.by_ear else {**found, "sound": _on_columns(heard)}


@torch.no_grad()
def scorer_profile(network: EquivariantScorer, scene: Stretch) -> Map:
    """What each azimuth adds to the equivariant scorer's score of the field as it is."""
    motion, cov = _in_maps(scene)
    added = network.by_azimuth(motion.maps.float()[None], sound_input(cov)[None])[0]
    return _on_columns(added - added.min())


def _on_columns(profile: Tensor) -> Map:
    """A profile over `features.azimuths`, on the columns of a panorama."""
    azimuths = features.azimuths(len(profile)).double().numpy()
    nearest = [
        int(np.abs(np.angle(np.exp(1j * (azimuths - azimuth)))).argmin())
        for azimuth in column_azimuths(MAP_SIZE[1])
    ]
    return np.asarray(profile.double().cpu().numpy()[nearest])


def synthetic(n_scenes: int, seed: int = 900_000) -> Iterator[Stretch]:
    """Scenes whose sources are all in the picture.

    Raises
    ------
    OptionError : no scenes.
    """
    if n_scenes < 1:
        raise OptionError(f"The number of scenes is {n_scenes}; it takes at least 1.")
    conditions = Conditions(duration_s=_DURATION_S, offscreen=False, shaken=False)
    return (rendered(draw_scene(seed + index, conditions)) for index in range(n_scenes))


def run(
    checkpoints: Sequence[Path],
    scenes: Iterable[Stretch],
    *,
    report: Path | None = None,
    plot: Path | None = None,
) -> dict[str, dict[str, float]]:
    """Median error, and the shares of scenes within 20 and 30 degrees, of every model's map.

    plot : a picture of the first scene, with every map over it.

    Raises
    ------
    MediaError : a checkpoint is none.
    """
    models = dict(zip(_names(checkpoints), map(load_avsa_scorer, checkpoints), strict=True))
    scorer = load_scorer()
    errors: dict[str, list[float]] = {}
    for index, scene in enumerate(scenes):
        maps = {name: avsa_map(model, scene) for name, model in models.items()}
        profiles = {name: by_azimuth(over) for name, over in maps.items()}
        profiles |= {"equivariant scorer": scorer_profile(scorer, scene), **baselines(scene)}
        for name, profile in profiles.items():
            errors.setdefault(name, []).append(error_deg(profile, scene.sources_rad))
        errors.setdefault("chance", []).extend(chance_deg(scene.sources_rad))
        if index == 0 and plot is not None:
            draw(scene, maps, profiles, plot)
    figures = {name: _summary(found) for name, found in errors.items()}
    for name, values in figures.items():
        told = ", ".join(f"{what} {value:.2f}" for what, value in values.items())
        print(f"{name:22} {told}")
    if report is not None:
        write_report(report, figures)
    return figures


def _names(paths: Sequence[Path]) -> list[str]:
    """What to call networks: by their files, else by their folders, else by both."""
    for names in ([path.stem for path in paths], [path.resolve().parent.name for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _summary(errors: Sequence[float]) -> dict[str, float]:
    found = np.array(errors)
    shares = {f"within {limit}": float((found <= limit).mean()) for limit in (20, 30)}
    return {"median error": float(np.median(found)), **shares}


def draw(scene: Stretch, maps: Mapping[str, Map], profiles: Mapping[str, Map], path: Path) -> None:
    """The picture in the middle of a scene under every map, sources marked, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2 * len(profiles)), layout="constrained")
    extent = (180.0, -180.0, -90.0, 90.0)
    for axes, (name, profile) in zip(
        figure.subplots(len(profiles), 1, squeeze=False)[:, 0], profiles.items(), strict=True
    ):
        axes.imshow(scene.frames[len(scene.frames) // 2], extent=extent, aspect="auto")
        over = maps.get(name, np.repeat(profile[None], MAP_SIZE[0], axis=0))
        axes.imshow(over, extent=extent, aspect="auto", cmap="inferno", alpha=0.5)
        for source in scene.sources_rad:
            axes.axvline(math.degrees(source), color="cyan", linewidth=1.5)
        best = math.degrees(column_azimuths(len(profile))[int(profile.argmax())])
        axes.axvline(best, color="white", linestyle="--", linewidth=1.5)
        axes.set_title(
            f"{name}: {error_deg(profile, scene.sources_rad):.0f}° off "
            "(sources cyan, best of the map dashed)"
        )
        axes.set_xlabel("azimuth, degrees")
        axes.set_ylabel("elevation")
    with whole_file(path) as part:
        figure.savefig(part, dpi=80, format="png")


def add_command(commands: Any) -> Any:
    """`localise`: maps over the panorama."""
    command = commands.add_parser("localise", help="where a model sees what sounds, in degrees")
    command.add_argument(
        "--checkpoint", type=Path, action="append", default=[], dest="checkpoints",
        help="an AVSA network; several are compared",
    )  # fmt: skip
    command.add_argument(
        "--scenes", type=one_or_more, default=40, help="synthetic ones, of 10 s (40)"
    )
    command.add_argument("--seed", type=none_or_more, default=900_000, help="of the first (900000)")
    command.add_argument(
        "--manifest", type=Path,
        help="real takes that are known to fit, in place of scenes; weak ones are left out",
    )  # fmt: skip
    command.add_argument("--plot", type=Path, help="write the first scene's maps as PNG")
    command.set_defaults(run=_run)
    return command


def _run(arguments: argparse.Namespace) -> None:
    if arguments.manifest is None:
        scenes: Iterable[Stretch] = synthetic(arguments.scenes, arguments.seed)
    else:
        known = [take for take in read_manifest(arguments.manifest) if take.tier != WEAK]
        if not known:
            raise OptionError(f"All takes of {arguments.manifest} are weak: nothing is to be seen.")
        scenes = map(filmed, known)
    run(arguments.checkpoints, scenes, report=arguments.report, plot=arguments.plot)
