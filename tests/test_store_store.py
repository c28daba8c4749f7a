import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from sink_messages import T_NS, alert, caption, event, health, info, published
from stores import (
    ROOMY,
    append,
    copy_as_killed,
    fill_disk,
    life,
    mount,
    numbered,
    of_boot,
    opened,
    seq_of,
    seqs,
    unmount,
)

from mmstream.errors import DiskFullError, StateError, StoreError
from mmstream.messages import Event, NumberedStamp, Published
from mmstream.store.event_log import EventLog
from mmstream.store.eviction import Limits
from mmstream.store.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def test_what_is_appended_waits_in_order_until_it_is_delivered(path: Path) -> None:
    messages = numbered([event("e1"), alert("a1"), caption("final"), event("e1", "end")])
    with opened(path) as store:
        keys = append(store, messages)
        assert keys == tuple(sorted(set(keys)))
        waiting = store.waiting(limit=10)
        assert [one.key for one in waiting] == list(keys)
        assert [one.message.to_json() for one in waiting] == [one.to_json() for one in messages]
        store.mark_delivered([keys[0], keys[2]])
        assert seqs(store.waiting(limit=10)) == [1, 3]
        assert store.n_waiting() == 2


def test_waiting_is_taken_in_pieces(path: Path) -> None:
    with opened(path) as store:
        keys = append(store, life("e1") + life("e2", 3))
        assert [one.key for one in store.waiting(limit=2)] == [*keys[:2]]
        assert [one.key for one in store.waiting(after_key=keys[1], limit=3)] == [*keys[2:5]]
        assert store.waiting(after_key=keys[-1], limit=3) == ()


def test_what_waits_outlives_the_process_with_its_own_boot_and_number(path: Path) -> None:
    with opened(path) as store:
        append(store, [of_boot(message, "boot1") for message in life("e1")])
        store.mark_delivered([1])
    with opened(path) as store:
        append(store, [of_boot(message, "boot2") for message in life("e2")])
        stamps = [one.message.stamp for one in store.waiting(limit=10)]
    assert [stamp.boot_id for stamp in stamps] == ["boot1"] * 2 + ["boot2"] * 3
    assert [stamp.seq for stamp in stamps if isinstance(stamp, NumberedStamp)] == [1, 2, 0, 1, 2]


def test_a_key_is_never_given_twice(path: Path) -> None:
    """Whoever has sent up to a key would take a new message for one that was sent."""
    with opened(path, Limits(max_age_ns=1, max_bytes=10**9)) as store:
        keys = append(store, life("e1"))
        assert store.evict(now_ns=T_NS + 2) is False
        assert store.n_waiting() == 0
        assert min(append(store, life("e2", 3))) > max(keys)


@pytest.mark.parametrize("content", [caption("partial"), health(), info()])
def test_what_need_not_arrive_is_refused_and_nothing_is_stored(path: Path, content: Event) -> None:
    with opened(path) as store:
        with pytest.raises(StateError, match="need not arrive"):
            store.append([published(event("e1")), published(content)], now_ns=T_NS)
        assert store.n_waiting() == 0
        assert store.metrics.n_in == 0


def test_a_message_without_a_number_is_refused(path: Path) -> None:
    message = published(event("e1"))
    unnumbered = Published(message.content, message.stamp.model_copy(update={"seq": None}))
    with opened(path) as store, pytest.raises(StateError, match="has no seq"):
        store.append([unnumbered], now_ns=T_NS)


def test_a_message_goes_in_once(path: Path) -> None:
    with opened(path) as store:
        append(store, life("e1"))
        with pytest.raises(StateError, match="number 2 of boot 3c0e5a81 was appended before"):
            store.append(numbered([event("e9"), event("e1", "end")], 1)[1:], now_ns=T_NS)
        assert store.n_waiting() == 3


def test_a_closed_store_says_so_and_may_be_closed_twice(path: Path) -> None:
    with opened(path) as store:
        store.close()
        with pytest.raises(StateError, match="closed database"):
            store.append(life("e1"), now_ns=T_NS)


def test_delivery_is_counted_once_and_evicted_keys_do_not_matter(path: Path) -> None:
    with opened(path) as store:
        append(store, life("e1"))
        store.mark_delivered([1, 2])
        store.mark_delivered([2, 3, 99])
        assert (store.metrics.n_in, store.metrics.n_out) == (3, 3)
        assert store.n_waiting() == 0


