"""The published networks, part by part; options; scoring all yaws from few passes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.ambisonics import rotate_yaw
from model.evidence import yaws_deg
from model.networks.avsa import NARROW, PUBLISHED, AvsaConfig, AvsaNetwork
from model.networks.avsa_encoders import AudioEncoder, VideoEncoder
from model.networks.avsa_translators import (
    Attention,
    Translator,
    TranslatorKind,
    TranslatorLayer,
)
from model.viewpoints import Sound, SoundInput, steering
from model.yaw_scores import heard_of_covariance, viewpoint_azimuths, yaw_scores

TINY = AvsaConfig(
    widths=(4, 4, 8, 8), embedding=6, viewpoints=4, crop_px=32, n_frames=4,
    sound=SoundInput(n_bands=24), sound_s=0.25,
)  # fmt: skip


def n_parameters(*parts: nn.Module) -> int:
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


@pytest.fixture(scope="module")
def published() -> AvsaNetwork:
    return AvsaNetwork(PUBLISHED)


def test_parameters_as_published(published: AvsaNetwork) -> None:
    assert n_parameters(published.video_encoder) == 15_379_136
    assert n_parameters(published.audio_encoder) == 4_735_104
    assert n_parameters(AudioEncoder(n_channels=1)) == 4_725_696
    assert n_parameters(published.to_video, published.to_audio) == 12_609_536
    assert n_parameters(published) == 32_986_432
    correspondence = published.video_head, published.audio_head
    encoders = published.video_encoder, published.audio_encoder
    assert n_parameters(*encoders, *correspondence) == 20_245_568


@pytest.mark.parametrize(
    ("kind", "depth", "expected"),
    [
        ("transformer", 1, 3_152_384),
        ("transformer", 2, 6_304_768),
        ("transformer", 4, 12_609_536),
        ("mlp", 2, 2 * 4_201_472),
        ("none", 2, 0),
    ],
)
def test_translators_by_depth_and_kind(kind: TranslatorKind, depth: int, expected: int) -> None:
    assert n_parameters(Translator(512, depth, kind)) == expected


def test_shapes_of_the_video_encoder() -> None:
    with torch.inference_mode():
        shapes = [
            tuple(maps.shape[1:]) for maps in VideoEncoder().trace(torch.rand(1, 3, 8, 112, 112))
        ]

    assert shapes == [
        (64, 8, 56, 56), (64, 8, 56, 56), (128, 4, 28, 28), (256, 2, 14, 14), (512, 1, 7, 7),
    ]  # fmt: skip


def test_shapes_of_the_audio_encoder() -> None:
    with torch.inference_mode():
        shapes = [
            tuple(maps.shape[1:]) for maps in AudioEncoder().trace(torch.rand(1, 4, 100, 128))
        ]

    assert shapes == [(64, 50, 64), (64, 50, 64), (128, 25, 32), (256, 13, 16), (512, 13, 16)]


def test_one_step_changes_every_parameter() -> None:
    """Of two viewpoints; that of full size is in test_pretrain_avsa."""
    network = AvsaNetwork(replace(PUBLISHED, widths=(4, 4, 8, 8)))
    crops = torch.rand(1, 2, 3, 8, 56, 56)
    field = 0.1 * torch.randn(1, 4, 24_000)
    sound = network.config.sound.at(network.config.sound.covariance(field), steering([[0.0, 1.0]]))
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-5)

    video, audio = network(crops, sound)
    own = network.embed(video, audio)
    fit = (own.video * own.video_from_audio).sum() + (own.audio * own.audio_from_video).sum()
    torch.autograd.backward(fit)
    optimizer.step()

    assert video.shape == audio.shape == (1, 2, 8)
    assert own.video.shape == (1, 2, 128)
    unchanged = [name for name, value in network.named_parameters() if value.equal(before[name])]
    assert not unchanged


@pytest.mark.parametrize("sound", list(Sound))
@pytest.mark.parametrize("viewpoints", [1, 2, 4, 8])
def test_any_number_of_viewpoints_and_any_sound(sound: Sound, viewpoints: int) -> None:
    network = AvsaNetwork(AvsaConfig(widths=(4, 4, 8, 8), sound=SoundInput(sound, n_bands=24)))

    video, audio = network(
        torch.rand(1, viewpoints, 3, 4, 32, 32), torch.rand(1, viewpoints, sound.n_channels, 25, 24)
    )
    own = network.embed(video, audio)

    for vectors in (own.video, own.audio, own.video_from_audio, own.audio_from_video):
        assert vectors.shape == (1, viewpoints, 128)
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(1, viewpoints))


def test_the_narrow_preset_is_narrow() -> None:
    assert n_parameters(AvsaNetwork(NARROW)) < n_parameters(AvsaNetwork(PUBLISHED)) / 20


@torch.no_grad()
def test_attention_equals_the_equation() -> None:
    attention = Attention(6).double()
    tokens = torch.randn(2, 3, 6, dtype=torch.float64)
    query, key, value = attention.to_query_key_value(tokens).split(6, dim=-1)
    expected = torch.empty_like(tokens)
    for b in range(2):
        for i in range(3):
            weights = [math.exp(float(query[b, i] @ key[b, j]) / math.sqrt(6)) for j in range(3)]
            mixed = sum(weight * value[b, j] for j, weight in enumerate(weights)) / sum(weights)
            expected[b, i] = attention.to_output(mixed)

    torch.testing.assert_close(attention(tokens), expected)


@torch.no_grad()
def test_a_layer_equals_that_of_pytorch() -> None:
    """One head, normalised after each sum (`nn.TransformerEncoderLayer` as it comes)."""
    layer = TranslatorLayer(8, attends=True).eval()
    reference = nn.TransformerEncoderLayer(8, 1, 4 * 8, batch_first=True).eval()
    mixing, last = layer.mixing, layer.feed_forward
    assert isinstance(mixing, Attention)
    reference.self_attn.in_proj_weight.copy_(mixing.to_query_key_value.weight)
    reference.self_attn.in_proj_bias.copy_(mixing.to_query_key_value.bias)
    for own, other in (
        (mixing.to_output, reference.self_attn.out_proj), (last[0], reference.linear1),
        (last[-1], reference.linear2), (layer.mixing_norm, reference.norm1),
        (layer.feed_forward_norm, reference.norm2),
    ):  # fmt: skip
        for parameter in own.parameters():
            nn.init.normal_(parameter)
        other.load_state_dict(own.state_dict())
    tokens = torch.randn(3, 4, 8)

    torch.testing.assert_close(layer(tokens), reference(tokens))


def test_a_tenth_of_what_a_layer_adds_is_left_out_in_training() -> None:
    layer, tokens = TranslatorLayer(64, attends=True), torch.randn(20, 4, 64)
    sums: list[Tensor] = []
    for norm in (layer.mixing_norm, layer.feed_forward_norm):
        norm.register_forward_pre_hook(lambda _, given: sums.append(given[0]))

    layer(tokens)

    for before, after in zip((tokens, layer.mixing_norm(sums[0])), sums[:2], strict=True):
        assert float((after == before).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_tokens_are_the_largest_of_their_maps() -> None:
    for encoder, inputs in (
        (VideoEncoder((4, 4, 8, 8)), torch.rand(2, 3, 4, 32, 32)),
        (AudioEncoder(8, (4, 4, 8, 8)), torch.randn(2, 8, 25, 24)),
    ):
        maps = encoder.eval().feature_maps(inputs).flatten(2)

        assert maps.shape[2] > 1
        torch.testing.assert_close(encoder(inputs), torch.stack([*maps.unbind(2)]).amax(0))


@torch.no_grad()
def test_pictures_are_standardised_as_those_of_imagenet_are() -> None:
    """By red, green and blue, as published: 0.485 is red's mean."""
    network = AvsaNetwork(TINY).eval()
    crops = torch.rand(1, 2, 3, 4, 32, 32)
    red, green, blue = crops[0].unbind(1)
    standard = [(red - 0.485) / 0.229, (green - 0.456) / 0.224, (blue - 0.406) / 0.225]

    expected = network.video_encoder(torch.stack(standard, dim=1))
    torch.testing.assert_close(network.encode_video(crops)[0], expected)


