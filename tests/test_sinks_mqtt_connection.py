import asyncio
import gc
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig
from brokers import HOST, Certificates, free_port
from pydantic import SecretStr, ValidationError

from mmstream.errors import BrokerError
from mmstream.metrics import StageMetrics
from mmstream.sinks import mqtt_connection
from mmstream.sinks.broker import EmbeddedBroker
from mmstream.sinks.inbox import Inbox
from mmstream.sinks.mqtt_connection import BrokerDoor
from mmstream.sinks.mqtt_settings import MqttSettings, TlsSettings
from mmstream.sinks.mqtt_topics import Packet

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

WILL = Packet("mmstream/pi/status", "offline", qos=1, retain=True)
PASSWORD = "sesame-4711"  # noqa: S105 - the tests look for it where it must not be


@pytest.fixture(autouse=True)
def _asyncio_has_nothing_to_complain_about(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    gc.collect()
    complaints = [r.getMessage() for r in caplog.get_records("call") if r.name == "asyncio"]
    assert [text for text in complaints if "Using selector" not in text] == []


def door(settings: MqttSettings) -> BrokerDoor:
    inbox = Inbox("mmstream/pi/request", StageMetrics("mqtt"))
    return BrokerDoor(settings, client_id="pi-3c0e5a81", will=WILL, inbox=inbox)


def refusal(settings: MqttSettings) -> str:
    """What the BrokerError says."""

    async def attempt() -> None:
        async with door(settings).connection():
            pass

    with pytest.raises(BrokerError) as caught:
        asyncio.run(attempt())
    gc.collect()  # whatever asyncio or a socket had to complain about comes out now
    return str(caught.value)


@asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[int]:
    """Somebody who listens on a port and is no MQTT broker."""
    clients: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients[writer] = asyncio.Event()
        with suppress(OSError, EOFError):
            await serve(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        clients[writer].set()

    server = await asyncio.start_server(keep, HOST, 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer, is_gone in clients.items():
            writer.transport.abort()
            await is_gone.wait()


async def hang_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(2)


async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(2)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(100):
        pass


def connack(code: int) -> Serve:
    """A broker that answers every CONNECT with the code, in the form of MQTT 3.1.1."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(bytes((0x20, 2, 0, code)))

    return serve


@pytest.mark.parametrize(
    ("serve", "text"),
    [
        (hang_up, "cannot reach {}: it hung up without an answer"),
        (speak_http, "cannot reach {}: it hung up without an answer"),
        (say_nothing, "cannot reach {}: Operation timed out"),
        (connack(5), "{} refused us: Not authorized (code 135)"),
        (connack(3), "{} refused us: Server unavailable (code 136)"),
    ],
    ids=["hang_up", "speak_http", "say_nothing", "not_authorized", "unavailable"],
)
@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_whoever_lets_us_down_is_named_with_the_reason(
    serve: Serve, text: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_connection, "CONNECT_SECS", 0.2)

    async def attempt() -> None:
        nonlocal text
        async with served(serve) as port:
            text = text.format(f"the MQTT broker at {HOST}:{port}")
            settings = MqttSettings.model_validate({"port": port, "protocol": protocol})
            async with asyncio.timeout(10), door(settings).connection():
                pass

    with pytest.raises(BrokerError) as caught:
        asyncio.run(attempt())
    gc.collect()
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("host", "reason"),
    [(HOST, "Connection refused"), ("nobody.invalid", "Name or service not known")],
)
def test_nobody_there(host: str, reason: str) -> None:
    port = free_port()
    text = refusal(MqttSettings(host=host, port=port))
    assert text.startswith(f"cannot reach the MQTT broker at {host}:{port}: [Errno")
    assert text.endswith(reason)


def test_falls_back_to_3_1_1_and_remembers_it(caplog: pytest.LogCaptureFixture) -> None:
    async def session() -> list[str]:
        protocols = []
        async with EmbeddedBroker() as broker:
            here = door(MqttSettings(port=broker.port))
            for _ in range(2):
                async with here.connection() as link:
                    protocols.append(link.protocol)
                    await link.send(Packet("a", "b", qos=1, retain=False))
        return protocols

    with caplog.at_level(logging.DEBUG):
        assert asyncio.run(session()) == ["MQTT 3.1.1", "MQTT 3.1.1"]
    assert [record.name for record in caplog.records if record.name != "asyncio"] == []


def test_does_not_try_again_what_was_refused() -> None:
    levels = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        level = (await reader.readexactly(9))[-1]
        levels.append(level)
        writer.write(bytes((0x20, 2, 0, 1 if level > 4 else 0)))
        while level == 4 and (await reader.read(100))[-2:] != b"\xe0\0":  # DISCONNECT
            pass

    async def session() -> None:
        async with served(serve) as port:
            here = door(MqttSettings(port=port))
            for _ in range(2):
                async with here.connection():
                    pass

    asyncio.run(session())
    assert levels == [5, 4, 4]


def test_a_protocol_that_was_asked_for_is_not_replaced() -> None:
    async def attempt() -> None:
        async with EmbeddedBroker() as broker:
            settings = MqttSettings(port=broker.port, protocol="5")
            async with door(settings).connection():
                pass

    with pytest.raises(BrokerError, match=r"refused us: Unsupported protocol version \(code 132\)"):
        asyncio.run(attempt())


def test_falls_back_from_a_bare_amqtt_which_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """amqtt 0.12 takes an MQTT 5 CONNECT with a will for a longer 3.1.1 one and waits for more."""
    monkeypatch.setattr(mqtt_connection, "CONNECT_SECS", 0.3)
    port = free_port()
    config = BrokerConfig(
        listeners={"default": ListenerConfig(bind=f"{HOST}:{port}")},
        plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    )

    async def session() -> str:
        broker = Broker(config)
        await broker.start()
        async with door(MqttSettings(port=port)).connection() as link:
            protocol = link.protocol
        await broker.shutdown()
        return protocol

    assert asyncio.run(session()) == "MQTT 3.1.1"


def test_a_connection_that_is_given_up_while_it_is_opened_leaves_nothing_behind() -> None:
    async def session() -> None:
        async with served(say_nothing) as port:
            for n_steps in (0, 1, 100):  # before, during and after the thread has connected
                task = asyncio.ensure_future(
                    door(MqttSettings(port=port, protocol="5")).connection().__aenter__()
                )
                for _ in range(n_steps):
                    await asyncio.sleep(0.001)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    asyncio.run(session())
    gc.collect()


def test_a_socket_that_opens_after_it_was_given_up_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_connect, is_left = threading.Event(), asyncio.Event()
    connect = socket.create_connection

    def connect_later(*args: Any, **kwargs: Any) -> socket.socket:  # noqa: ANN401 - as it came
        assert may_connect.wait(10)
        return connect(*args, **kwargs)

    async def notice_the_end(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        is_left.set()

    async def session() -> None:
        async with served(notice_the_end) as port:
            opening = door(MqttSettings(port=port, protocol="5")).connection().__aenter__()
            task = asyncio.ensure_future(opening)
            await asyncio.sleep(0.01)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            may_connect.set()
            async with asyncio.timeout(10):
                await is_left.wait()

    monkeypatch.setattr(socket, "create_connection", connect_later)
    asyncio.run(session())
    gc.collect()


def test_a_socket_that_is_closed_just_when_there_is_something_to_write_is_let_go() -> None:
    async def session() -> None:
        async with (
            EmbeddedBroker() as broker,
            door(MqttSettings(port=broker.port)).connection() as link,
        ):
            sending = asyncio.create_task(link.send(WILL))
            await asyncio.sleep(0)  # it has asked to be told when the socket takes more
            link._client._sock_close()  # noqa: SLF001 - as paho does when it reads the end
            sending.cancel()
            await asyncio.wait({sending})

    asyncio.run(session())


def test_files_of_tls_are_named_when_they_are_of_no_use(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    text = refusal(MqttSettings(tls=TlsSettings(ca=junk)))
    assert text.startswith(f"cannot use the certificate authorities in {junk}: ")
    own = certificates.certificate("client")
    for key in (junk, certificates.key("server"), None):
        text = refusal(MqttSettings(tls=TlsSettings(certificate=own, key=key)))
        assert text.startswith(f"cannot use the certificate {own} with its key: ")


def test_an_encrypted_key_is_refused_without_asking_on_the_terminal(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path, pass_phrase="secret")  # noqa: S106 - a test key
    own, key = certificates.certificate("client"), certificates.key("client")
    text = refusal(MqttSettings(tls=TlsSettings(certificate=own, key=key)))
    assert text.startswith(f"cannot use the certificate {own} with its key: ")


@pytest.mark.parametrize(
    ("raw", "key", "message"),
    [
        ({"host": "mqtt://u:sesame-4711@broker"}, "host", "give the host alone"),
        ({"host": "broker/x"}, "host", "give the host alone"),
        ({"host": "a..b"}, "host", "not a host name"),
        ({"host": ""}, "host", "at least 1 character"),
        ({"port": 0}, "port", "greater than or equal to 1"),
        ({"base": "a/#"}, "base", "match pattern"),
        ({"base": "/a"}, "base", "match pattern"),
        ({"base": "a/"}, "base", "match pattern"),
        ({"base": "$SYS"}, "base", "match pattern"),
        ({"password": PASSWORD}, "", "only with `username`"),
        ({"tls": {"ca": "/none/ca.pem"}}, "tls.ca", "not point to a file"),
        ({"tls": {"key": __file__}}, "tls", "only with `certificate`"),
        ({"tls": {"insecure": True}}, "tls.insecure", "not permitted"),
        ({"protocol": "3.1"}, "protocol", "'auto', '5' or '3.1.1'"),
        ({"keepalive_secs": 4}, "keepalive_secs", "greater than or equal to 5"),
    ],
)
def test_settings_refuse_what_cannot_work(raw: dict[str, object], key: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MqttSettings.model_validate(raw)
    [error] = caught.value.errors(include_input=False, include_context=False)
    assert ".".join(str(part) for part in error["loc"]) == key
    assert message in error["msg"]
    assert PASSWORD not in error["msg"]


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        ({}, "127.0.0.1:1883"),
        ({"tls": {}}, "127.0.0.1:8883"),
        ({"host": "broker.lan", "port": 2883, "tls": {}}, "broker.lan:2883"),
    ],
)
def test_the_port_follows_from_tls(raw: dict[str, object], address: str) -> None:
    assert MqttSettings.model_validate(raw).address == address


def test_a_password_does_not_show() -> None:
    settings = MqttSettings(username="pi", password=SecretStr(PASSWORD))
    assert PASSWORD not in f"{settings} {settings!r} {settings.model_dump()}"
