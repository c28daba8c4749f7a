"""Is it alive, is it ready, what is wrong: judged from one look.

**Alive**: the program does its work, whatever its cameras do. What is not alive should be killed
and started anew, which mends a worker that hangs and no camera that is off. That the event loop
lives is shown by the answer itself.

**Ready**: all that the configuration asks for is there: detectors loaded, every source streams, the
broker is connected. What is not ready needs a person, or time.
"""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

import mmstream
from mmstream.messages import Health, iso_utc
from mmstream.web.look import BrokerLook, Look, SourceLook, StoreLook, WorkerLook

STUCK_SECS: Final = 60.0
"""A batch takes milliseconds; one that takes so long will never end."""

Status = Literal["ok", "degraded", "failing"]
WorkerState = Literal["loading", "running", "stuck"]

_STREAMING: Final = frozenset({"online", "degraded"})


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceReport(_Record):
    """How a source is; as in its health message, but for `lag_ms` and `expected`."""

    state: str
    reason: str
    since: str
    expected: bool
    """False: it is disabled, or a recording that has been played; nothing is wrong with that."""
    video_fps: float | None
    audio_rms: float | None
    lag_ms: float | None
    synced: bool
    restarts: int


class WorkerReport(_Record):
    """How the worker is."""

    state: WorkerState
    device: str


class BrokerReport(_Record):
    """How the connection to the broker is."""

    connected: bool
    problem: str | None


class StoreReport(_Record):
    """How the event log on disk is."""

    waiting: int
    used_bytes: int
    max_bytes: int
    problem: str | None


class Report(_Record):
    """The answer of `/healthz` and `/readyz`."""

    status: Status
    """`failing`: not alive. `degraded`: alive, and something is wrong."""
    ready: bool
    problems: tuple[str, ...]
    """What is wrong, a line each, without credentials."""
    version: str
    node: str
    boot_id: str
    started: str
    worker: WorkerReport
    broker: BrokerReport | None
    store: StoreReport | None
    sources: dict[str, SourceReport]

    @property
    def alive(self) -> bool:
        """Whether it does its work."""
        return self.status != "failing"


def judge(look: Look) -> Report:
    """What a supervisor wants to know."""
    run = look.run
    worker = _worker_state(run.worker)
    hindrances = [*_of_worker(worker), *_of_sources(run.sources), *_of_broker(look.broker)]
    problems = (*hindrances, *_of_degraded(run.sources), *_of_store(look.store))
    status: Status = "degraded" if problems else "ok"
    return Report(
        status="failing" if worker == "stuck" else status,
        ready=not hindrances,
        problems=problems,
        version=mmstream.__version__,
        node=run.node,
        boot_id=run.boot_id,
        started=iso_utc(run.started_utc_ns),
        worker=WorkerReport(state=worker, device=run.worker.device),
        broker=_broker_report(look.broker),
        store=_store_report(look.store),
        sources={one.health.source: _source_report(one) for one in run.sources},
    )


def _worker_state(worker: WorkerLook) -> WorkerState:
    if not worker.is_built:
        return "loading"
    is_stuck = worker.busy_secs is not None and worker.busy_secs >= STUCK_SECS
    return "stuck" if is_stuck else "running"


def _of_worker(state: WorkerState) -> list[str]:
    match state:
        case "loading":
            return ["worker: detectors and models are being loaded"]
        case "stuck":
            return [f"worker: has been at one batch for more than {STUCK_SECS:g} s"]
        case "running":
            return []


def _of_sources(sources: tuple[SourceLook, ...]) -> list[str]:
    """Those that should stream and do not."""
    absent = [one for one in sources if one.is_expected and one.health.state not in _STREAMING]
    return [_line(one.health) for one in absent]


def _of_degraded(sources: tuple[SourceLook, ...]) -> list[str]:
    return [_line(one.health) for one in sources if one.health.state == "degraded"]


def _line(health: Health) -> str:
    return f"source {health.source}: {health.state}: {health.reason}"


def _of_broker(broker: BrokerLook | None) -> list[str]:
    if broker is None or broker.connected:
        return []
    return [f"broker: {broker.problem or 'not connected yet'}"]


def _of_store(store: StoreLook | None) -> list[str]:
    """A store that cannot be written: events go on from memory, so that we are ready."""
    return [] if store is None or store.problem is None else [f"store: {store.problem}"]


def _source_report(one: SourceLook) -> SourceReport:
    health = one.health
    return SourceReport(
        state=health.state,
        reason=health.reason,
        since=health.since,
        expected=one.is_expected,
        video_fps=health.video_fps,
        audio_rms=health.audio_rms,
        lag_ms=one.lag_ms,
        synced=health.synced,
        restarts=health.restarts,
    )


def _broker_report(broker: BrokerLook | None) -> BrokerReport | None:
    if broker is None:
        return None
    return BrokerReport(connected=broker.connected, problem=broker.problem)


def _store_report(store: StoreLook | None) -> StoreReport | None:
    if store is None:
        return None
    return StoreReport(
        waiting=store.n_waiting,
        used_bytes=store.used_bytes,
        max_bytes=store.max_bytes,
        problem=store.problem,
    )
