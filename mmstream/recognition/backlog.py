"""What waits for the thread beside the worker, and what goes when that is too slow. Pure.

Work is of two kinds. Of what *may be passed over* (a hypothesis of an utterance that goes on, a
picture to describe) only the latest of each source waits; the others are counted
(`partial_dropped`, `picture_replaced`).
What *must be done* (the last hypothesis of an utterance: the words that stay) waits its turn, for
no hurry of the newer: a caption may come late, but it comes.

Every queue is bounded, so "never dropped" cannot mean "for ever": a recogniser that is slower than
the sound falls behind without limit, and words that come more than minutes late help nobody
who follows a live caption, while memory runs out. So at most five minutes of sound of each source
wait; above that the oldest is given up, said loudly and counted (`final_given_up`). Sources that
are no live ones never come there: they wait for their answers.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from mmstream.media import NS_PER_SEC, Span
from mmstream.metrics import StageMetrics

MAX_WAITING_NS: Final = 300 * NS_PER_SEC
"""How much sound of one source may wait, of that which must be done."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """One piece of work."""

    source: str
    what: T
    span: Span
    """Of the media that it is about; what else is about the same is not new."""
    must_be_done: bool = False
    replaced_as: str = "partial_dropped"
    """What it is counted as when a newer one takes its place."""
    put_ns: int = 0
    """When it was put there, or what it took the place of, monotonic."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    turn: int
    job: Job[T]


class Backlog(Generic[T]):
    """Jobs by source, the oldest first; counts what goes unanswered in `metrics`."""

    def __init__(self, metrics: StageMetrics) -> None:
        """Nothing waits."""
        self._metrics = metrics
        self._queues: dict[str, deque[_Waiting[T]]] = {}
        self._n_put = 0

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._queues.values()))

    def has(self, source: str) -> bool:
        """Whether something of the source waits."""
        return bool(self._queues.get(source))

    def waits_since_ns(self, source: str) -> int | None:
        """Since when the oldest of the source waits; None: nothing does."""
        queue = self._queues.get(source)
        return queue[0].job.put_ns if queue else None

    def put(self, job: Job[T]) -> Sequence[Job[T]]:
        """Let it wait, in the place of one that may be passed over; give those given up for it."""
        queue = self._queues.setdefault(job.source, deque())
        turn, self._n_put = self._n_put, self._n_put + 1
        if queue and not queue[-1].job.must_be_done:
            before = queue.pop()
            turn, job = before.turn, replace(job, put_ns=before.job.put_ns)
            self._metrics.drop(before.job.replaced_as)
        queue.append(_Waiting(turn, job))
        return self._given_up(queue) if job.must_be_done else ()

    def take(self, n: int) -> Sequence[Job[T]]:
        """Up to `n`, the oldest first, at most one of each source."""
        waiting = [queue for queue in self._queues.values() if queue]
        oldest = sorted(waiting, key=lambda queue: queue[0].turn)[:n]
        return [queue.popleft().job for queue in oldest]

    def forget(self, source: str) -> Sequence[Job[T]]:
        """Let nothing of the source wait; give what did."""
        return [waiting.job for waiting in self._queues.pop(source, ())]

    def _given_up(self, queue: deque[_Waiting[T]]) -> Sequence[Job[T]]:
        given_up: list[Job[T]] = []
        while sum(one.job.span.duration_ns for one in queue) > MAX_WAITING_NS and len(queue) > 1:
            given_up.append(queue.popleft().job)
            self._metrics.drop("final_given_up")
        return given_up


def stamped(job: Job[T], at_ns: int) -> Job[T]:
    """The same, put there at `at_ns`."""
    return replace(job, put_ns=at_ns)
