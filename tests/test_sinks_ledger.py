"""What people have set and seen comes to the disk, or it is said that it does not."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sink_messages import T_NS, event, published
from stores import ROOMY, fill_disk, mount, opened, unmount

from mmstream.clock import ManualClock
from mmstream.errors import DiskFullError, StoreError
from mmstream.sinks import ledger as module
from mmstream.sinks.ledger import Ledger
from mmstream.sinks.spool import Spool
from mmstream.store.overrides import Override
from mmstream.store.store import Store

MOTION = Override("door", "motion", "OFF", T_NS, "mqtt")
LOUD = Override("door", "loud", "OFF", T_NS, "mqtt")
Steps = Callable[[Ledger, Spool], Awaitable[None]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@asynccontextmanager
async def spooling(path: Path) -> AsyncIterator[Spool]:
    spool = Spool(path, ROOMY, ManualClock(utc_ns=T_NS))
    await spool.open()
    try:
        yield spool
    finally:
        await spool.close()


def play(path: Path, steps: Steps) -> None:
    async def scenario() -> None:
        async with spooling(path) as spool:
            await steps(Ledger(spool, ManualClock(utc_ns=T_NS)), spool)

    asyncio.run(scenario())


def test_what_is_kept_is_there_at_the_next_boot(path: Path) -> None:
    async def first(ledger: Ledger, _: Spool) -> None:
        assert await ledger.overrides() == ()
        for one in (MOTION, LOUD):
            await ledger.keep(one)
        await ledger.forget("door", "loud")

    async def second(ledger: Ledger, _: Spool) -> None:
        assert await ledger.overrides() == (MOTION,)
        await ledger.forget("door", None)
        assert await ledger.overrides() == ()

    play(path, first)
    play(path, second)


def test_an_event_that_was_just_said_can_be_acknowledged(path: Path) -> None:
    async def steps(ledger: Ledger, spool: Spool) -> None:
        spool.keep(published(event("e1")), lambda _: None)
        seen = await ledger.acknowledge("e1", "ann")
        assert seen is not None
        assert (seen.event_id, seen.is_open, seen.at_ns, seen.by) == ("e1", True, T_NS, "ann")
        assert await ledger.acknowledge("e2", "ann") is None

    play(path, steps)


def test_a_full_disk_is_read_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "none", folder)

    async def steps(ledger: Ledger, _: Spool) -> None:
        assert await ledger.overrides() == (MOTION,)
        with pytest.raises(DiskFullError):
            await ledger.keep(LOUD)

    try:
        with opened(folder / "events.db") as store:
            store.keep_override(MOTION)
        fill_disk(folder / "ballast")
        play(folder / "events.db", steps)
    finally:
        unmount(folder)


def test_what_cannot_be_read_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Store) -> None:
        msg = "events.db: cannot be used"
        raise StoreError(msg)

    async def steps(ledger: Ledger, _: Spool) -> None:
        monkeypatch.setattr(Store, "overrides", broken)
        assert await ledger.overrides() == ()

    with caplog.at_level(logging.ERROR):
        play(path, steps)
    assert [one.getMessage() for one in caplog.records] == [
        "what was set before is not known, all is as configured: events.db: cannot be used"
    ]


def test_a_disk_that_hangs_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECS", 0.02)
    let_go = threading.Event()

    async def steps(ledger: Ledger, spool: Spool) -> None:
        hanging = asyncio.create_task(spool.do(lambda _: let_go.wait(10)))
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="the disk does not answer"):
            await ledger.keep(MOTION)
        let_go.set()
        assert await hanging

    play(path, steps)
