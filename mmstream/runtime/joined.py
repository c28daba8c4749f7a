"""Several live sources of one name on one clock as one: a webcam and a microphone.

Each part runs in a task of its own and is opened again on its own; the rest goes on meanwhile. A
new `SourceStarted` tells what delivers now, and what is missing and why.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

from mmstream.errors import ConfigError, SourceError, mask_credentials
from mmstream.media import (
    AudioChunk,
    MediaItem,
    SourceStarted,
    SourceSynced,
    StreamKind,
    VideoFrame,
    secs_to_ns,
)
from mmstream.metrics import StageMetrics
from mmstream.runtime import watch
from mmstream.runtime.backoff import Backoff
from mmstream.runtime.handoff import Handoff
from mmstream.runtime.watch import Watch
from mmstream.stages import Source

SLOW_SECS: Final = 2.0
"""How long the parts that have started wait for one that is still being opened."""
MAX_HELD: Final = 256
"""Items that may wait for it; the oldest make room."""
OPENING: Final = "a part is still being opened"

_log = logging.getLogger(__name__)


class JoinedSource:
    """A `Source` made of several whose instants are on the same clock."""

    live = True

    def __init__(self, name: str, parts: Sequence[Source]) -> None:
        """Nothing is opened yet.

        Raises:
            ConfigError: a part is not live or has another name.
        """
        for part in parts:
            if not part.live or part.name != name:
                msg = f"{name} can only be made of live sources of that name: got {part.name}"
                raise ConfigError(msg)
        self.name = name
        self._sources = tuple(parts)
        self._counts = StageMetrics(f"joined/{name}")

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        """The counters of all parts and of the hand-over."""
        return (*(stage for part in self._sources for stage in part.metrics), self._counts)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[AsyncIterator[MediaItem]]:
        """Open all parts, give their items as they come; closes all of them on the way out.

        Raises:
            SourceError: no part works; the text says why of each.
        """
        handoff = Handoff(asyncio.get_running_loop(), self._counts, lossy=True)
        joint = _Joint(self.name, self._sources, handoff, self._counts)
        tasks = joint.start()
        try:
            async with aclosing(handoff.items()) as items:
                yield items
        finally:
            handoff.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Part:
    """One source among the joined ones, as it is now."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.backoff = Backoff()
        self.watch = Watch()
        self.patience: asyncio.Timeout | None = None
        """Runs out when it is to be closed; None while it is not open."""
        self.started: SourceStarted | None = None
        """How it delivers; None while it does not."""
        self.paused: SourceStarted | None = None
        """How it delivered until it went quiet."""
        self.problem = OPENING
        self.is_lost = False
        """It has failed and has not started since."""


