import asyncio
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sink_messages import event, published
from spools import SteppedThread, stepped

from mmstream.messages import NumberedStamp, Published
from mmstream.sinks.mqtt_topics import Packet
from mmstream.sinks.outbox import Outbox, Pace, SpooledOutbox, Waiting
from mmstream.sinks.spool import Spool

CHANGE = Packet("mmstream/pi/door/state/motion", "ON", qos=1, retain=True)


@dataclass(frozen=True)
class Put:
    pass


@dataclass(frozen=True)
class Take:
    window: int


@dataclass(frozen=True)
class Pop:
    index: int
    """Of those that are under way."""


@dataclass(frozen=True)
class StartOver:
    pass


Step = Put | Take | Pop | StartOver
STEPS = st.lists(
    st.one_of(
        st.just(Put()),
        st.builds(Take, st.integers(1, 5)),
        st.builds(Pop, st.integers(0, 2)),
        st.just(StartOver()),
    ),
    max_size=40,
)


@dataclass
class Entry:
    """What the test knows of a message."""

    seq: int
    key: int | None = None
    """Once it is under way."""
    is_late: bool = False


def seq_of(message: Published) -> int | None:
    assert isinstance(message.stamp, NumberedStamp)
    return message.stamp.seq


def is_late(waiting: Waiting) -> bool:
    assert isinstance(waiting.message.stamp, NumberedStamp)
    return waiting.message.stamp.late


@given(limit=st.integers(1, 6), steps=STEPS)
def test_is_a_bounded_line_in_order(limit: int, steps: list[Step]) -> None:
    outbox = Outbox(limit)
    model: list[Entry] = []
    for seq, step in enumerate(steps):
        under_way = [entry for entry in model if entry.key is not None]
        match step:
            case Put():
                evicted = outbox.put(published(event("e"), seq), (CHANGE,))
                expected = model.pop(0).seq if len(model) == limit else None
                model.append(Entry(seq))
                assert (None if evicted is None else seq_of(evicted.message)) == expected
            case Take(window):
                taken = outbox.take(window)
                expected_entries = [entry for entry in model[:window] if entry.key is None]
                assert [(seq_of(one.message), is_late(one)) for one in taken] == [
                    (entry.seq, entry.is_late) for entry in expected_entries
                ]
                assert all(one.changes == (() if is_late(one) else (CHANGE,)) for one in taken)
                for entry, one in zip(expected_entries, taken, strict=True):
                    entry.key = one.key
            case Pop(index) if index < len(under_way):
                key = under_way[index].key
                assert key is not None
                outbox.pop(key)
                model.remove(under_way[index])
            case StartOver():
                outbox.start_over()
                model = [Entry(entry.seq, is_late=True) for entry in model]
        assert len(outbox) == len(model) <= limit


def test_what_is_under_way_is_not_taken_again_until_it_starts_over() -> None:
    outbox = Outbox(10)
    for seq in range(5):
        outbox.put(published(event("e"), seq))
    assert [seq_of(one.message) for one in outbox.take(3)] == [0, 1, 2]
    assert outbox.take(3) == ()
    outbox.pop(1)
    assert [seq_of(one.message) for one in outbox.take(3)] == [3]
    outbox.start_over()
    assert [seq_of(one.message) for one in outbox.take(10)] == [0, 2, 3, 4]
    assert outbox.clear() == 4
    assert outbox.take(3) == ()


def test_an_acknowledgement_may_come_after_the_message_had_to_make_room() -> None:
    outbox = Outbox(1)
    outbox.put(published(event("e"), 0))
    [under_way] = outbox.take(1)
    outbox.put(published(event("e"), 1))
    outbox.pop(under_way.key)
    assert [seq_of(one.message) for one in outbox.take(2)] == [1]


def test_late_changes_nothing_else() -> None:
    outbox = Outbox(1)
    message = published(event("e"), 3)
    outbox.put(message)
    outbox.start_over()
    [waiting] = outbox.take(1)
    assert waiting.message.payload() == message.payload() | {"late": True}


@dataclass(frozen=True)
class Work:
    """The disk does the next thing."""


@dataclass(frozen=True)
class Fill:
    is_full: bool


@dataclass(frozen=True)
class Pause:
    pass


