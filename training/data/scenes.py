"""Synthetic 360 scenes with sound whose directions are known exactly.

A scene is drawn from a seed and `Conditions`; picture and sound are rendered from it apart, at any
size and rate. In a scene sound and picture fit: the right rotation of its field is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly
from torch import Tensor

from model.ambisonics import plane_wave_gains
from model.features import SAMPLERATE
from training.data.bodies import (
    BODY_CHANCES,
    BODY_KINDS,
    EXTENDED,
    PERFORMERS,
    draw_body,
    draw_path,
    swing,
)
from training.data.canvas import blank, disturb, draw_surroundings, shake
from training.data.materials import NOTHING, Materials
from training.data.picture import Body, Nearness, Texture
from training.data.signals import (
    Envelope,
    EnvelopeKind,
    draw_drive,
    draw_envelope,
    draw_sound,
    envelope_of,
)
from training.data.soundfield import Room, diffuse_noise, place, recorded

FloatArray = NDArray[np.float64]

# By so much at most the waves of one extended source come early or late: none is another's then.
_WAVES_APART_S = 0.02


@dataclass(frozen=True)
class Conditions:
    """What a scene may hold; each None is drawn at random.

    Attributes
    ----------
    n_sources : visible bodies that sound (1 to 3).
    n_distractors : silent bodies (0 to 5; up to 10 may be asked for).
    calm : whether the silent bodies move less than the sounding ones and stay in place, as in
        most footage, or as much.
    snr_db : sources over diffuse noise (-5 to 30).
    envelope : kind of every source's envelope.
    body : kind of every visible source's body (one of `BODY_KINDS`).
    offscreen : whether something sounds that is not in the picture.
    shaken : whether the camera trembles.
    foreign : whether the sound belongs to another scene (nothing fits).
    silent : whether nothing sounds but diffuse noise.
    flawless : whether the microphone's channels are exact.
    planar : whether Z is silent.
    plain : whether all bodies, silent ones too, are ellipses of 10 to 40 degrees that move clearly
        and, if they sound, with the loudness of their sound and nearly at its time.
    """

    duration_s: float = 10.0
    n_sources: int | None = None
    n_distractors: int | None = None
    calm: bool | None = None
    snr_db: float | None = None
    envelope: EnvelopeKind | None = None
    body: str | None = None
    offscreen: bool | None = None
    shaken: bool | None = None
    foreign: bool = False
    silent: bool = False
    flawless: bool = False
    planar: bool | None = None
    plain: bool = False
    ensemble: bool = False


@dataclass(frozen=True)
class Source:
    """Something that sounds, and the body that shows it (None: off screen)."""

    envelope: Envelope
    azimuth: FloatArray
    elevation: FloatArray
    level_db: float
    extent_rad: float
    body: Body | None
    recording: FloatArray | None = None  # its sound at `SAMPLERATE`; None: a synthetic one


@dataclass(frozen=True)
class Scene:
    """A scene before it is rendered; `seed` makes the rest of its randomness repeatable."""

    seed: int
    conditions: Conditions
    snr_db: float
    sources: tuple[Source, ...]
    distractors: tuple[Body, ...]
    shake_rad: float
    flicker: float
    noise: float
    bed_db: float | None = None  # music without a direction, against the sources

    @property
    def bodies(self) -> list[Body]:
        """All that is seen, from back to front: wide stuff lies behind."""
        seen = [source.body for source in self.sources if source.body is not None]
        return sorted([*seen, *self.distractors], key=lambda body: -body.radius)

    @property
    def source_azimuths_rad(self) -> list[float]:
        """Mean direction of each visible source."""
        return [
            float(np.angle(np.exp(1j * source.azimuth).mean()))
            for source in self.sources
            if source.body is not None
        ]


def draw_scene(
    seed: int, conditions: Conditions | None = None, materials: Materials = NOTHING
) -> Scene:
    """The scene of a seed."""
    c = conditions or Conditions()
    rng = np.random.default_rng([seed, 1])
    n_sources = c.n_sources or int(rng.choice([1, 2, 3], p=[0.6, 0.27, 0.13]))
    group = _draw_group(seed, c) if c.ensemble else None
    if group is not None and c.n_sources is None:
        n_sources = group.size
    n_distractors = c.n_distractors
    if n_distractors is None:
        n_distractors = int(rng.choice(6, p=[0.25, 0.25, 0.2, 0.14, 0.1, 0.06]))
    calm = rng.random() < 0.55 if c.calm is None else c.calm
    offscreen = rng.random() < 0.2 if c.offscreen is None else c.offscreen
    shaken = rng.random() < 0.2 if c.shaken is None else c.shaken
    sources = []
    if c.silent:
        n_distractors += n_sources
    else:
        sources = [
            _draw_source(rng, c, materials, visible=True, group=group) for _ in range(n_sources)
        ]
        sources += [_draw_source(rng, c, materials, visible=False)] if offscreen else []
    return Scene(
        seed=seed,
        conditions=c,
        snr_db=rng.uniform(-5, 30) if c.snr_db is None else c.snr_db,
        sources=tuple(sources),
        distractors=tuple(
            _draw_distractor(rng, c, materials, calm=calm) for _ in range(n_distractors)
        ),
        shake_rad=rng.uniform(0.001, 0.012) if shaken else 0.0,
        flicker=rng.uniform(0, 0.02),
        noise=rng.uniform(0.3, 4),
        bed_db=-rng.uniform(0, 15) if rng.random() < 0.1 else None,
    )


@dataclass(frozen=True)
class _Group:
    """Performers side by side.

    Attributes
    ----------
    azimuths_rad : between which they are.
    envelope : that all share, as a choir does; None: each has its own.
    """

    size: int
    azimuths_rad: tuple[float, float]
    envelope: Envelope | None


def _draw_group(seed: int, c: Conditions) -> _Group:
    rng = np.random.default_rng([seed, 8])
    middle, half = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(15, 80))
    envelope = draw_envelope(rng, c.duration_s, c.envelope) if rng.random() < 0.4 else None
    return _Group(int(rng.integers(4, 9)), (middle - half, middle + half), envelope)


def _draw_source(
    rng: np.random.Generator,
    c: Conditions,
    materials: Materials,
    *,
    visible: bool,
    group: _Group | None = None,
) -> Source:
    kind = _draw_kind(rng, c)
    if group is not None:
        kind = str(rng.choice(PERFORMERS))
    kind = c.body or kind if visible else kind
    if group is not None and group.envelope is not None:
        envelope, recording = group.envelope, None
    else:
        envelope, recording = _draw_activity(rng, c, materials, kind, c.envelope)
    anywhere = (-np.pi, np.pi) if group is None else group.azimuths_rad
    azimuth, elevation = draw_path(rng, c.duration_s, kind, anywhere)
    drive = _draw_movement(rng, c, kind, envelope)
    body = draw_body(rng, kind, azimuth, elevation, drive, plain=c.plain)
    if visible:
        azimuth, elevation = body.heard_from
    return Source(
        envelope=envelope,
        azimuth=azimuth,
        elevation=elevation,
        level_db=rng.uniform(-6, 6),
        extent_rad=body.radius if kind in EXTENDED else 0.0,
        body=body if visible else None,
        recording=recording,
    )


def _draw_activity(
    rng: np.random.Generator, c: Conditions, materials: Materials, kind: str,
    asked: EnvelopeKind | None = None,
) -> tuple[Envelope, FloatArray | None]:  # fmt: skip
    """What a body of a kind does over time, and the recording that this was taken from, if any."""
    if asked is None and kind == "hammer":
        asked = "strikes"
    if asked is None and kind in ("vehicle", "texture", "surf"):
        asked = "swell" if rng.random() < 0.5 else "sustained"
    if asked is None and materials.recordings and rng.random() < 0.5:
        recording = materials.sound(rng, c.duration_s)
        return envelope_of(recording, SAMPLERATE), recording
    return draw_envelope(rng, c.duration_s, asked), None


def _draw_movement(
    rng: np.random.Generator, c: Conditions, kind: str, envelope: Envelope
) -> FloatArray:
    """How what a body does shows."""
    if c.plain:
        strength, lag_s = rng.uniform(0.5, 1), rng.uniform(-0.03, 0.06)
        drive = draw_drive(rng, envelope, strength=strength, lag_s=lag_s, kind="level")
    else:
        strength, lag_s = rng.uniform(0.35, 1.0), rng.uniform(-0.15, 0.08)
        drive = draw_drive(rng, envelope, strength=strength, lag_s=lag_s)
    return swing(envelope) if kind == "hammer" else drive


def _draw_distractor(
    rng: np.random.Generator, c: Conditions, materials: Materials, *, calm: bool
) -> Body:
    """A silent body; a calm one moves less.

    It does what the sounding ones do, to sound that is not there: nothing but the sound's own
    course and direction tells who is heard.
    """
    kind = _draw_kind(rng, c)
    envelope, _ = _draw_activity(rng, c, materials, kind)
    azimuth, elevation = draw_path(rng, c.duration_s, kind)
    if calm:
        azimuth = np.full_like(azimuth, azimuth[0])
    drive = _draw_movement(rng, c, kind, envelope)
    body = draw_body(rng, kind, azimuth, elevation, drive, plain=c.plain)
    if calm:
        body.still(float(rng.uniform(0.02, 0.35)))
    return body


def _draw_kind(rng: np.random.Generator, c: Conditions) -> str:
    kind = BODY_KINDS[rng.choice(len(BODY_KINDS), p=BODY_CHANCES)]
    return "blob" if c.plain else kind


def render_picture(
    scene: Scene,
    *,
    height: int,
    rate_hz: float,
    colour: bool = False,
    materials: Materials = NOTHING,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The picture, [shape=(T, H, 2 H, channels)], uint8, grey or RGB."""
    rng = np.random.default_rng([scene.seed, 2])
    background = draw_surroundings(rng, height, materials, device)
    if not colour:
        background = background.mean(-1, keepdim=True)
    n_frames = round(scene.conditions.duration_s * rate_hz)
    canvas = blank(background, np.arange(n_frames) / rate_hz)
    for body in scene.bodies:
        body.draw(canvas)
    if scene.shake_rad:
        shake(rng, canvas, scene.shake_rad)
    disturb(rng, canvas, flicker=scene.flicker, noise=scene.noise)
    return canvas.frames


