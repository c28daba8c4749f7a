"""How a source is doing: state, frame rate and sound level, from the items that pass."""

from collections import deque
from typing import Final

import numpy as np

from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    SourceStarted,
    SourceSynced,
    StreamClock,
    StreamKind,
    VideoFrame,
)
from mmstream.messages import Health, HealthState, iso_utc
from mmstream.metrics import SourceStatus

WINDOW_NS: Final = 2 * NS_PER_SEC
"""Rates and levels are of the last so much capture time."""
QUIETEST_DBFS: Final = -120.0


class SourceGauge:
    """Counts what passes; cheap enough for every item."""

    def __init__(self, source: str, since_utc_ns: int) -> None:
        """The source is being opened."""
        self.lag_ms: float | None = None
        self.n_restarts = 0
        self.state: HealthState = "connecting"
        self.reason = "opening"
        self.synced = True
        """Whether sound and sight are known to be on one clock."""
        self._source = source
        self._since_utc_ns = since_utc_ns
        self._streams: frozenset[StreamKind] = frozenset()
        self._drifts_ppm: dict[StreamKind, float] = {}
        self._frames_ns: deque[int] = deque(maxlen=1024)
        self._chunks: deque[AudioChunk] = deque(maxlen=1024)

    def enter(self, state: HealthState, reason: str, utc_ns: int) -> None:
        """The source is in this state; what does not come has no rate and no level.

        With another reason for the same state, it has been in it since it came into it.
        """
        if state in ("stalled", "offline"):
            self._frames_ns.clear()
            self._chunks.clear()
        if state != self.state:
            self._since_utc_ns = utc_ns
        self.state, self.reason = state, reason

    def see(self, item: object) -> None:
        """Count an item."""
        match item:
            case SourceStarted():
                self._streams = item.streams
                self.synced = item.synced
                self._drifts_ppm.clear()
                self._frames_ns.clear()
                self._chunks.clear()
            case VideoFrame():
                self._frames_ns.append(item.start_ns)
            case AudioChunk():
                self._chunks.append(item)  # measured when somebody asks
            case SourceSynced():
                self.synced = True
            case StreamClock():
                self._drifts_ppm[item.stream] = round(item.drift_ppm, 1)

    def status(self) -> SourceStatus:
        """How it is now."""
        return SourceStatus(
            self._source,
            self.state,
            self.reason,
            iso_utc(self._since_utc_ns),
            self._fps(),
            self._dbfs(),
            self.lag_ms,
        )

    def health(self) -> Health:
        """The same as a message."""
        return Health(
            source=self._source,
            state=self.state,
            reason=self.reason,
            since=iso_utc(self._since_utc_ns),
            video_fps=self._fps(),
            audio_rms=self._dbfs(),
            synced=self.synced,
            video_drift_ppm=self._drifts_ppm.get("video"),
            audio_drift_ppm=self._drifts_ppm.get("audio"),
            restarts=self.n_restarts,
        )

    def _fps(self) -> float | None:
        if "video" not in self._streams:
            return None
        while self._frames_ns and self._frames_ns[0] < self._frames_ns[-1] - WINDOW_NS:
            self._frames_ns.popleft()
        if len(self._frames_ns) < 2:  # noqa: PLR2004 - a rate needs two instants
            return 0.0
        spread_ns = self._frames_ns[-1] - self._frames_ns[0]
        return round((len(self._frames_ns) - 1) * NS_PER_SEC / max(spread_ns, 1), 2)

    def _dbfs(self) -> float | None:
        if "audio" not in self._streams:
            return None
        while self._chunks and self._chunks[0].end_ns < self._chunks[-1].end_ns - WINDOW_NS:
            self._chunks.popleft()
        energy = sum(float(np.dot(chunk.samples, chunk.samples)) for chunk in self._chunks)
        n_samples = sum(chunk.samples.size for chunk in self._chunks)
        if not 0 < energy < np.inf:  # nothing came, or what came are no numbers
            return QUIETEST_DBFS
        return round(max(QUIETEST_DBFS, 10 * float(np.log10(energy / n_samples))), 1)