def test_viewpoints_have_no_order_and_a_context() -> None:
    tokens = torch.randn(1, 4, 8)
    order = torch.tensor([2, 0, 3, 1])
    for kind, has_context in (("transformer", True), ("mlp", False)):
        translator = Translator(8, 2, kind).eval()  # type: ignore[arg-type]

        whole = translator(tokens)

        torch.testing.assert_close(translator(tokens[:, order]), whole[:, order])
        alone = torch.cat([translator(token) for token in torch.split(tokens, 1, dim=1)], dim=1)
        assert torch.allclose(alone, whole, atol=1e-5) is not has_context


def test_encoders_are_taken_over_and_the_rest_is_not() -> None:
    first, second = AvsaNetwork(TINY), AvsaNetwork(TINY)
    first.audio_standard.fit(torch.randn(50, 8, 25, 24))
    translators = [value.clone() for value in second.to_video.parameters()]

    second.take_encoders(first)

    crops, sound = torch.rand(1, 2, 3, 4, 32, 32), torch.rand(1, 2, 8, 25, 24)
    for mine, its in zip(second(crops, sound), first(crops, sound), strict=True):
        torch.testing.assert_close(mine, its)
    assert all(a.equal(b) for a, b in zip(second.to_video.parameters(), translators, strict=True))
    with pytest.raises(ValueError, match="do not fit"):
        AvsaNetwork(NARROW).take_encoders(first)
    powers, magnitudes = (
        AvsaNetwork(replace(TINY, sound=SoundInput(Sound.AMBISONIC, 24, magnitude=magnitude)))
        for magnitude in (False, True)
    )
    with pytest.raises(ValueError, match="do not fit"):
        powers.take_encoders(magnitudes)  # as many channels, and other levels


