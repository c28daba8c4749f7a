"""The sink without a broker, with the embedded one, and with one that has stopped answering."""

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import pytest
from brokers import (
    HOST,
    Heard,
    Listener,
    answering,
    free_port,
    listening,
    running,
    say,
    until,
)
from sink_messages import (
    BOOT_ID,
    NODE,
    alert,
    caption,
    event,
    health,
    info,
    published,
    response,
    stats,
)

from mmstream.errors import BrokerError, SinkError, StateError
from mmstream.messages import Request
from mmstream.sinks import mqtt, mqtt_connection
from mmstream.sinks.broker import EmbeddedBroker
from mmstream.sinks.mqtt import MqttSettings, MqttSink

ROOT = f"mmstream/{NODE}"
PUBLISH, PUBACK = 3, 4  # MQTT 5, section 2.1.2


@pytest.fixture(autouse=True)
def _asyncio_has_nothing_to_complain_about(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    gc.collect()
    complaints = [r.getMessage() for r in caplog.get_records("call") if r.name == "asyncio"]
    assert complaints == []


def made(port: int, **more: object) -> MqttSink:
    settings = MqttSettings.model_validate({"port": port, "discovery": "off", **more})
    return MqttSink(settings, node=NODE, boot_id=BOOT_ID)


def topics(heard: list[Heard]) -> list[str]:
    return [message.topic.removeprefix(f"{ROOT}/") for message in heard]


@dataclass(frozen=True)
class Stalled:
    """A broker that lets everybody in, to subscribe too, and acknowledges nothing."""

    server: asyncio.Server
    port: int
    hang_up: asyncio.Event


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The kind of a packet, and all behind its length (MQTT 5, section 2.1)."""
    (first,) = await reader.readexactly(1)
    length = shift = 0
    goes_on = 0x80
    while goes_on:
        (byte,) = await reader.readexactly(1)
        length |= (byte & 0x7F) << shift
        shift += 7
        goes_on = byte & 0x80
    return first >> 4, await reader.readexactly(length)


async def let_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Take a CONNECT and a SUBSCRIBE; gives the SUBACK that is due."""
    await read_packet(reader)
    writer.write(b"\x20\x03\0\0\0")  # CONNACK of MQTT 5
    _, subscribe = await read_packet(reader)
    return b"\x90\x04" + subscribe[:2] + b"\0\1"  # QoS 1 is granted


@asynccontextmanager
async def stalled_broker() -> AsyncIterator[Stalled]:
    hang_up = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await let_in(reader, writer))
        await hang_up.wait()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield Stalled(server, int(server.sockets[0].getsockname()[1]), hang_up)
        hang_up.set()


def test_says_what_it_knows_in_order_and_goodbye() -> None:
    async def session() -> tuple[list[Heard], MqttSink]:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            sink = made(broker.port)
            async with running(sink):
                await sink.publish(published(info()))
                await sink.ready(10)
                await sink.publish(published(health()))
                for seq, step in enumerate((event("e"), event("e", "end"))):
                    await sink.publish(published(step, seq))
                await sink.publish(published(caption("partial")))
                await sink.publish(published(caption("final"), 2))
                await sink.publish(published(stats()))
            await until(lambda: listener.retained().get(f"{ROOT}/status") == "offline", "goodbye")
            return listener.heard, sink

    heard, sink = asyncio.run(session())
    flow = topics(heard)
    assert flow[:5] == ["status", "info", "door/open", "door/state/motion", "door/state/loud"]
    life = [topic for topic in flow if topic in {"door/event", "door/open", "door/state/motion"}]
    assert life[2:] == ["door/event", "door/open", "door/state/motion"] * 2
    assert {"door/status", "door/health", "stats"} < set(flow)
    assert flow.index("door/caption/partial") < flow.index("door/caption/final")
    assert [message.payload for message in heard[-2:]] == ["offline", "offline"]
    assert flow[-2:] == ["door/status", "status"]
    assert sink.metrics.dropped == {}
    assert sink.metrics.n_in == 7
    assert not sink.connected


