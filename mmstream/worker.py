"""The worker: one thread that turns hops into scores, batching across sources.

`Backlog` decides, purely, what is scored when and what gives way under overload; `Worker` is the
body of the thread around it. Under overload quality falls in this order, each step counted:
cadences are stretched, then windows are not scored (their hops are still ingested), then the
oldest hop is dropped (the next one carries `gap_before`).
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from mmstream.clock import Clock
from mmstream.config import Settings
from mmstream.errors import ConfigError, ScorerError
from mmstream.features.video import use_one_thread
from mmstream.media import NS_PER_SEC, Hop, Scores, Series, Span, secs_to_ns
from mmstream.metrics import StageMetrics
from mmstream.stages import Closing, Finishing, Load, Reporting, Scorer, ScorerSpec

_ROUNDING: Final = 1e-5
_DRIVERS: Final = tuple(Path("/dev", name) for name in ("nvidiactl", "dxg", "kfd"))
"""What drivers make where there is an accelerator: NVIDIA's, that of WSL, AMD's."""

_FALLS_BACK: Final = "worker.device: CUDA cannot be used, models compute on the processor: %s"

_log = logging.getLogger(__name__)


class WorkerSettings(Settings):
    """How hops are batched, and when the worker counts as behind."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where models compute: `cpu`, `cuda`, `cuda:N`; `auto`: on CUDA if that works, else `cpu`."""
    max_batch: int = Field(8, ge=1, le=256)
    """At most so many hops are scored together."""
    max_wait_ms: float = Field(10.0, ge=0, le=1000)
    """A hop waits this long for those of other sources, milliseconds."""
    queue_hops: int = Field(16, ge=1, le=1000)
    """At most so many hops of one source wait."""
    stale_secs: float = Field(1.0, gt=0, le=60)
    """A live hop that waited so long is ingested, not scored; half of it stretches cadences."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A hop that waits."""

    hop: Hop
    at_ns: int
    """Since when, on the monotonic clock."""
    live: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """The hops of a source are over, for now or for good: its scorers say what is left."""

    source: str
    index: int
    """Of the hop that would follow."""
    at_ns: int
    """When the last hop ended."""
    live: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Hops to score together."""

    queued: tuple[Queued, ...]
    load: Load

    @property
    def hops(self) -> tuple[Hop, ...]:
        """In the order in which they came."""
        return tuple(queued.hop for queued in self.queued)


class Backlog:
    """The hops that wait for the worker: pure, the time is passed in."""

    def __init__(self, settings: WorkerSettings, metrics: StageMetrics) -> None:
        """Empty; drops and savings are counted in `metrics`."""
        self._settings = settings
        self._metrics = metrics
        self._queues: dict[str, deque[Queued]] = {}
        self._is_files_turn = False

    def put(self, hop: Hop, now_ns: int, *, live: bool) -> int:
        """Queue a hop; gives how many older ones of its source were dropped for it (0 or 1)."""
        self._metrics.n_in += 1
        queue = self._queues.setdefault(hop.source, deque())
        queue.append(Queued(hop, now_ns, live))
        if not live or len(queue) <= self._settings.queue_hops:
            return 0
        queue.popleft()
        queue[0] = replace(queue[0], hop=replace(queue[0].hop, gap_before=True))
        self._metrics.drop("hop_dropped")
        return 1

    def forget(self, source: str) -> None:
        """The source has ended: nobody waits for its hops any more."""
        self._queues.pop(source, None)

    def due_in_ns(self, now_ns: int) -> int | None:
        """How long until a batch should be taken (0: now); None when nothing waits.

        A batch is due when it is full, when every source has a hop in it, or when the first
        has waited for `max_wait_ms`. Media that is read, not captured, is never waited for.
        """
        waiting = [queue for queue in self._queues.values() if queue]
        if not waiting:
            return None
        is_full = sum(map(len, waiting)) >= self._settings.max_batch
        if is_full or len(waiting) == len(self._queues):
            return 0
        first = min((queue[0] for queue in waiting), key=lambda queued: queued.at_ns)
        deadline_ns = first.at_ns + round(self._settings.max_wait_ms * 1e6)
        return max(0, deadline_ns - now_ns) if first.live else 0

    def take(self, now_ns: int) -> Batch:
        """The hops to score next, oldest first; call it when something waits.

        Live batches and hops of files alternate where both wait: a file has many hops waiting at
        all times, all of them older than what a live source has just captured.
        """
        first = self._pop_oldest(live=self._is_lives_turn())
        self._is_files_turn = first.live
        taken = [first]
        while first.live and len(taken) < self._settings.max_batch:
            if not any(queue and queue[0].live for queue in self._queues.values()):
                break
            taken.append(self._pop_oldest(live=True))
        return Batch(tuple(taken), self._load(first, len(taken), now_ns))

    def _is_lives_turn(self) -> bool:
        waiting = {queue[0].live for queue in self._queues.values() if queue}
        return not self._is_files_turn if len(waiting) > 1 else waiting == {True}

    def _pop_oldest(self, *, live: bool) -> Queued:
        queues = [queue for queue in self._queues.values() if queue and queue[0].live is live]
        return min(queues, key=lambda queue: queue[0].at_ns).popleft()

    def _load(self, first: Queued, n_hops: int, now_ns: int) -> Load:
        age_ns, stale_ns = now_ns - first.at_ns, secs_to_ns(self._settings.stale_secs)
        if not first.live or 2 * age_ns < stale_ns:
            return Load.FULL
        if age_ns < stale_ns:
            self._metrics.drop("cadence_stretched", n_hops)
            return Load.STRETCHED
        self._metrics.drop("window_skipped", n_hops)
        return Load.INGEST


class Worker:
    """Scores hops on the thread that calls `run`; `submit` and `close` may come from others."""

    def __init__(
        self,
        specs: Sequence[ScorerSpec],
        settings: WorkerSettings,
        clock: Clock,
        deliver: Callable[[Sequence[Scores]], None],
    ) -> None:
        """Nothing is built yet. `deliver` is called on the worker's thread, batch by batch.

        Raises:
            ConfigError: two scorers say the same label.
        """
        self._words = [_Words.of(spec) for spec in specs]
        names = [name for words in self._words for name in words.labels]
        for name in names:
            if names.count(name) > 1:
                msg = f"two scorers say the label {name!r}: switch one of them off"
                raise ConfigError(msg)
        self.metrics = StageMetrics("worker")
        self.device = settings.device
        """Where models compute; `auto` until the scorers are built."""
        self.n_batches = 0
        self.busy_since_ns: int | None = None
        """Since when, on the monotonic clock, it has been at its present batch; None: at none."""
        self.built: Future[None] = Future()
        """Done once the scorers are built, or could not be: what is submitted is scored at once."""
        self.finishes = False
        """Whether a scorer may have more to say when a source has ended; known once built."""
        self._watches: tuple[_Watch, ...] = ()
        self._specs = specs
        self._settings = settings
        self._clock = clock
        self._deliver = deliver
        self._backlog = Backlog(settings, self.metrics)
        self._condition = threading.Condition()
        self._endings: deque[Ending] = deque()
        self._forgotten: set[str] = set()
        self._closed = False

    @property
    def stages(self) -> Sequence[StageMetrics]:
        """Its counters, and those that scorers have of their own once they are built."""
        return (self.metrics, *(watch.scorer.metrics for watch in self._watches))

    def submit(self, hop: Hop, *, live: bool) -> int:
        """Queue a hop; never blocks. Gives how many older ones it pushed out (live only)."""
        with self._condition:
            n_dropped = self._backlog.put(hop, self._clock.monotonic_ns(), live=live)
            self._condition.notify()
        return n_dropped

    def finish(self, ending: Ending) -> None:
        """Deliver one more `Scores` of a source whose hops have all been delivered."""
        with self._condition:
            self._endings.append(ending)
            self._condition.notify()

    def forget(self, source: str) -> None:
        """Drop the state of a source whose hops have all been delivered."""
        with self._condition:
            self._backlog.forget(source)
            self._forgotten.add(source)

    def close(self) -> None:
        """Let `run` return after what is queued."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def run(self) -> None:
        """Score until closed.

        Raises:
            ScorerError: the device is not there, a scorer cannot be built, does not give one
                result per hop, or gives a label other scores than 0..1.
        """
        use_one_thread()
        with ExitStack() as open_ones:
            try:
                scorers = self._build(open_ones)
                self._watches = tuple(_Watch(one) for one in scorers if isinstance(one, Reporting))
                self.finishes = any(isinstance(one, Finishing) for one in scorers)
                self._look()
            finally:
                self.built.set_result(None)
            self._serve(scorers)

    def _serve(self, scorers: Sequence[Scorer]) -> None:
        while (work := self._next()) is not None:
            self.busy_since_ns = self._clock.monotonic_ns()
            self._forget_ended(scorers)
            done = (
                [self._finish(scorers, work)]
                if isinstance(work, Ending)
                else self._score(scorers, work)
            )
            self._look()
            ended_ns = self._clock.monotonic_ns()
            self.busy_since_ns = None
            if isinstance(work, Batch):
                self.n_batches += 1
                self.metrics.n_out += len(done)
                for queued in work.queued:
                    self.metrics.latencies.add(ended_ns - queued.at_ns)
            self._deliver(done)

    def _build(self, open_ones: ExitStack) -> Sequence[Scorer]:
        self.device = _device(self._settings.device)
        try:
            return self._built_there(open_ones)
        except RuntimeError as error:  # of torch: there is no room there, for one
            if self._settings.device != "auto" or self.device == "cpu":
                raise
            _log.warning(_FALLS_BACK, _first_line(error))
        self.device = "cpu"
        open_ones.close()
        return self._built_there(open_ones)

    def _built_there(self, open_ones: ExitStack) -> Sequence[Scorer]:
        scorers = []
        for spec in self._specs:
            scorer = spec.build(self.device)
            if isinstance(scorer, Closing):
                open_ones.callback(scorer.close)
            scorers.append(scorer)
        return scorers

    def _look(self) -> None:
        for watch in self._watches:
            watch.look()

    def _next(self) -> Batch | Ending | None:
        with self._condition:
            while True:
                if self._endings:
                    return self._endings.popleft()
                due_in_ns = self._backlog.due_in_ns(self._clock.monotonic_ns())
                if due_in_ns == 0 or (due_in_ns is not None and self._closed):
                    return self._backlog.take(self._clock.monotonic_ns())
                if self._closed:
                    return None
                self._condition.wait(None if due_in_ns is None else due_in_ns / NS_PER_SEC)

    def _forget_ended(self, scorers: Sequence[Scorer]) -> None:
        with self._condition:
            ended, self._forgotten = self._forgotten, set()
        for source in ended:
            for scorer in scorers:
                scorer.forget(source)

    def _finish(self, scorers: Sequence[Scorer], ending: Ending) -> Scores:
        at = Span(ending.at_ns, ending.at_ns)
        merged = Scores(ending.source, ending.index, at)
        for words, scorer in zip(self._words, scorers, strict=True):
            if isinstance(scorer, Finishing):
                said = scorer.finish(ending.source, live=ending.live)
                if said is not None:
                    merged = _merge(merged, self._checked(words, said))
        return merged

    def _score(self, scorers: Sequence[Scorer], batch: Batch) -> Sequence[Scores]:
        hops = batch.hops
        merged = [Scores(hop.source, hop.index, hop.span) for hop in hops]
        for words, scorer in zip(self._words, scorers, strict=True):
            scored = scorer.score(hops, merged, batch.load)
            if [(s.source, s.index) for s in scored] != [(hop.source, hop.index) for hop in hops]:
                msg = f"{type(scorer).__name__} must give one result per hop, in order"
                raise ScorerError(msg)
            checked = [self._checked(words, one) for one in scored]
            merged = [_merge(one, two) for one, two in zip(merged, checked, strict=True)]
        return merged

    def _checked(self, words: "_Words", scores: Scores) -> Scores:
        """`scores` without those that are no numbers: they are as good as not scored."""
        labels = {*words.labels, *(label.name for label in scores.learned)}
        outputs = {
            name: series
            for name, series in scores.outputs.items()
            if name not in labels or self._is_score(words, name, series)
        }
        objects = tuple(
            one for one in scores.objects if self._is_score(words, one.label, one.series)
        )
        return replace(scores, outputs=outputs, objects=objects)

    def _is_score(self, words: "_Words", name: str, series: Series) -> bool:
        values = series.values
        if np.isnan(values).any():
            self.metrics.drop("not_a_number")
            return False
        if values.ndim != 1 or np.any(np.abs(values - 0.5) > 0.5 + _ROUNDING):
            msg = (
                f"{words.by} must score {name} as [t] in 0..1: "
                f"got {values.shape=} up to {np.abs(values).max()}"
            )
            raise ScorerError(msg)
        return True


