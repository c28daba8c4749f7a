"""JSON lines: one message a line, to a file or to standard output."""

import asyncio
import errno
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from io import FileIO
from typing import Final

from pydantic import Field

from mmstream.config import Settings
from mmstream.errors import SinkError
from mmstream.messages import Published
from mmstream.metrics import StageMetrics
from mmstream.sinks.appender import Appender
from mmstream.sinks.own_thread import OwnThread

STDOUT: Final = "-"
CLOSE_SECS: Final = 2.0
"""Somebody who has stopped reading our pipe holds `close` up for no longer than this."""


class JsonlSettings(Settings):
    """Where the lines go."""

    path: str = Field(STDOUT, min_length=1)
    """A file in a folder that exists, or `-` for standard output."""
    append: bool = True
    """Keep what the file already holds; otherwise start it anew."""


class JsonlSink:
    """Writes each message as one line: its topic, then the payload that MQTT would carry.

    A line is with the operating system before `publish` returns, so a reader sees whole lines
    promptly. Writing happens on a thread of the sink's own, in the order of the calls.
    """

    name = "jsonl"

    def __init__(self, settings: JsonlSettings) -> None:
        """Nothing is opened yet."""
        self.metrics = StageMetrics(self.name)
        place = "standard output" if settings.path == STDOUT else settings.path
        self._file = Appender(place, partial(_opened, settings))
        self._thread = OwnThread(self.name)
        self._closed = asyncio.Event()

    async def publish(self, message: Published) -> None:
        """Write a line.

        Raises:
            SinkError: it is lost; the text names the file and says why.
        """
        self.metrics.n_in += 1
        try:
            await self._on_thread(partial(self._file.append, to_line(message).encode()))
        except SinkError:
            self.metrics.drop("write_failed")
            raise
        self.metrics.n_out += 1

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
            msg = f"cannot open {self._file.place} in {timeout_secs:g} s"
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

    async def _on_thread(self, work: Callable[[], object]) -> None:
        if self._closed.is_set():
            msg = f"{self._file.place} is closed"
            raise SinkError(msg)
        await self._thread.do(work)


def to_line(message: Published) -> str:
    """A message as one line of JSON: `topic` first, then its payload; ends with a newline."""
    line = {"topic": message.topic, **message.payload()}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def _opened(settings: JsonlSettings) -> FileIO:
    if settings.path == STDOUT:
        if sys.stdout is None:  # `>&-`, or a service without one
            raise OSError(errno.EBADF, "it is closed")
        sys.stdout.flush()
        return FileIO(os.dup(sys.stdout.fileno()), "w")
    return FileIO(settings.path, "a" if settings.append else "w")
