"""A file that grows by whole chunks: what of one is not on disk as a whole is taken back."""

import os
from collections.abc import Callable
from contextlib import suppress
from io import FileIO

from mmstream.errors import SinkError


class Appender:
    """Appends to a file, unbuffered; used on one thread."""

    def __init__(self, place: str, opened: Callable[[], FileIO]) -> None:
        """Nothing is opened yet. `place` is what errors call the file.

        `opened` gives it, open for writing; an OSError or ValueError of its says why it cannot.
        """
        self.place = place
        self._opened = opened
        self._file: FileIO | None = None

    def open(self) -> FileIO:
        """The file, opened by the first call.

        Raises:
            SinkError: it cannot be opened; the text names it and says why.
        """
        if self._file is None:
            try:
                self._file = self._opened()
            except (OSError, ValueError) as error:
                msg = f"cannot open {self.place}: {_reason(error)}"
                raise SinkError(msg) from None
        return self._file

    def append(self, chunk: bytes) -> None:
        """All of it, with the operating system when this returns, or nothing.

        Raises:
            SinkError: it cannot be opened or written; the text names it and says why.
        """
        file = self.open()
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[_written(file, rest) :]
        except OSError as error:
            _take_back(file, n_bytes=len(chunk) - len(rest))
            msg = f"cannot write to {self.place}: {_reason(error)}"
            raise SinkError(msg) from None

    def close(self) -> None:
        """Close what was opened."""
        if self._file is not None:
            self._file.close()


def _written(file: FileIO, chunk: memoryview) -> int:
    n_bytes = file.write(chunk)
    if n_bytes is None:
        raise BlockingIOError(0, "it takes no more just now")
    return n_bytes


def _take_back(file: FileIO, *, n_bytes: int) -> None:
    """A full disk takes half a chunk: remove it, so that the next one begins where it did."""
    if n_bytes and file.seekable():
        with suppress(OSError):  # the write's own error is the one to report
            file.truncate(file.tell() - n_bytes)
            file.seek(0, os.SEEK_END)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
