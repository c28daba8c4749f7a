"""When is a slice of time settled: cuts the streams of one source into hops.

A hop is cut when every stream's bound has passed its end or, for live sources only, when the
fastest stream is `patience_secs` past it; what is missing then is masked, never shifted or
invented. There is no clock in it: the same items in the same order give the same hops. The
bound of a stream is the instant before which nothing of it can still come (MediaPipe,
"Synchronization": a settled timestamp).

    audio  ======================|            bound: end of the last chunk
    video  |   |   |   |   |                  bound: just after the start of the last frame
    hops   [  0  )[  1  )[ 2 ...              1 is settled, 2 is not: video may still come
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import Field

from mmstream.config import Settings
from mmstream.errors import StateError
from mmstream.media import (
    DEFAULT_RATE_HZ,
    NS_PER_SEC,
    AudioChunk,
    Floats,
    Hop,
    SourceEnded,
    SourceItem,
    SourceStalled,
    SourceStarted,
    SourceSynced,
    Span,
    StreamBound,
    StreamClock,
    StreamKind,
    VideoFrame,
    ns_to_samples,
    secs_to_ns,
)
from mmstream.metrics import StageMetrics
from mmstream.rings import AudioRing, RingStatistics, VideoRing

MAX_EMPTY_NS: Final = 10 * NS_PER_SEC
"""Time in which nothing at all came is cut into empty hops up to here; more is jumped over."""
GLIMPSE_SECS: Final = 4.0
"""How much sound is shown of an instant."""

_NEVER_NS: Final = -(2**63)
_NO_SAMPLES: Final = np.zeros(0, np.float32)
_NO_FLAGS: Final = np.zeros(0, np.bool_)


class HopSettings(Settings):
    """How time is cut, and how much of it is kept."""

    hop_secs: float = Field(0.25, gt=0, le=2)
    """Length of a hop, seconds; a whole number of samples."""
    rate_hz: int = Field(DEFAULT_RATE_HZ, ge=8_000, le=48_000)
    """Sample rate of the pipeline, Hz."""
    patience_secs: float = Field(0.3, ge=0.02, le=10)
    """How far one stream of a live source may run ahead before a hop is cut without the other."""
    keep_secs: float = Field(2.0, ge=0, le=60)
    """How much of what was cut stays in the rings, seconds: the longest window."""
    max_video_mb: int = Field(256, ge=8)
    """Byte budget of the video ring of each source, megabytes."""

    def model_post_init(self, _context: object, /) -> None:
        """Check that hops fall on samples."""
        if secs_to_ns(self.hop_secs) * self.rate_hz % NS_PER_SEC:
            msg = f"hop_secs {self.hop_secs} is not a whole number of samples at {self.rate_hz} Hz"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What is held of a source around an instant."""

    utc_ns: int
    """When it was captured: the frame, or else the end of the sound."""
    frame: VideoFrame | None
    """The nearest; None: the source has no pictures, or none is held."""
    samples: Floats
    """[n] the sound up to a little after the instant; n = 0 where there is a frame, or no sound."""
    rate_hz: int
    """Of the samples."""


