"""What the web sees of a run."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from streams import ListReader, chain_of, sound, started, until

from mmstream.clock import SystemClock
from mmstream.errors import SourceError
from mmstream.media import Hop, Label, MediaItem, Scores
from mmstream.runtime.capture import ThreadedSource
from mmstream.runtime.graph import Graph
from mmstream.runtime.local import LocalRuntime
from mmstream.sinks.memory import MemorySink
from mmstream.stages import Load, ScorerSpec
from mmstream.worker import WorkerSettings


@dataclass(frozen=True)
class Gate:
    """Scores nothing until it is opened."""

    is_open: threading.Event
    labels: tuple[Label, ...] = ()

    def build(self, device: str) -> "Gate":
        assert device == "cpu"
        return self

    def score(self, hops: Sequence[Hop], so_far: Sequence[Scores], load: Load) -> Sequence[Scores]:
        assert load is Load.FULL
        self.is_open.wait()
        return so_far[: len(hops)]

    def forget(self, source: str) -> None:
        assert source


def runtime_of(items: Sequence[MediaItem | Exception], *specs: ScorerSpec) -> LocalRuntime:
    source = ThreadedSource(ListReader(items, name="cam"))
    worker = WorkerSettings(max_batch=1)
    graph = Graph("home", (chain_of(source, None),), specs, worker, (MemorySink(),))
    return LocalRuntime(graph, SystemClock(), boot_id="b")


def a_second() -> list[MediaItem | Exception]:
    return [started(["audio"], source="cam"), *sound(0, 1.0, source="cam")]


def test_before_it_runs_and_after_a_recording_was_played() -> None:
    runtime = runtime_of(a_second())
    before = runtime.look()
    assert (before.node, before.boot_id, before.worker.is_built) == ("home", "b", False)
    assert [one.is_expected for one in before.sources] == [True]
    asyncio.run(runtime.run())
    after = runtime.look()
    (played,) = after.sources
    assert (played.health.state, played.is_expected) == ("offline", False)
    assert after.worker.is_built
    assert after.worker.n_hops == after.worker.n_batches == 4
    assert after.worker.busy_secs is None


def test_a_recording_that_cannot_be_read_should_have_streamed() -> None:
    runtime = runtime_of([SourceError("cam: no such file")])
    asyncio.run(runtime.run())
    assert [one.is_expected for one in runtime.look().sources] == [True]


def test_how_long_the_worker_has_been_at_its_batch() -> None:
    gate = Gate(threading.Event())
    runtime = runtime_of(a_second(), gate)

    async def run() -> None:
        running = asyncio.create_task(runtime.run())
        await until(lambda: runtime.look().worker.busy_secs is not None)
        gate.is_open.set()
        await running

    asyncio.run(run())
    assert runtime.look().worker.busy_secs is None
