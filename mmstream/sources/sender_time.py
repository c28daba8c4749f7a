"""When, by our clock, a network source captured what its streams stamp.

One clock for both streams (RTMP, HLS, MPEG-TS): one map, from the quicker of them. A clock for each
(RTP): one map each, from its own arrivals, which tells how it drifts; but what a stream's quickest
packet took to get here stays unknown, and that differs: sound is sent at once, a picture is encoded
first, and FFmpeg's parser holds it until the next one begins.

Sender reports tie the two together: each gives the sender's clock at a stamp. What is true at the
same instant there is true at the same instant here, by the map of the stream that was less late;
the other is put earlier by the difference. Nothing else is taken from reports, since in many
cameras they are written carelessly, and their clocks are set while they run.
"""

from collections import deque
from collections.abc import Collection
from statistics import median
from typing import Final

from mmstream.codecs import Stamping
from mmstream.media import NS_PER_SEC, StreamKind
from mmstream.metrics import StageMetrics
from mmstream.sources.clock_map import ClockMap

SETTLED_NS: Final = 5 * NS_PER_SEC // 2
"""Before that a map is still looking for the quickest packets."""
UNREPORTED_NS: Final = 5 * NS_PER_SEC
"""Without reports for so long, arrivals must do."""
MAX_APART_NS: Final = 2 * NS_PER_SEC
"""Streams of one camera are not further apart: its reports are wrong."""

_N_SAMPLES: Final = 25
_N_NEEDED: Final = 5
_STEP_NS: Final = NS_PER_SEC
"""How often the distance is looked at anew."""
_MOST_NS: Final = 2_000_000
"""By how much it may change then: `SteadySound` takes that up without a seam."""


class SenderTime:
    """From the stamps of each stream to our clock."""

    def __init__(
        self, kinds: Collection[StreamKind], stamping: Stamping, metrics: StageMetrics
    ) -> None:
        """Nothing seen yet; steps and outliers of its clocks are counted in `metrics`."""
        joint = ClockMap(metrics)
        self._maps = {
            kind: ClockMap(metrics) if stamping == "sender" else joint for kind in sorted(kinds)
        }
        self._is_dated = stamping != "arrival"
        self._late_ns = dict.fromkeys(self._maps, 0)
        """How much earlier than by its map the stream was captured."""
        self._samples: dict[StreamKind, deque[int]] = {
            kind: deque(maxlen=_N_SAMPLES) for kind in self._maps
        }
        """Our clock less the sender's, by the stream's own map."""
        self._is_tied = False
        self._began_ns: int | None = None
        self._looked_ns = 0
        self.is_synced = stamping != "sender" or len(self._maps) == 1
        """Whether both streams are on one clock, or nothing better than arrivals is to be had."""

    def see(self, kind: StreamKind, stamp_ns: int, arrived_ns: int) -> None:
        """What the stream stamped so had come by then, whole: the end of a piece of sound."""
        if self._is_dated:
            self._maps[kind].see(stamp_ns, arrived_ns)

    def tie(self, kind: StreamKind, stamp_ns: int, sender_ns: int | None, arrived_ns: int) -> None:
        """At that stamp the sender's clock showed `sender_ns` (None: it has not said)."""
        if self._began_ns is None:
            self._began_ns = self._looked_ns = arrived_ns
        if sender_ns is not None:
            self._samples[kind].append(self._maps[kind].at_ns(stamp_ns) - sender_ns)
        age_ns = arrived_ns - self._began_ns
        if age_ns < SETTLED_NS or len(self._maps) == 1:
            return
        if not self._is_tied or arrived_ns - self._looked_ns >= _STEP_NS:
            self._looked_ns = arrived_ns
            self._compare()
        if self._is_tied or age_ns >= UNREPORTED_NS:
            self.is_synced = True

    def at_ns(self, kind: StreamKind, stamp_ns: int, arrived_ns: int) -> int:
        """When it was captured: not after it had come."""
        if not self._is_dated:
            return min(stamp_ns, arrived_ns)
        return min(self._maps[kind].at_ns(stamp_ns) - self._late_ns[kind], arrived_ns)

    def drift_ppm(self, kind: StreamKind) -> float | None:
        """By how much the stream's clock is fast; None: not known (yet)."""
        return self._maps[kind].drift_ppm if self._is_dated else None

    def _compare(self) -> None:
        if any(len(samples) < _N_NEEDED for samples in self._samples.values()):
            return
        offsets_ns = {kind: int(median(samples)) for kind, samples in self._samples.items()}
        quickest_ns = min(offsets_ns.values())
        for kind, offset_ns in offsets_ns.items():
            late_ns = offset_ns - quickest_ns
            if late_ns > MAX_APART_NS:
                return
            change_ns = late_ns - self._late_ns[kind]
            if self._is_tied:
                change_ns = min(max(change_ns, -_MOST_NS), _MOST_NS)
            self._late_ns[kind] += change_ns
        self._is_tied = True
