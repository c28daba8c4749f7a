"""One SQLite file: opened for one writer or any number of readers, its troubles told in words.

The writer runs in WAL mode: readers and the writer do not wait for each other, and what a
transaction wrote is there after `kill -9`, since it is with the operating system. Whether it is
also there after a power cut is up to `PRAGMA synchronous`; see `store.Store`.
"""

import errno
import fcntl
import glob
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

from mmstream.errors import DiskFullError, StateError, StoreCorruptError, StoreError

APPLICATION_ID: Final = 0x6D6D7374
"""`mmst` in the header of the file: no other program's."""
BUSY_SECS: Final = 5.0
"""How long to wait for another connection that holds the file, such as a reader's checkpoint."""
WAL_BYTES: Final = 4 * 1024 * 1024
"""About how large the `-wal` file beside it stays."""

CORRUPT: Final = ".corrupt-"
"""In the name of a damaged file, before the time at which that was found."""
SHARED_BYTES: Final = 64 * 1024
"""With less room on a disk, what SQLite shares among processes (`-shm`) may not fit on it."""

_MAGIC: Final = b"SQLite format 3\0"
_PRIMARY_CODE: Final = 0xFF
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_ROOM_MAYBE: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
"""What SQLite says where there is no room for a file of its own, and for other reasons."""


class FileLock:
    """The right to write, for one process; the system takes it back when the process dies."""

    def __init__(self, path: Path) -> None:
        """Lock `<path>.lock`.

        The store itself is not locked this way: closing any descriptor of it would take SQLite's
        own locks away.

        Raises:
            StoreError: another process has it, or the folder cannot be written.
            DiskFullError: there is no room for even that.
        """
        file = path.with_name(path.name + ".lock")
        try:
            self._file = file.open("a+", encoding="utf-8")
        except OSError as error:
            msg = f"{file}: cannot be written: {error.strerror}; give a file in a folder that can"
            raise refusal(error, msg) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _owner(self._file)
            self._file.close()
            msg = f"{path}: in use by {who}; end that one, or give this one another file"
            raise StoreError(msg) from None
        except OSError as error:
            self._file.close()
            msg = f"{file}: cannot be locked: {error.strerror}; give a file on a local disk"
            raise StoreError(msg) from None
        with suppress(OSError):  # who it is matters to people only, and the disk may be full
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n")
            self._file.flush()

    def release(self) -> None:
        """Let another process have it."""
        with suppress(OSError):
            self._file.close()


def connect_writer(path: Path, *, is_alone: bool = False) -> sqlite3.Connection:
    """The file for reading and writing, made if it is not there; without a schema when new.

    `is_alone`: nobody else can read it meanwhile; then a disk without any room will do, as long as
    nothing is written. Otherwise SQLite needs 32 KiB for what it shares with readers.

    Raises:
        StoreError: it cannot be opened, or is no store of ours.
        DiskFullError: there is no room for it.
        StoreCorruptError: it is ours, and damaged.
    """
    if path.is_dir():
        msg = f"{path}: is a folder; give a file in it"
        raise StoreError(msg)
    with telling(path):
        connection = sqlite3.connect(path, timeout=BUSY_SECS, isolation_level=None)
        try:
            if is_alone:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            _refuse_foreign(connection, path)
            if number(connection, "PRAGMA page_count") == 0:
                # Both are kept from the first page on, which WAL mode may write much later.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        except BaseException:
            close_quietly(connection)
            raise
        return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """The file for reading only, also while a writer has it.

    Raises:
        StoreError: there is none, it cannot be read, or is no store of ours.
        StoreCorruptError: it is ours, and damaged.
    """
    if not path.is_file():
        msg = f"{path}: no such file; `mmstream run` makes it where the configuration says so"
        raise StoreError(msg)
    with telling(path):
        uri = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, timeout=BUSY_SECS, isolation_level=None, uri=True)
        try:
            _refuse_foreign(connection, path)
        except BaseException:
            close_quietly(connection)
            raise
        return connection


