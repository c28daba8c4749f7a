"""The MQTT sink over a spool and a real mosquitto that is killed or frozen while much is said."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from brokers import Heard, Listener, Mosquitto, listening, running, until
from sink_messages import BOOT_ID, NODE, event, published
from stores import ROOMY, opened, seqs

from mmstream.clock import SystemClock
from mmstream.sinks.mqtt import MqttSettings, MqttSink
from mmstream.sinks.spool import Spool

pytestmark = pytest.mark.broker

N_STREAMED = 300
SURE = ["max_inflight_messages 0", "autosave_on_changes true", "autosave_interval 1"]
"""mosquitto itself forgets what it has acknowledged and not passed on: here it does not."""


@asynccontextmanager
async def spooled(path: Path, port: int) -> AsyncIterator[MqttSink]:
    spool = Spool(path, ROOMY, SystemClock())
    await spool.open()
    sink = MqttSink(MqttSettings(port=port), node=NODE, boot_id=BOOT_ID, spool=spool)
    try:
        async with running(sink):
            yield sink
    finally:
        await spool.close()


def numbers(heard: Sequence[Heard]) -> list[int]:
    """Each once, in the order in which they came first."""
    said = (json.loads(one.payload)["seq"] for one in heard if one.topic.endswith("/event"))
    return list(dict.fromkeys(said))


def has_heard(listener: Listener, n_events: int) -> bool:
    return len(numbers(listener.heard)) >= n_events


def test_nothing_is_lost_when_the_broker_is_killed_mid_stream(tmp_path: Path) -> None:
    async def stream(sink: MqttSink) -> None:
        for seq in range(N_STREAMED):
            await sink.publish(published(event(f"e{seq}"), seq))
            await asyncio.sleep(0.002)

    async def session(broker: Mosquitto) -> list[int]:
        async with (
            listening(broker.port, name="durable") as listener,
            spooled(tmp_path / "events.db", broker.port) as sink,
        ):
            broker.save()
            await sink.ready(10)
            streaming = asyncio.create_task(stream(sink))
            for n_heard in (50, 150):
                await until(partial(has_heard, listener, n_heard), "some are heard")
                broker.kill()
                await until(lambda: not sink.connected, "the sink has noticed")
                await asyncio.to_thread(broker.start)
            await streaming
            await until(partial(has_heard, listener, N_STREAMED), "all are heard")
            await until(lambda: sink.metrics.n_out >= N_STREAMED, "all are acknowledged")
            assert sink.metrics.dropped == {}
            return numbers(listener.heard)

    with Mosquitto(tmp_path, is_persistent=True, extra=SURE) as broker:
        assert asyncio.run(session(broker)) == list(range(N_STREAMED))
    with opened(tmp_path / "events.db") as store:
        assert store.n_waiting() == 0


def test_what_a_frozen_broker_does_not_take_is_kept_for_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.db"

    async def session(broker: Mosquitto) -> MqttSink:
        async with spooled(path, broker.port) as sink:
            await sink.publish(published(event("e"), 0))
            await until(lambda: sink.metrics.n_out == 1, "the first is acknowledged")
            broker.freeze()
            for seq in range(1, 40):
                await sink.publish(published(event("e", "update"), seq))
        return sink

    with Mosquitto(tmp_path) as broker:
        sink = asyncio.run(session(broker))
    assert sink.metrics.dropped == {}
    assert f"39 messages wait on disk ({path})" in caplog.text
    with opened(path) as store:
        assert seqs(store.waiting(limit=99)) == list(range(1, 40))
