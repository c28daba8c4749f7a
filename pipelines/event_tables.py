"""Entries of an event log as people read them: on a terminal as wide as it is, else uncut."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, TextIO

from pydantic import JsonValue
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from mmstream.messages import Event, NumberedStamp, Published
from mmstream.store.event_log import Entry, Hit, LoggedMessage

UNCUT: Final = 1000
"""Columns where nobody's terminal says how many there are."""

_SHOWN_ELSEWHERE: Final = frozenset({"type", "score", "evidence", "words", "t_start", "t_end"})
_SECS_PER_MIN: Final = 60
_SECS_PER_HOUR: Final = 3600


def show(part: RenderableType, out: TextIO) -> None:
    """Print a table or a text."""
    width = None if out.isatty() else UNCUT
    Console(file=out, width=width, highlight=False).print(part, soft_wrap=not out.isatty())


def listing(entries: Sequence[Entry]) -> Table:
    """One line per entry."""
    table = _table("began", "for", "source", "what", "kind", "score", "state", "id")
    for entry in entries:
        table.add_row(*_cells(entry))
    return table


def found(hits: Sequence[Hit]) -> Table:
    """One line per entry that a search found, with the words that were looked for."""
    table = _table("began", "for", "source", "what", "kind", "score", "state", "id", "found")
    for hit in hits:
        table.add_row(*_cells(hit.entry), _plain(hit.excerpt))
    return table


def life(messages: Sequence[LoggedMessage]) -> Iterator[RenderableType]:
    """Everything that was said of one entry.

    Raises:
        StoreError: another version of mmstream wrote it.
    """
    said = [message.published() for message in messages]
    last = said[-1].content
    yield _facts(said[-1])
    table = _table("said", "step", "score", "boot", "seq", "late", "broker")
    for logged, one in zip(messages, said, strict=True):
        content, stamp = one.content, one.stamp
        step, score = "", ""
        if isinstance(content, Event):
            step, score = content.type, f"{content.score:.2f}"
        seq = stamp.seq if isinstance(stamp, NumberedStamp) else None
        late = isinstance(stamp, NumberedStamp) and stamp.late
        table.add_row(
            _local(logged.added_ns / 1e9),
            step,
            score,
            _plain(stamp.boot_id),
            "" if seq is None else str(seq),
            "late" if late else "",
            "waits" if logged.is_waiting else "has it",
        )
    yield table
    if isinstance(last, Event) and last.evidence:
        yield _evidence(last)


def _facts(message: Published) -> Table:
    """Topic, and all that the last message says of the whole."""
    table = Table.grid(padding=(0, 2))
    table.add_row("topic", message.topic)
    fields = message.content.model_dump(
        mode="json", exclude=set(_SHOWN_ELSEWHERE), exclude_none=True
    )
    for name, value in fields.items():
        table.add_row(name, _plain(_words(value)))
    return table


def _words(value: JsonValue) -> str:
    match value:
        case dict():
            return ", ".join(f"{key} {_words(one)}" for key, one in value.items())
        case list():
            return ", ".join(map(_words, value))
        case _:
            return str(value)


def _evidence(event: Event) -> Table:
    table = _table("evidence", "modality", "label", "score", "from", "for", "where", "note")
    for one in event.evidence:
        box = one.box
        where = "" if box is None else f"{box.x:.2f},{box.y:.2f} {box.width:.2f}x{box.height:.2f}"
        table.add_row(
            _plain(one.detector),
            one.modality,
            _plain(one.label),
            f"{one.score:.2f}",
            _local(one.t_start),
            _lasted(one.t_end - one.t_start),
            where,
            _plain(one.note or ""),
        )
    return table


def _cells(entry: Entry) -> tuple[Text | str, ...]:
    lasted = "" if entry.t_end is None else _lasted(entry.t_end - entry.t_start)
    state = "open" if entry.is_open else entry.end_reason or ""
    if entry.n_waiting:
        state = f"{state}, {entry.n_waiting} not sent".removeprefix(", ")
    return (
        _local(entry.t_start),
        lasted,
        _plain(entry.source),
        _plain(entry.text or entry.label or ""),
        entry.kind or entry.content,
        "" if entry.top_score is None else f"{entry.top_score:.2f}",
        state,
        _plain(entry.id),
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != "what")
    return table


def _plain(text: str) -> Text:
    """Text from outside: no markup of ours and no control characters of a terminal's."""
    return Text("".join(letter if letter.isprintable() else " " for letter in text))


def _local(epoch_s: float) -> str:
    """An instant as people here have it."""
    when = datetime.fromtimestamp(epoch_s, UTC).astimezone()
    return when.strftime("%Y-%m-%d %H:%M:%S.%f")[:-5]


def _lasted(secs: float) -> str:
    if secs < _SECS_PER_MIN:
        return f"{secs:.1f} s"
    if secs < _SECS_PER_HOUR:
        return f"{secs // 60:.0f} min {secs % 60:.0f} s"
    return f"{secs // 3600:.0f} h {secs % 3600 // 60:.0f} min"
