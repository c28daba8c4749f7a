"""The HTTP server of a run, as a sink: the runtime starts and ends it, and it sees each message."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mmstream.errors import ConfigError
from mmstream.messages import Published
from mmstream.metrics import StageMetrics
from mmstream.web.app import Guard, make_app
from mmstream.web.look import (
    Broker,
    BrokerLook,
    EventCounts,
    Look,
    RunLook,
    Store,
    StoreLook,
)
from mmstream.web.settings import WebSettings

GOODBYE_SECS: Final = 1
"""How long answers that are under way may take once we close."""
MAX_CONNECTIONS: Final = 64
"""One more, and the oldest is cut: whoever stays must not keep a supervisor from its answer."""

_log = logging.getLogger(__name__)


class WebServer:
    """Serves `/metrics`, `/healthz` and `/readyz` (`stages.Sink`)."""

    name = "web"

    def __init__(self, settings: WebSettings) -> None:
        """Listen; answers come once it runs.

        Raises:
            ConfigError: the port is in use, or the address is not this machine's; the text says so.
        """
        self.metrics = StageMetrics(self.name)
        self._run: Callable[[], RunLook] | None = None
        self._broker: Broker | None = None
        self._store: Store | None = None
        self._counts = EventCounts()
        self._socket = listen(settings)
        app = make_app(Guard(settings.token), self._look)
        config = uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,  # its messages go where ours go
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS + 1,  # more answers under way are refused
            timeout_graceful_shutdown=GOODBYE_SECS,
        )
        config.load()  # imports, which must not happen on the loop
        self._server = _Server(config)

    @property
    def url(self) -> str:
        """Where it can be asked."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def watch(
        self,
        run: Callable[[], RunLook],
        *,
        broker: Broker | None = None,
        store: Store | None = None,
    ) -> None:
        """Show this; all are asked on the event loop and must give what they know at once."""
        self._run, self._broker, self._store = run, broker, store

    async def publish(self, message: Published) -> None:
        """Count an event."""
        self.metrics.n_in += 1
        self._counts.see(message.content)
        self.metrics.n_out += 1

    async def ready(self, timeout_secs: float) -> None:
        """At once: it has listened since it was made."""

    async def run(self) -> None:
        """Answer until `close`."""
        _log.info("metrics and health are served at %s", self.url)
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._socket.close()

    async def close(self) -> None:
        """Let `run` return, a fraction of a second later."""
        self._server.should_exit = True

    def _look(self) -> Look | None:
        if self._run is None:
            return None
        broker = None if self._broker is None else _broker_look(self._broker)
        store = None if self._store is None else _store_look(self._store)
        return Look(self._run(), broker, store, self._counts.counts())


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the runtime's."""
        yield


class _Connection(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in H11Protocol
        """Take it in; the oldest goes where there are too many."""
        super().connection_made(transport)
        self.made_at_secs = self.loop.time()
        ours = [one for one in self.connections if isinstance(one, _Connection)]
        if len(ours) > MAX_CONNECTIONS:
            min(ours, key=lambda one: one.made_at_secs).transport.abort()


def _broker_look(broker: Broker) -> BrokerLook:
    error = None if broker.connected else broker.last_error
    return BrokerLook(broker.connected, None if error is None else str(error))


def _store_look(store: Store) -> StoreLook:
    return StoreLook(store.n_waiting, store.used_bytes, store.max_bytes, store.problem)


def listen(settings: WebSettings) -> socket.socket:
    """A socket that listens where the settings say.

    Raises:
        ConfigError: it cannot; the text says why and what is allowed.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        msg = f"web.host: {settings.host}: {error.strerror}; allowed: an address of this machine"
        raise ConfigError(msg) from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen()
        made.setblocking(False)  # noqa: FBT003 - its signature
    except OSError as error:
        made.close()
        raise ConfigError(_refusal(where, error)) from None
    return made


def _refusal(where: str, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            why = "is in use by another program; allowed: another web.port, or --no-web"
        case errno.EADDRNOTAVAIL:
            why = "is no address of this machine; allowed: another web.host"
        case _:
            why = f"cannot be listened at: {os.strerror(error.errno or 0)}; allowed: another port"
    return f"web: {where} {why}"
