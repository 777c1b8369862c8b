"""An AVSA network as a judge of rotations: K passes of the picture and N of the sound score N yaws.

Viewpoints stand on the horizon at multiples of 360 / K degrees, yaws at multiples of 360 / N with N
a multiple of K. The field rotated by d and steered to azimuth A is the field steered to A - d, so
the directions that all yaws need are N in total; only the translator, whose context differs from
yaw to yaw, is called for each, on tokens that exist.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from model.networks.avsa import AvsaNetwork
from model.viewpoints import steering

_CHUNK = 8  # directions of sound that are encoded at a time


def viewpoint_azimuths(count: int) -> list[float]:
    """Azimuths of `count` viewpoints or directions of sound, radians: 0, 360 / count, ..."""
    return [math.tau * index / count for index in range(count)]


@torch.inference_mode()
def heard_of_covariance(network: AvsaNetwork, cov: Tensor, n_yaws: int) -> Tensor:
    """Audio tokens of `n_yaws` directions all around, [shape=(N, D)].

    cov : `SoundInput.covariance` of a field `config.sound_s` long, [shape=(T, F, 10)].
    """
    sound = network.config.sound
    rotations = steering(np.array(viewpoint_azimuths(n_yaws)))
    tokens = [
        network.encode_audio(sound.at(cov, some)[None].to(cov.device))[0]
        for some in torch.split(rotations, _CHUNK)
    ]
    return torch.cat(tokens)


@torch.inference_mode()
def yaw_scores(
    network: AvsaNetwork, video: Tensor, audio: Tensor, *, translated: bool = True
) -> Tensor:
    """How well each rotation of the field makes it fit the picture: mean cosine, [shape=(N,)].

    video : tokens of the crops at `viewpoint_azimuths(K)`, [shape=(K, D)].
    audio : tokens of `heard_of_covariance`, [shape=(N, D)].
    translated : compare each modality with its prediction from the other (AVSA); else the two
        modalities' own embeddings (networks trained by AVC and AVTS, which have no translators).

    Returns the scores of `rotate_field_ccw_deg` = 360 (j + 1) / N - 180, the order of
    `evidence.yaws_deg`.

    Raises
    ------
    ValueError : N is odd or no multiple of K.
    """
    faced = facing(len(video), len(audio), audio.device)  # (N, K)
    video_targets = network.embed_video(video)
    audio_targets = network.embed_audio(audio)[faced]
    if not translated:
        return (audio_targets * video_targets).sum(-1).mean(-1)
    fits_video = (network.predict_video(audio[faced]) * video_targets).sum(-1)
    fits_audio = (audio_targets * network.predict_audio(video[None])).sum(-1)
    return (fits_video + fits_audio).mean(-1) / 2


def facing(n_viewpoints: int, n_yaws: int, device: torch.device) -> Tensor:
    """Which direction of sound faces each viewpoint under each yaw, [shape=(N, K)].

    Raises
    ------
    ValueError : N is odd or no multiple of K.
    """
    if n_yaws % 2 or n_yaws % n_viewpoints:
        raise ValueError(f"{n_yaws} yaws are no even multiple of {n_viewpoints} viewpoints")
    azimuth = torch.arange(n_viewpoints, device=device) * (n_yaws // n_viewpoints)
    yaw = torch.arange(n_yaws, device=device)[:, None] + 1 - n_yaws // 2
    return (azimuth - yaw) % n_yaws
