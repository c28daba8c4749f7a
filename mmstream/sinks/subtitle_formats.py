"""Final captions as subtitle files: WebVTT, SubRip and a plain transcript. Pure: no file, no clock.

    captions -> cues (a start, an end, at most two lines of 42 columns) -> text of a file

`whole` writes all captions of a recording at once: sorted, each shown long enough to be read where
the next leaves room. `Rolling` appends as finals come: what was written stays, so a cue lasts
as long as what it tells, and starts never go back, as WebVTT demands (W3C, "WebVTT: The Web Video
Text Tracks Format", section 3.1).

What was said comes as it is, in italics where nobody on screen says it; sounds bring their
brackets along. What is seen has the class `scene` and the top of the picture in WebVTT, and is in
(round brackets) where there are no classes. A caption without text takes a partial back: no cue.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePath
from typing import Final, Literal

from mmstream.messages import Caption, iso_utc
from mmstream.sinks.line_breaks import columns, lines_of, one_line

CUE_LINES: Final = 2
MIN_MS: Final = 1000
COLUMN_MS: Final = 60
"""About how long a column takes to be read: 17 letters in a second, or 8 characters of Chinese."""


NOTE: Final = "NOTE Times count from"
"""In WebVTT, before the instant at which a file that grows has its zero."""


class SubtitleFormat(StrEnum):
    """What a file is, by its suffix."""

    WEBVTT = ".vtt"
    SUBRIP = ".srt"
    TRANSCRIPT = ".txt"


@dataclass(frozen=True, slots=True)
class Cue:
    """Text, and from when to when it is shown, in milliseconds since the file's zero."""

    id: str
    source: str
    kind: Literal["speech", "sound", "scene"]
    start_ms: int
    end_ms: int
    text: str
    """What it says, unbroken."""
    on_screen: bool | None
    """Whether who speaks is seen; None: not known."""

    @property
    def lines(self) -> Sequence[str]:
        """Each at most 42 columns wide, unless it is a single word."""
        return [line.rstrip() for line in lines_of(self.text)]


def format_of(path: str) -> SubtitleFormat:
    """What a file of this name is to hold.

    Raises:
        ValueError: its suffix does not say.
    """
    suffix = PurePath(path).suffix.lower()
    try:
        return SubtitleFormat(suffix)
    except ValueError:
        given = repr(suffix) if suffix else "none"
        msg = f"the suffix is {given}; allowed: {', '.join(SubtitleFormat)}"
        raise ValueError(msg) from None


def whole(
    captions: Sequence[Caption], form: SubtitleFormat, *, zero_utc_ns: int, voices: bool
) -> str:
    """The file of a recording that began at `zero_utc_ns`, from the finals among its captions.

    With `voices` each cue names its source. Players begin a recording at 0, so nothing says when
    that was.
    """
    cues = polished([cue for one in captions for cue in cues_of(one, zero_utc_ns)])
    written = (_written(cue, form, n + 1, voices=voices) for n, cue in enumerate(cues))
    return _header(form) + "".join(written)


class Rolling:
    """A file that grows with each final caption, and is whole after each."""

    def __init__(self, form: SubtitleFormat, *, zero_utc_ns: int, voices: bool) -> None:
        """Nothing is written yet; `beginning` is."""
        self._form = form
        self._zero_utc_ns = zero_utc_ns
        self._voices = voices
        self._n_cues = 0
        self._start_ms = 0
        """Of the last cue."""
        self._free_ms: dict[tuple[str, str], int] = {}
        """By source and kind: when its last cue ends."""

    def push(self, caption: Caption) -> str:
        """What to append for a caption; empty where it gives no cue."""
        return "".join(self._next(cue) for cue in cues_of(caption, self._zero_utc_ns))

    def _next(self, cue: Cue) -> str:
        row = (cue.source, cue.kind)
        start_ms = max(cue.start_ms, self._start_ms, self._free_ms.get(row, 0))
        shown_ms = min(cue.end_ms - cue.start_ms, MIN_MS)  # at least, also when it comes late
        placed = replace(cue, start_ms=start_ms, end_ms=max(cue.end_ms, start_ms + shown_ms))
        self._n_cues += 1
        self._start_ms, self._free_ms[row] = start_ms, placed.end_ms
        return _written(placed, self._form, self._n_cues, voices=self._voices)


def beginning(form: SubtitleFormat, zero_utc_ns: int) -> str:
    """What a file that grows starts with, before the first cue."""
    header = _header(form)
    return header and f"{header}{NOTE} {iso_utc(zero_utc_ns)}\n\n"


