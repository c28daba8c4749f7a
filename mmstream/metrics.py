"""Plain counters and latency histograms; every drop has a counter and a reason.

One thread owns each `StageMetrics`; others may read it at any time and see numbers that are at
most one update old.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

N_KEPT: Final = 4096
"""Latencies that a histogram remembers: the last few minutes of a stage at 10-30 per second."""


class Latencies:
    """The last few thousand durations of something, for percentiles."""

    def __init__(self) -> None:
        """Empty."""
        self._durations_ns: deque[int] = deque(maxlen=N_KEPT)

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._durations_ns)

    def add(self, duration_ns: int) -> None:
        """Remember one."""
        self._durations_ns.append(duration_ns)

    def percentile_ms(self, percent: float) -> float | None:
        """The percentile in milliseconds, or None when nothing was measured."""
        if not self._durations_ns:
            return None
        return round(float(np.percentile(list(self._durations_ns), percent)) / 1e6, 3)

    def percentiles_ms(self, percents: Sequence[float]) -> tuple[float, ...]:
        """Several for the price of one; empty when nothing was measured."""
        if not self._durations_ns:
            return ()
        found = np.percentile(list(self._durations_ns), percents) / 1e6
        return tuple(round(float(ms), 3) for ms in found)


class StageMetrics:
    """What went in, out and lost in one stage, and how long it took."""

    def __init__(self, name: str) -> None:
        """All zero. `name` is `<stage>` or `<stage>/<source>`."""
        self.name = name
        self.n_in = 0
        self.n_out = 0
        self.dropped: Counter[str] = Counter()
        self.latencies = Latencies()
        self.realtime_factor: float | None = None
        """Seconds of computing for a second of sound, lately; over 1 it falls behind. None: it
        is not about sound, or has hardly heard any."""

    def drop(self, reason: str, n: int = 1) -> None:
        """Count something lost."""
        self.dropped[reason] += n


def dropped(stages: Sequence[StageMetrics]) -> Counter[str]:
    """What these have lost together, by reason."""
    total: Counter[str] = Counter()
    for stage in stages:
        total.update(dict(stage.dropped))  # a copy: its owner may add a reason meanwhile
    return total


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One look at a source."""

    source: str
    state: str
    """As in its health message."""
    reason: str
    since: str
    """When it came into this state, ISO 8601 UTC."""
    video_fps: float | None
    audio_dbfs: float | None
    lag_ms: float | None
    """How long after its capture the last scored hop was scored; None where that means nothing."""
