"""Messages are stamped once, in order, and reach every sink or are counted."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from streams import until

from mmstream.clock import ManualClock
from mmstream.errors import SinkError
from mmstream.messages import Caption, Content, Health, NumberedStamp, Published, Stamp
from mmstream.runtime import outlet
from mmstream.runtime.outlet import Outlet
from mmstream.sinks.memory import MemorySink

UTC_NS = 1_700_000_000_000_000_000


def health(reason: str = "streaming") -> Health:
    return Health(source="cam", state="online", reason=reason, since="1970-01-01T00:00:00.000Z")


def caption(text: str) -> Caption:
    return Caption(
        id=text,
        state="final",
        revision=0,
        source="cam",
        text=text,
        kind="speech",
        ts_start="1970-01-01T00:00:00.000Z",
        ts_end="1970-01-01T00:00:00.000Z",
        t_start=0,
        t_end=0,
        confidence=1,
        language="en",
    )


class FaultySink(MemorySink):
    """Loses what `is_lost` says, after letting the loop go round."""

    def __init__(self, is_lost: Callable[[Content], bool]) -> None:
        super().__init__()
        self._is_lost = is_lost

    async def publish(self, message: Published) -> None:
        await asyncio.sleep(0)
        if self._is_lost(message.content):
            msg = "disk full"
            raise SinkError(msg)
        await super().publish(message)


class SlowSink(MemorySink):
    """Takes a message in the time in which ten are said."""

    async def publish(self, message: Published) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        await super().publish(message)


class HangingSink(MemorySink):
    """Never comes back from a `publish`."""

    async def publish(self, message: Published) -> None:  # noqa: ARG002 - as the protocol says
        await asyncio.Event().wait()


def made(*sinks: MemorySink, clock: ManualClock | None = None, live: bool = False) -> Outlet:
    clock = clock or ManualClock()
    return Outlet(node="home", boot_id="b1", clock=clock, sinks=sinks, live=live)


async def deliver(out: Outlet, *contents: Content) -> None:
    """Say all of that and let every sink have it."""
    async with asyncio.TaskGroup() as group:
        for feed in out.feeds:
            group.create_task(feed.run())
        for content in contents:
            await out.say(content)
        for feed in out.feeds:
            await feed.finish()


def texts(sink: MemorySink) -> list[str]:
    return [content.text for content in sink.contents(Caption)]


def test_messages_are_stamped() -> None:
    clock = ManualClock(5_000_000_000, UTC_NS)
    sink = MemorySink()
    out = made(sink, clock=clock)

    async def scenario() -> None:
        await out.say(caption("one"), captured_ns=4_876_500_000)
        clock.advance(1)
        await out.say(health())
        await out.say(caption("two"))
        await deliver(out)

    asyncio.run(scenario())
    one, two, three = (message.stamp for message in sink.messages)
    assert one == NumberedStamp(
        node="home", boot_id="b1", ts_emit="2023-11-14T22:13:20.000Z", seq=0, latency_ms=123.5
    )
    assert type(two) is Stamp
    assert two.ts_emit == "2023-11-14T22:13:21.000Z"
    assert three == NumberedStamp(
        node="home", boot_id="b1", ts_emit="2023-11-14T22:13:21.000Z", seq=1
    )


def test_what_is_said_at_once_is_not_lost_to_a_sink_that_keeps_up() -> None:
    n_said = 3 * outlet.MAX_QUEUED  # as at a boot, of events that the last one has left open
    sink = MemorySink()
    asyncio.run(deliver(made(sink, live=True), *(caption(str(n)) for n in range(n_said))))
    assert texts(sink) == [str(n) for n in range(n_said)]


def test_every_sink_gets_everything_in_order() -> None:
    sinks = [MemorySink(), MemorySink()]
    asyncio.run(deliver(made(*sinks), *(caption(str(n)) for n in range(50))))
    for sink in sinks:
        assert texts(sink) == [str(n) for n in range(50)]


def test_what_a_sink_cannot_take_is_counted_and_logged_once_per_episode(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost = {"1", "2", "5"}
    faulty = FaultySink(lambda content: isinstance(content, Caption) and content.text in lost)
    good = MemorySink()
    out = made(faulty, good)
    with caplog.at_level(logging.ERROR):
        asyncio.run(deliver(out, *(caption(str(n)) for n in range(8))))
    assert texts(faulty) == ["0", "3", "4", "6", "7"]
    assert len(texts(good)) == 8
    metrics = out.feeds[0].metrics
    assert (metrics.name, metrics.n_in, metrics.n_out) == ("outlet/memory", 8, 5)
    assert metrics.dropped == {"sink_error": 3}
    assert [record.message for record in caplog.records] == ["memory loses messages: disk full"] * 2


def test_a_full_queue_holds_back_those_who_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MAX_QUEUED", 3)
    sink = MemorySink()
    out = made(sink)

    async def scenario() -> None:
        speaking = [asyncio.create_task(out.say(caption(str(n)))) for n in range(10)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert [task.done() for task in speaking] == [True] * 3 + [False] * 7
        running = asyncio.create_task(out.feeds[0].run())
        await asyncio.gather(*speaking)
        await out.feeds[0].finish()
        await running

    asyncio.run(scenario())
    assert texts(sink) == [str(n) for n in range(10)]


def test_messages_leave_in_the_order_of_their_numbers_even_if_one_must_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outlet, "MAX_QUEUED", 1)
    sinks = [FaultySink(lambda _: False), MemorySink()]
    out = made(*sinks)

    async def speak(speaker: int) -> None:
        for n in range(20):
            await out.say(caption(f"{speaker}/{n}"))

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            for feed in out.feeds:
                group.create_task(feed.run())
            async with asyncio.TaskGroup() as speakers:
                for speaker in range(5):
                    speakers.create_task(speak(speaker))
            for feed in out.feeds:
                await feed.finish()

    asyncio.run(scenario())
    for sink in sinks:
        stamps = [message.stamp for message in sink.messages]
        assert [s.seq for s in stamps if isinstance(s, NumberedStamp)] == list(range(100))


class Gated(MemorySink):
    """Takes nothing while its gate is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.taken = asyncio.Event()

    async def publish(self, message: Published) -> None:
        self.taken.set()
        await self.gate.wait()
        await super().publish(message)


