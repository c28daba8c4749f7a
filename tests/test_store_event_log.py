from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sink_messages import T_NS, alert, caption, event, published
from stores import ROOMY, append, life, numbered

from mmstream.media import NS_PER_SEC
from mmstream.messages import Content, Event, Evidence, epoch_secs, iso_utc
from mmstream.store.event_log import PAGE, Entry, EventLog, Filter
from mmstream.store.store import Store

NOTE = "temporal three pattern, 520 Hz"


def began(content: Content, after_secs: int) -> Content:
    start_ns = T_NS + after_secs * NS_PER_SEC
    times = {"t_start": epoch_secs(start_ns), "ts_start": iso_utc(start_ns)}
    return content.model_copy(update=times)


def alarm(step: str) -> Event:
    heard = Evidence(
        modality="audio", detector="alarm", label="alarm", score=1, t_start=0, t_end=1, note=NOTE
    )
    changes = {"type": step, "kind": "audio", "label": "alarm", "source": "hall"}
    return event("e-alarm").model_copy(update={**changes, "evidence": (heard,)})


MESSAGES = numbered(
    [
        began(event("e-door"), 0),
        began(caption("final", "Wer hat die Tür zur Küche unverschlossen gelassen?"), 10),
        began(alarm("start"), 20),
        began(alert("a1"), 30),
        began(event("e-door", "end"), 0),
        began(alarm("update"), 20),
    ]
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("log") / "events.db"
    with closing(Store(path, ROOMY, now_ns=T_NS)) as store:
        keys = append(store, MESSAGES)
        store.mark_delivered(keys[:2])
        yield path


@pytest.fixture
def log(path: Path) -> Iterator[EventLog]:
    with closing(EventLog(path)) as log:
        yield log


def ids(entries: Iterator[Entry]) -> list[str]:
    return [entry.id for entry in entries]


def test_entries_come_newest_first_and_tell_all_that_is_known(log: EventLog) -> None:
    entries = list(log.entries())
    assert [entry.id for entry in entries] == ["a1", "e-alarm", "c1", "e-door"]
    assert entries[-1] == Entry(
        number=1,
        content="event",
        id="e-door",
        node="pi",
        source="door",
        kind="video",
        label="motion",
        text="",
        t_start=epoch_secs(T_NS),
        t_end=epoch_secs(T_NS + NS_PER_SEC),
        top_score=0.75,
        end_reason="quiet",
        is_open=False,
        n_waiting=1,
        n_messages=2,
    )
    assert entries[1].is_open
    assert entries[1].t_end is None
    assert (entries[0].content, entries[0].label, entries[0].top_score) == (
        "alert",
        "visitor",
        None,
    )
    assert entries[2].text == "Wer hat die Tür zur Küche unverschlossen gelassen?"


SECS_10 = T_NS + 10 * NS_PER_SEC
SECS_20 = T_NS + 20 * NS_PER_SEC


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (Filter(content="event"), ["e-alarm", "e-door"]),
        (Filter(source="hall"), ["e-alarm"]),
        (Filter(label="visitor"), ["a1"]),
        (Filter(kind="speech"), ["c1"]),
        (Filter(since_ns=SECS_10), ["a1", "e-alarm", "c1"]),
        (Filter(until_ns=SECS_10), ["e-door"]),
        (Filter(since_ns=SECS_10, until_ns=SECS_20), ["c1"]),
        (Filter(source="door", kind="video"), ["e-door"]),
        (Filter(source="nowhere"), []),
    ],
)
def test_a_filter_lets_through_what_fits_all_of_it(
    log: EventLog, which: Filter, expected: list[str]
) -> None:
    assert ids(log.entries(which)) == expected
    said_of = {message.published().payload()["id"] for message in log.messages(which)}
    assert said_of == set(expected)


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 5])
def test_a_limit_takes_the_newest(log: EventLog, limit: int) -> None:
    assert ids(log.entries(limit=limit)) == ["a1", "e-alarm", "c1", "e-door"][:limit]


def test_an_export_is_what_was_said_in_that_order(log: EventLog) -> None:
    messages = list(log.messages())
    assert [one.payload for one in messages] == [one.to_json() for one in MESSAGES]
    assert [one.published() for one in messages] == MESSAGES
    assert [one.is_waiting for one in messages] == [False, False, True, True, True, True]
    assert {one.added_ns for one in messages} == {T_NS}


