"""The spool over a real store: group commit, a disk that fails, hangs and comes back."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from brokers import until
from sink_messages import BOOT_ID, event, published
from stores import ROOMY, append, life, opened, seq_of, seqs

from mmstream.clock import SystemClock
from mmstream.errors import DiskFullError, StoreCorruptError, StoreError
from mmstream.messages import Published
from mmstream.sinks import spool as module
from mmstream.sinks.spool import Spool, StoreSettings
from mmstream.sinks.spool_disk import Slip
from mmstream.store.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "events.db"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RETRY_SECS", "TIDY_SECS"):
        monkeypatch.setattr(module, name, 0.01)


@asynccontextmanager
async def spooling(path: Path) -> AsyncIterator[Spool]:
    spool = Spool(path, ROOMY, SystemClock())
    await spool.open()
    try:
        yield spool
    finally:
        await spool.close()


def ignore(_: Slip) -> None: ...


def has_more(things: Sequence[object], n_before: int) -> bool:
    return len(things) > n_before


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if record.name.startswith(module.__name__)
    ]


def damage(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))
    path.with_name(path.name + "-wal").write_bytes(b"")


class Disk:
    """What stands between a store and its disk; the test says what is wrong with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: StoreError | None = None
        self.is_free = threading.Event()
        self.is_free.set()
        self.batches: list[int] = []
        real = Store.append

        def watched(
            store: Store, messages: Sequence[Published], *, now_ns: int
        ) -> tuple[int | None, ...]:
            self.is_free.wait(10)
            if self.error is not None:
                raise self.error
            self.batches.append(len(messages))
            return real(store, messages, now_ns=now_ns)

        monkeypatch.setattr(Store, "append", watched)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_what_is_kept_is_on_disk_when_it_is_told(path: Path) -> None:
    async def session() -> None:
        told: list[Slip] = []
        async with spooling(path) as spool:
            assert spool.n_left == 0
            for message in life("e"):
                spool.keep(message, told.append)
            await until(lambda: len(told) == 3, "all are told")
            assert [slip.place for slip in told] == ["disk"] * 3
            assert [seq_of(slip.message) for slip in told] == [0, 1, 2]

    asyncio.run(session())
    with opened(path) as store:
        assert seqs(store.waiting(limit=9)) == [0, 1, 2]


def test_what_comes_together_is_one_transaction(path: Path, disk: Disk) -> None:
    async def session() -> None:
        async with spooling(path) as spool:
            disk.is_free.clear()
            slips = [spool.keep(published(event("e"), seq), ignore) for seq in range(20)]
            disk.is_free.set()
            await until(lambda: slips[-1].place == "disk", "the last is told")

    asyncio.run(session())
    assert disk.batches == [1, 19]


def test_what_is_delivered_is_history_also_when_it_was_delivered_first(path: Path) -> None:
    async def session() -> None:
        async with spooling(path) as spool:
            spool.delivered(spool.keep(published(event("a"), 0), ignore))
            slip = spool.keep(published(event("b"), 1), ignore)
            await until(lambda: slip.place == "disk", "it is told")
            spool.delivered(slip)
            await until(lambda: spool.metrics.n_out == 2, "both are marked")

    asyncio.run(session())
    with opened(path) as store:
        assert store.n_waiting() == 0


def test_what_waits_is_read_in_order_and_without_what_was_delivered(path: Path) -> None:
    async def session() -> list[list[int | None]]:
        pages: list[list[int | None]] = []
        async with spooling(path) as spool:
            assert spool.n_left == 3
            last_key = 0

            def read(found: Sequence[Slip] | None) -> None:
                nonlocal last_key
                assert found is not None
                pages.append([seq_of(slip.message) for slip in found])
                for slip in found[:1]:
                    spool.delivered(slip)
                last_key = max([last_key, *(slip.row.key for slip in found if slip.row)])

            for _ in range(3):
                n_pages = len(pages)
                spool.read(after_key=last_key, limit=2, then=read)
                await until(partial(has_more, pages, n_pages), "a page")
        return pages

    path.parent.mkdir()
    with opened(path) as store:
        append(store, life("e"))
    assert asyncio.run(session()) == [[0, 1], [2], []]


