import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sink_messages import T_NS
from stores import ROOMY, append, copy_as_killed, life, mount, opened, seqs, unmount

from mmstream.errors import DiskFullError, StoreCorruptError, StoreError
from mmstream.store import schema
from mmstream.store.database import set_aside
from mmstream.store.event_log import EventLog
from mmstream.store.schema import STEPS, migrate, version
from mmstream.store.store import Store

CORRUPT_NAME = "events.db.corrupt-20261123T100000.000Z"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def fill(path: Path, n_events: int = 40) -> None:
    with opened(path) as store:
        for index in range(n_events):
            append(store, life(f"e{index}", 3 * index))


def overwrite(path: Path, at: int, n_bytes: int, byte: bytes = b"\xa5") -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(byte * n_bytes)


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        Store(path, ROOMY, now_ns=T_NS)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder; give a file in it" in refusal(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "No such file or directory; give a file in a folder" in refusal(tmp_path / "a" / "b.db")


@pytest.mark.parametrize("content", [b"\x89PNG rather a picture" * 100, b"short"])
def test_what_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "is no event log of mmstream; give another file" in refusal(path)
    assert path.read_bytes() == content
    with pytest.raises(StoreError, match="is no event log"):
        EventLog(path)


def test_the_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    assert "belongs to another program" in refusal(path)
    assert path.read_bytes() == before


def test_a_damaged_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    overwrite(path, 16, 3000)
    before = path.read_bytes()
    assert "is no event log of mmstream" in refusal(path)
    assert path.read_bytes() == before


def test_an_empty_file_is_a_new_store(path: Path) -> None:
    path.touch()
    with opened(path) as store:
        assert store.opened.set_aside is None
        assert append(store, life("e1")) == (1, 2, 3)


def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    fill(path, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "is of a newer mmstream (version 99 of the file" in refusal(path)
    with pytest.raises(StoreError, match="newer mmstream"):
        EventLog(path)
    with closing(sqlite3.connect(path)) as connection:
        assert version(connection) == 99
    assert not list(path.parent.glob("*corrupt*"))


@pytest.mark.parametrize(
    ("at", "n_bytes", "byte"),
    [
        pytest.param(0, 4096, b"\0", id="first page zeroed"),
        pytest.param(100, 3000, b"\xa5", id="schema"),
    ],
)
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    path: Path, at: int, n_bytes: int, byte: bytes
) -> None:
    fill(path)
    overwrite(path, at, n_bytes, byte)
    damaged = path.read_bytes()
    with opened(path) as store:
        assert store.opened.set_aside == path.with_name(CORRUPT_NAME)
        assert store.opened.set_aside.read_bytes() == damaged
        assert store.waiting(limit=10) == ()
        append(store, life("new"))
    with opened(path) as store:
        assert store.opened.set_aside is None
        assert seqs(store.waiting(limit=10)) == [0, 1, 2]


def test_damage_in_the_middle_is_found_by_looking_through_it(path: Path) -> None:
    fill(path)
    overwrite(path, 40_960, 40_960)
    damaged = path.read_bytes()
    with opened(path) as store, closing(EventLog(path)) as log:
        assert store.opened.set_aside is None
        assert log.check()
    store = Store(path, ROOMY, now_ns=T_NS, is_damaged=True)
    store.close()
    assert store.opened.set_aside == path.with_name(CORRUPT_NAME)
    assert store.opened.set_aside.read_bytes() == damaged
    with opened(path) as store:
        assert store.n_waiting() == 0


def test_whether_the_last_writer_was_let_go_of_is_known(path: Path) -> None:
    with opened(path) as store:
        append(store, life("e1"))
        killed = path.with_name("killed.db")
        copy_as_killed(path, killed)
    with opened(path) as clean, opened(killed) as unclean:
        assert (clean.opened.was_left_open, unclean.opened.was_left_open) == (False, True)
        assert seqs(unclean.waiting(limit=9)) == [0, 1, 2]


def test_a_disk_that_knows_no_locks_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert "cannot be locked: No locks available; give a file on a local disk" in refusal(path)


def test_no_room_for_a_lock_is_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DiskFullError, match=r"db.lock: cannot be written: No space left"):
        Store(path, ROOMY, now_ns=T_NS)


