"""Gives a blocking reader a thread of its own, and hands its items to the event loop.

A live reader never waits: when the loop is behind, the oldest item makes room and is counted. A
reader of files waits for room and loses nothing. One that hangs is left behind, on its thread.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

from mmstream.errors import SourceError
from mmstream.media import MediaItem
from mmstream.metrics import StageMetrics
from mmstream.runtime.handoff import Handoff
from mmstream.stages import Reader

JOIN_SECS: Final = 0.7
"""How long a reader may take to notice that nobody listens; then its thread is left behind."""
MAX_ABANDONED: Final = 4
"""So many threads of one source may hang, left behind; it is not opened again before one ends."""


class ThreadedSource:
    """A `Source` made of a `Reader`."""

    def __init__(self, reader: Reader) -> None:
        """Nothing is opened yet."""
        self._reader = reader
        self.name = reader.name
        self.live = reader.live
        self._counts = StageMetrics(f"capture/{reader.name}")
        self._abandoned: list[threading.Thread] = []

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        """The counters of the reader and of the hand-off."""
        return (*self._reader.metrics, self._counts)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[AsyncIterator[MediaItem]]:
        """Open the reader on its thread, give its items, stop it on the way out.

        Raises:
            SourceError: from the reader; or too many reads hang that were left behind.
        """
        self._check_abandoned()
        handoff = Handoff(asyncio.get_running_loop(), self._counts, lossy=self.live)
        thread = threading.Thread(
            target=self._read, args=(handoff,), name=f"{self.name}.capture", daemon=True
        )
        thread.start()
        try:
            async with aclosing(handoff.items()) as items:
                yield items
        finally:
            handoff.close()
            try:
                # Waited for elsewhere: a read may hang far longer than the loop can stand still.
                await asyncio.to_thread(thread.join, JOIN_SECS)
            finally:
                if thread.is_alive():
                    self._abandoned.append(thread)
                    self._counts.drop("reader_abandoned")

    def _check_abandoned(self) -> None:
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
        if len(self._abandoned) >= MAX_ABANDONED:
            msg = (
                f"{len(self._abandoned)} reads of it hang: it is opened again when one of them ends"
            )
            raise SourceError(msg)

    def _read(self, handoff: Handoff) -> None:
        try:
            with self._reader.read() as items:
                for item in items:
                    if not handoff.put(item):
                        return
        except Exception as error:  # noqa: BLE001 - handed on whole: the loop raises it
            handoff.end(error)
        else:
            handoff.end(None)
