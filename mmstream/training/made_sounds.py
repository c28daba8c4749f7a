"""Sounds that are none of the known ones, made up: tones, chords, chirps, engines, taps, noise.

A model that has heard ten kinds of sound only calls everything one of them. These stand for the
rest of the world: music, machines, birds, applause, wind. Each is drawn anew.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy.signal import lfilter

from mmstream.media import DEFAULT_RATE_HZ, Floats

_RATE: Final = float(DEFAULT_RATE_HZ)
_PLUCKED: Final = 0.6
"""Share of the instruments whose notes die away."""
_UNBROKEN: Final = 0.85
"""Share of the notes that the next follows at once."""
_Wave = np.ndarray[tuple[int], np.dtype[np.float64]]


def made_sound(n: int, rng: np.random.Generator) -> Floats:
    """[n] samples at 16 kHz, loudest at 1."""
    kind = _KINDS[int(rng.integers(len(_KINDS)))]
    wave = kind(n, rng)
    loudest = float(np.abs(wave).max())
    return (wave / max(loudest, 1e-9)).astype(np.float32)


def coloured_noise(n: int, rng: np.random.Generator) -> _Wave:
    """[n]: noise whose power falls with frequency by a random exponent, 0 (white) to 2 (brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    freqs = np.fft.rfftfreq(n, 1 / _RATE)
    freqs[0] = freqs[1]
    return np.fft.irfft(spectrum * freqs ** (-rng.uniform(0, 2) / 2), n)


def _notes(n: int, rng: np.random.Generator) -> _Wave:
    """Notes with harmonics, one after another or as chords, plucked or blown."""
    out = np.zeros(n)
    root, at = rng.uniform(80, 500), 0
    decay = rng.uniform(0.1, 2.0) if rng.random() < _PLUCKED else 1e3
    fall = rng.uniform(0.8, 2.5)
    while at < n:
        length = int(rng.uniform(0.1, 1.0) * _RATE)
        time = np.arange(min(length, n - at)) / _RATE
        shape = np.minimum(1, time / rng.uniform(0.003, 0.08)) * np.exp(-time / decay)
        for _ in range(int(rng.integers(1, 4))):
            pitch = root * 2 ** (int(rng.integers(0, 25)) / 12)
            vibrato = rng.uniform(0, 0.004) * np.sin(2 * np.pi * rng.uniform(4, 7) * time)
            phase = 2 * np.pi * pitch * (time + np.cumsum(vibrato) / _RATE)
            for harmonic in range(1, int(rng.integers(2, 12))):
                if pitch * harmonic < _RATE / 2:
                    out[at : at + time.size] += shape * np.sin(harmonic * phase) / harmonic**fall
        at += length if rng.random() < _UNBROKEN else length + int(rng.uniform(0, 0.5) * _RATE)
    return out


def _chirps(n: int, rng: np.random.Generator) -> _Wave:
    """Short whistles that glide: birds, effects, calls."""
    out = np.zeros(n)
    low, high = sorted(rng.uniform(200, 7000, size=2).tolist())
    for _ in range(int(rng.integers(2, 14))):
        length = int(rng.uniform(0.04, 0.8) * _RATE)
        at = int(rng.integers(0, max(1, n - length)))
        time = np.linspace(0, 1, min(length, n - at))
        pitch = np.interp(time, np.linspace(0, 1, 4), rng.uniform(low, high, size=4))
        phase = 2 * np.pi * np.cumsum(pitch) / _RATE
        out[at : at + time.size] += np.hanning(time.size) * (
            np.sin(phase) + rng.uniform(0, 0.5) * np.sin(2 * phase)
        )
    return out


def _engine(n: int, rng: np.random.Generator) -> _Wave:
    """Harmonics of a slowly changing low pitch, and noise: motors, hum, trains."""
    time = np.linspace(0, 1, n)
    pitch = np.interp(time, np.linspace(0, 1, 5), rng.uniform(25, 180) * rng.uniform(0.8, 1.2, 5))
    phase = 2 * np.pi * np.cumsum(pitch) / _RATE
    fall = rng.uniform(0.5, 1.5)
    wave = sum(
        np.sin(k * phase + rng.uniform(0, 6)) / k**fall for k in range(1, int(rng.integers(5, 30)))
    )
    return np.asarray(wave) + rng.uniform(0.2, 4) * _unit(coloured_noise(n, rng))


def _taps(n: int, rng: np.random.Generator) -> _Wave:
    """Clicks of one kind at irregular times: typing, handling, applause where there are many."""
    rate = 10 ** rng.uniform(0.3, 2.5)
    hits = (rng.random(n) < rate / _RATE) * rng.uniform(0.2, 1, n)
    length = int(rng.uniform(0.003, 0.06) * _RATE)
    ring = rng.standard_normal(length) * np.exp(-np.arange(length) / (length / 4))
    tone = np.sin(2 * np.pi * rng.uniform(300, 5000) / _RATE * np.arange(length))
    return np.convolve(hits, ring * (1 + rng.uniform(0, 2) * tone))[:n]


def _shaped_noise(n: int, rng: np.random.Generator) -> _Wave:
    """Noise through a resonance that swells and fades: wind, breath, crowds, snores."""
    pole = rng.uniform(0.5, 0.98)
    angle = 2 * np.pi * rng.uniform(100, 5000) / _RATE
    wave = lfilter([1.0], [1.0, -2 * pole * np.cos(angle), pole**2], coloured_noise(n, rng))
    points = int(rng.integers(2, 16))
    swell = np.interp(
        np.linspace(0, 1, n), np.linspace(0, 1, points), rng.uniform(0, 1, points) ** 2
    )
    return np.asarray(_unit(np.asarray(wave)) * (swell + rng.uniform(0, 0.5)))


def _unit(wave: _Wave) -> _Wave:
    return wave / max(float(wave.std()), 1e-12)


_KINDS: Final[tuple[Callable[[int, np.random.Generator], _Wave], ...]] = (
    _notes,
    _notes,
    _chirps,
    _engine,
    _taps,
    _shaped_noise,
    coloured_noise,
)
