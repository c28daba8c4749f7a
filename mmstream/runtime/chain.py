"""One source's way through the graph: captured, cut, scored, said. Others never notice it."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from mmstream.clock import Clock
from mmstream.errors import SourceError, mask_credentials
from mmstream.heads.events import EventHead, HeadItem
from mmstream.media import (
    NS_PER_SEC,
    Hop,
    MediaItem,
    Scores,
    SourceEnded,
    SourceStalled,
    SourceStarted,
    secs_to_ns,
)
from mmstream.messages import Decided, HealthState
from mmstream.metrics import StageMetrics
from mmstream.runtime.gauge import SourceGauge
from mmstream.runtime.outlet import Outlet
from mmstream.stages import Source
from mmstream.windows import HopCutter
from mmstream.worker import Worker

MAX_IN_FLIGHT: Final = 16
"""Hops of a file between cutting and saying; more wait, so that nothing piles up."""
MAX_TO_SAY: Final = 256
"""Scores that may wait for slow sinks, more than a file ever has in flight."""
STALL_SECS: Final = 5.0
"""A live source that sends nothing for so long has stalled."""
REOPEN_SECS: Final = 15.0
"""One that goes on sending nothing for so long is opened again."""
MIN_WATCH_SECS: Final = 0.05
DRAIN_SECS: Final = 0.7
"""How long the last hops may take to be scored when we shut down."""
FIRST_RETRY_SECS: Final = 0.5
MAX_RETRY_SECS: Final = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chain:
    """The parts that belong to one source."""

    source: Source
    cutter: HopCutter
    head: EventHead


class ChainRunner:
    """Runs one chain on the loop: `capture` and `speak` are its two tasks."""

    def __init__(self, chain: Chain, worker: Worker, outlet: Outlet, clock: Clock) -> None:
        """Nothing runs yet."""
        self.gauge = SourceGauge(chain.source.name, clock.utc_ns())
        self.metrics = StageMetrics(f"heads/{chain.source.name}")
        self.error: SourceError | None = None
        """Why the source could not be opened or read, if it came to an end by that."""
        self.settled = asyncio.Event()
        """Set once the source has started, or failed."""
        self.changed = asyncio.Event()
        """Set when the health has changed since it was last told."""
        self._chain = chain
        self._worker = worker
        self._outlet = outlet
        self._clock = clock
        self._clock_offset_ns: int | None = None
        self._cut: deque[Hop] = deque()
        """Hops that wait for room."""
        self._to_say: asyncio.Queue[HeadItem | None] = asyncio.Queue(MAX_TO_SAY)
        self._all_said = asyncio.Event()
        self._n_in_flight = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._room = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._last_item_ns = clock.monotonic_ns()

    async def capture(self) -> None:
        """Stream the source; a live one is opened again, with backoff, whenever it ends."""
        source = self._chain.source
        delay_secs = FIRST_RETRY_SECS
        while True:
            started_ns = self._clock.monotonic_ns()
            try:
                await self._stream()
            except SourceError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - one source's defect is not another's
                _log.debug("a defect of %s", source.name, exc_info=True)
                self._fail(SourceError(mask_credentials(f"{type(error).__name__}: {error}")))
            else:
                self.error = None
                self._enter("offline", "ended")
            await self._mark(SourceEnded(source.name))
            self.settled.set()
            if not source.live:
                return
            if self._clock.monotonic_ns() - started_ns > secs_to_ns(MAX_RETRY_SECS):
                delay_secs = FIRST_RETRY_SECS
            await asyncio.sleep(delay_secs * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay_secs = min(MAX_RETRY_SECS, 2 * delay_secs)
            self.gauge.n_restarts += 1
            self._enter("connecting", "opening again")

    async def speak(self) -> None:
        """Turn scores into messages, in order, until `finish`."""
        try:
            await self._say_all()
        finally:
            self._all_said.set()
            if n_left := self._to_say.qsize():
                self.metrics.drop("unsaid_at_shutdown", n_left)

    def deliver(self, scores: Scores) -> None:
        """The worker has scored a hop."""
        self._count_in_flight(-1)
        if self._clock_offset_ns is not None:
            captured_ns = self._clock_offset_ns + scores.span.end_ns
            self.gauge.lag_ms = round((self._clock.monotonic_ns() - captured_ns) / 1e6, 1)
        if self._to_say.full():
            self.metrics.drop("sinks_behind")
        else:
            self._to_say.put_nowait(scores)

    async def finish(self) -> None:
        """Shut down: score what is cut, for a moment, and have `speak` end what is open."""
        self.settled.set()
        for hop in (*self._cut, *self._chain.cutter.flush()):
            self._submit_now(hop)
        try:
            async with asyncio.timeout(DRAIN_SECS):
                await self._drained.wait()
        except TimeoutError:
            self.metrics.drop("unscored_at_shutdown", self._n_in_flight)
            self._worker.forget(self._chain.source.name)
        await self._to_say.put(None)
        await self._all_said.wait()

    @property
    def stages(self) -> Sequence[StageMetrics]:
        """The counters of its stages."""
        return (*self._chain.source.metrics, self._chain.cutter.metrics, self.metrics)

    async def _stream(self) -> None:
        try:
            async with asyncio.timeout(None) as patience, self._chain.source.stream() as items:
                await self._take_all(items, patience)
        except TimeoutError:
            msg = f"nothing came for {REOPEN_SECS:g} s"
            raise SourceError(msg) from None

    async def _take_all(self, items: AsyncIterator[MediaItem], patience: asyncio.Timeout) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                name = f"{self._chain.source.name}.watchdog"
                watching = group.create_task(self._mark_stalls(patience), name=name)
                async for item in items:
                    self._last_item_ns = self._clock.monotonic_ns()
                    await self._take(item)
                watching.cancel()
        except BaseExceptionGroup as errors:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # Python 3.11: a group that fails forgets it
                raise asyncio.CancelledError from None
            raise errors.exceptions[0] from None

    async def _take(self, item: MediaItem) -> None:
        await self._submit(self._chain.cutter.push(item))
        self.gauge.see(item)
        if isinstance(item, SourceStarted):
            self.error = None
            self._clock_offset_ns = item.clock_offset_ns
            self._enter("online", "streaming")
            await self._mark(item)
            self.settled.set()
        elif self.gauge.state == "stalled":
            self._enter("online", "streaming again")

    async def _submit(self, hops: Sequence[Hop]) -> None:
        self._cut.extend(hops)
        while self._cut:
            if not self._chain.source.live:
                await self._room.acquire()
            self._submit_now(self._cut.popleft())

    def _submit_now(self, hop: Hop) -> None:
        self._count_in_flight(1)
        n_dropped = self._worker.submit(hop, live=self._chain.source.live)
        self._count_in_flight(-n_dropped)

    def _count_in_flight(self, n: int) -> None:
        self._n_in_flight += n
        if self._n_in_flight == 0:
            self._drained.set()
        else:
            self._drained.clear()

    async def _mark(self, item: SourceStarted | SourceStalled | SourceEnded) -> None:
        """Tell the head, after all that was cut before is scored."""
        if isinstance(item, SourceEnded | SourceStalled):
            await self._submit(self._chain.cutter.push(item))
        await self._drained.wait()
        if not isinstance(item, SourceStalled):
            self._worker.forget(self._chain.source.name)
        await self._to_say.put(item)

    async def _say_all(self) -> None:
        head = self._chain.head
        offset_ns: int | None = None
        while (item := await self._to_say.get()) is not None:
            self.metrics.n_in += 1
            for decided in head.push(item):
                await self._say(decided, offset_ns)
            if isinstance(item, SourceStarted):
                offset_ns = item.clock_offset_ns
            if isinstance(item, Scores) and not self._chain.source.live:
                self._room.release()
        for decided in head.flush():
            await self._say(decided, offset_ns)

    async def _say(self, decided: Decided, clock_offset_ns: int | None) -> None:
        captured_ns = None if clock_offset_ns is None else clock_offset_ns + decided.at_ns
        self.metrics.n_out += 1
        if captured_ns is not None:
            self.metrics.latencies.add(self._clock.monotonic_ns() - captured_ns)
        await self._outlet.say(decided.content, captured_ns=captured_ns)

    async def _mark_stalls(self, patience: asyncio.Timeout) -> None:
        """Say when nothing comes; when that lasts, let `patience` run out: it is opened again."""
        self._last_item_ns = self._clock.monotonic_ns()
        while self._chain.source.live:
            quiet_secs = (self._clock.monotonic_ns() - self._last_item_ns) / NS_PER_SEC
            limit_secs = STALL_SECS if quiet_secs < STALL_SECS else REOPEN_SECS
            if quiet_secs >= REOPEN_SECS:
                patience.reschedule(asyncio.get_running_loop().time())
                return
            if quiet_secs >= STALL_SECS and self.gauge.state == "online":
                self._enter("stalled", f"nothing came for {STALL_SECS:g} s")
                at_ns = self._clock.monotonic_ns() - (self._clock_offset_ns or 0)
                await self._mark(SourceStalled(self._chain.source.name, at_ns))
            await asyncio.sleep(max(MIN_WATCH_SECS, limit_secs - quiet_secs))

    def _fail(self, error: SourceError) -> None:
        if str(error) != str(self.error):  # a camera that is off is told once, not at each attempt
            _log.error("%s: %s", self._chain.source.name, error)
        self.error = error
        self._enter("offline", str(error))

    def _enter(self, state: HealthState, reason: str) -> None:
        self.gauge.enter(state, reason, self._clock.utc_ns())
        self.changed.set()
