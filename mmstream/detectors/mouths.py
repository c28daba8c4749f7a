r"""Mouths: does the mouth of a face move, and does it move with the sound?

    face box   +---------+
               |  upper  |    stays still while somebody talks, moves where the head does
               | +-----+ |
               +-| lip |-+    reaches a little below the box, as Haar draws it
                 +-----+

Both regions are made 24x16. The motion of a mouth is the mean difference of two pictures in a row
over the contrast of the mouth, less half of the same of the upper face. It is told twice a picture:

    signal(t)   = z(log motion) + z(contrast) / 2      an open mouth has more contrast than a closed
    envelope(t) = log of the energy from 300 to 3400 Hz, in windows of 40 ms every 20 ms

Their agreement is Pearson's r over the last 2 s, at the lag of up to 200 ms where it is greatest;
each 100 ms of lag cost 0.1, because of chance some lag always fits. (The idea is Hershey and
Movellan's, "Audio vision: using audio-visual synchrony to locate sounds", NIPS 1999.)

All is addressed by capture time: what was not seen or not heard is missing, not bridged.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from mmstream.media import (
    NS_PER_SEC,
    Box,
    Bytes,
    Floats,
    Hop,
    VideoFrame,
    ns_to_samples,
    samples_to_ns,
)

MAX_LAG_NS: Final = 200_000_000
WINDOW_NS: Final = 2 * NS_PER_SEC
SETTLED_NS: Final = MAX_LAG_NS + 40_000_000
"""What a mouth did so long ago can be compared at every lag with what has been heard by now."""

_SIZE: Final = (24, 16)
_SOFTNESS: Final = 8.0
"""Levels of luma: below it contrast is noise."""
_LEAST_MOTION: Final = 0.01
_HEAD_SHARE: Final = 0.5
_OPENING_WEIGHT: Final = 0.5
_SMOOTH: Final = (0.25, 0.5, 0.25)
"""Of one motion and its neighbours: single pictures are noisy."""
_MAX_STEP_NS: Final = 150_000_000
"""Pictures further apart say nothing about a syllable."""
_LEAST_SPAN_NS: Final = NS_PER_SEC
_LEAST_MOTIONS: Final = 10

_BAND_HZ: Final = (300.0, 3400.0)
_STEPS_PER_SEC: Final = 50
_STEP_NS: Final = NS_PER_SEC // _STEPS_PER_SEC
_QUIET: Final = 1e-4
"""Of the loudest of a window; -40 dB."""

_LAGS_NS: Final = np.arange(-MAX_LAG_NS, MAX_LAG_NS + 1, _STEP_NS)
_LAG_COST: Final = np.abs(_LAGS_NS) / NS_PER_SEC
"""[lags]: taken off the correlation."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """How loud speech would be, over a stretch of time."""

    at_ns: NDArray[np.int64]
    """[t]: middles of windows."""
    log_energy: Floats
    """[t]: NaN where something was not heard."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the motion of a mouth and the sound go together."""

    r: float
    """-1..1: Pearson's, less what its lag costs."""
    offset_ns: int
    """How long after the mouth the sound comes."""
    swing: float
    """How much the envelope itself changes in the window: deviation of its natural logarithm."""


