"""Bodies at random: where they go, how they look, and how what they do shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.picture import (
    Blob,
    Body,
    Breaker,
    Figure,
    Hammer,
    Nearness,
    Particles,
    Patch,
    Texture,
    Vehicle,
    random_pattern,
)
from training.data.signals import (
    CURVE_RATE,
    Envelope,
    EnvelopeKind,
    decaying,
    draw_drive,
    draw_envelope,
    n_points,
    smooth_noise,
)

FloatArray = NDArray[np.float64]

BODY_KINDS = (
    "blob", "patch", "speaker", "player", "hammer", "vehicle", "texture", "particles", "surf",
)  # fmt: skip
BODY_CHANCES = (0.2, 0.18, 0.17, 0.17, 0.08, 0.08, 0.08, 0.04, 0.0)  # surf: only if asked for
EXTENDED = ("texture", "surf")
PERFORMERS = ("speaker", "player", "patch")


def swing(envelope: Envelope) -> FloatArray:
    """Height of a hammer, 1 at the blow: it falls fast before each onset and rises slowly after."""
    hits = (envelope.onsets > 0.3).astype(float)
    return np.clip(np.maximum(decaying(hits[::-1], 0.05)[::-1], decaying(hits, 0.15)), 0, 1)


def draw_path(
    rng: np.random.Generator, duration_s: float, kind: str,
    azimuths_rad: tuple[float, float] = (-np.pi, np.pi),
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Where a body goes from between two azimuths: azimuth and elevation at `CURVE_RATE`."""
    n = n_points(duration_s)
    t = np.arange(n) / CURVE_RATE
    azimuth = rng.uniform(*azimuths_rad) + np.zeros(n)
    elevation = np.clip(rng.normal(-0.08, 0.18), -0.6, 0.6) + np.zeros(n)
    if kind in EXTENDED:
        # Water and ground lie low.
        elevation -= rng.uniform(0, 0.35)
    moves = {"vehicle": 0.9, "hammer": 0.0, "texture": 0.0, "surf": 0.0, "player": 0.1}.get(
        kind, 0.3
    )
    if rng.random() < moves:
        if rng.random() < 0.6:
            azimuth += rng.choice([-1, 1]) * rng.uniform(0.03, 0.45) * t
        else:
            period = rng.uniform(4, 20)
            azimuth += rng.uniform(0.1, 0.7) * np.sin(2 * np.pi * t / period + rng.uniform(0, 6.28))
        azimuth += 0.04 * smooth_noise(rng, n, 0.6)
    return azimuth, elevation


def draw_body(
    rng: np.random.Generator, kind: str, azimuth: FloatArray, elevation: FloatArray,
    drive: FloatArray, *, plain: bool = False,
) -> Body:  # fmt: skip
    def size(low_deg: float, high_deg: float) -> float:
        return float(np.deg2rad(np.exp(rng.uniform(np.log(low_deg), np.log(high_deg)))))

    base: dict[str, Any] = {
        "azimuth": azimuth,
        "elevation": elevation,
        "drive": drive,
        "colour": rng.uniform(0.08, 0.95, 3),
        "amount": float(np.exp(rng.uniform(np.log(0.1), np.log(1.2)))),
    }
    if kind == "blob":
        names = ["grow", "brighten", "bob", "walk", "appear", "ripple"]
        ways = rng.choice(names, size=rng.integers(1, 4), replace=False)
        turn = rng.uniform(0, 2 * np.pi)
        if plain:
            base["amount"] = rng.uniform(0.25, 1.2)
        radius = np.deg2rad(rng.uniform(5, 20)) if plain else size(1.5, 18)
        return Blob(
            **base, radius=radius, ways=frozenset(map(str, ways)),
            aspect=float(np.exp(rng.uniform(-0.4, 0.4))),
            ripple=(rng.uniform(0, 0.4), rng.uniform(1, 6), rng.uniform(1, 6)),
            heading=(np.cos(turn), np.sin(turn)),
        )  # fmt: skip
    if kind in ("speaker", "player"):
        own = rng.uniform(0.05, 0.5) * smooth_noise(rng, len(drive), rng.uniform(0.15, 0.8))
        return Figure(
            **base, radius=size(4, 22), speaks=kind == "speaker", arm=own,
            shade=rng.uniform(0.1, 0.8),
        )  # fmt: skip
    if kind == "hammer":
        return Hammer(**base, radius=size(2, 12))
    if kind == "vehicle":
        return Vehicle(**base, radius=size(1.2, 14))
    if kind == "patch":
        return _draw_patch(rng, base, radius=size(8, 24))
    if kind == "particles":
        starts = np.stack(
            [rng.normal(0, 0.6, 24), rng.uniform(-0.3, 0.9, 24), rng.uniform(0, 1, 24)], axis=1
        )
        return Particles(**base, radius=size(2, 20), starts=starts, speed=rng.uniform(0.4, 2.0))
    if kind == "surf":
        return _draw_surf(
            rng, base, radius=size(20, 110), pattern=random_pattern(rng), height=size(4, 32)
        )
    return _draw_texture(
        rng, base, radius=size(12, 85), pattern=random_pattern(rng), height=size(3, 22)
    )


