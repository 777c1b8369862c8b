"""What an AVSA run begins with, what of it moves, and that measuring leaves it alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.checkpoint import save_avsa
from model.networks.avsa import AvsaNetwork
from tests.training.test_pretrain_avsa import ALONE, NETWORK, STAGE, TINY
from training.data.kept_clips import keep_clips
from training.pretrain_avsa import AvsaCourse, AvsaPretrainConfig, ClipData, train_avsa


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipData:
    kept = keep_clips(tmp_path_factory.mktemp("kept") / "few", STAGE, 8, seed=1)
    return ClipData(kept.clips, media=kept)


def weights(network: AvsaNetwork, *, encoders: bool) -> dict[str, Tensor]:
    return {
        name: value.detach().clone()
        for name, value in network.named_parameters()
        if name.startswith(("video_encoder", "audio_encoder")) is encoders
    }


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return any(not after[name].equal(value) for name, value in before.items())


def test_a_run_begins_with_the_encoders_it_is_given(clips: ClipData, tmp_path: Path) -> None:
    torch.manual_seed(7)
    given, path = AvsaNetwork(NETWORK), tmp_path / "given.safetensors"
    save_avsa(path, given, {})
    slow = replace(TINY, steps=1, curriculum=False, learning_rate=1e-12)

    run = train_avsa(slow, clips, tmp_path / "run", ALONE, start_from=path)

    for name, value in weights(given, encoders=True).items():
        own = run.network.get_parameter(name)
        torch.testing.assert_close(own, value, rtol=0, atol=1e-9)
    assert moved(weights(given, encoders=False), weights(run.network, encoders=False))


def test_what_is_heard_is_standardised_by_what_is_learned_from(
    clips: ClipData, tmp_path: Path
) -> None:
    config = replace(TINY, steps=1, curriculum=False)

    run = train_avsa(config, clips, tmp_path, ALONE)

    heard = run.network.audio_standard(clips.examples(config))
    deviation, mean = torch.std_mean(heard, dim=(0, 2))
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-3)
    varies = deviation > 0.5  # of a dead band there is nothing to standardise
    assert varies.float().mean() > 0.9
    torch.testing.assert_close(deviation[varies], torch.ones(int(varies.sum())), rtol=0, atol=0.02)


def step(course: AvsaCourse, clips: ClipData, config: AvsaPretrainConfig) -> tuple[bool, bool]:
    """Whether a step moves the encoders, and the rest."""
    before = [weights(course.network, encoders=encoders) for encoders in (True, False)]
    network = course.network
    course.train_step(clips.batches(config, ALONE)[course.step])
    encoders, rest = (
        moved(values, weights(network, encoders=encoders))
        for encoders, values in zip((True, False), before, strict=True)
    )
    return encoders, rest


def test_encoders_that_were_trained_move_at_a_rate_of_their_own(clips: ClipData) -> None:
    """At none here: those of a phase before, and those that are given; not what is new."""
    config = replace(TINY, steps=10, trained_rate=0.0)
    course = AvsaCourse(config, ALONE)
    assert step(course, clips, config) == (True, True)
    course.at_step(2)
    assert step(course, clips, config) == (False, True)

    plain = replace(config, curriculum=False)
    course = AvsaCourse(plain, ALONE)
    course.begin_with(AvsaNetwork(NETWORK))
    assert step(course, clips, plain) == (False, True)


def test_measuring_leaves_a_run_as_it_was(clips: ClipData, tmp_path: Path) -> None:
    config = replace(TINY, steps=2, curriculum=False)
    course = train_avsa(config, clips, tmp_path, ALONE, held_out=clips)
    before = {name: value.clone() for name, value in course.pretext.state_dict().items()}

    first, again = course.validate(), course.validate()

    assert first == again
    assert all(module.training for module in course.pretext.modules())
    for name, value in course.pretext.state_dict().items():
        assert value.equal(before[name]), name