def cues_of(caption: Caption, zero_utc_ns: int) -> Sequence[Cue]:
    """A final caption as cues; one that is too long for two lines as several, in equal pace."""
    text = one_line(caption.text)
    if caption.state != "final" or not text:
        return ()
    start_ms, end_ms = (
        max(0, round(secs * 1000 - zero_utc_ns / 1_000_000))
        for secs in (caption.t_start, caption.t_end)
    )
    lines = lines_of(text)
    pieces = ["".join(lines[n : n + CUE_LINES]).rstrip() for n in range(0, len(lines), CUE_LINES)]
    n_columns = sum(map(columns, pieces))
    cues: list[Cue] = []
    n_before = 0
    for n, piece in enumerate(pieces):
        n_after = n_before + columns(piece)
        from_ms, to_ms = (
            start_ms + (end_ms - start_ms) * count // n_columns for count in (n_before, n_after)
        )
        cue_id = caption.id if n == 0 else f"{caption.id}-{n + 1}"
        ends = max(to_ms, from_ms + 1)
        cues.append(
            Cue(cue_id, caption.source, caption.kind, from_ms, ends, piece, caption.on_screen)
        )
        n_before = n_after
    return cues


def polished(cues: Sequence[Cue]) -> Sequence[Cue]:
    """In order of their starts, each long enough to be read if the next leaves room.

    Of one source and kind no two are shown at once.
    """
    placed: list[Cue] = []
    next_ms: dict[tuple[str, str], int] = {}
    in_order = sorted(cues, key=lambda cue: (cue.start_ms, cue.end_ms))
    for cue in _apart(in_order)[::-1]:
        row = (cue.source, cue.kind)
        readable_ms = cue.start_ms + max(MIN_MS, COLUMN_MS * columns(cue.text))
        end_ms = max(cue.end_ms, readable_ms)
        placed.append(replace(cue, end_ms=min(end_ms, next_ms.get(row, end_ms))))
        next_ms[row] = cue.start_ms
    placed.reverse()
    return sorted(placed, key=lambda cue: cue.start_ms)


def _apart(cues: Sequence[Cue]) -> Sequence[Cue]:
    """No two of one source and kind start in the same millisecond."""
    free_ms: dict[tuple[str, str], int] = {}
    moved: list[Cue] = []
    for cue in cues:
        row = (cue.source, cue.kind)
        start_ms = max(cue.start_ms, free_ms.get(row, 0))
        moved.append(replace(cue, start_ms=start_ms, end_ms=max(cue.end_ms, start_ms + 1)))
        free_ms[row] = start_ms + 1
    return moved


def _header(form: SubtitleFormat) -> str:
    return "WEBVTT\n\n" if form is SubtitleFormat.WEBVTT else ""


def _written(cue: Cue, form: SubtitleFormat, number: int, *, voices: bool) -> str:
    match form:
        case SubtitleFormat.WEBVTT:
            return _webvtt(cue, voices=voices)
        case SubtitleFormat.SUBRIP:
            return _subrip(cue, number, voices=voices)
        case SubtitleFormat.TRANSCRIPT:
            voice = f"{cue.source}: " if voices else ""
            return f"[{_clock(cue.start_ms, '.')[:-4]}] {voice}{_bracketed(cue, cue.text)}\n"


def _webvtt(cue: Cue, *, voices: bool) -> str:
    """A cue block; `&`, `<` and `>` are escaped, so that no text can hold `-->` or a tag."""
    text = html.escape("\n".join(cue.lines), quote=False)
    settings = ""
    if cue.kind == "scene":
        text, settings = f"<c.scene>{text}</c>", " line:0"
    elif _is_unseen(cue):
        text = f"<i>{text}</i>"
    if voices:
        text = f"<v {html.escape(cue.source, quote=False)}>{text}</v>"
    start, end = _clock(cue.start_ms, "."), _clock(cue.end_ms, ".")
    return f"{cue.id}\n{start} --> {end}{settings}\n{text}\n\n"


def _subrip(cue: Cue, number: int, *, voices: bool) -> str:
    """A numbered block. The format has no escapes: `-->` in a text becomes an arrow."""
    text = _bracketed(cue, "\n".join(cue.lines)).replace("-->", "\N{RIGHTWARDS ARROW}")
    if _is_unseen(cue):
        text = f"<i>{text}</i>"
    voice = f"{cue.source}: " if voices else ""
    start, end = _clock(cue.start_ms, ","), _clock(cue.end_ms, ",")
    return f"{number}\n{start} --> {end}\n{voice}{text}\n\n"


def _is_unseen(cue: Cue) -> bool:
    return cue.kind == "speech" and cue.on_screen is False


def _bracketed(cue: Cue, text: str) -> str:
    return f"({text})" if cue.kind == "scene" else text


def _clock(ms: int, point: str) -> str:
    """hh:mm:ss and milliseconds after `point`; hours may have more than two digits."""
    secs, ms = divmod(ms, 1000)
    minutes, secs = divmod(secs, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{secs:02}{point}{ms:03}"
