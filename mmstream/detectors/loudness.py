r"""Loud: sound that stands out from what the place usually sounds like.

    level   _____/~~~\______/~\____      dB per 5 ms, without hum and rumble
    floor   _______________________      20th percentile of the last 10 s
    score   0.05 .95  0.05  .7           0.5 where the level is `above_db` over the floor

There is no fixed gate: a noise that starts and stays is loud for about 8 s, then it is the floor;
speech is loud syllable by syllable, since a fifth of it is pauses (a percentile instead of the
minimum of Martin 2001, "Noise power spectral density estimation based on optimal smoothing and
minimum statistics", so that one dropout or a file that fades in does not hold it down for 10 s).
`_LOWEST_FLOOR_DB` only says what silence is: the floor of a muted input is not minus infinity,
over which a converter's dither would be loud.

Levels are taken on a grid of steps counted from capture time 0, the floor changes only between
blocks of 0.5 s, and a step sees only blocks before its own: how the sound is cut into hops changes
nothing. A step with a missing sample has no level and no score, and is in no floor.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmstream.config import Settings
from mmstream.media import Floats, Hop, Label, Scores, Series, ns_to_samples, samples_to_ns
from mmstream.stages import Load

LOUD: Final = Label("loud", "audio", "loudness")

_STEPS_PER_SEC: Final = 200
_STEPS_PER_BLOCK: Final = 100
_N_BLOCKS: Final = 20
_MIN_STEPS: Final = 50
"""Less than so many levels are no floor."""
_PERCENTILE: Final = 20.0
_LOWEST_FLOOR_DB: Final = -75.0
_LOWEST_POWER: Final = 1e-12
_SLOPE_DB: Final = 4.0
"""The score goes from 0.27 to 0.73 within twice this."""

_Levels = NDArray[np.float64]


class LoudnessSettings(Settings):
    """How loud is loud; the spec of `LoudnessScorer` (`ScorerSpec`)."""

    above_db: float = Field(12.0, gt=0, le=60)
    """So far above the floor a sound scores 0.5, in dB."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """`loud`."""
        return (LOUD,)

    def build(self, device: str) -> "LoudnessScorer":  # noqa: ARG002 - always on the CPU
        """Make it."""
        return LoudnessScorer(self)


class LoudnessScorer:
    """Scores `loud` every 5 ms (`Scorer`).

    `Load.STRETCHED` changes nothing. Under `Load.INGEST` only the floor is kept up.
    """

    def __init__(self, settings: LoudnessSettings) -> None:
        """Nothing has been heard."""
        self._settings = settings
        self._ears: dict[str, _Ear] = {}

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002 - rests on no other scorer
        load: Load,
    ) -> Sequence[Scores]:
        """[t] scores at the starts of steps; the first may have begun in the hop before.

        No output: no sound, or not yet 0.5 s of it.
        """
        return [self._score(hop, load) for hop in hops]

    def forget(self, source: str) -> None:
        """Learn the source's floor anew."""
        self._ears.pop(source, None)

    def _score(self, hop: Hop, load: Load) -> Scores:
        ear = self._ears.get(hop.source)
        if ear is None or ear.rate_hz != hop.rate_hz:
            ear = self._ears[hop.source] = _Ear(hop.rate_hz)
        at_ns, above_db = ear.hear(hop)
        if load is Load.INGEST or at_ns.size == 0:
            return Scores(hop.source, hop.index, hop.span)
        scores = 1 / (1 + np.exp((self._settings.above_db - above_db) / _SLOPE_DB))
        series = Series(at_ns, scores.astype(np.float32))
        return Scores(hop.source, hop.index, hop.span, {LOUD.name: series})


@dataclass(slots=True)
class _Ear:
    """The unfinished step and the recent levels of one source."""

    rate_hz: int
    _samples: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    """Those of the last step so far; the first of them is sample `_index`."""
    _heard: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _index: int = 0
    """Counted from capture time 0."""
    _block: int = 0
    _levels_db: list[_Levels] = field(default_factory=list)
    """Of the block `_block`."""
    _past: deque[tuple[int, _Levels]] = field(default_factory=lambda: deque(maxlen=_N_BLOCKS))
    """Whole blocks and their numbers."""
    _floor_db: float | None = None

    def hear(self, hop: Hop) -> tuple[NDArray[np.int64], _Levels]:
        """The instants of the steps that are complete now, and their levels above the floor."""
        n_step = max(2, round(self.rate_hz / _STEPS_PER_SEC))
        first = self._append(hop, n_step)
        n_steps = self._samples.size // n_step
        whole = n_steps * n_step
        steps = self._samples[:whole].reshape(n_steps, n_step)
        is_whole = self._heard[:whole].reshape(n_steps, n_step).all(axis=1)
        self._samples, self._heard = self._samples[whole:], self._heard[whole:]
        self._index += whole
        number = first + np.flatnonzero(is_whole)
        levels_db = _levels_db(steps[is_whole])
        above_db = np.full(levels_db.shape, np.nan)
        for block in np.unique(number // _STEPS_PER_BLOCK).tolist():
            here = number // _STEPS_PER_BLOCK == block
            floor_db = self._floor_before(block)
            self._levels_db.append(levels_db[here])
            if floor_db is not None:
                above_db[here] = levels_db[here] - floor_db
        known = ~np.isnan(above_db)
        at_ns = [samples_to_ns(step * n_step, self.rate_hz) for step in number[known].tolist()]
        return np.array(at_ns, np.int64), above_db[known]

    def _append(self, hop: Hop, n_step: int) -> int:
        """Add the hop to the unfinished step; gives the number of that step."""
        start = ns_to_samples(hop.span.start_ns, self.rate_hz)
        n_missing = start - self._index - self._samples.size
        if n_missing != 0:
            # What is lost belongs to no step: start at the step that the hop starts in.
            n_lost = start % n_step
            self._index = start - n_lost
            self._samples = np.zeros(n_lost, np.float32)
            self._heard = np.zeros(n_lost, np.bool_)
        self._samples = np.concatenate((self._samples, hop.samples))
        self._heard = np.concatenate((self._heard, hop.heard))
        return self._index // n_step

    def _floor_before(self, block: int) -> float | None:
        """The floor that steps of `block` are measured against; closes the blocks before it."""
        if block == self._block:
            return self._floor_db
        if self._levels_db:
            self._past.append((self._block, np.concatenate(self._levels_db)))
        self._block, self._levels_db = block, []
        recent = [levels for number, levels in self._past if number >= block - _N_BLOCKS]
        n_levels = sum(levels.size for levels in recent)
        self._floor_db = None
        if n_levels >= _MIN_STEPS:
            usual_db = float(np.percentile(np.concatenate(recent), _PERCENTILE))
            self._floor_db = max(_LOWEST_FLOOR_DB, usual_db)
        return self._floor_db


def _levels_db(steps: Floats) -> _Levels:
    """[t, n] -> [t]: the power of each step around its straight line, in dB of full scale.

    The line takes away what is slower than the step: 21 dB at 50 Hz, 7 at 100 Hz, 0.4 at 300 Hz.
    """
    ramp = np.arange(steps.shape[1]) - (steps.shape[1] - 1) / 2
    around = steps - steps.mean(axis=1, keepdims=True, dtype=np.float64)
    slope = (around * ramp).sum(axis=1, keepdims=True) / (ramp * ramp).sum()
    power = np.square(around - slope * ramp).mean(axis=1)
    levels: _Levels = 10 * np.log10(np.maximum(power, _LOWEST_POWER))
    return levels