@dataclass(frozen=True, slots=True)
class _Words:
    """What a scorer may say; asked once, as specs may read files for it."""

    by: str
    labels: tuple[str, ...]

    @classmethod
    def of(cls, spec: ScorerSpec) -> "_Words":
        return cls(type(spec).__name__, tuple(label.name for label in spec.labels))


@dataclass(slots=True)
class _Watch:
    """Logs and counts what a scorer passes over, once for each time that it begins to."""

    scorer: Reporting
    _before: Sequence[str] = ()

    def look(self) -> None:
        now = self.scorer.problems
        for problem in now:
            if problem not in self._before:
                _log.warning("passed over: %s", problem)
                self.scorer.metrics.drop("passed_over")
        self._before = now


def _merge(one: Scores, two: Scores) -> Scores:
    return replace(
        one,
        outputs={**one.outputs, **two.outputs},
        objects=one.objects + two.objects,
        detections=one.detections + two.detections,
        fused={**one.fused, **two.fused},
        texts=one.texts + two.texts,
        learned=one.learned + two.learned,
        spoken=one.spoken + two.spoken,
        descriptions=one.descriptions + two.descriptions,
    )


def _device(asked: str) -> str:
    """Where to compute; torch, which takes seconds, is not loaded to hear that it is on the CPU.

    Raises:
        ScorerError: a device that is named is not there.
    """
    if asked == "auto":
        if not any(driver.exists() for driver in _DRIVERS):
            return "cpu"
        why = _why_not_cuda()
        if why is not None:
            _log.warning(_FALLS_BACK, why)
        return "cuda" if why is None else "cpu"
    if asked != "cpu":
        _refuse_absent(asked)
    return asked


def _why_not_cuda() -> str | None:
    """Why nothing can be computed on CUDA, as one small sum has shown; None: it can."""
    import torch  # noqa: PLC0415 - seconds, and nothing else here needs it

    try:
        square = torch.ones(2, 2, device="cuda")
        (square @ square).sum().item()
    except (AssertionError, RuntimeError) as error:  # the former: torch was built without it
        return _first_line(error)
    return None


def _refuse_absent(device: str) -> None:
    from torch import cuda  # noqa: PLC0415 - as above

    n_devices = cuda.device_count()
    if int(device.partition(":")[2] or 0) >= n_devices:
        msg = f"worker.device: {device} is not there; allowed: auto, cpu"
        raise ScorerError(msg + "".join(f", cuda:{n}" for n in range(n_devices)))


def _first_line(error: Exception) -> str:
    """What torch says in its first line; the others tell its developers what to do."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
