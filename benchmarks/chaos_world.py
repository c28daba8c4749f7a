"""What `mmstream bench chaos` does its worst to: a broker, the program, and a subscriber.

Each case has a mosquitto of its own that writes every change to disk, since by default it forgets
at a SIGKILL what it has acknowledged and not passed on.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import threading
from asyncio.subprocess import PIPE, STDOUT, Process
from contextlib import suppress
from pathlib import Path
from typing import Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import mmstream
from mmstream.benchmarks.chaos_picture import Line
from mmstream.benchmarks.chaos_proxy import HOST
from mmstream.clock import SystemClock
from mmstream.errors import BrokerError

NODE: Final = "chaos"
ROOT: Final = f"mmstream/{NODE}/"
PASSWORD: Final = "in"  # noqa: S105 - of a broker that lives for a minute
OTHER_PASSWORD: Final = "out"  # noqa: S105
OBSERVER: Final = "observer"
SOURCES: Final = ("a", "b", "c", "d")
START_SECS: Final = 10.0
"""How long mosquitto may take to listen, or a subscriber to be heard."""
STOP_SECS: Final = 10.0
LINE_BYTES: Final = 1 << 20
NARROW: Final = dict.fromkeys(
    (
        "presence",
        "person",
        "face",
        "speech",
        "alarm",
        "condition",
        "person_speaking",
        "impact",
        "avp",
    ),
    False,
)
SHORT_EVENTS: Final = {"min_off_secs": 0.3, "update_secs": 0.1}

_CLOCK: Final = SystemClock()


def configuration(port: int, store: Path) -> dict[str, object]:
    """Four small scenes in real time, in which something short happens each 2.5 s."""
    scene = {"type": "synthetic", "scene": "flash_beep", "live": True, "fps": 10}
    return {
        "node": NODE,
        "sources": {
            name: {**scene, "width": 160, "height": 90, "seed": seed}
            for seed, name in enumerate(SOURCES)
        },
        "detectors": NARROW,
        "events": {"loud": SHORT_EVENTS, "motion": SHORT_EVENTS},
        "store": {"path": str(store)},
        "sinks": {
            "mqtt": {"port": port, "username": NODE, "password": PASSWORD},
            "jsonl": {"path": "-"},
        },
        "web": False,
    }


class Broker:
    """A mosquitto that keeps its port, and all that it has acknowledged."""

    def __init__(self, folder: Path) -> None:
        """It does not run yet."""
        with socket.socket() as sock:
            sock.bind((HOST, 0))
            self.port = int(sock.getsockname()[1])
        self._folder = folder
        self._process: Process | None = None

    async def let_in(self, password: str) -> None:
        """From the next start on, only this password lets the program in."""
        passwords = str(self._folder / "passwords")
        await _finished("mosquitto_passwd", "-b", "-c", passwords, NODE, password)
        await _finished("mosquitto_passwd", "-b", passwords, OBSERVER, PASSWORD)

    async def start(self) -> None:
        """Returns when it listens.

        Raises:
            BrokerError: it does not; the text says why.
        """
        config = self._folder / "mosquitto.conf"
        await asyncio.to_thread(config.write_text, "\n".join(self._config()) + "\n")
        self._process = await asyncio.create_subprocess_exec(
            await asyncio.to_thread(_path, "mosquitto"),
            "-c",
            str(config),
            stdout=PIPE,
            stderr=STDOUT,
        )
        said = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECS):
                while not await self._listens():
                    if self._process.returncode is not None and self._process.stdout is not None:
                        said = await self._process.stdout.read()
                        break
                    await asyncio.sleep(0.02)
                else:
                    return
        msg = f"mosquitto does not start: {said.decode(errors='replace')}"
        raise BrokerError(msg)

    async def end(self, how: signal.Signals) -> None:
        """SIGTERM: it writes what it knows; SIGKILL: it knows what it has written."""
        if self._process is not None:
            self._process.send_signal(how)
            await self._process.communicate()
        self._process = None

    def send(self, what: signal.Signals) -> None:
        """SIGSTOP, SIGCONT."""
        if self._process is not None:
            self._process.send_signal(what)

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        writer.close()
        return True

    def _config(self) -> list[str]:
        return [
            f"listener {self.port} {HOST}",
            "user root",
            "log_dest stderr",
            "log_type error",
            "allow_anonymous false",
            f"password_file {self._folder}/passwords",
            "persistence true",
            f"persistence_location {self._folder}/",
            "autosave_on_changes true",
            "autosave_interval 1",
            "max_inflight_messages 0",
            "max_queued_messages 0",
        ]


class Subscriber:
    """A durable one: the broker keeps for it what comes while it is away."""

    def __init__(self, port: int) -> None:
        """Connects at once, on a thread of its own.

        Raises:
            BrokerError: the broker does not let it in.
        """
        self.heard: list[Line] = []
        """So far; appended to on another thread."""
        is_subscribed = threading.Event()
        protocol = MQTTProtocolVersion.MQTTv5
        self._client = Client(CallbackAPIVersion.VERSION2, OBSERVER, protocol=protocol)
        self._client.username_pw_set(OBSERVER, PASSWORD)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: is_subscribed.set()
        self._client.on_message = self._note
        pause_secs = 0.05  # not to be later than the program
        self._client.reconnect_delay_set(pause_secs, pause_secs)  # type: ignore[arg-type]  # whole seconds, says paho
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
        properties.SessionExpiryInterval = 3600
        self._client.connect(HOST, port, clean_start=False, properties=properties)
        self._client.loop_start()
        if not is_subscribed.wait(START_SECS):
            msg = "mosquitto does not answer the subscriber"
            raise BrokerError(msg)

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def _note(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        topic = message.topic.removeprefix(ROOT)
        self.heard.append(Line("broker", _CLOCK.monotonic_ns(), topic, message.payload.decode()))


class Program:
    """`mmstream run` in a process of its own, and what it says as JSON lines."""

    def __init__(self, folder: Path) -> None:
        """It does not run yet; `folder` holds `config.yaml`."""
        self.said: list[Line] = []
        """By all that have run here so far."""
        self.killed: set[str] = set()
        """The boots that were killed."""
        self.boot_id: str | None = None
        """Of the one that runs; None: it has said nothing yet."""
        self.complaints = ""
        """What they have said to people."""
        self._folder = folder
        self._process: Process | None = None
        self._listening: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        return 0 if self._process is None else self._process.pid

    async def start(self) -> None:
        """Returns at once."""
        self.boot_id = None
        tree = str(Path(mmstream.__file__).parent.parent)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from mmstream.cli import main; main()",
            *("run", "config.yaml", "--no-web"),
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": tree, "OMP_NUM_THREADS": "1"},
            stdout=PIPE,
            stderr=PIPE,
            limit=LINE_BYTES,
        )
        out, errors = self._process.stdout, self._process.stderr
        if out is not None and errors is not None:
            self._listening = [
                asyncio.create_task(self._listen(out)),
                asyncio.create_task(self._hear_complaints(errors)),
            ]

    async def kill(self) -> None:
        """SIGKILL, at whatever moment this is."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._over()
            if self.boot_id is not None:
                self.killed.add(self.boot_id)

    async def stop(self) -> int | None:
        """SIGTERM; gives the exit status, None if it had to be killed."""
        if self._process is None or self._process.returncode is not None:
            return None
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_SECS):
                await self._over()
        except TimeoutError:
            await self.kill()
            return None
        return self._process.returncode

    async def _over(self) -> None:
        if self._process is not None:
            await asyncio.gather(self._process.wait(), *self._listening)

    async def _listen(self, out: asyncio.StreamReader) -> None:
        while line := await out.readline():
            at_ns = _CLOCK.monotonic_ns()
            if line.endswith(b"\n"):  # else it was killed in the middle of it
                fields = json.loads(line)
                self.boot_id = fields["boot_id"]
                topic = fields["topic"].removeprefix(ROOT)
                self.said.append(Line("program", at_ns, topic, line.decode()))

    async def _hear_complaints(self, errors: asyncio.StreamReader) -> None:
        while line := await errors.readline():
            self.complaints += line.decode(errors="replace")


def _path(program: str) -> str:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if path is None:
        msg = f"{program} is not installed: apt-get install mosquitto"
        raise BrokerError(msg)
    return path


async def _finished(program: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        await asyncio.to_thread(_path, program), *arguments, stdout=PIPE, stderr=STDOUT
    )
    said, _ = await process.communicate()
    if process.returncode != 0:
        msg = f"{program}: {said.decode(errors='replace')}"
        raise BrokerError(msg)
