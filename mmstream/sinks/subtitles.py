"""Subtitles of what runs: a file that grows with each final caption, and is whole at any moment."""

import asyncio
from collections.abc import Callable
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
from mmstream.sinks.appender import Appender
from mmstream.sinks.own_thread import OwnThread
from mmstream.sinks.subtitle_formats import NOTE, Rolling, SubtitleFormat, beginning, format_of

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
        self._file = _CueFile(settings.path, zero_utc_ns=zero_utc_ns, voices=voices)
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
    """The file itself; used on one thread."""

    def __init__(self, path: str, *, zero_utc_ns: int, voices: bool) -> None:
        form = format_of(path)
        self._file = Appender(path, partial(_opened, Path(path), form))
        self._beginning = beginning(form, zero_utc_ns).encode()
        self._has_begun = False
        self._rolling = Rolling(form, zero_utc_ns=zero_utc_ns, voices=voices)

    def open(self) -> None:
        """So that it is whole, though it has no cue yet."""
        if not self._has_begun:
            self._file.append(self._beginning)
            self._has_begun = True

    def write(self, caption: Caption) -> None:
        self.open()
        self._file.append(self._rolling.push(caption).encode())

    def close(self) -> None:
        self._file.close()


def _opened(path: Path, form: SubtitleFormat) -> FileIO:
    _keep_older(path, form)
    return FileIO(path, "w")


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
    ours = beginning(form, 0).partition(NOTE)[0].encode() + NOTE.encode()
    with path.open("rb") as file:
        return file.read(len(ours)) != ours or b"-->" in file.read()
