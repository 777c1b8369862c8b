"""The scorer of all rotations at once: two encoders that keep azimuth, and their correlation.

Both encoders treat every azimuth alike, around the seam, so a rolled picture rolls its embedding
and a rotated field rolls the sound's, exactly. The embeddings of every pair of azimuths (seen,
heard) are compared over time, at several lags (synchrony), and as means over time (co-location); a
small network weighs each comparison, and the pairs that belong to one rotation are summed. One pass
of each encoder scores all rotations.

The idea of scoring rotations by audio-visual spatial alignment is that of Morgado, Li and
Vasconcelos (NeurIPS 2020); its crops and pooled embeddings are replaced by a dense, equivariant
correlation. Shape letters are those of `model`; A is 72 azimuth bins in picture order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

N_AZIMUTHS = 72
_EPS = 0.05


@dataclass(frozen=True)
class EquivariantConfig:
    """Sizes of an `EquivariantScorer`.

    Attributes
    ----------
    n_maps, n_elevations : of the picture (`features.MAPS`, `features.N_ELEVATIONS`).
    n_sound_features : per azimuth, frame (see `features.directional`).
    widths : channels of the picture's three convolutions over azimuth and elevation.
    hidden : channels of the convolutions over time.
    size : of an embedding, D.
    heads : groups of embedding channels that are compared apart.
    lags : of the sound against the picture, in frames.
    """

    n_maps: int = 7
    n_elevations: int = 12
    n_sound_features: int = 131
    widths: tuple[int, int, int] = (16, 24, 48)
    hidden: int = 64
    size: int = 48
    heads: int = 6
    lags: tuple[int, ...] = (-2, -1, 0, 1, 2)


class Scores(NamedTuple):
    """What the network says of a batch.

    Attributes
    ----------
    yaw : log-evidence per rotation, over `evidence.yaws_deg`, [shape=(B, R)].
    belongs : logit that the sound is this picture's, at whatever rotation, [shape=(B,)].
    synchronous : logit that they run on the same time, [shape=(B,)].
    """

    yaw: Tensor
    belongs: Tensor
    synchronous: Tensor


class _AroundConv(nn.Module):
    """A 3x3 convolution that goes around in azimuth and repeats the rows at the edges."""

    def __init__(self, n_in: int, n_out: int, *, every: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, stride=(every, 1))
        self.norm = nn.GroupNorm(4, n_out)

    def forward(self, x: Tensor) -> Tensor:
        around: Tensor = _Around.apply(x)  # type: ignore[no-untyped-call]
        normed: Tensor = self.norm(self.conv(around))
        return normed.relu()


class _Around(torch.autograd.Function):
    """A map with a border of 1, around in azimuth and repeating its first and last row.

    As `functional.pad` twice, whose gradient takes longer than the convolution's.
    """

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        padded = x.new_empty(*x.shape[:-2], rows + 2, columns + 2)
        padded[..., 1:-1, 1:-1] = x
        padded[..., 0, 1:-1], padded[..., -1, 1:-1] = x[..., 0, :], x[..., -1, :]
        padded[..., 0], padded[..., -1] = padded[..., -2], padded[..., 1]
        return padded

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        (padded,) = gradients
        around = padded[..., 1:-1].clone()
        around[..., -1] += padded[..., 0]
        around[..., 0] += padded[..., -1]
        inner = around[..., 1:-1, :]
        inner[..., 0, :] += around[..., 0, :]
        inner[..., -1, :] += around[..., -1, :]
        return inner


class PictureEncoder(nn.Module):
    """Picture maps [shape=(B, T, n_maps, E, A)] to embeddings [shape=(B, A, D, T)]."""

    def __init__(self, config: EquivariantConfig) -> None:
        super().__init__()
        first, second, third = config.widths
        self.first = _AroundConv(config.n_maps, first, every=2)
        self.second = _AroundConv(first, second)
        self.third = _AroundConv(second, third, every=2)
        self.attention = nn.Conv2d(third, 1, 1)
        self.time = _TimeConv(third, config.hidden, config.size)

    def forward(self, maps: Tensor) -> Tensor:
        batch, n_frames = maps.shape[:2]
        x = self.second(self.first(maps.flatten(0, 1)))
        x = self.third(x)
        # Where up and down it happens is looked for, not averaged over.
        x = (x * self.attention(x).softmax(dim=2)).sum(dim=2)  # (B T, channels, A)
        x = x.view(batch, n_frames, *x.shape[1:]).permute(0, 3, 2, 1)
        embedded: Tensor = self.time(x)
        return embedded


class SoundEncoder(nn.Module):
    """Directional features [shape=(B, A, n_sound_features, T)] to [shape=(B, A, D, T)]."""

    def __init__(self, config: EquivariantConfig) -> None:
        super().__init__()
        self.bands = nn.Conv1d(config.n_sound_features, config.hidden, 1)
        self.time = _TimeConv(config.hidden, config.hidden, config.size)

    def forward(self, sound: Tensor) -> Tensor:
        batch = sound.shape[0]
        x = self.bands(sound.flatten(0, 1)).relu()
        embedded: Tensor = self.time(x.view(batch, -1, *x.shape[1:]))
        return embedded


class _TimeConv(nn.Module):
    """Two convolutions over time, the same at every azimuth, [shape=(B, A, channels, T)]."""

    def __init__(self, n_in: int, hidden: int, n_out: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(n_in, hidden, 5, padding=2)
        self.second = nn.Conv1d(hidden, n_out, 5, padding=4, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x.flatten(0, 1)).relu())
        return y.view(*x.shape[:2], *y.shape[1:])


class EquivariantScorer(nn.Module):
    """Log-evidence for every rotation of the field; see the module."""

    heard: Tensor

    def __init__(self, config: EquivariantConfig | None = None) -> None:
        super().__init__()
        self.config = config or EquivariantConfig()
        heads, n_lags = self.config.heads, len(self.config.lags)
        self.picture = PictureEncoder(self.config)
        self.sound = SoundEncoder(self.config)
        self.compare = nn.Sequential(
            nn.Linear(heads * (n_lags + 1), 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()
        )
        self.weigh = nn.Linear(32, 1)
        self.trust = nn.Sequential(nn.Linear(32 * 3 + 3, 32), nn.ReLU(), nn.Linear(32, 2))
        seen = torch.arange(N_AZIMUTHS)
        # [seen, yaw]: the azimuth bin heard where a rotation brings it to `seen`. Azimuth falls
        # from left to right, and rotations are -175 to 180 degrees: see `evidence.yaws_deg`.
        yaw_bins = torch.arange(N_AZIMUTHS) + 1 - N_AZIMUTHS // 2
        self.register_buffer(
            "heard", (seen[:, None] + yaw_bins[None]) % N_AZIMUTHS, persistent=False
        )

    def forward(self, maps: Tensor, sound: Tensor) -> Scores:
        """Score all rotations.

        maps : [shape=(B, T, n_maps, E, A)]; sound : [shape=(B, A, n_sound_features, T)].
        """
        return self.scores(self.picture(maps), self.sound(sound))

    def scores(self, seen: Tensor, heard: Tensor) -> Scores:
        """Compare embeddings [shape=(B, A, D, T)] of both, at all rotations."""
        pairs = torch.cat([self._synchrony(seen, heard), self._co_location(seen, heard)], dim=1)
        index = self.heard.expand(*pairs.shape[:2], -1, -1)
        # (B, channels, seen, yaw): what is heard there once the field is turned by the yaw.
        by_yaw = pairs.gather(3, index).permute(0, 2, 3, 1)
        compared = self.compare(by_yaw).mean(dim=1, dtype=torch.float32)  # (B, yaw, channels)
        # In full precision: what all rotations share may grow large, and would round the rest off.
        with torch.autocast(compared.device.type, enabled=False):
            yaw = self.weigh(compared).squeeze(-1) * (N_AZIMUTHS / 6)
            return Scores(yaw, *self._trust(compared, yaw).unbind(-1))

    def by_azimuth(self, maps: Tensor, sound: Tensor) -> Tensor:
        """What each azimuth adds to the score of the field as it is, [shape=(B, A)].

        The score of a rotation of 0 is the sum, the bias of `weigh` aside.
        """
        seen, heard = self.picture(maps), self.sound(sound)
        pairs = torch.cat([self._synchrony(seen, heard), self._co_location(seen, heard)], dim=1)
        compared = self.compare(pairs.diagonal(dim1=2, dim2=3).transpose(1, 2))
        added: Tensor = functional.linear(compared, self.weigh.weight).squeeze(-1) / 6
        return added

    def _trust(self, by_yaw: Tensor, yaw: Tensor) -> Tensor:
        """Whether anything fits at all, from the best rotation against all, [shape=(B, 2)]."""
        log_posterior = yaw.log_softmax(-1)
        posterior = log_posterior.exp()
        best = torch.einsum("br,brd->bd", posterior, by_yaw)
        entropy = -(posterior * log_posterior).sum(-1)
        spread = torch.stack([entropy, yaw.amax(-1) - yaw.mean(-1), yaw.logsumexp(-1)], dim=-1)
        trust: Tensor = self.trust(
            torch.cat([best, by_yaw.mean(1), by_yaw.amax(1), spread / 4], dim=-1)
        )
        return trust

    def _grouped(self, embedding: Tensor) -> Tensor:
        """[shape=(B, A, D, ...)] to [shape=(B, heads, A, D / heads, ...)]."""
        batch, n_azimuths, _, *rest = embedding.shape
        return embedding.view(batch, n_azimuths, self.config.heads, -1, *rest).transpose(1, 2)

    def _synchrony(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Correlation over time of every pair of azimuths, [shape=(B, heads * lags, A, A)].

        In deviations of chance: the longer the window, the larger what is more than chance.
        """
        sides = []
        for embedding in (seen, heard):
            varying = self._grouped(embedding - embedding.mean(-1, keepdim=True))
            scale = varying.square().mean((2, 3, 4), keepdim=True).sqrt() + _EPS
            # Time before channels, so that a lag leaves out a stretch at one end.
            sides.append((varying / scale).transpose(3, 4).flatten(3))
        first, second = sides
        n, step = first.shape[3], seen.shape[2] // self.config.heads
        pairs = []
        for lag in self.config.lags:
            late, early = max(lag, 0) * step, max(-lag, 0) * step
            pairs.append(
                first[..., late : n - early] @ second[..., early : n - late].transpose(2, 3)
            )
        correlation: Tensor = torch.cat(pairs, dim=1) * (0.3 / n**0.5)
        return correlation

    def _co_location(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Product of the means over time, without what all azimuths share, (B, heads, A, A)."""
        sides = []
        for embedding in (seen, heard):
            mean = embedding.mean(-1)
            own = self._grouped(mean - mean.mean(1, keepdim=True))
            sides.append(own / (own.square().mean((2, 3), keepdim=True).sqrt() + _EPS))
        product: Tensor = sides[0] @ sides[1].transpose(2, 3)
        return product / sides[0].shape[3]
