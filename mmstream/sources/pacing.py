"""How what is played relates to clocks: when it was, and no faster than it would have happened."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from mmstream.clock import Clock
from mmstream.media import NS_PER_SEC, AudioChunk, MediaItem, SourceStarted, StreamBound, VideoFrame

UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Epoch = Annotated[
    AwareDatetime, Field(ge=UNIX_EPOCH, le=datetime(2261, 12, 31, 23, 59, 59, tzinfo=UTC))
]
"""When an instant 0 was. Nanoseconds since 1970 must fit 63 bits, with what is played after it."""


def epoch_ns(epoch: datetime) -> int:
    """Nanoseconds from 1970 to `epoch`."""
    return (epoch - UNIX_EPOCH) // timedelta(microseconds=1) * 1000


def due_ns(item: AudioChunk | VideoFrame | StreamBound) -> int:
    """When a live source would give it: a chunk at its end, a frame at its start."""
    match item:
        case AudioChunk():
            return item.end_ns
        case VideoFrame():
            return item.start_ns
        case StreamBound():
            return item.at_ns


def paced(items: Iterable[MediaItem], clock: Clock) -> Iterator[MediaItem]:
    """The same items, each no earlier than it would be captured if the source started now.

    `SourceStarted` marks the instant 0, and gets the `clock_offset_ns` that follows from it. Time
    that the consumer takes is not waited for again: when it is late, items come at once until it
    is not.
    """
    offset_ns = clock.monotonic_ns()
    for item in items:
        if isinstance(item, SourceStarted):
            offset_ns = clock.monotonic_ns()
            yield replace(item, clock_offset_ns=offset_ns)
            continue
        if isinstance(item, AudioChunk | VideoFrame | StreamBound):
            clock.sleep((offset_ns + due_ns(item) - clock.monotonic_ns()) / NS_PER_SEC)
        yield item
