"""Subtitles of what runs: a file that grows with each final caption, and is whole at any moment."""

from datetime import UTC, datetime
from functools import partial
from io import FileIO
from itertools import count
from pathlib import Path

from pydantic import Field, field_validator

from mmstream.config import Settings
from mmstream.messages import Caption, Published
from mmstream.sinks.appender import Appender
from mmstream.sinks.file_sink import FileSink
from mmstream.sinks.subtitle_formats import NOTE, Rolling, SubtitleFormat, beginning, format_of


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


class SubtitlesSink(FileSink):
    """Appends each final caption as a cue; all else passes it by uncounted.

    A cue is with the operating system before `publish` returns. Writing happens on a thread of the
    sink's own, in the order of the calls.
    """

    name = "subtitles"

    def __init__(self, settings: SubtitlesSettings, *, zero_utc_ns: int, voices: bool) -> None:
        """Nothing is opened yet. Times count from `zero_utc_ns`; with `voices` cues name sources.

        Both hold for the whole run, so `voices` where there are or may be several sources.
        """
        self._settings = settings
        self._cues = _CueFile(settings.path, zero_utc_ns=zero_utc_ns, voices=voices)
        super().__init__(self.name, settings.path, self._cues)

    async def publish(self, message: Published) -> None:
        """Write a cue, if it is a final caption.

        Raises:
            SinkError: it is lost; the text names the file and says why.
        """
        caption = message.content
        if isinstance(caption, Caption) and self._settings.tells(caption):
            await self._write(partial(self._cues.write, caption))


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
