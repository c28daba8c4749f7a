"""The spool over a disk that is full to the last byte, damaged or hangs, and by a clock that is
set while it runs."""

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from brokers import until
from sink_messages import BOOT_ID, T_NS, event, published
from stores import (
    ROOMY,
    append,
    copy_as_killed,
    fill_disk,
    life,
    mount,
    opened,
    seq_of,
    seqs,
    unmount,
)
from test_sinks_spool import has_more, ignore, spooling

from mmstream.clock import ManualClock
from mmstream.errors import StoreCorruptError, StoreError
from mmstream.sinks import spool as module
from mmstream.sinks import spool_calendar
from mmstream.sinks.spool import Spool
from mmstream.sinks.spool_disk import NS_PER_DAY, Row, Slip
from mmstream.store.event_log import EventLog
from mmstream.store.eviction import Limits
from mmstream.store.store import Store


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RETRY_SECS", "TIDY_SECS"):
        monkeypatch.setattr(module, name, 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "none", folder)
    yield folder
    unmount(folder)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name.startswith("mmstream.sinks")]


def test_a_disk_without_any_room_at_the_start_is_read_and_then_used(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, ballast = small_disk / "events.db", small_disk / "ballast"

    async def session() -> Spool:
        async with spooling(path) as spool:
            assert spool.n_left == 1
            assert [seq_of(one) for one in await spool.open_events("new")] == [3]
            read: list[Sequence[Slip] | None] = []
            spool.read(after_key=0, limit=9, then=read.append)
            await until(partial(has_more, read, 0), "what waits")
            assert read[0] is not None
            assert [seq_of(slip.message) for slip in read[0]] == [3]
            slips = [spool.keep(published(event("open", "end"), seq), ignore) for seq in (4, 5)]
            await until(lambda: slips[-1].place == "memory", "they go on")
            ballast.unlink()
            await until(lambda: slips[-1].place == "disk", "they are written")
            await until(lambda: spool.problem is None, "all is well")
            assert await asyncio.to_thread(count, path) == 6
            return spool

    with opened(path) as store:
        store.mark_delivered(append(store, life("over")))
        append(store, [published(event("open"), 3)])
    fill_disk(ballast)
    assert asyncio.run(session()).metrics.dropped == {"not_on_disk": 2}
    said = lines(caplog)
    assert [line for line in said if "disk is full" in line] == [said[0]]
    assert said[1] == f"{path} can be written again"


def test_a_new_store_on_a_disk_without_any_room_is_made_later(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, ballast = small_disk / "state" / "events.db", small_disk / "ballast"

    async def session() -> None:
        async with spooling(path) as spool:
            assert await spool.open_events(BOOT_ID) == ()
            slip = spool.keep(published(event("e"), 0), ignore)
            await until(lambda: slip.place == "memory", "it goes on")
            ballast.unlink()
            await until(lambda: slip.place == "disk", "it is written")

    fill_disk(ballast)
    asyncio.run(session())
    assert sum("the disk is full" in line for line in lines(caplog)) == 1


def damage_what_was_said_of(path: Path, event_id: str) -> None:
    """The head of the page that it is on."""
    at = path.read_bytes().index(f'"{event_id}"'.encode())
    with path.open("r+b") as file:
        file.seek(at // 4096 * 4096)
        file.write(b"\xa5" * 16)


def count(path: Path) -> int:
    """As anybody else can."""
    with closing(EventLog(path)) as log:
        return len(list(log.messages()))


def fill(path: Path) -> None:
    with opened(path) as store:
        for index in range(40):
            store.mark_delivered(append(store, life(f"e{index}", 3 * index)))


def test_what_a_killed_writer_left_is_looked_through_beside_all_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    may_look = threading.Event()
    check = EventLog.check
    killed = path.with_name("killed.db")

    def patient(log: EventLog) -> tuple[str, ...]:
        may_look.wait(10)
        return check(log)

    async def session() -> None:
        async with spooling(killed) as spool:
            slip = spool.keep(published(event("new"), 900), ignore)
            await until(lambda: slip.place == "disk", "nothing waits for that")
            may_look.set()
            await until(lambda: "was damaged" in caplog.text, "it is found")
            slip = spool.keep(published(event("new", "end"), 901), ignore)
            await until(lambda: slip.place == "disk", "it is in the new one")
            assert slip.row is not None
            assert slip.row.n_file == 2

    monkeypatch.setattr(EventLog, "check", patient)
    fill(path)
    damage_what_was_said_of(path, "e3")
    with opened(path) as store:
        append(store, [published(event("last"), 800)])
        copy_as_killed(path, killed)
    asyncio.run(session())
    with opened(killed) as store:
        assert seqs(store.waiting(limit=9)) == [901]
    assert len(list(path.parent.glob("killed.db.corrupt-*Z"))) == 1


def test_what_is_found_in_a_file_that_was_set_aside_meanwhile_harms_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    may_look = threading.Event()
    killed = path.with_name("killed.db")

    def bad(_: EventLog) -> tuple[str, ...]:
        may_look.wait(10)
        return ("a page is bad",)

    def damaged(_: Store) -> None:
        msg = "damaged"
        raise StoreCorruptError(msg)

    async def session() -> None:
        async with spooling(killed) as spool:
            with pytest.raises(StoreCorruptError):
                await spool.do(damaged)
            assert (await written(spool, 900)).row == Row(2, 1)
            may_look.set()
            await until(lambda: "a page is bad" in caplog.text, "it is found")
            assert (await written(spool, 901)).row == Row(2, 2)

    monkeypatch.setattr(EventLog, "check", bad)
    with opened(path) as store:
        append(store, life("e"))
        copy_as_killed(path, killed)
    asyncio.run(session())
    assert caplog.text.count("was damaged") == 1


def test_what_was_let_go_of_is_not_looked_through(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[EventLog] = []
    monkeypatch.setattr(EventLog, "check", looked.append)

    async def session() -> None:
        async with spooling(path) as spool:
            slip = spool.keep(published(event("new"), 900), ignore)
            await until(lambda: slip.place == "disk", "it is written")

    fill(path)
    asyncio.run(session())
    assert looked == []


def test_damage_that_is_found_while_the_start_is_read_does_not_hinder_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def session() -> None:
        async with spooling(path) as spool:
            assert await spool.open_events("new") == ()
            slip = spool.keep(published(event("new"), 900), ignore)
            await until(lambda: slip.place == "disk", "it is written")

    fill(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    monkeypatch.setattr(module, "RETRY_SECS", 0.01)
    asyncio.run(session())
    assert f"{path} was damaged" in caplog.text
    with opened(path) as store:
        assert seqs(store.waiting(limit=9)) == [900]


def test_a_defect_ends_neither_reading_nor_tidying(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    evict = Store.evict
    n_evictions = 0

    def broken(*_: object, **__: object) -> None:
        msg = "nobody has thought of this"
        raise TypeError(msg)

    def broken_at_first(store: Store, *, now_ns: int, knows_age: bool) -> bool:
        nonlocal n_evictions
        n_evictions += 1
        if n_evictions < 3:
            broken()
        return evict(store, now_ns=now_ns, knows_age=knows_age)

    async def session() -> list[Sequence[Slip] | None]:
        read: list[Sequence[Slip] | None] = []
        monkeypatch.setattr(Store, "evict", broken_at_first)
        async with spooling(path) as spool:
            slip = spool.keep(published(event("e"), 0), ignore)
            spool.delivered(slip)
            await until(lambda: spool.metrics.n_out == 1 and n_evictions > 2, "it is marked")
            with monkeypatch.context() as patch:
                patch.setattr(Store, "waiting", broken)
                spool.read(after_key=0, limit=1, then=read.append)
                await until(partial(has_more, read, 0), "an answer")
            spool.read(after_key=0, limit=1, then=read.append)
            await until(partial(has_more, read, 1), "another")
        return read

    assert asyncio.run(session()) == [None, ()]
    defect = f"{path}: TypeError: nobody has thought of this"
    assert lines(caplog) == [defect, f"{defect}; what waits in it comes with the next start"]


def test_a_disk_that_hangs_is_not_read_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_free = threading.Event()
    waiting = Store.waiting

    def hanging(store: Store, *, after_key: int, limit: int) -> Sequence[object]:
        is_free.wait(10)
        return waiting(store, after_key=after_key, limit=limit)

    async def session() -> list[Sequence[Slip] | None]:
        read: list[Sequence[Slip] | None] = []
        monkeypatch.setattr(Store, "waiting", hanging)
        monkeypatch.setattr(module, "READ_SECS", 0.02)
        async with spooling(path) as spool:
            spool.read(after_key=0, limit=1, then=read.append)
            await until(partial(has_more, read, 0), "an answer")
            is_free.set()
        return read

    assert asyncio.run(session()) == [None]
    assert "the disk does not answer; what waits in it" in caplog.text


def test_a_disk_that_hangs_at_the_start_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_free = threading.Event()

    def hanging(*_: object, **__: object) -> None:
        is_free.wait(10)
        msg = "too late"
        raise StoreError(msg)

    async def session() -> None:
        with pytest.raises(StoreError, match=r"events.db: the disk does not answer"):
            await Spool(path, ROOMY, ManualClock()).open()

    monkeypatch.setattr(Store, "__init__", hanging)
    monkeypatch.setattr(module, "OPEN_SECS", 0.02)
    asyncio.run(session())
    is_free.set()


async def written(spool: Spool, seq: int) -> Slip:
    slip = spool.keep(published(event(f"e{seq}", "end"), seq), ignore)
    await until(lambda: slip.place == "disk", "it is written")
    return slip


def test_a_file_that_is_removed_while_it_is_used_is_told_and_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "AGE_SECS", 0.01)

    async def session() -> Spool:
        async with spooling(path) as spool:
            await written(spool, 0)
            await until(lambda: spool.n_waiting == 1, "it waits")
            await asyncio.to_thread(path.unlink)
            await until(lambda: "was removed while it was in use" in caplog.text, "it is told")
            slip = await written(spool, 1)
            assert slip.row is not None
            assert slip.row.n_file == 2
            return spool

    assert asyncio.run(session()).metrics.dropped == {"file_lost": 1}
    assert caplog.text.count("was removed") == 1
    with opened(path) as store:
        assert seqs(store.waiting(limit=9)) == [1]


class Clock(ManualClock):
    """One that somebody may set."""

    def set_to(self, utc_ns: int) -> None:
        self._utc_ns = utc_ns


@pytest.mark.parametrize(
    ("first_ns", "then_ns"),
    [
        pytest.param(60 * 10**9, T_NS, id="1970, then NTP"),
        pytest.param(T_NS - 45 * NS_PER_DAY, T_NS, id="when it was switched off, then NTP"),
        pytest.param(T_NS, 60 * 10**9, id="lost"),
        pytest.param(T_NS + 9999 * NS_PER_DAY, T_NS, id="set back"),
    ],
)
def test_what_was_just_written_outlives_a_clock_that_is_set(
    path: Path, first_ns: int, then_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_calendar, "STEADY_NS", 0)
    clock = Clock(utc_ns=first_ns)
    n_tidied = 0
    evict = Store.evict

    def counted(store: Store, *, now_ns: int, knows_age: bool) -> bool:
        nonlocal n_tidied
        is_more = evict(store, now_ns=now_ns, knows_age=knows_age)
        n_tidied += 1
        return is_more

    def has_tidied(n_before: int) -> bool:
        return n_tidied > n_before

    async def session() -> Spool:
        spool = Spool(path, Limits(30 * NS_PER_DAY, ROOMY.max_bytes), clock)
        await spool.open()
        for seq in range(2):
            n_before = n_tidied
            await written(spool, seq)
            await until(partial(has_tidied, n_before), "it is tidied up")
            clock.set_to(then_ns)
        await spool.close()
        return spool

    monkeypatch.setattr(Store, "evict", counted)
    assert asyncio.run(session()).metrics.dropped == {}
    with opened(path) as store:
        assert seqs(store.waiting(limit=9)) == [0, 1]


def test_by_a_clock_that_is_left_alone_what_is_too_old_goes(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "AGE_SECS", 0.01)
    clock = Clock(utc_ns=T_NS)

    async def session() -> Spool:
        spool = Spool(path, Limits(NS_PER_DAY, ROOMY.max_bytes), clock)
        await spool.open()
        for seq in range(2):
            await written(spool, seq)
        await until(lambda: spool.n_waiting == 2, "both wait")
        clock.advance(2 * 86_400)  # and nothing is said
        await until(lambda: spool.n_waiting == 0, "both are gone")
        await spool.close()
        return spool

    caplog.set_level(logging.ERROR)
    assert asyncio.run(session()).metrics.dropped == {"spool_age": 2}


def test_what_cannot_be_looked_through_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(_: EventLog) -> None:
        msg = "another program holds it"
        raise StoreError(msg)

    async def session() -> None:
        async with spooling(killed):
            await until(lambda: bool(lines(caplog)), "it is told")

    killed = path.with_name("killed.db")
    monkeypatch.setattr(EventLog, "check", busy)
    with opened(path) as store:
        append(store, life("e"))
        copy_as_killed(path, killed)
    asyncio.run(session())
    assert lines(caplog)[0] == "another program holds it; whether it is sound is not known"
