"""The contrast that most objectives share (InfoNCE, eq. 8 of the AVSA paper).

    loss(query) = -log( exp(h(positive) / t) / sum over candidates of exp(h(candidate) / t) )

h is the cosine, t the temperature. Objectives differ in what queries and candidates are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.objectives.gather import first_of_rank, gathered

TEMPERATURE = 0.07


@dataclass(frozen=True)
class Contrast:
    """Scores of queries against candidates.

    Attributes
    ----------
    scores : cosine / temperature of B samples of this rank with the M of all ranks, K crops
        each, [shape=(B, K, M, K)].
    further : of further candidates (from a memory), [shape=(B, K, P)]; minus infinity where one
        is none.
    """

    scores: Tensor
    further: Tensor | None = None

    def is_own(self) -> Tensor:
        """Which candidates come from the query's sample, [shape=(B, 1, M, 1)]."""
        n, m = self.scores.shape[0], self.scores.shape[2]
        own = torch.arange(n, device=self.scores.device) + first_of_rank(n)
        return (own[:, None] == torch.arange(m, device=self.scores.device))[:, None, :, None]

    def is_positive(self) -> Tensor:
        """Which candidate is the right one, [shape=(B, K, M, K)]."""
        return self.is_own() & self.is_same_place()

    def is_same_place(self) -> Tensor:
        """Which candidates have the query's place among their K, [shape=(1, K, 1, K)]."""
        k = self.scores.shape[1]
        return torch.eye(k, dtype=torch.bool, device=self.scores.device)[None, :, None]

    def loss(self, allowed: Tensor) -> Tensor:
        """Mean cross-entropy among the allowed candidates, which broadcast to the scores' shape.

        Raises
        ------
        ValueError : no query has a candidate besides the right one, so nothing can be learned.
        """
        allowed = allowed.expand_as(self.scores)
        positive = self.is_positive()
        if self.further is None and not (allowed & ~positive).any():
            raise ValueError("no candidate but the right one: take more crops or more samples")
        logits = self.scores.masked_fill(~(allowed | positive), -torch.inf).flatten(2)
        if self.further is not None:
            logits = torch.cat([logits, self.further], dim=-1)
        right = self.scores.masked_fill(~positive, 0.0).sum(dim=(2, 3))
        return (logits.logsumexp(-1) - right).mean()

    def accuracy(self, among: Tensor) -> Tensor:
        """Share of queries whose right candidate scores above all others of `among`."""
        others = among.expand_as(self.scores) & ~self.is_positive()
        best_other = self.scores.masked_fill(~others, -torch.inf).amax(dim=(2, 3))
        right = self.scores.masked_fill(~self.is_positive(), 0.0).sum(dim=(2, 3))
        return (right > best_other).float().mean().detach()

    def accuracies(self, allowed: Tensor) -> dict[str, Tensor]:
        """`instance`: above all allowed candidates of other samples; `place`: of the own one's.

        One that has no candidates is left out.
        """
        parts = {"instance": allowed & ~self.is_own(), "place": allowed & self.is_own()}
        return {
            f"{name} accuracy": self.accuracy(part)
            for name, part in parts.items()
            if bool((part.expand_as(self.scores) & ~self.is_positive()).any())
        }


def contrast(queries: Tensor, targets: Tensor, temperature: float = TEMPERATURE) -> Contrast:
    """Queries against the targets of all ranks, unit vectors [shape=(B, K, E)] each."""
    candidates = gathered(targets)
    return Contrast(torch.einsum("bke,mle->bkml", queries, candidates) / temperature)


def both_ways(
    first: Contrast, second: Contrast, first_allowed: Tensor, second_allowed: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss and accuracies of two contrasts."""
    loss = (first.loss(first_allowed) + second.loss(second_allowed)) / 2
    one, other = first.accuracies(first_allowed), second.accuracies(second_allowed)
    return loss, {name: (one[name] + other[name]) / 2 for name in one}
