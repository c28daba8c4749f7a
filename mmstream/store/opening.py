"""A store opened for its writer: brought up to date, also on a full disk; set aside if damaged."""

import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mmstream.errors import DiskFullError, StoreCorruptError, StoreError
from mmstream.messages import iso_utc
from mmstream.store import schema
from mmstream.store.database import (
    CORRUPT,
    close_quietly,
    connect_writer,
    number,
    set_aside,
    telling,
    was_left_open,
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that is open for writing."""

    connection: sqlite3.Connection
    is_alone: bool
    """The disk has no room for what is shared with readers: nobody else can read it now."""
    was_left_open: bool
    """Its last writer was killed or cut off from power: it may be damaged unseen."""
    set_aside: Path | None
    """Where the damaged file is now, if that is what was found."""
    last_key: int
    """Of the messages in it; 0: there are none."""


def open_for_writing(path: Path, *, now_ns: int, is_damaged: bool) -> Opened:
    """Open the file, or make it; its lock is held.

    `is_damaged`: that is known already. Else it is found here as far as it is where all is read
    that opening needs. `now_ns` (UTC, since 1970) goes into the name of a file that is set aside.

    Raises:
        StoreError: it is no store, or one of a newer mmstream, or it cannot be written.
        DiskFullError: there is no room for a new one, or to bring one up to date.
    """
    is_unclean = was_left_open(path)
    if not is_damaged:
        with suppress(StoreCorruptError):
            return _opened(path, was_left_open=is_unclean)
    when = iso_utc(now_ns).replace("-", "").replace(":", "")
    aside = set_aside(path, f"{CORRUPT}{when}") if path.exists() else None
    try:
        return _opened(path, was_left_open=False, aside=aside)
    except StoreError as error:
        if aside is None:
            raise
        msg = f"{error} (what was there was damaged, and is in {aside})"
        raise type(error)(msg) from None


def _opened(path: Path, *, was_left_open: bool, aside: Path | None = None) -> Opened:
    try:
        connection, is_alone = _readied(path, is_alone=False), False
    except DiskFullError:
        connection, is_alone = _readied(path, is_alone=True), True
    try:
        with telling(path):
            last_key = number(connection, "SELECT coalesce(max(key), 0) FROM messages")
    except BaseException:
        close_quietly(connection)
        raise
    return Opened(connection, is_alone, was_left_open, aside, last_key)


def _readied(path: Path, *, is_alone: bool) -> sqlite3.Connection:
    connection = connect_writer(path, is_alone=is_alone)
    try:
        with telling(path):
            schema.refuse_newer(connection, path)
            schema.migrate(connection, schema.STEPS)
    except BaseException:
        close_quietly(connection)
        raise
    return connection
