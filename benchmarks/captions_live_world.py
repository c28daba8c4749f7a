"""What `mmstream bench captions-live` watches: the program, its loop, a broker and a subscriber.

The program is a process of its own, as `mmstream run captioning` would be, on a microphone that
hears what we play. We subscribe to a real mosquitto; instants of both processes are of one clock.
"""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmstream.benchmarks.chaos_picture import Line
from mmstream.benchmarks.chaos_world import NODE, PASSWORD, Broker, Subscriber
from mmstream.benchmarks.null_microphone import NullMicrophone
from mmstream.clock import SystemClock
from mmstream.config import load
from mmstream.errors import SourceError
from mmstream.media import Floats, Span, samples_to_ns, secs_to_ns
from mmstream.pipelines import surveillance
from mmstream.pipelines.configuration import Configuration, find

STEP_SECS: Final = 0.005
"""How often the loop is asked to be in time."""
ROOM: Final = "room"
WARM_SECS: Final = 60.0
"""How long the program may take to listen."""
SETTLE_SECS: Final = 1.5
PAUSE_SECS: Final = 1.0
"""Between recordings: each is an utterance, or some."""
STOP_SECS: Final = 15.0
RATE_HZ: Final = 16_000

_LOOK_SECS: Final = 0.02
_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late a task of a loop woke up, that wanted to each `STEP_SECS`."""

    at_ns: NDArray[np.int64]
    """[n]: when it woke, by the monotonic clock."""
    late_ns: NDArray[np.int64]
    """[n]"""

    def within(self, span: Span) -> "Lateness":
        """What was noted in that time."""
        is_within = (self.at_ns >= span.start_ns) & (self.at_ns < span.end_ns)
        return Lateness(self.at_ns[is_within], self.late_ns[is_within])


@dataclass(frozen=True, slots=True)
class Heard:
    """One run of the program, and what was played to it."""

    played: tuple[Span, ...]
    """Of each recording its first and last sample, on our monotonic clock."""
    lines: tuple[Line, ...]
    """What the subscriber heard, in order."""
    lateness: Lateness
    """While it was played."""


def idle(secs: float) -> Lateness:
    """Of a loop of ours that has nothing else to do."""
    watch = _Watch()

    async def nothing() -> None:
        async with _watching(watch):
            await asyncio.sleep(secs)

    asyncio.run(nothing())
    return watch.lateness()


async def played_to(
    recordings: list[Floats], overrides: tuple[str, ...], *, last_secs: float
) -> Heard:
    """Run `captioning` with these overrides, and play recordings, [n] at 16 kHz, one by one.

    After the last one its final is waited for, at most for `last_secs`.

    Raises:
        SourceError: PulseAudio or the program does not start, or the program does not end well.
        BrokerError: mosquitto is not there or does not start.
    """
    with TemporaryDirectory(prefix="live-") as folder, NullMicrophone(Path(folder)) as microphone:
        broker = Broker(Path(folder))
        await broker.let_in(PASSWORD)
        await broker.start()
        try:
            subscriber = await asyncio.to_thread(Subscriber, broker.port)
            try:
                program = _Program(microphone.environment, _overrides(broker.port, overrides))
                try:
                    return await _heard(
                        program, subscriber, microphone, recordings, last_secs=last_secs
                    )
                finally:
                    await asyncio.to_thread(program.kill)
            finally:
                await asyncio.to_thread(subscriber.close)
        finally:
            await broker.end(signal.SIGTERM)


async def _heard(
    program: "_Program",
    subscriber: Subscriber,
    microphone: NullMicrophone,
    recordings: list[Floats],
    *,
    last_secs: float,
) -> Heard:
    def is_listening() -> bool:
        said = [line for line in subscriber.heard if line.topic == f"{ROOM}/health"]
        return any('"online"' in line.payload for line in said)

    await program.wait(is_listening)
    await asyncio.sleep(SETTLE_SECS)
    played = []
    for samples in recordings:
        first_ns = await asyncio.to_thread(microphone.play, samples)
        played.append(Span(first_ns, first_ns + samples_to_ns(samples.size, RATE_HZ)))
        await asyncio.sleep(PAUSE_SECS)
    over_ns = played[-1].end_ns
    for _ in range(round(last_secs / _LOOK_SECS)):
        if _has_final(subscriber.heard, over_ns):
            break
        await asyncio.sleep(_LOOK_SECS)
    over_ns = _CLOCK.monotonic_ns()
    lateness = await asyncio.to_thread(program.stop)
    while_played = lateness.within(Span(played[0].start_ns, over_ns))
    return Heard(tuple(played), tuple(subscriber.heard), while_played)


def _has_final(heard: list[Line], since_ns: int) -> bool:
    return any(line.topic.endswith("caption/final") and line.at_ns > since_ns for line in heard)


def _overrides(port: int, more: tuple[str, ...]) -> tuple[str, ...]:
    broker = f"{{host: 127.0.0.1, port: {port}, username: {NODE}, password: {PASSWORD}}}"
    return (
        f"node={NODE}",
        f"sources={{{ROOM}: {{type: microphone}}}}",
        f"sinks.mqtt={broker}",
        "store=false",
        "web=false",
        *more,
    )


class _Program:
    """The recipe in a process of its own, whose loop is watched."""

    def __init__(self, environment: dict[str, str], overrides: tuple[str, ...]) -> None:
        """It starts at once."""
        context = multiprocessing.get_context("spawn")
        self._answer, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(environment, overrides, theirs))
        self._process.start()
        theirs.close()

    async def wait(self, is_so: Callable[[], bool]) -> None:
        """Until it is so.

        Raises:
            SourceError: the program has ended, or it takes too long.
        """
        deadline_ns = _CLOCK.monotonic_ns() + secs_to_ns(WARM_SECS)
        while not is_so():
            if not self._process.is_alive():
                msg = f"the program ended with status {self._process.exitcode}"
                raise SourceError(msg)
            if _CLOCK.monotonic_ns() > deadline_ns:
                msg = f"the program does not listen to its microphone after {WARM_SECS:g} s"
                raise SourceError(msg)
            await asyncio.sleep(_LOOK_SECS)

    def stop(self) -> Lateness:
        """End it as a signal would; gives how late its loop was.

        Raises:
            SourceError: it does not end well.
        """
        self._process.terminate()
        with suppress(EOFError):
            if self._answer.poll(STOP_SECS):
                lateness = self._answer.recv()
                if isinstance(lateness, Lateness):
                    self._process.join(STOP_SECS)
                    return lateness
        msg = "the program did not end as it should"
        raise SourceError(msg)

    def kill(self) -> None:
        """If it still runs."""
        self._process.kill()
        self._process.join()
        self._answer.close()


def _run(environment: dict[str, str], overrides: tuple[str, ...], answer: Connection) -> None:
    """The program."""
    os.environ.update(environment)
    settings = load(find("captioning"), Configuration, overrides)
    watch = _Watch()

    async def watched() -> None:
        async with _watching(watch):
            await surveillance.run(settings, _CLOCK, out, strict=False, reload=lambda: settings)

    with Path(os.devnull).open("w", encoding="utf-8") as out:
        asyncio.run(watched())
    answer.send(watch.lateness())


class _Watch:
    """Wants to wake up again and again."""

    def __init__(self) -> None:
        self._at_ns: list[int] = []
        self._late_ns: list[int] = []

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            due_ns = _CLOCK.monotonic_ns() + secs_to_ns(STEP_SECS)
            await asyncio.sleep(STEP_SECS)
            now_ns = _CLOCK.monotonic_ns()
            self._at_ns.append(now_ns)
            self._late_ns.append(now_ns - due_ns)

    def lateness(self) -> Lateness:
        """So far."""
        return Lateness(np.array(self._at_ns, np.int64), np.array(self._late_ns, np.int64))


@asynccontextmanager
async def _watching(watch: _Watch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run(), name="lateness")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
