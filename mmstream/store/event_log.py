"""Reads an event log, also while a run writes it: list, show, search, export."""

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmstream.messages import Published, epoch_secs
from mmstream.store import schema
from mmstream.store.database import close_quietly, connect_reader, quick_check, telling
from mmstream.store.records import ContentName, to_published

PAGE: Final = 256
"""Rows that are held at once. Between pages nothing is locked, however slowly they are taken."""

_Value = str | float | int | None
_ENTRY_COLUMNS: Final = """
    entries.entry, content, id, node, entries.source, kind, entries.label, entries.text, t_start,
    t_end, top_score, entries.end_reason, is_open, n_waiting,
    (SELECT count(*) FROM messages WHERE messages.entry = entries.entry),
    acknowledged_ns, acknowledged_by
"""
_WORD: Final = re.compile(r'"([^"\0]+)"|([^\s"\0]+)')
"""A phrase, or a word. SQLite takes NUL for the end of a query."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries; what is None lets all through."""

    content: ContentName | None = None
    source: str | None = None
    label: str | None = None
    """Of an event, or the rule of an alert."""
    kind: str | None = None
    """audio, video or av of an event; speech, sound or scene of a caption."""
    since_ns: int | None = None
    """Began at this instant or later, UTC since 1970."""
    until_ns: int | None = None
    """Began before this instant, UTC since 1970."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event from start to end, an alert or a final caption."""

    number: int
    """Its own in this file."""
    content: ContentName
    id: str
    node: str
    source: str
    kind: str | None
    """audio, video, av of an event; speech, sound, scene of a caption."""
    label: str | None
    """Of an event; the rule of an alert."""
    text: str
    """Of a caption; else empty."""
    t_start: float
    """Seconds since 1970."""
    t_end: float | None
    """Seconds since 1970; None for alerts and open events."""
    top_score: float | None
    """0..1, of an event."""
    end_reason: str | None
    is_open: bool
    """An event that has no end yet."""
    n_waiting: int
    """Messages of it that no broker has yet."""
    n_messages: int
    """Messages of it that are kept."""
    acknowledged_ns: int | None = None
    """When somebody said that they have seen the event, UTC since 1970."""
    acknowledged_by: str | None = None
    """Who, as far as that is known."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that a search found."""

    entry: Entry
    excerpt: str
    """Where the words stand, each between `[` and `]`."""


@dataclass(frozen=True, slots=True)
class LoggedMessage:
    """A message as it was said."""

    key: int
    """Rises in the order in which they were said."""
    added_ns: int
    """When it was stored, UTC since 1970."""
    is_waiting: bool
    """No broker has it yet."""
    content: ContentName
    payload: str
    """The JSON that goes on the wire."""

    def published(self) -> Published:
        """The same as a message with its topic.

        Raises:
            StoreError: another version of mmstream wrote it, and this one cannot read it.
        """
        return to_published(self.content, self.payload)


