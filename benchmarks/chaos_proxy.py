"""Between the program and its broker: a wire that can be slow or cut, and that is listened in on.

What the broker itself has acknowledged is read off the wire here, so that a message which it has
then forgotten is not taken for one that the program has lost.
"""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from mmstream.clock import SystemClock

HOST: Final = "127.0.0.1"
CHUNK_BYTES: Final = 512
"""How finely a slow wire is divided."""
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
"""MQTT 5, section 2.1.2: types of control packets."""
FIRST_REFUSAL: Final = 0x80
"""MQTT 5, section 2.4: reason codes from here on are failures."""

_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True, order=True)
class Number:
    """Which message it is."""

    boot_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class ControlPacket:
    """An MQTT packet: its type, and what follows the fixed header."""

    kind: int
    qos: int
    """Of a PUBLISH."""
    body: bytes


class Splitter:
    """Bytes as they come, cut into MQTT packets (MQTT 5, section 2.1)."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._rest = b""

    def push(self, data: bytes) -> list[ControlPacket]:
        """Those that are complete now."""
        self._rest += data
        packets: list[ControlPacket] = []
        while (packet := self._next()) is not None:
            packets.append(packet)
        return packets

    def _next(self) -> ControlPacket | None:
        n_bytes = shift = 0
        for at, byte in enumerate(self._rest[1:5], start=1):
            n_bytes |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # noqa: PLR2004 - the last byte of a length
                first, end = self._rest[0], at + 1 + n_bytes
                if len(self._rest) < end:
                    return None
                body, self._rest = self._rest[at + 1 : end], self._rest[end:]
                return ControlPacket(first >> 4, first >> 1 & 3, body)
        return None


class Tap:
    """What one connection has said, both ways."""

    def __init__(self, acknowledged: set[Number]) -> None:
        """Numbers that the broker acknowledges go into `acknowledged`."""
        self.accepted_ns: int | None = None
        """When the broker let the program in."""
        self.closed_ns: int | None = None
        """When the program gave the connection up, or lost it."""
        self._acknowledged = acknowledged
        self._up, self._down = Splitter(), Splitter()
        self._under_way: dict[bytes, Number] = {}

    def asked(self, data: bytes) -> None:
        """From the program to the broker."""
        for packet in self._up.push(data):
            if packet.kind == PUBLISH and packet.qos:
                n_topic = int.from_bytes(packet.body[:2]) + 2
                mid = packet.body[n_topic : n_topic + 2]
                self._under_way.pop(mid, None)
                if (number := _number(packet.body[n_topic + 2 :])) is not None:
                    self._under_way[mid] = number

    def answered(self, data: bytes) -> None:
        """From the broker to the program."""
        for packet in self._down.push(data):
            if packet.kind == CONNACK and packet.body[1] == 0:
                self.accepted_ns = _CLOCK.monotonic_ns()
            elif packet.kind == PUBACK and not _is_refusal(packet.body):
                number = self._under_way.pop(packet.body[:2], None)
                if number is not None:
                    self._acknowledged.add(number)


def _is_refusal(body: bytes) -> bool:
    return len(body) > 2 and body[2] >= FIRST_REFUSAL  # noqa: PLR2004 - after the packet's id


def _number(properties_and_payload: bytes) -> Number | None:
    payload = properties_and_payload[max(0, properties_and_payload.find(b"{")) :]
    try:
        fields = json.loads(payload)
        return Number(fields["boot_id"], fields["seq"])
    except (ValueError, KeyError, TypeError):  # a status, or a message without a number
        return None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes on the wire."""

    due_secs: float
    """When they have come through, by the loop's clock."""
    data: bytes


class Proxy:
    """Passes connections on to the broker, as the weather allows."""

    def __init__(self, broker_port: int) -> None:
        """Nobody listens yet; needs a running loop."""
        self.port = 0
        """Kept when it listens again."""
        self.taps: list[Tap] = []
        """Of each connection, the oldest first."""
        self.acknowledged: set[Number] = set()
        """What the broker has acknowledged."""
        self.delay_secs = 0.0
        self.bytes_per_sec: float | None = None
        """None: as fast as can be."""
        self._broker_port = broker_port
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._whole = asyncio.Event()
        self._whole.set()

    async def listen(self) -> None:
        """Let connections in."""
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def refuse(self) -> None:
        """Let no new ones in, as a host on which nothing listens."""
        if self._server is not None:
            self._server.close()

    def cut(self) -> None:
        """From now on nothing comes through and nobody is told."""
        self._whole.clear()

    def mend(self) -> None:
        """What was sent meanwhile comes through, as TCP sends again what was not received."""
        self._whole.set()

    async def close(self) -> None:
        """End all connections."""
        self.refuse()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this as one
        self._serving.add(task)
        tap = Tap(self.acknowledged)
        self.taps.append(tap)
        up: asyncio.Queue[Chunk | None] = asyncio.Queue()
        try:
            with suppress(OSError, asyncio.CancelledError):  # asyncio would log it as a mistake
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._take(reader, up, tap, is_up=True))
                    await self._whole.wait()
                    if tap.closed_ns is None:
                        await self._pass_on(up, writer, tap)
        finally:
            self._serving.discard(task)
            writer.close()

    async def _pass_on(
        self, up: asyncio.Queue[Chunk | None], near: asyncio.StreamWriter, tap: Tap
    ) -> None:
        """Raises: OSError: the broker is not there."""
        reader, far = await asyncio.open_connection(HOST, self._broker_port)
        down: asyncio.Queue[Chunk | None] = asyncio.Queue()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take(reader, down, tap, is_up=False))
                group.create_task(self._give(up, far))
                group.create_task(self._give(down, near))
        finally:
            far.close()

    async def _take(
        self,
        reader: asyncio.StreamReader,
        lane: asyncio.Queue[Chunk | None],
        tap: Tap,
        *,
        is_up: bool,
    ) -> None:
        note = tap.asked if is_up else tap.answered
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                note(data)
                due_secs = asyncio.get_running_loop().time() + self.delay_secs
                lane.put_nowait(Chunk(due_secs, data))
        if is_up:
            tap.closed_ns = _CLOCK.monotonic_ns()
        lane.put_nowait(None)

    async def _give(self, lane: asyncio.Queue[Chunk | None], writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while (chunk := await lane.get()) is not None:
                await asyncio.sleep(chunk.due_secs - asyncio.get_running_loop().time())
                await self._whole.wait()
                if self.bytes_per_sec is not None:
                    await asyncio.sleep(len(chunk.data) / self.bytes_per_sec)
                writer.write(chunk.data)
                await writer.drain()
        await self._whole.wait()
        writer.close()
