"""A bounded hand-over of a source's items to the event loop, in order.

Whoever makes them (a capture thread, or tasks of several) appends to a deque and wakes the loop
once per empty -> non-empty. Lossy: when the loop is behind, the oldest item makes room and is
counted. Otherwise the maker waits for room and nothing is lost.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final

from mmstream.media import AudioChunk, MediaItem, SourceStarted, VideoFrame
from mmstream.metrics import StageMetrics

MAX_ITEMS: Final = 256
"""Items that may wait for the loop: about 3 s of 30 fps and 50 chunks per second."""
MAX_BYTES: Final = 128_000_000
"""Pixels and samples that may wait: 1.4 s of 1080p at 30 fps. One item may always wait."""


class Handoff:
    """From whoever makes items to the loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, metrics: StageMetrics, *, lossy: bool
    ) -> None:
        """Nothing waits; `loop` is where items are taken."""
        self._loop = loop
        self._metrics = metrics
        self._lossy = lossy
        self._items: deque[MediaItem] = deque()
        self._n_bytes = 0
        self._changed = threading.Condition()  # guards both; held for moments only
        self._wake = asyncio.Event()
        self._is_closed = False
        self._is_ended = False
        self._error: Exception | None = None

    def put(self, item: MediaItem) -> bool:
        """Hand over one item (from any thread); False when nobody listens any more.

        It waits for room unless lossy: never call it on the loop then.
        """
        with self._changed:
            while self._is_full() and not self._is_closed:
                if self._lossy:
                    self._evict()
                else:
                    self._changed.wait()
            if self._is_closed:
                return False
            self._metrics.n_in += 1
            self._n_bytes += _n_bytes(item)
            self._items.append(item)
            is_first = len(self._items) == 1
        if is_first:
            self._notify()
        return True

    def end(self, error: Exception | None) -> None:
        """Nothing follows but, with `error`, that (from any thread)."""
        self._error = error
        self._is_ended = True
        self._notify()

    def close(self) -> None:
        """Nobody listens any more (from the loop)."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    async def items(self) -> AsyncGenerator[MediaItem]:
        """All items, then the end or the reader's error."""
        while True:
            self._wake.clear()
            is_ended = self._is_ended
            while (item := self._take()) is not None:
                yield item
                if self._lossy and self._items:
                    await asyncio.sleep(0)  # while we catch up, others must get their turn
            if is_ended:
                break
            await self._wake.wait()
        if self._error is not None:
            raise self._error

    def _take(self) -> MediaItem | None:
        with self._changed:
            if not self._items:
                return None
            item = self._items.popleft()
            self._n_bytes -= _n_bytes(item)
            self._metrics.n_out += 1
            self._changed.notify()
            return item

    def _is_full(self) -> bool:
        return len(self._items) >= MAX_ITEMS or self._n_bytes >= MAX_BYTES

    def _evict(self) -> None:
        """Drop the oldest, but of a start only one that another start follows."""
        is_needed = isinstance(self._items[0], SourceStarted) and len(self._items) > 1
        index = 1 if is_needed and not isinstance(self._items[1], SourceStarted) else 0
        self._n_bytes -= _n_bytes(self._items[index])
        del self._items[index]
        self._metrics.drop("loop_behind")

    def _notify(self) -> None:
        with suppress(RuntimeError):  # a read that hung may return when the loop is gone
            self._loop.call_soon_threadsafe(self._wake.set)


def _n_bytes(item: MediaItem) -> int:
    match item:
        case AudioChunk():
            return item.samples.nbytes
        case VideoFrame():
            return item.image.nbytes
        case _:
            return 0
