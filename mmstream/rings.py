"""The recent past of one source, addressed by capture time: bounded, overwriting the oldest.

The event loop owns both rings. Samples are copied in (a few hundred at a time); frames are kept
by reference, so that no pixel is touched here.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmstream.media import (
    AudioChunk,
    Floats,
    Span,
    VideoFrame,
    ns_to_samples,
    samples_to_ns,
    secs_to_ns,
)


@dataclass(frozen=True, slots=True)
class RingStatistics:
    """What a ring holds and what has passed through it."""

    n_bytes: int
    max_bytes: int
    span: Span | None
    """What it still holds, from the oldest to the newest instant; None when empty."""
    n_written: int
    """Samples or frames taken."""
    n_overwritten: int
    """Samples or frames pushed out by newer ones."""
    n_refused: int
    """Samples or frames that came for a time already written: the first to come wins."""


class AudioRing:
    """The last seconds of sound; sample `i` is the one captured at `i / rate_hz` seconds."""

    def __init__(self, *, rate_hz: int, capacity_secs: float) -> None:
        """Empty; holds `capacity_secs` at `rate_hz`."""
        self.rate_hz = rate_hz
        self._capacity = ns_to_samples(secs_to_ns(capacity_secs), rate_hz)
        self._samples: Floats = np.zeros(self._capacity, np.float32)
        self._heard: NDArray[np.bool_] = np.zeros(self._capacity, np.bool_)
        self._start = self._end = self._expected = 0
        self._n_written = self._n_overwritten = self._n_refused = 0

    def write(self, chunk: AudioChunk) -> int:
        """Put a chunk where its capture time says; time skipped stays unheard.

        Gives how many of its samples were refused, because that time is already written.

        Raises:
            ValueError: the chunk has another rate.
        """
        if chunk.rate_hz != self.rate_hz:
            msg = f"the ring of {chunk.source} runs at {self.rate_hz} Hz: got {chunk.rate_hz=}"
            raise ValueError(msg)
        index = ns_to_samples(chunk.start_ns, self.rate_hz)
        if self._start == self._end:
            self._start = self._end = self._expected = index
        if abs(index - self._expected) <= 1:
            index = self._expected  # rounding to nanoseconds neither drops nor doubles a sample
        self._expected = index + chunk.samples.size
        n_refused = min(chunk.samples.size, max(0, self._end - index))
        self._n_refused += n_refused
        self._n_written += chunk.samples.size - n_refused
        self._skip_to(index)
        self._append(chunk.samples[n_refused:])
        return n_refused

    @property
    def n_overwritten(self) -> int:
        """Samples pushed out by newer ones so far."""
        return self._n_overwritten

    @property
    def start_ns(self) -> int:
        """The oldest instant held."""
        return samples_to_ns(self._start, self.rate_hz)

    @property
    def end_ns(self) -> int:
        """The instant up to which it is written."""
        return samples_to_ns(self._end, self.rate_hz)

    def read(self, span: Span) -> tuple[Floats, NDArray[np.bool_]]:
        """Samples [n] and flags [n] of a span; what is not held is zero and unheard."""
        start = ns_to_samples(span.start_ns, self.rate_hz)
        end = ns_to_samples(span.end_ns, self.rate_hz)
        place = start % self._capacity
        if self._start <= start and end <= self._end and place + end - start <= self._capacity:
            held = slice(place, place + end - start)
            return self._samples[held].copy(), self._heard[held].copy()
        samples = np.zeros(end - start, np.float32)
        heard = np.zeros(end - start, np.bool_)
        first, last = max(start, self._start), min(end, self._end)
        while first < last:  # at most twice: up to the end of the buffer, then from its beginning
            place = first % self._capacity
            n = min(last - first, self._capacity - place)
            samples[first - start : first - start + n] = self._samples[place : place + n]
            heard[first - start : first - start + n] = self._heard[place : place + n]
            first += n
        return samples, heard

    def clear(self) -> None:
        """Forget all that is held; the counters stay."""
        self._start = self._end = 0

    def statistics(self) -> RingStatistics:
        """What it holds and has seen."""
        span = Span(self.start_ns, self.end_ns) if self._start < self._end else None
        n_bytes = self._samples.nbytes + self._heard.nbytes
        return RingStatistics(
            n_bytes, n_bytes, span, self._n_written, self._n_overwritten, self._n_refused
        )

    def _skip_to(self, index: int) -> None:
        if index <= self._end:
            return
        if index - self._end >= self._capacity:
            self._n_overwritten += self._end - self._start
            self._start = self._end = index
            return
        places = np.arange(self._end, index) % self._capacity
        self._samples[places] = 0
        self._heard[places] = False
        self._advance(index)

    def _append(self, samples: Floats) -> None:
        end = self._end + samples.size
        kept = samples[-self._capacity :]
        place = (end - kept.size) % self._capacity
        n_first = min(kept.size, self._capacity - place)
        self._samples[place : place + n_first] = kept[:n_first]
        self._heard[place : place + n_first] = True
        self._samples[: kept.size - n_first] = kept[n_first:]
        self._heard[: kept.size - n_first] = True
        self._advance(end)

    def _advance(self, end: int) -> None:
        start = max(self._start, end - self._capacity)
        self._n_overwritten += start - self._start
        self._start, self._end = start, end


class VideoRing:
    """The last frames, as many as a byte budget allows."""

    def __init__(self, *, max_bytes: int) -> None:
        """Empty; holds frames of `max_bytes` together, and always the newest one."""
        self._max_bytes = max_bytes
        self._frames: deque[VideoFrame] = deque()
        self._n_bytes = 0
        self._n_written = self._n_overwritten = self._n_refused = 0

    def write(self, frame: VideoFrame) -> tuple[VideoFrame, ...]:
        """Keep a frame that is newer than all before; gives those pushed out by it.

        A frame that is not newer is refused, and counted.
        """
        if self._frames and frame.start_ns <= self._frames[-1].start_ns:
            self._n_refused += 1
            return ()
        self._frames.append(frame)
        self._n_bytes += frame.image.nbytes
        self._n_written += 1
        pushed_out = []
        while self._n_bytes > self._max_bytes and len(self._frames) > 1:
            pushed_out.append(self._pop())
        self._n_overwritten += len(pushed_out)
        return tuple(pushed_out)

    def read(self, span: Span) -> tuple[VideoFrame, ...]:
        """The frames held that start inside the span, in order."""
        found: deque[VideoFrame] = deque()
        for frame in reversed(self._frames):  # what is asked for is mostly new
            if frame.start_ns < span.start_ns:
                break
            if frame.start_ns < span.end_ns:
                found.appendleft(frame)
        return tuple(found)

    def nearest(self, at_ns: int) -> VideoFrame | None:
        """The frame held that starts nearest to the instant; None: it is empty."""
        return min(self._frames, key=lambda frame: abs(frame.start_ns - at_ns), default=None)

    def discard_before(self, at_ns: int) -> None:
        """Let go of frames that nobody will ask for any more."""
        while self._frames and self._frames[0].start_ns < at_ns:
            self._pop()

    def clear(self) -> None:
        """Forget all that is held; the counters stay."""
        self._frames.clear()
        self._n_bytes = 0

    def statistics(self) -> RingStatistics:
        """What it holds and has seen."""
        span = None
        if self._frames:
            span = Span(self._frames[0].start_ns, self._frames[-1].start_ns)
        return RingStatistics(
            self._n_bytes,
            self._max_bytes,
            span,
            self._n_written,
            self._n_overwritten,
            self._n_refused,
        )

    def _pop(self) -> VideoFrame:
        frame = self._frames.popleft()
        self._n_bytes -= frame.image.nbytes
        return frame
