"""What the graph costs beside a bare asyncio.Queue: 640x480 at 30 fps and 20 ms audio chunks.

Latency is from a hop's last item (the one that settles it) leaving the capture thread to that
hop at a scorer that does nothing. CPU is that of the whole process, less a run of the producer
alone. All three use the same paced producer and take turns, as these machines are noisy: the
figures are medians over the rounds.
"""

import asyncio
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from threading import Thread
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from mmstream.clock import SystemClock
from mmstream.codecs import image_from_array
from mmstream.heads.events import EventHead
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    Hop,
    Label,
    MediaItem,
    Scores,
    SourceStarted,
    VideoFrame,
)
from mmstream.metrics import StageMetrics
from mmstream.runtime.capture import ThreadedSource
from mmstream.runtime.chain import Chain
from mmstream.runtime.graph import Graph
from mmstream.runtime.local import LocalRuntime
from mmstream.sources.pacing import due_ns, paced
from mmstream.stages import Load
from mmstream.windows import HopCutter, HopSettings
from mmstream.worker import WorkerSettings

SECS: Final = 5
ROUNDS: Final = 7
FPS: Final = 30
RATE_HZ: Final = 16_000
CHUNK: Final = 320
SOURCE: Final = "bench"
WARM_UP_HOPS: Final = 4
TARGET_LATENCY_US: Final = 100
TARGET_CPU_MS: Final = 4

_CLOCK: Final = SystemClock()


class Run(BaseModel):
    """One way to hand items over."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    p50_us: float
    """Median latency, microseconds."""
    p99_us: float
    cpu_ms_per_media_sec: float
    """Process CPU time less the producer's own, milliseconds per second of media."""


class Overhead(BaseModel):
    """The graph beside the queue: medians over the rounds."""

    secs: int
    rounds: int
    mmstream: Run
    asyncio_queue: Run
    producer_cpu_ms_per_media_sec: float

    @property
    def ratio(self) -> float:
        """Median latency of the graph over that of the queue."""
        return self.mmstream.p50_us / self.asyncio_queue.p50_us


class PacedReader:
    """Yields the items when they are due, noting when each was let go (fits `stages.Reader`)."""

    name = SOURCE
    live = True
    metrics: Sequence[StageMetrics] = ()

    def __init__(self, items: Sequence[MediaItem]) -> None:
        """Nothing is yielded yet."""
        self.left_ns: list[int] = []
        self._items = items

    @contextmanager
    def read(self) -> Iterator[Iterator[MediaItem]]:
        """The items, from now on."""
        yield self._paced()

    def _paced(self) -> Iterator[MediaItem]:
        for item in paced(self._items, _CLOCK):
            self.left_ns.append(_CLOCK.monotonic_ns())
            yield item


class NoScorer:
    """Notes when hops arrive (fits `stages.Scorer` and `stages.ScorerSpec`)."""

    labels: tuple[Label, ...] = ()

    def __init__(self, last: int, on_last: Callable[[], object]) -> None:
        """Nothing has arrived; `on_last` is called when hop `last` has."""
        self.arrived_ns: dict[int, int] = {}
        self._last = last
        self._on_last = on_last

    def build(self, device: str) -> "NoScorer":  # noqa: ARG002 - a protocol's argument
        """Itself."""
        return self

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002
        load: Load,  # noqa: ARG002
    ) -> Sequence[Scores]:
        """Nothing, at once."""
        now_ns = _CLOCK.monotonic_ns()
        self.arrived_ns |= {hop.index: now_ns for hop in hops}
        if hops[-1].index == self._last:
            self._on_last()
        return [Scores(hop.source, hop.index, hop.span) for hop in hops]

    def forget(self, source: str) -> None:
        """There is nothing to forget."""


def measure(secs: int = SECS, rounds: int = ROUNDS) -> Overhead:
    """`rounds` times all three for `secs` seconds each, one after the other; medians of rounds."""
    items = _items(secs)
    settling = _settling(items)
    producers_ms: list[float] = []
    queues: list[Run] = []
    graphs: list[Run] = []
    for _ in range(rounds):
        before_ms = _cpu_ms()
        _run_producer(items)
        producer_ms = (_cpu_ms() - before_ms) / secs
        producers_ms.append(producer_ms)
        for run, runs in ((_run_queue, queues), (_run_graph, graphs)):
            before_ms = _cpu_ms()
            latencies_us = asyncio.run(run(items, settling))
            cpu_ms = (_cpu_ms() - before_ms) / secs
            runs.append(_run(latencies_us, cpu_ms - producer_ms))
    return Overhead(
        secs=secs,
        rounds=rounds,
        mmstream=_median(graphs),
        asyncio_queue=_median(queues),
        producer_cpu_ms_per_media_sec=round(median(producers_ms), 2),
    )