def test_live_a_stuck_sink_loses_its_oldest_messages_and_no_other_notices(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outlet, "MAX_QUEUED", 3)
    stuck, good = Gated(), MemorySink()
    out = made(stuck, good, live=True)
    behind, _ = out.feeds

    async def say(first: int, end: int) -> None:
        for n in range(first, end):
            await out.say(caption(str(n)))
            await until(lambda n=n: texts(good)[-1:] == [str(n)])  # type: ignore[misc]  # bound

    async def scenario() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for feed in out.feeds:
                group.create_task(feed.run())
            await say(0, 10)  # one hangs, three wait, six had to make room
            assert behind.metrics.dropped == {"sink_behind": 6}
            stuck.gate.set()
            await until(lambda: texts(stuck)[-1:] == ["9"])
            stuck.gate.clear()
            await say(10, 15)  # another episode
            stuck.gate.set()
            for feed in out.feeds:
                await feed.finish()

    asyncio.run(scenario())
    assert texts(stuck) == ["0", "7", "8", "9", "10", "12", "13", "14"]
    assert texts(good) == [str(n) for n in range(15)]
    assert behind.metrics.dropped == {"sink_behind": 7}
    assert (behind.metrics.n_in, behind.metrics.n_out) == (15, 8)
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "memory takes nothing; the oldest of 3 waiting messages are lost"
    ] * 2


def test_a_sink_that_is_only_slow_is_one_episode(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outlet, "MAX_QUEUED", 3)
    slow = SlowSink()
    out = made(slow, live=True)

    async def scenario() -> None:
        running = asyncio.create_task(out.feeds[0].run())
        for n in range(40):
            await out.say(caption(str(n)))
            if n % 4 == 0:
                await asyncio.sleep(0)
        await out.feeds[0].finish()
        await running

    asyncio.run(scenario())
    assert out.feeds[0].metrics.dropped["sink_behind"] > 10
    assert texts(slow) == sorted(texts(slow), key=int)
    assert len(caplog.records) == 1


