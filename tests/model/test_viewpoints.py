"""What a viewpoint hears, against steering the waveform and transforming it plainly."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from model import features
from model.ambisonics import encode, plane_wave_gains, rotate, steering_matrix
from model.features import HOP, N_FFT, SAMPLERATE, covariance
from model.viewpoints import Sound, SoundInput, mirrored, slaney, steering, turned

VIEWS = [(0.0, 0.0), (2.0, 0.6), (-1.2, -0.9), (math.pi, 0.3)]


def field(seed: int = 0, seconds: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = round(seconds * SAMPLERATE)
    total = 0.02 * rng.standard_normal((4, n))
    for _ in range(3):
        total += encode(0.1 * rng.standard_normal(n), rng.uniform(-3, 3), rng.uniform(-1, 1), 1)
    return total


def plain_spectra(signals: np.ndarray) -> np.ndarray:
    """Spectra of signals [shape=(C, N)] by NumPy, [shape=(C, T, bins)]."""
    window = torch.hann_window(N_FFT, dtype=torch.float64).numpy()
    padded = np.pad(signals, [(0, 0), (N_FFT // 2, N_FFT // 2)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT, axis=1)[:, ::HOP]
    return np.asarray(np.fft.rfft(frames * window)[:, : signals.shape[1] // HOP])


def plain_sound(steered: np.ndarray, sound: SoundInput) -> np.ndarray:
    """The channels of a field whose front is the viewpoint, each beam formed as a waveform."""
    w, y, z, x = steered
    cardioids = [(w + x) / 2, (w + y) / 2, (w - x) / 2, (w - y) / 2]
    beams = {
        Sound.MONO: [w + x],
        Sound.STEREO: [w + y, w - y],
        Sound.AMBISONIC: [w, y, z, x],
        Sound.INTENSITY: [w],
        Sound.CARDIOID: cardioids,
        Sound.DIRECTIONAL: [w, *cardioids],
    }[sound.sound]
    bank = slaney(sound.n_bands).numpy()
    magnitude = np.abs(plain_spectra(np.stack(beams)))
    level = (magnitude if sound.magnitude else magnitude**2) @ bank.T
    decibels = 10 * np.log10(np.maximum(level, 1e-10))
    channels = [np.maximum(decibels, decibels.max(axis=(1, 2), keepdims=True) - 100)]
    if sound.sound.has_intensity:
        w_, y_, z_, x_ = plain_spectra(steered)
        density = sum(np.abs(part) ** 2 for part in (w_, y_, z_, x_)) / 2 @ bank.T
        flow = np.stack([(w_.conj() * part).real @ bank.T for part in (x_, y_, z_)])
        channels.append(flow / density)
    return np.concatenate(channels)


@pytest.mark.parametrize(
    "sound",
    [
        *(SoundInput(kind, n_bands=64) for kind in Sound),
        *(SoundInput(kind, magnitude=True) for kind in Sound if not kind.has_intensity),
    ],
    ids=lambda sound: f"{sound.sound}{' magnitude' * sound.magnitude}",
)
def test_a_viewpoint_hears_what_the_steered_waveform_holds(sound: SoundInput) -> None:
    rotations = steering(*np.array(VIEWS).T)

    fast = sound.at(sound.covariance(torch.tensor(field())), rotations)

    assert fast.shape == (len(VIEWS), sound.sound.n_channels, 50, sound.n_bands)
    for heard, (azimuth, elevation) in zip(fast, VIEWS, strict=True):
        slow = plain_sound(rotate(field(), steering_matrix(azimuth, elevation)), sound)
        np.testing.assert_allclose(heard, slow, atol=2e-3)


def test_batches_have_their_own_directions() -> None:
    sound = SoundInput(n_bands=32)
    cov = sound.covariance(torch.tensor(np.stack([field(0), field(1)])))
    azimuths = np.array([[0.0, 1.0, 2.0], [3.0, -1.0, 0.5]])

    together = sound.at(cov, steering(azimuths, 0.2))

    for one, its_azimuths, heard in zip(cov, azimuths, together, strict=True):
        torch.testing.assert_close(sound.at(one, steering(its_azimuths, 0.2)), heard)


def test_turning_covariances_equals_rotating_the_waveform() -> None:
    rotation = steering_matrix(0.7, -0.4) @ steering_matrix(-2.0, 1.0)
    cov = covariance(torch.tensor(field()))

    fast = turned(cov, torch.tensor(rotation)[None])[0]

    slow = covariance(torch.tensor(rotate(field(), rotation)))
    torch.testing.assert_close(fast, slow, atol=1e-9 * float(slow.max()), rtol=1e-9)


@pytest.mark.parametrize(("azimuth", "elevation"), [(0.5, 0.0), (-2.0, 0.7), (3.0, -1.1)])
def test_a_source_at_the_viewpoint_is_in_front_of_it(azimuth: float, elevation: float) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLERATE // 4)
    cov = SoundInput(Sound.INTENSITY).covariance(torch.tensor(encode(noise, azimuth, elevation, 1)))

    heard = SoundInput(Sound.INTENSITY).at(cov, steering([azimuth], [elevation]))[0]

    flow = heard[1:].mean(dim=(1, 2))
    torch.testing.assert_close(flow, torch.tensor([1.0, 0.0, 0.0]), atol=1e-3, rtol=0)


def test_cardioids_look_up_and_down_too() -> None:
    cov = covariance(torch.tensor(field()))
    azimuths, elevations = torch.tensor([0.3, -2.0]).double(), torch.tensor([0.8, -0.5]).double()

    power = features.cardioid_power(cov, azimuths, elevations)

    gains = plane_wave_gains(azimuths.numpy(), elevations.numpy(), 1)
    for index in range(2):
        beam = torch.tensor(gains[:, index] @ field() / 2)
        slow = covariance(torch.stack([beam, *torch.zeros(3, len(beam)).double()]))[
            ..., features.WW
        ]
        torch.testing.assert_close(power[..., index], slow)


def test_mirroring_exchanges_left_and_right_before_steering() -> None:
    sound = SoundInput(n_bands=32)
    there, flipped = field(), field() * np.array([1, -1, 1, 1])[:, None]

    fast = sound.at(mirrored(sound.covariance(torch.tensor(there))), steering([0.7], [0.2]))

    slow = sound.at(sound.covariance(torch.tensor(flipped)), steering([0.7], [0.2]))
    torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize(("sound", "blind"), [(Sound.AMBISONIC, True), (Sound.DIRECTIONAL, False)])
def test_published_sound_cannot_tell_front_from_back(sound: Sound, blind: bool) -> None:
    heard = SoundInput(sound, n_bands=32)
    cov = heard.covariance(torch.tensor(field()))

    front, back = heard.at(cov, steering([0.4, 0.4 + math.pi]))

    assert torch.allclose(front, back, atol=1e-4) is blind


def test_no_band_is_empty_and_the_scale_is_slaneys() -> None:
    bank = slaney(128)

    assert (bank.sum(1) > 0).all()
    centres = (bank * torch.fft.rfftfreq(N_FFT, 1 / SAMPLERATE)).sum(1) / bank.sum(1)
    mel: Tensor = torch.where(
        centres < 1000, centres * 3 / 200, 15 + (centres / 1000).log() * 27 / math.log(6.4)
    )
    expected = torch.linspace(0, 15 + 27 * math.log(12) / math.log(6.4), 130)[1:-1]
    # A filter of one or two bins stands where its bins do.
    torch.testing.assert_close(mel.float(), expected, atol=0.36, rtol=0)


def test_intensity_has_no_published_form() -> None:
    with pytest.raises(ValueError, match="intensity sound has no published form"):
        SoundInput(Sound.INTENSITY, magnitude=True)
