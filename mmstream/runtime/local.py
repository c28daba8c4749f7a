"""Runs a graph on this machine: one event loop, one worker thread, a capture thread per reader."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from pydantic import JsonValue

import mmstream
from mmstream.clock import Clock
from mmstream.errors import CommandError, ConfigError, SinkError, SourceError, UnreachableError
from mmstream.media import Scores
from mmstream.messages import (
    CONTENTS,
    SCHEMA_VERSION,
    Info,
    SourceInfo,
    Stats,
    iso_utc,
)
from mmstream.metrics import SourceStatus, StageMetrics
from mmstream.runtime import log_level
from mmstream.runtime.chain import Chain
from mmstream.runtime.control import Controller
from mmstream.runtime.features import ENABLED
from mmstream.runtime.graph import Graph
from mmstream.runtime.journal import ended_by_restart
from mmstream.runtime.look import look_at_sources, look_at_worker
from mmstream.runtime.outlet import Outlet, SinkFeed
from mmstream.runtime.report import reports
from mmstream.runtime.roster import Roster
from mmstream.sinks.own_thread import OwnThread
from mmstream.web.look import RunLook
from mmstream.worker import Worker

STATS_SECS: Final = 10.0

# When we are told to stop, each of these is over so many seconds later, whatever hangs; what is
# over sooner leaves its time to what follows.
BUILT_SECS: Final = 0.1
"""The worker has loaded what it needs; it cannot be interrupted in that."""
SAID_SECS: Final = 1.0
"""The last hops are scored and said."""
GOODBYE_SECS: Final = 1.1
"""The last health and stats are said."""
WORKED_SECS: Final = 1.2
"""The worker is done."""
EMPTIED_SECS: Final = 1.6
"""The queues before the sinks are empty."""
CLOSED_SECS: Final = 2.2
"""The sinks have delivered and said goodbye."""
MIN_SECS: Final = 0.05
"""Nothing is given up without a try."""


class LocalRuntime:
    """One run of a graph."""

    def __init__(self, graph: Graph, clock: Clock, *, boot_id: str) -> None:
        """Nothing runs yet.

        Raises:
            ConfigError: two scorers say the same label, or two sources have the same name.
        """
        names = [chain.source.name for chain in graph.chains]
        if twice := {name for name in names if names.count(name) > 1}:
            msg = f"two sources have the name {', '.join(sorted(twice))}: each needs its own"
            raise ConfigError(msg)
        self._graph = graph
        self._clock = clock
        self._boot_id = boot_id
        self._started_utc_ns = clock.utc_ns()
        self._labels = tuple(label.name for spec in graph.specs for label in spec.labels)
        self._stop = asyncio.Event()
        self._stopped_at_secs = 0.0
        """When on the loop's clock `stop` was called."""
        self._is_over = asyncio.Event()
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker = Worker(graph.specs, graph.worker, clock, self._deliver)
        self._outlet = Outlet(
            node=graph.node, boot_id=boot_id, clock=clock, sinks=graph.sinks, live=False
        )
        self._roster = Roster(
            self._worker,
            self._outlet,
            clock,
            reports=graph.reports,
            can_be_asked=bool(graph.inlets),
            overrides=graph.overrides,
        )
        self._roster.tell_info = self._tell_info
        log_level.restore(graph.overrides)
        for chain in graph.chains:
            self._roster.place(chain)
        self._controller = Controller(
            self._roster, self._outlet, graph.blueprint, self._about, graph.keeper, graph.snapshots
        )
        if graph.snapshots is not None:
            graph.snapshots.look_through(self._roster.glimpse)

    def stop(self) -> None:
        """Come to a clean end (call it on the loop): events end, sinks deliver, `run` returns."""
        if not self._stop.is_set():
            self._stopped_at_secs = asyncio.get_running_loop().time()
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether `stop` has been called."""
        return self._stop.is_set()

    async def add(self, chain: Chain) -> None:
        """Take in another source and start it.

        Raises:
            CommandError: there is one of that name, or nothing runs.
        """
        await self._roster.add(chain)

    async def remove(self, name: str) -> None:
        """End a source for good; returns when its events have ended and its device is let go.

        Raises:
            CommandError: there is none of that name, it cannot be closed, or nothing runs.
        """
        await self._roster.remove(name)

    async def disable(self, name: str) -> None:
        """End a source until it is enabled.

        Raises:
            CommandError: as `remove`.
        """
        await self._roster.set(name, ENABLED, value=False, by="")
        await self._roster.tell_features(name)

    async def enable(self, name: str) -> None:
        """Start a source that is disabled.

        Raises:
            CommandError: there is none of that name, or nothing runs.
        """
        await self._roster.set(name, ENABLED, value=True, by="")
        await self._roster.tell_features(name)

    async def restart(self, name: str) -> None:
        """Close a source and open it again.

        Raises:
            CommandError: as `remove`, or it is disabled.
        """
        await self._roster.restart(name)

    @property
    def can_reload(self) -> bool:
        """Whether there is a configuration that can be read again."""
        return self._graph.blueprint is not None

    def reload_soon(self) -> None:
        """Read the configuration again and apply what has changed (call it on the loop)."""
        self._controller.reload_soon()

    def statuses(self) -> Sequence[SourceStatus]:
        """How the sources are doing."""
        return [runner.gauge.status() for runner in self._roster.runners.values()]

    def stages(self) -> Sequence[StageMetrics]:
        """The counters of every stage."""
        per_source = [stage for runner in self._roster.runners.values() for stage in runner.stages]
        per_sink = [m for feed in self._outlet.feeds for m in (feed.metrics, feed.sink.metrics)]
        return [*per_source, *self._worker.stages, *per_sink, *self._graph.meters]

    def look(self) -> RunLook:
        """What the web shows of it; on the loop."""
        node, stages = self._graph.node, tuple(self.stages())
        sources, worker = look_at_sources(self._roster), look_at_worker(self._worker, self._clock)
        return RunLook(node, self._boot_id, self._started_utc_ns, sources, worker, stages)

    def failures(self) -> Sequence[SourceError]:
        """Why sources came to an end that did not just end."""
        return [
            runner.error for runner in self._roster.runners.values() if runner.error is not None
        ]

    async def started(self, timeout_secs: float) -> None:
        """Wait until every source streams and every sink is ready.

        Raises:
            UnreachableError: one of them cannot be reached, or was not in time or before the
                sources had ended and the sinks were closed; the text says why.
        """
        runners = self._roster.runners
        try:
            async with asyncio.timeout(timeout_secs):
                for runner in runners.values():
                    await runner.settled.wait()
        except TimeoutError:
            late = [name for name, runner in runners.items() if not runner.settled.is_set()]
            msg = f"not reached in {timeout_secs:g} s: {', '.join(late)}"
            raise UnreachableError(msg) from None
        for name, runner in runners.items():
            if runner.error is not None:
                msg = f"{name}: {runner.error}"
                raise UnreachableError(msg)
        for feed in self._outlet.feeds:
            try:
                if not await self._before_the_end(feed.sink.ready(timeout_secs)):
                    if self.stopping:
                        return
                    await feed.sink.ready(0)
            except SinkError as error:
                raise UnreachableError(str(error)) from None

    async def _before_the_end(self, work: Coroutine[None, None, None]) -> bool:
        """Whether work got done while `run` ran."""
        working = asyncio.create_task(work, name="ready")
        over = asyncio.create_task(self._is_over.wait(), name="over")
        try:
            await asyncio.wait([working, over], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
            return working.done()
        finally:
            working.cancel()
            over.cancel()

    async def run(self) -> None:
        """Until all sources have ended or `stop` is called.

        What nothing goes on without (the worker, a sink) may fail: then too open events end and
        sinks deliver before it is raised.

        Raises:
            ScorerError: a scorer cannot be built or run.
            SinkError: a sink can never work.
        """
        self._loop = asyncio.get_running_loop()
        try:
            async with self._serving_sinks(), self._working():
                try:
                    for message in self._graph.left_open:
                        await self._outlet.say(ended_by_restart(message))
                    if self._graph.reports:
                        await self._tell_info()
                        await self._roster.tell_features()
                    # Loading takes seconds, in which a live source would only be dropped.
                    built = asyncio.wrap_future(self._worker.built)
                    await self._patiently(asyncio.shield(built), BUILT_SECS)
                    await self._run_sources()
                except BaseException:
                    self.stop()  # whatever happened, the rest must not take long
                    raise
        finally:
            self._is_over.set()
        if self._failure is not None:
            raise self._failure

    async def _or_stop(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part that nothing goes on without: its failure stops the rest cleanly."""
        try:
            await part()
        except Exception as error:  # noqa: BLE001 - `run` raises it
            self._failure = self._failure or error
            self.stop()

    async def _patiently(self, work: Awaitable[None], by_secs: float) -> None:
        """Wait for work to end; once we are told to stop, cancel it when so long has passed."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                past_secs = asyncio.get_running_loop().time() - self._stopped_at_secs
                await asyncio.wait([working], timeout=max(MIN_SECS, by_secs - past_secs))
        finally:
            working.cancel()
            stopping.cancel()

    @asynccontextmanager
    async def _serving_sinks(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            finishing = []
            for feed in self._outlet.feeds:
                name = f"sink.{feed.sink.name}"
                serving = group.create_task(self._or_stop(feed.sink.run), name=name)
                feeding = group.create_task(self._or_stop(feed.run), name=f"{name}.feed")
                finishing.append(self._finish(feed, serving, feeding))
            try:
                yield
            finally:
                await asyncio.gather(*finishing)

    async def _finish(
        self, feed: SinkFeed, serving: asyncio.Task[None], feeding: asyncio.Task[None]
    ) -> None:
        await self._patiently(feed.finish(), EMPTIED_SECS)
        feeding.cancel()
        await self._patiently(self._or_stop(feed.sink.close), CLOSED_SECS)
        await self._patiently(serving, CLOSED_SECS)

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self._or_stop(self._work), name="worker")
            try:
                yield
            finally:
                self._worker.close()
                await self._patiently(working, WORKED_SECS)

    async def _run_sources(self) -> None:
        roster = self._roster
        async with asyncio.TaskGroup() as group:
            roster.start(group, self._or_stop)
            beside = [group.create_task(self._controller.run(self._graph.inlets), name="requests")]
            if self._graph.reports:
                beside.append(group.create_task(self._tell_stats(), name="reports"))
            waiting = [
                asyncio.create_task(event.wait(), name=name)
                for name, event in (("stop", self._stop), ("over", roster.over))
            ]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                roster.stop()
                for task in (*beside, *waiting):
                    task.cancel()
            # A reader that hangs is waited for in the meantime, by its own task.
            runners = roster.runners.values()
            await asyncio.gather(*(self._patiently(r.finish(), SAID_SECS) for r in runners))
            roster.hush()
            if self._graph.reports:
                await self._patiently(self._say_goodbye(), GOODBYE_SECS)

    async def _say_goodbye(self) -> None:
        for runner in self._roster.runners.values():
            if runner.gauge.state != "offline":
                runner.gauge.enter("offline", "shut down", self._clock.utc_ns())
            await self._outlet.say(runner.gauge.health())
        await self._outlet.say(self._stats())

    async def _work(self) -> None:
        thread = OwnThread("worker")
        working = thread.submit(self._worker.run)
        thread.end()
        await asyncio.wrap_future(working)

    def _deliver(self, scored: Sequence[Scores]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._roster.deliver, scored)

    async def _tell_stats(self) -> None:
        while True:
            await asyncio.sleep(STATS_SECS)
            await self._outlet.say(self._stats())
            for runner in self._roster.runners.values():
                await self._outlet.say(runner.gauge.health())

    async def _tell_info(self) -> None:
        await self._outlet.say(self._info())

    def _about(self) -> dict[str, JsonValue]:
        who: dict[str, JsonValue] = {"node": self._graph.node, "boot_id": self._boot_id}
        return who | self._info().model_dump(mode="json")

    def _info(self) -> Info:
        return Info(
            version=mmstream.__version__,
            started=iso_utc(self._started_utc_ns),
            sources=tuple(self._source_info(name) for name in self._roster.runners),
            schemas={content.__name__.lower(): SCHEMA_VERSION for content in CONTENTS},
            capabilities=self._graph.capabilities,
            models=self._graph.models,
            log_level=log_level.current(),
        )

    def _source_info(self, name: str) -> SourceInfo:
        """Its labels are those of the scorers, and what they were taught since."""
        labels = self._labels
        with suppress(CommandError):  # before it runs it can have learned nothing
            known = self._roster.features(name).labels
            labels = tuple(dict.fromkeys((*labels, *(label.name for label in known))))
        return SourceInfo(id=name, labels=labels)

    def _stats(self) -> Stats:
        worker = self._worker
        batch_size = worker.metrics.n_out / worker.n_batches if worker.n_batches else None
        lags_ms = {r.metrics.name: r.gauge.lag_ms for r in self._roster.runners.values()}
        return Stats(
            stages=reports(self.stages(), lags_ms),
            batch_size=None if batch_size is None else round(batch_size, 2),
            device=worker.device,
        )