def test_what_a_sink_that_hangs_did_not_take_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outlet, "MAX_QUEUED", 3)
    out = made(HangingSink())
    [feed] = out.feeds

    async def scenario() -> None:
        running = asyncio.create_task(feed.run())
        speaking = [asyncio.create_task(out.say(caption(str(n)))) for n in range(6)]
        await until(lambda: feed.metrics.n_in == 5)  # one hangs, three wait, one waits for room
        running.cancel()
        await asyncio.gather(running, *speaking, return_exceptions=True)
        assert all(task.done() for task in speaking)
        await out.say(caption("too late"))

    asyncio.run(scenario())
    assert (feed.metrics.n_in, feed.metrics.n_out) == (7, 0)
    assert feed.metrics.dropped == {"undelivered_at_shutdown": 7}
    assert [record.message for record in caplog.records] == [
        "memory: 5 messages were not delivered"
    ]


def test_a_defect_of_a_sink_ends_its_feed() -> None:
    class Broken(MemorySink):
        async def publish(self, message: Published) -> None:  # noqa: ARG002
            msg = "a defect"
            raise ZeroDivisionError(msg)

    out = made(Broken())

    async def scenario() -> None:
        await out.say(caption("one"))
        with pytest.raises(ZeroDivisionError):
            await out.feeds[0].run()

    asyncio.run(scenario())
    assert out.feeds[0].metrics.dropped == {"undelivered_at_shutdown": 1}


def test_latencies_are_of_the_queue() -> None:
    clock = ManualClock()
    sink = MemorySink()
    out = made(sink, clock=clock)

    async def scenario() -> None:
        await out.say(caption("one"))
        clock.advance(0.25)
        await deliver(out)

    asyncio.run(scenario())
    assert out.feeds[0].metrics.latencies.percentile_ms(50) == 250.0


def test_when_a_live_source_comes_who_waits_for_room_gets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outlet, "MAX_QUEUED", 2)
    made = Outlet(node="home", boot_id="b", clock=ManualClock(), sinks=[HangingSink()], live=False)
    [feed] = made.feeds

    async def scenario() -> None:
        feeding = asyncio.create_task(feed.run())
        for text in "abc":  # one hangs in the sink, two wait
            await made.say(caption(text))
            await asyncio.sleep(0)
        waiting = asyncio.create_task(made.say(caption("d")))
        await asyncio.sleep(0)
        assert not waiting.done()
        made.go_live()
        await asyncio.wait_for(waiting, 5)
        for text in "efg":
            await asyncio.wait_for(made.say(caption(text)), 5)
        feeding.cancel()
        await asyncio.wait([feeding])

    asyncio.run(scenario())
    assert feed.metrics.n_in == 7
    assert feed.metrics.dropped == {"sink_behind": 4, "undelivered_at_shutdown": 3}


def partial(text: str) -> Caption:
    return caption(text).model_copy(update={"state": "partial"})


def test_partials_make_room_before_any_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MAX_QUEUED", 3)
    stuck = Gated()
    out = made(stuck, live=True)
    [feed] = out.feeds

    async def scenario() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(feed.run())
            await out.say(caption("held"))
            await stuck.taken.wait()
            for said in (caption("a"), partial("p1"), partial("p2"), caption("b"), caption("c")):
                await out.say(said)
            assert feed.metrics.dropped == {"sink_behind_unneeded": 2}
            await out.say(partial("p3"))  # finals wait: it is the one to go
            assert feed.metrics.dropped == {"sink_behind_unneeded": 3}
            await out.say(caption("d"))
            assert feed.metrics.dropped == {"sink_behind_unneeded": 3, "sink_behind": 1}
            stuck.gate.set()
            await feed.finish()

    asyncio.run(scenario())
    assert texts(stuck) == ["held", "b", "c", "d"]
