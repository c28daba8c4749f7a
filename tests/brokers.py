"""Real MQTT peers: a mosquitto of our own, and a client that listens to what a broker sends."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from sink_messages import published, response

from mmstream.messages import Request
from mmstream.sinks.mqtt import MqttSink
from mmstream.stages import Sink

HOST = "127.0.0.1"
PATIENCE_SECS = 15.0
"""How long anything here may take before the test fails; nothing waits so long when all is well."""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Look again and again until it holds; for things outside this process."""
    deadline = time.monotonic() + PATIENCE_SECS
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.01)


async def until(condition: Callable[[], bool], what: str) -> None:
    """The same from inside a loop, which goes on meanwhile."""
    deadline = time.monotonic() + PATIENCE_SECS
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {what}"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def answering(sink: MqttSink) -> AsyncIterator[list[Request]]:
    """As the runtime does it: takes every request and answers; gives those so far."""
    so_far: list[Request] = []

    async def answer() -> None:
        async for request in sink.requests():
            so_far.append(request)
            await sink.publish(published(response(request.verb, request.payload)))

    task = asyncio.create_task(answer())
    try:
        yield so_far
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def running(sink: Sink) -> AsyncIterator[None]:
    """As the runtime does it: `run` in a task of its own, `close` at the end, then the task."""
    task = asyncio.create_task(sink.run())
    try:
        yield
        async with asyncio.timeout(PATIENCE_SECS):
            await sink.close()
            await task
    finally:
        task.cancel()
        await asyncio.wait({task})


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True)
class Certificates:
    """A certificate authority, and what it has signed for 127.0.0.1, localhost and a client."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *, pass_phrase: str | None = None) -> Self:
        """Make all of them with the openssl command; the keys need the `pass_phrase`."""
        new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 "
        new_key += "-nodes" if pass_phrase is None else f"-passout pass:{pass_phrase}"
        _openssl(folder, f"req -x509 {new_key} -subj /CN=authority -keyout ca.key -out ca.crt")
        names = folder / "names"
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        for name in ("server", "client"):
            _openssl(folder, f"req {new_key} -subj /CN={name} -keyout {name}.key -out {name}.csr")
            _openssl(
                folder,
                f"x509 -req -days 2 -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial "
                f"-extfile names -out {name}.crt -passin pass:{pass_phrase}",
            )
        return cls(folder)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"


class Mosquitto:
    """A mosquitto with a generated configuration; keeps its port when it is started again."""

    def __init__(
        self,
        folder: Path,
        *,
        users: dict[str, str] | None = None,
        tls: Certificates | None = None,
        is_persistent: bool = False,
        extra: Sequence[str] = (),
    ) -> None:
        """`users` maps names to passwords; without it anybody may come in."""
        self.port = free_port()
        self._folder = folder
        self._extra = extra
        self._tls = tls
        self._is_persistent = is_persistent
        self._process: subprocess.Popen[bytes] | None = None
        self.let_in(users)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def log(self) -> str:
        return (self._folder / "mosquitto.log").read_text()

    def let_in(self, users: dict[str, str] | None) -> None:
        """From the next start on, only these may come in (None: anybody)."""
        self._passwords = None if users is None else self._folder / "passwords"
        for i, (name, password) in enumerate((users or {}).items()):
            flags = ["-b", "-c"] if i == 0 else ["-b"]
            command = ["mosquitto_passwd", *flags, str(self._passwords), name, password]
            subprocess.run(command, check=True, capture_output=True)

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = program_path("mosquitto")
        config = self._folder / "mosquitto.conf"
        config.write_text("\n".join(self._config()) + "\n")
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([program, "-c", config], stdout=log, stderr=log)
        wait_until(self._listens, "mosquitto listens")

    def kill(self) -> None:
        """Kill it without a warning (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP): connections stay and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def save(self) -> None:
        """Write sessions and retained messages to disk (SIGUSR1)."""
        assert self._process is not None
        database = self._folder / "mosquitto.db"
        database.unlink(missing_ok=True)
        self._process.send_signal(signal.SIGUSR1)
        wait_until(lambda: database.exists() and database.stat().st_size > 0, "mosquitto.db")

    def _config(self) -> list[str]:
        lines = [f"listener {self.port} {HOST}", "user root", "log_dest stderr", *self._extra]
        if self._passwords is None:
            lines.append("allow_anonymous true")
        else:
            lines += ["allow_anonymous false", f"password_file {self._passwords}"]
        if self._tls is not None:
            lines += [
                f"cafile {self._tls.ca}",
                f"certfile {self._tls.certificate('server')}",
                f"keyfile {self._tls.key('server')}",
                "require_certificate true",
            ]
        if self._is_persistent:
            lines += ["persistence true", f"persistence_location {self._folder}/"]
        return lines

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        with socket.socket() as sock:
            return sock.connect_ex((HOST, self.port)) == 0