def _draw_texture(rng: np.random.Generator, base: dict[str, Any], **sizes: Any) -> Texture:
    return Texture(
        **base, **sizes,
        speed=(rng.uniform(-1, 1), rng.uniform(-0.5, 0.5)), contrast=rng.uniform(0.05, 0.35),
        boil=rng.uniform(0, 1),
    )  # fmt: skip


def _draw_surf(rng: np.random.Generator, base: dict[str, Any], **sizes: Any) -> Texture:
    """A shore, a river, a fall: nearer in one place, and waves that break by themselves."""
    surf = _draw_texture(rng, base, **sizes)
    radius = surf.radius
    surf.nearness = Nearness(
        peak=rng.uniform(-0.8, 0.8) * radius, width=rng.uniform(0.2, 0.7) * radius,
        floor=rng.uniform(0.1, 0.9),
    )  # fmt: skip
    surf.breakers = tuple(_draw_breaker(rng, surf) for _ in range(int(rng.integers(1, 9))))
    return surf


def _draw_breaker(rng: np.random.Generator, surf: Texture) -> Breaker:
    kind: EnvelopeKind = ("swell", "strikes", "on-off")[rng.choice(3, p=[0.5, 0.3, 0.2])]
    envelope = draw_envelope(rng, (len(surf.drive) - 1) / CURVE_RATE, kind)
    strength, lag_s = rng.uniform(0.4, 1), rng.uniform(-0.15, 0.08)
    drive = draw_drive(rng, envelope, strength=strength, lag_s=lag_s)
    offset = rng.uniform(-0.95, 0.95) * surf.radius
    near = float(surf.nearness.at(torch.tensor(offset)))
    return Breaker(
        offset, width=rng.uniform(0.06, 0.35), drive=near * np.clip(drive, 0, 1),
        gain=near * rng.uniform(0.4, 2.0), envelope=envelope,
    )  # fmt: skip


def _draw_patch(rng: np.random.Generator, base: dict[str, Any], *, radius: float) -> Patch:
    """A patch in which one blob moves with the drive and others by themselves."""
    n = len(base["drive"])
    movers = []
    for index in range(int(rng.integers(1, 5))):
        own = {
            **base,
            "drive": base["drive"]
            if index == 0
            else draw_envelope(rng, (n - 1) / CURVE_RATE).level,
            "colour": rng.uniform(0.08, 0.95, 3),
            "amount": base["amount"] * (1.0 if index == 0 else rng.uniform(0.3, 1.2)),
        }
        mover = Blob(
            **own, radius=radius * rng.uniform(0.12, 0.5),
            ways=frozenset({str(rng.choice(["grow", "brighten", "bob", "ripple"]))}),
        )  # fmt: skip
        movers.append((rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5), mover))

    def tremble() -> FloatArray:
        amount = rng.choice([0.0, rng.uniform(0.001, 0.01)])
        return np.asarray(amount * smooth_noise(rng, n, rng.uniform(0.05, 0.4)))

    order = rng.permutation(len(movers))
    return Patch(
        **base, radius=radius, pattern=random_pattern(rng), aspect=rng.uniform(0.6, 1.1),
        contrast=rng.uniform(0.05, 0.3), tremble=(tremble(), tremble()),
        movers=tuple(movers[index] for index in order), sounding=int(np.argmin(order)),
    )  # fmt: skip
