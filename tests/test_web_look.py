"""Counting events from the messages that pass."""

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st
from sink_messages import alert, event, health

from mmstream.web.look import EventCount, EventCounts

_STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["start", "update", "end"])), max_size=40
)


def test_what_has_started_is_open_until_its_end() -> None:
    counts = EventCounts()
    for content in (event("e1"), event("e1", "update"), event("e2"), event("e2", "end")):
        counts.see(content)
    assert counts.counts() == (EventCount("door", "motion", n_started=2, n_open=1),)


def test_a_label_stays_with_a_zero_when_all_is_over() -> None:
    counts = EventCounts()
    counts.see(event("e1", label="loud"))
    counts.see(event("e1", "end", label="loud"))
    assert counts.counts() == (EventCount("door", "loud", n_started=1, n_open=0),)


def test_only_events_count() -> None:
    counts = EventCounts()
    counts.see(alert("a1"))
    counts.see(health())
    counts.see(event("of an earlier boot", "end"))
    assert counts.counts() == ()


@given(_STEPS)
def test_open_is_what_was_last_said_not_to_have_ended(
    steps: list[tuple[str, Literal["start", "update", "end"]]],
) -> None:
    counts = EventCounts()
    for event_id, step in steps:
        counts.see(event(event_id, step))
    last = dict(steps)
    n_open = sum(step != "end" for step in last.values())
    assert sum(one.n_open for one in counts.counts()) == n_open
    n_started = sum(step == "start" for _, step in steps)
    assert sum(one.n_started for one in counts.counts()) == n_started