@dataclass(frozen=True)
class Heard:
    """A message that a broker sent us."""

    topic: str
    payload: str
    retain: bool


@asynccontextmanager
async def listening(
    port: int, *, name: str | None = None, will: str | None = None
) -> AsyncIterator["Listener"]:
    """A `Listener`, from inside a loop."""
    listener = await asyncio.to_thread(Listener, port, name=name, will=will)
    try:
        yield listener
    finally:
        await asyncio.to_thread(listener.close)


def say(port: int, topic: str, payload: str | bytes, *flags: str) -> None:
    """Publish with mosquitto_pub, QoS 1; returns when the broker has it."""
    data = payload.encode() if isinstance(payload, str) else payload
    command = [program_path("mosquitto_pub"), "-h", HOST, "-p", str(port), "-q", "1", "-s"]
    subprocess.run(
        [*command, *flags, "-t", topic],
        input=data,
        check=True,
        capture_output=True,
        timeout=PATIENCE_SECS,
    )


class Listener:
    """A client on a thread of its own that keeps all that it hears, over reconnections too."""

    def __init__(self, port: int, *, name: str | None = None, will: str | None = None) -> None:
        """With a `name`, the broker keeps what comes while we are away (MQTT 5).

        With a topic as `will`, the broker says `gone` there, retained, if we are cut off.
        """
        self._heard: list[Heard] = []
        self._changed = threading.Condition()
        self._is_subscribed = threading.Event()
        protocol = MQTTProtocolVersion.MQTTv311 if name is None else MQTTProtocolVersion.MQTTv5
        self._client = Client(CallbackAPIVersion.VERSION2, name or "", protocol=protocol)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._is_subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        if will is not None:
            self._client.will_set(will, "gone", qos=1, retain=True)
        if name is None:
            self._client.connect(HOST, port)
        else:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
            properties.SessionExpiryInterval = 3600
            self._client.connect(HOST, port, clean_start=False, properties=properties)
        self._client.loop_start()
        assert self._is_subscribed.wait(PATIENCE_SECS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()  # noqa: SLF001 - paho leaves them to the garbage collector

    def cut(self) -> None:
        """Cut the cable."""
        self._client.on_connect = None
        sock = self._client.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)

    def say(self, topic: str, payload: str, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has it."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_SECS)

    @property
    def heard(self) -> list[Heard]:
        """All so far."""
        with self._changed:
            return list(self._heard)

    def retained(self) -> dict[str, str]:
        """The last payload of each topic so far."""
        return {message.topic: message.payload for message in self.heard}

    def wait_for(self, condition: Callable[[list[Heard]], bool]) -> list[Heard]:
        """Block until what was heard so far fulfils the condition; gives it."""
        with self._changed:
            is_fulfilled = self._changed.wait_for(lambda: condition(self._heard), PATIENCE_SECS)
            assert is_fulfilled, self._heard
            return list(self._heard)

    def _on_connect(
        self,
        client: Client,
        _userdata: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        assert not reason.is_failure
        client.subscribe("#", qos=1)

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        with self._changed:
            text = message.payload.decode(errors="replace")  # it may be a picture
            heard = Heard(message.topic, text, message.retain)
            self._heard.append(heard)
            self._changed.notify_all()


def program_path(name: str) -> str:
    """Where one of mosquitto's programs is; the test is skipped, or fails, where it is not."""
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        reason = f"{name} is not installed"
        if os.environ.get("MMSTREAM_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return program


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)