def test_what_an_earlier_boot_left_open_is_told_by_its_last_message(path: Path) -> None:
    contents = [
        event("over"),
        event("begun"),
        event("grown"),
        caption("final"),
        alert("a1"),
        event("grown", "update"),
        event("over", "end"),
    ]
    with opened(path) as store:
        keys = append(store, [of_boot(one, "boot1") for one in numbered(contents)])
        store.mark_delivered(keys)
    with opened(path) as store:
        append(store, [of_boot(one, "boot2") for one in numbered([event("new")])])
        left = store.open_events("boot2")
        assert [one.to_json() for one in left] == [
            of_boot(published(event("begun"), 1), "boot1").to_json(),
            of_boot(published(event("grown", "update"), 5), "boot1").to_json(),
        ]
        ends = [event("begun", "end"), event("grown", "end")]
        append(store, [of_boot(one, "boot2") for one in numbered(ends, 1)])
        assert store.open_events("boot2") == ()
        assert [seq_of(one) for one in store.open_events("boot3")] == [0]


def test_what_another_version_wrote_is_given_up_and_counted(path: Path) -> None:
    with opened(path) as store:
        append(store, life("e1") + life("e2", 3))
        store.mark_delivered([3])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("UPDATE messages SET payload = '{}' WHERE key <= 5")
        assert seqs(store.waiting(limit=2)) == [5]
        assert store.metrics.dropped == {"unreadable": 4}
        assert store.n_waiting() == 1
        assert store.metrics.n_out == 1


@pytest.mark.parametrize("payload", ["'5'", "'[]'", "CAST(x'7bff7d' AS TEXT)"])
def test_a_row_that_went_bad_does_not_hold_up_the_others(path: Path, payload: str) -> None:
    """As a bad disk leaves it; the pages are sound."""
    with opened(path) as store:
        append(store, life("e1"))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(f"UPDATE messages SET payload = {payload} WHERE key = 2")  # noqa: S608 -- see above
        assert seqs(store.waiting(limit=9)) == [0, 2]
        assert store.metrics.dropped == {"unreadable": 1}


def test_an_open_event_that_cannot_be_read_is_counted(path: Path) -> None:
    with opened(path) as store:
        append(store, life("e1")[:1] + numbered([event("e2")], 1))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("UPDATE messages SET payload = '{}' WHERE key = 1")
        assert [seq_of(one) for one in store.open_events("new")] == [1]
        assert store.metrics.dropped == {"unreadable": 1}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "none", folder)
    yield folder
    unmount(folder)


def fill_until_refused(store: Store) -> tuple[list[int], DiskFullError]:
    """Keys that were given, and what was said then."""
    keys: list[int] = []
    while len(keys) < 10_000:
        try:
            keys += append(store, life(f"e{len(keys)}", len(keys)))
        except DiskFullError as error:
            return keys, error
    pytest.fail("the disk took 10 000 messages")


def test_a_full_disk_loses_nothing_and_is_got_over(small_disk: Path) -> None:
    path, ballast = small_disk / "events.db", small_disk / "ballast"
    ballast.write_bytes(bytes(512 * 1024))
    with opened(path) as store:
        keys, error = fill_until_refused(store)
        assert str(error) == f"{path}: cannot be written: the disk is full; make room"
        assert keys == list(range(1, len(keys) + 1))
        assert store.n_waiting() == store.metrics.n_in == len(keys)
        with pytest.raises(DiskFullError):
            append(store, life("refused", len(keys)))
        ballast.unlink()
        keys += append(store, life("later", len(keys)))
        assert keys == list(range(1, len(keys) + 1))
    with opened(path) as store:
        assert store.opened.set_aside is None
        assert seqs(store.waiting(limit=10_000)) == [key - 1 for key in keys]


def test_a_file_that_may_not_grow_loses_nothing_and_is_got_over(path: Path) -> None:
    """The same where nobody may mount a small disk: SQLite plays it."""
    with opened(path) as store:
        store._connection.execute("PRAGMA max_page_count = 60")  # noqa: SLF001 -- see above
        keys, _ = fill_until_refused(store)
        assert keys == list(range(1, len(keys) + 1))
        assert store.n_waiting() == len(keys)
        store._connection.execute("PRAGMA max_page_count = 1000")  # noqa: SLF001 -- see above
        assert append(store, life("later", len(keys)))[0] == len(keys) + 1
    with opened(path) as store:
        assert store.n_waiting() == len(keys) + 3


def test_a_full_disk_can_be_closed_and_read(small_disk: Path) -> None:
    path = small_disk / "events.db"
    with opened(path) as store:
        keys, _ = fill_until_refused(store)
    with closing(EventLog(path)) as log:
        assert [one.key for one in log.messages()] == keys
        assert log.check() == ()


@pytest.mark.parametrize("n_free", [0, 4096, 16_384, 40_960])
def test_there_is_no_room_for_a_new_store(small_disk: Path, n_free: int) -> None:
    fill_disk(small_disk / "ballast")
    os.truncate(small_disk / "ballast", 1024 * 1024 - n_free)
    path = small_disk / "events.db"
    for _ in range(2):
        with pytest.raises(DiskFullError, match="cannot be written: the disk is full"):
            Store(path, ROOMY, now_ns=T_NS)
    (small_disk / "ballast").unlink()
    with opened(path) as store:
        append(store, life("e1"))


