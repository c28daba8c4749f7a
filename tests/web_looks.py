"""Looks at runs for the tests of `mmstream.web`."""

from collections.abc import Sequence

from sink_messages import BOOT_ID, NODE, T_NS, health

from mmstream.messages import HealthState
from mmstream.metrics import StageMetrics
from mmstream.web.look import (
    BrokerLook,
    EventCount,
    Look,
    RunLook,
    SourceLook,
    StoreLook,
    WorkerLook,
)


def source(
    name: str = "door", state: HealthState = "online", *, is_expected: bool = True
) -> SourceLook:
    return SourceLook(health(state, name), lag_ms=12.5, is_expected=is_expected)


def worker(*, is_built: bool = True, busy_secs: float | None = None) -> WorkerLook:
    return WorkerLook("cpu", is_built=is_built, n_batches=4, n_hops=10, busy_secs=busy_secs)


def run_look(
    *sources: SourceLook,
    at_work: WorkerLook | None = None,
    stages: Sequence[StageMetrics] = (),
) -> RunLook:
    return RunLook(NODE, BOOT_ID, T_NS, sources, at_work or worker(), tuple(stages))


def look(
    run: RunLook | None = None,
    *,
    broker: BrokerLook | None = None,
    store: StoreLook | None = None,
    events: tuple[EventCount, ...] = (),
) -> Look:
    return Look(run or run_look(source()), broker, store, events)