class _Joint:
    """One opening of a joined source; lives on the loop."""

    def __init__(
        self, name: str, sources: Sequence[Source], handoff: Handoff, metrics: StageMetrics
    ) -> None:
        self._name = name
        self._parts = [_Part(source) for source in sources]
        self._handoff = handoff
        self._metrics = metrics
        self._held: deque[MediaItem] = deque()
        """Came before the joined stream has begun."""
        self._last: SourceStarted | None = None
        """The last start of a part: its offsets are the newest."""
        self._told: SourceStarted | None = None
        self._is_waiting = True
        """For parts that are still being opened."""

    def start(self) -> Sequence[asyncio.Task[None]]:
        running = [
            asyncio.create_task(self._run(part), name=f"{self._name}.part{number}")
            for number, part in enumerate(self._parts, 1)
        ]
        return [*running, asyncio.create_task(self._guard(), name=f"{self._name}.parts")]

    async def _run(self, part: _Part) -> None:
        """Stream one part; open it again, with backoff, whenever it ends."""
        while True:
            try:
                await self._stream(part)
                problem = f"{_streams(part)} ended"
            except SourceError as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001 - one part's defect is not another's
                of = {"source": self._name}
                _log.debug("a defect of a part of %s", self._name, exc_info=True, extra=of)
                problem = mask_credentials(f"{type(error).__name__}: {error}")
            part.started = part.paused = part.patience = None
            part.is_lost = True
            self._lose(part, problem)
            await asyncio.sleep(part.backoff.pause_secs(_now_ns()))

    async def _stream(self, part: _Part) -> None:
        part.watch.start(frozenset(), _now_ns())
        try:
            async with asyncio.timeout(None) as part.patience, part.source.stream() as items:
                async for item in items:
                    self._take(part, item)
        except TimeoutError:
            msg = f"nothing came for {watch.REOPEN_SECS:g} s"
            raise SourceError(msg) from None

    def _take(self, part: _Part, item: MediaItem) -> None:
        match item:
            case SourceStarted():
                part.watch.start(item.streams, _now_ns())
                self._last = item
                self._regain(part, item)
                return
            case AudioChunk() | VideoFrame():
                now_ns = _now_ns()
                part.watch.see(item, now_ns)
                part.backoff.see(now_ns)
                if part.paused is not None:
                    self._regain(part, part.paused)
            case SourceSynced():
                self._sync(part)
                return
        self._put(item)

    def _sync(self, part: _Part) -> None:
        """A part has come to be on one clock; told when all that deliver are."""
        if part.started is not None:
            part.started = replace(part.started, synced=True)
        is_synced = all(one.synced for one in self._delivering())
        if is_synced and self._told is not None and not self._told.synced:
            self._told = replace(self._told, synced=True)
            self._put(SourceSynced(self._name))

    def _put(self, item: MediaItem) -> None:
        if self._told is not None:
            self._handoff.put(item)
            return
        if len(self._held) == MAX_HELD:
            self._held.popleft()
            self._metrics.drop("before_start")
        self._held.append(item)

    async def _guard(self) -> None:
        """Notice parts that send nothing, and do not wait too long for slow ones."""
        opened_ns = _now_ns()
        while True:
            await asyncio.sleep(max(watch.MIN_WATCH_SECS, watch.STALL_SECS / 20))
            if self._is_waiting and _now_ns() - opened_ns >= secs_to_ns(SLOW_SECS):
                self._is_waiting = False
                self._tell()
            gone_quiet = [part for part in self._parts if self._has_gone_quiet(part)]
            for part in gone_quiet:
                self._lose(part, "; ".join(watch.lacking(part.watch.streams, watch.STALL_SECS)))

    def _has_gone_quiet(self, part: _Part) -> bool:
        """Whether a part has just stopped to deliver; one that stays quiet is closed."""
        quiet_secs = part.watch.quiet_secs(_now_ns())
        if part.patience is not None and quiet_secs >= watch.REOPEN_SECS:
            part.patience.reschedule(asyncio.get_running_loop().time())
            part.patience = None
        if part.started is None or quiet_secs < watch.STALL_SECS:
            return False
        part.started, part.paused = None, part.started
        return True

    def _regain(self, part: _Part, started: SourceStarted) -> None:
        part.started, part.paused, part.is_lost = started, None, False
        self._tell()

    def _lose(self, part: _Part, problem: str) -> None:
        """A part does not deliver; told where it did, or where nobody knew what becomes of it."""
        delivers = frozenset[StreamKind]().union(*(one.streams for one in self._delivering()))
        is_news = part.problem == OPENING or self._told is None or self._told.streams != delivers
        part.problem = problem
        if all(one.is_lost for one in self._parts):
            self._handoff.end(SourceError("; ".join(one.problem for one in self._parts)))
        elif is_news:
            self._tell()

    def _tell(self) -> None:
        """Say what delivers now, and what is missing; nothing while nothing delivers."""
        delivering = self._delivering()
        last = self._last
        if not delivering or last is None or (self._is_waiting and self._is_any_opening()):
            return
        missing = [text for one in delivering for text in one.missing]
        missing += [part.problem for part in self._parts if part.started is None]
        self._told = SourceStarted(
            self._name,
            frozenset[StreamKind]().union(*(one.streams for one in delivering)),
            last.utc_offset_ns,
            last.clock_offset_ns,
            synced=all(one.synced for one in delivering),
            missing=tuple(missing),
        )
        self._is_waiting = False
        self._handoff.put(self._told)
        self._let_go(self._told.streams)

    def _let_go(self, streams: frozenset[StreamKind]) -> None:
        """Hand over what was held, but for what a part sent that is lost by now."""
        for item in self._held:
            is_sound, is_sight = isinstance(item, AudioChunk), isinstance(item, VideoFrame)
            if (is_sound and "audio" not in streams) or (is_sight and "video" not in streams):
                self._metrics.drop("before_start")
            else:
                self._handoff.put(item)
        self._held.clear()

    def _delivering(self) -> Sequence[SourceStarted]:
        return [part.started for part in self._parts if part.started is not None]

    def _is_any_opening(self) -> bool:
        return any(part.started is None and not part.is_lost for part in self._parts)


def _streams(part: _Part) -> str:
    return " and ".join(sorted(part.watch.streams)) or "a part"


def _now_ns() -> int:
    """The loop's clock: how long we wait, never when something happened."""
    return secs_to_ns(asyncio.get_running_loop().time())