def test_what_sqlite_left_beside_a_damaged_file_goes_with_it(path: Path) -> None:
    for name in ("events.db", "events.db-wal"):
        path.with_name(name).write_text(name)
    for name in ("events.db.corrupt-1", "events.db.corrupt-1-wal"):  # only the last is kept
        path.with_name(name).touch()
    assert set_aside(path, ".old") == path.with_name("events.db.old")
    assert {file.name: file.read_text() for file in path.parent.iterdir()} == {
        "events.db.old": "events.db",
        "events.db.old-wal": "events.db-wal",
    }


def test_damage_that_comes_while_it_is_read_is_told(path: Path) -> None:
    fill(path, 400)
    with closing(EventLog(path)) as log:
        overwrite(path, 40_960, path.stat().st_size - 40_960)
        with pytest.raises(StoreCorruptError, match=r"is damaged .*set aside"):
            list(log.messages())
        assert log.check()


def test_a_sound_file_has_no_problems(path: Path) -> None:
    fill(path)
    with closing(EventLog(path)) as log:
        assert log.check() == ()


def test_a_second_writer_is_refused_and_told_who_has_it(path: Path) -> None:
    with opened(path) as store:
        assert f"in use by process {os.getpid()}; end that one" in refusal(path)
        append(store, life("e1"))
    with opened(path) as store:
        assert store.n_waiting() == 3


def test_a_refused_file_may_be_opened_by_others_again(path: Path) -> None:
    path.write_bytes(b"not a database")
    refusal(path)
    path.unlink()
    fill(path, 1)


@pytest.fixture
def read_only_dir(tmp_path: Path) -> Iterator[Path]:
    """Root may write whatever its mode says, so root gets a file system that is read-only."""
    folder = tmp_path / "locked"
    folder.mkdir()
    fill(folder / "events.db", 1)
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    mount("--bind", folder, folder)
    mount("-o", "remount,bind,ro", folder)
    yield folder
    unmount(folder)


def test_a_folder_that_cannot_be_written_is_refused(read_only_dir: Path) -> None:
    assert "cannot be written: " in refusal(read_only_dir / "events.db")


def test_what_cannot_be_read_is_told(read_only_dir: Path) -> None:
    """SQLite needs a shared file beside it, which nobody may make there."""
    with pytest.raises(StoreError, match="may it and its folder be read and written"):
        EventLog(read_only_dir / "events.db")


def test_no_file_is_nothing_to_read(path: Path) -> None:
    with pytest.raises(StoreError, match=r"no such file; `mmstream run` makes it"):
        EventLog(path)
    assert not path.exists()


def test_a_python_without_full_text_search_is_told_what_it_lacks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "STEPS", (("CREATE VIRTUAL TABLE t USING fts_none (x)",),))
    assert "use a Python whose sqlite3 has it" in refusal(path)
    monkeypatch.undo()
    fill(path, 1)


VERSION_1 = Path(__file__).parent / "golden" / "store_version_1.sql"


def test_a_file_of_version_1_is_read(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1.read_text())
    with opened(path) as store:
        assert [message.content.id for message in store.open_events("new")] == ["e2"]  # type: ignore[attr-defined] # an Event
        assert seqs(store.waiting(limit=9)) == [2, 3]
        assert append(store, life("e3", 4)) == (5, 6, 7)
        with closing(EventLog(path)) as log:
            assert [hit.entry.id for hit in log.search("glass")] == ["c1"]


def test_steps_are_carried_out_once_and_in_order(path: Path) -> None:
    first = ("CREATE TABLE t (x)", "INSERT INTO t VALUES ('first')")
    second = ("INSERT INTO t VALUES ('second')",)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for steps in ((first,), (first,), (first, second), (first, second)):
            migrate(connection, steps)
            assert version(connection) == len(steps)
        assert connection.execute("SELECT x FROM t").fetchall() == [("first",), ("second",)]


def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    fill(path, 1)
    broken = ("ALTER TABLE entries ADD COLUMN mood TEXT", "nonsense")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, (*STEPS, broken))
        assert version(connection) == len(STEPS)
        assert "mood" not in str(connection.execute("SELECT sql FROM sqlite_master").fetchall())


def test_a_reader_does_not_bring_an_old_file_up_to_date(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path, 1)
    monkeypatch.setattr(schema, "STEPS", (*STEPS, ("CREATE TABLE t (x)",)))
    with pytest.raises(StoreError, match="older mmstream; `mmstream run` with it"):
        EventLog(path)
    with opened(path), closing(EventLog(path)) as log:
        assert len(list(log.entries())) == 1