@pytest.mark.parametrize("was_killed", [True, False])
@pytest.mark.parametrize("n_free", [0, 4096, 16_384, 40_960])
def test_what_a_disk_holds_can_be_read_when_it_has_no_room_at_all(
    small_disk: Path, n_free: int, *, was_killed: bool
) -> None:
    path, ballast = small_disk / "events.db", small_disk / "ballast"
    with opened(path) as store:
        append(store, [*life("over"), published(event("open"), 3)])
        copy_as_killed(path, path.with_name("killed.db"))
    if was_killed:
        path = path.with_name("killed.db")
    fill_disk(ballast)
    os.truncate(ballast, ballast.stat().st_size - n_free)
    with opened(path) as store:
        assert len(store.open_events("new")) == 1
        assert seqs(store.waiting(limit=10)) == [0, 1, 2, 3]
        assert store.overrides() == ()
        if n_free == 0:
            with pytest.raises(DiskFullError):
                append(store, [published(event("new"), 4)])
        ballast.unlink()
        append(store, [published(event("open", "end"), 5)])
    with opened(path) as store:
        assert store.opened.is_alone is False
        assert store.open_events("new") == ()
        with closing(EventLog(path)) as log:
            assert log.check() == ()


def test_a_disk_that_refuses_to_write_loses_nothing_and_is_got_over(path: Path) -> None:
    """Not full, but an error of its own: here the largest size that a file may have."""
    with opened(path) as store:
        append(store, life("e1"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(StoreError, match="is its disk in order"):
                append(store, life("e2", 3))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert append(store, life("e3", 3)) == (4, 5, 6)
    with opened(path) as store:
        assert seqs(store.waiting(limit=10)) == [0, 1, 2, 3, 4, 5]


def test_what_is_appended_is_synced_to_the_disk_before_append_returns(path: Path) -> None:
    """What a power cut needs cannot be tried here; that SQLite is told so can."""
    with opened(path) as store:
        statements: list[str] = []
        store._connection.set_trace_callback(statements.append)  # noqa: SLF001 -- see above
        append(store, life("e1"))
        store.mark_delivered([1])
        append(store, life("e2", 3))
        told = [one for one in statements if one.startswith(("PRAGMA syn", "BEGIN", "COMMIT"))]
        full, normal = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"
        one_after_the_other = [full, normal, full]
        assert told == [
            part for sync in one_after_the_other for part in (sync, "BEGIN IMMEDIATE", "COMMIT")
        ]


CHILD = """
import sys
from pathlib import Path
from sink_messages import T_NS
from stores import ROOMY, life, of_boot
from mmstream.store.store import Store

path, boot_id = Path(sys.argv[1]), sys.argv[2]
store = Store(path, ROOMY, now_ns=T_NS)
assert store.opened.set_aside is None
for index in range(100_000):
    messages = [of_boot(one, boot_id) for one in life(f"{boot_id}-{index}", 3 * index)]
    print(*store.append(messages, now_ns=T_NS), flush=True)
    if index % 5 == 0:
        store.mark_delivered(one.key for one in store.waiting(limit=4))
"""
N_KILLS = 10


def killed_while_appending(path: Path, boot_id: str, n_lines: int) -> list[int]:
    """The keys that a child told of before SIGKILL, which hits it wherever it is by then."""
    command = [sys.executable, "-c", CHILD, str(path), boot_id]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(n_lines)]
        with pytest.raises(StoreError, match=f"in use by process {child.pid}; end that one"):
            Store(path, ROOMY, now_ns=T_NS)
        with closing(EventLog(path)) as log:  # beside it anybody may read what is on disk
            assert {int(key) for key in "".join(lines).split()} <= {m.key for m in log.messages()}
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        whole = rest[: rest.rfind("\n") + 1]  # what it was printing may be cut
    assert child.returncode == -signal.SIGKILL
    return [int(key) for key in ("".join(lines) + whole).split()]


def test_kill_9_loses_nothing_that_append_returned(path: Path) -> None:
    random = Random(5)  # noqa: S311 -- no secret
    told: list[int] = []
    for boot in range(N_KILLS):
        told += killed_while_appending(path, f"boot{boot}", random.randrange(1, 40))
        with opened(path) as store, closing(EventLog(path)) as log:
            assert store.opened.set_aside is None
            kept = [one.key for one in log.messages()]
            assert kept == list(range(1, len(kept) + 1))
            assert set(told) <= set(kept)
            assert told == sorted(told)
            said = [one.published().stamp for one in log.messages()]
            seqs_of_boot = [
                stamp.seq
                for stamp in said
                if isinstance(stamp, NumberedStamp) and stamp.boot_id == f"boot{boot}"
            ]
            assert seqs_of_boot == list(range(len(seqs_of_boot)))
            assert len(seqs_of_boot) % 3 == 0, "a transaction is there whole or not at all"
            assert store.n_waiting() == sum(one.is_waiting for one in log.messages())
