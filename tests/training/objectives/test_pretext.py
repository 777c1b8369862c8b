"""What an objective is given: the crops' own places and times, and tokens of full precision."""

from __future__ import annotations

import torch

from model.networks.avsa import AvsaNetwork
from tests.training.objectives.test_objectives import CONFIG
from training.data.clips import Crops
from training.objectives.pretext import Pretext
from training.objectives.samples import Objective, Outcome, Samples


class Told(Objective):
    """Keeps what it is given, and in what products are taken."""

    def forward(self, _network: AvsaNetwork, samples: Samples) -> Outcome:
        self.samples = samples
        self.product = samples.video.flatten(1) @ samples.audio.flatten(1).T
        return self.product.sum(), {}


def test_objectives_are_given_the_crops_and_compare_in_full_precision() -> None:
    """However the network itself is computed: cosines over a temperature need the digits."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(1)
    others = {name: torch.rand(2, 2, generator=rng) for name in ("viewpoints", "moments")}
    others |= {name: torch.rand(2, generator=rng) for name in ("recordings", "rotations_rad")}
    batch = Crops(
        torch.rand(2, 2, 3, 4, 16, 16), torch.randn(2, 2, 8, 12, 24),
        directions=torch.rand(2, 2, 3, generator=rng), **others,
    )  # fmt: skip
    network, told = AvsaNetwork(CONFIG).eval(), Told()

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        video, audio = network(batch.pictures, batch.sounds)
        Pretext(network, told)(batch)

    for name in ("directions", *others):
        assert getattr(told.samples, name) is getattr(batch, name)
    for own, tokens in ((told.samples.video, video), (told.samples.audio, audio)):
        assert tokens.dtype is torch.bfloat16
        assert own.dtype is torch.float32
        assert own.equal(tokens.float())
    assert told.product.dtype is torch.float32