def test_an_event_is_shown_from_start_to_end(log: EventLog) -> None:
    assert [one.key for one in log.show("e-door")] == [1, 5]
    assert [one.key for one in log.show("a1")] == [4]
    assert list(log.show("unknown")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kuche", ["c1"]),
        ("KÜCHE", ["c1"]),
        ("tür unverschlossen", ["c1"]),
        ("unverschlossen tür", ["c1"]),
        ('"unverschlossen tür"', []),
        ('"zur küche" wer', ["c1"]),
        ("gelass*", ["c1"]),
        ("gelass", []),
        ("visitor", ["a1"]),
        ("520", ["e-alarm"]),
        ("hall", ["e-alarm"]),
        ("quiet", ["e-door"]),
        ("door küche", ["c1"]),
        ("", []),
        ("*** --- !?", []),
        ("küche ???", ["c1"]),
    ],
)
def test_words_are_found_wherever_they_stand(log: EventLog, text: str, expected: list[str]) -> None:
    assert [hit.entry.id for hit in log.search(text)] == expected


def test_an_excerpt_marks_the_words(log: EventLog) -> None:
    (hit,) = log.search("kuche")
    assert hit.excerpt == "Wer hat die Tür zur [Küche] unverschlossen gelassen?"
    (hit,) = log.search('"three pattern"')
    assert "[three pattern], 520 Hz" in hit.excerpt


@pytest.mark.parametrize(
    "text", ["NEAR(a b", "text:küche", "a AND", "NOT", 'an "open quote', "col : x", "^a", "(", "{"]
)
def test_nobody_has_to_know_a_query_language(log: EventLog, text: str) -> None:
    assert log.search(text) == ()


@given(text=st.text())
def test_no_text_breaks_a_search(path: Path, text: str) -> None:
    with closing(EventLog(path)) as log:
        assert len(log.search(text)) <= len(MESSAGES)
        assert log.search(f'"{text}" surely not said') == ()


def test_the_rarer_word_in_the_shorter_text_comes_first(tmp_path: Path) -> None:
    texts = ["no", "glass", "glass and much more that has nothing to do with it"]
    contents = [
        caption("final", text).model_copy(update={"id": f"c{index}"})
        for index, text in enumerate(texts)
    ]
    with closing(Store(tmp_path / "events.db", ROOMY, now_ns=T_NS)) as store:
        append(store, numbered(contents))
        with closing(EventLog(store.path)) as log:
            assert [hit.entry.id for hit in log.search("glass")] == ["c1", "c2"]
            assert [hit.entry.id for hit in log.search("glass", limit=1)] == ["c1"]


def test_what_is_found_follows_what_is_said_and_evicted(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "events.db", ROOMY, now_ns=T_NS)) as store:
        append(store, numbered([event("e1")]))
        with closing(EventLog(store.path)) as log:
            assert log.search("restart") == ()
            assert [hit.entry.id for hit in log.search("motion")] == ["e1"]
            end = event("e1", "end").model_copy(update={"end_reason": "restart"})
            append(store, [published(end, 1)])
            assert [hit.entry.id for hit in log.search("restart motion")] == ["e1"]
            assert store.evict(now_ns=T_NS + ROOMY.max_age_ns + 1) is False
            assert log.search("restart") == ()
            assert list(log.entries()) == []


def test_notes_of_earlier_messages_are_still_found(tmp_path: Path) -> None:
    first, last = (alarm(step).model_copy(update={"evidence": ()}) for step in ("start", "end"))
    with closing(Store(tmp_path / "events.db", ROOMY, now_ns=T_NS)) as store:
        append(store, numbered([first, alarm("update"), alarm("update"), last]))
        with closing(EventLog(store.path)) as log:
            (hit,) = log.search("520")
            assert hit.entry.n_messages == 4
            assert hit.excerpt.count("Hz") == 1


def test_reading_sees_what_is_written_meanwhile_and_holds_a_page_at_once(tmp_path: Path) -> None:
    n_events = PAGE + 10
    contents = [began(event(f"e{index}"), index) for index in range(n_events)]
    with closing(Store(tmp_path / "events.db", ROOMY, now_ns=T_NS)) as store:
        append(store, numbered(contents))
        with closing(EventLog(store.path)) as log:
            entries, messages = log.entries(), log.messages()
            assert next(entries).id == f"e{n_events - 1}"
            assert next(messages).key == 1
            append(store, numbered([began(event("new"), n_events)], n_events))
            assert ids(entries) == [f"e{index}" for index in reversed(range(n_events - 1))]
            assert [one.key for one in messages] == list(range(2, n_events + 2))


def test_entries_that_began_at_once_are_told_once_each(tmp_path: Path) -> None:
    n_events = 2 * PAGE + 1
    with closing(Store(tmp_path / "events.db", ROOMY, now_ns=T_NS)) as store:
        append(store, [one for i in range(n_events) for one in life(f"e{i}", 3 * i)])
        with closing(EventLog(store.path)) as log:
            assert sorted(ids(log.entries())) == sorted(f"e{i}" for i in range(n_events))
            assert len(list(log.entries(limit=PAGE))) == PAGE
            assert len(list(log.entries(limit=PAGE + 1))) == PAGE + 1