def test_what_waits_for_the_broker_comes_late_but_in_order_after_the_picture() -> None:
    async def session() -> list[Heard]:
        port = free_port()
        sink = made(port)
        async with running(sink):
            await sink.publish(published(info()))
            for seq in range(40):
                await sink.publish(published(event(f"e{seq}"), seq))
            await until(lambda: sink.last_error is not None, "the first attempt has failed")
            async with EmbeddedBroker(port), listening(port) as listener:
                await sink.ready(10)
                await sink.publish(published(event("prompt"), 40))
                await until(lambda: topics(listener.heard).count("door/event") == 41, "all events")
                assert sink.last_error is None
                return listener.heard

    heard = asyncio.run(session())
    events = [json.loads(one.payload) for one in heard if one.topic.endswith("/event")]
    assert [one["seq"] for one in events] == list(range(41))
    assert [one["late"] for one in events] == [True] * 40 + [False]
    before = {one.topic: one.payload for one in heard[: topics(heard).index("door/event")]}
    assert before[f"{ROOT}/door/state/motion"] == "ON"
    assert len(json.loads(before[f"{ROOT}/door/open"])["events"]) == 40


def test_what_is_said_before_the_first_connection_is_not_late() -> None:
    async def session() -> str:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            sink = made(broker.port)
            await sink.publish(published(event("e")))
            async with running(sink):
                await until(lambda: f"{ROOT}/door/event" in listener.retained(), "the event")
            return listener.retained()[f"{ROOT}/door/event"]

    assert json.loads(asyncio.run(session()))["late"] is False


def test_close_delivers_all_that_waits() -> None:
    n_events = 5 * mqtt.WINDOW

    async def session() -> list[Heard]:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            sink = made(broker.port)
            async with running(sink):
                await sink.ready(10)
                for seq in range(n_events):
                    await sink.publish(published(event("e", "update"), seq))
            assert sink.metrics.n_out == n_events
            await until(lambda: topics(listener.heard)[-1] == "status", "goodbye")
            return listener.heard

    events = [json.loads(one.payload) for one in asyncio.run(session()) if "/event" in one.topic]
    assert [one["seq"] for one in events] == list(range(n_events))


def test_a_full_outbox_loses_the_oldest_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async def session() -> MqttSink:
        port = free_port()
        sink = made(port, outbox_size=3)
        async with running(sink):
            for seq in range(10):
                await sink.publish(published(event(f"e{seq}"), seq))
            await until(lambda: sink.last_error is not None, "the first attempt has failed")
            async with EmbeddedBroker(port), listening(port) as listener:
                await until(lambda: topics(listener.heard).count("door/event") == 3, "the rest")
                seqs = [json.loads(m.payload)["seq"] for m in listener.heard if "/event" in m.topic]
                assert seqs == [7, 8, 9]
        return sink

    sink = asyncio.run(session())
    assert sink.metrics.dropped == {"outbox_full": 7}
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "the oldest of 3 waiting messages are lost" in errors[0]


def test_a_message_that_makes_room_while_under_way_leaves_no_stale_state() -> None:
    async def session() -> dict[str, str]:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            sink = made(broker.port, outbox_size=2)
            async with running(sink):
                await sink.ready(10)
                await until(lambda: bool(listener.heard), "the picture is written")
                await sink.publish(published(event("e"), 0))
                await sink.publish(published(event("e", "end"), 1))
                for _ in range(5):  # both are sent, neither is acknowledged
                    await asyncio.sleep(0)
                await sink.publish(published(alert("a"), 2))
                assert sink.metrics.dropped == {"outbox_full": 1}
                await until(lambda: sink.metrics.n_out == 3, "all are acknowledged")
            await until(lambda: listener.retained()[f"{ROOT}/status"] == "offline", "goodbye")
            return listener.retained()

    told = asyncio.run(session())
    assert told[f"{ROOT}/door/state/motion"] == "OFF"
    assert json.loads(told[f"{ROOT}/door/open"])["events"] == []


