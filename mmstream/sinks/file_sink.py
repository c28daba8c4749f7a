"""What sinks have in common that write one file, on a thread of their own."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from mmstream.errors import SinkError
from mmstream.metrics import StageMetrics
from mmstream.sinks.own_thread import OwnThread

CLOSE_SECS: Final = 2.0
"""A disk that hangs, or who no longer reads our pipe, holds `close` up for no longer than this."""


class GrowingFile(Protocol):
    """A file as the sink's thread uses it."""

    def open(self) -> object:
        """Open it, if it is not yet.

        Raises:
            SinkError: it cannot be opened; the text names it and says why.
        """
        ...

    def close(self) -> None:
        """Close what was opened."""
        ...


class FileSink:
    """Opens, writes and closes a file; what is written is the business of who inherits."""

    def __init__(self, name: str, place: str, file: GrowingFile) -> None:
        """Nothing is opened yet. `place` is what errors call the file."""
        self.metrics = StageMetrics(name)
        self._place = place
        self._file = file
        self._thread = OwnThread(name)
        self._closed = asyncio.Event()

    async def ready(self, timeout_secs: float) -> None:
        """Wait until the file is open.

        Raises:
            SinkError: it cannot be opened, or not in `timeout_secs` (a pipe that nobody reads); the
                text names it and says why.
        """
        try:
            async with asyncio.timeout(timeout_secs):
                await self._on_thread(self._file.open)
        except TimeoutError:
            msg = f"cannot open {self._place} in {timeout_secs:g} s"
            raise SinkError(msg) from None

    async def run(self) -> None:
        """Open the file and wait for `close`.

        Raises:
            SinkError: it cannot be opened; the text names the file and says why.
        """
        await self._on_thread(self._file.open)
        await self._closed.wait()

    async def close(self) -> None:
        """Close the file once everything is written."""
        if self._closed.is_set():
            return
        self._closed.set()
        closing = asyncio.wrap_future(self._thread.submit(self._file.close))
        self._thread.end()
        await asyncio.wait({closing}, timeout=CLOSE_SECS)

    async def _write(self, work: Callable[[], object]) -> None:
        """Write something on the thread, and count it.

        Raises:
            SinkError: it is lost; the text names the file and says why.
        """
        self.metrics.n_in += 1
        try:
            await self._on_thread(work)
        except SinkError:
            self.metrics.drop("write_failed")
            raise
        self.metrics.n_out += 1

    async def _on_thread(self, work: Callable[[], object]) -> None:
        if self._closed.is_set():
            msg = f"{self._place} is closed"
            raise SinkError(msg)
        await self._thread.do(work)
