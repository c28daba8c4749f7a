"""Asked over HTTP, as Prometheus and supervisors do."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from sink_messages import event, published
from web_looks import run_look, source, worker

from mmstream.errors import BrokerError, ConfigError
from mmstream.web.server import MAX_CONNECTIONS, WebServer
from mmstream.web.settings import WebSettings

TOKEN = "a-token-of-22-letters!"  # noqa: S105 - of these tests


@dataclass(frozen=True)
class Answer:
    status: int
    type: str | None
    body: str


@dataclass(frozen=True)
class Broker:
    connected: bool
    last_error: BrokerError | None


@dataclass(frozen=True)
class Store:
    n_waiting: int = 3
    used_bytes: int = 4096
    max_bytes: int = 10**6
    problem: str | None = None


@asynccontextmanager
async def serving(server: WebServer) -> AsyncIterator[WebServer]:
    running = asyncio.create_task(server.run())
    try:
        await server.ready(1)
        yield server
    finally:
        await server.close()
        await running


def here(*, token: str | None = None) -> WebServer:
    settings = WebSettings.model_validate({"port": 0, "token": token})
    server = WebServer(settings)
    server.watch(lambda: run_look(source(), source("yard", "offline")))
    return server


async def ask(server: WebServer, path: str, **headers: str) -> Answer:
    return await asyncio.to_thread(_ask, server.url, path, headers)


def _ask(url: str, path: str, headers: dict[str, str]) -> Answer:
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port or 0, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.getheader("content-type"), answer.read().decode())
    finally:
        connection.close()


def test_metrics_and_health() -> None:
    async def run() -> None:
        async with serving(here()) as server:
            await server.publish(published(event("e1")))
            metrics = await ask(server, "/metrics")
            assert metrics.status == 200
            assert (metrics.type or "").startswith("text/plain; version=0.0.4")
            assert 'mmstream_open_events{label="motion",source="door"} 1.0' in metrics.body
            alive, ready = await ask(server, "/healthz"), await ask(server, "/readyz")
            assert (alive.status, ready.status) == (200, 503)
            assert alive.type == "application/json"
            assert alive.body == ready.body
            report = json.loads(alive.body)
            assert report["sources"]["yard"]["state"] == "offline"
            assert report["sources"]["door"]["state"] == "online"

    asyncio.run(run())


def test_ready_when_all_is_there_and_not_alive_when_the_worker_is_stuck() -> None:
    async def run() -> None:
        server = here()
        async with serving(server):
            server.watch(lambda: run_look(source()))
            assert (await ask(server, "/readyz")).status == 200
            server.watch(lambda: run_look(source(), at_work=worker(busy_secs=3600)))
            alive, ready = await ask(server, "/healthz"), await ask(server, "/readyz")
            assert (alive.status, ready.status) == (503, 503)

    asyncio.run(run())


def test_broker_and_store_are_looked_at_when_asked() -> None:
    async def run() -> None:
        server = here()
        broker = Broker(connected=False, last_error=BrokerError("no route to pi:1883"))
        server.watch(lambda: run_look(source()), broker=broker, store=Store())
        async with serving(server):
            report = json.loads((await ask(server, "/healthz")).body)
        assert report["broker"] == {"connected": False, "problem": "no route to pi:1883"}
        assert report["store"]["waiting"] == 3

    asyncio.run(run())


def test_before_anything_runs() -> None:
    async def run() -> None:
        async with serving(WebServer(WebSettings(port=0))) as server:
            for path in ("/metrics", "/healthz", "/readyz"):
                assert (await ask(server, path)).status == 503

    asyncio.run(run())


def test_who_does_not_know_the_token_learns_one_word() -> None:
    async def run() -> None:
        async with serving(here(token=TOKEN)) as server:
            assert (await ask(server, "/metrics")).status == 401
            assert (await ask(server, "/metrics", Authorization=f"Bearer {TOKEN}x")).status == 401
            assert (await ask(server, "/metrics", Authorization=TOKEN)).status == 401
            assert json.loads((await ask(server, "/healthz")).body) == {"status": "degraded"}
            known = {"Authorization": f"Bearer {TOKEN}"}
            assert (await ask(server, "/metrics", **known)).status == 200
            assert "door" in (await ask(server, "/readyz", **known)).body

    asyncio.run(run())


def test_a_page_with_a_name_of_its_own_reads_nothing() -> None:
    async def run() -> None:
        async with serving(here()) as server:
            evil = ("evil.example", "evil.example:8642", "127.0.0.1.evil.example", "127.0.0.1@evil")
            for host in (*evil, "\xe9vil", "[::1", "", "evil_.example"):
                assert (await ask(server, "/metrics", Host=host)).status == 403
                assert "door" not in (await ask(server, "/healthz", Host=host)).body
            for host in ("localhost:8642", "127.0.0.1", "[::1]:8642", "LOCALHOST"):
                assert (await ask(server, "/metrics", Host=host)).status == 200

    asyncio.run(run())


def test_a_port_in_use_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} is in use") as refused:
            WebServer(WebSettings(port=port))
    assert "--no-web" in str(refused.value)


def test_an_address_of_another_machine_is_told_in_words() -> None:
    settings = WebSettings.model_validate({"host": "192.0.2.1", "token": TOKEN})
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1.* no address of this machine"):
        WebServer(settings)


def test_a_name_that_nobody_knows_is_told_in_words() -> None:
    settings = WebSettings.model_validate({"host": "nosuch.invalid", "token": TOKEN})
    with pytest.raises(ConfigError, match=r"nosuch\.invalid"):
        WebServer(settings)


def test_signals_stay_with_the_runtime() -> None:
    async def run() -> None:
        before = signal.getsignal(signal.SIGTERM)
        async with serving(here()) as server:
            await ask(server, "/healthz")
            assert signal.getsignal(signal.SIGTERM) is before

    asyncio.run(run())


def test_clients_that_stay_keep_nobody_from_an_answer() -> None:
    async def run() -> None:
        async with asyncio.timeout(10), serving(here()) as server:
            place = urlsplit(server.url)
            idle = []
            for i in range(MAX_CONNECTIONS + 5):
                idle.append(await asyncio.open_connection(place.hostname, place.port))
                idle[-1][1].write(b"GET /healthz HTTP/1.1\r\nX" if i % 2 else b"")
            assert (await ask(server, "/healthz")).status == 200
            first, last = idle[0][0], idle[-1][0]
            with suppress(ConnectionError):
                assert await first.read() == b""  # cut
            assert not last.at_eof()
            assert (await ask(server, "/healthz")).status == 200
            for _, writer in idle:
                writer.close()

    asyncio.run(run())


def test_a_client_that_stays_does_not_hold_up_the_end() -> None:
    async def run() -> None:
        async with asyncio.timeout(5):
            async with serving(here()) as server:
                place = urlsplit(server.url)
                idle = await asyncio.open_connection(place.hostname, place.port)
                kept = await asyncio.open_connection(place.hostname, place.port)
                kept[1].write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await kept[0].readuntil(b"\r\n\r\n")
            for _, writer in (idle, kept):
                writer.close()

    asyncio.run(run())
