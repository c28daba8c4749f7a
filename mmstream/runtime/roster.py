"""The sources of a run: they are added, removed, set and restarted while it runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mmstream.clock import Clock
from mmstream.errors import CommandError
from mmstream.media import Label, Scores
from mmstream.messages import LogLevel, iso_utc
from mmstream.runtime import log_level
from mmstream.runtime.chain import Chain, ChainRunner
from mmstream.runtime.features import ENABLED, FeatureSet, Value, shown, value_text
from mmstream.runtime.outlet import Outlet
from mmstream.store.overrides import Override
from mmstream.windows import Glimpse
from mmstream.worker import Worker

CLOSE_SECS: Final = 2.0
"""How long a source may take to let go of its device."""
LEAVE_SECS: Final = 2.0
"""How long it may take to say what is left of a source; longer only where a sink hangs."""
SCORED_SECS: Final = 5.0
"""How long the worker may hold hops of a removed source before its name can be used again."""

_log = logging.getLogger(__name__)

Guard = Callable[[Callable[[], Awaitable[None]]], Coroutine[None, None, None]]
"""Runs a part that nothing goes on without."""


@dataclass
class _Place:
    """A source and the tasks that run it."""

    runner: ChainRunner
    features: FeatureSet
    capturing: asyncio.Task[None] | None = None
    speaking: asyncio.Task[None] | None = None
    telling: asyncio.Task[None] | None = None
    has_ended: bool = False
    """By itself, as files do."""
    has_learned: bool = False
    """It has labels that nobody was told of yet."""

    def learn(self, labels: Sequence[Label]) -> None:
        """Its scores have these, taught while it runs."""
        features = self.features.with_labels(labels)
        if features is not self.features:
            self.features, self.has_learned = features, True
            self.runner.changed.set()


class Roster:
    """Who captures; one request is carried out at a time, and touches one source only.

    All methods are called on the loop. Requests raise `CommandError` while nothing runs.
    """

    def __init__(
        self,
        worker: Worker,
        outlet: Outlet,
        clock: Clock,
        *,
        reports: bool,
        can_be_asked: bool,
        overrides: Sequence[Override] = (),
    ) -> None:
        """No source yet.

        Health is told where `reports`. Where it `can_be_asked` for more, a run with disabled
        sources is not over when all others have ended, and it is told what can be set. `overrides`
        are what was set in earlier boots.
        """
        self.over = asyncio.Event()
        """Set when all sources have ended by themselves."""
        self.tell_info: Callable[[], Awaitable[None]] | None = None
        """Called when sources have come or gone."""
        self._worker = worker
        self._outlet = outlet
        self._clock = clock
        self._reports = reports
        self._can_be_asked = can_be_asked
        self._places: dict[str, _Place] = {}
        self._overrides = {(one.source, one.feature): one for one in overrides}
        self._leaving: dict[str, ChainRunner] = {}
        """Removed, but the worker still holds hops of them."""
        self._turn = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None
        self._guard: Guard | None = None

    @property
    def runners(self) -> Mapping[str, ChainRunner]:
        """All sources, by name."""
        return {name: place.runner for name, place in self._places.items()}

    @property
    def expected(self) -> frozenset[str]:
        """Those that should stream: neither disabled nor played to their end."""
        return frozenset(
            name
            for name, place in self._places.items()
            if place.features.is_enabled and not (place.has_ended and place.runner.error is None)
        )

    def runner(self, name: str) -> ChainRunner:
        """The runner of a source.

        Raises:
            CommandError: there is none of that name.
        """
        return self._find(name).runner

    def glimpse(self, name: str, at_utc_ns: int | None) -> Glimpse | None:
        """What is still held of a source at an instant, or newest; None: nothing, or it is off."""
        place = self._places.get(name)
        if place is None or not place.features.is_enabled:
            return None
        return place.runner.glimpse(at_utc_ns)

    def place(self, chain: Chain) -> None:
        """Take a source in, set as it was before; it runs from `start` on."""
        if chain.source.live:
            self._outlet.go_live()
        name = chain.source.name
        overrides = [one for one in self._overrides.values() if one.source == name]
        features = chain.features.with_overrides(overrides)
        for one in overrides:
            if one.feature in features.values:
                what = f"{name}: {one.feature} is {one.value}"
                who = one.by or "somebody"
                of = {"source": name}
                _log.warning("%s, as was set at %s by %s", what, iso_utc(one.set_ns), who, extra=of)
        runner = ChainRunner(chain, self._worker, self._outlet, self._clock, features)
        if not features.is_enabled:
            runner.rest("disabled")
        self._places[name] = _Place(runner, features)

    def start(self, group: asyncio.TaskGroup, guard: Guard) -> None:
        """Run all sources in `group`."""
        self._group, self._guard = group, guard
        for name in self._places:
            self._run(name)
        self._look_whether_over()

    def stop(self) -> None:
        """Capture nothing any more, and take no more requests."""
        self._group = None
        for place in self._places.values():
            for task in (place.capturing, place.telling):
                if task is not None:
                    task.cancel()

    def hush(self) -> None:
        """Say nothing any more: what is not said yet waits for a sink that hangs."""
        for place in self._places.values():
            if place.speaking is not None:
                place.speaking.cancel()

    def deliver(self, scored: Sequence[Scores]) -> None:
        """Give each runner what the worker has scored of it."""
        for scores in scored:
            name = scores.source
            if (leaving := self._leaving.get(name)) is not None:
                leaving.deliver(scores)
            elif (place := self._places.get(name)) is not None:
                place.learn(scores.learned)
                place.runner.deliver(scores)

    async def settled(self, name: str, secs: float) -> None:
        """Wait, for so long, until a source has started or failed."""
        try:
            await asyncio.wait_for(self.runner(name).settled.wait(), secs)
        except TimeoutError:
            return

    async def add(self, chain: Chain) -> None:
        """Take in another source and start it.

        Raises:
            CommandError: there is one of that name.
        """
        async with self._turn:
            name = chain.source.name
            if name in self._places:
                msg = f"there is a source {name} already: remove it first, or give another name"
                raise CommandError(msg)
            await self._add(chain)
            await self._tell_info()
            await self.tell_features(chain.source.name)

    async def replace(self, chain: Chain) -> None:
        """Start a source in the place of what had its name, if anything had.

        Raises:
            CommandError: that cannot be closed.
        """
        async with self._turn:
            if chain.source.name in self._places:
                await self._remove(chain.source.name, "replaced")
            await self._add(chain)
            await self._tell_info()
            await self.tell_features(chain.source.name)

    async def remove(self, name: str) -> None:
        """End a source for good: what is open ends, its device is let go.

        Raises:
            CommandError: there is none of that name, or it cannot be closed.
        """
        async with self._turn:
            await self._remove(name, "removed")
            gone = [key for key in self._overrides if key[0] == name]
            for key in gone:
                del self._overrides[key]
            await self._tell_info()

    def features(self, name: str) -> FeatureSet:
        """What can be set of a source, and how it is set.

        Raises:
            CommandError: there is none of that name.
        """
        return self._find(name).features

    async def set(self, name: str, feature: str, value: Value | None, by: str) -> Override | None:
        """Set a feature of a source, or back (None); gives what is to be kept of that.

        Nobody is told yet: that is for after it is kept (`tell_features`).

        Raises:
            CommandError: there is none of that name, or it cannot be closed.
        """
        async with self._turn:
            await self._set(name, feature, value)
            self._overrides.pop((name, feature), None)
            if value is None:
                return None
            text = f"{value_text(value)}"
            override = Override(name, feature, text, self._clock.utc_ns(), by)
            self._overrides[name, feature] = override
            return override

    async def select_log_level(self, level: LogLevel, by: str) -> Override:
        """Tell more or less in the log, and say so; gives what is to be kept of that."""
        log_level.select(level)
        await self._tell_info()
        return Override(log_level.NODE, log_level.FEATURE, level, self._clock.utc_ns(), by)

    async def tell_features(self, *names: str) -> None:
        """Say how these sources are set, or all of them."""
        if self._reports and self._can_be_asked:
            for name in names or tuple(self._places):
                await self._outlet.say(self._places[name].features.message(name))

    async def _set(self, name: str, feature: str, value: Value | None) -> None:
        place = self._find(name)
        features, before = place.features.with_value(feature, value), place.features
        if feature != ENABLED:
            await self._in_time(name, place.runner.tune(features))
        elif before.is_enabled and not features.is_enabled:
            await self._close(name)
            place.features = features  # it is closed, even if not all can be said in time
            await self._in_time(name, place.runner.pause("disabled"))
        elif features.is_enabled and not before.is_enabled:
            self._capture(name)
        place.features = features

    async def restart(self, name: str) -> None:
        """Close a source and open it again; one that has ended begins anew.

        Raises:
            CommandError: there is none of that name, it is disabled, or it cannot be closed.
        """
        async with self._turn:
            place = self._find(name)
            if not place.features.is_enabled:
                msg = f"{name} is disabled: enable it"
                raise CommandError(msg)
            await self._pause(name, "restarting")
            place.runner.gauge.n_restarts += 1
            self._capture(name)

    def _find(self, name: str) -> _Place:
        self._running()
        if name not in self._places:
            msg = f"no source {shown(name)}; there are: {', '.join(self._places) or 'none'}"
            raise CommandError(msg)
        return self._places[name]

    def _running(self) -> tuple[asyncio.TaskGroup, Guard]:
        if self._group is None or self._guard is None:
            msg = "sources can only be changed while they run"
            raise CommandError(msg)
        return self._group, self._guard

    async def _add(self, chain: Chain) -> None:
        self._running()
        name = chain.source.name
        leaving = self._leaving.get(name)
        if leaving is not None and not await leaving.idle(SCORED_SECS):
            msg = f"what the former source {name} captured is still being scored: try again later"
            raise CommandError(msg)
        self._leaving.pop(name, None)
        self.place(chain)
        self._run(name)

    async def _remove(self, name: str, reason: str) -> None:
        place = self._find(name)
        await self._close(name)
        try:
            await asyncio.wait_for(place.runner.leave(reason), LEAVE_SECS)
        except TimeoutError:
            place.runner.metrics.drop("unsaid_at_removal")
        for task in (place.speaking, place.telling):
            if task is not None:
                task.cancel()
        del self._places[name]
        if not await place.runner.idle(0):
            self._leaving[name] = place.runner
        if self._reports:
            await self._outlet.say(place.runner.gauge.health())

    async def _pause(self, name: str, reason: str) -> None:
        await self._close(name)
        await self._in_time(name, self._places[name].runner.pause(reason))

    async def _in_time(self, name: str, work: Coroutine[None, None, None]) -> None:
        try:
            await asyncio.wait_for(work, LEAVE_SECS)
        except TimeoutError:
            msg = f"what {name} has seen cannot be said within {LEAVE_SECS:g} s: a sink hangs"
            raise CommandError(msg) from None

    async def _close(self, name: str) -> None:
        capturing = self._places[name].capturing
        if capturing is not None:
            capturing.cancel()
            _, pending = await asyncio.wait([capturing], timeout=CLOSE_SECS)
            if pending:
                msg = f"{name} cannot be closed within {CLOSE_SECS:g} s: try again later"
                raise CommandError(msg)

    def _run(self, name: str) -> None:
        group, guard = self._running()
        place = self._places[name]
        place.speaking = group.create_task(guard(place.runner.speak), name=f"{name}.speak")
        if self._reports:
            place.telling = group.create_task(self._tell(name, place), name="reports")
        if place.features.is_enabled:
            self._capture(name)

    def _capture(self, name: str) -> None:
        group, _ = self._running()
        place = self._places[name]
        place.has_ended = False
        place.capturing = group.create_task(self._until_ended(place), name=f"{name}.capture")

    async def _until_ended(self, place: _Place) -> None:
        await place.runner.capture()
        place.has_ended = True
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        """Over when all have ended; one that is disabled may go on if somebody can ask for it."""
        ended = [
            place.has_ended or not (place.features.is_enabled or self._can_be_asked)
            for place in self._places.values()
        ]
        if all(ended) and (ended or not self._can_be_asked):
            self.over.set()

    async def _tell(self, name: str, place: _Place) -> None:
        """Say how a source is, each time that this has changed, and what it has learned to tell."""
        runner = place.runner
        while True:
            await runner.changed.wait()
            runner.changed.clear()
            await self._outlet.say(runner.gauge.health())
            if place.has_learned:
                place.has_learned = False
                await runner.tune(place.features)
                await self._tell_info()
                await self.tell_features(name)

    async def _tell_info(self) -> None:
        if self._reports and self.tell_info is not None:
            await self.tell_info()
