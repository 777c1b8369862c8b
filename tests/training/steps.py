"""Steps of an optimizer that are counted instead of taken."""

from __future__ import annotations

import pytest
import torch


def rates_of_steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Where Adam's steps note their rates from now on; weights stay as they are."""
    rates: list[float] = []
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *_: rates.append(self.param_groups[0]["lr"])
    )
    return rates
