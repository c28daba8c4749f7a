"""One connection to an MQTT broker: opened, watched and closed; never used twice.

What aiomqtt leaves to us: it neither reconnects nor falls back to an older protocol; `publish`
waits out its whole timeout when the broker dies; a broker that hangs up before it has answered
is noticed only by timeout; what a broker refuses to take (an MQTT 5 reason code) counts as done;
what comes in is kept without bound, or dropped without a count; it may watch a socket that was
closed in the meantime; and a `Client` that is used again may send what the last connection had
given up.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import SystemRandom
from typing import Final

import aiomqtt
from aiomqtt import ProtocolVersion
from aiomqtt.types import PahoSocket
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from mmstream.errors import BrokerError
from mmstream.sinks.inbox import Inbox
from mmstream.sinks.mqtt_settings import MqttSettings, TlsSettings
from mmstream.sinks.mqtt_topics import Packet

CONNECT_SECS: Final = 5.0
"""How long a broker may take to let us in."""
ANSWER_SECS: Final = 10.0
"""A broker that acknowledges nothing for so long is taken for dead."""
ABORT_SECS: Final = 0.5
"""How long an aborted connection may take to be torn down."""
FIRST_RETRY_SECS: Final = 0.5
LAST_RETRY_SECS: Final = 15.0
"""The pause between attempts doubles from the first to the last, and is jittered down to half."""
HEADER_BYTES: Final = 10
"""Around topic and payload of a message: at most a byte, four of length, two each of the topic's
length and the identifier, one of properties."""
UNSPECIFIED: Final = 0x80
UNSUPPORTED_PROTOCOL: Final = 0x84
"""MQTT 5, section 2.4: reason codes; paho makes them of the codes of MQTT 3.1.1 too."""

_PROTOCOLS: Final[dict[str, tuple[ProtocolVersion, ...]]] = {
    "auto": (ProtocolVersion.V5, ProtocolVersion.V311),
    "5": (ProtocolVersion.V5,),
    "3.1.1": (ProtocolVersion.V311,),
}
_jitter = SystemRandom()


class BrokerDoor:
    """Opens connections to one broker and remembers which protocol it speaks."""

    def __init__(
        self, settings: MqttSettings, *, client_id: str, will: Packet, inbox: Inbox
    ) -> None:
        """Nothing is opened yet; what comes in over its connections goes to the `inbox`."""
        self._settings = settings
        self._link = partial(Link, settings, client_id=client_id, will=will, inbox=inbox)
        self._protocols = _PROTOCOLS[settings.protocol]

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Link"]:
        """A new connection; closed politely, or aborted when the body raises.

        Raises:
            BrokerError: it cannot be opened, or is lost; the text says why, without credentials.
        """
        link = await self._opened()
        try:
            yield link
            await link.close()
        except aiomqtt.MqttError as error:
            msg = f"lost the MQTT broker at {self._settings.address}: {error}"
            raise BrokerError(msg) from None
        finally:
            await link.abort()

    async def _opened(self) -> "Link":
        tls = None
        if self._settings.tls is not None:
            tls = await asyncio.to_thread(_tls_context, self._settings.tls)
        *newer, oldest = self._protocols
        for protocol in newer:
            with suppress(_TooNewError):
                return await self._opened_as(protocol, tls)
        link = await self._opened_as(oldest, tls)
        self._protocols = (oldest,)
        return link

    async def _opened_as(self, protocol: ProtocolVersion, tls: ssl.SSLContext | None) -> "Link":
        link = self._link(protocol, tls)
        try:
            await link.open()
        except aiomqtt.MqttCodeError as error:
            code = error.rc.value if isinstance(error.rc, ReasonCode) else error.rc
            msg = (
                f"the MQTT broker at {self._settings.address} refused us: {error.rc} (code {code})"
            )
            kind = _TooNewError if code == UNSUPPORTED_PROTOCOL else BrokerError
            raise kind(msg) from None
        except aiomqtt.MqttError as error:
            msg = f"cannot reach the MQTT broker at {self._settings.address}: {error}"
            kind = _TooNewError if link.is_reached else BrokerError
            raise kind(msg) from None
        return link


class Link(aiomqtt.Client):
    """An aiomqtt client that says at once when its connection is gone, and what was refused.

    aiomqtt has no public way to learn either; the tests notice when its insides change.
    """

    def __init__(
        self,
        settings: MqttSettings,
        protocol: ProtocolVersion,
        tls: ssl.SSLContext | None,
        *,
        client_id: str,
        will: Packet,
        inbox: Inbox,
    ) -> None:
        """Not connected yet; needs a running loop."""
        self.n_refused = 0
        """Messages that the broker acknowledged with a failure: it did not take them."""
        self.refusal = ""
        """Why the last of them was refused."""
        self._max_bytes: int | None = None
        """The longest packet that the broker takes, as far as it says so (MQTT 5)."""
        self.protocol = "MQTT 5" if protocol is ProtocolVersion.V5 else "MQTT 3.1.1"
        self.is_reached = False
        """Whether somebody has let us in as far as TCP and TLS go."""
        self._inbox = inbox
        self._last_words = _LastWords()
        self._is_aborted = False
        self._gone = asyncio.Event()
        password = settings.password
        super().__init__(
            settings.host,
            settings.port_number,
            username=settings.username,
            password=password.get_secret_value() if password is not None else None,
            logger=self._last_words.logger(),
            identifier=client_id,
            protocol=protocol,
            will=aiomqtt.Will(will.topic, will.payload, will.qos, will.retain),
            timeout=CONNECT_SECS,
            keepalive=_ping_after_secs(settings.keepalive_secs),
            tls_context=tls,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )

    async def open(self) -> None:
        """Connect.

        Raises:
            aiomqtt.MqttError: the broker is out of reach, or refused.
        """
        try:
            await self.__aenter__()
        except BaseException:
            await self.abort()
            raise
        self.timeout = ANSWER_SECS

    async def close(self) -> None:
        """Take leave, so that the broker does not publish the will.

        Raises:
            aiomqtt.MqttError: the connection is gone already.
        """
        await self.__aexit__(None, None, None)

    async def listen(self, topics: Sequence[str]) -> dict[str, str]:
        """Subscribe to these together, QoS 1; gives those that the broker refuses, and why.

        Raises:
            aiomqtt.MqttError: the connection is gone, or no answer came.
        """
        answers = await self.subscribe([(topic, 1) for topic in topics])
        pairs = zip(topics, answers, strict=False)
        return {t: str(a) for t, a in pairs if isinstance(a, ReasonCode) and a.is_failure}

    async def send(self, packet: Packet) -> None:
        """Publish; returns when the broker has acknowledged it (QoS 1) or it is sent (QoS 0).

        Raises:
            aiomqtt.MqttError: it may or may not have arrived.
        """
        payload = packet.encoded()
        n_bytes = len(payload) + len(packet.topic.encode()) + HEADER_BYTES
        if self._max_bytes is not None and n_bytes > self._max_bytes:
            # sent all the same, it would cost the connection, and the next one too
            self.n_refused += 1
            self.refusal = f"{packet.topic} has {n_bytes} bytes, it takes {self._max_bytes}"
            return
        await self.publish(packet.topic, payload, packet.qos, packet.retain)

    async def send_all(self, packets: tuple[Packet, ...]) -> None:
        """In order, without waiting for one acknowledgement before the next is sent.

        Raises:
            BaseExceptionGroup: of what `send` raises.
        """
        async with asyncio.TaskGroup() as group:
            for packet in packets:
                group.create_task(self.send(packet))

    async def watch(self) -> None:
        """Wait until the connection is gone; aiomqtt's own queue of messages stays empty.

        Raises:
            aiomqtt.MqttError: always; the text says why.
        """
        try:
            async for _ in self.messages:
                pass
        except aiomqtt.MqttError as error:
            raise aiomqtt.MqttError(_broken(error.__cause__)) from None

    async def abort(self) -> None:
        """Hang up without a word, so that the broker publishes the will; nothing when closed."""
        self._is_aborted = True
        sock = self._client.socket()
        if isinstance(sock, socket.socket):
            with suppress(OSError):  # the other side was faster
                sock.shutdown(socket.SHUT_RDWR)  # paho reads the end and tears the rest down
            with suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), ABORT_SECS)
        if self._disconnected.done():
            self._disconnected.exception()  # seen: asyncio need not complain about it

    def _on_socket_open(self, client: PahoClient, userdata: object, sock: PahoSocket) -> None:
        if self._is_aborted:  # given up while the thread was still connecting
            sock.close()
            msg = "no longer wanted"
            raise ConnectionAbortedError(msg)
        self.is_reached = True
        super()._on_socket_open(client, userdata, sock)

    def _on_socket_register_write(
        self, _client: PahoClient, _userdata: object, sock: PahoSocket
    ) -> None:
        self._loop.call_soon_threadsafe(self._write_when_possible, sock)

    def _write_when_possible(self, sock: PahoSocket) -> None:
        # aiomqtt does not look: the number may be another's
        is_open = self._client.socket() is sock
        if is_open and sock is not None:
            self._loop.add_writer(sock.fileno(), self._client.loop_write)

    def _on_connect(
        self,
        client: PahoClient,
        userdata: object,
        flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self._max_bytes = getattr(properties, "MaximumPacketSize", None)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: PahoClient,
        userdata: object,
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self._gone.set()
        if self._is_aborted:  # nobody waits any more, and a future may have been cancelled
            return
        if not self._connected.done():
            self._connected.set_exception(_HungUpError(self._last_words.text))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_message(self, _client: PahoClient, _userdata: object, message: MQTTMessage) -> None:
        self._inbox.put(message.topic, bytes(message.payload), is_retained=message.retain)

    def _on_publish(
        self,
        client: PahoClient,
        userdata: object,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        if reason_code.is_failure:
            self.n_refused += 1
            self.refusal = f"{reason_code}; may {self.identifier} publish?"
        super()._on_publish(client, userdata, mid, reason_code, properties)


class _TooNewError(BrokerError):
    """An older protocol is worth a try: the broker refused this one, hung up or said nothing.

    amqtt says nothing: it waits for the rest of what it takes for an MQTT 3.1.1 packet.
    """


class _HungUpError(aiomqtt.MqttError):
    def __init__(self, last_words: str) -> None:
        why = f" ({last_words})" if last_words else ""
        super().__init__(f"it hung up without an answer{why}; is `tls` as it wants it?")


class _LastWords(logging.Handler):
    """Keeps paho's last complaint for our own messages; nothing of it reaches the user's log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()

    def logger(self) -> logging.Logger:
        logger = logging.Logger(__name__)  # noqa: LOG001 - on purpose outside the tree of loggers
        logger.addHandler(self)
        return logger


