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
_STILL = 0.1  # activity, against the mean's, that is as good as none


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
    coherence : whether synchrony is also told against how much each azimuth varies, and how much
        that is: of two bodies the one that moves more has more in common with any sound by chance.
    """

    n_maps: int = 7
    n_elevations: int = 12
    n_sound_features: int = 131
    widths: tuple[int, int, int] = (16, 24, 48)
    hidden: int = 64
    size: int = 48
    heads: int = 6
    lags: tuple[int, ...] = (-2, -1, 0, 1, 2)
    coherence: bool = False

    @property
    def comparisons(self) -> int:
        """Groups of `heads` numbers that a pair of azimuths is compared by."""
        return len(self.lags) + 1 + self.coherence * (len(self.lags) + 2)


class Scores(NamedTuple):
    """What the network says of a batch.

    Attributes
    ----------
    yaw : log-evidence per rotation, over `evidence.yaws_deg`, [shape=(B, R)].
    mirrored : the same of the mirrored field (Y negated, then rotated), [shape=(B, R)].
    belongs : logit that the sound is this picture's, at whatever rotation, [shape=(B,)].
    synchronous : logit that they run on the same time, [shape=(B,)].
    """

    yaw: Tensor
    mirrored: Tensor
    belongs: Tensor
    synchronous: Tensor

    @property
    def upright(self) -> Tensor:
        """Logit that the field is not mirrored, over all rotations of either, [shape=(B,)]."""
        return self.yaw.logsumexp(-1) - self.mirrored.logsumexp(-1)


class Side(NamedTuple):
    """What one encoder says of a batch, ready to be compared: N is heads, C channels of each.

    Attributes
    ----------
    varying : deviations from the mean over time, [shape=(B, N, A, T, C)].
    scale : their size, [shape=(B, N, 1)].
    activity : their size at each azimuth, in units of `scale`, [shape=(B, N, A)].
    own : means over time without what all azimuths share, in units of their size,
        [shape=(B, N, A, C)].
    """

    varying: Tensor
    scale: Tensor
    activity: Tensor
    own: Tensor


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
        x = (x * self._attention(x)).sum(dim=2)  # (B T, channels, A)
        x = x.view(batch, n_frames, *x.shape[1:]).permute(0, 3, 2, 1)
        embedded: Tensor = self.time(x)
        return embedded

    def _attention(self, x: Tensor) -> Tensor:
        """Share of each row, [shape=(B T, channels, rows, A)] to [shape=(B T, 1, rows, A)].

        As a product: a convolution to one channel, and its gradient, take many times as long.
        """
        weight, bias = self.attention.weight, self.attention.bias
        assert bias is not None
        logits = (weight.view(1, 1, -1) @ x.flatten(2) + bias).view(len(x), 1, *x.shape[2:])
        return logits.softmax(dim=2).to(x.dtype)


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
    heard_mirrored: Tensor

    def __init__(self, config: EquivariantConfig | None = None) -> None:
        super().__init__()
        self.config = config or EquivariantConfig()
        self.picture = PictureEncoder(self.config)
        self.sound = SoundEncoder(self.config)
        self.compare = nn.Sequential(
            nn.Linear(self.config.heads * self.config.comparisons, 32), nn.ReLU(),
            nn.Linear(32, 32), nn.ReLU(),
        )  # fmt: skip
        self.weigh = nn.Linear(32, 1)
        self.trust = nn.Sequential(nn.Linear(32 * 3 + 3, 32), nn.ReLU(), nn.Linear(32, 2))
        seen = torch.arange(N_AZIMUTHS)
        # [seen, yaw]: the azimuth bin heard where a rotation brings it to `seen`. Azimuth falls
        # from left to right, and rotations are -175 to 180 degrees: see `evidence.yaws_deg`.
        yaw_bins = torch.arange(N_AZIMUTHS) + 1 - N_AZIMUTHS // 2
        heard = (seen[:, None] + yaw_bins[None]) % N_AZIMUTHS
        self.register_buffer("heard", heard, persistent=False)
        self.register_buffer("heard_mirrored", N_AZIMUTHS - 1 - heard, persistent=False)

    def forward(self, maps: Tensor, sound: Tensor) -> Scores:
        """Score all rotations.

        maps : [shape=(B, T, n_maps, E, A)]; sound : [shape=(B, A, n_sound_features, T)].
        """
        return self.scores(self.picture(maps), self.sound(sound))

    def scores(self, seen: Tensor, heard: Tensor) -> Scores:
        """Compare embeddings [shape=(B, A, D, T)] of both, at all rotations."""
        return self.match(self.side(seen), self.side(heard))

    def match(self, seen: Side, heard: Side) -> Scores:
        """Compare both sides at all rotations."""
        pairs = self._compared(seen, heard)
        compared, mirrored = (
            _Rotations.apply(pairs, heard).transpose(1, 2)  # type: ignore[no-untyped-call]
            for heard in (self.heard, self.heard_mirrored)
        )  # (B, yaw, channels)
        # In full precision: what all rotations share may grow large, and would round the rest off.
        with torch.autocast(compared.device.type, enabled=False):
            yaw, of_mirrored = (
                self.weigh(each).squeeze(-1) * (N_AZIMUTHS / 6) for each in (compared, mirrored)
            )
            return Scores(yaw, of_mirrored, *self._trust(compared, yaw).unbind(-1))

    def by_azimuth(self, maps: Tensor, sound: Tensor) -> Tensor:
        """What each azimuth adds to the score of the field as it is, [shape=(B, A)].

        The score of a rotation of 0 is the sum, the bias of `weigh` aside.
        """
        compared = self._compared(self.side(self.picture(maps)), self.side(self.sound(sound)))
        compared = compared.diagonal(dim1=2, dim2=3)
        added: Tensor = functional.linear(compared.transpose(1, 2), self.weigh.weight)
        return added.squeeze(-1) / 6

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

    def side(self, embedding: Tensor) -> Side:
        """What is compared of an embedding [shape=(B, A, D, T)]."""
        mean = embedding.mean(-1)
        # Time before channels, so that a lag leaves out a stretch at one end.
        varying = self._grouped(embedding - mean[..., None]).transpose(3, 4).contiguous()
        power = varying.square().sum((3, 4)).float() / varying[0, 0, 0].numel()
        scale = power.mean(2, keepdim=True).sqrt() + _EPS
        own = self._grouped(mean - mean.mean(1, keepdim=True))
        return Side(
            varying,
            scale,
            (power + 1e-6).sqrt() / scale,
            own / (own.square().mean((2, 3), keepdim=True).sqrt() + _EPS),
        )

    def _grouped(self, embedding: Tensor) -> Tensor:
        """[shape=(B, A, D, ...)] to [shape=(B, N, A, C, ...)]."""
        batch, n_azimuths, _, *rest = embedding.shape
        return embedding.view(batch, n_azimuths, self.config.heads, -1, *rest).transpose(1, 2)

    def _compared(self, seen: Side, heard: Side) -> Tensor:
        """`compare` of every azimuth seen with every one heard, [shape=(B, 32, A, A)].

        Channels first, as the products are: the same as `compare`, without moving them.
        """
        pairs, units = self._pairs(seen, heard)
        first, second = (self._layer(index) for index in (0, 2))
        # The units go into the first weights, which are fewer than the pairs.
        weight = first.weight[:, : pairs.shape[1]] * units.mT
        added = first.bias[:, None]
        if self.config.coherence:
            added = added + self._of_either(_liveliness(seen), _liveliness(heard))
        x = torch.baddbmm(added, weight, pairs.flatten(2)).relu()
        x = torch.baddbmm(second.bias[:, None], second.weight.expand(len(x), -1, -1), x).relu()
        return x.view(len(x), -1, *pairs.shape[2:])

    def _layer(self, index: int) -> nn.Linear:
        """A linear layer of `compare`."""
        layer = self.compare[index]
        assert isinstance(layer, nn.Linear)
        return layer

    def _pairs(self, seen: Side, heard: Side) -> tuple[Tensor, Tensor]:
        """What is compared of all pairs, (B, channels, A, A), and its units, (B, channels, 1).

        Synchrony, lag by lag and head by head, and co-location by head. The former is in deviations
        of chance: the longer the window, the larger what is more than chance. With `coherence`,
        synchrony over the activities of both azimuths too.
        """
        lagged = _Lagged.apply(seen.varying, heard.varying, self.config.lags)  # type: ignore[no-untyped-call]
        pairs = [*lagged, seen.own @ heard.own.mT]
        n, n_channels = seen.varying[0, 0, 0].numel(), seen.own.shape[3]
        deviation = 0.3 / n**0.5 / (seen.scale * heard.scale)
        units = [deviation] * len(lagged) + [torch.full_like(deviation, 1 / n_channels)]
        if self.config.coherence:
            first, second = (side.activity + _STILL for side in (seen, heard))
            chance = (first[..., :, None] * second[..., None, :]).to(pairs[0].dtype)
            pairs += [product / chance for product in lagged]
            units += [deviation] * len(lagged)
        return torch.cat(pairs, dim=1), torch.cat(units, dim=1)

    def _of_either(self, seen: Tensor, heard: Tensor) -> Tensor:
        """What the first of `compare` makes of numbers [shape=(B, N, A)] of either side alone."""
        of_seen, of_heard = self._layer(0).weight[:, -2 * self.config.heads :].chunk(2, dim=1)
        return ((of_seen @ seen)[..., :, None] + (of_heard @ heard)[..., None, :]).flatten(2)


def _liveliness(side: Side) -> Tensor:
    return (side.activity + _STILL).log()


class _Lagged(torch.autograd.Function):
    """Products over time of all pairs of azimuths, at several lags of the second.

    [shape=(B, N, A, T, C)] twice to [shape=(B, N, A, A)] for each lag. As by slices and
    products, but those would each fill a whole embedding with their gradient, and add it.
    """

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, lags: tuple[int, ...]
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(first, second)
        ctx.lags = lags
        stretches = [_apart(first, second, lag) for lag in lags]
        return tuple(late.flatten(3) @ early.flatten(3).mT for late, early in stretches)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        first, second = ctx.saved_tensors
        own, others = torch.zeros_like(first), torch.zeros_like(second)
        for lag, gradient in zip(ctx.lags, gradients, strict=True):
            by_pair = gradient.to(first.dtype).flatten(0, 1)
            late, early = (part.flatten(0, 1).flatten(2) for part in _apart(first, second, lag))
            of_late, of_early = (part.flatten(0, 1).flatten(2) for part in _apart(own, others, lag))
            of_late.baddbmm_(by_pair, early)
            of_early.baddbmm_(by_pair.mT, late)
        return own, others, None


class _Rotations(torch.autograd.Function):
    """The mean over all pairs of azimuths that one rotation brings together, in float32.

    Pairs [shape=(B, channels, A, A)], and which is heard at each azimuth seen by rotation,
    [shape=(A, R)], every one once: to [shape=(B, channels, R)]. As by `gather`, whose gradient is
    added up place by place.
    """

    @staticmethod
    def forward(ctx: Any, pairs: Tensor, heard: Tensor) -> Tensor:
        ctx.save_for_backward(heard)
        ctx.dtype = pairs.dtype
        by_yaw = pairs.gather(3, heard.expand(*pairs.shape[:2], -1, -1))
        return by_yaw.mean(dim=2, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (heard,) = ctx.saved_tensors
        of_pair = gradients[0].to(ctx.dtype) / len(heard)
        return of_pair[..., heard.argsort(dim=1)], None


def _apart(first: Tensor, second: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """The stretches of both [shape=(..., A, T, C)] that meet when the second is late by `lag`."""
    n = first.shape[-2]
    return (
        first[..., max(lag, 0) : n - max(-lag, 0), :],
        second[..., max(-lag, 0) : n - max(lag, 0), :],
    )