@dataclass(frozen=True)
class Back:
    pass


SpooledStep = Put | Take | Pop | Work | Fill | Pause | Back
SPOOLED_STEPS = st.lists(
    st.one_of(
        st.just(Put()),
        st.just(Work()),
        st.just(Put()),
        st.just(Work()),
        st.builds(Take, st.integers(1, 5)),
        st.builds(Pop, st.integers(0, 2)),
        st.builds(Fill, st.booleans()),
        st.just(Pause()),
        st.just(Back()),
    ),
    max_size=60,
)


class Reader:
    """What takes from an outbox as a connection does, and what came of it."""

    def __init__(self, outbox: SpooledOutbox) -> None:
        self.outbox = outbox
        self.sent: list[tuple[int | None, bool]] = []
        self._under_way: list[Waiting] = []
        self._is_there = True

    def do(self, step: Take | Pop | Pause | Back) -> None:
        match step:
            case Take(window) if self._is_there:
                taken = self.outbox.take(window)
                self._under_way += taken
                self.sent += [(seq_of(one.message), is_late(one)) for one in taken]
            case Pop(index) if index < len(self._under_way):
                self.outbox.pop(self._under_way.pop(index).key)
            case Pause():
                self._is_there = False
                self._under_way.clear()
                self.outbox.pause()
            case Back() if not self._is_there:
                self._is_there = True
                self.outbox.start_over()

    async def drain(self, thread: SteppedThread) -> None:
        """Until nothing waits."""
        for _ in range(400):
            self.do(Take(5))
            self.do(Pop(0))
            await asyncio.sleep(0)
            await thread.step()
            if not self.outbox:
                return
        pytest.fail(f"{len(self.outbox)} still wait")


async def spooled_session(limit: int, steps: list[SpooledStep]) -> None:
    with stepped() as (spool, thread, store):
        await spool.open()
        losses: list[None] = []
        reader = Reader(made_over(spool, limit, losses))
        n_put, put_before_outage = 0, 0
        for step in steps:
            match step:
                case Put():
                    reader.outbox.put(published(event("e"), n_put), (CHANGE,))
                    n_put += 1
                case Work():
                    await thread.step()
                case Fill(is_full):
                    store.is_full = is_full
                case Pause():
                    reader.do(step)
                    put_before_outage = n_put
                case Take() | Pop() | Back():
                    reader.do(step)
        store.is_full = False
        for _ in range(3):  # all is told
            await thread.step()
        reader.do(Back())
        n_sent = len(reader.sent)
        await reader.drain(thread)
        first_time = list(dict.fromkeys(seq for seq, _ in reader.sent))
        missing = set(range(n_put)) - set(first_time)
        assert len(missing) <= len(losses)
        assert first_time == sorted(first_time, key=lambda seq: seq or 0)
        if limit > n_put:
            assert not losses
        late_at_last = {seq for seq, was_late in reader.sent[n_sent:] if was_late}
        sent_at_last = {seq for seq, _ in reader.sent[n_sent:]}
        assert {seq for seq in sent_at_last if (seq or 0) < put_before_outage} <= late_at_last


def made_over(spool: Spool, limit: int, losses: list[None]) -> SpooledOutbox:
    return SpooledOutbox(
        spool, limit, wake=lambda: None, owe=lambda _: None, lose=lambda: losses.append(None)
    )


@given(limit=st.sampled_from([1, 3, 100]), steps=SPOOLED_STEPS)
def test_over_a_spool_all_arrives_in_order(limit: int, steps: list[SpooledStep]) -> None:
    asyncio.run(spooled_session(limit, steps))


def test_while_the_broker_is_there_what_the_disk_has_is_taken_promptly_with_its_changes() -> None:
    async def session() -> None:
        with stepped() as (spool, thread, _):
            await spool.open()
            outbox = made_over(spool, 10, [])
            outbox.put(published(event("e"), 0), (CHANGE,))
            assert outbox.take(5) == ()  # not on disk yet
            await thread.step()
            [waiting] = outbox.take(5)
            assert (seq_of(waiting.message), is_late(waiting)) == (0, False)
            assert waiting.changes == (CHANGE,)

    asyncio.run(session())