def test_a_full_disk_is_told_once_and_what_went_on_from_memory_is_written_later(
    path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    places: list[tuple[int | None, str]] = []

    def note(slip: Slip) -> None:
        places.append((seq_of(slip.message), slip.place))

    async def session() -> Spool:
        async with spooling(path) as spool:
            disk.error = DiskFullError("full")
            for seq in range(2):
                slip = spool.keep(published(event("e"), seq), note)
                await until(partial(has_more, places, seq), "told")
            spool.delivered(slip)
            disk.error = None
            await until(lambda: len(places) == 4, "they are written")
            await until(lambda: spool.metrics.n_out == 1, "the one is marked")
            return spool

    spool = asyncio.run(session())
    assert places == [(0, "memory"), (1, "memory"), (0, "disk"), (1, "disk")]
    assert spool.metrics.dropped == {"not_on_disk": 2}
    assert said(caplog) == [
        "full; events go on from memory until it can be written",
        f"{path} can be written again",
        f"1 messages wait on disk ({path}): they come, marked late, at the next start",
    ]


def test_a_disk_that_hangs_holds_nothing_up(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECS", 0.05)

    async def session() -> None:
        async with spooling(path) as spool:
            disk.is_free.clear()
            slip = spool.keep(published(event("e"), 0), ignore)
            await until(lambda: slip.place == "memory", "it goes on")
            disk.is_free.set()
            await until(lambda: slip.place == "disk", "it is written all the same")

    asyncio.run(session())
    assert "the disk does not answer" in said(caplog)[0]
    assert "can be written again" in said(caplog)[1]


def test_an_end_before_the_disk_answers_takes_not_long_and_says_what_is_lost(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECS", 0.05)

    async def session() -> Spool:
        async with asyncio.timeout(5), spooling(path) as spool:
            disk.is_free.clear()
            for seq in range(3):
                slip = spool.keep(published(event("e"), seq), ignore)
            spool.delivered(slip)
        return spool

    spool = asyncio.run(session())
    disk.is_free.set()
    assert spool.metrics.dropped["shutdown"] == 2
    assert "2 messages are lost: neither the disk nor the broker took them" in said(caplog)


def test_what_is_not_written_yet_is_written_at_the_end(path: Path, disk: Disk) -> None:
    async def session() -> None:
        async with spooling(path) as spool:
            disk.error = DiskFullError("full")
            slips = [spool.keep(published(event("e"), seq), ignore) for seq in range(600)]
            await until(lambda: slips[-1].place == "memory", "they go on")
            disk.error = None

    asyncio.run(session())
    with opened(path) as store:
        assert store.n_waiting() == 600


def test_a_file_that_is_damaged_while_it_is_used_is_set_aside(
    path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async def session() -> None:
        async with spooling(path) as spool:
            first = spool.keep(published(event("e"), 0), ignore)
            await until(lambda: first.place == "disk", "it is written")
            await asyncio.to_thread(damage, path)
            disk.error = StoreCorruptError("damaged")
            slip = spool.keep(published(event("e"), 1), ignore)
            await until(lambda: slip.place == "memory", "it goes on")
            disk.error = None
            await until(lambda: slip.place == "disk", "it is written")
            assert slip.row is not None
            assert first.row is not None
            assert (first.row.n_file, slip.row.n_file) == (1, 2)
            assert first.row.key == slip.row.key
            spool.delivered(first)  # it is in the other file
            await until(lambda: spool.metrics.n_in == 2, "both are counted")

    asyncio.run(session())
    with opened(path) as store:
        assert seqs(store.waiting(limit=9)) == [1]
    assert any("was damaged" in line for line in said(caplog))


def test_a_disk_without_room_at_the_start_holds_nothing_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Store.__init__

    def refuse(*_: object, **__: object) -> None:
        msg = "no room"
        raise DiskFullError(msg)

    async def session() -> None:
        monkeypatch.setattr(Store, "__init__", refuse)
        async with spooling(path) as spool:
            assert spool.n_left is None
            assert await spool.open_events(BOOT_ID) == ()
            slip = spool.keep(published(event("e"), 0), ignore)
            await until(lambda: slip.place == "memory", "it goes on")
            monkeypatch.setattr(Store, "__init__", made)
            await until(lambda: slip.place == "disk", "it is written")

    asyncio.run(session())


def test_what_cannot_be_opened_is_refused(path: Path) -> None:
    async def session() -> None:
        with pytest.raises(StoreError, match="its folder cannot be made: Not a directory"):
            await Spool(path / "below.db", ROOMY, SystemClock()).open()

    path.parent.parent.joinpath("state").touch()
    asyncio.run(session())


def test_what_an_earlier_boot_left_open_is_known(path: Path) -> None:
    async def session(boot_id: str) -> list[int | None]:
        async with spooling(path) as spool:
            return [seq_of(one) for one in await spool.open_events(boot_id)]

    path.parent.mkdir()
    with opened(path) as store:
        store.append([published(event("e"), 4)], now_ns=0)
    assert asyncio.run(session("another")) == [4]
    assert asyncio.run(session(BOOT_ID)) == []


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert StoreSettings().file("pi") == Path("/var/state/mmstream/pi.db")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert StoreSettings().file("pi") == Path("/home/ada/.local/state/mmstream/pi.db")
    assert StoreSettings(path="~/my.db").file("pi") == Path("/home/ada/my.db")
    limits = StoreSettings(max_age_days=0.5, max_mb=2).limits()
    assert (limits.max_age_ns, limits.max_bytes) == (12 * 3600 * 10**9, 2_000_000)


def test_without_a_home_folder_a_file_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: Path) -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(StoreError, match="nobody knows a home folder; give a file"):
        StoreSettings().file("pi")


def test_the_oldest_that_wait_for_a_disk_are_given_up(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(module, "MAX_UNWRITTEN", 2)

    async def session() -> Spool:
        async with spooling(path) as spool:
            disk.error = DiskFullError("full")
            slips = [spool.keep(published(event("e"), seq), ignore) for seq in range(5)]
            await until(lambda: all(slip.place == "memory" for slip in slips), "all go on")
            disk.error = None
        return spool

    assert asyncio.run(session()).metrics.dropped["unwritten"] == 3
    with opened(path) as store:
        assert seqs(store.waiting(limit=9)) == [3, 4]


def test_a_message_that_comes_twice_holds_nothing_up(path: Path) -> None:
    async def session() -> list[str]:
        async with spooling(path) as spool:
            slips = []
            for seq in (0, 0, 1):
                slips.append(spool.keep(published(event("e"), seq), ignore))
                await until(lambda: slips[-1].place != "under_way", "it is decided")
        return [slip.place for slip in slips]

    assert asyncio.run(session()) == ["disk", "memory", "disk"]


def test_a_message_that_no_file_can_hold_holds_nothing_up(path: Path) -> None:
    """Half a surrogate pair."""

    async def session() -> list[str]:
        async with spooling(path) as spool:
            slips: list[Slip] = []
            for event_id in ("whole", "half \ud800", "after"):
                message = published(event(event_id), len(slips))
                slips.append(spool.keep(message, ignore))
                await until(lambda: slips[-1].place != "under_way", "it is decided")
        return [slip.place for slip in slips]

    assert asyncio.run(session()) == ["disk", "memory", "disk"]


def test_what_cannot_be_read_is_tried_again_before_it_is_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    n_readings = 0

    def refuse(*_: object, **__: object) -> None:
        nonlocal n_readings
        n_readings += 1
        msg = "busy"
        raise StoreError(msg)

    async def session() -> list[Sequence[Slip] | None]:
        answers: list[Sequence[Slip] | None] = []
        async with spooling(path) as spool:
            monkeypatch.setattr(Store, "waiting", refuse)
            spool.read(after_key=0, limit=1, then=answers.append)
            await until(partial(has_more, answers, 0), "an answer")
        return answers

    assert asyncio.run(session()) == [None]
    assert n_readings == module.READ_TRIES
    assert said(caplog) == ["busy; what waits in it comes with the next start"]
