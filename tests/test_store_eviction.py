from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_messages import T_NS, alert, caption, event, published
from stores import append, check_texts, life, numbered, opened, seqs

from mmstream.media import NS_PER_SEC
from mmstream.messages import Event, Published
from mmstream.store.event_log import EventLog
from mmstream.store.eviction import CLOCK_SET_NS, Limits
from mmstream.store.store import Store

HOUR_NS = 3600 * NS_PER_SEC
NOTHING = Limits(max_age_ns=10**18, max_bytes=1)
"""A file is never that small: all goes that may."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def evict_all(store: Store, now_ns: int = T_NS) -> None:
    while store.evict(now_ns=now_ns):
        pass


@pytest.mark.parametrize("limits", [(0, 1), (1, 0), (-1, 1)])
def test_limits_are_positive(limits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="limits must be positive"):
        Limits(max_age_ns=limits[0], max_bytes=limits[1])


def test_what_is_too_old_goes_delivered_or_not_but_not_what_is_open(path: Path) -> None:
    with opened(path, Limits(max_age_ns=HOUR_NS, max_bytes=10**9)) as store:
        delivered = append(store, life("old") + numbered([event("open")], 3))
        store.mark_delivered(delivered)
        append(store, numbered([alert("a1"), caption("final")], 4))
        append(store, life("new", 6), now_ns=T_NS + 1)
        assert store.evict(now_ns=T_NS + HOUR_NS) is False
        assert store.metrics.dropped == {}
        store.evict(now_ns=T_NS + HOUR_NS + 1)
        assert store.metrics.dropped == {"log_age": 3, "spool_age": 2}
        assert seqs(store.waiting(limit=10)) == [6, 7, 8]
        assert len(store.open_events("next")) == 1


def test_age_counts_from_the_last_message_of_an_event(path: Path) -> None:
    with opened(path, Limits(max_age_ns=HOUR_NS, max_bytes=10**9)) as store:
        start, _, end = life("e1")
        append(store, [start])
        append(store, [end], now_ns=T_NS + HOUR_NS)
        store.evict(now_ns=T_NS + 2 * HOUR_NS)
        assert store.n_waiting() == 2
        store.evict(now_ns=T_NS + 2 * HOUR_NS + 1)
        assert store.n_waiting() == 0


def test_by_a_clock_that_is_not_known_nothing_is_too_old(path: Path) -> None:
    with opened(path, Limits(max_age_ns=HOUR_NS, max_bytes=10**9)) as store:
        append(store, life("old"))
        for now_ns, knows_age in ((T_NS * 2, False), (CLOCK_SET_NS - 1, True)):
            assert store.evict(now_ns=now_ns, knows_age=knows_age) is False
        assert store.n_waiting() == 3


def test_what_a_clock_stored_that_was_not_set_is_as_old_as_when_that_is_found(path: Path) -> None:
    with opened(path, Limits(max_age_ns=HOUR_NS, max_bytes=10**9)) as store:
        append(store, life("in 1970"), now_ns=HOUR_NS)
        append(store, life("then too", 3), now_ns=2 * HOUR_NS)
        store.mark_delivered([1, 2, 3])
        assert store.newest_ns() == 2 * HOUR_NS
        store.evict(now_ns=T_NS)
        assert store.metrics.dropped == {}
        store.evict(now_ns=T_NS + HOUR_NS)
        assert store.metrics.dropped == {}
        store.evict(now_ns=T_NS + HOUR_NS + 1)
        assert store.metrics.dropped == {"log_age": 3, "spool_age": 3}


@pytest.mark.parametrize("step_ns", [40 * 24 * HOUR_NS, -40 * 24 * HOUR_NS])
def test_what_was_stored_before_the_clock_was_set_is_dated_anew(path: Path, step_ns: int) -> None:
    with opened(path) as store:
        append(store, life("of an earlier run"))
    with opened(path, Limits(max_age_ns=HOUR_NS, max_bytes=10**9)) as store:
        append(store, life("new", 3))
        store.count_ages_anew(step_ns)
        assert store.newest_ns() == max(T_NS, T_NS + step_ns)
        store.evict(now_ns=T_NS + HOUR_NS + 1)
        kept = [3, 4, 5] if step_ns > 0 else []
        assert seqs(store.waiting(limit=9)) == kept
        store.evict(now_ns=T_NS + step_ns + HOUR_NS)
        assert seqs(store.waiting(limit=9)) == kept


def test_an_event_goes_as_a_whole_and_each_message_is_counted_as_what_it_was(path: Path) -> None:
    with opened(path, NOTHING) as store:
        keys = append(store, life("e1"))
        store.mark_delivered(keys[:2])
        evict_all(store)
        assert store.waiting(limit=10) == ()
        assert store.metrics.dropped == {"log_size": 2, "spool_size": 1}


def limits_for(path: Path, share: float) -> Limits:
    """So that about this share of what is there may stay."""
    with opened(path) as store:
        return Limits(max_age_ns=10**18, max_bytes=round(store.used_bytes() * share))


def test_history_goes_before_what_waits_and_the_oldest_first(path: Path) -> None:
    with opened(path) as store:
        append(store, [one for i in range(200) for one in life(f"e{i}", 3 * i)])
        store.mark_delivered(range(301, 601))
    limits = limits_for(path, 0.75)
    with opened(path, limits) as store:
        evict_all(store)
        assert store.n_waiting() == 300
        assert set(store.metrics.dropped) == {"log_size"}
        assert store.used_bytes() <= limits.max_bytes
    limits = limits_for(path, 0.4)
    with opened(path, limits) as store:
        evict_all(store)
        assert store.used_bytes() <= limits.max_bytes
        kept = seqs(store.waiting(limit=1000))
        assert kept == list(range(300 - len(kept), 300))
        assert len(kept) % 3 == 0
        assert 0 < len(kept) < 300


def test_an_open_event_goes_only_when_nothing_else_is_left(path: Path) -> None:
    with opened(path) as store:
        append(store, numbered([event("open")]))
        append(store, [one for i in range(200) for one in life(f"e{i}", 3 * i + 1)])
    limits = limits_for(path, 0.6)
    with opened(path, limits) as store:
        evict_all(store)
        kept = store.waiting(limit=1000)
        assert kept[0].message.content == event("open")
        assert 100 < len(kept) < 601


def test_of_an_open_event_that_was_told_the_last_message_stays(path: Path) -> None:
    """After a crash it must still be ended."""
    with opened(path, NOTHING) as store:
        keys = append(store, numbered([event("e1"), *[event("e1", "update")] * 3]))
        store.mark_delivered(keys[:2])
        evict_all(store)
        assert store.metrics.dropped == {"log_size": 2, "spool_size": 1}
        assert seqs(store.waiting(limit=10)) == [3]
        assert len(store.open_events("next")) == 1
        with closing(EventLog(path)) as log:
            (entry,) = log.entries()
            assert (entry.n_messages, entry.n_waiting) == (1, 1)
        keys = append(store, numbered([event("e1", "end")], 4))
        assert seqs(store.waiting(limit=10)) == [3, 4]
        store.mark_delivered([4, *keys])
        evict_all(store)
        assert store.metrics.dropped == {"log_size": 4, "spool_size": 1}, "it is history by now"


def test_nothing_more_is_taken_of_an_open_event_that_was_evicted_unsent(path: Path) -> None:
    with opened(path, NOTHING) as store:
        start, update, end = life("e1")
        append(store, [start])
        evict_all(store)
        assert store.open_events("next") == ()
        assert store.append([update, end], now_ns=T_NS) == (None, None)
        assert store.waiting(limit=10) == ()
        assert store.metrics.dropped == {"spool_size": 3}
        for message in life("e1", 3):  # it begins again: that is another matter
            append(store, [message])
        assert seqs(store.waiting(limit=10)) == [3, 4, 5]
        assert store.metrics.n_in == 6


def test_an_append_that_fails_forgets_nothing_of_what_was_evicted(path: Path) -> None:
    with opened(path, NOTHING) as store:
        start, update, end = life("e1")
        append(store, [start])
        evict_all(store)
        twice = published(alert("a1"), 0)
        with pytest.raises(Exception, match="appended before"):
            store.append([end, twice, twice], now_ns=T_NS)
        assert store.append([update], now_ns=T_NS) == (None,)


def test_one_call_takes_a_bounded_time_and_says_whether_more_is_due(path: Path) -> None:
    with opened(path, NOTHING) as store:
        append(store, [published(alert(f"a{i}"), i) for i in range(1500)])
        assert store.evict(now_ns=T_NS) is True
        assert 400 < store.n_waiting() < 600
        assert store.evict(now_ns=T_NS) is False
        assert store.n_waiting() == 0


def test_the_file_shrinks(path: Path) -> None:
    with opened(path, Limits(max_age_ns=HOUR_NS, max_bytes=10**9)) as store:
        text = caption("final", text="so much to say " * 500)
        several = [text.model_copy(update={"id": f"c{i}"}) for i in range(500)]
        append(store, numbered(several))
        evict_all(store)
    large = path.stat().st_size
    assert large > 4_000_000
    with opened(path, Limits(max_age_ns=HOUR_NS, max_bytes=10**9)) as store:
        evict_all(store, T_NS + 2 * HOUR_NS)
        assert path.stat().st_size < 1_500_000
        assert append(store, life("e1", 500)) == (501, 502, 503)


@dataclass(frozen=True)
class Say:
    event_id: Literal["a", "b", "c"]
    is_last: bool


@dataclass(frozen=True)
class Deliver:
    n: int


@dataclass(frozen=True)
class Evict:
    pass


STEP = st.one_of(
    st.builds(Say, st.sampled_from(["a", "b", "c"]), st.booleans()),
    st.builds(Deliver, st.integers(1, 4)),
    st.just(Evict()),
)


@dataclass
class Subscriber:
    """Who must never hear of an event of whose start nothing was heard."""

    heard: list[int | None] = field(default_factory=list)
    open_ids: set[str] = field(default_factory=set)

    def hear(self, message: Published, seq: int | None) -> None:
        assert isinstance(message.content, Event)
        self.heard.append(seq)
        match message.content.type:
            case "start":
                self.open_ids.add(message.content.id)
            case "update":
                assert message.content.id in self.open_ids
            case "end":
                self.open_ids.remove(message.content.id)


@settings(max_examples=40)
@given(
    limits=st.sampled_from([NOTHING, Limits(max_age_ns=HOUR_NS, max_bytes=10**9)]),
    steps=st.lists(STEP, max_size=30),
)
def test_nobody_hears_the_rest_of_an_event_that_lost_its_start(
    limits: Limits, steps: list[Say | Deliver | Evict]
) -> None:
    lives: dict[str, str] = {}  # no id is given twice
    subscriber = Subscriber()
    seq = 0
    with TemporaryDirectory() as folder, opened(Path(folder) / "events.db", limits) as store:
        for step_index, step in enumerate(steps):
            now_ns = T_NS + step_index * HOUR_NS // 4
            match step:
                case Say(letter, is_last):
                    is_first = letter not in lives
                    event_id = lives.setdefault(letter, f"{letter}{seq}")
                    kind: Literal["start", "update", "end"] = "end" if is_last else "update"
                    content = event(event_id, "start" if is_first else kind)
                    if content.type == "end":
                        del lives[letter]
                    store.append([published(content, seq)], now_ns=now_ns)
                    seq += 1
                case Deliver(n):
                    waiting = store.waiting(limit=n)
                    for one, number in zip(waiting, seqs(waiting), strict=True):
                        subscriber.hear(one.message, number)
                    store.mark_delivered(one.key for one in waiting)
                case Evict():
                    store.evict(now_ns=now_ns)
        assert subscriber.heard == sorted(subscriber.heard, key=lambda number: number or 0)
        lost = Counter(store.metrics.dropped)
        n_lost = lost["spool_size"] + lost["spool_age"]
        assert store.metrics.n_in == seq == len(subscriber.heard) + n_lost + store.n_waiting()
        journal = {
            one.content.id for one in store.open_events("next") if isinstance(one.content, Event)
        }
        still_open = subscriber.open_ids & set(lives.values())
        assert still_open <= journal, "a crash would leave it open for ever"
        check_texts(store.path)
