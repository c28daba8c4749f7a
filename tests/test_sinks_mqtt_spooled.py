"""The MQTT sink over a spool: what is on disk, what leaves, in which order and how fast."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from brokers import Heard, free_port, listening, running, until
from sink_messages import BOOT_ID, NODE, event, info, published, stats
from stores import ROOMY, append, numbered, of_boot, opened, seqs

from mmstream.clock import SystemClock
from mmstream.messages import Published
from mmstream.sinks import mqtt, outbox, spool
from mmstream.sinks.broker import EmbeddedBroker
from mmstream.sinks.mqtt import MqttSettings, MqttSink
from mmstream.sinks.spool import Spool
from mmstream.store.store import Store

ROOT = f"mmstream/{NODE}"
N_LEFT = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@asynccontextmanager
async def spooled(path: Path, port: int, **more: object) -> AsyncIterator[MqttSink]:
    """A sink over a spool, as a recipe puts them together."""
    log = Spool(path, ROOMY, SystemClock())
    await log.open()
    settings = MqttSettings.model_validate({"port": port, **more})
    sink = MqttSink(settings, node=NODE, boot_id=BOOT_ID, spool=log)
    try:
        async with running(sink):
            yield sink
    finally:
        await log.close()


def leave(path: Path, n_messages: int) -> None:
    """What an earlier boot could not send."""
    messages = numbered([event(f"old{n}") for n in range(n_messages)])
    with opened(path) as store:
        append(store, [of_boot(one, "earlier") for one in messages])


def events(heard: Sequence[Heard]) -> list[tuple[str, int, bool]]:
    """Boot, number and lateness of each, as they came."""
    said = [json.loads(one.payload) for one in heard if one.topic.endswith("/event")]
    return [(one["boot_id"], one["seq"], one["late"]) for one in said]


def test_what_is_delivered_was_on_disk_and_is_history(path: Path) -> None:
    async def session() -> list[Heard]:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            async with spooled(path, broker.port) as sink:
                await sink.publish(published(info()))
                await sink.ready(10)
                for seq, step in enumerate((event("e"), event("e", "end"))):
                    await sink.publish(published(step, seq))
                await until(lambda: sink.metrics.n_out == 2, "both are acknowledged")
            await until(lambda: listener.retained()[f"{ROOT}/status"] == "offline", "goodbye")
            return listener.heard

    heard = asyncio.run(session())
    assert events(heard) == [(BOOT_ID, 0, False), (BOOT_ID, 1, False)]
    life = [one.topic.removeprefix(f"{ROOT}/") for one in heard]
    life = [one for one in life if one in {"door/event", "door/open", "door/state/motion"}]
    assert life[2:] == ["door/event", "door/open", "door/state/motion"] * 2
    with opened(path) as store:
        assert (store.n_waiting(), store.used_bytes() > 0) == (0, True)


def test_what_an_earlier_boot_left_comes_first_at_a_bounded_rate_and_holds_up_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "REPLAY_PER_SEC", 50)
    leave(path, N_LEFT)

    async def session() -> tuple[list[Heard], float]:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            began_secs = asyncio.get_running_loop().time()
            async with spooled(path, broker.port) as sink:
                await sink.ready(10)
                await until(lambda: bool(events(listener.heard)), "the replay has begun")
                await sink.publish(published(event("new"), 0))
                await sink.publish(published(stats()))
                await until(lambda: len(events(listener.heard)) == N_LEFT + 1, "all events")
                took_secs = asyncio.get_running_loop().time() - began_secs
            return listener.heard, took_secs

    heard, took_secs = asyncio.run(session())
    *old, new = events(heard)
    assert old == [("earlier", seq, True) for seq in range(N_LEFT)]
    assert new[:2] == (BOOT_ID, 0)
    assert took_secs > (N_LEFT - mqtt.WINDOW) / 50
    [at] = [i for i, one in enumerate(heard) if one.topic.endswith("/stats")]
    assert len(events(heard[at:])) > N_LEFT // 4  # it did not wait for them


def test_what_waits_when_it_is_closed_is_kept_and_nothing_is_lost(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def session() -> MqttSink:
        async with spooled(path, free_port()) as sink:
            for seq in range(20):
                await sink.publish(published(event("e", "update"), seq))
            await until(lambda: sink.last_error is not None, "the first attempt has failed")
            await sink.publish(published(event("e", "end"), 20))
        return sink

    assert asyncio.run(session()).metrics.dropped == {}
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert f"21 messages wait on disk ({path})" in caplog.text
    with opened(path) as store:
        assert seqs(store.waiting(limit=99)) == list(range(21))


def test_a_disk_that_hangs_at_the_end_does_not_keep_the_last_words_from_the_broker(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_free = threading.Event()
    real = Store.append

    def hanging(
        store: Store, messages: Sequence[Published], *, now_ns: int
    ) -> tuple[int | None, ...]:
        is_free.wait(10)
        return real(store, messages, now_ns=now_ns)

    monkeypatch.setattr(Store, "append", hanging)
    monkeypatch.setattr(spool, "LAST_PATIENCE_SECS", 0.0)
    monkeypatch.setattr(spool, "CLOSE_SECS", 0.05)

    async def session() -> list[Heard]:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            async with spooled(path, broker.port) as sink:
                await sink.ready(10)
                await sink.publish(published(event("e", "end"), 0))
            await until(lambda: listener.retained()[f"{ROOT}/status"] == "offline", "goodbye")
            return listener.heard

    try:
        assert events(asyncio.run(session())) == [(BOOT_ID, 0, False)]
    finally:
        is_free.set()


def test_a_close_in_the_middle_of_a_replay_says_goodbye_in_time(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mqtt, "REPLAY_PER_SEC", 1)
    monkeypatch.setattr(mqtt, "DRAIN_SECS", 0.0)
    monkeypatch.setattr(outbox, "PAGE", 4)
    leave(path, 2000)

    async def session() -> list[Heard]:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            async with spooled(path, broker.port) as sink:
                await until(lambda: bool(events(listener.heard)), "the replay has begun")
                assert sink.connected
            await until(lambda: listener.retained()[f"{ROOT}/status"] == "offline", "goodbye")
            return listener.heard

    told = events(asyncio.run(session()))
    assert "too slow for a goodbye" not in caplog.text
    with opened(path) as store:
        rest = seqs(store.waiting(limit=9999))
    assert [seq for _, seq, _ in told] + rest == list(range(2000))


def test_more_than_the_window_is_read_back_in_order(path: Path) -> None:
    async def session() -> list[Heard]:
        port = free_port()
        async with spooled(path, port, outbox_size=5) as sink:
            await until(lambda: sink.last_error is not None, "the first attempt has failed")
            for seq in range(N_LEFT):
                await sink.publish(published(event(f"e{seq}"), seq))
            async with EmbeddedBroker(port), listening(port) as listener:
                await until(lambda: len(events(listener.heard)) == N_LEFT, "all events")
                await until(lambda: sink.metrics.n_out == N_LEFT, "all are acknowledged")
                await sink.publish(published(event("prompt"), N_LEFT))
                await until(lambda: len(events(listener.heard)) > N_LEFT, "the last one")
                return listener.heard

    told = events(asyncio.run(session()))
    assert [seq for _, seq, _ in told] == list(range(N_LEFT + 1))
    assert [late for *_, late in told] == [True] * N_LEFT + [False]
