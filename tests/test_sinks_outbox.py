from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sink_messages import alert, caption, event, health, info, published, stats

from mmstream.messages import Content, NumberedStamp, Published
from mmstream.sinks.mqtt_topics import Packet
from mmstream.sinks.outbox import Outbox, Waiting, must_arrive

CHANGE = Packet("mmstream/pi/door/state/motion", "ON", qos=1, retain=True)


@dataclass(frozen=True)
class Put:
    pass


@dataclass(frozen=True)
class Pop:
    index: int


@dataclass(frozen=True)
class MarkLate:
    pass


STEPS = st.lists(
    st.one_of(st.just(Put()), st.builds(Pop, st.integers(0, 5)), st.just(MarkLate())), max_size=40
)


def seq_of(message: Published) -> int | None:
    assert isinstance(message.stamp, NumberedStamp)
    return message.stamp.seq


def is_late(waiting: Waiting) -> bool:
    assert isinstance(waiting.message.stamp, NumberedStamp)
    return waiting.message.stamp.late


@given(limit=st.integers(1, 4), steps=STEPS)
def test_is_a_bounded_line_in_order(limit: int, steps: list[Put | Pop | MarkLate]) -> None:
    outbox = Outbox(limit)
    model: list[tuple[int, bool]] = []
    for seq, step in enumerate(steps):
        match step:
            case Put():
                evicted = outbox.put(published(event("e"), seq), (CHANGE,))
                expected = model.pop(0) if len(model) == limit else None
                model.append((seq, False))
                assert (None if evicted is None else seq_of(evicted.message)) == (
                    None if expected is None else expected[0]
                )
            case Pop(index) if index < len(model):
                outbox.pop(outbox.peek(limit)[index].key)
                del model[index]
            case MarkLate():
                outbox.mark_late()
                model = [(known, True) for known, _ in model]
        assert len(outbox) == len(model) <= limit
        waiting = outbox.peek(limit)
        assert [(seq_of(one.message), is_late(one)) for one in waiting] == model
        assert all(one.changes == (() if is_late(one) else (CHANGE,)) for one in waiting)


def test_peek_gives_the_oldest_and_leaves_them() -> None:
    outbox = Outbox(10)
    for seq in range(5):
        outbox.put(published(event("e"), seq))
    for _ in range(2):
        assert [seq_of(one.message) for one in outbox.peek(3)] == [0, 1, 2]
    assert outbox.clear() == 5
    assert outbox.peek(3) == ()


def test_an_acknowledgement_may_come_after_the_message_had_to_make_room() -> None:
    outbox = Outbox(1)
    outbox.put(published(event("e"), 0))
    [under_way] = outbox.peek(1)
    outbox.put(published(event("e"), 1))
    outbox.pop(under_way.key)
    assert [seq_of(one.message) for one in outbox.peek(2)] == [1]


def test_late_changes_nothing_else() -> None:
    outbox = Outbox(1)
    message = published(event("e"), 3)
    outbox.put(message)
    outbox.mark_late()
    [waiting] = outbox.peek(1)
    assert waiting.message.payload() == message.payload() | {"late": True}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (event("e"), True),
        (alert("a"), True),
        (caption("final"), True),
        (caption("partial"), False),
        (stats(), False),
        (health(), False),
        (info(), False),
    ],
    ids=lambda value: getattr(value, "TOPIC", None),
)
def test_what_must_arrive(content: Content, *, expected: bool) -> None:
    assert must_arrive(published(content)) is expected
