"""Small streams whose every sample and frame can be told apart, and scripted parts around them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import numpy as np

from mmstream.heads.events import EventHead
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import (
    AudioChunk,
    Bytes,
    Hop,
    Label,
    MediaItem,
    Scores,
    Series,
    SourceStarted,
    Span,
    StreamKind,
    VideoFrame,
    ns_to_samples,
    samples_to_ns,
    secs_to_ns,
)
from mmstream.metrics import StageMetrics
from mmstream.runtime.chain import Chain
from mmstream.runtime.features import features_of
from mmstream.stages import Load, Source
from mmstream.windows import HopCutter, HopSettings

RATE_HZ = 16_000
HOP_NS = 250_000_000
BEEP = Label("beep", "audio", "scripted")
FLASH = Label("flash", "video", "scripted")


@dataclass(frozen=True)
class Blank:
    """A picture of nothing (fits `Image`) that claims to hold `nbytes`."""

    nbytes: int = 100
    width: int = 4
    height: int = 4

    @property
    def luma(self) -> Bytes:
        return np.zeros((self.height, self.width), np.uint8)

    def rgb(self, size: tuple[int, int] | None = None) -> Bytes:
        width, height = size or (self.width, self.height)
        return np.zeros((height, width, 3), np.uint8)


def ms(instant: float) -> int:
    """Milliseconds as nanoseconds."""
    return round(instant * 1_000_000)


def started(
    streams: Iterable[StreamKind] = ("audio", "video"),
    *,
    source: str = "cam",
    utc_offset_ns: int = 0,
    clock_offset_ns: int | None = None,
) -> SourceStarted:
    return SourceStarted(source, frozenset(streams), utc_offset_ns, clock_offset_ns)


def chunk(
    start_ns: int, n_samples: int, *, source: str = "cam", rate_hz: int = RATE_HZ
) -> AudioChunk:
    """Sound in which sample `i` of the source's time has the value `i % 60000 + 1`."""
    first = ns_to_samples(start_ns, rate_hz)
    samples = (np.arange(first, first + n_samples) % 60_000 + 1).astype(np.float32)
    return AudioChunk(source, start_ns, rate_hz, samples)


def chunk_ms(start: float, end: float, *, source: str = "cam") -> AudioChunk:
    """The same, from and to a millisecond."""
    return chunk(ms(start), ns_to_samples(ms(end) - ms(start), RATE_HZ), source=source)


def sound(
    start_secs: float, end_secs: float, *, step_ms: int = 20, source: str = "cam"
) -> list[AudioChunk]:
    """Chunks without a hole between."""
    starts = range(secs_to_ns(start_secs), secs_to_ns(end_secs), ms(step_ms))
    n_samples = ns_to_samples(ms(step_ms), RATE_HZ)
    return [chunk(at_ns, n_samples, source=source) for at_ns in starts]


def frame(start_ns: int, *, source: str = "cam", nbytes: int = 100) -> VideoFrame:
    return VideoFrame(source, start_ns, Blank(nbytes))


def pictures(
    start_secs: float, end_secs: float, *, fps: int = 20, source: str = "cam", nbytes: int = 100
) -> list[VideoFrame]:
    """Frames at an even rate."""
    first, end = round(start_secs * fps), round(end_secs * fps)
    return [
        frame(secs_to_ns(index / fps), source=source, nbytes=nbytes) for index in range(first, end)
    ]


def in_time_order(*streams: Sequence[AudioChunk | VideoFrame]) -> list[AudioChunk | VideoFrame]:
    """As one demultiplexer would give them."""
    return sorted((item for stream in streams for item in stream), key=_due_ns)


def _due_ns(item: AudioChunk | VideoFrame) -> int:
    return item.end_ns if isinstance(item, AudioChunk) else item.start_ns


def expected_sound(first: int, n_samples: int) -> list[float]:
    """What `chunk` put at these sample indices."""
    return [float(index % 60_000 + 1) for index in range(first, first + n_samples)]


def halves(item: AudioChunk, n_first: int) -> tuple[AudioChunk, AudioChunk]:
    """A chunk cut in two."""
    middle_ns = item.start_ns + samples_to_ns(n_first, item.rate_hz)
    return (
        AudioChunk(item.source, item.start_ns, item.rate_hz, item.samples[:n_first]),
        AudioChunk(item.source, middle_ns, item.rate_hz, item.samples[n_first:]),
    )


