"""Hops and the marks among them: always in order, never held up when live, bounded."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import hop, started

from mmstream.clock import ManualClock
from mmstream.heads.events import HeadItem, Tuning
from mmstream.media import Hop, Scores, SourceEnded, SourceStalled, SourceStarted, Span
from mmstream.metrics import StageMetrics
from mmstream.runtime import passage
from mmstream.runtime.passage import Passage
from mmstream.worker import Ending, Worker, WorkerSettings

ENDED = SourceEnded("cam")


class Held(Worker):
    """A worker that nobody runs: the test delivers what it likes."""

    def __init__(self, *, queue_hops: int = 4, finishes: bool = False) -> None:
        super().__init__([], WorkerSettings(queue_hops=queue_hops), ManualClock(), lambda _: None)
        self.finishes = finishes
        self.endings: list[Ending] = []
        self.hops: list[Hop] = []
        self.log: list[int | str] = []

    def submit(self, hop: Hop, *, live: bool) -> int:
        n_dropped = super().submit(hop, live=live)
        self.hops.append(hop)
        del self.hops[:n_dropped]
        self.log.append(hop.index)
        return n_dropped

    def finish(self, ending: Ending) -> None:
        super().finish(ending)
        self.endings.append(ending)
        self.log.append("finish")

    def forget(self, source: str) -> None:
        super().forget(source)
        self.log.append(f"forget {source}")


def scores(one: Hop) -> Scores:
    return Scores(one.source, one.index, one.span)


class Rig:
    def __init__(self, *, live: bool, finishes: bool = False) -> None:
        self.worker = Held(queue_hops=passage.MAX_BEHIND, finishes=finishes)
        self.metrics = StageMetrics("heads/cam")
        self.passage = Passage("cam", self.worker, self.metrics, live=live)

    def score_one(self) -> None:
        self.passage.deliver(scores(self.worker.hops.pop(0)))

    def finish_one(self) -> None:
        one = self.worker.endings.pop(0)
        self.passage.deliver(Scores(one.source, one.index, Span(one.at_ns, one.at_ns)))

    async def said(self) -> list[int | type[HeadItem] | None]:
        """Everything there is to say now."""
        got: list[int | type[HeadItem] | None] = []
        while self.passage.n_unsaid:
            match await self.passage.next():
                case Scores() as scored:
                    got.append(scored.index)
                case None:
                    got.append(None)
                case mark:
                    got.append(type(mark))
        return got


def test_a_mark_passes_when_all_before_it_is_scored_and_holds_back_what_follows() -> None:
    async def scenario() -> None:
        rig = Rig(live=True)
        await rig.passage.mark(started())
        await rig.passage.put([hop(0), hop(1)])
        await rig.passage.mark(ENDED)
        await rig.passage.mark(started())
        await rig.passage.put([hop(2)])
        assert rig.worker.log == ["forget cam", 0, 1]
        rig.score_one()
        assert rig.worker.log == ["forget cam", 0, 1]
        rig.score_one()
        assert rig.worker.log == ["forget cam", 0, 1, "forget cam", "forget cam", 2]
        rig.score_one()
        said = await rig.said()
        assert said == [SourceStarted, 0, 1, SourceEnded, SourceStarted, 2]
        assert rig.passage.is_idle

    asyncio.run(scenario())


def test_a_stall_forgets_nothing() -> None:
    async def scenario() -> None:
        rig = Rig(live=True)
        await rig.passage.mark(SourceStalled("cam", 0))
        assert rig.worker.log == []
        assert await rig.said() == [SourceStalled]

    asyncio.run(scenario())


@pytest.mark.parametrize("end", [ENDED, SourceStalled("cam", 0)])
@pytest.mark.parametrize("live", [True, False])
def test_what_scorers_have_left_comes_after_the_last_hop_and_before_the_mark(
    end: SourceEnded | SourceStalled, *, live: bool
) -> None:
    async def scenario() -> None:
        rig = Rig(live=live, finishes=True)
        await rig.passage.put([hop(6), hop(7)])
        marking = asyncio.create_task(rig.passage.mark(end))
        await asyncio.sleep(0)
        assert rig.worker.log == [6, 7]
        rig.score_one()
        rig.score_one()
        assert rig.worker.log == [6, 7, "finish"]
        assert rig.worker.endings == [Ending("cam", 8, hop(7).span.end_ns, live=live)]
        assert not rig.passage.is_idle
        assert await rig.said() == [6, 7]
        rig.finish_one()
        await marking
        assert await rig.said() == [8, type(end)]

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_where_nothing_was_heard_since_nothing_is_left() -> None:
    async def scenario() -> None:
        rig = Rig(live=True, finishes=True)
        await rig.passage.put([hop(0)])
        rig.score_one()
        await rig.passage.mark(SourceStalled("cam", 0))
        rig.finish_one()
        await rig.passage.mark(ENDED)
        assert rig.worker.log == [0, "finish", "forget cam"]
        assert await rig.said() == [0, 1, SourceStalled, SourceEnded]

    asyncio.run(scenario())


@pytest.mark.parametrize("live", [True, False])
def test_at_shutdown_what_scorers_have_left_is_said_last(*, live: bool) -> None:
    async def scenario() -> None:
        rig = Rig(live=live, finishes=True)
        await rig.passage.put([hop(0)])
        finishing = asyncio.create_task(rig.passage.finish([hop(1)], None))
        await asyncio.sleep(0)
        rig.score_one()
        rig.score_one()
        rig.finish_one()
        await finishing
        assert await rig.said() == [0, 1, 2, None]
        assert not rig.metrics.dropped

    asyncio.run(asyncio.wait_for(scenario(), 5))


STEPS = st.lists(
    st.one_of(st.just("mark"), st.just("score"), st.just("say"), st.integers(1, 30)), max_size=60
)


@given(STEPS)
def test_live_nothing_waits_all_is_bounded_and_in_order_and_counted(
    steps: Sequence[str | int],
) -> None:
    async def scenario() -> None:
        rig = Rig(live=True)
        n_hops, said = 0, []
        for step in steps:
            match step:
                case "mark":
                    await rig.passage.mark(ENDED)
                case "score" if rig.worker.hops:
                    rig.score_one()
                case "say":
                    said += await rig.said()
                case int(n):
                    await rig.passage.put([hop(n_hops + index) for index in range(n)])
                    n_hops += n
            assert len(rig.worker.hops) <= passage.MAX_BEHIND
        while rig.worker.hops:
            rig.score_one()
        said += await rig.said()
        assert rig.passage.is_idle
        indices = [one for one in said if isinstance(one, int)]
        assert indices == sorted(set(indices))
        n_lost = rig.metrics.dropped["worker_behind"] + rig.worker.metrics.dropped["hop_dropped"]
        assert len(indices) + n_lost == n_hops
        assert said.count(SourceEnded) == steps.count("mark")

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_behind_a_mark_the_oldest_make_room_and_the_next_says_so() -> None:
    async def scenario() -> None:
        rig = Rig(live=True)
        await rig.passage.put([hop(0)])
        await rig.passage.mark(ENDED)
        await rig.passage.put([hop(index) for index in range(1, passage.MAX_BEHIND + 4)])
        rig.score_one()
        gaps = [(one.index, one.gap_before) for one in rig.worker.hops]
        assert gaps[:2] == [(4, True), (5, False)]
        assert len(gaps) == passage.MAX_BEHIND
        assert rig.metrics.dropped == {"worker_behind": 3}

    asyncio.run(scenario())


def test_more_marks_than_may_be_on_their_way_wait() -> None:
    async def scenario() -> None:
        rig = Rig(live=True)
        for _ in range(passage.MAX_MARKS):
            await rig.passage.mark(ENDED)
        waiting = asyncio.create_task(rig.passage.mark(ENDED))
        await asyncio.sleep(0)
        assert not waiting.done()
        await rig.passage.next()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())


def test_a_file_waits_for_room_and_gets_it_when_something_is_said() -> None:
    async def scenario() -> None:
        rig = Rig(live=False)
        hops = [hop(index) for index in range(passage.MAX_IN_FLIGHT + 1)]
        putting = asyncio.create_task(rig.passage.put(hops))
        await asyncio.sleep(0)
        rig.score_one()
        await asyncio.sleep(0)
        assert not putting.done()  # scored is not said
        assert await rig.said() == [0]
        rig.passage.said()
        await asyncio.wait_for(putting, 5)
        assert rig.worker.log == list(range(len(hops)))

    asyncio.run(scenario())


def test_scores_that_nobody_takes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "MAX_TO_SAY", 2)

    async def scenario() -> None:
        rig = Rig(live=True)
        await rig.passage.put([hop(0), hop(1), hop(2)])
        for _ in range(3):
            rig.score_one()
        assert await rig.said() == [0, 1]
        assert rig.metrics.dropped == {"sinks_behind": 1}

    asyncio.run(scenario())


@pytest.mark.parametrize("leaves", [False, True])
def test_at_the_end_what_is_not_scored_in_time_is_counted(
    monkeypatch: pytest.MonkeyPatch, *, leaves: bool
) -> None:
    monkeypatch.setattr(passage, "DRAIN_SECS", 0.01)

    async def scenario() -> None:
        rig = Rig(live=True)
        await rig.passage.put([hop(0), hop(1)])
        await rig.passage.mark(SourceStalled("cam", 0))
        await rig.passage.finish([hop(2)], ENDED if leaves else None)
        ends = [SourceEnded] if leaves else []
        assert await rig.said() == [SourceStalled, *ends, None]
        assert rig.metrics.dropped == {"unscored_at_shutdown": 3}
        assert rig.worker.log == ([0, 1] if leaves else [0, 1, "forget cam"])
        if leaves:  # the worker still has two: its name is free when they are done
            rig.score_one()
            assert not await rig.passage.idle(0.01)
            rig.score_one()
            assert await rig.passage.idle(0.01)
            assert rig.worker.log[-1] == "forget cam"
            assert await rig.said() == []

    asyncio.run(scenario())


@pytest.mark.parametrize("live", [True, False])
def test_a_tuning_keeps_its_place_forgets_nothing_and_waits_for_nobody(*, live: bool) -> None:
    async def scenario() -> None:
        rig = Rig(live=live)
        await rig.passage.put([hop(0)])
        async with asyncio.timeout(1):
            await rig.passage.tune(Tuning("cam"))
        assert rig.worker.log == [0]
        rig.score_one()
        await rig.passage.put([hop(1)])
        rig.score_one()
        assert await rig.said() == [0, Tuning, 1]
        assert rig.worker.log == [0, 1]

    asyncio.run(scenario())


def test_tunings_are_bounded_and_nothing_follows_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "MAX_MARKS", 2)

    async def scenario() -> None:
        rig = Rig(live=True)
        await rig.passage.put([hop(0)])
        for _ in range(2):
            await rig.passage.tune(Tuning("cam"))
        third = asyncio.create_task(rig.passage.tune(Tuning("cam")))
        await asyncio.sleep(0)
        assert not third.done()
        rig.score_one()
        assert await rig.said() == [0, Tuning, Tuning]
        await third
        await rig.passage.finish([], None)
        await rig.passage.tune(Tuning("cam"))
        assert await rig.said() == [Tuning, None]

    asyncio.run(scenario())