@dataclass(slots=True)
class Ear:
    """Hears the envelope of one source."""

    _samples: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    _heard: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _next: int = 0
    """The step, counted from capture time 0, that `_samples` start with."""
    _energies: deque[tuple[int, float]] = field(default_factory=deque)
    """(at_ns, log energy) of the last seconds."""

    def hear(self, hop: Hop) -> None:
        """Take the sound of a hop."""
        n_step = hop.rate_hz // _STEPS_PER_SEC
        self._append(hop, n_step)
        n_new = max(0, self._samples.size // n_step - 1)
        if not n_new:
            return
        pairs = np.lib.stride_tricks.sliding_window_view(self._samples, 2 * n_step)[::n_step]
        known = np.lib.stride_tricks.sliding_window_view(self._heard, 2 * n_step)[::n_step]
        logs = _log_energies(pairs[:n_new], hop.rate_hz)
        logs[~known[:n_new].all(axis=1)] = np.nan
        for index, value in enumerate(logs.tolist(), start=self._next + 1):
            self._energies.append((samples_to_ns(index * n_step, hop.rate_hz), value))
        self._samples, self._heard = self._samples[n_new * n_step :], self._heard[n_new * n_step :]
        self._next += n_new
        _drop_before(self._energies, hop.span.start_ns - WINDOW_NS - 3 * MAX_LAG_NS)

    def envelope(self) -> Envelope:
        """What was heard lately."""
        at_ns = np.array([at for at, _ in self._energies], np.int64)
        return Envelope(at_ns, np.array([value for _, value in self._energies], np.float32))

    def _append(self, hop: Hop, n_step: int) -> None:
        start = ns_to_samples(hop.span.start_ns, hop.rate_hz)
        if start != self._next * n_step + self._samples.size:
            self._energies.clear()  # what lies between is not to be interpolated
            n_lost = start % n_step
            self._next = start // n_step
            self._samples = np.zeros(n_lost, np.float32)
            self._heard = np.zeros(n_lost, np.bool_)
        self._samples = np.concatenate((self._samples, hop.samples))
        self._heard = np.concatenate((self._heard, hop.heard))


@dataclass(frozen=True, slots=True)
class _Motion:
    """What a mouth did from one picture to the next."""

    at_ns: int
    """Halfway between the two."""
    motion: float
    """Of the mouth less that of the head, >= 0."""
    opening: float
    """The contrast of the mouth, levels of luma."""


@dataclass(slots=True)
class Mouth:
    """Watches the mouth in one followed face."""

    _motions: deque[_Motion] = field(default_factory=deque)
    _before: tuple[Bytes, Bytes] | None = None
    """Mouth and upper face in the picture before, ..."""
    _before_box: Box | None = None
    """... cut out of here."""

    def see(self, frame: VideoFrame, before: VideoFrame | None, box: Box) -> None:
        """Look at a picture and, where the face was not looked at there, the one before."""
        now = _regions(frame.image.luma, box)
        earlier, self._before = self._before, now
        if self._before_box != box or earlier is None:
            # Cut out of the same place: a box that jumps is no motion.
            earlier = None if before is None else _regions(before.image.luma, box)
        self._before_box = box
        if before is None or earlier is None:
            return
        if frame.start_ns - before.start_ns <= _MAX_STEP_NS:
            at_ns = (before.start_ns + frame.start_ns) // 2
            self._motions.append(_motion(at_ns, earlier, now))
        while self._motions and self._motions[0].at_ns < frame.start_ns - WINDOW_NS - NS_PER_SEC:
            self._motions.popleft()

    def last(self, at_ns: int) -> "Moves | None":
        """What it did in the window that ended `SETTLED_NS` before; None where too little."""
        end_ns = at_ns - SETTLED_NS
        inside = [one for one in self._motions if end_ns - WINDOW_NS <= one.at_ns <= end_ns]
        times = np.array([one.at_ns for one in inside], np.int64)
        if not _is_enough(times):
            return None
        motion = np.array([one.motion for one in inside], np.float32)
        return Moves(times, motion, np.array([one.opening for one in inside], np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """The motions of a mouth in a window."""

    at_ns: NDArray[np.int64]
    """[t]"""
    motion: Floats
    """[t] >= 0"""
    opening: Floats
    """[t] levels of luma"""

    def level(self, span_ns: tuple[int, int]) -> float:
        """The upper quartile of the motion from one instant to another; 0 where there is none."""
        inside = self.motion[(self.at_ns >= span_ns[0]) & (self.at_ns <= span_ns[1])]
        return float(np.percentile(inside, 75)) if inside.size else 0.0

    def agreement(self, envelope: Envelope) -> Agreement | None:
        """With the sound; None where that was heard for too little of the time."""
        wanted_ns = self.at_ns[None, :] + _LAGS_NS[:, None]
        if not envelope.at_ns.size:
            return None
        is_heard = (wanted_ns[0] >= envelope.at_ns[0]) & (wanted_ns[-1] <= envelope.at_ns[-1])
        wanted_ns = wanted_ns[:, is_heard]
        if not _is_enough(wanted_ns[0]):
            return None
        first_ns, last_ns = int(wanted_ns[0, 0]) - _STEP_NS, int(wanted_ns[-1, -1]) + _STEP_NS
        is_used = (envelope.at_ns > first_ns) & (envelope.at_ns < last_ns)
        used = envelope.log_energy[is_used]
        if np.isnan(used).any():
            return None
        logs = np.logaddexp(used, used.max() + np.log(_QUIET))
        heard = np.interp(wanted_ns, envelope.at_ns[is_used], logs)
        padded = np.pad(np.log(self.motion[is_heard] + _LEAST_MOTION), 1, mode="edge")
        signal = _standard(np.convolve(padded, _SMOOTH, "valid"))
        signal = _standard(signal + _OPENING_WEIGHT * _standard(self.opening[is_heard]))
        heard -= heard.mean(axis=1, keepdims=True)
        deviations = heard.std(axis=1)
        r = heard @ signal / (signal.size * (deviations + 1e-6)) - _LAG_COST
        best = int(np.argmax(r))
        swing = float(deviations[_LAGS_NS.size // 2])
        return Agreement(float(r[best]), int(_LAGS_NS[best]), swing)


def _is_enough(at_ns: NDArray[np.int64]) -> bool:
    return at_ns.size >= _LEAST_MOTIONS and bool(at_ns[-1] - at_ns[0] >= _LEAST_SPAN_NS)


def _drop_before(values: deque[tuple[int, float]], at_ns: int) -> None:
    while values and values[0][0] < at_ns:
        values.popleft()


def _log_energies(windows: Floats, rate_hz: int) -> Floats:
    """[n, samples] -> [n]: of the band."""
    spectrum = np.fft.rfft(windows * np.hanning(windows.shape[1]).astype(np.float32), axis=1)
    low, high = (round(hz * windows.shape[1] / rate_hz) for hz in _BAND_HZ)
    band = spectrum[:, low : high + 1]
    energies = np.square(band.real).sum(axis=1) + np.square(band.imag).sum(axis=1)
    return np.asarray(np.log(energies + 1e-9), np.float32)


def _regions(luma: Bytes, box: Box) -> tuple[Bytes, Bytes]:
    """Mouth and upper face, each [16, 24]."""
    mouth = _cut(luma, box, across=(0.2, 0.8), down=(0.64, 1.06))
    return mouth, _cut(luma, box, across=(0.15, 0.85), down=(0.15, 0.6))


def _cut(luma: Bytes, box: Box, *, across: tuple[float, float], down: tuple[float, float]) -> Bytes:
    height, width = luma.shape
    rows = _pixels(box.y, box.height, down, height)
    part = luma[rows, _pixels(box.x, box.width, across, width)]
    # Every nth pixel of a large face: averaging them all costs more than anything else here.
    nth = max(1, part.shape[1] // (4 * _SIZE[0]))
    small = cv2.resize(part[::nth, ::nth], _SIZE, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _pixels(start: float, length: float, part: tuple[float, float], n: int) -> slice:
    """A part of a box's side, in pixels of a picture that has `n`: at least one of them."""
    low, high = (round((start + share * length) * n) for share in part)
    low = min(low, n - 1)
    return slice(low, max(low + 1, high))


def _motion(at_ns: int, earlier: tuple[Bytes, Bytes], now: tuple[Bytes, Bytes]) -> _Motion:
    contrasts = [float(cv2.meanStdDev(region)[1][0, 0]) for region in now]
    mouth, head = (
        float(cv2.norm(one, two, cv2.NORM_L1)) / one.size / (contrast + _SOFTNESS)
        for one, two, contrast in zip(earlier, now, contrasts, strict=True)
    )
    return _Motion(at_ns, max(0.0, mouth - _HEAD_SHARE * head), contrasts[0])


def _standard(values: NDArray[np.floating]) -> NDArray[np.floating]:
    centred = values - values.mean()
    return np.asarray(centred / (centred.std() + 1e-6))
