"""The event log without a broker."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest
from brokers import running, until
from sink_messages import caption, event, published, stats
from stores import ROOMY, fill_disk, mount, opened, unmount

from mmstream.clock import SystemClock
from mmstream.sinks.log import LogSink
from mmstream.sinks.spool import Spool
from mmstream.store.event_log import EventLog


def test_what_must_arrive_is_kept_as_history(tmp_path: Path) -> None:
    path = tmp_path / "events.db"

    async def session() -> LogSink:
        spool = Spool(path, ROOMY, SystemClock())
        await spool.open()
        sink = LogSink(spool)
        async with running(sink):
            await sink.ready(0)
            for seq, content in enumerate((event("e"), stats(), caption("partial"), event("f"))):
                await sink.publish(published(content, seq))
            await until(lambda: spool.metrics.n_out == 2, "both are marked")
        await spool.close()
        return sink

    sink = asyncio.run(session())
    assert (sink.metrics.n_in, sink.metrics.n_out) == (4, 4)
    with opened(path) as store:
        assert store.n_waiting() == 0
    with closing(EventLog(path)) as log:
        assert [entry.id for entry in log.entries(limit=9)] == ["f", "e"]


def test_what_neither_the_disk_nor_a_broker_took_is_counted_as_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()

    async def session() -> Spool:
        spool = Spool(folder / "events.db", ROOMY, SystemClock())
        await spool.open()
        await asyncio.to_thread(fill_disk, folder / "ballast")
        sink = LogSink(spool)
        async with running(sink):
            for seq in range(5):
                await sink.publish(published(event("e", "update"), seq))
            await until(lambda: spool.metrics.dropped["not_on_disk"] == 5, "refused")
        await spool.close()
        return spool

    mount("-t", "tmpfs", "-o", "size=1m", "none", folder)
    try:
        spool = asyncio.run(session())
    finally:
        unmount(folder)
    assert spool.metrics.dropped["shutdown"] == 5
    assert "5 messages are lost" in caplog.text
