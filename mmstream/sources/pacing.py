"""Gives what could be had at once no faster than it would have happened."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from mmstream.clock import Clock
from mmstream.media import NS_PER_SEC, AudioChunk, MediaItem, SourceStarted, StreamBound, VideoFrame


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
        else:
            clock.sleep((offset_ns + due_ns(item) - clock.monotonic_ns()) / NS_PER_SEC)
            yield item