def test_statistics_of_examples_standardise_them() -> None:
    network = AvsaNetwork(TINY)
    levels = torch.linspace(-50, -20, 24) + 7 * torch.randn(64, 8, 25, 24)

    network.audio_standard.fit(levels)

    standard = network.audio_standard(levels)
    torch.testing.assert_close(standard.mean(dim=(0, 2)), torch.zeros(8, 24), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.std(dim=(0, 2)), torch.ones(8, 24), atol=1e-3, rtol=0)
    levels[..., 5] = -100.0  # a band that nothing sounds in
    network.audio_standard.fit(levels)
    assert network.audio_standard(levels)[..., 5].abs().max() < 1e-3


def test_whitened_channels_are_uncorrelated_and_stay_what_they_were() -> None:
    config = replace(TINY, whitened=True)
    network, again = AvsaNetwork(config), AvsaNetwork(config)
    together, apart = 10 * torch.randn(200, 1, 25, 24), torch.randn(200, 8, 25, 24)
    levels = together + apart - 40

    network.audio_standard.fit(levels)

    white = network.audio_standard(levels)
    channels = white.movedim(1, 0).flatten(1)
    torch.testing.assert_close(torch.cov(channels), torch.eye(8), atol=0.02, rtol=0)
    # What a channel has of its own is what is left of it.
    own = (apart - apart.mean(1, keepdim=True)).movedim(1, 0).flatten(1)
    closeness = torch.corrcoef(torch.cat([channels, own]))[:8, 8:]
    assert closeness.argmax(1).tolist() == list(range(8))
    again.take_encoders(network)
    torch.testing.assert_close(again.audio_standard(levels), white)
    with pytest.raises(ValueError, match="whitened"):
        AvsaNetwork(TINY).take_encoders(network)


