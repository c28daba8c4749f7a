"""How events end that an earlier boot has left open."""

import pytest
from sink_messages import T_NS, alert, event, published

from mmstream.errors import StateError
from mmstream.media import NS_PER_SEC
from mmstream.messages import Event, Evidence, NumberedStamp, Published, epoch_secs, iso_utc
from mmstream.runtime.journal import ended_by_restart

SEEN_NS = T_NS + 2 * NS_PER_SEC


def left(*, emitted_ns: int = T_NS, latency_ms: float | None = None) -> Published:
    """An event that began at `T_NS`; its evidence was seen 2 s later."""
    seen = Evidence(
        modality="video",
        detector="d",
        label="motion",
        score=0.5,
        t_start=epoch_secs(T_NS),
        t_end=epoch_secs(SEEN_NS),
    )
    content = event("e", "update").model_copy(update={"evidence": (seen,)})
    stamp = NumberedStamp(
        node="pi", boot_id="old", ts_emit=iso_utc(emitted_ns), seq=3, latency_ms=latency_ms
    )
    return Published(content, stamp)


def test_it_is_the_same_event_and_says_that_it_is_over() -> None:
    last = left()
    end = ended_by_restart(last)
    assert isinstance(last.content, Event)
    assert Event.model_validate(end.model_dump()) == end
    changed = {"type", "score", "ts_end", "t_end", "end_reason"}
    assert end.model_dump(exclude=changed) == last.content.model_dump(exclude=changed)
    assert (end.type, end.end_reason, end.score) == ("end", "restart", 0.0)


def test_a_live_event_was_not_over_when_its_last_message_was_decided() -> None:
    end = ended_by_restart(left(emitted_ns=T_NS + 60 * NS_PER_SEC, latency_ms=500))
    assert end.t_end == epoch_secs(T_NS) + 59.5
    assert end.ts_end == iso_utc(T_NS + 59 * NS_PER_SEC + NS_PER_SEC // 2)


@pytest.mark.parametrize(
    ("emitted_ns", "latency_ms"),
    [
        (T_NS + 60 * NS_PER_SEC, None),  # read faster than it plays
        (T_NS + 10**9 * NS_PER_SEC, 500),  # a recording that says it is of long ago
        (T_NS - NS_PER_SEC, 500),  # the wall clock was set
    ],
)
def test_a_recorded_one_ends_with_its_evidence(emitted_ns: int, latency_ms: float | None) -> None:
    end = ended_by_restart(left(emitted_ns=emitted_ns, latency_ms=latency_ms))
    assert end.t_end == epoch_secs(SEEN_NS)


@pytest.mark.parametrize("closed", [event("e", "end"), alert("a")])
def test_what_is_not_open_cannot_be_ended(closed: Event) -> None:
    with pytest.raises(StateError, match="leaves nothing open"):
        ended_by_restart(published(closed))
