import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sink_messages import alert, caption, event, health

from mmstream.errors import StateError, StoreError
from mmstream.messages import (
    Alert,
    Caption,
    Contribution,
    Event,
    Evidence,
    NumberedStamp,
    Published,
    WireBox,
    Word,
)
from mmstream.store.records import facts_of, to_published

SHARE = st.floats(0, 1)
SECS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=20)
MAYBE_SECS = st.none() | SECS
BOX = st.builds(WireBox, x=SHARE, y=SHARE, width=SHARE, height=SHARE)
EVIDENCE = st.builds(
    Evidence,
    modality=st.sampled_from(["audio", "video", "text"]),
    detector=TEXT,
    label=TEXT,
    score=SHARE,
    t_start=SECS,
    t_end=SECS,
    box=st.none() | BOX,
    track=st.none() | st.integers(1),
    direction_deg=st.none() | st.integers(0, 359),
    speed=MAYBE_SECS,
    note=st.none() | TEXT,
)
SEVERAL_EVIDENCE = st.lists(EVIDENCE, max_size=3).map(tuple)
EVENT = st.builds(
    Event,
    id=TEXT,
    type=st.sampled_from(["start", "update", "end"]),
    source=TEXT,
    label=TEXT,
    kind=st.sampled_from(["audio", "video", "av"]),
    score=SHARE,
    top_score=SHARE,
    ts_start=TEXT,
    t_start=SECS,
    ts_end=st.none() | TEXT,
    t_end=MAYBE_SECS,
    evidence=SEVERAL_EVIDENCE,
    contribution=st.builds(Contribution, audio=SHARE, video=SHARE, text=SHARE),
    offset_ms=MAYBE_SECS,
    end_reason=st.none() | st.sampled_from(["quiet", "shutdown", "restart"]),
)
ALERT = st.builds(
    Alert,
    id=TEXT,
    rule=TEXT,
    source=TEXT,
    severity=st.sampled_from(["info", "warning", "critical"]),
    events=st.lists(TEXT, max_size=3).map(tuple),
    ts_start=TEXT,
    t_start=SECS,
    evidence=SEVERAL_EVIDENCE,
    snapshot_url=st.none() | TEXT,
    clip_url=st.none() | TEXT,
)
WORD = st.builds(Word, text=TEXT, t_start=SECS, t_end=SECS, confidence=SHARE)
CAPTION = st.builds(
    Caption,
    id=TEXT,
    state=st.just("final"),
    revision=st.integers(0),
    source=TEXT,
    text=TEXT,
    kind=st.sampled_from(["speech", "sound", "scene"]),
    ts_start=TEXT,
    t_start=SECS,
    ts_end=TEXT,
    t_end=SECS,
    words=st.lists(WORD, max_size=3).map(tuple),
    confidence=SHARE,
    language=TEXT,
)
STAMP = st.builds(
    NumberedStamp,
    v=st.integers(1, 9),
    node=st.just("pi"),
    boot_id=TEXT,
    ts_emit=TEXT,
    seq=st.integers(0, 2**62),
    latency_ms=MAYBE_SECS,
    late=st.booleans(),
)
PUBLISHED = st.builds(Published, st.one_of(EVENT, ALERT, CAPTION), STAMP)


@given(PUBLISHED)
def test_there_and_back_changes_nothing(message: Published) -> None:
    back = to_published(facts_of(message.content).content, message.to_json())
    assert back.to_json() == message.to_json()
    assert back == message


def test_an_event_is_found_by_what_its_evidence_says_each_once_and_in_one_line() -> None:
    one = Evidence(modality="audio", detector="alarm", label="alarm", score=1, t_start=0, t_end=1)
    evidence = (one, one.model_copy(update={"note": "T3,\n520 Hz"}), one)
    facts = facts_of(event("e1").model_copy(update={"evidence": evidence}))
    assert facts.notes == ("alarm", "T3, 520 Hz")


@pytest.mark.parametrize(
    ("step", "is_open"), [("start", True), ("update", True), ("end", False), (None, False)]
)
def test_what_is_open_needs_an_end(step: str | None, is_open: bool) -> None:  # noqa: FBT001 -- pytest
    content = alert("a1") if step is None else event("e1").model_copy(update={"type": step})
    assert facts_of(content).is_open is is_open


def test_the_rule_of_an_alert_is_its_label() -> None:
    assert facts_of(alert("a1")).label == "visitor"


def test_what_need_not_arrive_is_refused() -> None:
    with pytest.raises(StateError, match="Caption need not arrive"):
        facts_of(caption("partial"))
    with pytest.raises(StateError, match="Health need not arrive"):
        facts_of(health())


@pytest.mark.parametrize("payload", ["{}", "[]", "no json", '{"v": 1, "mood": "good"}'])
def test_what_another_version_wrote_is_an_error_in_words(payload: str) -> None:
    with pytest.raises(StoreError, match="a stored event cannot be read"):
        to_published("event", payload)


def test_a_field_that_has_gone_is_an_error_and_not_lost_in_silence() -> None:
    message = Published(
        event("e1"), NumberedStamp(node="pi", boot_id="b", ts_emit="2026-11-23T10:00:00Z", seq=0)
    )
    payload = json.dumps({**message.payload(), "mood": "good"})
    with pytest.raises(StoreError, match="cannot be read"):
        to_published("event", payload)
