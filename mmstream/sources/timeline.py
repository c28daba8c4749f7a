"""Where the timestamps of a source that may lie go on its clock: never raised, always counted.

A stamp is doubted when it is more than `RESET_NS` off what its stream has given, and the other
stream has not got there either. What is doubted is held back until more stamps tell what it was:

* the next fit what was given before: a lie, dropped (`timestamp_outlier`);
* `N_AGREE` in a row agree, and lie back: time was taken up anew (a recording glued together, a
  camera that restarted): on from where both had got to (`timestamp_reset`). The other stream takes
  the same shift when it gets there, so that they stay in step;
* they agree and lie ahead: a hole, which stays one. More than `HOLE_NS` ahead only if the other
  stream jumps too, or says nothing; where that one goes on without, this one has no hole, and
  goes on from where it had got to (`timestamp_reset`).
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeVar

from mmstream.media import NS_PER_SEC, AudioChunk, MediaItem, StreamKind, VideoFrame
from mmstream.metrics import StageMetrics

RESET_NS: Final = NS_PER_SEC
"""A stamp that is off by no more stays as it is: windows refuse what they have already."""
HOLE_NS: Final = 30 * NS_PER_SEC
"""A hole in one stream alone: more than a file is read ahead for the other (`MAX_AHEAD_NS`)."""
N_AGREE: Final = 3
"""Doubted stamps in a row that are believed; fewer are lies."""
N_HELD: Final = 25
"""Doubted stamps held back at most, for the other stream to say whether it follows."""
JITTER_NS: Final = 5_000_000
"""A chunk of sound that is off by no more than this follows the one before without a seam."""

_N_SHIFTS: Final = 8
"""Resets remembered, for the stream that comes to them later."""
T = TypeVar("T")


@dataclass
class _Track(Generic[T]):
    shift_ns: int
    end_ns: int = 0
    other_end_ns: int = 0
    """How far the other stream was when the first of `held` came."""
    held: list[tuple[int, int, T]] = field(default_factory=list)
    """What is doubted: stamp, duration, item."""


class Timeline(Generic[T]):
    """The shift from a source's timestamps to its clock, for both of its streams."""

    def __init__(self, origin_ns: int, metrics: StageMetrics) -> None:
        """The timestamp `origin_ns` is instant 0; resets and outliers are counted in `metrics`."""
        self._shifts_ns = deque([-origin_ns], maxlen=_N_SHIFTS)
        video, audio = _Track[T](-origin_ns), _Track[T](-origin_ns)
        self._tracks = {"video": (video, audio), "audio": (audio, video)}
        self._metrics = metrics

    def place(
        self, stream: StreamKind, at_ns: int, duration_ns: int, item: T
    ) -> list[tuple[int, T]]:
        """Take an item stamped `at_ns`; what of its stream is settled by it, and when it was."""
        placed = self.settled(stream)
        track, other = self._tracks[stream]
        last_ns = track.held[-1][0] if track.held else at_ns
        is_torn = at_ns < last_ns - RESET_NS or (other.end_ns and at_ns > last_ns + HOLE_NS)
        if is_torn or self._known_shift_ns(track, other, at_ns) is not None:
            self._forget(track)
        if not track.held:
            track.other_end_ns = other.end_ns
        track.held.append((at_ns, duration_ns, item))
        return placed + self.settled(stream)

    def settled(self, stream: StreamKind, *, is_over: bool = False) -> list[tuple[int, T]]:
        """What is no longer held back of the stream; `is_over`: no more stamps of it come."""
        track, other = self._tracks[stream]
        if not track.held:
            return []
        shift_ns = self._known_shift_ns(track, other, track.held[0][0])
        if shift_ns is None and (is_over or len(track.held) >= N_AGREE):
            shift_ns = self._new_shift_ns(track, other, is_over=is_over)
        if shift_ns is None:
            if is_over:
                self._forget(track)
            return []
        track.shift_ns = shift_ns
        placed = [(at_ns + shift_ns, item) for at_ns, _, item in track.held]
        ends_ns = [at_ns + shift_ns + duration_ns for at_ns, duration_ns, _ in track.held]
        track.end_ns = max(track.end_ns, *ends_ns)
        track.held.clear()
        return placed

    def waits(self, stream: StreamKind) -> bool:
        """Whether the stream's stamps agree, and the other stream must say what they mean."""
        return len(self._tracks[stream][0].held) >= N_AGREE

    def _known_shift_ns(self, track: _Track[T], other: _Track[T], at_ns: int) -> int | None:
        """The shift, of those there were, by which the stamp is in no doubt."""
        for shift_ns in (track.shift_ns, *self._shifts_ns):
            if abs(at_ns + shift_ns - track.end_ns) <= RESET_NS:
                return shift_ns
        for shift_ns in (track.shift_ns, self._shifts_ns[-1]):
            if track.end_ns <= at_ns + shift_ns <= other.end_ns + RESET_NS:
                return shift_ns  # a hole: the other stream is there already
        return None

    def _new_shift_ns(self, track: _Track[T], other: _Track[T], *, is_over: bool) -> int | None:
        """What to make of doubted stamps that agree; None: not known yet."""
        at_ns = track.held[0][0]
        got_to_ns = max(track.end_ns, other.end_ns)
        ahead_ns = at_ns + track.shift_ns - got_to_ns
        if 0 <= ahead_ns <= HOLE_NS:
            return track.shift_ns
        if len(track.held) < N_AGREE:
            return None
        if ahead_ns > 0:
            if is_over or other.held or not other.end_ns:
                return track.shift_ns
            if len(track.held) < N_HELD:
                return None
            if other.end_ns == track.other_end_ns:
                return track.shift_ns
            got_to_ns = track.end_ns  # only its stamps have jumped: it is still in step
        self._shifts_ns.append(got_to_ns - at_ns)
        self._metrics.drop("timestamp_reset")
        return self._shifts_ns[-1]

    def _forget(self, track: _Track[T]) -> None:
        for _ in track.held:
            self._metrics.drop("timestamp_outlier")
        track.held.clear()


def mended(items: Iterable[MediaItem], metrics: StageMetrics) -> Iterator[MediaItem]:
    """The items with their stamps put right; for sources that stamp items themselves."""
    timeline = Timeline[AudioChunk | VideoFrame](0, metrics)
    heard_until_ns = 0

    def placed(settled: Iterable[tuple[int, AudioChunk | VideoFrame]]) -> Iterator[MediaItem]:
        nonlocal heard_until_ns
        for at_ns, item in settled:
            start_ns = at_ns
            if isinstance(item, AudioChunk):
                if abs(start_ns - heard_until_ns) <= JITTER_NS:
                    start_ns = heard_until_ns
                heard_until_ns = start_ns + item.end_ns - item.start_ns
            yield item if start_ns == item.start_ns else replace(item, start_ns=start_ns)

    for item in items:
        match item:
            case AudioChunk():
                duration_ns = item.end_ns - item.start_ns
                yield from placed(timeline.place("audio", item.start_ns, duration_ns, item))
                yield from placed(timeline.settled("video"))
            case VideoFrame():
                yield from placed(timeline.place("video", item.start_ns, 1, item))
                yield from placed(timeline.settled("audio"))
            case _:
                yield item
    for stream in ("audio", "video"):
        yield from placed(timeline.settled(stream, is_over=True))
