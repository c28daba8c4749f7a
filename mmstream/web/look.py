"""One look at a run: what `/metrics`, `/healthz` and `/readyz` are made of."""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from mmstream.messages import Content, Event, Health
from mmstream.metrics import StageMetrics


@dataclass(frozen=True, slots=True)
class SourceLook:
    """A source."""

    health: Health
    lag_ms: float | None
    """How long after its capture the last scored hop was scored; None where that means nothing."""
    is_expected: bool
    """Whether it should stream now: it is not disabled, and no recording that has been played."""


@dataclass(frozen=True, slots=True)
class WorkerLook:
    """The worker."""

    device: str
    is_built: bool
    """Whether detectors and models are loaded."""
    n_batches: int
    n_hops: int
    """Scored since the start, in these batches."""
    busy_secs: float | None
    """For how long it has been at its present batch; None while it waits for one."""


@dataclass(frozen=True, slots=True)
class RunLook:
    """A run, as the runtime knows it."""

    node: str
    boot_id: str
    started_utc_ns: int
    """Since 1970."""
    sources: tuple[SourceLook, ...]
    worker: WorkerLook
    stages: tuple[StageMetrics, ...]
    """Read beside the loop: numbers may be one update old."""


class Broker(Protocol):
    """A connection to an MQTT broker; `sinks.mqtt.MqttSink` is one."""

    @property
    def connected(self) -> bool:
        """Whether there is one now."""
        ...

    @property
    def last_error(self) -> Exception | None:
        """Why there is none; the text holds no credentials."""
        ...


class Store(Protocol):
    """The event log on disk, as it was lately; `sinks.spool.Spool` is one."""

    @property
    def n_waiting(self) -> int:
        """Messages that no broker has yet."""
        ...

    @property
    def used_bytes(self) -> int:
        """How much of the file holds something."""
        ...

    @property
    def max_bytes(self) -> int:
        """How much it may hold before the oldest goes."""
        ...

    @property
    def problem(self) -> str | None:
        """Why nothing can be written just now."""
        ...


@dataclass(frozen=True, slots=True)
class StoreLook:
    """The event log on disk; as in `Store`."""

    n_waiting: int
    used_bytes: int
    max_bytes: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class BrokerLook:
    """The connection to the broker."""

    connected: bool
    problem: str | None
    """Why there is none."""


@dataclass(frozen=True, slots=True)
class EventCount:
    """The events of one label of a source since the start."""

    source: str
    label: str
    n_started: int
    n_open: int


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that is shown."""

    run: RunLook
    broker: BrokerLook | None
    """None: no broker is configured."""
    store: StoreLook | None
    """None: nothing is kept on disk."""
    events: tuple[EventCount, ...]


class EventCounts:
    """Counts events from the messages that pass; a label that was seen stays, if with a 0."""

    def __init__(self) -> None:
        """None yet."""
        self._open: dict[str, Event] = {}
        self._n_started: Counter[tuple[str, str]] = Counter()

    def see(self, content: Content) -> None:
        """Count a message, if it is about an event."""
        if not isinstance(content, Event):
            return
        if content.type == "end":
            self._open.pop(content.id, None)
            return
        if content.type == "start":
            self._n_started[content.source, content.label] += 1
        self._open[content.id] = content

    def counts(self) -> tuple[EventCount, ...]:
        """By source and label, in their order."""
        n_open = Counter((event.source, event.label) for event in self._open.values())
        known = sorted(self._n_started.keys() | n_open.keys())
        return tuple(
            EventCount(source, label, self._n_started[source, label], n_open[source, label])
            for source, label in known
        )
