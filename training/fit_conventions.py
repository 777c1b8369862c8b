"""The fitted constants of `model.channels.readings`, from synthetic scenes with capsules' errors.

    python -m training.fit_conventions --count 100

prints the exponent of the vertical channel's share (a conditional logit) and the weights that tell
capsules and speaker feeds from B-format (a logistic regression, even odds). Scenes are rendered
with `training.data`; every channel gets a random gain and frequency response of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp
from tqdm import tqdm

from model.channels.measures import ChannelStatistics
from model.channels.readings import LEAST_SHARE, capsule_features
from model.interruption import command
from training.data.scenes import Conditions, draw_scene, render_sound
from training.evaluate.conventions import TURNS, measured
from training.options import one_or_more

FloatArray = NDArray[np.floating]

_RATE = 24_000
_FIRST_SEED = 910_000
_B_FORMAT = ("true", "fuma", "n3d", "swapped W, Y")
_OTHERS = ("A-format", "quad")
_PENALTY = 0.02


def miscoloured(field: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A field as imperfect capsules give it: half a decibel of gain, one of response, a channel."""
    n = field.shape[1]
    places = np.linspace(0, 1, n // 2 + 1)
    bad = np.empty_like(field)
    for channel, sound in enumerate(field):
        response_db = rng.normal(0, 0.5) + np.interp(
            places, np.linspace(0, 1, 9), rng.normal(0, 1, 9)
        )
        bad[channel] = np.fft.irfft(np.fft.rfft(sound) * 10 ** (response_db / 20), n)
    return bad


def vertical_exponent(shares: FloatArray) -> float:
    """Of the likeliest conditional logit; shares of Y, Z, X in the velocity's power, (K, 3)."""
    logs = np.log(np.clip(shares, LEAST_SHARE, None))

    def loss(exponent: FloatArray) -> float:
        utility = -exponent[0] * logs
        return float(-np.mean(utility[:, 1] - logsumexp(utility, axis=1)))

    return float(minimize(loss, np.ones(1)).x[0])


def capsule_weights(features: FloatArray, truth: NDArray[np.bool_]) -> FloatArray:
    """Intercept and weights of a ridge logistic regression in which both classes weigh alike."""
    rows = np.column_stack([np.ones(len(features)), features])
    sign = np.where(truth, 1.0, -1.0)
    weight = np.where(truth, 0.5 / truth.mean(), 0.5 / (~truth).mean())

    def loss(weights: FloatArray) -> float:
        penalty = _PENALTY * float(np.sum(weights[1:] ** 2)) / 20
        return float(np.mean(-weight * log_expit(sign * (rows @ weights)))) + penalty / 10

    return np.asarray(minimize(loss, np.zeros(rows.shape[1])).x)


def main(argv: Sequence[str] | None = None) -> int:
    """Render, fit, print."""
    parser = argparse.ArgumentParser(prog="python -m training.fit_conventions")
    parser.add_argument("--count", type=one_or_more, default=100, help="scenes (100)")
    count = parser.parse_args(argv).count
    shares, features, truth = [], [], []
    for seed in tqdm(range(_FIRST_SEED, _FIRST_SEED + count), unit="scene"):
        scene = draw_scene(seed, Conditions(duration_s=8, flawless=True))
        rng = np.random.default_rng(seed)
        field = miscoloured(render_sound(scene, samplerate=_RATE).numpy(), rng)
        power = np.diag(measured(field, _RATE).whitened_covariance.sum(0))[1:]
        if power[1] > LEAST_SHARE * power.sum():
            shares.append(power / power.sum())
        for name in (*_B_FORMAT, *_OTHERS):
            stats: ChannelStatistics = measured(TURNS[name][0](field), _RATE)
            found = capsule_features(stats)
            if found is not None:
                features.append(found)
                truth.append(name in _OTHERS)
    weights = capsule_weights(np.array(features), np.array(truth))
    rows = np.column_stack([np.ones(len(features)), features])
    wrong = np.mean((expit(rows @ weights) > 0.5) != np.array(truth))
    print(f"vertical exponent {vertical_exponent(np.array(shares)):.2f} ({len(shares)} scenes)")
    print(f"capsules {np.round(weights, 1).tolist()}, wrong {wrong:.1%} of {len(truth)}")
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
