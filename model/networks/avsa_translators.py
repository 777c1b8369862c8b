"""Translators: from what is heard at several viewpoints to what is seen there, and back.

Eq. 4 to 6 of the AVSA paper. Tokens carry no position, which would give the alignment away; a
single attention head; normalisation after each sum. The released code adds a ReLU after every
layer, which the equations do not have and these do not either. 6 304 768 parameters at width 512
and depth 2, one direction.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

TranslatorKind = Literal["transformer", "mlp", "none"]
_EXPANSION = 4
_DROPOUT = 0.1


class Translator(nn.Module):
    """Layers over the viewpoints of one sample.

    kind : "transformer": viewpoints attend to each other; "mlp": the same with a second
        feed-forward part in the place of attention, so each is translated alone (the paper's
        ablation); "none": tokens pass unchanged.
    """

    def __init__(self, width: int, depth: int = 2, kind: TranslatorKind = "transformer") -> None:
        super().__init__()
        if kind == "none":
            depth = 0
        self.layers = nn.Sequential(
            *(TranslatorLayer(width, attends=kind == "transformer") for _ in range(depth))
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """[shape=(B, V, D)] to the same."""
        translated: Tensor = self.layers(tokens)
        return translated


class TranslatorLayer(nn.Module):
    """Attention (or a feed-forward part in its place), then a feed-forward part."""

    def __init__(self, width: int, *, attends: bool) -> None:
        super().__init__()
        self.mixing = Attention(width) if attends else _feed_forward(width)
        self.mixing_norm = nn.LayerNorm(width)
        self.feed_forward = _feed_forward(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = self.mixing_norm(tokens + self.dropout(self.mixing(tokens)))
        changed: Tensor = self.dropout(self.feed_forward(mixed))
        normed: Tensor = self.feed_forward_norm(mixed + changed)
        return normed


class Attention(nn.Module):
    """Scaled dot-product attention with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_query_key_value = nn.Linear(width, 3 * width)
        self.to_output = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.to_query_key_value(tokens).chunk(3, dim=-1)
        attended: Tensor = self.to_output(
            functional.scaled_dot_product_attention(query, key, value)
        )
        return attended


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, _EXPANSION * width), nn.ReLU(), nn.Linear(_EXPANSION * width, width)
    )
