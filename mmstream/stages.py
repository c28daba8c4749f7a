"""The protocols of the stream; read this first.

    Source -> [rings, windows] -> Hop -> Scorer (on the worker) -> Scores -> head -> Event
                                                                            -> Sink

A stage knows the records it takes and gives (`mmstream.media`, `mmstream.messages`) and no other
stage. Extending mmstream is passing an object that fits one of these.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from enum import IntEnum
from typing import Protocol, TypeVar, runtime_checkable

from mmstream.media import Bytes, Hop, Hypothesis, Label, MediaItem, Scores, Spoken, Take
from mmstream.messages import Published, Request
from mmstream.metrics import StageMetrics

_In_contra = TypeVar("_In_contra", contravariant=True)
_Out_co = TypeVar("_Out_co", covariant=True)


class Source(Protocol):
    """Something with a camera, a microphone or both."""

    @property
    def name(self) -> str:
        """Its id on the wire."""
        ...

    @property
    def live(self) -> bool:
        """Whether it goes on without us: what is not taken in time is lost."""
        ...

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        """What it counts: items that could not be used, by reason."""
        ...

    def stream(self) -> AbstractAsyncContextManager[AsyncIterator[MediaItem]]:
        """Open it: `SourceStarted` first, then chunks and frames; the iterator's end is the end.

        Raises:
            SourceError: it cannot be opened, or reading it failed.
        """
        ...


class Reader(Protocol):
    """A source that blocks; `mmstream.runtime.capture` gives it a thread and makes it a Source."""

    @property
    def name(self) -> str:
        """Its id on the wire."""
        ...

    @property
    def live(self) -> bool:
        """Whether it goes on without us: what is not taken in time is lost."""
        ...

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        """What it counts: items that could not be used, by reason."""
        ...

    def read(self) -> AbstractContextManager[Iterator[MediaItem]]:
        """As `Source.stream`, blocking; opened, read and closed on one thread."""
        ...


class Stage(Protocol[_In_contra, _Out_co]):
    """A pure step: the same pushes give the same outputs. One owner, no threads, no clock."""

    def push(self, item: _In_contra, /) -> Sequence[_Out_co]:
        """Take one item; give what it completes."""
        ...

    def flush(self) -> Sequence[_Out_co]:
        """No more items come: give the rest."""
        ...


class Load(IntEnum):
    """How much a scorer may cost just now; the worker raises it step by step when it is behind."""

    FULL = 0
    STRETCHED = 1
    """Optional cadences (person, face) are stretched; the rest is as ever."""
    INGEST = 2
    """Keep state in step with the hop, score nothing: `Scores.outputs` stays empty."""


class Scorer(Protocol):
    """Detectors and models: hops in, scores out; on the worker thread, with state per source."""

    def score(self, hops: Sequence[Hop], so_far: Sequence[Scores], load: Load) -> Sequence[Scores]:
        """One per hop, in order. Hops of several sources may be mixed; one source's are in order.

        `so_far` has, for each hop, what the scorers before this one said of it, merged.
        A hop with `gap_before` follows lost time: state that spans hops must not bridge it.
        """
        ...

    def forget(self, source: str) -> None:
        """The source ended or started anew: drop its state."""
        ...


@runtime_checkable
class Reporting(Protocol):
    """What a scorer may have besides, looked at by the worker on its thread."""

    @property
    def metrics(self) -> StageMetrics:
        """What it counts; the worker adds `passed_over`, one for each new problem."""
        ...

    @property
    def problems(self) -> Sequence[str]:
        """What it passes over just now, a line each; one that is new is logged."""
        ...


@runtime_checkable
class Finishing(Protocol):
    """What a scorer may have besides: something to say when a source has ended or stalled."""

    def finish(self, source: str, *, live: bool) -> Scores | None:
        """What is left of all hops so far: the last words of a sentence; None: nothing.

        The next hop of the source, if any, follows lost time. Of a live source what cannot be
        had within half a second is given up.
        """
        ...


@runtime_checkable
class Closing(Protocol):
    """What a scorer may have besides: a thread or a process of its own."""

    def close(self) -> None:
        """Let go of it, within a second; the worker calls it when it ends, and nothing follows."""
        ...


class Recogniser(Protocol):
    """Speech to text. Used on one thread, which need not be the one that made it."""

    def recognise(self, takes: Sequence[Take]) -> Sequence[Hypothesis]:
        """One per take, in order.

        Takes of one source come in order; there is at most one of each source. One that is not
        the last of its utterance may be followed by one of the next: then the rest is lost.

        Raises:
            ScorerError: it cannot go on.
        """
        ...

    def forget(self, source: str) -> None:
        """The source ended or started anew: its utterances count from 0."""
        ...

    def close(self) -> None:
        """Let go of what it holds; nothing follows."""
        ...


class RecogniserSpec(Protocol):
    """A frozen, picklable description of a recogniser."""

    @property
    def name(self) -> str:
        """What health and counters call it."""
        ...

    @property
    def language(self) -> str:
        """What it understands, BCP 47."""
        ...

    @property
    def partial_secs(self) -> float:
        """How much more must have been heard of an utterance before it is asked again."""
        ...

    def build(self, device: str) -> Recogniser:
        """Make it; on the thread that will use it.

        Raises:
            ScorerError: what it needs is not there.
        """
        ...


class Captioner(Protocol):
    """Pictures to sentences. Used on one thread, which need not be the one that made it."""

    def describe(self, pictures: Sequence[Bytes]) -> Sequence[str]:
        """[h, w, 3] RGB each -> a sentence each; empty where nothing came of it.

        Raises:
            ScorerError: it cannot go on.
        """
        ...


class CaptionerSpec(Protocol):
    """A frozen, picklable description of a captioner."""

    @property
    def name(self) -> str:
        """What messages and counters call it."""
        ...

    def build(self, device: str) -> Captioner:
        """Make it; on the thread that will use it.

        Raises:
            ScorerError: what it needs is not there.
        """
        ...


class CommitPolicy(Protocol):
    """Which words of one utterance are certain enough to stay. Pure; made anew for each one."""

    def push(self, hypothesis: Hypothesis) -> Spoken:
        """Its words, after those that were committed before; at the last all are committed."""
        ...


class ScorerSpec(Protocol):
    """A frozen, picklable description of a scorer."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """What its scores may say."""
        ...

    def build(self, device: str) -> Scorer:
        """Make it, on the worker's thread; `device` is `cpu`, `cuda` or `cuda:N`.

        Raises:
            ScorerError: what it needs is not there.
        """
        ...


class Sink(Protocol):
    """Where messages go."""

    @property
    def name(self) -> str:
        """For counters and logs."""
        ...

    @property
    def metrics(self) -> StageMetrics:
        """What it took, delivered and lost, by reason."""
        ...

    async def publish(self, message: Published) -> None:
        """Take a message; returns when it is out of our hands or safely queued.

        Raises:
            SinkError: it is lost.
        """
        ...

    async def ready(self, timeout_secs: float) -> None:
        """Wait until what is published can leave at once; `run` must be running.

        Raises:
            SinkError: it still cannot after `timeout_secs`; the text says why.
        """
        ...

    async def run(self) -> None:
        """Serve until `close`; the runtime gives it a task of its own.

        Raises:
            SinkError: it can never work (wrong credentials, a folder that is not there).
        """
        ...

    async def close(self) -> None:
        """Deliver what is queued, say goodbye, let `run` return; bounded in time by the sink."""
        ...


class Inlet(Protocol):
    """Where requests come from."""

    def requests(self) -> AsyncIterator[Request]:
        """Those that arrive, in order, for ever; one reader takes them."""
        ...
