"""One source's way through the graph: captured, cut, scored, said. Others never notice it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from mmstream.clock import Clock
from mmstream.errors import SourceError, mask_credentials
from mmstream.heads.events import HeadItem
from mmstream.media import (
    AudioChunk,
    MediaItem,
    Scores,
    SourceEnded,
    SourceItem,
    SourceStalled,
    SourceStarted,
    VideoFrame,
)
from mmstream.messages import Decided, HealthState
from mmstream.metrics import StageMetrics
from mmstream.runtime import watch
from mmstream.runtime.backoff import Backoff
from mmstream.runtime.features import FeatureSet, Filter
from mmstream.runtime.gauge import SourceGauge
from mmstream.runtime.outlet import Outlet
from mmstream.runtime.passage import Passage
from mmstream.runtime.watch import Watch
from mmstream.stages import Source, Stage
from mmstream.windows import Glimpse, HopCutter
from mmstream.worker import Worker

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chain:
    """The parts that belong to one source."""

    source: Source
    cutter: HopCutter
    head: Stage[HeadItem, Decided]
    features: FeatureSet = field(default_factory=FeatureSet)
    """What can be set of it while it runs, as the configuration has it."""


class ChainRunner:
    """Runs one chain on the loop: `capture` and `speak` are its two tasks."""

    def __init__(
        self,
        chain: Chain,
        worker: Worker,
        outlet: Outlet,
        clock: Clock,
        features: FeatureSet | None = None,
    ) -> None:
        """Nothing runs yet; it begins with these `features`, as configured without."""
        self.gauge = SourceGauge(chain.source.name, clock.utc_ns())
        self.metrics = StageMetrics(f"heads/{chain.source.name}")
        self.error: SourceError | None = None
        """Why the source could not be opened or read, if it came to an end by that."""
        self.settled = asyncio.Event()
        """Set once the source has started, or failed."""
        self.changed = asyncio.Event()
        """Set when the health has changed since it was last told."""
        self._chain = chain
        self._name = chain.source.name
        self._outlet = outlet
        self._clock = clock
        self._clock_offset_ns: int | None = None
        self._passage = Passage(self._name, worker, self.metrics, live=chain.source.live)
        self._filter = Filter()
        if features is not None:
            self._filter.ignored = features.ignored
            chain.head.push(features.tuning(self._name))
        self._all_said = asyncio.Event()
        self._missing: tuple[str, ...] = ()
        self._watch = Watch()
        self._backoff = Backoff()

    @property
    def live(self) -> bool:
        """Whether its source goes on without us."""
        return self._chain.source.live

    @property
    def stages(self) -> Sequence[StageMetrics]:
        """The counters of its stages."""
        return (*self._chain.source.metrics, self._chain.cutter.metrics, self.metrics)

    def glimpse(self, at_utc_ns: int | None) -> Glimpse | None:
        """What is still held of an instant, or of the newest, if it may be used; on the loop."""
        return self._chain.cutter.glimpse(at_utc_ns, without=self._filter.ignored)

    async def capture(self) -> None:
        """Stream the source; a live one is opened again, with backoff, whenever it ends."""
        self.settled.clear()
        self._enter("connecting", "opening")
        while True:
            try:
                await self._stream()
            except SourceError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - one source's defect is not another's
                of = {"source": self._name}
                _log.debug("a defect of %s", self._name, exc_info=True, extra=of)
                self._fail(SourceError(mask_credentials(f"{type(error).__name__}: {error}")))
            else:
                self.error = None
                self._enter("offline", "ended")
            await self._end()
            self.settled.set()
            if not self.live:
                return
            await asyncio.sleep(self._backoff.pause_secs(self._clock.monotonic_ns()))
            self.gauge.n_restarts += 1

    async def speak(self) -> None:
        """Turn scores into messages, in order, until `finish`."""
        try:
            await self._say_all()
        finally:
            self._all_said.set()
            if n_left := self._passage.n_unsaid:
                self.metrics.drop("unsaid_at_shutdown", n_left)

    def deliver(self, scores: Scores) -> None:
        """The worker has scored a hop."""
        if self._clock_offset_ns is not None:
            captured_ns = self._clock_offset_ns + scores.span.end_ns
            self.gauge.lag_ms = round((self._clock.monotonic_ns() - captured_ns) / 1e6, 1)
        self._passage.deliver(scores)

    async def tune(self, features: FeatureSet) -> None:
        """Go by these features from the next hop on."""
        await self._passage.tune(features.tuning(self._name))
        self._filter.ignored = features.ignored

    async def pause(self, reason: str) -> None:
        """`capture` has been cancelled: end what is open; `capture` may be called again."""
        self.rest(reason)
        await self._end()

    def rest(self, reason: str) -> None:
        """Nothing is captured, on purpose."""
        self.error = None
        self._enter("offline", reason)
        self.settled.set()

    async def leave(self, reason: str) -> None:
        """The same, and nothing follows: returns when all is said."""
        self.error = None
        self._enter("offline", reason)
        self.settled.set()
        ended = SourceEnded(self._name)
        await self._passage.finish(self._filter.pass_on(self._chain.cutter.push(ended)), ended)
        await self._all_said.wait()

    async def finish(self) -> None:
        """Shut down: score what is cut, for a moment, and have `speak` end what is open."""
        self.settled.set()
        await self._passage.finish(self._filter.pass_on(self._chain.cutter.flush()), None)
        await self._all_said.wait()

    async def idle(self, secs: float) -> bool:
        """Wait, for so long, until the worker holds nothing of it; whether it is so."""
        return await self._passage.idle(secs)

    async def _stream(self) -> None:
        try:
            async with asyncio.timeout(None) as patience, self._chain.source.stream() as items:
                await self._take_all(items, patience)
        except TimeoutError:
            gone = self._watch.lost(self._clock.monotonic_ns())
            rest = gone and self._watch.streams - gone
            said = watch.lacking(gone, watch.REOPEN_SECS) if rest else []
            msg = "; ".join(said) or f"nothing came for {watch.REOPEN_SECS:g} s"
            raise SourceError(msg) from None

    async def _take_all(self, items: AsyncIterator[MediaItem], patience: asyncio.Timeout) -> None:
        self._watch.start(frozenset(), self._clock.monotonic_ns())
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._guard(patience), name=f"{self._name}.watchdog")
                async for item in items:
                    await self._take(item)
                watching.cancel()
        except BaseExceptionGroup as errors:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # Python 3.11: a group that fails forgets it
                raise asyncio.CancelledError from None
            raise errors.exceptions[0] from None

    async def _take(self, item: MediaItem) -> None:
        await self._cut(item)
        was_synced = self.gauge.synced
        self.gauge.see(item)
        if self.gauge.synced is not was_synced:
            self.changed.set()
        if isinstance(item, SourceStarted):
            await self._start(item)
        elif isinstance(item, AudioChunk | VideoFrame):
            now_ns = self._clock.monotonic_ns()
            if self.gauge.state == "stalled":
                self._watch.resume(now_ns)
            self._watch.see(item, now_ns)
            self._backoff.see(now_ns)
            if self.gauge.state != "online":
                self._judge(now_ns)

    async def _cut(self, item: SourceItem) -> None:
        await self._passage.put(self._filter.pass_on(self._chain.cutter.push(item)))

    async def _start(self, item: SourceStarted) -> None:
        self.error = None
        self._clock_offset_ns = item.clock_offset_ns
        self._missing = item.missing
        now_ns = self._clock.monotonic_ns()
        self._watch.start(item.streams, now_ns)
        self._judge(now_ns)
        await self._passage.mark(item)
        self.settled.set()

    async def _end(self) -> None:
        ended = SourceEnded(self._name)
        await self._cut(ended)
        await self._passage.mark(ended)

    async def _say_all(self) -> None:
        head = self._chain.head
        offset_ns: int | None = None
        while (item := await self._passage.next()) is not None:
            self.metrics.n_in += 1
            for decided in head.push(item):
                await self._say(decided, offset_ns)
            if isinstance(item, SourceStarted):
                offset_ns = item.clock_offset_ns
            if isinstance(item, Scores):
                self._passage.said()
        for decided in head.flush():
            await self._say(decided, offset_ns)

    async def _say(self, decided: Decided, clock_offset_ns: int | None) -> None:
        captured_ns = None if clock_offset_ns is None else clock_offset_ns + decided.at_ns
        self.metrics.n_out += 1
        if captured_ns is not None:
            self.metrics.latencies.add(self._clock.monotonic_ns() - captured_ns)
        await self._outlet.say(decided.content, captured_ns=captured_ns)

    async def _guard(self, patience: asyncio.Timeout) -> None:
        """Say what does not come; when that lasts, let `patience` run out: it is opened again.

        One stream of two may stay away for good after a camera's clock was set (docs/log.md).
        """
        while self.live:
            now_ns = self._clock.monotonic_ns()
            quiet_secs = self._watch.quiet_secs(now_ns)
            if quiet_secs >= watch.REOPEN_SECS or self._watch.lost(now_ns):
                patience.reschedule(asyncio.get_running_loop().time())
                return
            if self.gauge.state in ("online", "degraded"):
                if quiet_secs >= watch.STALL_SECS:
                    await self._stall(now_ns)
                else:
                    self._judge(now_ns)
            await asyncio.sleep(max(watch.MIN_WATCH_SECS, watch.STALL_SECS / 20))

    async def _stall(self, now_ns: int) -> None:
        self._enter("stalled", f"nothing came for {watch.STALL_SECS:g} s")
        stalled = SourceStalled(self._name, now_ns - (self._clock_offset_ns or 0))
        await self._cut(stalled)
        await self._passage.mark(stalled)

    def _judge(self, now_ns: int) -> None:
        """It streams: all that it should?"""
        lacking = [*self._missing]
        if self.live:
            lacking += watch.lacking(self._watch.quiet(now_ns), watch.STALL_SECS)
        if lacking:
            self._enter("degraded", "; ".join(lacking))
        else:
            self._enter("online", "streaming")

    def _fail(self, error: SourceError) -> None:
        if str(error) != str(self.error):  # a camera that is off is told once, not at each attempt
            _log.error("%s: %s", self._name, error, extra={"source": self._name})
        self.error = error
        self._enter("offline", str(error))

    def _enter(self, state: HealthState, reason: str) -> None:
        if (state, reason) != (self.gauge.state, self.gauge.reason):
            self.gauge.enter(state, reason, self._clock.utc_ns())
            self.changed.set()
