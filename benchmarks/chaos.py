"""Broker, network, disk and the program itself fail; counts what is lost, doubled or out of order.

Each case is a run of `mmstream run` with four sources, a mosquitto of its own and a durable
subscriber. After some seconds one thing fails, for a minute; then it is whole again, all that was
said has to arrive, and the run is ended. What the subscriber heard is compared with the event log
on disk and with the JSON lines (`chaos_verdict`).
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import BaseModel, ConfigDict

from mmstream.benchmarks.chaos_outages import (
    CASES,
    DISK_FULL,
    HALF_OPEN,
    KILL_9,
    Disk,
    Place,
    World,
    is_event,
    messages,
    opened,
)
from mmstream.benchmarks.chaos_picture import secs_until_true
from mmstream.benchmarks.chaos_verdict import Counts, judge
from mmstream.benchmarks.chaos_world import SOURCES
from mmstream.clock import SystemClock
from mmstream.media import NS_PER_SEC, Span
from mmstream.sinks.mqtt import MqttSettings

SECS: Final = 60.0
N_KILLS: Final = 10
WARM_SECS: Final = 30.0
"""How long the program may take until something is heard."""
N_WARM: Final = 8
"""Events that are heard before anything fails."""
RECOVERY_SECS: Final = 90.0
"""How long after a failure all that was said may take to be heard: the program's own pause between
two attempts to connect grows to a minute."""
LAST_SECS: Final = 10.0
"""How long the last messages may take to the subscriber."""
LOOK_SECS: Final = 0.25
DETECTION_SHARE: Final = 1.5
"""A half-open connection is found within so many times the keep-alive."""
TARGET_RETAINED_SECS: Final = 1.0

_CLOCK: Final = SystemClock()


class Case(BaseModel):
    """What one failure did."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    outage_secs: float
    counts: Counts
    per_sec: float
    """Messages in a second, over the whole run."""
    most_per_sec: int
    """Deliveries in the busiest second: while what has waited comes."""
    reconnected_secs: float | None
    """From when all was whole again to when the broker let the program in; null: it never left."""
    retained_secs: float | None
    """The longest time from a reconnect to true retained topics; null: there was none."""
    half_open_secs: float | None
    """From when the broker fell silent to when the program gave the connection up; null: it did
    not, or the connection was ended for it."""
    is_clean: bool
    """The program ended as it should when it was told to, without a traceback."""

    @property
    def is_right(self) -> bool:
        """Whether the promise was kept."""
        counts = self.counts
        wrong = (
            counts.lost,
            counts.waiting,
            counts.duplicates,
            counts.altered,
            counts.disordered,
            counts.gaps,
            counts.stuck,
        )
        return self.is_clean and not any(wrong)


class Chaos(BaseModel):
    """All cases."""

    secs: float
    n_sources: int
    n_kills: int
    keepalive_secs: int
    cases: list[Case]


def measure(secs: float = SECS, n_kills: int = N_KILLS, *, n_together: int = 1) -> Chaos:
    """All cases, so many at a time: together they are sooner done, and disturb each other.

    Raises:
        BrokerError: mosquitto is not there or does not start.
    """
    with ThreadPoolExecutor(n_together) as pool:
        cases = list(pool.map(lambda name: run_case(name, secs, n_kills), CASES))
    return Chaos(
        secs=secs,
        n_sources=len(SOURCES),
        n_kills=n_kills,
        keepalive_secs=MqttSettings().keepalive_secs,
        cases=cases,
    )


def table(found: Chaos) -> str:
    """The figures for people."""
    heading = f"{found.n_sources} sources, {found.secs:g} s each"
    columns = "said  lost  dup  order  gap  late  again  per s  most  back s  true s  found s"
    lines = [f"{heading:<24}{columns}"]
    for case in found.cases:
        n = case.counts
        times = (case.reconnected_secs, case.retained_secs, case.half_open_secs)
        lines.append(
            f"{case.name:<24}{n.said:4}{n.lost + n.waiting:6}{n.duplicates + n.altered:5}"
            f"{n.disordered + n.stuck:7}{n.gaps:5}{n.late:6}{n.repeated:7}{case.per_sec:7.1f}"
            f"{case.most_per_sec:6}"
            + "".join(f"{'-' if secs is None else f'{secs:.2f}':>8}" for secs in times)
            + ("" if case.is_right else "  WRONG")
        )
    lines.append(
        f"target: 0 lost, 0 doubled after dropping by id, type and seq, order kept, no gap; "
        f"true <= {TARGET_RETAINED_SECS:g} s; "
        f"found <= {DETECTION_SHARE * found.keepalive_secs:g} s ({DETECTION_SHARE:g} x keep-alive)"
    )
    return "\n".join(lines)


