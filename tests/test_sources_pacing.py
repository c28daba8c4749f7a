from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mmstream.clock import ManualClock
from mmstream.codecs import image_from_array
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    MediaItem,
    SourceStarted,
    StreamBound,
    VideoFrame,
    secs_to_ns,
)
from mmstream.messages import iso_utc
from mmstream.sources.pacing import Epoch, due_ns, epoch_ns, paced

STARTED = SourceStarted("cam", frozenset({"audio", "video"}), 7, None)
IMAGE = image_from_array(np.zeros((2, 2, 3), np.uint8))
NOW_NS = 40 * NS_PER_SEC


def chunk(start_secs: float, secs: float = 0.02) -> AudioChunk:
    samples = np.zeros(round(secs * 16_000), np.float32)
    return AudioChunk("cam", secs_to_ns(start_secs), 16_000, samples)


def frame(start_secs: float) -> VideoFrame:
    return VideoFrame("cam", secs_to_ns(start_secs), IMAGE)


def bound(at_secs: float) -> StreamBound:
    return StreamBound("cam", "audio", secs_to_ns(at_secs))


@pytest.mark.parametrize(
    "earliest_or_latest",
    ["1970-01-01T00:00:00Z", "1970-01-01T01:00:00+01:00", "2261-12-31T23:59:59Z"],
)
def test_an_epoch_in_bounds_has_a_time_on_the_wire(earliest_or_latest: str) -> None:
    epoch = TypeAdapter(Epoch).validate_python(earliest_or_latest)
    at_ns = epoch_ns(epoch)
    assert 0 <= at_ns < 2**63 - 24 * 3600 * NS_PER_SEC
    assert datetime.fromisoformat(iso_utc(at_ns)) == epoch


@pytest.mark.parametrize(
    ("epoch", "why"),
    [
        ("0001-01-01T00:00:00Z", "greater than or equal to 1970-01-01T00:00:00Z"),
        ("1969-12-31T23:59:59Z", "greater than or equal to 1970-01-01T00:00:00Z"),
        ("1970-01-01T00:00:00+01:00", "greater than or equal to 1970-01-01T00:00:00Z"),
        ("2262-01-01T00:00:00Z", "less than or equal to 2261-12-31T23:59:59Z"),
        ("9999-12-31T23:59:59Z", "less than or equal to 2261-12-31T23:59:59Z"),
        ("2026-11-23T07:00:00", "timezone"),
    ],
)
def test_an_epoch_out_of_bounds_is_refused_with_what_is_allowed(epoch: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        TypeAdapter(Epoch).validate_python(epoch)


@pytest.mark.parametrize(
    ("item", "due_secs"),
    [(chunk(1.0), 1.02), (chunk(0, 0.5), 0.5), (frame(1.5), 1.5), (bound(2.5), 2.5)],
)
def test_an_item_is_given_when_it_would_be_complete(
    item: AudioChunk | VideoFrame | StreamBound, due_secs: float
) -> None:
    clock = ManualClock(monotonic_ns=NOW_NS)
    items = paced([STARTED, item], clock)
    next(items)
    assert clock.monotonic_ns() == NOW_NS
    assert next(items) is item
    assert clock.monotonic_ns() == NOW_NS + secs_to_ns(due_secs) == NOW_NS + due_ns(item)


def test_the_start_says_how_the_source_and_the_clock_relate() -> None:
    clock = ManualClock(monotonic_ns=NOW_NS)
    started, first = paced([STARTED, frame(0.5)], clock)
    assert isinstance(started, SourceStarted)
    assert started.clock_offset_ns == NOW_NS
    assert (started.source, started.streams, started.utc_offset_ns) == ("cam", STARTED.streams, 7)
    assert due_ns(frame(0.5)) + started.clock_offset_ns == clock.monotonic_ns()
    assert first == frame(0.5)


def test_what_takes_time_before_the_start_does_not_count() -> None:
    clock = ManualClock()

    def slow_to_open() -> Iterator[MediaItem]:
        clock.advance(3)
        yield STARTED
        yield frame(0)

    started, _ = paced(slow_to_open(), clock)
    assert isinstance(started, SourceStarted)
    assert started.clock_offset_ns == clock.monotonic_ns() == 3 * NS_PER_SEC


def test_a_late_consumer_is_not_waited_for_twice() -> None:
    clock = ManualClock()
    given_at = []
    for item in paced([STARTED, *(frame(i / 10) for i in range(20))], clock):
        given_at.append(clock.monotonic_ns())
        if item == frame(0.2):
            clock.advance(0.55)
    late = [secs_to_ns(0.75)] * 5  # frames of 0.3 .. 0.7 s, at once
    on_time = [secs_to_ns(i / 10) for i in range(8, 20)]
    assert given_at[1:] == [0, secs_to_ns(0.1), secs_to_ns(0.2), *late, *on_time]


@given(
    st.lists(st.floats(0, 100), max_size=30).map(sorted),
    st.lists(st.floats(0, 5), min_size=30, max_size=30),
)
def test_nothing_is_early_and_nothing_is_lost(starts: list[float], delays: list[float]) -> None:
    clock = ManualClock(monotonic_ns=NOW_NS)
    items = [frame(start) for start in starts]
    given_items = []
    for item, delay in zip(paced([STARTED, *items], clock), [0.0, *delays], strict=False):
        if isinstance(item, VideoFrame):
            assert clock.monotonic_ns() >= NOW_NS + item.start_ns
            given_items.append(item)
        clock.advance(delay)
    assert given_items == items
