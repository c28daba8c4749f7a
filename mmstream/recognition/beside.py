"""A thread beside the worker for what takes longer than a hop: recognisers and captioners.

    worker:  put -> Backlog            collect <- answers
                      |                             ^
    thread:         take -> Craft.do (a batch) -----+

The thread is a daemon: one that hangs holds nobody up. Its first work is to build what it uses; a
failure of that is raised by the constructor. What fails later costs the jobs that are there (given
up, counted `failed`) and is built anew after a pause; until then jobs are given up at once. Whoever
waits without a limit is told by a `ScorerError`: a replay without its words would be wrong.
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from mmstream.clock import Clock
from mmstream.errors import ScorerError
from mmstream.media import NS_PER_SEC, Span
from mmstream.metrics import StageMetrics
from mmstream.recognition.backlog import Backlog, Job, stamped

N_AT_ONCE: Final = 8
"""The largest batch, of as many sources."""

FIRST_PAUSE_SECS: Final = 5.0
"""Before what has failed is built again; twice as long each time that nothing comes of it."""
LONGEST_PAUSE_SECS: Final = 300.0
CLOSING_SECS: Final = 0.5
"""How long `close` waits for the thread to end."""

_FADES_SECS: Final = 20.0
_ENOUGH_SECS: Final = 5.0

In = TypeVar("In")
Out = TypeVar("Out")
_In_contra = TypeVar("_In_contra", contravariant=True)
_Out_co = TypeVar("_Out_co", covariant=True)


class Craft(Protocol[_In_contra, _Out_co]):
    """What the thread does; used on it alone."""

    def do(self, work: Sequence[_In_contra], /) -> Sequence[_Out_co]:
        """One result for each, in order; at most one of each source at once."""
        ...

    def forget(self, source: str, /) -> None:
        """The source ended or started anew."""
        ...

    def close(self) -> None:
        """Let go of what it holds; nothing follows."""
        ...


@dataclass(frozen=True, slots=True)
class Answer(Generic[In, Out]):
    """What became of a job."""

    job: Job[In]
    result: Out | None
    """None: it was given up, as too much waits or what does it has failed."""
    took_secs: float = 0.0
    """Since the job was put, or what it took the place of."""


class Factor:
    """How long is computed for a second of new sound: below 1 it keeps up."""

    def __init__(self) -> None:
        """Nothing was measured."""
        self._computed_secs = self._sound_secs = 0.0
        self._late_computed_secs = self._late_sound_secs = 0.0
        self._ends_ns: dict[str, int] = {}

    @property
    def overall(self) -> float | None:
        """Since the beginning; None: nothing was done."""
        return self._computed_secs / self._sound_secs if self._sound_secs else None

    @property
    def recent(self) -> float | None:
        """Of about the last 20 s of sound; None before there were 5 s."""
        if self._sound_secs < _ENOUGH_SECS:
            return None
        return self._late_computed_secs / self._late_sound_secs

    def add(self, done: Sequence[tuple[str, Span]], computed_ns: int) -> None:
        """Take what was done together in that time, by source."""
        sound_secs, computed_secs = 0.0, computed_ns / NS_PER_SEC
        for source, span in done:
            known_ns = max(span.start_ns, self._ends_ns.get(source, span.start_ns))
            sound_secs += max(0, span.end_ns - known_ns) / NS_PER_SEC
            self._ends_ns[source] = span.end_ns
        fade = math.exp(-sound_secs / _FADES_SECS)
        self._computed_secs += computed_secs
        self._sound_secs += sound_secs
        self._late_computed_secs = self._late_computed_secs * fade + computed_secs
        self._late_sound_secs = self._late_sound_secs * fade + sound_secs

    def forget(self, source: str) -> None:
        """The source's time may start anew."""
        self._ends_ns.pop(source, None)