def test_what_need_not_arrive_is_counted_when_nobody_is_there() -> None:
    async def session() -> MqttSink:
        sink = made(free_port())
        for content in (stats(), caption("partial"), health(), info()):
            await sink.publish(published(content))
        async with running(sink):
            pass
        return sink

    assert asyncio.run(session()).metrics.dropped == {"offline": 2}


def test_an_outage_is_logged_once_and_named(caplog: pytest.LogCaptureFixture) -> None:
    async def session() -> tuple[int, BrokerError]:
        port = free_port()
        sink = made(port)
        async with running(sink):
            with pytest.raises(BrokerError) as caught:
                await sink.ready(2)  # long enough for two attempts at least
        return port, caught.value

    port, error = asyncio.run(session())
    text = f"cannot reach the MQTT broker at {HOST}:{port}: [Errno 111] Connection refused"
    assert str(error) == text
    assert [record.getMessage() for record in caplog.records] == [
        f"{text}; trying again until it works"
    ]


def test_waiting_for_a_broker_that_says_nothing_yet() -> None:
    async def session() -> None:
        sink = made(free_port())
        with pytest.raises(BrokerError, match=r"no answer from the MQTT broker at 127.* in 0 s"):
            await sink.ready(0)

    asyncio.run(session())


def test_a_pause_between_attempts_ends_with_close_and_one_more_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mqtt_connection, "FIRST_RETRY_SECS", 1000)
    monkeypatch.setattr(mqtt_connection, "LAST_RETRY_SECS", 1000)

    async def session() -> dict[str, str]:
        port = free_port()
        sink = made(port)
        task = asyncio.create_task(sink.run())
        await sink.publish(published(event("e")))
        await until(lambda: sink.last_error is not None, "the first attempt has failed")
        async with EmbeddedBroker(port), listening(port) as listener, asyncio.timeout(10):
            await sink.close()
            await task
            assert sink.metrics.dropped == {}
            await until(lambda: listener.retained().get(f"{ROOT}/status") == "offline", "goodbye")
            return listener.retained()

    assert json.loads(asyncio.run(session())[f"{ROOT}/door/event"])["late"] is True


@pytest.mark.parametrize(
    ("n_failures", "longest_secs"), [(1, 0.5), (2, 1), (5, 8), (6, 15), (7, 15), (10_000, 15)]
)
def test_pauses_grow_to_the_longest_and_are_jittered(n_failures: int, longest_secs: float) -> None:
    pauses = {mqtt_connection.pause_secs(n_failures) for _ in range(100)}
    assert len(pauses) > 50
    assert longest_secs / 2 <= min(pauses) < max(pauses) <= longest_secs


def test_pauses_begin_anew_once_everything_is_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[int] = []

    def note(n_failures: int) -> float:
        failures.append(n_failures)
        return 0.001

    monkeypatch.setattr(mqtt, "pause_secs", note)

    async def session() -> None:
        port = free_port()
        sink = made(port)
        async with running(sink):
            await sink.publish(published(event("e")))
            await until(lambda: len(failures) >= 3, "three attempts have failed")
            async with EmbeddedBroker(port):
                await until(lambda: sink.metrics.n_out == 1, "the event is acknowledged")
                n_before = len(failures)
            await until(lambda: len(failures) >= n_before + 2, "two attempts have failed")
        assert failures[:n_before] == list(range(1, n_before + 1))
        assert failures[n_before : n_before + 2] == [1, 2]

    asyncio.run(session())


def test_a_connection_that_is_lost_while_closing_is_followed_by_one_more() -> None:
    async def session() -> Listener:
        async with stalled_broker() as stalled:
            sink = made(stalled.port)
            async with running(sink):
                await sink.ready(10)
                await sink.publish(published(event("e")))
                stalled.server.close()
                async with EmbeddedBroker(stalled.port) as broker, listening(broker.port) as heard:
                    closing = asyncio.create_task(sink.close())
                    await asyncio.sleep(0)
                    stalled.hang_up.set()
                    await closing
                    await until(lambda: f"{ROOT}/door/event" in heard.retained(), "the event")
                    assert sink.metrics.dropped == {}
                    return heard

    heard = asyncio.run(session()).retained()
    assert json.loads(heard[f"{ROOT}/door/event"])["late"] is True


