"""What people have set and seen: overrides of the configuration, acknowledged events."""

import sqlite3
from dataclasses import dataclass
from typing import Final

from mmstream.errors import StoreError

MAX_OVERRIDES: Final = 10_000
"""Features that may be set in one file: a hundred sources with all of theirs, and much to spare."""


@dataclass(frozen=True, slots=True)
class Override:
    """A feature of a source that somebody has set; it holds until it is set back."""

    source: str
    feature: str
    value: str
    """As on the wire: `ON`, `OFF` or a number."""
    set_ns: int
    """When, UTC since 1970."""
    by: str
    """Who, as far as that is known."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Somebody has seen an event."""

    event_id: str
    source: str
    label: str
    is_open: bool
    at_ns: int
    """When it was first acknowledged, UTC since 1970."""
    by: str
    """By whom, as far as that is known."""


def read_overrides(connection: sqlite3.Connection) -> tuple[Override, ...]:
    """All of them, those of one source together."""
    sql = "SELECT source, feature, value, set_ns, by FROM overrides ORDER BY source, feature"
    return tuple(Override(*row) for row in connection.execute(sql))


def put_override(connection: sqlite3.Connection, override: Override) -> None:
    """Write one in the place of what was set before, within a transaction.

    Raises:
        StoreError: there are too many.
    """
    row = (override.source, override.feature, override.value, override.set_ns, override.by)
    connection.execute("INSERT OR REPLACE INTO overrides VALUES (?, ?, ?, ?, ?)", row)
    (n_overrides,) = connection.execute("SELECT count(*) FROM overrides").fetchone()
    if n_overrides > MAX_OVERRIDES:
        msg = f"{MAX_OVERRIDES} features are set, more are not kept; set some back"
        raise StoreError(msg)


def drop_overrides(connection: sqlite3.Connection, source: str, feature: str | None) -> None:
    """Forget what was set of a feature, or of all of a source's, within a transaction."""
    sql = "DELETE FROM overrides WHERE source = ? AND (? IS NULL OR feature = ?)"
    connection.execute(sql, (source, feature, feature))


def acknowledge(
    connection: sqlite3.Connection, event_id: str, by: str, *, now_ns: int
) -> Acknowledgement | None:
    """Mark an event as seen, within a transaction; the first time counts. None: no such event."""
    where = "WHERE content = 'event' AND id = ?"
    sql = f"""
        UPDATE entries SET acknowledged_ns = ?, acknowledged_by = ? {where}
        AND acknowledged_ns IS NULL
    """  # noqa: S608 -- a constant
    connection.execute(sql, (now_ns, by, event_id))
    sql = f"""
        SELECT id, source, label, is_open, acknowledged_ns, acknowledged_by FROM entries {where}
    """  # noqa: S608 -- a constant
    row = connection.execute(sql, (event_id,)).fetchone()
    if row is None:
        return None
    return Acknowledgement(row[0], row[1], row[2], bool(row[3]), row[4], row[5])
