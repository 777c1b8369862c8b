"""Records of tensors, stacked into batches and moved to devices as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tensors:
    """A base of dataclasses that hold nothing but tensors."""

    @classmethod
    def stack(cls, items: Sequence[Self]) -> Self:
        """A batch of single items; a data loader's `collate_fn`."""
        return cls(
            **{f.name: torch.stack([getattr(i, f.name) for i in items]) for f in fields(cls)}
        )

    def to(self, device: torch.device | str) -> Self:
        """The same on a device, without waiting where memory is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """What a data loader calls."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(**{f.name: change(getattr(self, f.name)) for f in fields(self)})
