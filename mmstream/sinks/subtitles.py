"""Subtitles of what runs: a file that grows with each final caption, and is whole at any moment."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from itertools import count
from pathlib import Path
from typing import Final

from pydantic import Field, field_validator

from mmstream.config import Settings
from mmstream.errors import SinkError
from mmstream.messages import Caption, Published
from mmstream.metrics import StageMetrics
from mmstream.sinks.own_thread import OwnThread
from mmstream.sinks.subtitle_formats import Rolling, SubtitleFormat, beginning, format_of

CLOSE_SECS: Final = 2.0
"""A disk that hangs holds `close` up for no longer than this."""


class SubtitlesSettings(Settings):
    """Where the subtitles go and what they tell."""

    path: str = Field(min_length=1)
    """A file in a folder that exists: WebVTT (`.vtt`), SubRip (`.srt`) or a transcript (`.txt`).
    One of an earlier run is kept under the time of its last change: `talk.20261123T100000Z.vtt`."""
    sounds: bool = True
    """Whether it tells what is heard besides speech."""
    scene: bool = True
    """Whether it tells what is seen."""

    @field_validator("path")
    @classmethod
    def _has_a_format(cls, path: str) -> str:
        format_of(path)
        return path

    def tells(self, caption: Caption) -> bool:
        """Whether the file has room for it."""
        is_wanted = {"speech": True, "sound": self.sounds, "scene": self.scene}[caption.kind]
        return is_wanted and caption.state == "final" and bool(caption.text.strip())


class SubtitlesSink:
    """Appends each final caption as a cue; all else passes it by uncounted.

    A cue is with the operating system before `publish` returns. Writing happens on a thread of the
    sink's own, in the order of the calls.
    """

    name = "subtitles"

    def __init__(self, settings: SubtitlesSettings, *, zero_utc_ns: int, voices: bool) -> None:
        """Nothing is opened yet. Times count from `zero_utc_ns`; with `voices` cues name sources.

        Both hold for the whole run, so `voices` where there are or may be several sources.
        """
        self.metrics = StageMetrics(self.name)
        self._settings = settings
        self._file = _CueFile(Path(settings.path), zero_utc_ns=zero_utc_ns, voices=voices)
        self._thread = OwnThread(self.name)
        self._closed = asyncio.Event()

    async def publish(self, message: Published) -> None:
        """Write a cue, if it is a final caption.

        Raises:
            SinkError: it is lost; the text names the file and says why.
        """
        caption = message.content
        if not isinstance(caption, Caption) or not self._settings.tells(caption):
            return
        self.metrics.n_in += 1
        try:
            await self._on_thread(partial(self._file.write, caption))
        except SinkError:
            self.metrics.drop("write_failed")
            raise
        self.metrics.n_out += 1

    async def ready(self, timeout_secs: float) -> None:
        """Wait until the file is open and can be read by others.

        Raises:
            SinkError: it cannot be opened, or not in `timeout_secs`; the text names it and says
                why.
        """
        try:
            async with asyncio.timeout(timeout_secs):
                await self._on_thread(self._file.open)
        except TimeoutError:
            msg = f"cannot open {self._settings.path} in {timeout_secs:g} s"
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
            msg = f"{self._settings.path} is closed"
            raise SinkError(msg)
        await self._thread.do(work)


class _CueFile:
    """The file itself, unbuffered; used on one thread."""

    def __init__(self, path: Path, *, zero_utc_ns: int, voices: bool) -> None:
        self._path = path
        self._form = format_of(str(path))
        self._beginning = beginning(self._form, zero_utc_ns)
        self._rolling = Rolling(self._form, zero_utc_ns=zero_utc_ns, voices=voices)
        self._file: FileIO | None = None

    def open(self) -> FileIO:
        if self._file is None:
            try:
                _keep_older(self._path, self._form)
                file = FileIO(self._path, "w")
            except OSError as error:
                msg = f"cannot open {self._path}: {error.strerror or error}"
                raise SinkError(msg) from None
            self._append(file, self._beginning)
            self._file = file
        return self._file

    def write(self, caption: Caption) -> None:
        self._append(self.open(), self._rolling.push(caption))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _append(self, file: FileIO, text: str) -> None:
        chunk = text.encode()
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[file.write(rest) or 0 :]
        except OSError as error:
            _take_back(file, n_bytes=len(chunk) - len(rest))
            msg = f"cannot write to {self._path}: {error.strerror or error}"
            raise SinkError(msg) from None


def _take_back(file: FileIO, *, n_bytes: int) -> None:
    """A full disk takes half a cue: remove it, so that the file stays whole."""
    if n_bytes and file.seekable():
        with suppress(OSError):  # the write's own error is the one to report
            file.truncate(file.tell() - n_bytes)
            file.seek(0, os.SEEK_END)


def _keep_older(path: Path, form: SubtitleFormat) -> None:
    """Move what an earlier run has written aside; a file without any cue is not worth keeping."""
    if not path.is_file() or not _has_cues(path, form):
        return
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y%m%dT%H%M%SZ")
    for n in count(1):
        number = "" if n == 1 else f"-{n}"
        kept = path.with_name(f"{path.stem}.{changed}{number}{path.suffix}")
        if not kept.exists():
            path.rename(kept)
            return


def _has_cues(path: Path, form: SubtitleFormat) -> bool:
    """A file of ours that has none begins with a note at most."""
    if form is not SubtitleFormat.WEBVTT:
        return path.stat().st_size > 0
    ours = beginning(form, 0).split(" count")[0].encode()
    with path.open("rb") as file:
        return file.read(len(ours)) != ours or b"-->" in file.read()
