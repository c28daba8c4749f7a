"""A small MQTT broker inside this process, for the demo and for those who have none.

It is amqtt: MQTT 3.1.1 only, nothing is kept on disk, and whoever is on this machine may connect.
For anything that lasts, run mosquitto.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Final, Self

from amqtt.adapters import StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType

from mmstream.errors import BrokerError

HOST: Final = "127.0.0.1"

CLOSE_SECS: Final = 2.0
"""How long the end of a client may take."""
NEWEST_LEVEL: Final = 4
"""The protocol level of MQTT 3.1.1."""
MAX_HEADER: Final = 5
"""Bytes of the longest fixed header."""
TOO_NEW: Final = bytes.fromhex("20 03 00 84 00")
"""MQTT 5, section 3.2: CONNACK, unsupported protocol version."""

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_LISTENER: Final = "default"
_ANYBODY: Final = "amqtt.plugins.authentication.AnonymousAuthPlugin"


class EmbeddedBroker:
    """Serves on 127.0.0.1 while its context is open: `async with EmbeddedBroker() as broker`."""

    def __init__(self, port: int = 0) -> None:
        """Nothing is opened yet; port 0 takes a free one."""
        self.port = port
        """Where it listens, once its context is open."""
        self._clients: set[asyncio.StreamWriter] = set()
        self._all_left = asyncio.Event()
        self._all_left.set()
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the port.

        Raises:
            BrokerError: somebody else has it; the text names it.
        """
        for library in ("amqtt", "transitions"):  # they log every client that comes and goes
            logging.getLogger(library).setLevel(logging.CRITICAL + 1)
        broker = Broker(
            BrokerConfig(
                listeners={_LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)},
                plugins={_ANYBODY: {"allow_anonymous": True}},
            )
        )
        async with AsyncExitStack() as opening:
            await broker.start()
            opening.push_async_callback(self._hang_up)
            opening.push_async_callback(broker.shutdown)
            server = await self._listen(partial(self._serve, broker))
            opening.callback(server.close)
            self.port = int(server.sockets[0].getsockname()[1])
            self._resources = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the port back and hang up on everybody."""
        await self._resources.aclose()

    async def _listen(self, serve: _Serve) -> asyncio.Server:
        """The listener is ours, not amqtt's, so that we learn which port 0 has become."""
        try:
            return await asyncio.start_server(serve, HOST, self.port)
        except OSError as error:
            msg = f"the embedded MQTT broker cannot listen on {HOST}:{self.port}: {error.strerror}"
            raise BrokerError(msg) from None

    async def _serve(
        self, broker: Broker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One client, until it leaves; amqtt forgets to close those that speak no MQTT."""
        self._clients.add(writer)
        self._all_left.clear()
        try:
            with suppress(OSError, EOFError):  # it left first
                opening = await _read_opening(reader)
                if opening[-1] > NEWEST_LEVEL:
                    writer.write(TOO_NEW)
                    return
                await broker.external_connected(
                    _Replaying(reader, opening), StreamWriterAdapter(writer), _LISTENER
                )
        finally:
            writer.close()
            self._clients.discard(writer)
            if not self._clients:
                self._all_left.set()

    async def _hang_up(self) -> None:
        for writer in self._clients:
            writer.transport.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECS):
                await self._all_left.wait()


async def _read_opening(reader: asyncio.StreamReader) -> bytes:
    """The start of a CONNECT packet up to its protocol level (MQTT 5, 3.1.1: section 3.1).

    amqtt takes an MQTT 5 packet apart as if it were 3.1.1 and may wait for ever for its rest.
    """
    opening = await reader.readexactly(2)
    while opening[-1] & 0x80 and len(opening) < MAX_HEADER:  # the remaining length goes on
        opening += await reader.readexactly(1)
    return opening + await reader.readexactly(len(b"\0\4MQTT") + 1)


class _Replaying:
    """What amqtt reads from: first what was read already, then the rest."""

    def __init__(self, reader: asyncio.StreamReader, opening: bytes) -> None:
        self._reader = reader
        self._opening = opening

    async def read(self, n: int) -> bytes:
        replayed, self._opening = self._opening[:n], self._opening[n:]
        return replayed + await self._reader.readexactly(n - len(replayed))

    def feed_eof(self) -> None:
        self._reader.feed_eof()
