"""Where the timestamps of a source that may lie go on its clock: clamped, counted, never raised.

A timestamp more than `RESET_NS` behind what its stream has given starts the count anew (a
recording that was glued together, a camera that restarted). The stream that notices first goes on
from where all had got to; the other takes the same shift, so that they stay in step. One that is
less far behind stays as it is: windows refuse what they have already.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from mmstream.media import NS_PER_SEC, AudioChunk, MediaItem, StreamKind, VideoFrame
from mmstream.metrics import StageMetrics

RESET_NS: Final = NS_PER_SEC
"""A timestamp this much earlier than what was given starts the count anew; less overlaps."""
JITTER_NS: Final = 5_000_000
"""A chunk of sound that is off by no more than this follows the one before without a seam."""

_N_SHIFTS: Final = 8
"""Resets remembered, for the stream that comes to them later."""


class Timeline:
    """The shift from a source's timestamps to its clock, for both of its streams."""

    def __init__(self, origin_ns: int, metrics: StageMetrics) -> None:
        """The timestamp `origin_ns` is instant 0; resets are counted in `metrics`."""
        self._shifts_ns = deque([-origin_ns], maxlen=_N_SHIFTS)
        self._shift_ns: dict[StreamKind, int] = {"video": -origin_ns, "audio": -origin_ns}
        self._end_ns: dict[StreamKind, int] = {"video": 0, "audio": 0}
        self._metrics = metrics

    def place(self, stream: StreamKind, at_ns: int, duration_ns: int) -> int:
        """When something stamped `at_ns` was captured."""
        if abs(self._ahead_ns(stream, at_ns, self._shift_ns[stream])) > RESET_NS:
            self._shift_ns[stream] = self._choose(stream, at_ns)
        start_ns = at_ns + self._shift_ns[stream]
        self._end_ns[stream] = max(self._end_ns[stream], start_ns + duration_ns)
        return start_ns

    def _ahead_ns(self, stream: StreamKind, at_ns: int, shift_ns: int) -> int:
        return at_ns + shift_ns - self._end_ns[stream]

    def _choose(self, stream: StreamKind, at_ns: int) -> int:
        ahead_ns = {shift: self._ahead_ns(stream, at_ns, shift) for shift in self._shifts_ns}
        for shift_ns, by_ns in ahead_ns.items():
            if abs(by_ns) <= RESET_NS:
                return shift_ns
        for shift_ns in (self._shift_ns[stream], self._shifts_ns[-1]):
            if ahead_ns.get(shift_ns, -1) >= 0:  # a hole: it stays one
                return shift_ns
        self._shifts_ns.append(max(self._end_ns.values()) - at_ns)
        self._metrics.drop("timestamp_reset")
        return self._shifts_ns[-1]


def mended(items: Iterable[MediaItem], metrics: StageMetrics) -> Iterator[MediaItem]:
    """The items with their stamps put right; for sources that stamp items themselves."""
    timeline = Timeline(0, metrics)
    heard_until_ns = 0
    for item in items:
        match item:
            case AudioChunk():
                duration_ns = item.end_ns - item.start_ns
                start_ns = timeline.place("audio", item.start_ns, duration_ns)
                if abs(start_ns - heard_until_ns) <= JITTER_NS:
                    start_ns = heard_until_ns
                heard_until_ns = start_ns + duration_ns
                yield item if start_ns == item.start_ns else replace(item, start_ns=start_ns)
            case VideoFrame():
                start_ns = timeline.place("video", item.start_ns, 1)
                yield item if start_ns == item.start_ns else replace(item, start_ns=start_ns)
            case _:
                yield item
