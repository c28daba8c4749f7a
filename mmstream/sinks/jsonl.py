"""JSON lines: one message a line, to a file or to standard output."""

import errno
import json
import os
import sys
from functools import partial
from io import FileIO
from typing import Final

from pydantic import Field

from mmstream.config import Settings
from mmstream.messages import Published
from mmstream.sinks.appender import Appender
from mmstream.sinks.file_sink import FileSink

STDOUT: Final = "-"


class JsonlSettings(Settings):
    """Where the lines go."""

    path: str = Field(STDOUT, min_length=1)
    """A file in a folder that exists, or `-` for standard output."""
    append: bool = True
    """Keep what the file already holds; otherwise start it anew."""


class JsonlSink(FileSink):
    """Writes each message as one line: its topic, then the payload that MQTT would carry.

    A line is with the operating system before `publish` returns, so a reader sees whole lines
    promptly. Writing happens on a thread of the sink's own, in the order of the calls.
    """

    name = "jsonl"

    def __init__(self, settings: JsonlSettings) -> None:
        """Nothing is opened yet."""
        place = "standard output" if settings.path == STDOUT else settings.path
        self._lines = Appender(place, partial(_opened, settings))
        super().__init__(self.name, place, self._lines)

    async def publish(self, message: Published) -> None:
        """Write a line.

        Raises:
            SinkError: it is lost; the text names the file and says why.
        """
        await self._write(partial(self._lines.append, to_line(message).encode()))


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
