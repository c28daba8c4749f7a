import asyncio
import gc
import logging
import subprocess

import aiomqtt
import pytest
from brokers import HOST, Heard, listening, program_path, until

from mmstream.errors import BrokerError
from mmstream.sinks.broker import EmbeddedBroker


def test_serves_clients_and_keeps_what_is_retained() -> None:
    async def session() -> None:
        async with EmbeddedBroker() as broker, listening(broker.port) as early:
            await asyncio.to_thread(early.say, "a/kept", "1", retain=True)
            async with listening(broker.port) as late:
                await asyncio.to_thread(early.say, "a/live", "2")
                await until(lambda: len(late.retained()) == 2, "both are heard")
                # amqtt sends what is retained twice when another client has the same subscription
                assert set(late.heard) == {
                    Heard("a/kept", "1", retain=True),
                    Heard("a/live", "2", retain=False),
                }

    asyncio.run(session())


def test_mosquitto_sub_can_watch() -> None:
    program = program_path("mosquitto_sub")

    async def session() -> bytes:
        async with EmbeddedBroker() as broker, listening(broker.port) as client:
            await asyncio.to_thread(client.say, "mmstream/pi/status", "online", retain=True)
            watching = await asyncio.create_subprocess_exec(
                *(program, "-h", HOST, "-p", str(broker.port), "-t", "mmstream/#", "-v", "-C", "1"),
                stdout=subprocess.PIPE,
            )
            out, _ = await asyncio.wait_for(watching.communicate(), 20)
            return out

    assert asyncio.run(session()) == b"mmstream/pi/status online\n"


def test_the_will_of_a_client_that_dies_is_published_and_kept() -> None:
    async def session() -> None:
        async with EmbeddedBroker() as broker, listening(broker.port, will="pi/status") as client:
            client.cut()
            async with listening(broker.port) as witness:
                await until(lambda: witness.retained() == {"pi/status": "gone"}, "the will")

    asyncio.run(session())


def test_refuses_mqtt_5_as_the_standard_says() -> None:
    async def session() -> None:
        async with EmbeddedBroker() as broker:
            will = aiomqtt.Will("pi/status", "offline")
            protocol = aiomqtt.ProtocolVersion.V5
            async with aiomqtt.Client(HOST, broker.port, protocol=protocol, will=will):
                pass

    with pytest.raises(aiomqtt.MqttCodeError, match=r"\[code:132\] Unsupported protocol version"):
        asyncio.run(session())


def test_strangers_do_no_harm_and_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def session() -> None:
        async with EmbeddedBroker() as broker:
            for opening in (b"", b"\x10", b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\xff" * 9):
                _, writer = await asyncio.open_connection(HOST, broker.port)
                writer.write(opening)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
            _, silent = await asyncio.open_connection(HOST, broker.port)
            async with listening(broker.port) as client:
                await asyncio.to_thread(client.say, "a", "b")
        silent.close()

    with caplog.at_level(logging.DEBUG):
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        asyncio.run(session())
        gc.collect()
    assert caplog.records == []


def test_ends_with_clients_still_there_and_leaves_no_task() -> None:
    async def session() -> None:
        async with EmbeddedBroker() as broker:
            reader, writer = await asyncio.open_connection(HOST, broker.port)
            writer.write(bytes.fromhex("10 0d 0004 4d515454 04 02 003c 0001 61"))  # CONNECT as `a`
            assert await reader.readexactly(4) == b"\x20\x02\0\0"
        assert await reader.read() == b""
        await until(lambda: len(asyncio.all_tasks()) == 1, "no task is left")
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, broker.port)

    asyncio.run(session())


def test_a_port_that_is_taken_is_named() -> None:
    async def session() -> None:
        async with EmbeddedBroker() as broker:
            with pytest.raises(BrokerError) as caught:
                async with EmbeddedBroker(broker.port):
                    pass
            assert f"cannot listen on {HOST}:{broker.port}: " in str(caught.value)
            assert "in use" in str(caught.value)
        async with EmbeddedBroker(broker.port) as again:
            assert again.port == broker.port

    asyncio.run(session())