def was_left_open(path: Path) -> bool:
    """Whether the last writer was not let go of as it should be: killed, or cut off from power."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size > 0
    except OSError:
        return False


def quick_check(connection: sqlite3.Connection) -> tuple[str, ...]:
    """What `PRAGMA quick_check` finds wrong, at most 100 lines; empty when the file is sound.

    Reads the whole file.
    """
    try:
        found = tuple(str(line) for (line,) in connection.execute("PRAGMA quick_check"))
    except sqlite3.DatabaseError as error:
        if _code(error) not in _CORRUPT:
            raise
        return (str(error),)  # too damaged to be looked through
    return () if found == ("ok",) else found


def set_aside(path: Path, suffix: str) -> Path:
    """Rename the file and its `-wal`, so that a new one can be begun; gives its new name.

    One that was set aside before goes: a bad disk must not be filled with them.
    """
    aside = path.with_name(path.name + suffix)
    for older in path.parent.glob(glob.escape(path.name) + CORRUPT + "*"):
        with suppress(OSError):
            older.unlink()
    try:
        path.replace(aside)
        for ending in ("-wal", "-shm"):
            beside = path.with_name(path.name + ending)
            if beside.exists():
                beside.replace(aside.with_name(aside.name + ending))
    except OSError as error:
        msg = f"{path}: damaged, and cannot be renamed: {error.strerror}; move it away"
        raise StoreError(msg) from None
    return aside


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # on a full disk SQLite may have gone back already
            with suppress(sqlite3.Error):  # the first error is the one to report
                connection.execute("ROLLBACK")
        raise


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into ours, which name the file and what to do."""
    try:
        yield
    except sqlite3.ProgrammingError as error:  # closed, or on another thread
        raise StateError(str(error)) from None
    except sqlite3.Error as error:
        raise _told(path, error) from None


def number(connection: sqlite3.Connection, sql: str) -> int:
    """The one whole number that a statement without parameters gives."""
    (value,) = connection.execute(sql).fetchone()
    return int(value)


def close_quietly(connection: sqlite3.Connection) -> None:
    """Close it whatever state it is in: a full disk or a damaged file may stop the last checkpoint.

    What that would have moved stays in the `-wal`, and the next to open the file finds it.
    """
    with suppress(sqlite3.Error):
        connection.close()


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    try:
        application_id = number(connection, "PRAGMA application_id")
        is_empty = number(connection, "PRAGMA schema_version") == 0
    except sqlite3.DatabaseError as error:
        if _code(error) in _CORRUPT and not _may_be_ours(path):
            msg = f"{path}: is no event log of mmstream; give another file, or move this one away"
            raise StoreError(msg) from None
        raise
    if application_id != APPLICATION_ID and not (is_empty and application_id == 0):
        msg = f"{path}: belongs to another program; give another file"
        raise StoreError(msg)


def refusal(error: OSError, text: str) -> StoreError:
    """What to raise: a full disk is got over, anything else is a mistake of somebody's."""
    return DiskFullError(text) if error.errno in _NO_ROOM else StoreError(text)


def _may_be_ours(path: Path) -> bool:
    """Of a file that SQLite cannot read: its header is ours, or zeros, as a power cut leaves it."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise StoreError(msg) from None
    is_ours = header[:16] == _MAGIC and header[68:72] == APPLICATION_ID.to_bytes(4, "big")
    return is_ours or not any(header)


def _owner(lock: TextIO) -> str:
    with suppress(OSError):
        lock.seek(0)
        pid = lock.read(20).strip()
        if pid.isdecimal():
            return f"process {pid}"
    return "another process"


def _code(error: sqlite3.Error) -> int:
    """The primary result code; 0: it did not come from SQLite itself."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE


def _is_full(folder: Path) -> bool:
    """Whether its disk has no room for what SQLite puts beside a file, or for no file more."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    is_out_of_files = disk.f_files > 0 and disk.f_favail == 0  # some do not count them
    return is_out_of_files or disk.f_bavail * disk.f_frsize < SHARED_BYTES


def _told(path: Path, error: sqlite3.Error) -> StoreError:
    code = _code(error)
    if code == sqlite3.SQLITE_FULL or (code in _NO_ROOM_MAYBE and _is_full(path.parent)):
        return DiskFullError(f"{path}: cannot be written: the disk is full; make room")
    if code in _CORRUPT:
        text = f"{path}: is damaged ({error}); when it is opened again it is set aside"
        return StoreCorruptError(text)
    if "no such module" in str(error):
        text = "Python's SQLite is without FTS5; use a Python whose sqlite3 has it"
        return StoreError(f"{path}: cannot be set up: {text}")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreError(f"{path}: another program holds it; end that one, or try again")
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        text = "may it and its folder be read and written?"
        return StoreError(f"{path}: cannot be opened: {error}; {text}")
    return StoreError(f"{path}: cannot be used: {error}; is its disk in order?")
