from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from sink_messages import event, published

from mmstream.messages import NumberedStamp, Published
from mmstream.sinks.mqtt_topics import Packet
from mmstream.sinks.outbox import Outbox, Waiting

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