def test_an_outage_leaves_no_more_in_memory_than_the_limit() -> None:
    async def session() -> None:
        with stepped() as (spool, thread, store):
            await spool.open()
            store.is_full = True
            losses: list[None] = []
            outbox = made_over(spool, 2, losses)
            for seq in range(4):
                outbox.put(published(event("e"), seq), (CHANGE,))
                await thread.step()
            assert not losses  # two in the window, two behind them
            outbox.pause()
            assert len(losses) == 2

    asyncio.run(session())


def test_what_an_earlier_boot_left_comes_first_and_late() -> None:
    async def session() -> None:
        with stepped() as (spool, thread, store):
            store.append([published(event("old"), 7)], now_ns=0)
            await spool.open()
            reader = Reader(made_over(spool, 10, []))
            reader.outbox.put(published(event("new"), 0))
            assert len(reader.outbox) == 2
            await reader.drain(thread)
            assert reader.sent == [(7, True), (0, True)]

    asyncio.run(session())


def test_retained_topics_do_not_wait_for_a_message_that_does() -> None:
    async def session() -> list[Packet]:
        with stepped() as (spool, thread, _):
            await spool.open()
            owed: list[Packet] = []
            outbox = SpooledOutbox(spool, 1, wake=lambda: None, owe=owed.extend, lose=lambda: None)
            for seq in range(2):
                outbox.put(published(event("e"), seq), (CHANGE,))
                while await thread.step():
                    pass
            return owed

    assert asyncio.run(session()) == [CHANGE, CHANGE]  # of both: neither is under way


def test_older_retained_topics_do_not_follow_newer_ones() -> None:
    """Those of what is still in the window are told with those of what falls behind."""

    async def session() -> tuple[list[tuple[Packet, ...]], list[Packet]]:
        on, off = CHANGE, replace(CHANGE, payload="OFF")
        with stepped() as (spool, thread, _):
            await spool.open()
            owed: list[Packet] = []
            outbox = SpooledOutbox(spool, 2, wake=lambda: None, owe=owed.extend, lose=lambda: None)
            taken: list[Waiting] = []
            for seq, change in enumerate((on, on, off)):
                outbox.put(published(event("e"), seq), (change,))
                while await thread.step():
                    pass
                taken += outbox.take(1)
            [first] = taken
            outbox.pop(first.key)
            taken += outbox.take(1)
            return [one.changes for one in taken], owed

    carried, owed = asyncio.run(session())
    assert carried == [(CHANGE,), ()]
    assert [packet.payload for packet in owed] == [CHANGE.payload, "OFF"]


def test_a_pace_lets_a_burst_through_and_then_so_many_a_second() -> None:
    pace = Pace(per_sec=10, burst=4)
    assert pace.room(100) == 4
    pace.left(4)
    assert pace.room(100) == 0
    assert pace.room(100.25) == 2
    pace.left(2)
    assert pace.room(200) == 4


def test_what_the_store_refuses_never_leaves_but_its_retained_topics_do() -> None:
    async def session() -> tuple[list[Packet], int]:
        with stepped() as (spool, thread, store):
            await spool.open()
            store.is_cut = True
            owed: list[Packet] = []
            outbox = SpooledOutbox(spool, 9, wake=lambda: None, owe=owed.extend, lose=lambda: None)
            outbox.put(published(event("e", "end"), 0), (CHANGE,))
            while await thread.step():
                pass
            assert outbox.take(5) == ()
            return owed, len(outbox)

    assert asyncio.run(session()) == ([CHANGE], 0)


def test_what_follows_a_damaged_file_is_read_from_the_new_one() -> None:
    async def session() -> list[tuple[int | None, bool]]:
        with stepped() as (spool, thread, store):
            await spool.open()
            reader = Reader(made_over(spool, 10, []))
            for seq in range(3):
                reader.outbox.put(published(event("e"), seq))
                await reader.drain(thread)
            store.is_damaged = True
            reader.do(Pause())
            for seq in range(3, 5):
                reader.outbox.put(published(event("e"), seq))
                while await thread.step():
                    pass
            reader.do(Back())
            await reader.drain(thread)
            return reader.sent[3:]

    assert asyncio.run(session()) == [(3, True), (4, True)]
