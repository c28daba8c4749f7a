"""Gives a blocking reader a thread of its own, and hands its items to the event loop.

The thread appends to a bounded deque and wakes the loop once per empty -> non-empty. A live
reader never waits: when the loop is behind, the oldest item makes room and is counted. A reader
of files waits for room and loses nothing.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from mmstream.media import MediaItem
from mmstream.metrics import StageMetrics
from mmstream.stages import Reader

MAX_ITEMS: Final = 256
"""Items that may wait for the loop: about 3 s of 30 fps and 50 chunks per second."""
JOIN_SECS: Final = 1.0
"""How long a reader may take to notice that nobody listens; then its thread is left behind."""


class ThreadedSource:
    """A `Source` made of a `Reader`."""

    def __init__(self, reader: Reader) -> None:
        """Nothing is opened yet."""
        self._reader = reader
        self.name = reader.name
        self.live = reader.live
        self._counts = StageMetrics(f"capture/{reader.name}")

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        """The counters of the reader and of the hand-off."""
        return (*self._reader.metrics, self._counts)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[AsyncIterator[MediaItem]]:
        """Open the reader on its thread, give its items, stop it on the way out.

        Raises:
            SourceError: from the reader.
        """
        handoff = _Handoff(asyncio.get_running_loop(), self._counts, lossy=self.live)
        thread = threading.Thread(
            target=self._read, args=(handoff,), name=f"{self.name}.capture", daemon=True
        )
        thread.start()
        try:
            yield handoff.items()
        finally:
            handoff.close()
            # Waited for elsewhere: a read may hang far longer than the loop can stand still.
            await asyncio.to_thread(thread.join, JOIN_SECS)

    def _read(self, handoff: "_Handoff") -> None:
        try:
            with self._reader.read() as items:
                for item in items:
                    if not handoff.put(item):
                        return
        except Exception as error:  # noqa: BLE001 - handed on whole: the loop raises it
            handoff.end(error)
        else:
            handoff.end(None)


class _Handoff:
    """From one thread to the loop, in order."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, metrics: StageMetrics, *, lossy: bool
    ) -> None:
        self._loop = loop
        self._metrics = metrics
        self._lossy = lossy
        self._items: deque[MediaItem] = deque(maxlen=MAX_ITEMS)
        self._room = threading.Semaphore(MAX_ITEMS)
        self._wake = asyncio.Event()
        self._is_closed = False
        self._is_ended = False
        self._error: Exception | None = None

    def put(self, item: MediaItem) -> bool:
        """Hand over one item (from the thread); False when nobody listens any more."""
        if self._lossy:
            if len(self._items) == MAX_ITEMS:
                self._metrics.drop("loop_behind")
        else:
            self._room.acquire()
        if self._is_closed:
            return False
        self._metrics.n_in += 1
        self._items.append(item)
        if len(self._items) == 1:  # looked at after the append: the loop may have emptied it
            self._notify()
        return True

    def end(self, error: Exception | None) -> None:
        """Nothing follows (from the thread)."""
        self._error = error
        self._is_ended = True
        self._notify()

    def close(self) -> None:
        """Nobody listens any more (from the loop)."""
        self._is_closed = True
        self._room.release()

    async def items(self) -> AsyncIterator[MediaItem]:
        """All items, then the end or the reader's error."""
        while True:
            self._wake.clear()
            is_ended = self._is_ended
            while self._items:
                item = self._items.popleft()
                if not self._lossy:
                    self._room.release()
                self._metrics.n_out += 1
                yield item
            if is_ended:
                break
            if not self._items and not self._is_ended:
                await self._wake.wait()
        if self._error is not None:
            raise self._error

    def _notify(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)