class Beside(Generic[In, Out]):
    """Does jobs on a thread of its own; all methods are for one other thread, the worker's."""

    def __init__(
        self,
        name: str,
        build: Callable[[], Craft[In, Out]],
        metrics: StageMetrics,
        clock: Clock,
    ) -> None:
        """Start the thread and wait until it has built its craft.

        `metrics` counts jobs in and results out, what was dropped, and how long answers took.

        Raises:
            ScorerError: it cannot be built.
        """
        self._name = name
        self._clock = clock
        self._metrics = metrics
        self._condition = threading.Condition()
        self._backlog: Backlog[In] = Backlog(metrics)
        self._answers: dict[str, list[Answer[In, Out]]] = {}
        self._busy: list[Job[In]] = []
        """What the thread is at."""
        self._stale: set[str] = set()
        """Sources forgotten while the thread is at them."""
        self._forgotten: list[str] = []
        self._busy_since_ns = 0
        self._factor = Factor()
        self._error: ScorerError | None = None
        self._failure: ScorerError | None = None
        self._is_built = self._is_resting = self._is_closed = False
        self._thread = threading.Thread(target=self._run, args=(build,), name=name, daemon=True)
        self._thread.start()
        with self._condition:
            self._condition.wait_for(lambda: self._is_built or self._error is not None)
            if self._error is not None:
                raise self._error

    @property
    def failure(self) -> str | None:
        """What failed, until something was done again; None: nothing."""
        with self._condition:
            return None if self._failure is None else str(self._failure)

    @property
    def busy_secs(self) -> float:
        """For how long it has been at what it does now; 0: at nothing."""
        with self._condition:
            since_ns = self._busy_since_ns if self._busy else self._clock.monotonic_ns()
            return (self._clock.monotonic_ns() - since_ns) / NS_PER_SEC

    def behind_secs(self, source: str) -> float:
        """How old the oldest job of the source is that is not answered; 0: there is none."""
        with self._condition:
            since_ns = [job.put_ns for job in self._busy_of(source)]
            if (waits_since_ns := self._backlog.waits_since_ns(source)) is not None:
                since_ns.append(waits_since_ns)
            now_ns = self._clock.monotonic_ns()
            return (now_ns - min(since_ns, default=now_ns)) / NS_PER_SEC

    @property
    def overall_factor(self) -> float | None:
        """Seconds computed per second of new sound since the beginning; None: nothing was done."""
        with self._condition:
            return self._factor.overall

    def put(self, job: Job[In]) -> None:
        """Have it done; never waits."""
        with self._condition:
            self._metrics.n_in += 1
            stamp = stamped(job, self._clock.monotonic_ns())
            if self._is_resting:
                self._give_up([stamp])
                return
            for given_up in self._backlog.put(stamp):
                self._answer(Answer(given_up, None))
            self._condition.notify_all()

    def wait(self, source: str, timeout_secs: float | None = None) -> bool:
        """Until all jobs of the source are answered; gives whether they are.

        Raises:
            ScorerError: there is no limit, and what does them has failed.
        """
        with self._condition:
            is_done = self._condition.wait_for(lambda: not self._is_waiting(source), timeout_secs)
            if timeout_secs is None and self._failure is not None:
                raise self._failure
        return is_done

    def collect(self, source: str) -> Sequence[Answer[In, Out]]:
        """The answers that came since the last time, in order."""
        with self._condition:
            answers = self._answers.pop(source, [])
            self._metrics.realtime_factor = self._factor.recent
            self._metrics.n_out += sum(answer.result is not None for answer in answers)
        return answers

    def forget(self, source: str) -> None:
        """The source ended or started anew: what is still asked of it is answered nowhere."""
        with self._condition:
            n_lost = len(self._backlog.forget(source)) + len(self._answers.pop(source, []))
            if self._busy_of(source):
                self._stale.add(source)
                n_lost += 1
            if n_lost:
                self._metrics.drop("late_result", n_lost)
            self._forgotten.append(source)
            self._factor.forget(source)
            self._condition.notify_all()

    def close(self) -> None:
        """Let the thread end after what it is at, and its craft let go; nothing may follow."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        self._thread.join(CLOSING_SECS)

    def _busy_of(self, source: str) -> Sequence[Job[In]]:
        """What the thread is at of the source as it is now."""
        return [job for job in self._busy if job.source == source and source not in self._stale]

    def _is_waiting(self, source: str) -> bool:
        return self._backlog.has(source) or bool(self._busy_of(source))

    def _answer(self, answer: Answer[In, Out]) -> None:
        self._answers.setdefault(answer.job.source, []).append(answer)

    def _give_up(self, jobs: Sequence[Job[In]]) -> None:
        self._metrics.drop("failed", len(jobs))
        for job in jobs:
            self._answer(Answer(job, None))

    def _run(self, build: Callable[[], Craft[In, Out]]) -> None:
        pause_secs = FIRST_PAUSE_SECS
        while (error := self._serve(build)) is not None:
            with self._condition:
                if not self._is_built:
                    self._error = error
                    self._condition.notify_all()
                    return
                if self._failure is None:
                    pause_secs = FIRST_PAUSE_SECS
                self._break_off(error)
                self._condition.wait_for(lambda: self._is_closed, pause_secs)
                if self._is_closed:
                    return
            pause_secs = min(2 * pause_secs, LONGEST_PAUSE_SECS)

    def _serve(self, build: Callable[[], Craft[In, Out]]) -> ScorerError | None:
        """Build and do until closed (None) or until it fails."""
        try:
            craft = build()
            try:
                with self._condition:
                    self._is_built, self._is_resting = True, False
                    self._condition.notify_all()
                while self._do_next(craft):
                    pass
            finally:
                craft.close()
        except ScorerError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the worker is told
            failure = ScorerError(f"{self._name} failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            return failure
        return None

    def _break_off(self, error: ScorerError) -> None:
        self._failure, self._is_resting = error, True
        self._give_up([job for job in self._busy if job.source not in self._stale])
        while len(self._backlog):
            self._give_up(self._backlog.take(N_AT_ONCE))
        self._busy, self._stale, self._forgotten = [], set(), []
        self._condition.notify_all()

    def _do_next(self, craft: Craft[In, Out]) -> bool:
        """One batch, or one round of forgetting; False: it is closed."""
        with self._condition:
            self._condition.wait_for(
                lambda: self._is_closed or self._forgotten or len(self._backlog)
            )
            if self._is_closed:
                return False
            forgotten, self._forgotten = self._forgotten, []
            self._busy = list(self._backlog.take(N_AT_ONCE))
            self._busy_since_ns = self._clock.monotonic_ns()
        for source in forgotten:
            craft.forget(source)
        if self._busy:
            started_ns = self._clock.monotonic_ns()
            results = craft.do([job.what for job in self._busy])
            self._settle(results, started_ns, self._clock.monotonic_ns())
        return True

    def _settle(self, results: Sequence[Out], started_ns: int, ended_ns: int) -> None:
        with self._condition:
            done = [(job, result) for job, result in zip(self._busy, results, strict=True)]
            self._factor.add([(job.source, job.span) for job, _ in done], ended_ns - started_ns)
            for job, result in done:
                if job.source not in self._stale:
                    took_ns = ended_ns - job.put_ns
                    self._metrics.latencies.add(took_ns)
                    self._answer(Answer(job, result, took_ns / NS_PER_SEC))
                else:
                    self._factor.forget(job.source)
            self._busy, self._stale, self._failure = [], set(), None
            self._condition.notify_all()
