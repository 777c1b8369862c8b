"""By how many degrees an AVSA network is wrong on clips that are aligned.

Moments of a clip are scored for every yaw (`model.yaw_scores`) from viewpoints around the horizon,
and pooled as windows of a take are (`model.posterior.pool`), by numbers of this protocol's own: the
tables in RESULTS.md do not change with the product's calibration. The right rotation is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import Method, load_calibration
from model.evidence import N_YAWS, best_yaw_deg
from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.posterior import pool
from model.yaw_scores import heard_of_covariance, viewpoint_azimuths
from training.data.clips import Clip, ClipFiles, ClipMedia, crops_at
from training.data.crops import FloatArray, Views

_POOLING_EXPONENT, _POOLING_CAP = 0.9, 10.0  # as the product had them when the tables were made
# Video tokens (K, D), audio tokens (N, D) to the scores of N yaws, in the order of `yaws_deg`.
YawScorer = Callable[[AvsaNetwork, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Looking:
    """How clips are looked at.

    Attributes
    ----------
    n_moments : of each clip, evenly over it.
    field_of_view_rad : of each of the network's K viewpoints.
    frame_height : at which the picture is read.
    weight : of a mean cosine in the log-evidence; the default is that of training's temperature.
    """

    n_moments: int = 3
    field_of_view_rad: float = np.pi / 2
    frame_height: int = 320
    weight: float = 1 / 0.07


@torch.inference_mode()
def yaw_errors_deg(
    network: AvsaNetwork,
    clips: Sequence[Clip],
    scorer: YawScorer,
    *,
    looking: Looking,
    media: ClipMedia | None = None,
) -> FloatArray:
    """Distance of each clip's best rotation from 0, [shape=(number of clips,)]."""
    network = network.eval()
    calibration = replace(
        load_calibration(method=Method.EVIDENCE),
        pooling_exponent=_POOLING_EXPONENT, pooling_cap=_POOLING_CAP,
    )  # fmt: skip
    errors = []
    for clip in clips:
        log_posteriors = [
            (looking.weight * scorer(network, video, audio).double().cpu()).log_softmax(0)
            for video, audio in _moments(network, clip, looking, media or ClipFiles())
        ]
        posterior = pool(torch.stack(log_posteriors), calibration)
        errors.append(abs(best_yaw_deg(posterior.clamp(min=1e-12).log())))
    return np.array(errors)


def _moments(
    network: AvsaNetwork, clip: Clip, looking: Looking, media: ClipMedia
) -> Sequence[tuple[Tensor, Tensor]]:
    """Tokens of the crops around the horizon and of all directions of sound, moment by moment."""
    config, device = network.config, next(network.parameters()).device
    starts_s = _starts(clip, looking.n_moments, config)
    covariances = media.sound(clip, starts_s, config)
    azimuths = viewpoint_azimuths(config.viewpoints)
    views = Views(
        np.array([(azimuth, 0.0) for azimuth in azimuths]),
        np.full(len(azimuths), looking.field_of_view_rad),
    )
    middle = (config.sound_s - config.n_frames / config.frame_rate_hz) / 2
    size = looking.frame_height, 2 * looking.frame_height
    tokens = []
    for start_s, cov in zip(starts_s.tolist(), covariances, strict=True):
        crops = crops_at(media, clip, start_s + middle, config, views, size)
        video = network.encode_video(crops[None].to(device))[0].float()
        tokens.append((video, heard_of_covariance(network, cov.to(device), N_YAWS).float()))
    return tokens


def _starts(clip: Clip, count: int, config: AvsaConfig) -> FloatArray:
    room_s = max(0.0, clip.duration_s - config.sound_s)
    return (np.arange(count) + 0.5) / count * room_s


def summary(errors_deg: FloatArray) -> dict[str, float]:
    """Median, and shares of clips by error."""
    return {
        "median error": float(np.median(errors_deg)),
        **{f"within {limit}": float((errors_deg <= limit).mean()) for limit in (20, 30)},
        "beyond 150": float((errors_deg > 150).mean()),
    }
