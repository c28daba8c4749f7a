"""What goes when the file is too large or what it holds is too old: whole entries, oldest first.

    1. what was delivered: history
    2. what waits
    3. open events, for size only: all but the last message where the start was delivered, so that
       the event can still be ended; else the whole event, and what is still said of it is refused

So nobody gets an `update` or `end` of an event whose `start` went unsent. (A `start` that is under
way to the broker in the instant in which 3. takes it may arrive, and is not ended.)

What is older is so by the wall clock, as far as that can be relied on: see `Store.evict`.
"""

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

from mmstream.store.database import number

CLOCK_SET_NS: Final = 1_735_689_600 * 10**9
"""2025, before there was an mmstream: a clock that is behind this was not set."""

Reason = Literal["age", "size"]

N_AT_ONCE: Final = 16
"""Entries that go in one transaction: few, so that little is evicted beyond need, and that there is
room for it in a `-wal` on a full disk."""

_LOGGED: Final = "is_open = 0 AND n_waiting = 0"
_SPOOLED: Final = "is_open = 0 AND n_waiting > 0"
_INDEXED: Final = ("is_open = 1", _LOGGED, _SPOOLED)
"""All of them, in three indexes by `touched_ns`."""
_CUTTABLE: Final = """
    is_open = 1 AND (
        (SELECT count(*) FROM messages WHERE messages.entry = entries.entry) > 1
        OR EXISTS (
            SELECT 1 FROM messages
            WHERE messages.entry = entries.entry AND is_waiting = 1 AND type = 'start'
        )
    )
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept."""

    max_age_ns: int
    """Since the last message of an entry was stored."""
    max_bytes: int
    """Of the file's pages in use, with indexes; free pages and the `-wal` beside it take about
    5 MiB more. The disk must have room for it all: on a full one nothing can be deleted either."""

    def __post_init__(self) -> None:
        if self.max_age_ns <= 0 or self.max_bytes <= 0:
            msg = f"limits must be positive: got {self.max_age_ns=} {self.max_bytes=}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Evicted:
    """What one step took."""

    n_messages: Counter[str] = field(default_factory=Counter)
    """By reason: `log_*` were delivered, `spool_*` were not; `*_age` or `*_size`."""
    cut: frozenset[str] = frozenset()
    """Ids of open events that are gone, their `start` unsent: no message of them may follow."""


def evict_step(
    connection: sqlite3.Connection, max_bytes: int, *, oldest_ns: int | None
) -> Evicted | None:
    """Let a few entries go, within a transaction; None: nothing has to go, or nothing can.

    What was last touched before `oldest_ns` is too old; None: nothing is.
    """
    for which in (_LOGGED, _SPOOLED) if oldest_ns is not None else ():
        entries = _oldest(connection, f"{which} AND touched_ns < {oldest_ns}")
        if entries:
            return Evicted(_drop(connection, entries, "age"))
    if used_bytes(connection) <= max_bytes:
        return None
    for which in (_LOGGED, _SPOOLED):
        entries = _oldest(connection, which)
        if entries:
            return Evicted(_drop(connection, entries, "size"))
    entries = _oldest(connection, _CUTTABLE)
    return _cut(connection, entries) if entries else None


def restamp(connection: sqlite3.Connection, now_ns: int) -> None:
    """What was stored by a clock that was not set counts from now on, within a transaction."""
    for which in _INDEXED:
        sql = f"UPDATE entries SET touched_ns = ? WHERE {which} AND touched_ns < ?"  # noqa: S608 -- constants of this file
        connection.execute(sql, (now_ns, CLOCK_SET_NS))


def used_bytes(connection: sqlite3.Connection) -> int:
    """How much of the file holds something."""
    n_pages = number(connection, "PRAGMA page_count") - number(connection, "PRAGMA freelist_count")
    return n_pages * number(connection, "PRAGMA page_size")


def newest_ns(connection: sqlite3.Connection) -> int:
    """When an entry was last touched, by the clock of then; 0: there is none."""
    newest = 0
    for which in _INDEXED:
        sql = f"SELECT coalesce(max(touched_ns), 0) FROM entries WHERE {which}"  # noqa: S608 -- constants of this file
        newest = max(newest, number(connection, sql))
    return newest


def _oldest(connection: sqlite3.Connection, which: str) -> tuple[int, ...]:
    order = f"ORDER BY touched_ns, entry LIMIT {N_AT_ONCE}"
    sql = f"SELECT entry FROM entries WHERE {which} {order}"  # noqa: S608 -- constants of this file, and a number
    return tuple(int(entry) for (entry,) in connection.execute(sql))


def _drop(connection: sqlite3.Connection, entries: tuple[int, ...], reason: Reason) -> Counter[str]:
    n_messages: Counter[str] = Counter()
    for entry in entries:
        n_messages += _drop_messages(connection, entry, reason)
        connection.execute("DELETE FROM entries WHERE entry = ?", (entry,))
    return n_messages


def _cut(connection: sqlite3.Connection, entries: tuple[int, ...]) -> Evicted:
    n_messages: Counter[str] = Counter()
    cut: set[str] = set()
    for entry in entries:
        sql = "SELECT max(key), max(is_waiting AND type = 'start') FROM messages WHERE entry = ?"
        last_key, is_unsent = connection.execute(sql, (entry,)).fetchone()
        if not is_unsent:
            n_messages += _drop_messages(connection, entry, "size", before_key=last_key)
            continue
        sql = "SELECT id FROM entries WHERE entry = ?"
        cut.update(str(event_id) for (event_id,) in connection.execute(sql, (entry,)))
        n_messages += _drop(connection, (entry,), "size")
    return Evicted(n_messages, frozenset(cut))


def _drop_messages(
    connection: sqlite3.Connection, entry: int, reason: Reason, *, before_key: int | None = None
) -> Counter[str]:
    which = "FROM messages WHERE entry = ? AND (? IS NULL OR key < ?)"
    values = (entry, before_key, before_key)
    sql = f"SELECT count(*), total(is_waiting) {which}"
    n_all, n_waiting = (int(n) for n in connection.execute(sql, values).fetchone())
    connection.execute(f"DELETE {which}", values)
    sql = "UPDATE entries SET n_waiting = n_waiting - ? WHERE entry = ?"
    connection.execute(sql, (n_waiting, entry))
    # Unary plus leaves out what is zero.
    return +Counter({f"log_{reason}": n_all - n_waiting, f"spool_{reason}": n_waiting})
