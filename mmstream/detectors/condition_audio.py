r"""The condition of a microphone, from blocks of 0.5 s of sound.

    dead       digital silence, or nearly; or far below the softest that this microphone usually
               gives, and below what any room has. A noise gate that shuts for 5 s is dead too
    clipping   more than 1 % of the samples of 2 s are at the end of the scale
    dc         the mean lies far off 0
    hum        nearly all of the power is in the mains' 50 or 60 Hz and their harmonics

In each of them nothing can be heard that is worth a word: so all of them are `audio_lost`, and
loud sound that clips now and then is not. Blocks are counted from capture time 0, so how the sound
is cut into hops changes nothing; a block with a missing sample has no score.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmstream.media import Floats, Hop, ns_to_samples, samples_to_ns

_BLOCKS_PER_SEC: Final = 2
_FULL_SCALE: Final = 0.985
_CLIPPED: Final = 0.01
"""This share of the last 2 s at the end of the scale scores 0.5. A cry into the microphone has up
to 0.17 of half a second, but not for 5 s."""
_N_CLIPPED: Final = 4
_DC: Final = 0.1
_HUM: Final = 0.8
"""This share of the power. Engines and bass notes have 0.6 and less."""
_LEAST_HUM_DB: Final = -60.0
_MAINS_HZ: Final = (50, 60)
_N_HARMONICS: Final = 6
_LINE_HZ: Final = 3.0
_DEAD_DB: Final = -88.0
"""Below it is only a converter's own dither."""
_ROOM_DB: Final = -75.0
_BELOW_USUAL_DB: Final = 25.0
_USUAL_PERCENTILE: Final = 20.0
_N_USUAL: Final = 240
_LEAST_USUAL: Final = 20
_LOWEST_POWER: Final = 1e-14


@dataclass(frozen=True, slots=True)
class AudioState:
    """How the microphone was in one block."""

    at_ns: int
    score: float
    """0..1; 0.5 is where it counts as lost."""
    fault: str | None = None
    """`dead`, `clipping`, `dc`, `hum`; None where nothing is wrong."""


@dataclass(slots=True)
class AudioCondition:
    """One microphone."""

    _rate_hz: int = 0
    _samples: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    """Those of the last block so far; the first of them is sample `_index`."""
    _heard: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _index: int = 0
    """Counted from capture time 0."""
    _levels_db: deque[float] = field(default_factory=lambda: deque(maxlen=_N_USUAL))
    """Of blocks in which it was not dead, the last two minutes of them."""
    _clipped: deque[float] = field(default_factory=lambda: deque(maxlen=_N_CLIPPED))
    """The shares of clipped samples in the last blocks."""

    def hear(self, hop: Hop) -> list[AudioState]:
        """Its state in each block that is complete now."""
        if hop.samples.size and hop.rate_hz != self._rate_hz:
            self._rate_hz = hop.rate_hz
            self._samples, self._heard = np.zeros(0, np.float32), np.zeros(0, np.bool_)
            self._index = -1
        if not self._rate_hz:
            return []
        n_block = self._rate_hz // _BLOCKS_PER_SEC
        self._append(hop, n_block)
        states = []
        while self._samples.size >= n_block:
            if self._heard[:n_block].all():
                at_ns = samples_to_ns(self._index, self._rate_hz)
                states.append(self._judge(at_ns, self._samples[:n_block]))
            self._samples, self._heard = self._samples[n_block:], self._heard[n_block:]
            self._index += n_block
        return states

    def _append(self, hop: Hop, n_block: int) -> None:
        start = ns_to_samples(hop.span.start_ns, self._rate_hz)
        if start != self._index + self._samples.size:
            # What is lost belongs to no block: start at the block that the hop starts in.
            n_lost = start % n_block
            self._index = start - n_lost
            self._samples = np.zeros(n_lost, np.float32)
            self._heard = np.zeros(n_lost, np.bool_)
        self._samples = np.concatenate((self._samples, hop.samples))
        self._heard = np.concatenate((self._heard, hop.heard))

    def _judge(self, at_ns: int, block: Floats) -> AudioState:
        offset = float(block.mean(dtype=np.float64))
        around = block - np.float32(offset)
        level_db = float(10 * np.log10(float(np.dot(around, around)) / block.size + _LOWEST_POWER))
        dead = _score(self._silent_db() - level_db, scale=3.0)
        if dead >= 0.5:  # noqa: PLR2004 - the decision
            self._clipped.append(0.0)
            return AudioState(at_ns, dead, "dead")
        self._levels_db.append(level_db)
        self._clipped.append(float(np.mean(np.abs(block) >= _FULL_SCALE)))
        clipped = sum(self._clipped) / _N_CLIPPED
        hum = _hum_share(around, self._rate_hz) if level_db >= _LEAST_HUM_DB else 0.0
        faults = (
            ("clipping", _score(clipped - _CLIPPED, scale=_CLIPPED / 4)),
            ("dc", _score(abs(offset) - _DC, scale=_DC / 4)),
            ("hum", _score(hum - _HUM, scale=0.05)),
        )
        fault, score = max(faults, key=lambda one: one[1])
        return AudioState(at_ns, score, fault if score >= 0.5 else None)  # noqa: PLR2004

    def _silent_db(self) -> float:
        """What is softer is no sound of this microphone."""
        if len(self._levels_db) < _LEAST_USUAL:
            return _DEAD_DB
        usual_db = float(np.percentile(np.array(self._levels_db), _USUAL_PERCENTILE))
        return max(_DEAD_DB, min(_ROOM_DB, usual_db - _BELOW_USUAL_DB))


def _score(over: float, *, scale: float) -> float:
    """0..1: 0.5 where `over` is 0, 0.73 at `scale`."""
    return float(1 / (1 + np.exp(-np.clip(over / scale, -50, 50))))


def _hum_share(block: Floats, rate_hz: int) -> float:
    """How much of the power lies in lines of one of the mains' frequencies."""
    window = np.hanning(block.size + 1)[:-1]
    spectrum = np.fft.rfft(block * window)
    power = spectrum.real**2 + spectrum.imag**2
    hz = np.fft.rfftfreq(block.size, 1 / rate_hz)
    shares = []
    for mains_hz in _MAINS_HZ:
        nearest = np.round(hz / mains_hz)
        is_line = np.abs(hz - nearest * mains_hz) <= _LINE_HZ
        is_line &= (nearest >= 1) & (nearest <= _N_HARMONICS)
        shares.append(float(power[is_line].sum() / (power.sum() + _LOWEST_POWER)))
    return max(shares)
