"""Stamps what heads say and hands it to every sink, each through a bounded queue of its own."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

from mmstream.clock import Clock
from mmstream.errors import SinkError
from mmstream.messages import Content, NumberedStamp, Published, Stamp, iso_utc
from mmstream.metrics import StageMetrics
from mmstream.stages import Sink

MAX_QUEUED: Final = 1024
"""Messages that may wait for one sink."""

_log = logging.getLogger(__name__)
_Entry = tuple[int, Published] | None
"""When a message was queued, and itself; None: no more come."""


class _Line(asyncio.Queue[_Entry]):
    """A queue that can bring forward what need not arrive."""

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 - as asyncio.Queue calls it
        self._queue: deque[_Entry] = deque()

    def bring_forward_unneeded(self) -> bool:
        """Put the oldest message that need not arrive first, if there is one."""
        for n, entry in enumerate(self._queue):
            if entry is not None and not entry[1].content.must_arrive:
                del self._queue[n]
                self._queue.appendleft(entry)
                return True
        return False


class SinkFeed:
    """One sink, the queue before it, and its counters."""

    def __init__(self, sink: Sink, clock: Clock, *, live: bool) -> None:
        """Nothing is queued yet."""
        self.sink = sink
        self.metrics = StageMetrics(f"outlet/{sink.name}")
        self._clock = clock
        self._live = live
        self._queue = _Line(MAX_QUEUED)
        self._is_failing = False
        self._is_behind = False
        self._is_finishing = False
        self._is_done = asyncio.Event()

    async def put(self, message: Published) -> None:
        """Queue a message; when live an older one makes room for it, else it waits for room.

        What need not arrive (a partial caption) goes first; all else stays while there is any.
        """
        self.metrics.n_in += 1
        if self._is_finishing or self._is_done.is_set():
            self.metrics.drop("undelivered_at_shutdown")
            return
        if self._live and self._queue.full():
            await asyncio.sleep(0)  # so much was said at once that the sink had no turn
        if self._live and self._queue.full() and not self._evict(message):
            return
        await self._queue.put((self._clock.monotonic_ns(), message))

    def go_live(self) -> None:
        """From now on nobody waits for room."""
        if not self._live and self._queue.full():
            self._evict(None)  # who waits for room gets it
        self._live = True

    async def finish(self) -> None:
        """No more messages come: wait until the sink has had what is queued."""
        self._is_finishing = True
        await self._queue.put(None)
        await self._is_done.wait()

    async def run(self) -> None:
        """Publish what is queued until the end; a message that the sink cannot take is counted."""
        try:
            await self._publish_all()
        finally:
            self._is_done.set()
            self._give_up()

    def _evict(self, newest: Published | None) -> bool:
        """Make room for `newest`; False: it is the one to go."""
        if self._queue.bring_forward_unneeded():
            self._queue.get_nowait()
            self.metrics.drop("sink_behind_unneeded")
            return True
        if newest is not None and not newest.content.must_arrive:
            self.metrics.drop("sink_behind_unneeded")
            return False
        self._queue.get_nowait()
        self.metrics.drop("sink_behind")
        if not self._is_behind:
            lost = "%s takes nothing; the oldest of %d waiting messages are lost"
            _log.error(lost, self.sink.name, MAX_QUEUED)
        self._is_behind = True
        return True

    def _give_up(self) -> None:
        """Count what is left, and let go those who wait for room."""
        n_lost = self.metrics.n_in - self.metrics.n_out - self.metrics.dropped.total()
        if n_lost:
            self.metrics.drop("undelivered_at_shutdown", n_lost)
            _log.error("%s: %d messages were not delivered", self.sink.name, n_lost)
        while not self._queue.empty():
            self._queue.get_nowait()

    async def _publish_all(self) -> None:
        while (entry := await self._queue.get()) is not None:
            self._is_behind = self._is_behind and not self._queue.empty()
            queued_ns, message = entry
            try:
                await self.sink.publish(message)
            except SinkError as error:
                self.metrics.drop("sink_error")
                if not self._is_failing:
                    _log.error("%s loses messages: %s", self.sink.name, error)
                self._is_failing = True
            else:
                self._is_failing = False
                self.metrics.n_out += 1
                self.metrics.latencies.add(self._clock.monotonic_ns() - queued_ns)


class Outlet:
    """Where content becomes messages."""

    def __init__(
        self, *, node: str, boot_id: str, clock: Clock, sinks: Sequence[Sink], live: bool
    ) -> None:
        """The first numbered message gets `seq` 0.

        When `live`, a sink that is stuck loses messages, those that need not arrive first and then
        the oldest, and no other sink notices.
        Otherwise it holds back all that is said, and nothing is lost.
        """
        self.feeds = [SinkFeed(sink, clock, live=live) for sink in sinks]
        self._node = node
        self._boot_id = boot_id
        self._clock = clock
        self._next_seq = 0
        self._turn = asyncio.Lock()

    def go_live(self) -> None:
        """A live source has come: from now on no sink holds anybody up."""
        for feed in self.feeds:
            feed.go_live()

    async def say(self, content: Content, *, captured_ns: int | None = None) -> None:
        """Stamp and send to every sink.

        `captured_ns` is the monotonic instant at which the last thing that it rests on was
        captured, where that means anything.
        """
        async with self._turn:  # when a queue is full, messages still arrive by `seq`
            message = Published(content, self._stamp(content, captured_ns))
            for feed in self.feeds:
                await feed.put(message)

    def _stamp(self, content: Content, captured_ns: int | None) -> Stamp:
        ts_emit = iso_utc(self._clock.utc_ns())
        if not content.NUMBERED:
            return Stamp(node=self._node, boot_id=self._boot_id, ts_emit=ts_emit)
        latency_ms = None
        if captured_ns is not None:
            latency_ms = round((self._clock.monotonic_ns() - captured_ns) / 1e6, 1)
        seq = None
        if content.must_arrive:
            seq, self._next_seq = self._next_seq, self._next_seq + 1
        return NumberedStamp(
            node=self._node,
            boot_id=self._boot_id,
            ts_emit=ts_emit,
            seq=seq,
            latency_ms=latency_ms,
        )
