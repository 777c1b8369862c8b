"""Sound by what is heard first: where it comes from is told before its echoes arrive.

An echo comes from elsewhere than its sound, and later. In each band, moments count for the
direction of an interval by how much they rise above what is still dying away, and by how much of
them flows one way (of echoes from all sides, and of diffuse noise, little does). How loud an
interval is, is told by all of them. Both stay within the ten covariance terms of `model.features`,
so all that is made of those, from beams to intensities, is as before; and a yaw of the field turns
the result as it turns them.

The precedence effect: Litovsky, Colburn, Yost and Guzman, "The precedence effect", J. Acoust. Soc.
Am. 106 (1999). Directness as a test of single bins: Nadiri and Rafaely, "Localization of multiple
speakers under high reverberation using a spherical microphone array and the direct-path dominance
test", IEEE/ACM TASLP 22 (2014).
"""

from __future__ import annotations

import torch
from torch import Tensor

from model import features
from model.features import HOP, SAMPLERATE, WW

_DECAY_S = 0.06  # in which what is dying away falls by a factor of e, in power
# Of a moment that tells no direction: an interval has one nevertheless if it has no better.
_LEAST = 0.03


def covariance(field: Tensor, edges_s: Tensor) -> Tensor:
    """The ten covariance terms between times, with directions of what is heard first.

    W² is that of `features.covariance`.

    field : W, Y, Z, X at `SAMPLERATE`, [shape=(..., 4, N)]; edges_s : [shape=(T + 1,)]. Returns
    [shape=(..., T, F, 10)], float64.
    """
    hops = features.covariance(field)
    edges = edges_s.to(field.device) * (SAMPLERATE / HOP) + 0.5
    weight = _directness(hops)[..., None] + _LEAST
    loud = _averaged(hops[..., WW, None], edges)
    first = _averaged(weight * hops, edges)
    return first * (loud / (first[..., WW, None] + 1e-30))


def _directness(hops: Tensor) -> Tensor:
    """How much each moment [shape=(..., n, F, 10)] counts for its band's direction, 0 to 1."""
    energy = features.energy(hops)
    flow = features.intensity(hops).norm(dim=-1) / (energy + 1e-30)
    counts: Tensor = _rise(energy).square() * flow.clamp(max=1) ** 4
    return counts


def _rise(energy: Tensor) -> Tensor:
    """Share of each moment's energy [shape=(..., n, F)] above what is dying away, 0 to 1.

    Of the first moment nothing is known, so it does not rise.
    """
    n = energy.shape[-2]
    level = (energy + 1e-30).log()
    fallen = torch.arange(n, dtype=level.dtype, device=level.device)[:, None]
    fallen = fallen * (HOP / SAMPLERATE / _DECAY_S)
    loudest = (level + fallen).cummax(dim=-2).values  # of all before, each fallen since
    before = torch.cat([loudest[..., :1, :], loudest[..., :-1, :]], dim=-2) - fallen
    return (1 - (before - level).exp()).clamp(min=0)


def _averaged(terms: Tensor, edges: Tensor) -> Tensor:
    """Means between fractional positions, [shape=(..., n, F, C)] to [shape=(..., T, F, C)]."""
    return features.averaged(terms.movedim(-3, -1), edges).movedim(-1, -3)