def run_case(name: str, secs: float, n_kills: int) -> Case:
    """One failure, in a folder that is removed.

    Raises:
        BrokerError: mosquitto is not there or does not start.
    """
    with TemporaryDirectory() as folder, Disk(Path(folder), is_small=name == DISK_FULL) as disk:
        return asyncio.run(_case(name, secs, Place(Path(folder), disk / "events.db", n_kills)))


async def _case(name: str, secs: float, place: Place) -> Case:
    async with opened(place) as world:
        began_ns = _CLOCK.monotonic_ns()
        await world.program.start()
        await _until(lambda: len(world.heard()) >= N_WARM, WARM_SECS)
        failed_ns = _CLOCK.monotonic_ns()
        await CASES[name](world, secs)
        whole_ns = _CLOCK.monotonic_ns()
        n_heard = len(world.heard())
        await _until(
            lambda: len(world.heard()) >= n_heard + N_WARM and _all_is_heard(world), RECOVERY_SECS
        )
        status = await world.program.stop()
        await _until(lambda: _all_is_heard(world), LAST_SECS)
        span = Span(failed_ns, whole_ns)
        counts = judge(await asyncio.to_thread(world.records))
        n_heard = counts.said - counts.lost - counts.waiting - counts.forgotten - counts.unspooled
        return Case(
            name=name,
            outage_secs=round((whole_ns - failed_ns) / 1e9, 1),
            counts=counts,
            per_sec=round(n_heard / (_CLOCK.monotonic_ns() - began_ns) * 1e9, 1),
            most_per_sec=_most_per_sec(world),
            reconnected_secs=_secs_to_reconnect(world, span) if name != KILL_9 else None,
            retained_secs=_longest_untrue(world) if name != KILL_9 else None,
            half_open_secs=_secs_to_notice(world, span) if name in HALF_OPEN else None,
            is_clean=status == 0 and "Traceback" not in world.program.complaints,
        )


def _all_is_heard(world: World) -> bool:
    heard = {one.number for one in world.heard()}
    on_disk, _ = world.on_disk()
    said = (
        one for one in messages(world.program.said) if one.number.boot_id == world.program.boot_id
    )
    return heard.issuperset(one.number for one in (*on_disk, *said))


async def _until(is_so: Callable[[], bool], secs: float) -> None:
    """Or until so much time has passed: what is missing then shows in the figures."""
    with suppress(TimeoutError):
        async with asyncio.timeout(secs):
            while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 - of other processes
                await asyncio.sleep(LOOK_SECS)


def _most_per_sec(world: World) -> int:
    instants = [line.at_ns for line in world.subscriber.heard if is_event(line)]
    n_before = (bisect_left(instants, at_ns - NS_PER_SEC) for at_ns in instants)
    return max((n - before for n, before in enumerate(n_before, 1)), default=0)


def _secs_to_reconnect(world: World, outage: Span) -> float | None:
    accepted = [tap.accepted_ns for tap in world.proxy.taps if tap.accepted_ns is not None]
    after = [max(at_ns, outage.end_ns) for at_ns in accepted if at_ns > outage.start_ns]
    return None if not after else round((after[0] - outage.end_ns) / 1e9, 2)


def _secs_to_notice(world: World, outage: Span) -> float | None:
    closed_ns = world.proxy.taps[0].closed_ns
    if closed_ns is None or not outage.contains(closed_ns):
        return None
    return round((closed_ns - outage.start_ns) / 1e9, 2)


def _longest_untrue(world: World) -> float | None:
    said, heard = tuple(world.program.said), tuple(world.subscriber.heard)
    ended_ns = _CLOCK.monotonic_ns()
    found = [
        secs_until_true(said, heard, since_ns=tap.accepted_ns, until_ns=tap.closed_ns or ended_ns)
        for tap in world.proxy.taps[1:]
        if tap.accepted_ns is not None
    ]
    return max((round(secs, 3) for secs in found if secs is not None), default=None)