def hop(
    index: int, *, source: str = "cam", gap_before: bool = False, frames: Sequence[VideoFrame] = ()
) -> Hop:
    """A hop with a little sound in it."""
    sounding = np.zeros(4, np.float32), np.ones(4, np.bool_)
    return Hop(source, index, span(index), RATE_HZ, *sounding, tuple(frames), gap_before)


def span(index: int) -> Span:
    """The span of the hop with that index."""
    return Span(index * HOP_NS, (index + 1) * HOP_NS)


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks and threads go on until something is so."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for happens on other threads
            await asyncio.sleep(0.001)


class ListReader:
    """Reads a list, one of `rounds` per opening; an exception in it is raised (fits `Reader`)."""

    def __init__(
        self,
        *rounds: Sequence[MediaItem | Exception],
        name: str = "cam",
        live: bool = False,
    ) -> None:
        self.name = name
        self.live = live
        self.n_opened = 0
        self.n_closed = 0
        self._rounds = rounds

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        return ()

    @contextmanager
    def read(self) -> Iterator[Iterator[MediaItem]]:
        chosen = self._rounds[min(self.n_opened, len(self._rounds) - 1)]
        self.n_opened += 1
        try:
            yield _or_raise(chosen)
        finally:
            self.n_closed += 1


def _or_raise(items: Sequence[MediaItem | Exception]) -> Iterator[MediaItem]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


class ScriptedSource:
    """A source on the loop itself, each opening of which plays `script` (fits `Source`)."""

    def __init__(
        self,
        script: Callable[[int], AsyncIterator[MediaItem]],
        *,
        name: str = "cam",
        live: bool = True,
    ) -> None:
        self.name = name
        self.live = live
        self.n_opened = 0
        self._script = script

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        return ()

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[AsyncIterator[MediaItem]]:
        self.n_opened += 1
        yield self._script(self.n_opened)


@dataclass(frozen=True)
class Script:
    """A scorer that says what `say` says, and remembers what it was given (fits `ScorerSpec`)."""

    say: Callable[[Hop], Mapping[str, Series]]
    labels: tuple[Label, ...] = (BEEP,)
    secs_per_batch: float = 0.0
    given: list[tuple[Hop, Load]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    def build(self, device: str) -> "ScriptedScorer":
        assert device == "cpu"
        return ScriptedScorer(self)


class ScriptedScorer:
    """See `Script`."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002
        load: Load,
    ) -> Sequence[Scores]:
        time.sleep(self._script.secs_per_batch)
        self._script.given.extend((one, load) for one in hops)
        self._script.batches.append(len(hops))
        if load is Load.INGEST:
            return [Scores(one.source, one.index, one.span) for one in hops]
        return [Scores(one.source, one.index, one.span, self._script.say(one)) for one in hops]

    def forget(self, source: str) -> None:
        self._script.forgotten.append(source)


async def beeping(_: int) -> AsyncIterator[MediaItem]:
    """Plays a live source that beeps for a second, then is quiet without an end."""
    yield started(["audio"], clock_offset_ns=0)
    for item in sound(0, 1):
        yield item
    await asyncio.Event().wait()


def beeps(name: str) -> ScriptedSource:
    """The same under any name, and each opening 10 s after the one before."""

    async def play(n: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"], source=name, clock_offset_ns=0)
        for item in sound(10 * n, 10 * n + 1, source=name):
            yield item
        await asyncio.Event().wait()

    return ScriptedSource(play, name=name)


def chain_of(source: Source, settings: LabelSettings | None = None) -> Chain:
    """A source, cut into hops, whose beeps are told as events of node `home`."""
    cutter = HopCutter(source.name, HopSettings(), live=source.live)
    events = {BEEP.name: settings or LabelSettings()}
    head = EventHead(node="home", source=source.name, labels=[BEEP], settings=events)
    return Chain(source, cutter, head, features_of([BEEP], events))


def series(*points: tuple[float, float]) -> Series:
    """A series of (milliseconds, value)."""
    at_ns = np.array([ms(at) for at, _ in points], np.int64)
    return Series(at_ns, np.array([value for _, value in points], np.float32))


def steady(value: float, label: Label = BEEP) -> Callable[[Hop], Mapping[str, Series]]:
    """Says the same of every hop."""
    return lambda one: {
        label.name: Series(np.array([one.span.start_ns], np.int64), np.array([value], np.float32))
    }