def test_what_is_left_at_the_end_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def session() -> MqttSink:
        sink = made(free_port())
        async with running(sink):
            for seq in range(5):
                await sink.publish(published(event(f"e{seq}"), seq))
        with pytest.raises(SinkError, match="is closed"):
            await sink.publish(published(event("too late"), 5))
        return sink

    sink = asyncio.run(session())
    assert sink.metrics.dropped == {"shutdown": 5}
    [error] = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert error.startswith("5 messages are lost: ")


def test_a_stalled_broker_delays_neither_publish_nor_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def session() -> MqttSink:
        async with stalled_broker() as stalled:
            sink = made(stalled.port, outbox_size=20)
            async with running(sink):
                await sink.ready(10)
                for seq in range(30):
                    await sink.publish(published(event(f"e{seq}"), seq))
                for _ in range(mqtt.MAX_PASSING + 3):
                    await sink.publish(published(caption("partial")))
            return sink

    sink = asyncio.run(session())
    assert sink.metrics.dropped == {
        "outbox_full": 10,
        "backlog": 3,
        "offline": mqtt.MAX_PASSING,
        "shutdown": 20,
    }
    assert sink.metrics.n_in == 30 + mqtt.MAX_PASSING + 3
    assert "too slow for a goodbye" in caplog.text


def test_a_task_that_is_cancelled_leaves_the_will() -> None:
    async def session() -> None:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            sink = made(broker.port)
            task = asyncio.create_task(sink.run())
            await until(lambda: listener.retained() == {f"{ROOT}/status": "online"}, "online")
            task.cancel()
            await until(lambda: listener.retained() == {f"{ROOT}/status": "offline"}, "the will")
            assert task.cancelled()

    asyncio.run(session())


def test_runs_once() -> None:
    async def session() -> None:
        sink = made(free_port())
        async with running(sink):
            await asyncio.sleep(0)
            with pytest.raises(StateError):
                await sink.run()

    asyncio.run(session())


def test_close_may_come_before_run_has_begun() -> None:
    async def session() -> str:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            sink = made(broker.port)
            await sink.publish(published(event("e")))
            await sink.close()
            async with asyncio.timeout(10):
                await sink.run()
            await until(lambda: listener.retained().get(f"{ROOT}/status") == "offline", "goodbye")
            return listener.retained()[f"{ROOT}/door/event"]

    assert json.loads(asyncio.run(session()))["id"] == "e"


def test_close_before_run_is_bounded_as_well() -> None:
    async def session() -> MqttSink:
        async with stalled_broker() as stalled:
            sink = made(stalled.port)
            await sink.publish(published(event("e")))
            await sink.close()
            async with asyncio.timeout(8):  # less than a broker may take to answer
                await sink.run()
            return sink

    assert asyncio.run(session()).metrics.dropped == {"shutdown": 1}


def test_requests_come_through_the_embedded_broker_and_are_answered() -> None:
    async def session() -> MqttSink:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            kept = partial(say, broker.port, f"{ROOT}/request/restart", "kept", "-V", "311", "-r")
            await asyncio.to_thread(kept)
            sink = made(broker.port)
            async with running(sink), answering(sink) as requests:
                await sink.ready(10)
                for payload in ("t1", "t2"):
                    topic = f"{ROOT}/request/health"
                    await asyncio.to_thread(say, broker.port, topic, payload, "-V", "311")
                response = f"{ROOT}/response/health"
                await until(lambda: '"t2"' in listener.retained().get(response, ""), "both answers")
                assert requests == [Request("health", "t1"), Request("health", "t2")]
                answers = [one for one in listener.heard if one.topic == response]
                assert [one.retain for one in answers] == [False, False]
            return sink

    # amqtt sends it twice: also because the listener has subscribed to everything
    assert set(asyncio.run(session()).metrics.dropped) == {"request_retained"}