class HopCutter:
    """Items of one source in, its settled hops out (`Stage[SourceItem, Hop]`).

    Items for a time already cut are late: dropped and counted.
    """

    def __init__(self, source: str, settings: HopSettings, *, live: bool) -> None:
        """Nothing seen yet; a source that is not `live` is waited for without limit."""
        self.metrics = StageMetrics(f"windows/{source}")
        self._source = source
        self._settings = settings
        self._hop_ns = secs_to_ns(settings.hop_secs)
        self._keep_ns = secs_to_ns(settings.keep_secs)
        self._live = live
        self._patience_ns = secs_to_ns(settings.patience_secs) if live else None
        self._audio = AudioRing(
            rate_hz=settings.rate_hz,
            capacity_secs=settings.keep_secs + settings.patience_secs + MAX_EMPTY_NS / NS_PER_SEC,
        )
        self._video = VideoRing(max_bytes=settings.max_video_mb * 1_000_000)
        self._streams: frozenset[StreamKind] = frozenset()
        self._bounds: dict[StreamKind, int] = {}
        self._seen_until_ns: int | None = None
        self._next: int | None = None
        self._floor = _NEVER_NS
        self._has_cut = False
        self._gap = False
        self._synced = True
        self._clock_offset_ns: int | None = None
        self._utc_offset_ns = 0

    def push(self, item: SourceItem) -> Sequence[Hop]:
        """Take an item; give the hops that it settles.

        Raises:
            StateError: a stream came that `SourceStarted` did not announce.
        """
        self.metrics.n_in += 1
        match item:
            case SourceStarted():
                return self._start(item)
            case SourceEnded() | SourceStalled():
                return self.flush()
            case SourceSynced():
                self._synced = True
                return ()
            case StreamClock():
                return ()
            case StreamBound():
                self._raise_bound(item.stream, item.at_ns)
                return self._cut(self._settled_until_ns())
            case AudioChunk():
                rest = self._open("audio", item.start_ns, item.end_ns)
                self._take_audio(item)
            case VideoFrame():
                rest = self._open("video", item.start_ns, item.start_ns + 1)
                self._take_frame(item)
        return [*rest, *self._cut(self._settled_until_ns())]

    def flush(self) -> Sequence[Hop]:
        """Nothing comes any more: give what is left; the last hop ends where the source did."""
        return self._cut(None)

    def statistics(self) -> dict[StreamKind, RingStatistics]:
        """The state of both rings."""
        return {"audio": self._audio.statistics(), "video": self._video.statistics()}

    def glimpse(
        self, at_utc_ns: int | None = None, *, without: frozenset[StreamKind] = frozenset()
    ) -> Glimpse | None:
        """What is still held of an instant (None: of the newest); None: nothing is held.

        Pictures before sound: of sound, `GLIMPSE_SECS` up to a quarter of that after the instant.
        Nothing of the streams in `without` is shown.
        """
        at_ns = self._seen_until_ns
        if at_ns is None:
            return None
        if at_utc_ns is not None:
            at_ns = at_utc_ns - self._utc_offset_ns
        offset_ns, rate_hz = self._utc_offset_ns, self._settings.rate_hz
        frame = None if "video" in without else self._video.nearest(at_ns)
        if frame is not None:
            return Glimpse(offset_ns + frame.start_ns, frame, _NO_SAMPLES, rate_hz)
        if "audio" not in self._streams - without:
            return None
        length_ns = secs_to_ns(GLIMPSE_SECS)
        end_ns = min(at_ns + length_ns // 4, self._audio.end_ns)
        samples, _ = self._audio.read(Span(end_ns - length_ns, end_ns))
        return Glimpse(offset_ns + end_ns, None, samples, rate_hz)

    def _start(self, item: SourceStarted) -> Sequence[Hop]:
        rest = self.flush()
        if item.clock_offset_ns is None or item.clock_offset_ns != self._clock_offset_ns:
            self._floor = _NEVER_NS
        elif self._next is not None:
            self._floor = self._next  # its time goes on: no hop is given twice
        self._clock_offset_ns = item.clock_offset_ns
        self._utc_offset_ns = item.utc_offset_ns
        self._audio.clear()
        self._video.clear()
        self._streams = item.streams
        self._synced = item.synced
        self._bounds = {}
        self._seen_until_ns = self._next = None
        self._gap = self._gap or self.metrics.n_out > 0
        self._has_cut = False
        return rest

    def _open(self, stream: StreamKind, start_ns: int, end_ns: int) -> Sequence[Hop]:
        """Make sure that the next hop is not long before the item, nor (at first) after it."""
        if stream not in self._streams:
            msg = f"{self._source} sent {stream} that its SourceStarted did not announce"
            raise StateError(msg)
        index = start_ns // self._hop_ns
        rest: Sequence[Hop] = ()
        if self._next is None or self._seen_until_ns is None:
            self._next = max(self._floor, index)
        elif start_ns - self._seen_until_ns > MAX_EMPTY_NS:
            rest = self.flush()
            self._floor = self._next
            self._next = max(self._next, index)
            self._gap, self._has_cut = True, False
        elif not self._has_cut:
            earliest_ns = self._earliest_ns(stream, start_ns)
            if earliest_ns < end_ns:
                self._next = min(self._next, earliest_ns // self._hop_ns)
        return rest

    def _earliest_ns(self, stream: StreamKind, start_ns: int) -> int:
        """From when on an item may begin the first hop: what is late, or a step back, may not.

        So what was counted as late never comes to lie in a hop after all.
        """
        settled_until_ns = self._settled_until_ns() // self._hop_ns * self._hop_ns
        bound_ns = self._bounds.get(stream, start_ns)
        return max(start_ns, bound_ns, settled_until_ns, self._floor * self._hop_ns)

    def _take_audio(self, chunk: AudioChunk) -> None:
        next_ns = self._next_start_ns()
        oldest_ns, n_overwritten = self._audio.start_ns, self._audio.n_overwritten
        n_late = max(
            0, min(chunk.samples.size, ns_to_samples(next_ns - chunk.start_ns, chunk.rate_hz))
        )
        n_refused = self._audio.write(chunk)
        n_cut = max(0, ns_to_samples(next_ns - oldest_ns, chunk.rate_hz))
        n_gone = self._audio.n_overwritten - n_overwritten
        if n_late > 1:
            self.metrics.drop("late_samples", n_late)
        if n_refused > n_late:
            self.metrics.drop("overlapping_samples", n_refused - n_late)
        if n_gone > n_cut:
            self.metrics.drop("ring_full_samples", n_gone - n_cut)
        self._raise_bound("audio", self._audio.end_ns)
        self._see(self._audio.end_ns)

    def _take_frame(self, frame: VideoFrame) -> None:
        if frame.start_ns < self._bounds.get("video", frame.start_ns):
            self.metrics.drop("backward_frames")
            return
        if frame.start_ns < self._next_start_ns():
            self.metrics.drop("late_frames")
            return
        self._video.discard_before(self._next_start_ns() - self._keep_ns)
        pushed_out = self._video.write(frame)
        n_lost = sum(lost.start_ns >= self._next_start_ns() for lost in pushed_out)
        if n_lost:
            self.metrics.drop("ring_full_frames", n_lost)
        self._raise_bound("video", frame.start_ns + 1)
        self._see(frame.start_ns + 1)

    def _see(self, until_ns: int) -> None:
        self._seen_until_ns = max(self._seen_until_ns or until_ns, until_ns)

    def _raise_bound(self, stream: StreamKind, at_ns: int) -> None:
        self._bounds[stream] = max(self._bounds.get(stream, at_ns), at_ns)

    def _settled_until_ns(self) -> int:
        if self._seen_until_ns is None:
            return _NEVER_NS
        slowest_ns = _NEVER_NS
        if all(stream in self._bounds for stream in self._streams):
            slowest_ns = min(self._bounds[stream] for stream in self._streams)
        if self._patience_ns is None:
            return slowest_ns
        return max(slowest_ns, self._seen_until_ns - self._patience_ns)

    def _next_start_ns(self) -> int:
        return 0 if self._next is None else self._next * self._hop_ns

    def _cut(self, until_ns: int | None) -> Sequence[Hop]:
        """Cut all hops that end by then (None: all that hold anything)."""
        hops = []
        while self._next is not None and self._seen_until_ns is not None:
            start_ns = self._next_start_ns()
            span = Span(start_ns, start_ns + self._hop_ns)
            is_settled = until_ns is None or span.end_ns <= until_ns
            if not is_settled or start_ns >= self._seen_until_ns:
                break
            if until_ns is None:  # what never came must not be told to have happened
                span = Span(start_ns, min(span.end_ns, self._seen_until_ns))
            hops.append(self._hop(self._next, span))
            self._next += 1
            self._has_cut = True
        self.metrics.n_out += len(hops)
        return hops

    def _hop(self, index: int, span: Span) -> Hop:
        samples, heard = _NO_SAMPLES, _NO_FLAGS
        if "audio" in self._streams:
            samples, heard = self._audio.read(span)
        frames = self._video.read(span)
        gap, self._gap = self._gap, False
        return Hop(
            self._source,
            index,
            span,
            self._settings.rate_hz,
            samples,
            heard,
            frames,
            gap_before=gap,
            synced=self._synced,
            live=self._live,
        )
