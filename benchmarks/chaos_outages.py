"""What goes wrong, and the world in which it does."""

import asyncio
import json
import random
import resource
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmstream.benchmarks.chaos_picture import Line
from mmstream.benchmarks.chaos_proxy import Number, Proxy
from mmstream.benchmarks.chaos_verdict import Message, Records
from mmstream.benchmarks.chaos_world import (
    OTHER_PASSWORD,
    PASSWORD,
    Broker,
    Program,
    Subscriber,
    configuration,
)
from mmstream.errors import StoreError
from mmstream.store.event_log import EventLog

SLOW_DELAY_SECS: Final = 0.5
SLOW_BYTES_PER_SEC: Final = 6000
"""Less than four sources say."""
DISK_MB: Final = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where a case happens."""

    folder: Path
    store: Path
    n_kills: int


@dataclass(frozen=True, slots=True)
class World:
    """Everything that one case needs."""

    place: Place
    broker: Broker
    proxy: Proxy
    program: Program
    subscriber: Subscriber

    def heard(self) -> list[Message]:
        """Events, as they came."""
        return messages(self.subscriber.heard)

    def on_disk(self) -> tuple[list[Message], frozenset[Number]]:
        """What the event log holds, and what of it waits; nothing before there is one."""
        try:
            log = EventLog(self.place.store)
        except StoreError:
            return [], frozenset()
        try:
            rows = list(log.messages())
        finally:
            log.close()
        found = [Message.of(json.loads(row.payload)) for row in rows]
        waiting = (one.number for row, one in zip(rows, found, strict=True) if row.is_waiting)
        return found, frozenset(waiting)

    def records(self) -> Records:
        """All accounts."""
        on_disk, waiting = self.on_disk()
        return Records(
            on_disk,
            waiting,
            said=messages(self.program.said),
            heard=self.heard(),
            acknowledged=frozenset(self.proxy.acknowledged),
            killed=frozenset(self.program.killed),
        )


Outage = Callable[[World, float], Awaitable[None]]
"""Lets something fail for so many seconds."""


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[World]:
    """A world in which all is well; nothing of it is left afterwards.

    Raises:
        BrokerError: mosquitto is not there or does not start.
    """
    broker = Broker(place.folder)
    await broker.let_in(PASSWORD)
    await broker.start()
    proxy = Proxy(broker.port)
    await proxy.listen()
    settings = json.dumps(configuration(proxy.port, place.store))
    await asyncio.to_thread((place.folder / "config.yaml").write_text, settings)
    program = Program(place.folder)
    subscriber = await asyncio.to_thread(Subscriber, broker.port)
    try:
        yield World(place, broker, proxy, program, subscriber)
    finally:
        await program.kill()
        await asyncio.to_thread(subscriber.close)
        await broker.end(signal.SIGKILL)
        await proxy.close()


async def _broker_killed(world: World, secs: float) -> None:
    world.proxy.refuse()
    await world.broker.end(signal.SIGKILL)
    await asyncio.sleep(secs)
    await world.broker.start()
    await world.proxy.listen()


async def _broker_frozen(world: World, secs: float) -> None:
    world.broker.send(signal.SIGSTOP)
    await asyncio.sleep(secs)
    world.broker.send(signal.SIGCONT)


async def _refusing(world: World, secs: float) -> None:
    await _restart_letting_in(world, OTHER_PASSWORD)
    await asyncio.sleep(secs)
    await _restart_letting_in(world, PASSWORD)


async def _restart_letting_in(world: World, password: str) -> None:
    await world.broker.let_in(password)
    await world.broker.end(signal.SIGTERM)
    await world.broker.start()


async def _slow(world: World, secs: float) -> None:
    world.proxy.delay_secs, world.proxy.bytes_per_sec = SLOW_DELAY_SECS, SLOW_BYTES_PER_SEC
    await asyncio.sleep(secs)
    world.proxy.delay_secs, world.proxy.bytes_per_sec = 0, None


async def _partition(world: World, secs: float) -> None:
    world.proxy.cut()
    await asyncio.sleep(secs)
    world.proxy.mend()


async def _disk_full(world: World, secs: float) -> None:
    """A file system that is full; where nobody may mount one, files that may not grow."""
    filler = world.place.store.with_name("filler")
    is_small = await asyncio.to_thread(world.place.store.parent.is_mount)
    if is_small:
        await asyncio.to_thread(_fill, filler)
    else:
        no_limit = resource.prlimit(world.program.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(world.program.pid, resource.RLIMIT_FSIZE, (1, no_limit[1]))
    await asyncio.sleep(secs)
    if is_small:
        await asyncio.to_thread(filler.unlink)
    else:
        resource.prlimit(world.program.pid, resource.RLIMIT_FSIZE, no_limit)


def _fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", 0) as file:
        while True:
            file.write(bytes(4096))


async def _kill_9(world: World, secs: float) -> None:
    """At instants that nobody has chosen: some while it starts, most while events are open.

    The program starts in two seconds and its scenes in three, so this takes longer than `secs`.
    """
    longest_secs = 3 * secs / world.place.n_kills
    dice = random.Random(world.place.n_kills)  # noqa: S311 - so that it can be done again
    for _ in range(world.place.n_kills):
        await asyncio.sleep(dice.uniform(0, longest_secs))
        await world.program.kill()
        await world.program.start()


class Disk:
    """Where the event log is: a folder, or a small file system where one may be mounted."""

    def __init__(self, folder: Path, *, is_small: bool) -> None:
        """Nothing is made yet."""
        self._folder = folder / "disk"
        self._is_small = is_small

    def __enter__(self) -> Path:
        self._folder.mkdir()
        if self._is_small:
            self._is_small = self._mount()
        return self._folder

    def __exit__(self, *_: object) -> None:
        if self._is_small:
            subprocess.run(["umount", str(self._folder)], check=True)  # noqa: S603, S607 - ours

    def _mount(self) -> bool:
        options = ("-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(self._folder))
        done = subprocess.run(["mount", *options], check=False, capture_output=True)  # noqa: S603, S607 - ours
        return done.returncode == 0


DISK_FULL: Final = "disk full"
KILL_9: Final = "kill -9"
CASES: Final[dict[str, Outage]] = {
    "broker killed": _broker_killed,
    "broker frozen": _broker_frozen,
    "credentials refused": _refusing,
    "slow": _slow,
    "partition": _partition,
    DISK_FULL: _disk_full,
    KILL_9: _kill_9,
}
HALF_OPEN: Final = ("broker frozen", "partition")
"""In which nobody tells the program."""


def is_event(line: Line) -> bool:
    """Whether it is one of those that must arrive."""
    return line.topic.endswith("/event")


def messages(lines: Iterable[Line]) -> list[Message]:
    """The events among them."""
    return [Message.of(json.loads(line.payload)) for line in tuple(lines) if is_event(line)]