def test_a_request_that_comes_at_once_is_answered() -> None:
    """A broker may send what fits a subscription before the SUBACK (MQTT 5, section 3.8.4)."""
    is_answered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        topic = f"{ROOT}/request/info".encode()
        publish = b"\0" + bytes([len(topic)]) + topic + b"\0\7" + b"\0" + b"{}"  # packet id 7
        suback = await let_in(reader, writer)
        writer.write(b"\x32" + bytes([len(publish)]) + publish)
        assert (await read_packet(reader))[0] == PUBACK
        writer.write(suback)
        with suppress(EOFError):
            while True:
                kind, body = await read_packet(reader)
                if kind == PUBLISH:
                    n_topic = int.from_bytes(body[:2])
                    writer.write(b"\x40\x02" + body[2 + n_topic : 4 + n_topic])
                    if b"/response/info" in body:
                        is_answered.set()
        writer.close()

    async def session() -> MqttSink:
        async with await asyncio.start_server(serve, HOST, 0) as server:
            sink = made(server.sockets[0].getsockname()[1])
            async with answering(sink), running(sink), asyncio.timeout(10):
                await is_answered.wait()
            return sink

    assert asyncio.run(session()).metrics.dropped == {}


def test_half_a_surrogate_pair_does_not_end_the_connection() -> None:
    async def session() -> str:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            sink = made(broker.port)
            async with running(sink):
                await sink.ready(10)
                await sink.publish(published(response(transaction="a\ud800b")))
                topic = f"{ROOT}/response/health"
                await until(lambda: topic in listener.retained(), "the response")
            return listener.retained()[topic]

    assert json.loads(asyncio.run(session()))["transaction"] == "a?b"


def test_an_answer_to_nobody_is_counted() -> None:
    async def session() -> MqttSink:
        sink = made(free_port())
        async with running(sink):
            await sink.publish(published(response()))
        return sink

    assert asyncio.run(session()).metrics.dropped == {"offline": 1}


def test_what_waits_does_not_bring_a_removed_source_back() -> None:
    """The events of the source are still on their way when it goes."""
    n_events = 3 * mqtt.WINDOW

    async def session() -> list[Heard]:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            sink = made(broker.port)
            async with running(sink):
                await sink.publish(published(info(door=("motion",), yard=())))
                await sink.ready(10)
                for seq in range(n_events):
                    await sink.publish(published(event(f"e{seq}"), seq))
                await sink.publish(published(info(yard=())))
                await until(lambda: sink.metrics.n_out == n_events, "all are acknowledged")
            await until(lambda: listener.retained()[f"{ROOT}/status"] == "offline", "goodbye")
            return listener.heard

    heard = asyncio.run(session())
    last = {one.topic: one.payload for one in heard}
    assert topics(heard).count("door/event") == n_events
    assert last[f"{ROOT}/door/open"] == last[f"{ROOT}/door/state/motion"] == ""
    assert f"{ROOT}/door/status" not in last


def test_an_event_that_makes_room_leaves_no_trace_of_a_removed_source() -> None:
    async def session() -> dict[str, str]:
        async with EmbeddedBroker() as broker, listening(broker.port) as listener:
            sink = made(broker.port, outbox_size=1)
            async with running(sink):
                await sink.publish(published(info(door=("motion",))))
                await sink.ready(10)
                await until(lambda: bool(listener.heard), "the picture is written")
                await sink.publish(published(event("e"), 0))
                await sink.publish(published(info(yard=())))
                await sink.publish(published(alert("a"), 1))
                assert sink.metrics.dropped == {"outbox_full": 1}
            await until(lambda: listener.retained()[f"{ROOT}/status"] == "offline", "goodbye")
            return listener.retained()

    assert asyncio.run(session())[f"{ROOT}/door/state/motion"] == ""
