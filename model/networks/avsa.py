"""AVSA: what is heard at a viewpoint is translated from what is seen there, and back.

Two encoders turn K crops of the picture and the field steered to each into one token a viewpoint.
Two translators predict the tokens of one modality from those of the other. Four linear heads put
predictions and targets on the unit sphere, where objectives compare them (`training.objectives`).
32 986 432 parameters as published.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.avsa_encoders import PUBLISHED_WIDTHS, AudioEncoder, VideoEncoder
from model.networks.avsa_translators import Translator, TranslatorKind
from model.viewpoints import Sound, SoundInput

# Mean and deviation of RGB in ImageNet, by which the paper standardises crops.
_RGB_MEAN, _RGB_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Of what whitening makes a channel; directions that vary less, as with a dead channel, are noise.
_LEAST_VARIANCE = 1e-3


@dataclass(frozen=True)
class AvsaConfig:
    """Everything that makes a network; a checkpoint holds it.

    Attributes
    ----------
    widths : of the four stages of both encoders; the last is the width D of tokens.
    embedding : size E of what objectives compare.
    translator, depth : kind and layers of both translators (1, 2 and 4 are published).
    viewpoints : K, crops of a sample (1, 2, 4 and 8 are published).
    crop_px, n_frames, frame_rate_hz : a crop's side, its frames and their rate.
    sound, sound_s : what a viewpoint hears, and for how long.
    whitened : whether the sound's channels are decorrelated before they are encoded. Levels in two
        directions differ by little of what either varies; whitened, the difference is a channel.
    """

    widths: tuple[int, int, int, int] = PUBLISHED_WIDTHS
    embedding: int = 128
    translator: TranslatorKind = "transformer"
    depth: int = 2
    viewpoints: int = 4
    crop_px: int = 112
    n_frames: int = 8
    frame_rate_hz: float = 16.0
    sound: SoundInput = field(default_factory=SoundInput)
    sound_s: float = 1.0
    whitened: bool = False

    def __post_init__(self) -> None:
        sizes = {
            name: getattr(self, name)
            for name in (
                "embedding", "viewpoints", "crop_px", "n_frames", "frame_rate_hz", "sound_s",
            )
        }  # fmt: skip
        sizes |= {"narrowest width": min(self.widths), "n_bands": self.sound.n_bands}
        for name, size in sizes.items():
            if not size > 0:
                raise ValueError(f"its {name} is {size}, and has to be above 0")


PUBLISHED = AvsaConfig(sound=SoundInput(Sound.AMBISONIC, magnitude=True))
# The same networks, narrow enough to train on two cores.
NARROW = AvsaConfig(
    widths=(12, 24, 48, 96), embedding=64, crop_px=56, sound=SoundInput(n_bands=32), whitened=True
)  # fmt: skip


@dataclass(frozen=True)
class Embeddings:
    """What objectives compare, unit vectors [shape=(B, V, E)].

    Attributes
    ----------
    video, audio : of the encoders' own tokens.
    video_from_audio, audio_from_video : of what the translators predict.
    """

    video: Tensor
    audio: Tensor
    video_from_audio: Tensor
    audio_from_video: Tensor


class AvsaNetwork(nn.Module):
    """Encoders, translators and heads; see the module."""

    def __init__(self, config: AvsaConfig = PUBLISHED) -> None:
        super().__init__()
        self.config = config
        width = config.widths[-1]
        self.video_standard = Standardised(
            torch.tensor(_RGB_MEAN)[:, None, None, None],
            torch.tensor(_RGB_DEVIATION)[:, None, None, None],
        )
        mean, deviation = config.sound.usual()
        standard = Whitened if config.whitened else Standardised
        self.audio_standard = standard(mean[:, None], deviation[:, None])
        self.video_encoder = VideoEncoder(config.widths)
        self.audio_encoder = AudioEncoder(config.sound.sound.n_channels, config.widths)
        self.to_video = Translator(width, config.depth, config.translator)
        self.to_audio = Translator(width, config.depth, config.translator)
        self.video_head = nn.Linear(width, config.embedding)
        self.audio_head = nn.Linear(width, config.embedding)
        self.video_prediction_head = nn.Linear(width, config.embedding)
        self.audio_prediction_head = nn.Linear(width, config.embedding)

    def encode_video(self, crops: Tensor) -> Tensor:
        """Tokens of crops, RGB from 0 to 1 [shape=(B, V, 3, T, H, W)], as [shape=(B, V, D)]."""
        tokens: Tensor = self.video_encoder(self.video_standard(crops.flatten(0, 1)))
        return tokens.view(*crops.shape[:2], -1)

    def encode_audio(self, sound: Tensor) -> Tensor:
        """Tokens of `SoundInput.at`, [shape=(B, V, C, T, F)] to [shape=(B, V, D)]."""
        tokens: Tensor = self.audio_encoder(self.audio_standard(sound.flatten(0, 1)))
        return tokens.view(*sound.shape[:2], -1)

    def forward(self, crops: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of both modalities, of which objectives make what they need."""
        return self.encode_video(crops), self.encode_audio(sound)

    def embed(self, video: Tensor, audio: Tensor) -> Embeddings:
        """Tokens [shape=(B, V, D)] of both, and their translations, on the unit sphere."""
        return Embeddings(
            self.embed_video(video),
            self.embed_audio(audio),
            self.predict_video(audio),
            self.predict_audio(video),
        )

    def embed_video(self, video: Tensor) -> Tensor:
        """Unit vectors [shape=(..., E)] of video tokens [shape=(..., D)], as targets."""
        return _unit(self.video_head(video))

    def embed_audio(self, audio: Tensor) -> Tensor:
        """Unit vectors [shape=(..., E)] of audio tokens [shape=(..., D)], as targets."""
        return _unit(self.audio_head(audio))

    def predict_video(self, audio: Tensor) -> Tensor:
        """Unit vectors [shape=(B, V, E)] to expect of the picture where these tokens sound."""
        return self.project_video(self.to_video(audio))

    def predict_audio(self, video: Tensor) -> Tensor:
        """Unit vectors [shape=(B, V, E)] to expect of the sound where these tokens are seen."""
        return self.project_audio(self.to_audio(video))

    def project_video(self, translated: Tensor) -> Tensor:
        """Unit vectors of what `to_video` gives."""
        return _unit(self.video_prediction_head(translated))

    def project_audio(self, translated: Tensor) -> Tensor:
        """Unit vectors of what `to_audio` gives."""
        return _unit(self.audio_prediction_head(translated))

    def take_encoders(self, other: Self) -> None:
        """Begin with another network's encoders, as the curriculum's second phase does.

        Raises
        ------
        ValueError : the other one's encoders are of other widths or hear other channels.
        """
        mine, its = self.config, other.config
        if (mine.widths, mine.sound) != (its.widths, its.sound):
            raise ValueError(
                f"encoders of widths {its.widths} that hear {its.sound} do not fit "
                f"{mine.widths} and {mine.sound}"
            )
        if mine.whitened != its.whitened:
            raise ValueError("encoders of whitened sound fit no others: give both the same")
        for part in ("video_standard", "audio_standard", "video_encoder", "audio_encoder"):
            getattr(self, part).load_state_dict(getattr(other, part).state_dict())


