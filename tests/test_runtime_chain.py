"""One source's way through the graph, with a real worker thread and a real loop."""

import asyncio
import logging
import random
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from streams import (
    BEEP,
    HOP_NS,
    ListReader,
    Script,
    ScriptedSource,
    chain_of,
    chunk_ms,
    frame,
    in_time_order,
    ms,
    pictures,
    sound,
    started,
    steady,
    until,
)

from mmstream.clock import Clock, ManualClock, SystemClock
from mmstream.errors import SourceError
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import Hop, MediaItem, Scores, Series, SourceSynced, StreamClock, StreamKind
from mmstream.messages import Event, NumberedStamp, Published
from mmstream.runtime import backoff, outlet, passage, watch
from mmstream.runtime.capture import ThreadedSource
from mmstream.runtime.chain import ChainRunner
from mmstream.runtime.features import FeatureSet
from mmstream.runtime.outlet import Outlet
from mmstream.sinks.memory import MemorySink
from mmstream.stages import Source
from mmstream.worker import Worker, WorkerSettings


class Rig:
    """A runner with a worker thread and one sink."""

    def __init__(
        self,
        source: Source,
        script: Script,
        *,
        sink: MemorySink | None = None,
        clock: Clock | None = None,
        settings: LabelSettings | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.sink = sink or MemorySink()
        self.worker = Worker([script], WorkerSettings(max_batch=1), self.clock, self._deliver)
        self.outlet = Outlet(
            node="home", boot_id="b", clock=self.clock, sinks=[self.sink], live=False
        )
        chain = chain_of(source, settings)
        self.runner = ChainRunner(chain, self.worker, self.outlet, self.clock)
        self.cut = chain.cutter.metrics
        self._loop: asyncio.AbstractEventLoop | None = None

    def _deliver(self, scored: Sequence[Scores]) -> None:
        assert self._loop is not None
        for one in scored:
            self._loop.call_soon_threadsafe(self.runner.deliver, one)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Gives the capture task; at the end comes a clean shutdown."""
        self._loop = asyncio.get_running_loop()
        working = asyncio.create_task(asyncio.to_thread(self.worker.run))
        speaking = asyncio.create_task(self.runner.speak())
        feeding = asyncio.create_task(self.outlet.feeds[0].run())
        capturing = asyncio.create_task(self.runner.capture())
        try:
            yield capturing
        finally:
            capturing.cancel()
            await asyncio.wait([capturing])
            await self.runner.finish()
            await speaking
            await self.outlet.feeds[0].finish()
            self.worker.close()
            await asyncio.gather(working, feeding)

    async def play(self) -> None:
        """Until the source has ended."""
        async with self.running() as capturing:
            await capturing

    @property
    def events(self) -> list[tuple[str, float, str | None]]:
        """(type, instant, end reason) of what was said."""
        return [
            (one.type, one.t_start if one.t_end is None else one.t_end, one.end_reason)
            for one in self.sink.contents(Event)
        ]


def pulse(one: Hop) -> Mapping[str, Series]:
    """On for the first half of each hop."""
    at_ns = np.array([one.span.start_ns, one.span.start_ns + HOP_NS // 2], np.int64)
    return {BEEP.name: Series(at_ns, np.array([0.9, 0.1], np.float32))}


PULSE = LabelSettings(for_secs=0.05, within_secs=0.1, min_off_secs=0)


def a_file(*items: MediaItem | Exception) -> ThreadedSource:
    return ThreadedSource(ListReader(items))


def indices(script: Script) -> list[int]:
    return [one.index for one, _ in script.given]


def test_a_file_is_told_from_start_to_end() -> None:
    script = Script(steady(0.9))
    rig = Rig(a_file(started(["audio"]), *sound(0, 2)), script)
    asyncio.run(rig.play())
    assert rig.events == [("start", 0.0, None), ("end", 2.0, "source_ended")]
    assert indices(script) == list(range(8))
    assert script.forgotten == ["cam"]  # at its start; at its end no batch follows
    assert rig.runner.error is None
    assert rig.runner.gauge.state == "offline"
    assert rig.runner.settled.is_set()
    assert rig.runner.metrics.n_in == 8 + 2
    assert rig.runner.metrics.n_out == 2


class SlowSink(MemorySink):
    """Takes its time for each message."""

    async def publish(self, message: Published) -> None:
        await asyncio.sleep(0.002)
        await super().publish(message)


def test_a_file_loses_nothing_to_a_slow_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MAX_QUEUED", 2)
    script = Script(pulse)
    rig = Rig(a_file(started(["audio"]), *sound(0, 20)), script, sink=SlowSink(), settings=PULSE)
    asyncio.run(rig.play())
    assert [kind for kind, *_ in rig.events] == ["start", "end"] * 80
    assert indices(script) == list(range(80))
    assert not rig.runner.metrics.dropped
    stamps = [message.stamp for message in rig.sink.messages]
    assert [one.seq for one in stamps if isinstance(one, NumberedStamp)] == list(range(160))


def test_a_file_waits_for_a_slow_scorer_and_nothing_piles_up() -> None:
    waiting: list[int] = []

    def watch(one: Hop) -> Mapping[str, Series]:
        waiting.append(rig.worker.metrics.n_in - rig.runner.metrics.n_in)
        return pulse(one)

    script = Script(watch, secs_per_batch=0.001)
    rig = Rig(a_file(started(["audio"]), *sound(0, 25)), script, settings=PULSE)
    asyncio.run(rig.play())
    assert max(waiting) <= passage.MAX_IN_FLIGHT
    assert max(waiting) > passage.MAX_IN_FLIGHT // 2
    assert indices(script) == list(range(100))
    assert rig.events[-1] == ("end", 24.875, "quiet")


def test_what_a_file_leaves_at_its_end_waits_for_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "MAX_IN_FLIGHT", 2)
    monkeypatch.setattr(passage, "MAX_TO_SAY", 4)
    monkeypatch.setattr(outlet, "MAX_QUEUED", 1)
    # Pictures never come: all 32 hops settle at the end of the file.
    source = a_file(started(), *sound(0, 8))
    rig = Rig(source, Script(pulse), sink=SlowSink(), settings=PULSE)
    asyncio.run(rig.play())
    assert [kind for kind, *_ in rig.events] == ["start", "end"] * 32
    assert not rig.runner.metrics.dropped


def test_a_file_that_breaks_off_is_told_up_to_there(caplog: pytest.LogCaptureFixture) -> None:
    source = a_file(started(["audio"]), *sound(0, 1), SourceError("cam.mp4 is cut off"))
    rig = Rig(source, Script(steady(0.9)))
    asyncio.run(rig.play())
    assert rig.events == [("start", 0.0, None), ("end", 1.0, "source_ended")]
    assert str(rig.runner.error) == "cam.mp4 is cut off"
    health = rig.runner.gauge.health()
    assert (health.state, health.reason) == ("offline", "cam.mp4 is cut off")
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "cam: cam.mp4 is cut off"
    ]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (ZeroDivisionError("rtsp://me:secret@cam/1"), "ZeroDivisionError: rtsp://***@cam/1"),
        (frame(0), "StateError: cam sent video that its SourceStarted did not announce"),
    ],
)
def test_a_defect_of_a_source_is_its_own_failure(
    item: MediaItem | Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(a_file(started(["audio"]), *sound(0, 1), item), Script(steady(0.9)))
    with caplog.at_level(logging.ERROR):
        asyncio.run(rig.play())
    assert rig.events[-1] == ("end", 1.0, "source_ended")
    assert isinstance(rig.runner.error, SourceError)
    assert str(rig.runner.error) == reason
    assert "secret" not in caplog.text


def test_a_new_start_in_the_middle_ends_events_and_forgets() -> None:
    script = Script(steady(0.9))
    again = started(["audio"], utc_offset_ns=1_000_000_000_000)
    rig = Rig(a_file(started(["audio"]), *sound(0, 1), again, *sound(0, 1)), script)
    asyncio.run(rig.play())
    assert rig.events == [
        ("start", 0.0, None),
        ("end", 1.0, "source_ended"),
        ("start", 1000.0, None),
        ("end", 1001.0, "source_ended"),
    ]
    assert [(one.index, one.gap_before) for one, _ in script.given][3:6] == [
        (3, False),
        (0, True),
        (1, False),
    ]
    assert script.forgotten == ["cam", "cam"]


def test_latency_counts_from_the_capture_of_what_decided() -> None:
    clock = ManualClock(monotonic_ns=100_000_000_000)
    items: list[MediaItem] = [started(["audio"], clock_offset_ns=ms(98_000)), *sound(0, 1)]
    rig = Rig(a_file(*items), Script(steady(0.9)), clock=clock)
    asyncio.run(rig.play())
    stamps = [message.stamp for message in rig.sink.messages]
    # It is 100 s; enough had been heard at 98.2 s, and the end was at 99 s.
    assert [one.latency_ms for one in stamps if isinstance(one, NumberedStamp)] == [1800.0, 1000.0]
    assert rig.runner.metrics.latencies.percentile_ms(100) == 1800.0
    assert rig.runner.gauge.lag_ms == 1000.0


def test_an_end_said_after_a_new_start_is_measured_on_the_old_clock() -> None:
    clock = ManualClock(monotonic_ns=100_000_000_000)
    items: list[MediaItem] = [started(["audio"], clock_offset_ns=ms(98_000)), *sound(0, 1)]
    items += [started(["audio"], clock_offset_ns=0), *sound(99, 100)]
    rig = Rig(a_file(*items), Script(steady(0.9)), clock=clock)
    asyncio.run(rig.play())
    stamps = [message.stamp for message in rig.sink.messages]
    assert [one.latency_ms for one in stamps if isinstance(one, NumberedStamp)] == [
        1800.0,
        1000.0,
        800.0,
        0.0,
    ]


def test_media_read_faster_than_it_plays_has_no_latency() -> None:
    rig = Rig(a_file(started(["audio"]), *sound(0, 1)), Script(steady(0.9)))
    asyncio.run(rig.play())
    assert [getattr(message.stamp, "latency_ms", 1) for message in rig.sink.messages] == [None] * 2
    assert rig.runner.gauge.lag_ms is None


def test_a_live_source_is_opened_again_with_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_SECS", 0.001)
    delays: list[float] = []

    def draw(low: float, high: float) -> float:
        assert (low, high) == (0.5, 1.0)
        delays.append(high)
        return high

    monkeypatch.setattr(random, "uniform", draw)
    script = Script(steady(0.9))

    async def play(n: int) -> AsyncIterator[MediaItem]:
        if n in (2, 3):
            msg = "connection refused"
            raise SourceError(msg)
        yield started(["audio"], clock_offset_ns=0)
        for item in sound(10 * n, 10 * n + 1):
            yield item
        if n == 4:
            await asyncio.Event().wait()

    source = ScriptedSource(play)
    rig = Rig(source, script)

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: len(script.given) == 8)
            assert rig.runner.gauge.state == "online"
            assert rig.runner.error is None

    asyncio.run(scenario())
    assert rig.events == [
        ("start", 10.0, None),
        ("end", 11.0, "source_ended"),
        ("start", 40.0, None),
        ("end", 41.0, "shutdown"),
    ]
    assert rig.runner.gauge.n_restarts == 3
    assert len(delays) == 3
    assert [one.gap_before for one, _ in script.given] == [False] * 4 + [True] + [False] * 3
    assert script.forgotten == ["cam", "cam"]


def test_while_it_fails_it_is_offline_since_the_first_failure_and_stays_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_SECS", 0.001)

    async def refuse(n: int) -> AsyncIterator[MediaItem]:
        if n > 0:
            clock.advance(1)
            msg = "connection refused" if n < 4 else "no route"
            raise SourceError(msg)
        yield started()

    clock = ManualClock()
    source = ScriptedSource(refuse)
    rig = Rig(source, Script(steady(0.9)), clock=clock)
    told: list[tuple[str, str, str]] = []

    async def tell() -> None:
        while True:
            await rig.runner.changed.wait()
            rig.runner.changed.clear()
            health = rig.runner.gauge.health()
            told.append((health.state, health.reason, health.since[17:]))

    async def scenario() -> None:
        async with rig.running():
            telling = asyncio.create_task(tell())
            await until(lambda: source.n_opened > 5)
            telling.cancel()

    asyncio.run(scenario())
    assert told == [
        ("offline", "connection refused", "01.000Z"),
        ("offline", "no route", "01.000Z"),
    ]
    assert rig.runner.settled.is_set()


def test_a_live_source_that_keeps_failing_is_logged_when_the_reason_changes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_SECS", 0.001)
    monkeypatch.setattr(backoff, "MAX_RETRY_SECS", 0.001)

    async def play(n: int) -> AsyncIterator[MediaItem]:
        if n == 7:
            yield started(["audio"])
        msg = "no route" if n < 4 else "refused"
        raise SourceError(msg)

    source = ScriptedSource(play)
    rig = Rig(source, Script(steady(0.9)))

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: source.n_opened > 10)

    asyncio.run(scenario())
    logged = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert logged == ["cam: no route", "cam: refused", "cam: refused"]  # it had worked again


def test_a_defect_of_the_watchdog_is_seen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "MIN_WATCH_SECS", "a defect")

    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"])
        await asyncio.Event().wait()

    rig = Rig(ScriptedSource(play), Script(steady(0.9)))

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: rig.runner.error is not None)

    asyncio.run(scenario())
    assert caplog.records[-1].message.startswith("cam: TypeError: ")


def test_a_stall_ends_events_and_the_source_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STALL_SECS", 0.05)
    script = Script(steady(0.9))
    states: list[str] = []

    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"], clock_offset_ns=0)
        for item in sound(0, 1):
            yield item
        await until(lambda: rig.runner.gauge.state == "stalled")
        await until(lambda: len(rig.events) == 2)
        states.append(rig.runner.gauge.health().reason)
        for item in sound(20, 21):
            yield item
        states.append(rig.runner.gauge.state)
        await asyncio.Event().wait()

    source = ScriptedSource(play)
    rig = Rig(source, script)

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: len(rig.events) == 3)

    asyncio.run(scenario())
    assert states == ["nothing came for 0.05 s", "online"]
    assert source.n_opened == 1
    assert rig.events == [
        ("start", 0.0, None),
        ("end", 1.0, "source_stalled"),
        ("start", 20.0, None),
        ("end", 21.0, "shutdown"),
    ]
    assert rig.runner.gauge.n_restarts == 0


def test_a_stall_that_lasts_opens_the_source_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STALL_SECS", 0.05)
    monkeypatch.setattr(watch, "REOPEN_SECS", 0.1)
    monkeypatch.setattr(backoff, "FIRST_RETRY_SECS", 0.01)

    async def play(n_opened: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"], clock_offset_ns=0)
        for item in sound(10 * n_opened, 10 * n_opened + 1):
            yield item
        await asyncio.Event().wait()

    source = ScriptedSource(play)
    rig = Rig(source, Script(steady(0.9)))

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: len(rig.events) >= 3)

    asyncio.run(scenario())
    assert [what for what, *_ in rig.events[:3]] == ["start", "end", "start"]
    assert rig.events[1][2] == "source_stalled"
    assert source.n_opened >= 2
    assert rig.runner.gauge.n_restarts >= 1


def test_a_stall_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STALL_SECS", 0.01)

    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"])
        await asyncio.Event().wait()

    rig = Rig(ScriptedSource(play), Script(steady(0.9)))

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: rig.runner.gauge.state == "stalled")
            await until(lambda: rig.runner.metrics.n_in == 2)  # its start and its stall
            await asyncio.sleep(0.15)  # three more looks of the watchdog
            assert rig.runner.metrics.n_in == 2

    asyncio.run(scenario())


def test_a_file_never_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STALL_SECS", 0.0)

    class Slow(ListReader):
        @contextmanager
        def read(self) -> Iterator[Iterator[MediaItem]]:
            yield self._slowly()

        def _slowly(self) -> Iterator[MediaItem]:
            yield started(["audio"])
            SystemClock().sleep(0.12)
            yield from sound(0, 1)

    rig = Rig(ThreadedSource(Slow([])), Script(steady(0.9)))
    asyncio.run(rig.play())
    assert rig.events == [("start", 0.0, None), ("end", 1.0, "source_ended")]
    assert rig.runner.metrics.n_in == 1 + 4 + 1  # no stall among it


def test_stopping_says_what_is_cut_and_ends_what_is_open() -> None:
    script = Script(steady(0.9))

    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"])
        for item in sound(0, 1.1):
            yield item
        await asyncio.Event().wait()

    rig = Rig(ScriptedSource(play), script)

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: len(script.given) == 4)

    asyncio.run(scenario())
    assert indices(script) == [0, 1, 2, 3, 4]
    assert rig.events == [("start", 0.0, None), ("end", 1.1, "shutdown")]


def test_hops_that_waited_for_room_when_it_was_stopped_are_not_lost() -> None:
    source = a_file(started(), *sound(0, 8), frame(ms(8_000)))  # settles 32 hops at once
    script = Script(steady(0.9), secs_per_batch=0.002)
    rig = Rig(source, script)

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: len(script.given) >= 2)

    asyncio.run(scenario())
    assert indices(script) == list(range(33))
    assert rig.events[-1] == ("end", 8.0, "shutdown")


def test_hops_that_are_not_scored_in_time_at_a_stop_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passage, "DRAIN_SECS", 0.02)
    script = Script(steady(0.9), secs_per_batch=0.1)
    rig = Rig(a_file(started(["audio"]), *sound(0, 10)), script)

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: rig.worker.metrics.n_in >= passage.MAX_IN_FLIGHT)

    asyncio.run(scenario())
    n_lost = rig.runner.metrics.dropped["unscored_at_shutdown"]
    assert n_lost > 0
    assert rig.cut.n_out - rig.runner.metrics.n_in + 1 == n_lost  # one item was the start
    assert len(script.given) < 4  # what nobody waits for is not scored


def test_scores_that_slow_sinks_hold_up_are_counted_for_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passage, "MAX_TO_SAY", 4)
    monkeypatch.setattr(outlet, "MAX_QUEUED", 1)
    let_go = asyncio.Event()

    class Stuck(MemorySink):
        async def publish(self, message: Published) -> None:
            await let_go.wait()
            await super().publish(message)

    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"])
        for item in sound(0, 10):
            yield item
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    script = Script(pulse)
    rig = Rig(ScriptedSource(play), script, sink=Stuck(), settings=PULSE)

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: rig.cut.n_out == 40)
            await until(lambda: rig.worker.metrics.n_out + n_dropped() == 40)
            let_go.set()

    def n_dropped() -> int:
        return rig.worker.metrics.dropped["hop_dropped"]

    asyncio.run(scenario())
    n_behind = rig.runner.metrics.dropped["sinks_behind"]
    assert n_behind > 0
    # The start, and every hop but those: said, dropped by the worker, or counted as behind.
    assert rig.runner.metrics.n_in == 1 + 40 - n_behind - n_dropped()
    assert rig.events[-1][0] == "end"


def test_a_live_source_that_ends_under_overload_still_ends_its_events() -> None:
    script = Script(steady(0.9), secs_per_batch=0.003)

    async def play(n: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"])
        if n > 1:
            await asyncio.Event().wait()
        for item in sound(0, 1):
            yield item
        await until(lambda: len(rig.events) == 1)
        for item in sound(1, 20):
            yield item

    rig = Rig(ScriptedSource(play), script, settings=LabelSettings(min_off_secs=60))

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: len(rig.events) == 2)

    asyncio.run(scenario())
    assert rig.worker.metrics.dropped["hop_dropped"] > 0
    assert rig.events == [("start", 0.0, None), ("end", 20.0, "source_ended")]


def test_the_gauge_sees_what_passes() -> None:
    source = a_file(started(), *pictures(0, 1, fps=25), *sound(0, 1))
    rig = Rig(source, Script(steady(0.1)))

    async def scenario() -> None:
        async with rig.running() as capturing:
            await capturing
            assert rig.runner.changed.is_set()

    asyncio.run(scenario())
    assert [stage.name for stage in rig.runner.stages] == [
        "capture/cam",
        "windows/cam",
        "heads/cam",
    ]
    assert rig.runner.gauge.status().reason == "ended"


def test_late_items_do_not_stop_a_live_source() -> None:
    script = Script(steady(0.9))

    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield started()
        late: list[MediaItem] = [*pictures(0, 0.2), chunk_ms(0, 100)]
        backward: list[MediaItem] = [frame(ms(1_900)), frame(ms(1_900)), frame(ms(1_800))]
        for item in (*sound(0, 1), *late, *sound(1, 2), frame(0), *backward):
            yield item
        await asyncio.Event().wait()

    rig = Rig(ScriptedSource(play), script)

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: rig.cut.n_in == 1 + 50 + 4 + 1 + 50 + 4)
            assert rig.runner.gauge.state == "online"

    asyncio.run(scenario())
    assert indices(script) == list(range(8))
    assert rig.cut.dropped == {"late_frames": 5, "late_samples": 1600, "backward_frames": 2}


def health_of(rig: Rig) -> tuple[str, str]:
    return rig.runner.gauge.state, rig.runner.gauge.reason


def test_what_is_missing_from_the_start_makes_it_degraded() -> None:
    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield replace(started(["video"]), missing=("there is no microphone", "no light"))
        for item in pictures(0, 1):
            yield item
        await asyncio.Event().wait()

    rig = Rig(ScriptedSource(play), Script(steady(0.9)))

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: rig.cut.n_in == 21)
            assert health_of(rig) == ("degraded", "there is no microphone; no light")
            assert rig.runner.changed.is_set()
            assert rig.runner.settled.is_set()

    asyncio.run(scenario())


def test_a_stream_that_stops_while_the_other_goes_on_makes_it_degraded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "STALL_SECS", 0.1)
    seen: list[tuple[str, str]] = []

    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield started(clock_offset_ns=0)
        yield frame(0)
        at = 0
        while not seen:
            yield chunk_ms(at, at + 20)
            at += 20
            await asyncio.sleep(0.001)
            if rig.runner.gauge.state != "online":
                seen.append(health_of(rig))
        yield frame(ms(at))
        seen.append(health_of(rig))
        await asyncio.Event().wait()

    source = ScriptedSource(play)
    rig = Rig(source, Script(steady(0.1)))

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: len(seen) == 2)
            await until(lambda: rig.runner.gauge.state == "stalled")

    asyncio.run(scenario())
    assert seen == [("degraded", "no video for 0.1 s"), ("online", "streaming")]
    assert source.n_opened == 1


def test_a_stream_that_stays_away_has_the_source_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "STALL_SECS", 0.1)
    monkeypatch.setattr(watch, "REOPEN_SECS", 0.2)
    monkeypatch.setattr(backoff, "FIRST_RETRY_SECS", 0.01)
    reasons: set[str] = set()

    async def play(n_opened: int) -> AsyncIterator[MediaItem]:
        yield started(clock_offset_ns=0)
        at = 10_000 * n_opened
        yield frame(ms(at))
        while True:
            yield chunk_ms(at, at + 20)
            at += 20
            reasons.add(rig.runner.gauge.reason)
            await asyncio.sleep(0.001)

    source = ScriptedSource(play)
    rig = Rig(source, Script(steady(0.1)))

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: source.n_opened == 2)
            assert str(rig.runner.error) == "no video for 0.2 s" or rig.runner.error is None

    asyncio.run(scenario())
    assert "no video for 0.1 s" in reasons


def test_what_is_no_sound_and_no_picture_does_not_hide_a_stall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "STALL_SECS", 0.1)

    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield started(clock_offset_ns=0)
        yield frame(0)
        while True:
            yield StreamClock("cam", "video", 1.0)
            await asyncio.sleep(0.001)

    rig = Rig(ScriptedSource(play), Script(steady(0.1)))

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: rig.runner.gauge.state == "stalled")

    asyncio.run(scenario())


@pytest.mark.parametrize("item", [SourceSynced("cam"), started(["audio"], clock_offset_ns=0)])
def test_that_both_are_on_one_clock_is_told_at_once(item: MediaItem) -> None:
    go_on = asyncio.Event()

    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield replace(started(["audio"], clock_offset_ns=0), synced=False)
        await go_on.wait()
        yield item
        await asyncio.Event().wait()

    rig = Rig(ScriptedSource(play), Script(steady(0.1)))

    async def scenario() -> None:
        async with rig.running():
            await until(rig.runner.changed.is_set)
            assert not rig.runner.gauge.health().synced
            rig.runner.changed.clear()
            go_on.set()
            await until(rig.runner.changed.is_set)
            assert rig.runner.gauge.health().synced

    asyncio.run(scenario())


def test_a_worker_that_stands_still_stops_neither_capture_nor_watchdog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "STALL_SECS", 0.1)
    monkeypatch.setattr(watch, "REOPEN_SECS", 0.2)
    monkeypatch.setattr(backoff, "FIRST_RETRY_SECS", 0.005)
    go_on = threading.Event()
    states: list[str] = []

    def stand_still(one: Hop) -> Mapping[str, Series]:
        go_on.wait(20)
        return steady(0.9)(one)

    async def play(n: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"], clock_offset_ns=0)
        for item in sound(100 * n, 100 * n + 10):  # 40 hops
            yield item
        if n > 2:
            states.append(rig.runner.gauge.state)
            await asyncio.Event().wait()
        await until(lambda: rig.runner.gauge.state == "stalled")
        states.append("stalled")
        await asyncio.Event().wait()

    script = Script(stand_still)
    source = ScriptedSource(play)
    rig = Rig(source, script)
    rig_behind = rig.runner.metrics

    async def scenario() -> None:
        async with rig.running():
            await until(lambda: len(states) == 3)
            go_on.set()
            await until(lambda: indices(script)[-1:] == [310 * 4 - 1])

    asyncio.run(scenario())
    assert states == ["stalled", "stalled", "online"]
    assert rig.cut.n_out == 120
    n_lost = rig.worker.metrics.dropped["hop_dropped"] + rig_behind.dropped["worker_behind"]
    assert n_lost == 120 - len(script.given)
    assert rig_behind.dropped["worker_behind"] >= 40
    assert [kind for kind, *_ in rig.events] == ["start", "end"] * (len(rig.events) // 2)
    assert "source_stalled" in [why for *_, why in rig.events]
    assert rig.events[-1] == ("end", 310.0, "shutdown")
    follows = [two.index != one.index + 1 for (one, _), (two, _) in pairwise(script.given)]
    assert [one.gap_before for one, _ in script.given[1:]] == follows


def test_what_is_set_while_it_runs_holds_from_the_next_hop_on() -> None:
    script = Script(steady(0.9))
    streams: tuple[StreamKind, ...] = ("audio", "video")
    items = [started(streams, clock_offset_ns=0), *in_time_order(sound(0, 2), pictures(0, 2))]

    async def play_and_stay(_: int) -> AsyncIterator[MediaItem]:
        for item in items:
            yield item
        await more.wait()
        for item in in_time_order(sound(2, 4), pictures(2, 4)):
            yield item
        await asyncio.Event().wait()

    more = asyncio.Event()

    async def scenario() -> None:
        rig = Rig(ScriptedSource(play_and_stay), script)
        async with rig.running():
            await until(lambda: len(script.given) == 7)
            features = FeatureSet((BEEP,), {BEEP.name: 0.5}, {"audio": False})
            await rig.runner.tune(features)
            await until(lambda: len(rig.events) == 2)
            more.set()
            await until(lambda: len(script.given) == 15)
        assert rig.events == [("start", 0.0, None), ("end", 1.75, "disabled")]

    asyncio.run(scenario())
    heard = [bool(one.heard.any()) for one, _ in script.given]
    assert heard == [index < 7 for index in range(16)]
    assert all(one.frames for one, _ in script.given)