def render_sound(
    scene: Scene,
    *,
    samplerate: int,
    order: int = 1,
    materials: Materials = NOTHING,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The sound field, ACN/SN3D [shape=(C, N)], float64, peak 0.5."""
    rng = np.random.default_rng([scene.seed, 3])
    c = scene.conditions
    n = round(c.duration_s * samplerate)
    room = draw_room(rng, samplerate, materials)
    field = torch.zeros((order + 1) ** 2, n, dtype=torch.float64, device=device)
    sources = scene.sources
    if c.foreign:
        sources = draw_scene(scene.seed + 1_000_003, replace(c, foreign=False), materials).sources
    for source in sources:
        field += _heard(rng, source, n, samplerate, order, room, device)
    level = float(field[0].square().mean().sqrt()) or 1.0
    if scene.bed_db is not None:
        swell = draw_envelope(rng, c.duration_s, "swell")
        bed = draw_sound(rng, swell, samplerate, device=device)
        field[0] += bed[:n] * level * 10 ** (scene.bed_db / 20)
    field += diffuse_noise(rng, n, order, device) * level * 10 ** (-scene.snr_db / 20)
    return recorded(rng, field, samplerate, flawless=c.flawless, planar=c.planar)


def draw_room(rng: np.random.Generator, samplerate: int, materials: Materials = NOTHING) -> Room:
    """A room, measured or made up."""
    measured = None
    if materials.rooms and rng.random() < 0.4:
        measured = _resampled(materials.room(rng), samplerate)
    return Room(rng, samplerate, measured=measured)


def _heard(
    rng: np.random.Generator, source: Source, n: int, samplerate: int, order: int, room: Room,
    device: torch.device | str,
) -> Tensor:  # fmt: skip
    """The field of one source; an extended one is many waves that do not know of each other."""
    gain = 10 ** (source.level_db / 20)
    if source.extent_rad == 0:
        sound = _sound_of(rng, source, samplerate, device)[:n] * gain
        return place(sound, source.azimuth, source.elevation, samplerate, order, room)
    texture = source.body if isinstance(source.body, Texture) else None
    offsets = _spread(rng, source.extent_rad)
    gains = (texture.nearness if texture else Nearness()).at(torch.from_numpy(offsets)).tolist()
    most = round(_WAVES_APART_S * samplerate)
    sounds = [
        _moved(_sound_of(rng, source, samplerate, device)[:n], int(rng.integers(-most, most + 1)))
        for _ in offsets
    ]
    waves = [*zip(offsets.tolist(), gains, sounds, strict=True)]
    for breaker in texture.breakers if texture else ():
        sound = draw_sound(rng, breaker.envelope, samplerate, device=device)[:n]
        waves.append((breaker.offset, breaker.gain, sound))
    field = torch.zeros((order + 1) ** 2, n, dtype=torch.float64, device=device)
    for offset, loudness, sound in waves:
        # They stay where they are; and a stretch above or below the horizon is as long as there.
        aside = np.clip(offset / np.cos(source.elevation[0]), -np.pi, np.pi)
        towards = plane_wave_gains(source.azimuth[0] + aside, source.elevation[0], order)
        field += torch.from_numpy(loudness * towards).to(device)[:, None] * sound
    field *= gain / len(offsets) ** 0.5
    return field


def _sound_of(
    rng: np.random.Generator, source: Source, samplerate: int, device: torch.device | str
) -> Tensor:
    if source.recording is None:
        return draw_sound(rng, source.envelope, samplerate, device=device)
    return torch.from_numpy(_resampled(source.recording, samplerate)).to(device)


def _resampled(sound: FloatArray, samplerate: int) -> FloatArray:
    """From `SAMPLERATE` to another rate."""
    if samplerate == SAMPLERATE:
        return sound
    divisor = gcd(SAMPLERATE, samplerate)
    return np.asarray(resample_poly(sound, samplerate // divisor, SAMPLERATE // divisor, axis=-1))


def _spread(rng: np.random.Generator, extent_rad: float) -> FloatArray:
    """Offsets of the plane waves of a source: one, or several, each in a part of its extent.

    So they lie about its middle, where it is seen.
    """
    if extent_rad == 0:
        return np.zeros(1)
    n = max(3, int(np.rad2deg(extent_rad) / 10))
    return np.asarray((2 * (np.arange(n) + rng.random(n)) / n - 1) * extent_rad)


def _moved(sound: Tensor, by: int) -> Tensor:
    """A sound so many samples later (negative: earlier), as long as it was."""
    silence = sound.new_zeros(abs(by))
    return (
        torch.cat([silence, sound])[: len(sound)] if by > 0 else torch.cat([sound, silence])[-by:]
    )