def first(errors: BaseExceptionGroup[aiomqtt.MqttError]) -> aiomqtt.MqttError:
    """The first error of a group of groups."""
    error = errors.exceptions[0]
    return first(error) if isinstance(error, BaseExceptionGroup) else error


def _broken(cause: BaseException | None) -> str:
    match cause:
        case aiomqtt.MqttCodeError(rc=ReasonCode() as reason) if reason.value != UNSPECIFIED:
            return f"{reason} (code {reason.value})"
        case _:
            return "the connection broke"


def _ping_after_secs(keepalive_secs: int) -> int:
    """What paho must be told, so that a half-open connection is found within 1.5 times that.

    It pings after so long a silence, waits as long again for the answer, and looks once a second.
    """
    return (3 * keepalive_secs - 4) // 4


def _tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """Reads files, anew for each connection: certificates are renewed while we run."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:
        msg = f"cannot use the certificate authorities in {tls.ca}: {error}"
        raise BrokerError(msg) from None
    if tls.certificate is not None:
        try:
            # an empty pass phrase, so that OpenSSL does not ask for one on the terminal
            context.load_cert_chain(tls.certificate, tls.key, password="")
        except OSError as error:
            msg = f"cannot use the certificate {tls.certificate} with its key: {error}"
            raise BrokerError(msg) from None
    return context


def pause_secs(n_failures: int) -> float:
    """How long to wait after so many failures in a row."""
    longest_secs = min(LAST_RETRY_SECS, FIRST_RETRY_SECS * 2.0 ** min(n_failures - 1, 10))
    return longest_secs * _jitter.uniform(0.5, 1)
