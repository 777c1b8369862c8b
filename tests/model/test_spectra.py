from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from model.spectra import ShortTime

RATE = 16_000


@given(
    size=st.integers(4, 300), share=st.floats(0.05, 0.5), length=st.floats(1.0, 9.0),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_slices_are_scipys_and_give_the_sound_back(
    size: int, share: float, length: float, seed: int
) -> None:
    sound = np.random.default_rng(seed).standard_normal((2, 3, int(size * length)))
    transform = ShortTime(size, max(1, int(size * share)), RATE)
    slow = ShortTimeFFT(hann(size, sym=False), transform.hop, RATE)

    fast = transform.spectra(sound)

    # SciPy's phases are those of a slice's middle, and it has slices that only begin in the sound.
    of_middle = np.exp(2j * np.pi * transform.frequencies_hz / RATE * (size // 2))
    theirs = slow.stft(sound, p0=0, p1=fast.shape[-1])
    np.testing.assert_allclose(fast * of_middle[:, None], theirs, atol=1e-9)
    np.testing.assert_allclose(transform.frequencies_hz, slow.f)
    np.testing.assert_allclose(transform.sound(fast, sound.shape[-1]), sound, atol=1e-9)


def test_the_sound_of_changed_spectra_is_scipys(rng: np.random.Generator) -> None:
    """Spectra that no sound has: the one that comes nearest to them in the squares."""
    sound = rng.standard_normal((4, 10 * 128))
    transform, slow = ShortTime(256, 128, RATE), ShortTimeFFT(hann(256, sym=False), 128, RATE)
    gains = rng.uniform(0, 1, (4, 129, 11))

    mine = transform.sound(gains * transform.spectra(sound), sound.shape[1])

    theirs = slow.istft(gains * slow.stft(sound, p0=0, p1=11), k1=sound.shape[1])
    np.testing.assert_allclose(mine, theirs, atol=1e-9)


def test_slices_that_leave_samples_out_are_refused() -> None:
    with pytest.raises(ValueError, match="every 200"):
        ShortTime(256, 200, RATE)