class EventLog:
    """The reader of a file; used on one thread. Any number may read while a `Store` writes."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            StoreError: there is none, it cannot be read, is none of ours or of another version;
                the text names it and says what to do.
        """
        self.path = path
        self._connection = connect_reader(path)
        try:
            with telling(path):
                schema.refuse_newer(self._connection, path)
                schema.refuse_older(self._connection, path)
        except BaseException:
            self.close()
            raise

    def entries(self, which: Filter | None = None, *, limit: int | None = None) -> Iterator[Entry]:
        """Entries by when they began, the newest first; at most `limit`.

        Raises:
            StoreError: the file cannot be read.
        """
        conditions, values = _conditions(which or Filter())
        after: tuple[_Value, ...] = ()
        n_left = limit
        while n_left is None or n_left > 0:
            behind = ["(t_start, entry) < (?, ?)"] if after else []
            n_wanted = PAGE if n_left is None else min(PAGE, n_left)
            where = " AND ".join(["1", *conditions, *behind])
            sql = f"""
                SELECT {_ENTRY_COLUMNS} FROM entries WHERE {where}
                ORDER BY t_start DESC, entry DESC LIMIT {n_wanted}
            """  # noqa: S608 -- all values are bound
            page = [_entry(row) for row in self._rows(sql, (*values, *after))]
            yield from page
            if len(page) < n_wanted:
                return
            after = (page[-1].t_start, page[-1].number)
            n_left = None if n_left is None else n_left - len(page)

    def messages(self, which: Filter | None = None) -> Iterator[LoggedMessage]:
        """All messages of these entries in the order in which they were said.

        Raises:
            StoreError: the file cannot be read.
        """
        conditions, values = _conditions(which or Filter())
        return self._messages("messages CROSS JOIN entries", conditions, values)

    def show(self, entry_id: str) -> Iterator[LoggedMessage]:
        """All messages of the event, alert or caption with this id, in order; none: no such id.

        Raises:
            StoreError: the file cannot be read.
        """
        conditions = ["content IN ('event', 'alert', 'caption')", "id = ?"]  # as they are indexed
        return self._messages("entries CROSS JOIN messages", conditions, (entry_id,))

    def search(self, text: str, *, limit: int = 50) -> tuple[Hit, ...]:
        """The entries that hold all of these words, the best first (BM25), then the newest.

        Looked through are captions, labels, rules, sources, end reasons, and labels and notes of
        evidence. `"in quotes"` must stand together, `glas*` begins a word; case and accents do not
        matter. Nothing is found for no words.

        Raises:
            StoreError: the file cannot be read.
        """
        query = _fts_query(text)
        if not query:
            return ()
        sql = f"""
            SELECT {_ENTRY_COLUMNS}, snippet(texts, -1, '[', ']', ' ... ', 16)
            FROM texts JOIN entries ON entries.entry = texts.rowid
            WHERE texts MATCH ? ORDER BY bm25(texts), t_start DESC, entries.entry DESC LIMIT ?
        """  # noqa: S608 -- all values are bound
        return tuple(Hit(_entry(row), str(row[-1])) for row in self._rows(sql, (query, limit)))

    def check(self) -> tuple[str, ...]:
        """What is wrong with the file, a line each; empty: it is sound. Reads all of it.

        Raises:
            StoreError: its disk cannot be read.
        """
        with telling(self.path):
            return quick_check(self._connection)

    def close(self) -> None:
        """Let the file go."""
        close_quietly(self._connection)

    def _messages(
        self, joined: str, conditions: list[str], values: tuple[_Value, ...]
    ) -> Iterator[LoggedMessage]:
        """A cross join is carried out in the order in which it is written."""
        sql = f"""
            SELECT key, added_ns, is_waiting, content, payload FROM {joined} USING (entry)
            WHERE {" AND ".join([*conditions, "key > ?"])} ORDER BY key LIMIT {PAGE}
        """  # noqa: S608 -- all values are bound
        after_key = 0
        while True:
            page = [_message(row) for row in self._rows(sql, (*values, after_key))]
            yield from page
            if len(page) < PAGE:
                return
            after_key = page[-1].key

    def _rows(self, sql: str, values: tuple[_Value, ...]) -> list[sqlite3.Row]:
        with telling(self.path):
            cursor = self._connection.cursor()
            cursor.row_factory = sqlite3.Row
            return list(cursor.execute(sql, values))


def _conditions(which: Filter) -> tuple[list[str], tuple[_Value, ...]]:
    since = None if which.since_ns is None else epoch_secs(which.since_ns)
    until = None if which.until_ns is None else epoch_secs(which.until_ns)
    asked: list[tuple[str, _Value]] = [
        ("content = ?", which.content),
        ("entries.source = ?", which.source),
        ("entries.label = ?", which.label),
        ("kind = ?", which.kind),
        ("t_start >= ?", since),
        ("t_start < ?", until),
    ]
    chosen = [(condition, value) for condition, value in asked if value is not None]
    return [condition for condition, _ in chosen], tuple(value for _, value in chosen)


def _fts_query(text: str) -> str:
    """Each word in quotes, so that nothing in it is an operator of FTS5's language."""
    terms: list[str] = []
    for together, word in _WORD.findall(text):
        stem = together or word.rstrip("*")
        if any(letter.isalnum() for letter in stem):
            terms.append(f'"{stem}"*' if word.endswith("*") else f'"{stem}"')
    return " ".join(terms)


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(
        number=row[0],
        content=row[1],
        id=row[2],
        node=row[3],
        source=row[4],
        kind=row[5],
        label=row[6],
        text=row[7],
        t_start=row[8],
        t_end=row[9],
        top_score=row[10],
        end_reason=row[11],
        is_open=bool(row[12]),
        n_waiting=row[13],
        n_messages=row[14],
        acknowledged_ns=row[15],
        acknowledged_by=row[16],
    )


def _message(row: sqlite3.Row) -> LoggedMessage:
    return LoggedMessage(
        key=row[0],
        added_ns=row[1],
        is_waiting=bool(row[2]),
        content=row[3],
        payload=row[4],
    )