class Standardised(nn.Module):
    """Input in deviations from a mean that are part of the checkpoint, not learned."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def fit(self, examples: Tensor) -> None:
        """Take mean and deviation, wherever they may differ, from examples [shape=(B, ...)]."""
        varying = [0] + [axis + 1 for axis, size in enumerate(self.mean.shape) if size == 1]
        variance, mean = torch.var_mean(examples.to(self.mean), dim=varying, keepdim=True)
        self.mean.copy_(mean[0])
        self.deviation.copy_(variance[0].sqrt().clamp(min=1e-3))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.deviation


class Whitened(Standardised):
    """Standardised input whose channels are then mixed so that they are uncorrelated (ZCA).

    Of all such mixings it is the one that changes channels least (Kessy et al. 2018).
    """

    mixing: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__(mean, deviation)
        self.register_buffer("mixing", torch.eye(mean.shape[0]))

    def fit(self, examples: Tensor) -> None:
        """Take statistics from examples [shape=(B, C, ...)], of which C are mixed."""
        super().fit(examples)
        channels = super().forward(examples.to(self.mean)).movedim(1, 0).flatten(1)
        # Of one channel, cov is a number.
        covariance = torch.cov(channels.double()).reshape(len(channels), -1)
        variances, axes = torch.linalg.eigh(covariance)
        gains = variances.clamp(min=_LEAST_VARIANCE).rsqrt()
        self.mixing.copy_(axes @ torch.diag(gains) @ axes.T)

    def forward(self, values: Tensor) -> Tensor:
        return torch.einsum("dc,bc...->bd...", self.mixing, super().forward(values))


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=-1)
