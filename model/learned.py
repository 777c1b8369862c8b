"""The learned scorer: a window in, the network's log-evidence for every rotation out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from model import features
from model.checkpoint import LEARNED, Calibration, load_scorer, scorer_path
from model.errors import MediaError
from model.evidence import N_YAWS, acoustic_maps
from model.features import Motion
from model.media import file_sha256
from model.networks.equivariant import EquivariantScorer, Scores
from model.scoring import Evidence, Scorer, Window, by_looks, training_free

ACOUSTIC = ("doa", "mvdr", "flux")


def sound_input(cov: Tensor) -> Tensor:
    """The network's view of a window's sound, [shape=(T, F, 10)] to (A, 4 F + 3, T), float32.

    The directional features of every band, and the acoustic maps of the training-free evidence. Of
    the mirrored field (Y negated) it is the same with the azimuths in reverse.
    """
    maps = acoustic_maps(cov)
    acoustic = torch.stack([_unit(maps[name]) for name in ACOUSTIC])  # (3, T, A)
    bands = features.directional(cov.float())
    return torch.cat([bands, acoustic.permute(2, 0, 1).float()], dim=1)


def _unit(series: Tensor) -> Tensor:
    return (series / (series.mean() + 1e-9)).sqrt()


class LearnedScorer:
    """The network as a scorer.

    It is asked twice, of the window and of its mirror image, so that a mirrored scene gets the
    mirrored answer.
    """

    def __init__(self, network: EquivariantScorer, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = network.to(self._device).eval()
        # A window is scored several times: at other times of its sound, and with what may have been
        # done to the sound undone.
        self._picture = lru_cache(maxsize=2)(self._embedded_picture)
        self._sound = lru_cache(maxsize=1)(self._embedded_sound)

    @torch.no_grad()
    def __call__(self, window: Window) -> Evidence:
        """The cue `LEARNED`, and as statistics three logits: `belongs`, that the sound is the
        picture's, `synchronous`, that they run on one time, and `upright`, that left and right are
        not exchanged.
        """
        heard = self._sound(window.covariance)
        # One after the other: two at once no longer fit into a processor's cache. Of sound, each
        # azimuth is encoded by itself, so that of the mirrored field is known.
        as_is = self._network.scores(self._picture(window.motion), heard)
        other = self._network.scores(self._picture(window.motion, mirrored=True), heard.flip(1))
        return _evidence(
            Scores(
                (as_is.yaw + _mirrored(other.yaw)) / 2,
                (as_is.mirrored + _mirrored(other.mirrored)) / 2,
                (as_is.belongs + other.belongs) / 2,
                (as_is.synchronous + other.synchronous) / 2,
            )
        )

    @torch.no_grad()
    def over_lags(self, window: Window, reach: int) -> Tensor:
        """The cue `LEARNED` if the sound is late by -reach to reach intervals, float64.

        [shape=(2 reach + 1, R)], of the window as it is. All are of the same stretch of picture,
        which leaves `reach` intervals out at either end.
        """
        seen, heard = self._picture(window.motion), self._sound(window.covariance)
        n = seen.shape[-1] - 2 * reach
        seen = seen[..., reach : reach + n]
        by_lag = [
            self._network.scores(seen, heard[..., first : first + n]).yaw[0]
            for first in range(2 * reach + 1)
        ]
        return torch.stack(by_lag).double().cpu()

    @torch.no_grad()
    def along(self, window: Window, stretches: Sequence[slice]) -> Tensor:
        """The cue `LEARNED` of each stretch of a window as it is, in intervals, float64, (n, R).

        Both encoders see the window once, so a stretch knows a little of what is around it. One
        without intervals, where a picture could not be read, says nothing.
        """
        seen, heard = self._picture(window.motion), self._sound(window.covariance)
        said = torch.zeros(len(stretches), N_YAWS, dtype=torch.float64)
        for row, part in zip(said, stretches, strict=True):
            if part.stop > part.start:
                row.copy_(self._network.scores(seen[..., part], heard[..., part]).yaw[0])
        return said

    def _embedded_picture(self, motion: Motion, *, mirrored: bool = False) -> Tensor:
        """Of a picture or of its mirror image."""
        maps = motion.maps.to(self._device, torch.float32)[None]
        seen: Tensor = self._network.picture(maps.flip(-1) if mirrored else maps)
        return seen

    def _embedded_sound(self, covariance: Tensor) -> Tensor:
        heard: Tensor = self._network.sound(sound_input(covariance.to(self._device))[None])
        return heard


def _evidence(scores: Scores) -> Evidence:
    """Of a batch of one."""
    return Evidence(
        {LEARNED: scores.yaw[0]},
        {
            "belongs": float(scores.belongs),
            "synchronous": float(scores.synchronous),
            "upright": float(scores.upright),
        },
    )


def _mirrored(yaw: Tensor) -> Tensor:
    """Log-evidence of a mirror image as it is of the thing itself, [shape=(..., R)]."""
    # Rotations are -175 to 180 degrees: reversed, they are -180 to 175.
    return yaw.flip(-1).roll(-1, dims=-1)


def scorers_for(calibration: Calibration, device: torch.device | str = "cpu") -> Sequence[Scorer]:
    """All scorers that a calibration weighs; the learned one is the shipped one.

    Raises
    ------
    MediaError : the calibration was made with another scorer.
    """
    if LEARNED not in calibration.weights:
        return together(None)
    check_made_for(calibration, scorer_path())
    return together(LearnedScorer(load_scorer(), device))


def together(learned: LearnedScorer | None) -> Sequence[Scorer]:
    """A learned scorer and what counts beside it; without one, all that needs no training."""
    return (training_free,) if learned is None else (by_looks, learned)


def check_made_for(calibration: Calibration, weights: Path) -> None:
    """See that a calibration was made with these weights: with others its weights mean nothing.

    Raises
    ------
    MediaError : it was not, or the weights cannot be read.
    """
    try:
        found = file_sha256(weights)
    except OSError as error:
        raise MediaError(f"The weights {weights} cannot be read: {error.strerror}.") from error
    if found != calibration.scorer:
        raise MediaError(
            f"The calibration {calibration.name} was made with a scorer of SHA-256 "
            f"{calibration.scorer[:12] or '(none)'}, not with {weights.name} ({found[:12]}): make "
            "one for it by python -m training.calibrate."
        )
