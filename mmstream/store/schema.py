"""What the file holds, and the steps that led there.

    entries   one row per event (with all its messages), alert or final caption
    messages  what goes on the wire, one row each, in the order of the spool
    texts     FTS5 index of the words of the entries
    overrides what people have set otherwise than the configuration says

`PRAGMA user_version` says how many of `STEPS` a file has had. A step that was released is never
changed; a new one goes to the end, and turns the payloads too if an old one would not be read any
more.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mmstream.errors import StoreError
from mmstream.store.database import number, transaction

Step = tuple[str, ...]
"""The SQL statements that lead from one version to the next."""

_FIRST: Final[Step] = (
    """
    CREATE TABLE entries (
        entry INTEGER PRIMARY KEY,
        content TEXT NOT NULL,        -- event, alert, caption
        id TEXT NOT NULL,
        node TEXT NOT NULL,
        source TEXT NOT NULL,
        kind TEXT,                    -- of an event or caption
        label TEXT,                   -- of an event; the rule of an alert
        text TEXT NOT NULL,           -- of a caption
        notes TEXT NOT NULL,          -- labels and notes of all evidence, a line each
        t_start REAL NOT NULL,        -- seconds since 1970
        t_end REAL,
        top_score REAL,
        end_reason TEXT,
        is_open INTEGER NOT NULL,     -- an event without its end
        n_waiting INTEGER NOT NULL,   -- messages not delivered yet
        touched_ns INTEGER NOT NULL,  -- when its last message was stored, since 1970
        UNIQUE (content, id)
    )
    """,
    # AUTOINCREMENT: a key is never given twice, also when the newest message was evicted.
    """
    CREATE TABLE messages (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        entry INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        type TEXT,                    -- of an event: start, update, end
        is_waiting INTEGER NOT NULL,
        added_ns INTEGER NOT NULL,
        payload TEXT NOT NULL,
        UNIQUE (boot_id, seq)
    )
    """,
    "CREATE INDEX messages_of_entry ON messages (entry)",
    "CREATE INDEX messages_waiting ON messages (key) WHERE is_waiting = 1",
    "CREATE INDEX entries_by_time ON entries (t_start)",
    "CREATE INDEX entries_by_source ON entries (source, t_start)",
    "CREATE INDEX entries_by_label ON entries (label, t_start)",
    "CREATE INDEX entries_open ON entries (touched_ns) WHERE is_open = 1",
    "CREATE INDEX entries_spooled ON entries (touched_ns) WHERE is_open = 0 AND n_waiting > 0",
    "CREATE INDEX entries_logged ON entries (touched_ns) WHERE is_open = 0 AND n_waiting = 0",
    """
    CREATE VIRTUAL TABLE texts USING fts5 (
        source, label, text, notes, end_reason,
        content = 'entries', content_rowid = 'entry', tokenize = 'unicode61 remove_diacritics 2'
    )
    """,
    """
    CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN
        INSERT INTO texts (rowid, source, label, text, notes, end_reason)
        VALUES (NEW.entry, NEW.source, NEW.label, NEW.text, NEW.notes, NEW.end_reason);
    END
    """,
    """
    CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
        INSERT INTO texts (texts, rowid, source, label, text, notes, end_reason)
        VALUES ('delete', OLD.entry, OLD.source, OLD.label, OLD.text, OLD.notes, OLD.end_reason);
    END
    """,
    """
    CREATE TRIGGER entry_changed AFTER UPDATE ON entries
    WHEN OLD.source IS NOT NEW.source OR OLD.label IS NOT NEW.label OR OLD.text IS NOT NEW.text
        OR OLD.notes IS NOT NEW.notes OR OLD.end_reason IS NOT NEW.end_reason
    BEGIN
        INSERT INTO texts (texts, rowid, source, label, text, notes, end_reason)
        VALUES ('delete', OLD.entry, OLD.source, OLD.label, OLD.text, OLD.notes, OLD.end_reason);
        INSERT INTO texts (rowid, source, label, text, notes, end_reason)
        VALUES (NEW.entry, NEW.source, NEW.label, NEW.text, NEW.notes, NEW.end_reason);
    END
    """,
)

_OVERRIDES: Final[Step] = (
    """
    CREATE TABLE overrides (
        source TEXT NOT NULL,
        feature TEXT NOT NULL,
        value TEXT NOT NULL,          -- as on the wire: ON, OFF or a number
        set_ns INTEGER NOT NULL,      -- since 1970
        by TEXT NOT NULL,             -- who, as far as that is known
        PRIMARY KEY (source, feature)
    ) WITHOUT ROWID
    """,
    # When a person has seen the event, since 1970, and who.
    "ALTER TABLE entries ADD COLUMN acknowledged_ns INTEGER",
    "ALTER TABLE entries ADD COLUMN acknowledged_by TEXT",
)

STEPS: Final[tuple[Step, ...]] = (_FIRST, _OVERRIDES)


def version(connection: sqlite3.Connection) -> int:
    """How many steps the file has had; 0: nothing is in it yet."""
    return number(connection, "PRAGMA user_version")


def migrate(connection: sqlite3.Connection, steps: Sequence[Step] = STEPS) -> None:
    """Carry out the steps that the file has not had, all of them or none.

    Takes the write lock even when there is nothing to do: a file that may not be written is found
    out here, not with the first message. Then it needs no room on the disk.
    """
    with transaction(connection):
        n_had = version(connection)
        for step in steps[n_had:]:
            for statement in step:
                connection.execute(statement)
        if n_had < len(steps):
            connection.execute(f"PRAGMA user_version = {len(steps)}")


def refuse_newer(connection: sqlite3.Connection, path: Path) -> None:
    """A file that a newer mmstream has written stays as it is.

    Raises:
        StoreError: it is such a file.
    """
    found = version(connection)
    if found > len(STEPS):
        msg = (
            f"{path}: is of a newer mmstream (version {found} of the file, this one knows "
            f"{len(STEPS)}); use that one, or give another file"
        )
        raise StoreError(msg)


def refuse_older(connection: sqlite3.Connection, path: Path) -> None:
    """Who only reads cannot bring a file up to date.

    Raises:
        StoreError: it is of an older mmstream.
    """
    if version(connection) < len(STEPS):
        msg = f"{path}: is of an older mmstream; `mmstream run` with it brings it up to date"
        raise StoreError(msg)