def table(found: Overhead) -> str:
    """The figures for people."""
    graph, queue = found.mmstream, found.asyncio_queue
    more_us = graph.p50_us - queue.p50_us
    more_ms = graph.cpu_ms_per_media_sec - queue.cpu_ms_per_media_sec
    heading = f"640x480@{FPS} + 20 ms audio, {found.rounds} x {found.secs} s"
    lines = [f"{heading:<34} p50 us   p99 us  CPU ms per media-second"]
    for name, run in (("asyncio.Queue", queue), ("mmstream", graph)):
        lines.append(f"{name:<32}{run.p50_us:9.0f}{run.p99_us:9.0f}{run.cpu_ms_per_media_sec:8.2f}")
    lines.append(
        f"more: {more_us:+.0f} us (target <= +{TARGET_LATENCY_US}), {more_ms:+.2f} ms "
        f"(target <= +{TARGET_CPU_MS}); latency ratio {found.ratio:.2f}"
    )
    return "\n".join(lines)


def _items(secs: int) -> list[MediaItem]:
    image = image_from_array(np.zeros((480, 640), np.uint8), "gray")
    samples = np.zeros(CHUNK, np.float32)
    chunk_ns = CHUNK * NS_PER_SEC // RATE_HZ
    chunks = [
        AudioChunk(SOURCE, start_ns, RATE_HZ, samples)
        for start_ns in range(0, secs * NS_PER_SEC, chunk_ns)
    ]
    frames = [VideoFrame(SOURCE, i * NS_PER_SEC // FPS, image) for i in range(secs * FPS)]
    started = SourceStarted(SOURCE, frozenset({"audio", "video"}), 0, None)
    media: list[AudioChunk | VideoFrame] = [*chunks, *frames]
    return [started, *sorted(media, key=due_ns)]


def _settling(items: Sequence[MediaItem]) -> dict[int, int]:
    """Which item settles which hop: item index by hop index."""
    cutter = HopCutter(SOURCE, HopSettings(), live=True)
    return {hop.index: i for i, item in enumerate(items) for hop in cutter.push(item)}


def _run_producer(items: Sequence[MediaItem]) -> None:
    def produce() -> None:
        with PacedReader(items).read() as paced:
            for _ in paced:
                pass

    thread = Thread(target=produce)
    thread.start()
    thread.join()


async def _run_queue(items: Sequence[MediaItem], settling: dict[int, int]) -> list[float]:
    """The least that can be done: a thread, `call_soon_threadsafe` and an asyncio.Queue."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[MediaItem] = asyncio.Queue()
    reader = PacedReader(items)

    def produce() -> None:
        with reader.read() as paced:
            for item in paced:
                loop.call_soon_threadsafe(queue.put_nowait, item)

    Thread(target=produce, daemon=True).start()
    arrived_ns = []
    for _ in items:
        await queue.get()
        arrived_ns.append(_CLOCK.monotonic_ns())
    return [
        (arrived_ns[i] - reader.left_ns[i]) / 1e3 for i in list(settling.values())[WARM_UP_HOPS:]
    ]


async def _run_graph(items: Sequence[MediaItem], settling: dict[int, int]) -> list[float]:
    """The same items through capture, windows and the worker."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    reader = PacedReader(items)
    scorer = NoScorer(max(settling), lambda: loop.call_soon_threadsafe(done.set))
    source = ThreadedSource(reader)
    head = EventHead(node=SOURCE, source=SOURCE, labels=(), settings={})
    chain = Chain(source, HopCutter(SOURCE, HopSettings(), live=True), head)
    graph = Graph(SOURCE, (chain,), (scorer,), WorkerSettings(), (), reports=False)
    runtime = LocalRuntime(graph, SystemClock(), boot_id=SOURCE)
    running = asyncio.create_task(runtime.run())
    await done.wait()
    runtime.stop()
    await running
    hops = list(settling)[WARM_UP_HOPS:]
    return [(scorer.arrived_ns[i] - reader.left_ns[settling[i]]) / 1e3 for i in hops]


def _median(runs: Sequence[Run]) -> Run:
    fields = {name: median(getattr(run, name) for run in runs) for name in Run.model_fields}
    return Run.model_validate(fields)


def _cpu_ms() -> float:
    """What this process has used since it began."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e3


def _run(latencies_us: Sequence[float], cpu_ms: float) -> Run:
    p50, p99 = np.percentile(latencies_us, [50, 99])
    return Run(
        p50_us=round(float(p50), 1),
        p99_us=round(float(p99), 1),
        cpu_ms_per_media_sec=round(cpu_ms, 2),
    )
