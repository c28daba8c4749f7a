"""Blocks of sound as a sound card's driver gives them, laid on our clock.

    driver's thread: Blocks -> capture thread: Hearing (CaptureResampler, ClockMap, SteadySound)

A block's instant is that of its converter: PortAudio tells how long before the callback its first
sample was taken, both by a clock of its own (the wall clock for ALSA's `pulse`), and the callback
reads ours. That is right to 3 ms (docs/log.md), and stays so when blocks wait, which they do
whenever this process does. Where it cannot be, and while it may not be (`SETTLING_NS`), the
block's end is taken to have been when it came. Device time is counted samples, lost ones included.
"""

from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, Protocol

import numpy as np

from mmstream.clock import Clock
from mmstream.codecs import CaptureResampler, sound_from_array
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    Span,
    ns_to_samples,
    samples_to_ns,
    secs_to_ns,
)
from mmstream.metrics import StageMetrics
from mmstream.sources.clock_map import LIMIT_NS, ClockMap
from mmstream.sources.steady_sound import SteadySound

SETTLING_NS: Final = 2 * NS_PER_SEC
"""A monitor of PulseAudio claims to be up to 0.6 s late at first, and then is not (measured). So
long what is claimed is not believed if it is more than `LIMIT_NS`."""
MAX_BLOCKS: Final = 512
"""Blocks that may wait for the capture thread: some 10 s."""

_LONGEST_LATENCY_SECS: Final = 60.0
_LOST_NS: Final = 5_000_000
"""Less than that between two blocks is jitter."""


class _TimeInfo(Protocol):
    inputBufferAdcTime: float  # noqa: N815 - PortAudio's names
    currentTime: float  # noqa: N815


class _Status(Protocol):
    input_overflow: bool


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What PortAudio gave in one call."""

    samples: bytes
    """[n, channels] f32"""
    n: int
    """Samples per channel."""
    came_ns: int
    """When, by our clock."""
    latency_secs: float | None
    """How long before that the first sample was taken; None where PortAudio does not know."""
    index: int
    """How many blocks there were before."""
    n_before: int
    """How many samples per channel there were before."""
    n_overflows: int
    """How often PortAudio has said so far that sound was lost."""


class Blocks:
    """From PortAudio's thread to the one that reads: never waits there, keeps the newest."""

    def __init__(self, clock: Clock) -> None:
        """None yet."""
        self._clock = clock
        self._waiting: SimpleQueue[Block | None] = SimpleQueue()
        self._index = self._n = self._n_overflows = 0

    def take(self, data: memoryview, n: int, time: _TimeInfo, status: _Status) -> None:
        """PortAudio's callback."""
        came_ns = self._clock.monotonic_ns()
        adc_secs, now_secs = time.inputBufferAdcTime, time.currentTime
        # Some host APIs give zeros, or one of the two only; no latency at all is an estimate that
        # went below zero.
        is_known = adc_secs > 0 and 0 < now_secs - adc_secs < _LONGEST_LATENCY_SECS
        latency_secs = now_secs - adc_secs if is_known else None
        self._n_overflows += bool(status.input_overflow)
        block = Block(
            bytes(data), n, came_ns, latency_secs, self._index, self._n, self._n_overflows
        )
        self._index += 1
        self._n += n
        if self._waiting.qsize() >= MAX_BLOCKS:
            with suppress(Empty):
                self._waiting.get_nowait()
        self._waiting.put(block)

    def end(self) -> None:
        """PortAudio's callback when a stream has ended, for whatever reason."""
        self._waiting.put(None)

    def get(self, *, timeout_secs: float) -> Block | None:
        """The oldest that waits; None: nothing follows.

        Raises:
            queue.Empty: none came for so long.
        """
        return self._waiting.get(timeout=timeout_secs)


class Hearing:
    """Blocks in, chunks on our clock out; what was lost between them stays a hole. No clock."""

    def __init__(
        self, source: str, device_rate_hz: int, rate_hz: int, metrics: StageMetrics
    ) -> None:
        """Nothing heard yet; chunks are named `source` and come at `rate_hz`."""
        self._rate_hz = device_rate_hz
        self._metrics = metrics
        self._resampler = CaptureResampler(source, rate_hz, metrics)
        self._clock_map = ClockMap(metrics, noise="both")
        self._steady = SteadySound(source, rate_hz, metrics)
        self._is_settling = False
        self._n_blocks = self._n_overflows = self._n_lost = 0

    @property
    def drift_ppm(self) -> float | None:
        """By how much the microphone's clock is fast, parts per million; None until known."""
        return self._clock_map.drift_ppm

    def push(self, block: Block) -> list[AudioChunk]:
        """Take one; give the chunks it fills."""
        if not block.n:
            return []
        metrics = self._metrics
        metrics.n_in += 1
        if block.index > self._n_blocks:
            metrics.drop("reader_behind", block.index - self._n_blocks)
        stamp_ns = samples_to_ns(block.n_before + self._n_lost, self._rate_hz)
        at_ns = self._captured_ns(block, stamp_ns)
        clock_map = self._clock_map
        if block.n_overflows > self._n_overflows:
            metrics.drop("xrun", block.n_overflows - self._n_overflows)
            lost_ns = at_ns - clock_map.at_ns(stamp_ns) if self._n_blocks else 0
            if lost_ns > _LOST_NS:
                self._n_lost += ns_to_samples(lost_ns, self._rate_hz)
                stamp_ns = samples_to_ns(block.n_before + self._n_lost, self._rate_hz)
        self._n_blocks, self._n_overflows = block.index + 1, block.n_overflows
        clock_map.see(stamp_ns, at_ns)
        samples = np.frombuffer(block.samples, np.float32).reshape(block.n, -1)
        frame = sound_from_array(samples, self._rate_hz)
        chunks = [
            steady
            for chunk in self._resampler.push(frame, stamp_ns)
            for steady in self._steady.push(
                chunk, Span(clock_map.at_ns(chunk.start_ns), clock_map.at_ns(chunk.end_ns))
            )
        ]
        metrics.n_out += len(chunks)
        return chunks

    def _captured_ns(self, block: Block, stamp_ns: int) -> int:
        """When its first sample was taken."""
        by_arrival_ns = block.came_ns - samples_to_ns(block.n, self._rate_hz)
        if block.latency_secs is None:
            return by_arrival_ns
        at_ns = block.came_ns - secs_to_ns(block.latency_secs)
        if stamp_ns < SETTLING_NS:
            self._is_settling |= abs(at_ns - by_arrival_ns) > LIMIT_NS
        elif self._is_settling:
            # The two differ for good, by a block or more: one seam is better than a long stretch.
            self._is_settling = False
            self._clock_map = ClockMap(self._metrics, noise="both")
        return by_arrival_ns if self._is_settling else at_ns
