"""Sounds that are made up are there, of the right length and loudness, and as many as are drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.media import DEFAULT_RATE_HZ
from mmstream.training import made_sounds
from mmstream.training.made_sounds import coloured_noise, made_sound

N = DEFAULT_RATE_HZ // 2


@settings(max_examples=30)
@given(n=st.integers(2000, N), seed=st.integers(0, 2**32))
def test_a_sound_is_as_long_as_asked_and_finite_and_of_its_seed(n: int, seed: int) -> None:
    sound = made_sound(n, np.random.default_rng(seed))
    assert sound.shape == (n,)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    loudest = float(np.abs(sound).max())
    assert loudest == 0 or loudest == pytest.approx(1)  # of a few taps none may fall into it
    assert np.array_equal(made_sound(n, np.random.default_rng(seed)), sound)


@pytest.mark.parametrize("kind", sorted({kind.__name__ for kind in made_sounds._KINDS}))  # noqa: SLF001 - each
def test_every_kind_sounds_and_each_time_another(kind: str) -> None:
    make, rng = getattr(made_sounds, kind), np.random.default_rng(1)
    first, second = make(2 * N, rng), make(2 * N, rng)
    assert 0 < first.std() < np.inf
    assert not np.array_equal(first, second)


def test_noise_is_white_or_falls_with_frequency() -> None:
    rng = np.random.default_rng(0)
    falls = []
    for _ in range(40):
        power = np.abs(np.fft.rfft(coloured_noise(N, rng))) ** 2
        low, high = power[50:100].mean(), power[2000:4000].mean()
        falls.append(10 * np.log10(low / high))
    octaves = np.log2(3000 / 75)
    assert -2 < min(falls) < 5
    assert 5 * octaves < max(falls) < 6.5 * octaves  # brown: 6 dB an octave