def test_one_channel_alone_is_standardised_by_whitening() -> None:
    network = AvsaNetwork(replace(TINY, whitened=True, sound=replace(TINY.sound, sound=Sound.MONO)))
    levels = 10 * torch.randn(200, 1, 25, 24) - 40

    network.audio_standard.fit(levels)

    white = network.audio_standard(levels)
    torch.testing.assert_close(white.mean(), torch.tensor(0.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(white.std(), torch.tensor(1.0), atol=1e-2, rtol=0)


def test_a_dead_channel_is_not_made_of_noise() -> None:
    network = AvsaNetwork(replace(TINY, whitened=True))
    levels = torch.randn(100, 8, 25, 24)
    levels[:, 3] = levels[:, 2]

    network.audio_standard.fit(levels)

    white = network.audio_standard(levels)
    assert white.isfinite().all()
    assert white.abs().max() < 20


def lively(config: AvsaConfig) -> AvsaNetwork:
    """A network whose normalisations know their input, so that untrained weights tell it apart."""
    torch.manual_seed(0)
    network = AvsaNetwork(config)
    norms = nn.BatchNorm2d, nn.BatchNorm3d
    for module in network.modules():
        if isinstance(module, norms):
            module.momentum = 1.0
    field = torch.tensor(0.1 * np.random.default_rng(1).standard_normal((4, 6000)))
    heard = config.sound.at(config.sound.covariance(field), steering(np.linspace(-3, 3, 8)))
    network.audio_standard.fit(heard)
    network(torch.rand(1, 8, 3, 4, 32, 32), heard[None])
    return network.eval()


def slow_yaw_scores(
    network: AvsaNetwork, crops: Tensor, field: np.ndarray, n_yaws: int, *, translated: bool
) -> list[float]:
    """By definition: rotate the field, hear it at every viewpoint, encode and compare."""
    scores = []
    azimuths = np.array(viewpoint_azimuths(len(crops)))
    for index in range(n_yaws):
        turned = rotate_yaw(field, math.radians(360 * (index + 1) / n_yaws - 180))
        sound = network.config.sound
        heard = sound.at(sound.covariance(torch.tensor(turned)), steering(azimuths))
        with torch.inference_mode():
            own = network.embed(*network(crops[None], heard[None]))
        if translated:
            fit = (own.video * own.video_from_audio + own.audio * own.audio_from_video).sum(-1) / 2
        else:
            fit = (own.video * own.audio).sum(-1)
        scores.append(float(fit.mean()))
    return scores


@pytest.mark.parametrize("translated", [True, False])
@pytest.mark.parametrize(
    "sound", [SoundInput(n_bands=24), SoundInput(Sound.AMBISONIC, n_bands=24, magnitude=True)]
)
def test_few_passes_score_as_rotating_the_sound_for_every_yaw(
    sound: SoundInput, translated: bool
) -> None:
    network = lively(AvsaConfig(**{**vars(TINY), "sound": sound}))
    crops = torch.rand(4, 3, 4, 32, 32)
    field = 0.1 * np.random.default_rng(0).standard_normal((4, 6000))

    with torch.inference_mode():
        video = network.encode_video(crops[None])[0]
    audio = heard_of_covariance(network, sound.covariance(torch.tensor(field)), 24)
    fast = yaw_scores(network, video, audio, translated=translated)

    slow = torch.tensor(slow_yaw_scores(network, crops, field, 24, translated=translated))
    assert slow.std() > 1e-4
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0)
    blind = torch.allclose(slow, slow.roll(12), atol=1e-5)
    assert blind is (sound.sound is Sound.AMBISONIC)


def test_yaw_scores_stand_in_the_order_of_the_evidence() -> None:
    n_yaws = len(yaws_deg())
    assert yaws_deg() == [360 * (index + 1) / n_yaws - 180 for index in range(n_yaws)]
    network = AvsaNetwork(TINY).eval()
    with pytest.raises(ValueError, match="70 yaws are no even multiple of 4"):
        yaw_scores(network, torch.rand(4, 8), torch.rand(70, 8))
